//! The gate on a live cluster, which it watches while it guards it.

mod access;
mod audit;
mod endings;
mod folder;
mod labels;
mod lifecycle;
mod mesh;
mod modes;
mod waivers;
mod workloads;

use kube::api::{Api, DynamicObject, PostParams};
use kube::core::Status;
use kube::discovery::ApiResource;
use kube::{Client, Error};
use serde_json::Value;

/// An object's collection, or that of all namespaces where it has none.
fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, kind));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Creates an object.
async fn create(client: &Client, object: Value) -> Result<DynamicObject, Error> {
    let api = api(client, &object);
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await
}

/// Why a call was denied, which it must have been.
#[track_caller]
fn reason<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Err(Error::Api(status)) if status.message.contains("denied the request") => {
            let Status { message, .. } = *status;
            message
        }
        other => panic!("this should be denied: {other:?}"),
    }
}
