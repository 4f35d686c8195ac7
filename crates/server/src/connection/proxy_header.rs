//! The header of the PROXY protocol, versions 1 and 2, by which a proxy says for whom it has opened a
//! connection (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).
//!
//! Nothing here reads; `missing` tells how much may be read without taking what follows the header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family and the length of the rest.
const BINARY_START: usize = 16;
const BINARY_MAX: usize = BINARY_START + 4096;
const TEXT_START: &[u8] = b"PROXY ";
/// `PROXY UNKNOWN` and its end.
const TEXT_MIN: usize = 15;
const TEXT_MAX: usize = 107;
const TEXT_END: &[u8] = b"\r\n";

/// For whom a connection was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Client(IpAddr),
    /// The proxy itself, such as for a health check, or somebody without an address.
    Proxy,
}

/// Why bytes are no header.
pub(crate) type Malformed = &'static str;

/// How many bytes are missing at least to the end of the header that begins with `read`; none when it
/// is whole.
pub(crate) fn missing(read: &[u8]) -> Result<usize, Malformed> {
    let begins = |with: &[u8]| read.iter().zip(with).all(|(a, b)| a == b);
    if begins(SIGNATURE) {
        let Some(start) = read.get(..BINARY_START) else {
            // No header of either version is shorter.
            return Ok(TEXT_MIN.max(read.len() + 1) - read.len());
        };
        let whole = BINARY_START + usize::from(u16::from_be_bytes([start[14], start[15]]));
        return match whole > BINARY_MAX {
            true => Err("it is longer than 4 KiB"),
            false => Ok(whole.saturating_sub(read.len())),
        };
    }
    if !begins(TEXT_START) {
        return Err("it does not begin like a header of the PROXY protocol");
    }
    if read.len() < TEXT_MIN {
        return Ok(TEXT_MIN - read.len());
    }
    match read {
        _ if read.ends_with(TEXT_END) => Ok(0),
        _ if read.len() >= TEXT_MAX => Err("its line is longer than 107 bytes"),
        [.., b'\r'] => Ok(1),
        _ => Ok(TEXT_END.len().min(TEXT_MAX - read.len())),
    }
}

/// Reads a header that is whole.
pub(crate) fn read(header: &[u8]) -> Result<Origin, Malformed> {
    match header.strip_prefix(SIGNATURE) {
        Some([command, family, _, _, rest @ ..]) => read_binary(*command, *family, rest),
        Some(_) => Err("it is cut off"),
        None => read_text(header),
    }
}

fn read_binary(command: u8, family: u8, rest: &[u8]) -> Result<Origin, Malformed> {
    match command {
        0x20 => return Ok(Origin::Proxy),
        0x21 => {}
        _ => return Err("its version or command is unknown"),
    }
    // After the source come the destination, the ports, and what else there is to say (TLV).
    let address = match family {
        0x11 => rest
            .get(..12)
            .and_then(|rest| rest.first_chunk::<4>())
            .map(|bytes| IpAddr::from(Ipv4Addr::from(*bytes))),
        0x21 => rest
            .get(..36)
            .and_then(|rest| rest.first_chunk::<16>())
            .map(|bytes| IpAddr::from(Ipv6Addr::from(*bytes))),
        // Unspecified, and sockets of the proxy's own machine.
        0x00 | 0x31 => return Ok(Origin::Proxy),
        _ => return Err("its address is of no TCP connection"),
    };
    address
        .map(Origin::Client)
        .ok_or("it is too short for its addresses")
}

fn read_text(header: &[u8]) -> Result<Origin, Malformed> {
    const WRONG: Malformed = "its line is wrong";
    let line = header.strip_suffix(TEXT_END).ok_or("it is cut off")?;
    let line = std::str::from_utf8(line).map_err(|_| WRONG)?;
    let words: Vec<&str> = line.split(' ').collect();
    let are_ports = |ports: [&str; 2]| {
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|n| n.to_string() == port);
        ports.into_iter().all(is_port)
    };
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(Origin::Proxy),
        ["PROXY", "TCP4", source, destination, from, to] if are_ports([from, to]) => {
            let [source, _]: [Ipv4Addr; 2] = both(source, destination).ok_or(WRONG)?;
            Ok(Origin::Client(source.into()))
        }
        ["PROXY", "TCP6", source, destination, from, to] if are_ports([from, to]) => {
            let [source, _]: [Ipv6Addr; 2] = both(source, destination).ok_or(WRONG)?;
            Ok(Origin::Client(source.into()))
        }
        _ => Err(WRONG),
    }
}

fn both<T: std::str::FromStr>(source: &str, destination: &str) -> Option<[T; 2]> {
    Some([source.parse().ok()?, destination.parse().ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of a stream by `missing`, and what it means; `None` if the stream ends before.
    fn take(stream: &[u8]) -> Option<Result<(Origin, usize), Malformed>> {
        let mut taken = 0;
        loop {
            match missing(&stream[..taken]) {
                Err(reason) => return Some(Err(reason)),
                Ok(0) => return Some(read(&stream[..taken]).map(|origin| (origin, taken))),
                Ok(more) => taken += more,
            }
            if taken > stream.len() {
                return None;
            }
        }
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family][..], &length, rest].concat()
    }

    fn client(address: &str) -> Origin {
        Origin::Client(address.parse().unwrap())
    }

    #[test]
    fn headers_are_taken_and_nothing_after_them() {
        let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let v6: Vec<u8> = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[9], &[0; 20]].concat();
        let unix = [b'/'; 216];
        let with_more = [&v4[..], &[3, 0, 4, 1, 2, 3, 4, 0x20, 0, 1, 0]].concat();
        let headers = [
            (
                b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\n".to_vec(),
                client("203.0.113.7"),
            ),
            (
                b"PROXY TCP6 2001:db8::9 ::1 65535 0\r\n".to_vec(),
                client("2001:db8::9"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Origin::Proxy),
            (
                b"PROXY UNKNOWN ffff::1 what ever\r\n".to_vec(),
                Origin::Proxy,
            ),
            (binary(0x21, 0x11, &v4), client("203.0.113.7")),
            (binary(0x21, 0x11, &with_more), client("203.0.113.7")),
            (binary(0x21, 0x21, &v6), client("2001:db8::9")),
            (binary(0x21, 0x31, &unix), Origin::Proxy),
            (binary(0x21, 0x00, &[]), Origin::Proxy),
            (binary(0x21, 0x00, &[1, 2, 3]), Origin::Proxy),
            (binary(0x20, 0x00, &[]), Origin::Proxy),
            (binary(0x20, 0x11, &v4), Origin::Proxy),
        ];
        for (header, origin) in headers {
            let stream = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(
                take(&stream),
                Some(Ok((origin, header.len()))),
                "{header:?}"
            );
            for end in 0..header.len() {
                assert_eq!(
                    take(&header[..end]),
                    None,
                    "cut off after {end}: {header:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_within_its_bounds() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 4711 80 9\r\n",
            "PROXY TCP4 203.0.113.7  10.0.0.1 4711 80\r\n",
            "PROXY TCP4 2001:db8::9 ::1 4711 80\r\n",
            "PROXY TCP6 203.0.113.7 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 203.0.113.007 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 04711 80\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 +4711 80\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 65536 80\r\n",
            "PROXY UDP4 203.0.113.7 10.0.0.1 4711 80\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\r\n",
            "proxy tcp4 203.0.113.7 10.0.0.1 4711 80\r\n",
            &long,
        ] {
            assert!(matches!(take(text.as_bytes()), Some(Err(_))), "{text}");
        }
        let mut huge = binary(0x21, 0x11, &[]);
        huge[14..].copy_from_slice(&[0xff, 0xff]);
        for header in [
            huge,
            binary(0x11, 0x11, &[0; 12]),
            binary(0x22, 0x11, &[0; 12]),
            binary(0x21, 0x11, &[0; 11]),
            binary(0x21, 0x21, &[0; 35]),
            binary(0x21, 0x12, &[0; 12]),
            binary(0x21, 0x41, &[0; 12]),
        ] {
            assert!(matches!(take(&header), Some(Err(_))), "{header:?}");
        }
    }
}
