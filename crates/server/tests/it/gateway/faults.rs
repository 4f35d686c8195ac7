//! A TCP proxy between the gateway and a service that does to connections what networks do to them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// What happens to the requests that come while it is set. A request is what arrives at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// The connection is reset; the service sees nothing.
    Reset,
    /// Every other request is.
    ResetHalf,
    /// The answer is none of HTTP; the service sees nothing.
    Garbage,
    /// Nothing is passed on or answered.
    Silence,
    /// The connection ends after so many bytes of the answer.
    Cut(usize),
    /// Each byte of the answer takes so many milliseconds.
    Slow(u64),
}

/// The proxy.
pub(super) struct Faulty {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    fault: Fault,
    requests: usize,
}

impl Faulty {
    /// One that passes everything on to `service` until it is told otherwise.
    pub(super) fn before(service: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State {
            fault: Fault::None,
            requests: 0,
        }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                std::thread::spawn(move || pass(client, service, &state));
            }
        });
        Self { address, state }
    }

    pub(super) fn set(&self, fault: Fault) {
        self.state.lock().fault = fault;
    }

    /// Requests that came, whatever became of them.
    pub(super) fn requests(&self) -> usize {
        self.state.lock().requests
    }
}

fn pass(mut client: TcpStream, service: SocketAddr, state: &Arc<Mutex<State>>) {
    let mut server = TcpStream::connect(service).expect("the service is there");
    let back = (server.try_clone(), client.try_clone(), state.clone());
    let (Ok(from), Ok(to), faults) = back else {
        return;
    };
    std::thread::spawn(move || answer(from, to, &faults));
    let mut buffer = [0; 64 << 10];
    while client.peek(&mut buffer).is_ok_and(|length| length > 0) {
        let fault = {
            let mut state = state.lock();
            state.requests += 1;
            match state.fault {
                Fault::ResetHalf if state.requests.is_multiple_of(2) => Fault::Reset,
                fault => fault,
            }
        };
        if fault == Fault::Reset {
            // What was not read makes it a reset. The other thread holds the socket too, until this.
            let _ = server.shutdown(Shutdown::Both);
            return;
        }
        let length = client.read(&mut buffer).unwrap_or(0);
        if fault == Fault::Garbage {
            let _ = client.write_all(b"SSH-2.0-OpenSSH\r\n\r\n");
            let _ = server.shutdown(Shutdown::Both);
            return;
        }
        if fault != Fault::Silence && server.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

fn answer(mut from: TcpStream, mut to: TcpStream, state: &Mutex<State>) {
    let mut buffer = [0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let fault = state.lock().fault;
        let sent = match fault {
            Fault::Cut(after) => {
                let _ = to.write_all(&buffer[..after.min(length)]);
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
            Fault::Slow(ms) => buffer[..length].iter().try_for_each(|byte| {
                std::thread::sleep(Duration::from_millis(ms));
                to.write_all(&[*byte])
            }),
            _ => to.write_all(&buffer[..length]),
        };
        if sent.is_err() {
            break;
        }
    }
    // An orderly end would not be a reset.
    if !matches!(state.lock().fault, Fault::Reset | Fault::ResetHalf) {
        let _ = to.shutdown(Shutdown::Both);
    }
}
