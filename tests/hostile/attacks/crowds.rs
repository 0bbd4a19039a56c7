//! Too much of something: of one object, of objects, of connections.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::shop::{CART, CLOSED, Shop};
use crate::support::Kubectl;

/// Whether the API server had an answer of the gate, whatever it was.
#[track_caller]
fn answered(said: &Kubectl) {
    let is_lost = ["failed calling webhook", "failed to call webhook", "deadline exceeded"]
        .iter()
        .any(|it| said.stderr.contains(it));
    assert!(!is_lost, "the gate did not answer: {}", said.stderr.chars().take(2000).collect::<String>());
}

async fn is_alive(shop: &Shop) {
    let live = shop.gate.get("/livez").await.map(|(status, _)| status);
    assert_eq!(live, Some(200), "the gate does not run any more");
}

/// Creates policies of these specs, sixteen at a time and unseen by the gate if it is not asked yet.
async fn stored(shop: &Shop, specs: impl Iterator<Item = Value>) {
    let policies: Api<NetworkPolicy> = Api::namespaced(shop.plane.client().await, &shop.name);
    let mut creating = JoinSet::new();
    for (number, spec) in specs.enumerate() {
        if creating.len() >= 16 {
            creating.join_next().await.unwrap().unwrap();
        }
        let policy = json!({ "metadata": { "name": format!("crowd-{number}") }, "spec": spec });
        let (policies, policy) = (policies.clone(), serde_json::from_value(policy).unwrap());
        creating.spawn(async move { policies.create(&PostParams::default(), &policy).await.unwrap() });
    }
    while let Some(created) = creating.join_next().await {
        created.unwrap();
    }
}

#[tokio::test]
async fn a_namespace_editor_cannot_kill_the_gate_with_one_selector() {
    let shop = Shop::alone("selector", &[CLOSED, CART].join("\n---\n")).await;
    let mut expressions = String::new();
    for number in 0..4096 {
        write!(expressions, "{{key: key-{number}, operator: NotIn, values: [x]}}, ").unwrap();
    }
    let policy = |name: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: $ns}}, spec: {{podSelector: {{matchExpressions: [{expressions}]}}, policyTypes: [Ingress, Egress]}}}}"
        )
    };
    answered(&shop.editor("create -f -", &policy("many")).await);
    is_alive(&shop).await;
    // In the place of the default-deny, it takes a search to find out what it leaves open.
    shop.denies("replace -f -", &policy("default-deny"), "NP001").await;
    is_alive(&shop).await;
}

#[tokio::test]
async fn a_namespace_editor_cannot_kill_the_gate_with_many_selectors() {
    let shop = Shop::alone("selectors", "").await;
    // As they would be stored while the gate is away.
    let free = shop.admin("label namespace $ns gate-", "").await;
    assert!(free.succeeded, "{free:?}");
    let spec = |number: usize| {
        json!({
            "podSelector": { "matchExpressions": [{ "key": format!("key-{number}"), "operator": "NotIn", "values": ["x"] }] },
            "policyTypes": ["Ingress"],
        })
    };
    stored(&shop, (0..1000).map(spec)).await;
    let guarded = shop.admin("label namespace $ns gate=selectors", "").await;
    answered(&guarded);
    answered(&shop.editor("create -f -", CART).await);
    answered(&shop.editor("delete networkpolicy crowd-0 --namespace=$ns", "").await);
    is_alive(&shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_editor_cannot_talk_the_gate_past_its_deadline_with_one_policy() {
    let shop = Shop::alone("rules", &[CLOSED, CART].join("\n---\n")).await;
    let rules = vec!["{}"; 200_000].join(",");
    let policy = |number: usize| {
        format!(
            r#"{{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{{"name":"rules-{number}","namespace":"$ns"}},"spec":{{"podSelector":{{}},"ingress":[{rules}]}}}}"#
        )
    };
    let all: Vec<String> = (0..3).map(policy).collect();
    let said = futures::future::join_all(all.iter().map(|it| shop.editor("create --validate=false -f -", it))).await;
    for said in &said {
        // Where this machine is too slow for an answer in time, the API server refuses it.
        assert!(!said.succeeded, "an allow-all was stored: {}", said.stderr.chars().take(500).collect::<String>());
    }
    is_alive(&shop).await;
    let stored = shop.admin("get networkpolicies --namespace=$ns --output=name", "").await;
    assert_eq!(stored.stdout.lines().count(), 2, "{stored:?}");
}

#[tokio::test]
async fn a_namespace_editor_cannot_make_a_deletion_too_slow_to_be_denied() {
    let shop = Shop::alone("slow", &[CLOSED, CART].join("\n---\n")).await;
    let free = shop.admin("label namespace $ns gate-", "").await;
    assert!(free.succeeded, "{free:?}");
    let spec = |number: usize| {
        let (first, last) = (number * 30 + 1, number * 30 + 30);
        json!({
            "podSelector": { "matchLabels": { "app": "cart" } },
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{ "namespaceSelector": {} }, { "ipBlock": { "cidr": "0.0.0.0/0" } }],
                "ports": [{ "port": first, "endPort": last }],
            }],
        })
    };
    stored(&shop, (0..300).map(spec)).await;
    answered(&shop.admin("label namespace $ns gate=slow", "").await);
    shop.denies("delete networkpolicy default-deny --namespace=$ns", "", "NP001").await;
    is_alive(&shop).await;
}

/// A connection that comes from the address of a pod, which is not the API server's.
async fn hostile(to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(Ipv4Addr::new(127, 0, 0, 2).into(), 0)).unwrap();
    tokio::time::timeout(crate::support::LONG, socket.connect(to)).await.ok()?.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_cannot_shut_out_the_api_server_or_the_kubelet_with_silent_connections() {
    let shop = Shop::alone("silent", &[CLOSED, CART].join("\n---\n")).await;
    let mut held = Vec::new();
    for to in [shop.gate.webhook, shop.gate.operations] {
        for _ in 0..2100 {
            // One that is refused is one less.
            held.extend(hostile(to).await);
        }
    }
    assert!(held.len() > 2000, "only {} connections could be opened", held.len());
    for _ in 0..5 {
        let said = shop.editor("create --dry-run=server -f -", &CART.replace("name: cart", "name: other")).await;
        assert!(said.succeeded, "{said:?}");
        let ready = shop.gate.get("/readyz").await.map(|(status, _)| status);
        assert_eq!(ready, Some(200), "a probe fails");
    }
    drop(held);
}
