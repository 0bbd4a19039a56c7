//! What is watched, as the API names it.

use crate::k8s::Kind;

/// One resource of the API.
#[derive(Debug)]
pub(super) struct Resource {
    /// Its plural in paths, and its name in readiness and logs.
    pub(super) name: &'static str,
    /// Empty for the core group.
    pub(super) group: &'static str,
    pub(super) kind: &'static str,
    /// Whether every API server serves it; the others are looked for over and over.
    pub(super) is_builtin: bool,
    pub(super) place: Place,
}

/// Where its objects of interest are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In any namespace, or in none.
    Anywhere,
    /// In the mesh's root namespace. ConfigMaps elsewhere are nobody's business here.
    MeshRoot,
}

/// Everything that is watched.
///
/// Pods are what runs now. What makes pods is watched too: a template with no pods yet has some
/// tomorrow, and a pod that differs from its owner's template is judged for the difference.
pub(super) static RESOURCES: &[Resource] = &[
    builtin("namespaces", "", "Namespace"),
    builtin("networkpolicies", "networking.k8s.io", "NetworkPolicy"),
    builtin("pods", "", "Pod"),
    builtin("services", "", "Service"),
    builtin("deployments", "apps", "Deployment"),
    builtin("replicasets", "apps", "ReplicaSet"),
    builtin("statefulsets", "apps", "StatefulSet"),
    builtin("daemonsets", "apps", "DaemonSet"),
    builtin("replicationcontrollers", "", "ReplicationController"),
    builtin("jobs", "batch", "Job"),
    builtin("cronjobs", "batch", "CronJob"),
    Resource { place: Place::MeshRoot, ..builtin("configmaps", "", "ConfigMap") },
    builtin("mutatingwebhookconfigurations", "admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    builtin("validatingwebhookconfigurations", "admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    optional("peerauthentications", "security.istio.io", "PeerAuthentication"),
    optional("waivers", "portcullis.dev", "Waiver"),
    optional("ciliumnetworkpolicies", "cilium.io", "CiliumNetworkPolicy"),
    optional("ciliumclusterwidenetworkpolicies", "cilium.io", "CiliumClusterwideNetworkPolicy"),
    // Calico's own API server serves the same objects again under `projectcalico.org`.
    optional("globalnetworkpolicies", "crd.projectcalico.org", "GlobalNetworkPolicy"),
    optional("networkpolicies", "crd.projectcalico.org", "NetworkPolicy"),
    optional("adminnetworkpolicies", "policy.networking.k8s.io", "AdminNetworkPolicy"),
    optional("baselineadminnetworkpolicies", "policy.networking.k8s.io", "BaselineAdminNetworkPolicy"),
    optional("clusternetworkpolicies", "policy.networking.k8s.io", "ClusterNetworkPolicy"),
    optional("networkpolicies", "crd.antrea.io", "NetworkPolicy"),
    optional("clusternetworkpolicies", "crd.antrea.io", "ClusterNetworkPolicy"),
    optional("applicationnetworkpolicies", "networking.k8s.aws", "ApplicationNetworkPolicy"),
    optional("clusternetworkpolicies", "networking.k8s.aws", "ClusterNetworkPolicy"),
    optional("egressfirewalls", "k8s.ovn.org", "EgressFirewall"),
];

const fn builtin(name: &'static str, group: &'static str, kind: &'static str) -> Resource {
    Resource { name, group, kind, is_builtin: true, place: Place::Anywhere }
}

const fn optional(name: &'static str, group: &'static str, kind: &'static str) -> Resource {
    Resource { name, group, kind, is_builtin: false, place: Place::Anywhere }
}

impl Resource {
    /// As `kubectl` names it: `peerauthentications.security.istio.io`.
    pub(super) fn full_name(&self) -> String {
        if self.group.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.name, self.group) }
    }

    /// What the rules know it as.
    pub(super) fn known_as(&self) -> Kind {
        Kind::of(self.group, self.kind).expect("what is watched is what is lowered: a test goes over the table")
    }

    /// The path of all its objects of interest in a version of the API.
    pub(super) fn path(&self, version: &str, mesh_root: &str) -> String {
        match self.place {
            Place::Anywhere => format!("{}/{}", self.base(version), self.name),
            Place::MeshRoot => self.path_in(version, mesh_root),
        }
    }

    /// The path of its objects in one namespace.
    pub(super) fn path_in(&self, version: &str, namespace: &str) -> String {
        format!("{}/namespaces/{namespace}/{}", self.base(version), self.name)
    }

    fn base(&self, version: &str) -> String {
        if self.group.is_empty() { format!("/api/{version}") } else { format!("/apis/{}/{version}", self.group) }
    }

    /// The resource of a group and kind.
    pub(super) fn of(group: &str, kind: &str) -> &'static Self {
        let found = RESOURCES.iter().find(|it| it.group == group && it.kind == kind);
        found.expect("only what is in the table is asked for")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everything_watched_is_lowered_and_stands_once() {
        let mut seen = BTreeSet::new();
        for resource in RESOURCES {
            assert!(Kind::of(resource.group, resource.kind).is_some(), "{resource:?}");
            assert!(seen.insert(resource.full_name()), "{resource:?}");
        }
    }

    #[test]
    fn paths_are_those_of_the_api() {
        let path = |group, kind| Resource::of(group, kind).path("v1", "istio-system");
        assert_eq!(path("", "Pod"), "/api/v1/pods");
        assert_eq!(path("apps", "Deployment"), "/apis/apps/v1/deployments");
        assert_eq!(path("", "ConfigMap"), "/api/v1/namespaces/istio-system/configmaps");
        let policies = Resource::of("networking.k8s.io", "NetworkPolicy");
        assert_eq!(policies.path_in("v1", "shop"), "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies");
    }
}
