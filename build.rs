//! Puts the commit this was built from into `portcullis --version`.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=PORTCULLIS_COMMIT");
    // Where the history is: beside the work tree or, for one of several work trees, elsewhere. A path
    // that does not exist would count as changed at every build.
    for place in git(&["rev-parse", "--git-path", "HEAD", "--git-path", "logs/HEAD"]).unwrap_or_default().lines() {
        if Path::new(place).exists() {
            println!("cargo:rerun-if-changed={place}");
        }
    }
    let commit =
        std::env::var("PORTCULLIS_COMMIT").ok().or_else(commit_of_work_tree).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=PORTCULLIS_COMMIT={commit}");
}

/// The short commit of the work tree, or nothing where the source came without its history.
fn commit_of_work_tree() -> Option<String> {
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// What git says, if it says something.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !said.is_empty()).then_some(said)
}
