//! Whether what a policy admits far and wide has grown: one number, the share of addresses, does not
//! tell of more ports, or of another half of the world.

use std::collections::BTreeSet;

use crate::model::{NetworkPolicy, PolicyRule, Port, Str};
use crate::netset::{ConnectionSet, Family, IpSet, Protocol};
use crate::rules::{openness, space};

/// What one rule admits: these ports of these addresses.
pub(super) struct Part {
    pub(super) ports: Ports,
    pub(super) addresses: IpSet,
}

/// The ports of rules, those with a number apart from those with a name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) numbered: ConnectionSet,
    pub(super) named: BTreeSet<(Protocol, Str)>,
}

impl Ports {
    /// What cannot be read is not among them.
    pub(super) fn of(rule: &PolicyRule) -> Self {
        let names = rule.ports.iter().flatten().filter_map(|spec| match &spec.port {
            Port::Named(name) => Some((spec.protocol, name.clone())),
            Port::All | Port::Range(..) | Port::Unreadable => None,
        });
        Self { numbered: openness::numbered(rule), named: names.collect() }
    }

    pub(super) fn union_of(parts: Vec<Self>) -> Self {
        Self {
            numbered: ConnectionSet::union_of(parts.iter().map(|part| &part.numbered)),
            named: parts.into_iter().flat_map(|part| part.named).collect(),
        }
    }

    pub(super) fn is_superset(&self, other: &Self) -> bool {
        self.numbered.is_superset(&other.numbered) && self.named.is_superset(&other.named)
    }
}

/// The smallest share of an address family, in percent, by which something wide grows. Less than that
/// is an address or a network beside the rest, and no wide peer.
const LEAST: f64 = 1.0;

/// How many comparisons of ports and rules a question is worth.
const MOST_STEPS: usize = 100_000;

/// Whether the rules of `after` admit more addresses of a family, on some port where they admit too
/// many, than those of `before`.
pub(super) fn grows(before: &[Part], after: &[Part], family: Family, is_wide: impl Fn(&IpSet) -> bool) -> bool {
    let has_more = |after: &IpSet, before: &IpSet| {
        // A network that stands for addresses of the other family adds none that are there themselves.
        let own = after.subtract(before).only(family);
        let standing_for = space::translated(after).subtract(&space::with_translated(before)).only(family);
        space::share(&own.union(&standing_for), family) * 100.0 >= LEAST
    };
    let union = |parts: &[&Part]| IpSet::union_of(parts.iter().map(|part| &part.addresses));
    let grows_where = |holds: &dyn Fn(&Part) -> bool| {
        let of = |parts: &'_ [Part]| union(&parts.iter().filter(|part| holds(part)).collect::<Vec<_>>());
        let now = of(after);
        is_wide(&now) && has_more(&now, &of(before))
    };
    for protocol in Protocol::ALL {
        let ranges = before.iter().chain(after).flat_map(|part| part.ports.numbered.ports(protocol).ranges());
        // Between two neighbouring starts all ports are admitted alike.
        let mut starts: Vec<u16> =
            ranges.flat_map(|(first, last)| [Some(*first), last.checked_add(1)]).flatten().collect();
        starts.sort_unstable();
        starts.dedup();
        if starts.len().saturating_mul(before.len() + after.len()) > MOST_STEPS {
            // Too many to tell them apart: more ports or more addresses in all is what is left to ask.
            let ports = |parts: &[Part]| ConnectionSet::union_of(parts.iter().map(|part| &part.ports.numbered));
            let (then, now) = (union(&before.iter().collect::<Vec<_>>()), union(&after.iter().collect::<Vec<_>>()));
            if !ports(before).is_superset(&ports(after)) || has_more(&now, &then) {
                return true;
            }
            continue;
        }
        if starts.iter().any(|start| grows_where(&|part| part.ports.numbered.contains(protocol, *start))) {
            return true;
        }
    }
    let names: BTreeSet<_> = after.iter().flat_map(|part| &part.ports.named).collect();
    if names.len().saturating_mul(before.len() + after.len()) > MOST_STEPS {
        return true;
    }
    names.into_iter().any(|name| grows_where(&|part| part.ports.named.contains(name)))
}

/// Whether a policy selects pods, there or to come, that it did not select before.
pub(super) fn selects_more(before: &NetworkPolicy, after: &NetworkPolicy) -> bool {
    // Selectors that take too long to compare are not those of people: they count as grown.
    after.pods.implies(&before.pods) != Some(true)
}
