//! What the rules can judge, and whether the gate is within reach.

use std::collections::BTreeMap;

use super::{Check, Facts, Origin, Verdict};
use crate::admission::{plural, reads};
use crate::rules::{Finding, Mode, RuleSet};

/// By what configuration the gate judges, and whether it denies anything.
pub(super) fn configuration(facts: &Facts, rules: &RuleSet) -> Check {
    const NAME: &str = "configuration";
    let (profile, mode) = (rules.profile.as_str(), rules.environment.mode);
    let by = format!("profile `{profile}`, mode `{}`", mode.as_str());
    let place = match &facts.configuration {
        Origin::File(path) => format!("`{path}`"),
        Origin::ConfigMap(name) => format!("ConfigMap {name}"),
        Origin::Refused(name, problems) => {
            return Check::bad(NAME, format!("the configuration in ConfigMap {name} is not one the gate takes"))
                .facts(problems.iter().cloned())
                .means("gates that run keep the last good one, and a gate that starts with this one does not start")
                .advice("correct it; `portcullis config check FILE` tries one");
        }
        Origin::Unknown(why) => {
            return Check::attention(NAME, format!("the gate's configuration is not known: {why}"))
                .facts([format!("the defaults are taken for it: {by}")])
                .means("what rests on it below may be otherwise")
                .advice("`--config` names a file with it");
        }
    };
    match mode {
        Mode::Enforce => Check::good(NAME, format!("the gate judges by {place}: {by}")),
        Mode::Warn | Mode::Audit => Check::attention(NAME, format!("the gate judges by {place}: {by}"))
            .means("nothing is denied but in namespaces whose label `portcullis.dev/mode` says so")
            .advice("`portcullis audit` shows what enforcing would deny; enforce namespace by namespace, then all"),
    }
}

/// Which rules only warn, for want of something they rest on.
pub(super) fn judging(facts: &Facts, rules: &RuleSet) -> Check {
    const NAME: &str = "rules";
    let mut wanting: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for active in &rules.rules {
        let meta = active.rule.meta();
        for kind in facts.unread.iter().filter(|kind| reads(meta, **kind)) {
            let names = wanting.entry(plural(*kind)).or_default();
            if !names.contains(&meta.name) {
                names.push(meta.name);
            }
        }
    }
    if wanting.is_empty() {
        return Check::good(NAME, format!("every rule that is on can be judged: {}", rules.rules.len()));
    }
    let told = wanting.iter().map(|(what, names)| format!("{what} may not be read, on which {} rests", list(names)));
    Check::attention(NAME, "some rules only warn where they would deny")
        .facts(told)
        .means("what is not known never denies; seen with the account that asks here, which need not be the gate's")
        .advice("grant `get`, `list` and `watch` of what is missing; to ask as the gate does: a kubeconfig with its account")
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Whether policies or the mesh keep the API server from the gate, or from the webhooks of others.
pub(super) fn reach(facts: &Facts, rules: &RuleSet) -> Check {
    const NAME: &str = "reach";
    const RULE: &str = "webhook-cut-off";
    if !rules.rules.iter().any(|active| active.rule.meta().name == RULE) {
        return Check::attention(
            NAME,
            format!("the rule `{RULE}` is off, so nobody looks whether the gate is cut off"),
        );
    }
    let findings = rules.judge_all(&facts.cluster, facts.now);
    let cut_off: Vec<&Finding> = findings.iter().filter(|finding| finding.rule.name == RULE).collect();
    let Some(first) = cut_off.first() else {
        return Check::good(NAME, "neither a policy nor the mesh keeps the API server from an admission webhook");
    };
    let is_own = |finding: &&&Finding| finding.namespace.as_deref() == Some(facts.namespace.as_str());
    let own = cut_off.iter().find(is_own);
    let shown = own.unwrap_or(first);
    let verdict = if own.is_some() { Verdict::Bad } else { Verdict::Attention };
    let found = if own.is_some() {
        "the API server cannot reach the gate"
    } else {
        "the API server cannot reach the webhook of another"
    };
    let check = Check::new(NAME, verdict, found)
        .facts(cut_off.iter().flat_map(|finding| [finding.message.clone()].into_iter().chain(finding.evidence.clone())))
        .means(shown.why.clone())
        .advice(shown.help.clone());
    Check { fix: shown.fix.clone(), ..check }
}
