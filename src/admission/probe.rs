//! A known violation, sent on purpose: whoever sends it wants to see that the gate is asked and that
//! its denials arrive.
//!
//! It is a dry run of an object with an annotation of its own, and must be denied in every mode, so
//! it is judged by the strictest rules there are, and as if there were no cluster: neither the
//! configuration, nor a namespace's label, nor what is not known of the cluster softens the answer.
//! Since a dry run stores nothing, there is nothing to gain or to lose by sending one.

use std::sync::LazyLock;

use jiff::SignedDuration;
use serde_json::Value;

use super::Sight;
use crate::cluster::Cluster;
use crate::rules::{Action, ActiveRule, Environment, NamespaceSettings, Profile, RULES, RuleSet, builtin};

/// The annotation that makes a dry run a probe, whatever its value.
pub const PROBE: &str = "portcullis.dev/probe";

/// All rules as they are without a configuration, at their strictest.
static RULES_OF_PROBES: LazyLock<RuleSet> = LazyLock::new(|| RuleSet {
    rules: RULES
        .iter()
        .filter_map(|entry| {
            let rule = entry.build(Value::Object(serde_json::Map::new()))?.ok()?;
            let action = entry.meta.restricted;
            (action > Action::Off).then_some(ActiveRule { rule, action })
        })
        .collect(),
    environment: Environment { namespaces: NamespaceSettings { exempt: Vec::new() }, ..Environment::default() },
    profile: Profile::Restricted,
    builtin: builtin(|meta| meta.restricted),
    on_error: Action::Deny,
    on_timeout: Action::Deny,
    max_age: SignedDuration::MAX,
});

static NO_CLUSTER: LazyLock<Cluster> = LazyLock::new(Cluster::default);

/// What a probe is judged by.
pub(super) fn rules() -> &'static RuleSet {
    &RULES_OF_PROBES
}

/// What a probe is judged against.
pub(super) fn sight() -> Sight<'static> {
    Sight { cluster: &NO_CLUSTER, doubts: &[], stop: None }
}
