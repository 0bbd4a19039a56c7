//! A release on a control plane of its own, with replicas of the gate as processes: each is started as
//! the Deployment says, with the rights of the release's service account.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::helm::{chart, helm};
use crate::load::Balancer;
use crate::support::{Certificate, ControlPlane, Folder, Gate, Knows, Setup, eventually};

/// Helm with these words on this control plane; it must succeed.
pub(crate) async fn on(plane: &ControlPlane, words: &[&str]) -> String {
    let kubeconfig = plane.kubeconfig().to_str().unwrap().to_owned();
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let all = words.clone().into_iter().chain(["--kubeconfig".to_owned(), kubeconfig]);
    let said = tokio::task::spawn_blocking(move || helm(all)).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "helm {}:\n{out}\n{err}", words.join(" "));
    out.into_owned()
}

/// The webhook configuration, if it is there.
pub(crate) async fn webhook(plane: &ControlPlane) -> Option<Value> {
    let said = plane.kubectl(["get", "validatingwebhookconfigurations", "portcullis", "-o", "json"], "").await;
    said.succeeded.then(|| serde_json::from_str(&said.stdout).unwrap())
}

/// An object in the release's namespace, or of the cluster; null where there is none.
pub(crate) async fn get(plane: &ControlPlane, kind: &str, name: &str) -> Value {
    let said = plane.kubectl(["get", kind, name, "-n", "portcullis", "-o", "json"], "").await;
    serde_json::from_str(&said.stdout).unwrap_or_default()
}

/// A release called `portcullis`, in a namespace of that name.
pub(crate) struct Release {
    pub(crate) plane: ControlPlane,
    /// With it a client may do what the gate may do.
    pub(crate) kubeconfig: PathBuf,
    pub(crate) gates: Vec<Gate>,
    balancer: Balancer,
    /// How many replicas were started.
    begun: usize,
    _folder: Folder,
}

impl Release {
    /// Installs the chart, with two replicas that are ready.
    pub(crate) async fn installed(plane: ControlPlane) -> Self {
        let chart = chart();
        let install =
            ["install", "portcullis", chart.to_str().unwrap(), "--namespace=portcullis", "--create-namespace"];
        on(&plane, &install).await;
        let token = plane.kubectl(["create", "token", "portcullis", "-n", "portcullis"], "").await.stdout;
        let mut kubeconfig: Value =
            serde_json::from_str(&std::fs::read_to_string(plane.kubeconfig()).unwrap()).unwrap();
        kubeconfig["users"][0]["user"] = json!({ "token": token.trim() });
        let folder = Folder::new("portcullis-chart-");
        let kubeconfig = folder.write("gate.kubeconfig", kubeconfig.to_string());
        let service = get(&plane, "service", "portcullis").await;
        let address: IpAddr = service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
        let balancer = Balancer::new(SocketAddr::new(address, 443)).await;
        let mut release = Self { plane, kubeconfig, gates: Vec::new(), balancer, begun: 0, _folder: folder };
        release.add(None).await;
        release.add(None).await;
        release
    }

    /// Upgrades the release to these values and no others.
    pub(crate) async fn upgrade(&self, words: &[&str]) -> String {
        let chart = chart();
        let upgrade = ["upgrade", "portcullis", chart.to_str().unwrap(), "--namespace=portcullis", "--reset-values"];
        on(&self.plane, &[&upgrade[..], words].concat()).await
    }

    /// Waits until what no gate answers is refused.
    pub(crate) async fn fails_closed(&self) {
        self.has_failure_policy("Fail").await;
    }

    /// Waits until the gates have set this failure policy.
    pub(crate) async fn has_failure_policy(&self, policy: &str) {
        eventually(format!("the failure policy is {policy}"), async || {
            (webhook(&self.plane).await?["webhooks"][0]["failurePolicy"] == policy).then_some(())
        })
        .await;
    }

    /// Starts a replica as the Deployment says, at an address of its own. What it would find in the
    /// Secret that is mounted, the certificate stands for.
    pub(crate) async fn begin(&mut self, certificate: Option<&Certificate>) -> Gate {
        self.begun += 1;
        let identity = format!("replica-{}", self.begun);
        let deployment = get(&self.plane, "deployment", "portcullis").await;
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        // What is the machine's and not the release's.
        let own = ["--config", "--listen", "--operations", "--linger", "--tls-cert", "--tls-key"];
        let words = container["args"].as_array().unwrap().iter().skip(1).map(|word| word.as_str().unwrap());
        let words = words.filter(|word| !own.iter().any(|own| word.starts_with(&format!("{own}="))));
        let words: Vec<&str> = words.flat_map(|word| word.splitn(2, '=')).collect();
        assert_eq!(words.contains(&"--certificate-secret"), certificate.is_none(), "{words:?}");
        let more = ["--linger", "1", "--namespace", "portcullis", "--identity", &identity];
        let arguments: Vec<&str> = words.into_iter().chain(more).collect();
        let config = get(&self.plane, "configmap", "portcullis").await["data"]["portcullis.yaml"].clone();
        let cluster = Knows::Live(&self.kubeconfig);
        let config = config.as_str().unwrap();
        Gate::begin(Setup { cluster, config, arguments: &arguments, certificate, ..Setup::default() }).await
    }

    /// A replica more, behind the Service once it is ready.
    async fn add(&mut self, certificate: Option<&Certificate>) {
        let gate = self.begin(certificate).await;
        gate.is_ready().await;
        self.balancer.add(&gate);
        self.gates.push(gate);
    }

    /// Replaces the replicas one by one, as a Deployment does with `maxUnavailable: 0`.
    pub(crate) async fn replace(&mut self, certificate: Option<&Certificate>) {
        for _ in 0..self.gates.len() {
            self.add(certificate).await;
            assert!(self.gates.remove(0).stop().await.success());
        }
    }
}
