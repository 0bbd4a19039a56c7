//! Clients that ask without a pause, and an address with several gates behind it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, PostParams};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{ControlPlane, Gate, get};

/// Clients that create policies in one namespace, one after the other. They are dry runs, which go
/// all the way but for the last step, and so do not fill the cluster.
pub(crate) struct Load {
    goes_on: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: JoinSet<Vec<kube::Error>>,
}

impl Load {
    /// Begins with this many clients at a time, in a namespace about which the gate registered under
    /// this name is asked.
    pub(crate) async fn begin(plane: &ControlPlane, gate: &str, clients: usize) -> Self {
        let namespace = format!("{gate}-load");
        let labelled =
            format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}, labels: {{gate: {gate}}}}}}}");
        plane.apply(&labelled).await;
        let mut load = Self { goes_on: Arc::new(AtomicBool::new(true)), done: Arc::default(), clients: JoinSet::new() };
        let policy: NetworkPolicy = serde_json::from_value(serde_json::json!({
            "metadata": { "generateName": "load-" },
            "spec": { "podSelector": { "matchLabels": { "app": "load" } }, "ingress": [{ "from": [{ "podSelector": {} }] }] },
        }))
        .unwrap();
        for _ in 0..clients {
            let policies: Api<NetworkPolicy> = Api::namespaced(plane.client().await, &namespace);
            let (goes_on, done, policy) = (Arc::clone(&load.goes_on), Arc::clone(&load.done), policy.clone());
            load.clients.spawn(async move {
                let dry_run = PostParams { dry_run: true, ..PostParams::default() };
                let mut failed = Vec::new();
                while goes_on.load(Ordering::Relaxed) {
                    match policies.create(&dry_run, &policy).await {
                        Ok(_) => _ = done.fetch_add(1, Ordering::Relaxed),
                        Err(error) => failed.push(error),
                    }
                }
                failed
            });
        }
        load
    }

    /// How many creates have been answered well so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends, and fails if a create has failed, or if there were too few to tell.
    pub(crate) async fn end_without_failure(self) {
        let done = self.done();
        let failed = self.end().await;
        assert!(failed.is_empty(), "{} of {done} creates failed, the first: {}", failed.len(), failed[0]);
        assert!(done > 300, "{done} creates are hardly a load");
    }

    /// Ends, and says which failed.
    pub(crate) async fn end(self) -> Vec<kube::Error> {
        self.goes_on.store(false, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

/// A connection to a gate whose certificate was verified, by HTTP/1.1.
pub(crate) async fn tls(gate: &Gate) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(gate.authority().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(gate.webhook).await.unwrap();
    let name = ServerName::IpAddress(gate.webhook.ip().into());
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// A Service's address, as the nodes of a cluster see to it: a new connection goes to a gate that
/// was ready when it was last asked, and stays with it.
pub(crate) struct Balancer {
    backends: Arc<Mutex<Vec<Backend>>>,
    accepting: JoinHandle<()>,
}

struct Backend {
    webhook: SocketAddr,
    is_ready: Arc<AtomicBool>,
    probing: JoinHandle<()>,
}

impl Balancer {
    pub(crate) async fn new(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let backends: Arc<Mutex<Vec<Backend>>> = Arc::default();
        let known = Arc::clone(&backends);
        let accepting = tokio::spawn(async move {
            let next = AtomicUsize::new(0);
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let chosen = {
                    let known = known.lock().unwrap();
                    let ready: Vec<_> = known.iter().filter(|it| it.is_ready.load(Ordering::Relaxed)).collect();
                    let at = next.fetch_add(1, Ordering::Relaxed).checked_rem(ready.len());
                    // Without one the connection is closed, as a node would refuse it.
                    at.map(|at| ready[at].webhook)
                };
                let Some(backend) = chosen else { continue };
                tokio::spawn(async move {
                    let Ok(mut backend) = TcpStream::connect(backend).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
                });
            }
        });
        Self { backends, accepting }
    }

    /// Puts a gate that is ready behind the address.
    pub(crate) fn add(&self, gate: &Gate) {
        let is_ready = Arc::new(AtomicBool::new(true));
        let (seen, operations) = (Arc::clone(&is_ready), gate.operations);
        let probing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let answer = get(operations, "/readyz").await;
                seen.store(answer.is_some_and(|(status, _)| status == 200), Ordering::Relaxed);
            }
        });
        self.backends.lock().unwrap().push(Backend { webhook: gate.webhook, is_ready, probing });
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
        for backend in self.backends.lock().unwrap().iter() {
            backend.probing.abort();
        }
    }
}
