//! The part of HTTP/1.1 a load generator needs: where a response ends and what its body is.
//!
//! Incremental, because a response may arrive in any number of reads, and without copies in the
//! usual case of a body with `Content-Length`. It judges only what it must to find the end (RFC 9112
//! §6); a response whose end cannot be known is malformed, never guessed at.

use std::fmt;
use std::ops::Range;

const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
const CHUNK_LINE_BYTES_MAX: usize = 1024;

/// Why the bytes are no HTTP/1.1 response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0)
    }
}

/// What a complete response said about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// The server will close the connection after this response.
    pub(crate) close: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Head,
    Sized { end: usize },
    ChunkSize,
    ChunkData { left: usize },
    ChunkEnd,
    Trailer,
    Complete,
}

/// Reads one response out of a buffer that grows at its end.
pub(crate) struct ResponseParser {
    state: State,
    /// Everything before is understood.
    position: usize,
    head: Head,
    sized: Range<usize>,
    chunks: Vec<u8>,
}

impl ResponseParser {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Head,
            position: 0,
            head: Head {
                status: 0,
                close: false,
            },
            sized: 0..0,
            chunks: Vec::new(),
        }
    }

    /// Forgets the response, for the next one at the start of the buffer.
    pub(crate) fn reset(&mut self) {
        self.state = State::Head;
        self.position = 0;
        self.sized = 0..0;
        self.chunks.clear();
    }

    /// Goes as far as `buffer` allows: all the bytes received since [`Self::reset`], with those
    /// of earlier calls unchanged at its start. The head once the response is complete.
    pub(crate) fn advance(&mut self, buffer: &[u8]) -> Result<Option<Head>, Malformed> {
        loop {
            let progressed = match self.state {
                State::Head => self.read_head(buffer)?,
                State::Sized { end } => {
                    if buffer.len() >= end {
                        self.position = end;
                        self.state = State::Complete;
                    }
                    buffer.len() >= end
                }
                State::ChunkSize => self.read_chunk_size(buffer)?,
                State::ChunkData { left } => self.read_chunk_data(buffer, left),
                State::ChunkEnd => self.read_chunk_end(buffer)?,
                State::Trailer => self.read_trailer(buffer)?,
                State::Complete => return Ok(Some(self.head)),
            };
            if !progressed {
                return Ok(None);
            }
        }
    }

    /// The body of a complete response; `buffer` as in [`Self::advance`].
    pub(crate) fn body<'a>(&'a self, buffer: &'a [u8]) -> &'a [u8] {
        if self.chunks.is_empty() {
            &buffer[self.sized.clone()]
        } else {
            &self.chunks
        }
    }

    /// Bytes of the buffer that belong to a complete response.
    pub(crate) fn consumed(&self) -> usize {
        self.position
    }

    fn read_head(&mut self, buffer: &[u8]) -> Result<bool, Malformed> {
        let start = self.position;
        let Some(length) = find(&buffer[start..], b"\r\n\r\n") else {
            return if buffer.len() - start > HEAD_BYTES_MAX {
                Err(Malformed("head too long"))
            } else if !starts_like_http(&buffer[start..]) {
                Err(Malformed("not an HTTP/1 status line"))
            } else {
                Ok(false)
            };
        };
        self.position = start + length + 4;
        let (head, framing) = parse_head(&buffer[start..start + length])?;
        if (100..200).contains(&head.status) {
            return Ok(true); // informational: the real head follows
        }
        self.head = head;
        self.state = match framing {
            Framing::Sized(bytes) => {
                let end = self.position + bytes;
                self.sized = self.position..end;
                State::Sized { end }
            }
            Framing::Chunked => State::ChunkSize,
        };
        Ok(true)
    }

    fn read_chunk_size(&mut self, buffer: &[u8]) -> Result<bool, Malformed> {
        let Some(line) = self.take_line(buffer)? else {
            return Ok(false);
        };
        let digits = line
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        let size = hexadecimal(digits).ok_or(Malformed("chunk size is no number"))?;
        if size > BODY_BYTES_MAX - self.chunks.len() {
            return Err(Malformed("body too long"));
        }
        self.state = if size == 0 {
            State::Trailer
        } else {
            State::ChunkData { left: size }
        };
        Ok(true)
    }

    fn read_chunk_data(&mut self, buffer: &[u8], left: usize) -> bool {
        let available = &buffer[self.position..];
        let taken = left.min(available.len());
        self.chunks.extend_from_slice(&available[..taken]);
        self.position += taken;
        let left = left - taken;
        self.state = if left == 0 {
            State::ChunkEnd
        } else {
            State::ChunkData { left }
        };
        left == 0
    }

    fn read_chunk_end(&mut self, buffer: &[u8]) -> Result<bool, Malformed> {
        match buffer[self.position..] {
            [b'\r', b'\n', ..] => {
                self.position += 2;
                self.state = State::ChunkSize;
                Ok(true)
            }
            [] | [b'\r'] => Ok(false),
            _ => Err(Malformed("chunk longer than its size")),
        }
    }

    fn read_trailer(&mut self, buffer: &[u8]) -> Result<bool, Malformed> {
        let Some(line) = self.take_line(buffer)? else {
            return Ok(false);
        };
        if line.is_empty() {
            self.state = State::Complete;
        }
        Ok(true)
    }

    fn take_line<'a>(&mut self, buffer: &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
        let rest = &buffer[self.position..];
        match find(rest, b"\r\n") {
            Some(length) => {
                self.position += length + 2;
                Ok(Some(&rest[..length]))
            }
            None if rest.len() > CHUNK_LINE_BYTES_MAX => Err(Malformed("chunk line too long")),
            None => Ok(None),
        }
    }
}

enum Framing {
    Sized(usize),
    Chunked,
}

fn parse_head(head: &[u8]) -> Result<(Head, Framing), Malformed> {
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.trim_ascii_end());
    let (status, minor) = parse_status_line(lines.next().unwrap_or_default())?;
    let mut close = minor == b'0';
    let mut length = None;
    let mut chunked = false;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(Malformed("header without colon"))?);
        let value = value[1..].trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let bytes = decimal(value).ok_or(Malformed("content-length is no number"))?;
            if length
                .replace(bytes)
                .is_some_and(|earlier| earlier != bytes)
            {
                return Err(Malformed("two different content-lengths"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("transfer-encoding other than chunked"));
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            if value.eq_ignore_ascii_case(b"close") {
                close = true;
            } else if value.eq_ignore_ascii_case(b"keep-alive") {
                close = false;
            }
        }
    }
    let bodiless = (100..200).contains(&status) || matches!(status, 204 | 304);
    let framing = match (length, chunked) {
        (Some(_), true) => return Err(Malformed("both content-length and chunked")),
        (None, true) => Framing::Chunked,
        _ if bodiless => Framing::Sized(0),
        (Some(bytes), false) if bytes > BODY_BYTES_MAX => return Err(Malformed("body too long")),
        (Some(bytes), false) => Framing::Sized(bytes),
        (None, false) => return Err(Malformed("no body length")),
    };
    Ok((Head { status, close }, framing))
}

fn parse_status_line(line: &[u8]) -> Result<(u16, u8), Malformed> {
    let malformed = Malformed("not an HTTP/1 status line");
    let (version, rest) = line.split_at_checked(9).ok_or(malformed)?;
    let [
        b'H',
        b'T',
        b'T',
        b'P',
        b'/',
        b'1',
        b'.',
        minor @ (b'0' | b'1'),
        b' ',
    ] = version
    else {
        return Err(malformed);
    };
    match rest {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']
        | [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..] => {
            let digit = |byte: &u8| u16::from(byte - b'0');
            Ok((digit(a) * 100 + digit(b) * 10 + digit(c), *minor))
        }
        _ => Err(malformed),
    }
}

fn starts_like_http(bytes: &[u8]) -> bool {
    let prefix = b"HTTP/1.";
    let known = prefix.len().min(bytes.len());
    bytes[..known] == prefix[..known]
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn decimal(digits: &[u8]) -> Option<usize> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if all_digits {
        std::str::from_utf8(digits).ok()?.parse().ok()
    } else {
        None
    }
}

fn hexadecimal(digits: &[u8]) -> Option<usize> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    if all_digits {
        usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZED: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-LENGTH: 5\r\n\r\nhello";
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nhel\r\n2;name=value\r\nlo\r\n0\r\nTrailer: x\r\n\r\n";
    const CONTINUED: &[u8] =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 422 No\r\ncontent-length: 5\r\n\r\nhello";

    fn parse(bytes: &[u8]) -> Result<Option<(Head, Vec<u8>, usize)>, Malformed> {
        let mut parser = ResponseParser::new();
        let head = parser.advance(bytes)?;
        Ok(head.map(|head| (head, parser.body(bytes).to_vec(), parser.consumed())))
    }

    #[test]
    fn whole_responses_are_read() {
        let ok = Head {
            status: 200,
            close: false,
        };
        let hello = b"hello".to_vec();
        assert_eq!(parse(SIZED), Ok(Some((ok, hello.clone(), SIZED.len()))));
        assert_eq!(parse(CHUNKED), Ok(Some((ok, hello.clone(), CHUNKED.len()))));
        let refused = Head {
            status: 422,
            close: false,
        };
        assert_eq!(
            parse(CONTINUED),
            Ok(Some((refused, hello, CONTINUED.len())))
        );
    }

    #[test]
    fn responses_split_anywhere_read_the_same() {
        for whole in [SIZED, CHUNKED, CONTINUED] {
            for first in 0..whole.len() {
                for second in first..whole.len() {
                    let mut parser = ResponseParser::new();
                    assert_eq!(parser.advance(&whole[..first]), Ok(None));
                    assert_eq!(parser.advance(&whole[..second]), Ok(None));
                    assert!(matches!(parser.advance(whole), Ok(Some(_))));
                    assert_eq!(parser.body(whole), b"hello");
                }
            }
        }
    }

    #[test]
    fn bytes_after_the_response_are_left_alone() {
        for whole in [SIZED, CHUNKED] {
            let two = [whole, b"HTTP/1.1 500 "].concat();
            let (_, body, consumed) = parse(&two).unwrap().unwrap();
            assert_eq!((body.as_slice(), consumed), (&b"hello"[..], whole.len()));
        }
    }

    #[test]
    fn parser_is_reusable_after_reset() {
        let mut parser = ResponseParser::new();
        for whole in [CHUNKED, SIZED, CHUNKED, CONTINUED] {
            assert!(matches!(parser.advance(whole), Ok(Some(_))));
            assert_eq!(parser.body(whole), b"hello");
            parser.reset();
        }
    }

    #[test]
    fn close_is_read_from_version_and_header() {
        let close = |head: &str| {
            let bytes = format!("{head}\r\nContent-Length: 0\r\n\r\n");
            parse(bytes.as_bytes()).unwrap().unwrap().0.close
        };
        assert!(!close("HTTP/1.1 200 OK"));
        assert!(close("HTTP/1.1 200 OK\r\nConnection: Close"));
        assert!(close("HTTP/1.0 200 OK"));
        assert!(!close("HTTP/1.0 200 OK\r\nconnection: keep-alive"));
    }

    #[test]
    fn bodiless_statuses_need_no_length() {
        let (head, body, _) = parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.status, body.len()), (204, 0));
    }

    #[test]
    fn garbage_is_malformed() {
        let long_head = [
            b"HTTP/1.1 200 OK\r\nx: ".as_slice(),
            &[b'x'; HEAD_BYTES_MAX],
        ]
        .concat();
        let long_line = [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0;".as_slice(),
            &[b'x'; CHUNK_LINE_BYTES_MAX],
        ]
        .concat();
        for garbage in [
            &b"hello"[..],
            b"SSH-2.0-OpenSSH\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 2000\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhello\r\n",
            &long_head,
            &long_line,
        ] {
            assert!(
                parse(garbage).is_err(),
                "{:?}",
                String::from_utf8_lossy(garbage)
            );
        }
    }

    #[test]
    fn damaged_responses_never_panic() {
        let mut seed = 1_u64;
        let mut random = move || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        for _ in 0..50_000 {
            let mut bytes = [SIZED, CHUNKED, CONTINUED][random() % 3].to_vec();
            for _ in 0..=random() % 4 {
                let at = random() % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(1 + random() % bytes.len());
            let mut parser = ResponseParser::new();
            let middle = random() % bytes.len();
            if let Ok(None) = parser.advance(&bytes[..middle])
                && let Ok(Some(_)) = parser.advance(&bytes)
            {
                assert!(parser.consumed() <= bytes.len());
                parser.body(&bytes);
            }
        }
    }
}
