//! One policy on pod x/a, every combination of peers and of ports. What is expected is written as
//! a predicate on a flow, next to the YAML-shaped value it belongs to.

use portcullis::model::Workload;
use portcullis::netset::Protocol;
use portcullis::reach::{CniName, Peer, Reach};
use serde_json::{Value, json};

use crate::world::{cni, grid, grid_pods, policy};

/// Whether an item of `from` or `to` is about the pod of this namespace and name.
type IsPeer = fn(&str, &str) -> bool;
/// Whether an item of `ports` is about this protocol and port.
type IsPort = fn(Protocol, u16) -> bool;

/// podSelector nil, `{}` and by label, with namespaceSelector nil, `{}` and by label: nine less
/// the one with neither, which the API refuses. Then the two blocks. The policy is in x, pod y/b
/// has the address 10.0.2.2.
fn peers() -> [(Value, IsPeer); 10] {
    let b = json!({"matchLabels": {"pod": "b"}});
    let y = json!({"matchLabels": {"kubernetes.io/metadata.name": "y"}});
    [
        (json!({"podSelector": {}}), |ns, _| ns == "x"),
        (json!({"podSelector": b}), |ns, pod| ns == "x" && pod == "b"),
        (json!({"namespaceSelector": {}}), |_, _| true),
        (json!({"namespaceSelector": {}, "podSelector": {}}), |_, _| true),
        (json!({"namespaceSelector": {}, "podSelector": b}), |_, pod| pod == "b"),
        (json!({"namespaceSelector": y}), |ns, _| ns == "y"),
        (json!({"namespaceSelector": y, "podSelector": {}}), |ns, _| ns == "y"),
        (json!({"namespaceSelector": y, "podSelector": b}), |ns, pod| ns == "y" && pod == "b"),
        (json!({"ipBlock": {"cidr": "10.0.2.0/24"}}), |ns, _| ns == "y"),
        (json!({"ipBlock": {"cidr": "10.0.2.0/24", "except": ["10.0.2.2/32"]}}), |ns, pod| ns == "y" && pod != "b"),
    ]
}

/// {no protocol, TCP, UDP, SCTP} × {no port, 80, 81}; every port name the pods serve, with its
/// protocol; ranges that end on 80 and beyond 81, on each protocol. Twelve, six and six.
fn ports() -> Vec<(Value, IsPort)> {
    use Protocol::{Sctp, Tcp, Udp};
    vec![
        (json!({}), |protocol, _| protocol == Tcp),
        (json!({"port": 80}), |protocol, port| protocol == Tcp && port == 80),
        (json!({"port": 81}), |protocol, port| protocol == Tcp && port == 81),
        (json!({"protocol": "TCP"}), |protocol, _| protocol == Tcp),
        (json!({"protocol": "TCP", "port": 80}), |protocol, port| protocol == Tcp && port == 80),
        (json!({"protocol": "TCP", "port": 81}), |protocol, port| protocol == Tcp && port == 81),
        (json!({"protocol": "UDP"}), |protocol, _| protocol == Udp),
        (json!({"protocol": "UDP", "port": 80}), |protocol, port| protocol == Udp && port == 80),
        (json!({"protocol": "UDP", "port": 81}), |protocol, port| protocol == Udp && port == 81),
        (json!({"protocol": "SCTP"}), |protocol, _| protocol == Sctp),
        (json!({"protocol": "SCTP", "port": 80}), |protocol, port| protocol == Sctp && port == 80),
        (json!({"protocol": "SCTP", "port": 81}), |protocol, port| protocol == Sctp && port == 81),
        (json!({"protocol": "TCP", "port": "serve-80-tcp"}), |protocol, port| protocol == Tcp && port == 80),
        (json!({"protocol": "TCP", "port": "serve-81-tcp"}), |protocol, port| protocol == Tcp && port == 81),
        (json!({"protocol": "UDP", "port": "serve-80-udp"}), |protocol, port| protocol == Udp && port == 80),
        (json!({"protocol": "UDP", "port": "serve-81-udp"}), |protocol, port| protocol == Udp && port == 81),
        (json!({"protocol": "SCTP", "port": "serve-80-sctp"}), |protocol, port| protocol == Sctp && port == 80),
        (json!({"protocol": "SCTP", "port": "serve-81-sctp"}), |protocol, port| protocol == Sctp && port == 81),
        (json!({"protocol": "TCP", "port": 53, "endPort": 80}), |protocol, port| protocol == Tcp && port <= 80),
        (json!({"protocol": "TCP", "port": 53, "endPort": 84}), |protocol, port| protocol == Tcp && port <= 84),
        (json!({"protocol": "UDP", "port": 53, "endPort": 80}), |protocol, port| protocol == Udp && port <= 80),
        (json!({"protocol": "UDP", "port": 53, "endPort": 84}), |protocol, port| protocol == Udp && port <= 84),
        (json!({"protocol": "SCTP", "port": 53, "endPort": 80}), |protocol, port| protocol == Sctp && port <= 80),
        (json!({"protocol": "SCTP", "port": 53, "endPort": 84}), |protocol, port| protocol == Sctp && port <= 84),
    ]
}

/// Items of `ports` that are paired: one of each kind (a number, another protocol, a whole
/// protocol, a name, a range), as places in [`ports`]. Every pair of five is ten.
const PAIRED_PORTS: [usize; 5] = [4, 8, 9, 13, 20];

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Ingress,
    Egress,
}

impl Way {
    fn policy_type(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }
}

#[test]
fn every_combination_of_peers_admits_what_its_parts_say() {
    let peers = peers();
    let mut cases = 0;
    for way in [Way::Ingress, Way::Egress] {
        for chosen in up_to_pairs(peers.len()) {
            cases += 1;
            let list: Vec<&Value> = chosen.iter().map(|i| &peers[*i].0).collect();
            let rule = match way {
                Way::Ingress => json!({"from": list}),
                Way::Egress => json!({"to": list}),
            };
            check(way, &rule, |ns, pod, _, _| chosen.is_empty() || chosen.iter().any(|i| peers[*i].1(ns, pod)));
        }
    }
    assert_eq!(cases, 112, "(1 without peers + 10 single + 45 pairs) in two directions");
}

#[test]
fn every_combination_of_ports_admits_what_its_parts_say() {
    let ports = ports();
    let mut combinations: Vec<Vec<usize>> = vec![Vec::new()];
    combinations.extend((0..ports.len()).map(|i| vec![i]));
    combinations.extend(pairs(PAIRED_PORTS.len()).map(|(i, k)| vec![PAIRED_PORTS[i], PAIRED_PORTS[k]]));
    let mut cases = 0;
    for way in [Way::Ingress, Way::Egress] {
        for chosen in &combinations {
            cases += 1;
            let list: Vec<&Value> = chosen.iter().map(|i| &ports[*i].0).collect();
            let rule = json!({"ports": list});
            let is_admitted = |_: &str, _: &str, protocol, port| {
                chosen.is_empty() || chosen.iter().any(|i| ports[*i].1(protocol, port))
            };
            check(way, &rule, is_admitted);
        }
    }
    assert_eq!(cases, 70, "(1 without ports + 12 numbers + 6 names + 6 ranges + 10 pairs) in two directions");
}

/// Nothing, each single and each pair of this many things.
fn up_to_pairs(things: usize) -> Vec<Vec<usize>> {
    let singles = (0..things).map(|i| vec![i]);
    std::iter::once(Vec::new()).chain(singles).chain(pairs(things).map(|(i, k)| vec![i, k])).collect()
}

fn pairs(things: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..things).flat_map(move |i| (i + 1..things).map(move |k| (i, k)))
}

/// A policy of one rule on x/a: every flow between the nine pods, on both ports and all protocols,
/// is as it would be without the policy, but for those of x/a in the policy's direction, which
/// pass exactly when `is_admitted(namespace, pod, protocol, port)` says so of their other end.
fn check(way: Way, rule: &Value, is_admitted: impl Fn(&str, &str, Protocol, u16) -> bool) {
    let pods = grid_pods();
    let spec = json!({
        "podSelector": {"matchLabels": {"pod": "a"}},
        "policyTypes": [way.policy_type()],
        way.policy_type().to_lowercase(): [rule],
    });
    let cluster = grid(&pods, [policy("x", "one", spec)]);
    let cni = cni(CniName::Calico);
    let reach = Reach::new(&cluster, &cni);
    let is_subject = |pod: &Workload| pod.namespace == "x" && pod.id.name == "a";
    let mut flows = 0;
    for (from, to) in pods.iter().flat_map(|from| pods.iter().map(move |to| (from, to))) {
        let (subject, other) = match way {
            Way::Ingress => (to, from),
            Way::Egress => (from, to),
        };
        let answer = reach.connections(Peer::Workload(from), Peer::Workload(to));
        for (protocol, port) in Protocol::ALL.into_iter().flat_map(|protocol| [(protocol, 80), (protocol, 81)]) {
            flows += 1;
            let expected = !is_subject(subject)
                || is_subject(other)
                || is_admitted(&other.namespace, &other.id.name, protocol, port);
            let found = (answer.certain.contains(protocol, port), answer.possible.contains(protocol, port));
            let flow = format!("{protocol} {port} from {}/{} to {}/{}", from.namespace, from.id, to.namespace, to.id);
            assert_eq!(found, (expected, expected), "{flow} under {} {rule}", way.policy_type());
        }
    }
    assert_eq!(flows, 9 * 9 * 6);
}
