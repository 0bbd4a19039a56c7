//! NP002.

mod misses;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Aspect, Finding, Meta, Moment, Rule, Scope, Severity, Subject, View, Violation, words, yaml};
use crate::cluster::NamespaceState;
use crate::model::{
    Change, Direction, Directions, DnsPolicy, FieldPath, Labels, NetworkPolicy, Object, ObjectRef, Operation, Operator,
    PolicyRule, Port, PortSpec, Requirement, Selector, Str, Workload,
};
use crate::netset::{ConnectionSet, IpSet, Protocol};
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
        watches: &[
            "networking.k8s.io/networkpolicies",
            "/namespaces",
            "/pods",
            "/services",
            "/replicationcontrollers",
            "apps/deployments",
            "apps/statefulsets",
            "apps/daemonsets",
            "apps/replicasets",
            "batch/jobs",
            "batch/cronjobs",
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
            | Object::Revision(_)
            | Object::ForeignPolicy(_) => Scope::Nothing,
        }
    }

    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>) {
        let is_dns_guarded = view
            .dns()
            .targets
            .iter()
            .any(|target| view.reach().isolating(&target.workload, Direction::Ingress).next().is_some());
        for namespace in scope.namespaces(view.cluster) {
            let Some(state) = view.cluster.namespace(namespace) else { continue };
            if view.environment.namespaces.is_exempt(namespace) || state.is_terminating() {
                continue;
            }
            if !is_dns_guarded && !state.policies.iter().any(|policy| policy.isolates.egress) {
                continue;
            }
            let mut push = |subject: Subject, workload: &Workload| {
                if let Some((aspect, badness)) = Lookup::of(view, workload).and_then(|lookup| lookup.verdict(view)) {
                    out.push(Violation { namespace: namespace.clone(), subject, aspect, badness });
                }
            };
            for workload in state.live_workloads().filter(|workload| scope.covers(namespace, &workload.id)) {
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
        let state = cluster.namespace(&violation.namespace);
        let is_unknown = cluster.foreign_policies(&violation.namespace).next().is_some()
            || state.is_some_and(|state| state.policies.iter().any(|policy| policy.is_partial));
        // Policies are often applied before the workloads, and the one that closes before the one
        // that opens: no pod is dark yet, and creating one would be judged.
        let is_early = matches!(violation.subject, Subject::Policy(_)) && moment.change.is_some();
        if violation.badness < badness::CERTAIN || is_unknown || is_early { Action::Warn } else { Action::Deny }
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        let mut groups: BTreeMap<(&Str, &Aspect, u8), Vec<&Violation>> = BTreeMap::new();
        for violation in violations {
            groups.entry((&violation.namespace, &violation.aspect, violation.badness)).or_default().push(violation);
        }
        groups
            .into_iter()
            .map(|((namespace, _, badness), group)| explain_group(namespace, badness, &group, moment))
            .collect()
    }
}

/// The policies that isolate the egress of pods that are not there yet.
fn policies_without_pods(state: &NamespaceState) -> impl Iterator<Item = &NetworkPolicy> {
    let selects_none =
        |policy: &&NetworkPolicy| !state.live_workloads().any(|workload| policy.pods.matches(&workload.labels));
    state.policies.iter().map(AsRef::as_ref).filter(|policy| policy.isolates.egress).filter(selects_none)
}

/// A pod that carries just what a policy selects.
fn pod_to_come(policy: &NetworkPolicy) -> Workload {
    let label = |requirement: &Requirement| match &requirement.operator {
        Operator::In(values) => Some((requirement.key.clone(), values.first()?.clone())),
        Operator::Exists => Some((requirement.key.clone(), Str::default())),
        Operator::NotIn(_) | Operator::DoesNotExist | Operator::Unknown(_) => None,
    };
    let labels: Labels = policy.pods.requirements().iter().filter_map(label).collect();
    Workload::bare("Pod", &policy.namespace, &policy.name, labels)
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
                let resolver = |ip: &IpAddr| {
                    if dns.is_cluster_ip(*ip) {
                        dns.targets.iter().map(|target| Resolver::pod(view, workload, target)).collect()
                    } else {
                        vec![Resolver::address(view, workload, *ip)]
                    }
                };
                workload.nameservers.iter().flat_map(resolver).collect::<Vec<_>>()
            }
            DnsPolicy::Default | DnsPolicy::Unknown => return None,
        };
        (!resolvers.is_empty()).then_some(Self { workload, resolvers })
    }

    fn verdict(&self, view: &View<'_>) -> Option<(Aspect, u8)> {
        let best = self.resolvers.iter().map(|resolver| resolver.udp).max()?;
        match best {
            Truth::No => {
                let badness = if self.may_have_another_way(view) { badness::PRESUMED } else { badness::CERTAIN };
                return Some((Aspect::DnsUnreachable, badness)).filter(|_| !self.has_link_local_resolver(view));
            }
            Truth::Maybe => return Some((Aspect::DnsUnreachable, badness::DEPENDS)),
            Truth::Yes => {}
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
        match view.dns().source {
            DnsSource::Service | DnsSource::Addresses => false,
            DnsSource::ServiceWithoutPods | DnsSource::WellKnown => view
                .reach()
                .isolating(self.workload, Direction::Egress)
                .flat_map(|policy| policy.egress.iter().map(move |rule| (policy, rule)))
                .any(|(policy, rule)| {
                    misses::mentions_dns(rule)
                        && admits_dns_port(rule)
                        && misses::peers(view, policy, rule).any(|miss| miss.is_none())
                }),
        }
    }

    /// Whether a node-local cache is admitted, where DNS itself is only presumed. Nobody writes a
    /// link-local address into a policy but for one.
    fn has_link_local_resolver(&self, view: &View<'_>) -> bool {
        let link_local = IpSet::from(IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10)))
            .union(&IpSet::from(IpAddr::V4(Ipv4Addr::new(169, 254, 25, 10))))
            .union(&IpSet::from(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254))));
        view.dns().source == DnsSource::WellKnown
            && view
                .reach()
                .side(self.workload, Direction::Egress, Peer::External(&link_local))
                .possible
                .contains(Protocol::Udp, 53)
    }
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

fn explain_group(namespace: &Str, badness: u8, group: &[&Violation], moment: &Moment<'_>) -> Finding {
    let view = moment.view;
    let pods = words::workloads(view.cluster, group);
    let workloads: Vec<Cow<'_, Workload>> = group
        .iter()
        .filter_map(|violation| match &violation.subject {
            Subject::Workload(id) => view.cluster.workload(namespace, id).map(|found| Cow::Borrowed(found.as_ref())),
            Subject::Policy(name) => {
                let policy = view.cluster.namespace(namespace)?.policies.get(name.as_str())?;
                Some(Cow::Owned(pod_to_come(policy)))
            }
            Subject::Namespace => None,
        })
        .collect();
    let workloads: Vec<&Workload> = workloads.iter().map(AsRef::as_ref).collect();
    // Where their own policies let them out, it is the DNS pods' that do not let them in.
    let isolating = if workloads.iter().all(|workload| is_let_out(view, workload, badness)) {
        Vec::new()
    } else {
        isolating_policies(view, &workloads)
    };
    let culprits = misses::of(view, &isolating);
    let names: Vec<_> = isolating.iter().map(|policy| format!("`{}`", policy.name)).collect();
    let by = match isolating.len() {
        0 => "the policies on the DNS pods do not let them in".to_owned(),
        1 => format!("NetworkPolicy {} isolates their egress and no policy lets them reach DNS", words::list(&names)),
        _ => format!("NetworkPolicies {} isolate their egress and none lets them reach DNS", words::some_of(&names)),
    };
    let whose = match (pods.as_slice(), isolating.as_slice()) {
        ([], [policy]) if !policy.pods.is_everything() => {
            format!("pods with `{}`, of which there are none yet,", policy.pods)
        }
        ([], _) => "the pods to come".to_owned(),
        _ => words::some_of(&pods),
    };
    let message = match badness {
        badness::NO_TCP => format!("in namespace `{namespace}`, {whose} can ask DNS over UDP but not over TCP"),
        badness::PARTLY => format!("in namespace `{namespace}`, {whose} can reach only some of the DNS pods"),
        badness::DEPENDS => format!(
            "in namespace `{namespace}`, {whose} may be unable to resolve names: whether an `ipBlock` admits DNS depends on what enforces the policies"
        ),
        badness::PRESUMED => {
            format!("in namespace `{namespace}`, {whose} can probably not resolve names: {by} as it is usually set up")
        }
        _ => format!("in namespace `{namespace}`, {whose} can resolve no name: {by}"),
    };
    let (object, path) = place(namespace, moment, &isolating, &culprits);
    let mut finding = Finding::new(Some(namespace.clone()), object, path, message);
    finding.why = match badness {
        badness::NO_TCP => "answers that do not fit a datagram are asked for again over TCP: lookups with many records fail, and only those",
        badness::PARTLY => "lookups are spread over all DNS pods, so some of them time out, now and then",
        _ => "every new connection starts with a lookup, and each will fail after a timeout of several seconds; connections that are open stay open and hide it",
    }
    .to_owned();
    finding.evidence.push(describe(view.dns()));
    finding.evidence.extend(culprits.into_iter().map(|miss| miss.text));
    let refusals = refusals(view, &workloads);
    let is_refused = !refusals.is_empty();
    finding.evidence.extend(refusals);
    if let Some(foreign) = view.cluster.foreign_policies(namespace).next() {
        let (kind, name) = (&foreign.kind, &foreign.name);
        finding.evidence.push(format!(
            "{kind} `{name}` may decide this too; its meaning is not judged here, so this is at most a warning"
        ));
    }
    finding.help = match badness {
        badness::DEPENDS => "name the pods instead of their addresses, as below; or set `cni.name` and `cni.podRanges` in the configuration, so that they need not be guessed".to_owned(),
        _ if isolating.is_empty() => "let the DNS pods be reached: apply this first".to_owned(),
        _ => "apply this first: it lets these pods reach DNS and opens nothing else".to_owned(),
    };
    let mut fixes = Vec::new();
    if is_refused || isolating.is_empty() {
        fixes.push(admit_at_dns(view));
    }
    if !isolating.is_empty() {
        fixes.push(allow_dns(view, namespace, &workloads));
    }
    finding.fix = yaml::documents(&fixes);
    finding
}

/// Whether a workload's own policies let out what a violation of this badness says is closed.
fn is_let_out(view: &View<'_>, workload: &Workload, badness: u8) -> bool {
    let protocol = if badness == badness::NO_TCP { Protocol::Tcp } else { Protocol::Udp };
    let lets_out = |target: &DnsTarget<'_>| {
        let port = if protocol == Protocol::Tcp { target.tcp } else { target.udp };
        let side = view.reach().side(workload, Direction::Egress, Peer::Workload(&target.workload));
        port.is_none_or(|port| side.certain.contains(protocol, port))
    };
    let targets = &view.dns().targets;
    !targets.is_empty()
        && if badness == badness::CERTAIN { targets.iter().any(lets_out) } else { targets.iter().all(lets_out) }
}

/// The policies that isolate the egress of these workloads, by name.
fn isolating_policies<'a>(view: &View<'a>, workloads: &[&Workload]) -> Vec<&'a NetworkPolicy> {
    let all = workloads.iter().flat_map(|workload| view.reach().isolating(workload, Direction::Egress));
    let mut by_name: BTreeMap<&str, &NetworkPolicy> = BTreeMap::new();
    for policy in all {
        by_name.insert(&policy.name, policy);
    }
    by_name.into_values().collect()
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

/// The policies on DNS pods that keep these workloads out.
fn refusals(view: &View<'_>, workloads: &[&Workload]) -> Vec<String> {
    let mut lines = Vec::new();
    for target in &view.dns().targets {
        let Some(port) = target.udp else { continue };
        let refuses = |workload: &&&Workload| {
            let side = view.reach().side(&target.workload, Direction::Ingress, Peer::Workload(workload));
            !side.possible.contains(Protocol::Udp, port)
        };
        if !workloads.iter().any(|workload| refuses(&workload)) {
            continue;
        }
        for policy in view.reach().isolating(&target.workload, Direction::Ingress) {
            lines.push(format!(
                "NetworkPolicy `{}/{}` isolates the ingress of the DNS pods (`{}`) and does not admit them on UDP {port}",
                policy.namespace, policy.name, target.workload.id
            ));
        }
    }
    lines.sort();
    lines.dedup();
    lines
}

fn place(
    namespace: &Str,
    moment: &Moment<'_>,
    isolating: &[&NetworkPolicy],
    culprits: &[misses::Miss],
) -> (ObjectRef, FieldPath) {
    let of = |policy: &str| ObjectRef {
        kind: "NetworkPolicy".into(),
        namespace: Some(namespace.clone()),
        name: policy.into(),
    };
    let in_change = |reference: &ObjectRef| {
        let miss = culprits.iter().find(|miss| of(&miss.policy) == *reference);
        miss.map(|miss| miss.path.clone())
    };
    if let Some((change, _)) = moment.change {
        let reference = change.reference();
        let path = in_change(&reference).unwrap_or_else(|| match change.after() {
            Some(Object::NetworkPolicy(policy)) if policy.isolates.egress => FieldPath::new("spec.policyTypes"),
            Some(Object::Workload(workload)) => workload.pod_path().field("metadata").field("labels"),
            _ => FieldPath::root(),
        });
        return (reference, path);
    }
    match (culprits.first(), isolating.first()) {
        (Some(miss), _) => (of(&miss.policy), miss.path.clone()),
        (None, Some(policy)) => (of(&policy.name), FieldPath::new("spec.policyTypes")),
        (None, None) => {
            let target = moment.view.dns().targets.first();
            let guard =
                target.and_then(|target| moment.view.reach().isolating(&target.workload, Direction::Ingress).next());
            match guard {
                Some(policy) => (
                    ObjectRef {
                        kind: "NetworkPolicy".into(),
                        namespace: Some(policy.namespace.clone()),
                        name: policy.name.clone(),
                    },
                    FieldPath::new("spec.ingress"),
                ),
                None => (
                    ObjectRef { kind: "Namespace".into(), namespace: None, name: namespace.clone() },
                    FieldPath::root(),
                ),
            }
        }
    }
}

/// Policies that let the workloads reach DNS. They select what isolating policies select already,
/// so that no pod is isolated by the mending.
fn allow_dns(view: &View<'_>, namespace: &Str, workloads: &[&Workload]) -> String {
    let mut selectors: Vec<Selector> = Vec::new();
    for workload in workloads {
        if selectors.iter().any(|selector| selector.matches(&workload.labels)) {
            continue;
        }
        let isolating = view.reach().isolating(workload, Direction::Egress);
        // The widest selector mends the most workloads at once.
        if let Some(policy) = isolating.min_by_key(|policy| policy.pods.requirements().len()) {
            selectors.push(policy.pods.clone());
        }
    }
    let state = view.cluster.namespace(namespace).map(AsRef::as_ref);
    let dns = view.dns();
    let nameservers: Vec<IpAddr> = workloads
        .iter()
        .filter(|workload| workload.dns_policy == DnsPolicy::None)
        .flat_map(|workload| workload.nameservers.iter().copied().filter(|ip| !dns.is_cluster_ip(*ip)))
        .collect();
    let rules = if nameservers.is_empty() {
        yaml::dns_rules(dns)
    } else {
        yaml::dns_rules(&Dns { targets: Vec::new(), addresses: nameservers, source: DnsSource::Addresses })
    };
    let mut base = yaml::free_name(state, "allow-dns");
    let mut documents = Vec::new();
    for (i, selector) in selectors.into_iter().enumerate() {
        if i > 0 {
            base = yaml::free_name(state, &format!("allow-dns-{}", i + 1));
        }
        let egress_only = Directions { ingress: false, egress: true };
        let policy = yaml::isolating(namespace, base.clone(), selector, egress_only, rules.clone());
        documents.push(yaml::network_policy(&policy));
    }
    yaml::documents(&documents)
}

/// A policy on the DNS pods that lets every pod of the cluster ask.
fn admit_at_dns(view: &View<'_>) -> String {
    let Some(target) = view.dns().targets.first() else { return String::new() };
    let namespace = &target.workload.namespace;
    let state = view.cluster.namespace(namespace).map(AsRef::as_ref);
    let labels = match target.service.and_then(|service| service.selector.as_ref()) {
        Some(selector) => selector,
        None => &target.workload.labels,
    };
    let ports = [(Protocol::Udp, target.udp), (Protocol::Tcp, target.tcp.or(target.udp))];
    let ports =
        ports.into_iter().filter_map(|(protocol, port)| Some(PortSpec { protocol, port: Port::Range(port?, port?) }));
    let everyone = crate::model::PeerSpec::Pods {
        namespaces: Some(Selector::everything()),
        pods: Selector::everything(),
        pods_written: false,
    };
    let ingress_only = Directions { ingress: true, egress: false };
    let name = yaml::free_name(state, "allow-dns");
    let mut policy = yaml::isolating(namespace, name, Selector::from(labels), ingress_only, Vec::new());
    policy.ingress = vec![PolicyRule { peers: Some(vec![everyone]), ports: Some(ports.collect()) }];
    yaml::network_policy(&policy)
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
