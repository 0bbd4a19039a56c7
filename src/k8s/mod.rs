//! Lowering: Kubernetes and Istio objects into the model.
//!
//! Lowering never fails. What cannot be read becomes a [`Problem`]; a policy that cannot be read
//! at all still stands in the model, as one whose meaning is not known, so that nothing is denied
//! or passed on the strength of its absence.
//!
//! Only the parts a rule reads are parsed. NetworkPolicy's spec goes through the client library's
//! own type, since every field of it matters. Of pods and their templates a dozen fields matter,
//! and those have small types here: an unknown field or a broken quantity elsewhere in a pod must
//! not make its labels unreadable, and parsing the rest would cost more than judging it.

mod definition;
mod mesh;
mod meta;
mod policy;
mod read;
mod service;
mod spec;
mod webhook;
mod workload;

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

pub use definition::waivers as waiver_definition;
pub use read::MOST_ITEMS;

use crate::model::{
    FieldPath, ForeignPolicy, GROUP, Labels, METADATA_NAME, Namespace, Object, Str, Waiver, WaiverTerms, WebhookKind,
};

use meta::Meta;
use read::{Source, TOO_LARGE};

/// An object as far as it could be read.
#[derive(Debug, Default)]
pub struct Lowered {
    /// The object; nothing where the kind is one no rule reads, or nothing of it could be read.
    pub object: Option<Object>,
    /// What could not be read, or what the API server would refuse.
    pub problems: Vec<Problem>,
}

/// Something about an object that cannot be read as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub path: FieldPath,
    /// What, in one line.
    pub message: String,
}

impl Problem {
    fn new(path: FieldPath, message: impl Into<String>) -> Self {
        Self { path, message: message.into() }
    }

    /// Whether the object holds more than [`MOST_ITEMS`], so that next to nothing is known of it.
    pub fn is_too_large(&self) -> bool {
        self.message == TOO_LARGE
    }
}

/// How many problems of one object are reported.
const MOST_PROBLEMS: usize = 1000;

/// The kinds rules read. A kind and its group decide; versions of a kind that is read are alike in
/// the fields that are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `v1`.
    Namespace,
    /// `v1`.
    Service,
    /// `v1`; of interest only where it is the mesh's.
    ConfigMap,
    /// `v1`, or a kind of `apps` or `batch` with a pod template.
    Workload,
    /// `networking.k8s.io`.
    NetworkPolicy,
    /// `security.istio.io`.
    PeerAuthentication,
    /// `admissionregistration.k8s.io`.
    WebhookConfiguration(WebhookKind),
    /// A policy of a system not modelled here.
    ForeignPolicy,
    /// `portcullis.dev`.
    Waiver,
}

impl Kind {
    /// The kind by its group and name; nothing for one no rule reads.
    pub fn of(group: &str, kind: &str) -> Option<Self> {
        Some(match (group, kind) {
            ("", "Namespace") => Self::Namespace,
            ("", "Service") => Self::Service,
            ("", "ConfigMap") => Self::ConfigMap,
            ("", "Pod" | "ReplicationController")
            | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
            | ("batch", "Job" | "CronJob") => Self::Workload,
            ("networking.k8s.io", "NetworkPolicy") => Self::NetworkPolicy,
            ("security.istio.io", "PeerAuthentication") => Self::PeerAuthentication,
            (GROUP, "Waiver") => Self::Waiver,
            ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => {
                Self::WebhookConfiguration(WebhookKind::Mutating)
            }
            ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => {
                Self::WebhookConfiguration(WebhookKind::Validating)
            }
            ("cilium.io", "CiliumNetworkPolicy" | "CiliumClusterwideNetworkPolicy")
            | ("projectcalico.org" | "crd.projectcalico.org", "NetworkPolicy" | "GlobalNetworkPolicy")
            | (
                "policy.networking.k8s.io",
                "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" | "ClusterNetworkPolicy",
            )
            | ("crd.antrea.io", "NetworkPolicy" | "ClusterNetworkPolicy")
            | ("networking.k8s.aws", "ApplicationNetworkPolicy" | "ClusterNetworkPolicy")
            | ("k8s.ovn.org", "EgressFirewall") => Self::ForeignPolicy,
            _ => return None,
        })
    }
}

/// A kind as an object names it.
#[derive(Clone, Copy, Debug)]
pub struct TypeName<'a> {
    /// `networking.k8s.io`; empty for the core group.
    pub group: &'a str,
    /// `NetworkPolicy`.
    pub kind: &'a str,
}

impl<'a> TypeName<'a> {
    /// From `apiVersion` and `kind`.
    pub fn new(api_version: &'a str, kind: &'a str) -> Self {
        Self { group: api_version.split_once('/').map_or("", |(group, _)| group), kind }
    }
}

/// Lowers one object given as JSON text, of a kind known from elsewhere. `namespace` is where a
/// namespaced object that names none is put.
pub fn lower_json(name: TypeName<'_>, json: &str, namespace: &str) -> Lowered {
    lower(name, json, namespace)
}

/// Lowers one object given as a parsed value; it names its kind itself.
pub fn lower_value(object: &Value, namespace: &str) -> Lowered {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    lower(TypeName::new(text("apiVersion"), text("kind")), object, namespace)
}

fn lower<'a>(name: TypeName<'a>, source: impl Source<'a>, namespace: &str) -> Lowered {
    let Some(kind) = Kind::of(name.group, name.kind) else { return Lowered::default() };
    let read = match kind {
        Kind::Namespace => lower_namespace(source),
        Kind::Service => service::lower(source, namespace),
        Kind::ConfigMap => mesh::lower_config(source, namespace),
        Kind::Workload => workload::lower(name.kind, source, namespace),
        Kind::NetworkPolicy => policy::lower(source, namespace),
        Kind::PeerAuthentication => mesh::lower_peer_authentication(source, namespace),
        Kind::WebhookConfiguration(kind) => webhook::lower(kind, source),
        Kind::ForeignPolicy => lower_foreign(name, source, namespace),
        Kind::Waiver => lower_waiver(source, namespace),
    };
    let mut lowered = read.unwrap_or_else(|problem| unreadable(kind, name, source, namespace, problem));
    if lowered.object.as_ref().is_some_and(|object| object.reference().name.is_empty()) {
        lowered.problems.push(Problem::new(FieldPath::new("metadata.name"), "the object has no name"));
    }
    lowered.problems.truncate(MOST_PROBLEMS);
    lowered
}

/// What is left of an object whose shape is not that of its kind.
fn unreadable<'a>(
    kind: Kind,
    name: TypeName<'a>,
    source: impl Source<'a>,
    namespace: &str,
    problem: Problem,
) -> Lowered {
    let object = match kind {
        // A policy that might isolate pods or admit anything: the same standing as one of a
        // system that is not modelled.
        Kind::NetworkPolicy => lower_foreign(name, source, namespace).ok().and_then(|lowered| lowered.object),
        Kind::PeerAuthentication => mesh::unreadable_peer_authentication(source, namespace),
        Kind::Workload => workload::unreadable(name.kind, source, namespace),
        Kind::Namespace
        | Kind::Service
        | Kind::ConfigMap
        | Kind::WebhookConfiguration(_)
        | Kind::ForeignPolicy
        // One that cannot be read waives nothing.
        | Kind::Waiver => None,
    };
    Lowered { object, problems: vec![problem] }
}

type Read = Result<Lowered, Problem>;

fn lower_namespace<'a>(source: impl Source<'a>) -> Read {
    #[derive(Deserialize)]
    struct Written {
        metadata: Meta,
        status: Option<Status>,
    }
    #[derive(Deserialize)]
    struct Status {
        phase: Option<Str>,
    }
    let Written { metadata, status } = source.read()?;
    let is_terminating =
        metadata.is_terminating() || status.and_then(|status| status.phase).is_some_and(|phase| phase == "Terminating");
    let name = metadata.name();
    // Set by the API server on every namespace; a manifest need not say it.
    let labels = metadata.labels().with(METADATA_NAME, &name);
    Ok(done(Object::Namespace(Arc::new(Namespace {
        name,
        uid: metadata.uid(),
        labels,
        created: metadata.created(),
        is_terminating,
    }))))
}

fn lower_foreign<'a>(name: TypeName<'_>, source: impl Source<'a>, namespace: &str) -> Read {
    #[derive(Deserialize)]
    struct Written {
        metadata: meta::Identity,
    }
    let is_cluster_scoped = matches!(
        name.kind,
        "CiliumClusterwideNetworkPolicy"
            | "GlobalNetworkPolicy"
            | "AdminNetworkPolicy"
            | "BaselineAdminNetworkPolicy"
            | "ClusterNetworkPolicy"
    );
    let Written { metadata } = source.read()?;
    Ok(done(Object::ForeignPolicy(Arc::new(ForeignPolicy {
        kind: match name.group {
            "networking.k8s.io" => name.kind.into(),
            group => format!("{}.{group}", name.kind).into(),
        },
        namespace: (!is_cluster_scoped).then(|| metadata.namespace(namespace)),
        name: metadata.name(),
    }))))
}

/// A waiver as it is written: what it says is judged by whoever honours it, and so is what cannot be
/// read of it. A field that is not known must not be passed over: a misspelt `match` is no match for
/// everything.
fn lower_waiver<'a>(source: impl Source<'a>, namespace: &str) -> Read {
    #[derive(Deserialize)]
    struct Written<T> {
        metadata: Meta,
        spec: T,
    }
    let (metadata, terms, unread) = match source.read() {
        Ok(Written { metadata, spec }) => (metadata, spec, None),
        Err(problem) => {
            let below = problem.path.as_str().strip_prefix("spec");
            let Some(below) = below.filter(|below| below.is_empty() || below.starts_with('.')) else {
                return Err(problem);
            };
            let unread = (FieldPath::new(below.trim_start_matches('.')), problem.message.clone());
            let Written { metadata, spec: IgnoredAny } = source.read().map_err(|_: Problem| problem)?;
            (metadata, WaiverTerms::default(), Some(unread))
        }
    };
    Ok(done(Object::Waiver(Arc::new(Waiver {
        namespace: metadata.namespace(namespace),
        name: metadata.name(),
        is_ending: metadata.is_terminating(),
        created: metadata.created(),
        terms,
        unread,
    }))))
}

fn done(object: Object) -> Lowered {
    Lowered { object: Some(object), problems: Vec::new() }
}

/// Labels as written; a null stands for none.
type Written = read::Mapping<Str, Option<Str>>;

fn labels(written: Option<&Written>) -> Labels {
    let Some(written) = written else { return Labels::default() };
    written.iter().map(|(key, value)| (key.clone(), value.clone().unwrap_or_default())).collect()
}
