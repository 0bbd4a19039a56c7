//! Tests of the catalogue itself: identities, pages, options, and the examples on the pages.
#![cfg(test)]

use std::collections::BTreeSet;

use serde_json::Value;

use super::testing::*;
use super::{Action, Entry, Profile, RULES, entry};

/// The YAML blocks of a page before "Use instead:" and after it.
fn examples(page: &str) -> (Vec<String>, Vec<String>) {
    let (mut wrong, mut right, mut block) = (Vec::new(), Vec::new(), None::<String>);
    let mut is_right = false;
    for line in page.lines() {
        match (&mut block, line.trim()) {
            (None, "```yaml") => block = Some(String::new()),
            (None, "Use instead:") => is_right = true,
            (None, _) => {}
            (Some(_), "```") => {
                let text = block.take().unwrap();
                if is_right { right.push(text) } else { wrong.push(text) }
            }
            (Some(text), _) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    (wrong, right)
}

fn with_options() -> impl Iterator<Item = &'static Entry> {
    RULES.iter().filter(|entry| entry.has_options())
}

#[test]
fn codes_and_names_are_well_formed_and_used_once() {
    let prefixes = ["NP", "MT", "AZ", "IN", "GW", "SV", "CL"];
    for Entry { meta, .. } in RULES {
        let (prefix, number) = meta.code.split_at(2);
        assert!(prefixes.contains(&prefix) && number.len() == 3 && number.parse::<u16>().is_ok(), "{}", meta.code);
        let is_kebab =
            meta.name.split('-').all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase()));
        assert!(is_kebab, "{}", meta.name);
        assert!(meta.baseline <= meta.restricted, "{} asks for less in `restricted`", meta.name);
        assert_eq!(entry(meta.name).unwrap().meta, *meta);
        assert_eq!(entry(&meta.code.to_lowercase()).unwrap().meta, *meta);
    }
    assert_eq!(RULES.iter().map(|entry| entry.meta.code).collect::<BTreeSet<_>>().len(), RULES.len());
    assert_eq!(RULES.iter().map(|entry| entry.meta.name).collect::<BTreeSet<_>>().len(), RULES.len());
}

#[test]
fn every_option_is_looked_at_for_what_it_lets_pass() {
    for entry in with_options() {
        let rule = entry.build(Value::Object(<_>::default())).unwrap().unwrap_or_else(|error| panic!("{error}"));
        let looked_at = rule.loosened(&rule.options(), Profile::Baseline, Profile::Baseline);
        let options: BTreeSet<_> = looked_at.iter().map(|(option, _)| (*option).to_owned()).collect();
        let schema = entry.schema().to_value();
        let known = schema["properties"].as_object().into_iter().flatten().map(|(option, _)| option.clone());
        assert_eq!(options, known.collect(), "{}", entry.meta.name);
        assert!(looked_at.iter().all(|(_, is_loosened)| !is_loosened), "{}", entry.meta.name);
    }
}

#[test]
fn every_rule_has_a_page_with_its_sections() {
    for entry in RULES {
        let page = entry.page();
        let first = page.lines().next().unwrap();
        assert!(first.starts_with("Reports ") && first.ends_with('.'), "{}: {first}", entry.meta.name);
        assert!(page.contains("\n## Why is this bad?\n"), "{}", entry.meta.name);
    }
    for entry in with_options() {
        for section in ["## Example", "Use instead:", "## What it does not see"] {
            let page = entry.page();
            assert!(page.lines().any(|line| line == section), "{} has no `{section}`", entry.meta.name);
        }
    }
}

#[test]
fn every_option_is_documented_and_has_a_default() {
    for entry in with_options() {
        let schema = entry.schema().to_value();
        let defaults =
            entry.build(Value::Object(<_>::default())).unwrap().unwrap_or_else(|it| panic!("{it}")).options();
        for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let description = field.get("description").and_then(Value::as_str).unwrap_or_default();
            assert!(
                description.ends_with('.') && description.len() > 20,
                "{}.{name}: `{description}`",
                entry.meta.name
            );
            assert!(defaults.get(name).is_some(), "{}.{name} has no default", entry.meta.name);
        }
        let unknown = serde_json::json!({"no-such-option": 1});
        assert!(entry.build(unknown).unwrap().is_err(), "{} takes any option", entry.meta.name);
    }
}

#[test]
fn every_rule_names_what_it_watches_once() {
    for entry in with_options() {
        let watched: BTreeSet<_> = entry.meta.watches.iter().map(|watch| watch.what).collect();
        assert!(!watched.is_empty() && watched.len() == entry.meta.watches.len(), "{}", entry.meta.name);
    }
}

#[test]
fn the_wrong_example_of_every_page_is_reported_by_its_rule() {
    for entry in with_options() {
        let (wrong, _) = examples(&entry.page());
        assert!(!wrong.is_empty(), "{} has no example", entry.meta.name);
        for yaml in wrong {
            let said = gate(&yaml).only(entry.meta.code).check();
            assert!(said.0.iter().any(|it| it.action >= Action::Warn), "{} says nothing of\n{yaml}", entry.meta.name);
        }
    }
}

#[test]
fn the_right_example_of_every_page_is_reported_by_none_of_its_own_and_denied_by_no_rule() {
    for entry in with_options() {
        let (_, right) = examples(&entry.page());
        assert!(!right.is_empty(), "{} has nothing to use instead", entry.meta.name);
        for yaml in right {
            gate(&yaml).only(entry.meta.code).check().nothing();
            let said = gate(&yaml).only("").check();
            assert!(!said.denied(), "{}: {}", entry.meta.name, said.text());
        }
    }
}
