//! Istio comes while the gate runs, on a control plane of its own: definitions are the cluster's.

use serde_json::{Value, json};

use super::create;
use crate::support::{ControlPlane, Gate, Knows, Kubectl, Registration, Setup, Through, eventually};

/// How readiness names what Istio brings.
const NAME: &str = "peerauthentications.security.istio.io";

fn authentication(name: &str, mode: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": { "name": name, "namespace": "shop" },
        "spec": { "mtls": { "mode": mode } },
    })
}

/// Whether something was denied as plaintext.
#[track_caller]
fn denied(said: &Kubectl) {
    let is_denied = said.stderr.contains("denied the request") && said.stderr.contains("[MT001 ");
    assert!(!said.succeeded && is_denied, "{said:?}");
}

/// A namespace whose pods would join a mesh, and one of them: where nothing runs, cleaning up is let go.
const SHOP: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {gate: mesh, istio-injection: enabled}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  egress: [{ports: [{port: 53, protocol: UDP}, {port: 53}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: cart, image: example.com/cart}]}}
";

/// A control plane with a gate, and a namespace whose pods would join a mesh.
async fn before_istio() -> (ControlPlane, Gate) {
    let plane = ControlPlane::new().await;
    let gate = Gate::start(Setup { cluster: Knows::Live(plane.kubeconfig()), ..Setup::default() }).await;
    Registration::new(&plane, &gate, Through::Url, "mesh").await;
    let (_, ready) = gate.get("/readyz?verbose").await.unwrap();
    assert!(ready.contains(&format!("[+]{NAME} ok: not installed\n")), "{ready}");
    plane.apply(SHOP).await;
    eventually("the gate knows what runs", async || {
        (gate.metric("portcullis_objects", "Workload").await > 0.0).then_some(())
    })
    .await;
    (plane, gate)
}

async fn is_noticed(gate: &Gate) {
    eventually("the gate has noticed Istio", async || {
        let (status, ready) = gate.get("/readyz?verbose").await?;
        assert_eq!(status, 200, "what is optional is never waited for: {ready}");
        ready.contains(&format!("[+]{NAME} ok\n")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn istio_installed_while_the_gate_runs_is_guarded_from_then_on() {
    let (plane, gate) = before_istio().await;
    plane.install_peer_authentications().await;
    is_noticed(&gate).await;

    let client = plane.client().await;
    let oldest = create(&client, authentication("zeal", "STRICT")).await.unwrap();
    // What counts between two of a namespace is the time, which has whole seconds, and only then the
    // name.
    eventually("the next second", async || {
        let now = plane.kubectl(["create", "namespace", "now", "--dry-run=server", "--output=json"], "").await;
        let now: Value = serde_json::from_str(&now.stdout).unwrap();
        let created = serde_json::to_value(&oldest.metadata.creation_timestamp).unwrap();
        (now["metadata"]["creationTimestamp"] != created).then_some(())
    })
    .await;
    create(&client, authentication("ease", "PERMISSIVE")).await.unwrap();

    let patch = r#"--patch={"spec":{"mtls":{"mode":"PERMISSIVE"}}}"#;
    for words in [
        &["patch", "pa", "zeal", "--type=merge", patch][..],
        &["patch", "pa", "zeal", "--type=json", r#"--patch=[{"op":"remove","path":"/spec/mtls"}]"#],
        &["delete", "pa", "zeal"],
        &["label", "namespace", "shop", "istio-injection-"],
    ] {
        denied(&plane.kubectl(words.iter().chain(&["--namespace=shop"]), "").await);
    }
    eventually("the gate says which one would wake", async || {
        let said = plane.kubectl(["delete", "pa", "zeal", "--namespace=shop"], "").await;
        denied(&said);
        said.stderr.contains("`PeerAuthentication shop/ease`").then_some(())
    })
    .await;
    // In its shadow, the younger one is of no effect.
    let deleted = plane.kubectl(["delete", "pa", "ease", "--namespace=shop"], "").await;
    assert!(deleted.succeeded, "{deleted:?}");
    denied(&plane.kubectl(["delete", "pa", "zeal", "--namespace=shop"], "").await);
}

#[tokio::test]
async fn istio_too_old_for_the_version_of_today_is_guarded_all_the_same() {
    let (plane, gate) = before_istio().await;
    plane.install_peer_authentications().await;
    let only_beta = r#"--patch=[{"op":"replace","path":"/spec/versions/0/served","value":false}]"#;
    let patched = plane.kubectl(["patch", "crd", NAME, "--type=json", only_beta], "").await;
    assert!(patched.succeeded, "{patched:?}");
    let strict = "{apiVersion: security.istio.io/v1beta1, kind: PeerAuthentication, metadata: {name: default, namespace: shop}, spec: {mtls: {mode: STRICT}}}";
    eventually("the older version alone is served", async || {
        let only = plane.kubectl(["get", "--raw", "/apis/security.istio.io"], "").await;
        (only.succeeded && !only.stdout.contains("security.istio.io/v1\"")).then_some(())
    })
    .await;
    plane.apply(strict).await;
    eventually("the gate knows the object", async || {
        (gate.metric("portcullis_objects", "PeerAuthentication").await > 0.0).then_some(())
    })
    .await;
    // Denials for want of something are looked into once more, and the policy must be found then.
    denied(&plane.kubectl(["label", "namespace", "shop", "istio-injection-"], "").await);
    denied(
        &plane
            .kubectl(["delete", "peerauthentications.v1beta1.security.istio.io", "default", "--namespace=shop"], "")
            .await,
    );
}
