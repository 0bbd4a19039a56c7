//! One end's part in a connection: what the policies on one pod let through in one direction.

use super::{Cni, Peer, Truth};
use crate::cluster::Cluster;
use crate::model::{Direction, IpBlock, NetworkPolicy, PeerSpec, PolicyRule, Port, PortSpec, Workload};
use crate::netset::{ConnectionSet, Family, IpSet, PortSet};

/// What the policies on one pod let through in one direction, to or from one peer.
#[derive(Debug)]
pub struct Side<'a> {
    /// Allowed for certain.
    pub certain: ConnectionSet,
    /// Allowed as far as is known.
    pub possible: ConnectionSet,
    /// The policies that isolate the pod in this direction; with none, everything passes.
    pub isolated_by: Vec<&'a NetworkPolicy>,
    /// The rules that admit something of what `possible` holds.
    pub allowed_by: Vec<Allow<'a>>,
}

/// A rule that admits something.
#[derive(Debug)]
pub struct Allow<'a> {
    /// The policy it is in.
    pub policy: &'a NetworkPolicy,
    /// Its place in the policy's list for this direction.
    pub rule: usize,
    /// Whether it is about the peer for certain.
    pub matches: Truth,
    /// What it admits, if it is.
    pub connections: ConnectionSet,
}

impl<'a> Side<'a> {
    pub(super) fn evaluate(
        cluster: &'a Cluster,
        cni: &Cni,
        subject: &Workload,
        direction: Direction,
        peer: Peer<'_>,
    ) -> Self {
        let mut side = Self {
            certain: ConnectionSet::full(),
            possible: ConnectionSet::full(),
            isolated_by: Vec::new(),
            allowed_by: Vec::new(),
        };
        // Policies on a pod of the node's network are undefined; the common behaviour, and the one
        // the API's documentation describes first, is that they do not apply.
        let Some(state) = cluster.namespace(&subject.namespace) else { return side };
        if subject.host_network {
            return side;
        }
        let mut is_maybe_isolated = false;
        let mut allowed_by = Vec::new();
        for policy in state.policies.iter().filter(|policy| policy.pods.matches(&subject.labels)) {
            let rules = policy.rules(direction);
            if policy.isolates.contains(direction) {
                side.isolated_by.push(policy);
            } else if !rules.is_empty() && cni.enforces_unlisted_direction() != Truth::No {
                is_maybe_isolated = true;
            } else {
                continue;
            }
            for (index, rule) in rules.iter().enumerate() {
                let matches = peer_matches(cluster, cni, policy, rule, peer);
                if matches == Truth::No {
                    continue;
                }
                let destination = match (direction, peer) {
                    (Direction::Ingress, _) => Some(subject),
                    (Direction::Egress, Peer::Workload(peer)) => Some(peer),
                    (Direction::Egress, Peer::External(_)) => None,
                };
                let (certain, possible) = rule_connections(cni, rule, destination);
                if !possible.is_empty() {
                    allowed_by.push((Allow { policy, rule: index, matches, connections: possible }, certain));
                }
            }
        }
        if side.isolated_by.is_empty() && !is_maybe_isolated {
            return side;
        }
        let (mut sure, mut thinkable) = (ConnectionSet::empty(), ConnectionSet::empty());
        for (allow, certain) in &allowed_by {
            thinkable = thinkable.union(&allow.connections);
            if allow.matches == Truth::Yes && allow.policy.isolates.contains(direction) {
                sure = sure.union(certain);
            }
        }
        // Traffic from a node to a pod on it is always let in, and which node that is is not known.
        let from_some_node =
            direction == Direction::Ingress && matches!(peer, Peer::Workload(source) if source.host_network);
        if from_some_node || side.isolated_by.is_empty() {
            thinkable = ConnectionSet::full();
        }
        side.certain = sure;
        side.possible = thinkable;
        side.allowed_by = allowed_by.into_iter().map(|(allow, _)| allow).collect();
        side
    }

    /// Whether some policy isolates the pod in this direction.
    pub fn is_isolated(&self) -> bool {
        !self.isolated_by.is_empty()
    }
}

/// Whether a rule is about a peer: any of its peers is.
fn peer_matches(cluster: &Cluster, cni: &Cni, policy: &NetworkPolicy, rule: &PolicyRule, peer: Peer<'_>) -> Truth {
    let Some(specs) = &rule.peers else { return Truth::Yes };
    specs.iter().map(|spec| spec_matches(cluster, cni, policy, spec, peer)).max().unwrap_or(Truth::Yes)
}

fn spec_matches(cluster: &Cluster, cni: &Cni, policy: &NetworkPolicy, spec: &PeerSpec, peer: Peer<'_>) -> Truth {
    match (spec, peer) {
        (PeerSpec::Unreadable, _) => Truth::Maybe,
        (PeerSpec::Pods { .. }, Peer::External(_)) => Truth::No,
        // A pod on the node's network has the node's address: selectors do not reach it.
        (PeerSpec::Pods { namespaces, pods, pods_written: _ }, Peer::Workload(workload)) => {
            let in_namespace = || match namespaces {
                None => workload.namespace == policy.namespace,
                Some(selector) => match cluster.namespace(&workload.namespace) {
                    Some(state) => selector.matches(&state.labels),
                    None => selector.matches(&cluster.namespace_labels(&workload.namespace)),
                },
            };
            Truth::from(!workload.host_network && pods.matches(&workload.labels) && in_namespace())
        }
        (PeerSpec::Block(block), Peer::External(range)) => {
            if block.addresses.is_superset(range) {
                Truth::Yes
            } else {
                // Some of the range only: for those it holds, for the others not.
                if block.addresses.overlaps(range) { Truth::Maybe } else { Truth::No }
            }
        }
        (PeerSpec::Block(block), Peer::Workload(workload)) => {
            let reaches = if workload.host_network { cni.blocks_match_nodes() } else { cni.blocks_match_pods() };
            reaches.and(block_covers(cluster, cni, block, workload))
        }
    }
}

/// Whether a pod's address lies in a block. A template's pods have none yet: theirs will come from
/// the pod ranges, or from anywhere where those are not configured, save the virtual addresses of
/// DNS, which are what a block of one address is usually mistaken for.
fn block_covers(cluster: &Cluster, cni: &Cni, block: &IpBlock, workload: &Workload) -> Truth {
    if !workload.ips.is_empty() {
        return workload.ips.iter().any(|ip| block.addresses.contains(*ip)).into();
    }
    let pods = cni.pod_addresses();
    if !pods.is_empty() && !workload.host_network {
        return match (block.addresses.is_superset(&pods), block.addresses.overlaps(&pods)) {
            (true, _) => Truth::Yes,
            (false, true) => Truth::Maybe,
            (false, false) => Truth::No,
        };
    }
    if block.addresses.is_superset(&IpSet::family(Family::V4)) {
        return Truth::Yes;
    }
    let virtual_ips = cluster.dns_services().flat_map(|service| service.cluster_ips.iter().copied());
    let left = virtual_ips.fold(block.addresses.clone(), |left, ip| left.subtract(&IpSet::from(ip)));
    if left.is_empty() { Truth::No } else { Truth::Maybe }
}

/// What a rule's ports come to at a destination: for certain, and as far as can be read.
fn rule_connections(cni: &Cni, rule: &PolicyRule, destination: Option<&Workload>) -> (ConnectionSet, ConnectionSet) {
    let Some(specs) = &rule.ports else { return (ConnectionSet::full(), ConnectionSet::full()) };
    let (mut certain, mut possible) = (ConnectionSet::empty(), ConnectionSet::empty());
    for PortSpec { protocol, port } in specs {
        let (ports, is_certain) = match port {
            Port::All => (PortSet::full(), true),
            Port::Range(first, last) => {
                let last = if cni.supports_end_port() { last } else { first };
                (PortSet::range(*first, *last), true)
            }
            Port::Named(name) => match destination {
                _ if !cni.supports_named_ports() => (PortSet::empty(), true),
                // An address outside the cluster has no pod to look the name up in.
                None => (PortSet::empty(), true),
                Some(workload) if workload.is_partial => (PortSet::full(), false),
                Some(workload) => {
                    let named = workload
                        .ports
                        .iter()
                        .filter(|port| port.protocol == *protocol && port.name.as_ref() == Some(name))
                        .map(|port| (port.number, port.number));
                    (PortSet::from_ranges(named), true)
                }
            },
            Port::Unreadable => (PortSet::full(), false),
        };
        let connections = ConnectionSet::of(*protocol, ports);
        if is_certain {
            certain = certain.union(&connections);
        }
        possible = possible.union(&connections);
    }
    (certain, possible)
}
