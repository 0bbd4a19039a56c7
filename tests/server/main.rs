//! The server as its clients meet it: over real sockets, with real TLS, in this process.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "what is not as expected fails the test it is in"
)]

mod clients;
mod confirm;
mod crowds;
mod floods;
mod judging;
mod siege;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper::header::{CONNECTION, HeaderMap, RETRY_AFTER};
use hyper::{Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis::admission::{Answer, Record, Sight};
use portcullis::cluster::Cluster;
use portcullis::rules::{Action, Environment, Mode, Profile, RuleSet, builtin};
use portcullis::server::{
    Addresses, CertificateSource, ConfigFile, Error, Limits, Options, Reviewer, Server, Shutdown, follow_config,
};
use portcullis::telemetry::Telemetry;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Far longer than anything here takes, so that what hangs fails.
const LONG: Duration = Duration::from_secs(20);

/// An authority and the folder it puts server certificates in.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new() -> Self {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("server-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, folder }
    }

    /// A new certificate for `localhost` and its key.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn certificate(&self) -> PathBuf {
        self.folder.join("tls.crt")
    }

    fn key(&self) -> PathBuf {
        self.folder.join("tls.key")
    }

    fn install(&self, certificate: &str, key: &str) {
        std::fs::write(self.certificate(), certificate).unwrap();
        std::fs::write(self.key(), key).unwrap();
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn rules(on_error: Action) -> Arc<RuleSet> {
    Arc::new(RuleSet {
        rules: Vec::new(),
        environment: Environment::default(),
        profile: Profile::Baseline,
        builtin: builtin(|meta| meta.baseline),
        on_error,
        on_timeout: on_error,
        max_age: jiff::SignedDuration::MAX,
    })
}

/// Allows everything, by the uid asked for.
fn allow(_: &RuleSet, _: Sight<'_>, body: &[u8], _: jiff::Timestamp) -> Answer {
    let review: Value = serde_json::from_slice(body).unwrap_or_default();
    let uid = review["request"]["uid"].as_str().unwrap_or_default().to_owned();
    Answer {
        status: 200,
        body: json!({ "response": { "uid": uid, "allowed": true } }).to_string().into_bytes(),
        record: Record {
            uid,
            kind: "NetworkPolicy".to_owned(),
            operation: "CREATE".to_owned(),
            allowed: true,
            ..Record::default()
        },
    }
}

/// A reviewer that says when it begins and waits to be let go.
struct Held {
    begun: mpsc::UnboundedReceiver<()>,
    latch: Arc<(Mutex<bool>, Condvar)>,
}

impl Held {
    fn new() -> (Self, Reviewer) {
        let (entered, begun) = mpsc::unbounded_channel();
        let latch = Arc::new((Mutex::new(false), Condvar::new()));
        let held = Arc::clone(&latch);
        let reviewer = move |rules: &RuleSet, sight: Sight<'_>, body: &[u8], now: jiff::Timestamp| {
            entered.send(()).unwrap();
            let (released, changed) = &*held;
            drop(changed.wait_while(released.lock().unwrap(), |released| !*released).unwrap());
            allow(rules, sight, body, now)
        };
        (Self { begun, latch }, Arc::new(reviewer))
    }

    async fn begun(&mut self) {
        timeout(LONG, self.begun.recv()).await.unwrap().unwrap();
    }

    fn release(&self) {
        *self.latch.0.lock().unwrap() = true;
        self.latch.1.notify_all();
    }
}

impl Drop for Held {
    /// A test that fails lets its threads go, or the runtime would wait for them.
    fn drop(&mut self) {
        self.release();
    }
}

/// A server that runs, and its other ends.
struct Running {
    authority: Authority,
    addresses: Addresses,
    telemetry: Telemetry,
    cluster: watch::Sender<Arc<Cluster>>,
    rules: watch::Sender<Arc<RuleSet>>,
    stop: Option<oneshot::Sender<()>>,
    stopped: JoinHandle<Result<(), Error>>,
}

/// Starts a server with options changed by `change`.
async fn start(change: impl FnOnce(&mut Options)) -> Running {
    let authority = Authority::new();
    let (certificate, key) = authority.issue();
    authority.install(&certificate, &key);
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut options = Options {
        webhook: any_port,
        operations: any_port,
        certificate_every: Duration::from_millis(2),
        reviewer: Arc::new(allow),
        shutdown: Shutdown { linger: Duration::ZERO, drain: LONG },
        ..Options::new(CertificateSource::files(authority.certificate(), authority.key()))
    };
    change(&mut options);
    let server = Server::bind(options).await.unwrap();
    let (addresses, telemetry) = (server.addresses(), Telemetry::default());
    let (cluster, cluster_rx) = watch::channel(Arc::new(Cluster::default()));
    let (rules, rules_rx) = watch::channel(rules(Action::Warn));
    let (stop, asked) = oneshot::channel();
    let run = server.run(cluster_rx, rules_rx, telemetry.clone(), async {
        let _ = asked.await;
    });
    let stopped = tokio::spawn(run);
    Running { authority, addresses, telemetry, cluster, rules, stop: Some(stop), stopped }
}

/// Starts a server with limits changed by `change`.
async fn limited(change: impl FnOnce(&mut Limits)) -> Running {
    start(|options| change(&mut options.limits)).await
}

impl Running {
    fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits for the end of a server that was told to stop.
    async fn ended(self) {
        timeout(LONG, self.stopped).await.expect("it stops").unwrap().unwrap();
    }

    async fn listener_closed(&self) {
        let begun = Instant::now();
        while TcpStream::connect(self.addresses.webhook).await.is_ok() {
            assert!(begun.elapsed() < LONG, "the listener closes");
            tokio::task::yield_now().await;
        }
    }

    fn metrics(&self) -> String {
        String::from_utf8(self.telemetry.metrics.render()).unwrap()
    }

    /// Waits until the metrics have this line.
    async fn until_metric(&self, line: &str) {
        let begun = Instant::now();
        while !self.metrics().lines().any(|found| found == line) {
            assert!(begun.elapsed() < LONG, "no line `{line}` in:\n{}", self.metrics());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn tls(&self, alpn: &[&str], version: &'static rustls::SupportedProtocolVersion) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.authority.roots())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tcp = TcpStream::connect(self.addresses.webhook).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap()
    }

    /// A connection from another address of this machine, after the handshake.
    async fn tls_from(&self, address: [u8; 4], alpn: &str) -> TlsStream<TcpStream> {
        let stream = connect_from(address, self.addresses.webhook).await;
        shake_hands(self.authority.roots(), stream, alpn).await.unwrap()
    }

    async fn https(&self) -> Client {
        Client::over(self.tls(&["http/1.1"], &rustls::version::TLS13).await).await
    }

    async fn h2(&self) -> H2 {
        let stream = self.tls(&["h2", "http/1.1"], &rustls::version::TLS13).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        H2 { sender, connection: tokio::spawn(async { connection.await.map_err(|error| error.to_string()) }) }
    }

    /// One request to the plain listener.
    async fn get(&self, path: &str) -> (StatusCode, String) {
        let mut client = Client::over(TcpStream::connect(self.addresses.operations).await.unwrap()).await;
        let answer = client.send(Request::get(path), Bytes::new()).await.unwrap();
        (answer.status, String::from_utf8(answer.body.to_vec()).unwrap())
    }
}

/// A connection from this address of the machine's own.
async fn connect_from(address: [u8; 4], to: SocketAddr) -> TcpStream {
    try_connect_from(address, to).await.unwrap()
}

async fn try_connect_from(address: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((address, 0).into())?;
    socket.connect(to).await
}

async fn shake_hands(
    roots: rustls::RootCertStore,
    stream: TcpStream,
    alpn: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Waits for the other end to close a connection.
async fn ends(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut bytes = [0; 1024];
    let end = async {
        loop {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    timeout(LONG, end).await.expect("it is closed");
}

/// What came back.
#[derive(Debug)]
struct Received {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    body: Bytes,
}

impl Received {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn closes(&self) -> bool {
        self.headers.get(CONNECTION).is_some_and(|value| value == "close")
    }

    async fn of(response: hyper::Response<hyper::body::Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Self { status: head.status, version: head.version, headers: head.headers, body })
    }
}

/// One HTTP/1.1 connection.
struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
}

impl Client {
    async fn over<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(async {
            // How a connection ends shows in its requests.
            let _ = connection.await;
        });
        Self { sender, connection }
    }

    async fn send(&mut self, head: hyper::http::request::Builder, body: impl Into<Bytes>) -> Result<Received, String> {
        let request = head.header("host", "localhost").body(Full::new(body.into())).unwrap();
        let answer = async {
            self.sender.ready().await?;
            Received::of(self.sender.send_request(request).await?).await
        };
        timeout(LONG, answer).await.expect("an answer").map_err(|error| error.to_string())
    }

    async fn review(&mut self, uid: &str) -> Result<Received, String> {
        self.send(Request::post("/validate?timeout=10s"), review(uid)).await
    }

    async fn review_in(&mut self, namespace: &str, uid: &str) -> Result<Received, String> {
        self.send(Request::post("/validate?timeout=10s"), review_in(namespace, uid)).await
    }

    /// Waits for the server to close the connection.
    async fn closed(self) {
        timeout(LONG, self.connection).await.expect("the connection is closed").unwrap();
    }
}

/// One HTTP/2 connection.
struct H2 {
    sender: http2::SendRequest<Full<Bytes>>,
    connection: JoinHandle<Result<(), String>>,
}

impl H2 {
    fn review(&self, uid: &str) -> impl Future<Output = Result<Received, hyper::Error>> + use<> {
        self.send(review(uid))
    }

    fn send(&self, body: String) -> impl Future<Output = Result<Received, hyper::Error>> + use<> {
        let mut sender = self.sender.clone();
        let request = Request::post("https://localhost/validate").body(Full::new(body.into())).unwrap();
        async move {
            sender.ready().await?;
            Received::of(sender.send_request(request).await?).await
        }
    }
}

fn review(uid: &str) -> String {
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"{uid}","operation":"CREATE"}}}}"#
    )
}

/// A review of a change in a namespace.
fn review_in(namespace: &str, uid: &str) -> String {
    review(uid).replace(r#""operation""#, &format!(r#""namespace":"{namespace}","operation""#))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_protocols_are_served_by_alpn() {
    let server = start(|_| {}).await;
    let over_1 = server.https().await.review("one").await.unwrap();
    assert_eq!((over_1.version, over_1.status), (Version::HTTP_11, StatusCode::OK));
    assert_eq!(over_1.json()["response"]["uid"], "one");
    assert_eq!(over_1.headers["content-type"], "application/json");
    let over_2 = server.h2().await.review("two").await.unwrap();
    assert_eq!((over_2.version, over_2.status), (Version::HTTP_2, StatusCode::OK));
    assert_eq!(over_2.json()["response"]["uid"], "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_alpn_gets_http_1() {
    let server = start(|_| {}).await;
    let mut client = Client::over(server.tls(&[], &rustls::version::TLS13).await).await;
    assert_eq!(client.review("u").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_1_2_and_1_3_are_both_served() {
    let server = start(|_| {}).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let stream = server.tls(&["http/1.1"], version).await;
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        assert_eq!(Client::over(stream).await.review("u").await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_post_to_validate_is_a_review() {
    let server = start(|_| {}).await;
    let mut client = server.https().await;
    assert_eq!(client.send(Request::get("/validate"), "").await.unwrap().status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(client.send(Request::post("/mutate"), "").await.unwrap().status, StatusCode::NOT_FOUND);
    assert_eq!(client.send(Request::get("/metrics"), "").await.unwrap().status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_review_beyond_the_limit_is_answered_429_at_once() {
    let (mut held, reviewer) = Held::new();
    let server = start(|options| {
        options.limits.reviews = 1;
        options.reviewer = reviewer;
    })
    .await;
    let mut first = server.https().await;
    let first = tokio::spawn(async move { first.review("first").await });
    held.begun().await;
    assert!(server.metrics().contains("portcullis_inflight 1"));

    let mut second = server.https().await;
    let refused = second.review("second").await.unwrap();
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers[RETRY_AFTER], "1");
    assert!(server.metrics().contains(r#"portcullis_rejected_total{reason="overload"} 1"#));

    held.release();
    assert_eq!(first.await.unwrap().unwrap().status, StatusCode::OK);
    server.until_metric("portcullis_inflight 0").await;
    assert_eq!(second.review("third").await.unwrap().status, StatusCode::OK, "the connection is still good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_up_to_the_limit_is_judged_and_a_larger_one_denied_by_its_uid() {
    let server = start(|_| {}).await;
    let limit = Limits::default().body;
    assert_eq!(limit, 7_340_032);
    let padded = |uid: &str, length: usize| {
        let mut body = review(uid);
        body.truncate(body.len() - 2);
        body.push_str(r#","object":""#);
        let padding = length - body.len() - 3;
        body.extend(std::iter::repeat_n('a', padding));
        body.push_str("\"}}");
        body
    };
    let fits = server.https().await.send(Request::post("/validate"), padded("fits", limit)).await.unwrap();
    assert_eq!((fits.status, fits.json()["response"]["allowed"].clone()), (StatusCode::OK, true.into()));

    let denied = server.https().await.send(Request::post("/validate"), padded("large", limit + 1)).await.unwrap();
    assert_eq!(denied.status, StatusCode::OK);
    assert_eq!(denied.json()["response"]["uid"], "large");
    assert_eq!(denied.json()["response"]["allowed"], false);
    assert_eq!(denied.json()["response"]["status"]["code"], 413);

    let over_h2 = {
        let mut client = server.h2().await;
        let request = Request::post("https://localhost/validate").body(Full::new(padded("h2", limit + 1).into()));
        Received::of(client.sender.send_request(request.unwrap()).await.unwrap()).await.unwrap()
    };
    assert_eq!(over_h2.json()["response"]["uid"], "h2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_and_has_no_uid_is_answered_413() {
    let server = limited(|limits| limits.body = 64).await;
    let refused = server.https().await.send(Request::post("/validate"), vec![b'a'; 65]).await.unwrap();
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(refused.json(), json!({ "error": "the body is too large" }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_does_not_end_is_cut_and_an_idle_connection_is_not() {
    let server = limited(|limits| limits.head = Duration::from_millis(50)).await;
    let mut idle = server.https().await;
    idle.review("first").await.unwrap();

    let mut slow = server.tls(&["http/1.1"], &rustls::version::TLS13).await;
    slow.write_all(b"POST /validate HTTP/1.1\r\nhost: local").await.unwrap();
    let end = timeout(LONG, slow.read(&mut [0; 64])).await.expect("it is cut");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert!(server.metrics().contains(r#"portcullis_rejected_total{reason="idle"} 1"#));

    assert_eq!(idle.review("second").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_idle_for_too_long_is_closed() {
    let server = limited(|limits| {
        limits.head = Duration::from_millis(20);
        limits.idle = Duration::from_millis(40);
        limits.first = Duration::from_millis(40);
    })
    .await;
    let mut used = server.https().await;
    used.review("u").await.unwrap();
    used.closed().await;
    server.https().await.closed().await;
    server.until_metric("portcullis_connections 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_is_not_waited_for_beyond_the_deadline() {
    let server = start(|_| {}).await;
    let mut stream = server.tls(&["http/1.1"], &rustls::version::TLS13).await;
    let head = "POST /validate?timeout=50ms HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(LONG, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    server.until_metric("portcullis_inflight 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_handshake_is_cut_and_holds_up_nobody() {
    let server = limited(|limits| limits.handshake = Duration::from_millis(100)).await;
    let mut silent = TcpStream::connect(server.addresses.webhook).await.unwrap();
    assert_eq!(server.https().await.review("u").await.unwrap().status, StatusCode::OK);
    let end = timeout(LONG, silent.read(&mut [0; 1])).await.expect("it is cut");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    server.until_metric(r#"portcullis_rejected_total{reason="handshake"} 1"#).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_is_answered_as_the_configuration_says() {
    let (_held, reviewer) = Held::new();
    let server = start(|options| options.reviewer = reviewer).await;
    let mut client = server.https().await;
    let begun = Instant::now();
    let late = client.send(Request::post("/validate?timeout=250ms"), review("late")).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(200), "four fifths of the time are used");
    let late = late.json();
    assert_eq!((&late["response"]["uid"], &late["response"]["allowed"]), (&json!("late"), &json!(true)));
    assert_eq!(
        late["response"]["warnings"],
        json!([
            "the object: portcullis did not finish judging this change in time; the change is allowed, and no rule has judged it"
        ])
    );
    server.until_metric(r#"portcullis_reviews_total{kind="other",operation="CREATE",verdict="unjudged"} 1"#).await;
    assert!(server.metrics().contains("portcullis_inflight 1"), "what runs on still takes up its place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_denies_where_the_configuration_says_so_and_the_mode_lets_it() {
    let (_held, reviewer) = Held::new();
    let server = start(|options| options.reviewer = reviewer).await;
    server.rules.send_replace(rules(Action::Deny));
    let late = server.https().await.send(Request::post("/validate?timeout=250ms"), review("late")).await.unwrap();
    assert_eq!(late.json()["response"]["allowed"], false);
    let environment = Environment { mode: Mode::Warn, ..Environment::default() };
    let lenient = RuleSet { environment, ..Arc::into_inner(rules(Action::Deny)).unwrap() };
    server.rules.send_replace(Arc::new(lenient));
    let over_h2 = server.h2().await;
    let mut sender = over_h2.sender.clone();
    let request = Request::post("https://localhost/validate?timeout=250ms").body(Full::new(review("h2").into()));
    let late = Received::of(sender.send_request(request.unwrap()).await.unwrap()).await.unwrap();
    assert_eq!((&late.json()["response"]["uid"], &late.json()["response"]["allowed"]), (&json!("h2"), &json!(true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_reviews_that_hang_than_there_are_workers_hold_up_neither_answers_nor_probes() {
    let (mut held, reviewer) = Held::new();
    let server = start(|options| options.reviewer = reviewer).await;
    let mut waiting = Vec::new();
    for number in 0..6 {
        let mut client = server.https().await;
        waiting.push(tokio::spawn(async move {
            let review = review_in(&format!("n{number}"), "late");
            client.send(Request::post("/validate?timeout=100ms"), review).await.unwrap().json()
        }));
        held.begun().await;
    }
    assert_eq!(server.get("/livez").await.0, StatusCode::OK);
    for answer in waiting {
        assert_eq!(answer.await.unwrap()["response"]["allowed"], true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_review_that_panics_is_answered_and_the_server_lives() {
    let server = start(|options| {
        options.reviewer = Arc::new(|rules, sight, body, now| {
            assert!(!body.windows(3).any(|word| word == b"bad"), "a fault in the reviewer, on purpose");
            allow(rules, sight, body, now)
        });
    })
    .await;
    let mut client = server.https().await;
    let failed = client.review("bad").await.unwrap().json();
    assert_eq!(
        failed["response"]["warnings"],
        json!([
            "the object: portcullis failed while it judged this change; the change is allowed, and no rule has judged it"
        ])
    );
    assert_eq!(client.review("good").await.unwrap().json()["response"]["uid"], "good");
    server.until_metric("portcullis_inflight 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_review_sees_the_latest_cluster_and_rules() {
    let server = start(|options| {
        options.reviewer = Arc::new(|rules, sight, _, _| Answer {
            status: 200,
            body: format!("{} {}", sight.cluster.namespaces().count(), rules.on_error).into_bytes(),
            record: Record::default(),
        });
    })
    .await;
    let mut client = server.https().await;
    assert_eq!(client.review("u").await.unwrap().body, "0 warn");
    let namespace = portcullis::model::Namespace {
        name: "shop".into(),
        uid: None,
        labels: [("kubernetes.io/metadata.name", "shop")].into(),
        created: None,
        is_terminating: false,
    };
    let object = portcullis::model::Object::Namespace(Arc::new(namespace));
    server.cluster.send_replace(Arc::new(Cluster::of([object])));
    server.rules.send_replace(rules(Action::Deny));
    assert_eq!(client.review("u").await.unwrap().body, "1 deny");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn findings_are_counted_but_not_those_of_a_dry_run() {
    let server = start(|options| {
        options.reviewer = Arc::new(|rules, sight, body, now| {
            let answer = allow(rules, sight, body, now);
            let dry_run = answer.record.uid == "dry";
            let findings = vec![("dns-blackhole", Action::Deny)];
            let verdict = Some(Action::Deny);
            Answer { record: Record { allowed: false, dry_run, verdict, findings, ..answer.record }, ..answer }
        });
    })
    .await;
    let mut client = server.https().await;
    client.review("dry").await.unwrap();
    server
        .until_metric(r#"portcullis_reviews_total{kind="NetworkPolicy",operation="CREATE",verdict="dry_run"} 1"#)
        .await;
    assert!(!server.metrics().contains("portcullis_findings_total{"));
    client.review("real").await.unwrap();
    server.until_metric(r#"portcullis_findings_total{action="deny",rule="dns-blackhole"} 1"#).await;
    assert!(server.metrics().contains(r#"verdict="denied"} 1"#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_under_load_without_a_failed_request() {
    let server = Arc::new(start(|_| {}).await);
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let (server, done) = (Arc::clone(&server), Arc::clone(&done));
            tokio::spawn(async move {
                let mut met = std::collections::BTreeSet::new();
                let mut kept = server.https().await;
                while !done.load(Ordering::Relaxed) {
                    // A connection that lives through it all, and a new one each time.
                    assert_eq!(kept.review("kept").await.unwrap().status, StatusCode::OK);
                    let stream = server.tls(&["http/1.1"], &rustls::version::TLS13).await;
                    met.insert(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec());
                    let answer = Client::over(stream).await.review(&format!("new-{number}")).await.unwrap();
                    assert_eq!(answer.status, StatusCode::OK);
                }
                met
            })
        })
        .collect();
    // In place and not atomically: half-written files and pairs that do not match are part of it.
    for _ in 0..40 {
        let (certificate, key) = server.authority.issue();
        std::fs::write(server.authority.certificate(), &certificate[..certificate.len() / 2]).unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
        std::fs::write(server.authority.certificate(), &certificate).unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
        std::fs::write(server.authority.key(), &key).unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    server.until_metric("portcullis_certificate_last_reload_success 1").await;
    done.store(true, Ordering::Relaxed);
    let mut met = std::collections::BTreeSet::new();
    for client in clients {
        met.extend(client.await.expect("no request failed"));
    }
    assert!(met.len() > 10, "{} certificates were met", met.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_that_does_not_match_is_refused_until_it_does() {
    let server = start(|_| {}).await;
    let leaf = async || {
        let stream = server.tls(&["http/1.1"], &rustls::version::TLS13).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = leaf().await;
    server.until_metric("portcullis_certificate_last_reload_success 1").await;
    let expiry = |metrics: String| {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(r#"portcullis_certificate_not_after_seconds{certificate="leaf"}"#))
            .unwrap();
        line.split(' ').nth(1).unwrap().parse::<f64>().unwrap()
    };
    assert!(expiry(server.metrics()) > 1.9e9, "rcgen's default lies far ahead");

    let (certificate, key) = server.authority.issue();
    std::fs::write(server.authority.certificate(), &certificate).unwrap();
    server.until_metric("portcullis_certificate_last_reload_success 0").await;
    assert!(server.metrics().contains(r#"portcullis_certificate_reloads_total{result="refused"} 1"#));
    assert_eq!(leaf().await, first);

    std::fs::remove_file(server.authority.key()).unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(leaf().await, first, "a file that is gone for a moment changes nothing");

    std::fs::write(server.authority.key(), &key).unwrap();
    server.until_metric("portcullis_certificate_last_reload_success 1").await;
    assert_ne!(leaf().await, first);
}

#[tokio::test]
async fn a_server_without_a_good_certificate_does_not_start() {
    let authority = Authority::new();
    let bind =
        async || match Server::bind(Options::new(CertificateSource::files(authority.certificate(), authority.key())))
            .await
        {
            Ok(_) => panic!("it started"),
            Err(error) => error.to_string(),
        };
    assert!(bind().await.contains("tls.crt"), "the error names the file that is missing");
    let ((certificate, _), (_, key)) = (authority.issue(), authority.issue());
    authority.install(&certificate, &key);
    assert_eq!(bind().await, "the key is not the certificate's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_refused_leaves_the_last_good_one() {
    let authority = Authority::new();
    let path = authority.folder.join("portcullis.yaml");
    std::fs::write(&path, "warn").unwrap();
    let load = |bytes: &[u8]| match bytes {
        b"warn" => Ok(Arc::into_inner(rules(Action::Warn)).unwrap()),
        b"deny" => Ok(Arc::into_inner(rules(Action::Deny)).unwrap()),
        _ => Err("not a configuration".to_owned()),
    };
    let (sender, mut receiver) = watch::channel(rules(Action::Warn));
    let telemetry = Telemetry::default();
    let metrics = telemetry.metrics.clone();
    let file = ConfigFile { path: path.clone(), in_force: b"warn".to_vec(), every: Duration::from_millis(2) };
    let following = tokio::spawn(follow_config(file, load, sender, metrics.clone()));
    let until = async |line: &str| {
        let begun = Instant::now();
        while !String::from_utf8(metrics.render()).unwrap().lines().any(|found| found == line) {
            assert!(begun.elapsed() < LONG, "no line `{line}`");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };

    std::fs::write(&path, "nonsense").unwrap();
    until(r#"portcullis_config_reloads_total{result="refused"} 1"#).await;
    until("portcullis_config_last_reload_success 0").await;
    assert!(!receiver.has_changed().unwrap());

    std::fs::write(&path, "deny").unwrap();
    timeout(LONG, receiver.changed()).await.unwrap().unwrap();
    assert_eq!(receiver.borrow_and_update().on_error, Action::Deny);
    until("portcullis_config_last_reload_success 1").await;

    std::fs::remove_file(&path).unwrap();
    until("portcullis_config_last_reload_success 0").await;
    std::fs::write(&path, "deny").unwrap();
    until("portcullis_config_last_reload_success 1").await;
    assert!(!receiver.has_changed().unwrap(), "the same bytes are not loaded twice");
    following.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_say_what_is_pending_and_metrics_are_served() {
    let server = start(|_| {}).await;
    let gate = server.telemetry.readiness.gate("cluster", "reading manifests");
    assert_eq!(server.get("/livez").await, (StatusCode::OK, "ok\n".to_owned()));
    assert_eq!(server.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (status, text) = server.get("/readyz?verbose").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text, "[-]cluster pending: reading manifests\n[+]listener ok\n");
    gate.open();
    assert_eq!(server.get("/readyz").await, (StatusCode::OK, "ok\n".to_owned()));

    let (status, text) = server.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for metric in ["portcullis_build_info{", "portcullis_connections ", "portcullis_review_duration_seconds_bucket{"] {
        assert!(text.contains(metric), "{metric} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_answers_what_has_begun_and_closes_by_an_answer() {
    let (mut held, reviewer) = Held::new();
    let mut server = start(|options| options.reviewer = reviewer).await;
    let (mut busy, mut idle) = (server.https().await, server.https().await);
    let busy = tokio::spawn(async move { (busy.review("busy").await, busy) });
    held.begun().await;
    assert_eq!(server.get("/readyz").await.0, StatusCode::OK);

    server.stop();
    server.listener_closed().await;
    let (status, text) = server.get("/readyz?verbose").await;
    assert_eq!((status, text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "[-]listener pending: shutting down\n"));
    assert_eq!(server.get("/livez").await.0, StatusCode::OK);

    // A request on a connection that was idle when the listener closed is still served.
    let last = tokio::spawn(async move { (idle.review("last").await, idle) });
    held.begun().await;
    held.release();
    for request in [busy, last] {
        let (answer, client) = request.await.unwrap();
        let answer = answer.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.closes(), "{:?}", answer.headers);
        client.closed().await;
    }
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_sends_goaway_and_answers_what_has_begun_over_http_2() {
    let (mut held, reviewer) = Held::new();
    let mut server = start(|options| options.reviewer = reviewer).await;
    let client = server.h2().await;
    let begun = tokio::spawn(client.review("begun"));
    held.begun().await;
    server.stop();
    server.listener_closed().await;
    held.release();
    assert_eq!(begun.await.unwrap().unwrap().json()["response"]["uid"], "begun");
    // The client still could send, so it is the server that ends the connection.
    timeout(LONG, client.connection).await.unwrap().unwrap().expect("the connection ends in good order");
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_lingers_the_server_is_unready_and_serves_as_before() {
    let mut server = start(|options| options.shutdown.linger = Duration::from_millis(300)).await;
    let mut kept = server.https().await;
    kept.review("before").await.unwrap();
    server.stop();
    let begun = Instant::now();
    while server.get("/readyz").await.0 == StatusCode::OK {
        assert!(begun.elapsed() < LONG);
    }
    let answer = kept.review("during").await.unwrap();
    assert!(answer.status == StatusCode::OK && !answer.closes());
    assert_eq!(server.https().await.review("new").await.unwrap().status, StatusCode::OK);
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_does_not_wait_for_ever() {
    let (mut held, reviewer) = Held::new();
    let mut server = start(|options| {
        options.reviewer = reviewer;
        options.shutdown.drain = Duration::from_millis(50);
    })
    .await;
    let mut stuck = server.https().await;
    let stuck = tokio::spawn(async move { stuck.review("stuck").await });
    held.begun().await;
    server.stop();
    server.ended().await;
    assert!(stuck.await.unwrap().is_err(), "it is cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_the_server_stops_under_load() {
    let mut server = start(|options| options.shutdown.linger = Duration::from_millis(50)).await;
    let clients: Vec<_> = keep_busy(8, &server).await;
    server.stop();
    let mut answered = 0;
    for client in clients {
        answered += client.await.expect("no request was lost");
    }
    assert!(answered > 8, "{answered} were answered");
    server.ended().await;
}

/// Clients that send one request after another until an answer closes their connection.
async fn keep_busy(count: usize, server: &Running) -> Vec<JoinHandle<usize>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = server.https().await;
        clients.push(tokio::spawn(async move {
            let mut answered = 0;
            loop {
                let answer = client.review("u").await.expect("each request is answered");
                answered += 1;
                if answer.closes() {
                    return answered;
                }
            }
        }));
    }
    clients
}

#[test]
fn sigterm_asks_to_stop() {
    const CHILD: &str = "PORTCULLIS_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let runtime = portcullis::server::runtime().unwrap();
        return runtime.block_on(async {
            let requested = portcullis::server::shutdown_requested().unwrap();
            println!("listening");
            timeout(LONG, requested).await.expect("the signal is heard");
            println!("stopping");
        });
    }
    // In a process of its own: once caught, a signal no longer ends the process that caught it.
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sigterm_asks_to_stop", "--nocapture"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut until = |word: &str| assert!(lines.any(|line| line.unwrap().contains(word)), "`{word}`");
    until("listening");
    let sent = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    until("stopping");
    assert!(child.wait().unwrap().success());
}
