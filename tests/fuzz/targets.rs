//! What is fed arbitrary bytes, and what must hold of every answer. `make fuzz` and
//! `tests/robustness.rs` share it.

use std::sync::LazyLock;

use jiff::Timestamp;
use portcullis::admission;
use portcullis::cluster::Cluster;
use portcullis::config;
use portcullis::rules::{Action, CL_RULE_FAILED, RuleSet};
use portcullis::source::Manifests;
use portcullis::yaml::Source;
use serde_json::Value;

/// A place whose bytes come from outside.
#[allow(dead_code, reason = "a fuzz target is built for one of them")]
pub(crate) struct Target {
    /// The name of its corpus and its fuzz target.
    pub(crate) name: &'static str,
    /// Feeds it, and panics if what comes back is wrong.
    pub(crate) feed: fn(&[u8]),
}

/// All of them.
#[allow(dead_code, reason = "a fuzz target is built for one of them")]
pub(crate) const TARGETS: [Target; 3] = [
    Target { name: "validate", feed: validate },
    Target { name: "check", feed: check },
    Target { name: "configuration", feed: configuration },
];

/// A namespace with a default-deny, one without, and a mesh: something for each rule to find.
const STANDING: &str = include_str!("standing.yaml");

static RULES: LazyLock<RuleSet> = LazyLock::new(|| {
    config::read(Source::new("restricted.yaml", "profile: restricted")).expect("it is a configuration").rule_set()
});

static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    let manifests = Manifests::of(Source::new("standing.yaml", STANDING), "default");
    assert!(manifests.faults.is_empty() && manifests.unreadable.is_empty(), "the standing cluster is not read");
    manifests.cluster()
});

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("it is a time")
}

/// The body of a request to `/validate`.
pub(crate) fn validate(body: &[u8]) {
    let answer = admission::review(&RULES, (&*CLUSTER).into(), body, now());
    let json: Value = serde_json::from_slice(&answer.body).expect("every answer is JSON");
    let failed = answer.record.findings.iter().any(|(rule, _)| *rule == CL_RULE_FAILED.name);
    assert!(!failed, "a rule failed");
    match answer.status {
        200 => {
            assert_eq!(json["kind"], "AdmissionReview");
            let response = &json["response"];
            assert_eq!(response["uid"], answer.record.uid.as_str(), "the answer is to the question");
            assert!(!answer.record.uid.is_empty(), "an answer without a uid is dropped");
            assert_eq!(response["allowed"], answer.record.allowed);
            let denied = answer.record.findings.iter().any(|(_, action)| *action == Action::Deny);
            assert_eq!(answer.record.allowed, !denied, "what is denied and what is said agree");
            assert_eq!(response["status"].is_null(), answer.record.allowed, "a denial has a reason");
            for warning in response["warnings"].as_array().into_iter().flatten() {
                let warning = warning.as_str().expect("a warning is text");
                assert!(!warning.contains(['\n', '\r']), "the API server drops a warning of several lines");
            }
        }
        status => assert_eq!(status, 400, "a review that cannot be read is a bad request"),
    }
}

/// A file given to `portcullis check`.
pub(crate) fn check(bytes: &[u8]) {
    let (source, problem) = Source::decode("file.yaml".to_owned(), bytes.to_vec());
    if problem.is_some() {
        return;
    }
    let manifests = Manifests::of(source, "default");
    for finding in RULES.judge_all(&manifests.applied_to_empty(), now()) {
        assert_ne!(finding.rule, &CL_RULE_FAILED, "{}", finding.message);
        assert!(!finding.message.is_empty() && !finding.message.ends_with('\n'));
        if let Some(place) = manifests.place(&finding.object, &finding.path) {
            assert!(!place.to_string().is_empty());
        }
    }
    for fault in &manifests.faults {
        assert!(!fault.problem.message.is_empty());
        if let Some(place) = manifests.place_of(fault) {
            assert!(!place.to_string().is_empty());
        }
    }
    for unreadable in &manifests.unreadable {
        if let Some(place) = manifests.place(&unreadable.object, &unreadable.problem.path) {
            assert!(!place.to_string().is_empty());
        }
    }
}

/// The configuration file.
pub(crate) fn configuration(bytes: &[u8]) {
    let (source, problem) = Source::decode("file.yaml".to_owned(), bytes.to_vec());
    if problem.is_some() {
        return;
    }
    match config::read(source) {
        Ok(settings) => {
            let rules = settings.rule_set();
            assert!(rules.rules.iter().all(|active| active.action > Action::Off));
        }
        Err(error) => assert!(!error.problems.is_empty() && !error.to_string().is_empty()),
    }
}
