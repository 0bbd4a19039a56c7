//! What a port accepts, and which policy says so.

use std::collections::BTreeMap;
use std::fmt;

use super::{Dataplane, ambient};
use crate::cluster::Cluster;
use crate::model::{Labels, MtlsMode, PeerAuthentication, Str};

/// What a port accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Mutual TLS only.
    Strict,
    /// Plaintext and mutual TLS.
    Permissive,
    /// Plaintext only.
    Disable,
    /// Whatever the application takes: traffic does not pass the proxy, and no policy counts.
    Bypassed,
    /// It cannot be judged.
    Unknown,
}

impl Mode {
    /// How much weaker than mutual TLS only; nothing where that is not known. Plaintext only and
    /// no proxy at all are equally far from it.
    pub fn weakness(self) -> Option<u8> {
        match self {
            Self::Strict => Some(0),
            Self::Permissive => Some(1),
            Self::Disable | Self::Bypassed => Some(2),
            Self::Unknown => None,
        }
    }

    /// Whether it is known to accept more than another.
    pub fn is_weaker_than(self, other: Self) -> bool {
        matches!((self.weakness(), other.weakness()), (Some(this), Some(other)) if this > other)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Strict => "STRICT",
            Self::Permissive => "PERMISSIVE",
            Self::Disable => "DISABLE",
            Self::Bypassed => "past the proxy",
            Self::Unknown => "unknown",
        })
    }
}

/// A mode and who decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting<'a> {
    /// What is accepted.
    pub mode: Mode,
    /// Who says so; of an unknown mode, whose words are not understood.
    pub by: Authority<'a>,
}

/// Who decides a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority<'a> {
    /// This policy.
    Policy(&'a PeerAuthentication),
    /// No policy: Istio's own default, PERMISSIVE.
    Nobody,
    /// An annotation of this key on the workload, which keeps traffic from the proxy.
    Annotation(&'static str),
}

impl<'a> Setting<'a> {
    /// Istio's own default.
    pub const DEFAULT: Self = Self { mode: Mode::Permissive, by: Authority::Nobody };

    pub(super) fn unknown(policy: &'a PeerAuthentication) -> Self {
        Self { mode: Mode::Unknown, by: Authority::Policy(policy) }
    }

    /// What a policy that writes this mode decides; nothing where it leaves the decision to the
    /// next wider scope.
    pub(super) fn written(mode: &MtlsMode, policy: &'a PeerAuthentication) -> Option<Self> {
        let mode = match mode {
            MtlsMode::Unset => return None,
            MtlsMode::Disable => Mode::Disable,
            MtlsMode::Permissive => Mode::Permissive,
            MtlsMode::Strict => Mode::Strict,
            MtlsMode::Unknown(_) => Mode::Unknown,
        };
        Some(Self { mode, by: Authority::Policy(policy) })
    }

    /// ztunnel speaks mutual TLS or lets plaintext through; it has no way to insist on plaintext.
    pub(super) fn in_ambient(self) -> Self {
        match self.mode {
            Mode::Disable => Self { mode: Mode::Permissive, ..self },
            Mode::Strict | Mode::Permissive | Mode::Bypassed | Mode::Unknown => self,
        }
    }
}

/// What every port of a workload accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective<'a> {
    /// Of all ports without a setting of their own.
    pub default: Setting<'a>,
    /// Of single ports.
    pub ports: BTreeMap<u16, Setting<'a>>,
}

/// A port that accepts more than it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop<'a> {
    /// Which; nothing for all ports without a setting of their own, before or after.
    pub port: Option<u16>,
    /// What it accepted.
    pub from: Setting<'a>,
    /// What it accepts.
    pub to: Setting<'a>,
}

impl<'a> Effective<'a> {
    /// What a port accepts.
    pub fn port(&self, port: u16) -> Setting<'a> {
        self.ports.get(&port).copied().unwrap_or(self.default)
    }

    /// Whether some port takes mutual TLS only.
    pub fn has_strict(&self) -> bool {
        self.settings().any(|(_, setting)| setting.mode == Mode::Strict)
    }

    /// All settings: the default first, then the ports that differ from it or are written out.
    pub fn settings(&self) -> impl Iterator<Item = (Option<u16>, Setting<'a>)> {
        let ports = self.ports.iter().map(|(port, setting)| (Some(*port), *setting));
        std::iter::once((None, self.default)).chain(ports)
    }

    /// Where `after` is known to accept more than this, port by port.
    pub fn drops_to(&self, after: &Self) -> Vec<Drop<'a>> {
        let mut ports: Vec<Option<u16>> = self.ports.keys().chain(after.ports.keys()).copied().map(Some).collect();
        ports.sort_unstable();
        ports.dedup();
        let at = |effective: &Self, port: Option<u16>| port.map_or(effective.default, |port| effective.port(port));
        std::iter::once(None)
            .chain(ports)
            .map(|port| Drop { port, from: at(self, port), to: at(after, port) })
            .filter(|drop| drop.to.mode.is_weaker_than(drop.from.mode))
            .collect()
    }
}

/// Whether a policy counts for what some revision serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counts {
    Yes,
    No,
    /// Its own label names a revision, and which one serves is not known.
    Perhaps,
}

/// The policies that count in one namespace, by Istio's order.
#[derive(Clone, Debug, Default)]
pub struct Policies<'a> {
    /// The oldest of the root namespace without a selector.
    pub mesh_wide: Option<&'a PeerAuthentication>,
    /// The oldest of the namespace without a selector; nothing in the root namespace itself.
    pub namespace_wide: Option<&'a PeerAuthentication>,
    /// Those of the namespace with a selector, oldest first. A workload gets the first that
    /// matches it, and only that one.
    pub of_workloads: Vec<&'a PeerAuthentication>,
    /// Of the mesh's, those that may win in ambient.
    pub(super) ambient_mesh: Vec<&'a PeerAuthentication>,
    /// Of the namespace's without labels to select by, those that may win in ambient.
    pub(super) ambient_namespace: Vec<&'a PeerAuthentication>,
    /// Of these, those without any selector.
    pub(super) ambient_bare: Vec<&'a PeerAuthentication>,
    /// One that could not be read in full or that may not count, here or mesh-wide: nothing under it
    /// can be judged.
    pub unreadable: Option<&'a PeerAuthentication>,
    /// The places of `of_workloads` by a label that each of them asks for, ascending: a namespace may
    /// hold thousands of policies and of pods, and not each has to be tried on each.
    by_label: BTreeMap<(&'a str, &'a str), Vec<usize>>,
}

impl<'a> Policies<'a> {
    pub(super) fn in_force(
        cluster: &'a Cluster,
        root: &str,
        namespace: &str,
        counts: impl Fn(&PeerAuthentication) -> Counts,
    ) -> Self {
        let of = |namespace: &str| {
            let state = cluster.namespace(namespace);
            let policies = state.into_iter().flat_map(|state| state.peer_authentications.iter()).map(AsRef::as_ref);
            policies.filter(|policy| counts(policy) != Counts::No)
        };
        let is_unclear = |policy: &&PeerAuthentication| policy.is_partial || counts(policy) == Counts::Perhaps;
        let oldest_without_selector = |namespace: &str| {
            of(namespace).filter(|policy| policy.selector.is_empty()).min_by_key(|policy| precedence(policy))
        };
        let mesh_wide = oldest_without_selector(root);
        let mut unreadable = of(root).find(is_unclear);
        let without_labels = |namespace: &str| of(namespace).filter(|policy| policy.selector.is_empty());
        if namespace == root {
            let ambient_mesh = ambient::first_of(without_labels(root));
            return Self { mesh_wide, ambient_mesh, unreadable, ..Self::default() };
        }
        let bare = |namespace: &str| without_labels(namespace).filter(|policy| !policy.has_empty_selector);
        unreadable = unreadable.or_else(|| of(namespace).find(is_unclear));
        let mut of_workloads: Vec<_> = of(namespace).filter(|policy| !policy.selector.is_empty()).collect();
        of_workloads.sort_by_cached_key(|policy| precedence(policy));
        let by_label = by_rarest_label(&of_workloads);
        Self {
            mesh_wide,
            namespace_wide: oldest_without_selector(namespace),
            of_workloads,
            by_label,
            ambient_mesh: ambient::first_of(bare(root)),
            ambient_namespace: ambient::first_of(without_labels(namespace)),
            ambient_bare: ambient::first_of(bare(namespace)),
            unreadable,
        }
    }

    /// The mode the namespace and the mesh set, before any workload's own policy; nothing where
    /// neither has a policy at all.
    pub fn namespace_mode(&self) -> Option<Setting<'a>> {
        if let Some(policy) = self.unreadable {
            return Some(Setting::unknown(policy));
        }
        let scopes = [self.namespace_wide, self.mesh_wide];
        let written = scopes.iter().flatten().find_map(|policy| Setting::written(&policy.mode, policy));
        written.or_else(|| scopes.iter().any(Option::is_some).then_some(Setting::DEFAULT))
    }

    /// What a workload without a policy of its own gets.
    pub fn inherited(&self, dataplane: Dataplane) -> Setting<'a> {
        if dataplane == Dataplane::Ambient && self.unreadable.is_none() {
            return ambient::effective(self, &Labels::default()).default;
        }
        self.namespace_mode().unwrap_or(Setting::DEFAULT)
    }

    /// The one policy of its own that a workload with these labels has.
    pub fn of_workload(&self, labels: &Labels) -> Option<&'a PeerAuthentication> {
        let asking = labels.iter().filter_map(|(key, value)| self.by_label.get(&(key.as_str(), value.as_str())));
        let matches = |place: &&usize| self.of_workloads.get(**place).is_some_and(|it| it.selector.is_subset(labels));
        let first = asking.filter_map(|places| places.iter().find(matches)).min()?;
        self.of_workloads.get(*first).copied()
    }

    /// What a workload with these labels accepts.
    pub fn effective(&self, labels: &Labels, dataplane: Dataplane) -> Effective<'a> {
        let inherited = self.inherited(dataplane);
        let nothing_else = Effective { default: inherited, ports: BTreeMap::new() };
        if self.unreadable.is_some() {
            return nothing_else;
        }
        if dataplane == Dataplane::Ambient {
            return ambient::effective(self, labels);
        }
        let Some(policy) = self.of_workload(labels) else { return nothing_else };
        let default = Setting::written(&policy.mode, policy).unwrap_or(inherited);
        let ports = policy.ports.iter().map(|(port, mode)| (*port, Setting::written(mode, policy).unwrap_or(default)));
        Effective { ports: ports.collect(), default }
    }
}

/// The places of policies by one label of their selector: the one that the fewest ask for.
fn by_rarest_label<'a>(policies: &[&'a PeerAuthentication]) -> BTreeMap<(&'a str, &'a str), Vec<usize>> {
    fn labels(policy: &PeerAuthentication) -> impl Iterator<Item = (&str, &str)> {
        policy.selector.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
    let mut asked: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for label in policies.iter().copied().flat_map(labels) {
        *asked.entry(label).or_default() += 1;
    }
    let mut places: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (place, policy) in policies.iter().copied().enumerate() {
        if let Some(rarest) = labels(policy).min_by_key(|label| asked.get(label)) {
            places.entry(rarest).or_default().push(place);
        }
    }
    places
}

/// Istio's order of policies: by creation in whole seconds, then by name, then by namespace. One
/// that is not stored yet is the youngest.
fn precedence(policy: &PeerAuthentication) -> (bool, i64, Str, Str) {
    let created = policy.created.map(jiff::Timestamp::as_second);
    (created.is_none(), created.unwrap_or_default(), policy.name.clone(), policy.namespace.clone())
}
