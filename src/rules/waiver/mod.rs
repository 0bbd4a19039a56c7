//! Which waivers hold, and which finding each of them lets stand.
//!
//! What has run out counts as absent, from one moment to the next: whether a waiver holds is asked
//! anew at every judgement, of the time it is given.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CL_RULE_FAILED, Entry, Meta, RULES, Severity, Subject, View, Violation, entry};
use crate::model::{FieldPath, Str, Waiver, WaiverMatch, WaiverTerms, written};

/// What waivers may do, and those that the configuration itself grants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct WaiverSettings {
    /// How many days ahead a waiver may reach, by the severity of the gravest rule it names.
    pub max_days: MaxDays,
    /// How often a Waiver may be prolonged: from its creation it lasts this many times longer than
    /// `maxDays` at most. Then somebody has to decide anew and create another.
    pub renewals: Renewals,
    /// Waivers granted here and not by a Waiver of the cluster, each with its `namespace` and
    /// `name`. What else they say is what a Waiver says in its `spec`.
    pub list: Vec<GrantedHere>,
}

/// How many days ahead a waiver may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct MaxDays {
    /// Of rules of severity low.
    #[schemars(range(min = 1, max = 3650))]
    #[serde(deserialize_with = "days")]
    pub low: u16,
    /// Of rules of severity medium.
    #[schemars(range(min = 1, max = 3650))]
    #[serde(deserialize_with = "days")]
    pub medium: u16,
    /// Of rules of severity high.
    #[schemars(range(min = 1, max = 3650))]
    #[serde(deserialize_with = "days")]
    pub high: u16,
    /// Of rules of severity critical.
    #[schemars(range(min = 1, max = 3650))]
    #[serde(deserialize_with = "days")]
    pub critical: u16,
}

impl Default for MaxDays {
    fn default() -> Self {
        Self { low: 180, medium: 90, high: 30, critical: 14 }
    }
}

/// A number of days that is not none and no mistake for for ever.
fn days<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let days = u16::deserialize(deserializer)?;
    if (1..=3650).contains(&days) {
        return Ok(days);
    }
    Err(serde::de::Error::custom(format!(
        "{days} days is not what a waiver can last\nwrite 1 to 3650; a rule that is not wanted is switched off by its `action`"
    )))
}

/// How often a Waiver may be prolonged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Renewals(#[schemars(range(min = 0, max = 100))] pub u8);

impl Default for Renewals {
    fn default() -> Self {
        Self(2)
    }
}

/// A waiver of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantedHere {
    /// What to call it.
    #[serde(deserialize_with = "written::name")]
    pub name: Str,
    /// The namespace it is about.
    #[serde(deserialize_with = "written::name")]
    pub namespace: Str,
    #[serde(flatten)]
    terms: Terms,
}

/// The terms with two fields more. Derived, it would refer to the terms' own schema, in which these
/// two are fields there are not.
impl JsonSchema for GrantedHere {
    fn schema_name() -> Cow<'static, str> {
        "GrantedHere".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = WaiverTerms::json_schema(generator);
        schema.insert("description".to_owned(), "A waiver of the configuration.".into());
        for (field, meaning) in [("name", "What to call it."), ("namespace", "The namespace it is about.")] {
            let text = json_schema!({ "type": "string", "description": meaning });
            if let Some(Value::Object(fields)) = schema.get_mut("properties") {
                fields.insert(field.to_owned(), text.to_value());
            }
            if let Some(Value::Array(required)) = schema.get_mut("required") {
                required.push(field.into());
            }
        }
        schema
    }
}

/// The terms of a waiver of the configuration: refused where they can mean nothing.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
struct Terms(WaiverTerms);

impl<'de> Deserialize<'de> for Terms {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Only what is left of an entry's fields comes here, and serde would pass over what it does not
        // know of them.
        let written = serde_json::Map::deserialize(deserializer)?;
        let terms: WaiverTerms = serde_json::from_value(written.into()).map_err(serde::de::Error::custom)?;
        match unfit(&terms).into_iter().next() {
            Some(Flaw { path, message, help }) => {
                Err(serde::de::Error::custom(format!("`{}`: {message}\n{help}", path.as_str())))
            }
            None => Ok(Self(terms)),
        }
    }
}

impl GrantedHere {
    /// As a Waiver of its namespace would say it.
    pub fn waiver(&self) -> Waiver {
        Waiver {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            is_ending: false,
            created: None,
            terms: self.terms.0.clone(),
            unread: None,
        }
    }
}

/// Why a waiver does not hold, where it has not simply run out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The field below `spec`.
    pub path: FieldPath,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

/// What a waiver comes to at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds until then.
    Holds(Timestamp),
    /// It has run out at that moment.
    Expired(Timestamp),
    /// It never held.
    Invalid(Vec<Flaw>),
}

/// Whose leave a finding stands by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waived {
    /// When that ends.
    pub ends: Timestamp,
    /// `Waiver shop/legacy`, or `waiver legacy of the configuration`.
    pub by: String,
    /// Who answers for it.
    pub owner: Str,
    /// Why it was granted.
    pub reason: String,
    /// Its end as it was written.
    pub until: Str,
}

/// `until 2027-01-31 by Waiver shop/legacy (owner payments): moves in Q1`.
impl fmt::Display for Waived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, owner, reason, until, .. } = self;
        write!(f, "until {until} by {by} (owner {owner}): {reason}")
    }
}

impl WaiverSettings {
    /// What a waiver comes to.
    pub fn standing(&self, waiver: &Waiver, now: Timestamp) -> Standing {
        if let Some((path, message)) = &waiver.unread {
            let help = "write `rules`, `match`, `owner`, `reason` and `expires`, and under `match` nothing but `workloads`, `labels` and `policies`";
            let (path, message) = (path.clone(), format!("cannot be read: {message}"));
            return Standing::Invalid(vec![Flaw { path, message, help: help.to_owned() }]);
        }
        let mut flaws = unfit(&waiver.terms);
        let Some(ends) = waiver.terms.ends() else { return Standing::Invalid(flaws) };
        flaws.extend(self.too_long(waiver, ends, now));
        match flaws.is_empty() {
            false => Standing::Invalid(flaws),
            true if ends <= now || waiver.is_ending => Standing::Expired(ends),
            true => Standing::Holds(ends),
        }
    }

    /// What is wrong with those of the configuration that waive nothing, with the entry it is wrong with.
    /// One that has run out has done its work.
    pub fn without_effect(&self, now: Timestamp) -> impl Iterator<Item = (String, Flaw)> {
        let flaws = move |(i, granted): (usize, &GrantedHere)| {
            let entry = format!("`waivers.list[{i}]` ({}/{})", granted.namespace, granted.name);
            match self.standing(&granted.waiver(), now) {
                Standing::Holds(_) | Standing::Expired(_) => Vec::new(),
                Standing::Invalid(flaws) => flaws.into_iter().map(|flaw| (entry.clone(), flaw)).collect(),
            }
        };
        self.list.iter().enumerate().flat_map(flaws)
    }

    /// That a waiver reaches too far: from now, or from when it was created.
    fn too_long(&self, waiver: &Waiver, ends: Timestamp, now: Timestamp) -> Option<Flaw> {
        let named = waiver.terms.rules.iter().filter_map(|rule| entry(rule));
        let gravest = named.map(|entry| entry.meta).max_by_key(|meta| meta.severity)?;
        let MaxDays { low, medium, high, critical } = self.max_days;
        let days = match gravest.severity {
            Severity::Low => low,
            Severity::Medium => medium,
            Severity::High => high,
            Severity::Critical => critical,
        };
        let path = FieldPath::new("expires");
        let at_most = SignedDuration::from_hours(24 * i64::from(days));
        // To the end of the last day: whoever writes a day means all of it.
        let furthest = end_of_day(later(now, at_most));
        if ends > furthest {
            return Some(Flaw {
                path,
                message: format!(
                    "reaches too far ahead: a waiver of `{}` ({}) may reach {days} days",
                    gravest.name,
                    gravest.severity.as_str()
                ),
                help: format!("write `{}` or an earlier day", day_of(later(now, at_most))),
            });
        }
        let last = later(waiver.created?, at_most * (i32::from(self.renewals.0) + 1));
        (ends > end_of_day(last)).then(|| Flaw {
            path,
            message: format!(
                "has been prolonged as often as it may be: {} times {days} days since it was created on {}",
                self.renewals.0,
                day_of(waiver.created.unwrap_or(now))
            ),
            help: if end_of_day(last) > now {
                let last = day_of(last);
                format!("write `{last}` or an earlier day; for longer, let its owner decide anew and create another")
            } else {
                "let its owner decide anew, and create another".to_owned()
            },
        })
    }

    /// The waivers of a namespace that name a rule and hold: looked up once for all its violations.
    pub(super) fn in_force(&self, rule: &Meta, namespace: &Str, view: &View<'_>) -> InForce {
        // What guards the gate itself is nobody's to waive: whoever may write Waivers in its
        // namespace could first let it stand and then switch the gate off.
        if view.environment.is_own(namespace) && rule.code.starts_with("CL") {
            return InForce::default();
        }
        let of_cluster = view.cluster.namespace(namespace).into_iter().flat_map(|state| state.waivers.iter());
        let by_cluster = of_cluster.filter_map(|waiver| {
            self.holding(waiver, rule, view, || format!("Waiver {}/{}", waiver.namespace, waiver.name))
        });
        let here = self.list.iter().filter(|granted| granted.namespace == *namespace);
        let by_configuration = here.filter_map(|granted| {
            let by = || format!("waiver {} of the configuration", granted.name);
            self.holding(&granted.waiver(), rule, view, by)
        });
        let mut waivers: Vec<_> = by_cluster.chain(by_configuration).collect();
        waivers.sort_by(|(a, _), (b, _)| b.cmp(a));
        InForce { waivers }
    }

    fn holding(
        &self,
        waiver: &Waiver,
        rule: &Meta,
        view: &View<'_>,
        by: impl Fn() -> String,
    ) -> Option<(Waived, WaiverMatch)> {
        view.check_stop();
        let WaiverTerms { rules, subjects, owner, reason, expires } = &waiver.terms;
        if !rules.iter().any(|name| is_named(rule, name)) {
            return None;
        }
        let Standing::Holds(ends) = self.standing(waiver, view.now) else { return None };
        let terms = Waived { ends, by: by(), owner: owner.clone(), reason: reason.clone(), until: expires.clone() };
        Some((terms, subjects.clone()))
    }
}

/// The waivers of one namespace that name one rule and hold.
#[derive(Debug, Default)]
pub(super) struct InForce {
    /// The one that lasts longest first.
    waivers: Vec<(Waived, WaiverMatch)>,
}

impl InForce {
    /// By whose leave a violation stands, if by anybody's: of several, by the one that lasts longest.
    pub(super) fn cover(&self, violation: &Violation, view: &View<'_>) -> Option<Waived> {
        if self.waivers.is_empty() {
            return None;
        }
        let is_about: Box<dyn Fn(&WaiverMatch) -> bool> = match &violation.subject {
            Subject::Namespace => Box::new(WaiverMatch::is_everything),
            Subject::Policy(name) => Box::new(|subjects| subjects.is_about_policy(name)),
            Subject::Waiver(_) => return None,
            Subject::Workload(id) => {
                let workload = view.cluster.workload(&violation.namespace, id);
                let root = workload.map(|workload| view.cluster.root_owner(workload));
                Box::new(move |subjects| {
                    let ids: Vec<_> = [id].into_iter().chain(&root).collect();
                    subjects.is_about_workload(&ids, workload.map(|workload| &workload.labels))
                })
            }
        };
        self.waivers.iter().find(|(_, subjects)| is_about(subjects)).map(|(waived, _)| waived.clone())
    }
}

/// How many unknown rules of one waiver are told.
const MOST_FLAWS: usize = 20;

/// What terms say that can mean nothing, whatever the time.
pub(super) fn unfit(terms: &WaiverTerms) -> Vec<Flaw> {
    let WaiverTerms { rules, subjects: _, owner, reason, expires } = terms;
    let mut flaws = Vec::new();
    let mut flaw = |path: FieldPath, message: String, help: String| flaws.push(Flaw { path, message, help });
    if rules.is_empty() {
        flaw(
            FieldPath::new("rules"),
            "names no rule".to_owned(),
            "name what is waived: `[missing-default-deny]`".to_owned(),
        );
    }
    // The first few are enough to see what is wrong.
    let is_unknown =
        |(_, name): &(usize, &Str)| !RULES.iter().any(|entry| is_waivable(entry) && is_named(entry.meta, name));
    for (i, name) in rules.iter().enumerate().filter(is_unknown).take(MOST_FLAWS) {
        let known: Vec<_> =
            RULES.iter().filter(|entry| is_waivable(entry)).map(|entry| format!("`{}`", entry.meta.name)).collect();
        flaw(
            FieldPath::new("rules").index(i),
            format!("`{name}` is no rule that can be waived"),
            format!("these can: {}", known.join(", ")),
        );
    }
    for (field, text, help) in [
        ("owner", owner.as_str(), "name the team or the person who answers for it"),
        ("reason", reason.as_str(), "say why it has to stand, and what will end it"),
    ] {
        if text.trim().is_empty() {
            flaw(FieldPath::new(field), "is empty".to_owned(), help.to_owned());
        }
    }
    if terms.ends().is_none() {
        flaw(
            FieldPath::new("expires"),
            format!("`{expires}` is neither a day nor a time"),
            "write the last day on which it holds, `2027-01-31`, or a time with its offset, `2027-01-31T18:00:00Z`"
                .to_owned(),
        );
    }
    flaws
}

/// What is said of waivers themselves, and of rules that fail, cannot be waived.
fn is_waivable(entry: &Entry) -> bool {
    entry.meta.name != CL_RULE_FAILED.name && entry.meta.name != super::invalid_waiver::NAME && entry.has_options()
}

fn is_named(rule: &Meta, name: &str) -> bool {
    rule.name == name || rule.code.eq_ignore_ascii_case(name)
}

/// A moment so much later, or the last there is: a manifest may say that it was created at any time.
fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn day_of(time: Timestamp) -> String {
    time.to_string().split('T').next().unwrap_or_default().to_owned()
}

/// The end of the day, in UTC, that a moment is in.
fn end_of_day(time: Timestamp) -> Timestamp {
    let terms = WaiverTerms { expires: day_of(time).into(), ..WaiverTerms::default() };
    terms.ends().unwrap_or(time)
}
