//! One change to one object.

use super::{Object, ObjectRef, Str};

/// What happens to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// It comes to be.
    Create,
    /// It changes.
    Update,
    /// It goes.
    Delete,
}

/// One object before and after. CREATE has no before, DELETE no after, UPDATE both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It comes to be.
    Create(Object),
    /// It changes: the old one, then the new one.
    Update(Object, Object),
    /// It goes.
    Delete(Object),
}

impl Change {
    /// What happens.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Create(_) => Operation::Create,
            Self::Update(..) => Operation::Update,
            Self::Delete(_) => Operation::Delete,
        }
    }

    /// The object as it was, if it was.
    pub fn before(&self) -> Option<&Object> {
        match self {
            Self::Create(_) => None,
            Self::Update(before, _) | Self::Delete(before) => Some(before),
        }
    }

    /// The object as it will be, if it will be.
    pub fn after(&self) -> Option<&Object> {
        match self {
            Self::Create(after) | Self::Update(_, after) => Some(after),
            Self::Delete(_) => None,
        }
    }

    /// The object the change is about: the new one, or the one that goes.
    pub fn subject(&self) -> &Object {
        match self {
            Self::Create(object) | Self::Update(_, object) | Self::Delete(object) => object,
        }
    }

    /// The identity of the object the change is about.
    pub fn reference(&self) -> ObjectRef {
        self.subject().reference()
    }

    /// The namespace the change is in; of a Namespace, itself.
    pub fn namespace(&self) -> Option<&Str> {
        self.subject().namespace()
    }
}
