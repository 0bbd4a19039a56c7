//! The flags of `portcullis serve` for auditing what stands.

use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::audit::{self, Settings};
use crate::cluster::Cluster;
use crate::rules::RuleSet;
use crate::source::Live;
use crate::telemetry::Telemetry;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Audit")]
#[group(id = "auditing")]
pub(super) struct Args {
    /// Audits what stands, on the one replica that holds a Lease: reports, Events and gauges
    #[arg(long, requires = "namespace", conflicts_with = "cluster")]
    audit: bool,
    /// The Lease, in `--namespace`
    #[arg(long, value_name = "NAME", default_value = "portcullis-audit")]
    lease: String,
    /// What this replica is called in the Lease; left out, `portcullis-` and the number of its process
    #[arg(long, value_name = "NAME", env = "PORTCULLIS_IDENTITY")]
    identity: Option<String>,
    /// How often all of it is looked at, beside every change, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    audit_every: u64,
    /// Whether reports are written, of `openreports.io`, else of `wgpolicyk8s.io`, where installed
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    reports: Reports,
    /// Whether Events are written where a verdict changes
    #[arg(long, value_name = "WHETHER", default_value = "on")]
    events: Events,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Reports {
    /// Where a definition of them is installed
    Auto,
    /// Never
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Events {
    /// Where a verdict changes
    On,
    /// Never
    Off,
}

impl Args {
    /// Starts the audit, if it is asked for. It ends when the other end of `end` is dropped.
    pub(super) fn start(
        &self,
        namespace: Option<&str>,
        live: &Arc<Live>,
        cluster: watch::Receiver<Arc<Cluster>>,
        rules: watch::Receiver<Arc<RuleSet>>,
        telemetry: &Telemetry,
        mut end: watch::Receiver<()>,
    ) -> Option<JoinHandle<()>> {
        let namespace = namespace.filter(|_| self.audit)?.to_owned();
        let settings = Settings {
            namespace,
            lease: self.lease.clone(),
            identity: self.identity.clone().unwrap_or_else(|| format!("portcullis-{}", std::process::id())),
            every: Duration::from_secs(self.audit_every),
            reports: self.reports == Reports::Auto,
            events: self.events == Events::On,
        };
        let watched = Arc::clone(live);
        let is_whole = move || watched.is_listed();
        let shutdown = async move { while end.changed().await.is_ok() {} };
        let metrics = telemetry.metrics.clone();
        Some(tokio::spawn(audit::run(settings, live.client(), cluster, rules, metrics, is_whole, shutdown)))
    }
}
