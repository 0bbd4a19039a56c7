//! Whether policies together give everything back.

use std::cell::Cell;

use crate::model::{Direction, NetworkPolicy, PeerSpec, PolicyRule, Port};
use crate::netset::{Family, IpSet, PortSet, Protocol};
use crate::reach::Truth;
use crate::rules::cover::admits_strangers;
use crate::rules::{View, space};

/// Admitting more TCP ports than this, an eighth of them, is as good as admitting them all: nobody
/// listens on so many, and whoever may choose the range chooses one that holds the ports that are.
pub(super) const MOST_PORTS: u32 = 8191;

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

/// How many TCP ports a rule admits at most; overlapping ranges count twice.
pub(super) fn tcp_ports(rule: &PolicyRule) -> u32 {
    let Some(ports) = &rule.ports else { return 65535 };
    let tcp = ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    let counts = tcp.map(|port| match &port.port {
        Port::All => 65535,
        Port::Range(first, last) => u32::from(*last) - u32::from(*first) + 1,
        Port::Named(_) | Port::Unreadable => 0,
    });
    counts.fold(0, u32::saturating_add)
}

/// A quick no to [`opens`]: too few ports in all the rules together.
pub(super) fn might_open<'p>(policies: impl IntoIterator<Item = &'p NetworkPolicy>, direction: Direction) -> bool {
    let rules = policies.into_iter().flat_map(|policy| policy.rules(direction));
    let mut ports = 0_u32;
    rules.map(tcp_ports).any(|more| {
        ports = ports.saturating_add(more);
        ports > MOST_PORTS
    })
}

/// What one policy admits in one direction, as far as it can help to admit everyone.
#[derive(Debug, Default)]
pub(super) struct Admits {
    /// The TCP ports of rules that name no peer.
    to_everyone: PortSet,
    /// The rules that name peers.
    named: Vec<Named>,
}

/// A rule with peers.
#[derive(Debug)]
struct Named {
    ports: PortSet,
    addresses: IpSet,
    admits_strangers: bool,
}

impl Admits {
    pub(super) fn of(policy: &NetworkPolicy, direction: Direction) -> Self {
        let rules = policy.rules(direction);
        let to_everyone = rules.iter().filter(|rule| rule.peers.is_none()).flat_map(tcp_ranges);
        Self { to_everyone: PortSet::from_ranges(to_everyone), named: rules.iter().filter_map(Named::of).collect() }
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
        self.to_everyone.count() + self.named.iter().map(|rule| rule.ports.count() * share(rule) / 3.0).sum::<f64>()
    }
}

impl Named {
    fn of(rule: &PolicyRule) -> Option<Self> {
        let peers = rule.peers.as_ref()?;
        let ports = PortSet::from_ranges(tcp_ranges(rule));
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

/// Whether policies together admit everything: many TCP ports, each for every pod of every
/// namespace and for most addresses of a family.
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
    // Rules that name nobody are the plain case, and need no looking at single ports.
    let to_everyone = admits.iter().flat_map(|it| it.to_everyone.ranges());
    let to_everyone = PortSet::from_ranges(to_everyone.copied());
    if to_everyone.count() > f64::from(MOST_PORTS) {
        return Truth::Yes;
    }
    let named: Vec<&Named> = admits.iter().flat_map(|it| &it.named).collect();
    let ports = named.iter().flat_map(|rule| rule.ports.ranges()).chain(to_everyone.ranges());
    let ports = PortSet::from_ranges(ports.copied());
    if ports.count() <= f64::from(MOST_PORTS) || admits_everyone(view, &named) == Truth::No {
        return Truth::No;
    }
    let mut cuts: Vec<u32> = (named.iter().flat_map(|rule| rule.ports.ranges()))
        .chain(to_everyone.ranges())
        .flat_map(|(first, last)| [u32::from(*first), u32::from(*last) + 1])
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    // Between two neighbouring cuts all ports are admitted alike. The widest spans come first: they
    // settle most, should there be too many to look at each.
    let (mut certain, mut possible) = (0, 0);
    let mut spans: Vec<(u32, u16)> = Vec::new();
    for (first, next) in cuts.iter().zip(cuts.iter().skip(1)) {
        let Ok(port) = u16::try_from(*first) else { break };
        if to_everyone.contains(port) {
            certain += next - first;
        } else if ports.contains(port) {
            spans.push((next - first, port));
        }
    }
    spans.sort_by(|(a, at), (b, bt)| b.cmp(a).then(at.cmp(bt)));
    let mut left: u32 = spans.iter().map(|(width, _)| width).sum();
    for (width, port) in spans {
        view.check_stop();
        if certain > MOST_PORTS || certain + possible + left <= MOST_PORTS {
            break;
        }
        let here: Vec<&Named> = named.iter().copied().filter(|rule| rule.ports.contains(port)).collect();
        let steps = named.len() + here.iter().map(|rule| rule.size()).sum::<usize>();
        if work.spend(steps).is_none() {
            break;
        }
        left -= width;
        match admits_everyone(view, &here) {
            Truth::Yes => certain += width,
            Truth::Maybe => possible += width,
            Truth::No => {}
        }
    }
    if certain > MOST_PORTS {
        Truth::Yes
    } else if certain + possible + left > MOST_PORTS {
        Truth::Maybe
    } else {
        Truth::No
    }
}

/// Whether the peers of some rules, taken together, are everyone: every pod of every namespace and
/// most addresses of a family.
fn admits_everyone(view: &View<'_>, rules: &[&Named]) -> Truth {
    let addresses = IpSet::union_of(rules.iter().map(|rule| &rule.addresses));
    let wide: Vec<Family> = Family::ALL.into_iter().filter(|family| space::share(&addresses, *family) > 0.5).collect();
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
