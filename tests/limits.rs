//! What judging costs is bounded by construction: objects and namespaces as large as can be written,
//! in the shapes that are dearest to judge, get an answer, on a thread with a small stack.
//!
//! Each is judged by every rule of the `restricted` profile: as a change, and as what stands. None is
//! timed: what is quadratic in these sizes runs for hours.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what is missing here is a failed test, and these say where"
)]

use std::thread;

use jiff::Timestamp;
use portcullis::admission;
use portcullis::cluster::{Cluster, Index};
use portcullis::config;
use portcullis::k8s::{self, lower_value};
use portcullis::mesh::{Mesh, MeshSettings};
use portcullis::model::{Change, Direction, Object};
use portcullis::reach::{Cni, Peer, Reach};
use portcullis::rules::{Action, CL_RULE_FAILED, Finding, RuleSet};
use portcullis::source::Manifests;
use portcullis::yaml::Source;
use serde_json::{Value, json};

/// As many as are written of one thing in one object: near the most items that are read of one.
const MANY: usize = 40_000;

/// As deep as a text is nested.
const DEEP: usize = 100_000;

fn rules() -> RuleSet {
    config::read(Source::new("restricted.yaml", "profile: restricted")).unwrap().rule_set()
}

/// On a thread with the stack that a thread has by default, and no more.
fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

fn lowered(object: &Value) -> Object {
    lower_value(object, "").object.unwrap()
}

#[allow(clippy::needless_pass_by_value, reason = "a fixture reads best with its value written in place")]
fn policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    })
}

fn default_deny() -> Value {
    policy("default-deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
}

fn deployment(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main"}]}}},
    })
}

fn cluster(objects: impl IntoIterator<Item = Value>) -> Cluster {
    let mut index = Index::new();
    for object in objects {
        index.apply(lowered(&object));
    }
    index.snapshot()
}

/// What is found of a change and of what it leaves, none of it longer than can be read.
fn judged(cluster: &Cluster, change: &Change) -> Vec<Finding> {
    let (rules, now) = (rules(), Timestamp::UNIX_EPOCH);
    let found = rules.judge(cluster, change, now);
    for finding in found.iter().chain(&rules.judge_all(&cluster.with(change), now)) {
        assert!(finding.rule.code != CL_RULE_FAILED.code, "{finding:?}");
        let texts = [&finding.message, &finding.why, &finding.help].into_iter().chain(&finding.evidence);
        let size: usize = texts.map(String::len).sum::<usize>() + finding.fix.len();
        assert!(size < 400_000, "{} is {size} bytes long", finding.rule.code);
    }
    found
}

fn denied(findings: &[Finding]) -> Vec<&'static str> {
    let denied = findings.iter().filter(|finding| finding.action == Action::Deny);
    let mut codes: Vec<_> = denied.map(|finding| finding.rule.code).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// Judges the creation of an object beside a default-deny and a Deployment, the deletion of that
/// default-deny once the object is there, and asks the evaluators about the Deployment.
fn beside_a_default_deny(object: &Value) -> (Vec<&'static str>, Vec<&'static str>) {
    let before = cluster([default_deny(), deployment("cart", &json!({"app": "cart"}))]);
    let created = Change::Create(lowered(object));
    let first = judged(&before, &created);
    let after = before.with(&created);
    let second = judged(&after, &Change::Delete(lowered(&default_deny())));
    let (cni, state) = (Cni::default(), after.namespace("shop").unwrap());
    let reach = Reach::new(&after, &cni);
    for workload in state.live_workloads() {
        for direction in Direction::ALL {
            reach.side(workload, direction, Peer::Workload(workload));
        }
    }
    Mesh::new(&after, &MeshSettings::default()).idle("shop");
    (denied(&first), denied(&second))
}

fn each(count: usize, of: impl Fn(usize) -> Value) -> Vec<Value> {
    (0..count).map(of).collect()
}

fn address(n: usize) -> String {
    format!("{}.{}.{}.{}/32", 20 + n / 16_777_216, n / 65536 % 256, n / 256 % 256, n % 256)
}

#[test]
fn one_policy_of_tens_of_thousands_of_anything_is_answered_and_refused_for_its_size() {
    on_a_small_stack(|| {
        let expression = |key: String| json!({"key": key, "operator": "NotIn", "values": ["v"]});
        let block = |n| json!({"ipBlock": {"cidr": address(n)}});
        let except: Vec<_> = (0..MANY).map(address).collect();
        let values: Vec<_> = (0..MANY).map(|n| format!("v{n}")).collect();
        let specs = [
            json!({"podSelector": {"matchExpressions": each(MANY / 2, |n| expression(format!("k{n}")))}}),
            json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": values}]}}),
            json!({"podSelector": {}, "ingress": each(MANY / 2, |_| json!({})), "egress": each(MANY / 2, |_| json!({}))}),
            json!({"podSelector": {}, "ingress": [{"from": each(MANY / 2, block)}], "egress": [{"to": each(MANY / 2, block)}]}),
            json!({"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": except}}]}]}),
            json!({"podSelector": {}, "ingress": [{"ports": each(MANY, |n| json!({"port": 1 + n % 65535}))}]}),
            json!({"podSelector": {}, "ingress": [{"ports": each(MANY, |n| json!({"port": format!("p{n}")}))}]}),
            json!({"podSelector": {}, "ingress": each(MANY / 4, |n| {
                json!({"from": [{"ipBlock": {"cidr": address(n)}}], "ports": [{"port": 1 + n % 65535}]})
            })}),
        ];
        for spec in specs {
            let shown = spec.to_string().chars().take(60).collect::<String>();
            let (created, _) = beside_a_default_deny(&policy("large", spec));
            assert!(created.contains(&"NP006"), "{shown}: {created:?}");
        }
    });
}

#[test]
fn other_objects_of_tens_of_thousands_of_parts_are_answered() {
    on_a_small_stack(|| {
        let map = |value: &str| (0..MANY).map(|n| (format!("istio.io/k{n}"), json!(value))).collect::<Value>();
        let ports: Vec<_> = (1..=40_000_u32).map(|n| n.to_string()).collect();
        let objects = [
            deployment("wide", &map("x")),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": "odd", "namespace": "shop",
                    "annotations": {
                        "traffic.sidecar.istio.io/excludeInboundPorts": ports.join(","),
                        "sidecar.istio.io/status": "{}",
                    },
                    "ownerReferences": each(10_000, |n| json!({"kind": "ReplicaSet", "name": format!("r{n}"), "uid": "u", "apiVersion": "apps/v1"})),
                },
                "spec": {"containers": each(10_000, |n| json!({"name": format!("c{n}"), "ports": [{"containerPort": 1 + n % 65535, "name": format!("p{n}")}]}))},
            }),
            json!({
                "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
                "metadata": {"name": "wide", "namespace": "shop"},
                "spec": {
                    "selector": {"matchLabels": {"app": "cart"}},
                    "portLevelMtls": ports.iter().map(|port| (port.clone(), json!({"mode": "PERMISSIVE"}))).collect::<Value>(),
                },
            }),
            json!({
                "apiVersion": "portcullis.dev/v1alpha1", "kind": "Waiver",
                "metadata": {"name": "wide", "namespace": "shop"},
                "spec": {
                    "rules": each(MANY / 2, |n| json!(format!("rule-{n}"))),
                    "match": {"workloads": each(MANY / 2, |n| json!(format!("w{n}")))},
                    "owner": "o", "reason": "r", "expires": "1970-01-10",
                },
            }),
        ];
        for object in &objects {
            beside_a_default_deny(object);
        }
    });
}

#[test]
fn deleting_a_default_deny_beside_thousands_of_policies_and_workloads_is_answered() {
    on_a_small_stack(|| {
        let own = |n: usize| {
            policy(
                &format!("own-{n}"),
                json!({
                    "podSelector": {"matchLabels": {"app": format!("app-{n}")}},
                    "policyTypes": ["Ingress"],
                    "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 8080}]}],
                }),
            )
        };
        let workloads = (0..1000).map(|n| deployment(&format!("app-{n}"), &json!({"app": format!("app-{n}")})));
        let cluster = cluster((0..5000).map(own).chain(workloads).chain([default_deny()]));
        let found = judged(&cluster, &Change::Delete(lowered(&default_deny())));
        assert_eq!(denied(&found), ["NP001"]);
    });
}

#[test]
fn policies_that_open_a_pod_only_together_are_found_once() {
    on_a_small_stack(|| {
        let some_ports = |n: usize| {
            let (first, last) = (1 + n * 60, 60 + n * 60);
            policy(
                &format!("part-{n:04}"),
                json!({
                    "podSelector": {"matchExpressions": [{"key": format!("k{n}"), "operator": "DoesNotExist"}]},
                    "policyTypes": ["Ingress", "Egress"],
                    "ingress": [{"ports": [{"port": first, "endPort": last}]}],
                    "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"namespaceSelector": {}}], "ports": [{"port": first, "endPort": last}]}],
                }),
            )
        };
        let workloads = (0..300).map(|n| deployment(&format!("app-{n}"), &json!({"app": format!("app-{n}")})));
        let cluster = cluster((0..1000).map(some_ports).chain(workloads).chain([default_deny()]));
        judged(&cluster, &Change::Delete(lowered(&default_deny())));
    });
}

#[test]
fn policies_that_each_select_nearly_every_workload_are_joined_once_for_those_alike() {
    on_a_small_stack(|| {
        let nearly_all = |n: usize| {
            let (half, port) = (if n.is_multiple_of(2) { "0.0.0.0/2" } else { "64.0.0.0/2" }, 1 + n);
            policy(
                &format!("not-{n}"),
                json!({
                    "podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [format!("app-{n}")]}]},
                    "policyTypes": ["Ingress", "Egress"],
                    "ingress": [{"from": [{"ipBlock": {"cidr": half}}], "ports": [{"port": port, "endPort": port + 9000}]}],
                    "egress": [{"to": [{"ipBlock": {"cidr": half}}], "ports": [{"protocol": "UDP", "port": 53}]}],
                }),
            )
        };
        let workloads = (0..250).map(|n| deployment(&format!("app-{n}"), &json!({"app": format!("app-{n}")})));
        let cluster = cluster((0..250).map(nearly_all).chain(workloads).chain([default_deny()]));
        judged(&cluster, &Change::Delete(lowered(&default_deny())));
        judged(&cluster, &Change::Delete(lowered(&nearly_all(7))));
    });
}

#[test]
fn waivers_and_mesh_policies_by_the_thousand_are_answered() {
    on_a_small_stack(|| {
        let waiver = |n: usize| {
            json!({
                "apiVersion": "portcullis.dev/v1alpha1", "kind": "Waiver",
                "metadata": {"name": format!("w-{n}"), "namespace": "shop"},
                "spec": {
                    "rules": ["missing-default-deny"], "match": {"labels": {"team": format!("t-{n}")}},
                    "owner": "o", "reason": "r", "expires": "1970-01-10",
                },
            })
        };
        let strict = |n: usize| {
            json!({
                "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
                "metadata": {"name": format!("pa-{n}"), "namespace": "shop"},
                "spec": {"selector": {"matchLabels": {"app": "cart", "n": format!("{n}")}}, "mtls": {"mode": "STRICT"}},
            })
        };
        let service = |n: usize| {
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": format!("s-{n}"), "namespace": "shop"},
                "spec": {"selector": {"app": "cart", "n": format!("{n}")}, "ports": [{"port": 80, "targetPort": 8080}]},
            })
        };
        let workloads = (0..500).map(|n| deployment(&format!("app-{n}"), &json!({"app": "cart", "n": format!("{n}")})));
        let many = (0..2000).flat_map(|n| [waiver(n), strict(n)]);
        let cluster = cluster(workloads.chain(many).chain((0..500).map(service)).chain([default_deny()]));
        judged(&cluster, &Change::Delete(lowered(&default_deny())));
        judged(&cluster, &Change::Delete(lowered(&strict(3))));
    });
}

#[test]
fn text_nested_as_deep_as_it_is_long_is_an_error_and_not_a_crash() {
    on_a_small_stack(|| {
        let yaml = "[".repeat(DEEP);
        let manifests = Manifests::of(Source::new("deep.yaml", &yaml), "default");
        assert!(!manifests.faults.is_empty());
        let indented = (0..2000).map(|n| " ".repeat(n) + "a:").collect::<Vec<_>>().join("\n");
        let _ = Manifests::of(Source::new("deep.yaml", &indented), "default").cluster();
        let spec = format!(r#"{{"metadata":{{"name":"deep"}},"spec":{}{}}}"#, "[".repeat(DEEP), "]".repeat(DEEP));
        let name = k8s::TypeName { group: "networking.k8s.io", kind: "NetworkPolicy" };
        assert!(!k8s::lower_json(name, &spec, "shop").problems.is_empty());
        let body = format!(r#"{{"request":{{"uid":"1","object":{}{}}}}}"#, "[".repeat(DEEP), "]".repeat(DEEP));
        let answer = admission::review(&rules(), (&Cluster::default()).into(), body.as_bytes(), Timestamp::UNIX_EPOCH);
        assert!(!answer.record.allowed || answer.status == 400);
    });
}
