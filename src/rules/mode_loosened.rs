//! `mode-loosened`: a namespace that is judged by less than the cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::yaml::scalar;
use super::{Action, Aspect, Finding, Meta, Mode, Moment, Profile, Rule, Scope, Severity, Subject, View, Violation};
use super::{Watched, yaml};
use crate::model::{Change, FieldPath, Object, ObjectRef, Operation, Str};

/// Reports a namespace whose mode is lowered, or stands below the cluster's.
///
/// The mode of a namespace is its label `portcullis.dev/mode`, and the cluster's where it has none or
/// one that is no mode. What counts is the mode in force: a label that is set, changed, removed or
/// misspelt, and a namespace that is created with a laxer one.
///
/// ## Why is this bad?
/// The mode decides whether anything is denied. Whoever may label a namespace can take it out of
/// enforcement with one command, do there what would have been refused, and put the label back. The
/// change is legitimate where a namespace has to be repaired in a hurry, and so it is said and
/// recorded; it should not go unseen.
///
/// The gate's own namespace is another matter: there the mode protects the gate itself, and to lower
/// it is refused in either profile.
///
/// The finding is met with the mode that held before, or the cluster's where that is stricter, and
/// not with the laxer one that the label asks for. A Waiver lets one namespace stay behind for a
/// while, with an owner and an end.
///
/// ## Example
/// ```yaml
/// apiVersion: v1
/// kind: Namespace
/// metadata:
///   name: shop
///   labels:
///     portcullis.dev/mode: audit
/// ```
/// Use instead:
/// ```yaml
/// apiVersion: v1
/// kind: Namespace
/// metadata:
///   name: shop
///   labels:
///     portcullis.dev/mode: enforce
/// ```
///
/// ## What it does not see
/// A namespace that is deleted and created anew starts with the cluster's mode. The configuration's
/// own `mode` is not a namespace's: `weakened-configuration` is about that.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ModeLoosened {
    /// What is asked for in namespaces other than the gate's own. Left out: `warn` in the profile
    /// `baseline`, `deny` in `restricted`.
    pub other_namespaces: Option<Action>,
}

impl Rule for ModeLoosened {
    const META: Meta = Meta {
        code: "CL007",
        name: "mode-loosened",
        severity: Severity::High,
        baseline: Action::Deny,
        restricted: Action::Deny,
        since: "0.1.0",
        watches: &[Watched::Namespaces.when_set()],
    };

    fn scope(&self, change: &Change, _before: &View<'_>, _after: &View<'_>) -> Scope {
        match change.subject() {
            Object::Namespace(namespace) if change.operation() != Operation::Delete => {
                Scope::Namespace(namespace.name.clone())
            }
            _ => Scope::Nothing,
        }
    }

    /// Every namespace that is not judged by the strictest mode: which of them stand below the
    /// cluster's, or fell, is told from the moment.
    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>) {
        for namespace in scope.namespaces(view.cluster) {
            let Some(state) = view.cluster.namespace(namespace) else { continue };
            let badness = laxness(view.environment.mode_in(view.cluster, namespace));
            if badness > 0 && !state.is_terminating() {
                let (subject, aspect) = (Subject::Namespace, Aspect::Lenient);
                out.push(Violation { namespace: namespace.clone(), subject, aspect, badness });
            }
        }
    }

    fn ceiling(&self, violation: &Violation, moment: &Moment<'_>) -> Action {
        let environment = moment.view.environment;
        if environment.mode_in(moment.view.cluster, &violation.namespace) >= was(&violation.namespace, moment) {
            return Action::Off;
        }
        if moment.change.is_none() {
            return Action::Warn;
        }
        if environment.is_own(&violation.namespace) {
            return Action::Deny;
        }
        self.in_other_namespaces(moment.profile)
    }

    fn mode(&self, violation: &Violation, moment: &Moment<'_>) -> Option<Mode> {
        Some(was(&violation.namespace, moment).max(moment.view.environment.mode))
    }

    /// The label is in the change itself.
    fn rests_on_absence(&self, _violation: &Violation, _moment: &Moment<'_>) -> bool {
        false
    }

    fn loosened(&self, before: &Self, profile: Profile, then: Profile) -> Vec<(&'static str, bool)> {
        let Self { other_namespaces: _ } = self;
        vec![("otherNamespaces", self.in_other_namespaces(profile) < before.in_other_namespaces(then))]
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        violations.iter().map(|violation| explain(&violation.namespace, moment)).collect()
    }
}

impl ModeLoosened {
    /// What is asked for in namespaces other than the gate's own.
    fn in_other_namespaces(&self, profile: Profile) -> Action {
        self.other_namespaces.unwrap_or(profile.of(Action::Warn, Action::Deny))
    }
}

/// How far a mode is from the strictest.
fn laxness(mode: Mode) -> u8 {
    match mode {
        Mode::Enforce => 0,
        Mode::Warn => 1,
        Mode::Audit => 2,
    }
}

/// The mode to hold a namespace against: its own before the change, and the cluster's where there
/// was no namespace or is no change.
fn was(namespace: &str, moment: &Moment<'_>) -> Mode {
    match moment.change {
        Some((Change::Update(..), before)) => before.environment.mode_in(before.cluster, namespace),
        Some((Change::Create(_) | Change::Delete(_), _)) | None => moment.view.environment.mode,
    }
}

fn explain(namespace: &Str, moment: &Moment<'_>) -> Finding {
    let environment = moment.view.environment;
    let label = |view: &View<'_>| view.cluster.namespace(namespace)?.labels.get(Mode::LABEL).cloned();
    let (now, was) = (environment.mode_in(moment.view.cluster, namespace), was(namespace, moment));
    let written = label(moment.view);
    let object = ObjectRef { kind: "Namespace".into(), namespace: None, name: namespace.clone() };
    let path = FieldPath::new("metadata.labels").field(Mode::LABEL);
    let cause = match &written {
        None => format!("it loses its label `{}`, and the cluster's mode is `{}`", Mode::LABEL, now.as_str()),
        Some(mode) if mode.parse::<Mode>().is_err() => format!(
            "`{mode}` is no mode (these are: `audit`, `warn`, `enforce`), so the cluster's holds: `{}`",
            now.as_str()
        ),
        Some(_) => format!("its label says `{}`", now.as_str()),
    };
    let message = if moment.change.is_some() && !moment.standing {
        let whose = if environment.is_own(namespace) { ", where the gate itself runs," } else { "" };
        format!("namespace `{namespace}`{whose} falls from mode `{}` to `{}`: {cause}", was.as_str(), now.as_str())
    } else {
        format!("namespace `{namespace}` is judged in mode `{}`, the cluster in `{}`", now.as_str(), was.as_str())
    };
    let consequence = match now {
        Mode::Audit => "nothing is denied there any more, and nobody is told of what is found",
        Mode::Warn | Mode::Enforce => "nothing is denied there any more",
    };
    let help = format!(
        "keep the label at `{}`; where the namespace has to stay behind for a while, a Waiver of `mode-loosened` in it names who answers for that and until when",
        was.as_str()
    );
    Finding {
        why: format!("{consequence}: whoever may label a namespace takes it out of enforcement this way"),
        help,
        fix: yaml::documents(&[format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {}\n  labels:\n    {}: {}\n",
            scalar(namespace),
            Mode::LABEL,
            was.as_str()
        )]),
        ..Finding::new(Some(namespace.clone()), object, path, message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn shop(mode: &str) -> String {
        let label = if mode.is_empty() { String::new() } else { format!("portcullis.dev/mode: {mode}") };
        namespace("shop", &label)
    }

    fn changes(from: &str, to: &str, cluster: Mode) -> Vec<String> {
        gate(&shop(from)).only("CL007").restricted().mode(cluster).update(&shop(to)).brief()
    }

    #[test]
    fn what_counts_is_the_mode_in_force_before_and_after() {
        use Mode::{Audit, Enforce, Warn};
        for (from, to, cluster, expected) in [
            ("enforce", "warn", Warn, &["deny CL007"] as &[&str]),
            ("enforce", "", Warn, &["deny CL007"]),
            ("enforce", "", Audit, &["deny CL007"]),
            ("enforce", "", Enforce, &[]),
            ("enforce", "Enforce", Warn, &["deny CL007"]),
            ("enforce", "strict", Enforce, &[]),
            ("", "audit", Enforce, &["deny CL007"]),
            ("", "audit", Warn, &["warn CL007"]),
            ("warn", "audit", Enforce, &["deny CL007"]),
            ("warn", "audit", Audit, &["warn CL007"]),
            ("", "enforce", Warn, &[]),
            ("audit", "warn", Enforce, &[]),
            ("audit", "audit", Enforce, &[]),
            ("warn", "", Audit, &["warn CL007"]),
        ] {
            assert_eq!(changes(from, to, cluster), expected, "{from:?} to {to:?} in {cluster:?}");
        }
    }

    #[test]
    fn a_namespace_that_starts_laxer_than_the_cluster_counts_and_one_that_starts_alike_does_not() {
        let gate = gate("").only("CL007").restricted();
        gate.create(&shop("audit")).is(&["deny CL007"]).mentions("falls from mode `enforce` to `audit`");
        gate.create(&shop("")).nothing();
        gate.clone().mode(Mode::Warn).create(&shop("")).nothing();
        gate.mode(Mode::Warn).create(&shop("warn")).nothing();
    }

    #[test]
    fn baseline_warns_and_refuses_it_for_the_gates_own_namespace_alone() {
        let mut gate = gate(&(shop("") + &namespace("guard", ""))).only("CL007");
        gate.update(&shop("audit")).is(&["warn CL007"]);
        gate.clone().option("mode-loosened", "otherNamespaces: deny").update(&shop("audit")).is(&["deny CL007"]);
        gate.update(&namespace("guard", "portcullis.dev/mode: warn")).is(&["warn CL007"]);
        gate.environment.own_namespace = Some("guard".into());
        let said = gate.update(&namespace("guard", "portcullis.dev/mode: warn"));
        said.is(&["deny CL007"]).mentions("where the gate itself runs");
        gate.environment.namespaces.exempt.push("guard".to_owned());
        gate.update(&namespace("guard", "portcullis.dev/mode: warn")).is(&["deny CL007"]);
    }

    #[test]
    fn what_stands_below_the_cluster_is_told_of_and_denies_nothing() {
        let gate = gate(&shop("warn")).only("CL007").restricted();
        gate.check().is(&["warn CL007"]).mentions("is judged in mode `warn`, the cluster in `enforce`");
        gate.update(&namespace("shop", "portcullis.dev/mode: warn, team: a")).nothing();
        gate.mode(Mode::Warn).check().nothing();
    }

    #[test]
    fn a_waiver_lets_a_namespace_stay_behind() {
        let waiver = "---\napiVersion: portcullis.dev/v1alpha1\nkind: Waiver\nmetadata: {name: late, namespace: shop, creationTimestamp: '2026-10-30T00:00:00Z'}\nspec: {rules: [mode-loosened], match: {}, owner: a, reason: b, expires: '2026-11-20'}\n";
        gate(&(shop("") + waiver)).only("CL007").restricted().update(&shop("warn")).is(&["audit CL007 waived"]);
    }

    #[test]
    fn what_is_offered_puts_the_mode_back() {
        let gate = gate(&shop("enforce")).only("CL007").mode(Mode::Warn);
        let said = gate.update(&shop("audit"));
        gate.update(&said.only().fix).nothing();
        assert_eq!(said.only().path.as_str(), "metadata.labels[portcullis.dev/mode]");
    }
}
