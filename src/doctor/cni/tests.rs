#![allow(clippy::needless_pass_by_value, reason = "a fixture written in place reads best without a borrow")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Enforces::{No, Unknown, Yes};
use super::*;

fn daemon_set(name: &str, container: Value) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "kube-system" },
        "spec": { "template": { "spec": { "hostNetwork": true, "containers": [container] } } },
        "status": { "desiredNumberScheduled": 3, "numberReady": 3 },
    })
}

fn of(daemon_sets: &[(&str, Value)]) -> Signals {
    let daemon_sets = daemon_sets.iter().map(|(name, container)| daemon_set(name, container.clone())).collect();
    Signals { daemon_sets: Ok(daemon_sets), ..Signals::default() }
}

fn one(name: &str) -> Signals {
    of(&[(name, json!({ "name": "agent" }))])
}

fn node(metadata: Value, version: &str) -> Signals {
    let mut metadata = metadata;
    metadata["name"] = "a".into();
    let node = json!({ "metadata": metadata, "status": { "nodeInfo": { "kubeletVersion": version } } });
    Signals { nodes: Ok(vec![node]), ..of(&[]) }
}

fn set(mut signals: Signals, map: &'static str, data: Value) -> Signals {
    signals.config_maps = BTreeMap::from([(map, json!({ "data": data }))]);
    signals
}

/// A row of the table of tests: what the cluster shows, what enforces, whether it does.
fn cases() -> Vec<(&'static str, Signals, Enforces)> {
    let none = || json!({});
    let role = |resource: &str| Some(json!({ "rules": [{ "resources": [resource], "verbs": ["list"] }] }));
    let aws = |argument: &str| of(&[("aws-node", json!({ "name": "aws-eks-nodeagent", "args": [argument] }))]);
    let on = json!({ "enable-network-policy-controller": "true" });
    let k3s = |arguments: &str| node(json!({ "annotations": { "k3s.io/node-args": arguments } }), "v1.33.1+k3s1");
    let openshift = |kind: &str, mode: &str| Signals {
        openshift_network: Some(json!({ "status": { "networkType": kind } })),
        openshift_operator: Some(json!({ "spec": { "defaultNetwork": { "openshiftSDNConfig": { "mode": mode } } } })),
        ..of(&[])
    };
    let controller = json!({
        "metadata": { "name": "kube-ovn-controller" },
        "spec": { "template": { "spec": { "containers": [{ "args": ["/kube-ovn/start.sh --enable-np=false"] }] } } },
    });
    vec![
        ("Calico", one("calico-node"), Yes),
        ("Canal", one("canal"), Yes),
        ("Canal", one("rke2-canal"), Yes),
        ("Cilium", one("cilium"), Yes),
        ("Cilium", set(one("cilium"), "cilium-config", json!({ "enable-policy": "default" })), Yes),
        ("Cilium", set(one("cilium"), "cilium-config", json!({ "enable-policy": "never" })), No),
        ("Cilium", set(one("cilium"), "cilium-config", json!({ "policy-audit-mode": "true" })), No),
        ("Cilium", set(one("cilium"), "cilium-config", json!({ "enable-k8s-networkpolicy": "false" })), No),
        ("GKE Dataplane V2", one("anetd"), Yes),
        ("Antrea", one("antrea-agent"), Yes),
        ("OVN-Kubernetes", one("ovnkube-node"), Yes),
        ("OVN-Kubernetes", openshift("OVNKubernetes", ""), Yes),
        ("OpenShift SDN", one("sdn"), Yes),
        ("OpenShift SDN", openshift("OpenShiftSDN", "NetworkPolicy"), Yes),
        ("OpenShift SDN", openshift("OpenShiftSDN", "Subnet"), No),
        ("OpenShift SDN", openshift("OpenShiftSDN", "Multitenant"), No),
        ("Kube-OVN", one("kube-ovn-cni"), Yes),
        ("Kube-OVN", Signals { deployments: Ok(vec![controller]), ..one("ovs-ovn") }, No),
        ("kube-router", one("kube-router"), Yes),
        ("kube-router", of(&[("kube-router", json!({ "args": ["--run-firewall=true"] }))]), Yes),
        ("kube-router", of(&[("kube-router", json!({ "args": ["--run-firewall=false"] }))]), No),
        ("kube-network-policies", one("kube-network-policies"), Yes),
        ("kube-network-policies", of(&[("kube-flannel-ds", json!({ "name": "kube-network-policies" }))]), Yes),
        ("Flannel", one("kube-flannel-ds"), No),
        (
            "Flannel",
            node(json!({ "annotations": { "flannel.alpha.coreos.com/backend-type": "vxlan" } }), "v1.36.0"),
            No,
        ),
        ("k3s", k3s(r#"["server"]"#), Yes),
        ("k3s", k3s(r#"["server","--disable-network-policy","true"]"#), No),
        ("k0s", node(none(), "v1.33.1+k0s"), Yes),
        ("kindnet", one("kindnet"), Unknown),
        ("kindnet", Signals { kindnet_role: role("networkpolicies"), ..one("kindnet") }, Yes),
        ("kindnet", Signals { kindnet_role: role("nodes"), ..one("kindnet") }, No),
        ("AWS VPC CNI", one("aws-node"), No),
        ("AWS VPC CNI", aws("--enable-network-policy=false"), No),
        ("AWS VPC CNI", aws("--enable-network-policy=true"), Unknown),
        ("AWS VPC CNI", set(aws("--enable-network-policy=true"), "amazon-vpc-cni", on.clone()), Yes),
        ("AWS VPC CNI", set(aws("--enable-network-policy=false"), "amazon-vpc-cni", on), No),
        ("Azure Network Policy Manager", one("azure-npm"), Yes),
        ("Terway", one("terway-eniip"), Yes),
        ("Terway", set(one("terway"), "eni-config", json!({ "disable_network_policy": "true" })), No),
        (
            "Terway",
            set(one("terway"), "eni-config", json!({ "eni_conf": "{\"disable_network_policy\": \"true\"}" })),
            No,
        ),
        ("Weave Net", of(&[("weave-net", json!({ "name": "weave-npc" }))]), Yes),
        (
            "Weave Net",
            of(&[("weave-net", json!({ "name": "weave-npc", "env": [{ "name": "EXPECT_NPC", "value": "0" }] }))]),
            No,
        ),
        ("NSX", one("nsx-ncp"), Yes),
        ("GKE without a policy engine", node(json!({ "labels": { "cloud.google.com/gke-nodepool": "a" } }), ""), No),
        ("AKS without a policy engine", node(json!({ "labels": { "kubernetes.azure.com/cluster": "a" } }), ""), No),
        ("minikube's bridge", node(json!({ "labels": { "minikube.k8s.io/name": "a" } }), ""), No),
        ("Multus", one("kube-multus-ds"), Unknown),
    ]
}

#[test]
fn every_row_is_known_by_its_signs_and_its_switches() {
    for (engine, signals, expected) in cases() {
        let detection = detect(&signals);
        assert_eq!(detection.enforces, expected, "{engine}: {detection:#?}\n{signals:#?}");
        assert!(detection.engines.contains(&engine), "{engine}: {detection:#?}");
        assert!(!detection.signals.is_empty());
    }
}

#[test]
fn every_row_and_every_switch_has_a_case() {
    let tested: BTreeSet<_> = cases().iter().map(|(engine, ..)| *engine).collect();
    let rows: BTreeSet<_> = table::ROWS.iter().map(|row| row.name).collect();
    assert_eq!(tested, rows);
    let seen: BTreeSet<String> = cases().iter().flat_map(|(_, signals, _)| detect(signals).caveats).collect();
    for row in table::ROWS {
        for switch in row.switches {
            assert!(seen.contains(&format!("{}: {}", row.name, switch.because)), "{}: {}", row.name, switch.because);
        }
    }
}

#[test]
fn nothing_found_is_not_known_and_never_no() {
    let detection = detect(&of(&[]));
    assert_eq!((detection.enforces, detection.confidence), (Unknown, Confidence::Low));
    assert_eq!(detect(&one("my-own-cni")).enforces, Unknown);
}

#[test]
fn one_that_enforces_is_enough() {
    // Canal's nodes carry Flannel's annotations, and an engine can run beside Flannel or AKS's own.
    let both = of(&[("kube-flannel-ds", json!({})), ("kube-router", json!({}))]);
    assert_eq!((detect(&both).enforces, detect(&both).engines), (Yes, vec!["kube-router"]));
    let mut aks = node(json!({ "labels": { "kubernetes.azure.com/cluster": "a" } }), "");
    aks.daemon_sets = one("cilium").daemon_sets;
    assert_eq!(detect(&aks).enforces, Yes);
    // One that is switched off does not switch off another.
    let mut two = of(&[("cilium", json!({})), ("kube-network-policies", json!({}))]);
    two = set(two, "cilium-config", json!({ "enable-policy": "never" }));
    assert_eq!(detect(&two).enforces, Yes);
}

#[test]
fn what_could_not_be_looked_at_may_be_what_enforces() {
    let refused = || Err("forbidden".to_owned());
    let flannel = node(json!({ "annotations": { "flannel.alpha.coreos.com/backend-type": "vxlan" } }), "");
    assert_eq!(detect(&flannel).enforces, No);
    let blind = Signals { daemon_sets: refused(), ..flannel };
    let detection = detect(&blind);
    assert_eq!(detection.enforces, Unknown);
    assert!(detection.caveats.iter().any(|it| it == "DaemonSets could not be read: forbidden"), "{detection:#?}");
    // What is seen to enforce is seen all the same.
    assert_eq!(detect(&Signals { nodes: refused(), ..one("calico-node") }).enforces, Yes);
}

#[test]
fn a_tenants_daemon_set_and_one_that_runs_nowhere_prove_nothing() {
    let mut tenants = one("cilium");
    tenants.daemon_sets.as_mut().unwrap()[0]["spec"]["template"]["spec"]["hostNetwork"] = false.into();
    assert_eq!(detect(&tenants).enforces, Unknown);
    let mut nowhere = one("cilium");
    nowhere.daemon_sets.as_mut().unwrap()[0]["status"]["desiredNumberScheduled"] = 0.into();
    assert_eq!(detect(&nowhere).enforces, Unknown);
    let mut partly = one("cilium");
    partly.daemon_sets.as_mut().unwrap()[0]["status"]["numberReady"] = 1.into();
    assert_eq!(detect(&partly).signals, ["DaemonSet kube-system/cilium, ready on 1 of 3 nodes"]);
}
