//! A connection that has left HTTP: it belongs to the handler that took it over, and is still counted and
//! bounded here. It ends with the credential of its request, when the server stops, and when nothing
//! moves on it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use std::time::Duration;

use auspex_kernel::service::StopSignal;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::activity::Activity;
use crate::edge::Admitted;

/// How long the handler may take to let go of a connection that has ended.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// How the socket, which is the handler's, is told of its end, and tells of it.
#[derive(Debug, Default)]
pub(super) struct Tether {
    has_left_http: AtomicBool,
    is_cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
    released: Notify,
}

impl Tether {
    pub(super) fn leave_http(&self) {
        self.has_left_http.store(true, Ordering::Relaxed);
    }

    /// Before each read.
    pub(super) fn check_read(&self, cx: &Context<'_>) -> io::Result<()> {
        self.check(&self.reader, cx)
    }

    /// Before each write.
    pub(super) fn check_write(&self, cx: &Context<'_>) -> io::Result<()> {
        self.check(&self.writer, cx)
    }

    fn check(&self, waker: &AtomicWaker, cx: &Context<'_>) -> io::Result<()> {
        if !self.has_left_http.load(Ordering::Relaxed) {
            return Ok(());
        }
        waker.register(cx.waker());
        match self.is_cut.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        self.reader.wake();
        self.writer.wake();
    }

    /// The socket is closed.
    pub(super) fn release(&self) {
        self.released.notify_one();
    }
}

/// Waits until the handler closes the connection, or cuts it.
pub(super) async fn watch(
    activity: &Activity,
    admitted: &Admitted,
    stall_timeout: Duration,
    stop: &mut StopSignal,
) {
    let tether = &activity.tether;
    tokio::select! {
        () = tether.released.notified() => return,
        () = admitted.ended() => {}
        () = stop.stop_requested() => {}
        () = stalled(activity, stall_timeout) => {}
    }
    tether.cut();
    let _ = tokio::time::timeout(RELEASE_TIMEOUT, tether.released.notified()).await;
}

async fn stalled(activity: &Activity, stall_timeout: Duration) {
    loop {
        let before = activity.moves.load(Ordering::Relaxed);
        tokio::time::sleep(stall_timeout).await;
        if activity.moves.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use auspex_kernel::policy::{Answer, Policy};
    use axum::extract::Request;
    use axum::response::{IntoResponse as _, Response};
    use axum::routing::get;
    use http::{StatusCode, header};
    use hyper::upgrade::OnUpgrade;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::connection::tests::connected;
    use crate::connection::{Bounds, serve};
    use crate::edge::Edge;
    use crate::edge::tests::{Revocable, edge, table_with};

    const SOON: Duration = Duration::from_secs(10);

    /// Takes the connection over, if it is given one, and sends back what comes.
    async fn echo(mut request: Request) -> Response {
        let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
            return StatusCode::UPGRADE_REQUIRED.into_response();
        };
        tokio::spawn(async move {
            let connection = TokioIo::new(upgrade.await.expect("a connection"));
            let (mut from, mut to) = tokio::io::split(connection);
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "echo")];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    }

    struct Fixture {
        client: TcpStream,
        serving: JoinHandle<()>,
        head: String,
    }

    impl Fixture {
        /// Asks for another protocol.
        async fn new(answer: Answer, edge: Edge, stall_timeout: Duration) -> Self {
            let policy = Policy {
                answer,
                ..Policy::default()
            };
            edge.routes.store(Arc::new(table_with(get(echo), policy)));
            let (mut client, stream) = connected().await;
            let peer = Ipv4Addr::LOCALHOST.into();
            let bounds = Bounds {
                head_bytes_max: 65_536,
                http2_streams_max: 10,
                head_timeout: SOON,
                idle_timeout: SOON,
                stall_timeout,
                linger_timeout: Duration::ZERO,
            };
            let stop = edge.stop.clone();
            let serving = serve(stream, peer, Arc::new(edge), bounds, None, stop);
            let serving = tokio::spawn(serving);
            let request = "GET /x HTTP/1.1\r\nhost: x\r\nx-api-key: good\r\n\
                 connection: upgrade\r\nupgrade: echo\r\n\r\n";
            client.write_all(request.as_bytes()).await.expect("sent");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.expect("a head"));
            }
            Self {
                client,
                serving,
                head: String::from_utf8(head).expect("text"),
            }
        }

        async fn echoes(&mut self) {
            self.client.write_all(b"ping").await.expect("sent");
            let mut back = [0; 4];
            self.client.read_exact(&mut back).await.expect("answered");
            assert_eq!(&back, b"ping");
        }

        /// The client sees the end, and nothing is served any more.
        async fn ends(mut self) {
            let mut rest = Vec::new();
            let read = tokio::time::timeout(SOON, self.client.read_to_end(&mut rest)).await;
            let _ = read.expect("the connection is closed");
            let served = tokio::time::timeout(SOON, self.serving).await;
            served.expect("it is no longer counted").expect("no panic");
        }
    }

    #[tokio::test]
    async fn a_connection_is_handed_over_where_the_policy_says_so() {
        let mut upgraded = Fixture::new(Answer::Upgrade, edge(None), SOON).await;
        assert!(
            upgraded.head.starts_with("HTTP/1.1 101 "),
            "{}",
            upgraded.head
        );
        upgraded.echoes().await;
        assert!(!upgraded.serving.is_finished(), "it still counts");
        upgraded.client.shutdown().await.expect("closes");
        upgraded.ends().await;
        for answer in [Answer::Whole, Answer::Stream] {
            let refused = Fixture::new(answer, edge(None), SOON).await;
            assert!(
                refused.head.starts_with("HTTP/1.1 426 "),
                "{}",
                refused.head
            );
        }
    }

    #[tokio::test]
    async fn it_ends_with_its_credential() {
        let identity = Arc::new(Revocable::default());
        let edge = Edge {
            identity: identity.clone(),
            ..edge(None)
        };
        let mut upgraded = Fixture::new(Answer::Upgrade, edge, SOON).await;
        upgraded.echoes().await;
        identity.revoke();
        upgraded.ends().await;
    }

    #[tokio::test]
    async fn it_ends_when_the_server_stops() {
        let (stop, signal) = StopSignal::new();
        let edge = Edge {
            stop: signal,
            ..edge(None)
        };
        let mut upgraded = Fixture::new(Answer::Upgrade, edge, SOON).await;
        upgraded.echoes().await;
        stop.send_replace(true);
        upgraded.ends().await;
    }

    #[tokio::test]
    async fn it_ends_when_nothing_moves() {
        let stall_timeout = Duration::from_millis(200);
        let mut upgraded = Fixture::new(Answer::Upgrade, edge(None), stall_timeout).await;
        upgraded.echoes().await;
        upgraded.ends().await;
    }
}
