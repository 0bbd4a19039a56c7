//! Where clusters come from.
//!
//! [`Manifests`] is files and folders. What it gives is a [`crate::cluster::Cluster`] like any
//! other, and beside it the way back from an object's field to a line of a file.

mod files;
mod manifests;
mod objects;

pub use files::stamp;
pub use manifests::{Fault, Manifests, Note, Unreadable};
