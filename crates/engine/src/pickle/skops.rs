//! Files of skops: a zip archive with a model in JSON (`schema.json`), and its arrays in files beside that.
//!
//! A value of the JSON is an object that names a class and its loader, the code in skops that makes the value again
//! (`skops/io/_general.py`, `_numpy.py`, `_scipy.py` and `_sklearn.py` there). Each is made into what a pickle says of
//! such a value, and the same list has the classes that may be named. Nothing in such a file is run.

use std::borrow::Cow;
use std::collections::HashMap;

use super::archive::{Archive, Left};
use super::values::decimal;
use super::{Id, Node, Object, Pickle, names, npy, unpacked_max};
use crate::document::{Fault, Object as Schema, Value, named, parse_json, shorten};

/// The newest form of the files that is known.
const PROTOCOL_MAX: i64 = 2;
/// How deeply lists may nest that hold the elements of an array.
const DIMENSIONS_MAX: usize = 32;

/// Reads a model.
pub(crate) fn read<'a>(archive: &'a Archive<'_>) -> Result<Pickle<'a>, Fault> {
    let left = Left::new(unpacked_max(archive.size));
    let schema = archive.read("schema.json", &left)?;
    let schema = parse_json(&schema).map_err(named("schema.json"))?;
    let mut reader = Reader {
        archive,
        left,
        values: Pickle::new(archive.size),
        known: HashMap::new(),
        files: HashMap::new(),
    };
    let root = reader.model(&schema).map_err(named("schema.json"))?;
    reader.values.allow_copies(reader.left.read() as usize);
    reader.values.root = root;
    Ok(reader.values)
}

struct Reader<'a, 'f> {
    archive: &'a Archive<'f>,
    left: Left,
    values: Pickle<'a>,
    /// Values by their numbers: one that stands in several places is the same in all.
    known: HashMap<i64, Id>,
    /// What files hold that were read.
    files: HashMap<Box<str>, npy::Parts>,
}

impl<'a> Reader<'a, '_> {
    fn model(&mut self, schema: &Value<'_>) -> Result<Id, Fault> {
        let protocol = schema.as_object()?.integer("protocol")?;
        if !(0..=PROTOCOL_MAX).contains(&protocol) {
            return Err(Fault(format!(
                "protocol {protocol} of skops is not known; the newest that is read is {PROTOCOL_MAX}"
            )));
        }
        self.value(schema)
    }

    fn value(&mut self, schema: &Value<'_>) -> Result<Id, Fault> {
        let schema = schema.as_object()?;
        let number = schema.get("__id__").map(Value::as_integer).transpose()?;
        if let Some(known) = number.and_then(|number| self.known.get(&number)) {
            return Ok(*known);
        }
        let id = self.made(schema)?;
        if let Some(number) = number {
            self.known.insert(number, id);
        }
        Ok(id)
    }

    /// Adds a value that was not there before.
    fn made(&mut self, schema: &Schema<'_>) -> Result<Id, Fault> {
        let loader = schema.text("__loader__")?;
        // Before protocol 1 the name of a function stood within.
        let content = schema
            .get("content")
            .and_then(|content| content.as_object().ok());
        let class = match content.filter(|_| loader == "FunctionNode") {
            Some(content) => names::admit(content.text("module_path")?, content.text("function")?)?,
            None => names::admit(schema.text("__module__")?, schema.text("__class__")?)?,
        };
        let node = match loader {
            "JsonNode" => plain(&parse_json(schema.text("content")?.as_bytes())?)?,
            "ListNode" => Node::List(self.items(schema)?),
            "TupleNode" => Node::Tuple(self.items(schema)?),
            "SetNode" => Node::Set(self.items(schema)?),
            "TypeNode" | "FunctionNode" => Node::Name(class),
            "DictNode" => {
                let entries = self.entries(schema)?;
                match &*class {
                    "builtins.dict" => Node::Dict(entries),
                    _ => Node::Object(Box::new(Object {
                        class,
                        entries,
                        ..Object::default()
                    })),
                }
            }
            "DefaultDictNode" => {
                let entries = self.entries(schema.object("content")?.object("main")?)?;
                Node::Object(Box::new(Object {
                    class,
                    entries,
                    ..Object::default()
                }))
            }
            "SliceNode" => {
                let content = schema.object("content")?;
                let bounds = ["start", "stop", "step"].iter();
                let bounds = bounds.map(|name| self.values.add(plain(content.required(name)?)?));
                object(class, bounds.collect::<Result<_, _>>()?, None)
            }
            "BytesNode" | "BytearrayNode" => {
                Node::Bytes(self.archive.read(schema.text("file")?, &self.left)?)
            }
            "NdArrayNode" => return self.array(schema, class),
            "DTypeNode" => return self.dtype(schema.object("content")?),
            "SparseMatrixNode" => return self.sparse(schema.text("file")?, &class),
            "ObjectNode" => {
                let state = schema.get("content").map(|content| self.value(content));
                object(class, Vec::new(), state.transpose()?)
            }
            "TreeNode" | "LossNode" => {
                let state = self.value(schema.required("content")?)?;
                let arguments = self.items(schema.object("__reduce__")?.object("args")?)?;
                object(class, arguments, Some(state))
            }
            "ConstructorFromReduceNode" => {
                let arguments = self.items(schema.object("content")?)?;
                object(class, arguments, None)
            }
            "RandomStateNode" => {
                let state = self.value(schema.required("content")?)?;
                object(class, Vec::new(), Some(state))
            }
            // What else it holds is of no use without the rest of NumPy.
            "RandomGeneratorNode" => object(class, Vec::new(), None),
            "MaskedArrayNode" => {
                let content = schema.object("content")?;
                let parts = ["data", "mask"].iter();
                let parts = parts.map(|name| self.value(content.required(name)?));
                object(class, parts.collect::<Result<_, _>>()?, None)
            }
            "PartialNode" => {
                let content = schema.object("content")?;
                let parts = ["func", "args", "kwds", "namespace"].iter();
                let parts = parts.map(|name| self.value(content.required(name)?));
                let parts = parts.collect::<Result<Vec<Id>, _>>()?;
                let function = parts[0];
                let state = self.values.add(Node::Tuple(parts))?;
                object(class, vec![function], Some(state))
            }
            loader => {
                return Err(Fault(format!(
                    "`{class}` is there by the loader `{}`, which is not read",
                    shorten(loader)
                )));
            }
        };
        self.values.add(node)
    }

    /// The values of a list, a tuple or a set.
    fn items(&mut self, schema: &Schema<'_>) -> Result<Vec<Id>, Fault> {
        let items = schema.list("content")?.iter().enumerate();
        items
            .map(|(index, item)| {
                self.value(item)
                    .map_err(|fault| fault.inside(format_args!("item {index}")))
            })
            .collect()
    }

    /// The keys and values of a dict. JSON has all keys as texts, and the file their types beside them.
    fn entries(&mut self, schema: &Schema<'_>) -> Result<Vec<[Id; 2]>, Fault> {
        let content = schema.object("content")?;
        let kinds = schema.object("key_types")?.list("content")?;
        let mut kind = None;
        for each in kinds {
            let each = each.as_object()?;
            let each = names::admit(each.text("__module__")?, each.text("__class__")?)?;
            // Our objects do not keep the order of their keys.
            if kind.get_or_insert_with(|| each.clone()) != &each {
                return Err(Fault::new("a dict with keys of several types is not read"));
            }
        }
        let mut entries = Vec::with_capacity(kinds.len());
        for (key, value) in content.entries() {
            let value = self.value(value).map_err(named(&shorten(key)))?;
            let node = match kind.as_deref() {
                Some("builtins.str" | "numpy.str_") => Node::Text(key.to_owned().into()),
                _ => plain(&parse_json(key.as_bytes())?)?,
            };
            entries.push([self.values.add(node)?, value]);
        }
        match entries.len() == kinds.len() {
            true => Ok(entries),
            false => Err(Fault::new("a dict with other keys than types of keys")),
        }
    }

    /// An array of a file.
    fn file(&mut self, name: &str) -> Result<npy::Parts, Fault> {
        if let Some(parts) = self.files.get(name) {
            return Ok(*parts);
        }
        let bytes = self.archive.read(name, &self.left)?;
        let parts = npy::read(bytes, &mut self.values)
            .map_err(|fault| fault.inside(format_args!("`{}`", shorten(name))))?;
        self.files.insert(name.into(), parts);
        Ok(parts)
    }

    /// An array, or a number or text of NumPy that stands alone, which has a file of its own too.
    fn array(&mut self, schema: &Schema<'_>, class: Box<str>) -> Result<Id, Fault> {
        if schema.text("type")? == "json" {
            return self.objects(schema);
        }
        let parts = self.file(schema.text("file")?)?;
        if &*class == "numpy.ndarray" {
            return Ok(parts.array);
        }
        parts
            .scalar
            .ok_or_else(|| Fault(format!("`{class}` of more than one value")))
    }

    /// A type, which an empty array has.
    fn dtype(&mut self, held: &Schema<'_>) -> Result<Id, Fault> {
        match held.text("type")? {
            "json" => npy::plain("O", &mut self.values),
            _ => Ok(self.file(held.text("file")?)?.dtype),
        }
    }

    /// An array of objects, which stand in lists, as deeply as it has dimensions.
    fn objects(&mut self, schema: &Schema<'_>) -> Result<Id, Fault> {
        let shape = self.value(schema.required("shape")?)?;
        let dimensions = self
            .values
            .view(shape)
            .as_list()
            .map_or(0, |shape| shape.len());
        if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
            return Err(Fault(format!("an array of {dimensions} dimensions")));
        }
        let mut elements = self.items(schema)?;
        for _ in 1..dimensions {
            let lists = elements
                .iter()
                .map(|list| match &self.values.nodes[*list as usize] {
                    Node::List(items) => Ok(items.as_slice()),
                    _ => Err(self.values.view(*list).expected("a list of elements")),
                });
            elements = lists.collect::<Result<Vec<_>, _>>()?.concat();
        }
        let dtype = npy::plain("O", &mut self.values)?;
        let state = [
            self.values.add(Node::Integer(1))?,
            shape,
            dtype,
            self.values.add(Node::Bool(false))?,
            self.values.add(Node::List(elements))?,
        ];
        let state = self.values.add(Node::Tuple(state.into()))?;
        let array = object(
            "numpy.core.multiarray._reconstruct".into(),
            Vec::new(),
            Some(state),
        );
        self.values.add(array)
    }

    /// A sparse matrix of SciPy, whose arrays are in an archive of their own.
    fn sparse(&mut self, name: &str, class: &str) -> Result<Id, Fault> {
        let bytes = self.archive.read(name, &self.left)?;
        let inside = |fault: Fault| fault.inside(format_args!("`{}`", shorten(name)));
        let archive = Archive::open(&bytes).map_err(inside)?;
        let mut state = Vec::new();
        for file in archive.names() {
            let content = archive.read(file, &self.left).map_err(inside)?;
            let content = Cow::Owned(content.into_owned());
            let parts = npy::read(content, &mut self.values).map_err(inside)?;
            let attribute = file.strip_suffix(".npy").unwrap_or(file);
            state.push([self.values.text(attribute)?, parts.array]);
        }
        self.values.object(class, Vec::new(), Some(state))
    }
}

/// A value that JSON has itself.
fn plain<'a>(value: &Value<'_>) -> Result<Node<'a>, Fault> {
    Ok(match value {
        Value::Null => Node::None,
        Value::Bool(flag) => Node::Bool(*flag),
        Value::Text(text) => Node::Text(text.clone().into_owned().into()),
        Value::Numeral(digits) => match decimal(digits) {
            Ok(whole) => whole,
            Err(_) => Node::Float(value.as_double()?),
        },
        other => return Err(other.expected("a text, a number, a boolean or null")),
    })
}

fn object<'a>(class: Box<str>, arguments: Vec<Id>, state: Option<Id>) -> Node<'a> {
    Node::Object(Box::new(Object {
        class,
        arguments,
        state,
        ..Object::default()
    }))
}
