//! A report's content: what `openreports.io/v1alpha1` and `wgpolicyk8s.io/v1alpha2` have in common.
//!
//! A report lists every rule that is on: its findings, or that it passed. So that a report stays an
//! object etcd likes, the gravest findings are listed and the rest is counted.

use serde_json::{Map, Value, json};

use super::gravity;
use crate::model::ObjectRef;
use crate::rules::{Action, Finding, Meta};

/// The most findings of one report.
const MOST_RESULTS: usize = 250;
/// The most characters of one message.
const MOST_MESSAGE: usize = 1024;
/// What reports say they come from.
pub(super) const SOURCE: &str = "portcullis";
/// The policy of the result that counts what is not listed.
pub(super) const LEFT_OUT: &str = "portcullis";

/// What a report says of a namespace, or of the cluster itself; without timestamps, so that what has
/// not changed compares equal. `judged` are the rules that pass where there is no finding of them.
pub(super) fn of(judged: &[&Meta], mut findings: Vec<&Finding>, namespace: Option<&str>) -> Map<String, Value> {
    findings.sort_by_key(|finding| std::cmp::Reverse(gravity(finding)));
    let mut results: Vec<Value> = findings.iter().take(MOST_RESULTS).map(|finding| result(finding)).collect();
    let is_passed = |meta: &&Meta| !findings.iter().any(|it| it.rule.code == meta.code);
    let passed: Vec<&Meta> = judged.iter().copied().filter(is_passed).collect();
    let count = |wanted: &str| findings.iter().filter(|finding| verdict(finding) == wanted).count();
    let summary = json!({
        "pass": passed.len(),
        "fail": count("fail"),
        "warn": count("warn"),
        "error": count("error"),
        "skip": count("skip"),
    });
    results.extend(passed.into_iter().map(pass));
    if let Some(left_out) = findings.len().checked_sub(MOST_RESULTS).filter(|left_out| *left_out > 0) {
        results.push(json!({
            "source": SOURCE,
            "policy": LEFT_OUT,
            "result": "warn",
            "severity": "info",
            "message": format!("and {left_out} more: `portcullis audit {}` lists them all", namespace.unwrap_or_default()),
        }));
    }
    let mut content = Map::new();
    if let Some(namespace) = namespace {
        content.insert("scope".to_owned(), json!({ "apiVersion": "v1", "kind": "Namespace", "name": namespace }));
    }
    content.insert("summary".to_owned(), summary);
    content.insert("results".to_owned(), results.into());
    content
}

/// A finding in the words of reports.
pub(super) fn verdict(finding: &Finding) -> &'static str {
    match finding.action {
        _ if finding.waived.is_some() => "skip",
        _ if finding.rule.name == crate::rules::CL_RULE_FAILED.name => "error",
        Action::Deny => "fail",
        Action::Warn | Action::Audit | Action::Off => "warn",
    }
}

/// The verdict of a result that was written, other than that a rule passes.
pub(super) fn verdict_of(result: &Value) -> Option<&'static str> {
    let written = result.get("result")?.as_str()?;
    ["skip", "error", "fail", "warn"].into_iter().find(|verdict| *verdict == written)
}

fn result(finding: &Finding) -> Value {
    let mut properties = Map::new();
    if !finding.path.is_root() {
        properties.insert("field".to_owned(), finding.path.as_str().into());
    }
    properties.insert("action".to_owned(), finding.action.as_str().into());
    properties.insert("help".to_owned(), cut(&finding.help).into());
    if let Some(waived) = &finding.waived {
        properties.insert("waived".to_owned(), cut(&waived.to_string()).into());
    }
    json!({
        "source": SOURCE,
        "policy": finding.rule.name,
        "rule": finding.rule.code,
        "category": category(finding.rule),
        "severity": finding.rule.severity.as_str(),
        "result": verdict(finding),
        "scored": true,
        "message": cut(&finding.message),
        "resources": [object(&finding.object)],
        "properties": properties,
    })
}

fn pass(rule: &Meta) -> Value {
    json!({
        "source": SOURCE,
        "policy": rule.name,
        "rule": rule.code,
        "category": category(rule),
        "severity": rule.severity.as_str(),
        "result": "pass",
        "scored": true,
        "message": "nothing to object to",
    })
}

/// By the kind of rule: the letters of its code.
fn category(rule: &Meta) -> &'static str {
    match rule.code.get(..2) {
        Some("NP") => "Network policy",
        Some("MT") => "Mutual TLS",
        _ => "Guardrail",
    }
}

/// The object as reports refer to it.
pub(super) fn object(object: &ObjectRef) -> Value {
    let mut reference = json!({ "apiVersion": api_version(&object.kind), "kind": object.kind, "name": object.name });
    if let (Some(namespace), Some(fields)) = (&object.namespace, reference.as_object_mut()) {
        fields.insert("namespace".to_owned(), namespace.as_str().into());
    }
    reference
}

/// Where a kind lives that findings are about.
fn api_version(kind: &str) -> &'static str {
    match kind {
        "NetworkPolicy" => "networking.k8s.io/v1",
        "PeerAuthentication" => "security.istio.io/v1",
        "Waiver" => "portcullis.dev/v1alpha1",
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" => "apps/v1",
        "Job" | "CronJob" => "batch/v1",
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => "admissionregistration.k8s.io/v1",
        _ => "v1",
    }
}

/// The beginning of a text, with a mark where it is cut.
pub(super) fn cut(text: &str) -> String {
    if text.chars().count() <= MOST_MESSAGE {
        return text.to_owned();
    }
    text.chars().take(MOST_MESSAGE - 1).chain(['…']).collect()
}
