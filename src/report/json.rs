//! The JSON forms. Fields are added, never renamed or given another meaning; `version` counts up if
//! that must change.

use serde::Serialize;
use serde_json::Value;

use super::{Located, LocatedFault, Report};
use crate::rules::{Action, Finding, RULES, Severity};
use crate::yaml::Place;

/// What `portcullis check --output json` prints.
#[derive(Debug, Serialize)]
pub struct JsonReport<'a> {
    version: u32,
    findings: Vec<JsonFinding<'a>>,
    errors: Vec<JsonError<'a>>,
    notes: &'a [String],
    summary: JsonSummary,
}

#[derive(Debug, Serialize)]
pub(super) struct JsonFinding<'a> {
    rule: &'a str,
    code: &'a str,
    action: Action,
    severity: Severity,
    standing: bool,
    waived: Option<JsonWaived<'a>>,
    namespace: Option<&'a str>,
    object: JsonObject<'a>,
    path: &'a str,
    file: Option<&'a str>,
    line: Option<usize>,
    column: Option<usize>,
    message: &'a str,
    why: &'a str,
    evidence: &'a [String],
    help: &'a str,
    fix: &'a str,
}

#[derive(Debug, Serialize)]
struct JsonWaived<'a> {
    by: &'a str,
    owner: &'a str,
    reason: &'a str,
    until: &'a str,
    ends: String,
}

#[derive(Debug, Serialize)]
struct JsonObject<'a> {
    kind: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
}

#[derive(Debug, Serialize)]
struct JsonError<'a> {
    file: &'a str,
    line: Option<usize>,
    column: Option<usize>,
    message: &'a str,
    help: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct JsonSummary {
    denied: usize,
    warnings: usize,
    audited: usize,
    waived: usize,
    errors: usize,
    objects: usize,
    documents: usize,
}

impl<'a> From<&'a Report<'a>> for JsonReport<'a> {
    fn from(report: &'a Report<'a>) -> Self {
        let summary = &report.summary;
        Self {
            version: 1,
            findings: report.findings.iter().map(JsonFinding::from).collect(),
            errors: report.faults.iter().map(JsonError::from).collect(),
            notes: &report.notes,
            summary: JsonSummary {
                denied: summary.denied,
                warnings: summary.warned,
                audited: summary.audited,
                waived: summary.waived,
                errors: summary.errors,
                objects: summary.objects,
                documents: summary.documents,
            },
        }
    }
}

impl<'a> From<&'a Located<'a>> for JsonFinding<'a> {
    fn from(located: &'a Located<'a>) -> Self {
        Self::of(located.finding, located.place.as_ref())
    }
}

impl<'a> JsonFinding<'a> {
    /// A finding, and its place where a file holds it.
    pub(super) fn of(finding: &'a Finding, place: Option<&'a Place<'a>>) -> Self {
        let position = place.map(Place::position);
        Self {
            rule: finding.rule.name,
            code: finding.rule.code,
            action: finding.action,
            severity: finding.rule.severity,
            standing: finding.standing,
            waived: finding.waived.as_ref().map(|waived| JsonWaived {
                by: &waived.by,
                owner: &waived.owner,
                reason: &waived.reason,
                until: &waived.until,
                ends: waived.ends.to_string(),
            }),
            namespace: finding.namespace.as_deref(),
            object: JsonObject {
                kind: &finding.object.kind,
                namespace: finding.object.namespace.as_deref(),
                name: &finding.object.name,
            },
            path: finding.path.as_str(),
            file: place.map(|place| place.source.name.as_str()),
            line: position.map(|position| position.line),
            column: position.map(|position| position.column),
            message: &finding.message,
            why: &finding.why,
            evidence: &finding.evidence,
            help: &finding.help,
            fix: &finding.fix,
        }
    }
}

impl<'a> From<&'a LocatedFault<'a>> for JsonError<'a> {
    fn from(fault: &'a LocatedFault<'a>) -> Self {
        let position = fault.place.as_ref().map(crate::yaml::Place::position);
        Self {
            file: fault.name,
            line: position.map(|position| position.line),
            column: position.map(|position| position.column),
            message: &fault.problem.message,
            help: fault.problem.help.as_deref(),
        }
    }
}

/// What `portcullis rules --output json` prints of one rule.
#[derive(Debug, Serialize)]
pub struct Catalogue {
    code: &'static str,
    name: &'static str,
    severity: Severity,
    baseline: Action,
    restricted: Action,
    since: &'static str,
    page: String,
    options: Value,
}

/// The rules, or the one of this name, for programs.
pub fn catalogue(only: Option<&str>) -> Vec<Catalogue> {
    let chosen = RULES.iter().filter(|entry| only.is_none_or(|name| entry.meta.name == name));
    chosen
        .map(|entry| Catalogue {
            code: entry.meta.code,
            name: entry.meta.name,
            severity: entry.meta.severity,
            baseline: entry.meta.baseline,
            restricted: entry.meta.restricted,
            since: entry.meta.since,
            page: entry.page(),
            options: entry.schema().to_value().get("properties").cloned().unwrap_or_else(|| serde_json::json!({})),
        })
        .collect()
}
