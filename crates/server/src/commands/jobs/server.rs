//! The server that a command asks, and how its answers are read.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use auspex_kernel::outward::chain;
use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Bar;
use crate::commands::{Failure, health};
use crate::config::Config;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Until something comes; a stream without news says so every quarter of a minute.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
const PIECE_BYTES: usize = 256 << 10;
const PIECES_AHEAD: usize = 2;

/// A running server, and the key that it is asked with.
pub(super) struct Server {
    client: reqwest::Client,
    url: String,
    key: String,
    key_file: PathBuf,
}

impl Server {
    /// The server at a URL; none: the one that these settings make listen on this machine.
    pub(super) fn new(
        config: &Config,
        url: Option<&str>,
        key_file: Option<&Path>,
    ) -> Result<Self, Failure> {
        let scheme = match config.server.tls.is_on() {
            true => "https",
            false => "http",
        };
        let own = || format!("{scheme}://{}", health::reachable(config.server.listen));
        let admin = config.server.data_dir.join("admin.key");
        let file = key_file.unwrap_or(&admin);
        let key = read_key(file).map_err(|why| {
            let file = file.display();
            format!("the key cannot be read from {file}: {why}; name a file with --key-file")
        })?;
        let mut client = reqwest::Client::builder()
            .user_agent("auspex")
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT);
        if url.is_none() {
            client = client.no_proxy();
        }
        Ok(Self {
            client: client.build()?,
            url: url.map_or_else(own, |url| url.trim_end_matches('/').to_owned()),
            key,
            key_file: file.to_owned(),
        })
    }

    /// A request for a path of the server, with these parameters.
    ///
    /// # Errors
    /// Its URL is none.
    pub(super) fn get<'q>(
        &self,
        path: &str,
        query: impl IntoIterator<Item = (&'q str, &'q str)>,
    ) -> Result<reqwest::RequestBuilder, Failure> {
        self.request(reqwest::Method::GET, path, query)
    }

    /// The same to change something.
    ///
    /// # Errors
    /// As of [`Self::get`].
    pub(super) fn post<'q>(
        &self,
        path: &str,
        query: impl IntoIterator<Item = (&'q str, &'q str)>,
    ) -> Result<reqwest::RequestBuilder, Failure> {
        self.request(reqwest::Method::POST, path, query)
    }

    fn request<'q>(
        &self,
        method: reqwest::Method,
        path: &str,
        query: impl IntoIterator<Item = (&'q str, &'q str)>,
    ) -> Result<reqwest::RequestBuilder, Failure> {
        let url = format!("{}{path}", self.url);
        let wrong = |why: &str| format!("--url {}: {why}; say it as http://HOST:PORT", self.url);
        let mut url: reqwest::Url = url.parse().map_err(|error| wrong(&format!("{error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("it is neither http nor https").into());
        }
        let mut query = query.into_iter().peekable();
        if query.peek().is_some() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.client.request(method, url);
        Ok(request.header("x-api-key", &self.key))
    }

    /// Says what to do where there is no answer.
    pub(super) fn explained(
        &self,
        answer: reqwest::Result<reqwest::Response>,
    ) -> Result<reqwest::Response, Failure> {
        answer.map_err(|error| {
            let url = &self.url;
            let why = chain(&error.without_url());
            format!("no answer from {url}: {why}; is `auspex serve` running there?").into()
        })
    }

    /// What an answer says that is an error.
    pub(super) async fn refused(&self, answer: reqwest::Response) -> Failure {
        let status = answer.status();
        let body = answer.bytes().await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let error = &body["error"];
        let Some(message) = error["message"].as_str() else {
            return format!("the answer is {status}").into();
        };
        let details = error["details"].as_array().into_iter().flatten();
        let details = details.map(|detail| {
            let part = |name| detail[name].as_str().unwrap_or_default().to_owned();
            format!("\n  {} {}", part("field"), part("message"))
        });
        let details = details.collect::<String>();
        let hint = match status {
            StatusCode::UNAUTHORIZED => {
                let file = self.key_file.display();
                format!("; the key is that of {file}, and --key-file names another")
            }
            _ => String::new(),
        };
        format!("{message}{hint}{details}").into()
    }
}

/// A key, which is all that a file has.
fn read_key(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let key = text.trim();
    match key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Err("it must have a key and nothing else".into()),
        false => Ok(key.to_owned()),
    }
}

/// The body of a request that is read while it is sent.
pub(super) struct Upload(mpsc::Receiver<io::Result<Bytes>>);

impl Upload {
    /// A body of what `input` gives, and the reading of it.
    pub(super) fn of(
        mut input: Box<dyn Read + Send>,
        mut bar: Bar,
    ) -> (Self, JoinHandle<io::Result<()>>) {
        let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
        let reading = tokio::task::spawn_blocking(move || {
            let (mut buffer, mut sent) = (vec![0; PIECE_BYTES], 0);
            loop {
                match input.read(&mut buffer) {
                    Ok(0) => {
                        bar.end();
                        return Ok(());
                    }
                    Ok(read) => {
                        sent += read as u64;
                        bar.show(sent, None);
                        let piece = Bytes::copy_from_slice(&buffer[..read]);
                        // The server may have answered already.
                        if pieces.blocking_send(Ok(piece)).is_err() {
                            bar.end();
                            return Ok(());
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        let broken = io::Error::other("the input cannot be read");
                        let _ = pieces.blocking_send(Err(broken));
                        return Err(error);
                    }
                }
            }
        });
        (Self(receiver), reading)
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = self.0.poll_recv(cx);
        piece.map(|piece| piece.map(|read| read.map(Frame::data)))
    }
}
