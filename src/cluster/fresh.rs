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
                    Some(known)
                        if (&known.uid, known.ending, &known.owner) == (&found.uid, found.ending, &found.owner) =>
                    {
                        continue;
                    }
                    Some(known) => {
                        let mut workload = Workload::clone(known);
                        let is_with_owner = known.ending.is_with_owner && found.ending.is_with_owner;
                        workload.ending = crate::model::Ending { is_with_owner, ..found.ending };
                        workload.uid.clone_from(&found.uid);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Ending, Owner};

    fn workload(kind: &str, name: &str, owner: Option<(&str, &str)>) -> Workload {
        Workload {
            owner: owner.map(|(kind, name)| Owner {
                group: Some("apps".into()),
                id: WorkloadId { kind: kind.into(), name: name.into() },
            }),
            ending: Ending { is_with_owner: owner.is_some(), ..Ending::default() },
            ..Workload::bare(kind, "shop", name, Labels::from([("app", "cart")]))
        }
    }

    fn cluster(workloads: &[Workload]) -> Cluster {
        Cluster::of(workloads.iter().cloned().map(Arc::new).map(Object::Workload))
    }

    /// The workloads of `shop` with a fresh read of one kind: name, whether it is ending, its labels.
    fn read(known: &[Workload], kind: &str, found: &[Workload]) -> Vec<(String, bool, usize)> {
        let fresh = cluster(known).with_fresh_workloads(&"shop".into(), kind, found.iter().cloned().map(Arc::new));
        let Some(state) = fresh.namespace("shop") else { return Vec::new() };
        let live = state.live_workloads().map(|it| (it.id.to_string(), state.is_ending(it), it.labels.iter().count()));
        live.collect()
    }

    #[test]
    fn what_is_not_found_is_gone_and_other_kinds_stay() {
        let known = [workload("Pod", "a", None), workload("Pod", "b", None), workload("Deployment", "a", None)];
        let left = read(&known, "Pod", &known[..1]);
        assert_eq!(left, [("Deployment a".to_owned(), false, 1), ("Pod a".to_owned(), false, 1)]);
    }

    #[test]
    fn what_is_being_deleted_by_now_keeps_what_is_known_of_it() {
        let known = [workload("Pod", "a", None)];
        let ending = Ending { has_begun: true, ..Ending::default() };
        let found = Workload { ending, labels: Labels::default(), ..known[0].clone() };
        assert_eq!(read(&known, "Pod", &[found]), [("Pod a".to_owned(), true, 1)]);
    }

    #[test]
    fn a_pod_whose_owner_is_gone_is_ending_and_one_whose_owner_is_new_is_not() {
        let pod = workload("Pod", "a", Some(("ReplicaSet", "r")));
        let set = workload("ReplicaSet", "r", None);
        assert_eq!(read(&[pod.clone(), set.clone()], "ReplicaSet", &[]), [("Pod a".to_owned(), true, 1)]);
        assert_eq!(read(std::slice::from_ref(&pod), "ReplicaSet", &[set]), [("Pod a".to_owned(), false, 1)]);
        // Of a new pod nothing but its metadata is known: it may shut down for a year.
        assert_eq!(read(&[], "Pod", &[pod]), [("Pod a".to_owned(), false, 1)]);
    }
}
