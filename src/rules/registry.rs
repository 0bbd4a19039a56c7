//! The one list of rules. The webhook's kinds, the documentation's table, the configuration's
//! schema and `portcullis rules` all derive from it.

use std::collections::BTreeMap;

use schemars::Schema;
use serde_json::Value;

use super::dns_blackhole::DnsBlackhole;
use super::dns_unserved::DnsUnserved;
use super::host_network_bypass::HostNetworkBypass;
use super::invalid_waiver::InvalidWaiver;
use super::metadata_access::MetadataAccess;
use super::missing_default_deny::MissingDefaultDeny;
use super::mode_loosened::ModeLoosened;
use super::oversized_policy::OversizedPolicy;
use super::plaintext_mtls::PlaintextMtls;
use super::webhook_cut_off::WebhookCutOff;
use super::wildcard_ip_block::WildcardIpBlock;
use super::{Action, Finding, Meta, Mode, Moment, Profile, Rule, Scope, Severity, View, Violation};
use crate::model::Change;

/// Every rule, in the order the catalogue prints.
pub static RULES: &[Entry] = &[
    Entry::of::<MissingDefaultDeny>(),
    Entry::of::<DnsBlackhole>(),
    Entry::of::<WildcardIpBlock>(),
    Entry::of::<OversizedPolicy>(),
    Entry::of::<HostNetworkBypass>(),
    Entry::of::<DnsUnserved>(),
    Entry::of::<MetadataAccess>(),
    Entry::of::<PlaintextMtls>(),
    Entry::builtin(&CL_UNREADABLE_OBJECT, UNREADABLE_OBJECT_PAGE),
    Entry::builtin(&CL_RULE_FAILED, RULE_FAILED_PAGE),
    Entry::of::<InvalidWaiver>(),
    Entry::of::<ModeLoosened>(),
    Entry::of::<WebhookCutOff>(),
    Entry::builtin(&CL_INVALID_CONFIGURATION, INVALID_CONFIGURATION_PAGE),
    Entry::builtin(&CL_WEAKENED_CONFIGURATION, WEAKENED_CONFIGURATION_PAGE),
];

/// An object that could not be read in full.
pub const CL_UNREADABLE_OBJECT: Meta = Meta {
    code: "CL001",
    name: "unreadable-object",
    severity: Severity::Medium,
    baseline: Action::Warn,
    restricted: Action::Deny,
    since: "0.1.0",
    watches: &[],
};

const UNREADABLE_OBJECT_PAGE: &str = "\
Reports an object, or a part of one, that this version cannot read.

## Why is this bad?
What cannot be read cannot be judged. A policy with a field of a newer API version, or with an
address that does not parse, may allow more or less than the part that was read. It is never
skipped: what could be read counts, and the rest is said to be unknown.

The API server refuses most such objects itself. In manifests that have not met one yet, this
finding is what it would say.";

/// A rule that failed.
pub const CL_RULE_FAILED: Meta = Meta {
    code: "CL002",
    name: "rule-failed",
    severity: Severity::High,
    baseline: Action::Warn,
    restricted: Action::Warn,
    since: "0.1.0",
    watches: &[],
};

const RULE_FAILED_PAGE: &str = "\
Reports a rule that failed while it judged an object. The fault is in Portcullis, not in the object.

## Why is this bad?
A rule that does not answer is a rule that is not enforced. The other rules still answer, the server
keeps running, and `onError` in the configuration decides what becomes of the request.";

/// A configuration of the gate's own that it would refuse.
pub const CL_INVALID_CONFIGURATION: Meta = Meta {
    code: "CL009",
    name: "invalid-configuration",
    severity: Severity::High,
    baseline: Action::Deny,
    restricted: Action::Deny,
    since: "0.1.0",
    watches: &[],
};

const INVALID_CONFIGURATION_PAGE: &str = "\
Reports a configuration that the gate would refuse.

Looked at is each ConfigMap in the gate's own namespace that has the key `portcullis.yaml`.

## Why is this bad?
A gate that runs keeps its last good configuration and says so in a metric and a log line, which is
easily overlooked: what was written has no effect. A gate that starts with it does not start at all,
perhaps months later, on another node, when nobody remembers the change.

The denial names the field. One that could not be read before is no reason to refuse the next, so
that it can be mended in steps.

What would be taken and has no effect is a warning: an entry of `waivers.list` that reaches further
ahead than `waivers.maxDays` lets it.";

/// A configuration of the gate's own that lets pass more than the one it replaces.
pub const CL_WEAKENED_CONFIGURATION: Meta = Meta {
    code: "CL010",
    name: "weakened-configuration",
    severity: Severity::High,
    baseline: Action::Warn,
    restricted: Action::Warn,
    since: "0.1.0",
    watches: &[],
};

const WEAKENED_CONFIGURATION_PAGE: &str = "\
Reports a configuration by which the gate lets pass more than before.

Looked at is each ConfigMap in the gate's own namespace that has the key `portcullis.yaml`, when it is
created, changed or deleted. What counts: a lower `mode`, `profile`, `onError` or `onTimeout`; a rule
that is switched off or asks for less; an option that makes a rule less strict; another namespace under
`exempt`; waivers that may last longer; a shorter `view.maxAge`, past which nothing is denied; a rule
that would say so no longer. It is compared with what the ConfigMap held before, and with what is in
force where it held nothing.

What the configuration takes the cluster for (`dns`, `mesh`, `cni`) can be right or wrong and is neither
more nor less: that it changes is said, and never refused.

## Why is this bad?
Whoever may write this one ConfigMap decides what the gate denies, everywhere, within seconds and with
no restart. That is as it should be, and it should not go unseen: a `mode: audit` from the night of an
incident is in force until somebody remembers it.

It is a warning, so that it never stands between a person and an emergency. With `deny` the
configuration can only grow stricter while the gate is asked: to weaken it then takes the deletion of
the gate's registration, which the API server's audit log tells of.

## What it does not see
A configuration that is in no ConfigMap, or in another namespace. Which of several ConfigMaps is the one
the gate reads: each of them is looked at. An entry more in `waivers.list`: it has an owner, a reason and
an end, and is counted like any other waiver.";

/// A rule ready to run, or where in its options the error is.
pub type Built = Result<Box<dyn AnyRule>, serde_path_to_error::Error<serde_json::Error>>;

/// A rule the registry knows, with its type forgotten.
pub struct Entry {
    /// Its identity.
    pub meta: &'static Meta,
    build: Option<fn(Value) -> Built>,
    schema: fn() -> Schema,
    page: Option<&'static str>,
}

impl Entry {
    /// A rule that runs over a cluster.
    pub const fn of<R: Rule>() -> Self {
        Self {
            meta: &R::META,
            build: Some(|options| {
                let rule: R = serde_path_to_error::deserialize(options)?;
                Ok(Box::new(rule))
            }),
            schema: || schemars::schema_for!(R),
            page: None,
        }
    }

    /// A finding that is not about what a cluster adds up to, and is raised by whoever meets it.
    const fn builtin(meta: &'static Meta, page: &'static str) -> Self {
        Self { meta, build: None, schema: || Schema::from(true), page: Some(page) }
    }

    /// The rule with these options, or where in them the error is; nothing for what is built in.
    pub fn build(&self, options: Value) -> Option<Built> {
        self.build.map(|build| build(options))
    }

    /// Whether it has options beside its action.
    pub fn has_options(&self) -> bool {
        self.build.is_some()
    }

    /// The schema of its options.
    pub fn schema(&self) -> Schema {
        (self.schema)()
    }

    /// Its page, as Markdown.
    pub fn page(&self) -> String {
        match self.page {
            Some(page) => page.to_owned(),
            None => self.schema().get("description").and_then(Value::as_str).unwrap_or_default().to_owned(),
        }
    }
}

/// What becomes of findings that whoever meets them raises, by their codes. What becomes of a rule that
/// failed is `onError`'s to say.
pub fn builtin(action: impl Fn(&'static Meta) -> Action) -> BTreeMap<&'static str, Action> {
    let entries = RULES.iter().filter(|entry| !entry.has_options() && *entry.meta != CL_RULE_FAILED);
    entries.map(|entry| (entry.meta.code, action(entry.meta))).collect()
}

/// The rule of this name or code.
pub fn entry(name: &str) -> Option<&'static Entry> {
    RULES.iter().find(|entry| entry.meta.name == name || entry.meta.code.eq_ignore_ascii_case(name))
}

/// A [`Rule`] with its type forgotten.
pub trait AnyRule: Send + Sync {
    /// See [`Rule::META`].
    fn meta(&self) -> &'static Meta;
    /// Its options as they were set, defaults filled in.
    fn options(&self) -> Value;
    /// See [`Rule::scope`].
    fn scope(&self, change: &Change, before: &View<'_>, after: &View<'_>) -> Scope;
    /// See [`Rule::violations`].
    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>);
    /// See [`Rule::each_worsened`].
    fn each_worsened(&self, violations: &[Violation], before: &View<'_>, after: &View<'_>) -> Vec<bool>;
    /// See [`Rule::ceilings`].
    fn ceilings(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Action>;
    /// See [`Rule::mode`].
    fn mode(&self, violation: &Violation, moment: &Moment<'_>) -> Option<Mode>;
    /// See [`Rule::rests_on_absence`].
    fn rests_on_absence(&self, violation: &Violation, moment: &Moment<'_>) -> bool;
    /// See [`Rule::loosened`]; `before` is a rule of the same type, as its options.
    fn loosened(&self, before: &Value, profile: Profile, then: Profile) -> Vec<(&'static str, bool)>;
    /// See [`Rule::explain`].
    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding>;
}

impl<R: Rule> AnyRule for R {
    fn meta(&self) -> &'static Meta {
        &R::META
    }

    fn options(&self) -> Value {
        serde_json::to_value(self).expect("options are plain data with string keys")
    }

    fn scope(&self, change: &Change, before: &View<'_>, after: &View<'_>) -> Scope {
        Rule::scope(self, change, before, after)
    }

    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>) {
        Rule::violations(self, view, scope, out);
    }

    fn each_worsened(&self, violations: &[Violation], before: &View<'_>, after: &View<'_>) -> Vec<bool> {
        Rule::each_worsened(self, violations, before, after)
    }

    fn ceilings(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Action> {
        Rule::ceilings(self, violations, moment)
    }

    fn mode(&self, violation: &Violation, moment: &Moment<'_>) -> Option<Mode> {
        Rule::mode(self, violation, moment)
    }

    fn rests_on_absence(&self, violation: &Violation, moment: &Moment<'_>) -> bool {
        Rule::rests_on_absence(self, violation, moment)
    }

    fn loosened(&self, before: &Value, profile: Profile, then: Profile) -> Vec<(&'static str, bool)> {
        let before = R::deserialize(before).expect("a rule's own options are read as they were written");
        Rule::loosened(self, &before, profile, then)
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        Rule::explain(self, violations, moment)
    }
}
