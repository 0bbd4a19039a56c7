//! Policies that say STRICT and change nothing: false assurance.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{Counts, DEFAULT_ROOT, Dataplane, Mesh, Mode, RootSource, injectors};
use crate::cluster::NamespaceState;
use crate::model::{MtlsMode, PeerAuthentication, Service, Str, TargetPort, Workload};

/// How many workloads and Services are looked at for the policies of one namespace. What is beyond
/// that is not looked into: it is a warning that is left out.
const MOST_WORK: usize = 5_000_000;

/// A policy that says STRICT, without effect on what it says it of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle<'a> {
    /// The policy.
    pub policy: &'a PeerAuthentication,
    /// Why.
    pub cause: Cause<'a>,
}

/// Why a policy has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause<'a> {
    /// Policies with a selector are ignored in the root namespace.
    SelectorInRoot,
    /// Another of the same scope is older.
    OlderWins(&'a PeerAuthentication),
    /// It selects nothing that runs in its namespace.
    SelectsNothing,
    /// It is in a namespace that is taken for the root and is not: it counts only there.
    NotTheRoot(Str),
    /// It counts only for a revision of the control plane that is not installed.
    NoSuchRevision(Str),
    /// The port it names is one of this Service, whose pods listen on another.
    ServicePort(u16, &'a Service),
}

impl<'a> Mesh<'a> {
    /// The policies of a namespace that say STRICT to no effect, where something they are about
    /// is not STRICT. Where it is STRICT all the same, nobody is misled.
    pub fn idle(&self, namespace: &str) -> Rc<[Idle<'a>]> {
        if let Some(known) = self.idle.borrow().get(namespace) {
            return Rc::clone(known);
        }
        let found: Rc<[Idle<'a>]> = self.find_idle(namespace).into();
        self.idle.borrow_mut().insert(namespace.into(), Rc::clone(&found));
        found
    }

    fn find_idle(&self, namespace: &str) -> Vec<Idle<'a>> {
        let Some(state) = self.cluster.namespace(namespace) else { return Vec::new() };
        let policies = self.policies(namespace);
        if policies.unreadable.is_some() {
            return Vec::new();
        }
        let strict = state.peer_authentications.iter().map(AsRef::as_ref).filter(|policy| says_strict(policy));
        let work = Cell::new(MOST_WORK);
        strict.filter_map(|policy| Some(Idle { policy, cause: self.cause(policy, &work)? })).collect()
    }

    fn cause(&self, policy: &'a PeerAuthentication, work: &Cell<usize>) -> Option<Cause<'a>> {
        let spend = |steps: usize| {
            work.set(work.get().checked_sub(steps)?);
            Some(())
        };
        let policies = self.policies(&policy.namespace);
        let revision = policy.revision.as_ref().filter(|_| self.counts(policy, None) == Counts::No);
        let in_root = policy.namespace == self.root.namespace;
        let inherits_strict = policies.inherited(Dataplane::Sidecar).mode == Mode::Strict;
        if let Some(revision) = revision {
            return (!inherits_strict).then(|| Cause::NoSuchRevision(revision.clone()));
        }
        if policy.selector.is_empty() {
            let winner = if in_root { policies.mesh_wide } else { policies.namespace_wide };
            return match winner {
                Some(winner) if winner.name != policy.name => (!inherits_strict).then_some(Cause::OlderWins(winner)),
                _ if !in_root && self.is_taken_for_root(&policy.namespace) => {
                    (self.mesh_wide().mode != Mode::Strict).then(|| Cause::NotTheRoot(self.root.namespace.clone()))
                }
                _ => None,
            };
        }
        if in_root {
            return (!inherits_strict).then_some(Cause::SelectorInRoot);
        }
        let state = self.cluster.namespace(&policy.namespace)?;
        spend(state.workloads.len())?;
        let mut live = state.live_workloads().peekable();
        // A namespace of which no workload is known is one whose workloads come later.
        live.peek()?;
        let selected: Vec<&Workload> =
            live.map(AsRef::as_ref).filter(|workload| policy.selector.is_subset(&workload.labels)).collect();
        if selected.is_empty() {
            return (!inherits_strict).then_some(Cause::SelectsNothing);
        }
        let mut winner = None;
        let mut misleads = false;
        for workload in &selected {
            let first = policies.of_workload(&workload.labels)?;
            if first.name == policy.name {
                let mut ports = policy.ports.iter().filter(|(_, mode)| **mode == MtlsMode::Strict);
                let is_weak = policy.mode != MtlsMode::Strict && (policy.mode != MtlsMode::Unset || !inherits_strict);
                if !is_weak || policy.ports.is_empty() {
                    return None;
                }
                spend(state.services.len().saturating_mul(selected.len()))?;
                let listening = Listening::of(state, &selected);
                return ports.find_map(|(port, _)| Some(Cause::ServicePort(*port, listening.service_of_port(*port)?)));
            }
            winner = winner.or(Some(first));
            let effective = policies.effective(&workload.labels, Dataplane::Sidecar);
            misleads |= effective.settings().any(|(_, setting)| setting.mode != Mode::Strict);
        }
        winner.filter(|_| misleads).map(Cause::OlderWins)
    }

    /// The Service whose port a policy names in `portLevelMtls`, where the workloads it selects
    /// listen on another: workload ports count there, and Service ports are what people know.
    pub fn service_of_port(&self, policy: &PeerAuthentication, port: u16) -> Option<&'a Service> {
        let state = self.cluster.namespace(&policy.namespace)?;
        let live = state.live_workloads().map(AsRef::as_ref);
        let selected: Vec<&Workload> = live.filter(|workload| policy.selector.is_subset(&workload.labels)).collect();
        Listening::of(state, &selected).service_of_port(port)
    }

    /// Namespaces people put mesh-wide policies in: where the control plane usually is, is, or may be.
    fn is_taken_for_root(&self, namespace: &str) -> bool {
        let looks_like_it = match &self.root.source {
            RootSource::Unproven(configs) => configs.iter().any(|it| it.namespace.as_deref() == Some(namespace)),
            _ => injectors(self.cluster).contains(namespace),
        };
        namespace == DEFAULT_ROOT || looks_like_it
    }
}

/// On which ports some workloads listen, as far as is known, and the Services in front of them.
struct Listening<'a> {
    ports: BTreeSet<u16>,
    /// By port of their own, the first by name.
    services: BTreeMap<u16, &'a Service>,
}

impl<'a> Listening<'a> {
    fn of(state: &'a NamespaceState, workloads: &[&Workload]) -> Self {
        let mut ports: BTreeSet<u16> =
            workloads.iter().flat_map(|workload| &workload.ports).map(|port| port.number).collect();
        let mut services: BTreeMap<u16, &Service> = BTreeMap::new();
        for service in state.services.iter() {
            let Some(selector) = &service.selector else { continue };
            if !workloads.iter().any(|workload| selector.is_subset(&workload.labels)) {
                continue;
            }
            for port in &service.ports {
                services.entry(port.port).or_insert(service);
                if let TargetPort::Number(number) = port.target {
                    ports.insert(number);
                }
            }
        }
        Self { ports, services }
    }

    fn service_of_port(&self, port: u16) -> Option<&'a Service> {
        self.services.get(&port).copied().filter(|_| !self.ports.contains(&port))
    }
}

fn says_strict(policy: &PeerAuthentication) -> bool {
    policy.mode == MtlsMode::Strict || policy.ports.values().any(|mode| *mode == MtlsMode::Strict)
}
