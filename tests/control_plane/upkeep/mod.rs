//! A gate that keeps up its own certificate and registration.

mod certificates;
mod clients;
mod proof;
mod registration;

use std::net::SocketAddr;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::support::{BINARY, ControlPlane, Gate, Knows, Setup, eventually, free_port, own_address};

/// A namespace with the Service of a gate, and the registration that leads there. All have one name.
struct Home<'a> {
    plane: &'a ControlPlane,
    name: &'a str,
    /// The Service's.
    address: SocketAddr,
}

impl<'a> Home<'a> {
    async fn new(plane: &'a ControlPlane, name: &'a str) -> Self {
        let address = own_address();
        let address = SocketAddr::new(address, free_port(address));
        let (ip, port) = (address.ip(), address.port());
        plane
            .apply(&format!(
                "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}
---
{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}-asked, labels: {{gate: {name}}}}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: gate, namespace: {name}}}, spec: {{clusterIP: {ip}, ports: [{{port: {port}}}]}}}}"
            ))
            .await;
        Self { plane, name, address }
    }

    /// The flags of a gate that looks after everything itself.
    fn flags(&self) -> [String; 10] {
        let asked = format!("{}-asked", self.name);
        ["--namespace", self.name, "--service", "gate", "--certificate-secret", "gate-tls", "--webhook", self.name]
            .map(str::to_owned)
            .into_iter()
            .chain(["--probe-namespace".to_owned(), asked])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    }

    /// A gate that looks after everything itself, where the Service leads.
    async fn begin(&self, more: &[&str]) -> Gate {
        self.begin_at(self.address, more).await
    }

    async fn begin_at(&self, address: SocketAddr, more: &[&str]) -> Gate {
        let flags = self.flags();
        let arguments: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let cluster = Knows::Live(self.plane.kubeconfig());
        Gate::begin(Setup { cluster, arguments: &arguments, listen: Some(address), ..Setup::default() }).await
    }

    /// The registration as it is installed: nothing is trusted, nothing is held up. It is asked about
    /// the namespaces with the label `gate: NAME`.
    fn registration(&self) -> Value {
        let service = format!("{}/gate:{}", self.name, self.address.port());
        let printed = Command::new(BINARY)
            .args(["webhook", "--output", "json", "--failure-policy", "ignore", "--name", self.name])
            .args(["--service", &service])
            .output()
            .unwrap();
        let mut webhook: Value = serde_json::from_slice(&printed.stdout).unwrap();
        webhook["webhooks"][0]["namespaceSelector"]["matchLabels"] = json!({ "gate": self.name });
        webhook
    }

    async fn register(&self) {
        self.plane.apply(&self.registration().to_string()).await;
    }

    async fn get(&self, kind: &str, name: &str) -> Value {
        let found = self.plane.kubectl(["get", kind, name, "--namespace", self.name, "--output=json"], "").await;
        serde_json::from_str(&found.stdout).unwrap_or_default()
    }

    /// The registration's only entry.
    async fn entry(&self) -> Value {
        self.get("validatingwebhookconfiguration", self.name).await["webhooks"][0].clone()
    }

    /// A member of the Secret; empty where there is none.
    async fn member(&self, name: &str) -> String {
        let secret = self.get("secret", "gate-tls").await;
        decoded(&secret["data"][name])
    }

    /// Changes the registration as somebody else would.
    async fn patch(&self, entry: Value) {
        self.patch_entry("gate.portcullis.dev", entry).await;
    }

    async fn patch_entry(&self, name: &str, entry: Value) {
        let mut entry = entry;
        entry["name"] = name.into();
        let patch = json!({ "webhooks": [entry] }).to_string();
        let words = ["patch", "validatingwebhookconfiguration", self.name, "--type=strategic", "--patch", &patch];
        let patched = self.plane.kubectl(words, "").await;
        assert!(patched.succeeded, "{patched:?}");
    }

    async fn until_it_fails_closed(&self) {
        eventually("the registration fails closed", async || {
            (self.entry().await["failurePolicy"] == "Fail").then_some(())
        })
        .await;
    }

    /// Runs `portcullis probe`.
    async fn probe(&self, namespace: &str) -> Output {
        let mut command = Command::new(BINARY);
        command.args(["probe", "--namespace", namespace, "--kubeconfig"]).arg(self.plane.kubeconfig());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }
}

fn decoded(value: &Value) -> String {
    String::from_utf8(STANDARD.decode(value.as_str().unwrap_or_default()).unwrap()).unwrap()
}

/// The certificates in some PEM.
fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

/// What `/readyz?verbose` says of the certificate.
async fn readiness(gate: &Gate) -> String {
    let (_, page) = gate.get("/readyz?verbose").await.unwrap();
    page.lines().find(|line| line.contains("]certificate ")).unwrap_or_default().to_owned()
}
