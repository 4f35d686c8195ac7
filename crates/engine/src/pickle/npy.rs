//! Arrays in files of their own, as `numpy.save` writes them (NEP 1), made into what pickles say of arrays.
//!
//! Such a file has a header, which is a dict as Python writes it, and the elements behind it. Arrays of objects
//! would be pickles, and are not read.

use std::borrow::Cow;

use super::{Id, Inline, Node, Object, Pickle};
use crate::document::{CUT_OFF, Fault};

/// How deeply the header may nest; records need a list of tuples.
const DEPTH_MAX: usize = 4;
/// What pickles have for a number or text of NumPy that stands alone.
const SCALAR: &str = "numpy.core.multiarray.scalar";

/// An array of a file.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    /// Its type, as a pickle has it.
    pub(super) dtype: Id,
    pub(super) array: Id,
    /// Its only element as a number or text of NumPy, where it has no dimensions.
    pub(super) scalar: Option<Id>,
}

/// Adds the array of a file to the values.
pub(super) fn read<'a>(bytes: Cow<'a, [u8]>, values: &mut Pickle<'a>) -> Result<Parts, Fault> {
    let cut_off = || Fault::new(CUT_OFF);
    let rest = bytes
        .strip_prefix(b"\x93NUMPY")
        .ok_or_else(|| Fault::new("this is no array of NumPy"))?;
    let (length, start) = match rest {
        [1, _, low, high, ..] => (u32::from(u16::from_le_bytes([*low, *high])), 10),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]), 12),
        [version @ 4..=u8::MAX, ..] => {
            return Err(Fault(format!(
                "an array of the version {version}, which is not known"
            )));
        }
        _ => return Err(cut_off()),
    };
    let end = start + length as usize;
    let header = bytes.get(start..end).ok_or_else(cut_off)?;
    let header = std::str::from_utf8(header)
        .map_err(|_| Fault::new("the header of an array that is not UTF-8"))?;
    let mut literal = Literal {
        rest: header,
        values,
        depth: 0,
    };
    let header = literal.value()?;
    let unknown = || Fault::new("the header of an array that is not known");
    let entries = match &values.nodes[header as usize] {
        Node::Dict(entries) => entries.clone(),
        _ => return Err(unknown()),
    };
    let find = |name: &str| {
        let mut pairs = entries.iter();
        let found = pairs.find(|[key, _]| values.view(*key).as_text() == Some(name));
        found.map(|[_, value]| *value).ok_or_else(unknown)
    };
    let [descr, order, shape] = [find("descr")?, find("fortran_order")?, find("shape")?];
    let dtype = dtype(descr, values)?;
    let order = match values.view(order).as_bool() {
        Some(is_fortran) => {
            if is_fortran {
                "F"
            } else {
                "C"
            }
        }
        None => return Err(unknown()),
    };
    let mut state = Vec::new();
    for (name, value) in [("dtype", dtype), ("shape", shape)] {
        state.push([values.text(name)?, value]);
    }
    state.push([values.text("order")?, values.text(order)?]);
    let wrapper = values.object("numpy.ndarray", Vec::new(), Some(state))?;
    let bytes = match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[end..]),
        Cow::Owned(mut bytes) => {
            bytes.drain(..end);
            Cow::Owned(bytes)
        }
    };
    let scalar = match &values.nodes[shape as usize] {
        Node::Tuple(sizes) if sizes.is_empty() => {
            let element = values.add(Node::Bytes(bytes.clone()))?;
            Some(values.object(SCALAR, vec![dtype, element], None)?)
        }
        _ => None,
    };
    let array = values.add(Node::Inline(Box::new(Inline { wrapper, bytes })))?;
    Ok(Parts {
        dtype,
        array,
        scalar,
    })
}

/// A type by its short name, or of records by a list of their fields.
fn dtype(descr: Id, values: &mut Pickle<'_>) -> Result<Id, Fault> {
    let view = values.view(descr);
    if let Some(name) = view.as_text() {
        let name = name.to_owned();
        return plain(&name, values);
    }
    let broken = || Fault::new("an array of records whose fields are not known");
    let list = view.as_list().ok_or_else(broken)?;
    let fields = list.into_iter().map(|field| match field.as_list()?[..] {
        [name, kind] => Some((name.as_text()?.to_owned(), kind.as_text()?.to_owned())),
        _ => None,
    });
    let fields: Option<Vec<_>> = fields.collect();
    let (mut names, mut places, mut offset) = (Vec::new(), Vec::new(), 0usize);
    for (name, kind) in fields.ok_or_else(broken)? {
        let size = size_of(&kind).ok_or_else(broken)?;
        // What only fills up to an address has no name.
        if !name.is_empty() {
            let (name, kind) = (values.text(&name)?, plain(&kind, values)?);
            let place = values.add(Node::Integer(offset as i64))?;
            names.push(name);
            places.push([name, values.add(Node::Tuple(vec![kind, place]))?]);
        }
        offset = offset.checked_add(size).ok_or_else(broken)?;
    }
    let (names, places) = (
        values.add(Node::Tuple(names))?,
        values.add(Node::Dict(places))?,
    );
    made(&format!("V{offset}"), "|", [names, places], values)
}

pub(super) fn plain(name: &str, values: &mut Pickle<'_>) -> Result<Id, Fault> {
    let none = values.add(Node::None)?;
    match name.strip_prefix('>') {
        Some(name) => made(name, ">", [none, none], values),
        None => made(name, "<", [none, none], values),
    }
}

/// What a pickle has of a type: its short name, and a state.
fn made(
    name: &str,
    order: &str,
    [names, places]: [Id; 2],
    values: &mut Pickle<'_>,
) -> Result<Id, Fault> {
    let (version, none) = (values.add(Node::Integer(3))?, values.add(Node::None)?);
    let state = vec![version, values.text(order)?, none, names, places];
    let (name, state) = (values.text(name)?, values.add(Node::Tuple(state))?);
    values.add(Node::Object(Box::new(Object {
        class: "numpy.dtype".into(),
        arguments: vec![name],
        state: Some(state),
        ..Object::default()
    })))
}

/// Bytes of a type by its short name, such as `<f8`.
fn size_of(name: &str) -> Option<usize> {
    let name = name.trim_start_matches(['<', '>', '=', '|']);
    let (letter, size) = name.split_at_checked(1)?;
    let size: usize = size.parse().ok()?;
    size.checked_mul(if letter == "U" { 4 } else { 1 })
}

/// Reads a value as Python writes it: containers, texts, whole numbers and booleans.
struct Literal<'t, 'v, 'a> {
    rest: &'t str,
    values: &'v mut Pickle<'a>,
    depth: usize,
}

impl Literal<'_, '_, '_> {
    fn value(&mut self) -> Result<Id, Fault> {
        let rest = self.rest.trim_start();
        let first = rest.chars().next().unwrap_or_default();
        self.rest = rest;
        let node = match first {
            '(' => Node::Tuple(self.items(')')?),
            '[' => Node::List(self.items(']')?),
            '{' => {
                let items = self.items('}')?;
                let (pairs, _) = items.as_chunks::<2>();
                Node::Dict(pairs.to_vec())
            }
            '\'' | '"' => {
                let (text, rest) = rest[1..].split_once(first).ok_or_else(broken)?;
                self.rest = rest;
                match text.contains('\\') {
                    true => return Err(broken()),
                    false => Node::Text(text.to_owned().into()),
                }
            }
            _ => {
                let end = rest.find([',', ')', ']', '}', ':', ' ']);
                let (word, rest) = rest.split_at(end.ok_or_else(broken)?);
                self.rest = rest;
                match word {
                    "True" => Node::Bool(true),
                    "False" => Node::Bool(false),
                    // Python 2 wrote long numbers so.
                    number => {
                        let number = number.strip_suffix('L').unwrap_or(number).parse();
                        Node::Integer(number.map_err(|_| broken())?)
                    }
                }
            }
        };
        self.values.add(node)
    }

    /// What stands up to a bracket; keys and values of a dict in turn.
    fn items(&mut self, end: char) -> Result<Vec<Id>, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(broken());
        }
        self.rest = &self.rest[1..];
        let mut items = Vec::new();
        loop {
            let rest = self.rest.trim_start_matches([' ', ',', ':', '\n']);
            if let Some(rest) = rest.strip_prefix(end) {
                self.rest = rest;
                self.depth -= 1;
                return Ok(items);
            }
            self.rest = rest;
            items.push(self.value()?);
        }
    }
}

fn broken() -> Fault {
    Fault::new("the header of an array is damaged")
}

impl Pickle<'_> {
    pub(super) fn text(&mut self, text: &str) -> Result<Id, Fault> {
        self.add(Node::Text(text.to_owned().into()))
    }

    /// Adds an object, with its attributes as its state.
    pub(super) fn object(
        &mut self,
        class: &str,
        arguments: Vec<Id>,
        state: Option<Vec<[Id; 2]>>,
    ) -> Result<Id, Fault> {
        let state = match state {
            Some(entries) => Some(self.add(Node::Dict(entries))?),
            None => None,
        };
        self.add(Node::Object(Box::new(Object {
            class: class.into(),
            arguments,
            state,
            ..Object::default()
        })))
    }
}
