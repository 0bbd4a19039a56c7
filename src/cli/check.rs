//! `portcullis check`: the rules over manifests.

use std::path::PathBuf;

use anyhow::bail;
use clap::ValueEnum;
use jiff::Timestamp;

use super::{Outcome, Output, Said, pretty, settings};
use crate::admission;
use crate::report::{self, JsonReport, Located, LocatedFault, Report, Summary};
use crate::rules::Action;
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
pub(super) enum FailOn {
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
    pub(super) fn is_met_by(self, action: Action) -> bool {
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
    let cluster = manifests.applied_to_empty();
    let mut findings = rules.judge_all(&cluster, Timestamp::now());
    // Nothing is said of the namespaces every cluster starts with, unless something is put there.
    findings.retain(|finding| finding.namespace.as_ref().is_none_or(|namespace| manifests.is_about(namespace)));
    let told = findings.len();
    let unreadable = &manifests.unreadable;
    let said_of =
        |it: &Unreadable| admission::unreadable(&rules, &cluster, &it.object, std::slice::from_ref(&it.problem));
    findings.extend(unreadable.iter().flat_map(said_of));
    let (judged, unread) = findings.split_at(told);
    let mut located: Vec<Located<'_>> = judged
        .iter()
        .map(|finding| Located { finding, place: manifests.place(&finding.object, &finding.path) })
        .chain(
            unread
                .iter()
                .zip(unreadable)
                .map(|(finding, unreadable)| Located { finding, place: manifests.place_of_unreadable(unreadable) }),
        )
        .collect();
    // Stable, so that what the rules said stays in their order.
    located.sort_by_key(|located| std::cmp::Reverse(located.finding.action));
    let report = report_of(located, &manifests);
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
    } else if report.findings.iter().any(|located| args.fail_on.is_met_by(located.finding.action)) {
        Outcome::Findings
    } else {
        Outcome::Clean
    })
}

fn report_of<'a>(findings: Vec<Located<'a>>, manifests: &'a Manifests) -> Report<'a> {
    let faults: Vec<_> = manifests
        .faults
        .iter()
        .map(|fault| LocatedFault { name: &fault.name, place: manifests.place_of(fault), problem: &fault.problem })
        .collect();
    Report {
        summary: Summary {
            errors: faults.len(),
            objects: manifests.objects(),
            documents: manifests.documents,
            ..Summary::of(findings.iter().map(|located| located.finding))
        },
        findings,
        faults,
        notes: manifests.notes.iter().map(ToString::to_string).collect(),
    }
}
