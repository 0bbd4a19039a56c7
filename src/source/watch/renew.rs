//! A fresh read of a namespace: what a denial found absent may be there by now.

use futures::future::{try_join_all, try_join4};
use kube::api::{GetParams, ListParams};
use kube::core::Request;
use kube::{Client, Error};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::feed::reason;
use super::resources::Resource;
use crate::cluster::Cluster;
use crate::k8s::{self, Kind, TypeName};
use crate::model::{GROUP, Object, Str};

/// What is known of the resources that may not be there.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// Those that could not be read, not yet or not at all.
    pub(super) unread: &'a [Kind],
    /// Those that were not installed when it was last looked.
    pub(super) absent: &'a [Kind],
}

/// Reads these namespaces anew, all at once. No resource version is given, so the API server
/// answers with the most recent data (`resourceVersion` unset: "Most Recent").
///
/// PeerAuthentications and Waivers are left out where they are unread as it is: what rests on them is
/// doubtful already, and what does not is not to suffer for it.
pub(super) async fn renew(
    client: &Client,
    cluster: &Cluster,
    namespaces: &[Str],
    known: Known<'_>,
) -> Result<Cluster, String> {
    let reads = namespaces.iter().map(|namespace| read(client, namespace, known));
    let found = try_join_all(reads).await.map_err(|error| reason(&error))?;
    let renewed = namespaces.iter().zip(found);
    Ok(renewed.fold(cluster.clone(), |cluster, (namespace, found)| cluster.with_fresh(namespace, found)))
}

async fn read(client: &Client, namespace: &str, known: Known<'_>) -> Result<Vec<Object>, Error> {
    let policies = Resource::of("networking.k8s.io", "NetworkPolicy");
    let (mut found, policies, authentications, waivers) = try_join4(
        get_namespace(client, namespace),
        list(client, policies, "v1", namespace),
        optional(client, Resource::of("security.istio.io", "PeerAuthentication"), &["v1", "v1beta1"], namespace, known),
        optional(client, Resource::of(GROUP, "Waiver"), &["v1alpha1"], namespace, known),
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
    known: Known<'_>,
) -> Result<Vec<Object>, Error> {
    if known.unread.contains(&resource.known_as()) {
        return Ok(Vec::new());
    }
    for version in versions {
        match list(client, resource, version, namespace).await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            // Whether somebody may read a resource is decided before it is found out that there is none.
            Err(Error::Api(status)) if status.code == 403 && known.absent.contains(&resource.known_as()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Vec::new())
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
