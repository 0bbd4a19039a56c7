//! The answer, in the only shape the API server passes on.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::Record;
use super::request::Request;
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
    /// The answer to a request with these findings, gravest first.
    pub(super) fn of(request: &Request<'_>, judged: bool, findings: &[Finding]) -> Self {
        let denied: Vec<&Finding> = findings.iter().filter(|finding| finding.action == Action::Deny).collect();
        let status = (!denied.is_empty()).then(|| {
            let kind = request.client_kind();
            Status {
                outcome: "Failure",
                message: denial(&denied),
                reason: "Forbidden",
                details: Some(Details {
                    name: request.name().to_string(),
                    group: kind.group.to_string(),
                    kind: kind.kind.to_string(),
                    causes: denied.iter().map(|finding| cause(finding, request)).collect(),
                }),
                code: 403,
            }
        });
        let record = Record {
            uid: request.uid.to_string(),
            kind: request.kind.kind.to_string(),
            namespace: request.namespace.to_string(),
            name: request.name().to_string(),
            operation: request.operation.to_string(),
            allowed: status.is_none(),
            dry_run: request.is_dry_run(),
            judged,
            verdict: findings.iter().map(|finding| finding.action).max(),
            findings: findings.iter().map(|finding| (finding.rule.name, finding.action)).collect(),
        };
        let response = Response {
            uid: &request.uid,
            allowed: status.is_none(),
            status,
            warnings: warnings(findings),
            audit_annotations: annotations(findings),
        };
        Self { status: 200, body: serialize(response), record }
    }

    /// The answer to what is no review.
    pub(super) fn bad_request(error: &str) -> Self {
        let body = serde_json::json!({ "error": error }).to_string().into_bytes();
        Self { status: 400, body, record: Record::default() }
    }
}

fn serialize(response: Response<'_>) -> Vec<u8> {
    let review = Review { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", response };
    serde_json::to_vec(&review).expect("an answer is plain data with string keys")
}

/// Everything that is wrong, at once: the API server shows a user only one denial.
fn denial(findings: &[&Finding]) -> String {
    let mut text = match findings {
        [_] => String::new(),
        many => format!("{} violations\n\n", many.len()),
    };
    for (i, finding) in findings.iter().enumerate() {
        if i > 0 {
            text.push_str("\n\n");
        }
        let _ = write!(text, "[{} {}] {}", finding.rule.code, finding.rule.name, finding.message);
        if !finding.why.is_empty() {
            let _ = write!(text, "\n  why: {}", finding.why);
        }
        for line in &finding.evidence {
            let _ = write!(text, "\n  - {line}");
        }
        if !finding.help.is_empty() {
            let _ = write!(text, "\n  do: {}", finding.help);
        }
        if !finding.fix.is_empty() {
            // At the margin, so that it can be copied as it is: an indented `---` separates nothing.
            let _ = write!(text, "\n\n{}", finding.fix.trim_end());
        }
    }
    text
}

fn cause(finding: &Finding, request: &Request<'_>) -> Cause {
    let is_own = finding.object == request.reference();
    Cause {
        rule: finding.rule.name,
        message: finding.message.clone(),
        field: if is_own { finding.path.to_string() } else { String::new() },
    }
}

/// How many warnings an answer carries; the last says how many are left out.
const MOST_WARNINGS: usize = 20;
/// The runes all warnings of an answer may take: past 4096 the API server cuts each of them to 256.
const MOST_RUNES: usize = 4000;

fn warnings(findings: &[Finding]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let told = findings.iter().filter(|finding| finding.action == Action::Warn);
    for finding in told {
        let message = format!("[{} {}] {}", finding.rule.code, finding.rule.name, finding.message);
        for line in [Some(message), apply_line(finding)].into_iter().flatten() {
            let line = one_line(&line);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    let mut runes = 0;
    let fitting = lines
        .iter()
        .take(MOST_WARNINGS)
        .take_while(|line| {
            runes += line.chars().count();
            runes <= MOST_RUNES
        })
        .count();
    let left_out = lines.len() - fitting;
    if left_out > 0 {
        lines.truncate(fitting.min(MOST_WARNINGS - 1));
        lines.push(format!("and {} more: `portcullis review` shows them all", left_out.max(1)));
    }
    lines
}

/// What to do in one line: a warning has no room for more, and JSON is YAML on one line.
fn apply_line(finding: &Finding) -> Option<String> {
    if finding.standing || finding.fix.is_empty() {
        return None;
    }
    let documents = crate::yaml::parse(&finding.fix);
    let [Ok(document)] = documents.as_slice() else { return None };
    Some(format!("[{}] to mend it: echo '{}' | kubectl apply -f -", finding.rule.code, document.value()))
}

/// A text without line breaks and other control characters, for which the API server would drop it.
fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The longest value of an annotation: audit logs drop whole events that grow too large.
const MOST_ANNOTATION: usize = 512;

/// For the API server's audit log, which puts the webhook's name and a slash before each key: the
/// verdict, and for each rule its action and first message.
fn annotations(findings: &[Finding]) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    let Some(verdict) = findings.iter().map(|finding| finding.action).max() else { return annotations };
    annotations.insert("verdict".to_owned(), verdict.to_string());
    let mut by_rule: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        by_rule.entry(finding.rule.name).or_default().push(finding);
    }
    for (rule, findings) in by_rule {
        let Some(first) = findings.first() else { continue };
        let mut value = one_line(&format!("{}: {}", first.action, first.message));
        if findings.len() > 1 {
            let _ = write!(value, " (and {} more)", findings.len() - 1);
        }
        annotations.insert(rule.to_owned(), value.chars().take(MOST_ANNOTATION).collect());
    }
    annotations
}
