//! The single writer of a [`Cluster`].

use std::collections::HashSet;

use super::Cluster;
use crate::model::{Object, ObjectRef};

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

    /// A fresh list of some kind replaces what was known of that kind, and nothing else.
    pub fn replace(&mut self, is_of_kind: impl Fn(&Object) -> bool, objects: Vec<Object>) {
        let listed: HashSet<ObjectRef> = objects.iter().map(Object::reference).collect();
        let gone = self.cluster.objects().filter(|object| is_of_kind(object) && !listed.contains(&object.reference()));
        for object in gone.collect::<Vec<_>>() {
            self.cluster.remove(&object);
        }
        for object in objects {
            self.cluster.insert(object);
        }
    }

    /// The cluster as it stands; later changes do not show in it.
    pub fn snapshot(&self) -> Cluster {
        self.cluster.clone()
    }
}
