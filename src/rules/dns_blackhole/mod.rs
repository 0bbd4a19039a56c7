//! NP002.

mod misses;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Action, Aspect, Finding, Meta, Moment, Profile, Rule, Scope, Severity, Subject, View, Violation, Watched, space,
    words, yaml,
};
use crate::cluster::{NamespaceState, PolicySet};
use crate::model::{
    Change, Direction, Directions, DnsPolicy, FieldPath, Labels, NetworkPolicy, Object, ObjectRef, Operation, PeerSpec,
    PolicyRule, Port, PortSpec, Selector, Str, Workload,
};
use crate::netset::{ConnectionSet, Family, IpSet, Protocol};
use crate::reach::{Answer, Dns, DnsSource, DnsTarget, Peer, Truth};

/// Reports pods whose policies leave them unable to resolve names.
///
/// ## Why is this bad?
/// A policy that isolates egress closes DNS with everything else. Nothing fails when it is applied:
/// connections that are open stay open, and then every new one fails with a timeout of several
/// seconds, in every program, at once. It is the most common outage that NetworkPolicies cause.
///
/// What counts is the union of the pod's policies, against the pods that really answer: those behind
/// the DNS Service, on the port they *listen* on (the Service's target port: 53 on most clusters,
/// 5353 on OpenShift), over UDP, and with the ingress policies of the DNS pods letting it in. A
/// Service's virtual address is translated before policies see it, so an `ipBlock` of it admits
/// nothing. Answers that do not fit a datagram need TCP: where only that is missing, a warning says
/// so.
///
/// ## Example
/// ```yaml
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: allow-dns
///   namespace: shop
/// spec:
///   podSelector: {}
///   policyTypes: [Ingress, Egress]
///   egress:
///   - to:
///     - namespaceSelector:
///         matchLabels:
///           name: kube-system   # no namespace carries this label unless somebody sets it
///     ports:
///     - {protocol: UDP, port: 53}
/// ---
/// apiVersion: v1
/// kind: Pod
/// metadata:
///   name: cart
///   namespace: shop
/// spec:
///   containers: [{name: cart, image: cart}]
/// ```
///
/// Use instead:
/// ```yaml
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: allow-dns
///   namespace: shop
/// spec:
///   podSelector: {}
///   policyTypes: [Ingress, Egress]
///   egress:
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
/// ---
/// apiVersion: v1
/// kind: Pod
/// metadata:
///   name: cart
///   namespace: shop
/// spec:
///   containers: [{name: cart, image: cart}]
/// ```
///
/// ## When it fires
/// When a policy is created, changed or deleted and pods can no longer resolve names; when a
/// workload is created or relabelled so that such policies select it; when a label of a namespace or
/// of the DNS pods changes so that a selector misses them; when a policy isolates the DNS pods.
///
/// ## What it does not see
/// Pods on their node's network, and pods that use the node's resolver (`dnsPolicy: Default`), whose
/// address no object tells. With `dnsPolicy: None`, the nameservers the pod names are judged.
/// Where no DNS objects are known, the identities the common distributions give cluster DNS are
/// taken for it, and the finding says so; `dns` in the configuration settles it.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DnsBlackhole {}

/// How bad a violation is; the ratchet compares these.
mod badness {
    /// Only large answers fail.
    pub(super) const NO_TCP: u8 = 1;
    /// Some replicas of DNS are out of reach: lookups fail now and then.
    pub(super) const PARTLY: u8 = 2;
    /// Whether names can be resolved depends on what enforces the policies.
    pub(super) const DEPENDS: u8 = 3;
    /// Nothing that is known to be DNS can be reached, but something that may be can.
    pub(super) const PRESUMED: u8 = 4;
    /// No name can be resolved.
    pub(super) const CERTAIN: u8 = 5;
}

impl Rule for DnsBlackhole {
    const META: Meta = Meta {
        code: "NP002",
        name: "dns-blackhole",
        severity: Severity::High,
        baseline: Action::Deny,
        restricted: Action::Deny,
        since: "0.1.0",
        // Not that a workload goes: only the DNS pods' own going could matter, and taking those
        // away is an outage that no policy makes.
        watches: &[
            Watched::NetworkPolicies.always(),
            Watched::Namespaces.when_set(),
            Watched::Workloads.when_set(),
            Watched::DnsServices.always(),
        ],
    };

    fn scope(&self, change: &Change, before: &View<'_>, after: &View<'_>) -> Scope {
        let is_dns_namespace = |name: &str| before.dns().is_in(name) || after.dns().is_in(name);
        match change.subject() {
            Object::NetworkPolicy(policy) => {
                let versions = [change.before(), change.after()];
                let isolates_dns = versions.into_iter().flatten().any(|version| match version {
                    Object::NetworkPolicy(policy) => {
                        policy.isolates.ingress && (selects_dns(before, policy) || selects_dns(after, policy))
                    }
                    _ => false,
                });
                if isolates_dns { Scope::Cluster } else { Scope::Namespace(policy.namespace.clone()) }
            }
            Object::Namespace(namespace) => {
                if change.operation() == Operation::Delete {
                    Scope::Nothing
                } else if is_dns_namespace(&namespace.name) {
                    Scope::Cluster
                } else {
                    Scope::Namespace(namespace.name.clone())
                }
            }
            Object::Workload(workload) => {
                if is_dns_namespace(&workload.namespace) && before.dns() != after.dns() {
                    Scope::Cluster
                } else if change.operation() == Operation::Delete {
                    Scope::Nothing
                } else {
                    Scope::Workload(workload.namespace.clone(), workload.id.clone())
                }
            }
            Object::Service(_) if before.dns() != after.dns() => Scope::Cluster,
            Object::Service(_)
            | Object::PeerAuthentication(_)
            | Object::MeshConfig(_)
            | Object::WebhookConfiguration(_)
            | Object::ForeignPolicy(_)
            | Object::Waiver(_) => Scope::Nothing,
        }
    }

    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>) {
        let is_dns_guarded = guarded_targets(view).next().is_some();
        for namespace in scope.namespaces(view.cluster) {
            let Some(state) = view.cluster.namespace(namespace) else { continue };
            if view.environment.namespaces.is_exempt(namespace) || state.is_terminating() {
                continue;
            }
            if !is_dns_guarded && !state.policies.iter().any(|policy| policy.isolates.egress) {
                continue;
            }
            let letting_out = if is_dns_guarded { state.policies.none() } else { policies_for_dns(view, state) };
            let mut verdicts: BTreeMap<Class, Option<(Aspect, u8)>> = BTreeMap::new();
            let mut push = |subject: Subject, workload: &Workload| {
                view.check_stop();
                let selecting = state.policies.selecting(&workload.labels);
                let uses_dns =
                    matches!(workload.dns_policy, DnsPolicy::ClusterFirst | DnsPolicy::ClusterFirstWithHostNet);
                if uses_dns && selecting.overlaps(&letting_out) {
                    return;
                }
                // The API gives no effect to egress rules of policies that isolate ingress only, so
                // only a pod that is isolated, or DNS pods that are, can be cut off.
                if !is_dns_guarded && view.reach().isolating(workload, Direction::Egress).next().is_none() {
                    return;
                }
                let judged = |_: &Class| Lookup::of(view, workload).and_then(|lookup| lookup.verdict(view));
                let verdict = match Class::of(view, state, workload) {
                    Some(class) => verdicts.entry(class).or_insert_with_key(judged).clone(),
                    None => Lookup::of(view, workload).and_then(|lookup| lookup.verdict(view)),
                };
                if let Some((aspect, badness)) = verdict {
                    out.push(Violation { namespace: namespace.clone(), subject, aspect, badness });
                }
            };
            for workload in scope.live_workloads(state) {
                push(Subject::Workload(workload.id.clone()), workload);
            }
            if let Scope::Namespace(_) | Scope::Cluster = scope {
                for policy in policies_without_pods(state) {
                    push(Subject::Policy(policy.name.clone()), &pod_to_come(policy));
                }
            }
        }
    }

    fn ceiling(&self, violation: &Violation, moment: &Moment<'_>) -> Action {
        let cluster = moment.view.cluster;
        let is_unknown = |namespace: &str| {
            cluster.foreign_policies(namespace).next().is_some()
                || cluster.namespace(namespace).is_some_and(|it| it.policies.unread().any(|policy| policy.is_partial))
        };
        // Where the DNS pods are isolated, what admits to them is part of the answer.
        let mut guarded = guarded_targets(moment.view);
        let is_unknown =
            is_unknown(&violation.namespace) || guarded.any(|target| is_unknown(&target.workload.namespace));
        // Policies are often applied before the workloads, and the one that closes before the one
        // that opens: no pod is dark yet, and creating one would be judged.
        let is_early = matches!(violation.subject, Subject::Policy(_)) && moment.change.is_some();
        if violation.badness < badness::CERTAIN || is_unknown || is_early { Action::Warn } else { Action::Deny }
    }

    fn loosened(&self, _before: &Self, _profile: Profile, _then: Profile) -> Vec<(&'static str, bool)> {
        let Self {} = self;
        Vec::new()
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        let view = moment.view;
        let mut groups: BTreeMap<(Option<&Str>, &Aspect, u8, Stop), Group<'_>> = BTreeMap::new();
        let mut stops: BTreeMap<(&Str, Class, &Aspect), Stop> = BTreeMap::new();
        for violation in violations {
            view.check_stop();
            let Some(workload) = workload_of(violation, view) else { continue };
            let Some(state) = view.cluster.namespace(&violation.namespace) else { continue };
            let class = Class::of(view, state, &workload);
            let known = class.clone().map(|class| (&violation.namespace, class, &violation.aspect));
            let of = || Stop::of(view, &workload, &violation.aspect);
            let stop = known.map_or_else(of, |known| *stops.entry(known).or_insert_with(of));
            // What stops lookups at the DNS pods stops them for everyone alike: it is one finding,
            // however many namespaces it is about.
            let namespace = (stop != Stop::Entering).then_some(&violation.namespace);
            let group = groups.entry((namespace, &violation.aspect, violation.badness, stop)).or_default();
            group.violations.push(violation);
            // Of workloads that are alike one speaks for all.
            let is_new = |class| group.classes.insert((&violation.namespace, class));
            if class.is_none_or(is_new) {
                group.workloads.push(workload);
            }
        }
        let one =
            |((_, _, badness, stop), group): ((_, _, _, _), Group<'_>)| explain_group(&group, badness, stop, moment);
        groups.into_iter().map(one).collect()
    }
}

/// What one finding is about.
#[derive(Default)]
struct Group<'a> {
    violations: Vec<&'a Violation>,
    /// One of each class.
    workloads: Vec<Cow<'a, Workload>>,
    classes: BTreeSet<(&'a Str, Class)>,
}

/// What decides whether a workload of a namespace can resolve names. Workloads of one class are judged
/// once: a namespace may hold thousands under as many policies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Class {
    /// The policies that select it or might.
    selecting: PolicySet,
    host_network: bool,
    dns_policy: DnsPolicy,
    nameservers: Vec<IpAddr>,
    /// The families it has addresses of.
    families: (bool, bool),
    /// What policies of the DNS pods may tell it by, where there are some.
    seen_as: Option<(Labels, Vec<IpAddr>)>,
}

impl Class {
    /// Nothing for what may be a DNS pod itself, which reaches itself whatever its policies.
    fn of(view: &View<'_>, state: &NamespaceState, workload: &Workload) -> Option<Self> {
        let dns = view.dns();
        if dns.is_in(&workload.namespace) {
            return None;
        }
        let has_policies = |target: &DnsTarget<'_>| {
            let state = view.cluster.namespace(&target.workload.namespace);
            state.is_some_and(|state| !state.policies.is_empty())
        };
        let is_seen = dns.targets.iter().any(has_policies);
        Some(Self {
            selecting: state.policies.maybe_selecting(&workload.labels),
            host_network: workload.host_network,
            dns_policy: workload.dns_policy,
            nameservers: workload.nameservers.clone(),
            families: (workload.ips.iter().any(IpAddr::is_ipv4), workload.ips.iter().any(IpAddr::is_ipv6)),
            seen_as: is_seen.then(|| (workload.labels.clone(), workload.ips.clone())),
        })
    }
}

/// At which end lookups are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    /// The pod's own policies do not let them out.
    Leaving,
    /// The policies of the DNS pods do not let them in.
    Entering,
    /// Both.
    Both,
}

impl Stop {
    fn of(view: &View<'_>, workload: &Workload, aspect: &Aspect) -> Self {
        let protocol = if *aspect == Aspect::DnsTcpMissing { Protocol::Tcp } else { Protocol::Udp };
        let port = |target: &DnsTarget<'_>| if protocol == Protocol::Tcp { target.tcp } else { target.udp };
        let mut ends = Vec::new();
        for target in &view.dns().targets {
            let Some(port) = port(target) else { continue };
            let out = view.reach().side(workload, Direction::Egress, Peer::Workload(&target.workload));
            let inward = view.reach().side(&target.workload, Direction::Ingress, Peer::Workload(workload));
            ends.push((out.certain.contains(protocol, port), inward.certain.contains(protocol, port)));
        }
        if ends.contains(&(true, false)) {
            Self::Entering
        } else if !ends.is_empty() && ends.iter().all(|(out, inward)| !out && !inward) {
            Self::Both
        } else {
            Self::Leaving
        }
    }
}

/// The pods of DNS that policies isolate.
fn guarded_targets<'v>(view: &'v View<'_>) -> impl Iterator<Item = &'v DnsTarget<'v>> {
    let is_guarded =
        |target: &&DnsTarget<'_>| view.reach().isolating(&target.workload, Direction::Ingress).next().is_some();
    view.dns().targets.iter().filter(is_guarded)
}

/// The workload a violation is about; a stand-in where a policy has no pods yet.
fn workload_of<'a>(violation: &Violation, view: &View<'a>) -> Option<Cow<'a, Workload>> {
    match &violation.subject {
        Subject::Workload(id) => {
            let workload = view.cluster.workload(&violation.namespace, id)?;
            Some(Cow::Borrowed(workload.as_ref()))
        }
        Subject::Policy(name) => {
            let policy = view.cluster.namespace(&violation.namespace)?.policies.get(name.as_str())?;
            Some(Cow::Owned(pod_to_come(policy)))
        }
        Subject::Namespace | Subject::Waiver(_) => None,
    }
}

/// The policies of a namespace that let their pods out to all of DNS, over UDP and TCP, in the
/// plainest way. Nearly every workload is under such a policy, and needs no more looking at where
/// the DNS pods let everyone in.
fn policies_for_dns(view: &View<'_>, state: &NamespaceState) -> PolicySet {
    let (reach, targets) = (view.reach(), &view.dns().targets);
    state.policies.having(|policy| {
        view.check_stop();
        !targets.is_empty()
            && targets.iter().all(|target| {
                let ports = [(Protocol::Udp, target.udp), (Protocol::Tcp, target.tcp)];
                target.udp.is_some()
                    && ports.into_iter().all(|(protocol, port)| {
                        port.is_none_or(|port| reach.lets_out_plainly(policy, &target.workload, protocol, port))
                    })
            })
    })
}

/// The policies that isolate the egress of pods that are not there yet.
fn policies_without_pods(state: &NamespaceState) -> impl Iterator<Item = &NetworkPolicy> {
    let mut without = state.policies.having(|policy| policy.isolates.egress);
    for workload in state.live_workloads() {
        if without.is_empty() {
            break;
        }
        without = without.less(&state.policies.selecting(&workload.labels));
    }
    state.policies.within(&without)
}

/// A pod that carries just what a policy selects.
fn pod_to_come(policy: &NetworkPolicy) -> Workload {
    Workload::bare("Pod", &policy.namespace, &policy.name, policy.pods.sample())
}

fn selects_dns(view: &View<'_>, policy: &NetworkPolicy) -> bool {
    let mut targets = view.dns().targets.iter().map(|target| &target.workload);
    targets.any(|workload| workload.namespace == policy.namespace && policy.pods.matches(&workload.labels))
}

/// One workload's ways to the resolvers it uses.
struct Lookup<'a, 'w> {
    workload: &'w Workload,
    resolvers: Vec<Resolver<'a>>,
}

/// One thing that answers DNS, and what of it can be reached.
struct Resolver<'a> {
    /// The pod; nothing for a resolver known by its address.
    target: Option<DnsTarget<'a>>,
    udp: Truth,
    /// Nothing where the resolver does not answer TCP as far as is known.
    tcp: Option<Truth>,
}

impl<'a, 'w> Lookup<'a, 'w> {
    /// Nothing for a workload that resolves names in a way no policy or object decides.
    fn of(view: &View<'a>, workload: &'w Workload) -> Option<Self> {
        if workload.host_network {
            return None;
        }
        let dns = view.dns();
        let resolvers = match workload.dns_policy {
            DnsPolicy::ClusterFirst | DnsPolicy::ClusterFirstWithHostNet => {
                let pods = dns.targets.iter().map(|target| Resolver::pod(view, workload, target));
                pods.chain(dns.addresses.iter().map(|ip| Resolver::address(view, workload, *ip))).collect()
            }
            DnsPolicy::None => {
                let pods = || dns.targets.iter().map(|target| Resolver::pod(view, workload, target));
                let resolvers = |ip: &IpAddr| match dns.source {
                    _ if dns.is_cluster_ip(*ip) => pods().collect(),
                    // With no DNS Service known, a private address may well be its.
                    DnsSource::WellKnown if is_private(*ip) => {
                        std::iter::once(Resolver::address(view, workload, *ip)).chain(pods()).collect()
                    }
                    DnsSource::Service
                    | DnsSource::ServiceWithoutPods
                    | DnsSource::Addresses
                    | DnsSource::WellKnown => {
                        vec![Resolver::address(view, workload, *ip)]
                    }
                };
                // No policy comes between a pod and a resolver within it.
                if workload.nameservers.iter().any(IpAddr::is_loopback) {
                    return None;
                }
                workload.nameservers.iter().flat_map(resolvers).collect::<Vec<_>>()
            }
            DnsPolicy::Default | DnsPolicy::Unknown => return None,
        };
        (!resolvers.is_empty()).then_some(Self { workload, resolvers })
    }

    fn verdict(&self, view: &View<'_>) -> Option<(Aspect, u8)> {
        let best = self.resolvers.iter().map(|resolver| resolver.udp).max()?;
        let is_cached = best < Truth::Yes && self.admits_a_node_local_cache(view);
        match best {
            Truth::No | Truth::Maybe if is_cached && view.dns().source == DnsSource::WellKnown => return None,
            Truth::No => {
                let is_presumed = is_cached || self.may_have_another_way(view);
                let badness = if is_presumed { badness::PRESUMED } else { badness::CERTAIN };
                return Some((Aspect::DnsUnreachable, badness));
            }
            Truth::Maybe => return Some((Aspect::DnsUnreachable, badness::DEPENDS)),
            Truth::Yes => {}
        }
        if view.dns().source == DnsSource::WellKnown && self.is_refused_somewhere(view) {
            return Some((Aspect::DnsUnreachable, badness::PRESUMED));
        }
        // A Service spreads lookups over its pods, so a pod out of reach fails some of them.
        let has_address = self.resolvers.iter().any(|it| it.target.is_none() && it.udp == Truth::Yes);
        let services: BTreeSet<&Str> = self
            .resolvers
            .iter()
            .filter_map(|resolver| Some(&resolver.target.as_ref()?.service?.name))
            .filter(|name| self.of_service(name).any(|resolver| resolver.udp == Truth::Yes))
            .collect();
        let is_whole = |name: &&&Str| self.of_service(name).all(|resolver| resolver.udp == Truth::Yes);
        if !has_address && !services.is_empty() && services.iter().find(is_whole).is_none() {
            return Some((Aspect::DnsPartly, badness::PARTLY));
        }
        let mut usable = self.resolvers.iter().filter(|resolver| resolver.udp == Truth::Yes);
        let lacks_tcp = usable.all(|resolver| resolver.tcp == Some(Truth::No));
        lacks_tcp.then_some((Aspect::DnsTcpMissing, badness::NO_TCP))
    }

    fn of_service(&self, name: &Str) -> impl Iterator<Item = &Resolver<'a>> {
        self.resolvers.iter().filter(move |resolver| {
            resolver.target.as_ref().and_then(|target| target.service).is_some_and(|service| service.name == *name)
        })
    }

    /// Whether something else that this pod may reach could be its DNS after all, where DNS itself
    /// is only presumed: a custom deployment the known objects do not show.
    fn may_have_another_way(&self, view: &View<'_>) -> bool {
        let is_own =
            self.workload.dns_policy == DnsPolicy::None && self.workload.nameservers.iter().copied().any(is_private);
        match view.dns().source {
            // A private nameserver may be a Service's address, and the rule name its pods.
            DnsSource::Service | DnsSource::Addresses
                if is_own && self.workload.nameservers.iter().copied().any(is_private) =>
            {
                self.egress_rules(view).any(|(_, rule)| {
                    let has_pods = rule.peers.iter().flatten().any(|peer| matches!(peer, PeerSpec::Pods { .. }));
                    has_pods && misses::mentions_dns(rule) && admits_dns_port(rule)
                })
            }
            DnsSource::Service | DnsSource::Addresses => false,
            // The configuration knows better than the objects do.
            DnsSource::WellKnown if !view.environment.dns.services.is_empty() => true,
            DnsSource::ServiceWithoutPods | DnsSource::WellKnown => self.egress_rules(view).any(|(policy, rule)| {
                (misses::mentions_dns(rule) || misses::names_dns(rule))
                    && admits_dns_port(rule)
                    && misses::peers(view, policy, rule).any(|miss| miss.is_none())
            }),
        }
    }

    /// Whether a node-local cache is admitted: nobody writes a link-local network into a policy but
    /// for one, and for lookups it takes the place of the DNS pods.
    fn admits_a_node_local_cache(&self, view: &View<'_>) -> bool {
        let link_local = IpSet::from(space::LINK_LOCAL);
        let names_it = |peer: &PeerSpec| match peer {
            PeerSpec::Block(block) => !block.addresses.is_empty() && link_local.is_superset(&block.addresses),
            PeerSpec::Pods { .. } | PeerSpec::Unreadable => false,
        };
        self.egress_rules(view).any(|(_, rule)| rule.peers.iter().flatten().any(names_it) && admits_dns_port(rule))
    }

    /// Whether pods that carry one of the usual identities of DNS refuse this pod: somebody isolates
    /// them, so they are there, and the other identities, which nobody isolates, may well not be.
    fn is_refused_somewhere(&self, view: &View<'_>) -> bool {
        let refused = |resolver: &Resolver<'_>| {
            let Some(target) = resolver.target.as_ref() else { return false };
            let Some(port) = target.udp.filter(|_| resolver.udp == Truth::No) else { return false };
            let out = view.reach().side(self.workload, Direction::Egress, Peer::Workload(&target.workload));
            out.certain.contains(Protocol::Udp, port)
        };
        self.resolvers.iter().any(refused)
    }

    fn egress_rules<'v>(&self, view: &View<'v>) -> impl Iterator<Item = (&'v NetworkPolicy, &'v PolicyRule)> + use<'v> {
        let isolating = view.reach().isolating(self.workload, Direction::Egress);
        isolating.flat_map(|policy| policy.egress.iter().map(move |rule| (policy, rule)))
    }
}

fn is_private(address: IpAddr) -> bool {
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    space::private(family).iter().any(|network| network.contains(&address))
}

impl<'a> Resolver<'a> {
    fn pod(view: &View<'a>, workload: &Workload, target: &DnsTarget<'a>) -> Self {
        let ports = [(Protocol::Udp, target.udp.unwrap_or(53)), (Protocol::Tcp, target.tcp.unwrap_or(53))];
        let answer = view.reach().about(&ports).connections(Peer::Workload(workload), Peer::Workload(&target.workload));
        let mut udp = target.udp.map_or(Truth::No, |port| reached(&answer, Protocol::Udp, port));
        let mut tcp = target.tcp.map(|port| reached(&answer, Protocol::Tcp, port));
        let cluster_ips = target.service.map(|service| service.cluster_ips.as_slice()).unwrap_or_default();
        if view.environment.cni.sees_cluster_ips() {
            for ip in cluster_ips {
                let virtual_address = Self::address(view, workload, *ip);
                udp = udp.max(virtual_address.udp);
                tcp = tcp.max(virtual_address.tcp);
            }
        }
        Self { target: Some(target.clone()), udp, tcp }
    }

    fn address(view: &View<'a>, workload: &Workload, ip: IpAddr) -> Self {
        let range = IpSet::from(ip);
        let ports = [(Protocol::Udp, 53), (Protocol::Tcp, 53)];
        let answer = view.reach().about(&ports).connections(Peer::Workload(workload), Peer::External(&range));
        let tcp = Some(reached(&answer, Protocol::Tcp, 53));
        Self { target: None, udp: reached(&answer, Protocol::Udp, 53), tcp }
    }
}

fn reached(answer: &Answer<'_>, protocol: Protocol, port: u16) -> Truth {
    match (answer.certain.contains(protocol, port), answer.possible.contains(protocol, port)) {
        (true, _) => Truth::Yes,
        (false, true) => Truth::Maybe,
        (false, false) => Truth::No,
    }
}

/// Whether a rule admits UDP on a port DNS is known to use.
fn admits_dns_port(rule: &PolicyRule) -> bool {
    rule.ports.as_ref().is_none_or(|ports| {
        ports.iter().any(|PortSpec { protocol, port }| {
            *protocol == Protocol::Udp
                && match port {
                    Port::All | Port::Named(_) | Port::Unreadable => true,
                    Port::Range(first, last) => [53, 5353].iter().any(|dns| (first..=last).contains(&dns)),
                }
        })
    })
}

fn explain_group(group: &Group<'_>, badness: u8, stop: Stop, moment: &Moment<'_>) -> Finding {
    let view = moment.view;
    let workloads: Vec<&Workload> = group.workloads.iter().map(AsRef::as_ref).collect();
    let namespaces: BTreeSet<&Str> = group.violations.iter().map(|violation| &violation.namespace).collect();
    let namespaces: Vec<&Str> = namespaces.into_iter().collect();
    let isolating = if stop == Stop::Entering { Vec::new() } else { isolating_policies(view, &workloads) };
    let culprits = misses::of(view, &looked_into(&isolating, moment));
    let (object, path) = place(&namespaces, moment, &isolating, &culprits);
    let namespace = if let [namespace] = namespaces.as_slice() { Some((*namespace).clone()) } else { None };
    let text = message(group, &namespaces, badness, &isolating, stop, view);
    let mut finding = Finding::new(namespace, object, path, text);
    finding.why = match badness {
        badness::NO_TCP => "answers that do not fit a datagram are asked for again over TCP: lookups with many records fail, and only those",
        badness::PARTLY => "lookups are spread over all DNS pods, so some of them time out, now and then",
        _ => "every new connection starts with a lookup, and each will fail after a timeout of several seconds; connections that are open stay open and hide it",
    }
    .to_owned();
    finding.evidence.push(describe(view.dns()));
    finding.evidence.extend(culprits.into_iter().map(|miss| miss.text));
    if stop != Stop::Leaving {
        finding.evidence.extend(refusals(view, &workloads));
    }
    let mut foreign = namespaces.iter().flat_map(|namespace| view.cluster.foreign_policies(namespace));
    let mut at_dns = guarded_targets(view).flat_map(|it| view.cluster.foreign_policies(&it.workload.namespace));
    if let Some(foreign) = foreign.next().or_else(|| at_dns.next()) {
        let (kind, name) = (&foreign.kind, &foreign.name);
        finding.evidence.push(format!(
            "{kind} `{name}` may decide this too; its meaning is not judged here, so this is at most a warning"
        ));
    }
    let apply = match moment.change.map(|(change, _)| change) {
        Some(Change::Create(Object::NetworkPolicy(policy))) => {
            let name = &policy.name;
            format!(
                "apply the policy that admits DNS before `{name}`, or write it above `{name}` in the same file, which `kubectl` applies from the top. If you have none, this is one"
            )
        }
        Some(_) => "apply this first".to_owned(),
        None => "apply this as well".to_owned(),
    };
    finding.help = match (badness, stop) {
        (badness::DEPENDS, _) => "name the pods instead of their addresses, as below; or set `cni.name` and `cni.podRanges` in the configuration, so that they need not be guessed".to_owned(),
        (_, Stop::Leaving) => format!("{apply}: it lets these pods reach DNS and opens nothing else"),
        (_, Stop::Entering) => format!("{apply}: it lets every pod ask the DNS pods and opens nothing else"),
        (_, Stop::Both) => format!("{apply}: it lets these pods reach DNS and every pod ask the DNS pods, and opens nothing else"),
    };
    let mut documents = Vec::new();
    if stop != Stop::Entering {
        let mut pods: BTreeMap<&Str, Vec<&Workload>> = BTreeMap::new();
        for workload in workloads {
            pods.entry(&workload.namespace).or_default().push(workload);
        }
        let written: Option<Vec<_>> =
            pods.iter().map(|(namespace, workloads)| allow_dns(namespace, workloads, moment)).collect();
        let Some(written) = written else {
            finding.help = "let these pods reach DNS, each by a policy that selects it: they are under too many different policies to write those out here".to_owned();
            return finding;
        };
        documents.extend(written.into_iter().flatten());
    }
    if stop != Stop::Leaving {
        let guarded: BTreeSet<&Str> = guarded_targets(view).map(|target| &target.workload.namespace).collect();
        let admitting = guarded.into_iter().flat_map(|namespace| {
            yaml::admit_dns_clients(view.dns(), namespace, &mut yaml::FreeNames::of(namespace, moment))
        });
        documents.extend(admitting.map(|policy| yaml::network_policy(&policy)));
    }
    finding.fix = yaml::documents(&documents);
    finding
}

fn message(
    group: &Group<'_>,
    namespaces: &[&Str],
    badness: u8,
    isolating: &[&NetworkPolicy],
    stop: Stop,
    view: &View<'_>,
) -> String {
    let pods = words::workloads(view.cluster, &group.violations);
    let whose = match (pods.as_slice(), isolating) {
        ([], [policy]) if !policy.pods.is_everything() => {
            format!("pods with `{}`, of which there are none yet,", policy.pods)
        }
        ([], _) => "pods to come".to_owned(),
        _ => words::some_of(&pods),
    };
    let place = if let [namespace] = namespaces {
        format!("in namespace `{namespace}`, {whose}")
    } else {
        let named: Vec<_> = namespaces.iter().map(|namespace| format!("`{namespace}`")).collect();
        format!("workloads of namespaces {}", words::some_of(&named))
    };
    let by = match stop {
        Stop::Entering | Stop::Both => {
            let mut guards: Vec<String> = guarded_targets(view)
                .flat_map(|target| view.reach().isolating(&target.workload, Direction::Ingress))
                .map(|policy| format!("`{}/{}`", policy.namespace, policy.name))
                .collect();
            guards.sort();
            guards.dedup();
            let verb = if guards.len() == 1 { "isolates" } else { "isolate" };
            let admits = if is_admitted_over_tcp(view, group) {
                "the policies there admit them over TCP only, while lookups start over UDP"
            } else {
                "no policy there admits them"
            };
            format!("{} {verb} the DNS pods and {admits}", policies(&guards))
        }
        Stop::Leaving => {
            let names: Vec<_> = isolating.iter().map(|policy| format!("`{}`", policy.name)).collect();
            let verb = if names.len() == 1 { "isolates" } else { "isolate" };
            format!("{} {verb} egress and no policy admits DNS", policies(&names))
        }
    };
    match badness {
        badness::NO_TCP => format!("{place} can ask DNS over UDP but not over TCP"),
        badness::PARTLY => format!("{place} can reach only some of the DNS pods"),
        badness::DEPENDS => format!("{place} may be unable to resolve names: {}", doubt(&group.workloads, view)),
        badness::PRESUMED => format!("{place} can probably resolve no name: {by} where it usually is"),
        _ => format!("{place} can resolve no name: {by}"),
    }
}

/// Whether the DNS pods let these workloads in on the port they answer TCP on.
fn is_admitted_over_tcp(view: &View<'_>, group: &Group<'_>) -> bool {
    guarded_targets(view).any(|target| {
        let admits = |workload: &Cow<'_, Workload>| {
            let side = view.reach().side(&target.workload, Direction::Ingress, Peer::Workload(workload));
            target.tcp.is_some_and(|port| side.certain.contains(Protocol::Tcp, port))
        };
        group.workloads.iter().any(admits)
    })
}

/// ``NetworkPolicy `a` ``, ``NetworkPolicies `a` and `b` ``.
fn policies(names: &[String]) -> String {
    let noun = if names.len() == 1 { "NetworkPolicy" } else { "NetworkPolicies" };
    format!("{noun} {}", words::some_of(names))
}

/// What the answer depends on that is not known.
fn doubt(workloads: &[Cow<'_, Workload>], view: &View<'_>) -> String {
    let targets = view.dns().targets.iter().map(|target| target.workload.as_ref());
    let ends = workloads.iter().map(AsRef::as_ref).chain(targets);
    let mut selecting = ends.flat_map(|workload| view.reach().policies_of(workload));
    if let Some(policy) = selecting.find(|policy| policy.is_partial) {
        return format!("a part of NetworkPolicy `{}/{}` could not be read", policy.namespace, policy.name);
    }
    let mut admitting = workloads
        .iter()
        .flat_map(|workload| view.reach().isolating(workload, Direction::Egress))
        .flat_map(|policy| &policy.egress)
        .filter(|rule| admits_dns_port(rule));
    if admitting.any(|rule| rule.peers.iter().flatten().any(|peer| matches!(peer, PeerSpec::Block(_)))) {
        return "whether an `ipBlock` admits DNS depends on what enforces the policies".to_owned();
    }
    "what their policies admit depends on pods or an implementation that is not known".to_owned()
}

/// The policies that isolate the egress of these workloads, by name.
fn isolating_policies<'a>(view: &View<'a>, workloads: &[&Workload]) -> Vec<&'a NetworkPolicy> {
    let mut by_namespace: BTreeMap<&Str, PolicySet> = BTreeMap::new();
    for workload in workloads.iter().filter(|workload| !workload.host_network) {
        let Some(state) = view.cluster.namespace(&workload.namespace) else { continue };
        let set = by_namespace.entry(&workload.namespace).or_insert_with(|| state.policies.none());
        set.insert_all(&state.policies.selecting(&workload.labels));
    }
    let all = by_namespace.iter().filter_map(|(namespace, set)| {
        Some(view.cluster.namespace(namespace)?.policies.within(set).filter(|policy| policy.isolates.egress))
    });
    let by_name: BTreeMap<&str, &NetworkPolicy> = all.flatten().map(|policy| (policy.name.as_str(), policy)).collect();
    by_name.into_values().collect()
}

/// How many policies are looked into for rules that were meant for DNS and miss it.
const MOST_LOOKED_INTO: usize = 50;

/// The policies to look into: the one under review, and the first of the others.
fn looked_into<'a>(isolating: &[&'a NetworkPolicy], moment: &Moment<'_>) -> Vec<&'a NetworkPolicy> {
    let reviewed = moment.change.map(|(change, _)| change.reference());
    let is_reviewed = |policy: &&&NetworkPolicy| reviewed.as_ref().is_some_and(|it| it.name == policy.name);
    let first = isolating.iter().take(MOST_LOOKED_INTO);
    first.chain(isolating.iter().skip(MOST_LOOKED_INTO).filter(is_reviewed)).copied().collect()
}

/// Where DNS was found, or that it was not.
fn describe(dns: &Dns<'_>) -> String {
    let ports = |target: &DnsTarget<'_>| {
        let named = [(Protocol::Udp, target.udp), (Protocol::Tcp, target.tcp)];
        let named: Vec<_> =
            named.into_iter().filter_map(|(protocol, port)| Some(format!("{protocol} {}", port?))).collect();
        words::list(&named)
    };
    match dns.source {
        DnsSource::Service | DnsSource::ServiceWithoutPods => {
            let mut found: Vec<String> = dns
                .targets
                .iter()
                .filter_map(|target| {
                    let service = target.service?;
                    let selector = service.selector.clone().unwrap_or_default();
                    Some(format!(
                        "Service `{}/{}` (pods `{selector}`, listening on {})",
                        service.namespace,
                        service.name,
                        ports(target)
                    ))
                })
                .collect();
            found.sort();
            found.dedup();
            let doubt = if dns.source == DnsSource::ServiceWithoutPods { "; its pods are not among the known objects" } else { "" };
            format!("cluster DNS is {}{doubt}", words::list(&found))
        }
        DnsSource::Addresses => {
            let addresses: Vec<_> = dns.addresses.iter().map(|ip| format!("`{ip}`")).collect();
            format!("cluster DNS is at {}, as the configuration says", words::list(&addresses))
        }
        DnsSource::WellKnown => "no DNS Service is among the known objects, so its usual place is assumed: pods `k8s-app=kube-dns` in namespace `kube-system`, port 53 (`dns` in the configuration names another)".to_owned(),
    }
}

/// The policies on DNS pods that keep these workloads out, and of which pods.
fn refusals(view: &View<'_>, workloads: &[&Workload]) -> Vec<String> {
    let mut refusing: BTreeMap<(&Str, &Str, u16), BTreeSet<String>> = BTreeMap::new();
    for target in &view.dns().targets {
        let Some(port) = target.udp else { continue };
        let refuses = |workload: &&Workload| {
            let side = view.reach().side(&target.workload, Direction::Ingress, Peer::Workload(workload));
            !side.certain.contains(Protocol::Udp, port)
        };
        if workloads.iter().any(refuses) {
            for policy in view.reach().isolating(&target.workload, Direction::Ingress) {
                let pods = format!("`{}`", view.cluster.root_owner(&target.workload));
                refusing.entry((&policy.namespace, &policy.name, port)).or_default().insert(pods);
            }
        }
    }
    let line = |((namespace, name, port), pods): ((&Str, &Str, u16), BTreeSet<String>)| {
        let pods = words::some_of(&pods.into_iter().collect::<Vec<_>>());
        format!(
            "NetworkPolicy `{namespace}/{name}` isolates {pods}, which answer DNS, and does not admit these pods on UDP {port}"
        )
    };
    refusing.into_iter().map(line).collect()
}

fn place(
    namespaces: &[&Str],
    moment: &Moment<'_>,
    isolating: &[&NetworkPolicy],
    culprits: &[misses::Miss],
) -> (ObjectRef, FieldPath) {
    let of = |namespace: &Str, policy: &Str| ObjectRef {
        kind: "NetworkPolicy".into(),
        namespace: Some(namespace.clone()),
        name: policy.clone(),
    };
    if let Some((change, _)) = moment.change {
        let reference = change.reference();
        let in_change = culprits.iter().find(|miss| of(&miss.namespace, &miss.policy) == reference);
        let path = match (in_change, change.after()) {
            (Some(miss), _) => miss.path.clone(),
            (None, Some(Object::NetworkPolicy(policy))) if !isolating.is_empty() && policy.isolates.egress => {
                FieldPath::new("spec.policyTypes")
            }
            (None, Some(Object::NetworkPolicy(policy))) if policy.isolates.ingress => FieldPath::new("spec.ingress"),
            (None, Some(Object::Workload(workload))) => workload.pod_path().field("metadata").field("labels"),
            (None, Some(Object::Namespace(_))) => FieldPath::new("metadata.labels"),
            (None, _) => FieldPath::root(),
        };
        return (reference, path);
    }
    if let Some(miss) = culprits.first() {
        return (of(&miss.namespace, &miss.policy), miss.path.clone());
    }
    if let Some(policy) = isolating.first() {
        return (of(&policy.namespace, &policy.name), FieldPath::new("spec.policyTypes"));
    }
    let view = moment.view;
    let guard = guarded_targets(view).find_map(|it| view.reach().isolating(&it.workload, Direction::Ingress).next());
    match (guard, namespaces.first()) {
        (Some(policy), _) => (of(&policy.namespace, &policy.name), FieldPath::new("spec.ingress")),
        (None, namespace) => {
            let name = namespace.map(|namespace| (*namespace).clone()).unwrap_or_default();
            (ObjectRef { kind: "Namespace".into(), namespace: None, name }, FieldPath::root())
        }
    }
}

/// How many policies are written out for a namespace.
const MOST_WRITTEN_OUT: usize = 32;

/// Policies that let the workloads reach DNS; none where they would be too many. They select what isolating policies select already,
/// so that no pod is isolated by the mending.
fn allow_dns(namespace: &Str, workloads: &[&Workload], moment: &Moment<'_>) -> Option<Vec<String>> {
    let (view, dns) = (moment.view, moment.view.dns());
    let mut selectors: Vec<Selector> = Vec::new();
    for workload in workloads {
        if selectors.iter().any(|selector| selector.matches(&workload.labels)) {
            continue;
        }
        let isolating = view.reach().isolating(workload, Direction::Egress);
        // The widest selector mends the most workloads at once.
        if let Some(policy) = isolating.min_by_key(|policy| policy.pods.requirements().len()) {
            selectors.push(policy.pods.clone());
            if selectors.len() > MOST_WRITTEN_OUT {
                return None;
            }
        }
    }
    let mut names = yaml::FreeNames::of(namespace, moment);
    let policy = |selector: Selector| {
        let selected = || workloads.iter().copied().filter(|workload| selector.matches(&workload.labels));
        let uses_cluster_dns = |workload: &Workload| {
            workload.dns_policy != DnsPolicy::None || workload.nameservers.iter().any(|ip| dns.is_cluster_ip(*ip))
        };
        let mut rules = if selected().any(uses_cluster_dns) { yaml::dns_rules(dns) } else { Vec::new() };
        rules.extend(yaml::address_rule(&yaml::nameservers(dns, selected())));
        let egress_only = Directions { ingress: false, egress: true };
        yaml::network_policy(&yaml::isolating(namespace, names.next("allow-dns"), selector, egress_only, rules))
    };
    Some(selectors.into_iter().map(policy).collect())
}

/// What a rule's ports come to, in words; named ports by their names.
fn ports_in_words(rule: &PolicyRule) -> String {
    let Some(ports) = &rule.ports else { return "all ports".to_owned() };
    let words: Vec<_> = ports
        .iter()
        .map(|PortSpec { protocol, port }| match port {
            Port::All => format!("all {protocol}"),
            Port::Range(first, last) => {
                ConnectionSet::of(*protocol, crate::netset::PortSet::range(*first, *last)).to_string()
            }
            Port::Named(name) => format!("{protocol} `{name}`"),
            Port::Unreadable => format!("{protocol} (unreadable)"),
        })
        .collect();
    words::list(&words)
}

#[cfg(test)]
mod tests;
