//! From the bytes of an AdmissionReview to the bytes of its answer: a pure function.
//!
//! What the API server demands of an answer, and what it silently drops, is dealt with here and
//! nowhere else: the uid, the shape of a denial, warnings of one line, keys of audit annotations.
//! How the bytes travel is [`crate::server`]'s.

mod answer;
mod case;
mod head;
mod oversize;
mod own;
mod owned;
mod probe;
mod registration;
mod request;
mod sight;
mod unjudged;
mod words;

use jiff::Timestamp;

use crate::cluster::{Cluster, Extent, Reading};
use crate::k8s::Problem;
use crate::model::{Change, FieldPath, Object, ObjectRef};
use crate::rules::{Action, CL_UNREADABLE_OBJECT, Finding, RuleSet};

pub use answer::Answer;
pub use head::Head;
pub use oversize::too_large;
pub use own::{CONFIGURATION_KEY, configuration_in};
pub use probe::PROBE;
pub(crate) use registration::NOT_PODS_OF_OPERATORS;
pub use registration::{FailurePolicy, GUARD, OWNED_PODS, Options, Registration, SYSTEM_NAMESPACES, Target};
pub use sight::{Doubt, Sight};
pub(crate) use sight::{plural, reads};
pub use unjudged::{Unjudged, unjudged};

use case::{Case, Collection};
use request::parse;

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
    /// Whether some rule looked at it: not a kind nobody judges, nor a change of what no rule reads.
    pub judged: bool,
    /// The strongest action among the findings; nothing where there were none.
    pub verdict: Option<Action>,
    /// Rule names and actions of the findings.
    pub findings: Vec<(&'static str, Action)>,
    /// The namespaces that hold what a denial found absent, or what the allowed deletion of a policy
    /// leaves in place. Whoever can should read them anew and review again before the answer is sent: a
    /// watch trails what was just written.
    pub to_confirm: Reading,
}

/// Judges one AdmissionReview.
pub fn review(rules: &RuleSet, sight: Sight<'_>, body: &[u8], now: Timestamp) -> Answer {
    let request = match parse(body) {
        Ok(request) => request,
        Err(error) => return Answer::bad_request(&error),
    };
    let is_probe = request.is_probe();
    let (rules, sight) = if is_probe { (probe::rules(), probe::sight()) } else { (rules, sight) };
    let cluster = sight.cluster;
    let reference = request.reference();
    let own = own::findings(rules, cluster, &request, &reference, now);
    let Some(case) = Case::of(&request, &reference, cluster, rules.profile) else {
        return Answer::of(&request, &reference, own.is_some(), &own.unwrap_or_default(), Reading::default());
    };
    let Case { change, problems, old_problems, ceiling, has_known_owner, collection } = case;
    if problems.iter().any(Problem::is_too_large) {
        // What the rules would say of the part that was read could be the opposite of what holds.
        return unjudged(rules, cluster, body, Unjudged::TooLarge)
            .unwrap_or_else(|| Answer::bad_request("the request has no uid"));
    }
    let mut findings = own.unwrap_or_default();
    findings.extend(unreadable(rules, cluster, &reference, &problems));
    // The ratchet: what could not be read before either is no reason to refuse.
    findings.extend(unreadable(rules, cluster, &reference, &old_problems).into_iter().map(|finding| Finding {
        action: finding.action.min(Action::Warn),
        standing: true,
        ..finding
    }));
    if let Some(change) = &change {
        let Ok(judged) = rules.judge_until(cluster, change, now, sight.stop) else { return Answer::stopped() };
        // What its owner brings was said when the owner was judged.
        let judged = judged.into_iter().filter(|finding| !(has_known_owner && finding.standing));
        findings.extend(judged.map(|finding| in_order(change, finding)));
    }
    let collection = collection.map(|Collection { object, owners }| (Change::Delete(object), owners));
    if let Some((deletion, owners)) = &collection {
        let Ok(judged) = rules.judge_until(cluster, deletion, now, sight.stop) else { return Answer::stopped() };
        let brought = judged.into_iter().filter(|finding| !finding.standing);
        findings.extend(brought.map(|finding| collected(&reference, owners, finding)));
    }
    for finding in &mut findings {
        finding.action = finding.action.min(ceiling);
    }
    sight.temper(&mut findings, rules.on_timeout);
    // What a probe finds is not there to be found again.
    let mut namespaces = if is_probe { Vec::new() } else { sight.to_confirm(&findings, &request.namespace) };
    let namespace = request.namespace.as_ref();
    let may_deny = ceiling == Action::Deny && rules.mode_in(cluster, namespace).ceiling() == Action::Deny;
    let changes: Vec<&Change> = change.iter().chain(collection.iter().map(|(deletion, _)| deletion)).collect();
    if !is_probe && may_deny && namespaces.is_empty() && changes.iter().any(|change| is_loss(change)) {
        namespaces.push(namespace.into());
    }
    // What a change of a policy opens may be gone by now, or going, or new.
    let is_policy = |object: &Object| matches!(object, Object::NetworkPolicy(_) | Object::PeerAuthentication(_));
    let is_opening = changes.iter().any(|change| is_policy(change.subject()));
    let extent = if is_opening { Extent::Workloads } else { Extent::Policies };
    let to_confirm = Reading { namespaces, extent };
    Answer::of(&request, &reference, true, &findings, to_confirm)
}

/// What a change hands to the garbage collector, told of the change.
fn collected(object: &ObjectRef, owners: &[String], finding: Finding) -> Finding {
    let owners = owners.join(", ");
    Finding {
        path: FieldPath::new("metadata.ownerReferences"),
        message: format!(
            "the garbage collector deletes {object} once {owners} does not exist, and at once if it never did: {}",
            finding.message
        ),
        help: format!("leave `metadata.ownerReferences` as it is. Otherwise {}", finding.help),
        ..finding
    }
}

/// A finding of a deletion, with the order in which everything can be deleted.
fn in_order(change: &Change, finding: Finding) -> Finding {
    if !is_loss(change) || finding.action != Action::Deny {
        return finding;
    }
    Finding {
        help: format!(
            "to uninstall, delete the workloads first, or the whole namespace, and repeat this deletion: what is being deleted holds nothing up. To keep the workloads, {}",
            finding.help
        ),
        ..finding
    }
}

/// Whether the change takes away what others may rest on. Of several deletions in a row each is stored
/// before the next is asked about, and the watch may not have told of it yet: by what is known, each of
/// them would leave the others in place.
fn is_loss(change: &Change) -> bool {
    matches!(change, Change::Delete(Object::NetworkPolicy(_) | Object::PeerAuthentication(_)))
}

/// What of an object could not be read, as findings: one a problem, unless the rule is off.
pub fn unreadable(rules: &RuleSet, cluster: &Cluster, object: &ObjectRef, problems: &[Problem]) -> Vec<Finding> {
    let asked = rules.action_of(&CL_UNREADABLE_OBJECT);
    if asked == Action::Off {
        return Vec::new();
    }
    let namespace = object.namespace.as_ref().unwrap_or(&object.name);
    let action = asked.min(rules.mode_in(cluster, namespace).ceiling());
    let finding = |Problem { path, message }: &Problem| Finding {
        rule: &CL_UNREADABLE_OBJECT,
        action,
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
