//! What NP003 says of what it found.

use ipnet::IpNet;

use super::growth::Ports;
use super::{WildcardIpBlock, is_dns};
use crate::cluster::NamespaceState;
use crate::model::{
    Direction, FieldPath, ForeignPolicy, IpBlock, NetworkPolicy, Object, ObjectRef, PeerSpec, PolicyRule, Port,
    PortSpec, Str,
};
use crate::netset::{Family, IpSet, Protocol};
use crate::reach::Truth;
use crate::rules::space::{self, METADATA_SERVICE, share};
use crate::rules::{Aspect, Finding, Moment, View, Violation, words, yaml};

impl WildcardIpBlock {
    pub(super) fn explain_group(
        &self,
        namespace: &Str,
        policies: &[Str],
        group: &[&Violation],
        moment: &Moment<'_>,
    ) -> Option<Finding> {
        let view = moment.view;
        let state = view.cluster.namespace(namespace)?;
        let policies: Vec<&NetworkPolicy> =
            policies.iter().filter_map(|name| state.policies.get(name.as_str())).map(AsRef::as_ref).collect();
        let mut facets: Vec<(Direction, Family, u8)> = group
            .iter()
            .filter_map(|violation| match violation.aspect {
                Aspect::WideBlock(direction, family) => Some((direction, family, violation.badness)),
                _ => None,
            })
            .collect();
        facets.sort_unstable();
        facets.dedup();
        let raw = |direction: Direction| {
            let blocks = policies.iter().flat_map(|policy| written_peers(policy, direction));
            IpSet::union_of(blocks.map(|(_, _, block)| &block.addresses))
        };
        // What stands for IPv4 is told of as that, unless it is but a part of a wide IPv6 block.
        let is_part = |facets: &[(Direction, Family, u8)], direction: Direction, family: Family| {
            let is_wide_in_v6 = facets.iter().any(|(way, family, _)| (*way, *family) == (direction, Family::V6));
            family == Family::V4 && is_wide_in_v6 && self.excess(&raw(direction), family).is_none()
        };
        let told: Vec<_> =
            facets.iter().copied().filter(|(direction, family, _)| !is_part(&facets, *direction, *family)).collect();
        let facets = told;
        let blocks: Vec<WrittenBlock<'_>> =
            policies.iter().flat_map(|policy| written_blocks(policy, &facets)).collect();

        let names: Vec<_> = policies.iter().map(|policy| format!("`{}`", policy.name)).collect();
        let shares: Vec<_> = facets
            .iter()
            .map(|(direction, family, _)| {
                let union = self.union(&policies, *direction);
                let (percent, count) = (words::percent(share(&union, *family)), words::addresses(union.count(*family)));
                let preposition = preposition(*direction);
                format!("{direction} {preposition} {percent} % of {family} ({count} addresses)")
            })
            .collect();
        let workloads = words::workloads(view.cluster, group);
        let (subject, verb) = match policies.as_slice() {
            [_] => (format!("NetworkPolicy {}", words::list(&names)), "admits"),
            _ => (format!("NetworkPolicies {} together", words::some_of(&names)), "admit"),
        };
        let whose = if workloads.is_empty() { String::new() } else { format!(" for {}", words::some_of(&workloads)) };
        let message = format!("in namespace `{namespace}`, {subject} {verb} {}{whose}", words::list(&shares));

        let first = blocks.first();
        let object = |name: &Str| ObjectRef {
            kind: "NetworkPolicy".into(),
            namespace: Some(namespace.clone()),
            name: name.clone(),
        };
        let (reference, path) = match moment.change {
            Some((change, _)) => {
                let reference = change.reference();
                let own = blocks.iter().find(|block| object(&block.policy.name) == reference);
                let path = own.map(|block| block.path.clone()).unwrap_or_default();
                (reference, path)
            }
            None => match first {
                Some(block) => (object(&block.policy.name), block.path.clone()),
                None => (object(&policies.first()?.name), FieldPath::root()),
            },
        };
        let mut finding = Finding::new(Some(namespace.clone()), reference, path, message);
        let is_most =
            |(direction, family, _): &(Direction, Family, u8)| share(&self.union(&policies, *direction), *family) > 0.5;
        finding.why = why(&facets, facets.iter().any(is_most));
        finding.evidence = blocks.iter().take(8).map(WrittenBlock::describe).collect();
        for (direction, family, _) in &facets {
            for note in inside(view, &raw(*direction), *direction, *family) {
                if !finding.evidence.contains(&note) {
                    finding.evidence.push(note);
                }
            }
        }
        if let Some(foreign) = view.cluster.foreign_policies(namespace).next() {
            finding.evidence.push(may_deny(foreign));
        }
        if !is_worth_writing_out(&policies) {
            finding.help = "name the networks that are needed in place of these blocks, or list them under `rules.wildcard-ip-block.allow` in the configuration".to_owned();
            return Some(finding);
        }
        let (wide, narrowed) = self.narrowed(state, &policies, &facets, moment);
        let wide: Vec<_> = wide
            .into_iter()
            .map(|(policy, path)| match policies.as_slice() {
                [_] => format!("`{path}`"),
                _ => format!("`{path}` of `{policy}`"),
            })
            .collect();
        finding.help = format!(
            "name the networks that are needed in place of {}, or list them under `rules.wildcard-ip-block.allow` in the configuration. What is below is the same without {}: it closes what {}, so add the needed networks to it first",
            words::some_of(&wide),
            if wide.len() == 1 { "it" } else { "these" },
            if wide.len() == 1 { "it opens" } else { "they open" },
        );
        finding.fix = yaml::documents(&narrowed.iter().map(yaml::network_policy).collect::<Vec<_>>());
        Some(finding)
    }

    fn union(&self, policies: &[&NetworkPolicy], direction: Direction) -> IpSet {
        self.by_blocks(policies.iter().flat_map(|policy| policy.rules(direction)))
    }

    /// The finding of a policy that admits everyone in these directions.
    pub(super) fn explain_everyone(
        &self,
        namespace: &Str,
        policy: &Str,
        directions: &[Direction],
        moment: &Moment<'_>,
    ) -> Option<Finding> {
        let view = moment.view;
        let state = view.cluster.namespace(namespace)?;
        let policy = state.policies.get(policy.as_str())?;
        let ways: Vec<_> = directions
            .iter()
            .map(|direction| {
                let preposition = preposition(*direction);
                let ports = in_words(&self.ports_for_everyone(policy, *direction));
                format!("{direction} {preposition} every pod and every address on {ports}")
            })
            .collect();
        let selected = state.live_workloads().filter(|it| policy.pods.matches(&it.labels) && !it.host_network);
        let mut workloads: Vec<_> =
            selected.map(|workload| format!("`{}`", view.cluster.root_owner(workload))).collect();
        workloads.sort();
        workloads.dedup();
        let whose = if workloads.is_empty() { String::new() } else { format!(" for {}", words::some_of(&workloads)) };
        let message =
            format!("in namespace `{namespace}`, NetworkPolicy `{}` admits {}{whose}", policy.name, words::list(&ways));
        let rules: Vec<(Direction, usize)> = directions
            .iter()
            .flat_map(|direction| {
                let rules = self.rules_for_everyone(policy, *direction).collect::<Vec<_>>();
                // Rules for DNS are left where others are worse.
                let is_worse = |(_, rule): &(usize, &PolicyRule)| !is_dns(&Ports::of(rule).numbered);
                let is_any_worse = rules.iter().any(is_worse);
                rules.into_iter().filter(move |rule| !is_any_worse || is_worse(rule)).map(|(r, _)| (*direction, r))
            })
            .collect();
        let paths: Vec<_> = rules.iter().map(|(direction, rule)| NetworkPolicy::rule_path(*direction, *rule)).collect();
        let own =
            ObjectRef { kind: "NetworkPolicy".into(), namespace: Some(namespace.clone()), name: policy.name.clone() };
        let reference = moment.change.map_or(own.clone(), |(change, _)| change.reference());
        let path = if reference == own { paths.first().cloned().unwrap_or_default() } else { FieldPath::root() };
        let mut finding = Finding::new(Some(namespace.clone()), reference, path, message);
        finding.why = match directions {
            [Direction::Ingress] => "a rule without `from` is wider than `0.0.0.0/0`: any pod of any namespace and any address may connect",
            [Direction::Egress] => "a rule without `to` is wider than `0.0.0.0/0`: these pods may connect to any pod and to any address, which is how stolen data leaves",
            _ => "a rule without `from` or `to` is wider than `0.0.0.0/0`: it admits any pod of any namespace and any address",
        }
        .to_owned();
        let told: Vec<_> = paths.iter().map(|path| format!("`{path}`")).collect();
        finding.evidence =
            told.iter().take(8).map(|path| format!("{path} names no peer, which admits everyone")).collect();
        if let Some(foreign) = view.cluster.foreign_policies(namespace).next() {
            finding.evidence.push(may_deny(foreign));
        }
        let (fields, verb) = match directions {
            [direction] => (format!("`{}`", direction.peers_field()), if told.len() == 1 { "opens" } else { "open" }),
            _ => ("`from` and `to`".to_owned(), "open"),
        };
        if !is_worth_writing_out(&[policy.as_ref()]) {
            finding.help = format!("name the needed peers under {fields} of {}", words::some_of(&told));
            return Some(finding);
        }
        let it = if told.len() == 1 { "it" } else { "they" };
        finding.help = format!(
            "name the needed peers under {fields} of {}. What is below is the same without: it closes what {it} {verb}, so add the needed peers to it first",
            words::some_of(&told),
        );
        let mut narrowed = NetworkPolicy::clone(policy);
        for (direction, rule) in rules.iter().rev() {
            let rules = match direction {
                Direction::Ingress => &mut narrowed.ingress,
                Direction::Egress => &mut narrowed.egress,
            };
            rules.remove(*rule);
        }
        self.keep_dns(state, policy, &mut narrowed, moment);
        finding.fix = yaml::documents(&[yaml::network_policy(&narrowed)]);
        Some(finding)
    }

    /// A rule that is dropped may have been what let the pods resolve names.
    #[allow(clippy::unused_self, reason = "reads as a step of the two that narrow a policy")]
    fn keep_dns(
        &self,
        state: &NamespaceState,
        written: &NetworkPolicy,
        policy: &mut NetworkPolicy,
        moment: &Moment<'_>,
    ) {
        if written.egress.iter().any(|rule| !policy.egress.contains(rule) && admits_dns(rule)) {
            let selected = state.live_workloads().filter(|workload| policy.pods.matches(&workload.labels));
            let rules = yaml::resolver_rules(moment.view.dns(), selected.map(AsRef::as_ref));
            yaml::add_rules(&mut policy.egress, rules);
        }
    }

    /// The policies without as many of their blocks as it takes to be narrow again, the widest first
    /// and those of the policy in the change before others; and where these stand. A rule that is
    /// left without peers goes too: an empty list would admit everyone.
    fn narrowed(
        &self,
        state: &NamespaceState,
        policies: &[&NetworkPolicy],
        facets: &[(Direction, Family, u8)],
        moment: &Moment<'_>,
    ) -> (Vec<(Str, FieldPath)>, Vec<NetworkPolicy>) {
        let changed = match moment.change.and_then(|(change, _)| change.after()) {
            Some(Object::NetworkPolicy(policy)) => policies.iter().position(|it| it.name == policy.name),
            _ => None,
        };
        let mut dropped: Vec<Place> = Vec::new();
        for &(direction, family, _) in facets {
            let mut places: Vec<(f64, Place, IpSet)> = Vec::new();
            for (p, policy) in policies.iter().enumerate() {
                for (r, rule) in policy.rules(direction).iter().enumerate() {
                    for (peer, addresses) in self.parts(rule) {
                        let size = share(&addresses, family);
                        if size > 0.0 {
                            places.push((size, Place { policy: p, direction, rule: r, peer }, addresses));
                        }
                    }
                }
            }
            let is_old = |place: &Place| Some(place.policy) != changed;
            places.sort_by(|(a, at, _), (b, bt, _)| {
                is_old(at).cmp(&is_old(bt)).then_with(|| b.total_cmp(a)).then_with(|| at.cmp(bt))
            });
            // The fewest that must go: dropping one more never widens what is left.
            let is_wide_without = |gone: usize| {
                let left = places.get(gone..).unwrap_or_default();
                self.excess(&IpSet::union_of(left.iter().map(|(_, _, addresses)| addresses)), family).is_some()
            };
            let (mut too_few, mut enough) = (0, places.len());
            while too_few < enough {
                let half = usize::midpoint(too_few, enough);
                if is_wide_without(half) {
                    too_few = half + 1;
                } else {
                    enough = half;
                }
            }
            dropped.extend(places.iter().take(enough).map(|(_, place, _)| place.clone()));
        }
        dropped.sort();
        dropped.dedup();
        let mut paths = Vec::new();
        let mut narrowed = Vec::new();
        for (p, written) in policies.iter().enumerate() {
            let mut policy = (*written).clone();
            // From the last to the first, so that the places of those before stay.
            for Place { direction, rule, peer, .. } in dropped.iter().rev().filter(|it| it.policy == p) {
                let path = NetworkPolicy::peer_path(*direction, *rule, *peer).field("ipBlock");
                paths.push((policy.name.clone(), path));
                let rules = match direction {
                    Direction::Ingress => &mut policy.ingress,
                    Direction::Egress => &mut policy.egress,
                };
                let Some(peers) = rules.get_mut(*rule).and_then(|rule| rule.peers.as_mut()) else { continue };
                peers.remove(*peer);
                if peers.is_empty() {
                    rules.remove(*rule);
                }
            }
            self.keep_dns(state, written, &mut policy, moment);
            if policy != **written {
                narrowed.push(policy);
            }
        }
        paths.reverse();
        (paths, narrowed)
    }
}

/// How many policies, and how many of their rules and peers together, are written out narrowed.
/// What is larger was made by a program, and is mended where it is made.
const MOST_WRITTEN_OUT: (usize, usize) = (16, 2000);

fn is_worth_writing_out(policies: &[&NetworkPolicy]) -> bool {
    let (most_policies, most_parts) = MOST_WRITTEN_OUT;
    let rules = policies.iter().flat_map(|policy| Direction::ALL.into_iter().flat_map(|it| policy.rules(it)));
    policies.len() <= most_policies
        && rules.map(|rule| 1 + rule.peers.iter().flatten().count()).sum::<usize>() <= most_parts
}

/// Where a block stands: the number of its policy, the rule, and the peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    policy: usize,
    direction: Direction,
    rule: usize,
    peer: usize,
}

/// Whether a rule admits what may be DNS.
fn admits_dns(rule: &PolicyRule) -> bool {
    let is_dns = |spec: &PortSpec| match spec.port {
        Port::All => true,
        Port::Range(first, last) => [53, 5353].iter().any(|port| (first..=last).contains(port)),
        Port::Named(_) | Port::Unreadable => false,
    };
    rule.ports.as_ref().is_none_or(|ports| ports.iter().any(|spec| spec.protocol == Protocol::Udp && is_dns(spec)))
}

/// A block as a policy writes it.
struct WrittenBlock<'a> {
    policy: &'a NetworkPolicy,
    path: FieldPath,
    block: &'a IpBlock,
}

impl WrittenBlock<'_> {
    fn describe(&self) -> String {
        let IpBlock { cidr, except, addresses } = self.block;
        let family = if cidr.addr().is_ipv4() { Family::V4 } else { Family::V6 };
        let less = match except.as_slice() {
            [] => String::new(),
            [one] => format!(" less `{one}`"),
            many => format!(" less {} networks", many.len()),
        };
        let count = match space::translated(addresses).count(Family::V4) {
            0.0 => format!("{} addresses", words::addresses(addresses.count(family))),
            n => format!(
                "it stands for {} IPv4 addresses, to which packets are translated or carried",
                words::addresses(n)
            ),
        };
        format!("`{}`: `{}` is `{cidr}`{less}: {count}", self.policy.name, self.path)
    }
}

/// The blocks of a policy, with their rule and their place in it.
fn written_peers(policy: &NetworkPolicy, direction: Direction) -> impl Iterator<Item = (usize, usize, &IpBlock)> {
    policy.rules(direction).iter().enumerate().flat_map(|(r, rule)| {
        rule.peers.iter().flatten().enumerate().filter_map(move |(p, peer)| match peer {
            PeerSpec::Block(block) => Some((r, p, block)),
            PeerSpec::Pods { .. } | PeerSpec::Unreadable => None,
        })
    })
}

fn written_blocks<'a>(policy: &'a NetworkPolicy, facets: &[(Direction, Family, u8)]) -> Vec<WrittenBlock<'a>> {
    let mut written = Vec::new();
    for direction in Direction::ALL {
        let families: Vec<Family> =
            facets.iter().filter(|(way, ..)| *way == direction).map(|(_, family, _)| *family).collect();
        for (rule, peer, block) in written_peers(policy, direction) {
            let addresses = space::with_translated(&block.addresses);
            if families.iter().any(|family| !addresses.only(*family).is_empty()) {
                let path = NetworkPolicy::peer_path(direction, rule, peer).field("ipBlock").field("cidr");
                written.push(WrittenBlock { policy, path, block });
            }
        }
    }
    // The widest first: it is the one to look at.
    let size = |written: &WrittenBlock<'_>| {
        let addresses = space::with_translated(&written.block.addresses);
        share(&addresses, Family::V4).max(share(&addresses, Family::V6))
    };
    written.sort_by(|a, b| size(b).total_cmp(&size(a)));
    written
}

fn preposition(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

/// Ports as a person reads them; the first few of many.
fn in_words(ports: &Ports) -> String {
    if ports.numbered.is_full() {
        return "all ports".to_owned();
    }
    let mut words = Vec::new();
    for protocol in Protocol::ALL {
        let set = ports.numbered.ports(protocol);
        if set.is_full() {
            words.push(format!("all {protocol} ports"));
            continue;
        }
        let ranges = set.ranges().iter().map(|(first, last)| {
            if first == last { format!("{protocol} {first}") } else { format!("{protocol} {first}-{last}") }
        });
        words.extend(ranges);
    }
    words.extend(ports.named.iter().map(|(protocol, name)| format!("{protocol} `{name}`")));
    words::some_of(&words)
}

/// That a policy of another system may decide it.
fn may_deny(foreign: &ForeignPolicy) -> String {
    let ForeignPolicy { kind, name, namespace: _ } = foreign;
    format!("{kind} `{name}` may deny some of it; its meaning is not judged here, so this is at most a warning")
}

fn why(facets: &[(Direction, Family, u8)], is_most: bool) -> String {
    let has = |direction| facets.iter().any(|(way, ..)| *way == direction);
    let who = if is_most { "almost any address" } else { "a large part of all addresses" };
    match (has(Direction::Ingress), has(Direction::Egress)) {
        (true, false) => format!("{who} may connect to these pods"),
        (false, true) => format!("these pods may connect to {who}, which is how stolen data leaves"),
        _ => format!("{who} may connect to these pods, and they may connect to as many"),
    }
}

/// What of note lies inside: the metadata service, private networks, the pods' own range.
fn inside(view: &View<'_>, addresses: &IpSet, direction: Direction, family: Family) -> Vec<String> {
    let mut notes = Vec::new();
    if direction == Direction::Egress && family == Family::V4 && addresses.contains(METADATA_SERVICE) {
        notes.push(format!(
            "the metadata service {METADATA_SERVICE}, which hands out the node's credentials, is inside"
        ));
    }
    let within = |net: &IpNet| addresses.overlaps(&IpSet::from(*net));
    let named = |nets: Vec<IpNet>| nets.iter().filter(|net| within(net)).map(|net| format!("`{net}`")).collect();
    let private: Vec<String> = named(space::private(family));
    if !private.is_empty() {
        notes.push(format!("private networks are inside: {}", words::list(&private)));
    }
    let cni = &view.environment.cni;
    let own = cni.pod_ranges.iter().copied().filter(|range| space::family(*range) == family).collect();
    let ranges: Vec<String> = named(own);
    if !ranges.is_empty() {
        let (s, are) = if ranges.len() == 1 { ("", "is") } else { ("s", "are") };
        let what = format!("the pods' own range{s} {} {are} inside", words::list(&ranges));
        notes.push(match cni.blocks_match_pods() {
            Truth::Yes => format!("{what}, so it admits every pod too"),
            Truth::No => format!("{what}, but blocks do not admit pods here"),
            Truth::Maybe => format!("{what}: on most implementations it admits every pod too"),
        });
    }
    notes
}
