//! `portcullis completions`: scripts that complete the command line.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Outcome, Said};

/// Prints a script that completes commands and options in a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  portcullis completions bash > /etc/bash_completion.d/portcullis")]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args, said: &mut Said) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "portcullis", &mut script);
    said.out = String::from_utf8(script)?;
    Ok(Outcome::Clean)
}
