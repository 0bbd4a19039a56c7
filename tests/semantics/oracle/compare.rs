//! The evaluator of sets against the evaluator of single flows.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis::netset::{ConnectionSet, IpSet, Protocol};
use portcullis::reach::{Answer, Cni, CniName, Peer, Reach};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::TestCaseResult;

use super::brute::{End, Flow, Implementation, Number, World};
use super::generate::{NODES, OUTSIDE, PODS, v4, v6, world};
use crate::world::{CNIS, cases};

/// What a named implementation may do: one entry for each way the facts not known may lie.
fn implementations(name: CniName) -> Vec<Implementation> {
    let plain = Implementation {
        blocks_match_pods: true,
        blocks_match_nodes: true,
        enforces_unlisted: false,
        honours_end_port: true,
        honours_names: true,
        same_node: false,
    };
    let blocks = |match_all| Implementation { blocks_match_pods: match_all, blocks_match_nodes: match_all, ..plain };
    let known: Vec<Implementation> = match name {
        CniName::Unknown => vec![blocks(true), blocks(false)],
        CniName::Calico | CniName::OvnKubernetes | CniName::Antrea | CniName::AwsVpcCni => vec![plain],
        CniName::Cilium => vec![blocks(false)],
        CniName::AzureNpm => vec![Implementation { honours_end_port: false, honours_names: false, ..plain }],
    };
    let unlisted = if leaves_unlisted_open(name) { vec![false, true] } else { vec![false] };
    let mut all = Vec::new();
    for enforces_unlisted in unlisted {
        for same_node in [false, true] {
            all.extend(known.iter().map(|it| Implementation { enforces_unlisted, same_node, ..*it }));
        }
    }
    all
}

/// Whether it is not known if rules of a direction outside `policyTypes` are enforced.
fn leaves_unlisted_open(name: CniName) -> bool {
    matches!(name, CniName::Unknown | CniName::Cilium | CniName::AwsVpcCni)
}

fn implementation() -> impl Strategy<Value = CniName> {
    select(&CNIS)
}

/// Where pods get their addresses from, as configured and as it is.
#[derive(Clone, Copy, Debug)]
enum Ranges {
    NotConfigured,
    V4,
    Dual,
}

impl Ranges {
    fn configured(self) -> Vec<IpNet> {
        let nets: &[&str] = match self {
            Self::NotConfigured => &[],
            Self::V4 => &["10.0.1.0/29"],
            Self::Dual => &["10.0.1.0/29", "fd00::1:0/125"],
        };
        nets.iter().map(|net| net.parse().unwrap()).collect()
    }

    /// What addresses a pod to come may get: the places differ by how much is known.
    fn candidates(self, host_network: bool, number: u8) -> Vec<Vec<IpAddr>> {
        let place = match (self, host_network, number % 3) {
            (Self::V4 | Self::Dual, false, _) | (_, _, 0) => PODS,
            (_, _, 1) => NODES,
            (_, _, _) => OUTSIDE,
        };
        let (four, six) = (v4(place, number), v6(place, number));
        match (self, host_network) {
            (Self::V4, false) => vec![vec![four]],
            _ => vec![vec![four], vec![six], vec![four, six]],
        }
    }
}

/// Every number at which an answer can change, with its neighbours.
fn boundaries(world: &World) -> BTreeSet<u16> {
    let mut numbers = BTreeSet::from([1, u16::MAX]);
    let rules = world.policies.iter().flat_map(|it| it.ingress.iter().chain(&it.egress).flatten());
    for port in rules.flat_map(|rule| rule.ports.iter().flatten()) {
        if let Some(Number::Number(first)) = port.port {
            numbers.insert(first);
        }
        numbers.extend(port.end);
    }
    numbers.extend(world.pods.iter().flat_map(|pod| pod.ports.iter().map(|(_, _, number)| *number)));
    let near = |number: u16| [number.saturating_sub(1), number, number.saturating_add(1)];
    numbers.into_iter().flat_map(near).filter(|number| *number > 0).collect()
}

/// Which of the flows between two ends pass under an implementation. Ends that have several
/// addresses are connected when some pair of one family is.
struct Flows<'w> {
    world: &'w World,
    ports: &'w BTreeSet<u16>,
}

impl Flows<'_> {
    fn passing(&self, implementation: Implementation, from: &[End], to: &[End]) -> BTreeSet<(Protocol, u16)> {
        let mut passing = BTreeSet::new();
        for protocol in Protocol::ALL {
            for port in self.ports.iter().copied() {
                let passes = |from: End, to: End| {
                    let flow = Flow { from, to, protocol: protocol.as_str(), port };
                    address(from).is_ipv4() == address(to).is_ipv4() && self.world.passes(implementation, flow)
                };
                if from.iter().any(|from| to.iter().any(|to| passes(*from, *to))) {
                    passing.insert((protocol, port));
                }
            }
        }
        passing
    }

    /// What of the flows looked at a set holds. Its ranges must begin and end on ports looked at,
    /// or the flows do not speak for it.
    fn of(&self, set: &ConnectionSet) -> BTreeSet<(Protocol, u16)> {
        let mut held = BTreeSet::new();
        for protocol in Protocol::ALL {
            for (first, last) in set.ports(protocol).ranges() {
                assert!(self.ports.contains(first) && self.ports.contains(last), "{set} turns at a port nobody named");
            }
            let inside = self.ports.iter().filter(|port| set.contains(protocol, **port));
            held.extend(inside.map(|port| (protocol, *port)));
        }
        held
    }
}

fn address(end: End) -> IpAddr {
    match end {
        End::Pod(_, address) | End::Outside(address) => address,
    }
}

fn have_family_in_common(mine: &[IpAddr], theirs: &[IpAddr]) -> bool {
    mine.iter().any(|ip| theirs.iter().any(|it| ip.is_ipv4() == it.is_ipv4()))
}

/// All of the sets, or any of them, together.
fn all(sets: &[BTreeSet<(Protocol, u16)>]) -> BTreeSet<(Protocol, u16)> {
    let (first, rest) = sets.split_first().unwrap();
    rest.iter().fold(first.clone(), |all, set| &all & set)
}

fn any(sets: &[BTreeSet<(Protocol, u16)>]) -> BTreeSet<(Protocol, u16)> {
    sets.iter().flatten().copied().collect()
}

proptest! {
    #![proptest_config(cases(384))]

    #[test]
    fn pods_reach_each_other_as_the_flows_say(
        world in world(),
        name in implementation(),
        ranges in select(&[Ranges::NotConfigured, Ranges::V4, Ranges::Dual]),
        numbers in [0..8u8, 0..8u8],
    ) {
        let cluster = world.cluster(&world.policies());
        let cni = Cni { name, pod_ranges: ranges.configured() };
        let reach = Reach::new(&cluster, &cni);
        let (workloads, ports) = (world.workloads(), boundaries(&world));
        let flows = Flows { world: &world, ports: &ports };
        for from in 0..workloads.len() {
            for to in 0..workloads.len() {
                let answer = reach.connections(Peer::Workload(&workloads[from]), Peer::Workload(&workloads[to]));
                let what = format!("w{from} to w{to} with {name:?}");
                check_pair(&flows, name, ranges, (from, to), numbers, &answer, &what)?;
            }
        }
    }

    #[test]
    fn pods_and_the_outside_reach_each_other_as_the_flows_say(
        world in world(),
        name in implementation(),
        four in subsequence((0..8u8).collect::<Vec<_>>(), 0..4),
        six in subsequence((0..8u8).collect::<Vec<_>>(), 0..4),
    ) {
        let outside: Vec<IpAddr> = four.iter().map(|n| v4(OUTSIDE, *n)).chain(six.iter().map(|n| v6(OUTSIDE, *n))).collect();
        prop_assume!(!outside.is_empty());
        let range: IpSet = outside.iter().copied().map(IpNet::from).collect();
        let cluster = world.cluster(&world.policies());
        let cni = Cni { name, pod_ranges: Vec::new() };
        let reach = Reach::new(&cluster, &cni);
        let ports = boundaries(&world);
        let flows = Flows { world: &world, ports: &ports };
        for (pod, workload) in world.workloads().iter().enumerate() {
            for outwards in [true, false] {
                let ask = |range: &IpSet| {
                    let (pod, outside) = (Peer::Workload(workload), Peer::External(range));
                    if outwards { reach.connections(pod, outside) } else { reach.connections(outside, pod) }
                };
                let found = |implementation, address: IpAddr| {
                    // What the pod's own address is does not matter towards the outside.
                    let here = [End::Pod(pod, address)];
                    let there = [End::Outside(address)];
                    let (from, to) = if outwards { (here, there) } else { (there, here) };
                    flows.passing(implementation, &from, &to)
                };
                let mut by_world = Vec::new();
                for implementation in implementations(name) {
                    by_world.extend(outside.iter().map(|address| found(implementation, *address)));
                }
                let answer = ask(&range);
                prop_assert_eq!(flows.of(&answer.certain), all(&by_world), "certain of w{} with {:?}", pod, name);
                prop_assert_eq!(flows.of(&answer.possible), any(&by_world), "possible of w{} with {:?}", pod, name);

                let direction = if outwards { portcullis::model::Direction::Egress } else { portcullis::model::Direction::Ingress };
                let parts = reach.split(workload, direction, &range);
                prop_assert_eq!(IpSet::union_of(&parts), range.clone(), "the parts make up the range");
                let mut counted = 0.0;
                for part in &parts {
                    counted += part.v4.count() + part.v6.count();
                    let answer = ask(part);
                    if !leaves_unlisted_open(name) {
                        prop_assert_eq!(answer.certain, answer.possible, "a part is treated alike");
                    }
                }
                prop_assert!((counted - range.v4.count() - range.v6.count()).abs() < 0.5, "no two parts overlap");
            }
        }
    }
}

fn check_pair(
    flows: &Flows<'_>,
    name: CniName,
    ranges: Ranges,
    (from, to): (usize, usize),
    numbers: [u8; 2],
    answer: &Answer<'_>,
    what: &str,
) -> TestCaseResult {
    let world = flows.world;
    let candidates = |pod: usize, number: u8| {
        let pod = &world.pods[pod];
        if pod.ips.is_empty() { ranges.candidates(pod.host_network, number) } else { vec![pod.ips.clone()] }
    };
    let ends = |pod: usize, ips: &[IpAddr]| -> Vec<End> { ips.iter().map(|ip| End::Pod(pod, *ip)).collect() };
    let (certain, possible) = (flows.of(&answer.certain), flows.of(&answer.possible));
    prop_assert!(answer.possible.is_superset(&answer.certain), "{}", what);
    let mut by_world = Vec::new();
    for here in candidates(from, numbers[0]) {
        for there in candidates(to, numbers[1]) {
            // Two pods that speak no family in common are no question of policy.
            if !have_family_in_common(&here, &there) {
                continue;
            }
            for implementation in implementations(name) {
                let passing = flows.passing(implementation, &ends(from, &here), &ends(to, &there));
                prop_assert!(
                    certain.is_subset(&passing),
                    "certain of {what}: {certain:?} in {passing:?}, {implementation:?}"
                );
                prop_assert!(
                    passing.is_subset(&possible),
                    "possible of {what}: {passing:?} in {possible:?}, {implementation:?}"
                );
                by_world.push(passing);
            }
        }
    }
    let (here, there) = (&world.pods[from], &world.pods[to]);
    let is_known = !here.ips.is_empty() && !there.ips.is_empty();
    if !is_known || by_world.is_empty() {
        return Ok(());
    }
    let is_decided = !leaves_unlisted_open(name);
    if is_decided || here.ips.len() == 1 || there.ips.len() == 1 {
        prop_assert_eq!(&certain, &all(&by_world), "certain is all that is certain of {}", what);
    }
    if is_decided {
        prop_assert_eq!(&possible, &any(&by_world), "possible is all that is possible of {}", what);
    }
    if is_decided && !here.host_network {
        prop_assert_eq!(certain, possible, "nothing is left open of {}", what);
    }
    Ok(())
}
