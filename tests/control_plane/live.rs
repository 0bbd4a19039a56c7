//! The gate on a live cluster.

use std::time::Duration;

use crate::support::{ControlPlane, Gate, Knows, Registration, Relay, Setup, Through};

/// The namespace, its policies and what they protect, as a folder is applied: back to back.
const FOLDER: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: $ns, labels: {gate: folder}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: $ns}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: $ns}
spec:
  selector: {matchLabels: {app: cart}}
  template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: c, image: example.com/cart}]}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_applied_in_one_go_passes_however_late_the_watch_is() {
    let plane = ControlPlane::shared().await;
    let relay = Relay::to(plane).await;
    let gate = Gate::start(Setup { cluster: Knows::Live(relay.kubeconfig()), ..Setup::default() }).await;
    Registration::new(plane, &gate, Through::Url, "folder").await;
    relay.delay(Duration::from_millis(500));
    for number in 0..3 {
        let applied = plane.kubectl(["apply", "-f", "-"], &FOLDER.replace("$ns", &format!("folder-{number}"))).await;
        assert!(applied.succeeded, "{applied:?}");
    }
    assert!(gate.metric("portcullis_review_confirmations_total", "withdrawn").await > 0.0);
}
