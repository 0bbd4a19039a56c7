//! The one that writes: what the feeds bring goes into the index, and out as one snapshot a batch.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::feed::Event;
use super::resources::Resource;
use crate::cluster::{Cluster, Index};
use crate::model::Object;

/// Writes until every feed is gone.
///
/// What has come by now is one batch: a single event is published at once, and the thousands of a
/// first list are published together.
pub(super) async fn write(mut events: mpsc::Receiver<Event>, cluster: watch::Sender<Arc<Cluster>>) {
    let mut index = Index::new();
    let mut batch = Vec::new();
    while events.recv_many(&mut batch, BATCH).await > 0 {
        for event in batch.drain(..) {
            match event {
                Event::Listed(resource, objects) => index.replace(|object| is_of(resource, object), objects),
                Event::Applied(object) => index.apply(object),
                Event::Deleted(object) => index.delete(&object),
            }
        }
        cluster.send_replace(Arc::new(index.snapshot()));
    }
}

/// How many events are one batch at most: a busy cluster must not keep its own news waiting.
const BATCH: usize = 1024;

/// Whether an object is one of a resource's.
fn is_of(resource: &Resource, object: &Object) -> bool {
    match object {
        Object::Namespace(_) => resource.kind == "Namespace",
        Object::Workload(workload) => workload.id.kind == resource.kind,
        Object::NetworkPolicy(_) => resource.group == "networking.k8s.io" && resource.kind == "NetworkPolicy",
        Object::Service(_) => resource.kind == "Service",
        Object::PeerAuthentication(_) => resource.kind == "PeerAuthentication",
        Object::MeshConfig(_) => resource.kind == "ConfigMap",
        Object::WebhookConfiguration(it) => resource.kind == it.kind.as_str(),
        Object::Waiver(_) => resource.kind == "Waiver",
        Object::ForeignPolicy(policy) => match resource.group {
            "networking.k8s.io" => policy.kind == resource.kind,
            group => policy.kind.strip_suffix(group).and_then(|rest| rest.strip_suffix('.')) == Some(resource.kind),
        },
    }
}
