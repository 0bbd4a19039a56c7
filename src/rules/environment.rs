//! What the configuration says about the cluster that no object in it does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Mode, WaiverSettings};
use crate::cluster::Cluster;
use crate::mesh::MeshSettings;
use crate::model::{Str, written};
use crate::reach::{Cni, DnsSettings};

/// The surroundings every rule judges in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Environment {
    /// The strongest action, where no namespace says otherwise.
    pub mode: Mode,
    /// The namespace the gate itself runs in, where that is known.
    pub own_namespace: Option<Str>,
    /// Which namespaces no rule is about.
    pub namespaces: NamespaceSettings,
    /// Where cluster DNS is.
    pub dns: DnsSettings,
    /// How the mesh is set up.
    pub mesh: MeshSettings,
    /// What enforces the policies.
    pub cni: Cni,
    /// What may stand for a while.
    pub waivers: WaiverSettings,
}

impl Environment {
    /// The mode of a namespace: its label, else the cluster's. A label with a value that is no mode
    /// counts for nothing.
    pub fn mode_in(&self, cluster: &Cluster, namespace: &str) -> Mode {
        let label = cluster.namespace(namespace).and_then(|state| state.labels.get(Mode::LABEL));
        label.and_then(|mode| mode.parse().ok()).unwrap_or(self.mode)
    }

    /// Whether a namespace is the gate's own.
    pub fn is_own(&self, namespace: &str) -> bool {
        self.own_namespace.as_deref() == Some(namespace)
    }
}

/// Which namespaces the rules leave alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct NamespaceSettings {
    /// Names of namespaces whose own workloads no rule is about. A name may end in `*`. Changes in
    /// them are still judged for what they do to others: a policy in `kube-system` that cuts off
    /// the DNS pods is found. Exempting goes by name and never by a label, which a tenant could set.
    #[serde(deserialize_with = "written::name_patterns")]
    #[schemars(inner(regex(pattern = r"^[a-z0-9][a-z0-9-]*\*?$")))]
    pub exempt: Vec<String>,
}

impl Default for NamespaceSettings {
    fn default() -> Self {
        let names = ["kube-system", "kube-public", "kube-node-lease", "portcullis"];
        Self { exempt: names.map(str::to_owned).to_vec() }
    }
}

impl NamespaceSettings {
    /// Whether a namespace is exempt.
    pub fn is_exempt(&self, namespace: &str) -> bool {
        self.exempt.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => namespace.starts_with(prefix),
            None => pattern == namespace,
        })
    }
}
