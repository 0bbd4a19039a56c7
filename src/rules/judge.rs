//! From a change to findings: the ratchet, the ceilings, rules that fail, and judging that is asked
//! to stop.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::{SignedDuration, Timestamp};

use super::registry::AnyRule;
use super::{
    Action, CL_RULE_FAILED, Environment, Finding, Meta, Mode, Moment, Profile, Scope, View, Violation, Waived,
};
use crate::cluster::Cluster;
use crate::model::{Change, FieldPath, Object, ObjectRef, Stop, Stopped};

/// The rules as the configuration set them, ready to run.
pub struct RuleSet {
    /// Those that run, in the order of the registry.
    pub rules: Vec<ActiveRule>,
    /// What they judge in.
    pub environment: Environment,
    /// The profile the actions come from, for rules that ask for different ones of different
    /// violations.
    pub profile: Profile,
    /// What becomes of findings that no rule here makes, but whoever meets them: by their codes, see
    /// [`super::builtin`].
    pub builtin: BTreeMap<&'static str, Action>,
    /// What becomes of a review in which a rule fails.
    pub on_error: Action,
    /// Past this age of what is known of the cluster nothing is denied on its strength. Whoever
    /// knows the age has to see to it.
    pub max_age: SignedDuration,
}

/// A rule that runs, and what it asks for.
pub struct ActiveRule {
    /// The rule with its options.
    pub rule: Box<dyn AnyRule>,
    /// What it asks for; never [`Action::Off`].
    pub action: Action,
}

impl RuleSet {
    /// What becomes of a rule's findings, be it built in or not.
    pub fn action_of(&self, meta: &Meta) -> Action {
        if *meta == CL_RULE_FAILED {
            return self.on_error;
        }
        let builtin = self.builtin.get(meta.code).copied();
        builtin.or_else(|| Some(self.active(meta)?.action)).unwrap_or(Action::Off)
    }

    /// A rule that runs, by its identity.
    pub fn active(&self, meta: &Meta) -> Option<&ActiveRule> {
        self.rules.iter().find(|active| active.rule.meta() == meta)
    }

    /// What a change makes of a cluster: findings it brings or worsens, and those that stood where
    /// it touches. `cluster` is the state as known; the change's own old object is put in place.
    pub fn judge(&self, cluster: &Cluster, change: &Change, now: Timestamp) -> Vec<Finding> {
        self.judge_until(cluster, change, now, None).expect("nothing asks this to stop")
    }

    /// As [`Self::judge`], until it is asked to stop. Then there are no findings at all: those of some
    /// rules would read as if the others had none.
    pub fn judge_until(
        &self,
        cluster: &Cluster,
        change: &Change,
        now: Timestamp,
        stop: Option<&Stop>,
    ) -> Result<Vec<Finding>, Stopped> {
        let before = cluster.as_found_by(change);
        let after = before.with(change);
        let before = View::new(&before, &self.environment, now).until(stop);
        let after = View::new(&after, &self.environment, now).until(stop);
        self.run(&change.reference(), before.cluster, |active| {
            before.check_stop();
            let scope = active.rule.scope(change, &before, &after);
            if scope == Scope::Nothing {
                return Vec::new();
            }
            let mut found = Vec::new();
            active.rule.violations(&after, &scope, &mut found);
            if found.is_empty() {
                return Vec::new();
            }
            let mut stood = Vec::new();
            active.rule.violations(&before, &scope, &mut stood);
            let stood: BTreeMap<_, u8> = stood.iter().map(|v| (v.identity(), v.badness)).collect();
            let stands = |v: &Violation| stood.get(&v.identity()).is_some_and(|bad| v.badness <= *bad);
            let (old, new): (Vec<_>, Vec<_>) = found.into_iter().partition(|v| {
                before.check_stop();
                stands(v) && !active.rule.worsened(v, &before, &after)
            });
            let change = Some((change, &before));
            let moment = |standing| Moment { view: &after, change, profile: self.profile, standing };
            let mut findings = self.explain(active, new, &moment(false));
            findings.extend(self.explain(active, old, &moment(true)));
            findings
        })
    }

    /// Everything that is wrong with a cluster, against nothing: what `check` and an audit report.
    pub fn judge_all(&self, cluster: &Cluster, now: Timestamp) -> Vec<Finding> {
        let view = View::new(cluster, &self.environment, now);
        let cluster_itself = ObjectRef { kind: "Cluster".into(), namespace: None, name: "cluster".into() };
        let judged = self.run(&cluster_itself, cluster, |active| {
            let mut found = Vec::new();
            active.rule.violations(&view, &Scope::Cluster, &mut found);
            self.explain(active, found, &Moment { view: &view, change: None, profile: self.profile, standing: false })
        });
        judged.expect("nothing asks this to stop")
    }

    /// Runs each rule on its own: one that panics becomes a finding, and the others still answer.
    fn run(
        &self,
        reviewed: &ObjectRef,
        cluster: &Cluster,
        one: impl Fn(&ActiveRule) -> Vec<Finding>,
    ) -> Result<Vec<Finding>, Stopped> {
        let mut findings = Vec::new();
        for active in &self.rules {
            match catch_unwind(AssertUnwindSafe(|| one(active))) {
                Ok(found) => findings.extend(found),
                Err(payload) if payload.is::<Stopped>() => return Err(Stopped),
                Err(_) => findings.push(self.rule_failed(active.rule.meta(), reviewed, cluster)),
            }
        }
        sort(&mut findings);
        Ok(findings)
    }

    fn rule_failed(&self, failed: &'static Meta, reviewed: &ObjectRef, cluster: &Cluster) -> Finding {
        let namespace = reviewed.namespace.as_ref().unwrap_or(&reviewed.name);
        let message = format!("rule `{}` ({}) failed while it judged {reviewed}", failed.name, failed.code);
        Finding {
            rule: &CL_RULE_FAILED,
            failed: Some(failed),
            action: self.on_error.min(self.mode_in(cluster, namespace).ceiling()),
            why:
                "the rule did not answer, so nothing is known about what it would have said; the other rules did answer"
                    .into(),
            help: format!(
                "report this with the object; until it is mended, `rules.{}.action: off` in the configuration leaves the rule out",
                failed.name
            ),
            ..Finding::new(reviewed.namespace.clone(), reviewed.clone(), FieldPath::root(), message)
        }
    }

    /// Violations to findings, grouped by what becomes of them.
    fn explain(&self, active: &ActiveRule, violations: Vec<Violation>, moment: &Moment<'_>) -> Vec<Finding> {
        let mut alike: BTreeMap<(Action, bool, Option<Waived>), Vec<Violation>> = BTreeMap::new();
        for violation in violations {
            moment.view.check_stop();
            let ratchet = if moment.standing { Action::Warn } else { Action::Deny };
            let action = active
                .action
                .min(ratchet)
                .min(active.rule.ceiling(&violation, moment))
                .min(self.mode_of(active, &violation, moment).ceiling());
            if action > Action::Off {
                let waived = self.environment.waivers.cover(active.rule.meta(), &violation, moment.view);
                let action = if waived.is_some() { Action::Audit } else { action };
                let rests_on_absence = active.rule.rests_on_absence(&violation, moment);
                alike.entry((action, rests_on_absence, waived)).or_default().push(violation);
            }
        }
        let mut findings = Vec::new();
        for ((action, rests_on_absence, waived), group) in alike {
            moment.view.check_stop();
            findings.extend(active.rule.explain(&group, moment).into_iter().map(|finding| Finding {
                rule: active.rule.meta(),
                action,
                standing: moment.standing,
                rests_on_state: true,
                rests_on_absence,
                waived: waived.clone(),
                ..finding
            }));
        }
        findings
    }

    /// The mode of a namespace: its label, else the cluster's.
    pub fn mode_in(&self, cluster: &Cluster, namespace: &str) -> Mode {
        self.environment.mode_in(cluster, namespace)
    }

    /// The mode a violation is met with. While a change to the label itself is judged, the
    /// stricter of the old and the new one holds, so that nothing slips through together with the
    /// label that would let it.
    fn mode_of(&self, active: &ActiveRule, violation: &Violation, moment: &Moment<'_>) -> Mode {
        if let Some(mode) = active.rule.mode(violation, moment) {
            return mode;
        }
        let namespace = &violation.namespace;
        let now = self.mode_in(moment.view.cluster, namespace);
        match moment.change {
            Some((Change::Update(Object::Namespace(_), _), before)) => now.max(self.mode_in(before.cluster, namespace)),
            _ => now,
        }
    }
}

/// The order findings are told in: the gravest action first, then as the catalogue lists them.
fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        let key = |f: &Finding| (std::cmp::Reverse(f.action), f.standing, f.rule.code, f.namespace.clone());
        key(a)
            .cmp(&key(b))
            .then_with(|| a.object.cmp(&b.object))
            .then_with(|| a.path.cmp(&b.path))
            .then_with(|| a.message.cmp(&b.message))
    });
}
