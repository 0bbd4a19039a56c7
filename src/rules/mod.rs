//! The rules, and how a change is judged by them.
//!
//! A rule is one struct in one file: its fields are its options, its doc comment is its page, its
//! `META` its identity. It answers one pure question: *which violations are there in this cluster?*
//! [`RuleSet::judge`] asks it twice, before and after a change, and what is new or worse is what
//! the change is answerable for.
//!
//! This differs from a linter's "check this object": a rule that asked about one object could not
//! tell a violation that a change brings from one that stood, and the ratchet rests on that.

mod action;
#[cfg(test)]
mod catalogue;
mod cover;
mod dns_blackhole;
mod dns_unserved;
mod environment;
mod finding;
#[cfg(test)]
mod fixes;
mod host_network_bypass;
mod invalid_waiver;
mod judge;
mod metadata_access;
mod missing_default_deny;
mod mode_loosened;
mod openness;
mod oversized_policy;
mod plaintext_mtls;
mod registry;
mod space;
mod testing;
mod variants;
mod violation;
mod waiver;
mod watch;
mod webhook_cut_off;
mod wildcard_ip_block;
mod words;
mod yaml;

use std::cell::OnceCell;
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cluster::{Cluster, NamespaceState};
use crate::model::{Change, Stop, Str, Workload, WorkloadId};

pub use action::{Action, Mode, Profile, Severity};
pub use environment::{Environment, NamespaceSettings};
pub use finding::Finding;
pub use judge::{ActiveRule, RuleSet, STACK};
pub use missing_default_deny::SHELTERED;
pub use oversized_policy::Limit;
pub use registry::{
    AnyRule, Built, CL_INVALID_CONFIGURATION, CL_RULE_FAILED, CL_UNREADABLE_OBJECT, CL_WEAKENED_CONFIGURATION, Entry,
    RULES, builtin, entry,
};
pub use violation::{Aspect, Barrier, Subject, Violation};
pub use waiver::{Flaw, GrantedHere, MaxDays, Renewals, Standing, Waived, WaiverSettings};
pub use watch::{Watch, Watched};

/// A rule's identity. Codes and names are never reused.
#[derive(Debug, PartialEq, Eq)]
pub struct Meta {
    /// `NP001`.
    pub code: &'static str,
    /// `missing-default-deny`: the wrong pattern, so that it reads well after "allow".
    pub name: &'static str,
    /// How much harm it names.
    pub severity: Severity,
    /// What the `baseline` profile asks for.
    pub baseline: Action,
    /// What the `restricted` profile asks for.
    pub restricted: Action,
    /// The first version that had it.
    pub since: &'static str,
    /// The changes that can alter its answer; the webhook is registered for these.
    pub watches: &'static [Watch],
}

/// One rule: its options are its fields.
pub trait Rule: Default + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// Its identity.
    const META: Meta;

    /// What part of the cluster this change can alter the answer for.
    fn scope(&self, change: &Change, before: &View<'_>, after: &View<'_>) -> Scope;

    /// Every violation in that part of a cluster, with no regard to what was before.
    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>);

    /// Whether a violation that stood before, and is no worse by its badness, is worse all the same:
    /// where one number does not tell everything.
    fn worsened(&self, _violation: &Violation, _before: &View<'_>, _after: &View<'_>) -> bool {
        false
    }

    /// [`Self::worsened`] of each of some violations, for a rule to which much is the same for many.
    fn each_worsened(&self, violations: &[Violation], before: &View<'_>, after: &View<'_>) -> Vec<bool> {
        let worsened = |violation| {
            after.check_stop();
            self.worsened(violation, before, after)
        };
        violations.iter().map(worsened).collect()
    }

    /// The strongest action a violation deserves at this moment; [`Action::Off`] drops it.
    fn ceiling(&self, _violation: &Violation, _moment: &Moment<'_>) -> Action {
        Action::Deny
    }

    /// [`Self::ceiling`] of each of some violations, for a rule to which much is the same for many.
    fn ceilings(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Action> {
        violations.iter().map(|violation| self.ceiling(violation, moment)).collect()
    }

    /// The mode a violation is met with, where the rule is about modes themselves; left out, that of its
    /// namespace.
    fn mode(&self, _violation: &Violation, _moment: &Moment<'_>) -> Option<Mode> {
        None
    }

    /// Whether it is for want of something that this is a violation: a policy that is not there, a
    /// label that is not set. What was written a moment ago may not have been seen yet, so a denial
    /// for want of it is confirmed before it is sent.
    fn rests_on_absence(&self, _violation: &Violation, _moment: &Moment<'_>) -> bool {
        true
    }

    /// Each option, and whether by it this lets pass, under `profile`, something that `before` stopped
    /// under `then`.
    fn loosened(&self, before: &Self, profile: Profile, then: Profile) -> Vec<(&'static str, bool)>;

    /// The violations as findings a person can act on, grouped as they read best. All of them
    /// carry the same action, are all new or all standing, and rest all or none on an absence.
    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding>;
}

/// A part of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// None of it: the change cannot alter the rule's answer.
    Nothing,
    /// One workload.
    Workload(Str, WorkloadId),
    /// One namespace and what is in it.
    Namespace(Str),
    /// All of it.
    Cluster,
}

impl Scope {
    /// Whether a workload lies in this part.
    pub fn covers(&self, namespace: &str, workload: &WorkloadId) -> bool {
        match self {
            Self::Nothing => false,
            Self::Workload(ns, id) => ns == namespace && id == workload,
            Self::Namespace(ns) => ns == namespace,
            Self::Cluster => true,
        }
    }

    /// The workloads of a namespace that lie in this part and have or will have traffic.
    pub fn live_workloads<'a>(&self, state: &'a NamespaceState) -> Box<dyn Iterator<Item = &'a Arc<Workload>> + 'a> {
        match self {
            Self::Workload(namespace, id) if *namespace == state.name => {
                Box::new(state.workloads.get(id).filter(|workload| !workload.is_finished).into_iter())
            }
            Self::Namespace(namespace) if *namespace == state.name => Box::new(state.live_workloads()),
            Self::Cluster => Box::new(state.live_workloads()),
            Self::Nothing | Self::Workload(..) | Self::Namespace(_) => Box::new(std::iter::empty()),
        }
    }

    /// The names of the namespaces this part lies in.
    pub fn namespaces<'a>(&'a self, cluster: &'a Cluster) -> Box<dyn Iterator<Item = &'a Str> + 'a> {
        match self {
            Self::Nothing => Box::new(std::iter::empty()),
            Self::Workload(namespace, _) | Self::Namespace(namespace) => Box::new(std::iter::once(namespace)),
            Self::Cluster => Box::new(cluster.namespaces().map(|state| &state.name)),
        }
    }
}

/// A cluster as rules look at it: with the settings that say what they cannot see, and with what
/// several rules would otherwise each work out.
pub struct View<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// What the configuration says about the cluster.
    pub environment: &'a Environment,
    /// The time; the domain reads no clock.
    pub now: Timestamp,
    stop: Option<&'a Stop>,
    dns: OnceCell<crate::reach::Dns<'a>>,
    mesh: OnceCell<crate::mesh::Mesh<'a>>,
}

impl<'a> View<'a> {
    /// A look at a cluster.
    pub fn new(cluster: &'a Cluster, environment: &'a Environment, now: Timestamp) -> Self {
        Self { cluster, environment, now, stop: None, dns: OnceCell::new(), mesh: OnceCell::new() }
    }

    /// The same look, by which judging ends when it is asked to.
    #[must_use]
    pub fn until(self, stop: Option<&'a Stop>) -> Self {
        Self { stop, ..self }
    }

    /// Returns, unless judging was asked to stop; see [`Stop::check`]. For each turn of a loop over what
    /// a cluster or an object holds.
    pub fn check_stop(&self) {
        self.stop.inspect(|stop| stop.check());
    }

    /// Where cluster DNS is, worked out once.
    pub fn dns(&self) -> &crate::reach::Dns<'a> {
        self.dns.get_or_init(|| crate::reach::Dns::find(self.cluster, &self.environment.dns))
    }

    /// The mesh, worked out once.
    pub fn mesh(&self) -> &crate::mesh::Mesh<'a> {
        self.mesh.get_or_init(|| crate::mesh::Mesh::new(self.cluster, &self.environment.mesh))
    }

    /// Who can reach whom.
    pub fn reach(&self) -> crate::reach::Reach<'a> {
        crate::reach::Reach::new(self.cluster, &self.environment.cni).until(self.stop)
    }
}

/// When a violation is looked at: as part of what stands, or as part of a change.
pub struct Moment<'a> {
    /// The cluster the violations are in.
    pub view: &'a View<'a>,
    /// The change and the cluster before it; nothing for `check` and audits.
    pub change: Option<(&'a Change, &'a View<'a>)>,
    /// The profile in force.
    pub profile: Profile,
    /// Whether the violations stood before the change and are no worse.
    pub standing: bool,
}
