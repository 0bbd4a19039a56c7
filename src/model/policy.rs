//! NetworkPolicy (`networking.k8s.io/v1`), decided: defaults filled in, blocks turned to sets.

use std::fmt;

use ipnet::IpNet;
use jiff::Timestamp;

use super::{FieldPath, Lifetime, Selector, Str};
use crate::netset::{IpSet, Protocol};

/// Which way traffic goes, seen from the pod a policy selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Into the pod.
    Ingress,
    /// Out of the pod.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The name of the list of rules in a policy's spec.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// The name of a rule's list of peers.
    pub const fn peers_field(self) -> &'static str {
        match self {
            Self::Ingress => "from",
            Self::Egress => "to",
        }
    }

    /// The API's spelling in `policyTypes`.
    pub const fn policy_type(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.field())
    }
}

/// A choice of directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Directions {
    /// Into the pod.
    pub ingress: bool,
    /// Out of the pod.
    pub egress: bool,
}

impl Directions {
    /// Both directions.
    pub const BOTH: Self = Self { ingress: true, egress: true };

    /// Whether a direction is among them.
    pub const fn contains(self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

/// A NetworkPolicy as it takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Its namespace, which is also the only one it selects pods in.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
    /// `metadata.creationTimestamp`; nothing for one that is not stored yet.
    pub created: Option<Timestamp>,
    /// How long it stays.
    pub lifetime: Lifetime,
    /// Which pods it is about; a missing `spec.podSelector` selects all of them.
    pub pods: Selector,
    /// The directions it isolates: `policyTypes`, or its default where none are written
    /// (Ingress always, Egress when there are egress rules).
    pub isolates: Directions,
    /// What it admits in.
    pub ingress: Vec<PolicyRule>,
    /// What it lets out.
    pub egress: Vec<PolicyRule>,
    /// Whether some part could not be read. Such a policy isolates as far as could be read, and
    /// what it allows is not known.
    pub is_partial: bool,
}

impl NetworkPolicy {
    /// The rules of one direction, whether or not the policy isolates it.
    pub fn rules(&self, direction: Direction) -> &[PolicyRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// The path of a rule.
    pub fn rule_path(direction: Direction, rule: usize) -> FieldPath {
        FieldPath::root().field("spec").field(direction.field()).index(rule)
    }

    /// The path of a peer of a rule.
    pub fn peer_path(direction: Direction, rule: usize, peer: usize) -> FieldPath {
        Self::rule_path(direction, rule).field(direction.peers_field()).index(peer)
    }
}

/// One item of `ingress` or `egress`: any of these peers, on any of these ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// The other end. Nothing: everyone, external addresses included (a missing or empty list).
    pub peers: Option<Vec<PeerSpec>>,
    /// The destination's ports. Nothing: all ports of all protocols (a missing or empty list).
    pub ports: Option<Vec<PortSpec>>,
}

/// One item of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerSpec {
    /// Pods with these labels in namespaces with those.
    Pods {
        /// Nothing: the policy's own namespace only.
        namespaces: Option<Selector>,
        /// A missing podSelector is `{}`.
        pods: Selector,
        /// Whether `podSelector` was written. A selector of namespaces alone reads differently.
        pods_written: bool,
    },
    /// Addresses.
    Block(IpBlock),
    /// A peer this version cannot read: what it admits is not known.
    Unreadable,
}

/// `ipBlock`: a network less its exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpBlock {
    /// The network, host bits masked.
    pub cidr: IpNet,
    /// Carved out of this peer only: another peer may admit them again. Host bits masked.
    pub except: Vec<IpNet>,
    /// What is left.
    pub addresses: IpSet,
}

impl IpBlock {
    /// A block and what it leaves.
    pub fn new(cidr: IpNet, mut except: Vec<IpNet>) -> Self {
        let cidr = cidr.trunc();
        for net in &mut except {
            *net = net.trunc();
        }
        let addresses = IpSet::from(cidr).subtract(&except.iter().copied().collect());
        Self { cidr, except, addresses }
    }
}

/// One item of a rule's `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// TCP where none is written.
    pub protocol: Protocol,
    /// Which of the protocol's ports.
    pub port: Port,
}

/// `port` with `endPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// No port is written: all of the protocol's.
    All,
    /// One port, or all from the first to the last.
    Range(u16, u16),
    /// A port of this name in each destination pod.
    Named(Str),
    /// Not readable: what it admits is not known.
    Unreadable,
}

/// A policy of a kind whose meaning is not modelled here (Cilium, Calico, AdminNetworkPolicy).
/// It may isolate pods or decide a flow, so where one applies an alarm becomes "cannot judge".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignPolicy {
    /// Its kind, with the group where the kind alone is ambiguous.
    pub kind: Str,
    /// Nothing for a cluster-scoped one, which may touch every namespace.
    pub namespace: Option<Str>,
    /// Its name.
    pub name: Str,
}
