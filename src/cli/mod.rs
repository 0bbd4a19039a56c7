//! The command line: one file a subcommand.
//!
//! Exit codes: 0 clean, 1 findings at or above `--fail-on` (or a review that is denied), 2 the work
//! could not be done. What was asked for goes to standard output, everything else to standard error.

mod audit;
mod auditing;
mod check;
mod completions;
mod config;
mod doctor;
mod probe;
mod review;
mod rules;
mod serve;
mod upkeep;
mod webhook;

use std::io::{self, Write};
use std::panic::resume_unwind;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{Error as ConfigError, Settings, load};
use crate::report::{self, LocatedFault};
use crate::rules::STACK;
use crate::yaml::Place;

/// A guardrail for Kubernetes network policy and mesh security. It judges what policies and mesh
/// settings add up to, before a change takes effect, and says what to do instead.
#[derive(Debug, Parser)]
#[command(
    name = "portcullis",
    version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("PORTCULLIS_COMMIT"), ")"),
    max_term_width = 100,
    after_help = "\
Examples:
  portcullis check manifests/                      judge a folder of manifests
  helm template chart | portcullis check -         judge what a chart installs
  portcullis audit                                 see how a cluster stands, namespace by namespace
  portcullis rules dns-blackhole                   read about a rule
  portcullis config default > portcullis.yaml      start a configuration
  portcullis review review.json --cluster state/   see why the gate denied a change
  portcullis serve --cluster state/ …              run the gate
  portcullis webhook --service portcullis/gate …   register it with an API server
  portcullis doctor                                see what keeps it from guarding
  portcullis probe                                 see that it is asked

Exit codes: 0 nothing to object to, 1 findings, 2 the work could not be done."
)]
struct Cli {
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Args>),
    Check(check::Args),
    Audit(audit::Args),
    Review(review::Args),
    Rules(rules::Args),
    #[command(subcommand)]
    Config(config::Command),
    Webhook(webhook::Args),
    Probe(probe::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// How a command ended that could be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing to object to.
    Clean,
    /// Findings that count, or a denial.
    Findings,
    /// Some of the work could not be done; why has been said.
    Incomplete,
}

/// What a command says, colour included; it is stripped where nobody would see it.
#[derive(Default)]
struct Said {
    /// For standard output.
    out: String,
    /// For standard error.
    err: String,
}

/// Runs the program with the arguments of this process, on a thread whose stack is known: that of the
/// main thread is set by the shell.
pub fn main() -> ExitCode {
    match thread::Builder::new().name("main".to_owned()).stack_size(STACK).spawn(run) {
        // One that panicked has said so.
        Ok(running) => running.join().unwrap_or_else(|panic| resume_unwind(panic)),
        Err(_) => run(),
    }
}

fn run() -> ExitCode {
    let cli = Cli::parse();
    match cli.color {
        Color::Auto => anstream::ColorChoice::Auto,
        Color::Always => anstream::ColorChoice::Always,
        Color::Never => anstream::ColorChoice::Never,
    }
    .write_global();
    let mut said = Said::default();
    let outcome = match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args, &mut said),
        Command::Audit(args) => audit::run(&args, &mut said),
        Command::Review(args) => review::run(&args, &mut said),
        Command::Rules(args) => rules::run(&args, &mut said),
        Command::Config(command) => config::run(&command, &mut said),
        Command::Webhook(args) => webhook::run(&args, &mut said),
        Command::Probe(args) => probe::run(&args, &mut said),
        Command::Doctor(args) => doctor::run(&args, &mut said),
        Command::Completions(args) => completions::run(&args, &mut said),
    };
    let outcome = outcome.unwrap_or_else(|error| {
        said.err.push_str(&refusal(&error));
        Outcome::Incomplete
    });
    match said.write() {
        Ok(()) => {}
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        Err(_) => return ExitCode::from(2),
    }
    match outcome {
        Outcome::Clean => ExitCode::SUCCESS,
        Outcome::Findings => ExitCode::from(1),
        Outcome::Incomplete => ExitCode::from(2),
    }
}

impl Said {
    fn write(&self) -> io::Result<()> {
        if !self.err.is_empty() {
            let mut err = anstream::stderr().lock();
            match err.write_all(self.err.as_bytes()).and_then(|()| err.flush()) {
                // Nobody listens to the asides; whoever reads the answer still may.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        let mut out = anstream::stdout().lock();
        out.write_all(self.out.as_bytes())?;
        out.flush()
    }
}

/// An error as text: a configuration's with its lines, others with their causes.
fn refusal(error: &anyhow::Error) -> String {
    match error.downcast_ref::<ConfigError>() {
        Some(ConfigError { source, problems }) => problems
            .iter()
            .map(|problem| {
                let place = (!source.text.is_empty()).then(|| Place { source, span: problem.span.clone() });
                report::fault(&LocatedFault { name: &source.name, place, problem })
            })
            .collect(),
        None => format!("{0}error{0:#}: {error:#}\n", anstyle::AnsiColor::BrightRed.on_default().bold()),
    }
}

/// The settings of a file, or the defaults.
fn settings(path: Option<&Path>) -> anyhow::Result<Settings> {
    match path {
        Some(path) => Ok(load(path)?),
        None => Ok(Settings::default()),
    }
}

/// JSON for a person or a program: with line breaks either way.
fn pretty(value: &impl serde::Serialize) -> anyhow::Result<String> {
    let mut text = serde_json::to_string_pretty(value).context("the answer cannot be written as JSON")?;
    text.push('\n');
    Ok(text)
}
