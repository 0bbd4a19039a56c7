//! `portcullis review`: one AdmissionReview, judged as the gate would.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde_json::Value;

use super::{Outcome, Said, pretty, settings};
use crate::admission;
use crate::report::{self, LocatedFault};
use crate::source::Manifests;
use crate::yaml;

/// Answers one AdmissionReview as the gate would, with a folder of manifests as the cluster.
///
/// Prints the AdmissionReview that goes back to the API server. The exit code is 0 where the change
/// is allowed and 1 where it is denied.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  portcullis review review.json --cluster state/ --config portcullis.yaml")]
pub(super) struct Args {
    /// The AdmissionReview as JSON or YAML, or `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The manifests that are the cluster, exactly
    #[arg(long, value_name = "DIR")]
    cluster: PathBuf,
    /// The configuration of the gate; left out, its defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args, said: &mut Said) -> anyhow::Result<Outcome> {
    let rules = settings(args.config.as_deref())?.rule_set();
    let body = body(&args.file)?;
    let manifests = Manifests::read(&[&args.cluster], "default");
    for fault in &manifests.faults {
        let place = manifests.place_of(fault);
        said.err.push_str(&report::fault(&LocatedFault { name: &fault.name, place, problem: &fault.problem }));
    }
    for note in &manifests.notes {
        said.err.push_str(&report::note(&note.to_string()));
    }
    if !manifests.faults.is_empty() {
        bail!("the cluster is not known in full, so no answer would be the gate's");
    }
    let answer = admission::review(&rules, (&manifests.cluster()).into(), &body, Timestamp::now());
    let response: Value = serde_json::from_slice(&answer.body).context("the answer is not JSON")?;
    said.out = pretty(&response)?;
    Ok(match (answer.status, answer.record.allowed) {
        (200, true) => Outcome::Clean,
        (200, false) => Outcome::Findings,
        _ => Outcome::Incomplete,
    })
}

/// The review's bytes. JSON goes on untouched, so that even a broken one is answered as the gate
/// would; YAML, which only people write, is turned into JSON first.
fn body(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).context("standard input cannot be read")?;
        bytes
    } else {
        fs::read(path).with_context(|| format!("`{}` cannot be read", path.display()))?
    };
    if bytes.trim_ascii_start().starts_with(b"{") {
        return Ok(bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    match yaml::parse(&text).into_iter().next() {
        Some(Ok(document)) if !document.is_empty() => Ok(document.value().to_string().into_bytes()),
        Some(Ok(_) | Err(_)) | None => Ok(bytes),
    }
}
