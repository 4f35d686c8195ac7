//! A server behind the gateway that shows, byte by byte, what reached it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// With its line ends.
    pub(crate) head: String,
    /// Without its coding.
    pub(crate) body: Vec<u8>,
    /// Which connection it came over, from 1.
    pub(crate) connection: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers(name);
        let first = values.next();
        assert_eq!(values.next(), None, "{name} came twice");
        first
    }

    pub(crate) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        let lines = self.head.split("\r\n").skip(1);
        let pairs = lines.filter_map(|line| line.split_once(": "));
        pairs.filter_map(move |(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    }

    pub(crate) fn request_line(&self) -> &str {
        self.head.split("\r\n").next().expect("a line")
    }
}

/// What it does with a connection after a request.
pub(crate) enum Then {
    Keep,
    Close,
}

pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

impl Backend {
    /// Answers each request by `answer`, which writes to the connection itself.
    pub(crate) fn start(
        answer: impl Fn(&Seen, &mut TcpStream) -> Then + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let [connections, closed] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let (answer, all, counted) = (Arc::new(answer), seen.clone(), connections.clone());
        let gone = closed.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let connection = counted.fetch_add(1, Ordering::SeqCst) + 1;
                let (answer, all, gone) = (answer.clone(), all.clone(), gone.clone());
                std::thread::spawn(move || {
                    serve(stream, connection, &*answer, &all);
                    gone.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            address,
            seen,
            connections,
            closed,
        }
    }

    /// Answers every request alike.
    pub(crate) fn saying(answer: &'static str) -> Self {
        Self::start(move |_, stream| {
            stream.write_all(answer.as_bytes()).expect("sent");
            Then::Keep
        })
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// The only request that came.
    pub(crate) fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }

    /// Waits until it has closed so many connections.
    pub(crate) fn wait_for_closed(&self, count: usize) {
        while self.closed.load(Ordering::SeqCst) < count {
            std::thread::yield_now();
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    answer: &(dyn Fn(&Seen, &mut TcpStream) -> Then + Send + Sync),
    all: &Mutex<Vec<Seen>>,
) {
    let mut buffer = Vec::new();
    while let Some(head) = take_until(&mut stream, &mut buffer, b"\r\n\r\n") {
        let mut seen = Seen {
            head: String::from_utf8(head).expect("ASCII"),
            body: Vec::new(),
            connection,
        };
        let body = match (
            seen.header("transfer-encoding"),
            seen.header("content-length"),
        ) {
            (Some(_), _) => take_chunks(&mut stream, &mut buffer),
            (None, Some(length)) => {
                take(&mut stream, &mut buffer, length.parse().expect("a length"))
            }
            (None, None) => Some(Vec::new()),
        };
        let Some(body) = body else { return };
        seen.body = body;
        all.lock().push(seen.clone());
        if matches!(answer(&seen, &mut stream), Then::Close) {
            return;
        }
    }
}

fn take_until(stream: &mut TcpStream, buffer: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|part| part == end) {
            return Some(buffer.drain(..at + end.len()).collect());
        }
        more(stream, buffer)?;
    }
}

fn take(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> Option<Vec<u8>> {
    while buffer.len() < length {
        more(stream, buffer)?;
    }
    Some(buffer.drain(..length).collect())
}

fn take_chunks(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = take_until(stream, buffer, b"\r\n")?;
        let size = std::str::from_utf8(&line).expect("ASCII").trim();
        let size = usize::from_str_radix(size, 16).expect("a size and nothing else");
        body.extend(take(stream, buffer, size)?);
        take(stream, buffer, 2)?;
        if size == 0 {
            return Some(body);
        }
    }
}

fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 64 << 10];
    match stream.read(&mut chunk) {
        Ok(0) | Err(_) => None,
        Ok(read) => {
            buffer.extend_from_slice(&chunk[..read]);
            Some(())
        }
    }
}
