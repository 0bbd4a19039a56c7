//! Clusters and reviews built from bytes: objects of every kind that is read, with fields that are
//! mostly as the API has them and at times of another shape, as a definition without a schema lets
//! them be. What must hold of each answer stands in [`check`].

use jiff::Timestamp;
use portcullis::admission::{self, Answer};
use portcullis::cluster::Cluster;
use portcullis::config;
use portcullis::k8s::lower_value;
use portcullis::model::Object;
use portcullis::rules::{CL_RULE_FAILED, RuleSet};
use portcullis::yaml::Source;
use serde_json::{Map, Value, json};

use crate::choices::Choices;

const NAMESPACES: [&str; 4] = ["shop", "other", "kube-system", "istio-system"];
const NAMES: [&str; 5] = ["a", "default", "kube-dns", "istio", "coredns"];
const KEYS: [&str; 14] = [
    "app",
    "k8s-app",
    "kubernetes.io/metadata.name",
    "istio-injection",
    "istio.io/rev",
    "istio.io/dataplane-mode",
    "sidecar.istio.io/inject",
    "portcullis.dev/mode",
    "pod-template-hash",
    "apps.kubernetes.io/pod-index",
    "statefulset.kubernetes.io/pod-name",
    "job-name",
    "",
    "x/y/z",
];
const VALUES: [&str; 16] = [
    "web",
    "kube-dns",
    "shop",
    "kube-system",
    "enabled",
    "disabled",
    "ambient",
    "none",
    "true",
    "false",
    "audit",
    "default",
    "0",
    "a-0",
    "",
    "é\u{0}",
];
const ANNOTATIONS: [&str; 9] = [
    "sidecar.istio.io/inject",
    "sidecar.istio.io/status",
    "traffic.sidecar.istio.io/excludeInboundPorts",
    "traffic.sidecar.istio.io/includeInboundPorts",
    "traffic.sidecar.istio.io/kubevirtInterfaces",
    "istio.io/reroute-virtual-interfaces",
    "ambient.istio.io/redirection",
    "inject.istio.io/templates",
    "example.com/note",
];
const TEXTS: [&str; 8] = ["enabled", "8080", "1-65535", "*", "gateway", "sidecar,gateway", "{}", ",,"];
const CIDRS: [&str; 20] = [
    "0.0.0.0/0",
    "0.0.0.0/1",
    "128.0.0.0/1",
    "10.0.0.0/8",
    "10.1.2.3/8",
    "169.254.169.254/32",
    "10.96.0.10/32",
    "::/0",
    "::/1",
    "8000::/1",
    "64:ff9b::/96",
    "64:ff9b::a00:0/104",
    "2002::/16",
    "::ffff:0:0/95",
    "fe80::/10",
    "0.0.0.0/33",
    "::/129",
    "10.0.0.0",
    "",
    "010.0.0.0/8",
];
const PORTS: [i64; 9] = [0, 1, 53, 443, 8080, 32_767, 65_535, 65_536, -1];

/// Builds a cluster and a review of these bytes, and holds the answers against what must be true of
/// every answer.
pub(crate) fn check(rules: &RuleSet, bytes: &[u8]) {
    let choices = &mut Choices::new(bytes);
    let mut objects: Vec<Value> = (0..choices.below(14)).map(|_| object(choices)).collect();
    let old = if objects.is_empty() { object(choices) } else { objects[choices.below(objects.len())].clone() };
    let mut new = object(choices);
    if !choices.once_in(8) {
        // Mostly of the same kind and name, as the API server sends it.
        for field in ["apiVersion", "kind"] {
            new[field] = old[field].clone();
        }
        for field in ["name", "namespace"] {
            new["metadata"][field] = old["metadata"][field].clone();
        }
    }
    let operation = choices.one(&["UPDATE", "CREATE", "DELETE"]);
    let user = choices.one(&[
        "editor",
        "system:serviceaccount:kube-system:replicaset-controller",
        "system:serviceaccount:kube-system:generic-garbage-collector",
    ]);
    let ask = |objects: &[Value], operation: &str, new: Option<&Value>, old: Option<&Value>| {
        let cluster = Cluster::of(objects.iter().filter_map(lowered));
        answer(rules, &cluster, &review(operation, user, new, old))
    };
    let (new, old) = match operation {
        "CREATE" => (Some(&new), None),
        "DELETE" => (None, Some(&old)),
        _ => (Some(&new), Some(&old)),
    };
    let first = ask(&objects, operation, new, old);
    assert_eq!(first.body, ask(&objects, operation, new, old).body, "the same question has two answers");
    if let Some(old) = old {
        let same = ask(&objects, "UPDATE", Some(old), Some(old));
        assert!(same.record.allowed, "a change of nothing is denied: {}", String::from_utf8_lossy(&same.body));
    }
    // Of two objects with one name the last one counts, so what is there twice is taken out.
    let mut seen = std::collections::BTreeSet::new();
    objects.retain(|it| {
        seen.insert([&it["kind"], &it["metadata"]["namespace"], &it["metadata"]["name"]].map(Value::to_string))
    });
    let forwards = ask(&objects, operation, new, old);
    objects.reverse();
    let backwards = ask(&objects, operation, new, old);
    assert_eq!(forwards.body, backwards.body, "the order in which objects came to be known decides");

    let cluster = Cluster::of(objects.iter().filter_map(lowered));
    for finding in rules.judge_all(&cluster, now()) {
        assert_ne!(finding.rule, &CL_RULE_FAILED, "{}", finding.message);
    }
}

/// The rules as `restricted` has them.
pub(crate) fn restricted() -> RuleSet {
    config::read(Source::new("gate.yaml", "profile: restricted")).expect("it is a configuration").rule_set()
}

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().expect("it is a time")
}

fn lowered(object: &Value) -> Option<Object> {
    lower_value(object, "default").object
}

fn answer(rules: &RuleSet, cluster: &Cluster, body: &[u8]) -> Answer {
    let answer = admission::review(rules, cluster.into(), body, now());
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let failed = answer.record.findings.iter().any(|(rule, _)| *rule == CL_RULE_FAILED.name);
    assert!(!failed, "a rule failed: {}", String::from_utf8_lossy(&answer.body));
    let said: Value = serde_json::from_slice(&answer.body).expect("every answer is JSON");
    assert_eq!(said["response"]["allowed"], answer.record.allowed);
    assert_eq!(said["response"]["status"].is_null(), answer.record.allowed, "a denial has a reason");
    answer
}

fn review(operation: &str, user: &str, new: Option<&Value>, old: Option<&Value>) -> Vec<u8> {
    let object = new.or(old).expect("a review has an object");
    let (group, version) = object["apiVersion"].as_str().unwrap_or_default().split_once('/').unwrap_or(("", "v1"));
    let kind = json!({ "group": group, "version": version, "kind": object["kind"] });
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let namespace = if object["kind"] == "Namespace" { text("name") } else { text("namespace") };
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": kind,
            "requestKind": kind,
            "name": text("name"),
            "namespace": namespace,
            "operation": operation,
            "userInfo": { "username": user },
            "object": new,
            "oldObject": old,
        },
    })
    .to_string()
    .into_bytes()
}

fn object(choices: &mut Choices<'_>) -> Value {
    let (version, kind) = choices.one(&[
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("apps/v1", "Deployment"),
        ("v1", "Pod"),
        ("v1", "Namespace"),
        ("security.istio.io/v1", "PeerAuthentication"),
        ("v1", "Service"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "ReplicaSet"),
        ("batch/v1", "Job"),
        ("batch/v1", "CronJob"),
        ("v1", "ConfigMap"),
        ("portcullis.dev/v1alpha1", "Waiver"),
        ("cilium.io/v2", "CiliumNetworkPolicy"),
    ]);
    let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": metadata(choices, kind) });
    match kind {
        "NetworkPolicy" => object["spec"] = policy(choices),
        "Pod" => object["spec"] = pod(choices),
        "CronJob" => object["spec"] = json!({ "jobTemplate": { "spec": { "template": template(choices) } } }),
        "PeerAuthentication" => object["spec"] = authentication(choices),
        "Service" => object["spec"] = service(choices),
        "ConfigMap" => {
            let mesh = choices.one(&["rootNamespace: shop", "accessLogFile: x", "rootNamespace: [", "{}", ""]);
            object["data"] = json!({ "mesh": mesh });
        }
        "Waiver" => {
            let expires = choices.one(&["2026-06-20", "2026-01-01", "never", "2026-06-20T12:00:00Z"]);
            object["spec"] = json!({
                "rules": [choices.one(&["NP001", "missing-default-deny", "MT001", "NP999"])],
                "match": { "names": [choices.one(&NAMES)] },
                "owner": "a", "reason": "b", "expires": expires,
            });
        }
        "Namespace" | "CiliumNetworkPolicy" => {}
        _ => {
            object["spec"] = json!({ "selector": selector(choices), "template": template(choices) });
            set(choices, &mut object["spec"], "replicas", |choices| choices.one(&[1, 0, 3]).into());
        }
    }
    if choices.once_in(12) {
        object["status"] = json!({ "phase": choices.one(&["Running", "Succeeded", "Terminating", "Failed"]) });
    }
    object
}

/// Sets a field, mostly; at times to what it should not be.
fn set(choices: &mut Choices<'_>, object: &mut Value, field: &str, value: impl FnOnce(&mut Choices<'_>) -> Value) {
    match choices.below(24) {
        23 => {
            let odd =
                [json!(null), json!(7), json!(""), json!([]), json!({}), json!([null]), json!(1e300), json!([[]])];
            object[field] = odd[choices.below(odd.len())].clone();
        }
        20..=22 => {}
        _ => object[field] = value(choices),
    }
}

fn some(choices: &mut Choices<'_>, most: usize, one: impl Fn(&mut Choices<'_>) -> Value) -> Value {
    (0..choices.below(most + 1)).map(|_| one(choices)).collect()
}

fn labels(choices: &mut Choices<'_>) -> Value {
    let labels: Map<String, Value> =
        (0..choices.below(4)).map(|_| (choices.one(&KEYS).to_owned(), choices.one(&VALUES).into())).collect();
    labels.into()
}

fn metadata(choices: &mut Choices<'_>, kind: &str) -> Value {
    let name = if kind == "Namespace" { choices.one(&NAMESPACES) } else { choices.one(&NAMES) };
    let mut metadata = json!({ "name": name });
    if kind != "Namespace" {
        metadata["namespace"] = choices.one(&NAMESPACES).into();
    }
    set(choices, &mut metadata, "labels", labels);
    adorn(choices, &mut metadata);
    if choices.once_in(6) {
        let kind = choices.one(&["Deployment", "ReplicaSet", "ConfigMap", "Cluster"]);
        let owner = json!({ "apiVersion": "apps/v1", "kind": kind, "name": choices.one(&NAMES), "uid": "1", "controller": choices.once_in(2) });
        set(choices, &mut metadata, "ownerReferences", |_| json!([owner]));
    }
    if choices.once_in(8) {
        set(choices, &mut metadata, "finalizers", |_| json!(["a/b"]));
        set(choices, &mut metadata, "deletionTimestamp", |_| "2026-06-01T11:00:00Z".into());
    }
    metadata
}

fn adorn(choices: &mut Choices<'_>, metadata: &mut Value) {
    if choices.once_in(3) {
        let (key, value) = (choices.one(&ANNOTATIONS), choices.one(&TEXTS));
        set(choices, metadata, "annotations", |_| json!({ key: value }));
    }
}

fn selector(choices: &mut Choices<'_>) -> Value {
    let mut selector = json!({});
    if choices.once_in(3) {
        return selector;
    }
    set(choices, &mut selector, "matchLabels", labels);
    if choices.once_in(3) {
        set(choices, &mut selector, "matchExpressions", |choices| {
            some(choices, 3, |choices| {
                let operator = choices.one(&["In", "NotIn", "Exists", "DoesNotExist", "Gt"]);
                let mut expression = json!({ "key": choices.one(&KEYS), "operator": operator });
                set(choices, &mut expression, "values", |choices| some(choices, 3, |it| it.one(&VALUES).into()));
                expression
            })
        });
    }
    selector
}

fn policy(choices: &mut Choices<'_>) -> Value {
    let mut policy = json!({});
    set(choices, &mut policy, "podSelector", selector);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        set(choices, &mut policy, rules, |choices| {
            some(choices, 3, |choices| {
                let mut rule = json!({});
                set(choices, &mut rule, peers, |choices| some(choices, 3, peer));
                set(choices, &mut rule, "ports", |choices| some(choices, 3, port));
                rule
            })
        });
    }
    set(choices, &mut policy, "policyTypes", |choices| {
        some(choices, 2, |it| it.one(&["Ingress", "Egress", "ingress"]).into())
    });
    policy
}

fn peer(choices: &mut Choices<'_>) -> Value {
    let mut peer = json!({});
    if choices.once_in(2) {
        set(choices, &mut peer, "ipBlock", |choices| {
            let mut block = json!({ "cidr": choices.one(&CIDRS) });
            set(choices, &mut block, "except", |choices| some(choices, 2, |it| it.one(&CIDRS).into()));
            block
        });
    } else {
        set(choices, &mut peer, "podSelector", selector);
        set(choices, &mut peer, "namespaceSelector", selector);
    }
    peer
}

fn port(choices: &mut Choices<'_>) -> Value {
    let mut port = json!({});
    set(choices, &mut port, "port", |choices| match choices.below(5) {
        4 => choices.one(&["http", "dns", "", "web-port-that-is-too-long"]).into(),
        _ => choices.one(&PORTS).into(),
    });
    if choices.once_in(2) {
        set(choices, &mut port, "endPort", |choices| choices.one(&PORTS).into());
    }
    if choices.once_in(2) {
        set(choices, &mut port, "protocol", |choices| choices.one(&["UDP", "TCP", "SCTP", "ICMP"]).into());
    }
    port
}

fn template(choices: &mut Choices<'_>) -> Value {
    let mut template = json!({ "metadata": {} });
    set(choices, &mut template["metadata"], "labels", labels);
    adorn(choices, &mut template["metadata"]);
    set(choices, &mut template, "spec", pod);
    template
}

fn pod(choices: &mut Choices<'_>) -> Value {
    let mut pod = json!({});
    let container = |choices: &mut Choices<'_>| {
        let mut container = json!({ "name": choices.one(&["c", "istio-proxy"]), "image": "c" });
        set(choices, &mut container, "ports", |choices| {
            some(
                choices,
                2,
                |choices| json!({ "name": choices.one(&["http", "dns"]), "containerPort": choices.one(&PORTS), "protocol": choices.one(&["TCP", "UDP"]) }),
            )
        });
        if choices.once_in(4) {
            container["restartPolicy"] = "Always".into();
        }
        container
    };
    set(choices, &mut pod, "containers", |choices| some(choices, 2, container));
    if choices.once_in(6) {
        set(choices, &mut pod, "initContainers", |choices| some(choices, 2, container));
    }
    if choices.once_in(6) {
        set(choices, &mut pod, "hostNetwork", |_| true.into());
    }
    if choices.once_in(6) {
        set(choices, &mut pod, "dnsPolicy", |choices| choices.one(&["None", "Default", "ClusterFirst"]).into());
        set(
            choices,
            &mut pod,
            "dnsConfig",
            |choices| json!({ "nameservers": [choices.one(&["10.96.0.10", "1.1.1.1", "x"])] }),
        );
    }
    pod
}

fn authentication(choices: &mut Choices<'_>) -> Value {
    const MODES: [&str; 5] = ["STRICT", "PERMISSIVE", "DISABLE", "UNSET", "strict"];
    let mut authentication = json!({});
    if choices.once_in(2) {
        set(choices, &mut authentication, "selector", |choices| json!({ "matchLabels": labels(choices) }));
    }
    set(choices, &mut authentication, "mtls", |choices| json!({ "mode": choices.one(&MODES) }));
    if choices.once_in(3) {
        set(
            choices,
            &mut authentication,
            "portLevelMtls",
            |choices| json!({ choices.one(&["8080", "53", "x", "70000"]): { "mode": choices.one(&MODES) } }),
        );
    }
    authentication
}

fn service(choices: &mut Choices<'_>) -> Value {
    let mut service = json!({});
    set(choices, &mut service, "selector", labels);
    set(choices, &mut service, "clusterIP", |choices| choices.one(&["10.96.0.10", "None", "", "fd00::a"]).into());
    set(choices, &mut service, "ports", |choices| {
        some(
            choices,
            2,
            |choices| json!({ "port": choices.one(&PORTS), "protocol": choices.one(&["UDP", "TCP"]), "targetPort": choices.one(&PORTS) }),
        )
    });
    if choices.once_in(8) {
        service["type"] = "ExternalName".into();
    }
    service
}
