//! One end's part in a connection: what the policies on one pod let through in one direction.

use std::cell::LazyCell;

use super::address::{Address, Coverage, Families};
use super::{Cni, Peer, Reach, Truth};
use crate::cluster::Cluster;
use crate::model::{Direction, Labels, NetworkPolicy, PeerSpec, PolicyRule, Port, PortSpec, Selector, Workload};
use crate::netset::{ConnectionSet, IpSet, PortSet, Protocol};

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
    pub(super) fn evaluate(question: &Question<'a, '_>) -> Self {
        let Question { reach, subject, direction, peer, families: _ } = *question;
        let Reach { cluster, cni, ports, stop: _ } = reach;
        let mut side = Self {
            certain: ConnectionSet::full(),
            possible: ConnectionSet::full(),
            isolated_by: Vec::new(),
            allowed_by: Vec::new(),
        };
        // A finished pod has no network any more: its address may be another's by now.
        if subject.is_finished || matches!(peer, Peer::Workload(peer) if peer.is_finished) {
            (side.certain, side.possible) = (ConnectionSet::empty(), ConnectionSet::empty());
            return side;
        }
        // Policies on a pod of the node's network are undefined; the common behaviour, and the one
        // the API's documentation describes first, is that they do not apply.
        let Some(state) = cluster.namespace(&subject.namespace) else { return side };
        if subject.host_network {
            return side;
        }
        // Only blocks ask where the peer is.
        let address = LazyCell::new(|| Address::of(peer, subject, question.families, cluster, cni));
        let destination = match (direction, peer) {
            (Direction::Ingress, _) => Some(subject),
            (Direction::Egress, Peer::Workload(peer)) => Some(peer),
            (Direction::Egress, Peer::External(_)) => None,
        };
        // Policies that isolate the pod in some readings only: those whose selector cannot be read,
        // each for itself, and those for whose implementation it is not known whether it heeds
        // rules of a direction that is not listed, all of them or none.
        let (mut unread, mut unlisted, mut is_partial) = (false, false, false);
        let mut found = Vec::new();
        for policy in state.policies.within(&state.policies.maybe_selecting(&subject.labels)) {
            reach.check_stop();
            let selected = selects(&policy.pods, &subject.labels);
            let rules = policy.rules(direction);
            let listed = policy.isolates.contains(direction);
            let isolates = match (listed, rules.is_empty()) {
                (true, _) => Truth::Yes,
                (false, true) => Truth::No,
                (false, false) => cni.enforces_unlisted_direction(),
            };
            match selected.and(isolates) {
                Truth::No => continue,
                Truth::Yes => side.isolated_by.push(policy),
                Truth::Maybe if selected == Truth::Yes => unlisted = true,
                Truth::Maybe => unread = true,
            }
            is_partial |= policy.is_partial;
            for (index, rule) in rules.iter().enumerate() {
                reach.check_stop();
                if ports.is_some_and(|ports| !may_admit(rule, ports)) {
                    continue;
                }
                let coverage = question.coverage(policy, rule, || &address);
                if coverage == Coverage::None {
                    continue;
                }
                let (certain, possible) = rule_connections(cni, rule, destination);
                if possible.is_empty() {
                    continue;
                }
                let matches = if coverage == Coverage::All { Truth::Yes } else { Truth::Maybe };
                let allow = Allow { policy, rule: index, matches, connections: possible };
                let read = if policy.is_partial { Truth::Maybe } else { selected };
                found.push(Found { allow, certain, coverage, applies: read.and(isolates), selected: read });
            }
        }
        let is_isolated = !side.isolated_by.is_empty();
        if !is_isolated && !unread && !unlisted {
            return side;
        }
        // With no policy that isolates for certain, the pod is open, or it is isolated by those of
        // the unlisted direction: what these admit passes either way.
        let counts = |found: &&Found<'_>| match (is_isolated, unread) {
            (true, _) => found.applies == Truth::Yes,
            (false, true) => false,
            (false, false) => found.selected == Truth::Yes,
        };
        side.certain = certain_at(|| &address, found.iter().filter(counts));
        // Traffic from a node to a pod on it is always let in, and which node that is is not known.
        let from_some_node =
            direction == Direction::Ingress && matches!(peer, Peer::Workload(source) if source.host_network);
        if !is_isolated || is_partial || from_some_node {
            side.possible = ConnectionSet::full();
        } else {
            side.possible = ConnectionSet::union_of(found.iter().map(|found| &found.allow.connections));
        }
        side.allowed_by = found.into_iter().map(|found| found.allow).collect();
        side
    }

    /// Whether some policy isolates the pod in this direction.
    pub fn is_isolated(&self) -> bool {
        !self.isolated_by.is_empty()
    }
}

/// What one side is asked.
#[derive(Clone, Copy)]
pub(super) struct Question<'a, 'q> {
    pub(super) reach: Reach<'a>,
    pub(super) subject: &'q Workload,
    pub(super) direction: Direction,
    pub(super) peer: Peer<'q>,
    pub(super) families: Families,
}

/// A rule that may admit something, and what is known of that.
struct Found<'a> {
    allow: Allow<'a>,
    /// What of its connections could be read for certain.
    certain: ConnectionSet,
    coverage: Coverage,
    /// Whether its policy isolates the subject, and admits what it seems to.
    applies: Truth,
    /// Whether its policy selects the subject, and admits what it seems to.
    selected: Truth,
}

/// What rules admit for certain wherever the peer's address is.
fn certain_at<'f, 'p>(
    address: impl FnOnce() -> &'p Address<'p>,
    found: impl Iterator<Item = &'f Found<'f>>,
) -> ConnectionSet {
    let (mut everywhere, mut partly) = (Vec::new(), Vec::new());
    for found in found {
        match &found.coverage {
            Coverage::All => everywhere.push(&found.certain),
            Coverage::Part(addresses) => partly.push((addresses, &found.certain)),
            Coverage::None | Coverage::Open => {}
        }
    }
    let certain = ConnectionSet::union_of(everywhere);
    if partly.len() < 2 {
        return certain;
    }
    match address() {
        Address::Within(range) => certain.union(&covering(&partly, range)),
        Address::AnyOf(_) | Address::OneOf(_) => certain,
    }
}

/// How many ports are looked up in how many rules at most, to find what is certain. Policies that
/// people write take a handful; one of the largest size the API server stores would take billions.
const MOST_COMPARISONS: usize = 100_000;

/// The connections whose addresses together cover a range: `0.0.0.0/1` in one rule and
/// `128.0.0.0/1` in another admit everyone to the ports both name.
fn covering(parts: &[(&IpSet, &ConnectionSet)], range: &IpSet) -> ConnectionSet {
    let mut covered = ConnectionSet::empty();
    if !IpSet::union_of(parts.iter().map(|(addresses, _)| *addresses)).is_superset(range) {
        return covered;
    }
    for protocol in Protocol::ALL {
        let ranges = parts.iter().flat_map(|(_, connections)| connections.ports(protocol).ranges());
        // Between two neighbouring starts all ports are in the same parts.
        let mut starts: Vec<u16> =
            ranges.flat_map(|(first, last)| [Some(*first), last.checked_add(1)]).flatten().collect();
        starts.sort_unstable();
        starts.dedup();
        // What takes too long to find out is not certain.
        if starts.len().saturating_mul(parts.len()) > MOST_COMPARISONS {
            continue;
        }
        let ends = starts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
        let open = starts.iter().copied().zip(ends).filter(|(first, _)| {
            let of_port = parts.iter().filter(|(_, connections)| connections.contains(protocol, *first));
            IpSet::union_of(of_port.map(|(addresses, _)| *addresses)).is_superset(range)
        });
        covered = covered.union(&ConnectionSet::of(protocol, PortSet::from_ranges(open)));
    }
    covered
}

/// Whether a selector matches; not known where that hangs on an operator this version cannot read.
fn selects(selector: &Selector, labels: &Labels) -> Truth {
    if selector.matches(labels) {
        Truth::Yes
    } else if selector.may_match(labels) {
        Truth::Maybe
    } else {
        Truth::No
    }
}

impl Question<'_, '_> {
    /// How much of the peer a rule is about: any of the rule's peers, its blocks taken together.
    fn coverage<'p>(
        &self,
        policy: &NetworkPolicy,
        rule: &PolicyRule,
        address: impl FnOnce() -> &'p Address<'p>,
    ) -> Coverage {
        let Some(specs) = rule.peers.as_deref().filter(|specs| !specs.is_empty()) else { return Coverage::All };
        let (mut truth, mut blocks) = (Truth::No, Vec::new());
        for spec in specs {
            match spec {
                PeerSpec::Unreadable => truth = truth.or(Truth::Maybe),
                PeerSpec::Pods { namespaces, pods, pods_written: _ } => {
                    if let Peer::Workload(workload) = self.peer {
                        truth = truth.or(is_among(self.reach.cluster, policy, namespaces.as_ref(), pods, workload));
                    }
                }
                PeerSpec::Block(block) => blocks.push(&block.addresses),
            }
        }
        if truth == Truth::Yes {
            return Coverage::All;
        }
        let by_address = match self.blocks_match() {
            Truth::No => Coverage::None,
            _ if blocks.is_empty() => Coverage::None,
            matched => match address().covered_by(&IpSet::union_of(blocks)) {
                Coverage::None => Coverage::None,
                found if matched == Truth::Yes => found,
                Coverage::Open | Coverage::Part(_) | Coverage::All => Coverage::Open,
            },
        };
        if by_address == Coverage::None && truth == Truth::Maybe { Coverage::Open } else { by_address }
    }

    /// Whether blocks are about peers of this sort at all.
    fn blocks_match(&self) -> Truth {
        match self.peer {
            Peer::External(_) => Truth::Yes,
            Peer::Workload(workload) if workload.host_network => self.reach.cni.blocks_match_nodes(),
            Peer::Workload(_) => self.reach.cni.blocks_match_pods(),
        }
    }
}

/// Whether a workload is a pod with these labels in a namespace with those. A pod on its node's
/// network has the node's address, and selectors do not reach it.
fn is_among(
    cluster: &Cluster,
    policy: &NetworkPolicy,
    namespaces: Option<&Selector>,
    pods: &Selector,
    workload: &Workload,
) -> Truth {
    if workload.host_network {
        return Truth::No;
    }
    let by_labels = selects(pods, &workload.labels);
    if by_labels == Truth::No {
        return Truth::No;
    }
    let in_namespace = match (namespaces, cluster.namespace(&workload.namespace)) {
        (None, _) => Truth::from(workload.namespace == policy.namespace),
        (Some(selector), Some(state)) => selects(selector, &state.labels),
        (Some(selector), None) => selects(selector, &cluster.namespace_labels(&workload.namespace)),
    };
    by_labels.and(in_namespace)
}

/// Whether a policy lets the pods it selects out to a pod on a port in the plainest way: by a rule
/// that names the port by its number and the pod by its labels, or names nobody.
pub(super) fn lets_out_plainly(
    cluster: &Cluster,
    policy: &NetworkPolicy,
    peer: &Workload,
    protocol: Protocol,
    port: u16,
) -> bool {
    let names_port = |spec: &PortSpec| {
        spec.protocol == protocol && matches!(spec.port, Port::Range(first, last) if first == port && port == last)
    };
    let names_peer = |spec: &PeerSpec| match spec {
        PeerSpec::Pods { namespaces, pods, pods_written: _ } => {
            is_among(cluster, policy, namespaces.as_ref(), pods, peer) == Truth::Yes
        }
        PeerSpec::Block(_) | PeerSpec::Unreadable => false,
    };
    policy.isolates.egress
        && !policy.is_partial
        && !peer.is_finished
        && policy.egress.iter().any(|rule| {
            rule.ports.as_ref().is_none_or(|ports| ports.is_empty() || ports.iter().any(names_port))
                && rule.peers.as_ref().is_none_or(|peers| peers.is_empty() || peers.iter().any(names_peer))
        })
}

/// Whether a rule may admit one of some ports, whoever it is about.
fn may_admit(rule: &PolicyRule, ports: &[(Protocol, u16)]) -> bool {
    rule.ports.as_deref().filter(|specs| !specs.is_empty()).is_none_or(|specs| {
        specs.iter().any(|PortSpec { protocol, port }| {
            ports.iter().filter(|(asked, _)| asked == protocol).any(|(_, asked)| match port {
                Port::Range(first, last) => first <= asked && asked <= last,
                Port::All | Port::Named(_) | Port::Unreadable => true,
            })
        })
    })
}

/// What a rule's ports come to at a destination: for certain, and as far as can be read.
fn rule_connections(cni: &Cni, rule: &PolicyRule, destination: Option<&Workload>) -> (ConnectionSet, ConnectionSet) {
    let Some(specs) = rule.ports.as_deref().filter(|specs| !specs.is_empty()) else {
        return (ConnectionSet::full(), ConnectionSet::full());
    };
    let (mut certain, mut possible) = (Vec::new(), Vec::new());
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
                Some(workload) => {
                    let named = workload
                        .ports
                        .iter()
                        .filter(|port| port.protocol == *protocol && port.name.as_ref() == Some(name))
                        .map(|port| (port.number, port.number));
                    let named = PortSet::from_ranges(named);
                    if workload.is_partial {
                        // Of its ports some are known; a port of that name may be among the others.
                        certain.push(ConnectionSet::of(*protocol, named));
                        (PortSet::full(), false)
                    } else {
                        (named, true)
                    }
                }
            },
            Port::Unreadable => (PortSet::full(), false),
        };
        let connections = ConnectionSet::of(*protocol, ports);
        if is_certain {
            certain.push(connections.clone());
        }
        possible.push(connections);
    }
    (ConnectionSet::union_of(&certain), ConnectionSet::union_of(&possible))
}
