//! Any of the objects the model knows.

use std::fmt;
use std::sync::Arc;

use super::{
    ForeignPolicy, MeshConfig, Namespace, NetworkPolicy, PeerAuthentication, Service, Str, Waiver,
    WebhookConfiguration, Workload,
};

/// One object, shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A namespace.
    Namespace(Arc<Namespace>),
    /// A pod, or a kind that has a pod template.
    Workload(Arc<Workload>),
    /// A NetworkPolicy.
    NetworkPolicy(Arc<NetworkPolicy>),
    /// A Service.
    Service(Arc<Service>),
    /// A PeerAuthentication.
    PeerAuthentication(Arc<PeerAuthentication>),
    /// The mesh's ConfigMap.
    MeshConfig(Arc<MeshConfig>),
    /// Whom the API server calls before it admits a change.
    WebhookConfiguration(Arc<WebhookConfiguration>),
    /// A policy of another system.
    ForeignPolicy(Arc<ForeignPolicy>),
    /// A waiver.
    Waiver(Arc<Waiver>),
}

impl Object {
    /// Its identity.
    pub fn reference(&self) -> ObjectRef {
        let of = |kind: &str, namespace: Option<&Str>, name: &Str| ObjectRef {
            kind: kind.into(),
            namespace: namespace.cloned(),
            name: name.clone(),
        };
        match self {
            Self::Namespace(it) => of("Namespace", None, &it.name),
            Self::Workload(it) => of(&it.id.kind, Some(&it.namespace), &it.id.name),
            Self::NetworkPolicy(it) => of("NetworkPolicy", Some(&it.namespace), &it.name),
            Self::Service(it) => of("Service", Some(&it.namespace), &it.name),
            Self::PeerAuthentication(it) => of("PeerAuthentication", Some(&it.namespace), &it.name),
            Self::MeshConfig(it) => of("ConfigMap", Some(&it.namespace), &it.name),
            Self::WebhookConfiguration(it) => of(it.kind.as_str(), None, &it.name),
            Self::ForeignPolicy(it) => of(&it.kind, it.namespace.as_ref(), &it.name),
            Self::Waiver(it) => of("Waiver", Some(&it.namespace), &it.name),
        }
    }

    /// The namespace it lives in; of a Namespace, itself; nothing for other cluster-scoped kinds.
    pub fn namespace(&self) -> Option<&Str> {
        match self {
            Self::Namespace(it) => Some(&it.name),
            Self::Workload(it) => Some(&it.namespace),
            Self::NetworkPolicy(it) => Some(&it.namespace),
            Self::Service(it) => Some(&it.namespace),
            Self::PeerAuthentication(it) => Some(&it.namespace),
            Self::MeshConfig(it) => Some(&it.namespace),
            Self::WebhookConfiguration(_) => None,
            Self::ForeignPolicy(it) => it.namespace.as_ref(),
            Self::Waiver(it) => Some(&it.namespace),
        }
    }
}

/// The name of an object: kind, namespace (nothing for cluster-scoped kinds), name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// `NetworkPolicy`, `Deployment`, …
    pub kind: Str,
    /// Nothing for a cluster-scoped object.
    pub namespace: Option<Str>,
    /// Its name.
    pub name: Str,
}

/// `NetworkPolicy shop/deny-all`, `Namespace shop`.
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}
