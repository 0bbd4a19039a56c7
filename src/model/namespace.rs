//! Namespaces.

use jiff::Timestamp;

use super::{Labels, Str};

/// The label the API server sets on every namespace and keeps (Kubernetes 1.22 and later).
pub const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: Str,
    /// `metadata.uid`; nothing where none is written.
    pub uid: Option<Str>,
    /// Its labels, [`METADATA_NAME`] always among them.
    pub labels: Labels,
    /// `metadata.creationTimestamp`; nothing for one that is not stored yet.
    pub created: Option<Timestamp>,
    /// Whether it is being deleted: its contents go, and nothing may hold that up.
    pub is_terminating: bool,
}
