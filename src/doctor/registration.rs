//! Whether the gate is registered, and what of the cluster it does not see.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Check, Facts, Origin};
use crate::admission::{GUARD, OWNED_PODS, SYSTEM_NAMESPACES};
use crate::model::{Labels, Operator, Requirement, Selector, Str};
use crate::rules::RuleSet;
use crate::upkeep::{self, Gaps};

/// One webhook of a configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) failure_policy: Option<String>,
    pub(super) timeout_seconds: Option<u32>,
    pub(super) client_config: ClientConfig,
    namespace_selector: Option<LabelSelector>,
    object_selector: Option<LabelSelector>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ClientConfig {
    pub(super) ca_bundle: Option<String>,
    pub(super) service: Option<Service>,
    pub(super) url: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Service {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) port: Option<u16>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Rule {
    pub(super) operations: Vec<String>,
    pub(super) api_groups: Vec<String>,
    pub(super) resources: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LabelSelector {
    match_labels: BTreeMap<Str, Str>,
    match_expressions: Vec<Expression>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Expression {
    key: Str,
    operator: String,
    values: Vec<Str>,
}

impl LabelSelector {
    fn requirements(&self) -> Vec<Requirement> {
        let exact = self
            .match_labels
            .iter()
            .map(|(key, value)| Requirement { key: key.clone(), operator: Operator::In(vec![value.clone()]) });
        let others = self.match_expressions.iter().map(|Expression { key, operator, values }| Requirement {
            key: key.clone(),
            operator: match operator.as_str() {
                "In" => Operator::In(values.clone()),
                "NotIn" => Operator::NotIn(values.clone()),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => Operator::Unknown(other.into()),
            },
        });
        exact.chain(others).collect()
    }
}

impl Entry {
    /// Whether it is asked about what is in a namespace with these labels; if not, what of its
    /// selector leaves the namespace out.
    pub(super) fn sees(&self, labels: &Labels) -> Result<(), String> {
        let requirements = self.namespace_selector.iter().flat_map(LabelSelector::requirements);
        match requirements.into_iter().find(|requirement| !requirement.matches(labels)) {
            None => Ok(()),
            Some(unmet) => Err(Selector::new([unmet]).to_string()),
        }
    }

    /// Whether it is about what the gate judges, and not only about what the cluster heals with.
    fn is_main(&self) -> bool {
        self.name != GUARD && self.name != OWNED_PODS
    }

    /// Whether requests that it does not answer are refused: the API's default.
    pub(super) fn fails_closed(&self) -> bool {
        self.failure_policy.as_deref() != Some("Ignore")
    }

    /// Whether it is asked about an object with these labels.
    pub(super) fn selects(&self, labels: &Labels) -> bool {
        let requirements = self.object_selector.iter().flat_map(LabelSelector::requirements);
        requirements.into_iter().all(|requirement| requirement.matches(labels))
    }

    fn selects_objects(&self) -> bool {
        self.object_selector.as_ref().is_some_and(|selector| !selector.requirements().is_empty())
    }
}

/// The webhooks of a configuration.
pub(super) fn entries(configuration: &Value) -> Vec<Entry> {
    let webhooks = configuration.get("webhooks").cloned().unwrap_or_default();
    serde_json::from_value::<Option<Vec<Entry>>>(webhooks).ok().flatten().unwrap_or_default()
}

/// Kind and name of a configuration.
pub(super) fn identity(configuration: &Value) -> (&str, &str) {
    let text = |path: &str| configuration.pointer(path).and_then(Value::as_str).unwrap_or_default();
    (text("/kind"), text("/metadata/name"))
}

/// The gate's own configuration.
pub(super) fn own(facts: &Facts) -> Option<&Value> {
    facts
        .webhooks
        .iter()
        .flatten()
        .find(|it| identity(it) == ("ValidatingWebhookConfiguration", facts.webhook.as_str()))
}

/// The registration itself, and the namespaces it leaves out.
pub(super) fn registered(facts: &Facts) -> Vec<Check> {
    const NAME: &str = "registration";
    if let Err(why) = &facts.webhooks {
        return vec![
            Check::attention(NAME, format!("webhook configurations could not be read: {why}"))
                .means("neither the gate's own registration nor those of others could be looked at")
                .advice("grant `get` and `list` of ValidatingWebhookConfigurations and MutatingWebhookConfigurations"),
        ];
    }
    let Some(configuration) = own(facts) else {
        return vec![
            Check::bad(NAME, format!("there is no ValidatingWebhookConfiguration `{}`", facts.webhook))
                .means("the API server asks nobody: every change passes unjudged")
                .advice(
                    "install the chart, or apply what `portcullis webhook` prints; `--webhook` names another registration",
                ),
        ];
    };
    let all = entries(configuration);
    let gate: Vec<_> = all.iter().filter(|entry| entry.is_main()).collect();
    let policy = |entry: &Entry| entry.failure_policy.clone().unwrap_or_else(|| "Fail".to_owned());
    let told = all.iter().map(|entry| format!("`{}`: failurePolicy {}", entry.name, policy(entry)));
    let check = if gate.is_empty() || gate.iter().all(|entry| entry.rules.is_empty()) {
        Check::bad(NAME, format!("ValidatingWebhookConfiguration `{}` asks about nothing", facts.webhook))
            .means("every change passes unjudged")
            .advice("apply what the chart or `portcullis webhook` makes")
    } else if gate.iter().all(|entry| entry.fails_closed()) {
        Check::good(NAME, format!("ValidatingWebhookConfiguration `{}` fails closed", facts.webhook))
    } else {
        Check::attention(NAME, format!("ValidatingWebhookConfiguration `{}` fails open", facts.webhook))
            .means("while the gate does not answer, changes pass unjudged, and nobody is told")
            .advice("set the failure policy to `Fail` once the gate has proved itself")
    };
    vec![check.facts(told), unseen(facts, &all)]
}

/// Whether the registration asks about all that the rules judge; nothing where there is none.
pub(super) fn covers(facts: &Facts, rules: &RuleSet) -> Option<Check> {
    const NAME: &str = "coverage";
    let Gaps { unasked, left_out } = upkeep::gaps(own(facts)?, rules, &facts.namespace);
    let told = left_out.iter().map(|what| format!("leaves out {what}"));
    let told = unasked.iter().map(|what| format!("does not ask about {what}")).chain(told);
    if unasked.is_empty() && left_out.is_empty() {
        return Some(Check::good(NAME, "the registration asks about all that the rules judge"));
    }
    // Held against defaults it is no more than a hint.
    let is_known = matches!(facts.configuration, Origin::File(_) | Origin::ConfigMap(_));
    let told = (!is_known)
        .then(|| "the gate's configuration is not known: this is by the defaults".to_owned())
        .into_iter()
        .chain(told);
    let check = if unasked.is_empty() || !is_known {
        Check::attention(NAME, "the registration leaves out what the configuration does not exempt")
    } else {
        Check::bad(NAME, "the registration does not ask about all that the rules judge")
    };
    Some(
        check
            .facts(told)
            .means("what it leaves out passes unjudged; it was narrowed on purpose, changed by hand, or is of another version")
            .advice("`helm upgrade` with the values you have, or `portcullis webhook`, makes one that fits the configuration"),
    )
}

/// The namespaces of which the gate is sent nothing.
fn unseen(facts: &Facts, all: &[Entry]) -> Check {
    const NAME: &str = "namespaces";
    let mut meant = Vec::new();
    let mut unseen = Vec::new();
    let mut seen = 0;
    for state in facts.cluster.namespaces().filter(|state| state.object.is_some()) {
        let asked: Vec<_> = all.iter().map(|entry| (entry, entry.sees(&state.labels))).collect();
        let by_gate = asked.iter().any(|(entry, sees)| sees.is_ok() && entry.is_main());
        let by_guard = asked.iter().any(|(entry, sees)| sees.is_ok() && entry.name == GUARD);
        let is_system = SYSTEM_NAMESPACES.contains(&state.name.as_str()) || state.name == facts.namespace;
        let why = asked.iter().find_map(|(_, sees)| sees.as_ref().err()).cloned().unwrap_or_default();
        match (by_gate, is_system) {
            (true, _) => seen += 1,
            (false, true) if by_guard => {
                meant.push(format!(
                    "`{}` is guarded, so that the cluster can heal, and not judged otherwise",
                    state.name
                ));
            }
            (false, true) => meant.push(format!("`{}` is left out, so that the cluster can heal", state.name)),
            (false, false) => unseen.push(format!("`{}` is left out: its labels do not meet `{why}`", state.name)),
        }
    }
    let narrowed = all.iter().filter(|entry| entry.selects_objects());
    let narrowed: Vec<_> = narrowed
        .map(|entry| format!("`{}` is asked only about objects with certain labels (`objectSelector`)", entry.name))
        .collect();
    let total = seen + unseen.len();
    let check = if total == 0 {
        Check::attention(NAME, "no namespace is known that the gate could see").advice("grant `list` of namespaces")
    } else if seen == 0 {
        Check::bad(NAME, "the gate sees no namespace at all")
            .means("its `namespaceSelector` matches nothing that is there: every change passes unjudged")
            .advice("correct the `namespaceSelector` of the registration")
    } else if unseen.is_empty() && narrowed.is_empty() {
        Check::good(NAME, format!("the gate sees every namespace it is meant to: {seen}"))
    } else {
        Check::attention(NAME, format!("the gate sees {seen} of {total} namespaces"))
            .means("in the others nothing is judged, whatever the configuration says")
            .advice(
                "see that each of them is left out on purpose, and by a label that only the platform's team can set",
            )
    };
    check.facts(unseen.into_iter().chain(narrowed).chain(meant))
}
