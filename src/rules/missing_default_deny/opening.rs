//! Whether policies together give everything back.

use std::cell::Cell;

use crate::model::{Direction, NetworkPolicy, PeerSpec, PolicyRule};
use crate::netset::{ConnectionSet, Family, IpSet, PortSet, Protocol};
use crate::reach::Truth;
use crate::rules::cover::admits_strangers;
use crate::rules::openness::{self, Tally};
use crate::rules::{View, space};

/// Together with all pods, a larger part of an address family than this is everyone: what is left out
/// is not what protects anybody.
const MOST_OF_THE_WORLD: f64 = 0.125;

/// How much comparing of ports and addresses one question is worth. Policies that people write take
/// hundreds of steps; what was written to be slow would take billions.
const MOST_WORK: usize = 1_000_000;

/// What comparing may still cost. What is left undecided when nothing is left of it is a maybe.
pub(super) struct Work(Cell<usize>);

impl Work {
    /// As much as one question is worth, this many times.
    pub(super) fn of_questions(questions: usize) -> Self {
        Self(Cell::new(MOST_WORK.saturating_mul(questions)))
    }

    fn spend(&self, steps: usize) -> Option<()> {
        self.0.set(self.0.get().checked_sub(steps)?);
        Some(())
    }
}

/// How many ports a rule admits.
pub(super) fn count(rule: &PolicyRule) -> f64 {
    let ports = openness::numbered(rule);
    Protocol::ALL.into_iter().map(|protocol| ports.ports(protocol).count()).sum()
}

/// A quick no to [`opens`]: too few ports in all the rules together.
pub(super) fn might_open<'p>(policies: impl IntoIterator<Item = &'p NetworkPolicy>, direction: Direction) -> bool {
    let rules = policies.into_iter().flat_map(|policy| policy.rules(direction));
    let mut tallies = [Tally::default(); 3];
    rules.map(openness::numbered).any(|ports| {
        Protocol::ALL.into_iter().zip(&mut tallies).any(|(protocol, tally)| {
            *tally = tally.and(Tally::of_all(protocol, ports.ports(protocol)));
            tally.is_as_good_as_all(protocol)
        })
    })
}

/// What one policy admits in one direction, as far as it can help to admit everyone.
#[derive(Debug, Default)]
pub(super) struct Admits {
    /// The ports of rules that name no peer.
    to_everyone: ConnectionSet,
    /// The rules that name peers.
    named: Vec<Named>,
}

/// A rule with peers.
#[derive(Debug)]
struct Named {
    ports: ConnectionSet,
    addresses: IpSet,
    admits_strangers: bool,
}

impl Admits {
    pub(super) fn of(policy: &NetworkPolicy, direction: Direction) -> Self {
        let rules = policy.rules(direction);
        let to_everyone: Vec<_> = rules.iter().filter(|rule| rule.peers.is_none()).map(openness::numbered).collect();
        Self { to_everyone: ConnectionSet::union_of(&to_everyone), named: rules.iter().filter_map(Named::of).collect() }
    }

    /// Whether it is of no help.
    pub(super) fn is_empty(&self) -> bool {
        self.to_everyone.is_empty() && self.named.is_empty()
    }

    /// How much it is of help, for an order: its ports, those for few addresses counted for less.
    pub(super) fn width(&self) -> f64 {
        let share = |rule: &Named| {
            let shares = Family::ALL.into_iter().map(|family| space::share(&rule.addresses, family));
            shares.sum::<f64>() + if rule.admits_strangers { 1.0 } else { 0.0 }
        };
        let count = |ports: &ConnectionSet| Protocol::ALL.into_iter().map(|it| ports.ports(it).count()).sum::<f64>();
        count(&self.to_everyone) + self.named.iter().map(|rule| count(&rule.ports) * share(rule) / 3.0).sum::<f64>()
    }
}

impl Named {
    fn of(rule: &PolicyRule) -> Option<Self> {
        let peers = rule.peers.as_ref()?;
        let ports = openness::numbered(rule);
        if ports.is_empty() {
            return None;
        }
        let blocks = peers.iter().filter_map(|peer| match peer {
            PeerSpec::Block(block) => Some(&block.addresses),
            PeerSpec::Pods { .. } | PeerSpec::Unreadable => None,
        });
        let addresses = IpSet::union_of(blocks);
        let admits_strangers = peers.iter().any(|peer| match peer {
            PeerSpec::Pods { namespaces: Some(namespaces), pods, .. } => admits_strangers(namespaces, pods),
            PeerSpec::Pods { namespaces: None, .. } | PeerSpec::Block(_) | PeerSpec::Unreadable => false,
        });
        (admits_strangers || !addresses.is_empty()).then_some(Self { ports, addresses, admits_strangers })
    }

    /// How many steps it takes to look at its addresses.
    fn size(&self) -> usize {
        1 + self.addresses.v4.ranges().len() + self.addresses.v6.ranges().len()
    }
}

/// Whether policies together admit everything: many ports of a protocol, or those that services use, each
/// for every pod of every namespace and for much of an address family.
pub(super) fn opens<'p>(
    view: &View<'_>,
    policies: impl Iterator<Item = &'p NetworkPolicy>,
    direction: Direction,
) -> Truth {
    let admits: Vec<Admits> = policies.map(|policy| Admits::of(policy, direction)).collect();
    open(view, &admits.iter().collect::<Vec<_>>(), &Work::of_questions(1))
}

/// Whether what some policies admit is everything; see [`opens`].
pub(super) fn open(view: &View<'_>, admits: &[&Admits], work: &Work) -> Truth {
    let mut most = Truth::No;
    for protocol in Protocol::ALL {
        most = most.max(open_over(protocol, view, admits, work));
        if most == Truth::Yes {
            break;
        }
    }
    most
}

fn open_over(protocol: Protocol, view: &View<'_>, admits: &[&Admits], work: &Work) -> Truth {
    let is_all = |tally: Tally| tally.is_as_good_as_all(protocol);
    // Rules that name nobody are the plain case, and need no looking at single ports.
    let to_everyone = admits.iter().flat_map(|it| it.to_everyone.ports(protocol).ranges());
    let to_everyone = PortSet::from_ranges(to_everyone.copied());
    let mut certain = Tally::of_all(protocol, &to_everyone);
    if is_all(certain) {
        return Truth::Yes;
    }
    let named = admits.iter().flat_map(|it| &it.named).filter(|rule| !rule.ports.ports(protocol).is_empty());
    let named: Vec<&Named> = named.collect();
    let ports = named.iter().flat_map(|rule| rule.ports.ports(protocol).ranges()).chain(to_everyone.ranges());
    let ports = PortSet::from_ranges(ports.copied());
    if !is_all(Tally::of_all(protocol, &ports)) || admits_everyone(view, &named) == Truth::No {
        return Truth::No;
    }
    let mut cuts: Vec<u32> = (named.iter().flat_map(|rule| rule.ports.ports(protocol).ranges()))
        .chain(to_everyone.ranges())
        .flat_map(|(first, last)| [u32::from(*first), u32::from(*last) + 1])
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    // Between two neighbouring cuts all ports are admitted alike. The spans that hold most come first:
    // they settle most, should there be too many to look at each.
    let mut spans: Vec<(Tally, u16)> = Vec::new();
    for (first, next) in cuts.iter().zip(cuts.iter().skip(1)) {
        let (Ok(port), Ok(last)) = (u16::try_from(*first), u16::try_from(next - 1)) else { break };
        if !to_everyone.contains(port) && ports.contains(port) {
            spans.push((Tally::of(protocol, port, last), port));
        }
    }
    spans.sort_by(|(a, at), (b, bt)| b.cmp(a).then(at.cmp(bt)));
    let mut possible = Tally::default();
    let mut left = spans.iter().fold(Tally::default(), |all, (tally, _)| all.and(*tally));
    for (tally, port) in spans {
        view.check_stop();
        if is_all(certain) || !is_all(certain.and(possible).and(left)) {
            break;
        }
        let here: Vec<&Named> = named.iter().copied().filter(|rule| rule.ports.contains(protocol, port)).collect();
        let steps = named.len() + here.iter().map(|rule| rule.size()).sum::<usize>();
        if work.spend(steps).is_none() {
            break;
        }
        left = left.less(tally);
        match admits_everyone(view, &here) {
            Truth::Yes => certain = certain.and(tally),
            Truth::Maybe => possible = possible.and(tally),
            Truth::No => {}
        }
    }
    if is_all(certain) {
        Truth::Yes
    } else if is_all(certain.and(possible).and(left)) {
        Truth::Maybe
    } else {
        Truth::No
    }
}

/// Whether the peers of some rules, taken together, are everyone: every pod of every namespace and
/// much of an address family, itself or by networks that stand for it.
fn admits_everyone(view: &View<'_>, rules: &[&Named]) -> Truth {
    let addresses = IpSet::union_of(rules.iter().map(|rule| &rule.addresses));
    let reached = space::with_translated(&addresses);
    let is_wide = |family: &Family| space::share(&reached, *family) > MOST_OF_THE_WORLD;
    let wide: Vec<Family> = Family::ALL.into_iter().filter(is_wide).collect();
    if wide.is_empty() {
        return Truth::No;
    }
    if rules.iter().any(|rule| rule.admits_strangers) {
        return Truth::Yes;
    }
    // Blocks may cover the pods as well.
    let covers_pods = wide.into_iter().any(|family| covers_pods(view, &addresses, family));
    view.environment.cni.blocks_match_pods().and(covers_pods.into())
}

/// Whether addresses hold most of each range pods of a family may live in: those configured, else
/// every private network. Whoever leaves out one of these has narrowed the block.
fn covers_pods(view: &View<'_>, addresses: &IpSet, family: Family) -> bool {
    let configured = &view.environment.cni.pod_ranges;
    let ranges = if configured.is_empty() {
        space::private(family)
    } else {
        configured.iter().copied().filter(|range| space::family(*range) == family).collect()
    };
    !ranges.is_empty() && ranges.into_iter().all(|range| space::share_of(range, addresses) > 0.5)
}
