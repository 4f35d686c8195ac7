//! The socket of a connection, with TLS or without.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// What hyper reads from and writes to.
pub(crate) struct Socket {
    inner: TokioIo<Transport>,
    look: Look,
    /// What was read already in answer to a request that was written already. It is read once more, and
    /// what is written meanwhile is that request again, and goes nowhere.
    replayed: Option<Replay>,
}

struct Replay {
    came: Bytes,
    /// hyper takes what comes before its request for something that nobody has asked for.
    is_asked: bool,
}

impl Replay {
    /// Takes so much of the request for written; the answer can be read.
    fn ask(&mut self, length: usize, cx: &Context<'_>) -> usize {
        self.is_asked = true;
        cx.waker().wake_by_ref();
        length
    }
}

/// What it reads from and writes to.
pub(crate) enum Transport {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

impl Transport {
    fn tcp(&self) -> &TcpStream {
        match self {
            Transport::Plain(stream) => stream,
            Transport::Secured(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Secured(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Secured(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Secured(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::Secured(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }
}

/// Tells whether something has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Look(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    reads: AtomicU32,
    /// Waits for the first of them.
    waker: AtomicWaker,
}

impl Look {
    /// Wakes the task when the first bytes have come, or the end.
    pub(super) fn wake_at_first(&self, cx: &Context<'_>) {
        if self.reads() == 0 {
            self.0.waker.register(cx.waker());
        }
    }

    /// How often something came.
    pub(super) fn reads(&self) -> u32 {
        self.0.reads.load(Ordering::Relaxed)
    }
}

impl Socket {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            inner: TokioIo::new(transport),
            look: Look::default(),
            replayed: None,
        }
    }

    pub(super) fn look(&self) -> Look {
        self.look.clone()
    }

    /// Without hyper.
    pub(super) fn transport(&mut self) -> &mut Transport {
        self.inner.inner_mut()
    }

    /// Has hyper read this first, in answer to a request that was written already.
    pub(super) fn replay(&mut self, came: Bytes) {
        self.replayed = Some(Replay {
            came,
            is_asked: false,
        });
    }

    /// What of that was not read.
    pub(super) fn end_replay(&mut self) -> Bytes {
        self.replayed
            .take()
            .map(|replay| replay.came)
            .unwrap_or_default()
    }

    /// Whether nothing has come, no end and no bytes: nobody has asked for them. What TLS may say by itself
    /// is taken for that too, which costs a connection and nothing else. The operating system is asked,
    /// because tokio learns of a peer's end when it looks at all sockets, which may be later.
    pub(super) fn is_silent(&mut self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = recv(self.inner.inner().tcp(), &mut [0; 1], flags);
        let has_nothing = matches!(
            peeked,
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR)
        );
        has_nothing
            && match self.transport() {
                Transport::Plain(_) => true,
                // Some of what came may be decrypted already.
                Transport::Secured(stream) => {
                    let mut byte = [0; 1];
                    let mut cx = Context::from_waker(Waker::noop());
                    let read = Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut byte));
                    read.is_pending()
                }
            }
    }

    /// Whether the peer of a new connection has closed it already. With TLS it may have said something.
    pub(super) fn was_closed_at_once(&mut self) -> bool {
        matches!(self.transport(), Transport::Plain(_)) && !self.is_silent()
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(Replay { came, is_asked }) = &mut self.replayed {
            if !*is_asked {
                return Poll::Pending;
            }
            if !came.is_empty() {
                let length = came.len().min(buffer.remaining());
                buffer.put_slice(&came.split_to(length));
                return Poll::Ready(Ok(()));
            }
        }
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        if self.look.0.reads.fetch_add(1, Ordering::Relaxed) == 0 {
            self.look.0.waker.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.replayed {
            Some(replay) => Poll::Ready(Ok(replay.ask(bytes.len(), cx))),
            None => Pin::new(&mut self.inner).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        match &mut self.replayed {
            Some(replay) => Poll::Ready(Ok(replay.ask(length, cx))),
            None => Pin::new(&mut self.inner).poll_write_vectored(cx, slices),
        }
    }
}
