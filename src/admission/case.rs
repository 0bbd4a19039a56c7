//! What of a request there is to judge.
//!
//! Nothing is let through for who asks, or for what an object says of itself: names in `userInfo`
//! and owner references only lower what becomes of a finding, or say what to compare with (see
//! [`super::owned`]). What is let through is what no rule reads.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::owned;
use super::request::Request;
use crate::cluster::Cluster;
use crate::k8s::{self, Kind, Lowered, Problem, TypeName};
use crate::model::{Change, FieldPath, Object, ObjectRef, Workload, WorkloadId};
use crate::rules::{Action, Profile};

/// A request, read.
#[derive(Debug)]
pub(super) struct Case {
    /// The change; nothing where an object could not be read.
    pub(super) change: Option<Change>,
    /// What of the new object cannot be read.
    pub(super) problems: Vec<Problem>,
    /// What of it could not be read before either.
    pub(super) old_problems: Vec<Problem>,
    /// The strongest action this request can meet.
    pub(super) ceiling: Action,
    /// Whether one of the cluster's controllers carries out what its owner asks for, which was judged
    /// itself.
    pub(super) has_known_owner: bool,
    /// The deletion that the change hands to the garbage collector.
    pub(super) collection: Option<Collection>,
}

/// A deletion by the garbage collector, which no admission webhook is asked about: the change that
/// gives an object its owners is the last one that is.
#[derive(Debug)]
pub(super) struct Collection {
    /// The object as it stands.
    pub(super) object: Object,
    /// Its owners from now on: ``ConfigMap `settings` ``.
    pub(super) owners: Vec<String>,
}

impl Case {
    /// Nothing where no rule reads what the request is about.
    pub(super) fn of(
        request: &Request<'_>,
        reference: &ObjectRef,
        cluster: &Cluster,
        profile: Profile,
    ) -> Option<Self> {
        let mut case = match &*request.operation {
            "UPDATE" if request.is_scaling() => Self::scaling(request, cluster),
            _ => Self::whole(request, reference, cluster, profile),
        }?;
        if let Some(after) = case.change.as_ref().and_then(Change::after) {
            case.problems.extend(misplaced(after, reference));
        }
        case.ceiling = case.ceiling.min(ceiling(request, case.change.as_ref(), cluster));
        Some(case)
    }

    /// A request about an object as it is stored.
    fn whole(request: &Request<'_>, reference: &ObjectRef, cluster: &Cluster, profile: Profile) -> Option<Self> {
        let kind = Kind::of(&request.kind.group, &request.kind.kind)?;
        match &*request.operation {
            "CREATE" => Self::create(request, cluster, profile),
            "UPDATE" => Self::update(request),
            "DELETE" => Self::delete(request, kind, reference, cluster),
            _ => None,
        }
    }

    /// A request to scale a workload, which holds nothing of it but the number of its pods.
    fn scaling(request: &Request<'_>, cluster: &Cluster) -> Option<Self> {
        let (kind, replicas) = request.scale()?;
        let id = WorkloadId { kind: kind.into(), name: request.reference().name };
        let before = cluster.workload(&request.namespace, &id)?;
        let after = Workload { is_scaled_to_zero: replicas == 0, ..Workload::clone(before) };
        let change = Change::Update(Object::Workload(before.clone()), Object::Workload(Arc::new(after)));
        (change.before() != change.after()).then(|| Self::from(change))
    }

    fn create(request: &Request<'_>, cluster: &Cluster, profile: Profile) -> Option<Self> {
        let Lowered { object, problems } = lower(request, request.object, "object");
        let Some(after) = object.map(|after| as_stored(after, None)) else {
            return Self::unread(problems, Vec::new());
        };
        let stood = match &after {
            Object::Workload(workload) => owned::stood(workload, request, cluster, profile),
            Object::Namespace(_)
            | Object::NetworkPolicy(_)
            | Object::Service(_)
            | Object::PeerAuthentication(_)
            | Object::MeshConfig(_)
            | Object::WebhookConfiguration(_)
            | Object::ForeignPolicy(_)
            | Object::Waiver(_) => None,
        };
        let has_known_owner = stood.is_some() && request.is_by_pod_controller();
        let change = match stood.map(|stood| Object::Workload(Arc::new(stood))) {
            Some(same) if has_known_owner && same == after => return None,
            Some(stood) => Change::Update(stood, after),
            None => Change::Create(after),
        };
        Some(Self { problems, has_known_owner, ..Self::from(change) })
    }

    fn update(request: &Request<'_>) -> Option<Self> {
        let Lowered { object: before, problems: old_problems } = lower(request, request.old_object, "oldObject");
        let Lowered { object: after, problems } = lower(request, request.object, "object");
        let was_read = old_problems.is_empty();
        let (problems, old_problems) = ratchet(problems, &old_problems);
        match (before.map(awake), after) {
            (Some(before), Some(after)) => {
                let after = as_stored(after, Some(&before));
                if request.ends_the_object() {
                    // Its deletion was judged when it was asked for. What else has gone since may
                    // make it worse, which is said and holds nothing up.
                    return Some(Self { ceiling: Action::Warn, ..Self::from(Change::Delete(before)) });
                }
                // One that is being deleted is in force until it is gone: what is changed of it is
                // judged as of any other.
                let (before, after) = (staying(before), staying(after));
                let owners = request.new_owners();
                let collection = (!owners.is_empty()).then(|| Collection { object: before.clone(), owners });
                let is_unchanged = before == after && problems.is_empty() && collection.is_none();
                let change = Change::Update(before, after);
                (!is_unchanged).then(|| Self { problems, old_problems, collection, ..Self::from(change) })
            }
            (None, Some(after)) => {
                let change = Change::Create(as_stored(after, None));
                // What stood before is not known, so nothing is known to be worse than it was.
                let ceiling = if was_read { Action::Deny } else { Action::Warn };
                Some(Self { problems, old_problems, ceiling, ..Self::from(change) })
            }
            // A ConfigMap that is the mesh's no longer. What became unreadable has not gone.
            (Some(before), None) if problems.is_empty() && old_problems.is_empty() => {
                Some(Change::Delete(before).into())
            }
            (_, None) => Self::unread(problems, old_problems),
        }
    }

    fn delete(request: &Request<'_>, kind: Kind, reference: &ObjectRef, cluster: &Cluster) -> Option<Self> {
        if request.old_object.is_some() {
            return lower(request, request.old_object, "oldObject").object.map(|it| Change::Delete(awake(it)).into());
        }
        match known(kind, reference, cluster) {
            Some(before) => Some(Change::Delete(before).into()),
            None => Self::unread(vec![missing("oldObject")], Vec::new()),
        }
    }

    fn unread(problems: Vec<Problem>, old_problems: Vec<Problem>) -> Option<Self> {
        let is_read = problems.is_empty() && old_problems.is_empty();
        (!is_read).then_some(Self {
            change: None,
            problems,
            old_problems,
            ceiling: Action::Deny,
            has_known_owner: false,
            collection: None,
        })
    }
}

impl From<Change> for Case {
    fn from(change: Change) -> Self {
        Self {
            change: Some(change),
            problems: Vec::new(),
            old_problems: Vec::new(),
            ceiling: Action::Deny,
            has_known_owner: false,
            collection: None,
        }
    }
}

fn lower(request: &Request<'_>, object: Option<&RawValue>, field: &str) -> Lowered {
    let name = TypeName { group: &request.kind.group, kind: &request.kind.kind };
    match object {
        Some(object) => k8s::lower_json(name, object.get(), &request.namespace),
        None => Lowered { object: None, problems: vec![missing(field)] },
    }
}

fn missing(field: &str) -> Problem {
    Problem { path: FieldPath::root(), message: format!("the request carries no `{field}`") }
}

/// What is capped whatever the rules say: a denial here would hold up the cluster and not a person.
fn ceiling(request: &Request<'_>, change: Option<&Change>, cluster: &Cluster) -> Action {
    let is_leaving = || is_leaving(&request.operation, &request.namespace, cluster);
    let is_owned = || {
        let workload = change.and_then(Change::after);
        matches!(workload, Some(Object::Workload(workload)) if workload.owner.is_some())
    };
    // The namespace controller, the garbage collector and the controllers that make pods try again
    // for ever, and nobody reads what they are told. What they carry out was judged when it was
    // asked for; what it comes to is recorded.
    if request.is_by_cleaner() || is_leaving() || request.is_by_pod_controller() && is_owned() {
        return Action::Audit;
    }
    Action::Deny
}

/// Whether a change is part of a namespace's end.
pub(super) fn is_leaving(operation: &str, namespace: &str, cluster: &Cluster) -> bool {
    let state = cluster.namespace(namespace);
    // Nothing is created in a namespace that goes: where it seems so, it is a new one of that name.
    operation != "CREATE" && state.is_some_and(|state| state.is_terminating())
}

/// The problems of the new object: those that are its own, and those the old one had as well. A
/// place in a list is no part of a problem's identity, since taking out an item before it moves it.
fn ratchet(problems: Vec<Problem>, old: &[Problem]) -> (Vec<Problem>, Vec<Problem>) {
    let shape = |problem: &Problem| {
        let is_place = |c: char| c.is_ascii_digit() || matches!(c, '[' | ']');
        (problem.path.as_str().replace(is_place, ""), problem.message.clone())
    };
    let mut left: Vec<_> = old.iter().map(shape).collect();
    problems.into_iter().partition(|problem| {
        let shape = shape(problem);
        let found = left.iter().position(|old| *old == shape);
        found.map(|at| left.swap_remove(at)).is_none()
    })
}

/// A policy as if its deletion had not begun.
fn staying(mut object: Object) -> Object {
    match &mut object {
        Object::NetworkPolicy(policy) if policy.lifetime.is_ending => {
            Arc::make_mut(policy).lifetime.is_ending = false;
        }
        Object::PeerAuthentication(policy) if policy.lifetime.is_ending => {
            Arc::make_mut(policy).lifetime.is_ending = false;
        }
        Object::NetworkPolicy(_)
        | Object::PeerAuthentication(_)
        | Object::Namespace(_)
        | Object::Workload(_)
        | Object::Service(_)
        | Object::MeshConfig(_)
        | Object::WebhookConfiguration(_)
        | Object::ForeignPolicy(_)
        | Object::Waiver(_) => {}
    }
    object
}

/// An empty ReplicaSet counts as one with pods: it is scaled without another review.
fn awake(mut object: Object) -> Object {
    if let Object::Workload(workload) = &mut object
        && workload.is_idle
    {
        Arc::make_mut(workload).is_idle = false;
    }
    object
}

/// The object as it will be stored: what only the cluster writes stays as it was. The API server
/// sees to that before it asks, but nothing here should rest on whom it asks for.
fn as_stored(object: Object, before: Option<&Object>) -> Object {
    let mut object = awake(object);
    match &mut object {
        Object::Workload(after) => {
            let (was_finished, ips, had_begun) = match before {
                Some(Object::Workload(before)) => (before.is_finished, before.ips.as_slice(), before.ending.has_begun),
                _ => (false, [].as_slice(), false),
            };
            if (after.is_finished, after.ips.as_slice(), after.ending.has_begun) != (was_finished, ips, had_begun) {
                let after = Arc::make_mut(after);
                (after.is_finished, after.ips, after.ending.has_begun) = (was_finished, ips.to_vec(), had_begun);
            }
        }
        Object::Namespace(after) => {
            let was = matches!(before, Some(Object::Namespace(before)) if before.is_terminating);
            Arc::make_mut(after).is_terminating = was;
        }
        Object::NetworkPolicy(after) => {
            let was = matches!(before, Some(Object::NetworkPolicy(before)) if before.lifetime.is_ending);
            if after.lifetime.is_ending != was {
                Arc::make_mut(after).lifetime.is_ending = was;
            }
        }
        Object::PeerAuthentication(after) => {
            let was = matches!(before, Some(Object::PeerAuthentication(before)) if before.lifetime.is_ending);
            if after.lifetime.is_ending != was {
                Arc::make_mut(after).lifetime.is_ending = was;
            }
        }
        Object::Service(_)
        | Object::MeshConfig(_)
        | Object::WebhookConfiguration(_)
        | Object::ForeignPolicy(_)
        | Object::Waiver(_) => {}
    }
    object
}

/// The object as the cluster knows it.
fn known(kind: Kind, reference: &ObjectRef, cluster: &Cluster) -> Option<Object> {
    let ObjectRef { kind: kind_name, namespace, name } = reference;
    let state = |namespace: &str| cluster.namespace(namespace);
    let namespace = namespace.as_deref().unwrap_or_default();
    match kind {
        Kind::Namespace => state(name)?.object.clone().map(Object::Namespace),
        Kind::NetworkPolicy => state(namespace)?.policies.get(name).cloned().map(Object::NetworkPolicy),
        Kind::PeerAuthentication => {
            state(namespace)?.peer_authentications.get(name).cloned().map(Object::PeerAuthentication)
        }
        Kind::Service => state(namespace)?.services.get(name).cloned().map(Object::Service),
        Kind::Workload => {
            let id = WorkloadId { kind: kind_name.clone(), name: name.clone() };
            cluster.workload(namespace, &id).cloned().map(Object::Workload)
        }
        Kind::ConfigMap => {
            let mut configs = cluster.mesh_configs();
            configs.find(|it| it.namespace == *namespace && it.name == *name).cloned().map(Object::MeshConfig)
        }
        Kind::WebhookConfiguration(kind) => {
            let mut configurations = cluster.webhooks();
            configurations.find(|it| it.kind == kind && it.name == *name).cloned().map(Object::WebhookConfiguration)
        }
        Kind::Waiver => state(namespace)?.waivers.get(name).cloned().map(Object::Waiver),
        Kind::ForeignPolicy => None,
    }
}

/// That an object is about something else than its request. The API server refuses such requests,
/// so this is no way around it: it is said in case something else asks.
fn misplaced(object: &Object, reference: &ObjectRef) -> Option<Problem> {
    let own = object.reference();
    let is_same = own.namespace == reference.namespace && own.name == reference.name;
    (!is_same).then(|| Problem {
        path: FieldPath::new("metadata"),
        message: format!("the object is {own}, but the request is about {reference}"),
    })
}
