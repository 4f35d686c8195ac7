//! How endpoints are chosen, as the settings say, and what of a request decides where it goes.

use std::net::IpAddr;
use std::str::FromStr;

use auspex_kernel::Peer;
use http::header::{self, HeaderName};
use http::request::Parts;

use super::ring;

/// How endpoints of a service are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The better of two that are drawn, by latency and requests in hand.
    P2c,
    /// One after the other.
    RoundRobin,
    /// That with the fewest requests in hand of a few that are drawn.
    LeastRequests,
    /// The same one for the same value.
    Hash(HashBy),
}

/// What of a request has to be the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HashBy {
    Header(HeaderName),
    Cookie(String),
    Ip,
    /// A parameter of the route's path.
    Path(String),
}

/// What the setting must be.
const FORM: &str = "must be one of p2c, round-robin, least-requests, hash(ip), hash(header.NAME), hash(cookie.NAME) and \
     hash(path.PARAMETER)";

impl FromStr for Policy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "p2c" => return Ok(Self::P2c),
            "round-robin" => return Ok(Self::RoundRobin),
            "least-requests" => return Ok(Self::LeastRequests),
            "hash(ip)" => return Ok(Self::Hash(HashBy::Ip)),
            _ => {}
        }
        let inner = text
            .strip_prefix("hash(")
            .and_then(|rest| rest.strip_suffix(')'));
        let (kind, name) = inner.and_then(|inner| inner.split_once('.')).ok_or(FORM)?;
        // A cookie's name is a token as a header's is (RFC 6265 §4.1.1), but case matters.
        let token = HeaderName::from_str(name).map_err(|_| FORM)?;
        match kind {
            "header" => Ok(Self::Hash(HashBy::Header(token))),
            "cookie" => Ok(Self::Hash(HashBy::Cookie(name.to_owned()))),
            "path" => Ok(Self::Hash(HashBy::Path(name.to_owned()))),
            _ => Err(FORM),
        }
    }
}

/// Where the requests of one route have the value that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeySource {
    Header(HeaderName),
    Cookie(String),
    Ip,
    Segment(usize),
    /// From this segment on.
    Rest(usize),
}

impl KeySource {
    /// `None`: requests of a route with this path go wherever they may.
    pub(crate) fn of(policy: &Policy, path: &str) -> Option<Self> {
        let Policy::Hash(by) = policy else {
            return None;
        };
        Some(match by {
            HashBy::Header(name) => Self::Header(name.clone()),
            HashBy::Cookie(name) => Self::Cookie(name.clone()),
            HashBy::Ip => Self::Ip,
            HashBy::Path(name) => {
                let (one, rest) = (format!("{{{name}}}"), format!("{{*{name}}}"));
                let place = |wanted: &str| path.split('/').position(|part| part == wanted);
                place(&one)
                    .map(Self::Segment)
                    .or(place(&rest).map(Self::Rest))?
            }
        })
    }

    /// A number for the value that a request has; `None`: it has none.
    pub(crate) fn key(&self, parts: &Parts) -> Option<u64> {
        match self {
            Self::Header(name) => Some(ring::hash(parts.headers.get(name)?.as_bytes())),
            Self::Cookie(name) => cookie(parts, name).map(ring::hash),
            Self::Ip => {
                let Peer(address) = parts.extensions.get()?;
                Some(match address.to_canonical() {
                    IpAddr::V4(v4) => ring::hash(&v4.octets()),
                    IpAddr::V6(v6) => ring::hash(&v6.octets()),
                })
            }
            Self::Segment(place) => {
                let segment = parts.uri.path().split('/').nth(*place)?;
                Some(ring::hash(segment.as_bytes()))
            }
            Self::Rest(place) => {
                let rest = parts.uri.path().splitn(place + 1, '/').nth(*place)?;
                Some(ring::hash(rest.as_bytes()))
            }
        }
    }
}

/// The first cookie of this name.
fn cookie<'p>(parts: &'p Parts, name: &str) -> Option<&'p [u8]> {
    let lines = parts.headers.get_all(header::COOKIE).iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn settings_are_read_or_refused() {
        for good in [
            "p2c",
            "round-robin",
            "least-requests",
            "hash(ip)",
            "hash(header.X-User-Id)",
            "hash(cookie.session)",
            "hash(path.dialogId)",
        ] {
            assert!(good.parse::<Policy>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "P2C",
            "random",
            "hash",
            "hash()",
            "hash(ip.x)",
            "hash(header)",
            "hash(header.)",
            "hash(header.a b)",
            "hash(cookie.a;b)",
            "hash(query.a)",
            "hash(header.x",
        ] {
            assert!(bad.parse::<Policy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_value_of_a_request_is_found_where_it_stands() {
        let request = Request::get("/dialogs/d7/texts/1/2")
            .header("x-user", "ann")
            .header("cookie", "a=1; session=s1")
            .header("cookie", "session=s2; sessions=s3")
            .extension(Peer("::ffff:10.0.0.1".parse().expect("an address")));
        let parts = request.body(()).expect("valid").into_parts().0;
        let key = |policy: &str| {
            let path = "/dialogs/{dialogId}/{kind}/{*rest}";
            let policy = policy.parse().expect("a policy");
            KeySource::of(&policy, path)?.key(&parts)
        };
        for (policy, value) in [
            ("hash(header.X-User)", &b"ann"[..]),
            ("hash(cookie.session)", b"s1"),
            ("hash(path.dialogId)", b"d7"),
            ("hash(path.rest)", b"1/2"),
            ("hash(ip)", &[10, 0, 0, 1]),
        ] {
            assert_eq!(key(policy), Some(ring::hash(value)), "{policy}");
        }
        for none in [
            "hash(header.x-other)",
            "hash(cookie.sess)",
            "hash(cookie.Session)",
            "hash(path.id)",
            "p2c",
        ] {
            assert_eq!(key(none), None, "{none}");
        }
    }
}
