//! The program under siege from one address, while an API server and a kubelet go on from another.

use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};

use hyper::client::conn::http1::handshake;
use tokio::task::JoinSet;

use super::*;

const API_SERVER: [u8; 4] = [127, 0, 0, 1];
const HOSTILE: [u8; 4] = [127, 0, 0, 2];

/// How much comes from the hostile address.
#[derive(Clone, Copy)]
struct Size {
    /// Connections to the webhook's port, opened again as they are closed.
    webhook: usize,
    /// The same to the port of probes and metrics.
    operations: usize,
    /// HTTP/2 streams whose body has begun.
    streams: usize,
    time: Duration,
}

/// The process, until this is dropped: by the test, and not by one of those that besiege it.
struct Process(Child);

/// The program, its log thrown away once it serves.
struct Besieged {
    authority: Authority,
    webhook: SocketAddr,
    operations: SocketAddr,
}

impl Besieged {
    fn start() -> (Process, Self) {
        let authority = Authority::new();
        let (certificate, key) = authority.issue();
        authority.install(&certificate, &key);
        let cluster = authority.folder.join("cluster");
        std::fs::create_dir(&cluster).unwrap();
        std::fs::write(cluster.join("shop.yaml"), "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}").unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["serve", "--log-format", "json", "--listen", "127.0.0.1:0", "--operations", "127.0.0.1:0"])
            .arg("--cluster")
            .arg(&cluster)
            .arg("--tls-cert")
            .arg(authority.certificate())
            .arg("--tls-key")
            .arg(authority.key())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = std::io::BufReader::new(process.stderr.take().unwrap()).lines();
        let serving = log.find_map(|line| {
            let line: Value = serde_json::from_str(&line.unwrap()).ok()?;
            (line["message"] == "serving").then_some(line)
        });
        let serving = serving.expect("it serves");
        std::thread::spawn(move || log.for_each(drop));
        let address = |field: &str| serving[field].as_str().unwrap().parse().unwrap();
        let gate = Self { webhook: address("webhook"), operations: address("operations"), authority };
        (Process(process), gate)
    }

    /// Opens a connection whenever the last is closed, and does little on each.
    async fn crowd(&self, number: usize) {
        loop {
            // Faster, it would be the machine that is besieged.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let Ok(mut stream) = try_connect_from(HOSTILE, self.webhook).await else { continue };
            match number % 20 {
                // The start of a handshake.
                0..5 => drop(stream.write_all(&[0x16, 0x03, 0x01]).await),
                // A whole one, and half a head or half a body after it.
                5 | 6 => {
                    let Ok(mut stream) = shake_hands(self.roots(), stream, "http/1.1").await else { continue };
                    let body = "content-length: 5000000\r\n\r\n{";
                    let rest = if number.is_multiple_of(2) { body } else { "x: " };
                    let head = format!("POST /validate?timeout=30s HTTP/1.1\r\nhost: localhost\r\n{rest}");
                    let _ = stream.write_all(head.as_bytes()).await;
                    until_closed(&mut stream).await;
                    continue;
                }
                _ => {}
            }
            until_closed(&mut stream).await;
        }
    }

    async fn crowd_of_operations(&self, number: usize) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let Ok(mut stream) = try_connect_from(HOSTILE, self.operations).await else { continue };
            if number.is_multiple_of(2) {
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost").await;
            }
            until_closed(&mut stream).await;
        }
    }

    /// Streams of one HTTP/2 connection, each with a head and one byte of its body.
    async fn streams(&self, count: usize) {
        loop {
            let Ok(stream) = try_connect_from(HOSTILE, self.webhook).await else { continue };
            let Ok(mut stream) = shake_hands(self.roots(), stream, "h2").await else { continue };
            let _ = stream.write_all(&floods::begin_streams(count)).await;
            // They are answered when their time is over.
            let _ = timeout(Duration::from_secs(3), until_closed(&mut stream)).await;
        }
    }

    fn roots(&self) -> rustls::RootCertStore {
        self.authority.roots()
    }

    /// One review after the other; how long each took. Every fiftieth comes by a new connection.
    async fn reviews(&self, until: Instant) -> Vec<Duration> {
        let mut times = Vec::new();
        while Instant::now() < until {
            let begun = Instant::now();
            let stream = connect_from(API_SERVER, self.webhook).await;
            let stream = shake_hands(self.roots(), stream, "http/1.1").await.expect("a handshake");
            let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
            let connection = tokio::spawn(connection);
            let mut begun = begun;
            for _ in 0..50 {
                let request = Request::post("/validate?timeout=10s").header("host", "localhost");
                let request = request.body(Full::new(Bytes::from(policy_review()))).unwrap();
                sender.ready().await.expect("the connection stays");
                let answer = Received::of(sender.send_request(request).await.expect("an answer")).await.unwrap();
                assert_eq!(answer.status, StatusCode::OK);
                assert_eq!(answer.json()["response"]["uid"], "u");
                times.push(begun.elapsed());
                tokio::time::sleep(Duration::from_millis(2)).await;
                begun = Instant::now();
            }
            connection.abort();
        }
        times
    }

    /// One probe after the other, each by a connection of its own, as the kubelet's are.
    async fn probes(&self, until: Instant) -> Vec<Duration> {
        let mut times = Vec::new();
        while Instant::now() < until {
            let begun = Instant::now();
            let stream = connect_from(API_SERVER, self.operations).await;
            let mut client = Client::over(stream).await;
            let answer = client.send(Request::get("/readyz").header("connection", "close"), "").await.expect("a probe");
            assert_eq!(answer.status, StatusCode::OK);
            times.push(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        times
    }
}

async fn until_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A review of a NetworkPolicy that is judged and allowed.
fn policy_review() -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "operation": "CREATE", "namespace": "shop", "name": "closed",
            "kind": { "group": "networking.k8s.io", "version": "v1", "kind": "NetworkPolicy" },
            "object": {
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": { "name": "closed", "namespace": "shop" },
                "spec": { "podSelector": {}, "policyTypes": ["Ingress"] },
            },
        },
    })
    .to_string()
}

/// The time that all but one in a hundred took at most.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

/// Reviews and probes while the siege lasts; the p99 of both. That none failed is seen to on the way.
fn besiege(size: Size) -> (Duration, Duration) {
    portcullis::server::raise_descriptors();
    let (_process, gate) = Besieged::start();
    let gate = Arc::new(gate);
    let hostile = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for number in 0..size.webhook {
        let gate = Arc::clone(&gate);
        hostile.spawn(async move { gate.crowd(number).await });
    }
    for number in 0..size.operations {
        let gate = Arc::clone(&gate);
        hostile.spawn(async move { gate.crowd_of_operations(number).await });
    }
    for _ in 0..size.streams / 50 {
        let gate = Arc::clone(&gate);
        hostile.spawn(async move { gate.streams(50).await });
    }
    let honest = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (reviews, probes) = honest.block_on(async {
        let until = Instant::now() + size.time;
        let mut reviewing = JoinSet::new();
        for _ in 0..4 {
            let gate = Arc::clone(&gate);
            reviewing.spawn(async move { gate.reviews(until).await });
        }
        let probes = gate.probes(until).await;
        (reviewing.join_all().await.concat(), probes)
    });
    let metrics = honest.block_on(async {
        let mut client = Client::over(connect_from(API_SERVER, gate.operations).await).await;
        client.send(Request::get("/metrics"), "").await.unwrap().body
    });
    hostile.shutdown_background();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    for line in metrics.lines().filter(|line| line.starts_with("portcullis_rejected_total")) {
        println!("{line}");
    }
    for reason in ["peer_connections", "operations"] {
        let none = format!("portcullis_rejected_total{{reason=\"{reason}\"}} 0");
        assert!(!metrics.contains(&none), "the siege was none: {metrics}");
    }
    for reason in ["connections", "overload"] {
        let none = format!("portcullis_rejected_total{{reason=\"{reason}\"}} 0");
        assert!(metrics.contains(&none), "others than the hostile address were turned away: {metrics}");
    }
    let counts = (reviews.len(), probes.len());
    assert!(counts.0 > 100 && counts.1 > 10, "reviews and probes: {counts:?}");
    let slowest = reviews.iter().max().copied().unwrap_or_default();
    let (reviews, probes) = (p99(reviews), p99(probes));
    println!("{} reviews, p99 {reviews:?}, slowest {slowest:?}; {} probes, p99 {probes:?}", counts.0, counts.1);
    (reviews, probes)
}

#[test]
fn a_crowd_from_one_address_keeps_out_no_review_and_no_probe() {
    besiege(Size { webhook: 800, operations: 300, streams: 300, time: Duration::from_secs(4) });
}

/// In full, and with its times: `make siege`.
#[test]
#[ignore = "it needs the machine for itself"]
fn ten_thousand_connections_and_a_thousand_streams_leave_reviews_and_probes_in_time() {
    let (reviews, probes) =
        besiege(Size { webhook: 10_000, operations: 2_000, streams: 1_000, time: Duration::from_secs(20) });
    assert!(reviews < Duration::from_millis(100), "{reviews:?}");
    assert!(probes < Duration::from_millis(500), "{probes:?}");
}
