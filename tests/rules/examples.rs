//! The examples of the rules' pages, and the catalogue itself.

use std::collections::BTreeSet;

use portcullis::rules::{Action, RULES};

use super::gate::{Gate, Verdicts};

/// What of an empty cluster the rules ask about.
const EMPTY: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}";

fn yaml_blocks(text: &str) -> Vec<&str> {
    text.split("```yaml\n").skip(1).map(|rest| &rest[..rest.find("```").unwrap()]).collect()
}

fn checked(example: &str) -> Verdicts {
    // A page of waivers has a day in it.
    Gate::over(&[EMPTY, example]).at("2026-11-01T12:00:00Z").check()
}

#[test]
fn what_a_page_calls_wrong_is_reported_and_what_it_recommends_is_not() {
    let mut tried = 0;
    for entry in RULES.iter().filter(|entry| entry.has_options()) {
        let page = entry.page();
        let (wrong, rest) =
            page.split_once("Use instead:").unwrap_or_else(|| panic!("{} recommends nothing", entry.meta.code));
        for example in yaml_blocks(wrong) {
            let verdicts = checked(example);
            assert!(
                verdicts.of(entry.meta.code) >= Some(Action::Warn),
                "{} misses its own example:\n{example}",
                entry.meta.code
            );
            tried += 1;
        }
        let right = yaml_blocks(rest);
        assert!(!right.is_empty(), "{} recommends nothing", entry.meta.code);
        for example in right {
            checked(example).silent(entry.meta.code);
            tried += 1;
        }
    }
    assert!(tried >= 8, "only {tried} examples were tried");
}

#[test]
fn codes_and_names_are_unique_and_well_formed() {
    let mut seen = BTreeSet::new();
    for entry in RULES {
        let (letters, digits) = entry.meta.code.split_at(2);
        assert!(letters.bytes().all(|b| b.is_ascii_uppercase()) && digits.len() == 3, "{}", entry.meta.code);
        assert!(digits.bytes().all(|b| b.is_ascii_digit()), "{}", entry.meta.code);
        assert!(entry.meta.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", entry.meta.name);
        assert!(seen.insert(entry.meta.code) && seen.insert(entry.meta.name), "{} is taken", entry.meta.code);
        assert!(
            entry.meta.baseline <= entry.meta.restricted,
            "{} is looser where it should be stricter",
            entry.meta.code
        );
    }
}

#[test]
fn every_page_begins_with_a_sentence_and_says_why() {
    for entry in RULES {
        let page = entry.page();
        assert!(page.starts_with("Reports "), "{}", entry.meta.code);
        assert!(page.contains("## Why is this bad?"), "{}", entry.meta.code);
    }
}
