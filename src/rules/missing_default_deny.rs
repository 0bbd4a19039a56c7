//! NP001.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cover::{Clause, covers_everything, matches, nameless_pods};
use super::{Action, Aspect, Finding, Meta, Moment, Rule, Scope, Severity, Subject, View, Violation, words, yaml};
use crate::cluster::NamespaceState;
use crate::model::{
    Change, Direction, Directions, FieldPath, Labels, NetworkPolicy, Object, ObjectRef, Operation, PeerSpec,
    PolicyRule, Port, Selector, Str, Workload,
};
use crate::netset::{Family, IpSet, Protocol};
use crate::reach::Truth;

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
/// policies that select it admit most TCP ports to or from every pod of every namespace *and* most
/// addresses outside the cluster.
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
/// When a workload or a bare pod is created in an undefended namespace; when a policy is changed or
/// deleted and a namespace loses its last defence; when a namespace stops being exempt. Creating a
/// Namespace only warns: it must exist before its policies can.
///
/// ## What it does not see
/// Policies of other systems (Cilium, Calico, AdminNetworkPolicy). Where one may touch the
/// namespace, the finding says so and is at most a warning.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct MissingDefaultDeny {
    /// The directions in which every pod must be isolated.
    directions: Vec<RequiredDirection>,
    /// How long after a namespace is created its workloads are warned about and not denied, for
    /// tools that apply policies last: `30s`, `5m`.
    #[schemars(with = "String")]
    grace: SignedDuration,
    /// Labels of pods that may be given everything back: an egress gateway, a scanner. A pod that
    /// carries all labels of one entry counts as defended as long as it is isolated.
    unrestricted_pods: Vec<BTreeMap<String, String>>,
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

/// How bad a violation is; the ratchet compares these.
mod badness {
    /// It depends on what implements the policies, or could not be worked out.
    pub(super) const UNCERTAIN: u8 = 1;
    /// Isolated, and given everything back.
    pub(super) const GIVEN_BACK: u8 = 2;
    /// Not isolated.
    pub(super) const NOT_ISOLATED: u8 = 3;
}

impl Rule for MissingDefaultDeny {
    const META: Meta = Meta {
        code: "NP001",
        name: "missing-default-deny",
        severity: Severity::High,
        baseline: Action::Deny,
        restricted: Action::Deny,
        since: "0.1.0",
        watches: &[
            "networking.k8s.io/networkpolicies",
            "/namespaces",
            "/pods",
            "/replicationcontrollers",
            "apps/deployments",
            "apps/statefulsets",
            "apps/daemonsets",
            "apps/replicasets",
            "batch/jobs",
            "batch/cronjobs",
        ],
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
                | Object::Revision(_)
                | Object::ForeignPolicy(_),
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
                let by_default = Self::default_badness(view, state, direction);
                if let (Some(badness), Scope::Namespace(_) | Scope::Cluster) = (by_default, scope) {
                    out.push(Violation {
                        namespace: namespace.clone(),
                        subject: Subject::Namespace,
                        aspect: aspect.clone(),
                        badness,
                    });
                }
                let in_scope = state.live_workloads().filter(|workload| scope.covers(namespace, &workload.id));
                // Policies do not govern pods on their node's network, so none could defend them.
                for workload in in_scope.filter(|workload| !workload.host_network) {
                    let badness = by_default.max(self.workload_badness(view, state, workload, direction));
                    if let Some(badness) = badness {
                        let (subject, aspect) = (Subject::Workload(workload.id.clone()), aspect.clone());
                        out.push(Violation { namespace: namespace.clone(), subject, aspect, badness });
                    }
                }
            }
        }
    }

    fn ceiling(&self, violation: &Violation, moment: &Moment<'_>) -> Action {
        let view = moment.view;
        let state = view.cluster.namespace(&violation.namespace);
        let is_unknown = violation.badness == badness::UNCERTAIN
            || view.cluster.foreign_policies(&violation.namespace).next().is_some()
            || state.is_some_and(|state| state.policies.iter().any(|policy| policy.is_partial));
        // A namespace must exist before its policies can.
        let is_bootstrap = match moment.change {
            Some((change, _)) => matches!(change, Change::Create(Object::Namespace(_))),
            None => {
                violation.subject == Subject::Namespace
                    && state.is_none_or(|state| state.live_workloads().next().is_none())
            }
        };
        if is_unknown || is_bootstrap || self.is_young(moment, state.map(AsRef::as_ref)) {
            return Action::Warn;
        }
        Action::Deny
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        // What is open for want of a policy is one finding a namespace; what a policy opens is one
        // for that policy, which is where it can be mended.
        let mut groups: BTreeMap<(&Str, Vec<Str>), Vec<&Violation>> = BTreeMap::new();
        for violation in violations {
            let openers = Self::openers_of(violation, moment.view);
            groups.entry((&violation.namespace, openers)).or_default().push(violation);
        }
        groups
            .into_iter()
            .map(|((namespace, openers), group)| self.explain_group(namespace, &openers, &group, moment))
            .collect()
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

    /// How badly off a pod is that no selector names, and any pod to come: the namespace's default.
    fn default_badness(view: &View<'_>, state: &NamespaceState, direction: Direction) -> Option<u8> {
        let isolating: Vec<&NetworkPolicy> = isolating(state, direction).collect();
        let clauses: Vec<_> = isolating.iter().map(|policy| Clause { namespace: None, pod: &policy.pods }).collect();
        match covers_everything(&clauses) {
            Some(true) => {}
            Some(false) => return Some(badness::NOT_ISOLATED),
            None => return Some(badness::UNCERTAIN),
        }
        if !might_open(&isolating, direction) {
            return None;
        }
        let selectors: Vec<&Selector> = isolating.iter().map(|policy| &policy.pods).collect();
        let pods = nameless_pods(&selectors);
        let worst = pods.iter().map(|pod| {
            let selecting: Vec<_> = isolating.iter().copied().filter(|policy| matches(&policy.pods, pod)).collect();
            opens(view, &selecting, direction)
        });
        given_back(worst.max()?)
    }

    /// How badly off one workload is, in a namespace whose default is sound.
    fn workload_badness(
        &self,
        view: &View<'_>,
        state: &NamespaceState,
        workload: &Workload,
        direction: Direction,
    ) -> Option<u8> {
        if self.is_unrestricted(&workload.labels) {
            return None;
        }
        let selecting: Vec<_> =
            isolating(state, direction).filter(|policy| policy.pods.matches(&workload.labels)).collect();
        if selecting.is_empty() || !might_open(&selecting, direction) {
            return None;
        }
        given_back(opens(view, &selecting, direction))
    }

    fn is_unrestricted(&self, pod: &Labels) -> bool {
        let carries = |wanted: &BTreeMap<String, String>| wanted.iter().all(|(key, value)| pod.has(key, value));
        self.unrestricted_pods.iter().any(|wanted| !wanted.is_empty() && carries(wanted))
    }

    /// Whether a workload is being created in a namespace that is younger than the grace.
    fn is_young(&self, moment: &Moment<'_>, state: Option<&NamespaceState>) -> bool {
        let Some((Change::Create(Object::Workload(_)), _)) = moment.change else { return false };
        let created = state.and_then(|state| state.object.as_ref()).and_then(|namespace| namespace.created);
        created.is_some_and(|created| moment.view.now.duration_since(created) < self.grace)
    }

    /// The names of the policies that give everything back to whom a violation is about; none
    /// where nothing isolates it.
    fn openers_of(violation: &Violation, view: &View<'_>) -> Vec<Str> {
        let Some(state) = view.cluster.namespace(&violation.namespace) else { return Vec::new() };
        let Some(direction) = direction_of(violation) else { return Vec::new() };
        if violation.badness == badness::NOT_ISOLATED {
            return Vec::new();
        }
        let concerns = |policy: &NetworkPolicy| match &violation.subject {
            Subject::Workload(id) => {
                state.workloads.get(id).is_some_and(|workload| policy.pods.matches(&workload.labels))
            }
            Subject::Namespace | Subject::Policy(_) => true,
        };
        isolating(state, direction)
            .filter(|policy| concerns(policy) && opens(view, &[policy], direction) != Truth::No)
            .map(|policy| policy.name.clone())
            .collect()
    }

    fn explain_group(&self, namespace: &Str, openers: &[Str], group: &[&Violation], moment: &Moment<'_>) -> Finding {
        let view = moment.view;
        let state = view.cluster.namespace(namespace).map(AsRef::as_ref);
        let mut directions: Vec<Direction> = group.iter().filter_map(|it| direction_of(it)).collect();
        directions.sort_unstable();
        directions.dedup();
        let workloads = words::workloads(view.cluster, group);
        let is_isolated = group.iter().all(|it| it.badness < badness::NOT_ISOLATED);
        let openers: Vec<Opener<'_>> = openers
            .iter()
            .filter_map(|name| state?.policies.get(name.as_str()))
            .map(|policy| Opener { policy, directions: directions.clone() })
            .collect();

        let (object, path) = self.place(namespace, group, moment, openers.first());
        let mut finding = Finding::new(
            Some(namespace.clone()),
            object,
            path,
            message(namespace, group, &directions, &workloads, moment, &openers),
        );
        finding.why = why(&directions, is_isolated);
        finding.evidence = evidence(state, &directions, &openers);
        if let Some(foreign) = view.cluster.foreign_policies(namespace).next() {
            finding.evidence.push(format!(
                "{} `{}` may isolate these pods too; its meaning is not judged here, so this is at most a warning",
                foreign.kind, foreign.name
            ));
        }
        if is_isolated && openers.is_empty() {
            finding.help = "no single policy opens these pods, but together they do: compare their rules without peers and their wide blocks, and narrow one of them".to_owned();
        } else if is_isolated {
            let names: Vec<_> = openers.iter().map(|opener| format!("`{}`", opener.policy.name)).collect();
            finding.help = format!(
                "narrow or delete {}: policies only add up, so no further policy takes back what it gives. What is below keeps the isolation and drops the rules that admit everything; name in it the peers that are needed",
                words::list(&names)
            );
            finding.fix = yaml::documents(&openers.iter().map(|opener| opener.narrowed(view)).collect::<Vec<_>>());
        } else {
            finding.help = format!(
                "apply this policy first{}. It isolates every pod of `{namespace}`{}: connections the workloads need must be admitted by policies of their own",
                if moment.change.is_some_and(|(change, _)| change.operation() == Operation::Create) {
                    ", then repeat the request"
                } else {
                    ""
                },
                if directions.contains(&Direction::Egress) { " and lets them resolve names" } else { "" },
            );
            finding.fix = yaml::network_policy(&default_deny(view, namespace, state, &directions));
        }
        finding
    }

    /// The object to look at, and where in it.
    fn place(
        &self,
        namespace: &Str,
        group: &[&Violation],
        moment: &Moment<'_>,
        opener: Option<&Opener<'_>>,
    ) -> (ObjectRef, FieldPath) {
        let policy_ref = |policy: &NetworkPolicy| ObjectRef {
            kind: "NetworkPolicy".into(),
            namespace: Some(policy.namespace.clone()),
            name: policy.name.clone(),
        };
        if let Some((change, _)) = moment.change {
            let path = match (change.after(), opener) {
                (Some(Object::NetworkPolicy(policy)), Some(opener)) if opener.policy.name == policy.name => {
                    opener.path()
                }
                (Some(Object::NetworkPolicy(policy)), _) => self.lacking_field(policy),
                _ => FieldPath::root(),
            };
            return (change.reference(), path);
        }
        if let Some(opener) = opener {
            return (policy_ref(opener.policy), opener.path());
        }
        let workload = group.iter().find_map(|violation| match &violation.subject {
            Subject::Workload(id) => Some(id),
            Subject::Namespace | Subject::Policy(_) => None,
        });
        let state = moment.view.cluster.namespace(namespace);
        match (state.and_then(|state| state.object.as_ref()), workload) {
            (None, Some(id)) => (
                ObjectRef { kind: id.kind.clone(), namespace: Some(namespace.clone()), name: id.name.clone() },
                FieldPath::root(),
            ),
            (Some(_), _) | (None, None) => {
                (ObjectRef { kind: "Namespace".into(), namespace: None, name: namespace.clone() }, FieldPath::root())
            }
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

/// A policy that gives everything back.
struct Opener<'a> {
    policy: &'a NetworkPolicy,
    directions: Vec<Direction>,
}

impl Opener<'_> {
    fn path(&self) -> FieldPath {
        let direction = self.directions.first().copied().unwrap_or(Direction::Ingress);
        match self.policy.rules(direction) {
            [_] => NetworkPolicy::rule_path(direction, 0),
            rules => match rules.iter().position(|rule| rule.peers.is_none() && tcp_ports(rule) > MOST_PORTS) {
                Some(rule) => NetworkPolicy::rule_path(direction, rule),
                None => FieldPath::root().field("spec").field(direction.field()),
            },
        }
    }

    /// The policy without the rules that open it: first those that name nobody, then those that
    /// name addresses, until what is left opens it no more.
    fn narrowed(&self, view: &View<'_>) -> String {
        let mut policy = self.policy.clone();
        for &direction in &self.directions {
            while opens(view, &[&policy], direction) != Truth::No {
                let rules = match direction {
                    Direction::Ingress => &mut policy.ingress,
                    Direction::Egress => &mut policy.egress,
                };
                let has_block =
                    |rule: &PolicyRule| rule.peers.iter().flatten().any(|peer| matches!(peer, PeerSpec::Block(_)));
                let culprit = rules
                    .iter()
                    .position(|rule| rule.peers.is_none() && tcp_ports(rule) > MOST_PORTS)
                    .or_else(|| rules.iter().position(|rule| rule.peers.is_none()))
                    .or_else(|| rules.iter().position(has_block));
                let Some(culprit) = culprit else { break };
                rules.remove(culprit);
            }
        }
        if self.directions.contains(&Direction::Egress) {
            // What is dropped let the pods resolve names.
            yaml::add_rules(&mut policy.egress, yaml::dns_rules(view.dns()));
        }
        yaml::network_policy(&policy)
    }
}

fn message(
    namespace: &str,
    group: &[&Violation],
    directions: &[Direction],
    workloads: &[String],
    moment: &Moment<'_>,
    openers: &[Opener<'_>],
) -> String {
    let ways = words::directions(directions);
    let whose = if workloads.is_empty() { "every pod to come".to_owned() } else { words::some_of(workloads) };
    if group.iter().all(|it| it.badness == badness::UNCERTAIN) {
        return format!(
            "namespace `{namespace}` may have no effective default-deny for {ways}: it depends on what enforces the policies ({whose})"
        );
    }
    let given_back = group.iter().all(|it| it.badness < badness::NOT_ISOLATED);
    if given_back {
        let names: Vec<_> = openers.iter().map(|opener| format!("`{}`", opener.policy.name)).collect();
        let by = if names.is_empty() { "its policies together".to_owned() } else { policies(&names) };
        let verb = if names.len() == 1 { "gives" } else { "give" };
        return format!(
            "in namespace `{namespace}` {by} {verb} all {ways} back to {whose}: the default-deny has no effect"
        );
    }
    match moment.change {
        Some((
            change @ (Change::Update(Object::NetworkPolicy(_), _) | Change::Delete(Object::NetworkPolicy(_))),
            _,
        )) if !moment.standing => {
            let doing = if change.operation() == Operation::Delete { "deleting" } else { "changing" };
            format!(
                "{doing} NetworkPolicy `{}` takes the last default-deny for {ways} from namespace `{namespace}`, and opens {whose}",
                change.reference().name
            )
        }
        Some((Change::Create(Object::Namespace(_)), _)) => {
            format!("namespace `{namespace}` starts without a default-deny for {ways}")
        }
        Some(_) | None => format!("namespace `{namespace}` has no default-deny for {ways}, which leaves {whose} open"),
    }
}

/// ``NetworkPolicy `a` ``, ``NetworkPolicies `a` and `b` ``.
fn policies(names: &[String]) -> String {
    let noun = if names.len() == 1 { "NetworkPolicy" } else { "NetworkPolicies" };
    format!("{noun} {}", words::some_of(names))
}

fn why(directions: &[Direction], is_isolated: bool) -> String {
    let exposure = match directions {
        [Direction::Ingress] => "any pod of the cluster can connect to these pods",
        [Direction::Egress] => "these pods can connect to anything, inside the cluster and out of it",
        _ => {
            "any pod of the cluster can connect to these pods, and they can connect to anything, inside the cluster and out of it"
        }
    };
    if is_isolated {
        format!("the union of the policies is what counts, and it admits everything: {exposure}")
    } else {
        format!("a pod that no policy isolates is open: {exposure}")
    }
}

/// What there is in place of a default-deny, policy by policy.
fn evidence(state: Option<&NamespaceState>, directions: &[Direction], openers: &[Opener<'_>]) -> Vec<String> {
    let mut lines: Vec<String> = openers
        .iter()
        .map(|opener| {
            format!(
                "NetworkPolicy `{}` (`{}`) selects {} and admits everything as {}",
                opener.policy.name,
                opener.path(),
                selection(&opener.policy.pods),
                words::directions(&opener.directions)
            )
        })
        .collect();
    let Some(state) = state else { return lines };
    if state.policies.is_empty() {
        lines.push("the namespace has no NetworkPolicy at all".to_owned());
    }
    let known = |policy: &NetworkPolicy| openers.iter().any(|opener| opener.policy.name == policy.name);
    for policy in state.policies.iter().filter(|policy| !known(policy)).take(8) {
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
/// closes egress, so that applying it breaks nothing that DNS alone needs.
fn default_deny(
    view: &View<'_>,
    namespace: &Str,
    state: Option<&NamespaceState>,
    directions: &[Direction],
) -> NetworkPolicy {
    let isolates = Directions {
        ingress: directions.contains(&Direction::Ingress),
        egress: directions.contains(&Direction::Egress),
    };
    let egress = if isolates.egress { yaml::dns_rules(view.dns()) } else { Vec::new() };
    yaml::isolating(namespace, yaml::free_name(state, "default-deny"), Selector::everything(), isolates, egress)
}

fn direction_of(violation: &Violation) -> Option<Direction> {
    if let Aspect::Undefended(direction) = violation.aspect { Some(direction) } else { None }
}

fn isolating(state: &NamespaceState, direction: Direction) -> impl Iterator<Item = &NetworkPolicy> {
    state.policies.iter().map(AsRef::as_ref).filter(move |policy| policy.isolates.contains(direction))
}

fn given_back(opens: Truth) -> Option<u8> {
    match opens {
        Truth::No => None,
        Truth::Maybe => Some(badness::UNCERTAIN),
        Truth::Yes => Some(badness::GIVEN_BACK),
    }
}

/// More than half of a protocol's ports: a policy that leaves out a few still gives everything back.
const MOST_PORTS: u32 = 32767;

/// How many TCP ports a rule admits at most; overlapping ranges count twice.
fn tcp_ports(rule: &PolicyRule) -> u32 {
    let Some(ports) = &rule.ports else { return 65535 };
    let tcp = ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    let counts = tcp.map(|port| match &port.port {
        Port::All => 65535,
        Port::Range(first, last) => u32::from(*last) - u32::from(*first) + 1,
        Port::Named(_) | Port::Unreadable => 0,
    });
    counts.sum()
}

/// A quick no to [`opens`]: too few ports in all the rules together.
fn might_open(policies: &[&NetworkPolicy], direction: Direction) -> bool {
    let rules = policies.iter().flat_map(|policy| policy.rules(direction));
    rules.map(tcp_ports).sum::<u32>() > MOST_PORTS
}

/// Whether policies together admit everything: most TCP ports, each for every pod of every
/// namespace and for most addresses of a family.
fn opens(view: &View<'_>, policies: &[&NetworkPolicy], direction: Direction) -> Truth {
    let rules: Vec<(&PolicyRule, Vec<(u16, u16)>)> = policies
        .iter()
        .flat_map(|policy| policy.rules(direction))
        .map(|rule| (rule, tcp_ranges(rule)))
        .filter(|(_, ranges)| !ranges.is_empty())
        .collect();
    // Between two neighbouring cuts all ports are admitted alike.
    let mut cuts: Vec<u32> =
        rules.iter().flat_map(|(_, ranges)| ranges).flat_map(|(a, b)| [u32::from(*a), u32::from(*b) + 1]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let (mut certain, mut possible) = (0, 0);
    for (first, next) in cuts.iter().zip(cuts.iter().skip(1)) {
        let at = |ranges: &[(u16, u16)]| ranges.iter().any(|(a, b)| (u32::from(*a)..=u32::from(*b)).contains(first));
        let admitting: Vec<_> = rules.iter().filter(|(_, ranges)| at(ranges)).map(|(rule, _)| *rule).collect();
        match admits_everyone(view, &admitting) {
            Truth::Yes => {
                certain += next - first;
                possible += next - first;
            }
            Truth::Maybe => possible += next - first,
            Truth::No => {}
        }
    }
    match (certain > MOST_PORTS, possible > MOST_PORTS) {
        (true, _) => Truth::Yes,
        (false, true) => Truth::Maybe,
        (false, false) => Truth::No,
    }
}

fn tcp_ranges(rule: &PolicyRule) -> Vec<(u16, u16)> {
    let Some(ports) = &rule.ports else { return vec![(1, u16::MAX)] };
    let tcp = ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    let ranges = tcp.filter_map(|port| match port.port {
        Port::All => Some((1, u16::MAX)),
        Port::Range(first, last) => Some((first, last)),
        Port::Named(_) | Port::Unreadable => None,
    });
    ranges.collect()
}

/// Whether the peers of some rules, taken together, are everyone: every pod of every namespace and
/// most addresses of a family.
fn admits_everyone(view: &View<'_>, rules: &[&PolicyRule]) -> Truth {
    if rules.iter().any(|rule| rule.peers.is_none()) {
        return Truth::Yes;
    }
    let peers = || rules.iter().flat_map(|rule| rule.peers.iter().flatten());
    let addresses = peers().fold(IpSet::empty(), |all, peer| match peer {
        PeerSpec::Block(block) => all.union(&block.addresses),
        PeerSpec::Pods { .. } | PeerSpec::Unreadable => all,
    });
    if Family::ALL.into_iter().all(|family| addresses.share(family) <= 0.5) {
        return Truth::No;
    }
    let clauses: Vec<Clause<'_>> = peers()
        .filter_map(|peer| match peer {
            PeerSpec::Pods { namespaces: Some(namespaces), pods, .. } => {
                Some(Clause { namespace: Some(namespaces), pod: pods })
            }
            PeerSpec::Pods { namespaces: None, .. } | PeerSpec::Block(_) | PeerSpec::Unreadable => None,
        })
        .collect();
    if covers_everything(&clauses) == Some(true) {
        return Truth::Yes;
    }
    // Blocks may cover the pods as well.
    let pods = view.environment.cni.pod_addresses();
    let covers_pods = if pods.is_empty() { Truth::Yes } else { addresses.is_superset(&pods).into() };
    view.environment.cni.blocks_match_pods().and(covers_pods)
}
