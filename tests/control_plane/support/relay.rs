//! A way to the API server that can be made slow, cut and told to lie: what a network does.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{ControlPlane, Folder};

/// Plain HTTP in, the API server's own TLS and token out.
pub(crate) struct Relay {
    way: Arc<Way>,
    kubeconfig: PathBuf,
    server: tokio::task::JoinHandle<()>,
    _folder: Folder,
}

struct Way {
    client: kube::Client,
    config: kube::Config,
    /// How late what happens in a watch arrives. Nothing else is late.
    delay: Mutex<Duration>,
    /// Raised to cut every watch there is.
    cut: watch::Sender<u64>,
    /// Whether nothing gets through.
    is_down: AtomicBool,
    /// Whether the next watch of each resource is told that its version is too old.
    gone: Mutex<Option<BTreeSet<String>>>,
    requests: AtomicUsize,
    /// The paths of what was deleted, in that order.
    deleted: Mutex<Vec<String>>,
}

impl Relay {
    /// A way that does nothing to what passes.
    pub(crate) async fn to(plane: &ControlPlane) -> Self {
        let way = Arc::new(Way {
            client: plane.client().await,
            config: plane.config().await,
            delay: Mutex::default(),
            cut: watch::Sender::new(0),
            is_down: AtomicBool::new(false),
            gone: Mutex::default(),
            requests: AtomicUsize::new(0),
            deleted: Mutex::default(),
        });
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(relay).with_state(Arc::clone(&way));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let folder = Folder::new("portcullis-relay-");
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "relay",
            "contexts": [{ "name": "relay", "context": { "cluster": "relay", "user": "relay" } }],
            "clusters": [{ "name": "relay", "cluster": { "server": format!("http://{address}") } }],
            "users": [{ "name": "relay", "user": {} }],
        });
        let kubeconfig = folder.write("kubeconfig", kubeconfig.to_string());
        Self { way, kubeconfig, server, _folder: folder }
    }

    /// The file with which a client takes this way.
    pub(crate) fn kubeconfig(&self) -> &std::path::Path {
        &self.kubeconfig
    }

    /// Makes everything that happens in watches arrive this late, in its order.
    pub(crate) fn delay(&self, delay: Duration) {
        *self.way.delay.lock().unwrap() = delay;
    }

    /// Cuts the watches there are. New ones get through.
    pub(crate) fn cut(&self) {
        self.way.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Lets nothing through any more, or everything again.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.way.is_down.store(is_down, Ordering::SeqCst);
        if is_down {
            self.cut();
        }
    }

    /// Answers the next watch of each resource with 410 Gone, and cuts those there are.
    pub(crate) fn forget(&self) {
        *self.way.gone.lock().unwrap() = Some(BTreeSet::new());
        self.cut();
    }

    /// How many requests came this way, through or not.
    pub(crate) fn requests(&self) -> usize {
        self.way.requests.load(Ordering::SeqCst)
    }

    /// The paths of what clients have asked to be deleted, in that order.
    #[allow(dead_code, reason = "for the chart's tests")]
    pub(crate) fn deleted(&self) -> Vec<String> {
        self.way.deleted.lock().unwrap().clone()
    }
}

impl Way {
    fn new_client(&self) -> kube::Client {
        kube::Client::try_from(self.config.clone()).unwrap()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn relay(State(way): State<Arc<Way>>, request: Request) -> Response {
    way.requests.fetch_add(1, Ordering::SeqCst);
    if way.is_down.load(Ordering::SeqCst) {
        return (StatusCode::BAD_GATEWAY, "the network is away").into_response();
    }
    let (head, body) = request.into_parts();
    if head.method == Method::DELETE {
        way.deleted.lock().unwrap().push(head.uri.path().to_owned());
    }
    let query = head.uri.query().unwrap_or_default();
    let is_watch = query.split('&').any(|pair| pair == "watch=true");
    if is_watch {
        let mut gone = way.gone.lock().unwrap();
        if gone.as_mut().is_some_and(|told| told.insert(head.uri.path().to_owned())) {
            let status = serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
                "message": "too old resource version",
            });
            return (StatusCode::GONE, axum::Json(status)).into_response();
        }
    }
    let path = head.uri.path_and_query().unwrap().as_str();
    let mut passed = hyper::Request::builder().method(head.method).uri(path);
    for (name, value) in &head.headers {
        // The client's own are the relay's business.
        if !matches!(name.as_str(), "host" | "connection" | "authorization" | "accept-encoding") {
            passed = passed.header(name, value);
        }
    }
    let body = body.collect().await.unwrap().to_bytes();
    // A watch has a connection of its own: it is to end with the API server it began with.
    let client = if is_watch { way.new_client() } else { way.client.clone() };
    let answer = match client.send(passed.body(kube::client::Body::from(body.to_vec())).unwrap()).await {
        Ok(answer) => answer,
        Err(error) => return (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    let (head, body) = answer.into_parts();
    let data = body.into_data_stream();
    let body = if is_watch { Body::from_stream(late(way, data)) } else { Body::from_stream(data) };
    let mut answer = Response::new(body);
    *answer.status_mut() = head.status;
    if let Some(kind) = head.headers.get("content-type") {
        answer.headers_mut().insert("content-type", kind.clone());
    }
    answer
}

/// What a watch says, as late as it is to be, until it is cut.
fn late<E: std::error::Error + Send + Sync + 'static>(
    way: Arc<Way>,
    data: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut cut = way.cut.subscribe();
    tokio::spawn(async move {
        let mut data = std::pin::pin!(data);
        while let Some(piece) = data.next().await {
            let due = Instant::now() + *way.delay.lock().unwrap();
            if sender.send((due, piece.map_err(std::io::Error::other))).is_err() {
                return;
            }
        }
    });
    let pieces = futures::stream::unfold(receiver, |mut receiver| async {
        let (due, piece) = receiver.recv().await?;
        tokio::time::sleep_until(due).await;
        Some((piece, receiver))
    });
    let is_cut = async move {
        // The sender lives as long as the relay.
        let _ = cut.changed().await;
    };
    let broken = futures::stream::once(async { Err(std::io::Error::other("the connection is cut")) });
    pieces.take_until(is_cut).chain(broken)
}
