//! The answer, in the only shape the API server passes on.

use std::collections::BTreeMap;

use serde::Serialize;

use super::head::LONGEST;
use super::request::Request;
use super::{Record, words};
use crate::cluster::Reading;
use crate::model::ObjectRef;
use crate::rules::{Action, Finding};

/// What goes back to the API server, and what is recorded about it.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status: 200, or 400 where the request could not be understood.
    pub status: u16,
    /// The JSON body.
    pub body: Vec<u8>,
    /// For the log, metrics and the span of the review.
    pub record: Record,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: BTreeMap<String, String>,
}

/// `metav1.Status`. The API server puts the webhook's name before the message, forces `status` to
/// `Failure`, and turns a missing code into 400.
#[derive(Serialize)]
struct Status {
    #[serde(rename = "status")]
    outcome: &'static str,
    message: String,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    code: u16,
}

#[derive(Serialize)]
struct Details {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    kind: String,
    causes: Vec<Cause>,
}

#[derive(Serialize)]
struct Cause {
    #[serde(rename = "reason")]
    rule: &'static str,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    field: String,
}

impl Answer {
    /// The answer to a request about an object, with these findings.
    pub(super) fn of(
        request: &Request<'_>,
        reviewed: &ObjectRef,
        judged: bool,
        findings: &[Finding],
        to_confirm: Reading,
    ) -> Self {
        let denied: Vec<&Finding> = findings.iter().filter(|finding| finding.action == Action::Deny).collect();
        let status = (!denied.is_empty()).then(|| {
            let kind = request.client_kind();
            Status {
                outcome: "Failure",
                message: words::denial(&denied),
                reason: "Forbidden",
                details: Some(Details {
                    name: reviewed.name.to_string(),
                    group: kind.group.to_string(),
                    kind: kind.kind.to_string(),
                    causes: denied.iter().map(|finding| cause(finding, reviewed)).collect(),
                }),
                code: 403,
            }
        });
        let record = Record {
            uid: request.uid.to_string(),
            kind: request.kind.kind.to_string(),
            namespace: request.namespace.to_string(),
            name: reviewed.name.to_string(),
            operation: request.operation.to_string(),
            allowed: status.is_none(),
            dry_run: request.is_dry_run(),
            judged,
            verdict: findings.iter().map(|finding| finding.action).max(),
            findings: findings.iter().map(|finding| (finding.rule.name, finding.action)).collect(),
            to_confirm,
        };
        let response = Response {
            uid: &request.uid,
            allowed: status.is_none(),
            status,
            warnings: words::warnings(findings),
            audit_annotations: words::annotations(findings),
        };
        Self { status: 200, body: serialize(response), record }
    }

    /// What is left of a review that was asked to stop. It is never sent: who asked for the stop has
    /// answered by then.
    pub(super) fn stopped() -> Self {
        Self { status: 503, body: Vec::new(), record: Record::default() }
    }

    /// The answer to what is no review.
    pub(super) fn bad_request(error: &str) -> Self {
        // It may repeat what was sent, which is as long as its sender likes.
        let error = error.get(..error.floor_char_boundary(LONGEST)).unwrap_or_default();
        let body = serde_json::json!({ "error": error }).to_string().into_bytes();
        Self { status: 400, body, record: Record::default() }
    }
}

fn serialize(response: Response<'_>) -> Vec<u8> {
    let review = Review { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", response };
    serde_json::to_vec(&review).expect("an answer is plain data with string keys")
}

fn cause(finding: &Finding, reviewed: &ObjectRef) -> Cause {
    let is_own = finding.object == *reviewed;
    Cause {
        rule: finding.rule.name,
        message: words::one_line(&finding.message),
        field: if is_own { finding.path.to_string() } else { String::new() },
    }
}
