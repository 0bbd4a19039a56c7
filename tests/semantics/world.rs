//! Small clusters for tests: namespaces x, y and z with pods a, b and c, and single objects.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis::cluster::Cluster;
use portcullis::model::{
    ContainerPort, DnsPolicy, Ending, Labels, METADATA_NAME, NamedProxy, Namespace, NetworkPolicy, Object, Service,
    ServicePort, Str, TargetPort, Workload, WorkloadId,
};
use portcullis::netset::Protocol;
use portcullis::reach::{Cni, CniName};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use serde_json::{Value, json};

use crate::api;

pub(crate) const CNIS: [CniName; 7] = [
    CniName::Unknown,
    CniName::Calico,
    CniName::Cilium,
    CniName::OvnKubernetes,
    CniName::Antrea,
    CniName::AwsVpcCni,
    CniName::AzureNpm,
];

/// As many cases as given, the same ones each time. `PROPTEST_RNG_SEED` and `PROPTEST_CASES` ask for
/// others and for more.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    let ProptestConfig { cases: asked, rng_seed, .. } = ProptestConfig::default();
    let is_set = |name| std::env::var_os(name).is_some();
    ProptestConfig {
        cases: if is_set("PROPTEST_CASES") { asked } else { cases },
        rng_seed: if is_set("PROPTEST_RNG_SEED") { rng_seed } else { RngSeed::Fixed(0x0C0F_FEE0) },
        failure_persistence: None,
        // A share of what is generated is left aside, however many cases are asked for.
        max_global_rejects: u32::MAX,
        ..ProptestConfig::default()
    }
}

pub(crate) fn cni(name: CniName) -> Cni {
    Cni { name, pod_ranges: Vec::new() }
}

pub(crate) fn namespace<const N: usize>(name: &str, labels: [(&str, &str); N]) -> Object {
    let labels = Labels::from(labels).with(METADATA_NAME, name);
    Object::Namespace(Arc::new(Namespace {
        name: name.into(),
        labels,
        created: None,
        is_terminating: false,
        uid: None,
    }))
}

/// A pod with these labels and addresses.
pub(crate) fn pod<const N: usize>(namespace: &str, name: &str, labels: [(&str, &str); N], ips: &[&str]) -> Workload {
    Workload {
        id: WorkloadId { kind: "Pod".into(), name: name.into() },
        namespace: namespace.into(),
        uid: None,
        labels: labels.into(),
        annotations: Labels::default(),
        owner: None,
        ending: Ending::default(),
        ports: Vec::new(),
        host_network: false,
        dns_policy: DnsPolicy::ClusterFirst,
        nameservers: Vec::new(),
        ips: ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect(),
        is_finished: false,
        is_idle: false,
        is_scaled_to_zero: false,
        proxy: NamedProxy::None,
        is_partial: false,
    }
}

/// A Deployment, whose pods have no address yet.
pub(crate) fn deployment<const N: usize>(namespace: &str, name: &str, labels: [(&str, &str); N]) -> Workload {
    let id = WorkloadId { kind: "Deployment".into(), name: name.into() };
    Workload { id, ..pod(namespace, name, labels, &[]) }
}

/// A policy of this spec.
pub(crate) fn policy(namespace: &str, name: &str, spec: Value) -> NetworkPolicy {
    api::network_policy(namespace, &json!({"metadata": {"name": name}, "spec": spec}))
}

/// A Service that sends its port 53 on to this port of the pods with these labels.
pub(crate) fn dns_service<const N: usize>(
    namespace: &str,
    name: &str,
    selector: [(&str, &str); N],
    target: u16,
) -> Object {
    let port = |protocol| ServicePort { protocol, port: 53, target: TargetPort::Number(target) };
    Object::Service(Arc::new(Service {
        namespace: namespace.into(),
        name: name.into(),
        uid: None,
        labels: Labels::default(),
        selector: Some(selector.into()),
        ports: vec![port(Protocol::Udp), port(Protocol::Tcp)],
        is_external_name: false,
        cluster_ips: Vec::new(),
    }))
}

/// Anything into an object.
pub(crate) fn object(thing: impl IntoObject) -> Object {
    thing.into_object()
}

pub(crate) trait IntoObject {
    fn into_object(self) -> Object;
}

impl IntoObject for Workload {
    fn into_object(self) -> Object {
        Object::Workload(Arc::new(self))
    }
}

impl IntoObject for NetworkPolicy {
    fn into_object(self) -> Object {
        Object::NetworkPolicy(Arc::new(self))
    }
}

/// The address of a pod of the grid: `10.0.1.1` is x/a, `10.0.2.3` is y/c.
pub(crate) fn grid_address(namespace: &str, pod: &str) -> String {
    let place = |names: [&str; 3], name| names.iter().position(|it| *it == name).unwrap() + 1;
    format!("10.0.{}.{}", place(["x", "y", "z"], namespace), place(["a", "b", "c"], pod))
}

/// A pod of the grid: labelled `pod: <name>`, serving 80 and 81 on every protocol by name.
pub(crate) fn grid_pod(namespace: &str, name: &str) -> Workload {
    let mut workload = pod(namespace, name, [("pod", name)], &[&grid_address(namespace, name)]);
    for number in [80, 81] {
        workload.ports.extend(Protocol::ALL.map(|protocol| ContainerPort {
            name: Some(Str::from(format!("serve-{number}-{}", protocol.as_str().to_lowercase()))),
            protocol,
            number,
        }));
    }
    workload
}

/// Namespaces x, y and z with pods a, b and c in each.
pub(crate) fn grid_pods() -> Vec<Workload> {
    ["x", "y", "z"].iter().flat_map(|ns| ["a", "b", "c"].map(|name| grid_pod(ns, name))).collect()
}

/// A cluster of the grid's namespaces, these pods and these policies.
pub(crate) fn grid(pods: &[Workload], policies: impl IntoIterator<Item = NetworkPolicy>) -> Cluster {
    let namespaces = ["x", "y", "z"].map(|name| namespace(name, []));
    Cluster::of(namespaces.into_iter().chain(pods.iter().cloned().map(object)).chain(policies.into_iter().map(object)))
}
