//! Requests to addresses that somebody else chose: no redirects, no proxy, and no address inside the operator's
//! network unless the settings allow it. A name that resolves to such an address, now or later, leads
//! nowhere.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect;
use url::{Host, Url};

/// A client for such requests. Each has a connection of its own, so that the address it goes to was looked at for it.
///
/// # Errors
/// The TLS library cannot be set up.
pub fn client(allow_private: bool, timeout: Duration) -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .https_only(!allow_private)
        .dns_resolver(Vetting { allow_private })
        .timeout(timeout)
        .pool_max_idle_per_host(0)
        .user_agent("auspex")
        .build()
        .map_err(|error| chain(&error))
}

/// Whether such a request may go to a URL, as far as that shows without resolving names.
///
/// # Errors
/// What it must be.
pub fn check_url(url: &Url, allow_private: bool) -> Result<(), &'static str> {
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        _ => return Err("must be https (or http, with allow_private_addresses = true)"),
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("must have neither a user nor a fragment");
    }
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) => None,
        None => return Err("must have a host"),
    };
    match literal.is_some_and(|address| !allow_private && !is_public(address)) {
        true => {
            Err("lies in a private network; say allow_private_addresses = true if that is meant")
        }
        false => Ok(()),
    }
}

/// What went wrong is in the innermost error; the outermost only says that something did.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        // Writing to a string does not fail.
        let _ = write!(text, ": {inner}");
        source = inner.source();
    }
    text
}

/// Resolves names itself and hands on only addresses that may be connected to, so that nothing
/// resolves them a second time with another result. Literal addresses do not come this way; see
/// [`check_url`].
#[derive(Debug)]
struct Vetting {
    allow_private: bool,
}

impl Resolve for Vetting {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let resolved = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let vetted: Vec<SocketAddr> = resolved
                .filter(|address| allow_private || is_public(address.ip()))
                .collect();
            if vetted.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "the name leads into a private network; say allow_private_addresses = true \
                     if that is meant",
                )
                .into());
            }
            let vetted: Addrs = Box::new(vetted.into_iter());
            Ok(vetted)
        })
    }
}

/// Whether an address belongs to the public internet, by the IANA registries of special-purpose
/// addresses. IPv6 addresses that carry an IPv4 one count as public only in the mapped form, which
/// is the IPv4 address.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || matches!(
            (a, b, c),
            (0, ..)                     // this network
                | (100, 64..=127, _)    // carriers' NAT
                | (192, 0, 0)           // protocol assignments
                | (192, 88, 99)         // 6to4 relays
                | (198, 18..=19, _)     // benchmarks
                | (224.., ..) // multicast, reserved, broadcast
        );
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let global_unicast = a & 0xe000 == 0x2000;
    let special = matches!(
        (a, b),
        (0x2001, 0x0000..=0x01ff)   // protocol assignments, Teredo
            | (0x2001, 0x0db8)      // documentation
            | (0x2002, _)           // 6to4
            | (0x3fff, 0x0000..=0x0fff) // documentation
    );
    global_unicast && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_lead_inside_are_refused_however_they_are_written() {
        let check = |text: &str, allow| check_url(&text.parse().unwrap(), allow).is_ok();
        for url in [
            "https://127.0.0.1/x",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::ffff:10.0.0.1]/",
            "https://[::1]:8443/",
            "https://169.254.169.254/latest",
        ] {
            assert!(!check(url, false) && check(url, true), "{url}");
        }
        assert!(check("https://example.org/hook", false));
        for url in [
            "http://example.org/",
            "ftp://example.org/",
            "https://a:b@example.org/",
        ] {
            assert!(!check(url, false), "{url}");
        }
        assert!(check("http://example.org/", true) && !check("file:///etc/passwd", true));
    }

    #[test]
    fn private_addresses_are_told_from_public_ones() {
        let public = |text: &str| is_public(text.parse().unwrap());
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!public(text), "{text}");
        }
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "2a00:1450::1",
        ] {
            assert!(public(text), "{text}");
        }
    }
}
