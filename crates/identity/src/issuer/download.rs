//! Fetches a key set over HTTP from an address that an operator configured, and from nowhere else:
//! no redirects, no proxy, and no address inside the operator's network unless the settings allow it. A name
//! that resolves to such an address, now or later, leads nowhere.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::{StatusCode, header};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect;

use super::IssuerConfig;
use super::key_set::KeySetError;

const BODY_BYTES_MAX: usize = 256 * 1024;

/// Why keys could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum DownloadError {
    /// No connection, no answer in time, or no valid one.
    #[error("{}", chain(.0))]
    Http(reqwest::Error),
    /// An answer other than 200; redirects are not followed.
    #[error("the answer is {0}; only 200 is taken, and redirects are not followed")]
    Status(StatusCode),
    /// More than any key set has.
    #[error("the answer is longer than 256 KiB")]
    TooLong,
    /// Not a key set.
    #[error(transparent)]
    KeySet(#[from] KeySetError),
}

impl From<reqwest::Error> for DownloadError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

/// What went wrong is in the innermost error; the outermost only says that something did.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        // Writing to a string does not fail.
        let _ = write!(text, ": {inner}");
        source = inner.source();
    }
    text
}

/// A client for one issuer.
#[derive(Clone, Debug)]
pub(super) struct Download {
    client: reqwest::Client,
    url: String,
}

impl Download {
    /// # Errors
    /// The TLS library cannot be set up.
    pub(super) fn new(config: &IssuerConfig, timeout: Duration) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .https_only(!config.allow_private_addresses)
            .dns_resolver(Vetting {
                allow_private: config.allow_private_addresses,
            })
            .timeout(timeout)
            .pool_max_idle_per_host(0)
            .user_agent("auspex")
            .build()
            .map_err(|error| format!("issuer {}: {}", config.issuer, chain(&error)))?;
        Ok(Self {
            client,
            url: config.jwks_url.clone(),
        })
    }

    /// # Errors
    /// [`DownloadError`].
    pub(super) async fn get(&self) -> Result<Vec<u8>, DownloadError> {
        let request = self.client.get(&self.url);
        let request = request.header(header::ACCEPT, "application/jwk-set+json, application/json");
        let mut response = request.send().await?;
        if response.status() != StatusCode::OK {
            return Err(DownloadError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(DownloadError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// Resolves names itself and hands on only addresses that may be connected to, so that nothing
/// resolves them a second time with another result. Literal addresses do not come this way; the
/// configuration has checked those.
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
pub(super) fn is_public(address: IpAddr) -> bool {
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
