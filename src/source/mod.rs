//! Where clusters come from.
//!
//! [`Manifests`] is files and folders. What it gives is a [`crate::cluster::Cluster`] like any
//! other, and beside it the way back from an object's field to a line of a file. [`Live`] is an API
//! server, watched.

mod files;
mod manifests;
mod objects;
mod watch;

pub use files::stamp;
pub use manifests::{Fault, Manifests, Note, Unreadable};
pub use watch::{Error as LiveError, Live, configuration, watched};

use crate::cluster::{Cluster, NamespaceState};
use crate::telemetry::Metrics;

/// Sets the gauge of objects, kind by kind.
pub fn count_objects(metrics: &Metrics, cluster: &Cluster) {
    let total = |count: fn(&NamespaceState) -> usize| cluster.namespaces().map(|state| count(state)).sum();
    metrics.objects("Namespace", total(|state| usize::from(state.object.is_some())));
    metrics.objects("Workload", total(|state| state.workloads.len()));
    metrics.objects("NetworkPolicy", total(|state| state.policies.len()));
    metrics.objects("Service", total(|state| state.services.len()));
    metrics.objects("Waiver", total(|state| state.waivers.len()));
    metrics.objects("PeerAuthentication", total(|state| state.peer_authentications.len()));
}
