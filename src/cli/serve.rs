//! `portcullis serve`: the gate.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::watch;

use super::{Outcome, upkeep};
use crate::cluster::{Cluster, Reading};
use crate::config::{self, Settings};
use crate::k8s::Kind;
use crate::rules::RuleSet;
use crate::server::{self, ConfigFile, Limits, Options, Origin, Renewed, Shutdown};
use crate::source::{self, Live, Manifests};
use crate::telemetry::logs::{self, Format};
use crate::telemetry::{Metrics, Telemetry};

/// Runs the gate: answers AdmissionReviews over HTTPS at `/validate`.
///
/// It judges by the cluster it runs in, or the one a kubeconfig names, which it watches; with
/// `--cluster` by manifests instead.
///
/// Probes and metrics are served in plain HTTP beside it: `/livez`, `/readyz` (`?verbose` says what
/// is missing) and `/metrics`. Certificate, configuration and manifests may change while it runs:
/// new ones are taken when they are good, and the last good ones stay when they are not.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  portcullis serve --tls-cert tls.crt --tls-key tls.key --config portcullis.yaml
  portcullis serve --kubeconfig ~/.kube/config --context staging --tls-cert tls.crt --tls-key tls.key
  portcullis serve --cluster state/ --tls-cert tls.crt --tls-key tls.key
  portcullis serve --namespace portcullis --service portcullis --certificate-secret portcullis-tls \\
    --webhook portcullis --failure-policy fail")]
pub(super) struct Args {
    /// Manifests that are the cluster, exactly; left out, a live cluster is watched
    #[arg(long, value_name = "DIR", env = "PORTCULLIS_CLUSTER", conflicts_with_all = ["kubeconfig", "context"])]
    cluster: Option<PathBuf>,
    /// The kubeconfig of the cluster to watch; left out, `KUBECONFIG`, else the pod's own account
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; left out, its current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The configuration; left out, its defaults
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_CONFIG")]
    config: Option<PathBuf>,
    /// Where reviews are answered
    #[arg(long, value_name = "ADDRESS", env = "PORTCULLIS_LISTEN", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Where probes and metrics are answered
    #[arg(long, value_name = "ADDRESS", env = "PORTCULLIS_OPERATIONS", default_value = "0.0.0.0:8080")]
    operations: SocketAddr,
    /// How the log is written: text, json, or auto (text on a terminal)
    #[arg(long, value_name = "FORMAT", env = "PORTCULLIS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a filter by module; else `PORTCULLIS_LOG`
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// The most connections at a time. One address may have a quarter of them; for one more, the least
    /// active connection is closed
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections)]
    max_connections: usize,
    /// The most reviews judged at a time. One address may have as many as are still free, which is half
    /// if it is the only one; one more is answered 429
    #[arg(long, value_name = "N", default_value_t = Limits::default().reviews)]
    max_reviews: usize,
    /// The addresses that API servers connect from. A quarter of the capacity is reserved for them, and
    /// the share of one address does not limit them. This does not change who may connect
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    api_server_address: Vec<IpNet>,
    /// How often files are looked at for changes, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    reload_every: u64,
    /// How long requests are served on after readiness is withdrawn, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Shutdown::default().linger.as_secs())]
    linger: u64,
    /// How long requests that have begun may take after that, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Shutdown::default().drain.as_secs())]
    drain: u64,
    #[command(flatten)]
    audit: super::auditing::Args,
    #[command(flatten)]
    upkeep: upkeep::Args,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    Auto,
    Text,
    Json,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let (bytes, settings) = match &args.config {
        Some(path) => {
            let settings = config::load(path)?;
            // Read again for the comparison: a change in between is taken at the first look.
            (std::fs::read(path).unwrap_or_default(), settings)
        }
        None => (Vec::new(), Settings::default()),
    };
    let format = match args.log_format {
        LogFormat::Auto => Format::Auto,
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    logs::init(format, args.log_level.as_deref())?;
    let runtime = server::runtime().context("the runtime cannot be started")?;
    let outcome = runtime.block_on(serve(args, &settings, bytes));
    // A review that was given up on may still be at work; the process does not wait for it.
    runtime.shutdown_background();
    outcome
}

async fn serve(args: &Args, settings: &Settings, config: Vec<u8>) -> anyhow::Result<Outcome> {
    let telemetry = Telemetry::default();
    let shutdown = server::shutdown_requested().context("signals cannot be caught")?;
    let every = Duration::from_secs(args.reload_every);
    let limits = Limits { connections: args.max_connections, reviews: args.max_reviews, ..Limits::default() };
    let options = Options {
        webhook: args.listen,
        operations: args.operations,
        certificate_every: every,
        clients: args.upkeep.clients(),
        api_servers: args.api_server_address.clone(),
        limits: limits.within(server::raise_descriptors()),
        shutdown: Shutdown { linger: Duration::from_secs(args.linger), drain: Duration::from_secs(args.drain) },
        ..Options::new(args.upkeep.source())
    };
    let in_service = options.in_service.clone();
    let (cluster, live) = cluster(args, settings, every, &telemetry).await?;
    let origin = live.clone().map(|live| Arc::new(Watched(live)) as Arc<dyn Origin>);
    let options = Options { origin, ..options };
    telemetry.readiness.gate("configuration", "reading the file").open();
    telemetry.metrics.config_current(true);
    let (rules_sender, rules) = watch::channel(Arc::new(rules_in(args.upkeep.namespace.as_deref(), settings)));
    let configured = args.config.clone().map(|path| {
        let file = ConfigFile { path: path.clone(), in_force: config, every };
        let namespace = args.upkeep.namespace.clone();
        let load = move |bytes: &[u8]| load_rules(namespace.as_deref(), &path, bytes);
        tokio::spawn(server::follow_config(file, load, rules_sender.clone(), telemetry.metrics.clone()))
    });
    let keeper = args
        .upkeep
        .keeper(args.kubeconfig.as_deref(), args.context.as_deref(), every, in_service, rules.clone(), &telemetry)
        .await?;
    let kept = keeper.map(|keeper| tokio::spawn(keeper.run()));
    let (ended, end) = watch::channel(());
    let audit = live.as_ref().and_then(|live| {
        args.audit.start(args.upkeep.namespace.as_deref(), live, cluster.clone(), rules.clone(), &telemetry, end)
    });
    let shutdown = async move {
        shutdown.await;
        drop(ended);
    };
    let served = server::run(options, cluster, rules, telemetry, shutdown).await;
    if let Some(audit) = audit {
        // Its Lease is given up, for the next one to take.
        let _ = audit.await;
    }
    if let Some(configured) = configured {
        configured.abort();
    }
    if let Some(kept) = kept {
        kept.abort();
    }
    drop(rules_sender);
    served?;
    Ok(Outcome::Clean)
}

/// The rules of a gate that runs in this namespace. What of the configuration has no effect is logged,
/// for it is in force from here on.
fn rules_in(namespace: Option<&str>, settings: &Settings) -> RuleSet {
    for (entry, flaw) in settings.waivers.without_effect(Timestamp::now()) {
        let (field, problem) = (flaw.path.as_str(), &flaw.message);
        tracing::warn!(entry, field, problem, "a waiver of the configuration has no effect");
    }
    let mut rules = settings.rule_set();
    rules.environment.own_namespace = namespace.map(Into::into);
    rules
}

fn load_rules(namespace: Option<&str>, path: &Path, bytes: &[u8]) -> Result<RuleSet, String> {
    let settings = config::decode(path.display().to_string(), bytes.to_vec());
    settings.map(|settings| rules_in(namespace, &settings)).map_err(|error| error.to_string())
}

/// The cluster that is judged by: a folder's, or a live one with a way to ask it anew.
async fn cluster(
    args: &Args,
    settings: &Settings,
    every: Duration,
    telemetry: &Telemetry,
) -> anyhow::Result<(watch::Receiver<Arc<Cluster>>, Option<Arc<Live>>)> {
    let Some(path) = &args.cluster else {
        let configuration = source::configuration(args.kubeconfig.as_deref(), args.context.as_deref()).await?;
        tracing::info!(server = %configuration.cluster_url, "watching a live cluster");
        let live = Live::start(configuration, settings.mesh.expected_root(), telemetry)?;
        return Ok((live.cluster(), Some(Arc::new(live))));
    };
    let read = read_cluster(path).map_err(anyhow::Error::msg)?;
    source::count_objects(&telemetry.metrics, &read);
    // It was read before anything is served; a live cluster opens its gates as it is listed.
    telemetry.readiness.gate("cluster", "reading manifests").open();
    let (sender, cluster) = watch::channel(Arc::new(read));
    // It ends with the process.
    tokio::spawn(follow_cluster(path.clone(), every, sender, telemetry.metrics.clone()));
    Ok((cluster, None))
}

/// A live cluster as the server asks about it.
struct Watched(Arc<Live>);

impl Origin for Watched {
    fn age(&self) -> Duration {
        self.0.age()
    }

    fn unread(&self) -> Vec<Kind> {
        self.0.unread()
    }

    fn renew(&self, cluster: Arc<Cluster>, reading: Reading) -> Renewed<'_> {
        Box::pin(async move { self.0.renew(&cluster, &reading).await })
    }
}

/// The cluster a folder holds, or why it is not known in full.
fn read_cluster(path: &Path) -> Result<Cluster, String> {
    let manifests = Manifests::read(&[path], "default");
    if manifests.faults.is_empty() {
        return Ok(manifests.cluster());
    }
    let faults = manifests.faults.iter().map(|fault| match manifests.place_of(fault) {
        Some(place) => format!("{place}: {}", fault.problem.message),
        None => format!("{}: {}", fault.name, fault.problem.message),
    });
    Err(format!("the cluster in `{}` cannot be read: {}", path.display(), faults.collect::<Vec<_>>().join("; ")))
}

/// Reads the folder again whenever a file in it has changed. What cannot be read leaves in force
/// what was.
async fn follow_cluster(path: PathBuf, every: Duration, cluster: watch::Sender<Arc<Cluster>>, metrics: Metrics) {
    let mut seen = source::stamp(&path);
    loop {
        tokio::time::sleep(every).await;
        let looked = path.clone();
        let known = seen.clone();
        let read = tokio::task::spawn_blocking(move || {
            let stamp = source::stamp(&looked);
            (stamp != known).then(|| (stamp, read_cluster(&looked)))
        });
        let Ok(Some((stamp, read))) = read.await else { continue };
        seen = stamp;
        match read {
            Ok(read) => {
                source::count_objects(&metrics, &read);
                cluster.send_replace(Arc::new(read));
                tracing::info!(path = %path.display(), "cluster reloaded");
            }
            Err(error) => tracing::error!(error, "the cluster's manifests are refused, the last good ones stay"),
        }
    }
}
