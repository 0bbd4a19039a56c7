//! A rule that panics.

use portcullis::model::Change;
use portcullis::rules::{Action, ActiveRule, Finding, Meta, Moment, Profile, Rule, Scope, Severity, View, Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gate::{CART, Gate, OPEN, POD, closed, create, gate};

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
struct Broken {}

impl Rule for Broken {
    const META: Meta = Meta {
        code: "XX001",
        name: "broken",
        severity: Severity::Low,
        baseline: Action::Deny,
        restricted: Action::Deny,
        since: "0.0.0",
        watches: &[],
    };

    fn scope(&self, _change: &Change, _before: &View<'_>, _after: &View<'_>) -> Scope {
        Scope::Cluster
    }

    fn violations(&self, _view: &View<'_>, _scope: &Scope, _out: &mut Vec<Violation>) {
        panic!("this rule is broken");
    }

    fn loosened(&self, _before: &Self, _profile: Profile, _then: Profile) -> Vec<(&'static str, bool)> {
        Vec::new()
    }

    fn explain(&self, _violations: &[Violation], _moment: &Moment<'_>) -> Vec<Finding> {
        Vec::new()
    }
}

fn broken(cluster: &str, settings: &str) -> Gate {
    gate(cluster).configured(settings).with_rule(ActiveRule { rule: Box::new(Broken {}), action: Action::Deny })
}

#[test]
fn it_is_a_finding_of_its_own_and_the_configuration_decides() {
    broken(&closed(), "{}").warns(&create(POD));
    broken(&closed(), "onError: deny").denies(&create(POD));
    broken(&closed(), "onError: audit").only_records(&create(POD));
    let response = broken(&closed(), "onError: deny").response(&create(POD));
    assert_eq!(response["status"]["details"]["causes"][0]["reason"], "rule-failed");
}

#[test]
fn the_other_rules_still_answer() {
    let response = broken(OPEN, "{}").response(&create(CART));
    assert_eq!(response["status"]["details"]["causes"][0]["reason"], "missing-default-deny");
    assert!(response["warnings"][0].as_str().unwrap().contains("[CL002 rule-failed]"), "{response:#}");
}

#[test]
fn the_mode_caps_it_like_any_finding() {
    broken(&closed(), "{onError: deny, mode: warn}").warns(&create(POD));
    let labelled = closed().replace("{name: shop}", "{name: shop, labels: {portcullis.dev/mode: audit}}");
    broken(&labelled, "onError: deny").only_records(&create(POD));
}
