//! axum with ONNX Runtime: what a Rust programmer writes by hand for this one model. One session per
//! core, each of one thread; a request takes whichever is free.

mod customer;

use std::error::Error;
use std::sync::{Arc, Mutex, TryLockError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use customer::Customer;
use ort::session::Session;
use ort::value::TensorRef;
use serde::Serialize;

const SESSIONS: usize = 2;

type Sessions = Arc<[Mutex<Session>; SESSIONS]>;

#[derive(Serialize)]
struct Predictions {
    predictions: [Vec<f32>; 1],
}

/// `axum-ort PORT LIBRARY MODEL`, where the library is `libonnxruntime.so`.
#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, library, model] = arguments.as_slice() else {
        return Err("usage: axum-ort PORT LIBRARY MODEL".into());
    };
    let runtime = ort::init_from(library)?.build()?;
    let load = || {
        Session::builder(&runtime)?
            .with_intra_threads(1)?
            .commit_from_file(model)
    };
    let sessions: Sessions = Arc::new([Mutex::new(load()?), Mutex::new(load()?)]);
    let router = Router::new()
        .route("/predict", post(predict))
        .with_state(sessions);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |stream| {
            // Without it small answers wait for the client's acknowledgement.
            let _ = stream.set_nodelay(true);
        }),
        router,
    )
    .await?;
    Ok(())
}

type Failure = (StatusCode, String);

async fn predict(
    State(sessions): State<Sessions>,
    Json(customer): Json<Customer>,
) -> Result<Json<Predictions>, Failure> {
    if let Some(problem) = customer.problem() {
        return Err((StatusCode::UNPROCESSABLE_ENTITY, problem));
    }
    let row = customer.to_row();
    let probabilities = run(&sessions, &row).map_err(internal)?;
    Ok(Json(Predictions {
        predictions: [probabilities],
    }))
}

fn run(sessions: &Sessions, row: &[f32; 20]) -> ort::Result<Vec<f32>> {
    let free = sessions
        .iter()
        .find_map(|session| match session.try_lock() {
            Ok(session) => Some(session),
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => None,
        });
    let mut session = free.unwrap_or_else(|| sessions[0].lock().expect("no request panics"));
    let input = TensorRef::from_array_view(([1, row.len()], row.as_slice()))?;
    let outputs = session.run(ort::inputs!["input" => input])?;
    let (_, probabilities) = outputs["probabilities"].try_extract_tensor::<f32>()?;
    Ok(probabilities.to_vec())
}

fn internal(error: impl Error) -> Failure {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
