//! What runs: a pod, or the template of pods to come.

use std::fmt;
use std::net::IpAddr;

use super::{Ending, Labels, Str};
use crate::netset::Protocol;

/// Which workload: unique in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadId {
    /// `Pod`, `Deployment`, …
    pub kind: Str,
    /// Its name in its namespace.
    pub name: Str,
}

/// `Deployment cart`.
impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// The controller an object belongs to (`metadata.ownerReferences` with `controller: true`).
///
/// Who may create an object may write any reference into it, so it is a claim and not a fact.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Its API group: empty for the core group, nothing where no `apiVersion` is written.
    pub group: Option<Str>,
    /// Its kind and name.
    pub id: WorkloadId,
}

/// The kinds of [`Workload`] by their API groups.
const WORKLOADS: [(&str, &str); 8] = [
    ("", "Pod"),
    ("", "ReplicationController"),
    ("apps", "DaemonSet"),
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("apps", "StatefulSet"),
    ("batch", "CronJob"),
    ("batch", "Job"),
];

impl Owner {
    /// Kind and name of the workload it is; nothing where it is of another kind, though of the same
    /// name: `apps.kruise.io` has a StatefulSet too.
    pub fn workload(&self) -> Option<&WorkloadId> {
        let is_it = |(group, kind): &(&str, &str)| {
            self.id.kind == *kind && self.group.as_ref().is_none_or(|written| written == *group)
        };
        WORKLOADS.iter().any(is_it).then_some(&self.id)
    }
}

/// A pod or a pod template, reduced to what decides its traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts of a pod, each named for what it says")]
pub struct Workload {
    /// What it is and its name.
    pub id: WorkloadId,
    /// Where it is.
    pub namespace: Str,
    /// `metadata.uid`, by which what it owns means it; nothing where none is written.
    pub uid: Option<Str>,
    /// The labels of the *pod* (of a template: `spec.template.metadata.labels`).
    pub labels: Labels,
    /// The annotations of the pod that decide about its mesh; others are dropped.
    pub annotations: Labels,
    /// The controller it belongs to.
    pub owner: Option<Owner>,
    /// Whether it is on its way out.
    pub ending: Ending,
    /// Ports its containers declare, those of restartable init containers included.
    pub ports: Vec<ContainerPort>,
    /// Whether it shares its node's network: policies do not apply to it, selectors do not reach it.
    pub host_network: bool,
    /// Where its names are resolved.
    pub dns_policy: DnsPolicy,
    /// `spec.dnsConfig.nameservers`.
    pub nameservers: Vec<IpAddr>,
    /// `status.podIPs`; empty for a template and for a pod that has none yet.
    pub ips: Vec<IpAddr>,
    /// Succeeded or failed: its address is free again and nothing applies to it.
    pub is_finished: bool,
    /// Whether it is a ReplicaSet that asks for no pods now. No review tells when it is scaled.
    pub is_idle: bool,
    /// Whether it is of another kind and asks for no pods: `spec.replicas: 0`.
    pub is_scaled_to_zero: bool,
    /// Whether a container that runs in it is named `istio-proxy`.
    pub proxy: NamedProxy,
    /// Whether something of its pod could not be read.
    pub is_partial: bool,
}

impl Workload {
    /// A workload of which nothing is known but its labels: it uses cluster DNS, declares no port,
    /// has no address and is outside every mesh.
    pub fn bare(kind: &str, namespace: &str, name: &str, labels: Labels) -> Self {
        Self {
            id: WorkloadId { kind: kind.into(), name: name.into() },
            namespace: namespace.into(),
            uid: None,
            labels,
            annotations: Labels::default(),
            owner: None,
            ending: Ending::default(),
            ports: Vec::new(),
            host_network: false,
            dns_policy: DnsPolicy::ClusterFirst,
            nameservers: Vec::new(),
            ips: Vec::new(),
            is_finished: false,
            is_idle: false,
            is_scaled_to_zero: false,
            proxy: NamedProxy::None,
            is_partial: false,
        }
    }

    /// Whether this is one pod and not the template of many.
    pub fn is_pod(&self) -> bool {
        self.id.kind == "Pod"
    }

    /// Where a pod's labels, ports and the rest are in the object: below `spec.template`, say.
    pub fn pod_path(&self) -> super::FieldPath {
        super::FieldPath::new(match self.id.kind.as_str() {
            "Pod" => "",
            "CronJob" => "spec.jobTemplate.spec.template",
            _ => "spec.template",
        })
    }
}

/// Which containers of a pod carry the name of the mesh's proxy. Init containers count where they
/// keep running. The name proves nothing: anyone can write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NamedProxy {
    /// None of them.
    #[default]
    None,
    /// One beside others: a sidecar, or what looks like one.
    Beside,
    /// The only one that runs: a gateway, ztunnel, or what looks like one.
    Alone,
}

/// A port a container declares. Only its name matters: an undeclared port is open all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// What a named port in a policy or a Service refers to.
    pub name: Option<Str>,
    /// TCP where none is written.
    pub protocol: Protocol,
    /// 1 to 65535.
    pub number: u16,
}

/// `spec.dnsPolicy` of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DnsPolicy {
    /// Cluster DNS: the default.
    #[default]
    ClusterFirst,
    /// Cluster DNS for a pod on its node's network.
    ClusterFirstWithHostNet,
    /// The node's resolver.
    Default,
    /// Only what `dnsConfig` names.
    None,
    /// A value this version does not know.
    Unknown,
}
