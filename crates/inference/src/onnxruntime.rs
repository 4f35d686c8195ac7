//! Graphs by ONNX Runtime: a library that the operator names, loaded when the program runs.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::available_parallelism;

use auspex_engine::Engine;
use ort::environment::Environment;
use ort::session::Session;
use ort::value::{DynValue, TensorElementType, ValueType};

use crate::graph::{Element, Graph, Input, Runtime, Tensor, Values, unsupported};

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

/// Loads a graph, if the library is there.
pub(crate) fn load(bytes: &[u8]) -> Option<Result<Box<dyn Engine>, String>> {
    let (_, environment) = LIBRARY.get()?;
    let graph = open(environment, bytes);
    Some(graph.map(|graph| Box::new(graph) as Box<dyn Engine>))
}

fn open(environment: &Environment, bytes: &[u8]) -> Result<Graph<Sessions>, String> {
    let session = || {
        let builder = Session::builder(environment).map_err(|error| error.to_string())?;
        let builder = builder.with_intra_threads(1);
        let mut builder = builder.map_err(|error| error.to_string())?;
        let session = builder.commit_from_memory(bytes);
        session.map_err(|error| error.to_string())
    };
    let first = session()?;
    let inputs = first.inputs().iter().map(|outlet| {
        let input = input(outlet.name(), outlet.dtype());
        input.map_err(|reason| format!("input `{}`: {reason}", outlet.name()))
    });
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    let names = |outlets: &[ort::value::Outlet]| -> Vec<String> {
        outlets
            .iter()
            .map(|outlet| outlet.name().to_owned())
            .collect()
    };
    let (of_inputs, outputs) = (names(first.inputs()), names(first.outputs()));
    let sessions = Sessions {
        inputs: of_inputs,
        outputs: outputs.clone(),
        sessions: vec![Mutex::new(first)],
    };
    let mut graph = Graph::new(sessions, inputs, outputs)?;
    let threads = available_parallelism().map_or(1, |threads| threads.get());
    for _ in 1..threads.min(SESSIONS_MAX) {
        graph.runtime().sessions.push(Mutex::new(session()?));
    }
    Ok(graph)
}

/// What the library makes of a graph.
#[derive(Debug)]
struct Sessions {
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// One runs in one thread; the first that is free is taken.
    sessions: Vec<Mutex<Session>>,
}

impl Sessions {
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
}

impl Runtime for Sessions {
    const NAME: &'static str = "ONNX Runtime";

    fn description(&self) -> String {
        format!("{}, {} sessions", Self::NAME, self.sessions.len())
    }

    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, String> {
        let given = self.inputs.iter().zip(inputs).map(|(name, tensor)| {
            let value = given(tensor).map_err(|error| error.to_string())?;
            Ok((name.as_str(), value))
        });
        let given = given.collect::<Result<Vec<_>, String>>()?;
        let mut session = self.session();
        let made = session.run(given).map_err(|error| error.to_string())?;
        let made = self.outputs.iter().map(|name| {
            let value = made.get(name).ok_or("an output is not made")?;
            taken(value)
        });
        made.collect()
    }
}

fn input(name: &str, kind: &ValueType) -> Result<Input, String> {
    let ValueType::Tensor { ty, shape, .. } = kind else {
        return Err("no tensor; maps and sequences are not supported".into());
    };
    let element = match ty {
        TensorElementType::Float32 => Element::F32,
        TensorElementType::Float64 => Element::F64,
        TensorElementType::Int32 => Element::I32,
        TensorElementType::Int64 => Element::I64,
        TensorElementType::Bool => Element::Bool,
        TensorElementType::String => Element::Text,
        other => return Err(format!("values of the type {other} are not supported")),
    };
    let shape = shape
        .iter()
        .map(|dimension| usize::try_from(*dimension).ok());
    Input::new(name, element, &shape.collect::<Vec<_>>())
}

fn given(tensor: Tensor) -> ort::Result<DynValue> {
    use ort::value::Tensor as Value;

    let Tensor { shape, values } = tensor;
    Ok(match values {
        Values::F32(values) => Value::from_array((shape, values))?.into_dyn(),
        Values::F64(values) => Value::from_array((shape, values))?.into_dyn(),
        Values::I32(values) => Value::from_array((shape, values))?.into_dyn(),
        Values::I64(values) => Value::from_array((shape, values))?.into_dyn(),
        Values::Bool(values) => Value::from_array((shape, values))?.into_dyn(),
        Values::Text(values) => Value::from_string_array((shape, values.as_slice()))?.into_dyn(),
    })
}

fn taken(value: &DynValue) -> Result<Tensor, String> {
    let kind = value.dtype();
    let Some(element) = kind.tensor_type() else {
        return Err("no tensor; leave it out, or export the model without ZipMap".into());
    };
    macro_rules! values {
        ($kind:ident, $number:ty) => {
            value
                .try_extract_tensor::<$number>()
                .map(|(shape, numbers)| (shape.to_vec(), Values::$kind(numbers.to_vec())))
        };
    }
    let extracted = match element {
        TensorElementType::Float32 => values!(F32, f32),
        TensorElementType::Float64 => values!(F64, f64),
        TensorElementType::Int32 => values!(I32, i32),
        TensorElementType::Int64 => values!(I64, i64),
        TensorElementType::Bool => values!(Bool, bool),
        other => return Err(unsupported(other)),
    };
    let (shape, values) = extracted.map_err(|error| error.to_string())?;
    let shape = shape
        .into_iter()
        .map(|dimension| usize::try_from(dimension).unwrap_or(0));
    Ok(Tensor {
        shape: shape.collect(),
        values,
    })
}
