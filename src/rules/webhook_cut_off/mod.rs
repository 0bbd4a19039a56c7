//! `webhook-cut-off`: an admission webhook the API server cannot reach any more.

mod explain;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Action, Aspect, Barrier, Finding, Meta, Moment, Profile, Rule, Scope, Severity, Subject, View, Violation, Watched,
};
use crate::cluster::Cluster;
use crate::mesh::Mode;
use crate::model::{
    AdmissionWebhook, Change, Direction, Object, Operation, Selector, Service, Str, TargetPort, WebhookConfiguration,
    Workload,
};
use crate::netset::{IpSet, PortSet, Protocol};
use crate::reach::Peer;

/// Reports an admission webhook that the API server cannot reach any more: this gate's, or any other.
///
/// A webhook is answered by pods behind a Service. The API server calls them from outside of what
/// policies know: it is no pod, has no labels, and comes from addresses that differ from cluster to
/// cluster. Two things keep it out. A policy that isolates these pods and admits only other pods, or
/// nothing at all, on the port. And a mesh that takes nothing but mutual TLS there, of which the API
/// server is no member.
///
/// ## Why is this bad?
/// With `failurePolicy: Fail` everything the webhook is asked about is refused from then on, for every
/// user, by an error that names neither policy nor mesh; often that includes what would mend it. With
/// `Ignore` it is worse in a quieter way: changes pass that nobody judges, and nothing says so.
///
/// What is admitted to *some* outside address passes: whether the API server's is among them is not
/// known here, and who writes a block has thought of it. Only where no outside address at all may
/// enter is it certain.
///
/// ## Example
/// ```yaml
/// apiVersion: admissionregistration.k8s.io/v1
/// kind: ValidatingWebhookConfiguration
/// metadata:
///   name: images
/// webhooks:
/// - name: images.example.com
///   clientConfig:
///     service:
///       namespace: images
///       name: images
/// ---
/// apiVersion: v1
/// kind: Service
/// metadata:
///   name: images
///   namespace: images
/// spec:
///   selector:
///     app: images
///   ports:
///   - port: 443
///     targetPort: 8443
/// ---
/// apiVersion: v1
/// kind: Pod
/// metadata:
///   name: images
///   namespace: images
///   labels:
///     app: images
/// ---
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: default-deny
///   namespace: images
/// spec:
///   podSelector: {}
///   policyTypes:
///   - Ingress
/// ```
/// Use instead:
/// ```yaml
/// apiVersion: admissionregistration.k8s.io/v1
/// kind: ValidatingWebhookConfiguration
/// metadata:
///   name: images
/// webhooks:
/// - name: images.example.com
///   clientConfig:
///     service:
///       namespace: images
///       name: images
/// ---
/// apiVersion: v1
/// kind: Service
/// metadata:
///   name: images
///   namespace: images
/// spec:
///   selector:
///     app: images
///   ports:
///   - port: 443
///     targetPort: 8443
/// ---
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: default-deny
///   namespace: images
/// spec:
///   podSelector: {}
///   policyTypes:
///   - Ingress
/// ---
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: admit-api-server
///   namespace: images
/// spec:
///   podSelector:
///     matchLabels:
///       app: images
///   policyTypes:
///   - Ingress
///   ingress:
///   - ports:
///     - protocol: TCP
///       port: 8443
/// ```
///
/// ## When it fires
/// When a NetworkPolicy or a PeerAuthentication is created, changed or deleted, or a namespace gets
/// other labels, which may bring its pods into a mesh. It also looks at namespaces that are exempt: a
/// webhook there matters to the others.
///
/// ## What it does not see
/// From which addresses the API server comes; that traffic of a node to its own pods always passes, so
/// that on a cluster of one node nothing is cut off; webhooks called by an address and not by a
/// Service; Services without a selector; policies of other systems, with which it only warns.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct WebhookCutOff {}

/// The pods a managed control plane sends the API server's calls through (GKE, AKS and others): where
/// there are some, the calls come from pods, and policies may admit them by labels.
const TUNNEL: (&str, &str) = ("k8s-app", "konnectivity-agent");

/// A webhook and a workload that answers it.
struct Answers<'a> {
    configuration: &'a WebhookConfiguration,
    webhook: &'a AdmissionWebhook,
    service: &'a Service,
    workload: &'a Workload,
    /// The port of the pod that is called in the end.
    port: u16,
}

impl Rule for WebhookCutOff {
    const META: Meta = Meta {
        code: "CL008",
        name: "webhook-cut-off",
        severity: Severity::High,
        baseline: Action::Deny,
        restricted: Action::Deny,
        since: "0.1.0",
        watches: &[
            Watched::NetworkPolicies.always(),
            Watched::PeerAuthentications.always(),
            Watched::Namespaces.when_set(),
        ],
    };

    fn scope(&self, change: &Change, before: &View<'_>, after: &View<'_>) -> Scope {
        match change.subject() {
            Object::NetworkPolicy(policy) => Scope::Namespace(policy.namespace.clone()),
            Object::PeerAuthentication(policy) => {
                let is_root = |view: &View<'_>| view.mesh().root().namespace == policy.namespace;
                if is_root(before) || is_root(after) {
                    Scope::Cluster
                } else {
                    Scope::Namespace(policy.namespace.clone())
                }
            }
            Object::Namespace(namespace) if change.operation() != Operation::Delete => {
                Scope::Namespace(namespace.name.clone())
            }
            Object::Namespace(_)
            | Object::Workload(_)
            | Object::Service(_)
            | Object::MeshConfig(_)
            | Object::WebhookConfiguration(_)
            | Object::ForeignPolicy(_)
            | Object::Waiver(_) => Scope::Nothing,
        }
    }

    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>) {
        let mut found: BTreeMap<_, Violation> = BTreeMap::new();
        for Answers { workload, port, .. } in answers(view.cluster, scope) {
            view.check_stop();
            for barrier in barriers(view, workload, port) {
                let violation = Violation {
                    namespace: workload.namespace.clone(),
                    subject: Subject::Workload(workload.id.clone()),
                    aspect: Aspect::CutOff(port, barrier),
                    badness: 1,
                };
                found.insert((violation.namespace.clone(), violation.subject.clone(), port, barrier), violation);
            }
        }
        out.extend(found.into_values());
    }

    fn ceiling(&self, violation: &Violation, moment: &Moment<'_>) -> Action {
        let cluster = moment.view.cluster;
        // A policy of another system may admit what these do not, by rules that are not known here.
        let is_foreign = cluster.foreign_policies(&violation.namespace).next().is_some();
        match violation.aspect {
            Aspect::CutOff(_, Barrier::Policies) if is_foreign => Action::Warn,
            _ => Action::Deny,
        }
    }

    fn loosened(&self, _before: &Self, _profile: Profile, _then: Profile) -> Vec<(&'static str, bool)> {
        let Self {} = self;
        Vec::new()
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        // The workloads behind one Service, its templates and its pods, are one finding.
        let mut groups: BTreeMap<(Str, Str, u16, Barrier), Vec<&Violation>> = BTreeMap::new();
        for violation in violations {
            let (Subject::Workload(id), Aspect::CutOff(port, barrier)) = (&violation.subject, &violation.aspect) else {
                continue;
            };
            let scope = Scope::Workload(violation.namespace.clone(), id.clone());
            let behind = answers(moment.view.cluster, &scope);
            let Some(service) = behind.iter().find(|it| it.port == *port).map(|it| it.service.name.clone()) else {
                continue;
            };
            groups.entry((violation.namespace.clone(), service, *port, *barrier)).or_default().push(violation);
        }
        groups
            .into_iter()
            .filter_map(|((namespace, service, port, barrier), group)| {
                explain::explain(&namespace, &service, port, barrier, &group, moment)
            })
            .collect()
    }
}

/// The workloads in a part of a cluster that answer admission webhooks, once for each webhook.
fn answers<'a>(cluster: &'a Cluster, scope: &Scope) -> Vec<Answers<'a>> {
    let in_scope = |namespace: &Str| match scope {
        Scope::Nothing => false,
        Scope::Workload(ns, _) | Scope::Namespace(ns) => ns == namespace,
        Scope::Cluster => true,
    };
    let mut found = Vec::new();
    for configuration in cluster.webhooks() {
        for webhook in configuration.webhooks.iter().filter(|webhook| in_scope(&webhook.namespace)) {
            let Some(state) = cluster.namespace(&webhook.namespace).filter(|state| !state.is_terminating()) else {
                continue;
            };
            let Some(service) = state.services.get(&webhook.service) else { continue };
            let Some(selector) = &service.selector else { continue };
            for workload in scope.live_workloads(state) {
                if !selector.is_subset(&workload.labels) {
                    continue;
                }
                if let Some(port) = target(service, webhook.port, workload) {
                    found.push(Answers { configuration, webhook, service, workload, port });
                }
            }
        }
    }
    found
}

/// The ports on which pods of a namespace that a selector matches answer admission webhooks.
pub(super) fn answered_ports(cluster: &Cluster, namespace: &Str, pods: &Selector) -> PortSet {
    let answers = answers(cluster, &Scope::Namespace(namespace.clone()));
    let selected = answers.iter().filter(|it| pods.matches(&it.workload.labels));
    PortSet::from_ranges(selected.map(|it| (it.port, it.port)))
}

/// The port of a pod that a Service's port leads to; nothing where that is not known.
fn target(service: &Service, port: u16, workload: &Workload) -> Option<u16> {
    let of_service = service.ports.iter().find(|it| it.port == port && it.protocol == Protocol::Tcp)?;
    match &of_service.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            let named =
                |it: &&crate::model::ContainerPort| it.protocol == Protocol::Tcp && it.name.as_ref() == Some(name);
            workload.ports.iter().find(named).map(|it| it.number)
        }
    }
}

/// What keeps the API server from a port of a workload, for certain.
fn barriers(view: &View<'_>, workload: &Workload, port: u16) -> impl Iterator<Item = Barrier> {
    let policies = is_closed_to_the_outside(view, workload, port).then_some(Barrier::Policies);
    let posture = view.mesh().posture(workload);
    let is_strict = posture.membership.is_in_mesh() && posture.effective.port(port).mode == Mode::Strict;
    policies.into_iter().chain(is_strict.then_some(Barrier::Mesh))
}

/// Whether policies admit no address outside the cluster on a port, nor the pods the API server's
/// calls may come through.
fn is_closed_to_the_outside(view: &View<'_>, workload: &Workload, port: u16) -> bool {
    let ports = [(Protocol::Tcp, port)];
    let reach = view.reach().about(&ports);
    let admits = |peer: Peer<'_>| reach.side(workload, Direction::Ingress, peer).possible.contains(Protocol::Tcp, port);
    if admits(Peer::External(&IpSet::full())) {
        return false;
    }
    let system = view.cluster.namespace("kube-system").into_iter().flat_map(|state| state.live_workloads());
    let mut tunnels = system.filter(|it| it.labels.has(TUNNEL.0, TUNNEL.1));
    !tunnels.any(|tunnel| admits(Peer::Workload(tunnel)))
}
