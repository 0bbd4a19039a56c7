//! The truth tables of the upstream end-to-end suite: `tests/conformance/`.

use portcullis::cluster::Cluster;
use portcullis::model::{Labels, METADATA_NAME, NetworkPolicy, Workload};
use portcullis::netset::Protocol;
use portcullis::reach::{CniName, Peer, Reach};
use serde_json::Value;

use crate::api;
use crate::world::{cni, grid_address, grid_pod, namespace, object};

const SUITE: &str = include_str!("../conformance/k8s_e2e.json");

#[test]
fn every_check_of_the_upstream_suite_holds() {
    let suite: Vec<Value> = serde_json::from_str(SUITE).unwrap();
    let (mut steps, mut checks) = (0, 0);
    for case in &suite {
        for (number, step) in list(&case["steps"]).iter().enumerate() {
            steps += 1;
            let name = format!("{}, step {}", case["name"], number + 1);
            checks += run_step(&name, case, step);
        }
    }
    assert_eq!((suite.len(), steps, checks), (48, 58, 550), "cases, steps and checks of the suite");
}

/// Checks one step and returns how many checks it had.
fn run_step(name: &str, case: &Value, step: &Value) -> usize {
    let pods: Vec<Workload> = list(&case["pods"]).iter().map(|pod| grid_pod_with_labels(text(pod), step)).collect();
    let cluster = cluster(&pods, step);
    let cni = cni(CniName::Calico);
    let reach = Reach::new(&cluster, &cni);
    let mut checks = 0;
    for check in list(&step["checks"]) {
        let port = u16::try_from(check[0].as_u64().unwrap()).unwrap();
        let protocol: Protocol = text(&check[1]).parse().unwrap();
        for (from, to) in pods.iter().flat_map(|from| pods.iter().map(move |to| (from, to))) {
            if (&from.namespace, &from.id) == (&to.namespace, &to.id) {
                continue;
            }
            checks += 1;
            let expected = list(&check[2])
                .iter()
                .rfind(|entry| is_about(text(&entry[0]), from) && is_about(text(&entry[1]), to))
                .is_none_or(|entry| entry[2].as_bool().unwrap());
            let answer = reach.connections(Peer::Workload(from), Peer::Workload(to));
            let found = (answer.certain.contains(protocol, port), answer.possible.contains(protocol, port));
            assert_eq!(found, (expected, expected), "{name}: {protocol} {port} from {} to {}", at(from), at(to));
        }
    }
    checks
}

fn cluster(pods: &[Workload], step: &Value) -> Cluster {
    let namespaces = ["x", "y", "z"].map(|name| namespace_with_labels(name, &step["nslabels"][name]));
    let policies = list(&step["pols"]).iter().map(policy).map(object);
    Cluster::of(namespaces.into_iter().chain(pods.iter().cloned().map(object)).chain(policies))
}

fn policy(entry: &Value) -> NetworkPolicy {
    api::network_policy(text(&entry[0]), &with_addresses(&entry[1]))
}

/// The policy with `IP(x/a)` replaced by that pod's address.
fn with_addresses(policy: &Value) -> Value {
    let mut text = policy.to_string();
    while let Some((before, rest)) = text.split_once("IP(") {
        let (pod, after) = rest.split_once(')').unwrap();
        let (namespace, name) = pod.split_once('/').unwrap();
        text = format!("{before}{}{after}", grid_address(namespace, name));
    }
    serde_json::from_str(&text).unwrap()
}

fn grid_pod_with_labels(pod: &str, step: &Value) -> Workload {
    let (namespace, name) = pod.split_once('/').unwrap();
    let workload = grid_pod(namespace, name);
    let labels = with_labels(&workload.labels, &step["podlabels"][pod]);
    Workload { labels, ..workload }
}

fn namespace_with_labels(name: &str, added: &Value) -> portcullis::model::Object {
    let mut object = namespace(name, []);
    if let portcullis::model::Object::Namespace(it) = &mut object {
        let labels = with_labels(&it.labels, added);
        assert!(labels.has(METADATA_NAME, name));
        std::sync::Arc::make_mut(it).labels = labels;
    }
    object
}

fn with_labels(labels: &Labels, added: &Value) -> Labels {
    let added = added.as_object().into_iter().flatten();
    added.fold(labels.clone(), |labels, (key, value)| labels.with(key, text(value)))
}

fn is_about(entry: &str, pod: &Workload) -> bool {
    entry.is_empty() || entry == pod.namespace || entry == at(pod)
}

fn at(pod: &Workload) -> String {
    format!("{}/{}", pod.namespace, pod.id.name)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}
