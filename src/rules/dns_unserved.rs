//! NP008.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Aspect, Finding, Meta, Moment, Profile, Rule, Scope, Severity, Subject, View, Violation, Watched};
use crate::cluster::{Cluster, DNS_SERVICE_NAMES, NamespaceState, looks_like_dns, pods_look_like_dns};
use crate::model::{Change, FieldPath, Object, ObjectRef, Operation, Selector, Service, Str, TargetPort, Workload};
use crate::netset::Protocol;
use crate::reach::keeps_cluster_dns;

/// Reports a change that leaves the cluster's DNS Service without pods that answer.
///
/// Every pod asks the address of one Service. The address disappears when the Service is deleted or
/// becomes an `ExternalName`. No pod answers on it when the Service loses its selector, or the selector
/// matches no pod, when the workload behind it is deleted or scaled to zero, or when its port leads
/// elsewhere.
///
/// ## Why is this bad?
/// It is the same outage as a policy that blocks DNS, for the whole cluster at once. Nothing fails when
/// the change is made: connections that are open stay open, and then no new one is made anywhere.
///
/// ## Example
/// ```yaml
/// apiVersion: v1
/// kind: Service
/// metadata:
///   name: kube-dns
///   namespace: kube-system
/// spec:
///   selector:
///     k8s-app: coredns   # the pods carry kube-dns
///   ports:
///   - {name: dns, port: 53, protocol: UDP}
///   - {name: dns-tcp, port: 53, protocol: TCP}
/// ---
/// apiVersion: apps/v1
/// kind: Deployment
/// metadata:
///   name: coredns
///   namespace: kube-system
/// spec:
///   template:
///     metadata:
///       labels:
///         k8s-app: kube-dns
/// ```
///
/// Use instead:
/// ```yaml
/// apiVersion: v1
/// kind: Service
/// metadata:
///   name: kube-dns
///   namespace: kube-system
/// spec:
///   selector:
///     k8s-app: kube-dns
///   ports:
///   - {name: dns, port: 53, protocol: UDP}
///   - {name: dns-tcp, port: 53, protocol: TCP}
/// ---
/// apiVersion: apps/v1
/// kind: Deployment
/// metadata:
///   name: coredns
///   namespace: kube-system
/// spec:
///   template:
///     metadata:
///       labels:
///         k8s-app: kube-dns
/// ```
///
/// ## When it fires
/// When the DNS Service, a workload behind it or one of its pods is changed or deleted, and pods
/// answered before. An upgrade that keeps the labels and some replicas passes. The API server sends
/// changes in `kube-system` only if the registration has the entry that `--guard` adds. That entry never
/// blocks a change while the gate is away. Of workloads, only that entry sends any to this rule, and only
/// those with the labels that distributions give DNS pods. If DNS runs in another namespace, the rule sees
/// its Services and not its workloads. `check` reports a DNS Service whose selector matches none of the
/// workloads beside it.
///
/// ## What it does not see
/// What answers for a Service without a selector. A Service that loses its selector gets a warning; one
/// that never had a selector is not reported, since its resolver may be outside the cluster. Endpoints
/// written by hand, the configuration of CoreDNS, and the resolvers under `dns.addresses`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DnsUnserved {}

/// How a DNS Service is not served, as the badness of a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lack {
    /// It has no selector: what answers is managed elsewhere, if anything.
    Selector = 1,
    /// Its pods declare ports, and not the one it leads to.
    Listener,
    /// Its selector matches nothing that runs.
    Pods,
    /// It does not lead to pods at all: it has no DNS port, or is another name.
    Port,
    /// It is not there.
    Service,
}

impl Lack {
    const ALL: [Self; 5] = [Self::Selector, Self::Listener, Self::Pods, Self::Port, Self::Service];

    fn of(violation: &Violation) -> Option<Self> {
        Self::ALL.into_iter().find(|lack| *lack as u8 == violation.badness)
    }
}

impl Rule for DnsUnserved {
    const META: Meta = Meta {
        code: "NP008",
        name: "dns-unserved",
        severity: Severity::High,
        baseline: Action::Warn,
        restricted: Action::Deny,
        since: "0.1.0",
        watches: &[Watched::DnsServices.always(), Watched::DnsWorkloads.when_changed()],
    };

    fn scope(&self, change: &Change, before: &View<'_>, _after: &View<'_>) -> Scope {
        let of = |namespace: &Str| Scope::Namespace(namespace.clone());
        match change.subject() {
            Object::Service(service) => {
                let versions = [change.before(), change.after()].into_iter().flatten();
                let is_dns =
                    versions.into_iter().any(|version| matches!(version, Object::Service(it) if looks_like_dns(it)));
                let configured = &before.environment.dns.services;
                let is_named = configured.iter().any(|it| it.namespace == service.namespace && it.name == service.name);
                if is_dns || is_named { of(&service.namespace) } else { Scope::Nothing }
            }
            Object::Workload(workload) if change.operation() != Operation::Create => {
                let versions = [change.before(), change.after()].into_iter().flatten();
                let is_dns = versions.into_iter().any(|version| match version {
                    Object::Workload(it) => pods_look_like_dns(&it.labels) || is_behind_dns(before, it),
                    _ => false,
                });
                if is_dns { of(&workload.namespace) } else { Scope::Nothing }
            }
            Object::Workload(_)
            | Object::NetworkPolicy(_)
            | Object::Namespace(_)
            | Object::PeerAuthentication(_)
            | Object::MeshConfig(_)
            | Object::WebhookConfiguration(_)
            | Object::ForeignPolicy(_)
            | Object::Waiver(_) => Scope::Nothing,
        }
    }

    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>) {
        for namespace in scope.namespaces(view.cluster) {
            let Some(state) = view.cluster.namespace(namespace).filter(|state| !state.is_terminating()) else {
                continue;
            };
            for service in names(view, namespace) {
                if let Some(lack) = lack(view.cluster, state, &service) {
                    out.push(Violation {
                        namespace: namespace.clone(),
                        subject: Subject::Namespace,
                        aspect: Aspect::DnsUnserved(service),
                        badness: lack as u8,
                    });
                }
            }
        }
    }

    fn ceiling(&self, violation: &Violation, moment: &Moment<'_>) -> Action {
        let (Aspect::DnsUnserved(name), Some(lack)) = (&violation.aspect, Lack::of(violation)) else {
            return Action::Off;
        };
        let Some(state) = moment.view.cluster.namespace(&violation.namespace) else { return Action::Off };
        let Some((change, _)) = moment.change else {
            // A folder or a cluster may keep its DNS under other names, or elsewhere. What says something
            // is a Service that finds none of the workloads beside it.
            let is_beside = state.live_workloads().any(|it| pods_look_like_dns(&it.labels));
            return if lack == Lack::Pods && is_beside { Action::Warn } else { Action::Off };
        };
        // What stood was no change's doing. And while a Service is made, pods may be yet to come.
        if moment.standing || matches!(change, Change::Create(_)) {
            return Action::Off;
        }
        // Endpoints of which nothing is known may answer, or another Service may be the one that is asked.
        let is_served_else = names(moment.view, &state.name)
            .iter()
            .any(|it| it != name && self::lack(moment.view.cluster, state, it).is_none());
        let has_addresses = !moment.view.environment.dns.addresses.is_empty();
        if lack <= Lack::Listener || is_served_else || has_addresses { Action::Warn } else { Action::Deny }
    }

    fn loosened(&self, _before: &Self, _profile: Profile, _then: Profile) -> Vec<(&'static str, bool)> {
        let Self {} = self;
        Vec::new()
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        violations.iter().filter_map(|violation| explain(violation, moment)).collect()
    }
}

/// The names under which a namespace may hold the Service in front of cluster DNS.
fn names(view: &View<'_>, namespace: &Str) -> Vec<Str> {
    let dns = &view.environment.dns;
    if !dns.services.is_empty() {
        return dns.services.iter().filter(|it| it.namespace == *namespace).map(|it| it.name.clone()).collect();
    }
    // Where only addresses are named, no Service is asked. Elsewhere anyone may call one `coredns`.
    if !dns.addresses.is_empty() || !keeps_cluster_dns(namespace) {
        return Vec::new();
    }
    let labelled = view.cluster.dns_services().filter(|it| it.namespace == *namespace).map(|it| it.name.clone());
    let mut names: Vec<Str> = DNS_SERVICE_NAMES.into_iter().map(Str::from).chain(labelled).collect();
    names.sort();
    names.dedup();
    names
}

/// What a DNS Service lacks to be answered; nothing where it is.
fn lack(cluster: &Cluster, state: &NamespaceState, name: &Str) -> Option<Lack> {
    let Some(service) = state.services.get(name) else { return Some(Lack::Service) };
    let Some(port) = service.ports.iter().find(|port| port.port == 53 && port.protocol == Protocol::Udp) else {
        return Some(Lack::Port);
    };
    if service.is_external_name {
        return Some(Lack::Port);
    }
    let Some(selector) = &service.selector else { return Some(Lack::Selector) };
    let mut serving =
        state.live_workloads().filter(|it| selector.is_subset(&it.labels) && stays(cluster, it)).peekable();
    if serving.peek().is_none() {
        return Some(Lack::Pods);
    }
    let listens = |workload: &Workload| {
        let mut udp = workload.ports.iter().filter(|it| it.protocol == Protocol::Udp).peekable();
        match &port.target {
            // A port need not be declared; where others are and this is not, it is another program's.
            TargetPort::Number(number) => udp.peek().is_none() || udp.any(|it| it.number == *number),
            TargetPort::Name(name) => udp.any(|it| it.name.as_ref() == Some(name)) || workload.is_partial,
        }
    };
    (!serving.any(|workload| listens(workload))).then_some(Lack::Listener)
}

/// Whether a workload goes on: it asks for pods, and what it belongs to is there and does.
fn stays(cluster: &Cluster, workload: &Workload) -> bool {
    if workload.is_scaled_to_zero || workload.is_idle {
        return false;
    }
    let mut owner = workload.owner.clone();
    // Ownership is at most three deep; the bound stops a cycle.
    for _ in 0..4 {
        // What another kind of owner does is not known.
        let Some(id) = owner.as_ref().and_then(|owner| owner.workload()) else { return true };
        let Some(found) = cluster.workload(&workload.namespace, id) else { return false };
        if found.is_scaled_to_zero || found.is_idle || found.is_finished {
            return false;
        }
        owner = found.owner.clone();
    }
    true
}

/// Whether a Service of cluster DNS selects a workload.
fn is_behind_dns(view: &View<'_>, workload: &Workload) -> bool {
    let mut targets = view.dns().targets.iter();
    targets.any(|target| {
        let selector = target.service.and_then(|service| service.selector.as_ref());
        target.workload.namespace == workload.namespace && selector.is_some_and(|it| it.is_subset(&workload.labels))
    })
}

fn explain(violation: &Violation, moment: &Moment<'_>) -> Option<Finding> {
    let (Aspect::DnsUnserved(name), lack) = (&violation.aspect, Lack::of(violation)?) else { return None };
    let namespace = &violation.namespace;
    let state = moment.view.cluster.namespace(namespace)?;
    let service = state.services.get(name);
    let own = ObjectRef { kind: "Service".into(), namespace: Some(namespace.clone()), name: name.clone() };
    let reference = moment.change.map_or(own.clone(), |(change, _)| change.reference());
    let is_own = reference == own;
    let what = format!("Service `{namespace}/{name}`");
    let message = match lack {
        Lack::Service => {
            format!("without {what} no pod of the cluster resolves a name: its address is the one they ask")
        }
        Lack::Port if service.is_some_and(|service| service.is_external_name) => {
            format!("{what} becomes an ExternalName: the address that every pod of the cluster asks for names is gone")
        }
        Lack::Port => format!("{what} has no UDP port 53 any more, where every pod of the cluster asks for names"),
        Lack::Pods => {
            let selector = service.and_then(|service| service.selector.as_ref()).map(Selector::from);
            let with = selector.map(|selector| format!(" with `{selector}`")).unwrap_or_default();
            format!("no pod{with} is left to answer for {what}: every pod of the cluster loses DNS")
        }
        Lack::Listener => {
            format!("{what} leads to a port that its pods do not declare: every pod of the cluster may lose DNS")
        }
        Lack::Selector => {
            format!("{what} has no selector any more: its endpoints stay as they are and follow its pods no longer")
        }
    };
    let path = match lack {
        Lack::Selector | Lack::Pods if is_own => "spec.selector",
        Lack::Port | Lack::Listener if is_own => "spec.ports",
        _ => "",
    };
    let mut finding = Finding::new(Some(namespace.clone()), reference, FieldPath::new(path), message);
    finding.why = "every new connection starts with a lookup, in every namespace at once; connections that are open stay open and hide it".to_owned();
    finding.evidence.extend(service.map(|service| describe(service)));
    if lack == Lack::Pods {
        let going = state.live_workloads().filter(|it| {
            let selector = service.and_then(|service| service.selector.as_ref());
            selector.is_some_and(|selector| selector.is_subset(&it.labels))
        });
        finding.evidence.extend(going.take(4).map(|it| {
            format!("`{}` carries these labels, and is scaled to zero or belongs to something that is not there", it.id)
        }));
    }
    finding.help = match moment.change {
        Some((Change::Delete(_), _)) => "let what replaces it run first, behind the same Service; to replace the Service itself, keep its `clusterIP`".to_owned(),
        _ => "keep the selector, the labels of the pods and at least one replica; to change them, let the new pods run first".to_owned(),
    };
    Some(finding)
}

fn describe(service: &Service) -> String {
    let Service { namespace, name, selector, cluster_ips, .. } = service;
    let ips: Vec<_> = cluster_ips.iter().map(|ip| format!("`{ip}`")).collect();
    let selector =
        selector.as_ref().map_or("no selector".to_owned(), |it| format!("selector `{}`", Selector::from(it)));
    let at = if ips.is_empty() { String::new() } else { format!(", at {}", super::words::list(&ips)) };
    format!("Service `{namespace}/{name}` has {selector}{at}")
}

#[cfg(test)]
mod tests {
    use crate::rules::testing::*;

    /// The DNS of a kubeadm cluster with the chain of its workload.
    fn cluster() -> Gate {
        let owned = |kind: &str, name: &str, of: &str| {
            let (owner, owner_name) = of.split_once(' ').unwrap();
            format!(
                "name: {name}, namespace: kube-system, ownerReferences: [{{apiVersion: apps/v1, kind: {owner}, name: {owner_name}, uid: u, controller: true}}]{}",
                if kind == "Pod" { ", labels: {k8s-app: kube-dns}" } else { "" }
            )
        };
        let template = "template: {metadata: {labels: {k8s-app: kube-dns}}, spec: {containers: [{name: c, ports: [{containerPort: 53, protocol: UDP}]}]}}";
        let yaml = SERVICE.to_owned()
            + &object(
                "apps/v1",
                "Deployment",
                "name: coredns, namespace: kube-system",
                &format!("replicas: 2, {template}"),
            )
            + &object(
                "apps/v1",
                "ReplicaSet",
                &owned("ReplicaSet", "coredns-1", "Deployment coredns"),
                &format!("replicas: 2, {template}"),
            )
            + &object(
                "v1",
                "Pod",
                &owned("Pod", "coredns-1-a", "ReplicaSet coredns-1"),
                "containers: [{name: c, ports: [{containerPort: 53, protocol: UDP}]}]",
            );
        gate(&yaml).only("NP008")
    }

    const SERVICE: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}\nspec: {clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns}, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]}\n";

    fn coredns(replicas: u8, labels: &str) -> String {
        let spec = format!(
            "replicas: {replicas}, template: {{metadata: {{labels: {{{labels}}}}}, spec: {{containers: [{{name: c, ports: [{{containerPort: 53, protocol: UDP}}]}}]}}}}"
        );
        object("apps/v1", "Deployment", "name: coredns, namespace: kube-system", &spec)
    }

    #[test]
    fn taking_the_dns_service_from_everybody_is_found() {
        for (change, told) in [
            (
                SERVICE.replace("selector: {k8s-app: kube-dns}", "selector: {k8s-app: other}"),
                "no pod with `k8s-app=other` is left",
            ),
            (
                SERVICE.replace("clusterIP: 10.96.0.10,", "type: ExternalName, externalName: evil.example.com,"),
                "becomes an ExternalName",
            ),
            (SERVICE.replace("port: 53, protocol: UDP", "port: 54, protocol: UDP"), "has no UDP port 53 any more"),
        ] {
            cluster().update(&change).is(&["warn NP008"]).mentions(told);
            cluster().restricted().update(&change).is(&["deny NP008"]);
        }
        cluster()
            .delete("Service kube-system/kube-dns")
            .is(&["warn NP008"])
            .mentions("its address is the one they ask");
        // What answers by endpoints of another's making is not known.
        let by_hand = SERVICE.replace("selector: {k8s-app: kube-dns}, ", "");
        cluster().restricted().update(&by_hand).is(&["warn NP008"]).mentions("has no selector any more");
        let elsewhere = SERVICE.replace("port: 53, protocol: UDP", "port: 53, targetPort: 9999, protocol: UDP");
        cluster().restricted().update(&elsewhere).is(&["warn NP008"]).mentions("do not declare");
    }

    #[test]
    fn taking_the_workload_behind_it_is_found() {
        let gate = cluster().restricted();
        gate.delete("Deployment kube-system/coredns")
            .is(&["deny NP008"])
            .mentions("every pod of the cluster loses DNS");
        gate.update(&coredns(0, "k8s-app: kube-dns")).is(&["deny NP008"]);
        // The Deployment makes another pod, and another ReplicaSet.
        gate.delete("Pod kube-system/coredns-1-a").nothing();
        gate.delete("ReplicaSet kube-system/coredns-1").nothing();
    }

    #[test]
    fn labels_of_pods_that_nothing_makes_again_count() {
        let bare =
            gate(&(SERVICE.to_owned() + &pod("kube-system/dns", "k8s-app: kube-dns"))).only("NP008").restricted();
        bare.update(&pod("kube-system/dns", "k8s-app: gone")).is(&["deny NP008"]);
        let relabelled = "name: coredns-1-a, namespace: kube-system, labels: {k8s-app: gone}";
        cluster().update(&object("v1", "Pod", relabelled, "")).nothing();
    }

    #[test]
    fn upgrades_pass_and_so_does_what_stood() {
        let gate = cluster().restricted();
        gate.update(&coredns(1, "k8s-app: kube-dns, version: new")).nothing();
        gate.update(&coredns(5, "k8s-app: kube-dns")).nothing();
        gate.update(&SERVICE.replace("spec: {", "spec: {sessionAffinity: None, ")).nothing();
        // Replaced under another name, the old one goes when the new one runs.
        let second = coredns(2, "k8s-app: kube-dns").replace("name: coredns,", "name: coredns-new,");
        gate.with(&second).delete("Deployment kube-system/coredns").nothing();
        // A Service whose endpoints are written by hand, and one that is made again.
        let by_hand = SERVICE.replace("selector: {k8s-app: kube-dns}, ", "");
        let gate = super::super::testing::gate(&by_hand).only("NP008").restricted();
        gate.update(&by_hand.replace("labels: {", "labels: {a: b, ")).nothing();
        super::super::testing::gate("").only("NP008").restricted().create(SERVICE).nothing();
    }

    #[test]
    fn a_tenants_service_of_that_name_is_nobodys_dns() {
        let own = SERVICE.replace("kube-system", "shop");
        gate(&(namespace("shop", "") + &own)).only("NP008").restricted().delete("Service shop/kube-dns").nothing();
    }

    #[test]
    fn another_service_that_is_served_may_be_the_one_that_is_asked() {
        let upstream = SERVICE.replace("name: kube-dns,", "name: kube-dns-upstream,");
        cluster().restricted().with(&upstream).delete("Service kube-system/kube-dns").is(&["warn NP008"]);
    }

    #[test]
    fn resolvers_that_the_configuration_names_settle_it() {
        let named = cluster().set("dns", "addresses: [169.254.20.10]");
        named.delete("Service kube-system/kube-dns").nothing();
        let elsewhere = SERVICE.replace("kube-system", "dns") + &pod("dns/a", "k8s-app: kube-dns");
        let named =
            gate(&elsewhere).only("NP008").restricted().set("dns", "services: [{namespace: dns, name: kube-dns}]");
        named.delete("Service dns/kube-dns").is(&["deny NP008"]);
        named.delete("Pod dns/a").is(&["deny NP008"]);
    }

    #[test]
    fn it_is_told_as_an_engineer_needs_it() {
        insta::assert_snapshot!(cluster().update(&coredns(0, "k8s-app: kube-dns")).text(), @r"
        warn NP008 Deployment kube-system/coredns
        no pod with `k8s-app=kube-dns` is left to answer for Service `kube-system/kube-dns`: every pod of the cluster loses DNS
        why: every new connection starts with a lookup, in every namespace at once; connections that are open stay open and hide it
        - Service `kube-system/kube-dns` has selector `k8s-app=kube-dns`, at `10.96.0.10`
        - `Deployment coredns` carries these labels, and is scaled to zero or belongs to something that is not there
        - `Pod coredns-1-a` carries these labels, and is scaled to zero or belongs to something that is not there
        - `ReplicaSet coredns-1` carries these labels, and is scaled to zero or belongs to something that is not there
        help: keep the selector, the labels of the pods and at least one replica; to change them, let the new pods run first
        ");
    }
}
