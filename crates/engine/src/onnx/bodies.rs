//! Operators that have graphs inside: `If` with a condition that is known, and `Scan`.

use std::borrow::Cow;
use std::collections::HashSet;

use super::ops::{Context, Run, input};
use super::program::Program;
use super::proto::{Graph, Model, Node};
use super::tensor::{Data, Tensor, bounded};
use crate::document::Fault;

/// What a graph inside a node computes.
#[derive(Debug)]
struct Body {
    program: Program,
    /// Its own inputs and outputs, by their numbers. What it takes from outside has the first numbers.
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

/// The operator, and the names of what its graph takes from outside: they become inputs after its own.
pub(super) fn build<'a>(
    node: &Node<'a>,
    model: &Model<'a>,
    opset: i64,
    constants: &[Option<&Tensor>],
) -> Result<(Run, Vec<&'a str>), Fault> {
    match node.operator {
        "If" => choose(node, model, constants),
        _ => scan(node, model, opset),
    }
}

impl Body {
    fn new<'a>(
        node: &Node<'a>,
        name: &str,
        model: &Model<'a>,
    ) -> Result<(Self, Vec<&'a str>), Fault> {
        let graph = node
            .graph(name)
            .ok_or_else(|| Fault(format!("`{name}` is missing")))?;
        let outside = taken(graph);
        let (program, names) = Program::of(graph, model, &outside)?;
        let inputs = graph.inputs.iter().map(|input| names.get(input.name));
        let outputs = graph.outputs.iter().map(|output| names.get(output.name));
        let body = Self {
            inputs: inputs.collect::<Result<_, _>>()?,
            outputs: outputs.collect::<Result<_, _>>()?,
            program,
        };
        Ok((body, outside))
    }

    fn run<'t>(
        &'t self,
        own: impl Iterator<Item = Cow<'t, Tensor>>,
        outside: &[Option<&'t Tensor>],
        context: &Context,
    ) -> Result<Vec<Tensor>, Fault> {
        let outside = outside
            .iter()
            .enumerate()
            .filter_map(|(number, tensor)| Some((number, Cow::Borrowed((*tensor)?))));
        let given = outside.chain(self.inputs.iter().copied().zip(own));
        let mut values = self.program.run(given, context)?;
        let made = self.outputs.iter().map(|output| {
            // One value may be several outputs.
            let is_once = self.outputs.iter().filter(|other| *other == output).count() == 1;
            let value = match is_once {
                true => values[*output].take(),
                false => values[*output].clone(),
            };
            let value = value.ok_or_else(|| Fault::new("an output is not made"))?;
            context.spend(value.data.len())?;
            Ok(value.into_owned())
        });
        made.collect()
    }
}

/// What a graph, and those inside it, take from outside.
fn taken<'a>(graph: &Graph<'a>) -> Vec<&'a str> {
    let constants = graph.constants.iter().map(|(name, _)| *name);
    let mut known: HashSet<&str> = constants.collect();
    known.extend(graph.inputs.iter().map(|input| input.name));
    let mut outside = Vec::new();
    let mut note = |name: &'a str, known: &mut HashSet<&'a str>| {
        if !name.is_empty() && known.insert(name) {
            outside.push(name);
        }
    };
    for node in &graph.nodes {
        let inside = node.graphs().flat_map(taken);
        for name in node.inputs.iter().copied().chain(inside) {
            note(name, &mut known);
        }
        known.extend(&node.outputs);
    }
    for output in &graph.outputs {
        note(output.name, &mut known);
    }
    outside
}

fn choose<'a>(
    node: &Node<'a>,
    model: &Model<'a>,
    constants: &[Option<&Tensor>],
) -> Result<(Run, Vec<&'a str>), Fault> {
    let condition = match constants
        .first()
        .copied()
        .flatten()
        .map(|tensor| &tensor.data)
    {
        Some(Data::Bool(condition)) if condition.len() == 1 => condition[0],
        _ => {
            return Err(Fault::new(
                "is not supported unless its condition is a constant",
            ));
        }
    };
    let name = if condition {
        "then_branch"
    } else {
        "else_branch"
    };
    let (body, outside) = Body::new(node, name, model)?;
    if !body.inputs.is_empty() {
        return Err(Fault(format!("`{name}` has inputs of its own")));
    }
    let run: Run =
        Box::new(move |inputs, context| body.run(std::iter::empty(), &inputs[1..], context));
    Ok((run, outside))
}

/// Goes through the first axis of some inputs, forward; the others are states, each the value before.
fn scan<'a>(node: &Node<'a>, model: &Model<'a>, opset: i64) -> Result<(Run, Vec<&'a str>), Fault> {
    let is_other = |kind: &str| {
        let lists = ["input", "output"].map(|side| node.integers(&format!("scan_{side}_{kind}")));
        lists.concat().iter().any(|number| *number != 0)
    };
    if opset < 9 || is_other("axes") || is_other("directions") {
        return Err(Fault::new(
            "is not supported but of opset 9 and newer, forward along the first axis",
        ));
    }
    let (body, outside) = Body::new(node, "body", model)?;
    let count = node.inputs.len();
    let scanned = node.integer("num_scan_inputs").unwrap_or_default();
    let scanned = usize::try_from(scanned)
        .ok()
        .filter(|scanned| (1..=count).contains(scanned));
    let scanned = scanned.ok_or_else(|| Fault(format!("`num_scan_inputs` of {count} inputs")))?;
    let states = count - scanned;
    if body.inputs.len() != count || body.outputs.len() < states {
        return Err(Fault::new(
            "`body` has other inputs or outputs than the node",
        ));
    }
    let run: Run = Box::new(move |inputs, context| {
        let (own, outside) = inputs.split_at(count);
        let own: Result<Vec<&Tensor>, Fault> = (0..count).map(|index| input(own, index)).collect();
        let own = own?;
        let (first, through) = own.split_at(states);
        let size = |tensor: &&Tensor| tensor.shape.first().copied();
        let length = size(&through[0]).filter(|length| *length > 0);
        if through.iter().any(|tensor| size(tensor) != length) {
            return Err(Fault::new("inputs of different lengths, or of none"));
        }
        let mut states: Vec<Cow<'_, Tensor>> = first.iter().copied().map(Cow::Borrowed).collect();
        let mut made: Vec<Tensor> = Vec::new();
        for index in 0..length.unwrap_or_default() {
            let parts: Vec<Tensor> = through.iter().map(|tensor| part(tensor, index)).collect();
            let given = states.drain(..).chain(parts.into_iter().map(Cow::Owned));
            let mut next = body.run(given, outside, context)?;
            let parts = next.split_off(first.len());
            states.extend(next.into_iter().map(Cow::Owned));
            stack(&mut made, parts)?;
        }
        let states = states.into_iter().map(Cow::into_owned);
        Ok(states.chain(made).collect())
    });
    Ok((run, outside))
}

/// One place of a tensor's first axis.
fn part(tensor: &Tensor, index: usize) -> Tensor {
    let shape = tensor.shape[1..].to_vec();
    let size: usize = shape.iter().product();
    Tensor::new(shape, tensor.data.pick(index * size..(index + 1) * size))
}

/// Puts each part behind those before it.
fn stack(made: &mut Vec<Tensor>, parts: Vec<Tensor>) -> Result<(), Fault> {
    if made.is_empty() {
        made.extend(parts.into_iter().map(|mut part| {
            part.shape.insert(0, 1);
            part
        }));
        return Ok(());
    }
    for (made, part) in made.iter_mut().zip(parts) {
        if made.shape[1..] != part.shape[..] {
            return Err(Fault(format!(
                "parts of the shapes {:?} and {:?}",
                &made.shape[1..],
                part.shape
            )));
        }
        made.shape[0] += 1;
        bounded(&made.shape)?;
        made.data.extend(&part.data, 0..part.data.len())?;
    }
    Ok(())
}
