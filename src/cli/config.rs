//! `portcullis config`: what the configuration is, may be and should look like.

use std::fmt::Write as _;
use std::path::PathBuf;

use jiff::Timestamp;

use super::{Outcome, Said, pretty};
use crate::config::{Settings, defaults, load, schema};
use crate::rules::{Environment, MaxDays, RULES, Standing};
use crate::yaml;

/// Checks, explains and starts a configuration.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Reads a configuration and prints what will be in force
    Check {
        /// The configuration
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Prints every setting with its default and what it means
    Default,
    /// Prints the JSON Schema of the configuration, for editors
    Schema,
}

pub(super) fn run(command: &Command, said: &mut Said) -> anyhow::Result<Outcome> {
    said.out = match command {
        Command::Check { file } => effective(&load(file)?, Timestamp::now()),
        Command::Default => defaults(),
        Command::Schema => pretty(&schema())?,
    };
    Ok(Outcome::Clean)
}

/// What will be in force: the rules with their actions and the options that were changed, then what
/// they judge in.
fn effective(settings: &Settings, now: Timestamp) -> String {
    let profile = settings.profile.as_str();
    let rules = settings.rule_set();
    let (mode, on_error, on_timeout) = (settings.mode.as_str(), rules.on_error, rules.on_timeout);
    let mut out = format!("profile {profile}, mode {mode}, onError {on_error}, onTimeout {on_timeout}\n\n");
    let width = RULES.iter().map(|entry| entry.meta.name.len()).max().unwrap_or(0);
    for entry in RULES {
        let changed = settings.changed_options(entry);
        let options: Vec<_> = changed.iter().map(|(name, value)| format!("{name}: {}", yaml::flow(value))).collect();
        let row = format!(
            "{}  {:width$}  {:5}  {}",
            entry.meta.code,
            entry.meta.name,
            settings.action(entry),
            options.join(", ")
        );
        let _ = writeln!(out, "{}", row.trim_end());
    }
    let Environment { mode: _, own_namespace: _, namespaces, dns, mesh, cni, waivers } = &rules.environment;
    let exempt = match namespaces.exempt.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    let services = dns.services.iter().map(|it| format!("Service {}/{}", it.namespace, it.name));
    let resolvers: Vec<_> = services.chain(dns.addresses.iter().map(ToString::to_string)).collect();
    let resolvers = match resolvers.as_slice() {
        [] => "found by its Service and its pods".to_owned(),
        found => found.join(", "),
    };
    let root = match &mesh.root_namespace {
        Some(root) => format!("root namespace {root}"),
        None => format!("root namespace from the mesh's ConfigMap, else {}", mesh.expected_root()),
    };
    let inject = if mesh.inject_by_default { ", unlabelled namespaces are injected" } else { "" };
    let name = serde_json::to_value(cni.name).expect("a name of a CNI is text");
    let ranges: Vec<_> = cni.pod_ranges.iter().map(ToString::to_string).collect();
    let ranges = match ranges.as_slice() {
        [] => "pod ranges not given".to_owned(),
        ranges => format!("pods in {}", ranges.join(", ")),
    };
    let _ = write!(
        out,
        "\nexempt  {exempt}\ndns     {resolvers}\nmesh    {root}{inject}\ncni     {}, {ranges}\n",
        yaml::flow(&name)
    );
    let MaxDays { low, medium, high, critical } = waivers.max_days;
    let _ = writeln!(
        out,
        "waivers low {low}, medium {medium}, high {high}, critical {critical} days, prolonged {} times at most",
        waivers.renewals.0
    );
    for granted in &waivers.list {
        let standing = match waivers.standing(&granted.waiver(), now) {
            Standing::Holds(ends) => format!("holds until {ends}"),
            Standing::Expired(ends) => format!("has run out at {ends} and counts as absent"),
            Standing::Invalid(flaws) => {
                let flaws: Vec<_> =
                    flaws.iter().map(|flaw| format!("`{}` {}", flaw.path.as_str(), flaw.message)).collect();
                format!("does not hold: {}", flaws.join("; "))
            }
        };
        let _ = writeln!(out, "        {}/{} {standing}", granted.namespace, granted.name);
    }
    out
}
