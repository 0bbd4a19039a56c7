//! etcd, the API server and the controller manager.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::process::{Folder, Process};
use super::programs::program;
use super::{Authority, LONG, eventually, free_port};

/// A program of the control plane, in the order in which they are stopped: an API server whose
/// etcd has gone hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    ControllerManager,
    ApiServer,
    Etcd,
}

/// What API servers are called by in the certificate that they show to webhooks.
pub(crate) const WEBHOOK_CLIENT: &str = "api-server.example.com";

/// A running control plane. It ends when it is dropped.
pub(crate) struct ControlPlane {
    parts: Mutex<BTreeMap<Part, Process>>,
    address: Ipv4Addr,
    ports: Ports,
    kubeconfig: PathBuf,
    /// Certificates, data and logs. Dropped last: `parts` writes in it.
    folder: Folder,
}

struct Ports {
    etcd: u16,
    etcd_peer: u16,
    api_server: u16,
}

impl ControlPlane {
    /// The one that all tests of this process share, with [`Self::with_controllers`], cluster DNS and
    /// PeerAuthentications. They have namespaces of their own in it, and leave its programs alone.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        let furnished = async || {
            let plane = Self::with_controllers().await;
            plane.apply(DNS).await;
            plane.install_peer_authentications().await;
            plane
        };
        SHARED.get_or_init(furnished).await
    }

    /// A new one: etcd and an API server.
    pub(crate) async fn new() -> Self {
        let plane = Self::at_rest();
        plane.start(Part::Etcd).await;
        plane.start(Part::ApiServer).await;
        plane
    }

    /// A new one with a controller manager: namespaces are emptied when they are deleted, and
    /// Deployments make pods, which nothing runs.
    pub(crate) async fn with_controllers() -> Self {
        let plane = Self::new().await;
        plane.start(Part::ControllerManager).await;
        plane
    }

    fn at_rest() -> Self {
        // An address to itself, so that a port stays free while its server is down: clients on this
        // machine take their ports on 127.0.0.1.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let number = u16::try_from(std::process::id() % 8192).unwrap() * 8 + NEXT.fetch_add(1, Ordering::Relaxed) % 8;
        let [high, low] = number.to_be_bytes();
        let address = Ipv4Addr::new(127, 97, high, low);
        let ports = Ports { etcd: free_port(address), etcd_peer: free_port(address), api_server: free_port(address) };

        let folder = Folder::new("portcullis-control-plane-");
        let authority = Authority::new();
        let (certificate, key) = authority.issue(&[&address.to_string(), "kubernetes.default.svc"]);
        folder.write("ca.crt", authority.pem());
        folder.write("tls.crt", certificate);
        folder.write("tls.key", key);
        folder.write(
            "tokens.csv",
            "administrator,administrator,administrator,\"system:masters\"\nreader,reader,reader\n",
        );
        // What it shows to webhooks, which few ask for.
        let (certificate, key) = authority.issue(&[WEBHOOK_CLIENT]);
        let client = serde_json::json!({
            "client-certificate": folder.write("client.crt", certificate),
            "client-key": folder.write("client.key", key),
        });
        let to_webhooks = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "users": [{ "name": "*", "user": client }],
        });
        let admission = serde_json::json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AdmissionConfiguration",
            "plugins": [{ "name": "ValidatingAdmissionWebhook", "configuration": {
                "apiVersion": "apiserver.config.k8s.io/v1",
                "kind": "WebhookAdmissionConfiguration",
                "kubeConfigFile": folder.write("webhooks.kubeconfig", to_webhooks.to_string()),
            } }, { "name": "ResourceQuota", "configuration": {
                // As on GKE: pods of these classes only where a quota names the class.
                "apiVersion": "apiserver.config.k8s.io/v1",
                "kind": "ResourceQuotaConfiguration",
                "limitedResources": [{ "resource": "pods", "matchScopes": [{
                    "scopeName": "PriorityClass",
                    "operator": "In",
                    "values": ["system-node-critical", "system-cluster-critical"],
                }] }],
            } }],
        });
        folder.write("admission.yaml", admission.to_string());
        let kubeconfig = |user: &str| {
            serde_json::json!({
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "tests",
                "contexts": [{ "name": "tests", "context": { "cluster": "tests", "user": user } }],
                "clusters": [{ "name": "tests", "cluster": {
                    "server": format!("https://{address}:{}", ports.api_server),
                    "certificate-authority": folder.join("ca.crt"),
                } }],
                "users": [{ "name": user, "user": { "token": user } }],
            })
        };
        folder.write("reader.kubeconfig", kubeconfig("reader").to_string());
        let kubeconfig = folder.write("kubeconfig", kubeconfig("administrator").to_string());
        Self { parts: Mutex::default(), address, ports, kubeconfig, folder }
    }

    /// Starts a program that does not run, with the data it had, and waits until it is ready.
    pub(crate) async fn start(&self, part: Part) {
        let (name, arguments) = match part {
            Part::Etcd => ("etcd", self.etcd()),
            Part::ApiServer => ("kube-apiserver", self.api_server()),
            Part::ControllerManager => ("kube-controller-manager", controller_manager()),
        };
        let mut command = Command::new(program(name));
        command.current_dir(&*self.folder).args(arguments);
        let process = Process::spawn(name, &mut command, self.folder.join(format!("{name}.log")));
        assert!(self.parts().insert(part, process).is_none(), "{name} was running");

        let begun = Instant::now();
        let client = self.client().await;
        while !self.is_ready(part, &client).await {
            {
                let mut parts = self.parts();
                let process = parts.get_mut(&part).unwrap();
                process.assert_running();
                assert!(begun.elapsed() < LONG, "{name} does not become ready\n{}", process.tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn is_ready(&self, part: Part, client: &kube::Client) -> bool {
        let path = match part {
            Part::Etcd => return tokio::net::TcpStream::connect((self.address, self.ports.etcd)).await.is_ok(),
            Part::ApiServer => "/readyz",
            // It has begun once it has made what its controllers are known by.
            Part::ControllerManager => "/api/v1/namespaces/kube-system/serviceaccounts/namespace-controller",
        };
        client.request_text(hyper::Request::get(path).body(Vec::new()).unwrap()).await.is_ok()
    }

    /// Asks a program to end, and waits until it has.
    pub(crate) async fn stop(&self, part: Part) {
        let process = self.taken(part);
        tokio::task::spawn_blocking(|| process.stop(LONG)).await.unwrap();
    }

    /// Ends a program without asking.
    pub(crate) fn kill(&self, part: Part) {
        drop(self.taken(part));
    }

    fn taken(&self, part: Part) -> Process {
        self.parts().remove(&part).unwrap_or_else(|| panic!("{part:?} does not run"))
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<Part, Process>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client that may do anything. It belongs to the runtime it was made in.
    pub(crate) async fn client(&self) -> kube::Client {
        let mut config = self.config().await;
        config.connect_timeout = Some(LONG);
        config.read_timeout = Some(LONG);
        kube::Client::try_from(config).unwrap()
    }

    /// What clients of an administrator are made with.
    pub(crate) async fn config(&self) -> kube::Config {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
    }

    /// The file with which clients come in as an administrator.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The file with which the user `reader` comes in, who may do what a test lets it do.
    pub(crate) fn reader_kubeconfig(&self) -> PathBuf {
        self.folder.join("reader.kubeconfig")
    }

    /// The authority of its certificates, a PEM file: its own, and [`WEBHOOK_CLIENT`]'s.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Runs kubectl with this input, and gives what it said.
    pub(crate) async fn kubectl<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: &str,
    ) -> Kubectl {
        let mut command = Command::new(program("kubectl"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        // Its caches.
        command.env("HOME", &*self.folder).env_remove("KUBECONFIG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        let run = move || {
            let mut child = command.spawn().unwrap();
            // It may end before it has read everything.
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            child.wait_with_output().unwrap()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Kubectl { stdout: text(output.stdout), stderr: text(output.stderr), succeeded: output.status.success() }
    }

    /// Applies documents, all of which must be taken.
    pub(crate) async fn apply(&self, documents: &str) {
        let applied = self.kubectl(["apply", "-f", "-"], documents).await;
        assert!(applied.succeeded, "{applied:?}");
    }

    /// Installs the PeerAuthentication of Istio, without Istio.
    pub(crate) async fn install_peer_authentications(&self) {
        self.apply(PEER_AUTHENTICATIONS).await;
        eventually("PeerAuthentications are served", async || {
            self.kubectl(["get", "peerauthentications.security.istio.io"], "").await.succeeded.then_some(())
        })
        .await;
    }

    /// Changes an object where it is stored, as the API lets nobody; of those that are stored as JSON,
    /// which those of definitions are.
    pub(crate) async fn rewrite(&self, key: &str, change: impl FnOnce(&mut Value)) {
        let address = format!("http://{}:{}", self.address, self.ports.etcd);
        let client = kube::Client::try_from(kube::Config::new(address.parse().unwrap())).unwrap();
        let ask = async |path: &str, body: Value| {
            let request = hyper::Request::post(path).body(body.to_string().into_bytes()).unwrap();
            client.request::<Value>(request).await.unwrap()
        };
        let key = STANDARD.encode(key);
        let found = ask("/v3/kv/range", json!({ "key": key })).await;
        let stored = STANDARD.decode(found["kvs"][0]["value"].as_str().unwrap()).unwrap();
        let mut object = serde_json::from_slice(&stored).unwrap();
        change(&mut object);
        ask("/v3/kv/put", json!({ "key": key, "value": STANDARD.encode(object.to_string()) })).await;
    }

    fn etcd(&self) -> Vec<String> {
        let Ports { etcd, etcd_peer, .. } = self.ports;
        let (clients, peers) =
            (format!("http://{}:{etcd}", self.address), format!("http://{}:{etcd_peer}", self.address));
        options(&[
            ("name", "tests"),
            ("data-dir", "etcd"),
            ("listen-client-urls", &clients),
            ("advertise-client-urls", &clients),
            ("listen-peer-urls", &peers),
            ("initial-advertise-peer-urls", &peers),
            ("initial-cluster", &format!("tests={peers}")),
            // The data is worth nothing, and survives all but a crash of the machine.
            ("unsafe-no-fsync", "true"),
        ])
    }

    fn api_server(&self) -> Vec<String> {
        let address = self.address.to_string();
        options(&[
            ("bind-address", &address),
            ("advertise-address", &address),
            ("secure-port", &self.ports.api_server.to_string()),
            ("etcd-servers", &format!("http://{address}:{}", self.ports.etcd)),
            ("tls-cert-file", "tls.crt"),
            ("tls-private-key-file", "tls.key"),
            ("client-ca-file", "ca.crt"),
            ("token-auth-file", "tokens.csv"),
            ("authorization-mode", "RBAC"),
            ("admission-control-config-file", "admission.yaml"),
            ("service-account-issuer", "https://kubernetes.default.svc"),
            // Its own certificate serves for these tokens as well.
            ("service-account-key-file", "tls.crt"),
            ("service-account-signing-key-file", "tls.key"),
            // Loopback, so that a Service's address can be listened on without anything that routes.
            ("service-cluster-ip-range", "127.96.0.0/16"),
            ("endpoint-reconciler-type", "none"),
            // Pods would wait for tokens nothing mounts.
            ("disable-admission-plugins", "ServiceAccount"),
        ])
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        while let Some((_, process)) = self.parts().pop_first() {
            drop(process);
        }
    }
}

/// What kubectl said.
#[derive(Debug)]
pub(crate) struct Kubectl {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) succeeded: bool,
}

fn controller_manager() -> Vec<String> {
    options(&[
        ("kubeconfig", "kubeconfig"),
        ("leader-elect", "false"),
        ("secure-port", "0"),
        ("use-service-account-credentials", "true"),
        ("service-account-private-key-file", "tls.key"),
        ("root-ca-file", "ca.crt"),
    ])
}

fn options(options: &[(&str, &str)]) -> Vec<String> {
    options.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

/// Cluster DNS as kubeadm sets it up.
pub(crate) const DNS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns, kubernetes.io/name: CoreDNS}}
spec:
  clusterIP: 127.96.0.10
  selector: {k8s-app: kube-dns}
  ports: [{name: dns, protocol: UDP, port: 53, targetPort: 53}, {name: dns-tcp, protocol: TCP, port: 53, targetPort: 53}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: kube-dns}}
  template: {metadata: {labels: {k8s-app: kube-dns}}, spec: {dnsPolicy: Default, containers: [{name: coredns, image: coredns/coredns}]}}
";

/// As much of Istio's definition as the API server needs to take such objects.
const PEER_AUTHENTICATIONS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: peerauthentications.security.istio.io}
spec:
  group: security.istio.io
  scope: Namespaced
  names: {kind: PeerAuthentication, listKind: PeerAuthenticationList, plural: peerauthentications, singular: peerauthentication, shortNames: [pa]}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
  - name: v1beta1
    served: true
    storage: false
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";
