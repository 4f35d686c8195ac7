//! Arrays of NumPy, from what their pickles say of them.

use std::borrow::Cow;

use super::{Inline, Node, View};
use crate::document::Fault;

/// An array whose elements are where the file has them.
#[derive(Clone, Debug)]
pub(crate) struct Array<'p, 'a> {
    /// Where errors point, and whose copies are counted.
    view: View<'p, 'a>,
    shape: Vec<usize>,
    kind: Kind,
    /// Whether the first index runs fastest.
    is_fortran: bool,
    elements: Elements<'p, 'a>,
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
enum Elements<'p, 'a> {
    Bytes {
        bytes: Cow<'p, [u8]>,
        /// From one element to the next, and where each begins within that.
        stride: usize,
        offset: usize,
    },
    Objects(Vec<View<'p, 'a>>),
}

/// A type of elements, and its size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Float(usize),
    Signed(usize),
    Unsigned(usize),
    Bool,
    /// Four bytes for each character.
    Text(usize),
    Object,
    Record(usize),
}

#[derive(Clone, Debug)]
struct Field {
    name: String,
    kind: Kind,
    offset: usize,
}

/// A type as a pickle has it.
struct Type {
    kind: Kind,
    fields: Vec<Field>,
}

impl Kind {
    fn size(self) -> usize {
        match self {
            Self::Float(size) | Self::Signed(size) | Self::Unsigned(size) => size,
            Self::Text(size) | Self::Record(size) => size,
            Self::Bool => 1,
            Self::Object => 8,
        }
    }
}

impl Type {
    /// Reads an object of `numpy.dtype`: made from a short name, with a state of byte order, names and
    /// places of fields, and size.
    fn read(view: View<'_, '_>) -> Result<Self, Fault> {
        let arguments = view.arguments();
        let name = arguments.first().and_then(|name| name.as_text());
        let name = name.filter(|_| view.class() == Some("numpy.dtype"));
        let name = name.ok_or_else(|| view.expected("a NumPy dtype"))?;
        let unknown = || Fault(format!("arrays of the type `{name}` are not read"));
        let state = view.state().and_then(View::as_list).unwrap_or_default();
        if state.get(1).and_then(|order| order.as_text()) == Some(">") {
            return Err(Fault::new(
                "an array whose bytes are in big-endian order is not read; write the file again on this kind of \
                 machine",
            ));
        }
        let name = name.trim_start_matches(['<', '=', '|']);
        let (letter, size) = name.split_at_checked(1).ok_or_else(unknown)?;
        let size = match size {
            "" => 0,
            size => size.parse().map_err(|_| unknown())?,
        };
        let kind = match (letter, size) {
            ("f", 2 | 4 | 8) => Kind::Float(size),
            ("i", 1 | 2 | 4 | 8) => Kind::Signed(size),
            ("u", 1 | 2 | 4 | 8) => Kind::Unsigned(size),
            ("b", 1) => Kind::Bool,
            ("O", _) => Kind::Object,
            ("U", _) => Kind::Text(size.checked_mul(4).ok_or_else(unknown)?),
            ("V", 1..) => Kind::Record(size),
            _ => return Err(unknown()),
        };
        let fields = match (kind, &state[..]) {
            (Kind::Record(_), [_, _, _, names, places, ..]) => fields(*names, *places)?,
            _ => Vec::new(),
        };
        if fields.iter().any(|field| {
            let end = field.offset.checked_add(field.kind.size());
            end.is_none_or(|end| end > kind.size())
        }) {
            return Err(Fault::new("a field lies outside its record"));
        }
        Ok(Self { kind, fields })
    }
}

/// Fields of records of plain numbers.
fn fields(names: View<'_, '_>, places: View<'_, '_>) -> Result<Vec<Field>, Fault> {
    let broken = || names.expected("the names and places of fields");
    let names = names.as_list().ok_or_else(broken)?;
    let places = places.as_dict().ok_or_else(broken)?;
    let mut fields = Vec::with_capacity(names.len());
    for name in names {
        let name = name.as_text().ok_or_else(broken)?;
        let mut pairs = places.iter();
        let place = pairs.find(|[key, _]| key.as_text() == Some(name));
        let place = place.and_then(|[_, place]| place.as_list());
        let [kind, offset, ..] = place.as_deref().ok_or_else(broken)? else {
            return Err(broken());
        };
        // A type within a type is not looked into, so that this ends.
        let (kind, offset) = (Type::read_plain(*kind)?, offset.as_integer());
        let offset = offset.and_then(|offset| usize::try_from(offset).ok());
        fields.push(Field {
            name: name.to_owned(),
            kind,
            offset: offset.ok_or_else(broken)?,
        });
    }
    Ok(fields)
}

impl Type {
    /// Reads a type that has no fields.
    fn read_plain(view: View<'_, '_>) -> Result<Kind, Fault> {
        let arguments = view.arguments();
        let name = arguments.first().and_then(|name| name.as_text());
        match name.is_some_and(|name| name.trim_start_matches(['<', '=', '|']).starts_with('V')) {
            true => Err(Fault::new("records within records are not read")),
            false => Self::read(view).map(|kind| kind.kind),
        }
    }
}

/// The bytes that joblib's wrapper announces behind itself; none for objects, which follow as a pickle.
pub(super) fn inline_size(wrapper: View<'_, '_>) -> Result<Option<usize>, Fault> {
    let kind = Type::read(wrapper.required("dtype")?)?.kind;
    let mut sizes = shape_of(wrapper.required("shape")?)?.into_iter();
    let count = sizes.try_fold(1usize, usize::checked_mul);
    let size = count.and_then(|count| count.checked_mul(kind.size()));
    let size = size.ok_or_else(|| Fault::new("an array larger than memory"))?;
    Ok((kind != Kind::Object).then_some(size))
}

/// Whether joblib has padded an array to an address.
pub(super) fn is_aligned(wrapper: View<'_, '_>) -> bool {
    let alignment = wrapper.get("numpy_array_alignment_bytes");
    alignment.is_some_and(|alignment| !alignment.is_none())
}

fn shape_of(view: View<'_, '_>) -> Result<Vec<usize>, Fault> {
    let sizes = view
        .as_list()
        .or_else(|| view.as_integer().map(|_| vec![view]));
    let sizes = sizes.ok_or_else(|| view.expected("the shape of an array"))?;
    let size = |size: View<'_, '_>| {
        size.as_integer()
            .and_then(|size| usize::try_from(size).ok())
    };
    let sizes: Option<Vec<usize>> = sizes.into_iter().map(size).collect();
    sizes.ok_or_else(|| view.expected("the shape of an array"))
}

/// Bytes that older protocols have as a text of their Latin-1 characters.
pub(super) fn bytes_of<'p>(view: View<'p, '_>) -> Result<Cow<'p, [u8]>, Fault> {
    if let Node::Bytes(bytes) = view.node() {
        return Ok(Cow::Borrowed(bytes));
    }
    let arguments = view.arguments();
    let text = match (view.class(), arguments.as_slice()) {
        (Some("_codecs.encode"), [text, coding]) if coding.as_text() == Some("latin1") => {
            text.as_text()
        }
        (Some("builtins.bytes"), []) => Some(""),
        (Some("builtins.bytearray"), [inner]) => match inner.node() {
            Node::Bytes(bytes) => return Ok(Cow::Borrowed(bytes)),
            _ if inner.class() == Some("_codecs.encode") => return bytes_of(*inner),
            _ => None,
        },
        _ => None,
    };
    let text = text.ok_or_else(|| view.expected("bytes"))?;
    view.copy(text.len() / 8)?;
    let bytes: Result<Vec<u8>, _> = text.chars().map(|c| u8::try_from(u32::from(c))).collect();
    bytes
        .map(Cow::Owned)
        .map_err(|_| Fault::new("bytes with a character that is none"))
}

impl<'p, 'a> Array<'p, 'a> {
    /// Reads whatever is an array.
    pub(crate) fn read(view: View<'p, 'a>) -> Result<Self, Fault> {
        if let Node::Inline(inline) = view.node() {
            return Self::inline(view, inline);
        }
        let not_one = || view.expected("an array");
        let parts: Option<[View<'p, 'a>; 4]> = match view.class() {
            // (version, shape, dtype, whether it is in Fortran's order, elements)
            Some("numpy.core.multiarray._reconstruct") => {
                let state = view.state().and_then(View::as_list);
                state
                    .and_then(|state| <[_; 5]>::try_from(state).ok())
                    .map(|[_, shape, dtype, order, data]| [shape, dtype, order, data])
            }
            Some("numpy.core.numeric._frombuffer") => <[_; 4]>::try_from(view.arguments())
                .ok()
                .map(|[data, dtype, shape, order]| [shape, dtype, order, data]),
            _ => None,
        };
        let [shape, dtype, order, data] = parts.ok_or_else(not_one)?;
        let kind = Type::read(dtype)?;
        let elements = match kind.kind {
            Kind::Object => Elements::Objects(data.as_list().ok_or_else(not_one)?),
            _ => Elements::Bytes {
                bytes: bytes_of(data)?,
                stride: kind.kind.size(),
                offset: 0,
            },
        };
        let is_fortran = order.as_bool() == Some(true) || order.as_text() == Some("F");
        Self::checked(view, shape_of(shape)?, kind, is_fortran, elements)
    }

    fn inline(view: View<'p, 'a>, inline: &'p Inline<'a>) -> Result<Self, Fault> {
        let wrapper = view.at(inline.wrapper);
        let kind = Type::read(wrapper.required("dtype")?)?;
        let elements = Elements::Bytes {
            bytes: Cow::Borrowed(&inline.bytes),
            stride: kind.kind.size(),
            offset: 0,
        };
        let is_fortran = wrapper.get("order").and_then(View::as_text) == Some("F");
        let shape = shape_of(wrapper.required("shape")?)?;
        Self::checked(view, shape, kind, is_fortran, elements)
    }

    /// A number, boolean or text of NumPy that stands alone.
    pub(super) fn scalar(view: View<'p, 'a>) -> Option<Self> {
        let arguments = view.arguments();
        let ([dtype, data], Some("numpy.core.multiarray.scalar")) =
            (arguments.as_slice(), view.class())
        else {
            return None;
        };
        let kind = Type::read(*dtype).ok()?;
        let elements = Elements::Bytes {
            bytes: bytes_of(*data).ok()?,
            stride: kind.kind.size(),
            offset: 0,
        };
        Self::checked(view, Vec::new(), kind, false, elements).ok()
    }

    fn checked(
        view: View<'p, 'a>,
        shape: Vec<usize>,
        kind: Type,
        is_fortran: bool,
        elements: Elements<'p, 'a>,
    ) -> Result<Self, Fault> {
        let count = shape
            .iter()
            .try_fold(1usize, |all, size| all.checked_mul(*size));
        let there = match &elements {
            Elements::Objects(items) => count == Some(items.len()),
            Elements::Bytes { bytes, stride, .. } => {
                count.and_then(|count| count.checked_mul(*stride)) == Some(bytes.len())
            }
        };
        // Elements without a size could be any number of them.
        if !there || kind.kind.size() == 0 && count != Some(0) {
            return Err(Fault(format!(
                "an array of the shape {shape:?} has other elements"
            )));
        }
        Ok(Self {
            view,
            shape,
            kind: kind.kind,
            is_fortran,
            elements,
            fields: kind.fields,
        })
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub(crate) fn is_boolean(&self) -> bool {
        self.kind == Kind::Bool
    }

    /// Whether its elements are Python's objects of any kind.
    pub(crate) fn is_of_objects(&self) -> bool {
        self.kind == Kind::Object
    }

    pub(crate) fn is_none(&self, index: usize) -> bool {
        self.object(index).is_some_and(View::is_none)
    }

    /// One field of all records.
    pub(crate) fn field(&self, name: &str) -> Result<Option<Self>, Fault> {
        let Some(field) = self.fields.iter().find(|field| field.name == name) else {
            return Ok(None);
        };
        let Elements::Bytes { bytes, stride, .. } = &self.elements else {
            return Err(self.view.expected("an array of records"));
        };
        Ok(Some(Self {
            kind: field.kind,
            fields: Vec::new(),
            elements: Elements::Bytes {
                bytes: bytes.clone(),
                stride: *stride,
                offset: field.offset,
            },
            ..self.clone()
        }))
    }

    /// Where the element is that comes so far on in the order of the rows.
    fn place(&self, index: usize) -> usize {
        if !self.is_fortran || self.shape.len() < 2 {
            return index;
        }
        let (mut rest, mut place) = (index, 0);
        let mut sizes = self.len();
        for size in self.shape.iter().rev() {
            sizes /= size;
            place += rest % size * sizes;
            rest /= size;
        }
        place
    }

    fn element(&self, index: usize) -> Option<&[u8]> {
        match &self.elements {
            Elements::Bytes {
                bytes,
                stride,
                offset,
            } => {
                let start = self
                    .place(index)
                    .checked_mul(*stride)?
                    .checked_add(*offset)?;
                bytes.get(start..start.checked_add(self.kind.size())?)
            }
            Elements::Objects(_) => None,
        }
    }

    fn object(&self, index: usize) -> Option<View<'p, 'a>> {
        match &self.elements {
            Elements::Objects(items) => items.get(self.place(index)).copied(),
            Elements::Bytes { .. } => None,
        }
    }

    pub(crate) fn boolean(&self, index: usize) -> Option<bool> {
        match self.kind {
            Kind::Bool => self.element(index).map(|bytes| bytes[0] != 0),
            Kind::Object => self.object(index)?.as_bool(),
            _ => None,
        }
    }

    pub(crate) fn integer(&self, index: usize) -> Option<i64> {
        match self.kind {
            Kind::Signed(size) => {
                let bytes = self.element(index)?;
                let mut all = [if bytes[size - 1] & 0x80 == 0 { 0 } else { 0xFF }; 8];
                all[..size].copy_from_slice(bytes);
                Some(i64::from_le_bytes(all))
            }
            Kind::Unsigned(size) => {
                let mut all = [0; 8];
                all[..size].copy_from_slice(self.element(index)?);
                i64::try_from(u64::from_le_bytes(all)).ok()
            }
            Kind::Object => self.object(index)?.as_integer(),
            _ => None,
        }
    }

    pub(crate) fn number(&self, index: usize) -> Option<f64> {
        match self.kind {
            Kind::Float(8) => Some(f64::from_le_bytes(self.element(index)?.try_into().ok()?)),
            Kind::Float(4) => {
                let number = f32::from_le_bytes(self.element(index)?.try_into().ok()?);
                Some(f64::from(number))
            }
            Kind::Float(_) => Some(half(u16::from_le_bytes(
                self.element(index)?.try_into().ok()?,
            ))),
            Kind::Bool => self.boolean(index).map(|flag| f64::from(u8::from(flag))),
            Kind::Object => self.object(index)?.as_number(),
            _ => self.integer(index).map(|number| number as f64),
        }
    }

    pub(crate) fn text(&self, index: usize) -> Option<Cow<'p, str>> {
        if self.kind == Kind::Object {
            let object = self.object(index)?;
            return match object.as_text() {
                Some(text) => Some(Cow::Borrowed(text)),
                None => Self::scalar(object)?
                    .text(0)
                    .map(|text| Cow::Owned(text.into_owned())),
            };
        }
        let Kind::Text(_) = self.kind else {
            return None;
        };
        let (characters, _) = self.element(index)?.as_chunks::<4>();
        let characters = characters.iter().map(|bytes| u32::from_le_bytes(*bytes));
        // Texts are filled up with zeros.
        let text: Option<String> = characters
            .take_while(|character| *character != 0)
            .map(char::from_u32)
            .collect();
        text.map(Cow::Owned)
    }

    /// All numbers, in the order of the rows.
    pub(crate) fn numbers(&self) -> Result<Vec<f64>, Fault> {
        self.view.copy(self.len())?;
        let numbers: Option<Vec<f64>> = (0..self.len()).map(|index| self.number(index)).collect();
        numbers.ok_or_else(|| self.view.expected("an array of numbers"))
    }

    /// All whole numbers, in the order of the rows.
    pub(crate) fn integers(&self) -> Result<Vec<i64>, Fault> {
        self.view.copy(self.len())?;
        let numbers: Option<Vec<i64>> = (0..self.len()).map(|index| self.integer(index)).collect();
        numbers.ok_or_else(|| self.view.expected("an array of whole numbers"))
    }

    /// All texts, in the order of the rows; none if one is something else.
    pub(crate) fn texts(&self) -> Option<Vec<Cow<'p, str>>> {
        self.view
            .copy(self.len().saturating_mul(self.kind.size() / 8 + 1))
            .ok()?;
        (0..self.len()).map(|index| self.text(index)).collect()
    }

    /// All objects, in the order of the rows.
    pub(crate) fn objects(&self) -> Result<Vec<View<'p, 'a>>, Fault> {
        self.view.copy(self.len())?;
        let objects: Option<Vec<_>> = (0..self.len()).map(|index| self.object(index)).collect();
        objects.ok_or_else(|| self.view.expected("an array of objects"))
    }
}

/// A number of 16 bits.
fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1F), f64::from(bits & 0x3FF));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        0x1F if fraction == 0.0 => f64::INFINITY,
        0x1F => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}
