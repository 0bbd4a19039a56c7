//! A fresh read of a namespace: what a denial found absent may be there by now.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{try_join_all, try_join4};
use kube::api::{GetParams, ListParams};
use kube::core::{ListMeta, Request};
use kube::{Client, Error};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::feed::reason;
use super::resources::Resource;
use crate::cluster::{Cluster, Extent, Reading};
use crate::k8s::{self, Kind, TypeName};
use crate::model::{GROUP, Object, Str, Workload};

/// Reads these namespaces anew, all at once. No resource version is given, so the API server
/// answers with the most recent data (`resourceVersion` unset: "Most Recent").
///
/// PeerAuthentications and Waivers are left out where they are unread as it is: what rests on them is
/// doubtful already, and what does not is not to suffer for it.
pub(super) async fn renew(
    client: &Client,
    cluster: &Cluster,
    reading: &Reading,
    unread: &[Kind],
) -> Result<Cluster, String> {
    let Reading { namespaces, extent } = reading;
    let reads = namespaces.iter().map(|namespace| read(client, namespace, unread));
    let found = try_join_all(reads).await.map_err(|error| reason(&error))?;
    let renewed = namespaces.iter().zip(found);
    let mut renewed = renewed.fold(cluster.clone(), |cluster, (namespace, found)| cluster.with_fresh(namespace, found));
    if *extent == Extent::Workloads {
        let all = async {
            let mut renewed = renewed.clone();
            for namespace in namespaces {
                renewed = renew_workloads(client, renewed, namespace).await?;
            }
            Ok::<_, Error>(renewed)
        };
        // The policies are confirmed without them: what is known of workloads is then what counts.
        match timeout(TIME_FOR_WORKLOADS, all).await {
            Ok(Ok(with_workloads)) => renewed = with_workloads,
            Ok(Err(error)) => tracing::warn!(error = reason(&error), "workloads cannot be read again"),
            Err(_) => tracing::warn!("workloads cannot be read again in time"),
        }
    }
    Ok(renewed)
}

/// How long the workloads of all namespaces may take: an API server that answers takes milliseconds.
const TIME_FOR_WORKLOADS: Duration = Duration::from_secs(1);

/// How many workloads are asked for at a time, and how many of one kind are read at most. Their
/// metadata may be as large as the API server stores, and a page of it is in memory.
const PAGE: u32 = 100;
const MOST_WORKLOADS: usize = 1000;

/// Reads which workloads there are in a namespace. Owners are read after what they own: an owner that
/// is made in between is there, and one that is missing is gone. Of a kind that may not be read, or of
/// which there are too many, what is known stays.
async fn renew_workloads(client: &Client, mut cluster: Cluster, namespace: &Str) -> Result<Cluster, Error> {
    for (group, kind, version) in WORKLOADS {
        match list_metadata(client, Resource::of(group, kind), version, namespace).await {
            Ok(Some(found)) => cluster = cluster.with_fresh_workloads(namespace, kind, found),
            Ok(None) => {}
            Err(Error::Api(status)) if status.code == 403 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(cluster)
}

/// The kinds of workloads, what is owned before what owns it.
const WORKLOADS: [(&str, &str, &str); 8] = [
    ("", "Pod", "v1"),
    ("apps", "ReplicaSet", "v1"),
    ("apps", "Deployment", "v1"),
    ("apps", "StatefulSet", "v1"),
    ("apps", "DaemonSet", "v1"),
    ("", "ReplicationController", "v1"),
    ("batch", "Job", "v1"),
    ("batch", "CronJob", "v1"),
];

/// The metadata of the workloads of one kind in a namespace; nothing where there are too many.
async fn list_metadata(
    client: &Client,
    resource: &Resource,
    version: &str,
    namespace: &str,
) -> Result<Option<Vec<Arc<Workload>>>, Error> {
    #[derive(Deserialize)]
    struct Page<'a> {
        metadata: ListMeta,
        #[serde(borrow, default)]
        items: Option<Vec<&'a RawValue>>,
    }
    let mut found = Vec::new();
    let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
    while found.len() < MOST_WORKLOADS {
        let request = Request::new(resource.path_in(version, namespace)).list_metadata(&params);
        let text = client.request_text(request.map_err(Error::BuildRequest)?).await?;
        let Page { metadata, items } = serde_json::from_str(&text).map_err(Error::SerdeError)?;
        found.extend(items.into_iter().flatten().filter_map(|item| match lower(resource, item.get()) {
            Some(Object::Workload(workload)) => Some(workload),
            Some(_) | None => None,
        }));
        params.continue_token = metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

async fn read(client: &Client, namespace: &str, unread: &[Kind]) -> Result<Vec<Object>, Error> {
    let policies = Resource::of("networking.k8s.io", "NetworkPolicy");
    let (mut found, policies, authentications, waivers) = try_join4(
        get_namespace(client, namespace),
        list(client, policies, "v1", namespace),
        optional(
            client,
            Resource::of("security.istio.io", "PeerAuthentication"),
            &["v1", "v1beta1"],
            namespace,
            unread,
        ),
        optional(client, Resource::of(GROUP, "Waiver"), &["v1alpha1"], namespace, unread),
    )
    .await?;
    found.extend(policies.into_iter().flatten());
    found.extend(authentications);
    found.extend(waivers);
    Ok(found)
}

/// What may not be installed. Whether it is, and in which version, is asked with it: its definitions
/// may be as new as what they define. Istio's `v1` came with 1.22, and an older one serves `v1beta1`
/// alone.
async fn optional(
    client: &Client,
    resource: &Resource,
    versions: &[&str],
    namespace: &str,
    unread: &[Kind],
) -> Result<Vec<Object>, Error> {
    if unread.contains(&resource.known_as()) {
        return Ok(Vec::new());
    }
    for version in versions {
        let found = match list(client, resource, version, namespace).await {
            // Whoever may not read it is told so before the API server looks whether there is such a
            // thing. Where there is none, nothing is missing.
            Err(Error::Api(status)) if status.code == 403 && !is_served(client, resource, version).await? => None,
            found => found?,
        };
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// Whether the API server says that it serves this version of a resource, which any account may ask.
async fn is_served(client: &Client, resource: &Resource, version: &str) -> Result<bool, Error> {
    match client.list_api_group_resources(&format!("{}/{version}", resource.group)).await {
        Ok(served) => Ok(served.resources.iter().any(|it| it.name == resource.name)),
        Err(Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

async fn get_namespace(client: &Client, name: &str) -> Result<Vec<Object>, Error> {
    let request = Request::new("/api/v1/namespaces").get(name, &GetParams::default()).map_err(Error::BuildRequest)?;
    let namespaces = Resource::of("", "Namespace");
    Ok(there(client.request_text(request).await)?.iter().filter_map(|text| lower(namespaces, text)).collect())
}

/// The objects of a namespace; nothing where this version of the resource is not served.
async fn list(
    client: &Client,
    resource: &Resource,
    version: &str,
    namespace: &str,
) -> Result<Option<Vec<Object>>, Error> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow, default)]
        items: Option<Vec<&'a RawValue>>,
    }
    let request = Request::new(resource.path_in(version, namespace)).list(&ListParams::default());
    let Some(text) = there(client.request_text(request.map_err(Error::BuildRequest)?).await)? else {
        return Ok(None);
    };
    let List { items } = serde_json::from_str(&text).map_err(Error::SerdeError)?;
    Ok(Some(items.into_iter().flatten().filter_map(|item| lower(resource, item.get())).collect()))
}

/// What was asked for; nothing where it does not exist.
fn there(answer: Result<String, Error>) -> Result<Option<String>, Error> {
    match answer {
        Ok(text) => Ok(Some(text)),
        Err(Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn lower(resource: &Resource, text: &str) -> Option<Object> {
    k8s::lower_json(TypeName { group: resource.group, kind: resource.kind }, text, "").object
}
