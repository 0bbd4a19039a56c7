//! Gathers what is to be known of a live cluster. Only reads, but for one dry run.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use kube::api::ListParams;
use kube::core::Request;
use kube::{Client, Config};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::registration::{entries, own};
use super::{Facts, Known, Origin, cni, handshake};
use crate::admission::{CONFIGURATION_KEY, configuration_in};
use crate::source::{Live, LiveError};
use crate::telemetry::Telemetry;
use crate::upkeep;

/// How many objects are asked for at a time.
const PAGE: u32 = 500;
/// How often it is looked whether everything has been listed.
const EVERY: Duration = Duration::from_millis(50);

/// What is asked.
#[derive(Clone, Debug)]
pub struct Questions {
    /// The namespace the gate runs in.
    pub namespace: String,
    /// The name of its ValidatingWebhookConfiguration.
    pub webhook: String,
    /// The namespace the dry run is sent to; nothing to send none.
    pub probe: Option<String>,
    /// The namespace of the mesh's own configuration.
    pub mesh_root: String,
    /// Where the configuration was found.
    pub configuration: Origin,
    /// How long the cluster may take to be listed.
    pub patience: Duration,
}

/// Why nothing could be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster cannot be watched.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// There is no client.
    #[error("the client of the API server cannot be set up")]
    Client(#[source] Box<kube::Error>),
    /// The API server does not answer.
    #[error("the API server does not answer: {0}")]
    Unanswered(String),
}

/// The configuration in the gate's ConfigMap, which is named as its registration is; else why there is
/// none.
pub async fn configuration(config: Config, namespace: &str, name: &str) -> Known<Vec<u8>> {
    let client = Client::try_from(config).map_err(|error| upkeep::said(&error))?;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
    let request = hyper::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    let found: Value = client.request(request).await.map_err(|error| upkeep::said(&error))?;
    let configuration = configuration_in(&found.to_string()).map(|(_, bytes)| bytes);
    configuration.ok_or_else(|| format!("it has no key `{CONFIGURATION_KEY}`"))
}

/// Gathers what is to be known.
pub async fn look(config: Config, questions: Questions) -> Result<Facts, Error> {
    let client = Client::try_from(config.clone()).map_err(|error| Error::Client(Box::new(error)))?;
    // Before anything that would wait for a server that is not there.
    let asked = timeout(questions.patience, client.apiserver_version()).await;
    match asked {
        // It answers, if only to say that this is not for everybody.
        Ok(Ok(_) | Err(kube::Error::Api(_))) => {}
        Ok(Err(error)) => return Err(Error::Unanswered(upkeep::said(&error))),
        Err(_) => return Err(Error::Unanswered("not in time".to_owned())),
    }
    let telemetry = Telemetry::default();
    let live = Live::start(config, &questions.mesh_root, &telemetry)?;
    let begun = Instant::now();
    while !telemetry.readiness.is_ready() && begun.elapsed() < questions.patience {
        sleep(EVERY).await;
    }
    let cluster = live.cluster().borrow().clone();
    let list = |path: &'static str| list(&client, path);
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let (validating, mutating) =
        (format!("{admission}/validatingwebhookconfigurations"), format!("{admission}/mutatingwebhookconfigurations"));
    let webhooks = match (
        of_kind("ValidatingWebhookConfiguration", self::list(&client, &validating).await),
        of_kind("MutatingWebhookConfiguration", self::list(&client, &mutating).await),
    ) {
        (Ok(validating), Ok(mutating)) => Ok(validating.into_iter().chain(mutating).collect()),
        (Err(why), _) | (_, Err(why)) => Err(why),
    };
    let mut config_maps = BTreeMap::new();
    for name in cni::CONFIG_MAPS {
        let path = format!("/api/v1/namespaces/kube-system/configmaps/{name}");
        config_maps.extend(get(&client, &path).await.map(|found| (name, found)));
    }
    let signals = cni::Signals {
        daemon_sets: list("/apis/apps/v1/daemonsets").await,
        deployments: list("/apis/apps/v1/namespaces/kube-system/deployments").await,
        nodes: list("/api/v1/nodes").await,
        config_maps,
        kindnet_role: get(&client, "/apis/rbac.authorization.k8s.io/v1/clusterroles/kindnet").await,
        openshift_network: get(&client, "/apis/config.openshift.io/v1/networks/cluster").await,
        openshift_operator: get(&client, "/apis/operator.openshift.io/v1/networks/cluster").await,
    };
    let proof = match &questions.probe {
        Some(namespace) => Some(upkeep::probe(&client, namespace).await),
        None => None,
    };
    let facts = Facts {
        namespace: questions.namespace,
        webhook: questions.webhook,
        configuration: questions.configuration,
        now: Timestamp::now(),
        signals,
        cluster,
        unread: live.unread(),
        webhooks,
        served: Err("it is not registered".to_owned()),
        proof,
    };
    let served = served(&facts).await;
    Ok(Facts { served, ..facts })
}

/// What the gate serves at the address its Service has, if that is within reach from here.
async fn served(facts: &Facts) -> Known<super::Served> {
    let configuration = own(facts).ok_or("it is not registered")?;
    let all = entries(configuration);
    let entry = all.first().ok_or("it is not registered")?;
    let Some(called) = &entry.client_config.service else {
        let url = entry.client_config.url.as_deref().unwrap_or_default();
        return Err(format!("it is called at {url}, which is for the API server to resolve"));
    };
    let service = facts.cluster.service(&called.namespace, &called.name);
    let service = service.ok_or_else(|| format!("Service {}/{} is not known", called.namespace, called.name))?;
    let ip: IpAddr = *service.cluster_ips.first().ok_or("its Service has no address")?;
    let address = SocketAddr::new(ip, called.port.unwrap_or(443));
    handshake::served(address, &format!("{}.{}.svc", called.name, called.namespace)).await
}

fn of_kind(kind: &str, listed: Known<Vec<Value>>) -> Known<Vec<Value>> {
    let mut listed = listed?;
    for object in listed.iter_mut().filter_map(Value::as_object_mut) {
        // Items of a list do not name their kind.
        object.insert("kind".to_owned(), kind.into());
    }
    Ok(listed)
}

/// All objects at a path.
async fn list(client: &Client, path: &str) -> Known<Vec<Value>> {
    let mut found = Vec::new();
    let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
    loop {
        let request = Request::new(path).list(&params).map_err(|error| error.to_string())?;
        let mut page: Value = client.request(request).await.map_err(|error| upkeep::said(&error))?;
        if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
            found.extend(items);
        }
        let next = page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default();
        if next.is_empty() || params.continue_token.as_deref() == Some(next) {
            return Ok(found);
        }
        params.continue_token = Some(next.to_owned());
    }
}

/// The object at a path; nothing where it is not there or may not be read.
async fn get(client: &Client, path: &str) -> Option<Value> {
    let request = hyper::Request::get(path).body(Vec::new()).ok()?;
    client.request(request).await.ok()
}
