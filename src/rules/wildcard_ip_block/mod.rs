//! NP003.

mod explain;
mod growth;
mod widths;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::growth::{Part, Ports};
use self::widths::{Excess, Widths};
use super::space::{self, share};
use super::webhook_cut_off::answered_ports;
use super::{
    Action, Aspect, Finding, Meta, Moment, Profile, Rule, Scope, Severity, Subject, View, Violation, Watched, openness,
};
use crate::cluster::{NamespaceState, PolicySet};
use crate::model::{Change, Direction, NetworkPolicy, Object, Operation, PeerSpec, PolicyRule, Str, written};
use crate::netset::{ConnectionSet, Family, IpSet, PortSet, Protocol};

/// Reports rules that admit most of an address space, by wide IP blocks or by naming no peer.
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
/// `2000::/3`. IPv6 networks that stand for IPv4 addresses count as those: `64:ff9b::/96` (NAT64),
/// `2002::/16` (6to4) and `::ffff:0:0/96` are all of IPv4.
///
/// A rule without `to` or `from` is wider than any block: it admits every pod and every address, on the
/// ports it names. Two common kinds of such rules are judged less strictly. A rule for DNS ports alone
/// lets pods ask any resolver: `baseline` does not report it, and `restricted` warns. An ingress rule
/// that opens a service's ports to everyone is only recorded in `baseline`, and denied in `restricted`.
/// A port on which a pod answers an admission webhook is not reported, because the API server that
/// calls it has no labels to select.
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
/// When a policy is created or changed and it admits everyone, or more of an address family than
/// `maxShare` in one direction, by itself or together with the other policies of a pod. When a workload is
/// selected by policies that do so only together. A policy that was too wide before gets a warning at most.
/// Its growth counts as new: more pods, more ports, other addresses.
///
/// ## What it does not see
/// Policies of other systems: where one may touch the namespace, the finding says so and is at most a
/// warning. Rules without peers that re-open a pod entirely: `missing-default-deny` judges those.
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
    /// Whether a rule without peers is reported.
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
            everyone: true,
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
                self.namespace_violations(view, state, direction, scope, out);
            }
        }
    }

    fn worsened(&self, violation: &Violation, before: &View<'_>, after: &View<'_>) -> bool {
        let state = |view: &View<'_>| view.cluster.namespace(&violation.namespace).cloned();
        let (Some(then), Some(now)) = (state(before), state(after)) else { return false };
        self.has_grown(violation, &then, &now)
    }

    fn each_worsened(&self, violations: &[Violation], before: &View<'_>, after: &View<'_>) -> Vec<bool> {
        // Pods under the same policies, before and after, are asked about once.
        let mut known: BTreeMap<(&Str, &Aspect, PolicySet, PolicySet), bool> = BTreeMap::new();
        let mut worsened = Vec::with_capacity(violations.len());
        for violation in violations {
            after.check_stop();
            let Violation { namespace, subject, aspect, badness: _ } = violation;
            let of = || self.worsened(violation, before, after);
            let states = before.cluster.namespace(namespace).zip(after.cluster.namespace(namespace));
            worsened.push(match (states, direction_of(violation), subject) {
                (Some((then, now)), Some(direction), Subject::Workload(_)) => {
                    let concerned = |state: &NamespaceState| self.concerned(violation, state, direction);
                    *known.entry((namespace, aspect, concerned(then), concerned(now))).or_insert_with(of)
                }
                _ => of(),
            });
        }
        worsened
    }

    fn ceiling(&self, violation: &Violation, moment: &Moment<'_>) -> Action {
        let ceilings = self.ceilings(std::slice::from_ref(violation), moment);
        ceilings.first().copied().unwrap_or(Action::Deny)
    }

    fn ceilings(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Action> {
        let cluster = moment.view.cluster;
        let mut blocks: BTreeMap<(&Str, Direction), Blocks> = BTreeMap::new();
        // What is about the same policies has the same ceiling.
        let mut known: BTreeMap<(&Str, &Aspect, PolicySet), Action> = BTreeMap::new();
        let ceiling = |violation| {
            moment.view.check_stop();
            let Violation { namespace, aspect, .. }: &Violation = violation;
            let Some(state) = cluster.namespace(namespace) else { return Action::Warn };
            // A policy that could not be read in full may admit less than it seems to.
            let is_partial = state.policies.unread().any(|policy| policy.is_partial);
            let is_foreign = cluster.foreign_policies(namespace).next().is_some();
            let most = if is_partial || is_foreign { Action::Warn } else { Action::Deny };
            most.min(match *aspect {
                Aspect::Everyone(direction) => self.ceiling_of_everyone(violation, direction, state, moment),
                Aspect::WideBlock(direction, family) => {
                    let blocks =
                        blocks.entry((namespace, direction)).or_insert_with(|| Blocks::of(self, state, direction));
                    let concerned = self.concerned(violation, state, direction);
                    *known.entry((namespace, aspect, concerned)).or_insert_with_key(|(.., concerned)| {
                        self.ceiling_of_blocks(concerned, family, blocks, moment.profile)
                    })
                }
                _ => Action::Deny,
            })
        };
        violations.iter().map(ceiling).collect()
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
        let mut groups: BTreeMap<(&Str, Arc<[Str]>), Vec<&Violation>> = BTreeMap::new();
        let mut wide: BTreeMap<(&Str, &Aspect), PolicySet> = BTreeMap::new();
        let mut to_everyone: BTreeMap<(&Str, &Str), Vec<Direction>> = BTreeMap::new();
        let mut behind: BTreeMap<(&Str, &Aspect, PolicySet), Arc<[Str]>> = BTreeMap::new();
        for violation in violations {
            moment.view.check_stop();
            let Some(state) = moment.view.cluster.namespace(&violation.namespace) else { continue };
            if let (Aspect::Everyone(direction), Subject::Policy(name)) = (&violation.aspect, &violation.subject) {
                to_everyone.entry((&violation.namespace, name)).or_default().push(*direction);
                continue;
            }
            let Some(direction) = direction_of(violation) else { continue };
            let concerned = self.concerned(violation, state, direction);
            // Pods under a policy that is wide by itself are that policy's finding.
            if let Subject::Workload(_) = &violation.subject {
                let key = (&violation.namespace, &violation.aspect);
                let wide = wide.entry(key).or_insert_with(|| self.wide_policies(state, &violation.aspect));
                if concerned.overlaps(wide) {
                    continue;
                }
            }
            let names = behind
                .entry((&violation.namespace, &violation.aspect, concerned))
                .or_insert_with_key(|(_, aspect, concerned)| self.behind(aspect, concerned, state));
            groups.entry((&violation.namespace, Arc::clone(names))).or_default().push(violation);
        }
        groups
            .into_iter()
            .filter_map(|((namespace, policies), group)| self.explain_group(namespace, &policies, &group, moment))
            .chain(to_everyone.into_iter().filter_map(|((namespace, policy), directions)| {
                self.explain_everyone(namespace, policy, &directions, moment)
            }))
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
        view: &View<'_>,
        state: &NamespaceState,
        direction: Direction,
        scope: &Scope,
        out: &mut Vec<Violation>,
    ) {
        if !self.might_exceed(state, direction) {
            return;
        }
        let widths = Widths::of(self, view, state, direction);
        if widths.of_all(&widths.admitting).is_narrow() {
            return;
        }
        let push = |subject: &Subject, excess: Excess, out: &mut Vec<Violation>| {
            for family in Family::ALL {
                if let Some(badness) = excess.of(family) {
                    let (namespace, aspect) = (state.name.clone(), Aspect::WideBlock(direction, family));
                    out.push(Violation { namespace, subject: subject.clone(), aspect, badness });
                }
            }
        };
        if let Scope::Namespace(_) | Scope::Cluster = scope {
            let mut unused = widths.admitting.clone();
            for workload in state.live_workloads() {
                view.check_stop();
                unused = unused.less(&state.policies.selecting(&workload.labels));
            }
            for place in widths.admitting.places() {
                view.check_stop();
                let Some(policy) = state.policies.at(place) else { continue };
                if self.rules_for_everyone(policy, direction).next().is_some() {
                    let (namespace, subject) = (state.name.clone(), Subject::Policy(policy.name.clone()));
                    out.push(Violation { namespace, subject, aspect: Aspect::Everyone(direction), badness: 1 });
                }
                let mut excess = widths.alone(place);
                if unused.contains(place) && excess.is_narrow() {
                    excess = widths.of_all(&state.policies.selecting(&policy.pods.sample()));
                }
                push(&Subject::Policy(policy.name.clone()), excess, out);
            }
        }
        // Workloads under a policy that is wide by itself are among them, so that what stood can be
        // told from what is new; they are not told apart from that policy.
        for workload in scope.live_workloads(state).filter(|workload| !workload.host_network) {
            view.check_stop();
            let excess = widths.of_all(&state.policies.selecting(&workload.labels));
            push(&Subject::Workload(workload.id.clone()), excess, out);
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
                        v4 += space::share(&block.addresses, Family::V4)
                            + space::share(&space::translated(&block.addresses), Family::V4);
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

    /// The addresses a policy admits, less those that may be.
    fn admitted(&self, policy: &NetworkPolicy, direction: Direction) -> IpSet {
        if self.rules_for_everyone(policy, direction).next().is_some() {
            return self.too_many(&IpSet::full());
        }
        self.by_blocks(policy.rules(direction))
    }

    /// The addresses that rules admit by blocks, less those that may be.
    fn by_blocks<'p>(&self, rules: impl IntoIterator<Item = &'p PolicyRule>) -> IpSet {
        let parts: Vec<_> = rules.into_iter().flat_map(|rule| self.parts(rule)).collect();
        IpSet::union_of(parts.iter().map(|(_, addresses)| addresses))
    }

    /// Addresses, and those they stand for, less those that may be admitted.
    fn too_many(&self, addresses: &IpSet) -> IpSet {
        if self.allow.is_empty() {
            return space::with_translated(addresses);
        }
        let allowed: IpSet = self.allow.iter().copied().collect();
        let own = addresses.subtract(&allowed);
        let standing_for = space::translated(&own).subtract(&allowed);
        own.union(&standing_for)
    }

    /// The rules by which a policy admits everyone, with their places.
    fn rules_for_everyone<'p>(
        &self,
        policy: &'p NetworkPolicy,
        direction: Direction,
    ) -> impl Iterator<Item = (usize, &'p PolicyRule)> {
        let has_such = self.everyone && policy.rules(direction).iter().any(|rule| rule.peers.is_none());
        let counts = has_such && !self.is_narrow(&self.too_many(&IpSet::full()));
        policy.rules(direction).iter().enumerate().filter(move |(_, rule)| {
            counts && rule.peers.is_none() && {
                let ports = Ports::of(rule);
                // Out of the pod, a name is looked up in the pods it may reach: the world has none.
                !ports.numbered.is_empty() || direction == Direction::Ingress && !ports.named.is_empty()
            }
        })
    }

    /// The ports on which a policy admits everyone.
    fn ports_for_everyone(&self, policy: &NetworkPolicy, direction: Direction) -> Ports {
        Ports::union_of(self.rules_for_everyone(policy, direction).map(|(_, rule)| Ports::of(rule)).collect())
    }

    /// The share of a family in percent, where it is more than may be. Rounded down: an address more is
    /// no growth.
    fn excess(&self, addresses: &IpSet, family: Family) -> Option<u8> {
        let percent = share(addresses, family) * 100.0;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a percentage lies between 0 and 100"
        )]
        (percent > f64::from(self.max_share)).then_some(percent as u8)
    }

    fn ceiling_of_everyone(
        &self,
        violation: &Violation,
        direction: Direction,
        state: &NamespaceState,
        moment: &Moment<'_>,
    ) -> Action {
        let Subject::Policy(name) = &violation.subject else { return Action::Off };
        let Some(policy) = state.policies.get(name.as_str()) else { return Action::Off };
        let Ports { mut numbered, named } = self.ports_for_everyone(policy, direction);
        let mut is_known = true;
        if direction == Direction::Ingress {
            // Only names are looked up in pods.
            let live = state.live_workloads().filter(|_| !named.is_empty());
            let mut pods = live.filter(|it| policy.pods.matches(&it.labels)).peekable();
            is_known = named.is_empty() || pods.peek().is_some();
            let ports = pods
                .flat_map(|pod| &pod.ports)
                .filter(|port| port.name.as_ref().is_some_and(|name| named.contains(&(port.protocol, name.clone()))));
            let resolved: Vec<_> =
                ports.map(|port| ConnectionSet::of(port.protocol, PortSet::single(port.number))).collect();
            numbered = numbered.union(&ConnectionSet::union_of(&resolved));
            // The API server calls a webhook from addresses that no policy can name.
            let answered = answered_ports(moment.view.cluster, &policy.namespace, &policy.pods);
            numbered = numbered.subtract(&ConnectionSet::of(Protocol::Tcp, answered));
        }
        match (direction, moment.profile) {
            // All of it is given back, which is another rule's to say: unless it was before as well.
            _ if openness::is_as_good_as_all(&numbered) && !self.was_given_back(policy, direction, moment) => {
                Action::Off
            }
            _ if numbered.is_empty() && is_known => Action::Off,
            (_, profile) if is_dns(&numbered) && is_known => of_dns(profile),
            (Direction::Ingress, Profile::Baseline) => Action::Audit,
            (Direction::Ingress, Profile::Restricted) | (Direction::Egress, _) => Action::Deny,
        }
    }

    /// Whether a change finds a policy that gives everything back already, so that what it adds is not
    /// what opens anything.
    fn was_given_back(&self, policy: &NetworkPolicy, direction: Direction, moment: &Moment<'_>) -> bool {
        let Some((_, before)) = moment.change.filter(|_| !moment.standing) else { return false };
        let policies = before.cluster.namespace(&policy.namespace).map(|state| &state.policies);
        policies
            .and_then(|policies| policies.get(policy.name.as_str()))
            .is_some_and(|before| openness::is_as_good_as_all(&self.ports_for_everyone(before, direction).numbered))
    }

    fn ceiling_of_blocks(&self, concerned: &PolicySet, family: Family, blocks: &Blocks, profile: Profile) -> Action {
        let is_wide = |by_place: &[IpSet]| {
            let sets = concerned.places().filter_map(|place| by_place.get(place));
            self.excess(&IpSet::union_of(sets), family).is_some()
        };
        // Rules without peers are told of themselves.
        if !is_wide(&blocks.all) {
            return Action::Off;
        }
        if is_wide(&blocks.beside_dns) { Action::Deny } else { of_dns(profile) }
    }

    /// Whether what a violation is about admits more than it did.
    fn has_grown(&self, violation: &Violation, then: &NamespaceState, now: &NamespaceState) -> bool {
        let (Aspect::Everyone(direction) | Aspect::WideBlock(direction, _)) = violation.aspect else { return false };
        let (concerned_then, concerned_now) =
            (self.concerned(violation, then, direction), self.concerned(violation, now, direction));
        let before: Vec<&NetworkPolicy> = then.policies.within(&concerned_then).collect();
        let after: Vec<&NetworkPolicy> = now.policies.within(&concerned_now).collect();
        if before == after {
            return false;
        }
        if let (Subject::Policy(_), [before], [after]) = (&violation.subject, before.as_slice(), after.as_slice())
            && growth::selects_more(before, after)
        {
            return true;
        }
        if let Aspect::WideBlock(_, family) = violation.aspect {
            let parts = |policies: &[&NetworkPolicy]| -> Vec<Part> {
                policies.iter().flat_map(|policy| self.grown_parts(policy, direction)).collect()
            };
            let is_wide = |addresses: &IpSet| self.excess(&self.too_many(addresses), family).is_some();
            return growth::grows(&parts(&before), &parts(&after), family, is_wide);
        }
        let ports = |policies: &[&NetworkPolicy]| {
            Ports::union_of(policies.iter().map(|it| self.ports_for_everyone(it, direction)).collect())
        };
        !ports(&before).is_superset(&ports(&after))
    }

    /// What a policy's rules admit, each for itself.
    fn grown_parts(&self, policy: &NetworkPolicy, direction: Direction) -> Vec<Part> {
        let allowed: IpSet = self.allow.iter().copied().collect();
        let part = |rule: &PolicyRule| {
            let addresses = match &rule.peers {
                Some(peers) => IpSet::union_of(peers.iter().filter_map(|peer| match peer {
                    PeerSpec::Block(block) => Some(&block.addresses),
                    PeerSpec::Pods { .. } | PeerSpec::Unreadable => None,
                })),
                None => IpSet::full(),
            };
            Part { ports: Ports::of(rule), addresses: addresses.subtract(&allowed) }
        };
        policy.rules(direction).iter().map(part).filter(|part| !part.addresses.is_empty()).collect()
    }

    /// The policies of a namespace that are wide by themselves.
    fn wide_policies(&self, state: &NamespaceState, aspect: &Aspect) -> PolicySet {
        let Aspect::WideBlock(direction, family) = aspect else { return state.policies.none() };
        state.policies.having(|policy| {
            policy.isolates.contains(*direction)
                && self.excess(&self.by_blocks(policy.rules(*direction)), *family).is_some()
        })
    }

    /// The policies a violation is about: the one it names, or all that a pod it is about comes under.
    fn concerned(&self, violation: &Violation, state: &NamespaceState, direction: Direction) -> PolicySet {
        let mut set = state.policies.none();
        let selecting = match &violation.subject {
            Subject::Workload(id) => state.workloads.get(id).map(|workload| state.policies.selecting(&workload.labels)),
            Subject::Policy(name) => {
                let Some(policy) = state.policies.get(name.as_str()) else { return set };
                let is_wide = match violation.aspect {
                    Aspect::WideBlock(_, family) => self.excess(&self.admitted(policy, direction), family).is_some(),
                    _ => true,
                };
                if is_wide {
                    state.policies.place(name.as_str()).into_iter().for_each(|place| set.insert(place));
                    return set;
                }
                Some(state.policies.selecting(&policy.pods.sample()))
            }
            Subject::Namespace | Subject::Waiver(_) => None,
        };
        let Some(selecting) = selecting else { return set };
        for place in selecting.places() {
            if state.policies.at(place).is_some_and(|policy| policy.isolates.contains(direction)) {
                set.insert(place);
            }
        }
        set
    }

    /// The names of those policies whose blocks something is wide by.
    fn behind(&self, aspect: &Aspect, concerned: &PolicySet, state: &NamespaceState) -> Arc<[Str]> {
        let Aspect::WideBlock(direction, family) = *aspect else { return Arc::new([]) };
        let has_blocks = |policy: &&NetworkPolicy| !self.by_blocks(policy.rules(direction)).only(family).is_empty();
        state.policies.within(concerned).filter(has_blocks).map(|policy| policy.name.clone()).collect()
    }

    /// What each block of a rule counts for, by its place, less what may be admitted.
    fn parts(&self, rule: &PolicyRule) -> Vec<(usize, IpSet)> {
        let blocks = rule.peers.iter().flatten().enumerate().filter_map(|(i, peer)| match peer {
            PeerSpec::Block(block) => Some((i, self.too_many(&block.addresses))),
            PeerSpec::Pods { .. } | PeerSpec::Unreadable => None,
        });
        blocks.collect()
    }
}

/// What the policies of a namespace admit by blocks in one direction, by their places.
struct Blocks {
    all: Vec<IpSet>,
    /// By rules that are not for DNS alone.
    beside_dns: Vec<IpSet>,
}

impl Blocks {
    fn of(rule: &WildcardIpBlock, state: &NamespaceState, direction: Direction) -> Self {
        let is_for_dns = |rule: &&PolicyRule| {
            let ports = Ports::of(rule);
            ports.named.is_empty() && is_dns(&ports.numbered)
        };
        let rules = || state.policies.iter().map(|policy| policy.rules(direction));
        Self {
            all: rules().map(|rules| rule.by_blocks(rules)).collect(),
            beside_dns: rules().map(|rules| rule.by_blocks(rules.iter().filter(|rule| !is_for_dns(rule)))).collect(),
        }
    }
}

fn direction_of(violation: &Violation) -> Option<Direction> {
    match violation.aspect {
        Aspect::Everyone(direction) | Aspect::WideBlock(direction, _) => Some(direction),
        _ => None,
    }
}

/// Whether ports are those of DNS and no others: the usual one, and the one OpenShift's pods listen on.
fn is_dns(ports: &ConnectionSet) -> bool {
    let dns = || PortSet::from_ranges([(53, 53), (5353, 5353)]);
    let dns = ConnectionSet::of(Protocol::Udp, dns()).union(&ConnectionSet::of(Protocol::Tcp, dns()));
    !ports.is_empty() && dns.is_superset(ports)
}

/// What is said of DNS ports that are open to all: the commonest DNS rule there is names no peer.
fn of_dns(profile: Profile) -> Action {
    match profile {
        Profile::Baseline => Action::Off,
        Profile::Restricted => Action::Warn,
    }
}

#[cfg(test)]
mod tests;
