//! What the garbage collector deletes, and applications that are taken down.

use crate::scene::Scene;
use crate::support::{Kubectl, Through, eventually};

const NAMESPACE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: $ns, labels: {gate: $ns}}}";

const POLICIES: &str = "
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
  egress: [{to: [{namespaceSelector: {}}], ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]}]
";

/// Its pods take their time to go: there is no kubelet, and a finalizer keeps them in its place.
const WORKLOAD: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: $ns}
spec:
  selector: {matchLabels: {app: cart}}
  template:
    metadata: {labels: {app: cart}, finalizers: [example.com/slow]}
    spec: {containers: [{name: c, image: example.com/cart}]}
";

/// A scene with the application installed, its pods made.
async fn installed(name: &str) -> Scene {
    let scene = Scene::new(name, Through::Url, "", &[NAMESPACE, POLICIES, WORKLOAD].join("\n---\n")).await;
    eventually("the Deployment has its pod", async || {
        let pods = scene.kubectl("get pods --namespace=$ns --output=name", "").await;
        (pods.stdout.lines().count() == 1).then_some(())
    })
    .await;
    eventually("the gate knows the application", async || {
        let said = scene.kubectl("delete networkpolicy default-deny --namespace=$ns --dry-run=server", "").await;
        said.stderr.contains("Deployment cart").then_some(())
    })
    .await;
    scene
}

async fn delete(scene: &Scene, documents: &[&str]) -> Kubectl {
    scene.kubectl("delete --wait=false --ignore-not-found -f -", &documents.join("\n---\n")).await
}

#[tokio::test]
async fn a_default_deny_is_not_handed_to_the_garbage_collector() {
    let scene = installed("collected").await;
    let owner =
        r#"[{"apiVersion":"v1","kind":"ConfigMap","name":"nope","uid":"11111111-1111-1111-1111-111111111111"}]"#;
    let patch = format!(
        r#"patch networkpolicy default-deny --namespace=$ns --type=merge --patch={{"metadata":{{"ownerReferences":{owner}}}}}"#
    );
    let said = scene.kubectl(&patch, "").await;
    Scene::denied(&said, "NP001");
    assert!(said.stderr.contains("ConfigMap `nope` does not exist"), "{said:?}");
    let left = scene.kubectl("get networkpolicy default-deny --namespace=$ns --output=name", "").await;
    assert!(left.succeeded, "{left:?}");
}

#[tokio::test]
async fn an_application_is_deleted_with_its_workloads_first() {
    let scene = installed("workloads-first").await;
    let said = delete(&scene, &[WORKLOAD, POLICIES]).await;
    assert!(said.succeeded, "{said:?}");
    let left = scene.kubectl("get networkpolicies --namespace=$ns --output=name", "").await;
    assert_eq!(left.stdout, "", "{left:?}");
}

#[tokio::test]
async fn an_application_that_is_deleted_with_its_policies_first_goes_with_the_second_run() {
    let scene = installed("policies-first").await;
    let said = delete(&scene, &[POLICIES, WORKLOAD]).await;
    Scene::denied(&said, "NP001");
    assert!(said.stderr.contains("delete the workloads first"), "{said:?}");
    let said = delete(&scene, &[POLICIES, WORKLOAD]).await;
    assert!(said.succeeded, "{said:?}");
    let left = scene.kubectl("get networkpolicies --namespace=$ns --output=name", "").await;
    assert_eq!(left.stdout, "", "{left:?}");
}

#[tokio::test]
async fn a_policy_that_a_finalizer_holds_protects_no_new_pod() {
    let held = POLICIES.replace("namespace: $ns}", "namespace: $ns, finalizers: [example.com/held]}");
    let scene = Scene::new("held", Through::Url, "", &[NAMESPACE, &held].join("\n---\n")).await;
    // Nothing runs there, so that both may be deleted.
    let said = delete(&scene, &[POLICIES]).await;
    assert!(said.succeeded, "{said:?}");
    eventually("a new workload is denied", async || {
        let said = scene.kubectl("create --dry-run=server -f -", WORKLOAD).await;
        (!said.succeeded && said.stderr.contains("[NP001 ")).then_some(())
    })
    .await;
}
