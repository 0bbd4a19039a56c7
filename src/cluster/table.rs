//! A small sorted table that is shared until it is changed.

use std::borrow::Borrow;
use std::sync::Arc;

use crate::model::{ForeignPolicy, NetworkPolicy, PeerAuthentication, Service, Str, Waiver, Workload, WorkloadId};

/// What has a name among its kind in a namespace.
pub trait Keyed {
    /// The name's type.
    type Key: Ord + Clone;
    /// The name.
    fn key(&self) -> Self::Key;
}

/// Values by key, in order. A clone is one reference count; the first change after it copies the
/// pointers, not the values.
#[derive(Clone, PartialEq, Debug)]
pub struct Table<T: Keyed> {
    rows: Arc<Vec<(T::Key, Arc<T>)>>,
}

impl<T: Keyed> Default for Table<T> {
    fn default() -> Self {
        Self { rows: Arc::default() }
    }
}

impl<T: Keyed> Table<T> {
    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Arc<T>>
    where
        T::Key: Borrow<Q>,
    {
        self.at(self.place(key)?)
    }

    /// The place of a key in the order of the keys.
    pub fn place<Q: Ord + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        T::Key: Borrow<Q>,
    {
        self.rows.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()
    }

    /// The value at a place in the order of the keys.
    pub fn at(&self, place: usize) -> Option<&Arc<T>> {
        self.rows.get(place).map(|(_, value)| value)
    }

    /// Values in the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<T>> {
        self.rows.iter().map(|(_, value)| value)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn insert(&mut self, value: Arc<T>) {
        let key = value.key();
        let rows = Arc::make_mut(&mut self.rows);
        match rows.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => {
                if let Some(row) = rows.get_mut(at) {
                    row.1 = value;
                }
            }
            Err(at) => rows.insert(at, (key, value)),
        }
    }

    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        T::Key: Borrow<Q>,
    {
        if let Ok(at) = self.rows.binary_search_by(|(k, _)| k.borrow().cmp(key)) {
            Arc::make_mut(&mut self.rows).remove(at);
        }
    }
}

impl Keyed for Workload {
    type Key = WorkloadId;
    fn key(&self) -> WorkloadId {
        self.id.clone()
    }
}

impl Keyed for NetworkPolicy {
    type Key = Str;
    fn key(&self) -> Str {
        self.name.clone()
    }
}

impl Keyed for Service {
    type Key = Str;
    fn key(&self) -> Str {
        self.name.clone()
    }
}

impl Keyed for PeerAuthentication {
    type Key = Str;
    fn key(&self) -> Str {
        self.name.clone()
    }
}

impl Keyed for ForeignPolicy {
    type Key = (Str, Str);
    fn key(&self) -> (Str, Str) {
        (self.kind.clone(), self.name.clone())
    }
}

impl Keyed for Waiver {
    type Key = Str;
    fn key(&self) -> Str {
        self.name.clone()
    }
}
