//! The request: only what is read of it is parsed, and the objects stay text until a rule needs
//! them.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::head::LONGEST;
use super::probe::PROBE;
use crate::model::{ObjectRef, Str};

/// The users that delete a namespace's contents and the dependents of what is gone.
pub(super) const CLEANERS: [&str; 3] = [
    "system:serviceaccount:kube-system:namespace-controller",
    "system:serviceaccount:kube-system:generic-garbage-collector",
    ALL_CONTROLLERS,
];

/// The cluster's own controllers that make pods, or what makes pods, on behalf of others.
pub(super) const POD_CONTROLLERS: [&str; 8] = [
    "system:serviceaccount:kube-system:cronjob-controller",
    "system:serviceaccount:kube-system:daemon-set-controller",
    "system:serviceaccount:kube-system:deployment-controller",
    "system:serviceaccount:kube-system:job-controller",
    "system:serviceaccount:kube-system:replicaset-controller",
    "system:serviceaccount:kube-system:replication-controller",
    "system:serviceaccount:kube-system:statefulset-controller",
    ALL_CONTROLLERS,
];

/// What names of service accounts begin with; their namespace and name follow.
pub(super) const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// All of them in one, where controllers have no accounts of their own.
const ALL_CONTROLLERS: &str = "system:kube-controller-manager";

/// `AdmissionReview` as the API server sends it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Option<Request<'a>>,
}

/// `AdmissionRequest`, less what no decision rests on.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    pub(super) uid: Cow<'a, str>,
    /// The kind of `object`, converted to a version the webhook is registered for.
    #[serde(borrow)]
    pub(super) kind: GroupKind<'a>,
    /// The kind the client sent.
    #[serde(borrow)]
    #[serde(rename = "requestKind")]
    sent_kind: Option<GroupKind<'a>>,
    /// What of the API is called.
    #[serde(borrow, default)]
    resource: Resource<'a>,
    #[serde(borrow, default, rename = "subResource")]
    sub_resource: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) namespace: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) operation: Cow<'a, str>,
    #[serde(borrow, default)]
    user_info: UserInfo<'a>,
    #[serde(borrow)]
    pub(super) object: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) old_object: Option<&'a RawValue>,
    #[serde(default)]
    dry_run: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct GroupKind<'a> {
    #[serde(borrow, default)]
    pub(super) group: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
struct Resource<'a> {
    #[serde(borrow, default)]
    resource: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
struct UserInfo<'a> {
    #[serde(borrow, default)]
    username: Cow<'a, str>,
}

/// The part of an object's metadata that is needed before it is read in full.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Glance<'a> {
    #[serde(borrow, default)]
    metadata: GlanceMeta<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GlanceMeta<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    generate_name: Option<Cow<'a, str>>,
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
    #[serde(default)]
    finalizers: Option<Vec<IgnoredAny>>,
    #[serde(borrow, default)]
    owner_references: Option<Owners<'a>>,
    #[serde(default)]
    annotations: Option<Marks>,
}

/// The annotation that is looked for: see [`PROBE`].
#[derive(Default, Deserialize)]
struct Marks {
    #[serde(default, rename = "portcullis.dev/probe")]
    probe: Option<IgnoredAny>,
}

/// How many owners of an object are looked at. Honest objects have a handful.
const MOST_OWNERS: usize = 64;

/// The owners of an object.
#[derive(Default)]
struct Owners<'a> {
    first: Vec<GlanceOwner<'a>>,
    /// Whether there are more than [`MOST_OWNERS`].
    are_more: bool,
}

impl Owners<'_> {
    fn is_same_as(&self, old: &Self) -> bool {
        !self.are_more
            && !old.are_more
            && self.first.len() == old.first.len()
            && self.first.iter().all(|owner| old.first.contains(owner))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Owners<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(OwnersVisitor(PhantomData))
    }
}

struct OwnersVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for OwnersVisitor<'a> {
    type Value = Owners<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut written: A) -> Result<Owners<'a>, A::Error> {
        let mut owners = Owners::default();
        while owners.first.len() < MOST_OWNERS
            && let Some(owner) = written.next_element()?
        {
            owners.first.push(owner);
        }
        while written.next_element::<IgnoredAny>()?.is_some() {
            owners.are_more = true;
        }
        Ok(owners)
    }
}

/// What makes an owner the same owner.
#[derive(Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct GlanceOwner<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
}

/// Reads a review, or says why it is none. Without a uid no answer can be given.
pub(super) fn parse(body: &[u8]) -> Result<Request<'_>, String> {
    // Checked once for the whole body: objects are handed on as text.
    let body = std::str::from_utf8(body).map_err(|error| format!("the body is not UTF-8: {error}"))?;
    let review: Review<'_> = serde_json::from_str(body)
        .map_err(|error| format!("the body is no AdmissionReview: {}", with_its_place(body, &error)))?;
    let Review { api_version, kind, request } = review;
    if kind != "AdmissionReview" || !api_version.starts_with("admission.k8s.io/") {
        return Err(format!("the body is a `{kind}` of `{api_version}` and no AdmissionReview"));
    }
    if api_version != "admission.k8s.io/v1" {
        return Err(format!(
            "`{api_version}` is not supported: the webhook's `admissionReviewVersions` must be `[v1]`"
        ));
    }
    let request = request.ok_or_else(|| "the AdmissionReview has no `request`".to_owned())?;
    let Request { uid, kind, sent_kind, name, namespace, operation, .. } = &request;
    let kinds = [Some(kind), sent_kind.as_ref()].into_iter().flatten().flat_map(|it| [&it.group, &it.kind]);
    if [uid, name, namespace, operation].into_iter().chain(kinds).any(|field| field.len() > LONGEST) {
        return Err(format!("a name in the `request` is longer than {LONGEST} bytes"));
    }
    Ok(request)
}

/// An error with the path of the field it is about. To keep track of paths costs time, so that is
/// done only once something is wrong, by reading the body again.
fn with_its_place(body: &str, error: &serde_json::Error) -> String {
    let again: Result<Review<'_>, _> = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(body));
    let path = match again {
        Err(again) if error.is_data() => again.path().to_string(),
        Ok(_) | Err(_) => ".".to_owned(),
    };
    let message = error.to_string();
    match (path.as_str(), message.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'))) {
        (".", _) => message,
        (path, Some((field, at))) => format!("`{path}.{field}` is missing{at}"),
        (path, None) => format!("`{path}`: {message}"),
    }
}

impl Request<'_> {
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run.unwrap_or(false)
    }

    /// Whether it is sent to see whether the gate answers; see [`PROBE`].
    pub(super) fn is_probe(&self) -> bool {
        // Only a dry run is looked at any further.
        self.is_dry_run()
            && self.object.is_some_and(|object| object.get().contains(PROBE))
            && glance(self.object).metadata.annotations.is_some_and(|annotations| annotations.probe.is_some())
    }

    /// Whether it is about the subresource by which a workload is scaled.
    pub(super) fn is_scaling(&self) -> bool {
        self.sub_resource == "scale"
    }

    /// The kind of the workload that is scaled, and to how many pods (`autoscaling/v1 Scale`).
    pub(super) fn scale(&self) -> Option<(&'static str, i64)> {
        #[derive(Deserialize)]
        struct Scale {
            spec: Option<Spec>,
        }
        #[derive(Deserialize)]
        struct Spec {
            replicas: Option<i64>,
        }
        let kind = match &*self.resource.resource {
            "deployments" => "Deployment",
            "replicasets" => "ReplicaSet",
            "statefulsets" => "StatefulSet",
            "replicationcontrollers" => "ReplicationController",
            _ => return None,
        };
        let scale: Scale = serde_json::from_str(self.object?.get()).ok()?;
        Some((kind, scale.spec.and_then(|spec| spec.replicas).unwrap_or(0)))
    }

    /// See [`CLEANERS`].
    pub(super) fn is_by_cleaner(&self) -> bool {
        CLEANERS.contains(&&*self.user_info.username)
    }

    /// See [`POD_CONTROLLERS`].
    pub(super) fn is_by_pod_controller(&self) -> bool {
        POD_CONTROLLERS.contains(&&*self.user_info.username)
    }

    /// The namespace of the service account that asks; nothing where something else does.
    pub(super) fn service_account_namespace(&self) -> Option<&str> {
        let account = self.user_info.username.strip_prefix(SERVICE_ACCOUNT)?;
        account.split_once(':').map(|(namespace, _)| namespace)
    }

    /// Whether this takes the last finalizer off an object that is being deleted: with it goes the
    /// object, and no other request says so.
    pub(super) fn ends_the_object(&self) -> bool {
        let Some(old) = self.old_object else { return false };
        // Nearly no object is being deleted, and to look for a word costs less than to parse.
        if !old.get().contains("deletionTimestamp") {
            return false;
        }
        let holds = |object| glance(object).metadata.finalizers.is_some_and(|finalizers| !finalizers.is_empty());
        glance(self.old_object).metadata.deletion_timestamp.is_some() && holds(self.old_object) && !holds(self.object)
    }

    /// The owners of the object, where the change gives it others than it had and it is not being
    /// deleted as it is. When none of them exists, the garbage collector deletes it. The flags of a
    /// reference make no difference to that.
    pub(super) fn new_owners(&self) -> Vec<String> {
        let Some(object) = self.object.filter(|object| object.get().contains("ownerReferences")) else {
            return Vec::new();
        };
        let owners = glance(Some(object)).metadata.owner_references.unwrap_or_default();
        let old = glance(self.old_object).metadata;
        let old_owners = old.owner_references.unwrap_or_default();
        if owners.is_same_as(&old_owners) || old.deletion_timestamp.is_some() {
            return Vec::new();
        }
        owners.first.iter().map(|owner| format!("{} `{}`", owner.kind, owner.name)).collect()
    }

    /// The object's name: the request's is empty for `generateName` and in a collection's deletion.
    fn name(&self) -> Str {
        if !self.name.is_empty() {
            return self.name.as_ref().into();
        }
        let metadata = glance(self.object.or(self.old_object)).metadata;
        match (metadata.name.as_deref(), metadata.generate_name.as_deref()) {
            (Some(name), _) if !name.is_empty() => name.into(),
            (_, Some(prefix)) if !prefix.is_empty() => format!("{prefix}*").into(),
            _ => "<unnamed>".into(),
        }
    }

    /// The kind the client knows it by.
    pub(super) fn client_kind(&self) -> &GroupKind<'_> {
        self.sent_kind.as_ref().unwrap_or(&self.kind)
    }

    pub(super) fn reference(&self) -> ObjectRef {
        ObjectRef {
            kind: self.kind.kind.as_ref().into(),
            namespace: (!self.namespace.is_empty() && self.kind.kind != "Namespace")
                .then(|| self.namespace.as_ref().into()),
            name: self.name(),
        }
    }
}

fn glance(object: Option<&RawValue>) -> Glance<'_> {
    object.and_then(|object| serde_json::from_str(object.get()).ok()).unwrap_or_default()
}
