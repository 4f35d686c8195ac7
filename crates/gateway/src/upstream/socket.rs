//! The socket of a connection, which can be asked whether its peer has closed it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// tokio learns of a peer's end when it looks at all sockets, which may be later than the next request. So
/// the next read asks the operating system itself once [`Look::again`] was called.
pub(crate) struct Socket {
    inner: TokioIo<Transport>,
    look: Look,
}

/// What it reads from and writes to.
pub(super) enum Transport {
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

/// Makes the socket look, and tells of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Look(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    is_due: AtomicBool,
    reads: AtomicU32,
    /// Waits for the first of them.
    waker: AtomicWaker,
}

impl Look {
    pub(super) fn again(&self) {
        self.0.is_due.store(true, Ordering::Relaxed);
    }

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
    pub(super) fn new(transport: Transport) -> (Self, Look) {
        let look = Look::default();
        let socket = Self {
            inner: TokioIo::new(transport),
            look: look.clone(),
        };
        (socket, look)
    }

    /// Fails if anything has come, an end or bytes: nobody has asked for them. What TLS may say by itself is
    /// taken for that too, which costs a connection and nothing else.
    fn expect_silence(&self) -> io::Result<()> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(self.inner.inner().tcp(), &mut [0; 1], flags) {
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.look.0.is_due.load(Ordering::Relaxed) {
            self.look.0.is_due.store(false, Ordering::Relaxed);
            self.expect_silence()?;
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
        Pin::new(&mut self.inner).poll_write(cx, bytes)
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
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }
}
