//! What a registration does not cover of what the rules in force judge.

use kube::core::DynamicObject;
use serde_json::Value;

use super::registration::Registered;
use crate::admission::{self, Registration, Target};
use crate::rules::RuleSet;

/// What passes a gate by, though its rules are about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Gaps {
    /// What is not asked about: `UPDATE pods`.
    pub(crate) unasked: Vec<String>,
    /// What selectors and conditions leave out: ``namespace `shop` ``.
    pub(crate) left_out: Vec<String>,
}

/// The gaps of a ValidatingWebhookConfiguration, of a gate in this namespace. That it has no guard is no
/// gap: whether it should have one is not known.
pub(crate) fn gaps(configuration: &Value, rules: &RuleSet, namespace: &str) -> Gaps {
    match serde_json::from_value::<DynamicObject>(configuration.clone()) {
        Ok(object) => of(&Registered::of(&object, None), rules, namespace, false),
        Err(_) => Gaps::default(),
    }
}

pub(super) fn of(here: &Registered, rules: &RuleSet, namespace: &str, has_guard: bool) -> Gaps {
    let options = admission::Options {
        name: "portcullis".to_owned(),
        // Where it leads to is not compared.
        target: Target::Url(String::new()),
        ca: None,
        own_namespace: Some(namespace.to_owned()),
        timeout: 5,
        failure_policy: admission::FailurePolicy::Ignore,
        guard: has_guard || here.has_guard(),
    };
    let ideal = Registration::of(rules, &options);
    let Some(ideal) = ideal.and_then(|it| serde_json::from_value::<DynamicObject>(it.object).ok()) else {
        return Gaps::default();
    };
    let ideal = Registered::of(&ideal, None);
    let conditions = Registration::conditions(rules).into_iter();
    let conditions: Vec<_> = conditions.filter_map(|it| serde_json::from_value(it).ok()).collect();
    Gaps { unasked: here.lacks(&ideal), left_out: here.leaves_out(&ideal, &conditions) }
}
