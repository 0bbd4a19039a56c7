//! NP007.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Action, Aspect, Finding, Meta, Moment, Profile, Rule, Scope, Severity, Subject, View, Violation, Watched, words,
};
use crate::cluster::NamespaceState;
use crate::model::{
    Change, Direction, FieldPath, Labels, NetworkPolicy, Object, ObjectRef, Operation, Str, Workload, WorkloadId,
    written,
};

/// Reports workloads on their node's network, where the NetworkPolicies that select them have no effect.
///
/// ## Why is this bad?
/// A NetworkPolicy applies to the network of a pod. A pod with `hostNetwork: true` has no network of its
/// own: it uses its node's. A default-deny still selects the pod, and has no effect. The pod can connect to
/// everything its node can, including the kubelet and the cloud's metadata service. Its ports are open to
/// everything that can reach the node. One field takes a workload out of every policy.
///
/// ## Example
/// ```yaml
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: default-deny
///   namespace: shop
/// spec:
///   podSelector: {}
///   policyTypes: [Ingress, Egress]
/// ---
/// apiVersion: v1
/// kind: Pod
/// metadata:
///   name: cart
///   namespace: shop
/// spec:
///   hostNetwork: true
///   dnsPolicy: Default
///   containers: [{name: cart, image: cart}]
/// ```
///
/// Use instead:
/// ```yaml
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: default-deny
///   namespace: shop
/// spec:
///   podSelector: {}
///   policyTypes: [Ingress, Egress]
/// ---
/// apiVersion: v1
/// kind: Pod
/// metadata:
///   name: cart
///   namespace: shop
/// spec:
///   dnsPolicy: Default
///   containers: [{name: cart, image: cart}]
/// ```
///
/// ## When it fires
/// When a workload on its node's network is created and a policy selects it, or when a workload moves to
/// its node's network. A policy that newly selects such a workload is never denied for it. It gets a
/// warning: the policy has no effect on this workload.
///
/// ## What it does not see
/// Workloads that no NetworkPolicy selects: they bypass nothing. Policies of other systems: some of them
/// also apply to nodes, and so to workloads on a node's network. Workloads in exempt namespaces.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct HostNetworkBypass {
    /// Labels of pods that may use their node's network although policies select them: node agents. A
    /// pod that carries all labels of one entry is not reported.
    #[serde(deserialize_with = "written::label_sets")]
    exempt_pods: Vec<BTreeMap<String, String>>,
}

impl Rule for HostNetworkBypass {
    const META: Meta = Meta {
        code: "NP007",
        name: "host-network-bypass",
        severity: Severity::High,
        baseline: Action::Warn,
        restricted: Action::Deny,
        since: "0.1.0",
        watches: &[Watched::NetworkPolicies.when_set(), Watched::Workloads.when_set()],
    };

    fn scope(&self, change: &Change, _before: &View<'_>, _after: &View<'_>) -> Scope {
        match (change.operation(), change.subject()) {
            (Operation::Create | Operation::Update, Object::Workload(workload)) => {
                Scope::Workload(workload.namespace.clone(), workload.id.clone())
            }
            (Operation::Create | Operation::Update, Object::NetworkPolicy(policy)) => {
                Scope::Namespace(policy.namespace.clone())
            }
            (
                _,
                Object::Workload(_)
                | Object::NetworkPolicy(_)
                | Object::Namespace(_)
                | Object::Service(_)
                | Object::PeerAuthentication(_)
                | Object::MeshConfig(_)
                | Object::WebhookConfiguration(_)
                | Object::ForeignPolicy(_)
                | Object::Waiver(_),
            ) => Scope::Nothing,
        }
    }

    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>) {
        for namespace in scope.namespaces(view.cluster) {
            let Some(state) = view.cluster.namespace(namespace) else { continue };
            if view.environment.namespaces.is_exempt(namespace) || state.is_terminating() {
                continue;
            }
            let on_nodes = state.live_workloads().filter(|it| it.host_network && scope.covers(namespace, &it.id));
            for workload in on_nodes.filter(|it| !self.is_exempt(&it.labels)) {
                if selecting(state, workload).next().is_some() {
                    out.push(Violation {
                        namespace: namespace.clone(),
                        subject: Subject::Workload(workload.id.clone()),
                        aspect: Aspect::OnNodesNetwork,
                        badness: 1,
                    });
                }
            }
        }
    }

    fn ceiling(&self, _violation: &Violation, moment: &Moment<'_>) -> Action {
        // A policy is no worse for what it does not govern.
        let is_by_policy =
            matches!(moment.change, Some((change, _)) if matches!(change.subject(), Object::NetworkPolicy(_)));
        if is_by_policy { Action::Warn } else { Action::Deny }
    }

    fn rests_on_absence(&self, _violation: &Violation, _moment: &Moment<'_>) -> bool {
        false
    }

    fn loosened(&self, before: &Self, _profile: Profile, _then: Profile) -> Vec<(&'static str, bool)> {
        let Self { exempt_pods } = self;
        // Fewer labels are carried by more pods.
        let was_one = |pods: &BTreeMap<String, String>| {
            let takes_in = |old: &BTreeMap<String, String>| old.iter().all(|(key, value)| pods.get(key) == Some(value));
            before.exempt_pods.iter().any(takes_in)
        };
        vec![("exemptPods", !exempt_pods.iter().all(was_one))]
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        let mut by_namespace: BTreeMap<&Str, Vec<&Violation>> = BTreeMap::new();
        for violation in violations {
            by_namespace.entry(&violation.namespace).or_default().push(violation);
        }
        by_namespace.into_iter().filter_map(|(namespace, group)| explain(namespace, &group, moment)).collect()
    }
}

impl HostNetworkBypass {
    fn is_exempt(&self, pod: &Labels) -> bool {
        let carries = |wanted: &BTreeMap<String, String>| wanted.iter().all(|(key, value)| pod.has(key, value));
        self.exempt_pods.iter().any(|wanted| !wanted.is_empty() && carries(wanted))
    }
}

/// The policies that would isolate a workload, were it not on its node's network.
fn selecting<'a>(state: &'a NamespaceState, workload: &Workload) -> impl Iterator<Item = &'a NetworkPolicy> {
    let isolates =
        |policy: &&NetworkPolicy| Direction::ALL.into_iter().any(|direction| policy.isolates.contains(direction));
    let policies = state.policies.iter().map(AsRef::as_ref);
    policies.filter(isolates).filter(|policy| policy.pods.matches(&workload.labels))
}

fn explain(namespace: &Str, violations: &[&Violation], moment: &Moment<'_>) -> Option<Finding> {
    let state = moment.view.cluster.namespace(namespace)?;
    let ids = violations.iter().filter_map(|violation| match &violation.subject {
        Subject::Workload(id) => Some(id),
        Subject::Namespace | Subject::Policy(_) | Subject::Waiver(_) => None,
    });
    let ids: Vec<&WorkloadId> = ids.collect();
    let workloads = || ids.iter().filter_map(|id| state.workloads.get(id));
    let names: BTreeSet<&Str> = workloads().flat_map(|it| selecting(state, it)).map(|policy| &policy.name).collect();
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    let (policies, select, have) = match names.len() {
        1 => ("NetworkPolicy", "selects", "has"),
        _ => ("NetworkPolicies", "select", "have"),
    };
    let who = words::workloads(moment.view.cluster, violations);
    let (run, their, them) = if who.len() == 1 { ("runs", "its", "it") } else { ("run", "their", "them") };
    let message = format!(
        "in namespace `{namespace}`, {} {run} on {their} node's network: {policies} {} {select} {them} and {have} no effect",
        words::some_of(&who),
        words::some_of(&names)
    );
    let first = workloads().next()?;
    let field = first.pod_path().field("spec").field("hostNetwork");
    let of_first =
        ObjectRef { kind: first.id.kind.clone(), namespace: Some(namespace.clone()), name: first.id.name.clone() };
    let (object, path) = match moment.change {
        Some((change, _)) if matches!(change.subject(), Object::Workload(_)) => (change.reference(), field),
        Some((change, _)) => (change.reference(), FieldPath::new("spec.podSelector")),
        None => (of_first, field),
    };
    Some(Finding {
        why: "no policy governs a pod on its node's network: it connects to all that the node can, and its ports are open to all that reach the node".to_owned(),
        help: "remove `hostNetwork: true`; a workload that needs it, as an agent of the node does, belongs in a namespace of its own, or its labels in `rules.host-network-bypass.exemptPods` of the configuration".to_owned(),
        ..Finding::new(Some(namespace.clone()), object, path, message)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::rules::Mode;

    fn shop() -> Gate {
        gate(&(namespace("shop", "") + &default_deny("shop"))).only("NP007")
    }

    fn agent(host: &str) -> String {
        let spec = format!(
            "template: {{metadata: {{labels: {{app: agent}}}}, spec: {{hostNetwork: {host}, containers: []}}}}"
        );
        object("apps/v1", "Deployment", "name: agent, namespace: shop", &spec)
    }

    #[test]
    fn a_workload_that_leaves_every_policy_by_its_nodes_network_is_warned_about_and_denied_in_restricted() {
        let on_node = pod_with("shop/agent", "app: agent", "hostNetwork: true, containers: []");
        for object in [&on_node, &agent("true")] {
            shop().create(object).is(&["warn NP007"]).mentions("`default-deny` selects it and has no effect");
            shop().restricted().create(object).is(&["deny NP007"]);
        }
        shop().restricted().create(&agent("false")).nothing();
        shop().restricted().with(&agent("false")).update(&agent("true")).is(&["deny NP007"]);
    }

    #[test]
    fn what_was_on_its_nodes_network_before_is_at_most_warned_about() {
        shop().restricted().with(&agent("true")).update(&agent("true")).is(&["warn NP007 standing"]);
        shop().restricted().with(&agent("true")).update(&agent("false")).nothing();
    }

    #[test]
    fn a_policy_that_does_not_govern_a_workload_is_warned_about_and_stored() {
        let open = gate(&(namespace("shop", "") + &agent("true"))).only("NP007").restricted();
        open.create(&default_deny("shop")).is(&["warn NP007"]);
        open.create(&policy("shop/other", "podSelector: {matchLabels: {app: other}}")).nothing();
    }

    #[test]
    fn where_no_policy_selects_it_nothing_is_bypassed() {
        gate(&namespace("shop", "")).only("NP007").restricted().create(&agent("true")).nothing();
    }

    #[test]
    fn pods_that_are_exempt_and_namespaces_that_are_exempt_are_left_alone() {
        let exempt =
            |labels: &str| shop().restricted().option("host-network-bypass", &format!("exemptPods: [{labels}]"));
        exempt("{app: agent}").create(&agent("true")).nothing();
        exempt("{app: other}").create(&agent("true")).is(&["deny NP007"]);
        let system = gate(&default_deny("kube-system")).only("NP007").restricted();
        system.create(&agent("true").replace("shop", "kube-system")).nothing();
        shop().restricted().mode(Mode::Warn).create(&agent("true")).is(&["warn NP007"]);
    }
}
