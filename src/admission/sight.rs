//! What a review is judged against, and what is doubtful about it.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::k8s::Kind;
use crate::model::{Stop, Str, WebhookKind};
use crate::rules::{Action, Finding, Meta, Watched};

/// A cluster as a review sees it.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// What is known.
    pub cluster: &'a Cluster,
    /// Why it may not be what is.
    pub doubts: &'a [Doubt],
    /// Asks the review to end, once its answer would come too late.
    pub stop: Option<&'a Stop>,
}

/// Why what is known of a cluster may not be what is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It was last known to be current this long ago.
    Stale(Duration),
    /// These kinds of objects could not be read, not yet or not at all.
    Unread(Vec<Kind>),
    /// What a denial finds absent could not be looked for again: why.
    Unconfirmed(String),
    /// What a denial finds absent could not be looked for again in time.
    Late,
}

impl<'a> From<&'a Cluster> for Sight<'a> {
    fn from(cluster: &'a Cluster) -> Self {
        Self { cluster, doubts: &[], stop: None }
    }
}

impl Sight<'_> {
    /// Takes what is doubtful down to a warning that says so: missing knowledge never denies. What was
    /// doubtful for want of time becomes what `on_timeout` says, where the namespace's mode is known.
    pub(super) fn temper(&self, findings: &mut [Finding], on_timeout: Action) {
        for doubt in self.doubts {
            for finding in findings.iter_mut().filter(|finding| finding.action == Action::Deny) {
                if *doubt == Doubt::Late && finding.rests_on_absence && !self.is_unknown(finding) {
                    finding.action = on_timeout.max(Action::Audit);
                    finding.message = format!("{}; {doubt}", finding.message);
                    continue;
                }
                let is_doubtful = match doubt {
                    Doubt::Stale(_) => finding.rests_on_state,
                    Doubt::Unread(kinds) => {
                        finding.rests_on_state && kinds.iter().any(|kind| reads(finding.rule, *kind))
                    }
                    Doubt::Unconfirmed(_) | Doubt::Late => self.may_be_there_by_now(finding),
                };
                if is_doubtful {
                    finding.action = Action::Warn;
                    finding.message = format!("{}; this is no denial because {doubt}", finding.message);
                }
            }
        }
    }

    /// The namespaces to read anew before these findings are sent as denials: theirs, and the
    /// request's own, where a policy may be missing that others suffer for.
    pub(super) fn to_confirm(self, findings: &[Finding], requested: &str) -> Vec<Str> {
        let doubtful = findings.iter().filter(|it| it.action == Action::Deny && self.may_be_there_by_now(it));
        let mut namespaces: Vec<Str> = doubtful.filter_map(|finding| finding.namespace.clone()).collect();
        if !namespaces.is_empty() && !requested.is_empty() {
            namespaces.push(requested.into());
        }
        namespaces.sort_unstable();
        namespaces.dedup();
        namespaces
    }

    /// Whether a finding could be gone if all that was written by now were known: what it misses,
    /// or its namespace with the mode that is set there.
    fn may_be_there_by_now(&self, finding: &Finding) -> bool {
        finding.rests_on_absence || self.is_unknown(finding)
    }

    /// Whether the namespace of a finding, and so its mode, has not been seen.
    fn is_unknown(&self, finding: &Finding) -> bool {
        let is_unknown = |namespace: &Str| self.cluster.namespace(namespace).is_none_or(|it| it.object.is_none());
        finding.namespace.as_ref().is_some_and(is_unknown)
    }
}

/// Whether a rule can be wrong for not knowing of a kind. Not to know of workloads only leaves out
/// some that suffer, except for those that are cluster DNS.
pub(crate) fn reads(rule: &Meta, kind: Kind) -> bool {
    let watched = match kind {
        // Any finding may be one that somebody let stand.
        Kind::Waiver => return true,
        // Who is called is only ever something more to protect.
        Kind::WebhookConfiguration(WebhookKind::Validating) => return false,
        Kind::NetworkPolicy | Kind::ForeignPolicy => Watched::NetworkPolicies,
        // Where the mesh's root is, and which injectors it has: whoever asks what the mesh accepts
        // rests on both.
        Kind::PeerAuthentication | Kind::ConfigMap | Kind::WebhookConfiguration(WebhookKind::Mutating) => {
            Watched::PeerAuthentications
        }
        Kind::Namespace => Watched::Namespaces,
        Kind::Service | Kind::Workload => Watched::DnsServices,
    };
    rule.watches.iter().any(|watch| watch.what == watched)
}

/// What a kind is called where its objects are missing.
pub(crate) const fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Namespace => "Namespaces",
        Kind::Service => "Services",
        Kind::ConfigMap => "the mesh's ConfigMaps",
        Kind::Workload => "Pods",
        Kind::NetworkPolicy => "NetworkPolicies",
        Kind::PeerAuthentication => "PeerAuthentications",
        Kind::WebhookConfiguration(WebhookKind::Mutating) => "MutatingWebhookConfigurations",
        Kind::WebhookConfiguration(WebhookKind::Validating) => "ValidatingWebhookConfigurations",
        Kind::ForeignPolicy => "policies of other systems",
        Kind::Waiver => "Waivers",
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale(age) => {
                write!(f, "what portcullis knows of the cluster is {} seconds old", age.as_secs())
            }
            Self::Unread(kinds) => {
                let names: BTreeSet<&str> = kinds.iter().map(|kind| plural(*kind)).collect();
                let names: Vec<&str> = names.into_iter().collect();
                write!(f, "portcullis has not read all of the cluster: {} are missing", names.join(", "))
            }
            Self::Unconfirmed(why) => {
                write!(f, "what is missing may be there by now, and portcullis could not look: {why}")
            }
            Self::Late => f.write_str(
                "the API server did not confirm this in time: if what is missing is there by now, repeat the request",
            ),
        }
    }
}
