//! The command line, checked completely before the first byte is sent.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
loadgen: requests to one server, every answer checked

usage: loadgen (--url http://HOST:PORT/PATH | --addr HOST:PORT [--path PATH])
               (--records FILE --expected FILE | --requests FILE --contains TEXT) [options]

  --records FILE         one JSON request body a line, sent in turn for as long as it measures
  --expected FILE        one JSON list of numbers a line, in the records' order
  --requests FILE        one request a line, METHOD PATH BODY; each is sent once, and it measures until
                         all are answered, for at most --duration-s
  --repeat               send those requests in turn for as long as it measures
  --contains TEXT        what every answer contains
  --connections N        connections kept busy at the same time (default 1)
  --duration-s S         how long to measure (default 10)
  --warmup-s S           how long to send before measuring (default 1)
  --header 'NAME: VALUE' sent with every request; may be repeated
  --timeout-s S          longest wait for a connection or an answer (default 10)
  --json                 the report as one line of JSON

Only servers on this machine (loopback addresses) are accepted.
Exits with 1 when any request failed or was answered wrongly, with 2 on a wrong command line.";

const SECONDS_MAX: f64 = 3600.0;
const CONNECTIONS_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) address: SocketAddr,
    /// As the `Host` header says it.
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) connections: usize,
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    pub(crate) timeout: Duration,
    pub(crate) headers: Vec<String>,
    pub(crate) work: Work,
    pub(crate) json: bool,
}

/// What is sent, and what has to be answered.
#[derive(Debug)]
pub(crate) enum Work {
    /// Records by POST, again and again.
    Records { records: PathBuf, expected: PathBuf },
    /// Requests of any kind, each once or again and again.
    Requests {
        requests: PathBuf,
        contains: String,
        repeats: bool,
    },
}

impl Args {
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut host = None;
        let mut path = None;
        let mut connections = 1;
        let mut duration = Duration::from_secs(10);
        let mut warmup = Duration::from_secs(1);
        let mut timeout = Duration::from_secs(10);
        let mut headers = Vec::new();
        let mut records = None;
        let mut expected = None;
        let mut requests = None;
        let mut contains = None;
        let mut repeats = false;
        let mut json = false;

        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            if name == "--json" {
                json = true;
                continue;
            }
            if name == "--repeat" {
                repeats = true;
                continue;
            }
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name}: unknown or no value"))?;
            match name.as_str() {
                "--url" => {
                    let (url_host, url_path) = split_url(&value)?;
                    host = Some(url_host);
                    path = Some(url_path);
                }
                "--addr" => host = Some(value),
                "--path" => path = Some(value),
                "--connections" => connections = parse_connections(&value)?,
                "--duration-s" => duration = parse_seconds(&name, &value)?,
                "--warmup-s" => warmup = parse_seconds(&name, &value)?,
                "--timeout-s" => timeout = parse_seconds(&name, &value)?,
                "--header" => headers.push(parse_header(value)?),
                "--records" => records = Some(PathBuf::from(value)),
                "--expected" => expected = Some(PathBuf::from(value)),
                "--requests" => requests = Some(PathBuf::from(value)),
                "--contains" => contains = Some(value).filter(|text| !text.is_empty()),
                _ => return Err(format!("{name}: unknown option")),
            }
        }

        let host = host.ok_or("--url or --addr is missing")?;
        let path = path.unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') || path.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err("path: must begin with / and have no spaces".to_owned());
        }
        if duration.is_zero() || timeout.is_zero() {
            return Err("--duration-s and --timeout-s must be above 0".to_owned());
        }
        Ok(Self {
            address: resolve(&host)?,
            host,
            path,
            connections,
            duration,
            warmup,
            timeout,
            headers,
            work: match (records, expected, requests, contains) {
                (Some(records), Some(expected), None, None) if !repeats => {
                    Work::Records { records, expected }
                }
                (None, None, Some(requests), Some(contains)) => Work::Requests {
                    requests,
                    contains,
                    repeats,
                },
                _ => {
                    return Err(
                        "either --records and --expected or --requests and --contains".to_owned(),
                    );
                }
            },
            json,
        })
    }
}

fn split_url(url: &str) -> Result<(String, String), String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or("--url: must begin with http://")?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let path = if slash == rest.len() {
        "/"
    } else {
        &rest[slash..]
    };
    Ok((rest[..slash].to_owned(), path.to_owned()))
}

/// Loopback only: the figures mean nothing across a network, and a slip of the keyboard must not
/// put load on somebody else's machine.
fn resolve(host: &str) -> Result<SocketAddr, String> {
    let mut addresses = host
        .to_socket_addrs()
        .map_err(|error| format!("{host}: not HOST:PORT ({error})"))?;
    addresses
        .find(|address| address.ip().is_loopback())
        .ok_or_else(|| format!("{host}: not on this machine's loopback"))
}

fn parse_seconds(name: &str, value: &str) -> Result<Duration, String> {
    match value.parse::<f64>() {
        Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!("{name}: must be seconds from 0 to {SECONDS_MAX}")),
    }
}

fn parse_connections(value: &str) -> Result<usize, String> {
    match value.parse() {
        Ok(connections) if (1..=CONNECTIONS_MAX).contains(&connections) => Ok(connections),
        _ => Err(format!(
            "--connections: must be from 1 to {CONNECTIONS_MAX}"
        )),
    }
}

fn parse_header(header: String) -> Result<String, String> {
    let name_ends = header.find(':').unwrap_or(0);
    if name_ends == 0 || header.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("--header: must be 'NAME: VALUE'".to_owned());
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn url_and_address_say_the_same() {
        let files = "--records r --expected e";
        let url = parse(&format!("--url http://127.0.0.1:8080/predict {files}")).expect("valid");
        let addr = parse(&format!("--addr 127.0.0.1:8080 --path /predict {files}")).expect("valid");
        assert_eq!(
            (url.address, url.host, url.path),
            (addr.address, addr.host, addr.path)
        );
    }

    #[test]
    fn bad_lines_are_refused() {
        for line in [
            "",
            "--url http://127.0.0.1:8080/",
            "--url https://127.0.0.1:8080/ --records r --expected e",
            "--addr 192.0.2.1:80 --records r --expected e",
            "--addr 127.0.0.1 --records r --expected e",
            "--addr 127.0.0.1:80 --path predict --records r --expected e",
            "--addr 127.0.0.1:80 --records r --expected e --connections 0",
            "--addr 127.0.0.1:80 --records r --expected e --duration-s 0",
            "--addr 127.0.0.1:80 --records r --expected e --duration-s -1",
            "--addr 127.0.0.1:80 --records r --expected e --warmup-s nan",
            "--addr 127.0.0.1:80 --records r --expected e --header novalue",
            "--addr 127.0.0.1:80 --records r --expected e --what 1",
            "--addr 127.0.0.1:80 --records r --expected",
            "--addr 127.0.0.1:80 --records r --contains c",
            "--addr 127.0.0.1:80 --requests r",
            "--addr 127.0.0.1:80 --requests r --contains c --records r --expected e",
            "--addr 127.0.0.1:80 --records r --expected e --repeat",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
