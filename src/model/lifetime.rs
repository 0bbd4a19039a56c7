//! How long objects stay: what their metadata says of their end.

use super::Str;

/// What the metadata of a policy says of its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Whether its deletion has begun (`metadata.deletionTimestamp`). It is in force until its last
    /// finalizer is taken off, and nothing brings it back.
    pub is_ending: bool,
    /// `metadata.ownerReferences`: when none of them exists, the garbage collector deletes the object,
    /// and no admission webhook is asked for leave.
    pub owners: Vec<OwnerReference>,
    /// `metadata.uid`, by which what it owns means it; nothing where none is written.
    pub uid: Option<Str>,
}

/// An owner as an object names it. It need not exist: the API server does not look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerReference {
    /// `apps/v1`.
    pub api_version: Str,
    /// `Deployment`.
    pub kind: Str,
    /// Its name.
    pub name: Str,
    /// Its `metadata.uid`: an object of that name with another one is not this owner.
    pub uid: Option<Str>,
}

/// ``ConfigMap `settings` ``.
impl std::fmt::Display for OwnerReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}

/// What the metadata of a workload says of its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// Whether its deletion has begun and soon ends. A template makes no more pods then. A pod runs
    /// on for its grace period: one with a period that is longer than [`MOST_GRACE`] is not ending.
    pub has_begun: bool,
    /// Whether its deletion takes what it owns with it: a deletion in the foreground.
    pub takes_dependents: bool,
    /// Whether the garbage collector deletes it once its controller is gone: the controller is its only
    /// owner and of a kind this version knows, and nothing else keeps it.
    pub is_with_owner: bool,
}

/// The longest grace period, in seconds, of a pod that counts as ending once it is deleted. Databases
/// take half an hour to shut down. A pod that asks for more runs on as if it were not deleted.
pub const MOST_GRACE: i64 = 3600;
