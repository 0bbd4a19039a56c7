//! Where a peer's address is: known, or somewhere in a range.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::IpNet;

use super::{Cni, Peer};
use crate::cluster::Cluster;
use crate::model::Workload;
use crate::netset::{Family, IpSet};

/// The address families a connection can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    const ANY: Self = Self { v4: true, v6: true };

    pub(super) fn only(family: Family) -> Self {
        Self { v4: family == Family::V4, v6: family == Family::V6 }
    }

    /// Those a pod has an address of; any while it has none.
    fn of(workload: &Workload) -> Self {
        if workload.ips.is_empty() {
            return Self::ANY;
        }
        Self { v4: workload.ips.iter().any(IpAddr::is_ipv4), v6: workload.ips.iter().any(IpAddr::is_ipv6) }
    }

    /// Those both ends can use.
    pub(super) fn between(subject: &Workload, peer: Peer<'_>) -> Self {
        let mine = Self::of(subject);
        match peer {
            Peer::Workload(peer) => {
                let theirs = Self::of(peer);
                Self { v4: mine.v4 && theirs.v4, v6: mine.v6 && theirs.v6 }
            }
            Peer::External(_) => mine,
        }
    }

    /// Whether a connection can use either.
    pub(super) fn are_both(self) -> bool {
        self == Self::ANY
    }

    fn contain(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.v4,
            IpAddr::V6(_) => self.v6,
        }
    }

    fn of_set(self, set: &IpSet) -> IpSet {
        let mut kept = IpSet::empty();
        if self.v4 {
            kept.v4.clone_from(&set.v4);
        }
        if self.v6 {
            kept.v6.clone_from(&set.v6);
        }
        kept
    }
}

/// Where a peer's address is.
pub(super) enum Address<'p> {
    /// It is any of these, as the connection chooses.
    AnyOf(Vec<IpAddr>),
    /// It is any of these, and which of them the connection can use is not known.
    OneOf(Vec<IpAddr>),
    /// It is somewhere in here: what is certain holds for all of it.
    Within(Cow<'p, IpSet>),
}

impl<'p> Address<'p> {
    /// The address a subject meets a peer at.
    pub(super) fn of(peer: Peer<'p>, subject: &Workload, families: Families, cluster: &Cluster, cni: &Cni) -> Self {
        let peer = match peer {
            Peer::External(range) => return Self::Within(Cow::Borrowed(range)),
            Peer::Workload(peer) => peer,
        };
        if !peer.ips.is_empty() {
            let usable = peer.ips.iter().copied().filter(|ip| families.contain(*ip)).collect();
            return if subject.ips.is_empty() { Self::OneOf(usable) } else { Self::AnyOf(usable) };
        }
        // Its address will come from the pod ranges; from anywhere where those are not configured,
        // and for a pod of the node's network, whose addresses they do not hold.
        let ranges = if peer.host_network { IpSet::empty() } else { families.of_set(&cni.pod_addresses()) };
        let within = if ranges.is_empty() { families.of_set(&IpSet::full()) } else { ranges };
        // No pod has a Service's virtual address, nor one that is never routed. Blocks of them are
        // written for something else, and must not count as blocks of pods.
        let virtual_ips = cluster.dns_services().flat_map(|service| service.cluster_ips.iter().copied());
        let virtual_ips: IpSet = virtual_ips.map(IpNet::from).collect();
        let within = within.subtract(&UNROUTED).subtract(&virtual_ips);
        Self::Within(Cow::Owned(within))
    }

    /// How much of it lies in a set.
    pub(super) fn covered_by(&self, set: &IpSet) -> Coverage {
        match self {
            Self::AnyOf(ips) => {
                if ips.iter().any(|ip| set.contains(*ip)) {
                    Coverage::All
                } else {
                    Coverage::None
                }
            }
            Self::OneOf(ips) => match ips.iter().filter(|ip| set.contains(**ip)).count() {
                0 => Coverage::None,
                covered if covered == ips.len() => Coverage::All,
                _ => Coverage::Open,
            },
            Self::Within(range) if set.is_superset(range) => Coverage::All,
            Self::Within(range) => {
                let part = set.intersect(range);
                if part.is_empty() { Coverage::None } else { Coverage::Part(part) }
            }
        }
    }
}

/// Loopback, link-local and multicast (RFC 6890, RFC 4291).
static UNROUTED: LazyLock<IpSet> = LazyLock::new(|| {
    let networks = ["127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "::1/128", "fe80::/10", "ff00::/8"];
    networks.into_iter().filter_map(|network| network.parse::<IpNet>().ok()).collect()
});

/// How much of a peer something is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    /// Nothing of it.
    None,
    /// All of it or nothing: which, is not known.
    Open,
    /// It is for certain, if its address is one of these.
    Part(IpSet),
    /// All of it.
    All,
}
