//! Functions of a model's own, replaced by the nodes that they consist of.
//!
//! Values inside get names of their own for each call. They are made on a first walk, and given out on a second.

use std::collections::HashMap;

use super::proto::{Function, Graph, Model, Node};
use crate::document::{Fault, shorten};

/// How deep functions may call others.
const DEPTH_MAX: usize = 16;
/// Nodes, and values of tensors, that all calls may become.
const NODES_MAX: usize = 65_536;
const VALUES_MAX: usize = 1 << 24;

/// The new names that [`inlined`] needs.
pub(super) fn names(model: &Model<'_>) -> Result<Vec<String>, Fault> {
    let mut names = Vec::new();
    if !model.functions.is_empty() {
        let rename = |name| {
            names.push(format!("{name}#{}", names.len()));
            name
        };
        Walk::new(&model.functions, rename).inline(model.graph.nodes.clone(), 0)?;
    }
    Ok(names)
}

/// The model without calls of functions.
pub(super) fn inlined<'n>(mut model: Model<'n>, names: &'n [String]) -> Result<Model<'n>, Fault> {
    let functions = std::mem::take(&mut model.functions);
    if !functions.is_empty() {
        let mut names = names.iter();
        let rename = |name| names.next().map_or(name, String::as_str);
        let nodes = std::mem::take(&mut model.graph.nodes);
        model.graph.nodes = Walk::new(&functions, rename).inline(nodes, 0)?;
    }
    Ok(model)
}

struct Walk<'f, 'a, R> {
    functions: &'f HashMap<(&'a str, &'a str), Function<'a>>,
    rename: R,
    nodes: usize,
    values: usize,
}

impl<'f, 'a, R: FnMut(&'a str) -> &'a str> Walk<'f, 'a, R> {
    fn new(functions: &'f HashMap<(&'a str, &'a str), Function<'a>>, rename: R) -> Self {
        Self {
            functions,
            rename,
            nodes: 0,
            values: 0,
        }
    }

    /// Nodes without calls, also in the graphs inside them.
    fn inline(&mut self, nodes: Vec<Node<'a>>, depth: usize) -> Result<Vec<Node<'a>>, Fault> {
        let mut made = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            for graph in graphs(&mut node) {
                graph.nodes = self.inline(std::mem::take(&mut graph.nodes), depth)?;
            }
            match self.functions.get(&(node.domain, node.operator)) {
                None => made.push(node),
                Some(_) if depth == DEPTH_MAX => {
                    return Err(Fault(format!(
                        "functions that call each other more than {DEPTH_MAX} deep"
                    )));
                }
                Some(function) => {
                    let inside = self.call(function, &node);
                    let inside = inside.map_err(|fault| {
                        fault.inside(format_args!("function `{}`", shorten(node.operator)))
                    })?;
                    made.extend(self.inline(inside, depth + 1)?);
                }
            }
        }
        Ok(made)
    }

    /// The nodes of a function where a node calls it.
    fn call(&mut self, function: &Function<'a>, node: &Node<'a>) -> Result<Vec<Node<'a>>, Fault> {
        if node.inputs.len() > function.inputs.len() || node.outputs.len() > function.outputs.len()
        {
            return Err(Fault::new("a call with more inputs or outputs than it has"));
        }
        let mut names = HashMap::from([("", "")]);
        let given = node.inputs.iter().copied().chain(std::iter::repeat(""));
        names.extend(function.inputs.iter().copied().zip(given));
        let wanted = function.outputs.iter().zip(&node.outputs);
        for (own, wanted) in wanted.filter(|(_, wanted)| !wanted.is_empty()) {
            // One that is an input too would need a node that copies it.
            if names.insert(own, wanted).is_some() {
                return Err(Fault::new("an output that is an input, or is there twice"));
            }
        }
        let mut nodes = function.nodes.clone();
        for inside in &mut nodes {
            self.adapt(inside, function, node, &mut names)?;
        }
        Ok(nodes)
    }

    /// Gives a node of a function the names and attributes of a call.
    fn adapt(
        &mut self,
        inside: &mut Node<'a>,
        function: &Function<'a>,
        call: &Node<'a>,
        names: &mut HashMap<&'a str, &'a str>,
    ) -> Result<(), Fault> {
        self.nodes += 1;
        let opset = function.opsets.get(inside.domain);
        inside.opset = opset.copied().or(call.opset);
        for own in inside.attributes.values_mut() {
            if let Some(name) = own.refers_to {
                let given = call
                    .attributes
                    .get(name)
                    .or_else(|| function.defaults.get(name));
                *own = given.cloned().unwrap_or_else(|| std::mem::take(own));
            }
            self.values += own.len();
        }
        inside.attributes.retain(|_, own| own.refers_to.is_none());
        for graph in graphs(inside) {
            let values = graph.constants.iter().map(|(_, tensor)| tensor.data.len());
            self.values += values.sum::<usize>();
            let constants = graph.constants.iter_mut().map(|(name, _)| name);
            let values = graph.inputs.iter_mut().chain(&mut graph.outputs);
            for name in constants.chain(values.map(|value| &mut value.name)) {
                self.renamed(name, names);
            }
            for node in &mut graph.nodes {
                self.adapt(node, function, call, names)?;
            }
        }
        for name in inside.inputs.iter_mut().chain(&mut inside.outputs) {
            self.renamed(name, names);
        }
        match self.nodes > NODES_MAX || self.values > VALUES_MAX {
            true => Err(Fault(format!(
                "functions that become more than {NODES_MAX} nodes or {VALUES_MAX} values"
            ))),
            false => Ok(()),
        }
    }

    fn renamed(&mut self, name: &mut &'a str, names: &mut HashMap<&'a str, &'a str>) {
        *name = names
            .entry(name)
            .or_insert_with_key(|name| (self.rename)(name));
    }
}

/// The graphs inside a node, in the same order each time.
fn graphs<'n, 'a>(node: &'n mut Node<'a>) -> impl Iterator<Item = &'n mut Graph<'a>> {
    let mut attributes: Vec<_> = node.attributes.iter_mut().collect();
    attributes.sort_unstable_by_key(|(name, _)| **name);
    attributes
        .into_iter()
        .filter_map(|(_, own)| own.graph.as_mut())
}
