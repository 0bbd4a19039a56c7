//! Waivers: findings that may stand for a while, by somebody's leave.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FieldPath, Labels, Str, WorkloadId};

/// The API group of the project's own kinds.
pub const GROUP: &str = "portcullis.dev";

/// `Waiver` (`portcullis.dev/v1alpha1`), or an entry of the configuration's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiver {
    /// The namespace it is in, and which alone it is about.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
    /// Whether its deletion has begun: it waives nothing from then on, whatever finalizer holds it.
    pub is_ending: bool,
    /// `metadata.creationTimestamp`; nothing for one that is in no cluster.
    pub created: Option<Timestamp>,
    /// `spec`.
    pub terms: WaiverTerms,
    /// What of `spec` cannot be read, and why: the field below it. Then the terms are none.
    pub unread: Option<(FieldPath, String)>,
}

/// What a waiver lets stand, why, and until when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WaiverTerms {
    /// The rules whose findings may stand, by name or code: `missing-default-deny`, `NP001`.
    #[schemars(with = "Vec<String>", length(min = 1, max = 16), inner(length(min = 1, max = 63)))]
    pub rules: Vec<Str>,
    /// What of the namespace it is about. `{}` is all of it.
    #[serde(rename = "match")]
    pub subjects: WaiverMatch,
    /// Who answers for it: a team or a person who can be asked.
    #[schemars(with = "String", length(min = 1, max = 253))]
    pub owner: Str,
    /// Why the finding has to stand, and what will end it: a ticket says more than "legacy".
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// The last day on which it holds (`2027-01-31`, in UTC), or the moment it ends
    /// (`2027-01-31T18:00:00Z`).
    #[schemars(with = "String", length(min = 10, max = 35), regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T.*)?$"))]
    pub expires: Str,
}

/// What of a namespace a waiver is about. Nothing set is everything in it; otherwise only what is
/// named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct WaiverMatch {
    /// Workloads by name, `cart`, or by kind and name, `Deployment/cart`. A name may end in `*`. A
    /// pod goes by its controller's name too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>", length(max = 64), inner(length(min = 1, max = 317)))]
    pub workloads: Vec<Str>,
    /// Labels the pods of a workload carry, all of these. With `workloads` both must hold.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, String>", extend("maxProperties" = 16))]
    pub labels: BTreeMap<Str, Str>,
    /// Policies by name: of findings that are about a policy itself. A name may end in `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>", length(max = 64), inner(length(min = 1, max = 253)))]
    pub policies: Vec<Str>,
}

impl WaiverTerms {
    /// When it ends: a day ends with it, in UTC. Nothing where `expires` is neither a day nor a time.
    pub fn ends(&self) -> Option<Timestamp> {
        if let Ok(time) = self.expires.parse::<Timestamp>() {
            return Some(time);
        }
        // A time without an offset would parse as its date alone.
        let is_day = self.expires.len() == "2027-01-31".len();
        let day: Date = self.expires.parse().ok().filter(|_| is_day)?;
        let next = day.checked_add(1.day()).ok()?;
        Some(next.to_zoned(TimeZone::UTC).ok()?.timestamp())
    }
}

impl WaiverMatch {
    /// Whether it is about everything in its namespace.
    pub fn is_everything(&self) -> bool {
        let Self { workloads, labels, policies } = self;
        workloads.is_empty() && labels.is_empty() && policies.is_empty()
    }

    /// Whether it is about a policy of this name.
    pub fn is_about_policy(&self, name: &str) -> bool {
        self.is_everything() || self.policies.iter().any(|pattern| matches(pattern, name))
    }

    /// Whether it is about a workload whose pods carry these labels. `ids` are its own and its
    /// controllers'.
    pub fn is_about_workload(&self, ids: &[&WorkloadId], labels: Option<&Labels>) -> bool {
        if self.workloads.is_empty() && self.labels.is_empty() {
            return self.is_everything();
        }
        let is_named = |pattern: &Str| match pattern.split_once('/') {
            Some((kind, name)) => ids.iter().any(|id| id.kind == kind && matches(name, &id.name)),
            None => ids.iter().any(|id| matches(pattern, &id.name)),
        };
        let carries = |(key, value): (&Str, &Str)| labels.and_then(|labels| labels.get(key)) == Some(value);
        (self.workloads.is_empty() || self.workloads.iter().any(is_named)) && self.labels.iter().all(carries)
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(expires: &str) -> Option<String> {
        let terms = WaiverTerms { expires: expires.into(), ..WaiverTerms::default() };
        terms.ends().map(|time| time.to_string())
    }

    #[test]
    fn a_day_holds_to_its_end_and_a_time_to_itself() {
        assert_eq!(ends("2027-01-31").as_deref(), Some("2027-02-01T00:00:00Z"));
        assert_eq!(ends("2028-02-29").as_deref(), Some("2028-03-01T00:00:00Z"));
        assert_eq!(ends("2027-01-31T18:00:00Z").as_deref(), Some("2027-01-31T18:00:00Z"));
        assert_eq!(ends("2027-01-31T18:00:00+02:00").as_deref(), Some("2027-01-31T16:00:00Z"));
    }

    #[test]
    fn what_is_neither_a_day_nor_a_time_has_no_end() {
        for text in ["", "never", "2027-13-01", "2027-02-30", "31.01.2027", "2027-01", "2027-01-31T18:00:00", "30d"] {
            assert_eq!(ends(text), None, "{text}");
        }
    }

    #[test]
    fn nothing_named_is_everything_and_something_named_is_only_that() {
        let id = WorkloadId { kind: "Deployment".into(), name: "cart".into() };
        let pod = WorkloadId { kind: "Pod".into(), name: "cart-5d4f".into() };
        let labels = Labels::from([("app", "cart")]);
        let about = |workloads: &[&str], wanted: &[(&str, &str)], policies: &[&str]| {
            let it = WaiverMatch {
                workloads: workloads.iter().map(|it| (*it).into()).collect(),
                labels: wanted.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
                policies: policies.iter().map(|it| (*it).into()).collect(),
            };
            (it.is_about_workload(&[&pod, &id], Some(&labels)), it.is_about_policy("open"))
        };
        assert_eq!(about(&[], &[], &[]), (true, true));
        assert_eq!(about(&["cart"], &[], &[]), (true, false));
        assert_eq!(about(&["Deployment/cart"], &[], &[]), (true, false));
        assert_eq!(about(&["StatefulSet/cart"], &[], &[]), (false, false));
        assert_eq!(about(&["cart-*"], &[], &[]), (true, false));
        assert_eq!(about(&["car"], &[], &[]), (false, false));
        assert_eq!(about(&[], &[("app", "cart")], &[]), (true, false));
        assert_eq!(about(&["cart"], &[("app", "web")], &[]), (false, false));
        assert_eq!(about(&[], &[], &["open"]), (false, true));
        assert_eq!(about(&["cart"], &[], &["op*"]), (true, true));
    }
}
