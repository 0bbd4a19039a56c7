//! What a gate bears, as an API server and whoever else reaches its port can bring it on.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, PostParams};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::load::{Load, tls};
use crate::support::{ControlPlane, Gate, Knows, Registration, Setup, Through, eventually};

async fn gate(plane: &ControlPlane, through: Through, name: &str, arguments: &[&str]) -> Gate {
    let gate = Gate::start(Setup { cluster: Knows::Live(plane.kubeconfig()), arguments, ..Setup::default() }).await;
    Registration::new(plane, &gate, through, name).await;
    gate
}

/// Creates in a namespace about which this gate is asked, without anything being kept.
struct Creates(Api<NetworkPolicy>);

impl Creates {
    async fn new(plane: &ControlPlane, gate: &str) -> Self {
        Self(Api::namespaced(plane.client().await, &format!("{gate}-in-force")))
    }

    /// Creates a policy with so many peers.
    async fn create(&self, peers: usize) -> Result<NetworkPolicy, kube::Error> {
        let peer = |number: usize| {
            let [.., high, middle, low] = number.to_be_bytes();
            json!({ "ipBlock": { "cidr": format!("10.{high}.{middle}.{low}/32") } })
        };
        let peers: Vec<_> = (0..peers).map(peer).collect();
        let policy = json!({
            "metadata": { "generateName": "pressed-" },
            "spec": { "podSelector": {}, "ingress": [{ "from": peers }] },
        });
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        self.0.create(&dry_run, &serde_json::from_value(policy).unwrap()).await
    }
}

/// Everything an API server had asked a gate is answered when the gate is told to end: what fails
/// is what finds nobody there any more.
async fn told_to_end_it_answers_what_it_took(through: Through, name: &str) {
    let plane = ControlPlane::shared().await;
    let gate = gate(plane, through, name, &["--linger", "1"]).await;
    let load = Load::begin(plane, name, 16).await;
    eventually("the load has begun", async || (load.done() > 50).then_some(())).await;
    let status = gate.stop().await;
    assert!(status.success(), "{status}");
    let failed = load.end().await;
    let lost: Vec<_> = failed.iter().filter(|error| !error.to_string().contains("connection refused")).collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_told_to_end_answers_all_it_had_been_asked_by_url() {
    told_to_end_it_answers_what_it_took(Through::Url, "ended-url").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_told_to_end_answers_all_it_had_been_asked_by_service() {
    told_to_end_it_answers_what_it_took(Through::Service, "ended-service").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_meets_a_full_gate_is_turned_away_early_enough_to_come_again() {
    let plane = ControlPlane::shared().await;
    let gate = gate(plane, Through::Service, "full", &["--max-reviews", "1"]).await;
    let creates = Creates::new(plane, "full").await;
    let (is_full, own) = (AtomicBool::new(true), AtomicU32::new(0));
    // One large review after the other: a place is taken only by what is there to be judged.
    let keep_full = async {
        let peers: Vec<_> = (0..60_000).map(|_| json!({ "ipBlock": { "cidr": "10.0.0.0/32" } })).collect();
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": "large", "namespace": "default" },
            "spec": { "podSelector": {}, "ingress": [{ "from": peers }] },
        });
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "large", "operation": "CREATE", "namespace": "default", "name": "large", "object": policy,
                "kind": { "group": "networking.k8s.io", "version": "v1", "kind": "NetworkPolicy" },
            },
        })
        .to_string();
        let length = review.len();
        let head =
            format!("POST /validate HTTP/1.1\r\nHost: gate\r\nConnection: close\r\nContent-Length: {length}\r\n");
        let request = format!("{head}\r\n{review}");
        while is_full.load(Ordering::Relaxed) {
            let mut connection = tls(&gate).await;
            let mut answer = Vec::new();
            // It is turned away itself where a create has the place.
            if connection.write_all(request.as_bytes()).await.is_ok() {
                let _ = connection.read_to_end(&mut answer).await;
                own.fetch_add(u32::from(answer.starts_with(b"HTTP/1.1 429")), Ordering::Relaxed);
            }
        }
    };
    // One of these meets a gate that is full, is told to come again, and has the time to.
    let create = async {
        while is_full.load(Ordering::Relaxed) {
            creates.create(1).await.unwrap();
        }
    };
    let watch = async {
        eventually("the API server is turned away", async || {
            // One more than are this test's own, of which one may not have been read yet.
            let own = f64::from(own.load(Ordering::Relaxed));
            let full = gate.metric("portcullis_rejected_total", "\"overload\"").await;
            (full >= own + 2.0).then_some(())
        })
        .await;
        is_full.store(false, Ordering::Relaxed);
    };
    tokio::join!(keep_full, create, watch);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_large_objects_than_there_is_room_for_keep_memory_bounded() {
    let plane = ControlPlane::shared().await;
    let gate = gate(plane, Through::Service, "large", &["--max-reviews", "3"]).await;
    let mut creating = JoinSet::new();
    for _ in 0..16 {
        let creates = Creates::new(plane, "large").await;
        // 1.4 MiB as JSON: about what etcd takes.
        creating.spawn(async move { creates.create(35_000).await });
    }
    let mut judged = 0;
    for created in creating.join_all().await {
        match created {
            Ok(_) => judged += 1,
            Err(error) if error.to_string().contains("oversized-policy") => judged += 1,
            // The gate had no place for it for longer than the API server waits, or no room.
            Err(error) => {
                let said = error.to_string();
                let is_turned_away = said.contains("failed calling webhook") || said.contains("has no room");
                assert!(is_turned_away, "{said}");
            }
        }
    }
    assert!(judged > 0, "none was judged");
    let peak = gate.peak_memory();
    assert!(peak < 150, "it held {peak} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_that_do_nothing_hold_up_no_create() {
    let plane = ControlPlane::shared().await;
    let gate = gate(plane, Through::Service, "idle", &[]).await;
    let mut idle = Vec::new();
    let mut silent = Vec::new();
    for number in 0..1000 {
        match number % 5 {
            // After the handshake, not a word, or half a head.
            0 => idle.push(tls(&gate).await),
            1 => {
                let mut slow = tls(&gate).await;
                slow.write_all(b"POST /validate HTTP/1.1\r\nHost: ga").await.unwrap();
                idle.push(slow);
            }
            // The start of a handshake, or nothing at all.
            2 => {
                let mut slow = TcpStream::connect(gate.webhook).await.unwrap();
                slow.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
                silent.push(slow);
            }
            _ => silent.push(TcpStream::connect(gate.webhook).await.unwrap()),
        }
    }
    let load = Load::begin(plane, "idle", 4).await;
    eventually("the load has been judged", async || (load.done() > 300).then_some(())).await;
    load.end_without_failure().await;
    let peak = gate.peak_memory();
    assert!(peak < 256, "it held {peak} MiB");
    // Those beyond the share of their address are closed at once, the others when their time is over.
    eventually("silent connections are closed", async || {
        let mut closed = 0.0;
        for reason in ["\"peer_connections\"", "\"handshake\"", "\"idle\""] {
            closed += gate.metric("portcullis_rejected_total", reason).await;
        }
        (closed >= 1000.0).then_some(())
    })
    .await;
    drop((idle, silent));
    eventually("the connections are gone", async || {
        (gate.metric("portcullis_connections", "").await < 100.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_review_leaves_the_gate_as_it_was() {
    let plane = ControlPlane::shared().await;
    let mut gate = gate(plane, Through::Url, "noise", &["--log-level", "info,portcullis::server=debug"]).await;
    let request = |body: &str| {
        format!(
            "POST /validate HTTP/1.1\r\nHost: gate\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (sent, status) in [
        (request("no JSON"), "400"),
        (request("{}"), "400"),
        (request(&"[".repeat(100_000)), "400"),
        (request(&format!(r#"{{"kind":"AdmissionReview","padding":"{}"}}"#, "x".repeat(8 << 20))), "413"),
        ("GET /validate HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n".to_owned(), "405"),
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), "400"),
    ] {
        let mut connection = tls(&gate).await;
        connection.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Some clients are cut off without a farewell.
        let _ = connection.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let start: String = sent.chars().take(80).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{start}: {answer}");
    }
    // Plain HTTP, and a handshake that offers TLS 1.1 at most. It names a signature and a curve that
    // would do, so that its version is all there is to refuse.
    let extensions = [0, 16, 0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 0x1d];
    let hello = [&[0x16, 3, 1, 0, 63, 1, 0, 0, 59, 3, 2][..], &[7; 32], &[0, 0, 2, 0xc0, 0x2b, 1, 0], &extensions];
    let hello = hello.concat();
    for sent in [b"GET / HTTP/1.1\r\nHost: gate\r\n\r\n".to_vec(), hello] {
        let mut connection = TcpStream::connect(gate.webhook).await.unwrap();
        connection.write_all(&sent).await.unwrap();
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer).await;
        // An alert, and nothing served.
        assert_eq!(answer.first(), Some(&0x15), "{answer:?}");
    }
    // The body too large and the two handshakes, which are told of to whoever asks for it.
    assert!(gate.metric("portcullis_rejected_total", "").await >= 3.0);
    let refused = gate.logged("handshake failed");
    let reasons: Vec<_> = refused.iter().map(|line| line["error"].as_str().unwrap()).collect();
    assert_eq!(reasons.len(), 2, "{refused:#?}");
    assert!(reasons[1].contains("Tls12NotOffered"), "{reasons:?}");

    gate.assert_running();
    Creates::new(plane, "noise").await.create(1).await.unwrap();
    let broken = gate.logged("a part of portcullis failed");
    assert!(broken.is_empty(), "{broken:?}");
}
