//! The configuration: one YAML file into rules that are ready to run.
//!
//! [`read()`] is strict: an unknown field, a wrong value or an option no rule has is a problem with
//! its place in the file. What it accepts is [`Settings`], every field defaulted, and
//! [`Settings::rule_set`] cannot fail.
//!
//! The commented default file and the JSON Schema are generated from these types and the rules'
//! own, so that neither can say something else than what is read.

mod defaults;
mod read;
mod schema;
mod weakened;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::fmt::serde::unsigned_duration;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::mesh::MeshSettings;
use crate::reach::{Cni, DnsSettings};
use crate::rules::{
    Action, ActiveRule, CL_RULE_FAILED, Entry, Environment, Meta, Mode, NamespaceSettings, Profile, RULES, RuleSet,
    WaiverSettings, builtin,
};

pub use defaults::defaults;
pub use read::{Error, closest, decode, load, read};
pub use schema::schema;
pub use weakened::{Weakening, redescribed, weakened};

/// What the configuration file sets. Every field may be left out.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// The set of actions rules start from: `baseline` denies what breaks or opens a namespace and
    /// warns of the rest, `restricted` denies all of it.
    #[serde(deserialize_with = "null_is_default")]
    #[schemars(with = "Option<Profile>")]
    pub profile: Profile,
    /// The strongest action taken: with `enforce` rules get what they ask for, with `warn` nothing
    /// is denied, with `audit` nothing is said to the user and findings are only recorded. A
    /// namespace's label `portcullis.dev/mode` sets it for that namespace.
    #[serde(deserialize_with = "null_is_default")]
    #[schemars(with = "Option<Mode>")]
    pub mode: Mode,
    /// What becomes of a change when a rule fails while judging it, which is a fault in Portcullis
    /// and not in the change: `deny`, `warn` or `audit`.
    #[serde(deserialize_with = "null_is_default")]
    #[schemars(with = "Option<OnError>")]
    pub on_error: OnError,
    /// What happens to a change that the gate does not judge in time, or has no room for: `deny`,
    /// `warn` or `audit`. The namespace's mode caps it. Cleanup by the cluster's own controllers, and
    /// changes in namespaces under `exempt`, are never denied for this.
    #[serde(deserialize_with = "null_is_default")]
    #[schemars(with = "Option<OnTimeout>")]
    pub on_timeout: OnTimeout,
    /// Each rule by its name: its `action` (`deny`, `warn`, `audit` or `off`; left out, the
    /// profile's) and its options. `portcullis rules NAME` explains a rule and its options.
    #[serde(deserialize_with = "null_is_default")]
    #[schemars(with = "serde_json::Map<String, Value>")]
    rules: BTreeMap<String, RuleSettings>,
    /// Which namespaces the rules leave alone.
    #[serde(deserialize_with = "null_is_default")]
    #[schemars(with = "Option<NamespaceSettings>")]
    pub namespaces: NamespaceSettings,
    /// Where pods resolve names. Left empty, cluster DNS is found by its Service and its pods.
    #[serde(deserialize_with = "null_is_default")]
    #[schemars(with = "Option<DnsSettings>")]
    pub dns: DnsSettings,
    /// How the mesh is set up, where the cluster does not say.
    #[serde(deserialize_with = "null_is_default")]
    #[schemars(with = "Option<MeshSettings>")]
    pub mesh: MeshSettings,
    /// What enforces NetworkPolicies in this cluster, where implementations differ.
    #[serde(deserialize_with = "null_is_default")]
    #[schemars(with = "Option<Cni>")]
    pub cni: Cni,
    /// Findings that may stand for a while by somebody's leave, beside the Waivers of the cluster
    /// (`waivers.portcullis.dev`), and how long any of them may last.
    #[serde(deserialize_with = "null_is_default")]
    #[schemars(with = "Option<WaiverSettings>")]
    pub waivers: WaiverSettings,
    /// How fresh what is known of the cluster must be.
    #[serde(deserialize_with = "null_is_default")]
    #[schemars(with = "Option<ViewSettings>")]
    pub view: ViewSettings,
}

/// How fresh what is known of a live cluster must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ViewSettings {
    /// Past this age rules warn where they would deny: `30s`, `5m`. The age grows while some watch
    /// of the cluster is cut off; `portcullis_view_age_seconds` tells it.
    #[serde(with = "unsigned_duration::friendly::compact::required")]
    #[schemars(with = "String")]
    pub max_age: Duration,
}

impl Default for ViewSettings {
    fn default() -> Self {
        Self { max_age: Duration::from_mins(5) }
    }
}

/// What becomes of a change when a rule fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// It is refused.
    Deny,
    /// It is allowed, with a warning to the user.
    #[default]
    Warn,
    /// It is allowed, and recorded in the audit log.
    Audit,
}

impl OnError {
    const fn action(self) -> Action {
        match self {
            Self::Deny => Action::Deny,
            Self::Warn => Action::Warn,
            Self::Audit => Action::Audit,
        }
    }
}

/// What happens to a change that the gate does not judge in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// It is denied, and the object stays as it was.
    #[default]
    Deny,
    /// It is allowed, with a warning to the user.
    Warn,
    /// It is allowed, and recorded in the audit log.
    Audit,
}

impl OnTimeout {
    const fn action(self) -> Action {
        match self {
            Self::Deny => Action::Deny,
            Self::Warn => Action::Warn,
            Self::Audit => Action::Audit,
        }
    }
}

/// What the file says of one rule. The options were accepted by the rule when they were read.
#[derive(Debug, Default, PartialEq, Serialize)]
struct RuleSettings {
    action: Option<Action>,
    #[serde(flatten)]
    options: serde_json::Map<String, Value>,
}

/// Takes any mapping; what is in it is the rule's to judge, in [`read()`].
impl<'de> Deserialize<'de> for RuleSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let options: Option<serde_json::Map<String, Value>> = Deserialize::deserialize(deserializer)?;
        Ok(Self { action: None, options: options.unwrap_or_default() })
    }
}

/// A section with nothing under it is one whose lines are all commented out.
fn null_is_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Settings {
    /// The rules as these settings want them.
    pub fn rule_set(&self) -> RuleSet {
        let active = |entry: &'static Entry| {
            let action = self.action(entry);
            let options = self.rules.get(entry.meta.name).map(|rule| rule.options.clone()).unwrap_or_default();
            let rule = entry.build(options.into())?.expect("a rule's options are checked when they are read");
            (action > Action::Off).then_some(ActiveRule { rule, action })
        };
        RuleSet {
            rules: RULES.iter().filter_map(active).collect(),
            environment: Environment {
                mode: self.mode,
                own_namespace: None,
                namespaces: self.namespaces.clone(),
                dns: self.dns.clone(),
                mesh: self.mesh.clone(),
                cni: self.cni.clone(),
                waivers: self.waivers.clone(),
            },
            profile: self.profile,
            builtin: builtin(|meta| self.action_of(meta)),
            on_error: self.on_error.action(),
            on_timeout: self.on_timeout.action(),
            max_age: SignedDuration::try_from(self.view.max_age).unwrap_or(SignedDuration::MAX),
        }
    }

    /// What a rule asks for: what the file says, else what the profile says.
    pub fn action(&self, entry: &Entry) -> Action {
        self.action_of(entry.meta)
    }

    fn action_of(&self, meta: &Meta) -> Action {
        if meta.name == CL_RULE_FAILED.name {
            return self.on_error.action();
        }
        let set = self.rules.get(meta.name).and_then(|rule| rule.action);
        set.unwrap_or(self.profile.of(meta.baseline, meta.restricted))
    }

    /// The options of a rule that differ from its defaults.
    pub fn changed_options(&self, entry: &Entry) -> Vec<(String, Value)> {
        let built = |options: Value| match entry.build(options) {
            Some(Ok(rule)) => rule.options(),
            Some(Err(_)) | None => Value::Null,
        };
        let set = self.rules.get(entry.meta.name).map(|rule| rule.options.clone()).unwrap_or_default();
        let (default, effective) = (built(Value::Object(serde_json::Map::new())), built(set.into()));
        let Value::Object(effective) = effective else { return Vec::new() };
        effective.into_iter().filter(|(name, value)| default.get(name) != Some(value)).collect()
    }
}
