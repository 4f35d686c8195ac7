//! Where a browser may be sent back to: exactly where a client said when it was registered.
//!
//! Addresses are compared as text, never after decoding or normalising, for every rule by which two
//! texts could mean the same has been an attack (RFC 9700 §4.1). The one exception is the port of a
//! public client on a loopback address, which such a program cannot choose beforehand (RFC 8252 §7.3).

use url::Url;

const CHARS_MAX: usize = 1_000;
/// Parameters of our answers. A client could not tell which of two is ours.
const ANSWERED: [&str; 6] = [
    "code",
    "state",
    "iss",
    "error",
    "error_description",
    "error_uri",
];
const LOOPBACKS: [&str; 2] = ["127.0.0.1", "[::1]"];

/// Whether a client may register this.
///
/// # Errors
/// What it must be.
pub(crate) fn check(uri: &str, public: bool) -> Result<(), &'static str> {
    let plain = uri.bytes().all(|byte| {
        byte.is_ascii_graphic()
            && !matches!(
                byte,
                b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}'
            )
    });
    if uri.len() > CHARS_MAX || !plain {
        return Err("must be a URI of at most 1000 ASCII characters");
    }
    if uri.contains('#') {
        return Err("must have no fragment; leave out # and what follows it");
    }
    if uri.contains('*') {
        return Err("must be one address and no pattern; name each address that there is");
    }
    let absolute = "must be absolute, such as https://app.example.org/callback";
    let url = Url::parse(uri).map_err(|_| absolute)?;
    if url
        .query_pairs()
        .any(|(name, _)| ANSWERED.contains(&&*name))
    {
        return Err(
            "must not have code, state, iss or error in its query, which the answer brings; leave them out",
        );
    }
    let (scheme, rest) = uri.split_once(':').ok_or(absolute)?;
    let authority = authority(rest);
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Err("must have no user name or password");
    }
    let host = authority.map(|authority| split_port(authority).0);
    if url.port() == Some(0) {
        return Err("must not name port 0, where nothing can listen");
    }
    if matches!(scheme, "https" | "http")
        && host.is_some_and(|host| !host.is_empty() && !is_host(host, &url))
    {
        return Err(
            "must name its host as browsers do: letters, digits and hyphens between single dots, or an IP address",
        );
    }
    match scheme {
        // The text, not what a browser would make of it.
        "https" if host.is_some_and(|host| !host.is_empty()) && url.has_host() => Ok(()),
        "http" if host.is_some_and(|host| host == "localhost" || LOOPBACKS.contains(&host)) => {
            Ok(())
        }
        "https" => Err(absolute),
        "http" => Err("must begin with https://; http:// is for 127.0.0.1, [::1] and localhost"),
        // RFC 8252 §7.1: a domain name in reverse, so that it has an owner.
        _ if public && scheme.contains('.') && scheme == url.scheme() && rest.len() > 1 => Ok(()),
        _ => Err(
            "must begin with https://; public clients may use a scheme with a dot, such as com.example:/callback",
        ),
    }
}

/// Whether a host is written as browsers write it. One in another form would be sent on, and shown to
/// people, under another name than was registered.
fn is_host(host: &str, url: &Url) -> bool {
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(is_plain)
    };
    let is_same = url
        .host_str()
        .is_some_and(|known| known.eq_ignore_ascii_case(host));
    is_same && (host.starts_with('[') || host.split('.').all(is_label))
}

/// Whether a request may name `given`, where the client registered `registered`.
pub(crate) fn matches(registered: &str, given: &str, public: bool) -> bool {
    if registered == given {
        return true;
    }
    let parts = (without_port(registered), without_port(given));
    public && matches!(parts, (Some(registered), Some(given)) if registered == given)
}

/// Host and what follows the port, of an address on a loopback IP.
fn without_port(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("http:")?;
    let authority = authority(rest)?;
    let (host, port) = split_port(authority);
    let valid = port.is_none_or(|port| {
        (1..=5).contains(&port.len())
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    (LOOPBACKS.contains(&host) && valid).then(|| (host, &rest[2 + authority.len()..]))
}

/// What stands between `//` and the path.
fn authority(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix("//")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some(&rest[..end])
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    // Colons within brackets belong to the address.
    let from = authority.rfind(']').unwrap_or(0);
    match authority[from..].find(':') {
        Some(at) => (&authority[..from + at], Some(&authority[from + at + 1..])),
        None => (authority, None),
    }
}

/// The place in short, for people: the host, or the scheme of an app.
pub(crate) fn shown(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return String::new();
    };
    match scheme {
        "http" | "https" => authority(rest).unwrap_or_default().to_owned(),
        app => format!("an app on this device ({app})"),
    }
}

/// The origin of the page there, as browsers write it. An app has none.
pub(crate) fn origin(uri: &str) -> Option<String> {
    let origin = Url::parse(uri).ok()?.origin();
    origin.is_tuple().then(|| origin.ascii_serialization())
}

/// Adds parameters to the address of a client.
pub(crate) fn with_parameters(uri: &str, parameters: &[(&str, &str)]) -> String {
    let mut text = uri.to_owned();
    let mut sign = if uri.contains('?') { '&' } else { '?' };
    for (name, value) in parameters {
        text.push(sign);
        text.push_str(name);
        text.push('=');
        for part in form_urlencoded::byte_serialize(value.as_bytes()) {
            // Some clients decode percent signs alone.
            text.push_str(if part == "+" { "%20" } else { part });
        }
        sign = '&';
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_lead_astray_cannot_be_registered() {
        for (uri, public) in [
            ("https://app.example.org/cb?x=1", false),
            ("https://app.example.org", false),
            ("http://127.0.0.1:8080/cb", false),
            ("http://127.0.0.1/cb", true),
            ("http://[::1]:1/cb", true),
            ("http://localhost:9000/cb", true),
            ("com.example.app:/cb", true),
            ("com.example.app://cb", true),
        ] {
            assert_eq!(check(uri, public), Ok(()), "{uri}");
        }
        for uri in [
            "",
            "/cb",
            "//app.example.org/cb",
            "app.example.org/cb",
            "https:",
            "https://",
            "https:///cb",
            "https:/app.example.org",
            "HTTPS://app.example.org/cb",
            "https://app.example.org/cb#x",
            "https://app.example.org/cb#",
            "https://*.example.org/cb",
            "https://app.example.org/*",
            "https://app.example.org/cb?code=1",
            "https://app.example.org/cb?x=1&state",
            "https://app.example.org/cb?%69ss=x",
            "com.example.app:/cb?error=1",
            "https://user@app.example.org/cb",
            "https://user:pw@app.example.org/cb",
            "https://@app.example.org/",
            "https://app.example.org\\@evil.example/",
            "https://app.example.org/a b",
            "https://app.example.org/\n",
            "https://äpp.example.org/",
            "https://app.example.org:99999/",
            "https://app.example.org:0/",
            "http://127.0.0.1:0/cb",
            "https://app.example.org./cb",
            "https://app..example.org/cb",
            "https://.example.org/cb",
            "https://app_1.example.org/cb",
            "https://%61pp.example.org/cb",
            "https://127.1/cb",
            "https://[::0:1]/cb",
            "http://app.example.org/cb",
            "http://127.1/cb",
            "http://2130706433/cb",
            "http://127.0.0.1.example.org/cb",
            "http://127.0.0.1@evil.example/cb",
            "http://LOCALHOST/cb",
            "javascript:alert(1)",
            "data:text/html,x",
            "urn:ietf:wg:oauth:2.0:oob",
            "com.example:",
            "myapp:/cb",
            &format!("https://a.example/{}", "x".repeat(1_000)),
        ] {
            assert!(check(uri, true).is_err(), "{uri}");
        }
        assert!(check("com.example.app:/cb", false).is_err());
    }

    #[test]
    fn addresses_are_compared_as_text() {
        let uri = "https://app.example.org/cb";
        assert!(matches(uri, uri, false));
        for other in [
            "https://app.example.org/cb/",
            "https://app.example.org/CB",
            "https://APP.example.org/cb",
            "https://app.example.org:443/cb",
            "http://app.example.org/cb",
            "https://app.example.org/cb?x",
            "https://app.example.org/cb#x",
            "https://app.example.org/%63b",
            "https://app.example.org/x/../cb",
            "https://evil.app.example.org/cb",
            "https://app.example.org.evil.example/cb",
            "https://user@app.example.org/cb",
            "https://app.example.org/cb\n",
            "",
        ] {
            assert!(!matches(uri, other, true), "{other}");
        }
    }

    #[test]
    fn only_the_port_of_a_loopback_address_is_free_and_only_for_public_clients() {
        let uri = "http://127.0.0.1/cb";
        for port in ["", ":1", ":51004", ":65535"] {
            let given = format!("http://127.0.0.1{port}/cb");
            assert!(matches(uri, &given, true), "{given}");
            assert_eq!(matches(uri, &given, false), port.is_empty());
        }
        assert!(matches("http://[::1]:8080/cb", "http://[::1]:9/cb", true));
        for other in [
            "http://127.0.0.1:/cb",
            "http://127.0.0.1:0/cb",
            "http://127.0.0.1:65536/cb",
            "http://127.0.0.1:+80/cb",
            "http://127.0.0.1:80@evil.example/cb",
            "http://127.0.0.1:80/cb/",
            "http://127.0.0.1:80/cb?x",
            "http://127.0.0.1:80",
            "http://127.0.0.2:80/cb",
            "http://[::1]:80/cb",
            "http://localhost:80/cb",
            "https://127.0.0.1:80/cb",
        ] {
            assert!(!matches(uri, other, true), "{other}");
        }
        let named = "http://localhost:80/cb";
        assert!(!matches(named, "http://localhost:81/cb", true));
    }

    #[test]
    fn parameters_are_added_and_nothing_breaks_out_of_them() {
        let state = "a b&c=d#e\r\nSet-Cookie: x=1+%2B\"<ñ>";
        let url = with_parameters(
            "https://a.example/cb?x=1",
            &[("state", state), ("iss", "i")],
        );
        assert!(url.starts_with("https://a.example/cb?x=1&state=a%20b%26c%3Dd%23e%0D%0A"));
        assert!(url.is_ascii() && !url.contains(['\r', '\n', '"', '<', '#', '+']));
        let read = Url::parse(&url).unwrap();
        let read: Vec<_> = read.query_pairs().collect();
        assert_eq!(read[1].1, state);
        assert_eq!(with_parameters("a.b:/c", &[("code", "x")]), "a.b:/c?code=x");
    }

    #[test]
    fn pages_have_the_origin_that_browsers_write_and_apps_none() {
        for (uri, expected) in [
            ("https://app.example.org/cb?x=1", "https://app.example.org"),
            ("https://App.example.org:443/cb", "https://app.example.org"),
            (
                "https://app.example.org:8443",
                "https://app.example.org:8443",
            ),
            ("http://localhost:5173/", "http://localhost:5173"),
            ("http://127.0.0.1/cb", "http://127.0.0.1"),
            ("http://[::1]:9/cb", "http://[::1]:9"),
        ] {
            assert_eq!(origin(uri).as_deref(), Some(expected));
        }
        for app in ["com.example.app:/cb", "com.example.app://host/cb", "x"] {
            assert_eq!(origin(app), None, "{app}");
        }
    }

    #[test]
    fn people_are_shown_the_host_or_that_it_is_an_app() {
        assert_eq!(shown("https://app.example.org/cb"), "app.example.org");
        assert_eq!(
            shown("com.example.app:/cb"),
            "an app on this device (com.example.app)"
        );
    }
}
