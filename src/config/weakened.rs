//! By what one configuration lets pass more than another.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;
use jiff::SignedDuration;
use serde_json::Value;

use crate::reach::{Cni, DnsSettings};
use crate::rules::{CL_RULE_FAILED, Environment, MaxDays, Meta, NamespaceSettings, RULES, RuleSet, WaiverSettings};
use crate::yaml;

/// A setting by which more passes than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weakening {
    /// The setting's path in the configuration.
    pub setting: String,
    /// What it does: ``falls from `enforce` to `warn` ``.
    pub change: String,
}

impl fmt::Display for Weakening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.setting, self.change)
    }
}

/// By what these rules let pass something that `before` does not, in the configuration's order.
pub fn weakened(after: &RuleSet, before: &RuleSet) -> Vec<Weakening> {
    let RuleSet { rules: _, environment, profile, builtin: _, on_error, on_timeout, max_age } = after;
    // What it takes the cluster for is neither more nor less.
    let Environment { mode, own_namespace: _, namespaces, dns: _, mesh: _, cni: _, waivers } = environment;
    let was = &before.environment;
    let mut found = Found::default();
    found.falls("profile", *profile, before.profile, |it| it.as_str());
    found.falls("mode", *mode, was.mode, |it| it.as_str());
    found.falls("onError", *on_error, before.on_error, |it| it.as_str());
    found.falls("onTimeout", *on_timeout, before.on_timeout, |it| it.as_str());
    for entry in RULES.iter().filter(|entry| entry.meta.name != CL_RULE_FAILED.name) {
        rule(entry.meta, after, before, &mut found);
    }
    let NamespaceSettings { exempt } = namespaces;
    for name in exempt.iter().filter(|name| !is_exempt(&was.namespaces, name)) {
        found.add("namespaces.exempt", format!("takes in `{name}`, whose workloads no rule is about then"));
    }
    let WaiverSettings { max_days, renewals, list: _ } = waivers;
    let MaxDays { low, medium, high, critical } = max_days;
    for (severity, days, were) in [
        ("low", low, was.waivers.max_days.low),
        ("medium", medium, was.waivers.max_days.medium),
        ("high", high, was.waivers.max_days.high),
        ("critical", critical, was.waivers.max_days.critical),
    ] {
        if *days > were {
            found.add(format!("waivers.maxDays.{severity}"), format!("rises from {were} to {days}"));
        }
    }
    if *renewals > was.waivers.renewals {
        found.add("waivers.renewals", format!("rises from {} to {}", was.waivers.renewals.0, renewals.0));
    }
    if *max_age < before.max_age {
        let span = |age: SignedDuration| format!("{age:#}");
        let (now, then) = (span(*max_age), span(before.max_age));
        found.add("view.maxAge", format!("falls from `{then}` to `{now}`, past which nothing is denied"));
    }
    found.0
}

/// The sections in which these rules take the cluster for something else than `before` does.
pub fn redescribed(after: &RuleSet, before: &RuleSet) -> Vec<&'static str> {
    let Environment { mode: _, own_namespace: _, namespaces: _, dns, mesh, cni, waivers: _ } = &after.environment;
    let was = &before.environment;
    // Neither the order of a list nor how ranges are cut says anything.
    let resolvers = |DnsSettings { services, addresses }: &DnsSettings| {
        let services: BTreeSet<_> = services.iter().map(|it| (it.namespace.clone(), it.name.clone())).collect();
        (services, addresses.iter().copied().collect::<BTreeSet<_>>())
    };
    let Cni { name, pod_ranges } = cni;
    let ranges = |ranges: &Vec<IpNet>| BTreeSet::from_iter(IpNet::aggregate(ranges));
    let is_other_cni = *name != was.cni.name || ranges(pod_ranges) != ranges(&was.cni.pod_ranges);
    [("dns", resolvers(dns) != resolvers(&was.dns)), ("mesh", *mesh != was.mesh), ("cni", is_other_cni)]
        .into_iter()
        .filter_map(|(section, is_other)| is_other.then_some(section))
        .collect()
}

fn rule(meta: &Meta, after: &RuleSet, before: &RuleSet, found: &mut Found) {
    let setting = |option: &str| format!("rules.{}.{option}", meta.name);
    found.falls(setting("action"), after.action_of(meta), before.action_of(meta), |it| it.as_str());
    let (Some(now), Some(then)) = (after.active(meta), before.active(meta)) else { return };
    let (options, were) = (now.rule.options(), then.rule.options());
    for (option, is_loosened) in now.rule.loosened(&were, after.profile, before.profile) {
        // Where it is written as it was, the profile has changed, and is named.
        if is_loosened && options.get(option) != were.get(option) {
            let written = |of: &Value| match of.get(option) {
                None | Some(Value::Null) => "what the profile asks for".to_owned(),
                Some(value) => format!("`{}`", yaml::flow(value)),
            };
            let change = format!("goes from {} to {}", written(&were), written(&options));
            found.add(setting(option), change);
        }
    }
}

/// Whether all that this name, or pattern, stands for is exempt.
fn is_exempt(namespaces: &NamespaceSettings, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => {
            namespaces.exempt.iter().filter_map(|it| it.strip_suffix('*')).any(|wider| prefix.starts_with(wider))
        }
        None => namespaces.is_exempt(pattern),
    }
}

#[derive(Default)]
struct Found(Vec<Weakening>);

impl Found {
    fn add(&mut self, setting: impl Into<String>, change: String) {
        self.0.push(Weakening { setting: setting.into(), change });
    }

    fn falls<T: Ord + Copy>(&mut self, setting: impl Into<String>, now: T, was: T, name: fn(&T) -> &'static str) {
        if now < was {
            self.add(setting, format!("falls from `{}` to `{}`", name(&was), name(&now)));
        }
    }
}
