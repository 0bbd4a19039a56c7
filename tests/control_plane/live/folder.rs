//! A folder applied in one go: the namespace, its policies and what they protect, back to back,
//! while the gate hears of each only long after.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use super::{create, reason};
use crate::support::{ControlPlane, Gate, Knows, Registration, Relay, Setup, Through, eventually};

/// How often each folder is applied.
const TIMES: usize = 200;
/// How late the gate hears of anything. A folder is there long before.
const LATE: Duration = Duration::from_millis(500);

fn namespace(name: &str, labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<_, _> = labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

fn default_deny(namespace: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": "default-deny", "namespace": namespace },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress", "Egress"] },
    })
}

fn allow_dns(namespace: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": "allow-dns", "namespace": namespace },
        "spec": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{
                "to": [{ "namespaceSelector": {} }],
                "ports": [{ "port": 53, "protocol": "UDP" }, { "port": 53, "protocol": "TCP" }],
            }],
        },
    })
}

fn deployment(namespace: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "cart", "namespace": namespace },
        "spec": {
            // Its pods would only keep the controllers busy.
            "replicas": 0,
            "selector": { "matchLabels": { "app": "cart" } },
            "template": {
                "metadata": { "labels": { "app": "cart" } },
                "spec": { "containers": [{ "name": "cart", "image": "example.com/cart" }] },
            },
        },
    })
}

/// Several objects as `kubectl apply` reads them.
fn written(objects: &[Value]) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()
}

/// A gate that hears everything late, and is asked about namespaces with the label `gate: NAME`.
struct Late {
    plane: &'static ControlPlane,
    gate: Gate,
    client: Client,
    _relay: Relay,
}

impl Late {
    async fn new(name: &str) -> Self {
        let plane = ControlPlane::shared().await;
        let relay = Relay::to(plane).await;
        let gate = Gate::start(Setup { cluster: Knows::Live(relay.kubeconfig()), ..Setup::default() }).await;
        Registration::new(plane, &gate, Through::Url, name).await;
        relay.delay(LATE);
        Self { plane, gate, client: plane.client().await, _relay: relay }
    }

    async fn confirmations(&self, outcome: &str) -> usize {
        let outcome = format!("outcome=\"{outcome}\"");
        self.gate.metric("portcullis_review_confirmations_total", &outcome).await.to_string().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_applied_in_one_go_passes_two_hundred_times_however_late_the_watch_is() {
    let late = Late::new("folder").await;
    let creates = stream::iter(0..TIMES).map(async |number| {
        let ns = format!("folder-{number}");
        for object in [namespace(&ns, &[("gate", "folder")]), default_deny(&ns), allow_dns(&ns), deployment(&ns)] {
            create(&late.client, object).await.unwrap();
        }
    });
    creates.buffer_unordered(4).collect::<()>().await;
    assert!(late.confirmations("withdrawn").await >= TIMES);
    assert_eq!(late.confirmations("upheld").await, 0);
    assert_eq!(late.confirmations("failed").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_applied_with_kubectl_passes_at_the_first_try() {
    let late = Late::new("kubectl-folder").await;
    for number in 0..10 {
        let ns = format!("kubectl-folder-{number}");
        let folder =
            [namespace(&ns, &[("gate", "kubectl-folder")]), default_deny(&ns), allow_dns(&ns), deployment(&ns)];
        let applied = late.plane.kubectl(["apply", "-f", "-"], &written(&folder)).await;
        assert!(applied.succeeded, "{applied:?}");
    }
    assert!(late.confirmations("withdrawn").await >= 10);
    assert_eq!(late.confirmations("upheld").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_without_its_default_deny_is_denied_two_hundred_times() {
    let late = Late::new("bare-folder").await;
    let creates = stream::iter(0..TIMES).map(async |number| {
        let ns = format!("bare-folder-{number}");
        for object in [namespace(&ns, &[("gate", "bare-folder")]), allow_dns(&ns)] {
            create(&late.client, object).await.unwrap();
        }
        let denied = create(&late.client, deployment(&ns)).await;
        assert!(reason(denied).contains("[NP001 "), "number {number}");
    });
    creates.buffer_unordered(4).collect::<()>().await;
    assert!(late.confirmations("upheld").await >= TIMES);
    assert_eq!(late.confirmations("withdrawn").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_whose_namespace_only_warns_is_warned_about_and_passes() {
    let late = Late::new("warned-folder").await;
    for number in 0..5 {
        let ns = format!("warned-folder-{number}");
        let labels = [("gate", "warned-folder"), ("portcullis.dev/mode", "warn")];
        let folder = [namespace(&ns, &labels), allow_dns(&ns), deployment(&ns)];
        let applied = late.plane.kubectl(["apply", "-f", "-"], &written(&folder)).await;
        assert!(applied.succeeded && applied.stderr.contains("Warning: [NP001 "), "{applied:?}");
    }
    assert_eq!(late.confirmations("failed").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mode_holds_from_the_moment_it_is_set() {
    let late = Late::new("late-mode").await;
    let ns = "late-mode-shop";
    create(&late.client, namespace(ns, &[("gate", "late-mode")])).await.unwrap();
    assert!(reason(create(&late.client, deployment(ns)).await).contains("[NP001 "));
    let relaxed = [namespace(ns, &[("gate", "late-mode"), ("portcullis.dev/mode", "warn")]), deployment(ns)];
    let applied =
        late.plane.kubectl(["apply", "--server-side", "--force-conflicts", "-f", "-"], &written(&relaxed)).await;
    assert!(applied.succeeded && applied.stderr.contains("which leaves `Deployment cart` open"), "{applied:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_of_all_policies_at_once_leaves_the_last_default_deny_however_late_the_watch_is() {
    let late = Late::new("emptied").await;
    for number in 0..10 {
        let ns = format!("emptied-{number}");
        let mut twin = default_deny(&ns);
        twin["metadata"]["name"] = "twin".into();
        for object in [namespace(&ns, &[("gate", "emptied")]), default_deny(&ns), twin, allow_dns(&ns), deployment(&ns)]
        {
            create(&late.client, object).await.unwrap();
        }
        let policies: Api<NetworkPolicy> = Api::namespaced(late.client.clone(), &ns);
        let open = json!({ "metadata": { "name": "open" }, "spec": { "podSelector": {}, "ingress": [{}] } });
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        eventually("the gate has heard of the Deployment", async || {
            let said = policies.create(&dry_run, &serde_json::from_value(open.clone()).unwrap()).await;
            said.err().filter(|error| error.to_string().contains("`Deployment cart`")).map(drop)
        })
        .await;
        let all_but_dns = ListParams::default().fields("metadata.name!=allow-dns");
        let refused = policies.delete_collection(&DeleteParams::default(), &all_but_dns).await;
        assert!(refused.is_err(), "number {number}");
        let left = policies.list(&all_but_dns).await.unwrap().items;
        assert_eq!(left.len(), 1, "number {number}");
    }
    assert!(late.confirmations("overturned").await >= 10);
}
