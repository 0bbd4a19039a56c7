//! The gate at work: starts `portcullis serve` over the small cluster beside this file, sends it
//! AdmissionReviews over HTTPS, and prints what a person would see.
//!
//! Where a change is denied, the YAML the denial prints is applied as it stands, and the change is
//! tried again. An answer that is not the one told of here ends the run with an error.
//!
//! Takes the folder of the certificates, `certs-dev` where none is given.

#![allow(clippy::indexing_slicing, reason = "indexing a `Value` gives null where there is nothing")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail, ensure};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};

/// What is tried, in order. Each step says what it is and what must come of it.
const STORY: &[Chapter] = &[
    Chapter {
        title: "NP001 missing-default-deny: a namespace that nobody closed",
        steps: &[
            Step::Try(
                "A namespace must exist before its policies can: creating one warns, with the policy to apply.",
                "{apiVersion: v1, kind: Namespace, metadata: {name: payments}}",
                Outcome::Warned,
            ),
            Step::Try(
                "A workload in it is another matter.",
                "{apiVersion: apps/v1, kind: Deployment, metadata: {name: api, namespace: payments}, spec: {template: {metadata: {labels: {app: api}}, spec: {containers: [{name: api, image: example.com/api}]}}}}",
                Outcome::Denied,
            ),
            Step::ApplyFix("The policy the denial prints, as it stands:"),
            Step::Again("And the workload again:"),
            Step::Delete(
                "Later, somebody tidies up in another namespace.",
                ("NetworkPolicy", "shop", "default-deny"),
                Outcome::Denied,
            ),
        ],
    },
    Chapter {
        title: "NP002 dns-blackhole: a policy that looks right",
        steps: &[
            Step::Try(
                "`name: kube-system` is in a hundred tutorials, and on no namespace.",
                "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: allow-dns, namespace: shop}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {name: kube-system}}}], ports: [{protocol: UDP, port: 53}]}]}}",
                Outcome::Denied,
            ),
            Step::ApplyFix("What the denial prints, as it stands:"),
            Step::Again("With that in place, the change harms nobody:"),
        ],
    },
    Chapter {
        title: "NP003 wildcard-ip-block: the whole internet in two halves",
        steps: &[
            Step::Try(
                "Half of all addresses in one peer, half in the other.",
                "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web-egress, namespace: shop}, spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/1}}, {ipBlock: {cidr: 128.0.0.0/1}}], ports: [{port: 443}]}]}}",
                Outcome::Warned,
            ),
            Step::Try(
                "Named instead:",
                "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web-egress, namespace: shop}, spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: 443}]}]}}",
                Outcome::Allowed,
            ),
        ],
    },
    Chapter {
        title: "MT001 plaintext-mtls: one word in one file",
        steps: &[
            Step::Try(
                "STRICT becomes PERMISSIVE \"for a moment\".",
                "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: shop, creationTimestamp: \"2026-03-02T09:00:00Z\"}, spec: {mtls: {mode: PERMISSIVE}}}",
                Outcome::Denied,
            ),
            Step::ApplyFix("What the denial prints, as it stands:"),
        ],
    },
];

struct Chapter {
    title: &'static str,
    steps: &'static [Step],
}

enum Step {
    /// Creates or updates an object.
    Try(&'static str, &'static str, Outcome),
    /// Deletes one: kind, namespace, name.
    Delete(&'static str, (&'static str, &'static str, &'static str), Outcome),
    /// Applies the YAML of the last denial, which must be allowed.
    ApplyFix(&'static str),
    /// Tries what was denied again, which must be allowed.
    Again(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Allowed,
    Warned,
    Denied,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cluster = ClusterFolder::copy(&here.join("deploy/demo/cluster"), &here.join("target/demo-cluster"))?;
    let certificates = std::env::args_os().nth(1).map_or_else(|| here.join("certs-dev"), PathBuf::from);
    let mut gate = Gate::start(&certificates, &cluster.path)?;
    let told = tell(&mut gate, &mut cluster).await;
    gate.stop()?;
    told
}

async fn tell(gate: &mut Gate, cluster: &mut ClusterFolder) -> anyhow::Result<()> {
    let (mut denied, mut fix) = (None, String::new());
    for Chapter { title, steps } in STORY {
        let heading = AnsiColor::BrightCyan.on_default().bold();
        say(&format!("\n{heading}{title}{heading:#}\n"))?;
        for step in *steps {
            let (text, change, expected) = match step {
                Step::Try(text, object, expected) => (text, Change::Apply(parse(object)?), *expected),
                Step::Delete(text, (kind, namespace, name), expected) => {
                    (text, Change::Delete(key(kind, namespace, name)), *expected)
                }
                Step::ApplyFix(text) => (text, Change::Apply(parse(&fix)?), Outcome::Allowed),
                Step::Again(text) => {
                    (text, denied.clone().context("nothing was denied before `Again`")?, Outcome::Allowed)
                }
            };
            let review = cluster.review(&change)?;
            let answer = gate.ask(&review).await?;
            say(&format!("\n{text}\n{}", show(&review, &answer)))?;
            let outcome = outcome(&answer);
            ensure!(outcome == expected, "expected this to be {expected:?}, but it was {outcome:?}");
            if outcome == Outcome::Denied {
                let message = answer["status"]["message"].as_str().unwrap_or_default();
                fix = message.find("apiVersion:").and_then(|at| message.get(at..)).unwrap_or_default().to_owned();
                denied = Some(change);
            } else {
                cluster.apply(&change)?;
                gate.wait_for("cluster reloaded")?;
            }
        }
    }
    say("\n")
}

#[derive(Clone)]
enum Change {
    Apply(Value),
    Delete(Key),
}

/// Kind, namespace, name.
type Key = (String, String, String);

fn key(kind: &str, namespace: &str, name: &str) -> Key {
    (kind.to_owned(), namespace.to_owned(), name.to_owned())
}

fn key_of(object: &Value) -> Key {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&object["kind"]), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

fn parse(yaml: &str) -> anyhow::Result<Value> {
    match portcullis::yaml::parse(yaml).as_slice() {
        [Ok(document)] => Ok(document.value()),
        other => bail!("expected one object, got {other:?}"),
    }
}

/// The cluster's objects, each in a file of its own that the gate reads.
struct ClusterFolder {
    path: PathBuf,
    objects: BTreeMap<Key, Value>,
}

impl ClusterFolder {
    fn copy(from: &Path, to: &Path) -> anyhow::Result<Self> {
        if to.exists() {
            std::fs::remove_dir_all(to)?;
        }
        std::fs::create_dir_all(to)?;
        let mut folder = Self { path: to.to_owned(), objects: BTreeMap::new() };
        for entry in std::fs::read_dir(from)? {
            let text = std::fs::read_to_string(entry?.path())?;
            for document in portcullis::yaml::parse(&text) {
                let document = document.map_err(|problem| anyhow::anyhow!("{}", problem.message))?;
                folder.apply(&Change::Apply(document.value()))?;
            }
        }
        Ok(folder)
    }

    fn apply(&mut self, change: &Change) -> anyhow::Result<()> {
        let file = |(kind, namespace, name): &Key| self.path.join(format!("{kind}_{namespace}_{name}.json"));
        match change {
            Change::Apply(object) => {
                let key = key_of(object);
                std::fs::write(file(&key), object.to_string())?;
                self.objects.insert(key, object.clone());
            }
            Change::Delete(key) => {
                std::fs::remove_file(file(key))?;
                self.objects.remove(key);
            }
        }
        Ok(())
    }

    /// The AdmissionReview an API server would send for a change.
    fn review(&self, change: &Change) -> anyhow::Result<Value> {
        let (object, old) = match change {
            Change::Apply(object) => (Some(object), self.objects.get(&key_of(object))),
            Change::Delete(key) => (None, Some(self.objects.get(key).context("there is nothing to delete")?)),
        };
        let operation = match (object, old) {
            (Some(_), None) => "CREATE",
            (Some(_), Some(_)) => "UPDATE",
            (None, _) => "DELETE",
        };
        let subject = object.or(old).context("a change is about an object")?;
        let (kind, namespace, name) = key_of(subject);
        let api_version = subject["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Ok(json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
                "kind": { "group": group, "version": version, "kind": kind },
                "resource": { "group": group, "version": version, "resource": format!("{}s", kind.to_lowercase()) },
                "name": name,
                "namespace": if kind == "Namespace" { name.clone() } else { namespace },
                "operation": operation,
                "userInfo": { "username": "jane@example.com", "groups": ["system:authenticated"] },
                "object": object,
                "oldObject": old,
                "dryRun": false
            }
        }))
    }
}

fn outcome(answer: &Value) -> Outcome {
    match (answer["allowed"].as_bool(), answer["warnings"].as_array()) {
        (Some(true), Some(warnings)) if !warnings.is_empty() => Outcome::Warned,
        (Some(true), _) => Outcome::Allowed,
        _ => Outcome::Denied,
    }
}

/// A change and what became of it, as kubectl would tell it.
fn show(review: &Value, answer: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let request = &review["request"];
    let (kind, namespace, name) = (text(&request["kind"]["kind"]), text(&request["namespace"]), text(&request["name"]));
    let place = if kind == "Namespace" { name } else { format!("{namespace}/{name}") };
    let mut out = format!("  {} {kind} {place}: ", text(&request["operation"]).to_lowercase());
    let (style, word) = match outcome(answer) {
        Outcome::Allowed => (AnsiColor::BrightGreen, "allowed"),
        Outcome::Warned => (AnsiColor::BrightYellow, "allowed, with a warning"),
        Outcome::Denied => (AnsiColor::BrightRed, "denied"),
    };
    let style = Style::new().fg_color(Some(style.into())).bold();
    let _ = writeln!(out, "{style}{word}{style:#}");
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "  Warning: {}", text(warning));
    }
    for line in text(&answer["status"]["message"]).lines() {
        let _ = writeln!(out, "{}", format!("  | {line}").trim_end());
    }
    out
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// A running `portcullis serve`.
struct Gate {
    process: Child,
    log: BufReader<ChildStderr>,
    address: String,
    tls: tokio_rustls::TlsConnector,
}

impl Gate {
    fn start(certificates: &Path, cluster: &Path) -> anyhow::Result<Self> {
        // Beside this example's own folder, where cargo puts the program.
        let program = std::env::current_exe()?.ancestors().nth(2).context("cargo's folders")?.join("portcullis");
        let mut process = Command::new(&program)
            .arg("serve")
            .args(["--listen", "127.0.0.1:0", "--operations", "127.0.0.1:0", "--log-format", "json"])
            .args(["--linger", "0", "--reload-every", "1", "--log-level", "info"])
            .arg("--cluster")
            .arg(cluster)
            .arg("--tls-cert")
            .arg(certificates.join("tls.crt"))
            .arg("--tls-key")
            .arg(certificates.join("tls.key"))
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{}` does not start: build it first", program.display()))?;
        let log = BufReader::new(process.stderr.take().context("the log is piped")?);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificates.join("ca.crt"))?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut gate = Self { process, log, address: String::new(), tls: Arc::new(tls).into() };
        let serving = gate.wait_for("serving")?;
        gate.address = serving["webhook"].as_str().context("the log says where it serves")?.to_owned();
        Ok(gate)
    }

    /// Reads the log up to a message.
    fn wait_for(&mut self, message: &str) -> anyhow::Result<Value> {
        let mut line = String::new();
        while self.log.read_line(&mut line)? > 0 {
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            if entry["message"] == message {
                return Ok(entry);
            }
            if entry["level"] == "ERROR" || entry.is_null() {
                bail!("the gate says: {line}");
            }
            line.clear();
        }
        bail!("the gate ended before it said `{message}`")
    }

    /// Sends one review over HTTPS.
    async fn ask(&self, review: &Value) -> anyhow::Result<Value> {
        let stream = tokio::net::TcpStream::connect(&self.address).await?;
        let stream = self.tls.connect(ServerName::try_from("localhost")?, stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::post("/validate?timeout=10s")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::<Bytes>::from(review.to_string()))?;
        let response = sender.send_request(request).await?;
        ensure!(response.status().is_success(), "the gate answers {}", response.status());
        let body = response.into_body().collect().await?.to_bytes();
        drop(sender);
        connection.await??;
        let mut answer: Value = serde_json::from_slice(&body)?;
        Ok(answer["response"].take())
    }

    fn stop(mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}
