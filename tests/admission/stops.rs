//! A review that is asked to stop.

use std::thread;

use portcullis::admission::{self, Sight};
use portcullis::model::{Change, Stop};
use portcullis::rules::{Action, ActiveRule, Finding, Meta, Moment, Profile, Rule, Scope, Severity, View, Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gate::{CART, Gate, OPEN, create, gate};

/// A rule that never answers.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
struct Endless {}

impl Rule for Endless {
    const META: Meta = Meta {
        code: "XX002",
        name: "endless",
        severity: Severity::Low,
        baseline: Action::Deny,
        restricted: Action::Deny,
        since: "0.0.0",
        watches: &[],
    };

    fn scope(&self, _change: &Change, _before: &View<'_>, _after: &View<'_>) -> Scope {
        Scope::Cluster
    }

    fn violations(&self, view: &View<'_>, _scope: &Scope, _out: &mut Vec<Violation>) {
        loop {
            view.check_stop();
            thread::yield_now();
        }
    }

    fn loosened(&self, _before: &Self, _profile: Profile, _then: Profile) -> Vec<(&'static str, bool)> {
        Vec::new()
    }

    fn explain(&self, _violations: &[Violation], _moment: &Moment<'_>) -> Vec<Finding> {
        Vec::new()
    }
}

fn answer(gate: &Gate, stop: &Stop) -> admission::Answer {
    let sight = Sight { stop: Some(stop), ..Sight::from(&gate.cluster) };
    admission::review(&gate.rules, sight, &create(CART).body(), jiff::Timestamp::UNIX_EPOCH)
}

#[test]
fn it_ends_within_a_rule_and_no_half_verdict_comes_of_it() {
    let gate = gate(OPEN).with_rule(ActiveRule { rule: Box::new(Endless {}), action: Action::Deny });
    let stop = Stop::default();
    let stopped = thread::scope(|scope| {
        let judging = scope.spawn(|| answer(&gate, &stop));
        stop.request();
        judging.join().unwrap()
    });
    assert_eq!((stopped.status, stopped.body.as_slice()), (503, [].as_slice()));
    assert!(!stopped.record.allowed && stopped.record.findings.is_empty(), "{:?}", stopped.record);
}

#[test]
fn one_that_is_not_asked_to_judges_as_ever() {
    let answer = answer(&gate(OPEN), &Stop::default());
    assert_eq!(answer.record.verdict, Some(Action::Deny));
}

#[test]
fn no_rule_is_asked_any_more_once_it_is_asked_to() {
    let stop = Stop::default();
    stop.request();
    assert_eq!(answer(&gate(OPEN), &stop).status, 503);
}
