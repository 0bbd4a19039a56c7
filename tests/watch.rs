//! The watch of a live cluster against API servers that misbehave as a real one hardly would.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what is not as expected fails the test it is in")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use portcullis::cluster::Cluster;
use portcullis::source::{self, Live};
use portcullis::telemetry::Telemetry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

/// An API server that is empty but for what a test gives it.
#[derive(Default)]
struct Fake {
    /// The items of a list, by path.
    items: BTreeMap<&'static str, Value>,
    /// What a watch says before it goes on in silence, by path.
    events: BTreeMap<&'static str, String>,
    /// What becomes of every watch; else it goes on.
    watches: Option<(StatusCode, &'static str)>,
    requests: AtomicUsize,
}

async fn answer(State(fake): State<Arc<Fake>>, request: Request) -> Response {
    fake.requests.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path();
    if path == "/apis" {
        return axum::Json(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [] })).into_response();
    }
    if !request.uri().query().unwrap_or_default().contains("watch=true") {
        let items = fake.items.get(path).cloned().unwrap_or(json!([]));
        return axum::Json(json!({ "metadata": { "resourceVersion": "7" }, "items": items })).into_response();
    }
    if let Some((status, body)) = fake.watches {
        return (status, body).into_response();
    }
    let said = fake.events.get(path).cloned().unwrap_or_default();
    let said = futures::stream::once(async move { Ok::<_, std::io::Error>(said) });
    Response::new(Body::from_stream(said.chain(futures::stream::pending())))
}

/// A view of it, with its readiness.
async fn watched(fake: Fake) -> (Arc<Fake>, Live, Telemetry) {
    let fake = Arc::new(fake);
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(Arc::clone(&fake));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let telemetry = Telemetry::default();
    let live = Live::start(kube::Config::new(url.parse().unwrap()), "istio-system", &telemetry).unwrap();
    (fake, live, telemetry)
}

/// Waits until the view is as it should be.
async fn becomes(live: &Live, expected: impl Fn(&Cluster) -> bool) {
    let mut cluster = live.cluster();
    let found = timeout(LONG, cluster.wait_for(|cluster| expected(cluster))).await;
    assert!(found.is_ok(), "{:#?}", live.cluster().borrow());
}

fn policy(name: &str, version: &str, spec: &Value) -> Value {
    json!({ "metadata": { "name": name, "namespace": "shop", "resourceVersion": version }, "spec": spec })
}

const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";

#[tokio::test]
async fn a_server_whose_watches_fail_is_asked_with_patience() {
    const GONE: &str =
        r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410,"message":"too old"}"#;
    for watches in [
        (StatusCode::OK, ""),
        (StatusCode::OK, "no event at all\n"),
        (StatusCode::GONE, GONE),
        (StatusCode::INTERNAL_SERVER_ERROR, "no"),
    ] {
        let (fake, _live, _) = watched(Fake { watches: Some(watches), ..Fake::default() }).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let requests = fake.requests.load(Ordering::SeqCst);
        // Thirteen resources, each listed and watched, and again after each of two or three pauses.
        assert!((26..150).contains(&requests), "{requests} requests in three seconds: {watches:?}");
    }
}

#[tokio::test]
async fn what_is_no_object_keeps_nothing_else_out() {
    let good = json!({ "metadata": { "name": "good", "namespace": "shop", "labels": { "app": "good" } }, "spec": {} });
    let odd = json!([{ "spec": "text" }, 7, null, "text", [], { "metadata": "text" }, { "metadata": {} }, good]);
    let items = BTreeMap::from([("/api/v1/pods", odd), ("/api/v1/services", Value::Null)]);
    let (_fake, live, telemetry) = watched(Fake { items, ..Fake::default() }).await;
    becomes(&live, |cluster| {
        cluster.namespace("shop").is_some_and(|shop| shop.workloads.iter().any(|pod| pod.id.name == "good"))
    })
    .await;
    timeout(LONG, async {
        while !telemetry.readiness.is_ready() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn odd_events_are_passed_over() {
    let events = [
        json!({ "type": "ADDED", "object": { "metadata": { "resourceVersion": "8" } } }),
        json!({ "type": "BOOKMARK", "object": { "kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "metadata": { "resourceVersion": "9" } } }),
        json!({ "type": "MODIFIED", "object": policy("kept", "10", &json!({ "podSelector": {} })) }),
        json!({ "type": "DELETED", "object": policy("never-there", "11", &json!({})) }),
        json!({ "type": "ADDED", "object": policy("last", "12", &json!({})) }),
    ];
    let events = events.map(|event| format!("{event}\n")).concat();
    let (_fake, live, _) = watched(Fake { events: BTreeMap::from([(POLICIES, events)]), ..Fake::default() }).await;
    becomes(&live, |cluster| {
        let names = cluster.namespace("shop").map(|shop| shop.policies.iter().map(|it| it.name.to_string()).collect());
        names.is_some_and(|names: Vec<String>| names == ["kept", "last"])
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_can_be_read_no_more_is_still_one_object() {
    let (sound, odd) = (json!({ "podSelector": {} }), json!("text"));
    let events = [
        json!({ "type": "ADDED", "object": policy("went-bad", "8", &sound) }),
        json!({ "type": "MODIFIED", "object": policy("went-bad", "9", &odd) }),
        json!({ "type": "ADDED", "object": policy("was-mended", "10", &odd) }),
        json!({ "type": "MODIFIED", "object": policy("was-mended", "11", &sound) }),
        json!({ "type": "ADDED", "object": policy("went", "12", &sound) }),
        json!({ "type": "DELETED", "object": policy("went", "13", &odd) }),
        json!({ "type": "ADDED", "object": policy("the-end", "14", &sound) }),
    ];
    let events = events.map(|event| format!("{event}\n")).concat();
    let (_fake, live, _) = watched(Fake { events: BTreeMap::from([(POLICIES, events)]), ..Fake::default() }).await;
    becomes(&live, |cluster| cluster.namespace("shop").is_some_and(|shop| shop.policies.get("the-end").is_some()))
        .await;
    let cluster = live.cluster().borrow().clone();
    let shop = cluster.namespace("shop").unwrap();
    let read: Vec<_> = shop.policies.iter().map(|policy| policy.name.as_str()).collect();
    let unread: Vec<_> = shop.foreign.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!((read, unread), (vec!["the-end", "was-mended"], vec!["went-bad"]));
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_is_an_error_that_names_it() {
    let error = source::configuration(Some("no/such/kubeconfig".as_ref()), None).await.unwrap_err();
    assert_eq!(error.to_string(), "the kubeconfig `no/such/kubeconfig` cannot be used");
}
