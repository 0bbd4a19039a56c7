//! The state that is judged: one immutable value, cheap to clone and to change by one object.
//!
//! [`Cluster`] is what rules see. [`Index`] is its single writer: watches and manifest folders feed
//! it objects, and it publishes snapshots. Neither knows where the objects came from.
//!
//! **Invariant:** any order of events that ends in the same objects gives an equal `Cluster`.

mod fresh;
mod index;
mod lifetime;
mod policies;
mod table;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::model::{
    Change, ForeignPolicy, Labels, METADATA_NAME, MeshConfig, Namespace, Object, PeerAuthentication, Revision, Service,
    Str, Waiver, WebhookConfiguration, WebhookKind, Workload, WorkloadId,
};

pub use fresh::{Extent, Reading};
pub use index::Index;
pub use lifetime::Leaving;
pub use policies::{Policies, PolicySet};
pub use table::{Keyed, Table};

/// Everything known about a cluster at one moment.
///
/// A clone is a few reference counts. [`Cluster::with`] shares every namespace the change does not
/// touch, so asking "what if" of a large cluster costs as much as of a small one.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Cluster {
    namespaces: OrdMap<Str, Arc<NamespaceState>>,
    /// Services that look like cluster DNS, by namespace and name: finding them must not walk
    /// every Service at each review.
    dns_services: OrdSet<(Str, Str)>,
    mesh_configs: OrdMap<(Str, Str), Arc<MeshConfig>>,
    webhooks: OrdMap<(WebhookKind, Str), Arc<WebhookConfiguration>>,
    /// Cluster-scoped policies of other systems, by kind and name.
    foreign: OrdMap<(Str, Str), Arc<ForeignPolicy>>,
}

/// One namespace and what is in it. It exists from the first object that names it: a manifest
/// folder often leaves the Namespace itself to someone else.
#[derive(Clone, PartialEq, Debug)]
pub struct NamespaceState {
    /// Its name.
    pub name: Str,
    /// The Namespace object, where it is known.
    pub object: Option<Arc<Namespace>>,
    /// Its labels: the object's, or the one every namespace carries.
    pub labels: Labels,
    /// Pods and templates, finished ones included.
    pub workloads: Table<Workload>,
    /// NetworkPolicies.
    pub policies: Policies,
    /// Services.
    pub services: Table<Service>,
    /// PeerAuthentications.
    pub peer_authentications: Table<PeerAuthentication>,
    /// Policies of other systems in this namespace.
    pub foreign: Table<ForeignPolicy>,
    /// Waivers, expired ones included: the time is not known here.
    pub waivers: Table<Waiver>,
}

impl NamespaceState {
    fn new(name: &Str) -> Self {
        Self {
            name: name.clone(),
            object: None,
            labels: Labels::from([(METADATA_NAME, name.as_str())]),
            workloads: Table::default(),
            policies: Policies::default(),
            services: Table::default(),
            peer_authentications: Table::default(),
            foreign: Table::default(),
            waivers: Table::default(),
        }
    }

    /// Whether it is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.object.as_ref().is_some_and(|namespace| namespace.is_terminating)
    }

    /// Pods and templates that have or will have traffic: those not finished. The empty `ReplicaSets` a
    /// Deployment keeps to roll back to are not among them, for it speaks for them; those that only
    /// claim to be a Deployment's are.
    pub fn live_workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.iter().filter(|workload| !workload.is_finished && self.rolled_from(workload).is_none())
    }

    /// The empty `ReplicaSets` that a Deployment keeps to roll back to, each with its Deployment.
    pub fn kept_revisions(&self) -> impl Iterator<Item = (&Arc<Workload>, &Arc<Workload>)> {
        self.workloads.iter().filter_map(|workload| Some((workload, self.rolled_from(workload)?)))
    }

    /// The Deployment that an empty ReplicaSet is an old revision of.
    fn rolled_from(&self, workload: &Workload) -> Option<&Arc<Workload>> {
        let owner = workload.owner.as_ref().filter(|_| workload.is_idle)?.workload()?;
        let deployment = self.workloads.get(owner).filter(|_| owner.kind == "Deployment")?;
        // One that is being deleted speaks for nothing: a finalizer may hold it, and its ReplicaSets are
        // scaled all the same.
        (!deployment.ending.has_begun).then_some(deployment)
    }

    fn objects(&self) -> impl Iterator<Item = Object> {
        let Self { name: _, object, labels: _, workloads, policies, services, peer_authentications, foreign, waivers } =
            self;
        (object.iter().cloned().map(Object::Namespace))
            .chain(workloads.iter().cloned().map(Object::Workload))
            .chain(policies.iter().cloned().map(Object::NetworkPolicy))
            .chain(services.iter().cloned().map(Object::Service))
            .chain(peer_authentications.iter().cloned().map(Object::PeerAuthentication))
            .chain(foreign.iter().cloned().map(Object::ForeignPolicy))
            .chain(waivers.iter().cloned().map(Object::Waiver))
    }

    fn is_unused(&self) -> bool {
        let Self { name: _, object, labels: _, workloads, policies, services, peer_authentications, foreign, waivers } =
            self;
        object.is_none()
            && workloads.is_empty()
            && policies.is_empty()
            && services.is_empty()
            && peer_authentications.is_empty()
            && foreign.is_empty()
            && waivers.is_empty()
    }
}

impl Cluster {
    /// A cluster of these objects; of two with one identity the later wins.
    pub fn of(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut cluster = Self::default();
        for object in objects {
            cluster.insert(object);
        }
        cluster
    }

    /// What this cluster becomes.
    #[must_use]
    pub fn with(&self, change: &Change) -> Self {
        let mut after = self.clone();
        match change {
            Change::Create(object) => after.insert(object.clone()),
            Change::Update(old, new) => {
                if old.reference() != new.reference() {
                    after.remove(old);
                }
                after.insert(new.clone());
            }
            Change::Delete(object) => after.remove(object),
        }
        after
    }

    /// This cluster with an object as the change found it: what the API server held a moment ago,
    /// whether or not the watch has seen it yet.
    #[must_use]
    pub fn as_found_by(&self, change: &Change) -> Self {
        let mut before = self.clone();
        match change.before() {
            Some(object) => before.insert(object.clone()),
            None => before.remove(change.subject()),
        }
        before
    }

    /// Every object, kind by kind within its namespace.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        let Self { namespaces, dns_services: _, mesh_configs, webhooks, foreign } = self;
        let of_cluster = (mesh_configs.values().cloned().map(Object::MeshConfig))
            .chain(webhooks.values().cloned().map(Object::WebhookConfiguration))
            .chain(foreign.values().cloned().map(Object::ForeignPolicy));
        namespaces.values().flat_map(|state| state.objects()).chain(of_cluster)
    }

    /// The namespace of this name.
    pub fn namespace(&self, name: &str) -> Option<&Arc<NamespaceState>> {
        self.namespaces.get(name)
    }

    /// All namespaces by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<NamespaceState>> {
        self.namespaces.values()
    }

    /// A namespace's labels; of one nothing is known of, the label every namespace carries.
    pub fn namespace_labels(&self, name: &str) -> Labels {
        match self.namespace(name) {
            Some(state) => state.labels.clone(),
            None => Labels::from([(METADATA_NAME, name)]),
        }
    }

    /// A workload by name.
    pub fn workload(&self, namespace: &str, id: &WorkloadId) -> Option<&Arc<Workload>> {
        self.namespace(namespace)?.workloads.get(id)
    }

    /// A Service by name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        self.namespace(namespace)?.services.get(name)
    }

    /// The Services that look like cluster DNS (see [`looks_like_dns`]).
    pub fn dns_services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.dns_services.iter().filter_map(|(namespace, name)| self.service(namespace, name))
    }

    /// The mesh's ConfigMaps by namespace and name.
    pub fn mesh_configs(&self) -> impl Iterator<Item = &Arc<MeshConfig>> {
        self.mesh_configs.values()
    }

    /// The mesh's injectors by name.
    pub fn revisions(&self) -> impl Iterator<Item = &Revision> {
        self.webhooks.values().filter_map(|configuration| configuration.revision.as_ref())
    }

    /// Configurations of admission webhooks by kind and name.
    pub fn webhooks(&self) -> impl Iterator<Item = &Arc<WebhookConfiguration>> {
        self.webhooks.values()
    }

    /// Policies of other systems that may touch a namespace: its own and the cluster-scoped ones.
    pub fn foreign_policies(&self, namespace: &str) -> impl Iterator<Item = &Arc<ForeignPolicy>> {
        let own = self.namespace(namespace).into_iter().flat_map(|state| state.foreign.iter());
        own.chain(self.foreign.values())
    }

    /// The workload at the top of a chain of controllers: of a Deployment's pod, the Deployment.
    /// Where a link is not known, what is known of it: its kind and name.
    pub fn root_owner(&self, workload: &Workload) -> WorkloadId {
        let mut id = workload.id.clone();
        let mut owner = workload.owner.clone();
        // Ownership in Kubernetes is at most three deep (CronJob, Job, Pod); the bound stops a cycle.
        for _ in 0..4 {
            let Some(next) = owner else { break };
            let known = next.workload().and_then(|id| self.workload(&workload.namespace, id));
            owner = known.and_then(|found| found.owner.clone());
            id = next.id;
        }
        id
    }

    /// Adds an object, or replaces the one with its identity.
    fn insert(&mut self, object: Object) {
        match object {
            Object::Namespace(it) => {
                let name = it.name.clone();
                self.change(&name, |state| {
                    state.labels = it.labels.clone();
                    state.object = Some(it);
                });
            }
            Object::Workload(it) => self.change(&it.namespace.clone(), |state| state.workloads.insert(it)),
            Object::NetworkPolicy(it) => self.change(&it.namespace.clone(), |state| {
                state.foreign.remove(&unread_key(&it.name));
                state.policies.insert(it);
            }),
            Object::Service(it) => {
                let key = (it.namespace.clone(), it.name.clone());
                if looks_like_dns(&it) {
                    self.dns_services.insert(key.clone());
                } else {
                    self.dns_services.remove(&key);
                }
                self.change(&key.0, |state| state.services.insert(it));
            }
            Object::PeerAuthentication(it) => {
                self.change(&it.namespace.clone(), |state| state.peer_authentications.insert(it));
            }
            Object::MeshConfig(it) => {
                self.mesh_configs.insert((it.namespace.clone(), it.name.clone()), it);
            }
            Object::WebhookConfiguration(it) => {
                self.webhooks.insert((it.kind, it.name.clone()), it);
            }
            Object::ForeignPolicy(it) => match it.namespace.clone() {
                Some(namespace) => self.change(&namespace, |state| {
                    if it.kind == UNREAD_POLICY {
                        state.policies.remove(&it.name);
                    }
                    state.foreign.insert(it);
                }),
                None => {
                    self.foreign.insert((it.kind.clone(), it.name.clone()), it);
                }
            },
            Object::Waiver(it) => self.change(&it.namespace.clone(), |state| state.waivers.insert(it)),
        }
    }

    /// Takes out the object with this identity, if it is there.
    fn remove(&mut self, object: &Object) {
        match object {
            Object::Namespace(it) => self.change(&it.name, |state| {
                state.object = None;
                state.labels = Labels::from([(METADATA_NAME, state.name.as_str())]);
            }),
            Object::Workload(it) => self.change(&it.namespace, |state| state.workloads.remove(&it.id)),
            Object::NetworkPolicy(it) => self.change(&it.namespace, |state| {
                state.policies.remove(&it.name);
                state.foreign.remove(&unread_key(&it.name));
            }),
            Object::Service(it) => {
                self.dns_services.remove(&(it.namespace.clone(), it.name.clone()));
                self.change(&it.namespace, |state| state.services.remove(&it.name));
            }
            Object::PeerAuthentication(it) => {
                self.change(&it.namespace, |state| state.peer_authentications.remove(&it.name));
            }
            Object::MeshConfig(it) => {
                self.mesh_configs.remove(&(it.namespace.clone(), it.name.clone()));
            }
            Object::WebhookConfiguration(it) => {
                self.webhooks.remove(&(it.kind, it.name.clone()));
            }
            Object::ForeignPolicy(it) => match &it.namespace {
                Some(namespace) => self.change(namespace, |state| {
                    state.foreign.remove(&it.key());
                    if it.kind == UNREAD_POLICY {
                        state.policies.remove(&it.name);
                    }
                }),
                None => {
                    self.foreign.remove(&(it.kind.clone(), it.name.clone()));
                }
            },
            Object::Waiver(it) => self.change(&it.namespace, |state| state.waivers.remove(&it.name)),
        }
    }

    /// Changes one namespace, shared parts copied; one nothing is left of is forgotten.
    fn change(&mut self, name: &Str, change: impl FnOnce(&mut NamespaceState)) {
        let mut state = self.namespaces.remove(name).unwrap_or_else(|| Arc::new(NamespaceState::new(name)));
        change(Arc::make_mut(&mut state));
        if !state.is_unused() {
            self.namespaces.insert(name.clone(), state);
        }
    }
}

/// The names distributions give the Service in front of cluster DNS.
pub const DNS_SERVICE_NAMES: [&str; 4] = ["kube-dns", "dns-default", "coredns", "rke2-coredns-rke2-coredns"];
/// The label by which the DNS Service says what it is.
pub const DNS_APP_LABEL: &str = "k8s-app";
/// What it says.
pub const DNS_APPS: [&str; 2] = ["kube-dns", "coredns"];

/// The labels the pods of cluster DNS carry, with the values the distributions give them: kubeadm, EKS,
/// AKS, GKE, k3s, kind and RKE2, the CoreDNS chart, OpenShift.
pub const DNS_POD_LABELS: [(&str, &[&str]); 3] = [
    (DNS_APP_LABEL, &DNS_APPS),
    ("app.kubernetes.io/name", &["coredns"]),
    ("dns.operator.openshift.io/daemonset-dns", &["default"]),
];

/// Whether pods with these labels may be those of cluster DNS.
pub fn pods_look_like_dns(labels: &Labels) -> bool {
    let has_one = |(key, values): (&str, &[&str])| labels.get(key).is_some_and(|it| values.contains(&it.as_str()));
    DNS_POD_LABELS.into_iter().any(has_one)
}

/// The kind of a [`ForeignPolicy`] that is a NetworkPolicy nobody can read. It is the same object as
/// when it could be read, or can be again: one takes the other's place.
const UNREAD_POLICY: &str = "NetworkPolicy";

fn unread_key(name: &Str) -> <ForeignPolicy as Keyed>::Key {
    (UNREAD_POLICY.into(), name.clone())
}

/// Whether a Service is cluster DNS by the names and labels the distributions give it: kubeadm,
/// EKS, AKS, GKE, k3s and kind call it `kube-dns`, OpenShift `dns-default`, the CoreDNS chart
/// `coredns`, RKE2 `rke2-coredns-rke2-coredns`; all but OpenShift's carry `k8s-app: kube-dns`.
pub fn looks_like_dns(service: &Service) -> bool {
    let named = DNS_SERVICE_NAMES.contains(&service.name.as_str());
    let labelled = service.labels.get(DNS_APP_LABEL).is_some_and(|app| DNS_APPS.contains(&app.as_str()));
    (named || labelled) && service.ports.iter().any(|port| port.port == 53)
}
