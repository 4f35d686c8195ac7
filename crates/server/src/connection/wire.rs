//! What a connection is made of: a socket, or TLS over one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What HTTP is spoken over.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    const IS_SECURED: bool;

    /// Fails if the peer has left, and wakes the task when it does. What it has sent stays to be read.
    fn check_peer(&mut self, cx: &mut Context<'_>) -> io::Result<()>;
}

impl Wire for TcpStream {
    const IS_SECURED: bool = false;

    fn check_peer(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Poll::Ready(ready) = self.poll_read_ready(cx) {
            ready?;
            let peeked = self.try_io(Interest::READABLE, || {
                let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
                let (_, read) = recv(&*self, &mut [0; 1], flags)?;
                Ok(read)
            });
            match peeked {
                Ok(0) => return Err(io::ErrorKind::ConnectionAborted.into()),
                // More of the body, or another request.
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// TLS over a socket. Whether the peer has left is known only by reading, so what that brings is kept.
pub(super) struct Secured {
    stream: TlsStream<TcpStream>,
    ahead: Vec<u8>,
}

/// Read to see whether the peer has left.
const AHEAD_BYTES: usize = 512;

impl Secured {
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
        }
    }
}

impl Wire for Secured {
    const IS_SECURED: bool = true;

    fn check_peer(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.ahead.is_empty() {
            return Ok(());
        }
        let mut bytes = [0; AHEAD_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer)? {
            Poll::Ready(()) if buffer.filled().is_empty() => {
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Poll::Ready(()) => {
                self.ahead.extend_from_slice(buffer.filled());
                // Whoever waits to read learns of it only by being asked again.
                cx.waker().wake_by_ref();
                Ok(())
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..length]);
        self.ahead.drain(..length);
        if self.ahead.is_empty() {
            self.ahead = Vec::new();
            if buffer.remaining() > 0 {
                // What else is there already; an end or an error is said again at the next call.
                let _ = Pin::new(&mut self.stream).poll_read(cx, buffer);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
}
