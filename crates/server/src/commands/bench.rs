//! `auspex bench`: what a model costs on this machine, and what a server on it answers.
//!
//! The model is timed in this process. For requests a server of its own is started on loopback, with nothing but this model and
//! a database that goes with it, and asked by this process over connections that stay open.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use auspex_inference::Package;
use auspex_kernel::clock::monotonic;
use serde_json::{Value, json};

use super::{Failure, Outcome, print};

const CONNECTIONS: usize = 32;
const WARMUP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);
const START_MAX: Duration = Duration::from_secs(60);
/// Of one answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

pub(super) fn run(path: &Path, json: bool) -> Outcome {
    let package = Package::load(path)?;
    let engine = package.engine().description();
    let report = package.bench();
    let server = Server::start(path)?;
    let body = match package.example_record() {
        record @ Value::Object(_) => record,
        values => json!({"features": values}),
    };
    let request = server.request(&body.to_string());
    let alone = ask(server.address, &request, 1)?;
    let together = ask(server.address, &request, CONNECTIONS)?;
    drop(server);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if json {
        let report = json!({
            "engine": engine,
            "one_row_us": report.one_row_us,
            "batch_rows": report.batch_rows,
            "batch_us_per_row": report.batch_us_per_row,
            "json_us": report.json_us,
            "request_us": report.request_us,
            "cores": cores,
            "connections": CONNECTIONS,
            "requests_per_s": together.round(),
            "http_us": 1e6 / alone,
        });
        return print(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    print(&format!(
        "{engine}\none row: {:.2} µs\nbatches of {}: {:.2} µs per row\nfrom JSON to JSON: {:.2} µs per record\n\
         over HTTP on loopback: {:.0} µs per request on one connection, {together:.0} requests per second on {CONNECTIONS}\n\
         {cores} cores, which the client used too\n",
        report.one_row_us,
        report.batch_rows,
        report.batch_us_per_row,
        report.request_us,
        1e6 / alone,
    ))
}

/// A server of this program with one model. It ends with this.
struct Server {
    child: Child,
    address: SocketAddr,
    key: String,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(package: &Path) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let models = match package.is_dir() {
            true => {
                let models = folder.path().join("models");
                std::fs::create_dir_all(models.join("bench"))?;
                std::os::unix::fs::symlink(package.canonicalize()?, models.join("bench/1"))?;
                models
            }
            false => package.canonicalize()?,
        };
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data)
            .arg("--models")
            .arg(models)
            .current_dir(folder.path())
            .env_clear()
            .env("AUSPEX__SERVER__RATE_LIMIT__MAX", u32::MAX.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let greeting = child.stdout.take().map(BufReader::new);
        let mut server = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            key: String::new(),
            _folder: folder,
        };
        let (found, address) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = greeting
                .into_iter()
                .flat_map(|lines| lines.lines().map_while(Result::ok));
            // It is read to its end, so that the server is not stopped by a full pipe.
            for line in lines {
                let url = line.split_once("POST http://").map(|(_, rest)| rest);
                let address = url.and_then(|rest| rest.split('/').next()?.parse().ok());
                let _ = address.map(|address| found.send(address));
            }
        });
        let no_server = "a server for the measurement did not start; `auspex serve` tells why";
        server.address = address.recv_timeout(START_MAX).map_err(|_| no_server)?;
        let key = std::fs::read_to_string(data.join("admin.key"))?;
        key.trim().clone_into(&mut server.key);
        Ok(server)
    }

    fn request(&self, body: &str) -> Vec<u8> {
        let Self { address, key, .. } = self;
        let length = body.len();
        format!(
            "POST /predict HTTP/1.1\r\nHost: {address}\r\nX-API-Key: {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Requests that are answered in a second on so many connections, shared by as many threads as there are cores.
fn ask(address: SocketAddr, request: &[u8], connections: usize) -> io::Result<f64> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(connections);
    let begin = monotonic() + WARMUP;
    let counted = std::thread::scope(|scope| {
        let client = |number: usize| {
            let own = connections / threads + usize::from(number < connections % threads);
            scope.spawn(move || count(address, request, own, begin))
        };
        let clients: Vec<_> = (0..threads).map(client).collect();
        let ended = clients.into_iter().map(|client| client.join());
        ended
            .map(|counted| counted.expect("it does not panic"))
            .sum::<io::Result<u64>>()
    });
    Ok(counted? as f64 / MEASURED.as_secs_f64())
}

/// Sends on all of its connections, then reads their answers, again and again. What is answered after `begin` counts.
fn count(
    address: SocketAddr,
    request: &[u8],
    connections: usize,
    begin: Instant,
) -> io::Result<u64> {
    let connect = |_| {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(BufReader::new(stream))
    };
    let mut streams: Vec<_> = (0..connections).map(connect).collect::<io::Result<_>>()?;
    let (mut answered, mut line) = (0, String::new());
    while monotonic() < begin + MEASURED {
        for stream in &mut streams {
            stream.get_mut().write_all(request)?;
        }
        for stream in &mut streams {
            read_answer(stream, &mut line)?;
            let now = monotonic();
            answered += u64::from(now >= begin && now < begin + MEASURED);
        }
    }
    Ok(answered)
}

/// Reads an answer with a length. One that is no success is an error.
fn read_answer(stream: &mut BufReader<TcpStream>, line: &mut String) -> io::Result<()> {
    let mut read_line = |stream: &mut BufReader<TcpStream>| {
        line.clear();
        match stream.read_line(line)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            _ => Ok(line.trim_end().to_ascii_lowercase()),
        }
    };
    let status = read_line(stream)?;
    let mut length = 0;
    loop {
        let header = read_line(stream)?;
        if header.is_empty() {
            break;
        }
        if let Some(stated) = header.strip_prefix("content-length:") {
            length = stated.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body)?;
    match status.starts_with("http/1.1 200") {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "the server answered {status} {}",
            String::from_utf8_lossy(&body)
        ))),
    }
}
