//! A bare proxy of hyper, one runtime per core: what it costs to pass a request on before anybody checks, counts or
//! limits anything. It passes fields on as they are and keeps as many connections as it needs.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::thread;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{LocalSet, spawn_local};

const USAGE: &str = "usage: relay PORT BACKEND_PORT";
const BACKLOG: u32 = 1024;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Connections to the backend that nobody uses, of one thread.
#[derive(Clone)]
struct Pool {
    backend: SocketAddr,
    resting: Rc<RefCell<Vec<SendRequest<Incoming>>>>,
}

fn main() -> ExitCode {
    let ports: Option<Vec<u16>> = std::env::args()
        .skip(1)
        .map(|port| port.parse().ok())
        .collect();
    let Some([port, backend]) = ports.as_deref() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let [door, backend] = [*port, *backend].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads: Vec<_> = (0..threads)
        .map(|_| thread::spawn(move || run(door, backend)))
        .collect();
    for thread in threads {
        if let Ok(Err(error)) = thread.join() {
            eprintln!("relay: port {port}: {error}");
        }
    }
    ExitCode::FAILURE
}

fn run(door: SocketAddr, backend: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, serve(door, backend))
}

async fn serve(door: SocketAddr, backend: SocketAddr) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind(door)?;
    let listener = socket.listen(BACKLOG)?;
    let pool = Pool {
        backend,
        resting: Rc::default(),
    };
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let pool = pool.clone();
        let service = service_fn(move |request| pool.clone().pass_on(request));
        // A client that has left needs no answer.
        spawn_local(Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

impl Pool {
    async fn pass_on(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Error> {
        let resting = self.resting.borrow_mut().pop();
        let mut connection = match resting {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let (head, body) = connection.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        self.resting.borrow_mut().push(connection);
        Ok(Response::from_parts(head, Full::new(body)))
    }

    async fn connect(&self) -> Result<SendRequest<Incoming>, Error> {
        let stream = TcpStream::connect(self.backend).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        spawn_local(connection);
        Ok(sender)
    }
}
