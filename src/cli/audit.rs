//! `portcullis audit`: how a cluster stands.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;

use super::check::FailOn;
use super::{Outcome, Output, Said, pretty, settings};
use crate::audit::{Scan, scan};
use crate::cluster::Cluster;
use crate::model::Str;
use crate::report::{self, Audited, JsonAudit};
use crate::rules::RuleSet;
use crate::source::{self, Live, Manifests};
use crate::telemetry::Telemetry;

/// How long the cluster may take to be read.
const READING: Duration = Duration::from_mins(2);

/// Shows how each namespace of a cluster stands: isolated or open, DNS reachable or not, mutual TLS
/// strict or not, what is waived, and the gravest finding.
///
/// With a NAMESPACE it tells everything that is wrong there, and what to do. The rules are those of
/// the gate, over what stands instead of a change.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portcullis audit
  portcullis audit payments
  portcullis audit --context staging --config portcullis.yaml --output json
  portcullis audit --cluster manifests/ --fail-on warn")]
pub(super) struct Args {
    /// The namespace to tell everything of
    #[arg(value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The kubeconfig of the cluster; left out, `KUBECONFIG`, else the usual one
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; left out, its current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Manifests that are the cluster, in place of a live one
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "context"])]
    cluster: Option<PathBuf>,
    /// The configuration of the gate; left out, its defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also shows the namespaces the configuration exempts and in which nothing was found
    #[arg(long)]
    all: bool,
    /// How to tell it
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// The weakest action that makes the exit code 1
    #[arg(long, value_name = "ACTION", default_value = "deny")]
    fail_on: FailOn,
}

pub(super) fn run(args: &Args, said: &mut Said) -> anyhow::Result<Outcome> {
    let settings = settings(args.config.as_deref())?;
    let rules = settings.rule_set();
    let known = match &args.cluster {
        Some(path) => of_manifests(path)?,
        None => live(args, settings.mesh.expected_root())?,
    };
    let mut scan = scan(&rules, &known.cluster, Timestamp::now());
    scan.namespaces.retain(|posture| !known.unmentioned.contains(&posture.namespace));
    scan.findings.retain(|it| it.namespace.as_ref().is_none_or(|name| !known.unmentioned.contains(name)));
    narrow(args, &mut scan)?;
    tell(args, &rules, &known, &scan, said)?;
    let counts = |finding: &crate::rules::Finding| finding.waived.is_none() && args.fail_on.is_met_by(finding.action);
    Ok(if scan.findings.iter().any(counts) { Outcome::Findings } else { Outcome::Clean })
}

/// A cluster, and what of it is not known.
struct Known {
    cluster: Cluster,
    forbidden: Vec<String>,
    /// Namespaces there are and that nobody spoke of.
    unmentioned: BTreeSet<Str>,
}

/// Leaves out what was not asked for.
fn narrow(args: &Args, scan: &mut Scan) -> anyhow::Result<()> {
    let Some(name) = &args.namespace else {
        // One in which something was found is shown: the exit code is about it too.
        scan.namespaces.retain(|posture| args.all || !posture.is_exempt || posture.worst.is_some());
        return Ok(());
    };
    if !scan.namespaces.iter().any(|posture| posture.namespace == *name) {
        let known = scan.namespaces.iter().map(|posture| posture.namespace.as_str());
        let hint = crate::config::closest(name, known).map(|near| format!(", did you mean `{near}`?"));
        bail!("there is no namespace `{name}`{}", hint.unwrap_or_default());
    }
    scan.namespaces.retain(|posture| posture.namespace == *name);
    scan.findings.retain(|finding| finding.namespace.as_deref() == Some(name));
    Ok(())
}

fn tell(args: &Args, rules: &RuleSet, known: &Known, scan: &Scan, said: &mut Said) -> anyhow::Result<()> {
    let audited = Audited { scan, forbidden: &known.forbidden, mode: rules.environment.mode };
    match args.output {
        Output::Json => said.out = pretty(&JsonAudit::from(&audited))?,
        Output::Text => {
            for name in &known.forbidden {
                said.err
                    .push_str(&report::note(&format!("`{name}` may not be read, so what rests on it is not known")));
            }
            said.out = if args.namespace.is_some() { audited.in_full() } else { audited.table() };
        }
    }
    Ok(())
}

fn of_manifests(path: &PathBuf) -> anyhow::Result<Known> {
    let manifests = Manifests::read(&[path], "default");
    if let Some(fault) = manifests.faults.first() {
        let place = manifests.place_of(fault).map_or_else(|| fault.name.clone(), |place| place.to_string());
        bail!("the cluster in `{}` cannot be read: {place}: {}", path.display(), fault.problem.message);
    }
    ensure!(manifests.documents > 0, "there is no Kubernetes object in `{}`", path.display());
    let cluster = manifests.applied_to_empty();
    // Nothing is said of the namespaces every cluster starts with, unless something is put there.
    let unmentioned = cluster.namespaces().map(|state| state.name.clone()).filter(|name| !manifests.is_about(name));
    Ok(Known { unmentioned: unmentioned.collect(), forbidden: Vec::new(), cluster })
}

/// Reads a live cluster once, as the gate does: what may not be read is left out and said.
fn live(args: &Args, mesh_root: &str) -> anyhow::Result<Known> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(async {
            let configuration = source::configuration(args.kubeconfig.as_deref(), args.context.as_deref()).await?;
            let server = configuration.cluster_url.to_string();
            let live = Live::start(configuration, mesh_root, &Telemetry::default())?;
            let begun = Instant::now();
            let mut progress = Progress::default();
            while !live.is_listed() {
                let waiting = live.listing();
                if begun.elapsed() > READING {
                    progress.clear();
                    bail!("the API server at {server} does not answer for {}", waiting.join(", "));
                }
                progress.show(&format!("reading the cluster: {} to go", waiting.len()));
                if let Some(why) = live.trouble().filter(|_| begun.elapsed() > Duration::from_secs(10)) {
                    progress.clear();
                    bail!("the API server at {server} cannot be read: {why}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            progress.clear();
            // What was listed last may be a moment from being in the snapshot.
            let mut cluster = live.cluster();
            while let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(100), cluster.changed()).await {
                if begun.elapsed() > READING {
                    break;
                }
            }
            let cluster = cluster.borrow().as_ref().clone();
            ensure!(
                cluster.namespaces().next().is_some() || !live.forbidden().is_empty(),
                "the API server at {server} tells of no namespace"
            );
            Ok(Known { cluster, forbidden: live.forbidden(), unmentioned: BTreeSet::new() })
        })
        .context("the cluster cannot be read")
}

/// A line on a terminal that is written over.
#[derive(Default)]
struct Progress(bool);

impl Progress {
    fn show(&mut self, text: &str) {
        let mut err = anstream::stderr().lock();
        if std::io::stderr().is_terminal() {
            self.0 = true;
            let _ = write!(err, "\r\x1b[2K{text}").and_then(|()| err.flush());
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.0) {
            let mut err = anstream::stderr().lock();
            let _ = write!(err, "\r\x1b[2K").and_then(|()| err.flush());
        }
    }
}
