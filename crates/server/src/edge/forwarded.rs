//! The address of a client behind proxies.
//!
//! Each proxy appends whom it was asked by. Only what trusted proxies appended is true, so the list is
//! read from its end, up to the first address that is not of a trusted proxy: that is the client.
//! One header is read and no other, for a proxy that knows one hands on the other as the client sent it.

use std::net::{IpAddr, SocketAddr};

use auspex_kernel::Via;
use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The header that the trusted proxies write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ForwardedHeader {
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

/// Which proxies are believed.
#[derive(Clone, Debug)]
pub(crate) struct Proxies {
    trusted: Vec<IpNet>,
    header: ForwardedHeader,
    /// Whether their connections begin with a header of the PROXY protocol.
    announce: bool,
    /// What other processes of this server show; empty: there are none.
    secret: Vec<u8>,
}

impl Proxies {
    /// `trusted` are addresses, or ranges such as `10.0.0.0/8`.
    ///
    /// # Errors
    /// The one that is neither.
    pub(crate) fn new(trusted: &[String], header: ForwardedHeader) -> Result<Self, String> {
        let range = |text: &String| {
            let address = text
                .parse()
                .map(|address: IpAddr| IpNet::from(address.to_canonical()));
            let range = address.or_else(|_| text.parse());
            range.map_err(|_| {
                format!("\"{text}\" is neither an address nor a range such as 10.0.0.0/8")
            })
        };
        let trusted = trusted.iter().map(range).collect::<Result<_, _>>()?;
        Ok(Self {
            trusted,
            header,
            announce: false,
            secret: Vec::new(),
        })
    }

    /// The same, whose connections begin with a header of the PROXY protocol, or not.
    pub(crate) fn announcing(self, announce: bool) -> Self {
        Self { announce, ..self }
    }

    /// The same, which believes the gateway of other processes that show this; empty: there are none.
    pub(crate) fn of_cluster(self, secret: &str) -> Self {
        let secret = secret.as_bytes().to_vec();
        Self { secret, ..self }
    }

    /// Whether a connection of `peer` begins with a header of the PROXY protocol. That is decided by
    /// its address: to look at what it sends would be a guess.
    pub(crate) fn announces(&self, peer: IpAddr) -> bool {
        self.announce && self.trusts(peer)
    }

    /// The proxy that handed on a request of `peer`, if it is one that is believed.
    pub(crate) fn via(&self, peer: IpAddr, headers: &HeaderMap) -> Option<Via> {
        let is_believed = self.trusts(peer) || self.is_of_cluster(headers);
        is_believed.then_some(Via(peer))
    }

    fn is_of_cluster(&self, headers: &HeaderMap) -> bool {
        if self.secret.is_empty() {
            return false;
        }
        let shown = headers.get(auspex_gateway::X_AUSPEX_CLUSTER);
        shown.is_some_and(|shown| bool::from(shown.as_bytes().ct_eq(&self.secret)))
    }

    /// Who sent a request that came from `peer`.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if self.is_of_cluster(headers) {
            // Our gateway has decided it, and writes it there alone.
            let stated = headers.get(X_REAL_IP).and_then(|value| value.to_str().ok());
            return stated.and_then(read_address).unwrap_or(peer);
        }
        let mut client = peer;
        if self.trusted.is_empty() {
            return client;
        }
        let name: HeaderName = match self.header {
            ForwardedHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            ForwardedHeader::Forwarded => header::FORWARDED,
        };
        let values = headers.get_all(name).iter().rev();
        for hop in values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b',')) {
            if !self.trusts(client) {
                break;
            }
            // What stands before something that cannot be read was written by nobody known.
            let Some(next) = self.read(hop) else { break };
            client = next;
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|range| range.contains(&address))
    }

    fn read(&self, hop: &[u8]) -> Option<IpAddr> {
        let hop = std::str::from_utf8(hop).ok()?.trim();
        match self.header {
            ForwardedHeader::XForwardedFor => read_address(hop),
            // Cut at a comma within quotes, which a client may have written: what is on this side of it
            // has a quote too many.
            ForwardedHeader::Forwarded if hop.matches('"').count() % 2 == 1 => None,
            ForwardedHeader::Forwarded => {
                let mut pairs = hop.split(';').filter_map(|pair| pair.split_once('='));
                let (_, node) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
                read_address(node.trim().trim_matches('"'))
            }
        }
    }
}

/// An address, perhaps with a port; one of IPv6 perhaps in brackets.
fn read_address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let address: Option<IpAddr> = text.parse().ok();
    address
        .or_else(bracketed)
        .or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(header: ForwardedHeader, values: &[&str]) -> String {
        let trusted = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"].map(str::to_owned);
        let proxies = Proxies::new(&trusted, header).unwrap();
        let name = match header {
            ForwardedHeader::XForwardedFor => "x-forwarded-for",
            ForwardedHeader::Forwarded => "forwarded",
        };
        let mut headers = HeaderMap::new();
        // Of the other header nothing is believed.
        headers.append("forwarded", "for=6.6.6.6".parse().unwrap());
        headers.append("x-forwarded-for", "6.6.6.6".parse().unwrap());
        headers.remove(name);
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        let peer = "::ffff:127.0.0.1".parse().unwrap();
        proxies.client(peer, &headers).to_canonical().to_string()
    }

    #[test]
    fn the_client_is_the_last_who_is_no_trusted_proxy() {
        let by = |values: &[&str]| client(ForwardedHeader::XForwardedFor, values);
        assert_eq!(by(&["203.0.113.7"]), "203.0.113.7");
        assert_eq!(by(&["1.1.1.1, 203.0.113.7"]), "203.0.113.7");
        assert_eq!(by(&["1.1.1.1", "203.0.113.7 , 10.1.2.3"]), "203.0.113.7");
        assert_eq!(by(&["1.1.1.1, 203.0.113.7:4711"]), "203.0.113.7");
        assert_eq!(by(&["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(by(&["2001:db8::1,fd00::9"]), "2001:db8::1");
        // All are proxies: the first of them asked.
        assert_eq!(by(&["10.0.0.1, 10.0.0.2"]), "10.0.0.1");
    }

    #[test]
    fn what_cannot_be_read_ends_the_list() {
        let by = |values: &[&str]| client(ForwardedHeader::XForwardedFor, values);
        assert_eq!(by(&[]), "127.0.0.1");
        for garbage in [
            "",
            "unknown",
            "1.1.1.1, ",
            "1.1.1.1, 10.0.0.1.5",
            "a=b",
            "\"1.1.1.1\"",
        ] {
            assert_eq!(by(&[garbage]), "127.0.0.1", "{garbage}");
        }
        assert_eq!(by(&["1.1.1.1, unknown, 10.9.9.9"]), "10.9.9.9");
    }

    #[test]
    fn forwarded_is_read_by_its_for() {
        let by = |values: &[&str]| client(ForwardedHeader::Forwarded, values);
        assert_eq!(by(&["for=203.0.113.7;proto=https"]), "203.0.113.7");
        assert_eq!(by(&["proto=https;For=\"203.0.113.7:80\""]), "203.0.113.7");
        assert_eq!(
            by(&["for=1.1.1.1, for=\"[2001:db8::1]:1\";by=10.0.0.1"]),
            "2001:db8::1"
        );
        for garbage in ["for=_hidden", "for=unknown", "by=1.1.1.1", "for"] {
            assert_eq!(by(&[garbage]), "127.0.0.1", "{garbage}");
        }
        // Commas that a client has put into what the proxy quotes, such as its Host.
        for quoted in [
            "a,for=6.6.6.6",
            "a,for=6.6.6.6;b=c,d=e",
            ",for=6.6.6.6;c=",
            ",",
        ] {
            let value = format!("for=203.0.113.7;host=\"{quoted}\"");
            assert_eq!(by(&[&value]), "127.0.0.1", "{value}");
        }
        // A quote that the client leaves open does not hide what the proxy appends.
        assert_eq!(by(&["for=\"1.1.1.1, for=203.0.113.7"]), "203.0.113.7");
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "1.1.1.1".parse().unwrap());
        let peer = "198.51.100.1".parse().unwrap();
        for trusted in [vec![], vec!["10.0.0.0/8".to_owned()]] {
            let proxies = Proxies::new(&trusted, ForwardedHeader::XForwardedFor).unwrap();
            assert_eq!(proxies.client(peer, &headers), peer);
        }
        for wrong in ["nginx", "10.0.0.0/33", "", "10.0.0.1:80"] {
            let wrong = [wrong.to_owned()];
            let error = Proxies::new(&wrong, ForwardedHeader::XForwardedFor).unwrap_err();
            assert!(error.contains("neither an address nor a range"), "{error}");
        }
    }
}
