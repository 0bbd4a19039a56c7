//! NP003.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Aspect, Finding, Meta, Moment, Rule, Scope, Severity, Subject, View, Violation, words, yaml};
use crate::cluster::NamespaceState;
use crate::model::{
    Change, Direction, FieldPath, IpBlock, NetworkPolicy, Object, ObjectRef, Operation, PeerSpec, PolicyRule, Port,
    PortSpec, Str,
};
use crate::netset::{Family, IntervalSet, IpSet, Protocol};
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
/// ```
///
/// ## When it fires
/// When a policy is created or changed and one of its directions, or all policies of a pod together,
/// admit more of a family than `maxShare`; when a workload comes under such policies.
///
/// ## What it does not see
/// Rules without peers, which admit everyone and are no block: `missing-default-deny` judges those.
/// `everyone: true` counts them here too.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct WildcardIpBlock {
    /// The largest share of an address family that may be admitted, in percent. The default is that
    /// of a `/4`, rounded up: blocks of prefix length 3 and less exceed it, and so do more than one
    /// `/4`.
    #[schemars(range(min = 0, max = 100))]
    max_share: u8,
    /// Ranges that may be admitted: they do not count, whatever block they are part of.
    #[schemars(with = "Vec<String>")]
    allow: Vec<IpNet>,
    /// The directions that are judged.
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
        watches: &[
            "networking.k8s.io/networkpolicies",
            "/pods",
            "/replicationcontrollers",
            "apps/deployments",
            "apps/statefulsets",
            "apps/daemonsets",
            "apps/replicasets",
            "batch/jobs",
            "batch/cronjobs",
        ],
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
            | Object::Revision(_)
            | Object::ForeignPolicy(_) => Scope::Nothing,
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
        // A policy that could not be read in full may admit less than it seems to.
        let state = moment.view.cluster.namespace(&violation.namespace);
        let Subject::Policy(name) = &violation.subject else { return Action::Deny };
        let policy = state.and_then(|state| state.policies.get(name.as_str()));
        if policy.is_some_and(|policy| policy.is_partial) { Action::Warn } else { Action::Deny }
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        // A policy's two families and directions are one finding; so are pods wide by the same policies.
        let mut groups: BTreeMap<(&Str, Vec<Str>), Vec<&Violation>> = BTreeMap::new();
        for violation in violations {
            let policies = self.policies_behind(violation, moment);
            groups.entry((&violation.namespace, policies)).or_default().push(violation);
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
        for family in Family::ALL {
            let mut push = |subject: Subject, share: u8| {
                let (namespace, aspect) = (state.name.clone(), Aspect::WideBlock(direction, family));
                out.push(Violation { namespace, subject, aspect, badness: share });
            };
            if let Scope::Namespace(_) | Scope::Cluster = scope {
                for (policy, addresses) in &admitted {
                    if let Some(share) = self.excess(addresses, family) {
                        push(Subject::Policy(policy.name.clone()), share);
                    }
                }
            }
            // Only where no single policy is wide can several be wide together.
            for workload in state.live_workloads().filter(|workload| scope.covers(&state.name, &workload.id)) {
                if workload.host_network {
                    continue;
                }
                let selecting: Vec<_> =
                    admitted.iter().filter(|(policy, _)| policy.pods.matches(&workload.labels)).collect();
                if selecting.iter().any(|(_, addresses)| self.excess(addresses, family).is_some()) {
                    continue;
                }
                let union = selecting.iter().fold(IpSet::empty(), |all, (_, addresses)| all.union(addresses));
                if let Some(share) = self.excess(&union, family) {
                    push(Subject::Workload(workload.id.clone()), share);
                }
            }
        }
    }

    /// The addresses a policy admits by blocks, less those that may be.
    fn admitted(&self, policy: &NetworkPolicy, direction: Direction) -> IpSet {
        let mut addresses = IpSet::empty();
        for rule in policy.rules(direction) {
            match &rule.peers {
                Some(peers) => {
                    for peer in peers {
                        if let PeerSpec::Block(block) = peer {
                            addresses = addresses.union(&block.addresses);
                        }
                    }
                }
                None if self.everyone => addresses = IpSet::full(),
                None => {}
            }
        }
        if self.allow.is_empty() { addresses } else { addresses.subtract(&self.allow.iter().copied().collect()) }
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

    /// The policies a violation comes from.
    fn policies_behind(&self, violation: &Violation, moment: &Moment<'_>) -> Vec<Str> {
        let Some(state) = moment.view.cluster.namespace(&violation.namespace) else { return Vec::new() };
        let Aspect::WideBlock(direction, family) = violation.aspect else { return Vec::new() };
        let contributes = |policy: &NetworkPolicy| {
            policy.isolates.contains(direction) && !self.admitted(policy, direction).only(family).is_empty()
        };
        match &violation.subject {
            Subject::Policy(name) => vec![name.clone()],
            Subject::Workload(id) => {
                let Some(workload) = state.workloads.get(id) else { return Vec::new() };
                let selecting = state.policies.iter().filter(|policy| policy.pods.matches(&workload.labels));
                selecting.filter(|policy| contributes(policy)).map(|policy| policy.name.clone()).collect()
            }
            Subject::Namespace => Vec::new(),
        }
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
        let &(direction, family, _) = facets.first()?;
        let union = policies.iter().fold(IpSet::empty(), |all, policy| all.union(&self.admitted(policy, direction)));
        let blocks: Vec<WrittenBlock<'_>> =
            policies.iter().flat_map(|policy| written_blocks(policy, &facets, self.everyone)).collect();

        let names: Vec<_> = policies.iter().map(|policy| format!("`{}`", policy.name)).collect();
        let shares: Vec<_> = facets
            .iter()
            .map(|(direction, family, _)| {
                let union =
                    policies.iter().fold(IpSet::empty(), |all, policy| all.union(&self.admitted(policy, *direction)));
                let (percent, count) = (share(&union, *family) * 100.0, words::addresses(union.count(*family)));
                let verb = match direction {
                    Direction::Ingress => "from",
                    Direction::Egress => "to",
                };
                format!("{} {verb} {percent:.0} % of {family} ({count} addresses)", direction.field())
            })
            .collect();
        let workloads = words::workloads(view.cluster, group);
        let (subject, verb) = match policies.as_slice() {
            [_] => (format!("NetworkPolicy {}", words::list(&names)), "admits"),
            _ => (format!("NetworkPolicies {} together", words::list(&names)), "admit"),
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
        finding.why = why(&facets);
        finding.evidence = blocks.iter().take(8).map(WrittenBlock::describe).collect();
        finding.evidence.extend(inside(view, &union, family));
        finding.help = format!(
            "name the networks that are needed in place of {}, or list them under `rules.wildcard-ip-block.allow` in the configuration. What is below is the same without the wide blocks: it closes what they open, so add the needed networks to it first",
            words::some_of(&blocks.iter().map(|block| format!("`{}`", block.path)).collect::<Vec<_>>()),
        );
        finding.fix = yaml::documents(&policies.iter().map(|policy| self.narrowed(view, policy)).collect::<Vec<_>>());
        Some(finding)
    }

    /// The policy without its wide blocks. A rule that is left without peers goes too: an empty
    /// list would admit everyone.
    fn narrowed(&self, view: &View<'_>, policy: &NetworkPolicy) -> String {
        let mut policy = policy.clone();
        let keep = |rule: &mut PolicyRule| match &mut rule.peers {
            Some(peers) => {
                peers.retain(|peer| !matches!(peer, PeerSpec::Block(block) if self.is_wide_part(block)));
                !peers.is_empty()
            }
            None => !self.everyone,
        };
        policy.ingress.retain_mut(keep);
        let before = policy.egress.clone();
        policy.egress.retain_mut(keep);
        let admits_dns = |rule: &PolicyRule| {
            let is_dns = |spec: &PortSpec| match spec.port {
                Port::All => true,
                Port::Range(first, last) => first <= 53 && 53 <= last,
                Port::Named(_) | Port::Unreadable => false,
            };
            rule.ports
                .as_ref()
                .is_none_or(|ports| ports.iter().any(|spec| spec.protocol == Protocol::Udp && is_dns(spec)))
        };
        if before.iter().any(|rule| !policy.egress.contains(rule) && admits_dns(rule)) {
            // A rule that is dropped may have been what let the pods resolve names.
            yaml::add_rules(&mut policy.egress, yaml::dns_rules(view.dns()));
        }
        yaml::network_policy(&policy)
    }

    /// Whether a block is one of those that add up to too much: wider than a private network needs.
    fn is_wide_part(&self, block: &IpBlock) -> bool {
        let allowed: IpSet = self.allow.iter().copied().collect();
        let left = block.addresses.subtract(&allowed);
        Family::ALL.into_iter().any(|family| share(&left, family) > 1.0 / 256.0)
    }
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

fn why(facets: &[(Direction, Family, u8)]) -> String {
    let has = |direction| facets.iter().any(|(way, ..)| *way == direction);
    match (has(Direction::Ingress), has(Direction::Egress)) {
        (true, false) => "almost any address may connect to these pods".to_owned(),
        (false, true) => "these pods may connect to almost any address: data can leave to anywhere".to_owned(),
        _ => "almost any address may connect to these pods, and they may connect to almost any address".to_owned(),
    }
}

/// The part of a family that is admitted, from 0.0 to 1.0. Of IPv6 only `2000::/3` is handed out, so
/// the share is that of it, where that is larger.
fn share(addresses: &IpSet, family: Family) -> f64 {
    let whole = addresses.share(family);
    match family {
        Family::V4 => whole,
        Family::V6 => {
            let in_use = IntervalSet::range(0x2000 << 112, (0x4000 << 112) - 1);
            whole.max(addresses.v6.intersect(&in_use).count() / in_use.count())
        }
    }
}

/// The address at which clouds hand a machine's credentials to whoever asks.
const METADATA_SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// What of note lies inside: the metadata service, private networks, the pods' own range.
fn inside(view: &View<'_>, addresses: &IpSet, family: Family) -> Vec<String> {
    let mut notes = Vec::new();
    if addresses.contains(METADATA_SERVICE) {
        notes.push(format!(
            "the metadata service {METADATA_SERVICE}, which hands out the node's credentials, is inside"
        ));
    }
    let private: &[&str] = match family {
        Family::V4 => &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
        Family::V6 => &["fc00::/7"],
    };
    let within = |net: &&&str| net.parse::<IpNet>().is_ok_and(|net| addresses.overlaps(&IpSet::from(net)));
    let private: Vec<_> = private.iter().filter(within).map(|net| format!("`{net}`")).collect();
    if !private.is_empty() {
        notes.push(format!("private networks are inside: {}", words::list(&private)));
    }
    let cni = &view.environment.cni;
    let ranges: Vec<_> = cni
        .pod_ranges
        .iter()
        .filter(|range| addresses.overlaps(&IpSet::from(**range)))
        .map(|range| format!("`{range}`"))
        .collect();
    if !ranges.is_empty() {
        notes.push(match cni.blocks_match_pods() {
            Truth::Yes => format!("the pods' own range {} is inside, so it admits every pod too", words::list(&ranges)),
            Truth::No => {
                format!("the pods' own range {} is inside, but blocks do not admit pods here", words::list(&ranges))
            }
            Truth::Maybe => {
                format!(
                    "the pods' own range {} is inside: on most implementations it admits every pod too",
                    words::list(&ranges)
                )
            }
        });
    }
    notes
}
