//! ONNX graphs that are not of tables and texts, which the engine itself refuses: run by somebody else's code, behind
//! [`Runtime`].
//!
//! What goes in and comes out is what that code says of the graph: each number of an input is a feature, each number of
//! an output a prediction.

use std::fmt::{Debug, Display};

use auspex_engine::{
    Engine, Feature, FeatureKind, LoadOptions, NamedOutput, Output, Precision, RowBuffer,
    RowRefusal, Rows, Signature,
};

use crate::onnxruntime;
#[cfg(feature = "tract")]
use crate::tract;

/// Values of a row that goes in, and that comes out.
const WIDTH_MAX: usize = 1 << 16;
/// Rows that go through the graph together.
const ROWS_MAX: usize = 256;

/// Loads a model by the engine or, if it is a graph that the engine refuses, by what else there is.
pub(crate) fn load(
    name: &str,
    bytes: &[u8],
    options: &LoadOptions,
) -> Result<Box<dyn Engine>, String> {
    let refused = match auspex_engine::load_bytes(name, bytes, options) {
        Ok(engine) => return Ok(engine),
        Err(error) => error.message,
    };
    if !auspex_engine::is_onnx(bytes) {
        return Err(refused);
    }
    if let Some(loaded) = onnxruntime::load(bytes) {
        return loaded
            .map_err(|error| format!("{refused}; nor does ONNX Runtime take it: {error}"));
    }
    #[cfg(feature = "tract")]
    return tract::load(bytes).map_err(|error| {
        format!(
            "{refused}; nor does tract take it: {error}; set inference.onnxruntime (commands: --onnxruntime) to the path of \
             libonnxruntime.so, which knows more"
        )
    });
    #[cfg(not(feature = "tract"))]
    Err(format!(
        "{refused}; or set inference.onnxruntime (commands: --onnxruntime) to the path of libonnxruntime.so, which runs such graphs"
    ))
}

/// What runs a graph.
pub(crate) trait Runtime: Debug + Send + Sync + 'static {
    /// Its name, for messages.
    const NAME: &'static str;

    /// What it is, for people.
    fn description(&self) -> String {
        Self::NAME.to_owned()
    }

    /// The outputs for these inputs, both in the order of the graph.
    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, String>;
}

/// Values that go in or come out.
#[derive(Debug)]
pub(crate) struct Tensor {
    /// The first dimension is that of the rows.
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Values,
}

#[derive(Debug)]
pub(crate) enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
    Text(Vec<String>),
}

/// What the values of an input are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F64,
    I32,
    I64,
    Bool,
    Text,
}

/// An input of a graph: some values of a row.
#[derive(Debug)]
pub(crate) struct Input {
    name: String,
    element: Element,
    /// Without that of the rows.
    dimensions: Vec<usize>,
    width: usize,
    /// It takes one row at a time.
    is_single: bool,
}

/// A graph with what runs it.
#[derive(Debug)]
pub(crate) struct Graph<R> {
    runtime: R,
    signature: Signature,
    inputs: Vec<Input>,
    /// Whether the graph takes one row at a time.
    is_single: bool,
}

impl<R: Runtime> Graph<R> {
    /// A graph with these inputs, and outputs of these names.
    pub(crate) fn new(
        runtime: R,
        inputs: Vec<Input>,
        outputs: Vec<String>,
    ) -> Result<Self, String> {
        let features = features(&inputs);
        if !(1..=WIDTH_MAX).contains(&features.len()) {
            return Err(format!(
                "{} values in a row; 1 to {WIDTH_MAX} are supported",
                features.len()
            ));
        }
        let mut graph = Self {
            runtime,
            signature: Signature {
                named: inputs.len() > 1 || inputs[0].width == 1,
                features,
                output: Output::Numbers { count: 1 },
                class_labels: Vec::new(),
                more_outputs: Vec::new(),
                precision: Precision::F32,
                missing: None,
            },
            is_single: inputs.iter().any(|input| input.is_single),
            inputs,
        };
        graph.try_out(outputs)?;
        Ok(graph)
    }

    pub(crate) fn runtime(&mut self) -> &mut R {
        &mut self.runtime
    }

    /// Finds out from a row that is made up what comes out.
    fn try_out(&mut self, names: Vec<String>) -> Result<(), String> {
        let mut row = RowBuffer::default();
        for feature in &self.signature.features {
            let value = match feature.kind {
                FeatureKind::Text => row.texts.push(""),
                _ => 0.0,
            };
            row.values.push(value);
        }
        let width = self.signature.features.len();
        let made = self.run(row.rows(width))?;
        let mut outputs = Vec::new();
        let mut is_narrow = true;
        for (name, tensor) in names.into_iter().zip(made) {
            let is_of_32 = matches!(tensor.values, Values::F32(_));
            let numbers =
                numbers(tensor, 1).map_err(|error| format!("output `{name}`: {error}"))?;
            let count = numbers.len();
            outputs.push((name, Output::Numbers { count }));
            is_narrow &= is_of_32;
        }
        let mut outputs = outputs.into_iter();
        let (_, first) = outputs.next().ok_or("a graph without outputs")?;
        self.signature.output = first;
        self.signature.more_outputs = outputs
            .map(|(name, output)| NamedOutput { name, output })
            .collect();
        if !is_narrow {
            self.signature.precision = Precision::F64;
        }
        Ok(())
    }

    fn run(&self, rows: Rows<'_>) -> Result<Vec<Tensor>, String> {
        let mut first = 0;
        let given = self.inputs.iter().map(|input| {
            let tensor = input.of(rows, first);
            first += input.width;
            tensor
        });
        self.runtime.run(given.collect())
    }

    fn predict_together(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), String> {
        let outputs = self.signature.outputs();
        let mut first = 0;
        for tensor in self.run(rows)? {
            let numbers = numbers(tensor, rows.len())?;
            let width = numbers.len() / rows.len().max(1);
            for (numbers, out) in numbers
                .chunks_exact(width)
                .zip(out.chunks_exact_mut(outputs))
            {
                let place = out.get_mut(first..first + width);
                let place = place.ok_or("an output is wider than before")?;
                place.copy_from_slice(numbers);
            }
            first += width;
        }
        match first == outputs {
            true => Ok(()),
            false => Err("an output is narrower than before".into()),
        }
    }
}

impl Input {
    /// An input of this shape, in which `None` is a dimension that is open.
    pub(crate) fn new(
        name: &str,
        element: Element,
        shape: &[Option<usize>],
    ) -> Result<Self, String> {
        let Some((rows, dimensions)) = shape.split_first() else {
            return Err("no dimension of rows".into());
        };
        if let Some(rows) = rows.filter(|rows| *rows != 1) {
            return Err(format!(
                "takes exactly {rows} rows; export the model with an open first dimension"
            ));
        }
        let fixed: Option<Vec<usize>> = dimensions.iter().copied().collect();
        let width = fixed.iter().flatten().try_fold(1usize, |width, dimension| {
            width
                .checked_mul(*dimension)
                .filter(|width| *width <= WIDTH_MAX)
        });
        let (Some(dimensions), Some(width)) = (fixed, width) else {
            let shown = |dimension: &Option<usize>| {
                dimension.map_or_else(|| "?".to_owned(), |dimension| dimension.to_string())
            };
            let shown: Vec<_> = shape.iter().map(shown).collect();
            return Err(format!(
                "the shape [{}]; all dimensions but the first must be fixed, with {WIDTH_MAX} values together at most",
                shown.join(", ")
            ));
        };
        Ok(Self {
            name: name.to_owned(),
            element,
            dimensions,
            width,
            is_single: *rows == Some(1),
        })
    }

    fn kind(&self) -> FeatureKind {
        match self.element {
            Element::F32 | Element::F64 => FeatureKind::Number,
            Element::I32 | Element::I64 => FeatureKind::Integer,
            Element::Bool => FeatureKind::Boolean,
            Element::Text => FeatureKind::Text,
        }
    }

    /// The tensor of some rows, in which its values begin at a place.
    fn of(&self, rows: Rows<'_>, first: usize) -> Tensor {
        let values = (0..rows.len()).flat_map(|row| &rows.row(row)[first..first + self.width]);
        let values = match self.element {
            Element::F32 => Values::F32(values.map(|value| *value as f32).collect()),
            Element::F64 => Values::F64(values.copied().collect()),
            Element::I32 => Values::I32(values.map(|value| *value as i32).collect()),
            Element::I64 => Values::I64(values.map(|value| *value as i64).collect()),
            Element::Bool => Values::Bool(values.map(|value| *value != 0.0).collect()),
            Element::Text => {
                let texts = values.map(|value| rows.text(*value).unwrap_or_default().to_owned());
                Values::Text(texts.collect())
            }
        };
        let shape = std::iter::once(rows.len()).chain(self.dimensions.iter().copied());
        Tensor {
            shape: shape.collect(),
            values,
        }
    }
}

/// Why an output of such values is refused.
pub(crate) fn unsupported(kind: impl Display) -> String {
    format!("values of the type {kind} are not supported; leave it out")
}

/// A feature for each value that goes in.
fn features(inputs: &[Input]) -> Vec<Feature> {
    let mut features = Vec::new();
    for input in inputs {
        let Input { name, width, .. } = input;
        features.extend((0..*width).map(|index| Feature {
            name: match (width, inputs.len()) {
                (1, _) => name.clone(),
                (_, 1) => format!("f{index}"),
                _ => format!("{name}_{index}"),
            },
            kind: input.kind(),
            takes_missing: false,
        }));
    }
    features
}

/// The numbers of an output.
fn numbers(tensor: Tensor, rows: usize) -> Result<Vec<f64>, String> {
    let Tensor { shape, values } = tensor;
    let numbers: Vec<f64> = match values {
        Values::F32(numbers) => numbers.into_iter().map(f64::from).collect(),
        Values::F64(numbers) => numbers,
        Values::I32(numbers) => numbers.into_iter().map(f64::from).collect(),
        Values::I64(numbers) => numbers.into_iter().map(|number| number as f64).collect(),
        Values::Bool(numbers) => numbers
            .into_iter()
            .map(|is| f64::from(u8::from(is)))
            .collect(),
        Values::Text(_) => return Err(unsupported("string")),
    };
    let has_rows = shape.first() == Some(&rows);
    match has_rows && (rows..=rows * WIDTH_MAX).contains(&numbers.len()) {
        true => Ok(numbers),
        false => Err(format!(
            "{rows} rows give the shape {shape:?}; one row for each is expected"
        )),
    }
}

impl<R: Runtime> Engine for Graph<R> {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn description(&self) -> String {
        format!(
            "{}, {} inputs",
            self.runtime.description(),
            self.inputs.len()
        )
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        let outputs = self.signature.outputs();
        assert_eq!(out.len(), rows.len() * outputs, "output of another length");
        let together = if self.is_single { 1 } else { ROWS_MAX };
        for (pass, out) in out.chunks_mut(together * outputs).enumerate() {
            let first = pass * together;
            let rows = rows.slice(first..first + out.len() / outputs);
            if self.predict_together(rows, out).is_ok() {
                continue;
            }
            // One of them is refused; alone it tells why.
            for (row, out) in out.chunks_exact_mut(outputs).enumerate() {
                let alone = self.predict_together(rows.slice(row..row + 1), out);
                alone.map_err(|reason| RowRefusal {
                    row: first + row,
                    reason: format!("is refused by {}: {reason}", R::NAME),
                })?;
            }
        }
        Ok(())
    }
}
