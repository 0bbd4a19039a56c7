//! What breaks between the gate and the API server, and what the gate makes of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::admission::{self, Sight};
use portcullis::cluster::Cluster;
use portcullis::config::Settings;
use portcullis::model::Change;
use portcullis::rules::{
    Action, ActiveRule, AnyRule, Finding, Meta, Mode, Moment, Profile, Scope, Severity, View, Violation,
};
use portcullis::server::{CertificateSource, Options, Server};
use portcullis::source::{self, Live};
use portcullis::telemetry::Telemetry;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::load::tls;
use crate::support::{Authority, ControlPlane, Folder, Gate, Knows, LONG, Part, Relay, Setup, eventually};

/// A namespace nobody closed, and one that is closed, with a pod in it.
const STANDING: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: open}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: closed}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: closed}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: closed, labels: {app: cart}}
spec: {containers: [{name: c, image: example.com/cart}]}
";

async fn live(kubeconfig: &Path, telemetry: &Telemetry) -> Live {
    let configuration = source::configuration(Some(kubeconfig), None).await.unwrap();
    Live::start(configuration, "istio-system", telemetry).unwrap()
}

/// The cluster as it is listed now.
async fn listed(plane: &ControlPlane) -> Arc<Cluster> {
    let telemetry = Telemetry::default();
    let live = live(plane.kubeconfig(), &telemetry).await;
    eventually("everything is listed", async || telemetry.readiness.is_ready().then_some(())).await;
    live.cluster().borrow().clone()
}

/// Waits until what is watched is what is there.
async fn settles(live: &Live, plane: &ControlPlane, after: &str) {
    let begun = Instant::now();
    loop {
        let truth = listed(plane).await;
        let mut cluster = live.cluster();
        // The watch may be a moment behind the list.
        let same = tokio::time::timeout(Duration::from_secs(2), cluster.wait_for(|cluster| *cluster == truth)).await;
        if same.is_ok() && live.age() == Duration::ZERO {
            return;
        }
        if begun.elapsed() > LONG {
            let names = |cluster: &Cluster| -> BTreeSet<String> {
                cluster.objects().map(|object| format!("{object:?}")).collect()
            };
            let (seen, there) = (names(&live.cluster().borrow()), names(&truth));
            panic!(
                "{after}: what is seen, {:?} old, and what is there differ\nseen only: {:#?}\nthere only: {:#?}",
                live.age(),
                seen.difference(&there).collect::<Vec<_>>(),
                there.difference(&seen).collect::<Vec<_>>(),
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_any_fault_the_view_is_what_a_fresh_list_gives() {
    let plane = ControlPlane::new().await;
    plane.apply(STANDING).await;
    let relay = Relay::to(&plane).await;
    let telemetry = Telemetry::default();
    let live = self::live(relay.kubeconfig(), &telemetry).await;
    settles(&live, &plane, "a first list").await;

    // Something goes, something comes and something changes while nobody hears of it.
    let change = async |number: usize| {
        plane.kubectl(["delete", "networkpolicy", "--all", "--namespace=open"], "").await;
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: pod-{number}, namespace: open}}, spec: {{containers: [{{name: c, image: example.com/c}}]}}}}"
        );
        let policy = format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: policy-{number}, namespace: open}}, spec: {{podSelector: {{}}}}}}"
        );
        plane.apply(&format!("{pod}\n---\n{policy}")).await;
        let label = format!("fault={number}");
        assert!(plane.kubectl(["label", "--overwrite", "namespace", "closed", &label], "").await.succeeded);
    };

    relay.cut();
    change(1).await;
    settles(&live, &plane, "watches cut").await;

    relay.forget();
    change(2).await;
    settles(&live, &plane, "410 Gone").await;

    relay.set_down(true);
    change(3).await;
    eventually("the view ages", async || (live.age() > Duration::ZERO).then_some(())).await;
    relay.set_down(false);
    settles(&live, &plane, "the network away").await;

    // From here on with nothing between: the relay's own connections end with the API server.
    drop((live, relay));
    let telemetry = Telemetry::default();
    let live = self::live(plane.kubeconfig(), &telemetry).await;
    settles(&live, &plane, "a first list").await;

    plane.kill(Part::ApiServer);
    plane.start(Part::ApiServer).await;
    change(4).await;
    settles(&live, &plane, "the API server restarted").await;

    plane.kill(Part::Etcd);
    plane.start(Part::Etcd).await;
    eventually("the API server has found etcd again", async || {
        plane.kubectl(["get", "namespace", "open"], "").await.succeeded.then_some(())
    })
    .await;
    change(5).await;
    settles(&live, &plane, "etcd restarted").await;
    assert!(telemetry.readiness.is_ready());
}

/// The answer of a gate that is asked directly, as by an API server that has lost the others.
async fn ask(gate: &Gate, object: &Value) -> Value {
    let review = review(object).to_string();
    let mut stream = tls(gate).await;
    let request = format!(
        "POST /validate?timeout=2s HTTP/1.1\r\nHost: gate\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{review}",
        review.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Not every server says good-bye.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str::<Value>(body).unwrap()["response"].clone()
}

fn review(object: &Value) -> Value {
    let (group, version) = object["apiVersion"].as_str().unwrap().rsplit_once('/').unwrap_or(("", "v1"));
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "1", "operation": "CREATE",
            "kind": {"group": group, "version": version, "kind": object["kind"]},
            "namespace": object["metadata"]["namespace"], "name": object["metadata"]["name"],
            "userInfo": {"username": "ann"}, "object": object,
        },
    })
}

/// Denied for want of a policy.
fn pod_in_the_open() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart", "namespace": "open"},
        "spec": {"containers": [{"name": "c", "image": "example.com/cart"}]},
    })
}

/// Denied for what it does to a pod that is there.
fn policy_that_opens() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "open", "namespace": "closed"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]},
    })
}

fn warning(answer: &Value) -> &str {
    assert_eq!(answer["allowed"], true, "{answer:#}");
    answer["warnings"][0].as_str().unwrap_or_else(|| panic!("no warning: {answer:#}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_api_server_is_away_the_gate_answers_from_what_it_knows_and_says_how_old_that_is() {
    let plane = ControlPlane::new().await;
    plane.apply(STANDING).await;
    let relay = Relay::to(&plane).await;
    let config = "view: {maxAge: 4s}";
    let gate = Gate::start(Setup { cluster: Knows::Live(relay.kubeconfig()), config, ..Setup::default() }).await;
    assert_eq!(ask(&gate, &pod_in_the_open()).await["allowed"], false);

    relay.set_down(true);
    let before = relay.requests();
    let age = async || gate.metric("portcullis_view_age_seconds", "").await;
    eventually("the view ages", async || (age().await > 0.0).then_some(())).await;
    let denied = ask(&gate, &policy_that_opens()).await;
    assert_eq!(denied["allowed"], false, "what is there is there: {denied:#}");
    let unconfirmed = ask(&gate, &pod_in_the_open()).await;
    assert!(warning(&unconfirmed).contains("could not look"), "{unconfirmed:#}");
    assert!(gate.metric("portcullis_review_confirmations_total", "failed").await > 0.0);

    eventually("the view is too old", async || (age().await > 5.0).then_some(())).await;
    let old = ask(&gate, &policy_that_opens()).await;
    assert!(warning(&old).contains("seconds old"), "{old:#}");
    let (status, verbose) = gate.get("/readyz?verbose").await.unwrap();
    assert!(status == 200 && verbose.contains("[!]pods degraded: cut off: "), "{verbose}");
    let asked = relay.requests() - before;
    assert!(asked < 200, "{asked} requests in some seconds are no patience");

    relay.set_down(false);
    eventually("the view is current", async || (age().await <= 0.0).then_some(())).await;
    assert_eq!(ask(&gate, &policy_that_opens()).await["allowed"], false);
    assert_eq!(ask(&gate, &pod_in_the_open()).await["allowed"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begun_while_the_api_server_is_away_it_is_not_ready_and_denies_nothing_until_it_has_read() {
    let plane = ControlPlane::new().await;
    plane.apply(STANDING).await;
    let relay = Relay::to(&plane).await;
    relay.set_down(true);
    let telemetry = Telemetry::default();
    let live = live(relay.kubeconfig(), &telemetry).await;
    eventually("it says what it waits for", async || {
        telemetry.readiness.describe().contains("[-]pods pending: ").then_some(())
    })
    .await;
    assert!(!telemetry.readiness.is_ready());
    let rules = Settings::default().rule_set();
    let judge = |object: &Value| {
        let doubts = [admission::Doubt::Unread(live.unread())];
        let cluster = live.cluster().borrow().clone();
        let sight = Sight { cluster: &cluster, doubts: &doubts, stop: None };
        let body = review(object).to_string();
        let answer = admission::review(&rules, sight, body.as_bytes(), jiff::Timestamp::now());
        serde_json::from_slice::<Value>(&answer.body).unwrap()["response"].clone()
    };
    let unread = judge(&pod_in_the_open());
    assert!(warning(&unread).contains("has not read all of the cluster"), "{unread:#}");

    relay.set_down(false);
    eventually("it becomes ready by itself", async || telemetry.readiness.is_ready().then_some(())).await;
    assert_eq!(live.unread(), []);
    assert_eq!(judge(&pod_in_the_open())["allowed"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_cluster_is_listed_at_once() {
    let plane = ControlPlane::new().await;
    let telemetry = Telemetry::default();
    let begun = Instant::now();
    let _live = live(plane.kubeconfig(), &telemetry).await;
    while !telemetry.readiness.is_ready() {
        // Generous: other tests have the cores, too. `make bench-cluster` tells the time.
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", telemetry.readiness.describe());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_lists() {
    let plane = ControlPlane::new().await;
    let mut pods = String::from("{apiVersion: v1, kind: Namespace, metadata: {name: many}}");
    for number in 0..400 {
        let labels = format!("{{app: app-{number}, part-of: a-larger-thing, note: {}}}", "x".repeat(60));
        let _ = write!(
            pods,
            "\n---\n{{apiVersion: v1, kind: Pod, metadata: {{name: pod-{number}, namespace: many, labels: {labels}}}, spec: {{containers: [{{name: c, image: example.com/c}}]}}}}"
        );
    }
    assert!(plane.kubectl(["create", "-f", "-"], &pods).await.succeeded);
    let relay = Relay::to(&plane).await;
    let gate = Gate::start(Setup { cluster: Knows::Live(relay.kubeconfig()), ..Setup::default() }).await;
    let relisted = async |times: usize| {
        for _ in 0..times {
            let before = relay.requests();
            relay.forget();
            // Each resource is watched, told 410, listed and watched again.
            eventually("everything is listed again", async || (relay.requests() > before + 30).then_some(())).await;
        }
        eventually("the view is current", async || {
            (gate.metric("portcullis_view_age_seconds", "").await <= 0.0).then_some(())
        })
        .await;
        gate.peak_memory()
    };
    let (first, last) = (relisted(2).await, relisted(5).await);
    assert!(last < first + 16, "{first} MiB after two lists, {last} after seven");
}

/// A rule with a fault.
struct Faulty;

static FAULTY: Meta = Meta {
    code: "XX999",
    name: "faulty",
    severity: Severity::High,
    baseline: Action::Deny,
    restricted: Action::Deny,
    since: "0.0.0",
    watches: &[],
};

impl AnyRule for Faulty {
    fn meta(&self) -> &'static Meta {
        &FAULTY
    }

    fn options(&self) -> Value {
        json!({})
    }

    fn scope(&self, _: &Change, _: &View<'_>, _: &View<'_>) -> Scope {
        Scope::Cluster
    }

    fn violations(&self, _: &View<'_>, _: &Scope, _: &mut Vec<Violation>) {
        panic!("a fault, on purpose");
    }

    fn each_worsened(&self, violations: &[Violation], _: &View<'_>, _: &View<'_>) -> Vec<bool> {
        vec![false; violations.len()]
    }

    fn ceilings(&self, violations: &[Violation], _: &Moment<'_>) -> Vec<Action> {
        vec![Action::Deny; violations.len()]
    }

    fn mode(&self, _: &Violation, _: &Moment<'_>) -> Option<Mode> {
        None
    }

    fn rests_on_absence(&self, _: &Violation, _: &Moment<'_>) -> bool {
        false
    }

    fn loosened(&self, _: &Value, _: Profile, _: Profile) -> Vec<(&'static str, bool)> {
        Vec::new()
    }

    fn explain(&self, _: &[Violation], _: &Moment<'_>) -> Vec<Finding> {
        Vec::new()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_panics_leaves_the_answer_to_the_configuration_and_the_other_rules_in_force() {
    let plane = ControlPlane::new().await;
    plane.apply(STANDING).await;
    let rules = |on_error: Action| {
        let mut rules = Settings::default().rule_set();
        rules.on_error = on_error;
        rules.rules.push(ActiveRule { rule: Box::new(Faulty), action: Action::Deny });
        Arc::new(rules)
    };
    let telemetry = Telemetry::default();
    let live = live(plane.kubeconfig(), &telemetry).await;
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&["127.0.0.1"]);
    let folder = Folder::new("portcullis-faulty-");
    let options = Options {
        webhook: ANY_PORT,
        operations: ANY_PORT,
        ..Options::new(CertificateSource::files(folder.write("tls.crt", certificate), folder.write("tls.key", key)))
    };
    let server = Server::bind(options).await.unwrap();
    let address = server.addresses().webhook;
    let (set_rules, in_force) = tokio::sync::watch::channel(rules(Action::Deny));
    let running = tokio::spawn(server.run(live.cluster(), in_force, telemetry.clone(), std::future::pending()));
    eventually("it is ready", async || telemetry.readiness.is_ready().then_some(())).await;

    let bundle = serde_json::to_value(k8s_openapi::ByteString(authority.pem().into_bytes())).unwrap();
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "faulty" },
        "webhooks": [{
            "name": "faulty.portcullis.dev",
            "clientConfig": { "url": format!("https://{address}/validate"), "caBundle": bundle },
            "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "rules": [{ "apiGroups": ["networking.k8s.io"], "apiVersions": ["*"], "operations": ["CREATE"],
                        "resources": ["networkpolicies"] }],
        }],
    });
    plane.apply(&webhook.to_string()).await;
    let harmless = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: more, namespace: closed}, spec: {podSelector: {}}}";
    let create = async |policy: &str| plane.kubectl(["create", "--dry-run=server", "-f", "-"], policy).await;
    let denied = eventually("the server is asked", async || {
        let said = create(harmless).await;
        (!said.succeeded).then_some(said)
    })
    .await;
    assert!(denied.stderr.contains("[CL002 rule-failed] rule `faulty` (XX999) failed"), "{denied:?}");

    set_rules.send_replace(rules(Action::Warn));
    let warned = create(harmless).await;
    assert!(warned.succeeded && warned.stderr.contains("Warning: [CL002 rule-failed]"), "{warned:?}");

    set_rules.send_replace(rules(Action::Audit));
    let silent = create(harmless).await;
    assert!(silent.succeeded && silent.stderr.is_empty(), "{silent:?}");
    let opened = create(&policy_that_opens().to_string()).await;
    assert!(!opened.succeeded && opened.stderr.contains("[NP001 missing-default-deny]"), "{opened:?}");
    assert!(!running.is_finished());
    running.abort();
}

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_taken_says_in_the_log_what_lets_more_pass_and_what_has_no_effect() {
    let gate = Gate::start(Setup { config: "mode: enforce", ..Setup::default() }).await;
    gate.configure(
        "mode: audit\nwaivers: {list: [{name: a, namespace: shop, rules: [NP001], match: {}, owner: a, reason: b, expires: 2999-01-01}]}",
    );
    let logged = async |message: &str| eventually(message, async || gate.logged(message).into_iter().next()).await;
    let weakened = logged("the configuration lets more pass than before").await;
    assert_eq!(
        (&weakened["level"], &weakened["by"]),
        (&json!("WARN"), &json!("`mode` falls from `enforce` to `audit`"))
    );
    let void = logged("a waiver of the configuration has no effect").await;
    assert_eq!((&void["entry"], &void["field"]), (&json!("`waivers.list[0]` (shop/a)"), &json!("expires")));

    gate.configure("mode: enforce");
    eventually("it is taken", async || (gate.logged("configuration reloaded").len() == 2).then_some(())).await;
    assert_eq!(gate.logged("the configuration lets more pass than before").len(), 1);
}
