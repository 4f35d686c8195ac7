//! Operators that have graphs inside: `If`, `Loop` and `Scan`.

use std::borrow::Cow;
use std::collections::HashSet;

use super::ops::{Context, Run, input};
use super::program::Program;
use super::proto::{Graph, Model, Node};
use super::tensor::{Data, Tensor, bounded};
use crate::document::Fault;

/// What a round of a loop costs beside its operators: it bounds how often one goes round that computes next to nothing.
const STEPS_PER_ROUND: usize = 1 << 10;

/// An operator that is read.
pub(super) struct Built<'a> {
    pub(super) run: Run,
    /// What its graphs take from outside: inputs after its own.
    pub(super) outside: Vec<&'a str>,
    /// Whether values decide what is computed, so that rows which go through together would decide for each other.
    pub(super) decides: bool,
}

/// What a graph inside a node computes.
#[derive(Debug)]
struct Body {
    program: Program,
    /// Its own inputs and outputs, by their numbers. What it takes from outside has the first numbers.
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

pub(super) fn build<'a>(
    node: &Node<'a>,
    model: &Model<'a>,
    opset: i64,
    constants: &[Option<&Tensor>],
) -> Result<Built<'a>, Fault> {
    match node.operator {
        "If" => choose(node, model, constants),
        "Loop" => repeat(node, model),
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

/// One of two graphs. Where the condition is known, the other one need not be supported.
fn choose<'a>(
    node: &Node<'a>,
    model: &Model<'a>,
    constants: &[Option<&Tensor>],
) -> Result<Built<'a>, Fault> {
    let known = constants
        .first()
        .copied()
        .flatten()
        .map(truth)
        .transpose()?;
    let (mut bodies, mut outside) = (Vec::new(), Vec::new());
    for condition in [true, false] {
        if known.is_some_and(|known| known != condition) {
            continue;
        }
        let name = if condition {
            "then_branch"
        } else {
            "else_branch"
        };
        let (body, taken) = Body::new(node, name, model)?;
        if !body.inputs.is_empty() {
            return Err(Fault(format!("`{name}` has inputs of its own")));
        }
        let first = 1 + outside.len();
        outside.extend(taken);
        bodies.push((condition, body, first..1 + outside.len()));
    }
    let decides = known.is_none() || bodies.iter().any(|(_, body, _)| body.program.decides());
    let run: Run = Box::new(move |inputs, context| {
        let condition = known.map_or_else(|| truth(input(inputs, 0)?), Ok)?;
        let mut bodies = bodies.iter();
        let chosen = bodies.find(|(own, ..)| *own == condition);
        let (_, body, outside) = chosen.ok_or_else(|| Fault::new("no branch for its condition"))?;
        body.run(std::iter::empty(), &inputs[outside.clone()], context)
    });
    Ok(Built {
        run,
        outside,
        decides,
    })
}

/// A condition.
fn truth(tensor: &Tensor) -> Result<bool, Fault> {
    match &tensor.data {
        Data::Bool(values) if values.len() == 1 => Ok(values[0]),
        _ => Err(Fault::new("expected one bool as its condition")),
    }
}

/// Goes round so many times at most, and as long as a condition holds. The values that go round come out at last, and
/// after them what the rounds have added, one part each.
fn repeat<'a>(node: &Node<'a>, model: &Model<'a>) -> Result<Built<'a>, Fault> {
    let (body, outside) = Body::new(node, "body", model)?;
    let count = node.inputs.len();
    if count < 2 || body.inputs.len() != count || body.outputs.len() < count - 1 {
        return Err(Fault::new(
            "`body` has other inputs or outputs than the node",
        ));
    }
    let run: Run = Box::new(move |inputs, context| {
        let (own, outside) = inputs.split_at(count);
        let limit = match own[0].map(Tensor::to_integers).transpose()?.as_deref() {
            None => i64::MAX,
            Some([limit]) => *limit,
            Some(_) => return Err(Fault::new("expected one number of rounds")),
        };
        let mut goes_on = own[1].map_or(Ok(true), truth)?;
        let states = (2..count).map(|index| input(own, index).map(Cow::Borrowed));
        let mut states: Vec<Cow<'_, Tensor>> = states.collect::<Result<_, _>>()?;
        let (mut made, mut round) = (Vec::new(), 0);
        while goes_on && round < limit {
            context.spend(STEPS_PER_ROUND)?;
            let head = [Data::Long(vec![round]), Data::Bool(vec![true])];
            let head = head.map(|data| Cow::Owned(Tensor::new(Vec::new(), data)));
            let given = head.into_iter().chain(states.drain(..));
            let mut next = body.run(given, outside, context)?;
            let parts = next.split_off(count - 1);
            let mut next = next.into_iter();
            goes_on = truth(
                &next
                    .next()
                    .ok_or_else(|| Fault::new("no condition is made"))?,
            )?;
            states.extend(next.map(Cow::Owned));
            stack(&mut made, parts)?;
            round += 1;
        }
        if round == 0 && body.outputs.len() >= count {
            return Err(Fault::new(
                "goes round no time, so that what it gathers has no shape",
            ));
        }
        let states = states.into_iter().map(Cow::into_owned);
        Ok(states.chain(made).collect())
    });
    Ok(Built {
        run,
        outside,
        decides: true,
    })
}

/// Goes through the first axis of some inputs, forward; the others are states, each the value before.
fn scan<'a>(node: &Node<'a>, model: &Model<'a>, opset: i64) -> Result<Built<'a>, Fault> {
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
    let decides = body.program.decides();
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
    Ok(Built {
        run,
        outside,
        decides,
    })
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
