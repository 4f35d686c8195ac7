//! A bare axum server that sends each text back: what texts of dialogues cost before anybody keeps
//! them. It checks nothing and knows nobody.

use std::convert::Infallible;
use std::process::ExitCode;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service as _;

const USAGE: &str = "usage: echo PORT";

#[tokio::main]
async fn main() -> ExitCode {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let Some(port) = port else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match serve(port).await {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("echo: port {port}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(port: u16) -> std::io::Result<Infallible> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let echo = post(async |text: Bytes| text);
    let router = Router::new().route("/data/{customer}/{dialogue}", echo);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(answer(stream, router.clone()));
    }
}

async fn answer(stream: TcpStream, router: Router) {
    let service = service_fn(|request: hyper::Request<Incoming>| router.clone().call(request));
    let connection = Builder::new(TokioExecutor::new());
    // A client that has left needs no answer.
    let _ = connection
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
