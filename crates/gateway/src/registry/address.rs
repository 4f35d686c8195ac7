//! Addresses that instances may register: what they name is called from here, so that whoever registers could
//! otherwise reach what only this machine may.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// Loopback and private ranges (RFC 1918, RFC 4193).
pub(crate) const USUAL: [&str; 6] = [
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
];

/// Where clouds tell machines their credentials, in a private range.
const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Whether an address is in one of the ranges, and one that a server may have at all.
pub(crate) fn is_allowed(address: IpAddr, ranges: &[IpNet]) -> bool {
    // ::ffff:169.254.0.1 is 169.254.0.1.
    let address = address.to_canonical();
    let is_of_nobody = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == METADATA,
    };
    let is_of_nobody = is_of_nobody || address.is_unspecified() || address.is_multicast();
    !is_of_nobody && ranges.iter().any(|range| range.contains(&address))
}

/// Whether all addresses of a range are link-local.
pub(crate) fn is_link_local(range: IpNet) -> bool {
    match range {
        IpNet::V4(range) => range.prefix_len() >= 16 && range.addr().is_link_local(),
        IpNet::V6(range) => range.prefix_len() >= 10 && range.addr().is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Vec<IpNet> {
        texts
            .iter()
            .map(|text| text.parse().expect("a range"))
            .collect()
    }

    #[test]
    fn link_local_is_never_allowed_and_ranges_decide_on_the_rest() {
        let (usual, all) = (ranges(&USUAL), ranges(&["0.0.0.0/0", "::/0"]));
        let allowed =
            |text: &str, ranges: &[IpNet]| is_allowed(text.parse().expect("an address"), ranges);
        for text in [
            "127.0.0.1",
            "::1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.7.7",
            "fd00::1",
        ] {
            assert!(allowed(text, &usual), "{text}");
        }
        for text in ["8.8.8.8", "172.32.0.1", "2001:db8::1"] {
            assert!(!allowed(text, &usual) && allowed(text, &all), "{text}");
        }
        for text in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
        ] {
            assert!(!allowed(text, &usual) && !allowed(text, &all), "{text}");
        }
    }
}
