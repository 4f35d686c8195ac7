//! Python pickles as data: what is in one is read, and nothing of it is run.
//!
//! A pickle is a program for a small stack machine, some of whose instructions import whatever they name
//! and call it. [`machine`] runs the instructions that build numbers, texts and containers. Where a pickle
//! names a class or a function, that name must be of the list in [`names`], and a "call" only notes the
//! name with its arguments: there is no code behind it. What such a note means, an array for one, is known
//! to whoever reads it ([`mod@array`]).
//!
//! A file of skops says the same of a model in JSON; [`skops`] makes the same values of it.

mod archive;
mod array;
mod machine;
mod names;
mod npy;
mod opcodes;
mod skops;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use archive::Archive;
pub(crate) use array::Array;
pub(crate) use machine::read;
pub(crate) use skops::read as read_skops;

use crate::FILE_BYTES_MAX;
use crate::document::{Fault, named};
use std::borrow::Cow;
use std::cell::Cell;

/// Place of a value among those of its pickle.
type Id = u32;

/// How many values a pickle may have; a small file may have fewer, so that it does not fill the memory.
const VALUES_MAX: usize = 16 << 20;
const VALUES_MAX_OF_SMALL: usize = 1 << 20;
const VALUES_PER_BYTE: usize = 2;

/// How many times as large as the file what is compressed in it may be, and how large in any file.
const UNPACKED_PER_BYTE: u64 = 128;
const UNPACKED_MAX_OF_SMALL: u64 = 128 << 20;

/// How many bytes a file of so many may have when it is decompressed.
pub(crate) fn unpacked_max(file_bytes: usize) -> u64 {
    let max = (file_bytes as u64).saturating_mul(UNPACKED_PER_BYTE);
    max.clamp(UNPACKED_MAX_OF_SMALL, FILE_BYTES_MAX)
}

/// What is said of a file that has more.
pub(crate) fn unpacked_too_large(max: u64) -> Fault {
    Fault(format!(
        "decompressed, the file is larger than {max} bytes, and no more than {UNPACKED_PER_BYTE} times its own size is \
         read; write it again without compression"
    ))
}

/// A value of a pickle.
#[derive(Debug)]
enum Node<'a> {
    None,
    Bool(bool),
    Integer(i64),
    /// A whole number of more than 64 bits.
    Huge,
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Set(Vec<Id>),
    Dict(Vec<[Id; 2]>),
    /// The full name of a class or function.
    Name(Box<str>),
    Object(Box<Object>),
    /// An array whose elements joblib has written between the instructions, or skops in a file of their own.
    Inline(Box<Inline<'a>>),
}

/// What an instruction to make something says: of which class or by which function, from what.
#[derive(Debug, Default)]
struct Object {
    class: Box<str>,
    arguments: Vec<Id>,
    state: Option<Id>,
    /// What was put into it, if it is a kind of list or of dict.
    items: Vec<Id>,
    entries: Vec<[Id; 2]>,
}

#[derive(Debug)]
struct Inline<'a> {
    /// The wrapper's attributes.
    wrapper: Id,
    bytes: Cow<'a, [u8]>,
}

/// All values of a pickle, or of a file of skops.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    values_max: usize,
    root: Id,
    /// How many numbers and bytes may still be copied out of it: a value may be referred to from many places, so
    /// that a small file could fill any memory.
    copies: Cell<usize>,
}

impl<'a> Pickle<'a> {
    /// Room for the values of a file of so many bytes.
    fn new(file_bytes: usize) -> Self {
        let values_max = file_bytes.saturating_mul(VALUES_PER_BYTE);
        Self {
            nodes: Vec::new(),
            values_max: values_max.clamp(VALUES_MAX_OF_SMALL, VALUES_MAX),
            root: 0,
            copies: Cell::new(0),
        }
    }

    /// Notes of how many bytes the values were read.
    fn allow_copies(&self, bytes: usize) {
        let copies = bytes.saturating_mul(8).saturating_add(1 << 16);
        self.copies.set(copies);
    }

    fn too_many(&self) -> Fault {
        Fault(format!(
            "more than {} values, which are too many for a file of this size; if it is compressed, write it again \
             without compression",
            self.values_max
        ))
    }

    fn add(&mut self, node: Node<'a>) -> Result<Id, Fault> {
        if self.nodes.len() == self.values_max {
            return Err(self.too_many());
        }
        self.nodes.push(node);
        Ok((self.nodes.len() - 1) as Id)
    }

    /// A value while others are still added.
    fn view(&self, id: Id) -> View<'_, 'a> {
        View { pickle: self, id }
    }

    /// What was pickled.
    pub(crate) fn root(&self) -> View<'_, 'a> {
        self.view(self.root)
    }
}

/// A value of a pickle, in its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'p, 'a> {
    pickle: &'p Pickle<'a>,
    id: Id,
}

impl<'p, 'a> View<'p, 'a> {
    fn node(self) -> &'p Node<'a> {
        &self.pickle.nodes[self.id as usize]
    }

    fn at(self, id: Id) -> Self {
        Self { id, ..self }
    }

    /// What tells this value from all others of its pickle.
    pub(crate) fn identity(self) -> u32 {
        self.id
    }

    fn describe(self) -> String {
        match self.node() {
            Node::None => "None".into(),
            Node::Bool(_) => "a boolean".into(),
            Node::Integer(_) | Node::Huge | Node::Float(_) => "a number".into(),
            Node::Text(_) => "text".into(),
            Node::Bytes(_) => "bytes".into(),
            Node::List(_) => "a list".into(),
            Node::Tuple(_) => "a tuple".into(),
            Node::Set(_) => "a set".into(),
            Node::Dict(_) => "a dict".into(),
            Node::Name(name) => format!("the name `{name}`"),
            Node::Object(object) => format!("an object of `{}`", object.class),
            Node::Inline(_) => "an array".into(),
        }
    }

    pub(crate) fn expected(self, what: &str) -> Fault {
        Fault(format!("expected {what}, found {}", self.describe()))
    }

    pub(crate) fn is_none(self) -> bool {
        matches!(self.node(), Node::None)
    }

    pub(crate) fn as_text(self) -> Option<&'p str> {
        match self.node() {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// `True` or `False`, of Python or NumPy.
    pub(crate) fn as_bool(self) -> Option<bool> {
        match self.node() {
            Node::Bool(value) => Some(*value),
            _ => Array::scalar(self).and_then(|array| array.boolean(0)),
        }
    }

    /// A whole number, of Python or NumPy; a boolean is none.
    pub(crate) fn as_integer(self) -> Option<i64> {
        match self.node() {
            Node::Integer(value) => Some(*value),
            _ => Array::scalar(self).and_then(|array| array.integer(0)),
        }
    }

    /// A number, of Python or NumPy.
    pub(crate) fn as_number(self) -> Option<f64> {
        match self.node() {
            Node::Integer(value) => Some(*value as f64),
            Node::Float(value) => Some(*value),
            _ => Array::scalar(self).and_then(|array| array.number(0)),
        }
    }

    /// The elements of a list or a tuple.
    pub(crate) fn as_list(self) -> Option<Vec<Self>> {
        match self.node() {
            Node::List(items) | Node::Tuple(items) => {
                Some(items.iter().map(|id| self.at(*id)).collect())
            }
            _ => None,
        }
    }

    /// The elements of a list, a tuple or a set.
    pub(crate) fn as_items(self) -> Option<Vec<Self>> {
        match self.node() {
            Node::Set(items) => Some(items.iter().map(|id| self.at(*id)).collect()),
            Node::Object(object) if &*object.class == "builtins.frozenset" => {
                self.arguments().first()?.as_list()
            }
            _ => self.as_list(),
        }
    }

    /// The keys and values of a dict, an `OrderedDict` or a `defaultdict`.
    pub(crate) fn as_dict(self) -> Option<Vec<[Self; 2]>> {
        let entries = match self.node() {
            Node::Dict(entries) => entries,
            Node::Object(object) if object.class.starts_with("collections.") => &object.entries,
            _ => return None,
        };
        let pairs = entries.iter();
        Some(pairs.map(|pair| pair.map(|id| self.at(id))).collect())
    }

    /// The name of a class or function that is a value itself.
    pub(crate) fn as_name(self) -> Option<&'p str> {
        match self.node() {
            Node::Name(name) => Some(name),
            _ => None,
        }
    }

    /// The class of an object, or the function that would have made it.
    pub(crate) fn class(self) -> Option<&'p str> {
        match self.node() {
            Node::Object(object) => Some(&object.class),
            _ => None,
        }
    }

    /// What an object was made from.
    pub(crate) fn arguments(self) -> Vec<Self> {
        match self.node() {
            Node::Object(object) => object.arguments.iter().map(|id| self.at(*id)).collect(),
            _ => Vec::new(),
        }
    }

    /// What an object was changed to after it was made.
    pub(crate) fn state(self) -> Option<Self> {
        match self.node() {
            Node::Object(object) => object.state.map(|id| self.at(id)),
            _ => None,
        }
    }

    /// An attribute of an object. The one that was set last counts.
    pub(crate) fn get(self, name: &str) -> Option<Self> {
        let state = self.state()?;
        let Node::Dict(entries) = state.node() else {
            return None;
        };
        let mut pairs = entries.iter().rev();
        let found = pairs.find(|[key, _]| self.at(*key).as_text() == Some(name));
        found.map(|[_, value]| self.at(*value))
    }

    /// An attribute that must be there.
    pub(crate) fn required(self, name: &str) -> Result<Self, Fault> {
        self.get(name)
            .ok_or_else(|| Fault(format!("`{name}` is missing")))
    }

    pub(crate) fn text(self, name: &str) -> Result<&'p str, Fault> {
        let value = self.required(name)?;
        let text = value.as_text();
        let text = text
            .ok_or_else(|| value.expected("text"))
            .map_err(named(name))?;
        self.copy(text.len())?;
        Ok(text)
    }

    pub(crate) fn number(self, name: &str) -> Result<f64, Fault> {
        let value = self.required(name)?;
        let number = value.as_number();
        number
            .ok_or_else(|| value.expected("a number"))
            .map_err(named(name))
    }

    pub(crate) fn boolean(self, name: &str) -> Result<bool, Fault> {
        let value = self.required(name)?;
        let flag = value.as_bool();
        flag.ok_or_else(|| value.expected("a boolean"))
            .map_err(named(name))
    }

    pub(crate) fn list(self, name: &str) -> Result<Vec<Self>, Fault> {
        let value = self.required(name)?;
        let items = value.as_list();
        items
            .ok_or_else(|| value.expected("a list"))
            .map_err(named(name))
    }

    pub(crate) fn array(self, name: &str) -> Result<Array<'p, 'a>, Fault> {
        let value = self.required(name)?;
        Array::read(value).map_err(named(name))
    }

    /// The bytes of a `bytes` or `bytearray`.
    pub(crate) fn bytes(self, name: &str) -> Result<Cow<'p, [u8]>, Fault> {
        let bytes = array::bytes_of(self.required(name)?).map_err(named(name))?;
        self.copy(bytes.len())?;
        Ok(bytes)
    }

    /// The numbers of an array, in the order of its rows.
    pub(crate) fn numbers(self, name: &str) -> Result<Vec<f64>, Fault> {
        self.array(name)?.numbers().map_err(named(name))
    }

    /// Notes that so many numbers are copied.
    fn copy(self, count: usize) -> Result<(), Fault> {
        let left = self.pickle.copies.get().checked_sub(count);
        let left = left.ok_or_else(|| Fault::new("the same values stand in too many places"))?;
        self.pickle.copies.set(left);
        Ok(())
    }
}
