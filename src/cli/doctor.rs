//! `portcullis doctor`: what keeps the gate from guarding a cluster.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use serde::Serialize;

use super::{Outcome, Output, Said, pretty, settings};
use crate::admission::CONFIGURATION_KEY;
use crate::config::{self, Settings};
use crate::doctor::{Check, Origin, Questions, Verdict, configuration, examine, look};
use crate::{prose, source};

/// Looks at a live cluster for what keeps the gate from guarding it.
///
/// Whether NetworkPolicies are enforced at all, whether the gate is registered, asked and trusted,
/// which namespaces it does not see, which rules cannot be judged, and what could cut it off or keep
/// it from starting. What may not be read is said, and counts as unknown.
///
/// Nothing is changed. The one request that is no read is a dry run of a policy that opens
/// everything, which the gate denies in every mode; `--no-probe` leaves it out. The exit code is 0
/// where nothing is bad, 1 where something is, and 2 where the cluster could not be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portcullis doctor
  portcullis doctor --context staging --namespace guard --webhook guard --output json")]
pub(super) struct Args {
    /// The namespace the gate runs in
    #[arg(long, short, value_name = "NAMESPACE", env = "PORTCULLIS_NAMESPACE", default_value = "portcullis")]
    namespace: String,
    /// The ValidatingWebhookConfiguration that registers the gate
    #[arg(long, value_name = "NAME", default_value = "portcullis")]
    webhook: String,
    /// The namespace the dry run is sent to; the gate must be asked about it
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    probe_namespace: String,
    /// Sends no dry run
    #[arg(long)]
    no_probe: bool,
    /// The configuration of the gate; left out, that of its ConfigMap, which is named as its
    /// registration is
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_CONFIG")]
    config: Option<PathBuf>,
    /// The kubeconfig of the cluster; left out, `KUBECONFIG`, else the pod's own account
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; left out, its current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// How many seconds the cluster may take to be read
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// How to tell it
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// How wide paragraphs are set.
const WIDTH: usize = 96;

pub(super) fn run(args: &Args, said: &mut Said) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (facts, rules) = runtime.context("the runtime cannot be started")?.block_on(async {
        let client = source::configuration(args.kubeconfig.as_deref(), args.context.as_deref()).await?;
        let (settings, configuration) = match &args.config {
            Some(path) => (settings(Some(path))?, Origin::File(path.display().to_string())),
            None => found(client.clone(), args).await,
        };
        let questions = Questions {
            namespace: args.namespace.clone(),
            webhook: args.webhook.clone(),
            probe: (!args.no_probe).then(|| args.probe_namespace.clone()),
            mesh_root: settings.mesh.expected_root().to_owned(),
            configuration,
            patience: Duration::from_secs(args.timeout),
        };
        let mut rules = settings.rule_set();
        rules.environment.own_namespace = Some(args.namespace.as_str().into());
        anyhow::Ok((look(client, questions).await?, rules))
    })?;
    let checks = examine(&facts, &rules);
    said.out = match args.output {
        Output::Text => text(&checks, std::io::stdout().is_terminal()),
        Output::Json => pretty(&Report { checks: &checks })?,
    };
    let is_bad = checks.iter().any(|check| check.verdict == Verdict::Bad);
    Ok(if is_bad { Outcome::Findings } else { Outcome::Clean })
}

/// The configuration in the gate's ConfigMap; the defaults where there is none that can be used.
async fn found(client: kube::Config, args: &Args) -> (Settings, Origin) {
    let name = format!("{}/{}", args.namespace, args.webhook);
    let patience = Duration::from_secs(args.timeout);
    let read = tokio::time::timeout(patience, configuration(client, &args.namespace, &args.webhook)).await;
    match read.unwrap_or_else(|_| Err("the API server does not answer in time".to_owned())) {
        Ok(bytes) => match config::decode(CONFIGURATION_KEY, bytes) {
            Ok(settings) => (settings, Origin::ConfigMap(name)),
            Err(error) => {
                let problems = error.to_string().lines().map(str::to_owned).collect();
                (Settings::default(), Origin::Refused(name, problems))
            }
        },
        Err(why) => (Settings::default(), Origin::Unknown(format!("ConfigMap {name}: {why}"))),
    }
}

/// For programs: the names of checks and their verdicts stay, the texts may change.
#[derive(Serialize)]
struct Report<'a> {
    checks: &'a [Check],
}

/// For people: a line a check, and below it what it rests on, what it means and what to do.
fn text(checks: &[Check], is_terminal: bool) -> String {
    let mut out = String::new();
    for check in checks {
        let (mark, colour) = match check.verdict {
            Verdict::Good => ("✓", AnsiColor::Green),
            Verdict::Attention => ("!", AnsiColor::Yellow),
            Verdict::Bad => ("✗", AnsiColor::BrightRed),
        };
        let style = Style::new().fg_color(Some(colour.into())).bold();
        // A pipe's other end may be a log, or a person who searches it for a word.
        let mark = if is_terminal { mark.to_owned() } else { format!("{:9}", check.verdict) };
        let _ = writeln!(out, "{style}{mark}{style:#} {}", clean(&check.found));
        for fact in &check.facts {
            paragraph(&mut out, "- ", fact);
        }
        paragraph(&mut out, "means: ", &check.meaning);
        paragraph(&mut out, "do: ", &check.advice);
        for line in check.fix.lines() {
            let _ = writeln!(out, "    {}", clean(line));
        }
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let (bad, attention) = (count(Verdict::Bad), count(Verdict::Attention));
    let _ = match (bad, attention) {
        (0, 0) => writeln!(out, "\nall is well"),
        _ => writeln!(out, "\n{bad} bad, {attention} to look at, {} good", count(Verdict::Good)),
    };
    out
}

fn paragraph(out: &mut String, lead: &str, text: &str) {
    if !text.is_empty() {
        let lines = prose::wrap(&format!("{lead}{}", clean(text)), WIDTH);
        out.extend(lines.iter().map(|line| format!("    {line}\n")));
    }
}

/// Without what would steer a terminal: names and messages come from the cluster.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_words_and_a_terminal_marks() {
        let check = |verdict, found: &str| Check {
            name: "a",
            verdict,
            found: found.to_owned(),
            facts: vec!["because\u{1b}[31m".to_owned()],
            meaning: "it means".to_owned(),
            advice: "mend it".to_owned(),
            fix: "kind: A\n  b: c\n".to_owned(),
        };
        let checks = [check(Verdict::Bad, "broken"), check(Verdict::Good, "fine")];
        let plain = |terminal| anstream::adapter::strip_str(&text(&checks, terminal)).to_string();
        assert_eq!(
            plain(false),
            "bad       broken\n    - because [31m\n    means: it means\n    do: mend it\n    kind: A\n      b: c\n\
             good      fine\n    - because [31m\n    means: it means\n    do: mend it\n    kind: A\n      b: c\n\
             \n1 bad, 0 to look at, 1 good\n"
        );
        assert!(plain(true).starts_with("✗ broken\n"));
    }
}
