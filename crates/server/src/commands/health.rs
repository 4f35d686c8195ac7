//! `auspex health`: asks a running server, for container health checks.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use super::{Failure, Outcome, print};
use crate::config::Config;

const TIMEOUT: Duration = Duration::from_secs(3);

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
    let answer = ask(address, header, path).map_err(|error| Failure {
        message: format!("no answer from {address}: {error}; is `auspex serve` running there?"),
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
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn ask(address: SocketAddr, header: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "{header}GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(64 << 10).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
