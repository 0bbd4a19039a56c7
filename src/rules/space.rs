//! How much of the address space a set of addresses is, and what of note lies in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::netset::{Family, IntervalSet, IpSet};

/// The address at which clouds hand a machine's credentials to whoever asks.
pub(super) const METADATA_SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// Addresses that stay on the machine (RFC 3927): where node-local caches and clouds' resolvers are.
pub(super) const LINK_LOCAL: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16));

/// The part of a family that is in a set, from 0.0 to 1.0. Of IPv6 only `2000::/3` is handed out, so
/// the share is that of it, where that is larger.
pub(super) fn share(addresses: &IpSet, family: Family) -> f64 {
    let whole = addresses.share(family);
    match family {
        Family::V4 => whole,
        Family::V6 if addresses.v6.is_empty() => 0.0,
        Family::V6 => {
            let in_use = IntervalSet::range(0x2000 << 112, (0x4000 << 112) - 1);
            whole.max(addresses.v6.intersect(&in_use).count() / in_use.count())
        }
    }
}

/// The part of a network that is in a set, from 0.0 to 1.0.
pub(super) fn share_of(network: IpNet, addresses: &IpSet) -> f64 {
    let (family, whole) = (family(network), IpSet::from(network));
    addresses.intersect(&whole).count(family) / whole.count(family)
}

/// The family of a network.
pub(super) fn family(network: IpNet) -> Family {
    if network.addr().is_ipv4() { Family::V4 } else { Family::V6 }
}

/// The networks set aside for private use (RFC 1918, RFC 4193), which is where pods live.
pub(super) fn private(family: Family) -> Vec<IpNet> {
    let networks: &[&str] = match family {
        Family::V4 => &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
        Family::V6 => &["fc00::/7"],
    };
    networks.iter().filter_map(|network| network.parse().ok()).collect()
}

/// How an IPv6 network stands for IPv4 addresses.
enum Stands {
    /// The last 32 bits of an address are the IPv4 address.
    Last,
    /// Bits 16 to 47 are, and what follows is behind it.
    Behind,
    /// They are somewhere in it, where the network's operator chose.
    Somewhere,
}

/// The IPv6 networks that stand for IPv4 addresses: a packet to one of theirs is translated, or carried,
/// to the IPv4 address that is written in it.
const STANDS_FOR_V4: &[(Ipv6Net, Stands)] = &[
    // IPv4-mapped (RFC 4291) and IPv4-translated (RFC 7915).
    (Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96), Stands::Last),
    (Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96), Stands::Last),
    // NAT64: the well-known prefix (RFC 6052) and the one for local use (RFC 8215).
    (Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96), Stands::Last),
    (Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48), Stands::Somewhere),
    // 6to4 (RFC 3056).
    (Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), Stands::Behind),
];

/// The IPv4 addresses that the IPv6 addresses of a set stand for.
pub(super) fn translated(addresses: &IpSet) -> IpSet {
    if addresses.v6.is_empty() {
        return IpSet::empty();
    }
    let mut found: Vec<(u32, u32)> = Vec::new();
    for (network, stands) in STANDS_FOR_V4 {
        let within = addresses.v6.intersect(&IpSet::from(IpNet::V6(*network)).v6);
        for (first, last) in within.ranges() {
            found.push(match stands {
                Stands::Behind => (bits(first >> 80), bits(last >> 80)),
                // Wherever the operator put them, a range of this size holds all of some prefix.
                Stands::Somewhere if last - first >= u128::from(u32::MAX) => (0, u32::MAX),
                Stands::Somewhere if bits(*first) > bits(*last) => (0, u32::MAX),
                Stands::Last | Stands::Somewhere => (bits(*first), bits(*last)),
            });
        }
    }
    IpSet { v4: IntervalSet::from_ranges(found), ..IpSet::empty() }
}

/// A set together with the IPv4 addresses it stands for.
pub(super) fn with_translated(addresses: &IpSet) -> IpSet {
    addresses.union(&translated(addresses))
}

/// The last 32 bits.
fn bits(address: u128) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "the rest is not the IPv4 address")]
    let last = address as u32;
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(networks: &str) -> IpSet {
        networks.split_whitespace().map(|network| network.parse::<IpNet>().unwrap()).collect()
    }

    #[test]
    fn an_ipv6_network_stands_for_the_ipv4_addresses_written_in_it() {
        for (v6, v4) in [
            ("64:ff9b::/96", "0.0.0.0/0"),
            ("64:ff9b::a00:0/104", "10.0.0.0/8"),
            ("64:ff9b::8000:0/97", "128.0.0.0/1"),
            ("64:ff9b:1::/48", "0.0.0.0/0"),
            ("64:ff9b:1:8000::/96", "0.0.0.0/0"),
            ("64:ff9b:1::a00:0/104", "10.0.0.0/8"),
            ("2002::/16", "0.0.0.0/0"),
            ("2002:a00::/24", "10.0.0.0/8"),
            ("2002:a00:1::/48", "10.0.0.1/32"),
            ("::ffff:0:0/95", "0.0.0.0/0"),
            ("::ffff:a00:0/104", "10.0.0.0/8"),
            ("::ffff:0:0:0/96", "0.0.0.0/0"),
            ("64:ff9b::/97 ::ffff:128.0.0.0/97", "0.0.0.0/0"),
            ("::/0", "0.0.0.0/0"),
            ("::/1", "0.0.0.0/0"),
        ] {
            assert_eq!(translated(&set(v6)), set(v4), "{v6}");
        }
    }

    #[test]
    fn other_ipv6_networks_stand_for_nothing() {
        for v6 in ["2001:db8::/32", "2600::/8", "fc00::/7", "fe80::/10", "8000::/1", "64:ff9b:2::/48"] {
            assert!(translated(&set(v6)).is_empty(), "{v6}");
        }
        assert!(translated(&set("10.0.0.0/8")).is_empty());
    }
}
