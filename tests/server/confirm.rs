//! A denial for want of something is confirmed by a fresh read before it is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use portcullis::cluster::{Cluster, Extent, Reading};
use portcullis::config::{self, Settings};
use portcullis::k8s::{Kind, lower_value};
use portcullis::rules::RuleSet;
use portcullis::server::{CertificateSource, Options, Origin, Renewed};
use portcullis::yaml::{self, Source};
use serde_json::{Value, json};

use super::{Running, start};

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
";
const DEFAULT_DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], egress: [{ports: [{port: 53}, {port: 53, protocol: UDP}]}]}
";
const ALLOW_ALL: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-all, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}
";
const CART: &str = "
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop}
spec: {containers: [{name: cart, image: cart}]}
";

/// An API server that answers each fresh read alike.
struct Truth {
    age: Duration,
    unread: Vec<Kind>,
    /// What is there by now; else why it cannot be read; nothing for one that never answers.
    renewed: Option<Result<Cluster, String>>,
    reads: AtomicUsize,
    /// How many of the reads were of workloads too.
    reads_of_workloads: AtomicUsize,
}

impl Origin for Truth {
    fn age(&self) -> Duration {
        self.age
    }

    fn unread(&self) -> Vec<Kind> {
        self.unread.clone()
    }

    fn renew(&self, _cluster: Arc<Cluster>, reading: Reading) -> Renewed<'_> {
        assert_eq!(reading.namespaces, ["shop"]);
        self.reads.fetch_add(1, Ordering::SeqCst);
        if reading.extent == Extent::Workloads {
            self.reads_of_workloads.fetch_add(1, Ordering::SeqCst);
        }
        match self.renewed.clone() {
            Some(renewed) => Box::pin(async move { renewed }),
            None => Box::pin(std::future::pending()),
        }
    }
}

fn truth(renewed: Option<Result<Cluster, String>>) -> Arc<Truth> {
    Arc::new(Truth {
        age: Duration::ZERO,
        unread: Vec::new(),
        renewed,
        reads: AtomicUsize::new(0),
        reads_of_workloads: AtomicUsize::new(0),
    })
}

fn cluster(manifests: &[&str]) -> Cluster {
    let manifests = manifests.join("---");
    let documents = yaml::parse(&manifests).into_iter();
    Cluster::of(documents.map(|it| lower_value(&it.unwrap().value(), "default").object.unwrap()))
}

fn rules(settings: &str) -> RuleSet {
    let settings = match settings {
        "" => Settings::default(),
        text => config::read(Source::new("portcullis.yaml", text)).unwrap(),
    };
    settings.rule_set()
}

/// A gate with the real rules whose watch knows `known`.
async fn gate(known: &[&str], truth: &Arc<Truth>) -> Running {
    let origin = Arc::clone(truth);
    let server = start(|options| {
        let Options { reviewer, .. } = Options::new(CertificateSource::InService);
        options.reviewer = reviewer;
        options.origin = Some(origin);
    })
    .await;
    server.cluster.send_replace(Arc::new(cluster(known)));
    server.rules.send_replace(Arc::new(rules("")));
    server
}

/// The answer to the creation of an object in `shop`.
async fn create(server: &Running, manifest: &str) -> Value {
    asked(server, "CREATE", manifest).await
}

/// The answer to the deletion of an object in `shop`.
async fn delete(server: &Running, manifest: &str) -> Value {
    asked(server, "DELETE", manifest).await
}

async fn asked(server: &Running, operation: &str, manifest: &str) -> Value {
    let object = yaml::parse(manifest).into_iter().next().unwrap().unwrap().value();
    let (group, version) = object["apiVersion"].as_str().unwrap().rsplit_once('/').unwrap_or(("", "v1"));
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "1",
            "kind": {"group": group, "version": version, "kind": object["kind"]},
            "operation": operation,
            "namespace": "shop",
            "name": object["metadata"]["name"],
            "userInfo": {"username": "ann"},
            (if operation == "CREATE" { "object" } else { "oldObject" }): object,
        },
    });
    let request = Request::post("/validate?timeout=1s").header("content-type", "application/json");
    let mut client = server.https().await;
    client.send(request, Bytes::from(review.to_string())).await.unwrap().json()["response"].clone()
}

fn outcome(server: &Running, outcome: &str) -> bool {
    let line = format!("portcullis_review_confirmations_total{{outcome=\"{outcome}\"}} 1");
    server.metrics().lines().any(|found| found == line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_watch_has_not_seen_yet_is_found_by_a_fresh_read() {
    let truth = truth(Some(Ok(cluster(&[SHOP, DEFAULT_DENY]))));
    let server = gate(&[SHOP], &truth).await;
    let answer = create(&server, CART).await;
    assert_eq!(answer["allowed"], true, "{answer:#}");
    assert!(outcome(&server, "withdrawn"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_truly_missing_is_denied_after_one_fresh_read() {
    let truth = truth(Some(Ok(cluster(&[SHOP]))));
    let server = gate(&[SHOP], &truth).await;
    let answer = create(&server, CART).await;
    assert_eq!(answer["allowed"], false, "{answer:#}");
    assert_eq!(truth.reads.load(Ordering::SeqCst), 1);
    assert!(outcome(&server, "upheld"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_that_cannot_be_confirmed_is_a_warning_that_says_so() {
    let truth = truth(Some(Err("list is forbidden".to_owned())));
    let server = gate(&[SHOP], &truth).await;
    let answer = create(&server, CART).await;
    assert_eq!(answer["allowed"], true, "{answer:#}");
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(warning.contains("NP001") && warning.contains("list is forbidden"), "{warning}");
    assert!(outcome(&server, "failed"));
}

/// Otherwise an editor could fill a namespace until reading it takes too long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_read_that_does_not_end_in_time_lets_nothing_pass_unless_that_is_set() {
    // In the last case the mode of the namespace is not known.
    let cases: [(&str, &[&str], bool); 4] =
        [("", &[SHOP], false), ("onTimeout: warn", &[SHOP], true), ("mode: warn", &[SHOP], true), ("", &[], true)];
    for (settings, known, allowed) in cases {
        let server = gate(known, &truth(None)).await;
        server.rules.send_replace(Arc::new(rules(settings)));
        let answer = create(&server, CART).await;
        assert_eq!(answer["allowed"], allowed, "{settings} {known:?}: {answer:#}");
        assert!(answer.to_string().contains("NP001"), "{answer:#}");
    }
    let spare = DEFAULT_DENY.replace("default-deny", "spare");
    for (settings, allowed) in [("", false), ("onTimeout: warn", true)] {
        let server = gate(&[SHOP, DEFAULT_DENY, &spare, CART], &truth(None)).await;
        server.rules.send_replace(Arc::new(rules(settings)));
        let answer = delete(&server, DEFAULT_DENY).await;
        assert_eq!(answer["allowed"], allowed, "{settings}: {answer:#}");
        assert!(outcome(&server, "failed"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_deletions_in_a_row_the_one_that_takes_the_last_defence_is_denied() {
    let spare = DEFAULT_DENY.replace("default-deny", "spare");
    // The watch has not told of it yet: the spare one is gone.
    let truth = truth(Some(Ok(cluster(&[SHOP, DEFAULT_DENY, CART]))));
    let server = gate(&[SHOP, DEFAULT_DENY, &spare, CART], &truth).await;
    let answer = delete(&server, DEFAULT_DENY).await;
    assert_eq!(answer["allowed"], false, "{answer:#}");
    assert!(outcome(&server, "overturned"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_does_not_open_workloads_that_are_gone_by_now() {
    let truth = truth(Some(Ok(cluster(&[SHOP, DEFAULT_DENY]))));
    let server = gate(&[SHOP, DEFAULT_DENY, CART], &truth).await;
    let answer = delete(&server, DEFAULT_DENY).await;
    assert_eq!(answer["allowed"], true, "{answer:#}");
    assert_eq!(truth.reads_of_workloads.load(Ordering::SeqCst), 1);
    assert!(outcome(&server, "withdrawn"));
    // What is created needs no workloads.
    create(&server, CART).await;
    assert_eq!(truth.reads_of_workloads.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_leaves_a_defence_in_place_is_allowed_after_one_fresh_read() {
    let spare = DEFAULT_DENY.replace("default-deny", "spare");
    let all = [SHOP, DEFAULT_DENY, &spare, CART];
    let truth = truth(Some(Ok(cluster(&all))));
    let server = gate(&all, &truth).await;
    assert_eq!(delete(&server, DEFAULT_DENY).await["allowed"], true);
    assert_eq!(truth.reads.load(Ordering::SeqCst), 1);
    assert!(outcome(&server, "upheld"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_is_allowed_by_what_is_known_where_nothing_can_be_read_anew() {
    let spare = DEFAULT_DENY.replace("default-deny", "spare");
    let truth = truth(Some(Err("away".to_owned())));
    let server = gate(&[SHOP, DEFAULT_DENY, &spare, CART], &truth).await;
    assert_eq!(delete(&server, DEFAULT_DENY).await["allowed"], true);
    assert!(outcome(&server, "failed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_for_what_is_there_is_not_read_again() {
    let truth = truth(None);
    let server = gate(&[SHOP, DEFAULT_DENY, CART], &truth).await;
    let answer = create(&server, ALLOW_ALL).await;
    assert_eq!(answer["allowed"], false, "{answer:#}");
    assert_eq!(truth.reads.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_namespace_not_seen_yet_a_denial_for_what_is_there_waits_for_its_mode() {
    let warned = SHOP.replace("shop}", "shop, labels: {portcullis.dev/mode: warn}}");
    let truth = truth(Some(Ok(cluster(&[&warned, DEFAULT_DENY, CART]))));
    let server = gate(&[DEFAULT_DENY, CART], &truth).await;
    let answer = create(&server, ALLOW_ALL).await;
    assert_eq!(answer["allowed"], true, "{answer:#}");
    assert!(!answer["warnings"].as_array().unwrap().is_empty(), "{answer:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_namespace_not_seen_yet_what_cannot_be_read_waits_for_its_mode_too() {
    const ODD: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: odd, namespace: shop}
spec: text
";
    for (mode, allowed) in [("warn", true), ("enforce", false)] {
        let labelled = SHOP.replace("shop}", &format!("shop, labels: {{portcullis.dev/mode: {mode}}}}}"));
        let truth = truth(Some(Ok(cluster(&[&labelled]))));
        let server = gate(&[], &truth).await;
        server.rules.send_replace(Arc::new(rules("rules: {unreadable-object: {action: deny}}")));
        let answer = create(&server, ODD).await;
        assert_eq!(answer["allowed"], allowed, "{answer:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_age_that_is_set_rules_warn_where_they_would_deny() {
    for (age, allowed) in [(30, true), (10, false)] {
        let fresh = cluster(&[SHOP]);
        let truth = Arc::new(Truth {
            age: Duration::from_secs(age),
            unread: Vec::new(),
            renewed: Some(Ok(fresh)),
            reads: AtomicUsize::new(0),
            reads_of_workloads: AtomicUsize::new(0),
        });
        let server = gate(&[SHOP], &truth).await;
        server.rules.send_replace(Arc::new(rules("view: {maxAge: 20s}")));
        let answer = create(&server, CART).await;
        assert_eq!(answer["allowed"], allowed, "{answer:#}");
        if allowed {
            assert!(answer["warnings"][0].as_str().unwrap().contains("30 seconds old"), "{answer:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rests_on_objects_that_were_not_read_is_a_warning() {
    for (unread, allowed) in [(Kind::NetworkPolicy, true), (Kind::PeerAuthentication, false)] {
        let renewed = Some(Ok(cluster(&[SHOP])));
        let truth = Arc::new(Truth {
            age: Duration::ZERO,
            unread: vec![unread],
            renewed,
            reads: AtomicUsize::new(0),
            reads_of_workloads: AtomicUsize::new(0),
        });
        let server = gate(&[SHOP], &truth).await;
        let answer = create(&server, CART).await;
        assert_eq!(answer["allowed"], allowed, "{answer:#}");
        if allowed {
            assert!(answer["warnings"][0].as_str().unwrap().contains("NetworkPolicies are missing"), "{answer:#}");
        }
    }
}
