//! Effective mutual TLS: which workloads are in the mesh, and what each of their ports accepts, by
//! the mesh's own precedence.
//!
//! Istio's precedence is that of `pilot/pkg/model/authentication.go` and
//! `pilot/pkg/security/authn/policy_applier.go`, its injection that of the chart's webhooks and
//! `pkg/kube/inject`, ambient's that of ztunnel. Three facts surprise most readers: of several
//! policies of one scope the *oldest* wins and the others do nothing; a policy with a selector in
//! the root namespace does nothing at all; `portLevelMtls` counts *workload* ports.
//!
//! Not here: what clients send (`DestinationRule`), `AuthorizationPolicy`, other meshes. Nor what the
//! injector's own ConfigMap may say (`neverInjectSelector`, `alwaysInjectSelector`, `policy`).

mod capture;
mod idle;
mod membership;
mod mode;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::model::{MeshConfig, ObjectRef, Str, Workload, written};

pub use idle::{Cause, Idle};
pub use membership::{Dataplane, Membership, Reason};
pub use mode::{Authority, Drop, Effective, Mode, Policies, Setting};

/// `MeshConfig.rootNamespace` where nothing is written, and where the control plane is installed
/// unless someone chose otherwise.
const DEFAULT_ROOT: &str = "istio-system";

/// How the mesh is set up, where the cluster does not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct MeshSettings {
    /// The mesh's root namespace. Left out, it is read from the mesh's ConfigMap, and is
    /// `istio-system` where there is none.
    #[serde(deserialize_with = "written::optional_name")]
    #[schemars(with = "Option<String>")]
    pub root_namespace: Option<Str>,
    /// Whether the injector takes pods of namespaces that carry no label about it: Istio's
    /// `sidecarInjectorWebhook.enableNamespacesByDefault`.
    pub inject_by_default: bool,
}

impl MeshSettings {
    /// The root namespace as far as it is known without a cluster.
    pub fn expected_root(&self) -> &str {
        self.root_namespace.as_deref().unwrap_or(DEFAULT_ROOT)
    }
}

/// The mesh's root namespace: policies in it are about the whole mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its name.
    pub namespace: Str,
    /// How it is known.
    pub source: RootSource,
}

/// How the root namespace is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// The configuration names it.
    Settings,
    /// A mesh ConfigMap does.
    Config(ObjectRef),
    /// Several mesh ConfigMaps name different ones: the first is taken, and nothing is certain.
    Disputed(Vec<ObjectRef>),
    /// Nothing does: it is Istio's default.
    Default,
}

/// What a workload, or a pod to come, ends up with.
#[derive(Clone, Debug)]
pub struct Posture<'a> {
    /// Whether it is in the mesh.
    pub membership: Membership,
    /// What its ports accept. Of what is outside the mesh: what they would accept inside.
    pub effective: Effective<'a>,
}

/// The mesh as one cluster's objects make it up.
pub struct Mesh<'a> {
    cluster: &'a Cluster,
    root: Root,
    inject_by_default: bool,
    /// Worked out once for each namespace that is asked about.
    policies: RefCell<BTreeMap<Str, Rc<Policies<'a>>>>,
}

impl<'a> Mesh<'a> {
    /// The mesh of a cluster.
    pub fn new(cluster: &'a Cluster, settings: &MeshSettings) -> Self {
        Self {
            cluster,
            root: find_root(cluster, settings),
            inject_by_default: settings.inject_by_default,
            policies: RefCell::default(),
        }
    }

    /// The root namespace.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The policies in force in a namespace.
    pub fn policies(&self, namespace: &str) -> Rc<Policies<'a>> {
        if let Some(known) = self.policies.borrow().get(namespace) {
            return Rc::clone(known);
        }
        let found = Rc::new(Policies::in_force(self.cluster, &self.root.namespace, namespace));
        self.policies.borrow_mut().insert(namespace.into(), Rc::clone(&found));
        found
    }

    /// What a workload ends up with.
    pub fn posture(&self, workload: &Workload) -> Posture<'a> {
        let membership = self.membership(workload);
        let policies = self.policies(&workload.namespace);
        let effective = policies.effective(&workload.labels, membership.dataplane);
        Posture { effective: capture::uncaptured(effective, workload, membership.dataplane), membership }
    }

    /// What a pod to come in a namespace ends up with, while it has no label of its own.
    pub fn posture_of_new_pods(&self, namespace: &str) -> Posture<'a> {
        let membership = self.membership_of_new_pods(namespace);
        let default = self.policies(namespace).inherited(membership.dataplane);
        Posture { effective: Effective { default, ports: BTreeMap::new() }, membership }
    }

    /// What a namespace to come ends up with, if it joins the mesh and has no policy of its own.
    pub fn posture_of_new_namespaces(&self) -> Posture<'a> {
        Posture {
            membership: Membership { dataplane: Dataplane::Sidecar, reason: Reason::Joins },
            effective: Effective { default: self.mesh_wide(), ports: BTreeMap::new() },
        }
    }

    /// The mode of every namespace in the mesh that has no policy of its own.
    pub fn mesh_wide(&self) -> Setting<'a> {
        self.policies(&self.root.namespace).inherited(Dataplane::Sidecar)
    }
}

fn find_root(cluster: &Cluster, settings: &MeshSettings) -> Root {
    if let Some(namespace) = &settings.root_namespace {
        return Root { namespace: namespace.clone(), source: RootSource::Settings };
    }
    let named = |config: &MeshConfig| config.root_namespace.clone().unwrap_or_else(|| DEFAULT_ROOT.into());
    let reference = |config: &MeshConfig| ObjectRef {
        kind: "ConfigMap".into(),
        namespace: Some(config.namespace.clone()),
        name: config.name.clone(),
    };
    // Anyone can make a ConfigMap `istio` in a namespace of their own. Where the control plane is
    // in its usual place, only what is written there counts.
    let usual: Vec<_> = cluster.mesh_configs().filter(|config| config.namespace == DEFAULT_ROOT).collect();
    let configs = if usual.is_empty() { cluster.mesh_configs().collect() } else { usual };
    let Some(first) = configs.first() else {
        return Root { namespace: DEFAULT_ROOT.into(), source: RootSource::Default };
    };
    let agreed = configs.iter().all(|config| named(config) == named(first));
    let source = if agreed {
        RootSource::Config(reference(first))
    } else {
        RootSource::Disputed(configs.iter().map(|config| reference(config)).collect())
    };
    Root { namespace: named(first), source }
}
