//! A fresh read of a namespace: what a denial found absent may be there by now.

use futures::future::{try_join_all, try_join3};
use kube::api::{GetParams, ListParams};
use kube::core::Request;
use kube::{Client, Error};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::feed::reason;
use super::resources::Resource;
use crate::cluster::Cluster;
use crate::k8s::{self, TypeName};
use crate::model::{Object, Str};

/// Reads these namespaces anew, all at once. No resource version is given, so the API server
/// answers with the most recent data (`resourceVersion` unset: "Most Recent").
pub(super) async fn renew(client: &Client, cluster: &Cluster, namespaces: &[Str]) -> Result<Cluster, String> {
    let reads = namespaces.iter().map(|namespace| read(client, namespace));
    let found = try_join_all(reads).await.map_err(|error| reason(&error))?;
    let renewed = namespaces.iter().zip(found);
    Ok(renewed.fold(cluster.clone(), |cluster, (namespace, found)| cluster.with_fresh(namespace, found)))
}

async fn read(client: &Client, namespace: &str) -> Result<Vec<Object>, Error> {
    let policies = Resource::of("networking.k8s.io", "NetworkPolicy");
    // Whether Istio is installed is asked with it: its definitions may be as new as what they define.
    let authentications = Resource::of("security.istio.io", "PeerAuthentication");
    let (mut found, policies, authentications) = try_join3(
        get_namespace(client, namespace),
        list(client, policies, namespace),
        list(client, authentications, namespace),
    )
    .await?;
    found.extend(policies);
    found.extend(authentications);
    Ok(found)
}

async fn get_namespace(client: &Client, name: &str) -> Result<Vec<Object>, Error> {
    let request = Request::new("/api/v1/namespaces").get(name, &GetParams::default()).map_err(Error::BuildRequest)?;
    let namespaces = Resource::of("", "Namespace");
    Ok(there(client.request_text(request).await)?.iter().filter_map(|text| lower(namespaces, text)).collect())
}

async fn list(client: &Client, resource: &Resource, namespace: &str) -> Result<Vec<Object>, Error> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow, default)]
        items: Option<Vec<&'a RawValue>>,
    }
    let request = Request::new(resource.path_in("v1", namespace)).list(&ListParams::default());
    let Some(text) = there(client.request_text(request.map_err(Error::BuildRequest)?).await)? else {
        return Ok(Vec::new());
    };
    let List { items } = serde_json::from_str(&text).map_err(Error::SerdeError)?;
    Ok(items.into_iter().flatten().filter_map(|item| lower(resource, item.get())).collect())
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
