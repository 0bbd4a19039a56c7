//! The gate's own configuration, judged where it is written: a ConfigMap of its own namespace.
//!
//! What a configuration may say is [`config::decode`]'s to decide; it is asked here as it is when the
//! gate starts, so that what passes is what will be taken. What it lets pass is held against what the
//! ConfigMap held before, or else against what is in force.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::Request;
use crate::cluster::Cluster;
use crate::config::{self, Error, Settings};
use crate::model::{FieldPath, ObjectRef};
use crate::rules::{Action, CL_INVALID_CONFIGURATION, CL_WEAKENED_CONFIGURATION, Finding, Meta, RuleSet};
use crate::yaml::{Place, Problem};

/// The key under which the gate reads its configuration.
pub const CONFIGURATION_KEY: &str = "portcullis.yaml";

/// How many settings one line names.
const MOST_NAMED: usize = 3;

/// What is to be said of a change of the gate's configuration; nothing where the request is about none.
pub(super) fn findings(
    rules: &RuleSet,
    cluster: &Cluster,
    request: &Request<'_>,
    object: &ObjectRef,
    now: Timestamp,
) -> Option<Vec<Finding>> {
    let is_own = request.kind.kind == "ConfigMap"
        && request.kind.group.is_empty()
        && rules.environment.is_own(&request.namespace);
    if !is_own {
        return None;
    }
    let mut findings = match (configuration(request.old_object), configuration(request.object)) {
        (None, None) => return None,
        (Some(old), None) => vec![removed(object, &old)],
        (old, Some(new)) => {
            let mut findings = written(rules, object, old.as_ref(), &new, now);
            findings.extend(old.filter(|_| !request.new_owners().is_empty()).map(|old| removed(object, &old)));
            findings
        }
    };
    let mode = rules.environment.mode_in(cluster, &request.namespace).ceiling();
    for finding in &mut findings {
        // The namespace goes, and all that is in it.
        let ceiling = if request.is_by_cleaner() { Action::Audit } else { mode };
        finding.action = finding.action.min(rules.action_of(finding.rule)).min(ceiling);
    }
    findings.retain(|finding| finding.action > Action::Off);
    Some(findings)
}

/// A configuration in a ConfigMap.
struct Written {
    /// The field of the ConfigMap it is in.
    field: FieldPath,
    settings: Result<Settings, Error>,
}

fn configuration(object: Option<&RawValue>) -> Option<Written> {
    let (field, bytes) = configuration_in(object?.get())?;
    Some(Written { field, settings: config::decode(CONFIGURATION_KEY, bytes) })
}

/// The configuration in a ConfigMap that is written as JSON, and the field it is in; nothing where it
/// holds none. A file in the gate's pod comes of either field.
pub fn configuration_in(config_map: &str) -> Option<(FieldPath, Vec<u8>)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ConfigMap {
        data: Option<BTreeMap<String, String>>,
        binary_data: Option<BTreeMap<String, String>>,
    }
    let ConfigMap { data, binary_data } = serde_json::from_str(config_map).ok()?;
    let field = |name: &str| FieldPath::new(name).field(CONFIGURATION_KEY);
    match data.and_then(|mut data| data.remove(CONFIGURATION_KEY)) {
        Some(text) => Some((field("data"), text.into_bytes())),
        // What is no Base64 the API server does not store.
        None => Some((field("binaryData"), STANDARD.decode(binary_data?.remove(CONFIGURATION_KEY)?).ok()?)),
    }
}

/// What is said of a configuration, with the most it deserves.
fn written(rules: &RuleSet, object: &ObjectRef, old: Option<&Written>, new: &Written, now: Timestamp) -> Vec<Finding> {
    let finding = |rule, action, message: &str| finding(rule, action, object, &new.field, message);
    let stood = old.is_some_and(|old| old.settings.is_err());
    let settings = match &new.settings {
        Ok(settings) => settings,
        Err(Error { source, problems }) => {
            // One that was refused before is mended in steps, as every object is.
            let action = if stood { Action::Warn } else { Action::Deny };
            let refused = |problem: &Problem| {
                let place = Place { source, span: problem.span.clone() };
                Finding {
                    standing: stood,
                    why: "a gate that runs keeps its last good configuration, so that this would have no effect; one that starts with it does not start".to_owned(),
                    help: problem.help.clone().unwrap_or_else(|| {
                        "correct it; `portcullis config default` prints every setting, and `portcullis config check FILE` tries one".to_owned()
                    }),
                    ..finding(&CL_INVALID_CONFIGURATION, action, &format!("{place}: {}", problem.message))
                }
            };
            return problems.iter().map(refused).collect();
        }
    };
    let after = settings.rule_set();
    let before = old.and_then(|old| old.settings.as_ref().ok()).map(Settings::rule_set);
    let before = before.as_ref().unwrap_or(rules);
    let void = after.environment.waivers.without_effect(now).map(|(entry, flaw)| Finding {
        why: "the gate takes the configuration and meets the findings as if this waiver were not in it".to_owned(),
        help: flaw.help,
        ..finding(
            &CL_INVALID_CONFIGURATION,
            Action::Warn,
            &format!("{CONFIGURATION_KEY}: {entry} has no effect: `{}` {}", flaw.path.as_str(), flaw.message),
        )
    });
    let mut findings: Vec<_> = void.collect();
    let weakened: Vec<_> = config::weakened(&after, before).iter().map(ToString::to_string).collect();
    if !weakened.is_empty() {
        let message = format!("by this configuration the gate lets more pass: {}", some(&weakened));
        findings.push(Finding {
            why: "the gate takes it within seconds, for every namespace it is about, and from then on only its log has said so".to_owned(),
            evidence: if weakened.len() > MOST_NAMED { weakened } else { Vec::new() },
            help: "keep these settings. Where one namespace has to stay behind, its label `portcullis.dev/mode` lowers the mode there alone, and a Waiver names who answers for a finding and until when; in an emergency, deleting the gate's ValidatingWebhookConfiguration takes it out of the way".to_owned(),
            ..finding(&CL_WEAKENED_CONFIGURATION, Action::Deny, &message)
        });
    }
    let redescribed: Vec<_> =
        config::redescribed(&after, before).iter().map(|section| format!("`{section}`")).collect();
    if !redescribed.is_empty() {
        let message =
            format!("this configuration takes the cluster for something else: {} changes", redescribed.join(", "));
        findings.push(Finding {
            why: "what the gate believes of the cluster decides what it finds: a wrong DNS Service or mesh root leaves real findings out".to_owned(),
            help: "see that it is so; `portcullis audit` with this configuration shows what is found by it".to_owned(),
            // Whether it is less than before cannot be told.
            ..finding(&CL_WEAKENED_CONFIGURATION, Action::Warn, &message)
        });
    }
    findings
}

/// What is said of a ConfigMap that holds the configuration no more.
fn removed(object: &ObjectRef, old: &Written) -> Finding {
    Finding {
        why: "a gate that runs keeps what it has until it ends; one that starts without its file does not start, and one that is told of no file judges by the defaults".to_owned(),
        help: "leave the key in it, or take the gate and its registration away first: `helm uninstall` does so in this order".to_owned(),
        ..finding(
            &CL_WEAKENED_CONFIGURATION,
            Action::Deny,
            object,
            &old.field,
            &format!("the gate's configuration goes: `{CONFIGURATION_KEY}` is no longer in it"),
        )
    }
}

fn finding(rule: &'static Meta, action: Action, object: &ObjectRef, field: &FieldPath, message: &str) -> Finding {
    Finding {
        rule,
        action,
        ..Finding::new(object.namespace.clone(), object.clone(), field.clone(), format!("{object}: {message}"))
    }
}

/// The first of them, and how many more there are.
fn some(weakened: &[String]) -> String {
    match weakened.get(..MOST_NAMED) {
        Some(first) if weakened.len() > MOST_NAMED => {
            format!("{}; and {} more", first.join("; "), weakened.len() - MOST_NAMED)
        }
        _ => weakened.join("; "),
    }
}
