//! From a change to findings: the ratchet, the ceilings, rules that fail, and judging that is asked
//! to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::{SignedDuration, Timestamp};

use super::registry::AnyRule;
use super::waiver::InForce;
use super::{
    Action, CL_RULE_FAILED, Environment, Finding, Meta, Mode, Moment, Profile, Scope, Subject, View, Violation, Waived,
};
use crate::cluster::{Cluster, Leaving};
use crate::model::{Change, FieldPath, Lifetime, Object, ObjectRef, Stop, Stopped, Str, Workload};

/// The stack of every thread that judges. No recursion has a depth that is someone else's to choose,
/// and none of those there are needs a tenth of this; what a thread does not use costs nothing.
pub const STACK: usize = 8 * 1024 * 1024;

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
    /// What becomes of a review for which there was no time or no room. Whoever judges by the clock has
    /// to see to it.
    pub on_timeout: Action,
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
        let looks = self.looks(before, after, change, now);
        let looks: Vec<_> = looks.iter().map(|look| look.views(&self.environment, now, stop)).collect();
        self.run(&change.reference(), cluster, |active| {
            let judged: Vec<_> = looks.iter().map(|look| (look, judge_by(active, change, look))).collect();
            let mut told = BTreeSet::new();
            let mut findings = Vec::new();
            // What any look finds new is new. The first look that finds something tells of it.
            for standing in [false, true] {
                for (look, (new, old)) in &judged {
                    // What stands without the policies that have owners does not stand.
                    if standing && look.leaving == Some(Leaving::Owned) {
                        continue;
                    }
                    let violations = if standing { old } else { new };
                    let untold = violations.iter().filter(|it| told.insert(it.identity())).cloned().collect();
                    let change = Some((change, &look.before));
                    let moment = Moment { view: &look.after, change, profile: self.profile, standing };
                    findings.extend(self.explain(active, untold, &moment).into_iter().map(|it| look.tell(it)));
                }
            }
            findings
        })
    }

    /// The ways to look at a change. Mostly there is one. A policy that is being deleted is no longer
    /// protection, and what it admits is open until it is gone: so it is judged without it and with it.
    /// Where it is not known whether a new policy stays, a finding without it is at most a warning. So is
    /// one without those that have owners, where a policy that has none is deleted or changed: what it
    /// leaves in its place then goes with an owner, unseen.
    fn looks(&self, before: Cluster, after: Cluster, change: &Change, now: Timestamp) -> Vec<Look> {
        let root: Str = self.environment.mesh.expected_root().into();
        let namespaces: BTreeSet<&Str> = change.namespace().into_iter().chain([&root]).collect();
        let mut looks = Vec::new();
        let mut counted = Look { before, after, ceiling: Action::Deny, leaving: None, uncounted: Vec::new() };
        if let Some(settled) = counted.without(Leaving::Ending, &namespaces) {
            // Of what ends here its deletion was judged.
            let is_end = matches!(change, Change::Delete(object) if is_ending(object));
            let known = std::mem::replace(&mut counted, settled);
            looks.extend((!is_end).then_some(known));
        }
        let mut uncertain = vec![Leaving::Unowned(now)];
        let of_own = change.before().and_then(lifetime).filter(|it| !it.is_ending && it.owners.is_empty());
        uncertain.extend(of_own.map(|_| Leaving::Owned));
        let less: Vec<_> = uncertain.into_iter().filter_map(|it| counted.without(it, &namespaces)).collect();
        looks.insert(0, counted);
        looks.extend(less.into_iter().map(|look| Look { ceiling: Action::Warn, ..look }));
        looks
    }

    /// Everything that is wrong with a cluster, against nothing: what `check` and an audit report.
    pub fn judge_all(&self, cluster: &Cluster, now: Timestamp) -> Vec<Finding> {
        let settled = cluster.without(Leaving::Ending, cluster.namespaces().map(|state| &state.name));
        let views = settled.iter().chain([cluster]).map(|cluster| View::new(cluster, &self.environment, now));
        let views: Vec<_> = views.collect();
        let cluster_itself = ObjectRef { kind: "Cluster".into(), namespace: None, name: "cluster".into() };
        let judged = self.run(&cluster_itself, cluster, |active| {
            let mut told: Vec<Violation> = Vec::new();
            let mut findings = Vec::new();
            for view in &views {
                let mut found = Vec::new();
                active.rule.violations(view, &Scope::Cluster, &mut found);
                if views.len() > 1 {
                    let known: BTreeSet<_> = told.iter().map(Violation::identity).collect();
                    found.retain(|violation| !known.contains(&violation.identity()));
                    told.extend(found.iter().cloned());
                }
                let moment = Moment { view, change: None, profile: self.profile, standing: false };
                findings.extend(self.explain(active, found, &moment));
            }
            findings
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
        let mut alike: BTreeMap<(Action, bool, bool, Option<Waived>), Vec<Violation>> = BTreeMap::new();
        let mut waivers: BTreeMap<Str, InForce> = BTreeMap::new();
        let ceilings = active.rule.ceilings(&violations, moment);
        for (violation, ceiling) in violations.into_iter().zip(ceilings) {
            moment.view.check_stop();
            let ratchet = if moment.standing { Action::Warn } else { Action::Deny };
            let action =
                active.action.min(ratchet).min(ceiling).min(self.mode_of(active, &violation, moment).ceiling());
            let is_ending = is_about_what_ends(&violation, moment);
            let action = match (is_ending, moment.change) {
                (false, _) => action,
                (true, Some(_)) => action.min(Action::Warn),
                (true, None) => Action::Off,
            };
            if action > Action::Off {
                let namespace = violation.namespace.clone();
                let in_force =
                    |namespace: &Str| self.environment.waivers.in_force(active.rule.meta(), namespace, moment.view);
                let waivers = waivers.entry(namespace).or_insert_with_key(in_force);
                let waived = waivers.cover(&violation, moment.view);
                let action = if waived.is_some() { Action::Audit } else { action };
                let rests_on_absence = active.rule.rests_on_absence(&violation, moment);
                alike.entry((action, is_ending, rests_on_absence, waived)).or_default().push(violation);
            }
        }
        let mut findings = Vec::new();
        for ((action, is_ending, rests_on_absence, waived), group) in alike {
            moment.view.check_stop();
            let told = active.rule.explain(&group, moment).into_iter().map(Finding::bounded);
            findings.extend(told.map(|finding| Finding {
                rule: active.rule.meta(),
                action,
                standing: moment.standing,
                rests_on_state: true,
                rests_on_absence,
                waived: waived.clone(),
                message: if is_ending {
                    format!("{}; these are being deleted", finding.message)
                } else {
                    finding.message
                },
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

/// A cluster before and after a change, with and without what leaves it.
struct Look {
    before: Cluster,
    after: Cluster,
    /// The strongest action a finding of this look deserves.
    ceiling: Action,
    /// Which policies are left out of it; nothing where all count.
    leaving: Option<Leaving>,
    /// The policies that are left out of it.
    uncounted: Vec<Object>,
}

/// A [`Look`] as rules look at it.
struct Views<'a> {
    before: View<'a>,
    after: View<'a>,
    look: &'a Look,
}

impl Look {
    /// The same without the policies that leave; nothing where none does.
    fn without(&self, leaving: Leaving, namespaces: &BTreeSet<&Str>) -> Option<Self> {
        let [before, after] = [&self.before, &self.after].map(|it| it.without(leaving, namespaces.iter().copied()));
        if before.is_none() && after.is_none() {
            return None;
        }
        Some(Self {
            uncounted: namespaces.iter().flat_map(|namespace| self.after.leaving(leaving, namespace)).collect(),
            before: before.unwrap_or_else(|| self.before.clone()),
            after: after.unwrap_or_else(|| self.after.clone()),
            ceiling: self.ceiling,
            leaving: Some(leaving),
        })
    }

    fn views<'a>(&'a self, environment: &'a Environment, now: Timestamp, stop: Option<&'a Stop>) -> Views<'a> {
        let [before, after] =
            [&self.before, &self.after].map(|cluster| View::new(cluster, environment, now).until(stop));
        Views { before, after, look: self }
    }
}

impl std::ops::Deref for Views<'_> {
    type Target = Look;

    fn deref(&self) -> &Look {
        self.look
    }
}

/// How many policies that are not counted a finding names.
const MOST_NAMED: usize = 3;

impl Views<'_> {
    /// A finding of this look, with the policies it does not count.
    fn tell(&self, mut finding: Finding) -> Finding {
        let Look { ceiling, leaving, uncounted, .. } = self.look;
        finding.action = finding.action.min(*ceiling);
        let here = uncounted.iter().filter(|object| object.namespace() == finding.namespace.as_ref());
        for object in here.take(MOST_NAMED) {
            let ObjectRef { kind, name, .. } = object.reference();
            let owners = lifetime(object).into_iter().flat_map(|it| &it.owners).map(ToString::to_string);
            match (is_ending(object), owners.collect::<Vec<_>>().join(", ")) {
                (true, _) => finding.evidence.push(format!("{kind} `{name}` is being deleted and does not count")),
                (false, owners) if *leaving == Some(Leaving::Owned) => {
                    let _ = write!(
                        finding.message,
                        "; {kind} `{name}` does not make up for it: the garbage collector deletes it, without a review, once {owners} does not exist"
                    );
                }
                (false, owners) => {
                    let _ = write!(
                        finding.message,
                        "; {kind} `{name}` is not counted yet: the garbage collector deletes it if {owners} does not exist"
                    );
                }
            }
        }
        finding
    }
}

/// What a rule finds of a change by one look: what is new or worse, and what stood.
fn judge_by(active: &ActiveRule, change: &Change, look: &Views<'_>) -> (Vec<Violation>, Vec<Violation>) {
    let Views { before, after, look: _ } = look;
    before.check_stop();
    let scope = active.rule.scope(change, before, after);
    let mut found = Vec::new();
    if scope != Scope::Nothing {
        active.rule.violations(after, &scope, &mut found);
    }
    if found.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let mut stood = Vec::new();
    active.rule.violations(before, &scope, &mut stood);
    let stood: BTreeMap<_, u8> = stood.iter().map(|v| (v.identity(), v.badness)).collect();
    let stands = |v: &Violation| stood.get(&v.identity()).is_some_and(|bad| v.badness <= *bad);
    let (stood, mut new): (Vec<_>, Vec<_>) = found.into_iter().partition(stands);
    let worsened = active.rule.each_worsened(&stood, before, after);
    let mut old = Vec::new();
    for (violation, is_worse) in stood.into_iter().zip(worsened) {
        if is_worse { new.push(violation) } else { old.push(violation) }
    }
    (new, old)
}

fn lifetime(object: &Object) -> Option<&Lifetime> {
    match object {
        Object::NetworkPolicy(policy) => Some(&policy.lifetime),
        Object::PeerAuthentication(policy) => Some(&policy.lifetime),
        Object::Namespace(_)
        | Object::Workload(_)
        | Object::Service(_)
        | Object::MeshConfig(_)
        | Object::WebhookConfiguration(_)
        | Object::ForeignPolicy(_)
        | Object::Waiver(_) => None,
    }
}

fn is_ending(object: &Object) -> bool {
    lifetime(object).is_some_and(|lifetime| lifetime.is_ending)
}

/// Whether a violation is of a workload on its way out, by no change of its own. What goes is not
/// opened by what goes with it, so that an application can be deleted in any order.
fn is_about_what_ends(violation: &Violation, moment: &Moment<'_>) -> bool {
    let Subject::Workload(id) = &violation.subject else { return false };
    let Some(state) = moment.view.cluster.namespace(&violation.namespace) else { return false };
    let Some(workload) = state.workloads.get(id) else { return false };
    match moment.change {
        Some((change, _)) => {
            let is_it = |it: &Workload| it.id == *id && it.namespace == violation.namespace;
            !matches!(change.subject(), Object::Workload(it) if is_it(it)) && state.is_ending(workload)
        }
        // Folders of manifests seldom hold the owners of what is in them.
        None => workload.ending.has_begun,
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
