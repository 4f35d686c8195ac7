//! A graph as steps that run one after the other.

use std::borrow::Cow;
use std::collections::HashMap;

use super::bodies;
use super::ops::{self, Context, Run};
use super::proto::{Graph, Model, Node};
use super::tensor::Tensor;
use crate::document::{Fault, shorten};

/// What a graph computes.
pub(super) struct Program {
    steps: Vec<Step>,
    constants: Vec<Option<Tensor>>,
    decides: bool,
}

struct Step {
    run: Run,
    inputs: Vec<Option<usize>>,
    outputs: Vec<Option<usize>>,
    place: String,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list()
            .entries(self.steps.iter().map(|step| &step.place))
            .finish()
    }
}

/// The numbers by which a program calls its values.
#[derive(Debug, Default)]
pub(super) struct Names<'a>(HashMap<&'a str, usize>);

impl<'a> Names<'a> {
    pub(super) fn add(&mut self, name: &'a str) -> Result<usize, Fault> {
        let number = self.0.len();
        match self.0.insert(name, number) {
            None => Ok(number),
            Some(_) => Err(Fault(format!(
                "the value `{}` is made twice",
                shorten(name)
            ))),
        }
    }

    pub(super) fn get(&self, name: &str) -> Result<usize, Fault> {
        let found = self.0.get(name).copied();
        found.ok_or_else(|| {
            Fault(format!(
                "the value `{}` is made nowhere before it is used",
                shorten(name)
            ))
        })
    }
}

impl Program {
    pub(super) fn new<'a>(model: &Model<'a>) -> Result<(Self, Names<'a>), Fault> {
        Self::of(&model.graph, model, &[])
    }

    /// What a graph of the model computes, which may take values that are made outside of it.
    pub(super) fn of<'a>(
        graph: &Graph<'a>,
        model: &Model<'a>,
        outside: &[&'a str],
    ) -> Result<(Self, Names<'a>), Fault> {
        let (mut names, mut program) = (
            Names::default(),
            Self {
                steps: Vec::new(),
                constants: Vec::new(),
                decides: false,
            },
        );
        for name in outside {
            names.add(name)?;
            program.constants.push(None);
        }
        for (name, tensor) in &graph.constants {
            names.add(name)?;
            program.constants.push(Some(tensor.clone()));
        }
        for input in &graph.inputs {
            // Old files name their constants among the inputs.
            if !names.0.contains_key(input.name) {
                names.add(input.name)?;
                program.constants.push(None);
            }
        }
        let inside = |node: &Node<'_>, fault: Fault| Fault(format!("{} {}", node.place(), fault.0));
        for node in &graph.nodes {
            program
                .push(node, model, &mut names)
                .map_err(|fault| inside(node, fault))?;
        }
        program.keep_needed(graph, &names)?;
        Ok((program, names))
    }

    fn push<'a>(
        &mut self,
        node: &Node<'a>,
        model: &Model<'a>,
        names: &mut Names<'a>,
    ) -> Result<(), Fault> {
        let opset = node.opset.or_else(|| model.opset(node.domain));
        let opset =
            opset.ok_or_else(|| Fault::new("is of a set that the model does not import"))?;
        let number = |name: &&str| (!name.is_empty()).then(|| names.get(name)).transpose();
        let inputs: Result<Vec<Option<usize>>, Fault> = node.inputs.iter().map(number).collect();
        let mut inputs = inputs?;
        let mut decides = false;
        let run = match (node.domain, node.operator) {
            ("", "If" | "Loop" | "Scan") => {
                let constants = inputs
                    .iter()
                    .map(|input| self.constants[(*input)?].as_ref());
                let built = bodies::build(node, model, opset, &constants.collect::<Vec<_>>())?;
                let outside = built.outside.into_iter();
                let outside = outside.map(|name| names.get(name).map(Some));
                inputs.extend(outside.collect::<Result<Vec<_>, _>>()?);
                decides = built.decides;
                built.run
            }
            _ => ops::build(node, opset)?,
        };
        let is_constant = inputs
            .iter()
            .flatten()
            .all(|input| self.constants[*input].is_some());
        let mut made = Vec::new();
        if is_constant {
            let tensors: Vec<_> = inputs
                .iter()
                .map(|input| self.constants[(*input)?].as_ref())
                .collect();
            made = run(&tensors, &Context::default())?;
        }
        let mut made = made.into_iter();
        let mut outputs = Vec::with_capacity(node.outputs.len());
        for name in &node.outputs {
            let tensor = made.next();
            if is_constant && tensor.is_none() {
                return Err(Fault::new("has more outputs than it makes"));
            }
            if name.is_empty() {
                outputs.push(None);
                continue;
            }
            outputs.push(Some(names.add(name)?));
            self.constants.push(tensor);
        }
        self.decides |= decides && !is_constant;
        if !is_constant {
            let place = node.place();
            self.steps.push(Step {
                run,
                inputs,
                outputs,
                place,
            });
        }
        Ok(())
    }

    /// Drops steps of which the graph's outputs need nothing.
    fn keep_needed(&mut self, graph: &Graph<'_>, names: &Names<'_>) -> Result<(), Fault> {
        let mut needed = vec![false; self.constants.len()];
        for output in &graph.outputs {
            needed[names.get(output.name)?] = true;
        }
        let mut kept = Vec::with_capacity(self.steps.len());
        for step in std::mem::take(&mut self.steps).into_iter().rev() {
            if step.outputs.iter().flatten().any(|output| needed[*output]) {
                step.inputs
                    .iter()
                    .flatten()
                    .for_each(|input| needed[*input] = true);
                kept.push(step);
            }
        }
        kept.reverse();
        self.steps = kept;
        Ok(())
    }

    /// Whether what is computed depends on values.
    pub(super) fn decides(&self) -> bool {
        self.decides
    }

    pub(super) fn steps(&self) -> usize {
        self.steps.len()
    }

    /// The value that a constant has.
    pub(super) fn constant(&self, number: usize) -> Option<&Tensor> {
        self.constants[number].as_ref()
    }

    /// All values, from those of the inputs.
    pub(super) fn run<'p>(
        &'p self,
        inputs: impl Iterator<Item = (usize, Cow<'p, Tensor>)>,
        context: &Context,
    ) -> Result<Vec<Option<Cow<'p, Tensor>>>, Fault> {
        context.spend(self.constants.len())?;
        let mut values: Vec<Option<Cow<'_, Tensor>>> = self
            .constants
            .iter()
            .map(|constant| constant.as_ref().map(Cow::Borrowed))
            .collect();
        for (number, tensor) in inputs {
            values[number] = Some(tensor);
        }
        let mut given = Vec::new();
        for step in &self.steps {
            given.clear();
            given.extend(step.inputs.iter().map(|input| values[(*input)?].as_deref()));
            let made = (step.run)(&given, context);
            let made = made.map_err(|fault| Fault(format!("{}: {}", step.place, fault.0)))?;
            if made.len() < step.outputs.len() {
                return Err(Fault(format!(
                    "{}: has more outputs than it makes",
                    step.place
                )));
            }
            given = Vec::new();
            for (output, tensor) in step.outputs.iter().zip(made) {
                if let Some(output) = output {
                    values[*output] = Some(Cow::Owned(tensor));
                }
            }
        }
        Ok(values)
    }
}
