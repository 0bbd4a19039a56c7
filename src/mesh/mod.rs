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

mod ambient;
mod capture;
mod idle;
mod membership;
mod mode;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::model::{MeshConfig, ObjectRef, PeerAuthentication, Str, Workload, written};

pub use idle::{Cause, Idle};
pub use membership::{Dataplane, Membership, Reason};
use mode::Counts;
pub use mode::{Authority, Drop, Effective, Mode, Policies, Setting};

/// `MeshConfig.rootNamespace` where nothing is written, and where the control plane is installed
/// unless someone chose otherwise.
const DEFAULT_ROOT: &str = "istio-system";

/// How the mesh is set up, where the cluster does not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct MeshSettings {
    /// The mesh's root namespace. Left out, it is read from the mesh's ConfigMap in the namespace
    /// of the sidecar injector, else it is `istio-system`. A ConfigMap in any other namespace is
    /// ignored.
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
    /// It is where an injector runs whose ConfigMap is not known: what the charts set up.
    Injector,
    /// Nothing proves where the mesh is: it is Istio's default. These ConfigMaps look like a mesh's,
    /// and anyone could have written them.
    Unproven(Vec<ObjectRef>),
    /// Nothing does: it is Istio's default.
    Default,
}

impl Root {
    /// Whether it may be another namespace by what the cluster's administrators wrote. ConfigMaps that
    /// anyone could have written count for nothing.
    pub fn is_doubtful(&self) -> bool {
        match self.source {
            RootSource::Settings | RootSource::Config(_) | RootSource::Default | RootSource::Unproven(_) => false,
            RootSource::Disputed(_) | RootSource::Injector => true,
        }
    }
}

/// What a workload, or a pod to come, ends up with.
#[derive(Clone, Debug)]
pub struct Posture<'a> {
    /// Whether it is in the mesh.
    pub membership: Membership,
    /// What its ports accept. Of what is outside the mesh: what they would accept inside.
    pub effective: Effective<'a>,
}

/// Policies by namespace and by the revision that reads them.
type InForce<'a> = BTreeMap<(Str, Option<Str>), Rc<Policies<'a>>>;

/// The mesh as one cluster's objects make it up.
pub struct Mesh<'a> {
    cluster: &'a Cluster,
    root: Root,
    inject_by_default: bool,
    /// Of the control planes whose injectors are known. Tags are other names for these.
    revisions: BTreeSet<&'a Str>,
    /// Worked out once for each namespace that is asked about.
    policies: RefCell<InForce<'a>>,
    /// The same of policies without effect.
    idle: RefCell<BTreeMap<Str, Rc<[Idle<'a>]>>>,
}

impl<'a> Mesh<'a> {
    /// The mesh of a cluster.
    pub fn new(cluster: &'a Cluster, settings: &MeshSettings) -> Self {
        Self {
            cluster,
            root: find_root(cluster, settings),
            inject_by_default: settings.inject_by_default,
            revisions: cluster.revisions().filter_map(|it| it.revision.as_ref()).collect(),
            policies: RefCell::default(),
            idle: RefCell::default(),
        }
    }

    /// The root namespace.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The policies in force in a namespace, as far as they count for every revision.
    pub fn policies(&self, namespace: &str) -> Rc<Policies<'a>> {
        self.policies_of(namespace, None)
    }

    /// The policies in force in a namespace for what a revision serves; nothing where that is not
    /// known.
    fn policies_of(&self, namespace: &str, revision: Option<&Str>) -> Rc<Policies<'a>> {
        // Only where there are several does it matter which one it is.
        let key = (Str::from(namespace), revision.filter(|_| self.revisions.len() > 1).cloned());
        if let Some(known) = self.policies.borrow().get(&key) {
            return Rc::clone(known);
        }
        let counts = |policy: &PeerAuthentication| self.counts(policy, revision);
        let found = Rc::new(Policies::in_force(self.cluster, &self.root.namespace, namespace, counts));
        self.policies.borrow_mut().insert(key, Rc::clone(&found));
        found
    }

    /// Whether a policy counts for what a revision serves: a control plane reads only what carries
    /// no `istio.io/rev` or its own (`config.LabelsInRevision`), and tags are no revisions there.
    fn counts(&self, policy: &PeerAuthentication, revision: Option<&Str>) -> Counts {
        match &policy.revision {
            None => Counts::Yes,
            Some(_) if self.revisions.is_empty() => Counts::Perhaps,
            Some(own) if !self.revisions.contains(own) => Counts::No,
            Some(_) if self.revisions.len() == 1 => Counts::Yes,
            Some(own) => revision.map_or(Counts::Perhaps, |it| if it == own { Counts::Yes } else { Counts::No }),
        }
    }

    /// What a workload ends up with.
    pub fn posture(&self, workload: &Workload) -> Posture<'a> {
        let membership = self.membership(workload);
        let policies = self.policies_of(&workload.namespace, self.revision_of(workload));
        let effective = policies.effective(&workload.labels, membership.dataplane);
        Posture { effective: capture::uncaptured(effective, workload, membership.dataplane), membership }
    }

    /// What a pod to come in a namespace ends up with, while it has no label of its own.
    pub fn posture_of_new_pods(&self, namespace: &str) -> Posture<'a> {
        let membership = self.membership_of_new_pods(namespace);
        let revision = match &membership.reason {
            Reason::Injected(name) => self.revision_named(name),
            _ => None,
        };
        let default = self.policies_of(namespace, revision).inherited(membership.dataplane);
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
    // Anyone can make a ConfigMap `istio` in a namespace of their own. Where the control plane is,
    // its injector's configuration says, which only the cluster's administrators write.
    let named = |config: &MeshConfig| config.root_namespace.clone().unwrap_or_else(|| DEFAULT_ROOT.into());
    let reference = |config: &MeshConfig| ObjectRef {
        kind: "ConfigMap".into(),
        namespace: Some(config.namespace.clone()),
        name: config.name.clone(),
    };
    let injectors = injectors(cluster);
    let is_at_home =
        |namespace: &str| if injectors.is_empty() { namespace == DEFAULT_ROOT } else { injectors.contains(namespace) };
    let (configs, strangers): (Vec<_>, Vec<_>) =
        cluster.mesh_configs().partition(|config| is_at_home(&config.namespace));
    let Some(first) = configs.first() else {
        let elsewhere = injectors.first().filter(|_| !injectors.contains(DEFAULT_ROOT));
        let source = match elsewhere {
            Some(_) => RootSource::Injector,
            None if injectors.is_empty() && !strangers.is_empty() => {
                RootSource::Unproven(strangers.into_iter().map(|config| reference(config)).collect())
            }
            None => RootSource::Default,
        };
        return Root { namespace: Str::from(*elsewhere.unwrap_or(&DEFAULT_ROOT)), source };
    };
    let agreed = configs.iter().all(|config| named(config) == named(first));
    let source = if agreed {
        RootSource::Config(reference(first))
    } else {
        RootSource::Disputed(configs.iter().map(|config| reference(config)).collect())
    };
    Root { namespace: named(first), source }
}

/// The namespaces of the Services that inject sidecars. An injector outside the cluster has none.
fn injectors(cluster: &Cluster) -> BTreeSet<&str> {
    let injecting = cluster.webhooks().filter(|configuration| configuration.revision.is_some());
    injecting.flat_map(|configuration| configuration.webhooks.iter().map(|it| it.namespace.as_str())).collect()
}
