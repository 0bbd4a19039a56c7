//! What keeps the gate from guarding: looked for in a live cluster, from outside of the gate.
//!
//! [`look()`] gathers [`Facts`] and is the only part that asks anything; [`examine`] makes [`Check`]s of
//! them and is a pure function. Nothing is changed, and nothing is stored: the one request that is no
//! read is a dry run of a known violation, which the gate has to deny.
//!
//! What it needs is what the gate itself may read, and beside that `list` of DaemonSets, nodes, and
//! Deployments in `kube-system`; `get` of the ConfigMaps of [`cni::CONFIG_MAPS`] there, and of the
//! gate's own in its namespace, unless a file is given; and, for the dry run, `create` of NetworkPolicies in the probe's namespace. What may not be read is said, and
//! counts as unknown.

pub mod cni;

mod certificate;
mod handshake;
mod judging;
mod look;
mod registration;
mod webhooks;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::k8s::Kind;
use crate::rules::RuleSet;
use crate::upkeep::Proof;

pub use handshake::Served;
pub use look::{Error, Questions, configuration, look};

/// What was asked for, or why it could not be had.
pub type Known<T> = Result<T, String>;

/// What is known of a cluster and of the gate in it.
#[derive(Debug)]
pub struct Facts {
    /// The namespace the gate runs in.
    pub namespace: String,
    /// The name of its ValidatingWebhookConfiguration.
    pub webhook: String,
    /// The time.
    pub now: Timestamp,
    /// What tells of an implementation of NetworkPolicy.
    pub signals: cni::Signals,
    /// Where the configuration was found that the rules are of.
    pub configuration: Origin,
    /// The cluster as rules see it.
    pub cluster: Arc<Cluster>,
    /// What of it may not be read.
    pub unread: Vec<Kind>,
    /// All webhook configurations, each with its `kind`.
    pub webhooks: Known<Vec<Value>>,
    /// What the gate serves, as seen from here.
    pub served: Known<Served>,
    /// What came of the dry run; nothing where none was sent.
    pub proof: Option<Proof>,
}

/// Where the gate's configuration was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file that was given.
    File(String),
    /// In the gate's ConfigMap: `portcullis/portcullis`.
    ConfigMap(String),
    /// In that ConfigMap, with errors: the defaults are taken.
    Refused(String, Vec<String>),
    /// Nowhere, for this reason: the defaults are taken.
    Unknown(String),
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Worth a look, or not known.
    Attention,
    /// The gate does not guard, or not for long.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Which: stays the same from version to version.
    pub name: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found, in one line.
    pub found: String,
    /// What it rests on, one line each.
    pub facts: Vec<String>,
    /// What it means; empty where all is well.
    pub meaning: String,
    /// What to do; empty where there is nothing to do.
    pub advice: String,
    /// Objects that can be applied as they are, as YAML. Empty where there is no one fix.
    pub fix: String,
}

impl Check {
    fn new(name: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict,
            found: found.into(),
            facts: Vec::new(),
            meaning: String::new(),
            advice: String::new(),
            fix: String::new(),
        }
    }

    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Good, found)
    }

    fn attention(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Attention, found)
    }

    fn bad(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Bad, found)
    }

    fn facts(self, facts: impl IntoIterator<Item = String>) -> Self {
        Self { facts: facts.into_iter().collect(), ..self }
    }

    fn means(self, meaning: impl Into<String>) -> Self {
        Self { meaning: meaning.into(), ..self }
    }

    fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..self }
    }
}

/// `good`, `attention`, `bad`.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::Attention => "attention",
            Self::Bad => "bad",
        })
    }
}

/// Everything there is to say, in the order in which to mend it.
pub fn examine(facts: &Facts, rules: &RuleSet) -> Vec<Check> {
    let mut checks = vec![enforcement(&cni::detect(&facts.signals))];
    checks.push(judging::configuration(facts, rules));
    checks.extend(registration::registered(facts));
    checks.extend(registration::covers(facts, rules));
    checks.push(proof(facts));
    checks.push(certificate::certificate(facts));
    checks.push(judging::judging(facts, rules));
    checks.push(judging::reach(facts, rules));
    checks.push(webhooks::others(facts));
    checks
}

fn enforcement(detection: &cni::Detection) -> Check {
    const NAME: &str = "enforcement";
    let engines = detection.engines.join(", ");
    let confidence = match detection.confidence {
        cni::Confidence::High => "",
        cni::Confidence::Medium => ", most likely",
        cni::Confidence::Low => ", perhaps",
    };
    let facts = detection.signals.iter().chain(&detection.caveats).cloned();
    match detection.enforces {
        cni::Enforces::Yes => Check::good(NAME, format!("NetworkPolicies are enforced by {engines}{confidence}")),
        cni::Enforces::No => Check::bad(NAME, format!("NetworkPolicies are not enforced{confidence}: {engines}"))
            .means(
                "the API server takes policies and they have no effect: every pod reaches every pod, whatever they say",
            )
            .advice("install an implementation that enforces them, or switch on the one that is there"),
        cni::Enforces::Unknown => {
            let found = if engines.is_empty() {
                "whether NetworkPolicies are enforced is not known: nothing was recognised".to_owned()
            } else {
                format!("whether NetworkPolicies are enforced is not known, with {engines}")
            };
            Check::attention(NAME, found)
                .means("nothing that was found enforces policies for certain, and nothing rules it out")
                .advice("try it: two pods, a policy between them, and a connection that must fail")
        }
    }
    .facts(facts)
}

fn proof(facts: &Facts) -> Check {
    const NAME: &str = "asked";
    match &facts.proof {
        None => Check::attention(NAME, "no dry run was sent, so it is not shown that the gate is asked"),
        Some(proof @ Proof::Denied) => Check::good(NAME, proof.to_string()),
        Some(proof @ (Proof::Admitted | Proof::Unreachable(_))) => Check::bad(NAME, proof.to_string())
            .means("changes pass unjudged, or are refused for want of an answer, as the registration's `failurePolicy` has it")
            .advice("look at the checks around this one, at the gate's /readyz?verbose, and at the API server's log"),
        Some(proof @ Proof::Unasked(_)) => Check::attention(NAME, proof.to_string())
            .means("it is not shown that the gate is asked")
            .advice("the dry run needs `create` of NetworkPolicies in its namespace; `--probe-namespace` names another"),
    }
}
