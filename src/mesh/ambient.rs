//! What ambient makes of the policies, where it differs from sidecars.
//!
//! istiod turns PeerAuthentications into rules for ztunnel that deny what proves no identity
//! (`fetchPeerAuthentications`, `convertPeerAuthentication`, `convertedSelectorPeerAuthentications`).
//! Four things surprise. DISABLE is no more than "not STRICT". In the root namespace a policy with
//! an empty selector is void for all other namespaces. A workload's policy that leaves its mode open
//! is written out again from its parents, but only from parents without any selector: where that
//! finds none, what it says is open. Of two policies of one second either may win, at each look.

use std::collections::{BTreeMap, BTreeSet};

use super::{Authority, Effective, Mode, Policies, Setting};
use crate::model::{Labels, MtlsMode, PeerAuthentication};

/// How many policies of one workload and one second are looked at before nothing can be told.
const TIED: usize = 8;

/// What a workload with these labels accepts, the weakest of what may come of it.
pub(super) fn effective<'a>(policies: &Policies<'a>, labels: &Labels) -> Effective<'a> {
    // They are sorted by age.
    let mut matching = policies.of_workloads.iter().copied().filter(|policy| policy.selector.is_subset(labels));
    let own = matching.next().map_or_else(Vec::new, |first| {
        first_of(std::iter::once(first).chain(matching.take_while(|policy| age(policy) == age(first))))
    });
    if own.len() > TIED
        && let Some(policy) = own.first()
    {
        return Effective { default: Setting::unknown(policy), ports: BTreeMap::new() };
    }
    let mut weakest: Option<Effective<'a>> = None;
    for mesh in some_or_none(&policies.ambient_mesh) {
        for namespace in some_or_none(&policies.ambient_namespace) {
            for bare in some_or_none(&policies.ambient_bare) {
                for own in some_or_none(&own) {
                    let found = Sources { mesh, namespace, bare, own }.effective();
                    weakest = Some(match weakest {
                        None => found,
                        Some(other) => weaker(&other, &found),
                    });
                }
            }
        }
    }
    weakest.unwrap_or(Effective { default: Setting::DEFAULT, ports: BTreeMap::new() })
}

/// Those that may win of policies of one scope: of the oldest second, one of each that says the same.
pub(super) fn first_of<'a>(policies: impl Iterator<Item = &'a PeerAuthentication>) -> Vec<&'a PeerAuthentication> {
    let mut all: Vec<_> = policies.collect();
    let oldest = all.iter().map(|policy| age(policy)).min();
    all.retain(|policy| Some(age(policy)) == oldest);
    all.sort_by_key(|policy| &policy.name);
    let mut seen = BTreeSet::new();
    all.retain(|policy| {
        let mode = Setting::written(&policy.mode, policy).map(|setting| setting.mode);
        // Ports count only with labels to select by.
        seen.insert((mode, (!policy.selector.is_empty()).then_some(&policy.ports)))
    });
    all
}

/// Creation in whole seconds; what is not stored yet is the youngest.
fn age(policy: &PeerAuthentication) -> (bool, i64) {
    let created = policy.created.map(jiff::Timestamp::as_second);
    (created.is_none(), created.unwrap_or_default())
}

fn some_or_none<'p, 'a>(
    policies: &'p [&'a PeerAuthentication],
) -> impl Iterator<Item = Option<&'a PeerAuthentication>> + 'p {
    let none = policies.is_empty().then_some(None);
    none.into_iter().chain(policies.iter().copied().map(Some))
}

fn weaker<'a>(one: &Effective<'a>, other: &Effective<'a>) -> Effective<'a> {
    let pick = |one: Setting<'a>, other: Setting<'a>| {
        let is_weaker = match (one.mode.weakness(), other.mode.weakness()) {
            (Some(one), Some(other)) => other > one,
            (Some(one), None) => one == 0,
            (None, _) => false,
        };
        if is_weaker { other } else { one }
    };
    let ports =
        one.ports.keys().chain(other.ports.keys()).map(|port| (*port, pick(one.port(*port), other.port(*port))));
    Effective { default: pick(one.default, other.default), ports: ports.collect() }
}

/// One policy of each scope at most.
struct Sources<'a> {
    mesh: Option<&'a PeerAuthentication>,
    namespace: Option<&'a PeerAuthentication>,
    /// Of the namespace's, the first that has no selector at all.
    bare: Option<&'a PeerAuthentication>,
    own: Option<&'a PeerAuthentication>,
}

impl<'a> Sources<'a> {
    fn effective(&self) -> Effective<'a> {
        let inherited = self.inherited();
        let Some(own) = self.own else { return Effective { default: inherited, ports: BTreeMap::new() } };
        let by_own = |mode| Setting { mode, by: Authority::Policy(own) };
        let says = |wanted: &MtlsMode| own.ports.values().any(|mode| mode == wanted);
        // Of all ports without a mode of their own, of those that say STRICT, and of those that say
        // PERMISSIVE or DISABLE.
        let (default, strict, exempt) = match (&own.mode, inherited.mode) {
            (MtlsMode::Unknown(_), _) => return Effective { default: Setting::unknown(own), ports: BTreeMap::new() },
            (MtlsMode::Strict, _) => (by_own(Mode::Strict), Mode::Strict, Mode::Permissive),
            // The rule for a port that says STRICT is attached and not sent where only the mesh is.
            (MtlsMode::Permissive | MtlsMode::Disable, _) => {
                let strict = if self.only_the_mesh_is_strict() { Mode::Permissive } else { Mode::Strict };
                (by_own(Mode::Permissive), strict, Mode::Permissive)
            }
            (MtlsMode::Unset, Mode::Strict) if !says(&MtlsMode::Permissive) => (inherited, Mode::Strict, Mode::Strict),
            (MtlsMode::Unset, Mode::Permissive) if !says(&MtlsMode::Strict) => {
                (inherited, Mode::Permissive, Mode::Permissive)
            }
            (MtlsMode::Unset, Mode::Strict | Mode::Permissive) => {
                let exempts = says(&MtlsMode::Permissive) || says(&MtlsMode::Disable);
                let keeps = |mode| if inherited.mode == mode { inherited } else { by_own(mode) };
                if exempts && self.has_a_strict_parent() {
                    (keeps(Mode::Strict), Mode::Strict, Mode::Permissive)
                } else {
                    let is_lost = self.bare_is_strict() || self.only_the_mesh_is_strict();
                    (keeps(Mode::Permissive), if is_lost { Mode::Permissive } else { Mode::Strict }, Mode::Permissive)
                }
            }
            (MtlsMode::Unset, unknown @ (Mode::Unknown | Mode::Disable | Mode::Bypassed)) => {
                (inherited, unknown, unknown)
            }
        };
        let ports = own.ports.iter().map(|(port, mode)| {
            let setting = match mode {
                MtlsMode::Unset => default,
                MtlsMode::Unknown(_) => Setting::unknown(own),
                MtlsMode::Strict => by_own(strict),
                MtlsMode::Permissive | MtlsMode::Disable => by_own(exempt),
            };
            (*port, setting)
        });
        Effective { ports: ports.collect(), default }
    }

    /// What holds without a policy of the workload's own.
    fn inherited(&self) -> Setting<'a> {
        let scopes = [self.namespace, self.mesh];
        let written = scopes.into_iter().flatten().find_map(|policy| Setting::written(&policy.mode, policy));
        written.unwrap_or(Setting::DEFAULT).in_ambient()
    }

    fn bare_is_strict(&self) -> bool {
        self.bare.is_some_and(|policy| policy.mode == MtlsMode::Strict)
    }

    fn mesh_is_strict(&self) -> bool {
        self.mesh.is_some_and(|policy| policy.mode == MtlsMode::Strict)
    }

    /// The namespace says nothing, or leaves its mode open.
    fn only_the_mesh_is_strict(&self) -> bool {
        self.bare.is_none_or(|policy| policy.mode == MtlsMode::Unset) && self.mesh_is_strict()
    }

    /// A parent that exceptions are written out from. A policy of the namespace that leaves its mode
    /// open hides the mesh's here.
    fn has_a_strict_parent(&self) -> bool {
        self.bare_is_strict() || self.bare.is_none() && self.mesh_is_strict()
    }
}
