//! From the bytes of an AdmissionReview to the bytes of its answer: a pure function.
//!
//! What the API server demands of an answer, and what it silently drops, is dealt with here and
//! nowhere else: the uid, the shape of a denial, warnings of one line, keys of audit annotations.
//! How the bytes travel is [`crate::server`]'s.

mod answer;
mod oversize;
mod request;
mod unjudged;

use jiff::Timestamp;

use crate::cluster::Cluster;
use crate::k8s::{self, Kind, Lowered, Problem, TypeName};
use crate::model::{Change, Object, ObjectRef};
use crate::rules::{Action, CL_UNREADABLE_OBJECT, Finding, RuleSet};

pub use answer::Answer;
pub use oversize::too_large;
pub use unjudged::unjudged;

use request::{Request, parse};

/// A review in numbers and names, for the log and metrics.
#[derive(Debug, Default, Clone)]
pub struct Record {
    /// `request.uid`; empty where it could not be read.
    pub uid: String,
    /// `request.kind.kind`.
    pub kind: String,
    /// `request.namespace`.
    pub namespace: String,
    /// The object's name, or its `generateName` with an asterisk.
    pub name: String,
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`.
    pub operation: String,
    /// Whether the request was allowed.
    pub allowed: bool,
    /// Whether it was a dry run.
    pub dry_run: bool,
    /// Whether some rule looked at it: not a kind nobody judges, nor a request that is let through.
    pub judged: bool,
    /// The strongest action among the findings; nothing where there were none.
    pub verdict: Option<Action>,
    /// Rule names and actions of the findings.
    pub findings: Vec<(&'static str, Action)>,
}

/// Judges one AdmissionReview.
pub fn review(rules: &RuleSet, cluster: &Cluster, body: &[u8], now: Timestamp) -> Answer {
    let request = match parse(body) {
        Ok(request) => request,
        Err(error) => return Answer::bad_request(&error),
    };
    match change_of(&request, cluster) {
        Judged::LetThrough => Answer::of(&request, false, &[]),
        Judged::Change(change, problems) => {
            let mut findings = unreadable(rules, &change.reference(), &problems);
            findings.extend(rules.judge(cluster, &change, now));
            Answer::of(&request, true, &findings)
        }
        Judged::Unreadable(reference, problems) => {
            Answer::of(&request, true, &unreadable(rules, &reference, &problems))
        }
    }
}

/// What of a request there is to judge.
enum Judged {
    /// Nothing: it is let through.
    LetThrough,
    /// A change, with what of the new object could not be read.
    Change(Change, Vec<Problem>),
    /// An object of which nothing could be read.
    Unreadable(ObjectRef, Vec<Problem>),
}

fn change_of(request: &Request<'_>, cluster: &Cluster) -> Judged {
    if request.is_subresource() || Kind::of(&request.kind.group, &request.kind.kind).is_none() {
        return Judged::LetThrough;
    }
    // What deletes contents of namespaces and dependents is never held up: denying it would leave
    // them terminating for ever.
    if request.operation == "DELETE" && (request.is_by_cleaner() || is_terminating(request, cluster)) {
        return Judged::LetThrough;
    }
    let lower = |object: Option<&serde_json::value::RawValue>| {
        object.map(|object| {
            let name = TypeName { group: &request.kind.group, kind: &request.kind.kind };
            k8s::lower_json(name, object.get(), &request.namespace)
        })
    };
    let (old, new) = match &*request.operation {
        "CREATE" => (None, lower(request.object)),
        "UPDATE" => (lower(request.old_object), lower(request.object)),
        "DELETE" => (lower(request.old_object), None),
        _ => return Judged::LetThrough,
    };
    // The removal of a finalizer, or the last update of an object on its way out.
    if request.operation == "UPDATE" && request.is_object_terminating() {
        return Judged::LetThrough;
    }
    let Lowered { object: before, problems: old_problems } = old.unwrap_or_default();
    let Lowered { object: after, mut problems } = new.unwrap_or_default();
    problems.retain(|problem| !old_problems.contains(problem));
    match (before, after) {
        // Nothing a rule reads has changed.
        (Some(before), Some(after)) if before == after && problems.is_empty() => Judged::LetThrough,
        (Some(before), Some(after)) => Judged::Change(Change::Update(before, after), problems),
        (None, Some(after)) if is_of_a_known_owner(&after, request, cluster) => Judged::LetThrough,
        (None, Some(after)) => Judged::Change(Change::Create(after), problems),
        (Some(before), None) => Judged::Change(Change::Delete(before), problems),
        (None, None) if problems.is_empty() => Judged::LetThrough,
        (None, None) => Judged::Unreadable(request.reference(), problems),
    }
}

fn is_terminating(request: &Request<'_>, cluster: &Cluster) -> bool {
    cluster.namespace(&request.namespace).is_some_and(|state| state.is_terminating())
}

/// Whether a pod or ReplicaSet only carries out what was judged when its owner was: the owner is
/// known and has the same pods, or the cluster's own controllers create it. An owner reference
/// alone proves nothing, since anybody can write one.
fn is_of_a_known_owner(object: &Object, request: &Request<'_>, cluster: &Cluster) -> bool {
    let Object::Workload(workload) = object else { return false };
    let Some(owner) = &workload.owner else { return false };
    let is_same = cluster.workload(&workload.namespace, owner).is_some_and(|owner| {
        owner.labels.is_subset(&workload.labels)
            && owner.host_network == workload.host_network
            && owner.dns_policy == workload.dns_policy
    });
    is_same || request.is_by_controller()
}

/// What of an object could not be read, as findings: one a problem, unless the rule is off.
pub fn unreadable(rules: &RuleSet, object: &ObjectRef, problems: &[Problem]) -> Vec<Finding> {
    if rules.on_unreadable == Action::Off {
        return Vec::new();
    }
    let finding = |Problem { path, message }: &Problem| Finding {
        rule: &CL_UNREADABLE_OBJECT,
        action: rules.on_unreadable.min(rules.mode.ceiling()),
        why: "what cannot be read cannot be judged: the rest of the object was, and this part counts as unknown".into(),
        help: "correct the field; `kubectl explain` shows what it takes".into(),
        ..Finding::new(
            object.namespace.clone(),
            object.clone(),
            path.clone(),
            format!(
                "{object}: {}{}{message}",
                if path.is_root() { "" } else { path.as_str() },
                if path.is_root() { "" } else { ": " }
            ),
        )
    };
    problems.iter().map(finding).collect()
}
