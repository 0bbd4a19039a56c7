//! Through a real API server: what a create costs with the gate asked, against none asked and
//! against the floor; how soon the gate is ready, and what it takes up.
//!
//! Creates are dry runs (`dryRun=All`), so that all of them meet the same cluster. The three take
//! turns, create by create, so that what else the machine does meets them alike.
//!
//! ```text
//! cargo bench --bench api_server [-- --creates 2000]
//! ```

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark that fails may stop where it stands, and printing is what it is for"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a place among a few thousand times"
)]
#![allow(dead_code, unused_imports, reason = "the control plane's support serves tests as well")]

#[path = "../control_plane/support/mod.rs"]
mod support;

mod floor;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use floor::Result;
use support::{ControlPlane, Gate, Knows, Registration, Setup, Through, eventually};

const NAMESPACES: usize = 1_000;
const PODS: usize = 10;

fn main() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new()?;
    match words.as_slice() {
        ["floor", folder] => floor::serve(Path::new(folder)),
        ["--creates", creates] => runtime.block_on(compare(creates.parse()?)),
        _ => runtime.block_on(compare(2_000)),
    }
}

async fn compare(creates: usize) -> Result {
    let plane = ControlPlane::new().await;
    let begun = Instant::now();
    drop(live(&plane).await);
    let ready = begun.elapsed();

    populate(&plane).await?;
    let gate = live(&plane).await;
    Registration::new(&plane, &gate, Through::Url, "ours").await;
    let floor = Floor::start()?;
    floor.register(&plane).await?;
    plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: nobody-in-force}}").await;
    // Each registration has a namespace of its own that is sent there; the last is sent nowhere.
    let namespaces = ["ours-in-force", "floor-in-force", "nobody-in-force"];

    let client = plane.client().await;
    let mut times: [Vec<Duration>; 3] = Default::default();
    for number in 0..creates + creates / 10 {
        for turn in 0..3 {
            let at = (number + turn) % 3;
            let took = create(&client, namespaces[at]).await?;
            // The first tenth warms everything up.
            if number >= creates / 10 {
                times[at].push(took);
            }
        }
    }
    for times in &mut times {
        times.sort_unstable();
    }
    let at = |times: &[Duration], share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    let [ours, floor_times, none] = &times;
    println!("{creates} dry-run creates of a NetworkPolicy each, in turns, through the API server");
    println!("{:<18}{:>12}{:>12}{:>12}", "µs", "portcullis", "floor", "no webhook");
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        println!("{name:<18}{:>12.0}{:>12.0}{:>12.0}", at(ours, share), at(floor_times, share), at(none, share));
    }
    let added = |times: &[Duration]| at(times, 0.5) - at(none, 0.5);
    println!("{:<18}{:>12.0}{:>12.0}", "added p50", added(ours), added(floor_times));
    println!("{:<18}{:>12.2}   (of the added p50, to the floor's)", "ratio", added(ours) / added(floor_times));
    let (sum, count) = (
        gate.metric("portcullis_review_duration_seconds_sum", "").await,
        gate.metric("portcullis_review_duration_seconds_count", "").await,
    );
    println!(
        "{:<18}{:>12.0}   (within the gate, from a review's last byte to its answer, mean)",
        "of that µs",
        sum / count * 1e6
    );
    println!("start to ready, on an empty cluster: {:.0} ms", ready.as_secs_f64() * 1e3);
    println!(
        "most memory held, with {} pods in {NAMESPACES} namespaces: {} MiB",
        NAMESPACES * PODS,
        gate.peak_memory()
    );
    Ok(())
}

async fn live(plane: &ControlPlane) -> Gate {
    Gate::start(Setup { cluster: Knows::Live(plane.kubeconfig()), ..Setup::default() }).await
}

/// Fills the cluster: each namespace with a default-deny that lets names be resolved, and pods.
async fn populate(plane: &ControlPlane) -> Result {
    let client = plane.client().await;
    let resource = |group: &str, kind: &str, plural: &str| ApiResource {
        group: group.to_owned(),
        version: "v1".to_owned(),
        api_version: if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    let namespaces = resource("", "Namespace", "namespaces");
    let policies = resource("networking.k8s.io", "NetworkPolicy", "networkpolicies");
    let pods = resource("", "Pod", "pods");
    let put = async |resource: &ApiResource, namespace: Option<&str>, object: Value| -> Result {
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
            None => Api::all_with(client.clone(), resource),
        };
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(())
    };
    let put = &put;
    let fill = async |number: usize| -> Result {
        let namespace = format!("tenant-{number:04}");
        put(&namespaces, None, json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }))
            .await?;
        put(&policies, Some(&namespace), policy("default-deny")).await?;
        for pod in 0..PODS {
            let app = format!("app-{pod}");
            let object = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": app, "labels": { "app": app, "tenant": namespace } },
                "spec": { "containers": [
                    { "name": "app", "image": "example.com/app:1", "ports": [{ "name": "http", "containerPort": 8080 }] },
                    { "name": "proxy", "image": "example.com/proxy:1" },
                ] },
            });
            put(&pods, Some(&namespace), object).await?;
        }
        Ok(())
    };
    plane.apply(support::DNS).await;
    let begun = Instant::now();
    let filled = futures::stream::iter((0..NAMESPACES).map(fill)).buffer_unordered(16);
    filled.try_collect::<()>().await?;
    eprintln!("{} pods in {NAMESPACES} namespaces created in {:.0?}", NAMESPACES * PODS, begun.elapsed());
    Ok(())
}

fn policy(name: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": name, "labels": { "app.kubernetes.io/part-of": "shop" } },
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "egress": [{
                "to": [{
                    "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
                    "podSelector": { "matchLabels": { "k8s-app": "kube-dns" } },
                }],
                "ports": [{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }],
            }],
        },
    })
}

/// How long a create takes, to its answer.
async fn create(client: &kube::Client, namespace: &str) -> Result<Duration> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let policy: NetworkPolicy = serde_json::from_value(policy("default-deny"))?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let begun = Instant::now();
    api.create(&dry_run, &policy).await?;
    Ok(begun.elapsed())
}

/// The floor as a process.
struct Floor {
    child: Child,
    folder: PathBuf,
    address: String,
}

impl Floor {
    fn start() -> Result<Self> {
        let folder = floor::certificates()?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["floor", &folder.display().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut address)?;
        Ok(Self { child, folder, address: address.trim().to_owned() })
    }

    /// Registers it by the gate's own registration, match conditions included, so that only what
    /// answers differs; and waits until it is asked.
    async fn register(&self, plane: &ControlPlane) -> Result {
        let printed = Command::new(support::BINARY)
            .args(["webhook", "--output", "json", "--name", "floor", "--url"])
            .arg(format!("https://{}", self.address))
            .arg("--ca-file")
            .arg(self.folder.join("ca.crt"))
            .output()?;
        let mut webhook: Value = serde_json::from_slice(&printed.stdout)?;
        let entry = &mut webhook["webhooks"][0];
        entry["name"] = json!("floor.portcullis.dev");
        entry["namespaceSelector"]["matchLabels"] = json!({ "gate": "floor" });
        // The namespace first: the floor reads nothing but policies.
        plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: floor-in-force, labels: {gate: floor}}}").await;
        plane.apply(&webhook.to_string()).await;
        // The API server counts what it asks whom.
        let client = plane.client().await;
        eventually("the floor is asked", async || {
            create(&client, "floor-in-force").await.ok()?;
            let metrics = client.request_text(hyper::Request::get("/metrics").body(Vec::new()).ok()?).await.ok()?;
            let mut counts =
                metrics.lines().filter(|line| line.starts_with("apiserver_admission_webhook_request_total"));
            counts.any(|line| line.contains("floor.portcullis.dev")).then_some(())
        })
        .await;
        Ok(())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It also ends by itself when its input does.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
