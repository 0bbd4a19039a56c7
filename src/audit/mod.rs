//! The audit: what stands, judged by the same rules as changes are, and told to those who were not
//! there when it came to be.
//!
//! ```text
//! cluster + rules --scan--> findings, posture of each namespace
//!                              |--> a table for a person        (report)
//!                              |--> one report a namespace      (publish, written when it changes)
//!                              |--> Events where a verdict changes, and at once where a policy is gone
//!                              +--> gauges
//! ```
//!
//! What one namespace refuses is no failure of the audit, or whoever may set a quota could have it
//! repeated for ever; what the API server refuses altogether is, and is tried again at once.
//!
//! [`scan`] is a pure function and `posture` a reading of the rules' own violations, so that the
//! table, the reports and the gate cannot disagree. What writes is [`run`], on the one replica that
//! holds a lease.
//!
//! **What its account must be allowed to do** beside reading what is judged:
//!
//! | for | resource | verbs |
//! |---|---|---|
//! | the Lease | `leases.coordination.k8s.io` in its own namespace | `create`, and `get` `update` by name |
//! | reports | `reports` and `clusterreports` of `openreports.io`, `policyreports` and `clusterpolicyreports` of `wgpolicyk8s.io` | `list` `create` `update` `delete` |
//! | Events | `events.events.k8s.io` | `create` |

mod content;
mod cycle;
mod events;
mod lease;
mod left;
mod losses;
mod posture;
mod publish;
mod refusals;

use jiff::Timestamp;

use crate::cluster::{Cluster, Leaving};
use crate::rules::{Action, Finding, RuleSet, Severity};

pub use cycle::{Settings, run};
pub use posture::{Dns, Isolation, Mtls, Posture, Waivers};

/// What an audit came to.
#[derive(Debug)]
pub struct Scan {
    /// When.
    pub at: Timestamp,
    /// Each namespace, by name.
    pub namespaces: Vec<Posture>,
    /// Everything that is wrong, gravest first.
    pub findings: Vec<Finding>,
}

/// Judges all of a cluster.
pub fn scan(rules: &RuleSet, cluster: &Cluster, now: Timestamp) -> Scan {
    let findings = rules.judge_all(cluster, now);
    // A policy that is being deleted is no protection.
    let settled = cluster.without(Leaving::Ending, cluster.namespaces().map(|state| &state.name));
    let namespaces = posture::of(rules, settled.as_ref().unwrap_or(cluster), &findings, now);
    Scan { at: now, namespaces, findings }
}

/// How grave a finding is beside others: by what would become of it, then by the harm it names.
pub fn gravity(finding: &Finding) -> (bool, Action, Severity) {
    (finding.waived.is_none(), finding.action, finding.rule.severity)
}
