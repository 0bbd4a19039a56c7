//! How wide the policies of one namespace are in one direction: worked out once, for all its pods.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::WildcardIpBlock;
use crate::cluster::{NamespaceState, PolicySet};
use crate::model::Direction;
use crate::netset::{Family, IpSet};
use crate::rules::View;

/// How many ranges of addresses are joined for one namespace and direction. Policies that people write
/// take some thousands.
const MOST_WORK: usize = 4_000_000;

/// By how much addresses exceed what may be, by family: their share in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Excess {
    v4: Option<u8>,
    v6: Option<u8>,
}

impl Excess {
    pub(super) fn of(self, family: Family) -> Option<u8> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    pub(super) fn is_narrow(self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    fn max(self, other: Self) -> Self {
        Self { v4: self.v4.max(other.v4), v6: self.v6.max(other.v6) }
    }
}

/// What the policies of one namespace admit by blocks.
pub(super) struct Widths<'a> {
    rule: &'a WildcardIpBlock,
    /// By place.
    admitted: Vec<(IpSet, Excess)>,
    /// The policies that admit some addresses.
    pub(super) admitting: PolicySet,
    /// Those that are wide by themselves.
    alone: PolicySet,
    known: RefCell<BTreeMap<PolicySet, Excess>>,
    work: Cell<usize>,
}

impl<'a> Widths<'a> {
    pub(super) fn of(
        rule: &'a WildcardIpBlock,
        view: &View<'_>,
        state: &'a NamespaceState,
        direction: Direction,
    ) -> Self {
        let (mut admitting, mut alone) = (state.policies.none(), state.policies.none());
        let mut admitted = Vec::with_capacity(state.policies.len());
        for (place, policy) in state.policies.iter().enumerate() {
            view.check_stop();
            let isolates = policy.isolates.contains(direction);
            let addresses = if isolates { rule.admitted(policy, direction) } else { IpSet::empty() };
            let excess = excess(rule, &addresses);
            if !addresses.is_empty() {
                admitting.insert(place);
            }
            if !excess.is_narrow() {
                alone.insert(place);
            }
            admitted.push((addresses, excess));
        }
        Self { rule, admitted, admitting, alone, known: RefCell::default(), work: Cell::new(MOST_WORK) }
    }

    /// What the policy of a place exceeds by itself.
    pub(super) fn alone(&self, place: usize) -> Excess {
        self.admitted.get(place).map(|(_, excess)| *excess).unwrap_or_default()
    }

    /// What the policies that select a pod exceed together. Where too many sets of policies differ to
    /// join the addresses of each, what each exceeds by itself is what is known.
    pub(super) fn of_all(&self, selecting: &PolicySet) -> Excess {
        let set = selecting.both(&self.admitting);
        if let Some(known) = self.known.borrow().get(&set) {
            return *known;
        }
        let sets = || set.places().filter_map(|place| self.admitted.get(place)).map(|(addresses, _)| addresses);
        let ranges = sets().map(|it| it.v4.ranges().len() + it.v6.ranges().len()).sum();
        let found = match self.work.get().checked_sub(ranges) {
            Some(left) => {
                self.work.set(left);
                excess(self.rule, &IpSet::union_of(sets()))
            }
            None => set.both(&self.alone).places().map(|place| self.alone(place)).fold(Excess::default(), Excess::max),
        };
        self.known.borrow_mut().insert(set, found);
        found
    }
}

fn excess(rule: &WildcardIpBlock, addresses: &IpSet) -> Excess {
    Excess { v4: rule.excess(addresses, Family::V4), v6: rule.excess(addresses, Family::V6) }
}
