//! Messages of ONNX (`onnx.proto` of onnx/onnx), as far as they say what is computed.

use std::collections::HashMap;
use std::sync::Arc;

use super::narrow::{self, Narrow};
use super::tensor::{Data, Tensor, count};
use super::wire::{Field, Fields};
use crate::document::{Fault, shorten};

/// Nodes, tensors or values that a graph may have.
const ITEMS_MAX: usize = 65_536;

/// How deep graphs may be inside each other.
const DEPTH_MAX: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Model<'a> {
    pub(super) producer: &'a str,
    pub(super) graph: Graph<'a>,
    /// The version of each operator set, by its domain.
    pub(super) opsets: HashMap<&'a str, i64>,
    /// Operators of the model's own, by domain and name.
    pub(super) functions: HashMap<(&'a str, &'a str), Function<'a>>,
}

/// An operator that consists of others.
#[derive(Debug, Default)]
pub(super) struct Function<'a> {
    pub(super) inputs: Vec<&'a str>,
    pub(super) outputs: Vec<&'a str>,
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) opsets: HashMap<&'a str, i64>,
    /// What attributes are that a node which calls it does not have.
    pub(super) defaults: HashMap<&'a str, Attribute<'a>>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Graph<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) constants: Vec<(&'a str, Tensor)>,
    pub(super) inputs: Vec<Value<'a>>,
    pub(super) outputs: Vec<Value<'a>>,
}

/// An input or output of the graph.
#[derive(Debug, Default, Clone)]
pub(super) struct Value<'a> {
    pub(super) name: &'a str,
    /// The number of its element type, if it is a tensor or a map to such elements.
    pub(super) element: Option<i64>,
    /// Whether it is a map of names or numbers to elements.
    pub(super) is_map: bool,
    /// Each dimension, none where it is open; none if the file does not tell.
    pub(super) shape: Option<Vec<Option<i64>>>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Node<'a> {
    pub(super) inputs: Vec<&'a str>,
    pub(super) outputs: Vec<&'a str>,
    pub(super) name: &'a str,
    pub(super) operator: &'a str,
    pub(super) domain: &'a str,
    /// The version of its set, where that is not the model's.
    pub(super) opset: Option<i64>,
    pub(super) attributes: HashMap<&'a str, Attribute<'a>>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Attribute<'a> {
    /// The attribute of the node which calls the function that this one stands in.
    pub(super) refers_to: Option<&'a str>,
    float: Option<f32>,
    integer: Option<i64>,
    text: Option<&'a [u8]>,
    tensor: Option<Tensor>,
    pub(super) graph: Option<Graph<'a>>,
    floats: Vec<f32>,
    integers: Vec<i64>,
    texts: Vec<&'a [u8]>,
}

impl Attribute<'_> {
    /// Values that it holds, graphs apart.
    pub(super) fn len(&self) -> usize {
        let tensor = self.tensor.as_ref().map_or(0, |tensor| tensor.data.len());
        tensor + self.floats.len() + self.integers.len() + self.texts.len()
    }
}

impl<'a> Model<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Fault> {
        let mut model = Self::default();
        let mut has_graph = false;
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match number {
                2 => model.producer = field.text()?,
                7 => {
                    model.graph =
                        Graph::read(field.message()?, DEPTH_MAX).map_err(|f| f.inside("graph"))?;
                    has_graph = true;
                }
                8 => {
                    let (domain, version) = opset(field.message()?)?;
                    model.opsets.insert(domain, version);
                }
                25 => {
                    let (name, function) =
                        Function::read(field.message()?).map_err(|f| f.inside("function"))?;
                    model.functions.insert(name, function);
                }
                _ => {}
            }
        }
        match has_graph {
            true => Ok(model),
            false => Err(Fault::new(
                "no graph: the file is cut off, or no ONNX model; copy or save it again",
            )),
        }
    }

    /// The version of an operator set that nodes are of.
    pub(super) fn opset(&self, domain: &str) -> Option<i64> {
        let own = self.opsets.get(domain);
        let own = own.or_else(|| self.opsets.get("ai.onnx").filter(|_| domain.is_empty()));
        own.copied()
    }
}

impl<'a> Function<'a> {
    /// A function, and its domain and name.
    fn read(mut fields: Fields<'a>) -> Result<((&'a str, &'a str), Self), Fault> {
        let (mut function, mut domain, mut name) = (Self::default(), "", "");
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => name = field.text()?,
                4 => push(&mut function.inputs, field.text()?)?,
                5 => push(&mut function.outputs, field.text()?)?,
                7 => push(
                    &mut function.nodes,
                    Node::read(field.message()?, DEPTH_MAX)?,
                )?,
                9 => {
                    let (domain, version) = opset(field.message()?)?;
                    function.opsets.insert(domain, version);
                }
                10 => domain = field.text()?,
                11 => {
                    let (name, own) = attribute(field.message()?, DEPTH_MAX)?;
                    function.defaults.insert(name, own);
                }
                13 if !field.text()?.is_empty() => {
                    return Err(Fault(format!(
                        "`{}` has several versions; inline it with `onnx.inliner.inline_local_functions`",
                        shorten(name)
                    )));
                }
                _ => {}
            }
        }
        Ok(((domain, name), function))
    }
}

fn opset<'a>(mut fields: Fields<'a>) -> Result<(&'a str, i64), Fault> {
    let mut read = ("", 0);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => read.0 = field.text()?,
            2 => read.1 = field.integer()?,
            _ => {}
        }
    }
    Ok(read)
}

fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), Fault> {
    if list.len() == ITEMS_MAX {
        return Err(Fault(format!(
            "more than {ITEMS_MAX} nodes, tensors or values"
        )));
    }
    list.push(item);
    Ok(())
}

impl<'a> Graph<'a> {
    /// Reads a graph that may have others inside, `depth` of them one in the other.
    fn read(mut fields: Fields<'a>, depth: usize) -> Result<Self, Fault> {
        let mut graph = Self::default();
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => push(&mut graph.nodes, Node::read(field.message()?, depth)?)?,
                5 => {
                    let (name, tensor) = tensor(field.message()?)?;
                    push(&mut graph.constants, (name, tensor))?;
                }
                11 => push(&mut graph.inputs, Value::read(field.message()?)?)?,
                12 => push(&mut graph.outputs, Value::read(field.message()?)?)?,
                15 => return Err(Fault::new("sparse initializers are not supported")),
                _ => {}
            }
        }
        Ok(graph)
    }
}

impl<'a> Value<'a> {
    fn read(mut fields: Fields<'a>) -> Result<Self, Fault> {
        let mut value = Self::default();
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => value.name = field.text()?,
                2 => value.read_type(field.message()?)?,
                _ => {}
            }
        }
        Ok(value)
    }

    fn read_type(&mut self, mut fields: Fields<'a>) -> Result<(), Fault> {
        while let Some((number, field)) = fields.next()? {
            let mut inner = field.message()?;
            match number {
                1 => {
                    while let Some((number, field)) = inner.next()? {
                        match number {
                            1 => self.element = Some(field.integer()?),
                            2 => self.shape = Some(shape(field.message()?)?),
                            _ => {}
                        }
                    }
                }
                5 if !self.is_map => {
                    self.is_map = true;
                    while let Some((number, field)) = inner.next()? {
                        if number == 2 {
                            self.read_type(field.message()?)?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn shape(mut fields: Fields<'_>) -> Result<Vec<Option<i64>>, Fault> {
    let mut shape = Vec::new();
    while let Some((number, field)) = fields.next()? {
        if number != 1 {
            continue;
        }
        let (mut dimension, mut own) = (field.message()?, None);
        while let Some((number, field)) = dimension.next()? {
            if number == 1 {
                own = Some(field.integer()?).filter(|size| *size > 0);
            }
        }
        push(&mut shape, own)?;
    }
    Ok(shape)
}

impl<'a> Node<'a> {
    fn read(mut fields: Fields<'a>, depth: usize) -> Result<Self, Fault> {
        let mut node = Self::default();
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => push(&mut node.inputs, field.text()?)?,
                2 => push(&mut node.outputs, field.text()?)?,
                3 => node.name = field.text()?,
                4 => node.operator = field.text()?,
                5 => {
                    let read = field.message().and_then(|fields| attribute(fields, depth));
                    let (name, attribute) = read.map_err(|fault| fault.inside(node.place()))?;
                    node.attributes.insert(name, attribute);
                }
                7 => node.domain = field.text()?,
                _ => {}
            }
        }
        if node.domain == "ai.onnx" {
            node.domain = "";
        }
        Ok(node)
    }

    /// How messages call it.
    pub(super) fn place(&self) -> String {
        let domain = if self.domain.is_empty() {
            "ai.onnx"
        } else {
            self.domain
        };
        let name = match self.name {
            "" => self.outputs.first().copied().unwrap_or_default(),
            name => name,
        };
        format!(
            "the operator `{}` of `{}` (node `{}`)",
            shorten(self.operator),
            shorten(domain),
            shorten(name)
        )
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        self.attributes.get(name)?.integer
    }

    pub(super) fn float(&self, name: &str) -> Option<f32> {
        self.attributes.get(name)?.float
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Fault> {
        let bytes = self.attributes.get(name).and_then(|own| own.text);
        bytes.map(utf8).transpose()
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.attributes.get(name)?.tensor.as_ref()
    }

    pub(super) fn graph(&self, name: &str) -> Option<&Graph<'a>> {
        self.attributes.get(name)?.graph.as_ref()
    }

    /// The graphs inside.
    pub(super) fn graphs(&self) -> impl Iterator<Item = &Graph<'a>> {
        self.attributes
            .values()
            .filter_map(|own| own.graph.as_ref())
    }

    pub(super) fn floats(&self, name: &str) -> &[f32] {
        self.attributes.get(name).map_or(&[], |own| &own.floats)
    }

    pub(super) fn integers(&self, name: &str) -> &[i64] {
        self.attributes.get(name).map_or(&[], |own| &own.integers)
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<Arc<str>>, Fault> {
        let texts = self.attributes.get(name).map_or(&[][..], |own| &own.texts);
        texts.iter().map(|text| Ok(utf8(text)?.into())).collect()
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault::new("a text that is not UTF-8"))
}

fn attribute<'a>(mut fields: Fields<'a>, depth: usize) -> Result<(&'a str, Attribute<'a>), Fault> {
    let (mut name, mut own) = ("", Attribute::default());
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => name = field.text()?,
            2 => own.float = Some(field.float()?),
            3 => own.integer = Some(field.integer()?),
            4 => own.text = Some(field.bytes()?),
            5 => own.tensor = Some(tensor(field.message()?)?.1),
            6 => {
                let deeper = depth.checked_sub(1);
                let deeper = deeper
                    .ok_or_else(|| Fault(format!("more than {DEPTH_MAX} graphs in each other")))?;
                own.graph = Some(Graph::read(field.message()?, deeper)?);
            }
            7 => field.floats(&mut own.floats)?,
            8 => field.integers(&mut own.integers)?,
            9 => own.texts.push(field.bytes()?),
            21 => own.refers_to = Some(field.text()?).filter(|name| !name.is_empty()),
            _ => {}
        }
    }
    Ok((name, own))
}

/// A tensor and its name.
fn tensor<'a>(mut fields: Fields<'a>) -> Result<(&'a str, Tensor), Fault> {
    let (mut name, mut dimensions, mut element, mut raw) = ("", Vec::new(), 0, None);
    let (mut floats, mut doubles, mut integers, mut texts) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => field.integers(&mut dimensions)?,
            2 => element = field.integer()?,
            4 => field.floats(&mut floats)?,
            5 | 7 | 11 => field.integers(&mut integers)?,
            6 => texts.push(Arc::from(field.text()?)),
            8 => name = field.text()?,
            9 => raw = Some(field.bytes()?),
            10 => field.doubles(&mut doubles)?,
            13 | 14 if !matches!(field, Field::Number(0)) => {
                return Err(Fault(format!(
                    "the tensor `{}` is in another file; save the model as one file \
                     (`onnx.save_model(model, path, save_as_external_data=False)`)",
                    shorten(name)
                )));
            }
            _ => {}
        }
    }
    let read = || {
        let data = match (element, raw) {
            (1, None) => Data::Float(floats),
            (1, Some(raw)) => Data::Float(numbers(raw, f32::from_le_bytes)?),
            (11, None) => Data::Double(doubles),
            (11, Some(raw)) => Data::Double(numbers(raw, f64::from_le_bytes)?),
            (7, None) => Data::Long(integers),
            (7, Some(raw)) => Data::Long(numbers(raw, i64::from_le_bytes)?),
            (2, Some(raw)) => Data::Int(numbers(raw, |[byte]| i32::from(byte))?),
            (3, Some(raw)) => Data::Int(numbers(raw, |byte| i32::from(i8::from_le_bytes(byte)))?),
            (4, Some(raw)) => Data::Int(numbers(raw, |two| i32::from(u16::from_le_bytes(two)))?),
            (5, Some(raw)) => Data::Int(numbers(raw, |two| i32::from(i16::from_le_bytes(two)))?),
            (10, None) => {
                let bits = integers.iter().map(|bits| *bits as u16);
                Data::Float(bits.map(narrow::of_bits).collect())
            }
            (10, Some(raw)) => Data::Float(numbers(raw, |two| {
                narrow::of_bits(u16::from_le_bytes(two))
            })?),
            (2..=5, None) => {
                let narrow = Narrow::of(element).expect("these are narrow");
                Data::Int(narrow.cut(integers.iter().copied()))
            }
            (6, None) => Data::Int(integers.iter().map(|number| *number as i32).collect()),
            (6, Some(raw)) => Data::Int(numbers(raw, i32::from_le_bytes)?),
            (9, None) => Data::Bool(integers.iter().map(|number| *number != 0).collect()),
            (9, Some(raw)) => Data::Bool(raw.iter().map(|byte| *byte != 0).collect()),
            (8, _) => Data::Text(texts),
            (other, _) => return Err(unknown_element(other)),
        };
        let shape: Result<Vec<usize>, _> =
            dimensions.iter().copied().map(usize::try_from).collect();
        let shape = shape.map_err(|_| Fault::new("a dimension below 0"))?;
        if count(&shape) != Some(data.len()) {
            return Err(Fault(format!(
                "{} values for the shape {shape:?}",
                data.len()
            )));
        }
        Ok(Tensor {
            shape,
            data,
            narrow: Narrow::of(element),
        })
    };
    let read = read().map_err(|fault| fault.inside(format_args!("tensor `{}`", shorten(name))))?;
    Ok((name, read))
}

pub(super) fn unknown_element(number: i64) -> Fault {
    const NAMES: [&str; 17] = [
        "none",
        "float",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "double",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "bfloat16",
    ];
    let name = usize::try_from(number)
        .ok()
        .and_then(|number| NAMES.get(number));
    Fault(format!(
        "values of the type {} are not supported; float, double, float16, whole numbers of up to 64 bits with a \
         sign and up to 16 without, bool and string are",
        name.copied().unwrap_or("unknown")
    ))
}

fn numbers<T, const N: usize>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Fault> {
    match raw.as_chunks() {
        (numbers, []) => Ok(numbers.iter().map(|bytes| read(*bytes)).collect()),
        _ => Err(Fault::new("raw data that ends within a number")),
    }
}
