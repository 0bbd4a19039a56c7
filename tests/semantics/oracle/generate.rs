//! Small worlds in which things meet: two keys with two values, sixteen addresses a family, few
//! ports, and of each thing the absent and the empty form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use portcullis::cluster::Cluster;
use portcullis::model::{ContainerPort, NetworkPolicy, Object, Workload};

use super::brute::{Labels, Net, Number, Peer, Pod, Policy, Port, Rule, Selector, World};
use crate::api;
use crate::world::{deployment, namespace, object, pod as bare_pod};

pub(crate) const NAMESPACES: [&str; 3] = ["x", "y", "z"];
pub(crate) const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Where the addresses of pods, nodes and the outside begin: the last four bits count.
pub(crate) const PODS: u8 = 1;
pub(crate) const NODES: u8 = 2;
pub(crate) const OUTSIDE: u8 = 3;

pub(crate) fn v4(place: u8, number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, place, number).into()
}

pub(crate) fn v6(place: u8, number: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, u16::from(place), u16::from(number)).into()
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    let namespaces = [namespace_labels(0), namespace_labels(1), namespace_labels(2)];
    (namespaces, vec(pod(), 2..5), vec(policy(), 0..5)).prop_map(|(namespaces, mut pods, policies)| {
        for (number, pod) in pods.iter_mut().enumerate() {
            settle(pod, number);
        }
        World { namespaces: namespaces.to_vec(), pods, policies }
    })
}

/// Gives a pod the addresses its kind has. Until here they say which families it speaks.
fn settle(pod: &mut Pod, number: usize) {
    let number = u8::try_from(number).unwrap();
    let place = if pod.host_network { NODES } else { PODS };
    let families = std::mem::take(&mut pod.ips);
    if !pod.is_template {
        let own = |family: IpAddr| if family.is_ipv4() { v4(place, number) } else { v6(place, number) };
        pod.ips = families.into_iter().map(own).collect();
    }
    // A container cannot name two ports alike, and a template's pods never finish.
    pod.ports.sort_unstable();
    pod.ports.dedup_by_key(|(name, protocol, _)| (*name, *protocol));
    pod.is_finished &= !pod.is_template;
}

fn labels() -> impl Strategy<Value = Labels> {
    let value = || option::weighted(0.7, select(&["a", "b"]));
    (value(), value()).prop_map(|(app, tier)| {
        let app = app.map(|value| ("app", value));
        app.into_iter().chain(tier.map(|value| ("tier", value))).collect()
    })
}

fn namespace_labels(number: usize) -> impl Strategy<Value = Labels> {
    labels().prop_map(move |mut labels| {
        labels.push(("kubernetes.io/metadata.name", NAMESPACES[number]));
        labels
    })
}

fn pod() -> impl Strategy<Value = Pod> {
    let families = prop_oneof![
        5 => Just(vec![v4(PODS, 0)]),
        1 => Just(vec![v6(PODS, 0)]),
        3 => Just(vec![v4(PODS, 0), v6(PODS, 0)]),
    ];
    let ports = vec((select(&["web", "dns"]), select(&PROTOCOLS), select(&[80, 81, 5353])), 0..4);
    (0..3usize, labels(), families, weighted(15), weighted(15), weighted(7), ports).prop_map(
        |(namespace, labels, ips, is_template, host_network, is_finished, ports)| Pod {
            namespace,
            labels,
            ips,
            is_template,
            host_network,
            is_finished,
            ports,
        },
    )
}

fn weighted(percent: u32) -> impl Strategy<Value = bool> {
    prop_oneof![100 - percent => Just(false), percent => Just(true)]
}

fn policy() -> impl Strategy<Value = Policy> {
    let types = prop_oneof![
        Just(None),
        Just(Some(vec![])),
        Just(Some(vec!["Ingress"])),
        Just(Some(vec!["Egress"])),
        Just(Some(vec!["Ingress", "Egress"])),
    ];
    let rules = || option::weighted(0.8, vec(rule(), 0..3));
    (0..3usize, option::weighted(0.8, selector()), types, rules(), rules()).prop_map(
        |(namespace, pod_selector, policy_types, ingress, egress)| Policy {
            namespace,
            pod_selector,
            policy_types,
            ingress,
            egress,
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let (peers, ports) = (option::weighted(0.85, vec(peer(), 0..3)), option::weighted(0.6, vec(port(), 0..3)));
    (peers, ports).prop_map(|(peers, ports)| Rule { peers, ports })
}

fn selector() -> impl Strategy<Value = Selector> {
    let values = || vec(select(&["a", "b", "c"]), 1..3);
    let name = (Just("kubernetes.io/metadata.name"), Just("In"), vec(select(&NAMESPACES), 1..3));
    let expression = prop_oneof![
        (select(&["app", "tier"]), select(&["In", "NotIn"]), values()),
        (select(&["app", "tier"]), select(&["Exists", "DoesNotExist"]), Just(Vec::new())),
        name,
    ];
    let pairs = vec((select(&["app", "tier"]), select(&["a", "b"])), 0..3);
    let expressions = prop_oneof![2 => Just(Vec::new()), 1 => vec(expression, 1..3)];
    (pairs, expressions).prop_map(|(mut labels, expressions)| {
        // A map has one value a key.
        labels.sort_unstable();
        labels.dedup_by_key(|(key, _)| *key);
        Selector { labels, expressions }
    })
}

fn peer() -> impl Strategy<Value = Peer> {
    let pods = prop_oneof![
        selector().prop_map(|pods| (None, Some(pods))),
        selector().prop_map(|namespaces| (Some(namespaces), None)),
        (selector(), selector()).prop_map(|(namespaces, pods)| (Some(namespaces), Some(pods))),
    ];
    prop_oneof![
        3 => pods.prop_map(|(namespaces, pods)| Peer::Pods { namespaces, pods }),
        2 => block(),
    ]
}

fn block() -> impl Strategy<Value = Peer> {
    (net(), vec((1..=16u8, 0..8u8), 0..3)).prop_map(|(cidr, exceptions)| {
        let width = if cidr.0.is_ipv4() { 32 } else { 128 };
        // An exception is a smaller network inside: a longer prefix over an address of the block.
        let except = exceptions.into_iter().filter_map(|(longer, number)| {
            let length = cidr.1.checked_add(longer).filter(|length| *length <= width)?;
            let inside = numbered(cidr.0, number);
            cidr.contains(inside).then_some(Net(inside, length))
        });
        Peer::Block { cidr, except: except.collect() }
    })
}

/// The address with its last octet (or group) replaced.
fn numbered(address: IpAddr, number: u8) -> IpAddr {
    match address {
        IpAddr::V4(it) => {
            let [a, b, c, _] = it.octets();
            IpAddr::from([a, b, c, number])
        }
        IpAddr::V6(it) => {
            let mut segments = it.segments();
            segments[7] = u16::from(number);
            IpAddr::from(segments)
        }
    }
}

fn net() -> impl Strategy<Value = Net> {
    let address = (select(&[PODS, NODES, OUTSIDE]), 0..8u8);
    prop_oneof![
        3 => (address.clone(), select(&[0u8, 1, 8, 22, 24, 29, 30, 31, 32])).prop_map(|((p, n), bits)| Net(v4(p, n), bits)),
        2 => (address, select(&[0u8, 1, 8, 96, 112, 125, 126, 127, 128])).prop_map(|((p, n), bits)| Net(v6(p, n), bits)),
    ]
}

fn port() -> impl Strategy<Value = Port> {
    let numbers = prop_oneof![Just(1u16), Just(53), 79..83u16, Just(5353), Just(65534), Just(65535)];
    let port = prop_oneof![
        1 => Just((None, None)),
        2 => numbers.clone().prop_map(|number| (Some(Number::Number(number)), None)),
        2 => (numbers.clone(), numbers).prop_map(|(a, b)| (Some(Number::Number(a.min(b))), Some(a.max(b)))),
        2 => select(&["web", "dns"]).prop_map(|name| (Some(Number::Name(name)), None)),
    ];
    (option::of(select(&PROTOCOLS)), port).prop_map(|(protocol, (port, end))| Port { protocol, port, end })
}

/// The policy as the API takes it, absent fields absent.
fn manifest(name: &str, policy: &Policy) -> Value {
    let mut spec = json!({});
    let rules = |rules: &[Rule], field: &str| -> Value { rules.iter().map(|it| rule_json(it, field)).collect() };
    put(&mut spec, "podSelector", policy.pod_selector.as_ref().map(selector_json));
    put(&mut spec, "policyTypes", policy.policy_types.as_ref().map(|types| json!(types)));
    put(&mut spec, "ingress", policy.ingress.as_deref().map(|it| rules(it, "from")));
    put(&mut spec, "egress", policy.egress.as_deref().map(|it| rules(it, "to")));
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": NAMESPACES[policy.namespace]},
        "spec": spec,
    })
}

fn put(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[field] = value;
    }
}

fn rule_json(rule: &Rule, peers_field: &str) -> Value {
    let mut json = json!({});
    put(&mut json, peers_field, rule.peers.as_ref().map(|peers| peers.iter().map(peer_json).collect()));
    put(&mut json, "ports", rule.ports.as_ref().map(|ports| ports.iter().map(port_json).collect()));
    json
}

fn peer_json(peer: &Peer) -> Value {
    let mut json = json!({});
    match peer {
        Peer::Pods { namespaces, pods } => {
            put(&mut json, "namespaceSelector", namespaces.as_ref().map(selector_json));
            put(&mut json, "podSelector", pods.as_ref().map(selector_json));
        }
        Peer::Block { cidr, except } => {
            let except: Vec<String> = except.iter().map(Net::to_string).collect();
            json["ipBlock"] = json!({"cidr": cidr.to_string(), "except": except});
        }
    }
    json
}

fn port_json(port: &Port) -> Value {
    let mut json = json!({});
    put(&mut json, "protocol", port.protocol.map(|it| json!(it)));
    let number = |number: &Number| match number {
        Number::Number(number) => json!(number),
        Number::Name(name) => json!(name),
    };
    put(&mut json, "port", port.port.as_ref().map(number));
    put(&mut json, "endPort", port.end.map(|it| json!(it)));
    json
}

fn selector_json(selector: &Selector) -> Value {
    let labels: serde_json::Map<String, Value> =
        selector.labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let expressions = selector.expressions.iter().map(|(key, operator, values)| {
        let mut json = json!({"key": key, "operator": operator});
        put(&mut json, "values", (!values.is_empty()).then(|| json!(values)));
        json
    });
    let mut json = json!({});
    put(&mut json, "matchLabels", (!labels.is_empty()).then_some(Value::Object(labels)));
    put(&mut json, "matchExpressions", (!selector.expressions.is_empty()).then(|| expressions.collect()));
    json
}

impl World {
    /// The world as the library takes it. Both readings of the API must agree on each policy.
    pub(crate) fn policies(&self) -> Vec<NetworkPolicy> {
        let read = |(number, policy): (usize, &Policy)| {
            let manifest = manifest(&format!("p{number}"), policy);
            let read = api::network_policy(NAMESPACES[policy.namespace], &manifest);
            let lowered = portcullis::k8s::lower_value(&manifest, "elsewhere");
            assert_eq!(lowered.problems, [], "{manifest}");
            assert_eq!(lowered.object, Some(object(read.clone())), "{manifest}");
            read
        };
        self.policies.iter().enumerate().map(read).collect()
    }

    pub(crate) fn workloads(&self) -> Vec<Workload> {
        self.pods.iter().enumerate().map(|(number, pod)| workload(number, pod)).collect()
    }

    /// A cluster of the world's namespaces and pods and of these policies.
    pub(crate) fn cluster(&self, policies: &[NetworkPolicy]) -> Cluster {
        let namespaces = self.namespaces.iter().zip(NAMESPACES).map(|(labels, name)| {
            let mut it = namespace(name, []);
            if let Object::Namespace(it) = &mut it {
                std::sync::Arc::make_mut(it).labels = labels.iter().copied().collect();
            }
            it
        });
        let workloads = self.workloads().into_iter().map(object);
        Cluster::of(namespaces.chain(workloads).chain(policies.iter().cloned().map(object)))
    }
}

fn workload(number: usize, pod: &Pod) -> Workload {
    let (place, name) = (NAMESPACES[pod.namespace], format!("w{number}"));
    let workload = if pod.is_template { deployment(place, &name, []) } else { bare_pod(place, &name, [], &[]) };
    let port = |(name, protocol, number): &(&'static str, &'static str, u16)| ContainerPort {
        name: Some((*name).into()),
        protocol: protocol.parse().unwrap(),
        number: *number,
    };
    Workload {
        labels: pod.labels.iter().copied().collect(),
        ips: pod.ips.clone(),
        host_network: pod.host_network,
        is_finished: pod.is_finished,
        is_idle: false,
        ports: pod.ports.iter().map(port).collect(),
        ..workload
    }
}
