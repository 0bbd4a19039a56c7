//! NP003.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::space::{self, METADATA_SERVICE, share};
use super::{
    Action, Aspect, Finding, Meta, Moment, Profile, Rule, Scope, Severity, Subject, View, Violation, Watched, words,
    yaml,
};
use crate::cluster::NamespaceState;
use crate::model::{
    Change, Direction, FieldPath, IpBlock, Labels, NetworkPolicy, Object, ObjectRef, Operation, PeerSpec, PolicyRule,
    Port, PortSpec, Str, Workload, written,
};
use crate::netset::{Family, IpSet, Protocol};
use crate::reach::Truth;

/// Reports IP blocks that admit most of an address space.
///
/// ## Why is this bad?
/// A block such as `0.0.0.0/0` is written to mean "the internet" and means every address there is:
/// private networks, peered clusters, the cloud's metadata service at 169.254.169.254 which hands
/// out credentials, and on most implementations every pod and node as well. For egress it is the way
/// stolen data leaves; for ingress it is the open door.
///
/// What counts is what is left of the blocks after `except`, for all rules of a policy together and
/// for all policies of a pod together: `0.0.0.0/1` in one and `128.0.0.0/1` in another are
/// `0.0.0.0/0`. IPv4 and IPv6 are measured apart. The share of IPv6 is that of the addresses in use,
/// `2000::/3`.
///
/// ## Example
/// ```yaml
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: cart
///   namespace: shop
/// spec:
///   podSelector:
///     matchLabels:
///       app: cart
///   policyTypes: [Egress]
///   egress:
///   - to:
///     - ipBlock:
///         cidr: 0.0.0.0/1
///     - ipBlock:
///         cidr: 128.0.0.0/1
///         except: [192.168.0.0/16]
///     ports:
///     - port: 443
/// ```
///
/// Use instead:
/// ```yaml
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: cart
///   namespace: shop
/// spec:
///   podSelector:
///     matchLabels:
///       app: cart
///   policyTypes: [Egress]
///   egress:
///   - to:
///     - ipBlock:
///         cidr: 203.0.113.0/24   # the payment provider
///     ports:
///     - port: 443
///   - to:
///     - namespaceSelector:
///         matchLabels:
///           kubernetes.io/metadata.name: kube-system
///       podSelector:
///         matchLabels:
///           k8s-app: kube-dns
///     ports:
///     - {protocol: UDP, port: 53}
///     - {protocol: TCP, port: 53}
/// ```
///
/// ## When it fires
/// When a policy is created or changed and it, or all policies of a pod together, admit more of a
/// family than `maxShare` in one direction; when a workload comes under policies that do so only
/// together.
///
/// ## What it does not see
/// Policies of other systems: where one may touch the namespace, the finding says so and is at most a
/// warning. Rules without peers, which admit everyone and are no block: `missing-default-deny` judges those.
/// `everyone: true` counts them here too.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct WildcardIpBlock {
    /// The largest share of an address family that may be admitted, in percent. The default is that
    /// of a `/4`, rounded up: blocks of prefix length 3 and less exceed it, and so do more than one
    /// `/4`.
    #[serde(deserialize_with = "percent")]
    #[schemars(range(min = 0, max = 100))]
    max_share: u8,
    /// Ranges that may be admitted: they do not count, whatever block they are part of.
    #[serde(deserialize_with = "written::ranges")]
    #[schemars(with = "Vec<String>")]
    allow: Vec<IpNet>,
    /// The directions that are judged.
    #[serde(deserialize_with = "written::some")]
    #[schemars(length(min = 1))]
    directions: Vec<JudgedDirection>,
    /// Whether a rule without peers counts as a block of all addresses.
    everyone: bool,
}

/// A direction as the configuration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum JudgedDirection {
    Ingress,
    Egress,
}

fn percent<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let percent = u8::deserialize(deserializer)?;
    if percent > 100 {
        return Err(serde::de::Error::custom(format_args!("a share is 0 to 100 percent, not {percent}")));
    }
    Ok(percent)
}

impl Default for WildcardIpBlock {
    fn default() -> Self {
        Self {
            max_share: 7,
            allow: Vec::new(),
            directions: vec![JudgedDirection::Ingress, JudgedDirection::Egress],
            everyone: false,
        }
    }
}

impl Rule for WildcardIpBlock {
    const META: Meta = Meta {
        code: "NP003",
        name: "wildcard-ip-block",
        severity: Severity::Medium,
        baseline: Action::Warn,
        restricted: Action::Deny,
        since: "0.1.0",
        watches: &[Watched::NetworkPolicies.when_set(), Watched::Workloads.when_set()],
    };

    fn scope(&self, change: &Change, _before: &View<'_>, _after: &View<'_>) -> Scope {
        match change.subject() {
            _ if change.operation() == Operation::Delete => Scope::Nothing,
            Object::NetworkPolicy(policy) => Scope::Namespace(policy.namespace.clone()),
            Object::Workload(workload) => Scope::Workload(workload.namespace.clone(), workload.id.clone()),
            Object::Namespace(_)
            | Object::Service(_)
            | Object::PeerAuthentication(_)
            | Object::MeshConfig(_)
            | Object::WebhookConfiguration(_)
            | Object::ForeignPolicy(_)
            | Object::Waiver(_) => Scope::Nothing,
        }
    }

    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>) {
        for namespace in scope.namespaces(view.cluster) {
            let Some(state) = view.cluster.namespace(namespace) else { continue };
            if view.environment.namespaces.is_exempt(namespace) || state.is_terminating() {
                continue;
            }
            for direction in self.directions() {
                self.namespace_violations(state, direction, scope, out);
            }
        }
    }

    fn ceiling(&self, violation: &Violation, moment: &Moment<'_>) -> Action {
        let cluster = moment.view.cluster;
        let Some(state) = cluster.namespace(&violation.namespace) else { return Action::Warn };
        // A policy that could not be read in full may admit less than it seems to.
        let is_partial = state.policies.iter().any(|policy| policy.is_partial);
        let is_foreign = cluster.foreign_policies(&violation.namespace).next().is_some();
        if is_partial || is_foreign { Action::Warn } else { Action::Deny }
    }

    /// What is too wide is there.
    fn rests_on_absence(&self, _violation: &Violation, _moment: &Moment<'_>) -> bool {
        false
    }

    fn loosened(&self, before: &Self, _profile: Profile, _then: Profile) -> Vec<(&'static str, bool)> {
        let Self { max_share, allow, directions, everyone } = self;
        // However it is cut into ranges.
        let allowed = |ranges: &[IpNet]| ranges.iter().copied().collect::<IpSet>();
        vec![
            ("maxShare", *max_share > before.max_share),
            ("allow", !allowed(&before.allow).is_superset(&allowed(allow))),
            ("directions", before.directions.iter().any(|it| !directions.contains(it))),
            ("everyone", before.everyone && !everyone),
        ]
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        // A policy's two families and directions are one finding; so are pods wide by the same policies.
        let mut groups: BTreeMap<(&Str, Vec<Str>), Vec<&Violation>> = BTreeMap::new();
        let mut wide: BTreeMap<(&Str, &Aspect), Vec<&NetworkPolicy>> = BTreeMap::new();
        for violation in violations {
            let Some(state) = moment.view.cluster.namespace(&violation.namespace) else { continue };
            // Pods under a policy that is wide by itself are that policy's finding.
            if let Subject::Workload(id) = &violation.subject {
                let key = (&violation.namespace, &violation.aspect);
                let wide = wide.entry(key).or_insert_with(|| self.wide_policies(state, &violation.aspect));
                let workload = state.workloads.get(id);
                if workload.is_some_and(|it| wide.iter().any(|policy| policy.pods.matches(&it.labels))) {
                    continue;
                }
            }
            let policies = self.behind(violation, state);
            let names = policies.iter().map(|policy| policy.name.clone()).collect();
            groups.entry((&violation.namespace, names)).or_default().push(violation);
        }
        groups
            .into_iter()
            .filter_map(|((namespace, policies), group)| self.explain_group(namespace, &policies, &group, moment))
            .collect()
    }
}

impl WildcardIpBlock {
    fn directions(&self) -> impl Iterator<Item = Direction> {
        Direction::ALL.into_iter().filter(|direction| {
            self.directions.contains(match direction {
                Direction::Ingress => &JudgedDirection::Ingress,
                Direction::Egress => &JudgedDirection::Egress,
            })
        })
    }

    fn namespace_violations(
        &self,
        state: &NamespaceState,
        direction: Direction,
        scope: &Scope,
        out: &mut Vec<Violation>,
    ) {
        if !self.might_exceed(state, direction) {
            return;
        }
        let admitted: Vec<(&NetworkPolicy, IpSet)> = state
            .policies
            .iter()
            .filter(|policy| policy.isolates.contains(direction))
            .map(|policy| (policy.as_ref(), self.admitted(policy, direction)))
            .filter(|(_, addresses)| !addresses.is_empty())
            .collect();
        if admitted.is_empty() {
            return;
        }
        let union_for = |pod: &Labels| {
            let selecting = admitted.iter().filter(|(policy, _)| policy.pods.matches(pod));
            IpSet::union_of(selecting.map(|(_, addresses)| addresses))
        };
        let mut push = |subject: &Subject, addresses: &IpSet| {
            for family in Family::ALL {
                if let Some(badness) = self.excess(addresses, family) {
                    let (namespace, aspect) = (state.name.clone(), Aspect::WideBlock(direction, family));
                    out.push(Violation { namespace, subject: subject.clone(), aspect, badness });
                }
            }
        };
        if let Scope::Namespace(_) | Scope::Cluster = scope {
            for (policy, addresses) in &admitted {
                let selects = |workload: &Workload| policy.pods.matches(&workload.labels);
                let is_unused = !state.live_workloads().any(|workload| selects(workload));
                let addresses = if is_unused && self.is_narrow(addresses) {
                    Cow::Owned(union_for(&policy.pods.sample()))
                } else {
                    Cow::Borrowed(addresses)
                };
                push(&Subject::Policy(policy.name.clone()), &addresses);
            }
        }
        // Workloads under a policy that is wide by itself are among them, so that what stood can be
        // told from what is new; they are not told apart from that policy.
        for workload in state.live_workloads().filter(|workload| scope.covers(&state.name, &workload.id)) {
            if !workload.host_network {
                push(&Subject::Workload(workload.id.clone()), &union_for(&workload.labels));
            }
        }
    }

    /// A quick no: all blocks of a namespace side by side, overlaps counted twice, are too few.
    fn might_exceed(&self, state: &NamespaceState, direction: Direction) -> bool {
        let (mut v4, mut v6) = (0.0, 0.0);
        for policy in state.policies.iter().filter(|policy| policy.isolates.contains(direction)) {
            for rule in policy.rules(direction) {
                if rule.peers.is_none() && self.everyone {
                    return true;
                }
                for peer in rule.peers.iter().flatten() {
                    if let PeerSpec::Block(block) = peer {
                        v4 += space::share(&block.addresses, Family::V4);
                        v6 += space::share(&block.addresses, Family::V6);
                    }
                }
            }
        }
        v4.max(v6) * 100.0 > f64::from(self.max_share)
    }

    /// Whether addresses are few enough, of either family.
    fn is_narrow(&self, addresses: &IpSet) -> bool {
        Family::ALL.into_iter().all(|family| self.excess(addresses, family).is_none())
    }

    /// The addresses a policy admits by blocks, less those that may be.
    fn admitted(&self, policy: &NetworkPolicy, direction: Direction) -> IpSet {
        let parts: Vec<_> = policy.rules(direction).iter().flat_map(|rule| self.parts(rule)).collect();
        IpSet::union_of(parts.iter().map(|(_, addresses)| addresses))
    }

    /// The share of a family in percent, rounded up, where it is more than may be.
    fn excess(&self, addresses: &IpSet, family: Family) -> Option<u8> {
        let percent = share(addresses, family) * 100.0;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a percentage lies between 0 and 100"
        )]
        (percent > f64::from(self.max_share)).then(|| percent.ceil() as u8)
    }

    /// The policies of a namespace that are wide by themselves.
    fn wide_policies<'a>(&self, state: &'a NamespaceState, aspect: &Aspect) -> Vec<&'a NetworkPolicy> {
        let Aspect::WideBlock(direction, family) = aspect else { return Vec::new() };
        let policies = state.policies.iter().map(AsRef::as_ref);
        let isolating = policies.filter(|policy| policy.isolates.contains(*direction));
        isolating.filter(|it| self.excess(&self.admitted(it, *direction), *family).is_some()).collect()
    }

    /// The policies a violation comes from.
    fn behind<'a>(&self, violation: &Violation, state: &'a NamespaceState) -> Vec<&'a NetworkPolicy> {
        let Aspect::WideBlock(direction, family) = violation.aspect else { return Vec::new() };
        let labels = match &violation.subject {
            Subject::Workload(id) => state.workloads.get(id).map(|workload| workload.labels.clone()),
            Subject::Policy(name) => {
                let Some(policy) = state.policies.get(name.as_str()) else { return Vec::new() };
                if self.excess(&self.admitted(policy, direction), family).is_some() {
                    return vec![policy];
                }
                Some(policy.pods.sample())
            }
            Subject::Namespace | Subject::Waiver(_) => None,
        };
        let Some(labels) = labels else { return Vec::new() };
        let contributes = |policy: &&NetworkPolicy| {
            policy.isolates.contains(direction)
                && policy.pods.matches(&labels)
                && !self.admitted(policy, direction).only(family).is_empty()
        };
        state.policies.iter().map(AsRef::as_ref).filter(contributes).collect()
    }

    fn explain_group(
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
        let blocks: Vec<WrittenBlock<'_>> =
            policies.iter().flat_map(|policy| written_blocks(policy, &facets, self.everyone)).collect();

        let names: Vec<_> = policies.iter().map(|policy| format!("`{}`", policy.name)).collect();
        let shares: Vec<_> = facets
            .iter()
            .map(|(direction, family, _)| {
                let union = self.union(&policies, *direction);
                let (percent, count) = (words::percent(share(&union, *family)), words::addresses(union.count(*family)));
                let preposition = match direction {
                    Direction::Ingress => "from",
                    Direction::Egress => "to",
                };
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
            for note in inside(view, &self.union(&policies, *direction), *direction, *family) {
                if !finding.evidence.contains(&note) {
                    finding.evidence.push(note);
                }
            }
        }
        if let Some(foreign) = view.cluster.foreign_policies(namespace).next() {
            finding.evidence.push(format!(
                "{} `{}` may deny some of it; its meaning is not judged here, so this is at most a warning",
                foreign.kind, foreign.name
            ));
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
        let admitted: Vec<_> = policies.iter().map(|policy| self.admitted(policy, direction)).collect();
        IpSet::union_of(&admitted)
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
                let path = match peer {
                    Some(peer) => NetworkPolicy::peer_path(*direction, *rule, *peer).field("ipBlock"),
                    None => NetworkPolicy::rule_path(*direction, *rule),
                };
                paths.push((policy.name.clone(), path));
                let rules = match direction {
                    Direction::Ingress => &mut policy.ingress,
                    Direction::Egress => &mut policy.egress,
                };
                let is_last = match (rules.get_mut(*rule).and_then(|rule| rule.peers.as_mut()), *peer) {
                    (Some(peers), Some(peer)) => {
                        peers.remove(peer);
                        peers.is_empty()
                    }
                    (None, _) | (_, None) => true,
                };
                if is_last {
                    rules.remove(*rule);
                }
            }
            if written.egress.iter().any(|rule| !policy.egress.contains(rule) && admits_dns(rule)) {
                // A rule that is dropped may have been what let the pods resolve names.
                let selected = state.live_workloads().filter(|workload| policy.pods.matches(&workload.labels));
                yaml::add_rules(
                    &mut policy.egress,
                    yaml::resolver_rules(moment.view.dns(), selected.map(AsRef::as_ref)),
                );
            }
            if policy != **written {
                narrowed.push(policy);
            }
        }
        paths.reverse();
        (paths, narrowed)
    }

    /// What each peer of a rule counts for, less what may be admitted.
    fn parts(&self, rule: &PolicyRule) -> Vec<(Option<usize>, IpSet)> {
        let allowed: IpSet = self.allow.iter().copied().collect();
        match &rule.peers {
            Some(peers) => {
                let blocks = peers.iter().enumerate().filter_map(|(i, peer)| match peer {
                    PeerSpec::Block(block) => Some((Some(i), block.addresses.subtract(&allowed))),
                    PeerSpec::Pods { .. } | PeerSpec::Unreadable => None,
                });
                blocks.collect()
            }
            None if self.everyone => vec![(None, IpSet::full().subtract(&allowed))],
            None => Vec::new(),
        }
    }
}

/// Where something that counts stands: the number of its policy, the rule, and the peer; without a
/// peer, the rule itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    policy: usize,
    direction: Direction,
    rule: usize,
    peer: Option<usize>,
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
    /// Nothing for a rule without peers.
    block: Option<&'a IpBlock>,
}

impl WrittenBlock<'_> {
    fn describe(&self) -> String {
        let Some(IpBlock { cidr, except, addresses }) = self.block else {
            return format!("`{}`: `{}` names no peer, which admits everyone", self.policy.name, self.path);
        };
        let family = if cidr.addr().is_ipv4() { Family::V4 } else { Family::V6 };
        let less = match except.as_slice() {
            [] => String::new(),
            [one] => format!(" less `{one}`"),
            many => format!(" less {} networks", many.len()),
        };
        format!(
            "`{}`: `{}` is `{cidr}`{less}: {} addresses",
            self.policy.name,
            self.path,
            words::addresses(addresses.count(family))
        )
    }
}

fn written_blocks<'a>(
    policy: &'a NetworkPolicy,
    facets: &[(Direction, Family, u8)],
    everyone: bool,
) -> Vec<WrittenBlock<'a>> {
    let mut written = Vec::new();
    for direction in Direction::ALL {
        let families: Vec<Family> =
            facets.iter().filter(|(way, ..)| *way == direction).map(|(_, family, _)| *family).collect();
        for (r, rule) in policy.rules(direction).iter().enumerate() {
            let Some(peers) = &rule.peers else {
                if everyone && !families.is_empty() {
                    written.push(WrittenBlock { policy, path: NetworkPolicy::rule_path(direction, r), block: None });
                }
                continue;
            };
            for (p, peer) in peers.iter().enumerate() {
                let PeerSpec::Block(block) = peer else { continue };
                if families.iter().any(|family| !block.addresses.only(*family).is_empty()) {
                    let path = NetworkPolicy::peer_path(direction, r, p).field("ipBlock").field("cidr");
                    written.push(WrittenBlock { policy, path, block: Some(block) });
                }
            }
        }
    }
    // The widest first: it is the one to look at.
    let size = |written: &WrittenBlock<'_>| {
        let block =
            written.block.map(|block| share(&block.addresses, Family::V4).max(share(&block.addresses, Family::V6)));
        block.unwrap_or(1.0)
    };
    written.sort_by(|a, b| size(b).total_cmp(&size(a)));
    written
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

#[cfg(test)]
mod tests;
