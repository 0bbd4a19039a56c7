//! `portcullis serve` as a process, and its registration with an API server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, PostParams};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Authority, ControlPlane, Folder, LONG, Process, eventually};

/// The program. Cargo says where it is to tests and benches, and to examples nothing.
pub(crate) const BINARY: &str = match option_env!("CARGO_BIN_EXE_portcullis") {
    Some(path) => path,
    None => concat!(env!("CARGO_MANIFEST_DIR"), "/target/debug/portcullis"),
};

/// What a gate is started with.
pub(crate) struct Setup<'a> {
    /// What it knows the cluster by.
    pub(crate) cluster: Knows<'a>,
    /// Its configuration, as YAML.
    pub(crate) config: &'a str,
    /// Further arguments of `portcullis serve`.
    pub(crate) arguments: &'a [&'a str],
    /// Where it listens; else an address of its own.
    pub(crate) listen: Option<SocketAddr>,
    /// The folder with its certificate; else a new one.
    pub(crate) certificate: Option<&'a Certificate>,
}

/// What a gate knows the cluster by.
pub(crate) enum Knows<'a> {
    /// Manifests that are the cluster, exactly.
    Manifests(&'a str),
    /// The API server this kubeconfig leads to.
    Live(&'a std::path::Path),
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { cluster: Knows::Manifests(""), config: "", arguments: &[], listen: None, certificate: None }
    }
}

/// A certificate as the gate is given it: in files, which may be replaced.
pub(crate) struct Certificate {
    authority: Authority,
    names: Vec<String>,
    folder: Folder,
}

impl Certificate {
    /// A new one for addresses, and for every Service [`Registration`] makes.
    pub(crate) fn new(addresses: &[IpAddr]) -> Self {
        let addresses = addresses.iter().map(ToString::to_string);
        Self::named(addresses.chain([format!("*.{SERVICES}.svc")]).collect())
    }

    /// A new one for these names.
    pub(crate) fn named(names: Vec<String>) -> Self {
        let certificate = Self { authority: Authority::new(), names, folder: Folder::new("portcullis-certificate-") };
        certificate.renew();
        certificate
    }

    /// Puts another certificate and key in place of those in the files: of the same authority, for
    /// the same names.
    pub(crate) fn renew(&self) {
        let (certificate, key) = self.authority.issue(&self.names);
        for (name, text) in [("tls.crt", certificate), ("tls.key", key)] {
            let new = self.folder.write(&format!("{name}.new"), text);
            std::fs::rename(new, self.folder.join(name)).unwrap();
        }
    }

    /// The authority to trust, as PEM.
    pub(crate) fn authority(&self) -> String {
        self.authority.pem()
    }
}

/// A running gate. It ends when it is dropped.
pub(crate) struct Gate {
    /// Where reviews are answered.
    pub(crate) webhook: SocketAddr,
    /// Where probes and metrics are answered.
    pub(crate) operations: SocketAddr,
    process: Process,
    /// Its files: `ca.crt`, `config.yaml`, `cluster/`, `portcullis.log`. Dropped last.
    folder: Folder,
    _certificate: Option<Certificate>,
}

impl Gate {
    /// Starts one and waits until it is ready.
    pub(crate) async fn start(setup: Setup<'_>) -> Self {
        let gate = Self::begin(setup).await;
        gate.is_ready().await;
        gate
    }

    /// Waits until it is ready.
    pub(crate) async fn is_ready(&self) {
        eventually("the gate is ready", async || (self.get("/readyz").await?.0 == 200).then_some(())).await;
    }

    /// Starts one and waits until it listens.
    pub(crate) async fn begin(setup: Setup<'_>) -> Self {
        let Setup { cluster, config, arguments, listen, certificate } = setup;
        let listen = listen.unwrap_or_else(|| SocketAddr::new(own_address(), 0));
        let own = certificate.is_none().then(|| Certificate::new(&[listen.ip()]));
        let certificate = certificate.or(own.as_ref()).unwrap();

        let folder = Folder::new("portcullis-gate-");
        let mut command = Command::new(BINARY);
        command.arg("serve").args(["--log-format", "json", "--reload-every", "1", "--operations", "127.0.0.1:0"]);
        command.arg("--listen").arg(listen.to_string());
        // One that issues its own is given none.
        if !arguments.contains(&"--certificate-secret") {
            command.arg("--tls-cert").arg(certificate.folder.join("tls.crt"));
            command.arg("--tls-key").arg(certificate.folder.join("tls.key"));
        }
        command.arg("--config").arg(folder.write("config.yaml", config));
        folder.write("ca.crt", certificate.authority());
        match cluster {
            Knows::Manifests(manifests) => {
                std::fs::create_dir(folder.join("cluster")).unwrap();
                folder.write("cluster/cluster.yaml", manifests);
                command.arg("--cluster").arg(folder.join("cluster"));
            }
            Knows::Live(kubeconfig) => {
                command.arg("--kubeconfig").arg(kubeconfig);
            }
        }
        command.args(arguments);
        let mut process = Process::spawn("portcullis", &mut command, folder.join("portcullis.log"));
        let serving = eventually("the gate serves", async || {
            process.assert_running();
            logged(&process.output(), "serving").next()
        })
        .await;
        let address = |field: &str| serving[field].as_str().unwrap().parse().unwrap();
        let (webhook, operations) = (address("webhook"), address("operations"));
        Self { webhook, operations, process, folder, _certificate: own }
    }

    /// Puts another configuration in place of the one it runs with.
    pub(crate) fn configure(&self, config: &str) {
        self.folder.write("config.yaml", config);
    }

    /// The log's lines with this message.
    pub(crate) fn logged(&self, message: &str) -> Vec<serde_json::Value> {
        logged(&self.process.output(), message).collect()
    }

    /// Status and body of a page of the operations port; nothing if there is no answer.
    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.operations, path).await
    }

    /// The sum of a metric over the series whose labels contain this text.
    pub(crate) async fn metric(&self, name: &str, labels: &str) -> f64 {
        let (_, page) = self.get("/metrics").await.expect("metrics are served");
        let series =
            page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        let values = series.filter(|line| line.contains(labels)).map(|line| line.rsplit(' ').next().unwrap());
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    /// Reviews it has answered.
    pub(crate) async fn reviews(&self) -> f64 {
        self.metric("portcullis_reviews_total", "").await
    }

    /// The authority its certificate is of, as PEM.
    pub(crate) fn authority(&self) -> String {
        std::fs::read_to_string(self.folder.join("ca.crt")).unwrap()
    }

    /// The most memory it has held so far, in MiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Fails with the end of its log if it has ended.
    pub(crate) fn assert_running(&mut self) {
        self.process.assert_running();
    }

    /// Sends a signal such as `STOP`.
    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Sends SIGTERM and waits until it has ended.
    pub(crate) async fn stop(self) -> ExitStatus {
        let Self { process, folder, .. } = self;
        let status = tokio::task::spawn_blocking(|| process.stop(LONG)).await.unwrap();
        drop(folder);
        status
    }
}

/// Status and body of a page in plain HTTP; nothing if there is no answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The lines of a log with this message.
fn logged(log: &str, message: &str) -> impl Iterator<Item = serde_json::Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter(move |line| line["message"] == message)
}

/// An address for a gate, within the range of the addresses of Services: what listens there is
/// reached as a Service, with nothing that routes.
pub(crate) fn own_address() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below is the Service of the API server itself, and other processes run tests too.
    let number = (u16::try_from(std::process::id() % 1000).unwrap() + 1) * 64 + NEXT.fetch_add(1, Ordering::Relaxed);
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 96, high, low).into()
}

/// How an API server reaches a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Through {
    /// By its URL. It speaks HTTP/2 then.
    Url,
    /// By a Service. It speaks HTTP/1.1 then, as it does in nearly every cluster.
    Service,
}

/// Where the Services are.
const SERVICES: &str = "gates";

/// A webhook that an API server asks about namespaces with the label `gate: NAME`.
pub(crate) struct Registration;

impl Registration {
    /// Registers a gate and waits until it is asked.
    pub(crate) async fn new(plane: &ControlPlane, gate: &Gate, through: Through, name: &str) -> Self {
        Self::at(plane, &[gate], gate.webhook, through, name).await
    }

    /// Registers gates that are reached at this address, and waits until one of them is asked.
    pub(crate) async fn at(
        plane: &ControlPlane,
        gates: &[&Gate],
        address: SocketAddr,
        through: Through,
        name: &str,
    ) -> Self {
        let target = match through {
            Through::Url => ["--url".to_owned(), format!("https://{address}")],
            Through::Service => {
                plane.apply(&service(name, address)).await;
                ["--service".to_owned(), format!("{SERVICES}/{name}:{}", address.port())]
            }
        };
        let mut command = Command::new(BINARY);
        command.args(["webhook", "--output", "json", "--name", name, "--ca-file"]);
        command.arg(gates[0].folder.join("ca.crt")).arg("--config").arg(gates[0].folder.join("config.yaml"));
        let printed = command.args(target).output().unwrap();
        assert!(printed.status.success(), "{printed:?}");
        let mut webhook: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
        for entry in webhook["webhooks"].as_array_mut().unwrap() {
            entry["namespaceSelector"]["matchLabels"] = serde_json::json!({ "gate": name });
        }
        let namespace = format!("{name}-in-force");
        let labelled = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": { "name": namespace, "labels": { "gate": name } },
        });
        plane.apply(&format!("{labelled}\n---\n{webhook}")).await;
        let reviews = async || {
            let mut sum = 0.0;
            for gate in gates {
                sum += gate.reviews().await;
            }
            sum
        };
        let before = reviews().await;
        let policies: Api<NetworkPolicy> = Api::namespaced(plane.client().await, &namespace);
        let policy = serde_json::json!({ "metadata": { "name": "asked" }, "spec": { "podSelector": {} } });
        let policy = serde_json::from_value(policy).unwrap();
        let dry_run = PostParams { dry_run: true, ..Default::default() };
        eventually(format!("the gate is asked {through:?}"), async || {
            let _ = policies.create(&dry_run, &policy).await;
            (reviews().await > before).then_some(())
        })
        .await;
        Self
    }
}

/// A Service with this very address. What `targetPort` says is not looked at by an API server.
fn service(name: &str, address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {SERVICES}}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {SERVICES}}}, spec: {{clusterIP: {ip}, ports: [{{port: {port}}}]}}}}"
    )
}
