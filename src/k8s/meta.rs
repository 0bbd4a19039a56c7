//! `metadata`: the parts of it that any rule reads.

use std::fmt;

use jiff::Timestamp;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::read::Many;
use super::{Written, labels};
use crate::model::{Ending, Labels, Lifetime, MOST_GRACE, Owner, OwnerReference, Str, WorkloadId};

/// `ObjectMeta`, less what no rule reads (managed fields above all, which outweigh the rest).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Meta {
    name: Option<Str>,
    generate_name: Option<Str>,
    namespace: Option<Str>,
    uid: Option<Str>,
    labels: Option<Written>,
    annotations: Option<Written>,
    creation_timestamp: Option<Str>,
    deletion_timestamp: Option<IgnoredAny>,
    deletion_grace_period_seconds: Option<i64>,
    finalizers: Option<Many<Str>>,
    owner_references: Option<Many<WrittenOwner>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenOwner {
    #[serde(default)]
    api_version: Option<Str>,
    kind: Str,
    name: Str,
    #[serde(default)]
    uid: Option<Str>,
    #[serde(default)]
    controller: Option<bool>,
}

impl Meta {
    /// The name; of an object that is about to be given one, its prefix and an asterisk.
    pub(super) fn name(&self) -> Str {
        name(self.name.as_ref(), self.generate_name.as_ref())
    }

    pub(super) fn namespace(&self, default: &str) -> Str {
        namespace(self.namespace.as_ref(), default)
    }

    pub(super) fn uid(&self) -> Option<Str> {
        self.uid.clone().filter(|uid| !uid.is_empty())
    }

    pub(super) fn labels(&self) -> Labels {
        labels(self.labels.as_ref())
    }

    /// The annotations of these keys.
    pub(super) fn annotations(&self, keys: &[&str]) -> Labels {
        let Some(written) = &self.annotations else { return Labels::default() };
        let of_interest = written.iter().filter(|(key, _)| keys.contains(&key.as_str()));
        of_interest.map(|(key, value)| (key.clone(), value.clone().unwrap_or_default())).collect()
    }

    pub(super) fn created(&self) -> Option<Timestamp> {
        // One that is no time says no more than a missing one: nothing else hangs on it.
        self.creation_timestamp.as_ref()?.parse().ok()
    }

    pub(super) fn is_terminating(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    pub(super) fn lifetime(&self) -> Lifetime {
        let owners = self.owner_references.iter().flatten().map(|owner| OwnerReference {
            api_version: owner.api_version.clone().unwrap_or_default(),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone().filter(|uid| !uid.is_empty()),
        });
        Lifetime { is_ending: self.is_terminating(), owners: owners.collect(), uid: self.uid() }
    }

    /// The ending of a pod, or of a template of pods with this grace period.
    pub(super) fn ending(&self, is_pod: bool, grace: Option<i64>) -> Ending {
        let is_short = |seconds: Option<i64>| seconds.unwrap_or_default() <= MOST_GRACE;
        let has_finalizer = |name: &str| self.finalizers.iter().flatten().any(|it| it == name);
        let is_held = self.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty());
        let has_begun = self.is_terminating() && (!is_pod || is_short(self.deletion_grace_period_seconds));
        // Of an owner that the collector cannot look up it deletes nothing, and where another owner
        // is left it only takes out the reference.
        let has_one_owner = match self.owner_references.as_deref() {
            Some([owner]) => {
                owner.controller == Some(true)
                    && makes_pods(owner.api_version.as_deref().unwrap_or_default(), &owner.kind)
            }
            Some(_) | None => false,
        };
        Ending {
            has_begun,
            // Dependents that are to be orphaned stay, whatever else is asked for.
            takes_dependents: has_begun && has_finalizer("foregroundDeletion") && !has_finalizer("orphan"),
            // What a finalizer keeps keeps its pods. Those of a pod do not keep its containers.
            is_with_owner: has_one_owner && is_short(grace) && (is_pod || !is_held),
        }
    }

    pub(super) fn controller(&self) -> Option<Owner> {
        let mut owners = self.owner_references.iter().flatten();
        let owner = owners.find(|owner| owner.controller == Some(true))?;
        let group = owner.api_version.as_deref().map(|it| it.split_once('/').map_or("", |(group, _)| group).into());
        Some(Owner { group, id: WorkloadId { kind: owner.kind.clone(), name: owner.name.clone() } })
    }
}

/// Whether this is a version and kind of the API that makes pods, exactly as it is served.
fn makes_pods(api_version: &str, kind: &str) -> bool {
    matches!(
        (api_version, kind),
        ("apps/v1", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
            | ("batch/v1", "Job" | "CronJob")
            | ("v1", "ReplicationController")
    )
}

/// The least that can be asked of `metadata`: who it is. Fields that are no strings are left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Identity {
    name: Text,
    generate_name: Text,
    namespace: Text,
}

impl Identity {
    pub(super) fn name(&self) -> Str {
        name(self.name.0.as_ref(), self.generate_name.0.as_ref())
    }

    pub(super) fn namespace(&self, default: &str) -> Str {
        namespace(self.namespace.0.as_ref(), default)
    }
}

/// A text; whatever else is written in its place is passed over and takes up no memory.
#[derive(Debug, Default)]
struct Text(Option<Str>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Self)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Option<Str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<Str>, E> {
        Ok(Some(text.into()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<Str>, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Option<Str>, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Option<Str>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<Str>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<Str>, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Option<Str>, A::Error> {
        IgnoredAny.visit_seq(items).map(|_| None)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Option<Str>, A::Error> {
        IgnoredAny.visit_map(entries).map(|_| None)
    }
}

fn name(name: Option<&Str>, prefix: Option<&Str>) -> Str {
    match (name, prefix) {
        (Some(name), _) if !name.is_empty() => name.clone(),
        (_, Some(prefix)) if !prefix.is_empty() => format!("{prefix}*").into(),
        _ => Str::default(),
    }
}

fn namespace(namespace: Option<&Str>, default: &str) -> Str {
    match namespace {
        Some(namespace) if !namespace.is_empty() => namespace.clone(),
        _ => default.into(),
    }
}
