//! ONNX graphs that are not of tables and texts, by ONNX Runtime: a library that the operator names, loaded when the
//! program runs. Only what the engine itself refuses comes here.
//!
//! What goes in and comes out is what the library says of the graph: each number of an input is a feature, each number
//! of an output a prediction.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::available_parallelism;

use auspex_engine::{
    Engine, Feature, FeatureKind, LoadOptions, NamedOutput, Output, Precision, RowBuffer,
    RowRefusal, Rows, Signature,
};
use ort::environment::Environment;
use ort::session::Session;
use ort::value::{DynValue, Tensor, TensorElementType as Element, ValueType};

/// Values of a row that goes in, and that comes out.
const WIDTH_MAX: usize = 1 << 16;
/// Rows that go through the graph together.
const ROWS_MAX: usize = 256;
/// How many threads may run one graph at once, each of which keeps what the library makes of it.
const SESSIONS_MAX: usize = 8;

/// The library, which a process loads once.
static LIBRARY: OnceLock<(PathBuf, Environment)> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// Loads ONNX Runtime; graphs that the engine refuses are run by it from now on.
///
/// # Errors
/// If that is not its library, or another one has been loaded.
pub fn use_onnxruntime(library: &Path) -> Result<(), String> {
    let _one_at_a_time = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((loaded, _)) = LIBRARY.get() {
        return match loaded == library {
            true => Ok(()),
            false => Err(format!(
                "ONNX Runtime is loaded from {} already; restart the server to load another",
                loaded.display()
            )),
        };
    }
    let built = ort::init_from(library).map_err(|error| error.to_string());
    let built = built.and_then(|builder| builder.build().map_err(|error| error.to_string()));
    let environment = built.map_err(|error| {
        format!("{error}; name libonnxruntime.so of ONNX Runtime 1.17 or newer, or leave it empty")
    })?;
    let _ = LIBRARY.set((library.to_owned(), environment));
    Ok(())
}

/// Loads a model by the engine or, if it is a graph that the engine refuses, by ONNX Runtime.
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
    let Some((_, environment)) = LIBRARY.get() else {
        return Err(format!(
            "{refused}; or set inference.onnxruntime (commands: --onnxruntime) to the path of libonnxruntime.so, which runs such graphs"
        ));
    };
    let graph = Graph::new(environment, bytes);
    let graph = graph.map_err(|error| format!("{refused}; nor does ONNX Runtime take it: {error}"));
    graph.map(|graph| Box::new(graph) as Box<dyn Engine>)
}

#[derive(Debug)]
struct Graph {
    signature: Signature,
    inputs: Vec<Input>,
    outputs: Vec<String>,
    /// Whether the graph takes one row at a time.
    is_single: bool,
    /// One runs in one thread; the first that is free is taken.
    sessions: Vec<Mutex<Session>>,
}

/// An input of a graph: some values of a row.
#[derive(Debug)]
struct Input {
    name: String,
    element: Element,
    /// Without that of the rows.
    dimensions: Vec<i64>,
    width: usize,
}

impl Graph {
    fn new(environment: &Environment, bytes: &[u8]) -> Result<Self, String> {
        let session = || {
            let builder = Session::builder(environment).map_err(|error| error.to_string())?;
            let builder = builder.with_intra_threads(1);
            let mut builder = builder.map_err(|error| error.to_string())?;
            let session = builder.commit_from_memory(bytes);
            session.map_err(|error| error.to_string())
        };
        let first = session()?;
        let mut is_single = false;
        let mut inputs = Vec::new();
        for outlet in first.inputs() {
            let (input, takes_one) = Input::new(outlet.name(), outlet.dtype())
                .map_err(|reason| format!("input `{}`: {reason}", outlet.name()))?;
            is_single |= takes_one;
            inputs.push(input);
        }
        let features = features(&inputs);
        if !(1..=WIDTH_MAX).contains(&features.len()) {
            return Err(format!(
                "{} values in a row; 1 to {WIDTH_MAX} are supported",
                features.len()
            ));
        }
        let outputs = first.outputs().iter();
        let mut graph = Self {
            signature: Signature {
                named: inputs.len() > 1 || inputs[0].width == 1,
                features,
                output: Output::Numbers { count: 1 },
                class_labels: Vec::new(),
                more_outputs: Vec::new(),
                precision: Precision::F32,
                missing: None,
            },
            inputs,
            outputs: outputs.map(|outlet| outlet.name().to_owned()).collect(),
            is_single,
            sessions: vec![Mutex::new(first)],
        };
        graph.try_out()?;
        let threads = available_parallelism().map_or(1, |threads| threads.get());
        while graph.sessions.len() < threads.min(SESSIONS_MAX) {
            graph.sessions.push(Mutex::new(session()?));
        }
        Ok(graph)
    }

    /// Finds out from a row that is made up what comes out.
    fn try_out(&mut self) -> Result<(), String> {
        let mut row = RowBuffer::default();
        for feature in &self.signature.features {
            let value = match feature.kind {
                FeatureKind::Text => row.texts.push(""),
                _ => 0.0,
            };
            row.values.push(value);
        }
        let width = self.signature.features.len();
        let made = self.run(row.rows(width), |values| {
            let found = values.iter().map(|(name, value)| {
                let (numbers, is_narrow) =
                    numbers(value, 1).map_err(|reason| format!("output `{name}`: {reason}"))?;
                Ok((
                    Output::Numbers {
                        count: numbers.len(),
                    },
                    is_narrow,
                ))
            });
            found.collect::<Result<Vec<_>, String>>()
        })?;
        let mut outputs = made.iter().map(|(output, _)| *output);
        self.signature.output = outputs.next().ok_or("a graph without outputs")?;
        let names = self.outputs[1..].iter().cloned();
        let more = names.zip(outputs);
        self.signature.more_outputs = more
            .map(|(name, output)| NamedOutput { name, output })
            .collect();
        if !made.iter().all(|(_, is_narrow)| *is_narrow) {
            self.signature.precision = Precision::F64;
        }
        Ok(())
    }

    /// The first session that is free.
    fn session(&self) -> MutexGuard<'_, Session> {
        for session in &self.sessions {
            match session.try_lock() {
                Ok(session) => return session,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        self.sessions[0]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Has rows computed, and something done with the outputs and their names.
    fn run<T>(
        &self,
        rows: Rows<'_>,
        finish: impl FnOnce(&[(&str, &DynValue)]) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut first = 0;
        let mut given = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let value = input.of(rows, first).map_err(|error| error.to_string())?;
            given.push((input.name.as_str(), value));
            first += input.width;
        }
        let mut session = self.session();
        let made = session.run(given).map_err(|error| error.to_string())?;
        let named = self.outputs.iter().map(|name| {
            let value = made.get(name);
            value.map(|value| (name.as_str(), value))
        });
        let named: Option<Vec<_>> = named.collect();
        finish(&named.ok_or("an output is not made")?)
    }

    fn predict_together(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), String> {
        let outputs = self.signature.outputs();
        self.run(rows, |values| {
            let mut first = 0;
            for (_, value) in values {
                let (numbers, _) = numbers(value, rows.len())?;
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
        })
    }
}

impl Input {
    /// An input, and whether it takes one row alone.
    fn new(name: &str, kind: &ValueType) -> Result<(Self, bool), String> {
        let ValueType::Tensor { ty, shape, .. } = kind else {
            return Err("no tensor; maps and sequences are not supported".into());
        };
        let Some((rows, dimensions)) = shape.split_first() else {
            return Err("no dimension of rows".into());
        };
        if !matches!(rows, -1 | 1) {
            return Err(format!(
                "takes exactly {rows} rows; export the model with an open first dimension"
            ));
        }
        let width = dimensions.iter().try_fold(1usize, |width, dimension| {
            let dimension = usize::try_from(*dimension).ok()?;
            width
                .checked_mul(dimension)
                .filter(|width| *width <= WIDTH_MAX)
        });
        let width = width.ok_or_else(|| {
            format!(
                "the shape {shape:?}; all dimensions but the first must be fixed, with {WIDTH_MAX} values together at most"
            )
        })?;
        let input = Self {
            name: name.to_owned(),
            element: *ty,
            dimensions: dimensions.to_vec(),
            width,
        };
        input.kind().map(|_| (input, *rows == 1))
    }

    fn kind(&self) -> Result<FeatureKind, String> {
        Ok(match self.element {
            Element::Float32 | Element::Float64 => FeatureKind::Number,
            Element::Int32 | Element::Int64 => FeatureKind::Integer,
            Element::Bool => FeatureKind::Boolean,
            Element::String => FeatureKind::Text,
            other => return Err(format!("values of the type {other} are not supported")),
        })
    }

    /// The tensor of some rows, in which its values begin at a place.
    fn of(&self, rows: Rows<'_>, first: usize) -> ort::Result<DynValue> {
        let values = (0..rows.len()).flat_map(|row| &rows.row(row)[first..first + self.width]);
        let mut shape = vec![rows.len() as i64];
        shape.extend(&self.dimensions);
        Ok(match self.element {
            Element::Float32 => {
                let values: Vec<f32> = values.map(|value| *value as f32).collect();
                Tensor::from_array((shape, values))?.into_dyn()
            }
            Element::Int32 => {
                let values: Vec<i32> = values.map(|value| *value as i32).collect();
                Tensor::from_array((shape, values))?.into_dyn()
            }
            Element::Int64 => {
                let values: Vec<i64> = values.map(|value| *value as i64).collect();
                Tensor::from_array((shape, values))?.into_dyn()
            }
            Element::Bool => {
                let values: Vec<bool> = values.map(|value| *value != 0.0).collect();
                Tensor::from_array((shape, values))?.into_dyn()
            }
            Element::String => {
                let texts = values.map(|value| rows.text(*value).unwrap_or_default().to_owned());
                let texts: Vec<String> = texts.collect();
                Tensor::from_string_array((shape, texts.as_slice()))?.into_dyn()
            }
            _ => Tensor::from_array((shape, values.copied().collect::<Vec<f64>>()))?.into_dyn(),
        })
    }
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
            kind: input.kind().unwrap_or(FeatureKind::Number),
            takes_missing: false,
        }));
    }
    features
}

/// The numbers of an output, and whether they are of 32 bits at most.
fn numbers(value: &DynValue, rows: usize) -> Result<(Vec<f64>, bool), String> {
    let kind = value.dtype();
    let Some(element) = kind.tensor_type() else {
        return Err("no tensor; leave it out, or export the model without ZipMap".into());
    };
    let wide = |numbers: &[f64]| numbers.to_vec();
    let extracted = match element {
        Element::Float32 => value.try_extract_tensor::<f32>().map(|(shape, numbers)| {
            (
                shape,
                numbers.iter().map(|number| f64::from(*number)).collect(),
            )
        }),
        Element::Float64 => value
            .try_extract_tensor::<f64>()
            .map(|(shape, numbers)| (shape, wide(numbers))),
        Element::Int32 => value.try_extract_tensor::<i32>().map(|(shape, numbers)| {
            (
                shape,
                numbers.iter().map(|number| f64::from(*number)).collect(),
            )
        }),
        Element::Int64 => value
            .try_extract_tensor::<i64>()
            .map(|(shape, numbers)| (shape, numbers.iter().map(|number| *number as f64).collect())),
        Element::Bool => value.try_extract_tensor::<bool>().map(|(shape, numbers)| {
            (
                shape,
                numbers.iter().map(|is| f64::from(u8::from(*is))).collect(),
            )
        }),
        other => {
            return Err(format!(
                "values of the type {other} are not supported; leave it out"
            ));
        }
    };
    let (shape, numbers): (_, Vec<f64>) = extracted.map_err(|error| error.to_string())?;
    let has_rows = shape.first().is_some_and(|first| *first == rows as i64);
    match has_rows && (rows..=rows * WIDTH_MAX).contains(&numbers.len()) {
        true => Ok((numbers, element == Element::Float32)),
        false => Err(format!(
            "{rows} rows give the shape {shape:?}; one row for each is expected"
        )),
    }
}

impl Engine for Graph {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn description(&self) -> String {
        format!(
            "ONNX Runtime, {} inputs, {} sessions",
            self.inputs.len(),
            self.sessions.len()
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
                    reason: format!("is refused by ONNX Runtime: {reason}"),
                })?;
            }
        }
        Ok(())
    }
}
