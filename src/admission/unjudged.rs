//! Answers to reviews that came to no verdict: too late, without room, or failed on the way.
//!
//! What is refused here could have been allowed, so it meets what every denial does: the mode of its
//! namespace, and those whom no denial may hold up. Only its head is looked at, since to read the
//! object may be what took too long.

use serde_json::{Value, json};

use super::case::is_leaving;
use super::request::{CLEANERS, POD_CONTROLLERS};
use super::{Answer, Head, Record};
use crate::cluster::Cluster;
use crate::k8s::{Kind, MOST_ITEMS};
use crate::model::ObjectRef;
use crate::rules::{Action, RuleSet};

/// Why a review came to no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unjudged {
    /// Judging it failed; `onError` decides.
    Failed,
    /// There was no time left; `onTimeout` decides.
    Late,
    /// There was no room for it in the gate; `onTimeout` decides.
    Crowded,
    /// The object holds more than is read of one, see [`MOST_ITEMS`]; `onTimeout` decides.
    TooLarge,
}

/// The answer to a review that came to no verdict; nothing where its text has no uid.
pub fn unjudged(rules: &RuleSet, cluster: &Cluster, body: &[u8], why: Unjudged) -> Option<Answer> {
    let head = Head::find(body)?;
    let asked = match why {
        Unjudged::Failed => rules.on_error,
        Unjudged::Late | Unjudged::Crowded | Unjudged::TooLarge => rules.on_timeout,
    };
    let mode = rules.mode_in(cluster, &head.namespace).ceiling();
    let action = asked.min(mode).min(ceiling(&head, rules, cluster));
    let message = message(&head, why, action);
    Some(match action {
        Action::Deny => head.denied(why.status(), &message),
        Action::Warn => head.answer(json!({ "allowed": true, "warnings": [message] }), action),
        Action::Audit => head.answer(json!({ "allowed": true, "auditAnnotations": { "unjudged": message } }), action),
        Action::Off => head.answer(json!({ "allowed": true }), action),
    })
}

/// What is capped whatever the configuration says.
fn ceiling(head: &Head<'_>, rules: &RuleSet, cluster: &Cluster) -> Action {
    // What no rule reads is let through when it is judged as well.
    if !head.kind.is_empty() && Kind::of(&head.group, &head.kind).is_none() {
        return Action::Off;
    }
    let is_by = |users: &[&str]| users.contains(&&*head.username);
    if is_by(&CLEANERS) || is_by(&POD_CONTROLLERS) || is_leaving(&head.operation, &head.namespace, cluster) {
        return Action::Audit;
    }
    // The cluster heals with these namespaces, and what works there may not try again.
    if rules.environment.namespaces.is_exempt(&head.namespace) {
        return Action::Warn;
    }
    match (&*head.operation, &*head.kind) {
        // A namespace comes before what protects it.
        ("CREATE", "Namespace") | ("DELETE", "Namespace" | "Waiver") => Action::Warn,
        // Nothing is protected by a workload, and to take one away cleans up.
        ("DELETE", _) if Kind::of(&head.group, &head.kind) == Some(Kind::Workload) => Action::Warn,
        _ => Action::Deny,
    }
}

/// What happened and what to do, in one line.
fn message(head: &Head<'_>, why: Unjudged, action: Action) -> String {
    let object = ObjectRef {
        kind: if head.kind.is_empty() { "the object".into() } else { head.kind.as_ref().into() },
        namespace: (!head.namespace.is_empty() && head.kind != "Namespace").then(|| head.namespace.as_ref().into()),
        name: head.name.as_ref().into(),
    };
    let object = object.to_string();
    let object = object.trim_end();
    let happened = match why {
        Unjudged::Failed => "portcullis failed while it judged this change".to_owned(),
        Unjudged::Late => "portcullis did not finish judging this change in time".to_owned(),
        Unjudged::Crowded => "portcullis has no room to judge this change now".to_owned(),
        Unjudged::TooLarge => format!(
            "it holds more than {MOST_ITEMS} items of lists and mappings, and portcullis judges no object that is larger"
        ),
    };
    let outcome = match action {
        Action::Deny => "the change is refused, and what stood stays",
        Action::Warn | Action::Audit | Action::Off => "the change is allowed, and no rule has judged it",
    };
    let advice = match (why, action) {
        (_, Action::Warn | Action::Audit | Action::Off) => "",
        (Unjudged::Failed, Action::Deny) => ". Report this with the object",
        (Unjudged::Late, Action::Deny) => {
            ". Try again. If it is late again, the object or its namespace is too large, or the gate is overloaded: \
             make the object smaller, or ask the operators of the gate to look at its load"
        }
        (Unjudged::TooLarge, Action::Deny) => ". Split the object",
        (Unjudged::Crowded, Action::Deny) => {
            ". Try again in a moment. If it happens again, send fewer changes of this namespace at a time, make the \
             object smaller, or ask the operators of the gate to look at its load"
        }
    };
    format!("{object}: {happened}; {outcome}{advice}")
}

/// Code and reason of a denial (`metav1.Status`), and after how many seconds a client may try again
/// by itself.
#[derive(Clone, Copy)]
struct Status {
    code: u16,
    reason: &'static str,
    retry: Option<u8>,
}

impl Status {
    const TOO_LARGE: Self = Self { code: 413, reason: "RequestEntityTooLarge", retry: None };
}

impl Unjudged {
    const fn status(self) -> Status {
        match self {
            Self::Failed => Status { code: 500, reason: "InternalError", retry: None },
            // What was late once is late again more often than not: a client that tried by itself
            // would keep the gate busy with it.
            Self::Late => Status { code: 504, reason: "Timeout", retry: None },
            Self::TooLarge => Status::TOO_LARGE,
            Self::Crowded => Status { code: 429, reason: "TooManyRequests", retry: Some(1) },
        }
    }
}

impl Head<'_> {
    /// The answer to a review that is larger than any an API server sends.
    pub(super) fn too_large(self, message: &str) -> Answer {
        self.denied(Status::TOO_LARGE, message)
    }

    fn denied(self, status: Status, message: &str) -> Answer {
        let Status { code, reason, retry } = status;
        let mut status = json!({ "status": "Failure", "code": code, "reason": reason, "message": message });
        if let (Some(seconds), Some(status)) = (retry, status.as_object_mut()) {
            // The API server makes the `Retry-After` of its own answer of it.
            status.insert("details".to_owned(), json!({ "retryAfterSeconds": seconds }));
        }
        self.answer(json!({ "allowed": false, "status": status }), Action::Deny)
    }

    fn answer(self, mut response: Value, verdict: Action) -> Answer {
        if let Some(response) = response.as_object_mut() {
            response.insert("uid".to_owned(), self.uid.as_ref().into());
        }
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response });
        let Self { uid, group: _, kind, name, namespace, operation, username: _ } = self;
        Answer {
            status: 200,
            body: review.to_string().into_bytes(),
            record: Record {
                uid: uid.into_owned(),
                kind: kind.into_owned(),
                namespace: namespace.into_owned(),
                name: name.into_owned(),
                operation: operation.into_owned(),
                allowed: verdict != Action::Deny,
                verdict: Some(verdict),
                ..Record::default()
            },
        }
    }
}
