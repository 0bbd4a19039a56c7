//! The watch of a live cluster against API servers that misbehave as a real one hardly would.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what is not as expected fails the test it is in")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use portcullis::cluster::Cluster;
use portcullis::k8s::Kind;
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
    /// What is answered in place of all that: by the path with its query, and how often it, query
    /// aside, was asked before.
    script: Option<Script>,
    requests: AtomicUsize,
    asked: Mutex<Vec<String>>,
}

type Script = Box<dyn Fn(&str, usize) -> Option<Response> + Send + Sync>;

impl Fake {
    fn scripted(script: impl Fn(&str, usize) -> Option<Response> + Send + Sync + 'static) -> Self {
        Self { script: Some(Box::new(script)), ..Self::default() }
    }

    /// The queries of this path so far, in their order.
    fn asked(&self, path: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter_map(|it| Some(it.strip_prefix(path)?.strip_prefix('?')?.to_owned())).collect()
    }
}

async fn answer(State(fake): State<Arc<Fake>>, request: Request) -> Response {
    fake.requests.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path();
    if let Some(script) = &fake.script {
        let whole = request.uri().to_string();
        let is_same = |it: &&String| it.split('?').next() == Some(path);
        let before = fake.asked.lock().unwrap().iter().filter(is_same).count();
        fake.asked.lock().unwrap().push(whole.clone());
        if let Some(response) = script(&whole, before) {
            return response;
        }
    }
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

fn list(version: &str, next: &str, items: &Value) -> Response {
    axum::Json(json!({ "metadata": { "resourceVersion": version, "continue": next }, "items": items })).into_response()
}

fn status(code: u16) -> Response {
    let status = json!({ "kind": "Status", "status": "Failure", "message": "no", "reason": "No", "code": code });
    (StatusCode::from_u16(code).unwrap(), axum::Json(status)).into_response()
}

fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({ "type": kind, "object": object }))
}

fn has_policies(cluster: &Cluster, expected: &[&str]) -> bool {
    let namespace = cluster.namespace("shop");
    let found: Vec<_> = namespace.iter().flat_map(|shop| shop.policies.iter().map(|it| it.name.as_str())).collect();
    found == expected
}

/// Waits until what a signal does not tell is so.
async fn until(expected: impl Fn() -> bool, otherwise: impl Fn() -> String) {
    let waited = timeout(LONG, async {
        while !expected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{}", otherwise());
}

#[tokio::test]
async fn a_watch_goes_on_from_the_last_version_it_told() {
    let (fake, live, _) = watched(Fake::scripted(|asked, _| {
        if !asked.starts_with(POLICIES) || !asked.contains("watch=true") {
            return None;
        }
        let bookmark = |version| json!({ "kind": "X", "apiVersion": "v1", "metadata": { "resourceVersion": version } });
        Some(match asked {
            it if it.contains("resourceVersion=7") => event("ADDED", &policy("a", "8", &json!({}))).into_response(),
            it if it.contains("resourceVersion=8") => event("BOOKMARK", &bookmark("9")).into_response(),
            // One without a version, and an empty one, leave it where it was.
            it if it.contains("resourceVersion=9") => {
                let odd = json!({ "metadata": { "name": "b", "namespace": "shop" }, "spec": {} });
                (event("ADDED", &odd) + &event("BOOKMARK", &bookmark(""))).into_response()
            }
            _ => return None,
        })
    }))
    .await;
    until(|| fake.asked(POLICIES).len() >= 5, || format!("{:?}", fake.asked(POLICIES))).await;
    let asked = fake.asked(POLICIES);
    let versions = asked.iter().map(|query| query.split('&').find_map(|it| it.strip_prefix("resourceVersion=")));
    assert_eq!(versions.take(5).collect::<Vec<_>>(), [None, Some("7"), Some("8"), Some("9"), Some("9")]);
    becomes(&live, |cluster| has_policies(cluster, &["a", "b"])).await;
}

#[tokio::test]
async fn what_a_watch_cannot_say_is_listed() {
    for line in ["{}\n", "{\"type\":\"BOOKMARK\",\"object\":{}}\n", "{\"type\":\"NEW\",\"object\":{}}\n", "[1]\n"] {
        let (_fake, live, _) = watched(Fake::scripted(move |asked, before| {
            (asked.starts_with(POLICIES)).then_some(())?;
            Some(match asked.contains("watch=true") {
                true if asked.contains("resourceVersion=7") => line.into_response(),
                true => return None,
                false if before == 0 => list("7", "", &json!([])),
                false => list("8", "", &json!([policy("late", "8", &json!({}))])),
            })
        }))
        .await;
        becomes(&live, |cluster| has_policies(cluster, &["late"])).await;
    }
}

#[tokio::test]
async fn a_list_without_a_version_is_listed_again_after_its_watch() {
    let (_fake, live, _) = watched(Fake::scripted(|asked, before| {
        (asked.starts_with(POLICIES)).then_some(())?;
        Some(match (asked.contains("watch=true"), before) {
            (true, _) => "".into_response(),
            (false, 0) => list("", "", &json!([policy("gone", "1", &json!({}))])),
            (false, _) => list("", "", &json!([policy("new", "2", &json!({}))])),
        })
    }))
    .await;
    becomes(&live, |cluster| has_policies(cluster, &["new"])).await;
}

#[tokio::test]
async fn a_list_without_an_end_fails_with_patience() {
    let (fake, live, telemetry) = watched(Fake::scripted(|asked, _| {
        (asked.starts_with(POLICIES)).then(|| list("7", "on", &json!([policy("a", "1", &json!({}))])))
    }))
    .await;
    let described = || telemetry.readiness.describe();
    until(|| described().contains("the list does not end"), described).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = fake.asked(POLICIES).len();
    assert!((2..20).contains(&asked), "{asked} pages");
    assert!(!telemetry.readiness.is_ready() && live.cluster().borrow().namespace("shop").is_none());
}

#[tokio::test]
async fn a_list_outdated_while_it_is_read_is_read_in_one_piece() {
    let (fake, live, _) = watched(Fake::scripted(|asked, _| {
        (asked.starts_with(POLICIES) && !asked.contains("watch=true")).then_some(())?;
        Some(match asked {
            it if it.contains("continue=") => status(410),
            it if it.contains("limit=") => list("7", "more", &json!([policy("gone", "1", &json!({}))])),
            _ => list("8", "", &json!([policy("a", "1", &json!({})), policy("b", "2", &json!({}))])),
        })
    }))
    .await;
    becomes(&live, |cluster| has_policies(cluster, &["a", "b"])).await;
    let watched = |query: &String| query.contains("resourceVersion=8");
    until(|| fake.asked(POLICIES).iter().any(watched), || format!("{:?}", fake.asked(POLICIES))).await;
}

#[tokio::test]
async fn what_is_forbidden_is_read_once_it_is_granted() {
    let is_granted = Arc::new(AtomicBool::new(false));
    let granted = Arc::clone(&is_granted);
    let (_fake, live, telemetry) = watched(Fake::scripted(move |asked, _| {
        (asked.starts_with(POLICIES) && !asked.contains("watch=true")).then_some(())?;
        let is_granted = granted.load(Ordering::SeqCst);
        Some(if is_granted { list("7", "", &json!([policy("a", "1", &json!({}))])) } else { status(403) })
    }))
    .await;
    let described = || telemetry.readiness.describe();
    until(|| telemetry.readiness.is_ready(), described).await;
    assert!(described().contains("[!]networkpolicies.networking.k8s.io degraded: forbidden"), "{}", described());
    assert_eq!(live.unread(), [Kind::NetworkPolicy]);
    is_granted.store(true, Ordering::SeqCst);
    becomes(&live, |cluster| has_policies(cluster, &["a"])).await;
    until(|| live.unread().is_empty(), described).await;
    assert!(described().contains("[+]networkpolicies.networking.k8s.io ok"), "{}", described());
}

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

/// How discovery answers, step by step.
const INSTALLED: usize = 0;
const GROUP_AWAY: usize = 1;
const NEWER: usize = 2;
const ALL_AWAY: usize = 3;
/// As an API server does for a moment after its start.
const LEFT_OUT: usize = 4;
const REMOVED: usize = 5;

const GROUP: &str = "/apis/security.istio.io";

fn discovered(step: usize, path: &str) -> Option<Response> {
    let version = |name| json!({ "groupVersion": format!("security.istio.io/{name}"), "version": name });
    let resources = |names: &[&str]| {
        let resource =
            |name: &&str| json!({ "name": name, "singularName": "", "namespaced": true, "kind": "", "verbs": [] });
        let resources: Vec<_> = names.iter().map(resource).collect();
        axum::Json(json!({ "kind": "APIResourceList", "groupVersion": "v", "resources": resources })).into_response()
    };
    Some(match (step, path) {
        (ALL_AWAY, "/apis") | (GROUP_AWAY, "/apis/security.istio.io/v1") => status(503),
        (REMOVED, path) if path.starts_with(GROUP) => status(404),
        (LEFT_OUT | REMOVED, _) => return None,
        (_, "/apis") => {
            let group = json!({
                "name": "security.istio.io",
                "versions": [version("v1"), version("v1beta1")],
                "preferredVersion": version("v1"),
            });
            axum::Json(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [group] })).into_response()
        }
        // Not in the version the group prefers, at first.
        (INSTALLED, "/apis/security.istio.io/v1") => resources(&["requestauthentications"]),
        (_, "/apis/security.istio.io/v1" | "/apis/security.istio.io/v1beta1") => resources(&["peerauthentications"]),
        _ => return None,
    })
}

#[tokio::test]
async fn what_is_installed_comes_and_goes_whole_and_outlives_a_discovery_that_fails() {
    let step = Arc::new(AtomicUsize::new(INSTALLED));
    let at = Arc::clone(&step);
    let (fake, live, telemetry) = watched(Fake::scripted(move |asked, _| {
        let (path, query) = asked.split_once('?').unwrap_or((asked, ""));
        let is_list = !query.contains("watch=true");
        let named = |name: &str| json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": {} });
        match path.strip_prefix(GROUP) {
            Some("/v1beta1/peerauthentications") if is_list => Some(list("7", "", &json!([named("older")]))),
            Some("/v1/peerauthentications") if is_list && at.load(Ordering::SeqCst) != REMOVED => {
                Some(list("7", "", &json!([named("newer")])))
            }
            _ => discovered(at.load(Ordering::SeqCst), path),
        }
    }))
    .await;
    let known = |cluster: &Cluster| -> Vec<String> {
        let namespace = cluster.namespace("shop");
        namespace.iter().flat_map(|shop| shop.peer_authentications.iter().map(|it| it.name.to_string())).collect()
    };
    let described = || telemetry.readiness.describe();
    // Everything that was ever known, so that nothing which passes by is missed.
    let (mut cluster, seen) = (live.cluster(), Arc::new(Mutex::new(Vec::<Vec<String>>::new())));
    let history = Arc::clone(&seen);
    tokio::spawn(async move {
        while cluster.changed().await.is_ok() {
            let now = known(&cluster.borrow_and_update());
            let mut history = history.lock().unwrap();
            if history.last() != Some(&now) {
                history.push(now);
            }
        }
    });
    let rounds = |path: &'static str| fake.asked.lock().unwrap().iter().filter(|it| it.as_str() == path).count();

    becomes(&live, |cluster| known(cluster) == ["older"]).await;
    step.store(GROUP_AWAY, Ordering::SeqCst);
    let before = rounds("/apis");
    until(|| rounds("/apis") >= before + 2, described).await;
    assert_eq!(known(&live.cluster().borrow()), ["older"]);
    step.store(NEWER, Ordering::SeqCst);
    becomes(&live, |cluster| known(cluster) == ["newer"]).await;
    step.store(ALL_AWAY, Ordering::SeqCst);
    let before = rounds("/apis");
    until(|| rounds("/apis") >= before + 2, described).await;
    assert!(telemetry.readiness.is_ready() && live.unread().is_empty(), "{}", described());
    step.store(LEFT_OUT, Ordering::SeqCst);
    let before = rounds("/apis");
    until(|| rounds("/apis") >= before + 2, described).await;
    assert!(live.unread().is_empty() && known(&live.cluster().borrow()) == ["newer"], "{}", described());
    step.store(REMOVED, Ordering::SeqCst);
    becomes(&live, |cluster| known(cluster).is_empty()).await;
    until(|| seen.lock().unwrap().last().is_some_and(Vec::is_empty), described).await;
    until(|| described().contains("peerauthentications.security.istio.io ok: not installed"), described).await;
    let mut seen = seen.lock().unwrap().clone();
    // It starts from nothing, where that was noticed.
    if seen.first().is_some_and(Vec::is_empty) {
        seen.remove(0);
    }
    assert_eq!(seen, [vec!["older"], vec!["newer"], vec![]]);
}

#[tokio::test]
async fn what_goes_and_comes_back_under_its_name_is_listed_anew() {
    let place = Arc::new(Mutex::new(Some("before")));
    let at = Arc::clone(&place);
    let (_fake, live, _) = watched(Fake::scripted(move |asked, _| {
        let (path, query) = asked.split_once('?').unwrap_or((asked, ""));
        if path != "/apis/security.istio.io/v1/peerauthentications" {
            return discovered(NEWER, path);
        }
        Some(match *at.lock().unwrap() {
            None => status(404),
            Some(_) if query.contains("watch=true") => "".into_response(),
            Some(name) => list("7", "", &json!([{ "metadata": { "name": name, "namespace": "shop" }, "spec": {} }])),
        })
    }))
    .await;
    let known = |cluster: &Cluster| -> Vec<String> {
        let namespace = cluster.namespace("shop");
        namespace.iter().flat_map(|shop| shop.peer_authentications.iter().map(|it| it.name.to_string())).collect()
    };
    becomes(&live, |cluster| known(cluster) == ["before"]).await;
    *place.lock().unwrap() = None;
    becomes(&live, |cluster| known(cluster).is_empty()).await;
    *place.lock().unwrap() = Some("after");
    becomes(&live, |cluster| known(cluster) == ["after"]).await;
}

#[tokio::test]
async fn discovery_that_is_forbidden_is_not_waited_for() {
    let (_fake, live, telemetry) = watched(Fake::scripted(|asked, _| (asked == "/apis").then(|| status(403)))).await;
    let described = || telemetry.readiness.describe();
    until(|| telemetry.readiness.is_ready(), described).await;
    assert!(described().contains("[!]peerauthentications.security.istio.io degraded: forbidden"), "{}", described());
    assert!(live.unread().contains(&Kind::PeerAuthentication));
}

#[tokio::test]
async fn a_watch_that_is_refused_for_now_is_known_to_be_cut_off_at_once() {
    let refuse = |asked: &str, _| (asked.starts_with(POLICIES) && asked.contains("watch=true")).then(|| status(503));
    let (fake, live, telemetry) = watched(Fake::scripted(refuse)).await;
    let described = || telemetry.readiness.describe();
    until(|| described().contains("[!]networkpolicies.networking.k8s.io degraded: cut off: no"), described).await;
    assert!(live.age() > Duration::ZERO);
    assert_eq!(fake.asked(POLICIES).len(), 2, "the client asks on its own: {:?}", fake.asked(POLICIES));
}

#[tokio::test]
async fn an_object_that_ceases_to_be_of_interest_goes() {
    const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    const CONFIGS: &str = "/api/v1/namespaces/istio-system/configmaps";
    let webhook = |name: &str, version: &str, labels: Value| json!({ "metadata": { "name": name, "resourceVersion": version, "labels": labels } });
    let config = |name: &str, version: &str, data: Value| {
        let metadata = json!({ "name": name, "namespace": "istio-system", "resourceVersion": version });
        json!({ "metadata": metadata, "data": data })
    };
    let (injector, mesh) = (json!({ "istio.io/rev": "a" }), json!({ "mesh": "rootNamespace: istio-system" }));
    let items = BTreeMap::from([
        (WEBHOOKS, json!([webhook("one", "1", injector.clone())])),
        (CONFIGS, json!([config("istio", "1", mesh.clone())])),
    ]);
    let changes = |ceased: &Value, last: &Value| event("MODIFIED", ceased) + &event("ADDED", last);
    let events = BTreeMap::from([
        (WEBHOOKS, changes(&webhook("one", "8", json!({})), &webhook("two", "9", injector))),
        (CONFIGS, changes(&config("istio", "8", json!({})), &config("istio-two", "9", mesh))),
    ]);
    let (_fake, live, _) = watched(Fake { items, events, ..Fake::default() }).await;
    becomes(&live, |cluster| {
        let revisions: Vec<_> =
            cluster.webhooks().filter(|it| it.revision.is_some()).map(|it| it.name.as_str()).collect();
        let configs: Vec<_> = cluster.mesh_configs().map(|it| it.name.as_str()).collect();
        revisions == ["two"] && configs == ["istio-two"]
    })
    .await;
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_is_an_error_that_names_it() {
    let error = source::configuration(Some("no/such/kubeconfig".as_ref()), None).await.unwrap_err();
    assert_eq!(error.to_string(), "the kubeconfig `no/such/kubeconfig` cannot be used");
}
