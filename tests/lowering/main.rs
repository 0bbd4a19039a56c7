//! What Kubernetes and Istio objects mean: from the text of a manifest to the model.

#![allow(
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that fails may panic, and a fixture written in place reads best without a borrow"
)]

use portcullis::k8s::{Lowered, lower_value};
use portcullis::model::{NetworkPolicy, Object, PeerAuthentication, Service, Workload};
use portcullis::yaml;

mod laws;
mod mesh;
mod policies;
mod services;
mod workloads;

/// One document, lowered into namespace `default`.
fn lower(text: &str) -> Lowered {
    let mut documents = yaml::parse(text);
    assert_eq!(documents.len(), 1, "{text}");
    lower_value(&documents.remove(0).unwrap_or_else(|problem| panic!("{problem:?} in {text}")).value(), "default")
}

/// What was said of it, a line a problem.
fn problems(text: &str) -> Vec<String> {
    lower(text).problems.into_iter().map(|it| format!("{}: {}", it.path, it.message)).collect()
}

macro_rules! lowered_as {
    ($name:ident, $kind:ident, $variant:ident) => {
        /// The object, whatever was said of it.
        #[track_caller]
        fn $name(text: &str) -> $kind {
            match lower(text).object {
                Some(Object::$variant(it)) => $kind::clone(&it),
                other => panic!("{other:?} of {text}"),
            }
        }
    };
}

lowered_as!(policy, NetworkPolicy, NetworkPolicy);
lowered_as!(workload, Workload, Workload);
lowered_as!(service, Service, Service);
lowered_as!(peer_authentication, PeerAuthentication, PeerAuthentication);
