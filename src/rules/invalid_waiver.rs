//! `invalid-waiver`: a Waiver that waives nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::waiver::{Flaw, Standing};
use super::{Action, Aspect, Finding, Meta, Moment, Profile, Rule, Scope, Severity, Subject, View, Violation, Watched};
use crate::model::{Change, FieldPath, Object, Operation, Str, Waiver};

/// Its name, which no waiver can name.
pub(super) const NAME: &str = "invalid-waiver";

/// Reports a Waiver that waives nothing.
///
/// It has a field there is not, names no rule there is, no owner or no reason, has no end, reaches too far ahead, or has run
/// out.
///
/// ## Why is this bad?
/// A waiver is somebody's word that a finding may stand for a while. Without an owner nobody can be
/// asked, without an end it stands for ever. So a Waiver that lacks either does not hold, and whoever
/// relies on it meets the denial it was to prevent, at the worst moment: it is refused at once
/// instead.
///
/// How far ahead a waiver may reach is set in the configuration, `waivers.maxDays`, by the severity
/// of the gravest rule it names; how often it may be prolonged, by `waivers.renewals`.
///
/// ## Example
/// ```yaml
/// apiVersion: portcullis.dev/v1alpha1
/// kind: Waiver
/// metadata:
///   name: legacy
///   namespace: shop
/// spec:
///   rules: [missing-default-deny]
///   match: {}
///   owner: payments
///   reason: old
///   expires: never
/// ```
/// Use instead:
/// ```yaml
/// apiVersion: portcullis.dev/v1alpha1
/// kind: Waiver
/// metadata:
///   name: legacy
///   namespace: shop
/// spec:
///   rules: [missing-default-deny]
///   match:
///     workloads: [Deployment/cart]
///   owner: payments
///   reason: until the cart has moved to its own namespace, PAY-1432
///   expires: 2026-11-20
/// ```
///
/// ## When it fires
/// When a Waiver is created or changed. One that has run out is left in peace by the gate, where it
/// counts as absent; `check` and the audit name it, so that it is removed.
///
/// ## What it does not see
/// Whether the owner knows of it, and whether the reason is a good one. Who may create Waivers is
/// decided by RBAC.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct InvalidWaiver {}

impl Rule for InvalidWaiver {
    const META: Meta = Meta {
        code: "CL006",
        name: NAME,
        severity: Severity::Medium,
        baseline: Action::Deny,
        restricted: Action::Deny,
        since: "0.1.0",
        watches: &[Watched::Waivers.when_set()],
    };

    fn scope(&self, change: &Change, _before: &View<'_>, _after: &View<'_>) -> Scope {
        match change.subject() {
            Object::Waiver(waiver) if change.operation() != Operation::Delete => {
                Scope::Namespace(waiver.namespace.clone())
            }
            _ => Scope::Nothing,
        }
    }

    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>) {
        if let Scope::Workload(..) = scope {
            return;
        }
        for namespace in scope.namespaces(view.cluster) {
            let Some(state) = view.cluster.namespace(namespace) else { continue };
            for waiver in state.waivers.iter() {
                let mut push = |aspect| {
                    let subject = Subject::Waiver(waiver.name.clone());
                    out.push(Violation { namespace: namespace.clone(), subject, aspect, badness: 1 });
                };
                match view.environment.waivers.standing(waiver, view.now) {
                    Standing::Holds(_) => {}
                    Standing::Expired(_) => push(Aspect::Expired),
                    Standing::Invalid(flaws) => {
                        for Flaw { path, message, .. } in flaws {
                            push(Aspect::Flawed(path.as_str().into(), message.into()));
                        }
                    }
                }
            }
        }
    }

    fn ceiling(&self, violation: &Violation, moment: &Moment<'_>) -> Action {
        match (&violation.aspect, moment.change) {
            // Nothing came of the change at hand: it ran out by itself.
            (Aspect::Expired, Some(_)) if moment.standing => Action::Off,
            (Aspect::Expired, None) => Action::Warn,
            _ => Action::Deny,
        }
    }

    /// What is wrong with it stands in it.
    fn rests_on_absence(&self, _violation: &Violation, _moment: &Moment<'_>) -> bool {
        false
    }

    fn loosened(&self, _before: &Self, _profile: Profile, _then: Profile) -> Vec<(&'static str, bool)> {
        let Self {} = self;
        Vec::new()
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        violations.iter().filter_map(|violation| explain(violation, moment)).collect()
    }
}

fn explain(violation: &Violation, moment: &Moment<'_>) -> Option<Finding> {
    let Subject::Waiver(name) = &violation.subject else { return None };
    let state = moment.view.cluster.namespace(&violation.namespace)?;
    let waiver = state.waivers.get(name)?;
    let object = Object::Waiver(waiver.clone()).reference();
    let spec = FieldPath::new("spec");
    let finding = |path: FieldPath, message: String| {
        Finding::new(Some(violation.namespace.clone()), object.clone(), path, message)
    };
    let names = names(waiver);
    match (&violation.aspect, moment.view.environment.waivers.standing(waiver, moment.view.now)) {
        (Aspect::Flawed(path, message), Standing::Invalid(flaws)) => {
            let flaw = flaws.into_iter().find(|it| it.path.as_str() == path && it.message == *message)?;
            let field = field(&spec, &flaw.path);
            let message = format!("{object}: `{}` {}", field.as_str(), said(&flaw));
            Some(Finding {
                why: format!("a Waiver with this flaw does not hold: {names} would be met as if it were not there"),
                help: flaw.help,
                ..finding(field, message)
            })
        }
        (Aspect::Expired, _) => Some(Finding {
            why: format!("it has run out and counts as absent: {names} are met again as the configuration has it"),
            help: "remove it; or, if its owner so decides, write a later `spec.expires`".to_owned(),
            ..finding(spec.field("expires"), format!("{object} has run out: it held until {}", waiver.terms.expires))
        }),
        _ => None,
    }
}

/// The message of a flaw behind the name of its field.
fn said(flaw: &Flaw) -> String {
    if flaw.message.starts_with('`') { format!("does not hold: {}", flaw.message) } else { flaw.message.clone() }
}

/// `spec` and what is below it.
fn field(spec: &FieldPath, below: &FieldPath) -> FieldPath {
    if below.is_root() {
        return spec.clone();
    }
    FieldPath::new(format!("{}.{}", spec.as_str(), below.as_str()))
}

/// The rules a waiver names, for a sentence.
fn names(waiver: &Waiver) -> String {
    match waiver.terms.rules.as_slice() {
        [] => "findings".to_owned(),
        rules => {
            format!("findings of {}", rules.iter().map(|rule: &Str| format!("`{rule}`")).collect::<Vec<_>>().join(", "))
        }
    }
}
