//! What must hold of policies whatever they say: how answers move when policies do.

use portcullis::model::{Direction, Directions, NetworkPolicy, Selector, Workload};
use portcullis::netset::{ConnectionSet, Protocol};
use portcullis::reach::{CniName, Peer, Reach};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::oracle::generate::world;
use crate::world::{CNIS, cases, cni, policy};

type World = crate::oracle::World;

/// Certain and possible, from each workload to each.
fn matrix(world: &World, policies: &[NetworkPolicy], name: CniName) -> Vec<(ConnectionSet, ConnectionSet)> {
    let (cluster, cni, workloads) = (world.cluster(policies), cni(name), world.workloads());
    let reach = Reach::new(&cluster, &cni);
    let ask = |from: &Workload, to: &Workload| {
        let answer = reach.connections(Peer::Workload(from), Peer::Workload(to));
        (answer.certain, answer.possible)
    };
    workloads.iter().flat_map(|from| workloads.iter().map(move |to| (from, to))).map(|(a, b)| ask(a, b)).collect()
}

/// Whether the first lets pass no more than the second, everywhere.
fn is_within(less: &[(ConnectionSet, ConnectionSet)], more: &[(ConnectionSet, ConnectionSet)]) -> bool {
    less.len() == more.len()
        && less.iter().zip(more).all(|(less, more)| more.0.is_superset(&less.0) && more.1.is_superset(&less.1))
}

/// A policy and a direction in which it has a rule, chosen from all of them.
fn pick_rule(policies: &[NetworkPolicy], choice: Index) -> Option<(usize, Direction, usize)> {
    let mut all = Vec::new();
    for (at, policy) in policies.iter().enumerate() {
        for direction in Direction::ALL {
            all.extend((0..policy.rules(direction).len()).map(|rule| (at, direction, rule)));
        }
    }
    (!all.is_empty()).then(|| all[choice.index(all.len())])
}

fn rules_mut(policy: &mut NetworkPolicy, direction: Direction) -> &mut Vec<portcullis::model::PolicyRule> {
    match direction {
        Direction::Ingress => &mut policy.ingress,
        Direction::Egress => &mut policy.egress,
    }
}

/// Whether some policy has rules for a direction it does not list: with those, whether a pod is
/// isolated is itself open, and more rules may mean less.
fn has_unlisted(policies: &[NetworkPolicy]) -> bool {
    let unlisted = |policy: &NetworkPolicy, it| !policy.isolates.contains(it) && !policy.rules(it).is_empty();
    policies.iter().any(|policy| Direction::ALL.into_iter().any(|direction| unlisted(policy, direction)))
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn a_policy_more_adds_to_an_isolated_pod_and_takes_from_an_open_one(world in world(), new in Index::arbitrary()) {
        let mut policies = world.policies();
        prop_assume!(!policies.is_empty());
        let at = new.index(policies.len());
        let (after, added) = (world.cluster(&policies), policies.remove(at));
        let before = world.cluster(&policies);
        let cni = cni(CniName::Calico);
        let workloads = world.workloads();
        for (subject, peer) in workloads.iter().flat_map(|a| workloads.iter().map(move |b| (a, b))) {
            for direction in Direction::ALL {
                let side = |cluster| {
                    let side = Reach::new(cluster, &cni).side(subject, direction, Peer::Workload(peer));
                    (side.is_isolated(), side.certain, side.possible)
                };
                let ((was_isolated, certain, possible), (is_isolated, more_certain, more_possible)) = (side(&before), side(&after));
                if was_isolated {
                    prop_assert!(more_certain.is_superset(&certain) && more_possible.is_superset(&possible));
                } else if is_isolated {
                    prop_assert!(certain.is_superset(&more_certain) && possible.is_superset(&more_possible));
                    prop_assert!(added.pods.matches(&subject.labels) && added.isolates.contains(direction));
                } else {
                    prop_assert_eq!((certain, possible), (more_certain, more_possible));
                }
            }
        }
    }

    #[test]
    fn less_in_a_rule_admits_no_more(world in world(), name in select(&CNIS), which in Index::arbitrary(), item in Index::arbitrary()) {
        let policies = world.policies();
        prop_assume!(name == CniName::Calico || !has_unlisted(&policies));
        let Some((at, direction, rule)) = pick_rule(&policies, which) else { return Ok(()) };
        let whole = matrix(&world, &policies, name);

        let mut without_rule = policies.clone();
        rules_mut(&mut without_rule[at], direction).remove(rule);
        prop_assert!(is_within(&matrix(&world, &without_rule, name), &whole), "without the rule");

        // The last peer or port of a list cannot go: an empty list is everyone.
        let mut without_peer = policies.clone();
        if let Some(peers) = &mut rules_mut(&mut without_peer[at], direction)[rule].peers && peers.len() > 1 {
            peers.remove(item.index(peers.len()));
            prop_assert!(is_within(&matrix(&world, &without_peer, name), &whole), "without a peer");
        }
        let mut without_port = policies.clone();
        if let Some(ports) = &mut rules_mut(&mut without_port[at], direction)[rule].ports && ports.len() > 1 {
            ports.remove(item.index(ports.len()));
            prop_assert!(is_within(&matrix(&world, &without_port, name), &whole), "without a port");
        }
        let mut without_peers = policies.clone();
        rules_mut(&mut without_peers[at], direction)[rule].peers = None;
        prop_assert!(is_within(&whole, &matrix(&world, &without_peers, name)), "to or from everyone");
        let mut without_ports = policies.clone();
        rules_mut(&mut without_ports[at], direction)[rule].ports = None;
        prop_assert!(is_within(&whole, &matrix(&world, &without_ports, name)), "on every port");
    }

    #[test]
    fn names_and_order_mean_nothing(world in world(), name in select(&CNIS), turn in 0..4usize) {
        let policies = world.policies();
        let mut turned = policies.clone();
        let count = turned.len();
        for (at, policy) in turned.iter_mut().enumerate() {
            // Names sort the other way around, and so do the lists.
            policy.name = format!("q{}", count - at).into();
            for direction in Direction::ALL {
                let rules = rules_mut(policy, direction);
                rules.reverse();
                for rule in rules {
                    rule.peers.iter_mut().for_each(|peers| turn_list(peers, turn));
                    rule.ports.iter_mut().for_each(|ports| turn_list(ports, turn));
                }
            }
        }
        turned.reverse();
        prop_assert_eq!(matrix(&world, &turned, name), matrix(&world, &policies, name));
    }

    #[test]
    fn a_rule_twice_or_in_a_policy_of_its_own_means_the_same(world in world(), name in select(&CNIS), which in Index::arbitrary()) {
        let policies = world.policies();
        let Some((at, direction, rule)) = pick_rule(&policies, which) else { return Ok(()) };
        let whole = matrix(&world, &policies, name);
        let mut twice = policies.clone();
        let again = twice[at].rules(direction)[rule].clone();
        rules_mut(&mut twice[at], direction).push(again.clone());
        prop_assert_eq!(&matrix(&world, &twice, name), &whole);

        let mut apart = policies;
        let mut other = NetworkPolicy { name: "apart".into(), ingress: Vec::new(), egress: Vec::new(), ..apart[at].clone() };
        rules_mut(&mut apart[at], direction).remove(rule);
        rules_mut(&mut other, direction).push(again);
        apart.push(other);
        prop_assert_eq!(&matrix(&world, &apart, name), &whole);
    }

    #[test]
    fn a_quick_yes_is_what_the_full_answer_says(world in world(), name in select(&CNIS)) {
        let policies = world.policies();
        let (cluster, cni) = (world.cluster(&policies), cni(name));
        let reach = Reach::new(&cluster, &cni);
        for (from, to) in pairs(&world.workloads()) {
            for policy in policies.iter().filter(|it| it.namespace == from.namespace && it.pods.matches(&from.labels)) {
                for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53), (Protocol::Tcp, 81)] {
                    if reach.lets_out_plainly(policy, &to, protocol, port) && !from.is_finished {
                        let side = reach.side(&from, Direction::Egress, Peer::Workload(&to));
                        prop_assert!(side.certain.contains(protocol, port), "{policy:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn asked_about_some_ports_the_answer_for_them_is_the_full_one(world in world(), name in select(&CNIS)) {
        let policies = world.policies();
        let (cluster, cni) = (world.cluster(&policies), cni(name));
        let asked = [(Protocol::Udp, 53), (Protocol::Tcp, 80), (Protocol::Sctp, 65535)];
        let (full, about) = (Reach::new(&cluster, &cni), Reach::new(&cluster, &cni).about(&asked));
        for (from, to) in pairs(&world.workloads()) {
            let answer = |reach: &Reach<'_>| {
                let answer = reach.connections(Peer::Workload(&from), Peer::Workload(&to));
                asked.map(|(protocol, port)| (answer.certain.contains(protocol, port), answer.possible.contains(protocol, port)))
            };
            prop_assert_eq!(answer(&about), answer(&full));
        }
    }

    #[test]
    fn a_default_deny_is_the_least_there_is(world in world(), name in select(&CNIS)) {
        let deny: Vec<NetworkPolicy> = crate::oracle::generate::NAMESPACES.map(|namespace| NetworkPolicy {
            isolates: Directions::BOTH,
            ..policy(namespace, "default-deny", serde_json::json!({"podSelector": {}}))
        }).to_vec();
        let least = matrix(&world, &deny, name);
        for ((certain, possible), (from, to)) in least.iter().zip(pairs(&world.workloads())) {
            let is_shut = !(from.host_network || to.host_network) && (from != to || !from.is_pod());
            prop_assert!(!is_shut || possible.is_empty());
            prop_assert!(possible.is_superset(certain));
        }
        let mut more = world.policies();
        more.extend(deny);
        prop_assert!(is_within(&least, &matrix(&world, &more, name)));
        let isolate_all = world.policies().into_iter().map(|policy| NetworkPolicy {
            isolates: Directions::BOTH,
            pods: Selector::everything(),
            ..policy
        });
        let isolated: Vec<_> = isolate_all.collect();
        let namespaces_of = |policies: &[NetworkPolicy]| policies.iter().map(|it| it.namespace.clone()).collect::<std::collections::BTreeSet<_>>();
        if namespaces_of(&isolated).len() == 3 {
            let mut with_deny = isolated.clone();
            with_deny.extend(more.into_iter().filter(|it| it.name == "default-deny"));
            prop_assert_eq!(matrix(&world, &with_deny, name), matrix(&world, &isolated, name), "isolation twice is isolation");
        }
    }
}

fn turn_list<T>(list: &mut [T], turn: usize) {
    if !list.is_empty() {
        let by = turn % list.len();
        list.rotate_left(by);
    }
}

fn pairs(workloads: &[Workload]) -> Vec<(Workload, Workload)> {
    workloads.iter().flat_map(|from| workloads.iter().map(move |to| (from.clone(), to.clone()))).collect()
}
