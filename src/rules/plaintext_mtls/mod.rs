//! MT001.

mod explain;

#[cfg(test)]
mod tests;

use jiff::SignedDuration;
use jiff::fmt::serde::duration::friendly;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Aspect, Finding, Meta, Moment, Profile, Rule, Scope, Severity, Subject, View, Violation, Watched};
use crate::mesh::{Authority, Dataplane, Drop, Effective, Mode, Posture, Reason, RootSource, Setting};
use crate::model::{Change, Namespace, Object, Str, Workload};

/// Reports workloads of an Istio mesh that end up accepting plaintext.
///
/// ## What it does
/// Works out, for every workload in the mesh and every port of it, the mutual TLS mode that holds
/// in the end: by all PeerAuthentications of its namespace and of the mesh's root namespace, in
/// Istio's own order. Anything but STRICT is reported, DISABLE as worse than PERMISSIVE, and so is
/// traffic that an annotation keeps from the proxy, where STRICT does not count at all.
///
/// What a change makes weaker is refused, whatever kind of change it is: a policy that is created,
/// changed or deleted (deleting the oldest wakes the next), labels that take a workload from under
/// a policy or out of the mesh. What merely stands is a warning, and so is a workload that starts
/// with plaintext under the `baseline` profile; under `restricted` such a start is refused too.
/// Joining the mesh in PERMISSIVE mode is never refused: that is how one begins.
///
/// It also names policies that say STRICT and have no effect: one that an older one overrides, one
/// with a selector in the root namespace, one that selects nothing, one for a revision of the
/// control plane that is not installed, and one in a namespace that is not the root although it
/// looks like it.
///
/// A workload counts as having a sidecar if an installed injector selects it. A container with only the
/// name `istio-proxy` does not count. The root namespace comes from the mesh's ConfigMap in the namespace
/// where the injector runs. A ConfigMap in any other namespace is ignored.
///
/// ## Why is this bad?
/// A port that accepts plaintext accepts anyone who can reach it. There is no encryption, and no
/// identity either: an `AuthorizationPolicy` that names who may call cannot tell who does.
///
/// PERMISSIVE is meant for the days of a migration. It stays for years, because nothing fails.
///
/// ## Example
/// ```yaml
/// apiVersion: v1
/// kind: Namespace
/// metadata:
///   name: shop
///   labels:
///     istio-injection: enabled
/// ---
/// apiVersion: security.istio.io/v1
/// kind: PeerAuthentication
/// metadata:
///   name: default
///   namespace: shop
/// spec:
///   mtls:
///     mode: PERMISSIVE
/// ```
/// Use instead:
/// ```yaml
/// apiVersion: v1
/// kind: Namespace
/// metadata:
///   name: shop
///   labels:
///     istio-injection: enabled
/// ---
/// apiVersion: security.istio.io/v1
/// kind: PeerAuthentication
/// metadata:
///   name: default
///   namespace: shop
/// spec:
///   mtls:
///     mode: STRICT
/// ```
///
/// ## What it does not see
/// What clients send: a `DestinationRule` can make them speak plaintext to a STRICT port, and then
/// they fail. Settings in the injector's own ConfigMap. Proxies with another image, bootstrap or control
/// plane. Other meshes. A workload that is deleted and created again counts as new.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PlaintextMtls {
    /// What is asked for where a workload or a namespace starts weak, or outside a mesh that is
    /// required. Left out: `warn` in the profile `baseline`, `deny` in `restricted`.
    pub new_workloads: Option<Action>,
    /// How long after a namespace is created its workloads are warned about and not denied, for
    /// tools that apply policies last: `30s`, `5m`.
    #[serde(serialize_with = "friendly::compact::required")]
    #[schemars(with = "String")]
    pub grace: SignedDuration,
    /// Whether every workload must be in the mesh. Pods on their node's network, gateways, the
    /// root namespace and exempt namespaces need not.
    pub require_mesh: bool,
}

/// What a change did to the subject of a violation.
enum Case<'a> {
    /// It is no weaker than it was.
    Unchanged,
    /// It was not there before; without a change, nothing was.
    New,
    /// These ports accept more than they did.
    Weakened(Vec<Drop<'a>>),
    /// It was in the mesh, and this held.
    Left(Effective<'a>),
    /// What was before is not known.
    Doubtful,
}

impl Rule for PlaintextMtls {
    const META: Meta = Meta {
        code: "MT001",
        name: "plaintext-mtls",
        severity: Severity::High,
        baseline: Action::Deny,
        restricted: Action::Deny,
        since: "0.1.0",
        // Webhook configurations make revisions of the mesh, but the API server shows them to no
        // webhook.
        watches: &[
            Watched::PeerAuthentications.always(),
            Watched::Namespaces.when_set(),
            Watched::Workloads.when_set(),
            Watched::MeshConfigs.always(),
        ],
    };

    fn scope(&self, change: &Change, before: &View<'_>, after: &View<'_>) -> Scope {
        if let Change::Update(old, new) = change
            && old == new
        {
            return Scope::Nothing;
        }
        let is_terminating = |namespace: &Str| {
            let states = [before.cluster, after.cluster].map(|cluster| cluster.namespace(namespace));
            states.into_iter().flatten().any(|state| state.is_terminating())
        };
        if change.namespace().is_some_and(is_terminating) {
            return Scope::Nothing;
        }
        match change.subject() {
            Object::PeerAuthentication(policy) => {
                let roots = [&before.mesh().root().namespace, &after.mesh().root().namespace];
                let is_root = roots.contains(&&policy.namespace);
                // In the root namespace a selector makes a policy void: it matters to nobody else.
                let may_count = [change.before(), change.after()].into_iter().flatten().any(
                    |object| matches!(object, Object::PeerAuthentication(it) if it.selector.is_empty() || it.is_partial),
                );
                if is_root && may_count { Scope::Cluster } else { Scope::Namespace(policy.namespace.clone()) }
            }
            Object::Namespace(namespace) => match change {
                Change::Create(_) => Scope::Namespace(namespace.name.clone()),
                Change::Update(old, _) => match old {
                    Object::Namespace(old) if old.labels == namespace.labels => Scope::Nothing,
                    _ => Scope::Namespace(namespace.name.clone()),
                },
                Change::Delete(_) => Scope::Nothing,
            },
            Object::Workload(workload) => match change {
                Change::Delete(_) => Scope::Nothing,
                Change::Update(Object::Workload(old), _) if decides_alike(old, workload) => Scope::Nothing,
                Change::Create(_) | Change::Update(..) => {
                    Scope::Workload(workload.namespace.clone(), workload.id.clone())
                }
            },
            Object::MeshConfig(_) if before.mesh().root().namespace == after.mesh().root().namespace => Scope::Nothing,
            Object::MeshConfig(_) | Object::WebhookConfiguration(_) => Scope::Cluster,
            Object::NetworkPolicy(_) | Object::Service(_) | Object::ForeignPolicy(_) | Object::Waiver(_) => {
                Scope::Nothing
            }
        }
    }

    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>) {
        let mesh = view.mesh();
        let root = &mesh.root().namespace;
        let mut report = |namespace: &Str, subject: Subject| {
            if let Some(posture) = posture_of(view, namespace, &subject) {
                violations_of(&posture, namespace, &subject, out);
            }
        };
        let is_terminating = |name: &str| view.cluster.namespace(name).is_some_and(|state| state.is_terminating());
        // The root namespace stands for the whole mesh, so it counts even where it is exempt, and
        // even where the last thing known of it has just gone.
        let is_about_root = match scope {
            Scope::Cluster => true,
            Scope::Namespace(namespace) => namespace == root,
            Scope::Nothing | Scope::Workload(..) => false,
        };
        if is_about_root && !is_terminating(root) {
            report(root, Subject::Namespace);
        }
        for name in scope.namespaces(view.cluster) {
            let Some(state) = view.cluster.namespace(name) else { continue };
            if state.is_terminating() || view.environment.namespaces.is_exempt(name) {
                continue;
            }
            if let Scope::Workload(_, id) = scope {
                if state.workloads.get(id).is_some_and(|workload| !workload.is_finished) {
                    report(name, Subject::Workload(id.clone()));
                }
                continue;
            }
            if name != root {
                report(name, Subject::Namespace);
            }
            for workload in state.live_workloads() {
                report(name, Subject::Workload(workload.id.clone()));
            }
        }
        if matches!(scope, Scope::Workload(..)) {
            return;
        }
        for name in scope.namespaces(view.cluster) {
            let is_exempt = name != root && view.environment.namespaces.is_exempt(name);
            if is_exempt || is_terminating(name) {
                continue;
            }
            out.extend(mesh.idle(name).iter().map(|idle| Violation {
                namespace: name.clone(),
                subject: Subject::Policy(idle.policy.name.clone()),
                aspect: Aspect::Ineffective,
                badness: 1,
            }));
        }
    }

    fn worsened(&self, violation: &Violation, before: &View<'_>, after: &View<'_>) -> bool {
        let Some(now) = posture_of(after, &violation.namespace, &violation.subject) else { return false };
        matches!(case(violation, &now, before, after), Case::Weakened(_))
    }

    fn ceiling(&self, violation: &Violation, moment: &Moment<'_>) -> Action {
        let view = moment.view;
        let Some(now) = posture_of(view, &violation.namespace, &violation.subject) else { return Action::Warn };
        let is_root = violation.namespace == view.mesh().root().namespace;
        let case = case_of(violation, &now, moment);
        let is_at_most_a_warning = doubt(violation, &now, &case, moment) || is_cleared(violation, moment);
        let cap = if is_at_most_a_warning { Action::Warn } else { Action::Deny };
        let asked = match (&violation.aspect, &case) {
            (Aspect::OutsideMesh, Case::Left(was)) if was.has_strict() => Action::Deny,
            (Aspect::OutsideMesh, Case::Left(_)) => Action::Warn,
            (Aspect::OutsideMesh, Case::New | Case::Doubtful)
                if opts_out_of_a_mesh(violation, &now, moment)
                    && (!self.require_mesh || may_be_outside(&now.membership.reason)) =>
            {
                Action::Warn
            }
            (Aspect::OutsideMesh, _) if !self.require_mesh || is_root || may_be_outside(&now.membership.reason) => {
                Action::Off
            }
            (_, Case::Weakened(_)) => Action::Deny,
            _ if is_not_of_interest(violation, &now, view) => Action::Off,
            (_, Case::New) => self.start(violation, &now, moment),
            (_, Case::Unchanged | Case::Doubtful | Case::Left(_)) => Action::Warn,
        };
        asked.min(cap)
    }

    /// What a policy of the namespace itself or an annotation decides is there; a mode that is
    /// inherited stands for want of such a policy.
    fn rests_on_absence(&self, violation: &Violation, moment: &Moment<'_>) -> bool {
        let posture = posture_of(moment.view, &violation.namespace, &violation.subject);
        let setting = posture.and_then(|posture| setting_of(violation, &posture));
        match setting.map(|setting| setting.by) {
            Some(Authority::Policy(policy)) => policy.namespace != violation.namespace,
            Some(Authority::Annotation(_)) => false,
            Some(Authority::Nobody) | None => true,
        }
    }

    fn loosened(&self, before: &Self, profile: Profile, then: Profile) -> Vec<(&'static str, bool)> {
        let Self { new_workloads: _, grace, require_mesh } = self;
        vec![
            ("newWorkloads", self.of_new_workloads(profile) < before.of_new_workloads(then)),
            ("grace", *grace > before.grace),
            ("requireMesh", before.require_mesh && !require_mesh),
        ]
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        explain::explain(violations, moment)
    }
}

impl PlaintextMtls {
    /// What is asked for where something starts weak.
    fn of_new_workloads(&self, profile: Profile) -> Action {
        self.new_workloads.unwrap_or(profile.of(Action::Warn, Action::Deny))
    }

    /// What becomes of something that is weak from its beginning.
    fn start(&self, violation: &Violation, now: &Posture<'_>, moment: &Moment<'_>) -> Action {
        let asked = self.of_new_workloads(moment.profile);
        match moment.change {
            // Whoever writes DISABLE makes the default weaker, PERMISSIVE as that is.
            None => match mode_of(violation, now) {
                Some(Mode::Disable) => Action::Deny,
                _ => asked,
            },
            // A Namespace must exist before its policy can.
            Some((Change::Create(Object::Namespace(_)), _)) => asked.min(Action::Warn),
            Some(_) => {
                let state = moment.view.cluster.namespace(&violation.namespace);
                let object = state.and_then(|state| state.object.as_deref());
                if object.is_some_and(|it| is_young(it, self.grace, moment.view)) {
                    asked.min(Action::Warn)
                } else {
                    asked
                }
            }
        }
    }
}

fn is_young(namespace: &Namespace, grace: SignedDuration, view: &View<'_>) -> bool {
    namespace.created.is_some_and(|created| view.now.duration_since(created) < grace)
}

/// Whether two states of a workload are alike in all that decides its mode.
fn decides_alike(old: &Workload, new: &Workload) -> bool {
    let decides = |it: &Workload| {
        let runs = !it.ips.is_empty();
        (it.labels.clone(), it.annotations.clone(), it.proxy, it.host_network, it.is_finished, it.is_partial, runs)
    };
    decides(old) == decides(new)
}

/// What the subject of a violation ends up with; nothing where it is not there.
fn posture_of<'a>(view: &View<'a>, namespace: &str, subject: &Subject) -> Option<Posture<'a>> {
    let mesh = view.mesh();
    match subject {
        Subject::Namespace if namespace == mesh.root().namespace => Some(mesh.posture_of_new_namespaces()),
        Subject::Namespace => view.cluster.namespace(namespace).map(|_| mesh.posture_of_new_pods(namespace)),
        Subject::Workload(id) => view.cluster.workload(namespace, id).map(|workload| mesh.posture(workload)),
        Subject::Policy(_) | Subject::Waiver(_) => None,
    }
}

/// What the subject of a violation ended up with before: a pod that was not there, with what its
/// controller did. An owner that does not make it, as its labels and annotations show, says nothing.
fn posture_before<'a>(violation: &Violation, before: &View<'a>, after: &View<'_>) -> Option<Posture<'a>> {
    let Violation { namespace, subject, .. } = violation;
    let found = posture_of(before, namespace, subject);
    let Subject::Workload(id) = subject else { return found };
    if found.is_some() {
        return found;
    }
    let mut made = after.cluster.workload(namespace, id)?;
    // Ownership in Kubernetes is at most three deep; the bound stops a cycle.
    for _ in 0..4 {
        let owner = made.owner.as_ref()?.workload()?;
        if let Some(template) = before.cluster.workload(namespace, owner) {
            return is_one_of(made, template).then(|| before.mesh().posture(template));
        }
        let template = after.cluster.workload(namespace, owner)?;
        if !is_one_of(made, template) {
            return None;
        }
        made = template;
    }
    None
}

/// Whether a workload is one more of what a template makes, alike in all that decides its mode.
fn is_one_of(made: &Workload, template: &Workload) -> bool {
    let decides = |it: &Workload| (it.annotations.clone(), it.proxy, it.is_partial);
    made.is_made_by(template) && decides(made) == decides(template)
}

fn violations_of(posture: &Posture<'_>, namespace: &Str, subject: &Subject, out: &mut Vec<Violation>) {
    let violation =
        |aspect, badness| Violation { namespace: namespace.clone(), subject: subject.clone(), aspect, badness };
    // Reported only where it left the mesh or must be in it, which is not known here.
    match posture.membership.dataplane {
        Dataplane::Outside => return out.push(violation(Aspect::OutsideMesh, 1)),
        Dataplane::Unknown => out.push(violation(Aspect::OutsideMesh, 0)),
        Dataplane::Sidecar | Dataplane::Ambient => {}
    }
    let default = posture.effective.default.mode;
    for (port, setting) in posture.effective.settings() {
        if setting.mode != Mode::Strict && (port.is_none() || setting.mode != default) {
            // The unknown is taken for the milder of what it may be.
            out.push(violation(Aspect::Plaintext(port), setting.mode.weakness().unwrap_or(1)));
        }
    }
}

/// What a violation is at a moment.
fn case_of<'a>(violation: &Violation, now: &Posture<'a>, moment: &Moment<'a>) -> Case<'a> {
    match moment.change {
        Some(_) if moment.standing => Case::Unchanged,
        Some((_, before)) => case(violation, now, before, moment.view),
        None => Case::New,
    }
}

fn case<'c, 'b: 'c>(violation: &Violation, now: &Posture<'c>, before: &View<'b>, after: &View<'_>) -> Case<'c> {
    let Some(was) = posture_before(violation, before, after) else { return Case::New };
    match was.membership.dataplane {
        Dataplane::Unknown => Case::Doubtful,
        Dataplane::Outside => Case::Unchanged,
        Dataplane::Sidecar | Dataplane::Ambient if violation.aspect == Aspect::OutsideMesh => Case::Left(was.effective),
        Dataplane::Sidecar | Dataplane::Ambient => {
            let mut drops = was.effective.drops_to(&now.effective);
            drops.retain(|drop| concerns(violation, drop, &now.effective));
            if !drops.is_empty() {
                return Case::Weakened(drops);
            }
            let was_known = mode_of(violation, &was) != Some(Mode::Unknown);
            if was_known { Case::Unchanged } else { Case::Doubtful }
        }
    }
}

/// Whether a drop is part of a violation: that of all ports stands for those that end up the same.
fn concerns(violation: &Violation, drop: &Drop<'_>, now: &Effective<'_>) -> bool {
    match (&violation.aspect, drop.port) {
        (Aspect::Plaintext(Some(port)), Some(dropped)) => *port == dropped,
        (Aspect::Plaintext(None), None) => true,
        (Aspect::Plaintext(None), Some(dropped)) => now.port(dropped).mode == now.default.mode,
        _ => false,
    }
}

/// The mode a violation is about; nothing where it is not about one.
fn setting_of<'a>(violation: &Violation, posture: &Posture<'a>) -> Option<Setting<'a>> {
    match violation.aspect {
        Aspect::Plaintext(port) => Some(port.map_or(posture.effective.default, |port| posture.effective.port(port))),
        _ => None,
    }
}

fn mode_of(violation: &Violation, posture: &Posture<'_>) -> Option<Mode> {
    setting_of(violation, posture).map(|setting| setting.mode)
}

/// Whether a verdict rests on something that is not known.
fn doubt(violation: &Violation, now: &Posture<'_>, case: &Case<'_>, moment: &Moment<'_>) -> bool {
    let mut views = std::iter::once(moment.view).chain(moment.change.map(|(_, before)| before));
    now.membership.dataplane == Dataplane::Unknown
        || mode_of(violation, now) == Some(Mode::Unknown)
        || matches!(case, Case::Doubtful)
        || views.any(|view| {
            let root = view.mesh().root();
            let is_about_it = violation.subject == Subject::Namespace && violation.namespace == root.namespace;
            // Manifests seldom hold the injector. In a cluster, what anyone could have written makes no
            // denial a doubt.
            let is_unproven = moment.change.is_none() && matches!(root.source, RootSource::Unproven(_));
            (root.is_doubtful() || is_unproven) && (is_about_it || rests_on_the_root(violation, now, case))
        })
}

/// Whether a deletion clears a namespace in which nothing runs any more: it opens no workload, and one
/// that is created there later is judged. The root namespace stands for the whole mesh.
fn is_cleared(violation: &Violation, moment: &Moment<'_>) -> bool {
    let Violation { namespace, subject, .. } = violation;
    let Some((change @ Change::Delete(_), _)) = moment.change else { return false };
    let state = moment.view.cluster.namespace(namespace);
    *subject == Subject::Namespace
        && change.namespace() == Some(namespace)
        && *namespace != moment.view.mesh().root().namespace
        && state.is_none_or(|state| state.live_workloads().all(|workload| state.is_ending(workload)))
}

/// Whether a verdict would be another if the mesh's root were another namespace. What a namespace
/// says of itself holds there wherever the root is.
fn rests_on_the_root(violation: &Violation, now: &Posture<'_>, case: &Case<'_>) -> bool {
    let is_its_own = |setting: &Setting<'_>| match setting.by {
        Authority::Policy(policy) => policy.namespace == violation.namespace,
        Authority::Annotation(_) => true,
        Authority::Nobody => false,
    };
    let settings: Vec<Setting<'_>> = match case {
        Case::Weakened(drops) => drops.iter().flat_map(|drop| [drop.from, drop.to]).collect(),
        Case::Left(was) => was.settings().map(|(_, setting)| setting).collect(),
        Case::New | Case::Unchanged | Case::Doubtful => setting_of(violation, now).into_iter().collect(),
    };
    !settings.iter().all(is_its_own)
}

/// Whether a workload keeps the mesh that its namespace is in away from itself, for sure or possibly.
/// Deleting one that was in the mesh and creating it again would otherwise pass unseen, and so would
/// leaving in two steps, the first of them a doubtful one.
fn opts_out_of_a_mesh(violation: &Violation, now: &Posture<'_>, moment: &Moment<'_>) -> bool {
    let is_in_mesh =
        |posture: Posture<'_>| matches!(posture.membership.dataplane, Dataplane::Sidecar | Dataplane::Ambient);
    let keeps_it_away = match now.membership.reason {
        Reason::OptedOut(_)
        | Reason::HostNetwork
        | Reason::StatusWithoutProxy
        | Reason::Templates(_)
        | Reason::NamedProxy
        | Reason::Undecided(_) => true,
        Reason::UnknownRevision(_)
        | Reason::Proxy
        | Reason::Injected(_)
        | Reason::Joins
        | Reason::AmbientLabel
        | Reason::Redirected
        | Reason::Gateway
        | Reason::SystemNamespace
        | Reason::NotAsked
        | Reason::Disabled(_)
        | Reason::RunsWithout
        | Reason::NamespaceUnknown
        | Reason::Unreadable => false,
    };
    moment.change.is_some()
        && keeps_it_away
        && violation.namespace != moment.view.mesh().root().namespace
        && posture_of(moment.view, &violation.namespace, &Subject::Namespace).is_some_and(is_in_mesh)
}

/// What is outside the mesh by its nature.
fn may_be_outside(reason: &Reason) -> bool {
    matches!(reason, Reason::HostNetwork | Reason::Gateway | Reason::SystemNamespace)
}

/// Whether something weak is nobody's concern unless it was stronger: a mesh without a policy for
/// namespaces to come, and workloads of which nothing says that they are in a mesh at all.
fn is_not_of_interest(violation: &Violation, now: &Posture<'_>, view: &View<'_>) -> bool {
    let policies = view.mesh().policies(&violation.namespace);
    let is_root = violation.namespace == view.mesh().root().namespace;
    if is_root && violation.subject == Subject::Namespace {
        return policies.mesh_wide.is_none();
    }
    let has_policy = policies.namespace_wide.is_some() || !policies.of_workloads.is_empty();
    now.membership.dataplane == Dataplane::Unknown && !has_policy
}
