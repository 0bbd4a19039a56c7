//! Ways out of a mesh, as an editor of a namespace takes them with kubectl.

use crate::scene::Scene;
use crate::support::Through;

/// Two namespaces in which mutual TLS is demanded, one by sidecars and one in ambient.
const STANDING: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: $ns-sidecar, labels: {gate: $ns, istio-injection: enabled}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: $ns-ambient, labels: {gate: $ns, istio.io/dataplane-mode: ambient}}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: $ns-sidecar}, spec: {mtls: {mode: STRICT}}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: $ns-ambient}, spec: {mtls: {mode: STRICT}}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: $ns-ambient, labels: {app: cart}}
spec: {containers: [{name: c, image: example.com/cart}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: $ns-sidecar}
spec:
  selector: {matchLabels: {app: cart}}
  template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: c, image: example.com/cart}]}}
";

const CONFIG: &str = "rules: {missing-default-deny: {action: 'off'}, dns-blackhole: {action: 'off'}}";

#[tokio::test]
async fn a_namespace_editor_cannot_leave_the_mesh_unseen() {
    let scene = Scene::new("leaving", Through::Service, CONFIG, STANDING).await;
    for change in [
        "annotate pod cart --namespace=$ns-ambient sidecar.istio.io/status=",
        "annotate pod cart --namespace=$ns-ambient ambient.istio.io/bypass-inbound-capture=True",
        "annotate pod cart --namespace=$ns-ambient istio.io/reroute-virtual-interfaces=eth0",
        "label pod cart --namespace=$ns-ambient istio.io/dataplane-mode=none",
    ] {
        Scene::denied(&scene.kubectl(change, "").await, "MT001");
    }
    for change in
        ["annotate pod cart --namespace=$ns-ambient owner=ada", "label pod cart --namespace=$ns-ambient tier=web"]
    {
        Scene::silent(&scene.kubectl(change, "").await);
    }
    let fake = r#"--patch={"spec":{"template":{"metadata":{"labels":{"sidecar.istio.io/inject":"false"}},"spec":{"containers":[{"name":"istio-proxy","image":"registry.k8s.io/pause"}]}}}}"#;
    let patch = format!("patch deployment cart --namespace=$ns-sidecar {fake}");
    Scene::denied(&scene.kubectl(&patch, "").await, "MT001");
    // Which revisions there are is not known here, so this is no more than said.
    let other = "label peerauthentication default --namespace=$ns-sidecar istio.io/rev=gone";
    Scene::warned(&scene.kubectl(other, "").await, "MT001");
}

#[tokio::test]
async fn a_namespace_editor_cannot_move_the_meshs_root() {
    let scene = Scene::new("root", Through::Url, CONFIG, STANDING).await;
    let claims = "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: $ns-sidecar}, data: {mesh: 'rootNamespace: $ns-sidecar'}}";
    Scene::silent(&scene.kubectl("apply -f -", claims).await);
    let weaker = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: $ns-sidecar}, spec: {mtls: {mode: PERMISSIVE}}}";
    Scene::denied(&scene.kubectl("apply -f -", weaker).await, "MT001");
}
