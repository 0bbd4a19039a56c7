//! Labels decide what a policy means: to change one opens and closes as much as to change a policy.

use crate::scene::Scene;
use crate::support::{Through, eventually};

/// A namespace with cluster DNS, found by its label; beside it one whose pods are isolated, resolve
/// names by the label `names`, and have everything open to them by the label `debug`.
const STANDING: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: $ns-dns, labels: {gate: $ns, purpose: names}}}
---
apiVersion: v1
kind: Service
metadata: {name: names, namespace: $ns-dns}
spec: {selector: {app: names}, ports: [{name: dns, protocol: UDP, port: 53}, {name: dns-tcp, protocol: TCP, port: 53}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: names, namespace: $ns-dns}
spec:
  selector: {matchLabels: {app: names}}
  template: {metadata: {labels: {app: names}}, spec: {dnsPolicy: Default, containers: [{name: c, image: example.com/names}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: $ns, labels: {gate: $ns, istio-injection: enabled}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: $ns}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-dns, namespace: $ns}
spec:
  podSelector: {matchLabels: {names: allowed}}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {matchLabels: {purpose: names}}}]
    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-all, namespace: $ns}
spec: {podSelector: {matchLabels: {debug: allowed}}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: $ns}
spec: {mtls: {mode: STRICT}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: $ns}
spec:
  selector: {matchLabels: {app: cart}}
  template: {metadata: {labels: {app: cart, names: allowed}}, spec: {containers: [{name: c, image: example.com/cart}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: $ns, labels: {app: bare, names: allowed}}
spec: {containers: [{name: c, image: example.com/bare}]}
";

/// A gate that knows of this cluster DNS.
async fn scene(name: &str) -> Scene {
    let config = format!("dns: {{services: [{{namespace: {name}-url-dns, name: names}}]}}");
    Scene::new(name, Through::Url, &config, STANDING).await
}

#[tokio::test]
async fn a_namespace_keeps_the_labels_that_policies_find_it_by() {
    let scene = scene("namespace-labels").await;
    for change in ["purpose-", "purpose=other --overwrite"] {
        let said = scene.kubectl(&format!("label namespace $ns-dns {change}"), "").await;
        Scene::denied(&said, "NP002");
    }
    let unrelated = scene.kubectl("label namespace $ns-dns team=network", "").await;
    // Other scenes have namespaces that are isolated before names resolve in them, and this one hears
    // of those too.
    let of_this_scene = |line: &str| line.contains("[NP002 ") && line.contains("$ns");
    assert!(unrelated.succeeded && !unrelated.stderr.lines().any(of_this_scene), "{unrelated:?}");
}

#[tokio::test]
async fn a_namespace_does_not_leave_the_mesh_that_encrypts_for_it() {
    let scene = scene("mesh-labels").await;
    for change in ["istio-injection-", "istio-injection=disabled --overwrite"] {
        let said = scene.kubectl(&format!("label namespace $ns {change}"), "").await;
        Scene::denied(&said, "MT001");
    }
    Scene::silent(&scene.kubectl("label namespace $ns team=shop", "").await);
}

#[tokio::test]
async fn a_template_keeps_the_labels_by_which_its_pods_are_protected() {
    let scene = scene("template-labels").await;
    let relabel = async |labels: &str| {
        let patch = format!(r#"{{"spec":{{"template":{{"metadata":{{"labels":{labels}}}}}}}}}"#);
        scene.kubectl(&format!("patch deployment cart --namespace=$ns --type=merge --patch={patch}"), "").await
    };
    Scene::denied(&relabel(r#"{"names":null}"#).await, "NP002");
    Scene::denied(&relabel(r#"{"debug":"allowed"}"#).await, "NP001");
    Scene::denied(&relabel(r#"{"sidecar.istio.io/inject":"false"}"#).await, "MT001");
    Scene::silent(&relabel(r#"{"tier":"front"}"#).await);
}

#[tokio::test]
async fn a_bare_pod_keeps_the_labels_by_which_it_is_protected() {
    let scene = scene("pod-labels").await;
    let relabel = async |change: &str| scene.kubectl(&format!("label pod bare --namespace=$ns {change}"), "").await;
    Scene::denied(&relabel("names-").await, "NP002");
    Scene::denied(&relabel("debug=allowed").await, "NP001");
    Scene::silent(&relabel("tier=front").await);
}

#[tokio::test]
async fn a_pod_that_a_deployment_made_keeps_the_labels_by_which_it_is_protected() {
    let scene = scene("owned-labels").await;
    let pod = eventually("the Deployment has a pod", async || {
        let pods = scene.kubectl("get pods --namespace=$ns --selector=app=cart --output=name", "").await;
        pods.stdout.lines().next().map(str::to_owned)
    })
    .await;
    // Out of the hands of its ReplicaSet, and into a policy that opens everything.
    let said = scene.kubectl(&format!("label {pod} --namespace=$ns debug=allowed"), "").await;
    Scene::denied(&said, "NP001");
}
