//! What the cluster's own controllers make of a template.

use super::{Workload, is_by_controllers};

/// Which kind makes which.
const MADE: [(&str, &str); 7] = [
    ("CronJob", "Job"),
    ("DaemonSet", "Pod"),
    ("Deployment", "ReplicaSet"),
    ("Job", "Pod"),
    ("ReplicaSet", "Pod"),
    ("ReplicationController", "Pod"),
    ("StatefulSet", "Pod"),
];

/// Whether the controller of one kind makes objects of another.
pub fn makes(owner: &str, made: &str) -> bool {
    MADE.contains(&(owner, made))
}

impl Workload {
    /// Whether this is what a template makes: with its network, its labels, those that controllers
    /// write, and no others. An owner reference alone does not say so, as anyone can write one.
    pub fn is_made_by(&self, template: &Self) -> bool {
        let is_known = |key: &str| template.labels.get(key).is_some() || is_by_controllers(key);
        makes(&template.id.kind, &self.id.kind)
            && template.host_network == self.host_network
            && template.labels.is_subset(&self.labels)
            && self.labels.iter().all(|(key, _)| is_known(key))
    }
}
