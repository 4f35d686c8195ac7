//! Accepts connections and deals them out to the workers.
//!
//! One listener, one accepting task, and one single-threaded runtime per core: each new connection
//! goes to the worker that has the fewest. (With a socket per worker and `SO_REUSEPORT`, connections
//! are spread by hash: four of them may all land on one core. A second server could also start on the
//! same port unnoticed.)

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use auspex_kernel::clock::monotonic;
use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::connection::{self, Bounds};
use crate::edge::Edge;
use crate::metrics::{ConnectionGuard, OpenConnections};

/// Connections that the operating system queues until they are accepted; it has its own limit too.
const BACKLOG: u32 = 4096;
/// When a connection cannot even be refused, trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the log may say that there is no descriptor left.
const LOG_PAUSE: Duration = Duration::from_secs(1);
/// Descriptors that are kept for clients that are refused.
const RESERVED: usize = 16;
/// How much of what a refused client has sent is read before its connection is closed.
const DRAINED_BYTES_MAX: u64 = 64 << 10;

/// When stopping: the queue counts as empty when nothing arrived for this long. A handshake that has
/// begun takes one way there and back.
const QUEUE_PAUSE: Duration = Duration::from_millis(100);
/// A flood of connections does not keep a stopping server open.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);

/// What every connection needs.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) edge: Arc<Edge>,
    pub(crate) bounds: Bounds,
    /// Makes connections ones of TLS, if the server speaks it.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) connections_max: usize,
    pub(crate) open: OpenConnections,
}

/// Running workers.
pub(crate) struct Workers {
    workers: Vec<Worker>,
}

struct Worker {
    connections: Arc<AtomicUsize>,
    queue: mpsc::UnboundedSender<Accepted>,
    thread: JoinHandle<()>,
}

struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    /// Counts the connection from now on, so that a burst cannot exceed the cap while it is queued.
    open: ConnectionGuard,
}

/// Binds the address.
///
/// # Errors
/// A message that says what to do.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    listen(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is in use by another program; stop it, or choose another with --listen {}:{}",
            address.ip(),
            address.port().wrapping_add(1).max(1024),
        ),
        io::ErrorKind::PermissionDenied => format!(
            "this user may not open {address}; choose a port of 1024 or above with --listen"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("{address} is not an address of this machine; choose another with --listen")
        }
        _ => format!("cannot listen on {address}: {error}"),
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restarted server need not wait until the connections of the old one are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Workers {
    /// Starts `count` workers.
    ///
    /// # Errors
    /// The operating system could not start a thread.
    pub(crate) fn start(count: usize, shared: &Shared) -> io::Result<Self> {
        let workers = (0..count)
            .map(|index| Worker::start(index, shared.clone()))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self { workers })
    }

    /// Deals out connections until `stop` is done; then lets nobody else in, takes what the kernel has
    /// queued already, so that no client that got through is reset, and closes the listener.
    pub(crate) async fn accept(
        &self,
        listener: TcpListener,
        shared: &Shared,
        stop: impl Future<Output = ()>,
    ) {
        let mut stop = std::pin::pin!(stop);
        let mut reserve = Reserve::new(shared.tls.is_some());
        loop {
            tokio::select! {
                biased;
                () = stop.as_mut() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.deal(stream, peer, shared, &mut reserve),
                    Err(error) if is_peers_fault(&error) => {}
                    Err(error) => reserve.refuse_next(&listener, &error).await,
                }
            }
        }
        ignore_newcomers(&listener);
        let queued = async {
            while let Ok(Ok((stream, peer))) =
                tokio::time::timeout(QUEUE_PAUSE, listener.accept()).await
            {
                self.deal(stream, peer, shared, &mut reserve);
            }
        };
        let _ = tokio::time::timeout(QUEUE_TIMEOUT, queued).await;
    }

    fn deal(
        &self,
        stream: tokio::net::TcpStream,
        peer: SocketAddr,
        shared: &Shared,
        reserve: &mut Reserve,
    ) {
        let Ok(stream) = stream.into_std() else {
            return;
        };
        let open = usize::try_from(shared.open.count()).unwrap_or(0);
        if open >= shared.connections_max {
            reserve.refuse(stream);
            return;
        }
        let idlest = self.workers.iter().min_by_key(|worker| worker.load());
        let Some(worker) = idlest else { return };
        worker.connections.fetch_add(1, Ordering::Relaxed);
        // A worker ends only after the listener; a failed send drops the connection.
        let _ = worker.queue.send(Accepted {
            stream,
            peer,
            open: shared.open.enter(),
        });
    }

    /// Waits up to `limit` for work in flight after a stop was requested. Returns how many connections
    /// were cut.
    pub(crate) fn drain(self, limit: Duration, open: &OpenConnections) -> i64 {
        let deadline = monotonic() + limit;
        let mut threads = Vec::new();
        for Worker { queue, thread, .. } in self.workers {
            drop(queue);
            threads.push(thread);
        }
        while monotonic() < deadline && !threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(5));
        }
        open.count()
    }
}

impl Worker {
    fn start(index: usize, shared: Shared) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (queue, mut incoming) = mpsc::unbounded_channel::<Accepted>();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let run = async move {
            let mut serving = JoinSet::new();
            loop {
                tokio::select! {
                    next = incoming.recv() => {
                        let Some(Accepted { stream, peer, open }) = next else { break };
                        let done = Done { connections: counted.clone(), _open: open };
                        serving.spawn(serve(stream, peer, shared.clone(), done));
                    }
                    Some(_) = serving.join_next(), if !serving.is_empty() => {}
                }
            }
            while serving.join_next().await.is_some() {}
        };
        let thread = std::thread::Builder::new()
            .name(format!("auspex-worker-{index}"))
            .spawn(move || runtime.block_on(run))?;
        Ok(Self {
            connections,
            queue,
            thread,
        })
    }

    fn load(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Descriptors that are kept so that, when there is no other left, clients can be told. Without them
/// new connections would wait in silence.
///
/// Those in use hold the clients that were refused last: a connection that is closed while its client
/// still sends takes the answer back. The oldest makes room for the next, so nobody is waited for.
struct Reserve {
    /// The null device where nobody was refused yet.
    held: VecDeque<File>,
    /// Clients expect TLS, in which nothing can be said to them without a handshake.
    is_secured: bool,
    logged: Option<Instant>,
}

impl Reserve {
    fn new(is_secured: bool) -> Self {
        let mut reserve = Self {
            held: VecDeque::with_capacity(RESERVED + 1),
            is_secured,
            logged: None,
        };
        reserve.fill();
        reserve
    }

    /// Refuses the next connection, which could not be accepted because of `error`.
    async fn refuse_next(&mut self, listener: &TcpListener, error: &io::Error) {
        while let Some(oldest) = self.held.pop_front() {
            close(oldest);
            match listener.accept().now_or_never() {
                Some(Ok((stream, _))) => {
                    self.log(error);
                    if let Ok(stream) = stream.into_std() {
                        self.refuse(stream);
                    }
                    return self.fill();
                }
                // Nobody is waiting: it fails for want of a descriptor all the same.
                None => return self.fill(),
                // Something else in the program was faster to take the descriptor.
                Some(Err(_)) => {}
            }
        }
        self.log(error);
        self.fill();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    /// Tells the client why it is refused.
    fn refuse(&mut self, mut stream: TcpStream) {
        let body = r#"{"error":{"code":"UNAVAILABLE","message":"too many connections; try again soon","details":[],"request_id":""}}"#;
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        if !self.is_secured {
            // It does not block, and the buffer of a new connection has room for this.
            let _ = stream.write_all(answer.as_bytes());
        }
        let _ = stream.shutdown(Shutdown::Write);
        self.held.push_back(File::from(OwnedFd::from(stream)));
        if self.held.len() > RESERVED
            && let Some(oldest) = self.held.pop_front()
        {
            close(oldest);
        }
    }

    fn fill(&mut self) {
        while self.held.len() < RESERVED
            && let Ok(unused) = File::open("/dev/null")
        {
            self.held.push_front(unused);
        }
    }

    fn log(&mut self, error: &io::Error) {
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_PAUSE) {
            tracing::error!(
                %error,
                "new connections are refused; raise the limit of open files (ulimit -n, LimitNOFILE=)"
            );
            self.logged = Some(monotonic());
        }
    }
}

/// Drops packets that ask for a new connection. Without that, the kernel completes handshakes between the
/// last `accept` and the close, and then resets them. Who asks meanwhile asks again a second later, and is
/// refused at once.
fn ignore_newcomers(listener: &TcpListener) {
    #[cfg(target_os = "linux")]
    {
        use socket2::{SockFilter, SockRef};

        // Of the classic packet filter (linux/bpf_common.h), which sees the header of TCP (RFC 9293, 3.1).
        const LOAD_BYTE: u16 = 0x30;
        const JUMP_IF_ANY_BIT: u16 = 0x45;
        const RETURN: u16 = 0x06;
        const FLAGS_AT: u32 = 13;
        const SYN: u32 = 0x02;
        let program = [
            SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
            SockFilter::new(JUMP_IF_ANY_BIT, 0, 1, SYN),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ];
        if let Err(error) = SockRef::from(listener).attach_filter(&program) {
            tracing::debug!(%error, "connections that come while the listener closes may be reset");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

/// Reads what has arrived before it closes; what is unread would take back the answer.
fn close(refused: File) {
    let _ = io::copy(&mut refused.take(DRAINED_BYTES_MAX), &mut io::sink());
}

/// Removes the connection from the counts when it ends.
struct Done {
    connections: Arc<AtomicUsize>,
    _open: ConnectionGuard,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, shared: Shared, _done: Done) {
    let Ok(stream) = tokio::net::TcpStream::from_std(stream) else {
        return;
    };
    // Answers are written in one piece; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let Shared {
        edge, bounds, tls, ..
    } = shared;
    let stop = edge.stop.clone();
    connection::serve(stream, peer.ip(), edge, bounds, tls, stop).await;
}

fn is_peers_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
