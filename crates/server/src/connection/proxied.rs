//! Connections of proxies that say, before anything else, for whom they are.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use auspex_kernel::clock::monotonic;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::proxy_header::{self, Origin};

/// How often the log may say that proxies send something else.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// The address for which `proxy` has opened a connection. `None` ends the connection: what follows
/// something else than a header could be anybody's.
pub(super) async fn client(
    stream: &mut (impl AsyncRead + Unpin),
    proxy: IpAddr,
    limit: Duration,
) -> Option<IpAddr> {
    let reason = match tokio::time::timeout(limit, origin(stream)).await {
        Ok(Ok(Ok(Origin::Client(address)))) => return Some(address),
        Ok(Ok(Ok(Origin::Proxy))) => return Some(proxy),
        // It looked whether somebody listens.
        Ok(Err(_)) => return None,
        Ok(Ok(Err(malformed))) => malformed,
        Err(_) => "it does not arrive",
    };
    log(proxy, reason);
    None
}

async fn origin(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Result<Origin, proxy_header::Malformed>> {
    let mut header = Vec::new();
    loop {
        let (read, more) = match proxy_header::missing(&header) {
            Ok(0) => return Ok(proxy_header::read(&header)),
            Ok(more) => (header.len(), more),
            Err(malformed) => return Ok(Err(malformed)),
        };
        header.resize(read + more, 0);
        let arrived = stream.read(&mut header[read..]).await?;
        if arrived == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        header.truncate(read + arrived);
    }
}

fn log(proxy: IpAddr, reason: &str) {
    static LOGGED: Mutex<Option<Instant>> = Mutex::new(None);
    let mut logged = LOGGED.lock();
    if logged.is_none_or(|at| at.elapsed() >= LOG_PAUSE) {
        *logged = Some(monotonic());
        tracing::warn!(
            %proxy,
            "a connection of a trusted proxy is closed, for it has no header of the PROXY protocol: \
             {reason}; have the proxy send one, or set server.proxy_protocol = false"
        );
    }
}
