//! What a rule has to be asked about.

use crate::model::Operation;

/// Objects whose changes can alter a rule's answer, and the changes that can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Which objects.
    pub what: Watched,
    /// What must happen to them.
    pub on: &'static [Operation],
}

/// Objects a rule's answer can rest on. How the API calls them is the webhook registration's to
/// know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watched {
    /// NetworkPolicies.
    NetworkPolicies,
    /// Istio's PeerAuthentications.
    PeerAuthentications,
    /// Namespaces: their labels.
    Namespaces,
    /// Pods and everything with a pod template.
    Workloads,
    /// The Services in front of cluster DNS, and no others.
    DnsServices,
    /// The pods of cluster DNS and what makes them, and no others.
    DnsWorkloads,
    /// The ConfigMaps the mesh is set up by, and no others: nearly every controller writes some.
    MeshConfigs,
    /// Waivers.
    Waivers,
    /// The gate's own configuration, in a ConfigMap of its namespace. No rule of the cluster rests on
    /// it: it is judged where it is written.
    OwnConfig,
}

impl Watched {
    /// When an object comes to be or changes.
    pub(super) const fn when_set(self) -> Watch {
        Watch { what: self, on: &[Operation::Create, Operation::Update] }
    }

    /// When it changes or goes.
    pub(super) const fn when_changed(self) -> Watch {
        Watch { what: self, on: &[Operation::Update, Operation::Delete] }
    }

    /// Also when it goes.
    pub(super) const fn always(self) -> Watch {
        Watch { what: self, on: &[Operation::Create, Operation::Update, Operation::Delete] }
    }
}
