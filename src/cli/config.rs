//! `portcullis config`: what the configuration is, may be and should look like.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{Outcome, Said, pretty};
use crate::config::{Settings, defaults, load, schema};
use crate::rules::{Profile, RULES};
use crate::yaml;

/// Checks, explains and starts a configuration.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Reads a configuration and prints the rules as it sets them
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
        Command::Check { file } => effective(&load(file)?),
        Command::Default => defaults(),
        Command::Schema => pretty(&schema())?,
    };
    Ok(Outcome::Clean)
}

/// The rules as the settings want them: name, action, options that were changed.
fn effective(settings: &Settings) -> String {
    let profile = match settings.profile {
        Profile::Baseline => "baseline",
        Profile::Restricted => "restricted",
    };
    let mut out = format!("profile {profile}, mode {}\n\n", settings.mode.as_str());
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
    out
}
