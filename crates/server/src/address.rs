//! Addresses as people and programs write them: where to listen, hosts, the public URL.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Deserializer, de};

const LISTEN_FORM: &str = "must be ADDRESS:PORT; 127.0.0.1:8080, localhost:8080 and :8080 are for this machine alone, \
     0.0.0.0:8080 is for others too";
const PORT: &str = "has a port that is no number from 1 to 65535";

/// Reads where to listen. Without an address that is this machine alone: to be reached by others has
/// to be asked for.
pub(crate) fn listen<'de, D: Deserializer<'de>>(text: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(text)?;
    read_listen(text.trim()).ok_or_else(|| de::Error::custom(LISTEN_FORM))
}

fn read_listen(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.rsplit_once(':')?;
    let is_local = host.is_empty() || host.eq_ignore_ascii_case("localhost");
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| is_port)?;
    is_local.then_some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// What is wrong with the URL under which clients reach the server.
pub(crate) fn check_public_url(url: &str) -> Result<(), &'static str> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or("must begin with http:// or https://")?;
    if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("must have no blanks");
    }
    if rest.contains('@') {
        return Err("must have no user and no password");
    }
    if rest.contains(['?', '#']) {
        return Err("must have neither a query (?) nor a fragment (#)");
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if !path.trim_end_matches('/').is_empty() {
        return Err(
            "must have no path: links, pages and cookies are those of a whole host; give \
             Auspex a host name of its own, such as https://models.example.org, and let the proxy \
             hand on paths as they are",
        );
    }
    match Host::read(authority) {
        Some(host) if host.name.is_empty() => Err("must name a host"),
        Some(Host { port: Some(""), .. }) => Err(PORT),
        Some(Host {
            port: Some(port), ..
        }) if !port.parse::<u16>().is_ok_and(|port| port > 0) => Err(PORT),
        Some(_) => Ok(()),
        None if !authority.is_ascii() => Err(
            "has letters outside ASCII in its host; write its xn-- form, as in \
             https://xn--mnchen-3ya.example, which browsers send",
        ),
        None => Err(
            "has a host that is none, as in https://models.example.org or https://[2001:db8::1]:8443",
        ),
    }
}

/// `host[:port]`, as a `Host` header and the authority of a URL have it (RFC 9110 §7.2, RFC 3986
/// §3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host<'a> {
    /// With its brackets, if it is an IPv6 address; may be empty.
    pub(crate) name: &'a str,
    /// Digits, perhaps none.
    pub(crate) port: Option<&'a str>,
}

impl Host<'_> {
    /// Whether its port, if it has one, is one that there can be.
    pub(crate) fn has_possible_port(&self) -> bool {
        let port = self.port.unwrap_or_default();
        port.is_empty() || port.parse::<u16>().is_ok()
    }
}

impl<'a> Host<'a> {
    /// `None` for what is not of that form.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let end = match text.starts_with('[') {
            true => text.find(']')? + 1,
            false => text.find(':').unwrap_or(text.len()),
        };
        let (name, rest) = text.split_at(end);
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':')?),
        };
        let is_port = port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        (is_port && is_name(name)).then_some(Self { name, port })
    }
}

/// Which bytes a name of a host may have as they are (RFC 3986 §3.2.2).
const IS_PLAIN: [bool; 256] = {
    let (mut is_plain, plain) = ([false; 256], b"-._~!$&'()*+,;=");
    let mut at = 0;
    while at < plain.len() {
        is_plain[plain[at] as usize] = true;
        at += 1;
    }
    let mut byte = 0;
    while byte < 128 {
        is_plain[byte] = is_plain[byte] || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    is_plain
};

fn is_name(name: &str) -> bool {
    if let Some(address) = name.strip_prefix('[') {
        let address = address.trim_end_matches(']');
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        let mut is_digit = || rest.next().is_some_and(|byte| byte.is_ascii_hexdigit());
        if !(IS_PLAIN[usize::from(byte)] || byte == b'%' && is_digit() && is_digit()) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_listen_is_read_as_people_write_it() {
        for (text, address) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("LocalHost:0", "127.0.0.1:0"),
            (":8080", "127.0.0.1:8080"),
            ("0.0.0.0:8080", "0.0.0.0:8080"),
            ("[::]:8080", "[::]:8080"),
            ("[::1]:8080", "[::1]:8080"),
        ] {
            let read = read_listen(text).map(|address| address.to_string());
            assert_eq!(read.as_deref(), Some(address), "{text}");
        }
        for text in [
            "",
            ":",
            "8080",
            "localhost",
            "example.org:80",
            ":65536",
            ":+80",
            ":-1",
            "1.2.3:80",
            "::1:8080:",
            "http://127.0.0.1:80",
        ] {
            assert_eq!(read_listen(text), None, "{text}");
        }
    }

    #[test]
    fn a_public_url_is_a_scheme_and_a_host() {
        for good in [
            "http://x",
            "https://models.example.org",
            "https://models.example.org/",
            "https://models.example.org:8443",
            "http://[::1]:80",
        ] {
            assert_eq!(check_public_url(good), Ok(()), "{good}");
        }
        for (wrong, said) in [
            ("models.example.org", "begin with"),
            ("ftp://x", "begin with"),
            ("https://", "a host"),
            ("https:///x", "no path"),
            ("https://:80", "name a host"),
            ("https://a b", "blanks"),
            (" https://a", "begin with"),
            ("https://a\u{a0}", "blanks"),
            ("https://a\n", "blanks"),
            ("https://u:p@a", "no user"),
            ("https://a?b", "query"),
            ("https://a/#b", "fragment"),
            ("https://a/models", "no path"),
            ("https://a/models/", "hand on paths"),
            ("https://a:x", "host"),
            ("https://a:", "port"),
            ("https://a:0", "port"),
            ("https://a:65536", "port"),
            ("https://ä.example", "host"),
            ("https://[::1", "host"),
            ("https://a<b>", "host"),
        ] {
            let error = check_public_url(wrong).expect_err(wrong);
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn hosts_are_read_by_their_grammar() {
        let read = |text| Host::read(text).map(|host| (host.name, host.port));
        assert_eq!(read("a.example"), Some(("a.example", None)));
        assert_eq!(read("a.example:80"), Some(("a.example", Some("80"))));
        assert_eq!(read("[::1]:80"), Some(("[::1]", Some("80"))));
        assert_eq!(read("a_b-c%2e"), Some(("a_b-c%2e", None)));
        assert_eq!(read(""), Some(("", None)));
        assert_eq!(read("a:"), Some(("a", Some(""))));
        for garbage in [
            "a b",
            "a/b",
            "a@b",
            "a:b",
            "a:1:2",
            "::1",
            "[::1",
            "[::1]x",
            "[a]",
            "[::1%25en0]",
            "a%2",
            "a%zz",
            "a\\b",
            "<a>",
            "a\"b",
            "ä",
            "a\u{0}",
        ] {
            assert_eq!(read(garbage), None, "{garbage}");
        }
    }
}
