//! What of a cluster goes by itself: policies that are being deleted, or that belong to owners, and
//! workloads on their way out.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Cluster, NamespaceState};
use crate::model::{
    Lifetime, NetworkPolicy, Object, Owner, OwnerReference, PeerAuthentication, Str, Workload, WorkloadId,
};

/// How long the garbage collector may take to find that an owner does not exist. It takes a second
/// or two: a policy that is older belongs to an owner that exists.
const COLLECTED_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// Which policies do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Those whose deletion has begun.
    Ending,
    /// Also those that may be deleted at any moment, since it is not known whether an owner of theirs
    /// exists: they are new, and the collector would have deleted an older one.
    Unowned(Timestamp),
    /// Also all that have an owner: they go when it goes, and no webhook is asked about that.
    Owned,
}

impl Leaving {
    fn takes(self, lifetime: &Lifetime, created: Option<Timestamp>, state: &NamespaceState) -> bool {
        if lifetime.is_ending {
            return true;
        }
        let has_owners = !lifetime.owners.is_empty();
        match self {
            Self::Ending => false,
            Self::Unowned(now) => {
                let is_new = created.is_none_or(|created| now.duration_since(created) < COLLECTED_WITHIN);
                is_new && has_owners && !lifetime.owners.iter().any(|owner| state.has_owner(owner))
            }
            Self::Owned => has_owners,
        }
    }

    fn takes_policy(self, policy: &NetworkPolicy, state: &NamespaceState) -> bool {
        self.takes(&policy.lifetime, policy.created, state)
    }

    fn takes_authentication(self, policy: &PeerAuthentication, state: &NamespaceState) -> bool {
        self.takes(&policy.lifetime, policy.created, state)
    }
}

impl Cluster {
    /// This cluster without the policies of these namespaces that leave; nothing where none does.
    #[must_use]
    pub fn without<'a>(&self, leaving: Leaving, namespaces: impl IntoIterator<Item = &'a Str>) -> Option<Self> {
        let mut after: Option<Self> = None;
        for namespace in namespaces {
            for object in self.leaving(leaving, namespace) {
                after.get_or_insert_with(|| self.clone()).remove(&object);
            }
        }
        after
    }

    /// The policies of a namespace that leave.
    pub fn leaving(&self, leaving: Leaving, namespace: &str) -> Vec<Object> {
        let Some(state) = self.namespace(namespace) else { return Vec::new() };
        let policies = state.policies.iter().filter(|policy| leaving.takes_policy(policy, state));
        let authentications =
            state.peer_authentications.iter().filter(|policy| leaving.takes_authentication(policy, state));
        let policies = policies.cloned().map(Object::NetworkPolicy);
        policies.chain(authentications.cloned().map(Object::PeerAuthentication)).collect()
    }

    /// The policies of `before` that are in force there and no longer are here, though their namespace
    /// stays: gone, or about to go.
    pub fn lost_since(&self, before: &Self) -> Vec<Object> {
        let mut lost = Vec::new();
        for change in before.namespaces.diff(&self.namespaces) {
            let imbl::ordmap::DiffItem::Update { old: (_, old), new: (_, new) } = change else { continue };
            if Arc::ptr_eq(old, new) || new.is_terminating() || new.object.is_none() {
                continue;
            }
            let stays = |policy: &&Arc<NetworkPolicy>| {
                policy.lifetime.is_ending || new.policies.get(&policy.name).is_some_and(|it| !it.lifetime.is_ending)
            };
            lost.extend(old.policies.iter().filter(|it| !stays(it)).cloned().map(Object::NetworkPolicy));
            let stays = |policy: &&Arc<PeerAuthentication>| {
                let now = new.peer_authentications.get(&policy.name);
                policy.lifetime.is_ending || now.is_some_and(|it| !it.lifetime.is_ending)
            };
            lost.extend(
                old.peer_authentications.iter().filter(|it| !stays(it)).cloned().map(Object::PeerAuthentication),
            );
        }
        lost
    }
}

impl NamespaceState {
    /// Whether a workload is on its way out: its deletion has begun, or what it belongs to is gone and
    /// the garbage collector is about to delete it too.
    pub fn is_ending(&self, workload: &Workload) -> bool {
        if workload.ending.has_begun {
            return true;
        }
        let mut dependent = workload;
        // Ownership in Kubernetes is at most three deep (CronJob, Job, Pod); the bound stops a cycle.
        for _ in 0..4 {
            let owner = dependent.owner.as_ref().filter(|_| dependent.ending.is_with_owner);
            let Some(owner) = owner.and_then(Owner::workload) else { return false };
            match self.workloads.get(owner) {
                None => return true,
                Some(owner) if owner.ending.takes_dependents => return true,
                Some(owner) => dependent = owner,
            }
        }
        false
    }

    /// Whether an owner is known to exist. One of a kind that is not known here may. An object of its
    /// name with another uid is not the owner: the garbage collector compares the two.
    fn has_owner(&self, owner: &OwnerReference) -> bool {
        let OwnerReference { api_version, kind, name, uid } = owner;
        let known = match (api_version.as_str(), kind.as_str()) {
            ("v1", "Service") => self.services.get(name).map(|it| &it.uid),
            ("networking.k8s.io/v1", "NetworkPolicy") => self.policies.get(name).map(|it| &it.lifetime.uid),
            ("v1", "Namespace") => self.object.as_ref().filter(|it| it.name == *name).map(|it| &it.uid),
            ("v1" | "apps/v1" | "batch/v1", _) => {
                self.workloads.get(&WorkloadId { kind: kind.clone(), name: name.clone() }).map(|it| &it.uid)
            }
            _ => None,
        };
        known.is_some_and(|known| known.as_ref().zip(uid.as_ref()).is_none_or(|(known, named)| known == named))
    }
}
