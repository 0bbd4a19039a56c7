//! A live cluster: watched into one index, and asked anew where a denial hangs on it.
//!
//! ```text
//! API server --list, watch--> a feed a resource --events--> the writer --snapshots--> watch channel
//!                                   |
//!                                   +--> health: readiness, the view's age, what could not be read
//! ```
//!
//! All of it runs on one thread of its own: parsing the pages of a large list takes milliseconds
//! each, for which a review must not wait.

mod discovery;
mod feed;
mod health;
mod renew;
mod resources;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::{mpsc, oneshot, watch};

use crate::cluster::{Cluster, Reading};
use crate::k8s::Kind;
use crate::telemetry::{Metrics, Telemetry};
use discovery::Discovery;
use health::Health;

/// The resources that are watched, by group and plural: what an account must be able to read.
/// ConfigMaps are in it, of which those of the mesh's root namespace alone are read.
pub fn watched() -> impl Iterator<Item = (&'static str, &'static str)> {
    resources::RESOURCES.iter().map(|resource| (resource.group, resource.name))
}

/// How long connecting to the API server may take.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How often gauges are set.
const GAUGES_EVERY: Duration = Duration::from_secs(1);
/// How many events may wait for the writer; more make the feeds wait.
const EVENTS: usize = 1024;

/// A live cluster. The watches end when it is dropped.
pub struct Live {
    health: Health,
    client: Client,
    cluster: watch::Receiver<Arc<Cluster>>,
    _running: oneshot::Sender<()>,
}

/// Why a live cluster cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is neither a kubeconfig nor a cluster around.
    #[error(
        "no cluster to watch: this is no pod of one ({in_cluster}), and there is no kubeconfig ({kubeconfig}); give `--kubeconfig FILE`, or `--cluster DIR` for manifests"
    )]
    NoCluster {
        /// Why not by the kubeconfig.
        kubeconfig: String,
        /// Why not from within.
        in_cluster: String,
    },
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig{} cannot be used", .path.as_ref().map(|path| format!(" `{path}`")).unwrap_or_default())]
    Kubeconfig {
        /// Its file; nothing where it is the usual one.
        path: Option<String>,
        /// Why.
        source: Box<kube::config::KubeconfigError>,
    },
    /// The client cannot be set up.
    #[error("the client of the API server cannot be set up")]
    Client(#[source] Box<kube::Error>),
    /// The watching thread cannot be started.
    #[error("the thread that watches cannot be started")]
    Thread(#[source] std::io::Error),
}

/// Where the API server is and who asks it: what the flags say, else the kubeconfig of the
/// environment, else the pod this runs in.
pub async fn configuration(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Config, Error> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let mut config = if let Some(path) = kubeconfig {
        let failed = |source| Error::Kubeconfig { path: Some(path.display().to_string()), source: Box::new(source) };
        let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
        Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)?
    } else if context.is_some() || std::env::var_os("KUBECONFIG").is_some() {
        let failed = |source| Error::Kubeconfig { path: None, source: Box::new(source) };
        Config::from_kubeconfig(&options).await.map_err(failed)?
    } else {
        match Config::incluster() {
            Ok(config) => config,
            Err(in_cluster) => Config::from_kubeconfig(&options).await.map_err(|kubeconfig| Error::NoCluster {
                kubeconfig: kubeconfig.to_string(),
                in_cluster: in_cluster.to_string(),
            })?,
        }
    };
    config.connect_timeout = Some(CONNECT_TIME);
    Ok(config)
}

impl Live {
    /// Begins to watch. `mesh_root` is the namespace of the mesh's own configuration. Nothing is
    /// waited for: readiness says when everything has been listed once.
    pub fn start(config: Config, mesh_root: &str, telemetry: &Telemetry) -> Result<Self, Error> {
        let (sender, cluster) = watch::channel(Arc::new(Cluster::default()));
        let health = Health::new(telemetry.readiness.clone());
        let client = Client::try_from(config.clone()).map_err(|error| Error::Client(Box::new(error)))?;
        let (running, dropped) = oneshot::channel::<()>();
        let (started, watched) = (health.clone(), cluster.clone());
        let (metrics, mesh_root) = (telemetry.metrics.clone(), mesh_root.to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
        let work = async move {
            // A client of this runtime: the connections of another are driven by the other.
            let client = match Client::try_from(to_watch(config)) {
                Ok(client) => client,
                Err(error) => return tracing::error!(%error, "the client of the API server cannot be set up"),
            };
            let (events, received) = mpsc::channel(EVENTS);
            let discovery = Discovery { client, health: started.clone(), events, mesh_root };
            tokio::select! {
                () = discovery.run() => {}
                () = writer::write(received, sender) => {}
                () = gauge(&metrics, &started, &watched) => {}
                _ = dropped => {}
            }
        };
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || runtime.block_on(work))
            .map_err(Error::Thread)?;
        Ok(Self { health, client, cluster, _running: running })
    }

    /// A client of the API server, of the runtime this was started in.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// What is known, always the latest.
    pub fn cluster(&self) -> watch::Receiver<Arc<Cluster>> {
        self.cluster.clone()
    }

    /// How long ago all that is known was last known to be current: zero while no watch is cut off.
    pub fn age(&self) -> Duration {
        self.health.age()
    }

    /// What could not be read, not yet or not at all.
    pub fn unread(&self) -> Vec<Kind> {
        self.health.unread()
    }

    /// Whether everything that may be read has been listed once.
    pub fn is_listed(&self) -> bool {
        self.health.listing().is_empty()
    }

    /// What has not been listed yet, as `kubectl` names it.
    pub fn listing(&self) -> Vec<String> {
        self.health.listing()
    }

    /// Why something could not be listed so far, if it was tried and failed.
    pub fn trouble(&self) -> Option<String> {
        self.health.trouble()
    }

    /// What may not be read, as `kubectl` names it.
    pub fn forbidden(&self) -> Vec<String> {
        self.health.forbidden_names()
    }

    /// The cluster with some namespaces and what rules read of them as they are now; or why they cannot
    /// be read, for people.
    pub async fn renew(&self, cluster: &Cluster, reading: &Reading) -> Result<Cluster, String> {
        renew::renew(&self.client, cluster, reading, &self.health.unread()).await
    }
}

/// The configuration of the client that watches: it must hear of every refusal. Left to itself the
/// client asks again and again where a server says that it is not there for now, and meanwhile
/// nobody knows that the view grows old.
fn to_watch(mut config: Config) -> Config {
    config.default_retry = false;
    config
}

/// Sets the gauges that tell of the view, for ever.
async fn gauge(metrics: &Metrics, health: &Health, cluster: &watch::Receiver<Arc<Cluster>>) {
    loop {
        metrics.view_age(health.age());
        let cluster = Arc::clone(&cluster.borrow());
        super::count_objects(metrics, &cluster);
        tokio::time::sleep(GAUGES_EVERY).await;
    }
}
