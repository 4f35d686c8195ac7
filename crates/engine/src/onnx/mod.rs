//! Models in ONNX that predict from tables and texts, as skl2onnx, onnxmltools and the like write them.
//!
//! A graph becomes steps of our own; trees run on the forest. Whatever an operator would need that is not here, the file is
//! refused for, by the operator's name. Results are those of ONNX Runtime but for the order in which it adds `f32`.
//!
//! Before a model is loaded its graph runs on rows that are made up: types and shapes that do not fit show then.

mod bodies;
mod inline;
mod inputs;
mod narrow;
mod ops;
mod outputs;
mod program;
mod proto;
mod tensor;
#[cfg(test)]
mod tests;
mod wire;

use crate::document::{Fault, shorten};
use crate::explain::{self, Asked, Compared, Explain, Unexplained};
use crate::signature::Output;
use crate::{Engine, FeatureKind, LoadOptions, RowBuffer, RowRefusal, Rows, Signature};
use inputs::Inputs;
use ops::Context;
use outputs::Outputs;
use program::Program;

/// Rows that go through the graph together, at most.
const ROWS_MAX: usize = 256;

/// Steps of computation that rows which go through together may take.
const STEPS_PER_PASS: usize = 1 << 22;

/// Rows that a graph is tried with.
const TRIALS: usize = 6;

/// Up to how many inputs each is tried without a value; of more, all together.
const TRIED_MAX: usize = 256;

/// A loaded model.
#[derive(Debug)]
struct Model {
    signature: Signature,
    producer: String,
    program: Program,
    inputs: Inputs,
    outputs: Outputs,
    rows_per_pass: usize,
    /// What its explanations compare rows with. The file has nothing of it: no converter writes how many training rows
    /// took each branch, nor the means of what a linear model is fitted to.
    compared: Compared,
}

/// Loads a model from an ONNX file.
pub(crate) fn load(bytes: &[u8], options: &LoadOptions) -> Result<Box<dyn Engine>, Fault> {
    let model = proto::Model::read(bytes)?;
    let names = inline::names(&model)?;
    let model = inline::inlined(model, &names)?;
    let (program, names) = Program::new(&model)?;
    let mut inputs = Inputs::read(&model, &names)?;
    let mut trials = Vec::new();
    let mut rows_per_pass = 1;
    for trial in 0..TRIALS {
        let context = Context::of_trial(false);
        let row = made_up(&inputs, trial, None);
        trials.push(program.run(
            inputs.of(row.rows(inputs.features.len()))?.into_iter(),
            &context,
        )?);
        rows_per_pass = (STEPS_PER_PASS / context.spent().max(1)).clamp(1, ROWS_MAX);
    }
    let outputs = Outputs::read(&model, &program, &names, &trials)?;
    drop(trials);
    let takes_missing = take_missing(&program, &inputs, &outputs);
    for (feature, takes_missing) in inputs.features.iter_mut().zip(takes_missing) {
        feature.takes_missing = takes_missing;
    }
    let signature = Signature {
        features: inputs.features.clone(),
        named: inputs.named,
        output: outputs.first(),
        class_labels: outputs.class_labels.clone(),
        more_outputs: outputs.more(),
        precision: outputs.precision,
        missing: None,
    };
    let mut model = Model {
        compared: Compared(Err(match signature.output {
            Output::Class { .. } => Unexplained::Kind,
            _ if options.explanation_bytes_max == 0 => Unexplained::NotAsked,
            _ => Unexplained::NoBackground,
        })),
        signature,
        producer: shorten(model.producer),
        rows_per_pass: if inputs.are_single() || program.decides() {
            1
        } else {
            rows_per_pass
        },
        program,
        inputs,
        outputs,
    };
    // A graph may be made for one row without its saying so, or let what it says of a row depend on those beside it.
    if model.rows_per_pass > 1 && !model.takes_two() {
        model.rows_per_pass = 1;
    }
    Ok(Box::new(model))
}

/// A row that is made up, perhaps without one of its values.
fn made_up(inputs: &Inputs, trial: usize, without: Option<usize>) -> RowBuffer {
    let mut buffer = RowBuffer::default();
    make_up(&mut buffer, inputs, trial, without);
    buffer
}

/// Makes up a row behind others.
fn make_up(buffer: &mut RowBuffer, inputs: &Inputs, trial: usize, without: Option<usize>) {
    for (index, feature) in inputs.features.iter().enumerate() {
        let number = (trial * 7 + index * 3) % 11;
        let value = match feature.kind {
            FeatureKind::Text => {
                buffer
                    .texts
                    .push(if trial.is_multiple_of(2) { "" } else { "word" })
            }
            FeatureKind::Boolean => (number % 2) as f64,
            FeatureKind::Integer => number as f64,
            _ => (number as f64 - 5.0) / 2.0,
        };
        buffer.values.push(if without == Some(index) {
            f64::NAN
        } else {
            value
        });
    }
}

/// Which inputs may be missing: those without which a row still has numbers.
fn take_missing(program: &Program, inputs: &Inputs, outputs: &Outputs) -> Vec<bool> {
    let width = inputs.features.len();
    let takes = |index: usize| {
        let context = Context::of_trial(true);
        let row = made_up(inputs, 0, Some(index));
        let mut out = vec![
            0.0;
            outputs.first().width()
                + outputs
                    .more()
                    .iter()
                    .map(|more| more.output.width())
                    .sum::<usize>()
        ];
        let given = inputs.of(row.rows(width));
        let values = given.and_then(|given| program.run(given.into_iter(), &context));
        values
            .and_then(|values| outputs.write(&values, 1, &mut out))
            .is_ok()
            && !out.iter().any(|value| value.is_nan())
    };
    match width > TRIED_MAX {
        true => vec![false; width],
        false => (0..width).map(takes).collect(),
    }
}

impl Model {
    /// Whether two rows together get what each of them gets alone.
    fn takes_two(&self) -> bool {
        let outputs = self.signature.outputs();
        let predict = |trials: &[usize]| {
            let (mut rows, mut out) = (RowBuffer::default(), vec![0.0; trials.len() * outputs]);
            for trial in trials {
                make_up(&mut rows, &self.inputs, *trial, None);
            }
            let rows = rows.rows(self.signature.features.len());
            let passed = self.pass(rows, &mut out, &Context::of_trial(false));
            passed.map(|()| out)
        };
        let (Ok(together), Ok(first), Ok(second)) =
            (predict(&[0, 1]), predict(&[0]), predict(&[1]))
        else {
            return false;
        };
        let is_near = |(a, b): (&f64, &f64)| {
            a == b
                || a.is_nan() && b.is_nan()
                || (a - b).abs() <= 1e-6 + 1e-4 * a.abs().max(b.abs())
        };
        together
            .iter()
            .zip(first.iter().chain(&second))
            .all(is_near)
    }

    fn pass(&self, rows: Rows<'_>, out: &mut [f64], context: &Context) -> Result<(), Fault> {
        let values = self
            .program
            .run(self.inputs.of(rows)?.into_iter(), context)?;
        self.outputs.write(&values, rows.len(), out)
    }
}

impl Engine for Model {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn description(&self) -> String {
        match self.producer.as_str() {
            "" => format!("onnx, {} operators", self.program.steps()),
            producer => format!("onnx by {producer}, {} operators", self.program.steps()),
        }
    }

    fn explain(&self) -> Result<&dyn Explain, Unexplained> {
        self.compared.explain(self)
    }

    fn compare_with(&mut self, rows: Rows<'_>, options: &LoadOptions) {
        self.compared
            .replace(rows, &self.signature.features, options);
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        let width = self.signature.features.len();
        assert!(
            rows.is_empty() || rows.width() == width,
            "rows of {} values for a model of {width} features",
            rows.width(),
        );
        let outputs = self.signature.outputs();
        assert_eq!(out.len(), rows.len() * outputs, "output of another length");
        for (index, out) in out.chunks_mut(self.rows_per_pass * outputs).enumerate() {
            let first = index * self.rows_per_pass;
            let rows = rows.slice(first..first + out.len() / outputs);
            if self.pass(rows, out, &Context::default()).is_ok() {
                continue;
            }
            // One of them is refused; alone it tells why.
            for (row, out) in out.chunks_exact_mut(outputs).enumerate() {
                let passed = self.pass(rows.slice(row..row + 1), out, &Context::default());
                passed.map_err(|fault| RowRefusal {
                    row: first + row,
                    reason: fault.0,
                })?;
            }
        }
        Ok(())
    }
}

impl Explain for Model {
    fn margins(&self) -> usize {
        self.numbers()
    }

    fn bytes(&self) -> usize {
        self.compared.bytes()
    }

    fn asks(&self) -> usize {
        self.compared.asks()
    }

    fn contributions(
        &self,
        rows: Rows<'_>,
        margin: usize,
        out: &mut [f64],
    ) -> Result<(), RowRefusal> {
        self.compared.contributions(self, rows, margin, out)
    }
}

impl Asked for Model {
    fn numbers(&self) -> usize {
        self.signature.output.width()
    }

    fn ask(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        explain::predicted(self, rows, out)
    }
}
