//! Rules that were meant for DNS and miss it: what a person takes an hour to see.

use super::{admits_dns_port, ports_in_words};
use crate::model::{
    Direction, FieldPath, METADATA_NAME, NetworkPolicy, PeerSpec, PolicyRule, Port, PortSpec, Selector, Str,
};
use crate::netset::{ConnectionSet, PortSet, Protocol};
use crate::reach::DnsTarget;
use crate::rules::View;

/// A rule that was meant for DNS, and why it does not get there.
pub(super) struct Miss {
    pub(super) namespace: Str,
    pub(super) policy: Str,
    pub(super) path: FieldPath,
    pub(super) text: String,
}

/// Why a peer is not the DNS it was meant for; nothing for a peer that may be something else that
/// answers DNS.
pub(super) fn peers<'a>(
    view: &'a View<'_>,
    policy: &'a NetworkPolicy,
    rule: &'a PolicyRule,
) -> impl Iterator<Item = Option<(&'static str, String)>> {
    let peers = rule.peers.iter().flatten();
    let everyone = rule.peers.is_none().then_some(None);
    peers.map(|peer| peer_miss(view, policy, peer)).chain(everyone)
}

/// The near misses among policies that isolate workloads which cannot reach DNS.
pub(super) fn of(view: &View<'_>, isolating: &[&NetworkPolicy]) -> Vec<Miss> {
    let mut misses = Vec::new();
    for policy in isolating {
        for (index, rule) in policy.egress.iter().enumerate() {
            let rule_path = NetworkPolicy::rule_path(Direction::Egress, index);
            let mut push = |path: FieldPath, text: String| {
                let text = format!("`{}`: `{path}` {text}", policy.name);
                misses.push(Miss { namespace: policy.namespace.clone(), policy: policy.name.clone(), path, text });
            };
            if mentions_dns(rule) {
                if let Some((spec, text)) = port_miss(view, policy, rule) {
                    push(spec.map_or_else(|| rule_path.field("ports"), |i| rule_path.field("ports").index(i)), text);
                }
                for (i, peer) in rule.peers.iter().flatten().enumerate() {
                    if let Some((field, text)) = peer_miss(view, policy, peer) {
                        push(NetworkPolicy::peer_path(Direction::Egress, index, i).field(field), text);
                    }
                }
            }
        }
    }
    misses
}

/// Whether a rule is about DNS by its ports, over whatever protocol.
pub(super) fn mentions_dns(rule: &PolicyRule) -> bool {
    rule.ports.iter().flatten().any(|PortSpec { port, .. }| match port {
        Port::Range(first, last) => first == last && [53, 5353].contains(first),
        Port::Named(name) => name.contains("dns"),
        Port::All | Port::Unreadable => false,
    })
}

/// Whether a rule is about DNS by the labels it looks for.
pub(super) fn names_dns(rule: &PolicyRule) -> bool {
    rule.peers.iter().flatten().any(|peer| match peer {
        PeerSpec::Pods { namespaces, pods, .. } => {
            [Some(pods), namespaces.as_ref()].into_iter().flatten().any(|it| it.to_string().contains("dns"))
        }
        PeerSpec::Block(_) | PeerSpec::Unreadable => false,
    })
}

/// Why the ports of a rule whose peers are DNS do not do.
fn port_miss(view: &View<'_>, policy: &NetworkPolicy, rule: &PolicyRule) -> Option<(Option<usize>, String)> {
    if !admits_dns_port(rule) {
        let spec = rule.ports.iter().flatten().position(|spec| spec.protocol == Protocol::Tcp);
        return Some((
            spec,
            "admits DNS over TCP only: a port without `protocol` is TCP, and lookups start over UDP".to_owned(),
        ));
    }
    let target = view.dns().targets.iter().find(|target| {
        let peers = rule.peers.iter().flatten();
        peers.into_iter().any(|peer| is_target(view, policy, peer, target)) || rule.peers.is_none()
    })?;
    let port = target.udp?;
    let admitted = rule.ports.iter().flatten().fold(ConnectionSet::empty(), |all, PortSpec { protocol, port }| {
        let ports = match port {
            Port::All => PortSet::full(),
            Port::Range(first, last) => PortSet::range(*first, *last),
            Port::Named(name) => {
                let named = target
                    .workload
                    .ports
                    .iter()
                    .filter(|it| it.name.as_ref() == Some(name) && it.protocol == *protocol);
                PortSet::from_ranges(named.map(|it| (it.number, it.number)))
            }
            Port::Unreadable => PortSet::empty(),
        };
        all.union(&ConnectionSet::of(*protocol, ports))
    });
    (!admitted.contains(Protocol::Udp, port)).then(|| {
        let what = ports_in_words(rule);
        (None, format!("admits {what}, but the DNS pods listen on UDP {port}: policies are about the pods' own port, not the Service's"))
    })
}

/// Whether a peer is a DNS pod.
fn is_target(view: &View<'_>, policy: &NetworkPolicy, peer: &PeerSpec, target: &DnsTarget<'_>) -> bool {
    match peer {
        PeerSpec::Pods { namespaces, pods, .. } => {
            pods.matches(&target.workload.labels)
                && match namespaces {
                    None => policy.namespace == target.workload.namespace,
                    Some(selector) => selector.matches(&view.cluster.namespace_labels(&target.workload.namespace)),
                }
        }
        PeerSpec::Block(block) => target.workload.ips.iter().any(|ip| block.addresses.contains(*ip)),
        PeerSpec::Unreadable => false,
    }
}

/// Why a peer is none of the DNS pods though it was meant to be.
fn peer_miss(view: &View<'_>, policy: &NetworkPolicy, peer: &PeerSpec) -> Option<(&'static str, String)> {
    let targets = &view.dns().targets;
    if targets.iter().any(|target| is_target(view, policy, peer, target)) {
        return None;
    }
    match peer {
        PeerSpec::Unreadable => None,
        PeerSpec::Block(block) => {
            let services = targets.iter().filter_map(|target| target.service);
            let address =
                services.flat_map(|service| &service.cluster_ips).find(|ip| block.addresses.contains(**ip))?;
            let is_seen = view.environment.cni.sees_cluster_ips();
            (!is_seen && block.addresses.v4.count() + block.addresses.v6.count() < 1e9).then(|| {
                (
                    "ipBlock",
                    format!("names the DNS Service's address {address}, which is translated to a pod's before policies see it: name the pods by their labels"),
                )
            })
        }
        PeerSpec::Pods { namespaces: None, pods, .. } => {
            let target =
                targets.iter().find(|target| pods.matches(&target.workload.labels) && !pods.is_everything())?;
            Some((
                "podSelector",
                format!(
                    "looks for `{pods}` in namespace `{}` only: DNS is in `{}`, and a `podSelector` without `namespaceSelector` in the same list item stays in the policy's own namespace",
                    policy.namespace, target.workload.namespace
                ),
            ))
        }
        PeerSpec::Pods { namespaces: Some(namespaces), pods, .. } => selector_miss(view, namespaces, pods, targets),
    }
}

fn selector_miss(
    view: &View<'_>,
    namespaces: &Selector,
    pods: &Selector,
    targets: &[DnsTarget<'_>],
) -> Option<(&'static str, String)> {
    // The labels of a namespace nobody has shown cannot be said to miss anything.
    let known = |namespace: &str| view.cluster.namespace(namespace).is_some_and(|state| state.object.is_some());
    for target in targets {
        let home = &target.workload.namespace;
        let labels = view.cluster.namespace_labels(home);
        if namespaces.matches(&labels) {
            // The right namespace, and pods by the Service's labels or another's name for them.
            let service = target.service.is_some_and(|service| pods.matches(&service.labels));
            return service.then(|| {
                (
                    "podSelector",
                    format!(
                        "looks for `{pods}`, which the DNS Service carries and its pods do not (they carry `{}`)",
                        target.workload.labels
                    ),
                )
            });
        }
        if !known(home) {
            continue;
        }
        let pinned_to_home =
            |requirement: &&crate::model::Requirement| namespaces.pinned(&requirement.key) == Some(home);
        if let Some(requirement) = namespaces.requirements().iter().find(pinned_to_home) {
            let key = &requirement.key;
            return (key != METADATA_NAME).then(|| {
                (
                    "namespaceSelector",
                    format!("looks for namespaces labelled `{key}={home}`, but namespace `{home}` does not carry that label: every namespace carries `{METADATA_NAME}`"),
                )
            });
        }
        let pod_label = |requirement: &&crate::model::Requirement| {
            let wanted = namespaces.pinned(&requirement.key);
            wanted.is_some() && target.workload.labels.get(&requirement.key) == wanted
        };
        if let Some(requirement) = namespaces.requirements().iter().find(pod_label) {
            return Some((
                "namespaceSelector",
                format!(
                    "asks *namespaces* for `{}`, which is a label of the DNS pods: it belongs in `podSelector`",
                    requirement.key
                ),
            ));
        }
    }
    None
}
