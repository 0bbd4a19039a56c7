//! How much of the address space a set of addresses is, and what of note lies in it.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

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
