//! The host that a request is for, and which hosts are ours.
//!
//! A name of anybody's can be made to lead here (DNS rebinding), and a browser then takes what it is
//! shown for that other site. So pages are shown under names of ours alone. Addresses are no names:
//! under them nobody else can be.

use std::net::Ipv4Addr;

use auspex_kernel::ApiError;
use auspex_kernel::config::ConfigError;
use http::request::Parts;
use http::{HeaderValue, StatusCode, Version, header};

use crate::address::Host;

/// The host of a request with its port: that of its target, else of its `Host`. `None` if it names
/// none, as HTTP/1.0 may.
///
/// # Errors
/// 400 for a host that is none, and where two could be meant (RFC 9112 §3.2, RFC 9113 §8.3.1).
pub(super) fn of(parts: &Parts) -> Result<Option<&str>, ApiError> {
    let mut headers = parts.headers.get_all(header::HOST).iter();
    let header = headers.next();
    if headers.next().is_some() || (parts.version == Version::HTTP_11 && header.is_none()) {
        let message = "the request must have exactly one Host header";
        return Err(ApiError::malformed(message));
    }
    let header = header.map(read).transpose()?;
    let Some(target) = parts.uri.authority().map(http::uri::Authority::as_str) else {
        return Ok(header);
    };
    check(target)?;
    // HTTP/1.1 has the target win over the header.
    let differ = header.is_some_and(|header| !header.eq_ignore_ascii_case(target));
    if differ && parts.version == Version::HTTP_2 {
        let message = "the request has a Host that differs from its :authority";
        return Err(ApiError::malformed(message));
    }
    Ok(Some(target))
}

fn read(value: &HeaderValue) -> Result<&str, ApiError> {
    let text = value.to_str().unwrap_or("\u{fffd}");
    check(text).map(|()| text)
}

fn check(text: &str) -> Result<(), ApiError> {
    match Host::read(text) {
        Some(host) if host.has_possible_port() => Ok(()),
        Some(_) | None => Err(ApiError::malformed(
            "the Host of the request must be a host name or an address, perhaps with a port",
        )),
    }
}

/// What is wrong with the host names of the setting `key`.
pub(crate) fn check_names(key: &str, names: &[String]) -> Result<(), ConfigError> {
    let is_name = |name: &&String| {
        let host = Host::read(name);
        host.is_some_and(|host| host.port.is_none() && !host.name.is_empty() && !name.contains('*'))
    };
    match names.iter().find(|name| !is_name(name)) {
        None => Ok(()),
        Some(wrong) => Err(ConfigError::wrong(
            key,
            format!(
                "has {wrong:?}, which is no host name; write the whole name, without scheme, port \
                 and *, as in [\"models.example.org\"]"
            ),
        )),
    }
}

/// The host names under which pages are shown.
#[derive(Debug)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    /// That of the public URL (`host[:port]`), and others. Names of this machine and addresses are
    /// ours always.
    pub(crate) fn new(public_authority: &str, others: &[String]) -> Self {
        let public = Host::read(public_authority).map(|host| host.name);
        let others = others.iter().map(String::as_str);
        Self(public.into_iter().chain(others).map(plain).collect())
    }

    /// Refuses a host that is not ours. A request that names none is of no browser.
    pub(super) fn check(&self, host: Option<&str>) -> Result<(), ApiError> {
        let name = host.and_then(Host::read).map(|host| host.name);
        match name {
            None | Some("") => Ok(()),
            Some(name) if is_of_any_machine(name) || self.0.contains(&plain(name)) => Ok(()),
            Some(_) => Err(ApiError::new(
                StatusCode::MISDIRECTED_REQUEST,
                "MISDIRECTED_REQUEST",
                "this host name is not one of this server's; open its public URL, or have its \
                 operator add the name to server.hosts",
            )),
        }
    }
}

/// An address, or a name that leads to the browser's own machine (RFC 6761 §6.3).
fn is_of_any_machine(name: &str) -> bool {
    let name = plain(name);
    name.starts_with('[')
        || name.parse::<Ipv4Addr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
}

/// Without case, and without the dot at the end of an absolute name.
pub(super) fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn host(version: Version, target: &str, hosts: &[&str]) -> Result<Option<String>, u16> {
        let mut request = Request::get(target).version(version);
        for host in hosts {
            request = request.header("host", *host);
        }
        let parts = request.body(()).expect("valid").into_parts().0;
        let host = of(&parts).map(|host| host.map(str::to_owned));
        host.map_err(|error| error.status().as_u16())
    }

    #[test]
    fn a_request_is_for_one_host() {
        let http1 = |target, hosts: &[&str]| host(Version::HTTP_11, target, hosts);
        assert_eq!(http1("/", &["a:80"]), Ok(Some("a:80".into())));
        assert_eq!(http1("/", &[""]), Ok(Some(String::new())));
        assert_eq!(http1("http://b/", &["a"]), Ok(Some("b".into())));
        assert_eq!(host(Version::HTTP_10, "/", &[]), Ok(None));
        let http2 = |target, hosts: &[&str]| host(Version::HTTP_2, target, hosts);
        assert_eq!(http2("http://a/", &[]), Ok(Some("a".into())));
        assert_eq!(http2("http://a/", &["A"]), Ok(Some("a".into())));
        assert_eq!(http2("http://a/", &["b"]), Err(400));
        for hosts in [
            &[][..],
            &["a", "a"],
            &["a b"],
            &["a/b"],
            &["http://a"],
            &["u@a"],
            &["a:b"],
            &["a:65536"],
            &["\u{e4}"],
        ] {
            assert_eq!(http1("/", hosts), Err(400), "{hosts:?}");
        }
        assert_eq!(http1("http://u@a/", &["a"]), Err(400));
    }

    #[test]
    fn pages_are_shown_under_names_of_ours_and_addresses() {
        let hosts = Hosts::new("Models.example.org:8443", &["models.internal".to_owned()]);
        for ours in [
            None,
            Some(""),
            Some("models.example.org"),
            Some("MODELS.example.org.:80"),
            Some("models.internal:8080"),
            Some("localhost:8080"),
            Some("a.localhost"),
            Some("127.0.0.1:8080"),
            Some("10.1.2.3"),
            Some("[::1]:8080"),
        ] {
            assert!(hosts.check(ours).is_ok(), "{ours:?}");
        }
        for other in [
            "evil.example",
            "example.org",
            "x.models.internal",
            "127.0.0.1.evil.example",
        ] {
            let error = hosts.check(Some(other)).expect_err(other);
            assert_eq!(error.status().as_u16(), 421, "{other}");
        }
    }
}
