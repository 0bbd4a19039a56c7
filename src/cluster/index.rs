//! The single writer of a [`Cluster`].

use super::Cluster;
use crate::model::Object;

/// Takes objects as they come and go and keeps the cluster they make up.
///
/// Synchronous on purpose: a source is a loop that calls these three, and a test is the same loop
/// without the network.
#[derive(Default)]
pub struct Index {
    cluster: Cluster,
}

impl Index {
    /// An index of a cluster in which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// An object was added or changed.
    pub fn apply(&mut self, object: Object) {
        self.cluster.insert(object);
    }

    /// An object is gone.
    pub fn delete(&mut self, object: &Object) {
        self.cluster.remove(object);
    }

    /// A fresh list replaces everything known.
    pub fn reset(&mut self, objects: impl IntoIterator<Item = Object>) {
        self.cluster = Cluster::of(objects);
    }

    /// The cluster as it stands; later changes do not show in it.
    pub fn snapshot(&self) -> Cluster {
        self.cluster.clone()
    }
}
