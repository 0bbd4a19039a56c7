//! What of the chart follows from something else; `make update` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use crate::helm::{chart, helm};

/// Compares a generated file with what it should hold, or writes it.
fn holds(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, expected).unwrap();
    } else {
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == expected, "`{name}` is out of date: run `make update`");
    }
}

/// One test, for each step rests on what the one before has written.
#[test]
fn what_follows_from_the_program_and_the_values_is_up_to_date() {
    let waivers = portcullis::yaml::block(&portcullis::k8s::waiver_definition(), &BTreeMap::new());
    holds("charts/portcullis/crds/waivers.portcullis.dev.yaml", &waivers);
    holds("charts/portcullis/files/registration.yaml", &registration());
    holds("charts/portcullis/values.schema.json", &schema());
    holds("charts/portcullis/README.md", &readme());
    holds("deploy/manifests/portcullis.yaml", &manifests());
}

/// What the chart's webhook configuration asks about, as the program registers itself.
fn registration() -> String {
    let printed = Command::new(crate::support::BINARY)
        .args(["webhook", "--service", "portcullis/portcullis", "--guard", "-o", "json"])
        .output()
        .unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let entries = printed["webhooks"].as_array().unwrap().iter().map(|entry| {
        let kept = ["name", "rules", "matchConditions"].map(|field| (field.to_owned(), entry[field].clone()));
        Value::Object(Map::from_iter(kept))
    });
    let kept = serde_json::json!({ "webhooks": entries.collect::<Vec<_>>() });
    format!(
        "# Generated from the rules by `make update`: what they have to be asked about.\n{}",
        portcullis::yaml::block(&kept, &BTreeMap::new())
    )
}

/// The schema of the values with that of the configuration in it, but for what has values of its own.
fn schema() -> String {
    let path = chart().join("values.schema.json");
    let mut schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut configuration = portcullis::config::schema();
    let definitions = configuration["$defs"].take();
    let mut properties = configuration["properties"].take();
    for own in ["profile", "mode"] {
        // Refused by the template, which says where they are set.
        properties[own] = Value::Bool(true);
    }
    schema["properties"]["config"] =
        serde_json::json!({ "type": "object", "additionalProperties": false, "properties": properties });
    schema["$defs"] = definitions;
    format!("{}\n", serde_json::to_string_pretty(&schema).unwrap())
}

/// The chart's README: what a person wrote, and a table of the values.
fn readme() -> String {
    let path = chart().join("README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let (start, end) = ("<!-- generated: values -->\n", "<!-- end: values -->");
    let (before, rest) = readme.split_once(start).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    format!("{before}{start}{}{end}{after}", table())
}

/// The values with their defaults and what is said above each.
fn table() -> String {
    let text = std::fs::read_to_string(chart().join("values.yaml")).unwrap();
    let defaults = portcullis::yaml::parse(&text).remove(0).unwrap().value();
    let mut table = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    let (mut path, mut meaning) = (Vec::<String>::new(), None);
    let mut rows = 0;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(said) = trimmed.strip_prefix("# -- ") {
            meaning = Some(said.to_owned());
            continue;
        }
        let Some((key, _)) = trimmed.split_once(':').filter(|_| !trimmed.starts_with(['#', '-'])) else { continue };
        path.truncate((line.len() - trimmed.len()) / 2);
        path.push(key.to_owned());
        if let Some(meaning) = meaning.take() {
            let default = defaults.pointer(&format!("/{}", path.join("/"))).unwrap();
            writeln!(table, "| `{}` | `{default}` | {} |", path.join("."), meaning.replace('|', "\\|")).unwrap();
            rows += 1;
        } else {
            let default = defaults.pointer(&format!("/{}", path.join("/")));
            let is_inner = default.is_none_or(Value::is_object) || rows > 0 && path.len() > 1;
            assert!(is_inner, "`{}` has no `# -- ` above it", path.join("."));
        }
    }
    assert!(rows > 60, "{rows}");
    table
}

/// The chart as plain manifests, for those who use no Helm.
fn manifests() -> String {
    let chart = chart();
    let words = [
        "template",
        "portcullis",
        chart.to_str().unwrap(),
        "--namespace",
        "portcullis",
        "--include-crds",
        "--skip-tests",
    ];
    let said = helm(words);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let rendered = String::from_utf8(said.stdout).unwrap();
    // Who manages them, and by which release, is nobody here.
    let plain = rendered.lines().filter(|line| {
        let line = line.trim_start();
        !line.starts_with("# Source:")
            && !line.starts_with("helm.sh/chart:")
            && !line.starts_with("app.kubernetes.io/managed-by:")
    });
    let plain: Vec<_> = plain.collect();
    format!(
        "# Portcullis as the chart renders it with its defaults; generated by `make update`.\n# Set the image, then: kubectl apply --server-side -f portcullis.yaml\n# From the second time on with --force-conflicts: the gate has set `failurePolicy`, and sets it again.\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: portcullis\n  labels:\n    pod-security.kubernetes.io/enforce: restricted\n{}\n",
        plain.join("\n")
    )
}
