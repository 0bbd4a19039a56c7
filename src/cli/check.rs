//! `portcullis check`: the rules over manifests.

use std::path::PathBuf;

use anyhow::bail;
use clap::ValueEnum;
use jiff::Timestamp;

use super::{Outcome, Output, Said, pretty, settings};
use crate::cluster::Cluster;
use crate::report::{self, JsonReport, Located, LocatedFault, Report, Summary};
use crate::rules::{Action, CL_UNREADABLE_OBJECT, Finding, Mode, RuleSet};
use crate::source::{Manifests, Unreadable};

/// Judges manifests as if all of them were applied to an empty cluster.
///
/// Reads YAML and JSON files, folders and everything below them, and standard input (`-`). Findings
/// are told with the file, the line and what to do; `--output json` tells them to programs.
///
/// It judges as the gate would: the configuration's profile, actions and `mode` apply, and the
/// label `portcullis.dev/mode` of a Namespace among the manifests. Where those turn a denial to a
/// warning and CI should still fail, `--fail-on warn` does.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portcullis check manifests/
  kustomize build overlays/prod | portcullis check - --namespace shop
  portcullis check manifests/ --config portcullis.yaml --fail-on warn --output json")]
pub(super) struct Args {
    /// Files, folders, or `-` for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The configuration of the gate; left out, its defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where objects go that name no namespace
    #[arg(long, short, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// How to tell the findings
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// The weakest action that makes the exit code 1
    #[arg(long, value_name = "ACTION", default_value = "deny")]
    fail_on: FailOn,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailOn {
    /// Findings to deny
    Deny,
    /// These and warnings
    Warn,
    /// All findings
    Audit,
    /// No finding
    Never,
}

impl FailOn {
    fn is_met_by(self, action: Action) -> bool {
        match self {
            Self::Deny => action >= Action::Deny,
            Self::Warn => action >= Action::Warn,
            Self::Audit => action >= Action::Audit,
            Self::Never => false,
        }
    }
}

pub(super) fn run(args: &Args, said: &mut Said) -> anyhow::Result<Outcome> {
    let rules = settings(args.config.as_deref())?.rule_set();
    let manifests = Manifests::read(&args.paths, &args.namespace);
    if manifests.documents == 0 && manifests.faults.is_empty() {
        bail!("there is nothing to check: no Kubernetes object was read");
    }
    let findings = judge(&rules, &manifests);
    let report = told(&findings, &manifests);
    for fault in &report.faults {
        said.err.push_str(&report::fault(fault));
    }
    for note in &report.notes {
        said.err.push_str(&report::note(note));
    }
    said.out = match args.output {
        Output::Text => report::findings(&report.findings) + &report::summary(&report.summary),
        Output::Json => pretty(&JsonReport::from(&report))?,
    };
    Ok(if !report.faults.is_empty() {
        Outcome::Incomplete
    } else if findings.iter().any(|finding| args.fail_on.is_met_by(finding.action)) {
        Outcome::Findings
    } else {
        Outcome::Clean
    })
}

/// What the rules say of the cluster, and what could not be read of its objects.
fn judge(rules: &RuleSet, manifests: &Manifests) -> Vec<Finding> {
    let cluster = manifests.applied_to_empty();
    let mut findings = rules.judge_all(&cluster, Timestamp::now());
    let unreadable = manifests.unreadable.iter().map(|unreadable| unreadable_object(rules, &cluster, unreadable));
    findings.extend(unreadable.filter(|finding| finding.action > Action::Off));
    // Stable, so that what the rules said stays in their order.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.action));
    findings
}

fn unreadable_object(rules: &RuleSet, cluster: &Cluster, unreadable: &Unreadable) -> Finding {
    let Unreadable { object, namespace, problem } = unreadable;
    let label = namespace.as_ref().and_then(|name| cluster.namespace(name)?.labels.get(Mode::LABEL)?.parse().ok());
    let mode: Mode = label.unwrap_or(rules.mode);
    let message = format!("{object} cannot be read in full: {}", problem.message);
    Finding {
        rule: &CL_UNREADABLE_OBJECT,
        action: rules.on_unreadable.min(mode.ceiling()),
        why: "what cannot be read cannot be judged, and the API server may refuse it".to_owned(),
        ..Finding::new(namespace.clone(), object.clone(), problem.path.clone(), message)
    }
}

fn told<'a>(findings: &'a [Finding], manifests: &'a Manifests) -> Report<'a> {
    let located = |finding: &'a Finding| Located { finding, place: manifests.place(&finding.object, &finding.path) };
    let faults: Vec<_> = manifests
        .faults
        .iter()
        .map(|fault| LocatedFault { name: &fault.name, place: manifests.place_of(fault), problem: &fault.problem })
        .collect();
    Report {
        findings: findings.iter().map(located).collect(),
        notes: manifests.notes.iter().map(ToString::to_string).collect(),
        summary: Summary {
            errors: faults.len(),
            objects: manifests.objects(),
            documents: manifests.documents,
            ..Summary::of(findings)
        },
        faults,
    }
}
