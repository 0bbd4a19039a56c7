//! A namespace of its own for each test, on one API server, with an editor in it and one gate for
//! all: in force, and closed when it fails.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::OnceCell;

use crate::support::{BINARY, ControlPlane, Gate, Knows, Kubectl, Registration, Setup, Through, eventually};

/// What judges a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Restricted,
    Baseline,
}

impl Profile {
    /// The name of its registration, and the label of the namespaces it is asked about.
    const fn name(self) -> &'static str {
        match self {
            Self::Restricted => "restricted",
            Self::Baseline => "baseline",
        }
    }

    async fn gate(self) -> &'static Gate {
        static RESTRICTED: OnceCell<Gate> = OnceCell::const_new();
        static BASELINE: OnceCell<Gate> = OnceCell::const_new();
        let cell = match self {
            Self::Restricted => &RESTRICTED,
            Self::Baseline => &BASELINE,
        };
        let started = async || {
            let plane = plane().await;
            let config = format!("profile: {}", self.name());
            let cluster = Knows::Live(plane.kubeconfig());
            let gate = Gate::start(Setup { cluster, config: &config, ..Setup::default() }).await;
            Registration::new(plane, &gate, Through::Url, self.name()).await;
            gate
        };
        cell.get_or_init(started).await
    }
}

/// The control plane, with the marks of a mesh whose root is not where it is looked for first. An editor
/// of a namespace may edit what Istio has in it.
async fn plane() -> &'static ControlPlane {
    static FURNISHED: OnceCell<&ControlPlane> = OnceCell::const_new();
    let furnished = async || {
        let plane = ControlPlane::shared().await;
        plane.apply(ISTIO).await;
        plane
    };
    FURNISHED.get_or_init(furnished).await
}

/// Besides the role, what only the cluster's own people may write: the mesh's configuration and the
/// injector's webhook, which nothing answers here.
const ISTIO: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: istio-editor, labels: {rbac.authorization.k8s.io/aggregate-to-edit: 'true'}}
rules: [{apiGroups: [security.istio.io], resources: [peerauthentications], verbs: ['*']}]
---
{apiVersion: v1, kind: Namespace, metadata: {name: aks-istio-system}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: aks-istio-system}, data: {mesh: 'rootNamespace: aks-istio-system'}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: istio-sidecar-injector, labels: {app: sidecar-injector, istio.io/rev: default}}
webhooks:
- name: namespace.sidecar-injector.istio.io
  clientConfig: {service: {name: istiod, namespace: aks-istio-system, path: /inject, port: 443}}
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  namespaceSelector: {matchLabels: {istio-injection: enabled}}
  rules: [{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}]
";

/// Pods are isolated in it and resolve names.
pub(crate) const CLOSED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: $ns}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-dns, namespace: $ns}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]
    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
";

/// A workload behind the policies.
pub(crate) const CART: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: $ns}
spec:
  selector: {matchLabels: {app: cart}}
  template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: cart, image: example.com/cart, ports: [{containerPort: 8080}]}]}}
";

/// Mutual TLS is demanded of what runs in it.
pub(crate) const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: $ns}
spec: {mtls: {mode: STRICT}}
";

/// A namespace that the gate guards.
pub(crate) struct Shop {
    pub(crate) plane: &'static ControlPlane,
    pub(crate) gate: &'static Gate,
    pub(crate) name: String,
}

impl Shop {
    /// One that `restricted` guards, closed by default, with a workload in it.
    pub(crate) async fn closed(name: &str) -> Self {
        Self::standing(Profile::Restricted, name, "", &[CLOSED, CART].join("\n---\n")).await
    }

    /// One whose pods are members of a mesh that demands mutual TLS.
    pub(crate) async fn in_mesh(name: &str) -> Self {
        Self::standing(Profile::Restricted, name, "istio-injection: enabled", &[CLOSED, CART, STRICT].join("\n---\n"))
            .await
    }

    /// One with these labels, in which these objects stood before the gate was asked about it. `$ns`
    /// stands for its name.
    pub(crate) async fn standing(profile: Profile, name: &str, labels: &str, objects: &str) -> Self {
        let (plane, gate) = (plane().await, profile.gate().await);
        Self::guarded_by(plane, gate, profile.name(), name, labels, objects).await
    }

    /// One with a gate of its own, which does not take the others' with it.
    pub(crate) async fn alone(name: &str, objects: &str) -> Self {
        let plane = plane().await;
        let cluster = Knows::Live(plane.kubeconfig());
        let gate = Gate::start(Setup { cluster, config: "profile: restricted", ..Setup::default() }).await;
        Registration::new(plane, &gate, Through::Url, name).await;
        // It ends with this process, as the shared ones do.
        Self::guarded_by(plane, Box::leak(Box::new(gate)), name, name, "", objects).await
    }

    async fn guarded_by(
        plane: &'static ControlPlane,
        gate: &'static Gate,
        registration: &str,
        name: &str,
        labels: &str,
        objects: &str,
    ) -> Self {
        let shop = Self { plane, gate, name: name.to_owned() };
        let namespace = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: $ns, labels: {{{labels}}}}}}}");
        let editor = "
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: editors, namespace: $ns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: editor}
- {kind: ServiceAccount, name: operator, namespace: operators}
- {kind: ServiceAccount, name: default, namespace: $ns}";
        let all = [namespace.as_str(), editor, objects].join("\n---\n");
        plane.apply(&shop.named(&all)).await;
        let guarded = shop.kubectl("admin", &format!("label namespace $ns gate={registration}"), "").await;
        assert!(guarded.succeeded, "{guarded:?}");
        eventually("the editor may edit, and the gate is asked", async || {
            let reviews = shop.gate.reviews().await;
            let said = shop.editor("create --dry-run=server -f -", WIDE).await;
            (!said.stderr.contains("cannot create") && shop.gate.reviews().await > reviews).then_some(())
        })
        .await;
        shop
    }

    /// Waits until the gate knows a workload, by what it says of the deletion of the default-deny.
    pub(crate) async fn knows(&self, workload: &str) {
        eventually(format!("the gate knows {workload}"), async || {
            let said = self.editor("delete networkpolicy default-deny --namespace=$ns --dry-run=server", "").await;
            said.stderr.contains(workload).then_some(())
        })
        .await;
    }

    /// Asserts that the gate denies what an editor asks, and is never silent about it: where a machine is
    /// too busy for the fresh read that a denial takes, it is a warning that says so.
    pub(crate) async fn denies(&self, command: &str, input: &str, code: &str) {
        eventually(format!("{command} is denied"), async || {
            let said = self.editor(&format!("{command} --dry-run=server"), input).await;
            assert!(said.stderr.contains(&format!("[{code} ")), "{code} should have something to say: {said:?}");
            (!said.succeeded).then_some(())
        })
        .await;
    }

    pub(crate) fn named(&self, text: &str) -> String {
        text.replace("$ns", &self.name)
    }

    /// Runs kubectl as somebody with the role `edit` in this namespace, and no other.
    pub(crate) async fn editor(&self, command: &str, input: &str) -> Kubectl {
        self.kubectl("editor", command, input).await
    }

    /// Runs kubectl as the account of an operator, which runs in another namespace and may do here what
    /// an editor may.
    pub(crate) async fn operator(&self, command: &str, input: &str) -> Kubectl {
        self.kubectl("system:serviceaccount:operators:operator", command, input).await
    }

    /// Runs kubectl as the namespace's own default account, as which an editor may act.
    pub(crate) async fn own_account(&self, command: &str, input: &str) -> Kubectl {
        self.kubectl(&self.named("system:serviceaccount:$ns:default"), command, input).await
    }

    /// Runs kubectl as the one who runs the cluster.
    pub(crate) async fn admin(&self, command: &str, input: &str) -> Kubectl {
        self.kubectl("admin", command, input).await
    }

    async fn kubectl(&self, user: &str, command: &str, input: &str) -> Kubectl {
        let (command, input) = (self.named(command), self.named(input));
        let user = (user != "admin").then(|| format!("--as={user}"));
        // What is quoted in a patch holds no blanks.
        let words = user.iter().map(String::as_str).chain(command.split_whitespace());
        self.plane.kubectl(words, &input).await
    }
}

/// What `restricted` and `baseline` have to say something about anywhere.
const WIDE: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: asked, namespace: $ns}, spec: {podSelector: {}, ingress: [{}]}}";

/// Asserts that the gate denied it.
#[track_caller]
pub(crate) fn denied(said: &Kubectl, code: &str) {
    let is_denied = said.stderr.contains("denied the request") && said.stderr.contains(&format!("[{code} "));
    assert!(!said.succeeded && is_denied, "{code} should deny: {said:?}");
}

/// Asserts that the gate denied it, or warned of it.
#[track_caller]
pub(crate) fn told(said: &Kubectl) {
    let is_told = said.stderr.contains("denied the request") || said.stderr.contains("Warning: [");
    assert!(is_told, "the gate should deny this or warn of it: {said:?}");
}

/// Asserts that it was done, and that the gate had nothing against it.
#[track_caller]
pub(crate) fn done(said: &Kubectl) {
    assert!(said.succeeded, "this should be let through: {said:?}");
}

/// A registration with these arguments of `portcullis webhook`, of a gate that is not there.
pub(crate) fn registration(plane: &ControlPlane, name: &str, arguments: &[&str]) -> serde_json::Value {
    let mut command = Command::new(BINARY);
    command.args(["webhook", "--output", "json", "--name", name, "--ca-file"]).arg(plane.authority()).args(arguments);
    let printed = command.output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
    serde_json::from_slice(&printed.stdout).unwrap()
}

/// Bytes as a `caBundle` holds them.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
