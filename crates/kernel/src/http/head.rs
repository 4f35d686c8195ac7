//! Heads of messages of HTTP/1.1, where the server and the gateway read and write them without hyper.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Fields of a head that is read so.
pub const FIELDS_MAX: usize = 40;

/// The fields of a head that httparse found in these bytes, and the length that they state. `None`: not the
/// length alone says where the message ends, it asks for more than an exchange of messages, or it is not
/// well-formed.
pub fn plain_fields(
    bytes: &Bytes,
    fields: &[httparse::Header<'_>],
) -> Option<(HeaderMap, Option<usize>)> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    let mut length = None;
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        match name {
            header::TRANSFER_ENCODING | header::TRAILER | header::UPGRADE | header::EXPECT => {
                return None;
            }
            header::CONNECTION if !field.value.eq_ignore_ascii_case(b"keep-alive") => return None,
            header::CONTENT_LENGTH if length.is_some() => return None,
            header::CONTENT_LENGTH => length = Some(plain_length(field.value)?),
            _ => {}
        }
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?;
        headers.append(name, value);
    }
    Some((headers, length))
}

/// A length of at most fifteen digits.
pub fn plain_length(digits: &[u8]) -> Option<usize> {
    let is_plain = (1..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_plain)?;
    text.parse().ok()
}

/// Writes a field of a head.
pub fn write_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &'static str) -> Option<(HeaderMap, Option<usize>)> {
        let bytes = Bytes::from(format!("GET / HTTP/1.1\r\n{fields}\r\n"));
        let mut room = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Request::new(&mut room);
        let parsed = head.parse(&bytes).expect("well-formed");
        assert!(parsed.is_complete());
        plain_fields(&bytes, head.headers)
    }

    #[test]
    fn only_a_single_plain_length_says_where_a_message_ends() {
        let (headers, length) = read("A: 1\r\na: 2\r\nContent-Length: 007\r\n").expect("plain");
        assert_eq!(length, Some(7));
        assert_eq!(headers.get_all("a").iter().count(), 2);
        assert_eq!(read("").expect("plain").1, None);
        for other in [
            "Content-Length: 7\r\nContent-Length: 7\r\n",
            "Content-Length: 7, 7\r\n",
            "Content-Length: +7\r\n",
            "Content-Length: -0\r\n",
            "Content-Length: 0x7\r\n",
            "Content-Length:\r\n",
            "Content-Length: 7 7\r\n",
            "Content-Length: 1234567890123456\r\n",
            "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
            "transfer-encoding: identity\r\n",
            "Transfer-Encoding:\r\n",
        ] {
            assert!(read(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn what_asks_for_more_is_not_plain() {
        assert!(read("Connection: Keep-Alive\r\n").is_some());
        for other in [
            "Connection: close\r\n",
            "Connection: keep-alive, x-secret\r\n",
            "Connection: upgrade\r\n",
            "Connection:\r\n",
            "Upgrade: websocket\r\n",
            "Expect: 100-continue\r\n",
            "Trailer: x\r\n",
        ] {
            assert!(read(other).is_none(), "{other:?}");
        }
    }
}
