//! A large cluster through the index: how long it takes to build, what it takes up, and what a
//! review in it costs against one in an empty cluster.
//!
//! The objects come as an API server writes them and are lowered one by one, as the watch does it,
//! so that what is kept is what a watch would keep.
//!
//! ```text
//! cargo bench --bench scale
//! ```

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark fails by panicking, and printing is what it is for"
)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "sizes of a few hundred megabytes, and an address made of a number"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use portcullis::admission;
use portcullis::cluster::{Cluster, Index};
use portcullis::config::Settings;
use portcullis::k8s::{TypeName, lower_json};
use portcullis::model::Object;
use portcullis::rules::RuleSet;

const NAMESPACES: usize = 25_000;
const PODS: usize = 4;
const POLICIES: usize = 3;

/// Objects written and lowered at a time: what is being read is not counted as kept.
const BATCH: usize = 1_000;

/// The batches of reviews whose fastest tells the cost.
const BATCHES: u32 = 60;
const REVIEWS: u32 = 200;

fn main() {
    // `cargo test --benches` only asks whether it runs.
    let namespaces = if std::env::args().any(|argument| argument == "--bench") { NAMESPACES } else { 10 };
    let rules = Settings::default().rule_set();
    let empty = review_cost(&rules, &Cluster::default());

    let before = resident();
    let mut index = Index::new();
    let (mut lowering, mut indexing) = (Duration::ZERO, Duration::ZERO);
    let mut take = |written: &[(&'static str, &'static str, String)]| {
        let begun = Instant::now();
        let objects: Vec<Object> = written
            .iter()
            .map(|(group, kind, text)| lower_json(TypeName { group, kind }, text, "").object.unwrap())
            .collect();
        lowering += begun.elapsed();
        let begun = Instant::now();
        for object in objects {
            index.apply(object);
        }
        indexing += begun.elapsed();
    };
    // Kind by kind, as lists come.
    for kind in [namespace, policies, pods] {
        for first in (0..namespaces).step_by(BATCH / PODS) {
            let written: Vec<_> = (first..namespaces.min(first + BATCH / PODS)).flat_map(kind).collect();
            take(&written);
        }
    }
    take(&dns());
    let kept = resident().saturating_sub(before);
    let cluster = index.snapshot();
    let full = review_cost(&rules, &cluster);
    // A batch of the writer: one event, and the snapshot that goes with it.
    let publishing = fastest(|| {
        let pod = pods(namespaces / 2).next().unwrap();
        let object = lower_json(TypeName { group: pod.0, kind: pod.1 }, &pod.2, "").object.unwrap();
        let begun = Instant::now();
        index.apply(object);
        black_box(index.snapshot());
        begun.elapsed()
    });

    println!(
        "{namespaces} namespaces, {} pods, {} policies, one object after another",
        namespaces * PODS,
        namespaces * POLICIES
    );
    println!("{:<34}{:>10.0} ms", "index built in", indexing.as_secs_f64() * 1e3);
    println!("{:<34}{:>10.0} ms", "reading the objects before that", lowering.as_secs_f64() * 1e3);
    println!("{:<34}{:>10.0} MB", "memory kept", kept as f64 / 1e6);
    println!("{:<34}{:>10.1} µs", "one event and its snapshot", publishing.as_secs_f64() * 1e6);
    println!("{:<34}{:>10.1} µs", "a review in an empty cluster", empty.as_secs_f64() * 1e6);
    println!("{:<34}{:>10.1} µs", "a review in this one", full.as_secs_f64() * 1e6);
    println!("{:<34}{:>10.2}", "ratio", full.as_secs_f64() / empty.as_secs_f64());
}

/// The mean of the fastest batch: the one in which the machine did the least else.
fn review_cost(rules: &RuleSet, cluster: &Cluster) -> Duration {
    let review = review();
    let answer = admission::review(rules, cluster.into(), review.as_bytes(), Timestamp::UNIX_EPOCH);
    assert!(answer.record.judged && answer.record.findings.is_empty(), "{:?}", answer.record);
    (0..BATCHES)
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..REVIEWS {
                black_box(admission::review(
                    rules,
                    cluster.into(),
                    black_box(review.as_bytes()),
                    Timestamp::UNIX_EPOCH,
                ));
            }
            begun.elapsed() / REVIEWS
        })
        .min()
        .unwrap()
}

fn fastest(mut timed: impl FnMut() -> Duration) -> Duration {
    (0..BATCHES * REVIEWS).map(|_| timed()).min().unwrap()
}

/// The memory this process has in use, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn name(number: usize) -> String {
    format!("tenant-{number:05}")
}

type Written = (&'static str, &'static str, String);

fn namespace(number: usize) -> Box<dyn Iterator<Item = Written>> {
    let name = name(number);
    let text = format!(
        r#"{{"metadata":{{"name":"{name}","uid":"1b0e7c52-7f9b-4d0e-9f66-0d3a0c9b{number:05}","resourceVersion":"{number}","creationTimestamp":"2026-11-01T10:00:00Z","labels":{{"kubernetes.io/metadata.name":"{name}","tenant":"{name}","pod-security.kubernetes.io/enforce":"restricted"}}}},"spec":{{"finalizers":["kubernetes"]}},"status":{{"phase":"Active"}}}}"#
    );
    Box::new(std::iter::once(("", "Namespace", text)))
}

fn pods(number: usize) -> Box<dyn Iterator<Item = Written>> {
    Box::new((0..PODS).map(move |pod| {
        let (namespace, address) = (name(number), number * PODS + pod);
        let (high, middle, low) = (address >> 16 & 255, address >> 8 & 255, address & 255);
        let text = format!(
            r#"{{"metadata":{{"name":"app-{pod}-6d4cf56db6-{number:05}","generateName":"app-{pod}-6d4cf56db6-","namespace":"{namespace}","uid":"1b0e7c52-7f9b-4d0e-9f66-0d3a0c9b{number:05}","resourceVersion":"{address}","creationTimestamp":"2026-11-01T10:00:00Z","labels":{{"app.kubernetes.io/name":"app-{pod}","app.kubernetes.io/part-of":"{namespace}","app.kubernetes.io/version":"1.{pod}.7","pod-template-hash":"6d4cf56db6"}},"annotations":{{"prometheus.io/scrape":"true","kubectl.kubernetes.io/restartedAt":"2026-11-01T10:00:00Z"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"app-{pod}-6d4cf56db6","uid":"1b0e7c52","controller":true}}]{FIELDS}}},"spec":{{"containers":[{{"name":"app","image":"registry.example.com/{namespace}/app-{pod}:1.7","ports":[{{"name":"http","containerPort":8080,"protocol":"TCP"}},{{"name":"metrics","containerPort":9090,"protocol":"TCP"}}],"env":[{{"name":"HOST","value":"10.0.0.1"}}],"resources":{{"limits":{{"memory":"256Mi"}}}}}},{{"name":"proxy","image":"registry.example.com/proxy:2","ports":[{{"name":"proxy","containerPort":15001,"protocol":"TCP"}}]}}],"dnsPolicy":"ClusterFirst","nodeName":"node-17","serviceAccountName":"default"}},"status":{{"phase":"Running","hostIP":"192.168.7.9","podIP":"10.{high}.{middle}.{low}","podIPs":[{{"ip":"10.{high}.{middle}.{low}"}}],"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
        );
        ("", "Pod", text)
    }))
}

fn policies(number: usize) -> Box<dyn Iterator<Item = Written>> {
    let namespace = name(number);
    Box::new((0..POLICIES).map(move |policy| {
        let spec = match policy {
            0 => r#""podSelector":{},"policyTypes":["Ingress","Egress"]"#.to_owned(),
            1 => r#""podSelector":{},"policyTypes":["Egress"],"egress":[{"to":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"kube-system"}},"podSelector":{"matchLabels":{"k8s-app":"kube-dns"}}}],"ports":[{"protocol":"UDP","port":53},{"protocol":"TCP","port":53}]}]"#.to_owned(),
            app => format!(
                r#""podSelector":{{"matchLabels":{{"app.kubernetes.io/name":"app-{app}"}}}},"policyTypes":["Ingress","Egress"],"ingress":[{{"from":[{{"podSelector":{{"matchLabels":{{"app.kubernetes.io/name":"app-1"}}}}}},{{"namespaceSelector":{{"matchLabels":{{"kubernetes.io/metadata.name":"ingress"}}}}}}],"ports":[{{"protocol":"TCP","port":"http"}}]}}],"egress":[{{"to":[{{"ipBlock":{{"cidr":"10.20.0.0/16","except":["10.20.7.0/24"]}}}}],"ports":[{{"protocol":"TCP","port":5432}}]}}]"#
            ),
        };
        let text = format!(
            r#"{{"metadata":{{"name":"policy-{policy}","namespace":"{namespace}","uid":"1b0e7c52-7f9b-4d0e-9f66-0d3a0c9b{number:05}","resourceVersion":"{number}","generation":1,"creationTimestamp":"2026-11-01T10:00:00Z"{FIELDS}}},"spec":{{{spec}}}}}"#
        );
        ("networking.k8s.io", "NetworkPolicy", text)
    }))
}

/// What every object carries about who wrote which field, and no rule reads.
const FIELDS: &str = r#","managedFields":[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-11-01T10:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{".":{},"f:app.kubernetes.io/name":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:image":{},"f:name":{},"f:ports":{}}}}}}]"#;

fn dns() -> Vec<Written> {
    let service = r#"{"metadata":{"name":"kube-dns","namespace":"kube-system","labels":{"k8s-app":"kube-dns"}},"spec":{"clusterIP":"10.96.0.10","clusterIPs":["10.96.0.10"],"selector":{"k8s-app":"kube-dns"},"ports":[{"name":"dns","port":53,"protocol":"UDP","targetPort":53},{"name":"dns-tcp","port":53,"protocol":"TCP","targetPort":53}]}}"#;
    let pod = |number: usize| {
        format!(
            r#"{{"metadata":{{"name":"coredns-{number}","namespace":"kube-system","labels":{{"k8s-app":"kube-dns"}}}},"spec":{{"containers":[{{"name":"coredns","ports":[{{"name":"dns","containerPort":53,"protocol":"UDP"}},{{"name":"dns-tcp","containerPort":53,"protocol":"TCP"}}]}}]}},"status":{{"phase":"Running","podIP":"10.255.0.{number}"}}}}"#
        )
    };
    vec![("", "Service", service.to_owned()), ("", "Pod", pod(2)), ("", "Pod", pod(3))]
}

/// A new policy in one of the namespaces: a default-deny that lets names be resolved, to which no
/// rule objects in either cluster, so that only judging differs and no message is written.
fn review() -> String {
    let (_, _, policy) = policies(5).nth(1).unwrap();
    let policy =
        policy.replacen("policy-1", "default-deny-too", 1).replacen("[\"Egress\"]", "[\"Ingress\",\"Egress\"]", 1);
    let mut review = String::new();
    write!(
        review,
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"705ab4f5-6393-11e8-b7cc-42010a800002","kind":{{"group":"networking.k8s.io","version":"v1","kind":"NetworkPolicy"}},"resource":{{"group":"networking.k8s.io","version":"v1","resource":"networkpolicies"}},"name":"default-deny-too","namespace":"{}","operation":"CREATE","userInfo":{{"username":"ann","groups":["developers","system:authenticated"]}},"object":{policy},"oldObject":null,"dryRun":false}}}}"#,
        name(5)
    )
    .unwrap();
    review
}
