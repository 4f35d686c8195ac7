//! What a route wants of a request beside path and method.

use auspex_kernel::config::ConfigError;
use auspex_kernel::service::Conditions;
use http::header::{self, HeaderName, HeaderValue};

use super::Key;
use crate::config::RouteConfig;

const HOST_BYTES_MAX: usize = 253;
const HEADERS_MAX: usize = 8;

pub(super) fn conditions(at: &Key, route: &RouteConfig) -> Result<Conditions, ConfigError> {
    let hosts = route
        .hosts
        .iter()
        .flatten()
        .enumerate()
        .map(|(index, text)| {
            let reason = "must be a host name without port, such as \"api.example.org\", or \
                      \"*.example.org\" for all names below one";
            host(text).ok_or_else(|| at.wrong(&format!("hosts[{index}]"), reason))
        });
    let hosts: Vec<String> = hosts.collect::<Result<_, _>>()?;
    if route.hosts.is_some() && hosts.is_empty() {
        return Err(at.wrong("hosts", "must name at least one, or be left out, for any"));
    }
    if let Some(twice) = (1..hosts.len()).find(|index| hosts[..*index].contains(&hosts[*index])) {
        return Err(at.wrong(&format!("hosts[{twice}]"), "is there already"));
    }
    if route.headers.len() > HEADERS_MAX {
        let reason = format!("must have at most {HEADERS_MAX}");
        return Err(at.wrong("headers", reason));
    }
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (name, value) in &route.headers {
        let wrong = |reason: &str| at.wrong(&format!("headers.{name}"), reason);
        let read = name.parse::<HeaderName>().ok();
        let read = read.filter(|read| headers.iter().all(|(other, _)| other != read));
        let read = read.ok_or_else(|| wrong("is no name of a header, or is there already"))?;
        if read == header::HOST {
            return Err(wrong("is what hosts is for"));
        }
        let is_whole = !value.is_empty() && value.trim() == value;
        let value = HeaderValue::from_str(value).ok().filter(|_| is_whole);
        let value = value.ok_or_else(|| wrong("must be a text as in a header"))?;
        headers.push((read, value));
    }
    Ok(Conditions { hosts, headers })
}

/// In lower case.
fn host(text: &str) -> Option<String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_plain);
    let is_name = name.len() <= HOST_BYTES_MAX && name.split('.').all(is_label);
    let address = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let is_address =
        text == name && address.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
    (is_name || is_address).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts_are_read_or_refused() {
        for (text, read) in [
            ("API.example.org", "api.example.org"),
            ("*.Example.org", "*.example.org"),
            ("localhost", "localhost"),
            ("10.0.0.1", "10.0.0.1"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(host(text).as_deref(), Some(read));
        }
        let long = "a".repeat(254);
        for wrong in [
            "",
            "*",
            "*.",
            "*.*.org",
            "a.*",
            "api.*.org",
            ".org",
            "a..b",
            "a.",
            "a:80",
            "http://a",
            "a/b",
            "u@a",
            "a b",
            "m\u{fc}nchen.de",
            "[::1",
            "*.[::1]",
            &long,
        ] {
            assert_eq!(host(wrong), None, "{wrong}");
        }
    }
}
