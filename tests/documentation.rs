//! What the README says of rules, metrics and the demonstration is what they say themselves, and what
//! the threat model names is there.
//!
//! Each generated block stands between two comments; `make update` writes them anew.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis::rules::RULES;
use portcullis::telemetry::metrics;

/// Compares a generated block of the README with what it should hold, or writes it.
fn holds(block: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (start, end) = (format!("<!-- generated: {block} -->\n"), format!("<!-- end: {block} -->\n"));
    let from = readme.find(&start).unwrap_or_else(|| panic!("the README has no `{start}`")) + start.len();
    let to = from + readme[from..].find(&end).unwrap_or_else(|| panic!("the README has no `{end}`"));
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, format!("{}{expected}{}", &readme[..from], &readme[to..])).unwrap();
    } else {
        assert_eq!(&readme[from..to], expected, "the block `{block}` of the README is out of date: run `make update`");
    }
}

fn rules_table() -> String {
    let mut table =
        "| code | name | severity | baseline | restricted | what it reports |\n|---|---|---|---|---|---|\n".to_owned();
    for entry in RULES {
        let meta = entry.meta;
        let page = entry.page();
        let first = page.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        let (severity, baseline, restricted) = (meta.severity.as_str(), meta.baseline, meta.restricted);
        writeln!(table, "| {} | `{}` | {severity} | {baseline} | {restricted} | {first} |", meta.code, meta.name)
            .unwrap();
    }
    table
}

fn metrics_table() -> String {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for metric in metrics::CATALOGUE {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(table, "| `{}` | {} | {} | {} |", metric.name, metric.kind.as_str(), labels.join(", "), metric.help)
            .unwrap();
    }
    table
}

/// A program cargo builds as an example.
fn example(name: &str) -> PathBuf {
    let folder = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples");
    folder.join(name)
}

/// What the demonstration prints into a pipe.
fn demonstration() -> String {
    // The example starts the program, which has to be there before it.
    assert!(Path::new(env!("CARGO_BIN_EXE_portcullis")).exists());
    let certificates = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-certificates");
    let made = Command::new(example("dev-certs")).arg(&certificates).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let told = Command::new(example("demo")).arg(&certificates).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success(), "the demonstration did not go as it tells:\n{out}\n{err}");
    format!("```text{out}```\n")
}

/// What a person with kubectl sees of the gate on a real API server.
fn session() -> String {
    assert!(Path::new(env!("CARGO_BIN_EXE_portcullis")).exists());
    let told = Command::new(example("demo-cluster")).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success(), "the session did not go as it tells:\n{out}\n{err}");
    format!("```text{out}```\n")
}

/// One test, for they write the same file.
#[test]
fn the_readme_says_what_the_program_says() {
    holds("rules", &rules_table());
    holds("metrics", &metrics_table());
    holds("demo", &demonstration());
    holds("demo-cluster", &session());
}

#[test]
fn the_review_that_make_run_tells_of_is_denied_over_the_example_cluster() {
    let answer = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["review", "deploy/demo/review.json", "--cluster", "deploy/demo/cluster"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&answer.stdout);
    assert_eq!(answer.status.code(), Some(1), "{said}");
    assert!(said.contains("NP001 missing-default-deny"), "{said}");
}

/// The texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Every file of the tests and sources, as one text.
fn sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut all) = (vec![root.join("tests"), root.join("src")], String::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "rs" => all.push_str(&std::fs::read_to_string(path).unwrap()),
                Some(_) | None => {}
            }
        }
    }
    all
}

#[test]
fn the_threat_model_names_tests_and_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    assert!(readme.contains("(docs/threat-model.md)"), "the README does not lead there");
    let model = std::fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let tests: Vec<&str> = quoted(&model).filter(|it| it.matches('_').count() > 2).collect();
    assert!(tests.len() > 20, "{tests:?}");
    let sources = sources();
    let missing: Vec<_> = tests.iter().filter(|it| !sources.contains(&format!("fn {it}("))).collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:#?}");
    let files = quoted(&model).filter(|it| Path::new(it).extension().is_some_and(|it| it == "rs") || it.ends_with('/'));
    let absent: Vec<_> = files.filter(|it| !root.join(it).exists()).collect();
    assert!(absent.is_empty(), "there are no such files: {absent:?}");
}
