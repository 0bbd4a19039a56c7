//! Istio's part: who must speak mutual TLS.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Labels, Lifetime, Str};

/// The annotation with a proxy's configuration. Of its YAML only `interceptionMode` is kept.
pub const PROXY_CONFIG: &str = "proxy.istio.io/config";

/// The annotations of a pod that decide whether the mesh carries its traffic, and which of it. All
/// others are dropped when a pod is read, and a change to them is not judged.
pub const MESH_ANNOTATIONS: [&str; 12] = [
    // ztunnel leaves out what comes in.
    "ambient.istio.io/bypass-inbound-capture",
    // Written by ztunnel's agent on the node: what it has done, which its next look may undo.
    "ambient.istio.io/redirection",
    // Which templates the injector applies: not each of them captures traffic.
    "inject.istio.io/templates",
    // What comes in by these interfaces counts as what the pod itself sends, in both dataplanes.
    "istio.io/reroute-virtual-interfaces",
    PROXY_CONFIG,
    // The older form of the label.
    "sidecar.istio.io/inject",
    // `NONE`: nothing is captured.
    "sidecar.istio.io/interceptionMode",
    // Written by the injector; wherever it is found, ambient keeps away.
    "sidecar.istio.io/status",
    // What the sidecar does not capture.
    "traffic.sidecar.istio.io/excludeInboundPorts",
    "traffic.sidecar.istio.io/excludeInterfaces",
    "traffic.sidecar.istio.io/includeInboundPorts",
    // The older name of `istio.io/reroute-virtual-interfaces`.
    "traffic.sidecar.istio.io/kubevirtInterfaces",
];

/// `PeerAuthentication` (`security.istio.io`, v1 and v1beta1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Its namespace. In the mesh's root namespace it is about the whole mesh.
    pub namespace: Str,
    /// Its name: the tie-break between two of the same second.
    pub name: Str,
    /// `metadata.creationTimestamp`, in whole seconds. Nothing for one that is not stored yet,
    /// which makes it the youngest.
    pub created: Option<Timestamp>,
    /// The label `istio.io/rev`: the only revision of the control plane that reads it.
    pub revision: Option<Str>,
    /// How long it stays.
    pub lifetime: Lifetime,
    /// `spec.selector.matchLabels`. Empty: not about single workloads but about its namespace.
    pub selector: Labels,
    /// Whether a selector is written that has no labels. To sidecars it is as if there were none, in
    /// ambient it is not.
    pub has_empty_selector: bool,
    /// `spec.mtls.mode`; [`MtlsMode::Unset`] where none is written.
    pub mode: MtlsMode,
    /// `spec.portLevelMtls` by *workload* port.
    pub ports: BTreeMap<u16, MtlsMode>,
    /// Whether some part could not be read.
    pub is_partial: bool,
}

/// `mtls.mode` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MtlsMode {
    /// Inherits from the next wider scope.
    #[default]
    Unset,
    /// Plaintext only.
    Disable,
    /// Plaintext and mutual TLS.
    Permissive,
    /// Mutual TLS only.
    Strict,
    /// A mode this version does not know: what it comes to cannot be judged.
    Unknown(Str),
}

impl std::fmt::Display for MtlsMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Unset => "UNSET",
            Self::Disable => "DISABLE",
            Self::Permissive => "PERMISSIVE",
            Self::Strict => "STRICT",
            Self::Unknown(mode) => mode,
        })
    }
}

/// What the mesh's ConfigMap says (`istio` or `istio-<revision>`, key `mesh`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    /// The ConfigMap's namespace.
    pub namespace: Str,
    /// The ConfigMap's name.
    pub name: Str,
    /// `rootNamespace`; `istio-system` where none is written.
    pub root_namespace: Option<Str>,
}

/// A control-plane revision or tag that injects sidecars: a `MutatingWebhookConfiguration` labelled
/// `istio.io/rev` or `istio.io/tag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// `istio.io/rev`.
    pub revision: Option<Str>,
    /// `istio.io/tag`.
    pub tag: Option<Str>,
}
