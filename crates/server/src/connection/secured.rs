//! The handshake of TLS, within the time that a head has, and clients that do not speak it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::wire::Secured;

/// What a client that speaks plain HTTP has sent is read up to this, or it would not see its answer.
const DRAINED_BYTES_MAX: u64 = 64 << 10;

/// The connection, once it is encrypted. `None` ends it.
pub(super) async fn accept(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    limit: Duration,
) -> Option<Secured> {
    let accepting = async {
        let mut first = [0; 1];
        match stream.peek(&mut first).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            // A method of HTTP, or the begin of HTTP/2. A handshake begins with the byte 22.
            _ if first[0].is_ascii_uppercase() => refuse(stream).await.map(|()| None),
            _ => acceptor.accept(stream).await.map(Some),
        }
    };
    match tokio::time::timeout(limit, accepting).await {
        Ok(Ok(accepted)) => accepted.map(Secured::new),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client made no TLS connection");
            None
        }
        Err(_) => None,
    }
}

/// Tells a client that the port is not for plain HTTP.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let body = r#"{"error":{"code":"MALFORMED_REQUEST","message":"this server speaks TLS; use https://","details":[],"request_id":""}}"#;
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(DRAINED_BYTES_MAX);
    tokio::io::copy(&mut rest, &mut tokio::io::sink())
        .await
        .map(drop)
}
