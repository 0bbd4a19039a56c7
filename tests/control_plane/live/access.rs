//! What the gate may not read, it says so of and never denies for want of.

use super::{create, reason};
use crate::support::{ControlPlane, Gate, Knows, Kubectl, Registration, Setup, Through, eventually};

/// Namespaces, and whatever else is to be read; a namespace that nothing isolates.
fn standing(further: &str) -> String {
    format!(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: reader}}
rules:
- {{apiGroups: [''], resources: [namespaces, pods, services, configmaps, replicationcontrollers], verbs: [get, list, watch]}}
- {{apiGroups: [apps, batch, admissionregistration.k8s.io], resources: ['*'], verbs: [get, list, watch]}}
{further}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: reader}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: reader}}]
---
{{apiVersion: v1, kind: Namespace, metadata: {{name: open, labels: {{gate: reader}}}}}}
"
    )
}

const POLICIES: &str = "- {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [get, list, watch]}";

/// A control plane with Istio's definitions, and a gate that may read what the role says.
async fn gate(further: &str) -> (ControlPlane, Gate) {
    let plane = ControlPlane::new().await;
    plane.install_peer_authentications().await;
    let gate = gate_on(&plane, further).await;
    (plane, gate)
}

async fn gate_on(plane: &ControlPlane, further: &str) -> Gate {
    plane.apply(&standing(further)).await;
    let reader = plane.reader_kubeconfig();
    let gate = Gate::start(Setup { cluster: Knows::Live(&reader), ..Setup::default() }).await;
    Registration::new(plane, &gate, Through::Url, "reader").await;
    gate
}

async fn created(plane: &ControlPlane) -> Kubectl {
    let create = "create deployment cart --image=example.com/cart --namespace=open --dry-run=server";
    plane.kubectl(create.split(' '), "").await
}

async fn readiness(gate: &Gate) -> String {
    gate.get("/readyz?verbose").await.unwrap().1
}

#[tokio::test]
async fn a_gate_that_may_not_read_policies_is_ready_and_only_warns_until_it_may() {
    let (plane, gate) = gate("").await;
    let ready = readiness(&gate).await;
    assert!(ready.contains("[!]networkpolicies.networking.k8s.io degraded: forbidden"), "{ready}");
    let warned = created(&plane).await;
    let says_why = warned.stderr.contains("Warning: [NP001 ") && warned.stderr.contains("NetworkPolicies");
    assert!(warned.succeeded && says_why && warned.stderr.contains("are missing"), "{warned:?}");

    plane.apply(&standing(POLICIES)).await;
    eventually("the gate reads policies", async || {
        readiness(&gate).await.contains("[+]networkpolicies.networking.k8s.io ok\n").then_some(())
    })
    .await;
    let denied = created(&plane).await;
    assert!(!denied.succeeded && denied.stderr.contains("[NP001 "), "{denied:?}");
}

#[tokio::test]
async fn a_rule_denies_although_the_gate_may_not_read_what_another_needs() {
    let (plane, gate) = gate(POLICIES).await;
    let ready = readiness(&gate).await;
    assert!(ready.contains("[!]peerauthentications.security.istio.io degraded: forbidden"), "{ready}");
    let pod = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "cart", "namespace": "open" },
        "spec": { "containers": [{ "name": "cart", "image": "example.com/cart" }] },
    });
    let denied = reason(create(&plane.client().await, pod).await);
    assert!(denied.contains("[NP001 "), "{denied}");
}

#[tokio::test]
async fn what_is_not_installed_need_not_be_granted() {
    let plane = ControlPlane::new().await;
    let gate = gate_on(&plane, POLICIES).await;
    let denied = created(&plane).await;
    assert!(!denied.succeeded && denied.stderr.contains("[NP001 "), "{denied:?}");
    assert!(gate.metric("portcullis_review_confirmations_total", "failed").await <= 0.0);
}
