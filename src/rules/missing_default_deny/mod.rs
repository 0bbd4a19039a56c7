//! NP001.

mod opening;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use jiff::fmt::serde::duration::friendly;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::openness::{as_good_as_all, is_as_good_as_all, numbered};
use super::variants::Variant;
use super::{
    Action, Aspect, Finding, Meta, Moment, Profile, Rule, Scope, Severity, Subject, View, Violation, Watched, space,
    words, yaml,
};
use crate::cluster::{NamespaceState, PolicySet};
use crate::model::{
    Change, Direction, Directions, FieldPath, Labels, NetworkPolicy, Object, ObjectRef, Operation, Operator,
    POD_TEMPLATE_HASH, PeerSpec, PolicyRule, Requirement, Selector, Str, Workload, WorkloadId, is_generated, written,
};
use crate::netset::{ConnectionSet, Family, Protocol};
use crate::reach::Truth;

use opening::{count, opens};
use survey::{ByDefault, Survey};

/// Reports namespaces in which some pod, present or future, is not isolated by default.
///
/// ## Why is this bad?
/// A pod that no NetworkPolicy isolates accepts connections from every pod of the cluster and opens
/// connections to anywhere. One compromised pod then reaches every database that nobody thought to
/// protect, and data leaves by any route. A default-deny turns this round: what is needed is
/// written down, and the rest is closed, for the workloads that will be added next year too.
///
/// Policies only add up: nothing one policy denies stays denied if another admits it. So what
/// counts is the union. A namespace passes when every pod there could be is isolated in each
/// required direction, and no pod is given everything back. A pod is given everything back when the
/// policies that select it admit so many ports to or from every pod of every namespace *and* an eighth or
/// more of all addresses that they may as well admit all. That is more than an eighth of the ports of TCP
/// or SCTP, more than half of those of UDP, or more than twelve of those on which services usually
/// listen: 22, 80, 443, 3306, 5432, 6379 and some forty more.
///
/// ## Example
/// ```yaml
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: default-deny
///   namespace: shop
/// spec:
///   podSelector: {}
///   policyTypes: [Ingress, Egress]
/// ---
/// # Beside it, this makes the default-deny a name and nothing more.
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: temporary-debugging
///   namespace: shop
/// spec:
///   podSelector: {}
///   policyTypes: [Ingress, Egress]
///   ingress: [{}]
///   egress: [{}]
/// ---
/// apiVersion: v1
/// kind: Pod
/// metadata:
///   name: cart
///   namespace: shop
/// spec:
///   containers: [{name: cart, image: cart}]
/// ```
///
/// Use instead:
/// ```yaml
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: default-deny
///   namespace: shop
/// spec:
///   podSelector: {}
///   policyTypes: [Ingress, Egress]
///   egress:
///   - to:
///     - namespaceSelector:
///         matchLabels:
///           kubernetes.io/metadata.name: kube-system
///       podSelector:
///         matchLabels:
///           k8s-app: kube-dns
///     ports:
///     - {protocol: UDP, port: 53}
///     - {protocol: TCP, port: 53}
/// ---
/// apiVersion: v1
/// kind: Pod
/// metadata:
///   name: cart
///   namespace: shop
/// spec:
///   containers: [{name: cart, image: cart}]
/// ```
///
/// ## When it fires
/// When a workload or a bare pod is created in a namespace without a default-deny. When a policy is
/// changed, deleted or given another owner, and a namespace or a workload loses its last default-deny.
/// When a policy or a label re-opens a workload. Creating a Namespace gets only a warning, because it must
/// exist before its policies can. So does deleting the last policy of a namespace in which nothing runs.
///
/// A template is judged with every label its pods may carry, including labels that the cluster writes:
/// the ordinal of a StatefulSet's pod, the hash of a revision, the zone of a node. If scaling is certain to
/// produce a value, a policy that opens pods with that value is denied. If only a controller knows the
/// value, the finding is a warning.
///
/// ## What it does not see
/// Policies of other systems (Cilium, Calico, AdminNetworkPolicy). Where one may touch the
/// namespace, the finding says so and is at most a warning.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct MissingDefaultDeny {
    /// The directions in which every pod must be isolated.
    #[serde(deserialize_with = "written::some")]
    #[schemars(length(min = 1))]
    directions: Vec<RequiredDirection>,
    /// How long after a namespace is created its workloads are warned about and not denied, for
    /// tools that apply policies last: `30s`, `5m`.
    #[serde(serialize_with = "friendly::compact::required", deserialize_with = "no_time_before")]
    #[schemars(with = "String")]
    grace: SignedDuration,
    /// Labels of pods that may be given everything back: an egress gateway, a scanner. A pod that
    /// carries all labels of one entry counts as defended as long as it is isolated.
    #[serde(deserialize_with = "written::label_sets")]
    unrestricted_pods: Vec<BTreeMap<String, String>>,
}

/// A span of time that does not run backwards.
fn no_time_before<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SignedDuration, D::Error> {
    let span = SignedDuration::deserialize(deserializer)?;
    if span.is_negative() {
        return Err(D::Error::custom(format!(
            "`{span:#}` is less than no time\nwrite how long: `30s`, `5m`; `0s` gives none"
        )));
    }
    Ok(span)
}

/// A direction as the configuration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RequiredDirection {
    Ingress,
    Egress,
}

impl Default for MissingDefaultDeny {
    fn default() -> Self {
        Self {
            directions: vec![RequiredDirection::Ingress, RequiredDirection::Egress],
            grace: SignedDuration::ZERO,
            unrestricted_pods: Vec::new(),
        }
    }
}

/// The badness of a violation whose pod is isolated by a policy that names it, in a namespace whose
/// default is open: what is worse is open now.
pub const SHELTERED: u8 = 2;

/// How bad a violation is; the ratchet compares these.
mod badness {
    /// It depends on what implements the policies, or could not be worked out.
    pub(super) const UNCERTAIN: u8 = 1;
    pub(super) use super::SHELTERED;
    /// Isolated, and given everything back.
    pub(super) const GIVEN_BACK: u8 = 3;
    /// Not isolated.
    pub(super) const NOT_ISOLATED: u8 = 4;
}

impl Rule for MissingDefaultDeny {
    const META: Meta = Meta {
        code: "NP001",
        name: "missing-default-deny",
        severity: Severity::High,
        baseline: Action::Deny,
        restricted: Action::Deny,
        since: "0.1.0",
        watches: &[Watched::NetworkPolicies.always(), Watched::Namespaces.when_set(), Watched::Workloads.when_set()],
    };

    fn scope(&self, change: &Change, _before: &View<'_>, _after: &View<'_>) -> Scope {
        match (change.operation(), change.subject()) {
            (_, Object::NetworkPolicy(policy)) => Scope::Namespace(policy.namespace.clone()),
            (Operation::Create | Operation::Update, Object::Workload(workload)) => {
                Scope::Workload(workload.namespace.clone(), workload.id.clone())
            }
            (Operation::Create | Operation::Update, Object::Namespace(namespace)) => {
                Scope::Namespace(namespace.name.clone())
            }
            (Operation::Delete, Object::Workload(_) | Object::Namespace(_))
            | (
                _,
                Object::Service(_)
                | Object::PeerAuthentication(_)
                | Object::MeshConfig(_)
                | Object::WebhookConfiguration(_)
                | Object::ForeignPolicy(_)
                | Object::Waiver(_),
            ) => Scope::Nothing,
        }
    }

    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>) {
        for namespace in scope.namespaces(view.cluster) {
            let Some(state) = view.cluster.namespace(namespace) else { continue };
            if view.environment.namespaces.is_exempt(namespace) || state.is_terminating() {
                continue;
            }
            for direction in self.directions() {
                let aspect = Aspect::Undefended(direction);
                let survey = Survey::of(view, state, direction);
                let by_default = survey.by_default().badness();
                if let (Some(badness), Scope::Namespace(_) | Scope::Cluster) = (by_default, scope) {
                    out.push(Violation {
                        namespace: namespace.clone(),
                        subject: Subject::Namespace,
                        aspect: aspect.clone(),
                        badness,
                    });
                }
                // Where every pod is isolated and all rules together are too few to open one, there is
                // nothing to ask of each.
                if by_default.is_none() && survey.opens_nothing() {
                    continue;
                }
                // Policies do not govern pods on their node's network, so none could defend them.
                for workload in scope.live_workloads(state).filter(|workload| !workload.host_network) {
                    view.check_stop();
                    if let Some(badness) = self.workload_badness(&survey, workload, by_default) {
                        let (subject, aspect) = (Subject::Workload(workload.id.clone()), aspect.clone());
                        out.push(Violation { namespace: namespace.clone(), subject, aspect, badness });
                    }
                }
                if by_default.is_none() && matches!(scope, Scope::Namespace(_) | Scope::Cluster) {
                    out.extend(self.opened_revisions(&survey).map(|revision| Violation {
                        namespace: namespace.clone(),
                        subject: Subject::Workload(revision.id.clone()),
                        aspect: aspect.clone(),
                        badness: badness::UNCERTAIN,
                    }));
                }
            }
        }
    }

    fn ceiling(&self, violation: &Violation, moment: &Moment<'_>) -> Action {
        let view = moment.view;
        let state = view.cluster.namespace(&violation.namespace);
        let is_unknown = violation.badness == badness::UNCERTAIN
            || view.cluster.foreign_policies(&violation.namespace).next().is_some()
            || violation.badness == badness::NOT_ISOLATED && state.is_some_and(may_isolate_more);
        // A namespace must exist before its policies can. Where nothing runs nothing is open, and what
        // is created there is judged: whoever clears a namespace is not held up.
        let is_empty = violation.subject == Subject::Namespace
            && state.is_none_or(|state| state.live_workloads().all(|workload| state.is_ending(workload)));
        let is_bootstrap = matches!(moment.change, Some((Change::Create(Object::Namespace(_)), _)));
        if is_unknown || is_empty || is_bootstrap || self.is_young(moment, state.map(AsRef::as_ref)) {
            return Action::Warn;
        }
        Action::Deny
    }

    /// What is given back is given back by policies that are there.
    fn rests_on_absence(&self, violation: &Violation, _moment: &Moment<'_>) -> bool {
        violation.badness != badness::GIVEN_BACK
    }

    fn loosened(&self, before: &Self, _profile: Profile, _then: Profile) -> Vec<(&'static str, bool)> {
        let Self { directions, grace, unrestricted_pods } = self;
        // Fewer labels are carried by more pods.
        let was_one = |pods: &BTreeMap<String, String>| {
            let takes_in = |old: &BTreeMap<String, String>| old.iter().all(|(key, value)| pods.get(key) == Some(value));
            before.unrestricted_pods.iter().any(takes_in)
        };
        vec![
            ("directions", before.directions.iter().any(|it| !directions.contains(it))),
            ("grace", *grace > before.grace),
            ("unrestrictedPods", !unrestricted_pods.iter().all(was_one)),
        ]
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        // What is open for want of a policy is one finding a namespace; what policies open is one
        // for those policies, which is where it can be mended.
        let mut groups: BTreeMap<(&Str, Cause), Vec<&Violation>> = BTreeMap::new();
        let mut surveys: BTreeMap<(&Str, Direction), Survey<'_, '_>> = BTreeMap::new();
        for violation in violations {
            moment.view.check_stop();
            let Some(direction) = direction_of(violation) else { continue };
            let Some(state) = moment.view.cluster.namespace(&violation.namespace) else { continue };
            let survey = surveys
                .entry((&violation.namespace, direction))
                .or_insert_with(|| Survey::of(moment.view, state, direction));
            let Some(cause) = Cause::of(violation, survey) else { continue };
            groups.entry((&violation.namespace, cause)).or_default().push(violation);
        }
        let one = |((namespace, cause), group): ((&Str, Cause), Vec<&Violation>)| {
            Some(self.explain_group(&Group::new(namespace, &cause, group, moment)?, moment))
        };
        groups.into_iter().filter_map(one).collect()
    }
}

/// Why pods are open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// No policy isolates the pods that no policy names.
    Missing,
    /// Policies of these names give everything back; perhaps, where `is_certain` is not set.
    Opened { by: Arc<[Str]>, is_certain: bool },
}

impl Cause {
    fn of(violation: &Violation, survey: &Survey<'_, '_>) -> Option<Self> {
        if violation.badness == badness::NOT_ISOLATED {
            return Some(Self::Missing);
        }
        let is_certain = violation.badness != badness::UNCERTAIN;
        let opened = |set: &PolicySet| Self::Opened { by: survey.openers(set), is_certain };
        if let Subject::Workload(id) = &violation.subject {
            let workload = survey.state.workloads.get(id)?;
            if violation.badness != badness::SHELTERED
                && let Some(opening) = survey.opening(workload)
            {
                return Some(opened(&opening));
            }
        }
        Some(match survey.by_default() {
            ByDefault::Opened(set, _) => opened(set),
            ByDefault::Sound | ByDefault::Missing | ByDefault::Unknown => Self::Missing,
        })
    }
}

/// What one finding is about.
struct Group<'a> {
    namespace: &'a Str,
    state: &'a NamespaceState,
    violations: Vec<&'a Violation>,
    directions: Vec<Direction>,
    /// The policies that give everything back; none where the default-deny is missing.
    openers: Vec<&'a NetworkPolicy>,
    is_certain: bool,
    /// The workloads that are open now; the others are sheltered by policies that name them.
    open: Vec<String>,
    sheltered: Vec<String>,
}

impl<'a> Group<'a> {
    fn new(namespace: &'a Str, cause: &Cause, violations: Vec<&'a Violation>, moment: &'a Moment<'_>) -> Option<Self> {
        let cluster = moment.view.cluster;
        let state = cluster.namespace(namespace)?;
        let mut directions: Vec<Direction> = violations.iter().filter_map(|it| direction_of(it)).collect();
        directions.sort_unstable();
        directions.dedup();
        let (sheltered, open): (Vec<_>, Vec<_>) =
            violations.iter().copied().partition(|it| it.badness == badness::SHELTERED);
        let (open, sheltered) = (words::workloads(cluster, &open), words::workloads(cluster, &sheltered));
        let (by, is_certain) = match cause {
            Cause::Missing => (&[][..], violations.iter().any(|it| it.badness != badness::UNCERTAIN)),
            Cause::Opened { by, is_certain } => (by.as_ref(), *is_certain),
        };
        let openers = by.iter().filter_map(|name| state.policies.get(name.as_str())).map(AsRef::as_ref).collect();
        let known: BTreeSet<&String> = open.iter().collect();
        let sheltered = sheltered.into_iter().filter(|workload| !known.contains(workload)).collect();
        Some(Self { namespace, state, violations, directions, openers, is_certain, open, sheltered })
    }

    /// Whether pods to come are concerned, and not only workloads that a policy names.
    fn is_about_default(&self) -> bool {
        self.violations.iter().any(|it| it.subject == Subject::Namespace)
    }
}

impl MissingDefaultDeny {
    fn directions(&self) -> impl Iterator<Item = Direction> {
        Direction::ALL.into_iter().filter(|direction| {
            self.directions.contains(match direction {
                Direction::Ingress => &RequiredDirection::Ingress,
                Direction::Egress => &RequiredDirection::Egress,
            })
        })
    }

    /// How badly off the worst pods of a workload are, in a namespace whose default is this bad.
    fn workload_badness(&self, survey: &Survey<'_, '_>, workload: &Workload, by_default: Option<u8>) -> Option<u8> {
        let Some(pods) = survey.pods_of(workload) else {
            let as_written = self.pod_badness(survey, &workload.labels, by_default);
            return as_written.max(Some(badness::UNCERTAIN));
        };
        let of_one = |pod: &Variant| {
            let badness = self.pod_badness(survey, &pod.labels, by_default)?;
            Some(if pod.is_certain { badness } else { badness.min(badness::UNCERTAIN) })
        };
        pods.iter().filter_map(of_one).max()
    }

    fn pod_badness(&self, survey: &Survey<'_, '_>, labels: &Labels, by_default: Option<u8>) -> Option<u8> {
        let selecting = survey.selecting(labels);
        if selecting.is_empty() {
            return Some(badness::NOT_ISOLATED);
        }
        if self.is_unrestricted(labels) {
            return None;
        }
        given_back(survey.opens(&selecting)).max(by_default.map(|bad| bad.min(badness::SHELTERED)))
    }

    /// The revisions a Deployment keeps that are opened though its own pods are not. They may run again,
    /// by a rollback, which is judged, or by being scaled, which is not.
    fn opened_revisions<'a>(&self, survey: &Survey<'a, '_>) -> impl Iterator<Item = &'a Workload> {
        let kept = survey.state.kept_revisions().filter(|(revision, deployment)| {
            let labels = &revision.labels;
            !revision.host_network
                && labels.without(POD_TEMPLATE_HASH) != deployment.labels.without(POD_TEMPLATE_HASH)
                && !self.is_unrestricted(labels)
                && survey.opens(&survey.selecting(labels)) > Truth::No
        });
        kept.map(|(revision, _)| revision.as_ref())
    }

    fn is_unrestricted(&self, pod: &Labels) -> bool {
        let carries = |wanted: &BTreeMap<String, String>| wanted.iter().all(|(key, value)| pod.has(key, value));
        self.unrestricted_pods.iter().any(|wanted| !wanted.is_empty() && carries(wanted))
    }

    /// Whether a workload is being created in a namespace that is younger than the grace.
    fn is_young(&self, moment: &Moment<'_>, state: Option<&NamespaceState>) -> bool {
        let Some((Change::Create(Object::Workload(_)), _)) = moment.change else { return false };
        let created = state.and_then(|state| state.object.as_ref()).and_then(|namespace| namespace.created);
        // A clock that is behind the API server's makes nothing younger than new.
        let age = |created| moment.view.now.duration_since(created).max(SignedDuration::ZERO);
        created.is_some_and(|created| age(created) < self.grace)
    }

    fn explain_group(&self, group: &Group<'_>, moment: &Moment<'_>) -> Finding {
        let view = moment.view;
        let (object, path) = self.place(group, moment);
        let mut finding = Finding::new(Some(group.namespace.clone()), object, path, message(group, moment));
        finding.why = why(&group.directions, !group.openers.is_empty());
        finding.evidence = evidence(group, moment);
        if let Some(foreign) = view.cluster.foreign_policies(group.namespace).next() {
            finding.evidence.push(format!(
                "{} `{}` may isolate these pods too; its meaning is not judged here, so this is at most a warning",
                foreign.kind, foreign.name
            ));
        }
        if group.openers.is_empty() {
            let then = if moment.change.is_some_and(|(change, _)| change.operation() == Operation::Create) {
                ", then repeat the request"
            } else {
                ""
            };
            let and = if group.directions.contains(&Direction::Egress) { " and lets them resolve names" } else { "" };
            let first = if moment.change.is_some() { " first" } else { "" };
            finding.help = format!(
                "apply this policy{first}{then}. It isolates every pod of `{}`{and}: connections the workloads need must be admitted by policies of their own",
                group.namespace
            );
            finding.fix =
                yaml::documents(&default_deny(group, moment).iter().map(yaml::network_policy).collect::<Vec<_>>());
        } else {
            let names: Vec<_> = group.openers.iter().map(|policy| format!("`{}`", policy.name)).collect();
            let narrow = format!(
                "narrow or delete {}: policies only add up, so no further policy takes back what {} give{}",
                words::some_of(&names),
                if names.len() == 1 { "it" } else { "they" },
                if names.len() == 1 { "s" } else { "" },
            );
            if !is_worth_writing_out(group) {
                finding.help = narrow;
                return finding;
            }
            finding.help = format!(
                "{narrow}. What is below keeps the isolation and drops the rules that admit everything; name in it the peers that are needed"
            );
            let mut narrowed = narrowed(group, view);
            if group.directions.contains(&Direction::Ingress) {
                // What is dropped let everybody ask the DNS pods, if this is where they are.
                let mut names = yaml::FreeNames::of(group.namespace, moment);
                narrowed.extend(yaml::admit_dns_clients(view.dns(), group.namespace, &mut names));
            }
            finding.fix = yaml::documents(&narrowed.iter().map(yaml::network_policy).collect::<Vec<_>>());
        }
        finding
    }

    /// The object to look at, and where in it.
    fn place(&self, group: &Group<'_>, moment: &Moment<'_>) -> (ObjectRef, FieldPath) {
        let opener = group.openers.first();
        if let Some((change, _)) = moment.change {
            let path = match change.after() {
                Some(Object::NetworkPolicy(policy)) => {
                    match group.openers.iter().find(|opener| opener.name == policy.name) {
                        Some(opener) => opening_path(opener, &group.directions),
                        None => self.lacking_field(policy),
                    }
                }
                _ => FieldPath::root(),
            };
            return (change.reference(), path);
        }
        let of = |kind: &str, namespace: Option<&Str>, name: &Str| ObjectRef {
            kind: kind.into(),
            namespace: namespace.cloned(),
            name: name.clone(),
        };
        if let Some(opener) = opener {
            let path = opening_path(opener, &group.directions);
            return (of("NetworkPolicy", Some(group.namespace), &opener.name), path);
        }
        let workload = group.violations.iter().find_map(|violation| match &violation.subject {
            Subject::Workload(id) => Some(id),
            Subject::Namespace | Subject::Policy(_) | Subject::Waiver(_) => None,
        });
        // What the namespace holds is written by whoever reads this; the Namespace often is not.
        match (workload, group.state.policies.iter().next()) {
            (Some(id), _) => (of(&id.kind, Some(group.namespace), &id.name), FieldPath::root()),
            (None, Some(policy)) => {
                (of("NetworkPolicy", Some(group.namespace), &policy.name), self.lacking_field(policy))
            }
            (None, None) => (of("Namespace", None, group.namespace), FieldPath::root()),
        }
    }

    /// The field that keeps a policy from being a default-deny.
    fn lacking_field(&self, policy: &NetworkPolicy) -> FieldPath {
        if self.directions().any(|direction| !policy.isolates.contains(direction)) {
            return FieldPath::new("spec.policyTypes");
        }
        FieldPath::new("spec.podSelector")
    }
}

/// The rule by which a policy gives everything back, or the list of those that do together.
fn opening_path(policy: &NetworkPolicy, directions: &[Direction]) -> FieldPath {
    let opening = directions.iter().copied().find(|direction| !policy.rules(*direction).is_empty());
    let direction = opening.unwrap_or(Direction::Ingress);
    match policy.rules(direction) {
        [_] => NetworkPolicy::rule_path(direction, 0),
        rules => match rules.iter().position(|rule| rule.peers.is_none() && is_as_good_as_all(&numbered(rule))) {
            Some(rule) => NetworkPolicy::rule_path(direction, rule),
            None => FieldPath::root().field("spec").field(direction.field()),
        },
    }
}

/// How many policies, and how many of their rules and peers together, are written out narrowed.
/// What is larger was made by a program, and is mended where it is made.
const MOST_WRITTEN_OUT: (usize, usize) = (16, 2000);

fn is_worth_writing_out(group: &Group<'_>) -> bool {
    let (policies, parts) = MOST_WRITTEN_OUT;
    let rules = || group.openers.iter().flat_map(|policy| Direction::ALL.into_iter().flat_map(|it| policy.rules(it)));
    group.openers.len() <= policies
        && rules().map(|rule| 1 + rule.peers.iter().flatten().count()).sum::<usize>() <= parts
}

/// The policies without what opens them: the widest rule or block first, until what is left of all
/// of them gives nothing back. A rule left without peers goes, since it would admit everyone.
fn narrowed(group: &Group<'_>, view: &View<'_>) -> Vec<NetworkPolicy> {
    let mut policies: Vec<NetworkPolicy> = group.openers.iter().map(|policy| (*policy).clone()).collect();
    for &direction in &group.directions {
        let mut parts: Vec<(Part, f64)> = Vec::new();
        for (p, policy) in policies.iter().enumerate() {
            for (r, rule) in policy.rules(direction).iter().enumerate() {
                parts.extend(widths(rule).into_iter().map(|(peer, width)| ((p, r, peer), width)));
            }
        }
        parts.sort_by(|(a, a_width), (b, b_width)| b_width.total_cmp(a_width).then_with(|| b.cmp(a)));
        let parts: Vec<Part> = parts.into_iter().map(|(part, _)| part).collect();
        // The fewest that must go: dropping one more never opens anything.
        let (mut enough, mut too_few) = (parts.len(), 0);
        let opens_without = |dropped: usize| {
            let left = without(&policies, direction, parts.get(..dropped).unwrap_or_default());
            opens(view, left.iter(), direction) != Truth::No
        };
        while too_few < enough {
            let half = usize::midpoint(too_few, enough);
            if opens_without(half) {
                too_few = half + 1;
            } else {
                enough = half;
            }
        }
        policies = without(&policies, direction, parts.get(..enough).unwrap_or_default());
    }
    for (policy, written) in policies.iter_mut().zip(&group.openers) {
        if policy.egress != written.egress {
            // What is dropped let the pods resolve names.
            let selected = group.state.live_workloads().filter(|workload| policy.pods.matches(&workload.labels));
            let rules = yaml::resolver_rules(view.dns(), selected.map(AsRef::as_ref));
            yaml::add_rules(&mut policy.egress, rules);
        }
    }
    let changed = policies.into_iter().zip(&group.openers).filter(|(policy, written)| policy != **written);
    changed.map(|(policy, _)| policy).collect()
}

/// A rule of a policy, or one of its peers: their places.
type Part = (usize, usize, Option<usize>);

/// The policies without some parts. A rule left without peers goes, since it would admit everyone.
fn without(policies: &[NetworkPolicy], direction: Direction, dropped: &[Part]) -> Vec<NetworkPolicy> {
    let dropped: BTreeSet<Part> = dropped.iter().copied().collect();
    let kept_rule = |p: usize, r: usize, rule: &PolicyRule| {
        let Some(peers) = &rule.peers else { return (!dropped.contains(&(p, r, None))).then(|| rule.clone()) };
        let kept = peers.iter().enumerate().filter(|(i, _)| !dropped.contains(&(p, r, Some(*i))));
        let kept: Vec<PeerSpec> = kept.map(|(_, peer)| peer.clone()).collect();
        (!kept.is_empty()).then(|| PolicyRule { peers: Some(kept), ports: rule.ports.clone() })
    };
    let kept_policy = |(p, policy): (usize, &NetworkPolicy)| {
        let rules = policy.rules(direction).iter().enumerate().filter_map(|(r, rule)| kept_rule(p, r, rule)).collect();
        match direction {
            Direction::Ingress => NetworkPolicy { ingress: rules, ..policy.clone() },
            Direction::Egress => NetworkPolicy { egress: rules, ..policy.clone() },
        }
    };
    policies.iter().enumerate().map(kept_policy).collect()
}

/// How much a rule admits, apart for each peer that may be dropped: its share of addresses times
/// its ports. A rule without peers is one, and as wide as can be.
fn widths(rule: &PolicyRule) -> Vec<(Option<usize>, f64)> {
    let ports = count(rule);
    let Some(peers) = &rule.peers else { return vec![(None, ports)] };
    let blocks = peers.iter().enumerate().filter_map(|(i, peer)| match peer {
        PeerSpec::Block(block) => {
            let share = Family::ALL.into_iter().map(|family| space::share(&block.addresses, family)).sum::<f64>();
            Some((Some(i), share * ports))
        }
        PeerSpec::Pods { .. } | PeerSpec::Unreadable => None,
    });
    blocks.collect()
}

fn message(group: &Group<'_>, moment: &Moment<'_>) -> String {
    let Group { namespace, directions, openers, is_certain, open, sheltered, .. } = group;
    let ways = words::directions(directions);
    let whose = match (open.as_slice(), sheltered.as_slice()) {
        ([], []) => "every pod to come".to_owned(),
        ([], sheltered) if !group.is_about_default() => words::some_of(sheltered),
        ([], _) => "every pod to come".to_owned(),
        (open, _) => words::some_of(open),
    };
    if !openers.is_empty() {
        let names: Vec<_> = openers.iter().map(|policy| format!("`{}`", policy.name)).collect();
        let ways = format!("{ways}{}", over(group));
        let (by, s) = (policies(&names), if names.len() == 1 { "s" } else { "" });
        let together = if names.len() == 1 { "" } else { " together" };
        if !is_certain {
            return format!(
                "in namespace `{namespace}`, {by}{together} may give all {ways} back to {whose}: {}",
                doubt(group)
            );
        }
        if open.is_empty() && !sheltered.is_empty() && !group.is_about_default() {
            return format!(
                "in namespace `{namespace}`, {by}{together} give{s} all {ways} back by default: only policies of its own protect {whose}"
            );
        }
        return format!("in namespace `{namespace}`, {by}{together} give{s} all {ways} back to {whose}");
    }
    if !is_certain {
        let keys = generated_keys(group.state.policies.iter().map(AsRef::as_ref));
        if group.is_about_default() || keys.is_empty() {
            return format!(
                "namespace `{namespace}` may have no default-deny for {ways}: its selectors are too many to tell"
            );
        }
        return format!(
            "in namespace `{namespace}`, {whose} may be open for {ways}: which pods are isolated depends on {}, which the cluster writes",
            words::list(&keys)
        );
    }
    match moment.change {
        Some((
            change @ (Change::Update(Object::NetworkPolicy(_), _) | Change::Delete(Object::NetworkPolicy(_))),
            _,
        )) if !moment.standing => {
            let doing = if change.operation() == Operation::Delete { "deleting" } else { "changing" };
            let name = change.reference().name;
            if group.is_about_default() {
                format!(
                    "{doing} NetworkPolicy `{name}` takes the last default-deny for {ways} from namespace `{namespace}` and opens {whose}"
                )
            } else {
                format!(
                    "{doing} NetworkPolicy `{name}` takes the last isolation of {ways} from {whose} in namespace `{namespace}`"
                )
            }
        }
        Some((Change::Create(Object::Namespace(_)), _)) => {
            format!("namespace `{namespace}` starts without a default-deny for {ways}")
        }
        Some(_) | None if open.is_empty() && !sheltered.is_empty() => format!(
            "namespace `{namespace}` has no default-deny for {ways}: its policies isolate only the pods they name"
        ),
        Some(_) | None => format!("namespace `{namespace}` has no default-deny for {ways}, which leaves {whose} open"),
    }
}

/// Why it is not certain that policies give everything back.
fn doubt(group: &Group<'_>) -> String {
    let mut revisions = group.state.kept_revisions();
    let is_one = |id: &WorkloadId| group.violations.iter().any(|it| it.subject == Subject::Workload(id.clone()));
    if revisions.any(|(revision, _)| is_one(&revision.id)) {
        return "to pods of an old revision, should one be scaled up again".to_owned();
    }
    match generated_keys(group.openers.iter().copied()).as_slice() {
        [] => "it depends on what enforces the policies".to_owned(),
        keys => format!("it depends on {}, which the cluster writes on pods", words::list(keys)),
    }
}

/// The labels that the cluster writes on pods, among those by which policies select.
fn generated_keys<'p>(policies: impl Iterator<Item = &'p NetworkPolicy>) -> Vec<String> {
    let requirements = policies.flat_map(|policy| policy.pods.requirements());
    let keys: BTreeSet<&Str> = requirements.map(|it| &it.key).filter(|key| is_generated(key)).collect();
    keys.iter().map(|key| format!("`{key}`")).collect()
}

/// Over which protocols everything is given back, where that is not TCP among others.
fn over(group: &Group<'_>) -> String {
    let rules = group.openers.iter().flat_map(|policy| group.directions.iter().flat_map(|it| policy.rules(*it)));
    let ports: Vec<_> = rules.map(numbered).collect();
    let protocols: Vec<Protocol> = as_good_as_all(&ConnectionSet::union_of(&ports)).collect();
    if protocols.contains(&Protocol::Tcp) || protocols.is_empty() {
        return String::new();
    }
    format!(" over {}", words::list(&protocols.iter().map(|it| it.as_str()).collect::<Vec<_>>()))
}

/// ``NetworkPolicy `a` ``, ``NetworkPolicies `a` and `b` ``.
fn policies(names: &[String]) -> String {
    let noun = if names.len() == 1 { "NetworkPolicy" } else { "NetworkPolicies" };
    format!("{noun} {}", words::some_of(names))
}

fn why(directions: &[Direction], is_given_back: bool) -> String {
    let exposure = match directions {
        [Direction::Ingress] => "any pod of the cluster can connect to these pods",
        [Direction::Egress] => "these pods can connect to anything, inside the cluster and out of it",
        _ => {
            "any pod of the cluster can connect to these pods, and they can connect to anything, inside the cluster and out of it"
        }
    };
    if is_given_back {
        format!("the union of the policies is what counts, and it admits everything: {exposure}")
    } else {
        format!("a pod that no policy isolates is open: {exposure}")
    }
}

/// How many policies the evidence names.
const MOST_EVIDENCE: usize = 8;

/// What there is in place of a default-deny, policy by policy.
fn evidence(group: &Group<'_>, moment: &Moment<'_>) -> Vec<String> {
    let Group { state, directions, openers, .. } = group;
    let everything = if openers.len() == 1 { "admits everything" } else { "admits much" };
    let mut lines: Vec<String> = openers
        .iter()
        .take(MOST_EVIDENCE)
        .map(|policy| {
            let paths: Vec<_> =
                directions.iter().map(|direction| format!("`{}`", opening_path(policy, &[*direction]))).collect();
            format!(
                "NetworkPolicy `{}` selects {} and {everything} in {}",
                policy.name,
                selection(&policy.pods),
                words::list(&paths)
            )
        })
        .collect();
    let keys = generated_keys(openers.iter().copied());
    if !keys.is_empty() {
        lines.push(format!(
            "the cluster itself writes {} on pods: what is scaled up carries it, and no review is asked",
            words::list(&keys)
        ));
    }
    if state.policies.is_empty() {
        let has_lost_one = moment.change.is_some_and(|(_, before)| {
            before.cluster.namespace(group.namespace).is_some_and(|state| !state.policies.is_empty())
        });
        let left = if has_lost_one {
            "no NetworkPolicy is left in the namespace"
        } else {
            "the namespace has no NetworkPolicy"
        };
        lines.push(left.to_owned());
    }
    if let Some(more) = openers.len().checked_sub(MOST_EVIDENCE).filter(|more| *more > 0) {
        lines.push(format!("so do {more} more"));
    }
    let known: BTreeSet<&Str> = openers.iter().map(|opener| &opener.name).collect();
    for policy in state.policies.iter().filter(|policy| !known.contains(&policy.name)).take(MOST_EVIDENCE) {
        for &direction in directions {
            if !policy.isolates.contains(direction) {
                if !policy.rules(direction).is_empty() {
                    lines.push(format!(
                        "NetworkPolicy `{}` has {direction} rules, but `{}` is not in its `policyTypes`: they have no effect",
                        policy.name,
                        direction.policy_type()
                    ));
                } else if policy.pods.is_everything() {
                    lines.push(format!("NetworkPolicy `{}` isolates every pod, but not for {direction}", policy.name));
                }
            } else if !policy.pods.is_everything() && openers.is_empty() {
                lines.push(format!(
                    "NetworkPolicy `{}` isolates {direction} of pods with {} only",
                    policy.name,
                    selection(&policy.pods)
                ));
            }
        }
    }
    lines
}

fn selection(pods: &Selector) -> String {
    if pods.is_everything() { "every pod".to_owned() } else { format!("`{pods}`") }
}

/// The policy that mends a namespace: it isolates every pod, and lets names be resolved where it
/// closes egress, so that applying it breaks nothing that DNS alone needs. In the namespace of the
/// DNS pods one goes before it that lets everybody ask them.
fn default_deny(group: &Group<'_>, moment: &Moment<'_>) -> Vec<NetworkPolicy> {
    let isolates = Directions {
        ingress: group.directions.contains(&Direction::Ingress),
        egress: group.directions.contains(&Direction::Egress),
    };
    let (dns, mut names) = (moment.view.dns(), yaml::FreeNames::of(group.namespace, moment));
    let mut policies =
        if isolates.ingress { yaml::admit_dns_clients(dns, group.namespace, &mut names) } else { Vec::new() };
    let workloads = group.state.live_workloads().map(AsRef::as_ref);
    let egress = if isolates.egress { yaml::resolver_rules(dns, workloads) } else { Vec::new() };
    let name = names.next("default-deny");
    policies.push(yaml::isolating(group.namespace, name, Selector::everything(), isolates, egress));
    policies
}

fn direction_of(violation: &Violation) -> Option<Direction> {
    if let Aspect::Undefended(direction) = violation.aspect { Some(direction) } else { None }
}

/// Whether a policy may isolate more than could be read of it: by an operator of its selector or by
/// a policy type that this version does not know. Nothing else that cannot be read makes a
/// difference: what a policy admits only adds up, so it takes nothing back, and what is certain to be
/// open stays so whatever odd network somebody puts beside it.
fn may_isolate_more(state: &Arc<NamespaceState>) -> bool {
    let is_unread = |it: &Requirement| matches!(it.operator, Operator::Unknown(_));
    state.policies.unread().any(|policy| {
        policy.is_partial && policy.isolates != Directions::BOTH || policy.pods.requirements().iter().any(is_unread)
    })
}

fn given_back(opens: Truth) -> Option<u8> {
    match opens {
        Truth::No => None,
        Truth::Maybe => Some(badness::UNCERTAIN),
        Truth::Yes => Some(badness::GIVEN_BACK),
    }
}

#[cfg(test)]
mod tests;
