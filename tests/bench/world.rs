//! The cluster that speed is measured on: 1,000 namespaces with ten pods and ten policies each,
//! and cluster DNS. Always the same.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis::cluster::Cluster;
use portcullis::model::{
    ContainerPort, Directions, DnsPolicy, Ending, IpBlock, Labels, Lifetime, NamedProxy, Namespace, NetworkPolicy,
    Object, PeerSpec, PolicyRule, Port, PortSpec, Selector, Service, ServicePort, TargetPort, Workload, WorkloadId,
};
use portcullis::netset::Protocol;
use serde_json::{Value, json};

/// Namespaces, beside `kube-system`.
pub(crate) const NAMESPACES: usize = 1_000;
/// Pods in each.
pub(crate) const PODS: usize = 10;
/// Policies in each: two that isolate everything and let names be resolved, the rest for one app.
pub(crate) const POLICIES: usize = 10;

/// The whole cluster.
pub(crate) fn cluster() -> Cluster {
    Cluster::of(dns().into_iter().chain((0..NAMESPACES).flat_map(namespace)))
}

/// The name of a namespace.
pub(crate) fn name(number: usize) -> String {
    format!("team-{number:04}")
}

/// A review of a new policy in one of the namespaces, as an API server sends it: about 2 KB.
pub(crate) fn review(number: usize) -> String {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": "allow-checkout",
            "namespace": name(number),
            "uid": "1b0e7c52-7f9b-4d0e-9f66-0d3a0c9be001",
            "creationTimestamp": "2026-11-01T10:00:00Z",
            "generation": 1,
            "labels": { "app.kubernetes.io/name": "checkout", "app.kubernetes.io/part-of": "shop" },
            "managedFields": [{
                "manager": "kubectl-client-side-apply", "operation": "Update",
                "apiVersion": "networking.k8s.io/v1", "time": "2026-11-01T10:00:00Z", "fieldsType": "FieldsV1",
                "fieldsV1": { "f:metadata": { "f:labels": { ".": {}, "f:app.kubernetes.io/name": {},
                    "f:app.kubernetes.io/part-of": {} } },
                    "f:spec": { "f:egress": {}, "f:ingress": {}, "f:podSelector": {}, "f:policyTypes": {} } },
            }],
        },
        "spec": {
            "podSelector": { "matchLabels": { "app": "app-3" } },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{
                "from": [
                    { "podSelector": { "matchLabels": { "app": "app-1" } } },
                    { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "team-0001" } },
                      "podSelector": { "matchExpressions": [
                          { "key": "app", "operator": "In", "values": ["app-2", "app-4"] }] } },
                ],
                "ports": [{ "protocol": "TCP", "port": 8080 }, { "protocol": "TCP", "port": "metrics" }],
            }],
            "egress": [
                { "to": [{ "ipBlock": { "cidr": "10.20.0.0/16", "except": ["10.20.7.0/24"] } }],
                  "ports": [{ "protocol": "TCP", "port": 5432 }] },
                { "to": [{ "podSelector": { "matchLabels": { "app": "app-5" } } }],
                  "ports": [{ "protocol": "TCP", "port": 9000, "endPort": 9010 }] },
            ],
        },
    });
    let kind = json!({ "group": "networking.k8s.io", "version": "v1", "kind": "NetworkPolicy" });
    let resource = json!({ "group": "networking.k8s.io", "version": "v1", "resource": "networkpolicies" });
    let review: Value = json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": "allow-checkout", "namespace": name(number), "operation": "CREATE",
            "userInfo": { "username": "alice@example.com", "uid": "014fbff9a07c",
                "groups": ["developers", "system:authenticated"] },
            "object": policy, "oldObject": null, "dryRun": false,
            "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1",
                "fieldManager": "kubectl-client-side-apply" },
        },
    });
    review.to_string()
}

fn namespace(number: usize) -> impl Iterator<Item = Object> {
    let name = name(number);
    let object = Namespace {
        name: name.as_str().into(),
        uid: None,
        labels: [("kubernetes.io/metadata.name", name.as_str()), ("team", name.as_str())].into(),
        created: None,
        is_terminating: false,
    };
    let pods = (0..PODS).map({
        let name = name.clone();
        move |pod| {
            let app = format!("app-{pod}");
            let address = u32::from_be_bytes([10, 0, 0, 0]) + u32::try_from(number * PODS + pod).unwrap();
            workload(
                &name,
                &app,
                [("app", app.as_str()), ("pod-template-hash", "6d4cf56db6")].into(),
                address,
                vec![port("http", Protocol::Tcp, 8080), port("metrics", Protocol::Tcp, 9090)],
            )
        }
    });
    let policies = (0..POLICIES).map(move |policy| {
        let (pods, egress, ingress) = match policy {
            0 => (Selector::everything(), vec![], vec![]),
            1 => (Selector::everything(), vec![to_dns()], vec![]),
            app => {
                let of = |app: usize| Selector::from(&Labels::from([("app", format!("app-{app}").as_str())]));
                (of(app), vec![to_block(app), among(of(app - 1))], vec![among(of(app - 2))])
            }
        };
        Object::NetworkPolicy(Arc::new(NetworkPolicy {
            namespace: name.as_str().into(),
            name: format!("policy-{policy}").into(),
            created: None,
            lifetime: Lifetime::default(),
            pods,
            isolates: if policy == 1 { Directions { ingress: false, egress: true } } else { Directions::BOTH },
            ingress,
            egress,
            is_partial: false,
        }))
    });
    std::iter::once(Object::Namespace(Arc::new(object))).chain(pods).chain(policies)
}

/// The resolver's Service and its two pods.
fn dns() -> Vec<Object> {
    let labels = || Labels::from([("k8s-app", "kube-dns")]);
    let service_port = |protocol| ServicePort { protocol, port: 53, target: TargetPort::Number(53) };
    let service = Service {
        namespace: "kube-system".into(),
        name: "kube-dns".into(),
        uid: None,
        labels: labels(),
        selector: Some(labels()),
        ports: vec![service_port(Protocol::Udp), service_port(Protocol::Tcp)],
        is_external_name: false,
        cluster_ips: vec![IpAddr::from([10, 96, 0, 10])],
    };
    let mut objects = vec![Object::Service(Arc::new(service))];
    for replica in 0..2 {
        let name = format!("coredns-{replica}");
        let ports = vec![port("dns", Protocol::Udp, 53), port("dns-tcp", Protocol::Tcp, 53)];
        objects.push(workload("kube-system", &name, labels(), u32::from_be_bytes([10, 255, 0, replica]), ports));
    }
    objects
}

fn workload(namespace: &str, name: &str, labels: Labels, address: u32, ports: Vec<ContainerPort>) -> Object {
    Object::Workload(Arc::new(Workload {
        id: WorkloadId { kind: "Pod".into(), name: name.into() },
        namespace: namespace.into(),
        uid: None,
        labels,
        annotations: Labels::default(),
        owner: None,
        ending: Ending::default(),
        ports,
        host_network: false,
        dns_policy: DnsPolicy::ClusterFirst,
        nameservers: Vec::new(),
        ips: vec![IpAddr::V4(address.into())],
        is_finished: false,
        is_idle: false,
        is_scaled_to_zero: false,
        proxy: NamedProxy::None,
        is_partial: false,
    }))
}

fn port(name: &str, protocol: Protocol, number: u16) -> ContainerPort {
    ContainerPort { name: Some(name.into()), protocol, number }
}

fn ports(protocols: &[Protocol], number: u16) -> Vec<PortSpec> {
    let one = |protocol: &Protocol| PortSpec { protocol: *protocol, port: Port::Range(number, number) };
    protocols.iter().map(one).collect()
}

fn to_dns() -> PolicyRule {
    let peer = PeerSpec::Pods {
        namespaces: Some(Selector::from(&Labels::from([("kubernetes.io/metadata.name", "kube-system")]))),
        pods: Selector::from(&Labels::from([("k8s-app", "kube-dns")])),
        pods_written: true,
    };
    PolicyRule { peers: Some(vec![peer]), ports: Some(ports(&[Protocol::Udp, Protocol::Tcp], 53)) }
}

fn to_block(app: usize) -> PolicyRule {
    let third = u8::try_from(app).unwrap();
    let net = |prefix| ipnet::Ipv4Net::new([10, 30, third, 0].into(), prefix).unwrap().into();
    let block = IpBlock::new(net(16), vec![net(24)]);
    PolicyRule { peers: Some(vec![PeerSpec::Block(block)]), ports: Some(ports(&[Protocol::Tcp], 5432)) }
}

fn among(pods: Selector) -> PolicyRule {
    let peer = PeerSpec::Pods { namespaces: None, pods, pods_written: true };
    PolicyRule { peers: Some(vec![peer]), ports: Some(ports(&[Protocol::Tcp], 8080)) }
}
