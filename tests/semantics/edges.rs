//! Reachability at its edges: what cannot be read, what has no address, what has two, what has
//! ended, and where implementations differ.

use ipnet::IpNet;
use portcullis::cluster::Cluster;
use portcullis::model::{IpBlock, NetworkPolicy, Operator, PeerSpec, Port, Requirement, Selector, Workload};
use portcullis::netset::{ConnectionSet, Family, IpSet, PortSet, Protocol};
use portcullis::reach::{Answer, Cni, CniName, Dns, DnsSettings, DnsSource, Peer, Reach};
use serde_json::{Value, json};

use crate::world::{cni, deployment, dns_service, namespace, object, pod, policy};

fn tcp(port: u16) -> ConnectionSet {
    ConnectionSet::of(Protocol::Tcp, PortSet::single(port))
}

fn cluster(workloads: &[&Workload], policies: impl IntoIterator<Item = NetworkPolicy>) -> Cluster {
    let workloads = workloads.iter().map(|it| object((*it).clone()));
    Cluster::of(workloads.chain(policies.into_iter().map(object)))
}

/// What certainly and what possibly passes.
fn between(cluster: &Cluster, cni: &Cni, from: Peer<'_>, to: Peer<'_>) -> (ConnectionSet, ConnectionSet) {
    let Answer { certain, possible, .. } = Reach::new(cluster, cni).connections(from, to);
    (certain, possible)
}

fn egress(namespace: &str, name: &str, rules: Value) -> NetworkPolicy {
    policy(namespace, name, json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": rules}))
}

fn nets(nets: &[&str]) -> IpSet {
    nets.iter().map(|net| net.parse::<IpNet>().unwrap()).collect()
}

const EVERYTHING: fn() -> ConnectionSet = ConnectionSet::full;
const NOTHING: fn() -> ConnectionSet = ConnectionSet::empty;

#[test]
fn what_a_policy_allows_that_could_not_be_read_in_full_is_not_known() {
    let (a, b) = (pod("x", "a", [], &["10.0.0.1"]), pod("x", "b", [], &["10.0.0.2"]));
    let mut partial = egress("x", "partial", json!([{"ports": [{"port": 80}]}]));
    partial.is_partial = true;
    let cluster = cluster(&[&a, &b], [partial]);
    let found = between(&cluster, &cni(CniName::Calico), Peer::Workload(&a), Peer::Workload(&b));
    assert_eq!(found, (NOTHING(), EVERYTHING()), "an exception that did not parse may take it away");
}

#[test]
fn an_unknown_operator_leaves_open_whom_a_policy_selects() {
    let (a, b) = (pod("x", "a", [("app", "a")], &["10.0.0.1"]), pod("x", "b", [], &["10.0.0.2"]));
    let unknown = Requirement { key: "app".into(), operator: Operator::Unknown("Like".into()) };
    let of = |pods| cluster(&[&a, &b], [NetworkPolicy { pods, ..egress("x", "p", json!([])) }]);
    let ask = |cluster| between(&cluster, &cni(CniName::Calico), Peer::Workload(&a), Peer::Workload(&b));
    assert_eq!(ask(of(Selector::new([unknown.clone()]))), (NOTHING(), EVERYTHING()));
    let other = Requirement { key: "app".into(), operator: Operator::In(vec!["b".into()]) };
    assert_eq!(ask(of(Selector::new([unknown, other]))), (EVERYTHING(), EVERYTHING()), "a known demand is not met");
}

#[test]
fn an_unknown_operator_leaves_open_whom_a_peer_is_about() {
    let (a, b) = (pod("x", "a", [], &["10.0.0.1"]), pod("x", "b", [("app", "b")], &["10.0.0.2"]));
    let mut policy = egress("x", "p", json!([{"to": [{"podSelector": {}}]}]));
    let unknown = Requirement { key: "app".into(), operator: Operator::Unknown("Like".into()) };
    policy.egress[0].peers =
        Some(vec![PeerSpec::Pods { namespaces: None, pods: Selector::new([unknown]), pods_written: true }]);
    let cluster = cluster(&[&a, &b], [policy]);
    let found = between(&cluster, &cni(CniName::Calico), Peer::Workload(&a), Peer::Workload(&b));
    assert_eq!(found, (NOTHING(), EVERYTHING()));
}

#[test]
fn an_empty_list_of_peers_or_ports_is_as_good_as_none() {
    let (a, b) = (pod("x", "a", [], &["10.0.0.1"]), pod("x", "b", [], &["10.0.0.2"]));
    let mut policy = egress("x", "p", json!([{}]));
    policy.egress[0].peers = Some(Vec::new());
    policy.egress[0].ports = Some(Vec::new());
    let cluster = cluster(&[&a, &b], [policy]);
    let found = between(&cluster, &cni(CniName::Calico), Peer::Workload(&a), Peer::Workload(&b));
    assert_eq!(found, (EVERYTHING(), EVERYTHING()));
}

#[test]
fn a_port_that_could_not_be_read_may_be_any_of_its_protocol() {
    let (a, b) = (pod("x", "a", [], &["10.0.0.1"]), pod("x", "b", [], &["10.0.0.2"]));
    let mut policy = egress("x", "p", json!([{"ports": [{"protocol": "UDP", "port": 53}, {"port": 80}]}]));
    policy.egress[0].ports.as_mut().unwrap()[0].port = Port::Unreadable;
    let cluster = cluster(&[&a, &b], [policy]);
    let (certain, possible) = between(&cluster, &cni(CniName::Calico), Peer::Workload(&a), Peer::Workload(&b));
    assert_eq!(certain, tcp(80));
    assert_eq!(possible, tcp(80).union(&ConnectionSet::of(Protocol::Udp, PortSet::full())));
}

#[test]
fn nothing_passes_to_or_from_a_finished_pod() {
    let a = pod("x", "a", [], &["10.0.0.1"]);
    let done = Workload { is_finished: true, ..pod("x", "done", [], &["10.0.0.2"]) };
    let cluster = cluster(&[&a, &done], []);
    let cni = cni(CniName::Calico);
    let outside = nets(&["192.0.2.0/24"]);
    for (from, to) in [
        (Peer::Workload(&a), Peer::Workload(&done)),
        (Peer::Workload(&done), Peer::Workload(&a)),
        (Peer::Workload(&done), Peer::Workload(&done)),
        (Peer::External(&outside), Peer::Workload(&done)),
        (Peer::Workload(&done), Peer::External(&outside)),
    ] {
        assert_eq!(between(&cluster, &cni, from, to), (NOTHING(), NOTHING()));
    }
    assert_eq!(Reach::new(&cluster, &cni).policies_of(&done).count(), 0);
}

#[test]
fn blocks_that_cover_a_range_together_admit_all_of_it() {
    let a = pod("x", "a", [], &["10.0.0.1"]);
    let everyone = IpSet::family(Family::V4);
    let low = json!({"ipBlock": {"cidr": "0.0.0.0/1"}});
    let high = json!({"ipBlock": {"cidr": "128.0.0.0/1"}});
    let ask = |policies: Vec<NetworkPolicy>| {
        let cluster = cluster(&[&a], policies);
        between(&cluster, &cni(CniName::Unknown), Peer::Workload(&a), Peer::External(&everyone))
    };
    let whole = (EVERYTHING(), EVERYTHING());
    assert_eq!(ask(vec![egress("x", "p", json!([{"to": [low, high]}]))]), whole, "in one rule");
    assert_eq!(ask(vec![egress("x", "p", json!([{"to": [low]}, {"to": [high]}]))]), whole, "in two rules");
    let (p, q) = (egress("x", "p", json!([{"to": [low]}])), egress("x", "q", json!([{"to": [high]}])));
    assert_eq!(ask(vec![p.clone(), q]), whole, "in two policies");
    assert_eq!(ask(vec![p]), (NOTHING(), EVERYTHING()), "half of it is not all of it");
}

#[test]
fn blocks_on_different_ports_admit_a_range_on_the_ports_they_share() {
    let a = pod("x", "a", [], &["10.0.0.1"]);
    let rule =
        |cidr, first, last| json!({"to": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": first, "endPort": last}]});
    let rules = json!([rule("0.0.0.0/1", 1, 100), rule("128.0.0.0/1", 50, 150), rule("0.0.0.0/0", 443, 443)]);
    let cluster = cluster(&[&a], [egress("x", "p", rules)]);
    let everyone = IpSet::family(Family::V4);
    let (certain, possible) = between(&cluster, &cni(CniName::Unknown), Peer::Workload(&a), Peer::External(&everyone));
    let ports = |ranges: &[(u16, u16)]| ConnectionSet::of(Protocol::Tcp, PortSet::from_ranges(ranges.iter().copied()));
    assert_eq!(certain, ports(&[(50, 100), (443, 443)]));
    assert_eq!(possible, ports(&[(1, 150), (443, 443)]));
}

#[test]
fn a_pod_without_an_address_may_get_one_of_either_family() {
    let (a, b) = (pod("x", "a", [], &[]), deployment("x", "b", []));
    let ask = |cidrs: &[&str], pod_ranges: &[&str]| {
        let to: Vec<Value> = cidrs.iter().map(|cidr| json!({"ipBlock": {"cidr": cidr}})).collect();
        let cluster = cluster(&[&a, &b], [egress("x", "p", json!([{"to": to}]))]);
        let pod_ranges = pod_ranges.iter().map(|net| net.parse().unwrap()).collect();
        let cni = Cni { name: CniName::Calico, pod_ranges };
        between(&cluster, &cni, Peer::Workload(&a), Peer::Workload(&b))
    };
    let (open, sure, no) = ((NOTHING(), EVERYTHING()), (EVERYTHING(), EVERYTHING()), (NOTHING(), NOTHING()));
    assert_eq!(ask(&["0.0.0.0/0"], &[]), open, "the cluster may speak IPv6 only");
    assert_eq!(ask(&["0.0.0.0/0", "::/0"], &[]), sure);
    assert_eq!(ask(&["0.0.0.0/0"], &["10.0.0.0/8"]), sure);
    assert_eq!(ask(&["10.0.0.0/9", "10.128.0.0/9"], &["10.0.0.0/8"]), sure, "two blocks cover the range");
    assert_eq!(ask(&["10.0.0.0/9"], &["10.0.0.0/8"]), open);
    assert_eq!(ask(&["192.0.2.0/24"], &["10.0.0.0/8"]), no);
}

#[test]
fn a_connection_uses_one_address_family_at_both_ends() {
    let a = pod("x", "a", [("app", "a")], &["10.0.0.1", "fd00::1"]);
    let b = pod("x", "b", [("app", "b")], &["10.0.0.2", "fd00::2"]);
    let out = policy(
        "x",
        "out",
        json!({"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}),
    );
    let in_by = |cidr: &str| {
        policy(
            "x",
            "in",
            json!({"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": 80}]}]}),
        )
    };
    let ask = |policies: [NetworkPolicy; 2]| {
        between(&cluster(&[&a, &b], policies), &cni(CniName::Calico), Peer::Workload(&a), Peer::Workload(&b))
    };
    assert_eq!(ask([out.clone(), in_by("fd00::/64")]), (NOTHING(), NOTHING()), "out over IPv4, in over IPv6");
    assert_eq!(ask([out, in_by("10.0.0.0/8")]), (tcp(80), tcp(80)));
}

#[test]
fn a_block_of_a_family_the_pod_does_not_speak_admits_it_nobody() {
    let four = pod("x", "four", [], &["10.0.0.1"]);
    let both = pod("x", "both", [], &["10.0.0.2", "fd00::2"]);
    let cluster = cluster(&[&four, &both], [egress("x", "p", json!([{"to": [{"ipBlock": {"cidr": "fd00::/64"}}]}]))]);
    let found = between(&cluster, &cni(CniName::Calico), Peer::Workload(&four), Peer::Workload(&both));
    assert_eq!(found, (NOTHING(), NOTHING()));
    let to_come = deployment("x", "to-come", []);
    let found = between(&cluster, &cni(CniName::Calico), Peer::Workload(&to_come), Peer::Workload(&both));
    assert_eq!(found, (NOTHING(), EVERYTHING()), "what the pods to come speak is not known");
}

#[test]
fn rules_for_a_direction_not_listed_are_settled_by_the_implementation() {
    let (a, b) = (pod("x", "a", [], &["10.0.0.1"]), pod("x", "b", [], &["10.0.0.2"]));
    let unlisted = policy(
        "x",
        "p",
        json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}], "egress": [{"ports": [{"port": 80}]}]}),
    );
    let cluster = cluster(&[&a, &b], [unlisted]);
    for (name, certain) in [
        (CniName::Unknown, tcp(80)),
        (CniName::Cilium, tcp(80)),
        (CniName::AwsVpcCni, tcp(80)),
        (CniName::Calico, EVERYTHING()),
        (CniName::OvnKubernetes, EVERYTHING()),
        (CniName::Antrea, EVERYTHING()),
        (CniName::AzureNpm, EVERYTHING()),
    ] {
        let found = between(&cluster, &cni(name), Peer::Workload(&a), Peer::Workload(&b));
        assert_eq!(found, (certain, EVERYTHING()), "{name:?}");
    }
}

#[test]
fn a_tenants_service_of_that_name_is_not_cluster_dns() {
    let service = dns_service("kube-system", "kube-dns", [("k8s-app", "kube-dns")], 53);
    let dns = pod("kube-system", "coredns-1", [("k8s-app", "kube-dns")], &["10.0.0.1"]);
    let own = pod("shop", "own", [("app", "own")], &["10.0.0.2"]);
    let tenant = dns_service("shop", "coredns", [("app", "own")], 53);
    let cluster = Cluster::of([namespace("shop", []), service, object(dns), object(own.clone()), tenant.clone()]);
    let settings = DnsSettings::default();
    let found = Dns::find(&cluster, &settings);
    assert_eq!(found.source, DnsSource::Service);
    assert!(found.is_in("kube-system"));
    assert!(!found.is_in("shop"));
    let alone = Cluster::of([object(own), tenant]);
    assert!(Dns::find(&alone, &settings).is_in("shop"), "where no other is known it may be the cluster's");
}

#[test]
fn a_pod_to_come_on_its_nodes_network_gets_no_address_of_the_pod_ranges() {
    let a = pod("x", "a", [], &["10.0.0.1"]);
    let agent = Workload { host_network: true, ..deployment("x", "agent", []) };
    let cluster = cluster(&[&a, &agent], [egress("x", "p", json!([{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]))]);
    let cni = Cni { name: CniName::Calico, pod_ranges: vec!["10.0.0.0/8".parse().unwrap()] };
    let found = between(&cluster, &cni, Peer::Workload(&a), Peer::Workload(&agent));
    assert_eq!(found, (NOTHING(), EVERYTHING()));
}

#[test]
fn host_bits_of_a_block_and_its_exceptions_do_not_count() {
    let block = |cidr: &str, except: &str| IpBlock::new(cidr.parse().unwrap(), vec![except.parse().unwrap()]);
    assert_eq!(block("10.1.2.3/8", "10.0.9.9/20"), block("10.0.0.0/8", "10.0.0.0/20"));
}

#[test]
fn the_port_names_of_dns_pods_nobody_has_seen_are_not_known() {
    let to_dns = json!([{"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
        "ports": [{"protocol": "UDP", "port": "dns"}]}]);
    let a = pod("x", "a", [], &["10.0.0.1"]);
    let cluster = cluster(&[&a], [egress("x", "p", to_dns)]);
    let with_service = |target| {
        let service = dns_service("kube-system", "kube-dns", [("k8s-app", "kube-dns")], target);
        cluster.with(&portcullis::model::Change::Create(service))
    };
    for (cluster, source) in
        [(cluster.clone(), DnsSource::WellKnown), (with_service(53), DnsSource::ServiceWithoutPods)]
    {
        let settings = DnsSettings::default();
        let dns = Dns::find(&cluster, &settings);
        assert_eq!(dns.source, source);
        let target = &dns.targets[0].workload;
        let (certain, possible) = between(&cluster, &cni(CniName::Calico), Peer::Workload(&a), Peer::Workload(target));
        assert_eq!(certain, NOTHING());
        assert!(possible.contains(Protocol::Udp, 53) && !possible.contains(Protocol::Tcp, 53), "{source:?}");
    }
}
