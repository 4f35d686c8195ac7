//! `auspex health`: asks a running server, for container health checks.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use super::{Failure, Outcome, print};
use crate::config::Config;
use crate::tls;

const TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_BYTES_MAX: u64 = 64 << 10;

pub(super) fn run(config: &Config, ready: bool) -> Outcome {
    let path = if ready {
        "/health/ready"
    } else {
        "/health/live"
    };
    let address = reachable(config.server.listen);
    // Whoever connects from here may count as a proxy, which speaks for itself.
    let announced = config.server.proxies()?.announces(address.ip());
    let header = if announced { "PROXY UNKNOWN\r\n" } else { "" };
    let is_secured = config.server.tls.is_on();
    let answer = ask(address, header, is_secured, path).map_err(|error| Failure {
        message: match error.kind() {
            // What the operating system says of a time limit depends on the call.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => format!(
                "no answer from {address} within {} s; what runs there hangs, or is not `auspex serve`",
                TIMEOUT.as_secs()
            ),
            _ => format!("no answer from {address}: {error}; is `auspex serve` running there?"),
        },
        code: 1,
    })?;
    let head = answer.lines().next().unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    print(&format!("{body}\n"))?;
    let well = head.split(' ').nth(1) == Some("200");
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A server that listens on every address is asked on the loopback one.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn ask(address: SocketAddr, header: &str, is_secured: bool, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // The header of a proxy goes before TLS.
    stream.write_all(header.as_bytes())?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let request = request.as_bytes();
    let mut answer = Vec::new();
    if is_secured {
        answer = tls::ask(stream, address.ip(), request, ANSWER_BYTES_MAX)?;
    } else {
        stream.write_all(request)?;
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
