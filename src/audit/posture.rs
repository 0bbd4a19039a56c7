//! What the policies of a namespace add up to, in a line.
//!
//! It is read off the violations the rules themselves find, with their default options and without
//! regard to which rules are on: a rule that is off says nothing of a posture that is bad.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::gravity;
use crate::cluster::{Cluster, NamespaceState};
use crate::mesh::Dataplane;
use crate::model::{Direction, Str};
use crate::rules::{
    Action, AnyRule, Aspect, Finding, GrantedHere, Mode, RuleSet, SHELTERED, Scope, Severity, Standing, Subject, View,
    Violation, entry,
};

/// How a namespace stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posture {
    /// Its name.
    pub namespace: Str,
    /// Whether no rule is about its workloads, by the configuration.
    pub is_exempt: bool,
    /// The mode in force in it.
    pub mode: Mode,
    /// What runs or will run in it and is not made by something else in it.
    pub workloads: usize,
    /// Whether pods are closed to what is not admitted.
    pub ingress: Isolation,
    /// Whether pods are kept from what is not admitted.
    pub egress: Isolation,
    /// Whether pods can resolve names.
    pub dns: Dns,
    /// What the mesh accepts.
    pub mtls: Mtls,
    /// Its waivers.
    pub waivers: Waivers,
    /// Whether policies of another system may change what is said of isolation and DNS.
    pub is_uncertain: bool,
    /// The gravest finding: what would become of it, the harm it names, its rule.
    pub worst: Option<(Action, Severity, &'static str)>,
    /// How many findings there are that nobody has waived.
    pub findings: usize,
}

/// Whether pods are isolated in a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Every pod, those to come included.
    Yes,
    /// Those there are; a pod to come is not unless a policy happens to name it.
    OnlyToday,
    /// All but so many.
    Partly {
        /// How many are open.
        open: usize,
    },
    /// Not one.
    No,
}

/// Whether pods can resolve names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dns {
    /// Nothing keeps them from it.
    Reachable,
    /// So many cannot, or not reliably.
    CutOff(usize),
}

/// What the mesh accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mtls {
    /// It is not in the mesh.
    Outside,
    /// Only mutual TLS.
    Strict,
    /// Plaintext as well, on some port of so many workloads.
    Plaintext(usize),
    /// Whether it is in the mesh cannot be told.
    Unknown,
}

/// The waivers of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waivers {
    /// How many hold.
    pub holding: usize,
    /// When the first of them ends.
    pub next_end: Option<Timestamp>,
    /// How many have run out, or never held.
    pub void: usize,
}

/// The posture of every namespace of a cluster.
pub(super) fn of(rules: &RuleSet, cluster: &Cluster, findings: &[Finding], now: Timestamp) -> Vec<Posture> {
    // Of exempt namespaces too it is told how they stand.
    let mut environment = rules.environment.clone();
    environment.namespaces.exempt.clear();
    let view = View::new(cluster, &environment, now);
    let undefended = violations("missing-default-deny", &view);
    let dark = violations("dns-blackhole", &view);
    let plaintext = violations("plaintext-mtls", &view);
    let mut found: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        found.entry(finding.namespace.as_deref().unwrap_or_default()).or_default().push(finding);
    }
    let of = |state: &NamespaceState| {
        let name = state.name.as_str();
        let none = Vec::new();
        let (open, dark, plain) =
            [&undefended, &dark, &plaintext].map(|it| it.get(name).unwrap_or(&none).as_slice()).into();
        let live: Vec<_> = state.live_workloads().collect();
        let roots: BTreeSet<_> = live.iter().map(|workload| cluster.root_owner(workload)).collect();
        let governed = live.iter().filter(|workload| !workload.host_network);
        let governed = governed.map(|workload| cluster.root_owner(workload)).collect::<BTreeSet<_>>().len();
        let isolation = |direction| {
            let aspect = Aspect::Undefended(direction);
            let is_undefended = open.iter().any(|violation| violation.aspect == aspect);
            let open = workloads(open, cluster, name, |it| it.aspect == aspect && it.badness > SHELTERED);
            match open {
                _ if !is_undefended => Isolation::Yes,
                0 if governed > 0 => Isolation::OnlyToday,
                open if open < governed => Isolation::Partly { open },
                _ => Isolation::No,
            }
        };
        let found = found.get(name).map(Vec::as_slice).unwrap_or_default();
        let worst = found.iter().filter(|finding| finding.waived.is_none()).max_by_key(|finding| gravity(finding));
        Posture {
            namespace: state.name.clone(),
            is_exempt: rules.environment.namespaces.is_exempt(name),
            mode: rules.mode_in(cluster, name),
            workloads: roots.len(),
            ingress: isolation(Direction::Ingress),
            egress: isolation(Direction::Egress),
            dns: match workloads(dark, cluster, name, |_| true) {
                0 => Dns::Reachable,
                cut_off => Dns::CutOff(cut_off),
            },
            mtls: mtls(&view, state, plain),
            waivers: waivers(&view, rules, state),
            is_uncertain: cluster.foreign_policies(name).next().is_some(),
            worst: worst.map(|finding| (finding.action, finding.rule.severity, finding.rule.name)),
            findings: found.iter().filter(|finding| finding.waived.is_none()).count(),
        }
    };
    cluster
        .namespaces()
        .filter(|state| state.object.is_some() || !state.workloads.is_empty() || !state.policies.is_empty())
        .map(|state| of(state))
        .collect()
}

/// What a rule with its default options finds, by namespace.
fn violations(rule: &str, view: &View<'_>) -> BTreeMap<Str, Vec<Violation>> {
    let built = entry(rule).and_then(|entry| entry.build(Value::Object(Map::new())));
    let Some(Ok(rule)) = built else { return BTreeMap::new() };
    let mut found = Vec::new();
    AnyRule::violations(rule.as_ref(), view, &Scope::Cluster, &mut found);
    let mut by_namespace: BTreeMap<Str, Vec<Violation>> = BTreeMap::new();
    for violation in found {
        by_namespace.entry(violation.namespace.clone()).or_default().push(violation);
    }
    by_namespace
}

/// How many workloads violations are about, a controller's pods counted as one.
fn workloads(
    violations: &[Violation],
    cluster: &Cluster,
    namespace: &str,
    counts: impl Fn(&Violation) -> bool,
) -> usize {
    let ids = violations.iter().filter(|it| counts(it)).filter_map(|it| match &it.subject {
        Subject::Workload(id) => Some(cluster.workload(namespace, id).map_or(id.clone(), |it| cluster.root_owner(it))),
        Subject::Namespace | Subject::Policy(_) | Subject::Waiver(_) => None,
    });
    ids.collect::<BTreeSet<_>>().len()
}

fn mtls(view: &View<'_>, state: &NamespaceState, violations: &[Violation]) -> Mtls {
    let is_plain = |violation: &Violation| matches!(violation.aspect, Aspect::Plaintext(_));
    let plain = workloads(violations, view.cluster, &state.name, is_plain);
    if plain > 0 || violations.iter().any(is_plain) {
        return Mtls::Plaintext(plain);
    }
    let mesh = view.mesh();
    let new_pods = mesh.posture_of_new_pods(&state.name).membership.dataplane;
    let planes = state.live_workloads().map(|workload| mesh.membership(workload).dataplane).chain([new_pods]);
    planes.fold(Mtls::Outside, |mtls, plane| match plane {
        Dataplane::Sidecar | Dataplane::Ambient => Mtls::Strict,
        Dataplane::Unknown if mtls == Mtls::Outside => Mtls::Unknown,
        Dataplane::Unknown | Dataplane::Outside => mtls,
    })
}

fn waivers(view: &View<'_>, rules: &RuleSet, state: &NamespaceState) -> Waivers {
    let settings = &rules.environment.waivers;
    let here = settings.list.iter().filter(|granted| granted.namespace == state.name).map(GrantedHere::waiver);
    let all = state.waivers.iter().map(|waiver| waiver.as_ref().clone()).chain(here);
    all.fold(Waivers::default(), |mut waivers, waiver| {
        match settings.standing(&waiver, view.now) {
            Standing::Holds(ends) => {
                waivers.holding += 1;
                waivers.next_end = Some(waivers.next_end.map_or(ends, |next| next.min(ends)));
            }
            Standing::Expired(_) | Standing::Invalid(_) => waivers.void += 1,
        }
        waivers
    })
}
