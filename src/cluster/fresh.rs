//! A cluster with parts of it read again, since what was written a moment ago may not have been seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Cluster, Policies, Table};
use crate::model::{Labels, METADATA_NAME, Object, Str, Workload, WorkloadId};

/// What is to be read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The namespaces.
    pub namespaces: Vec<Str>,
    /// What of them.
    pub extent: Extent,
}

/// How much of a namespace is to be read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// The Namespace itself, its NetworkPolicies, its PeerAuthentications and its Waivers.
    #[default]
    Policies,
    /// Also which workloads there are, and which of them are being deleted.
    Workloads,
}

impl Cluster {
    /// This cluster with what a fresh read of one namespace found: the Namespace itself, its
    /// NetworkPolicies, its PeerAuthentications and its Waivers. All else stays as it was known.
    #[must_use]
    pub fn with_fresh(&self, namespace: &Str, found: impl IntoIterator<Item = Object>) -> Self {
        let mut after = self.clone();
        after.change(namespace, |state| {
            state.object = None;
            state.labels = Labels::from([(METADATA_NAME, state.name.as_str())]);
            state.policies = Policies::default();
            state.peer_authentications = Table::default();
            state.waivers = Table::default();
        });
        for object in found {
            after.insert(object);
        }
        after
    }

    /// This cluster with what the metadata of all workloads of one kind in a namespace says: which of
    /// them there are, and how they end. What their specs say stays as it was known.
    #[must_use]
    pub fn with_fresh_workloads(
        &self,
        namespace: &Str,
        kind: &str,
        found: impl IntoIterator<Item = Arc<Workload>>,
    ) -> Self {
        let found: BTreeMap<WorkloadId, Arc<Workload>> = found.into_iter().map(|it| (it.id.clone(), it)).collect();
        let mut after = self.clone();
        after.change(namespace, |state| {
            let known = state.workloads.clone();
            for gone in known.iter().filter(|it| it.id.kind == kind && !found.contains_key(&it.id)) {
                state.workloads.remove(&gone.id);
            }
            for (id, found) in found {
                let workload = match known.get(&id) {
                    Some(known) if known.ending == found.ending && known.owner == found.owner => continue,
                    Some(known) => {
                        let mut workload = Workload::clone(known);
                        let is_with_owner = known.ending.is_with_owner && found.ending.is_with_owner;
                        workload.ending = crate::model::Ending { is_with_owner, ..found.ending };
                        workload.owner.clone_from(&found.owner);
                        workload
                    }
                    // Of a new pod the labels are known. Of a new template they are not: it stands for
                    // the owner that it is, and its pods for themselves.
                    None => {
                        let mut workload = Workload::clone(&found);
                        workload.is_finished = !found.is_pod();
                        workload.ending.is_with_owner = false;
                        workload
                    }
                };
                state.workloads.insert(Arc::new(workload));
            }
        });
        after
    }
}
