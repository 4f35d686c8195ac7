//! A small HTTP/1.1 client that can also send what no good client would.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Every value of a header.
    pub(crate) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        let found = self
            .headers
            .iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The same answer with another value of a header that it has.
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        for (key, known) in &mut self.headers {
            if key.eq_ignore_ascii_case(name) {
                value.clone_into(known);
            }
        }
        self
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The error's code, after checking that the envelope is whole.
    pub(crate) fn error_code(&self) -> String {
        let error = &self.json()["error"];
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(error["request_id"].as_str(), self.header("x-request-id"));
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{error}"
        );
        assert!(error["details"].is_array(), "{error}");
        error["code"].as_str().expect("a code").to_owned()
    }

    /// The wrong fields an error names.
    pub(crate) fn wrong_fields(&self) -> Vec<String> {
        let json = self.json();
        let details = json["error"]["details"]
            .as_array()
            .expect("details")
            .clone();
        details
            .iter()
            .map(|d| d["field"].as_str().expect("a field").to_owned())
            .collect()
    }
}

/// A keep-alive connection.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    address: SocketAddr,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("connects")
    }

    /// `None` if nothing listens there.
    pub(crate) fn try_open(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
        Some(Self::over(stream, address))
    }

    /// Over a stream to `address` that somebody else made.
    pub(crate) fn over(stream: TcpStream, address: SocketAddr) -> Self {
        stream.set_read_timeout(Some(TIMEOUT)).expect("set");
        stream.set_write_timeout(Some(TIMEOUT)).expect("set");
        stream.set_nodelay(true).expect("set");
        Self {
            stream,
            address,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let bytes = [head.as_bytes(), b"\r\n", body].concat();
        self.raw(&bytes);
        self.receive(method == "HEAD").expect("an answer")
    }

    /// Sends bytes as they are. A peer that has closed is no error here; reading will tell.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next answer, or `None` when the peer closes first.
    pub(crate) fn receive(&mut self, head_only: bool) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            self.more()?;
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).expect("ASCII head");
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().expect("a status");
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        if head_only || status == 304 || status == 204 {
            return Some(answer);
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = self.chunks()?;
        } else {
            let length = answer
                .header("content-length")
                .expect("a length")
                .parse()
                .expect("digits");
            while self.buffer.len() < length {
                self.more()?;
            }
            answer.body = self.buffer.drain(..length).collect();
        }
        Some(answer)
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let at = loop {
                if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                    break at;
                }
                self.more()?;
            };
            let size: Vec<u8> = self.buffer.drain(..at + 2).collect();
            let size = std::str::from_utf8(&size).expect("ASCII").trim();
            let size = usize::from_str_radix(size, 16).expect("a chunk size");
            while self.buffer.len() < size + 2 {
                self.more()?;
            }
            body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
            if size == 0 {
                return Some(body);
            }
        }
    }

    /// Whether the peer closes within `limit`, whatever it says before.
    pub(crate) fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).expect("set");
        let mut sink = Vec::new();
        match self.stream.read_to_end(&mut sink) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    fn more(&mut self) -> Option<()> {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => None,
            Ok(read) => {
                self.buffer.extend_from_slice(&chunk[..read]);
                Some(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer: {error}"),
        }
    }
}

/// What comes after the last answer, also where it came together with it.
impl Read for Connection {
    fn read(&mut self, piece: &mut [u8]) -> std::io::Result<usize> {
        if self.buffer.is_empty() {
            return self.stream.read(piece);
        }
        let length = piece.len().min(self.buffer.len());
        for (to, from) in piece.iter_mut().zip(self.buffer.drain(..length)) {
            *to = from;
        }
        Ok(length)
    }
}
