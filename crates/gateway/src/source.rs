//! Where the endpoints of a service come from, and which servers they may be.

use std::net::IpAddr;

use auspex_kernel::config::ConfigError;
use ipnet::IpNet;
use url::{Host, Url};

use crate::config::ServiceConfig;
use crate::plan::Key;
use crate::registry;
use crate::upstream::{Place, name_of};

/// Parts of Auspex, there already or to come: no other server answers for them.
const RESERVED: [&str; 12] = [
    "auspex",
    "console",
    "dialogues",
    "engine",
    "gateway",
    "identity",
    "inference",
    "jobs",
    "kernel",
    "server",
    "storage",
    "telemetry",
];

/// Where the endpoints of a service come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The settings name them.
    Fixed(Vec<Place>),
    /// `host:port`, of which DNS has the addresses.
    Dns(String),
    /// The name of an SRV record.
    Srv(String),
    /// They register, with addresses in these ranges, of which all or none begin with `https://`.
    Registry(Vec<IpNet>, Wanted),
}

/// How URLs of servers begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Http,
    Https,
}

/// Whether a service of this name would be taken for a part of Auspex.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|one| one.eq_ignore_ascii_case(name))
}

impl Source {
    /// As the settings of a service say, and whether its servers are called by TLS. `at` is where they are.
    pub(crate) fn of(at: &Key, service: &ServiceConfig) -> Result<(Self, bool), ConfigError> {
        let ServiceConfig {
            endpoints,
            dns,
            srv,
            addresses_allowed,
            ..
        } = service;
        if endpoints.is_some() || dns.is_some() || srv.is_some() {
            if addresses_allowed.is_some() {
                let reason = "is for services whose servers register; leave it out";
                return Err(at.wrong("addresses_allowed", reason));
            }
            let count = [dns.is_some(), srv.is_some(), endpoints.is_some()];
            if count.iter().filter(|is_given| **is_given).count() > 1 {
                let reason =
                    "must have one of endpoints, dns and srv, or none for servers that register";
                return Err(ConfigError::wrong(&at.0, reason));
            }
        }
        let wanted = match service.tls {
            Some(_) => Wanted::Https,
            None => Wanted::Http,
        };
        let is_secured = wanted == Wanted::Https;
        match (endpoints, dns, srv) {
            (Some(endpoints), _, _) => fixed(at, endpoints, wanted),
            (None, Some(dns), _) => {
                let reason = "must be HOST:PORT, such as \"orders.internal:5000\"";
                let named = authority(&format!("http://{dns}"))
                    .ok()
                    .filter(|(_, one)| one == dns && (!is_secured || name_of(one).is_some()));
                let named = named.map(|(_, one)| (Self::Dns(one), is_secured));
                named.ok_or_else(|| at.wrong("dns", reason))
            }
            (None, None, Some(srv)) => {
                let reason =
                    "must be the name of an SRV record, such as \"_http._tcp.orders.internal\"";
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
                let is_name = (1..=253).contains(&srv.len()) && srv.bytes().all(is_plain);
                let named = is_name.then(|| (Self::Srv(srv.clone()), is_secured));
                named.ok_or_else(|| at.wrong("srv", reason))
            }
            (None, None, None) => {
                let usual = || registry::USUAL.map(str::to_owned).to_vec();
                let ranges = addresses_allowed.clone().unwrap_or_else(usual);
                if ranges.is_empty() {
                    let reason =
                        "must name at least one range, such as \"10.0.0.0/8\", or be left out";
                    return Err(at.wrong("addresses_allowed", reason));
                }
                let ranges = ranges.iter().enumerate().map(|(index, text)| {
                    let wrong = |why| at.wrong(&format!("addresses_allowed[{index}]"), why);
                    let range: IpNet = text
                        .parse()
                        .or_else(|_| text.parse().map(|one: IpAddr| one.into()))
                        .map_err(|_| {
                            wrong("must be an address or a range, such as \"10.0.0.0/8\"")
                        })?;
                    match registry::is_link_local(range) {
                        true => Err(wrong("is of link-local addresses, which are never allowed")),
                        false => Ok(range),
                    }
                });
                let ranges = ranges.collect::<Result<_, _>>()?;
                Ok((Self::Registry(ranges, wanted), is_secured))
            }
        }
    }

    /// Whether somebody else than the settings knows the endpoints.
    pub(crate) fn is_discovered(&self) -> bool {
        !matches!(self, Source::Fixed(_))
    }

    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Source::Fixed(_) => "settings",
            Source::Dns(_) | Source::Srv(_) => "dns",
            Source::Registry(..) => "registry",
        }
    }

    /// `host:port` of an address that registers.
    ///
    /// # Errors
    /// What the address must be.
    pub(crate) fn authority_of(&self, address: &str) -> Result<String, &'static str> {
        let Source::Registry(ranges, wanted) = self else {
            return Err("is not asked for");
        };
        let (scheme, authority) = authority(address)?;
        if scheme != *wanted {
            return Err(match wanted {
                Wanted::Http => "must begin with http://, unless the service has tls",
                Wanted::Https => "must begin with https://, for the service has tls",
            });
        }
        let host = Url::parse(address).ok();
        let host = host.as_ref().and_then(Url::host);
        let ip = match host {
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
            // Whoever owns a name may let it lead anywhere, later too.
            _ => {
                return Err(
                    "must name the server by its IP address, such as \"http://10.0.0.5:9001\"",
                );
            }
        };
        match registry::is_allowed(ip, ranges) {
            true => Ok(authority),
            false => Err("is in none of the ranges that addresses_allowed of the service names"),
        }
    }
}

fn fixed(at: &Key, endpoints: &[String], wanted: Wanted) -> Result<(Source, bool), ConfigError> {
    if endpoints.is_empty() {
        let reason = "must name at least one, such as [\"http://127.0.0.1:9001\"], or be left out, for \
                      servers that register";
        return Err(at.wrong("endpoints", reason));
    }
    let mut places: Vec<Place> = Vec::new();
    let mut first = None;
    for (index, url) in endpoints.iter().enumerate() {
        let wrong = |why: &str| at.wrong(&format!("endpoints[{index}]"), why);
        let (scheme, authority) = authority(url).map_err(wrong)?;
        if *first.get_or_insert(scheme) != scheme {
            let why = "must begin as the first does: the servers of a service are called alike, by http:// or https://";
            return Err(wrong(why));
        }
        if scheme == Wanted::Https && name_of(&authority).is_none() {
            return Err(wrong("must name a host that a certificate can name"));
        }
        let place = Place::named(authority);
        if places.contains(&place) {
            return Err(wrong("is there already"));
        }
        places.push(place);
    }
    let is_secured = first == Some(Wanted::Https);
    if wanted == Wanted::Https && !is_secured {
        return Err(at.wrong("tls", "is for endpoints that begin with https://"));
    }
    Ok((Source::Fixed(places), is_secured))
}

/// The begin of the URL of an endpoint, and its `host:port`.
fn authority(text: &str) -> Result<(Wanted, String), &'static str> {
    let form = "must be the URL of a server without a path, such as \"http://127.0.0.1:9001\"";
    let url = Url::parse(text).map_err(|_| form)?;
    let (wanted, port) = match url.scheme() {
        "http" => (Wanted::Http, 80),
        "https" => (Wanted::Https, 443),
        _ => return Err(form),
    };
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let has_password = !url.username().is_empty() || url.password().is_some();
    let host = url.host_str().filter(|host| !host.is_empty());
    match host {
        _ if url.port() == Some(0) => Err("must have a port from 1 to 65535"),
        Some(host) if is_bare && !has_password => {
            Ok((wanted, format!("{host}:{}", url.port().unwrap_or(port))))
        }
        _ => Err(form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_registers_is_one_of_the_allowed_ones() {
        let ranges = registry::USUAL.map(|text| text.parse().expect("a range"));
        let source = Source::Registry(ranges.to_vec(), Wanted::Http);
        let authority = |address: &str| source.authority_of(address).ok();
        assert_eq!(
            authority("http://10.0.0.5:9001").as_deref(),
            Some("10.0.0.5:9001")
        );
        assert_eq!(
            authority("http://[::1]:9001/").as_deref(),
            Some("[::1]:9001")
        );
        assert_eq!(
            authority("http://127.1:80").as_deref(),
            Some("127.0.0.1:80")
        );
        for address in [
            "http://example.org",
            "http://localhost:1",
            "http://169.254.169.254",
            "http://2852039166",
            "http://[::ffff:169.254.169.254]",
            "http://8.8.8.8",
            "https://10.0.0.5",
            "http://10.0.0.5/path",
            "http://u:p@10.0.0.5",
            "10.0.0.5:80",
            "",
        ] {
            assert_eq!(authority(address), None, "{address}");
        }
    }

    #[test]
    fn a_service_of_tls_takes_addresses_of_tls() {
        let ranges = registry::USUAL.map(|text| text.parse().expect("a range"));
        let source = Source::Registry(ranges.to_vec(), Wanted::Https);
        let authority = |address: &str| source.authority_of(address);
        assert_eq!(authority("https://10.0.0.5").as_deref(), Ok("10.0.0.5:443"));
        let refused = authority("http://10.0.0.5").expect_err("refused");
        assert!(refused.contains("https://"), "{refused}");
    }

    #[test]
    fn names_of_parts_of_the_server_are_reserved_in_any_case() {
        assert!(is_reserved("identity") && is_reserved("Gateway"));
        assert!(!is_reserved("orders"));
    }
}
