//! What an editor of a namespace may make of pods, and what those who make pods for others must be able to.

use crate::scene::Scene;
use crate::support::{Through, eventually};

/// A namespace whose pods are isolated and resolve names, and one that stands open; an operator.
const STANDING: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: $ns, labels: {gate: $ns}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: $ns}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{namespaceSelector: {}}], ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: $ns}
spec:
  replicas: 0
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: example.com/db}]}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: evil
  namespace: $ns
  ownerReferences: [{apiVersion: rollouts.example.com/v1, kind: Rollout, name: anchor, uid: 22222222-2222-4222-8222-222222222222, controller: true}]
spec:
  replicas: 0
  selector: {matchLabels: {app: evil}}
  template: {metadata: {labels: {app: evil}}, spec: {containers: [{name: c, image: example.com/evil}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: $ns-open, labels: {gate: $ns}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: $ns-open}
spec:
  selector: {matchLabels: {app: cart}}
  template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: c, image: example.com/cart}]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: $ns-operator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: operator, namespace: ops}]
";

fn allow_all(name: &str, selector: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: $ns}}, spec: {{podSelector: {selector}, policyTypes: [Ingress, Egress], ingress: [{{}}], egress: [{{}}]}}}}"
    )
}

fn owned(object: &str, version: &str, kind: &str, name: &str) -> String {
    let owner = format!(
        "ownerReferences: [{{apiVersion: {version}, kind: {kind}, name: {name}, uid: 33333333-2222-4222-8222-222222222222, controller: true}}]"
    );
    object.replace("namespace: $ns-open", &format!("namespace: $ns-open, {owner}"))
}

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: kafka-0, namespace: $ns-open, labels: {app: cart}}, spec: {containers: [{name: c, image: example.com/kafka}]}}";

#[tokio::test]
async fn a_namespace_editor_cannot_open_pods_that_are_yet_to_be_made() {
    let scene = Scene::new("yet-to-be-made", Through::Url, "", STANDING).await;
    eventually("the gate knows what stands", async || {
        let said = scene.kubectl("apply --dry-run=server -f -", &allow_all("evil", "{matchLabels: {app: evil}}")).await;
        (!said.succeeded).then_some(())
    })
    .await;
    for selector in [
        "{matchExpressions: [{key: apps.kubernetes.io/pod-index, operator: In, values: ['1', '2']}]}",
        "{matchLabels: {statefulset.kubernetes.io/pod-name: db-3}}",
        "{matchExpressions: [{key: controller-revision-hash, operator: Exists}]}",
        "{matchLabels: {app: evil}}",
    ] {
        let said = scene.kubectl("apply -f -", &allow_all("open", selector)).await;
        Scene::denied(&said, "NP001");
    }
    let hash = allow_all("open", "{matchLabels: {controller-revision-hash: db-5d9c7b}}");
    Scene::warned(&scene.kubectl("apply -f -", &hash).await, "NP001");
}

#[tokio::test]
async fn a_namespace_editor_cannot_hide_a_workload_behind_an_owner() {
    let scene = Scene::new("behind-an-owner", Through::Url, "", STANDING).await;
    let set = "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: evil, namespace: $ns-open}, spec: {replicas: 0, selector: {matchLabels: {app: evil}}, template: {metadata: {labels: {app: evil}}, spec: {containers: [{name: c, image: example.com/evil}]}}}}";
    for object in [
        owned(POD, "apps/v1", "Deployment", "cart"),
        owned(POD, "v1", "ConfigMap", "anchor"),
        owned(POD, "kafka.example.com/v1", "PodSet", "kafka"),
        owned(set, "apps/v1", "Deployment", "cart"),
        owned(set, "apps/v1", "Deployment", "made-up"),
    ] {
        Scene::denied(&scene.kubectl("create -f -", &object).await, "NP001");
    }
}

#[tokio::test]
async fn an_operators_pod_comes_back_to_a_namespace_that_stood_open() {
    let scene = Scene::new("comes-back", Through::Url, "", STANDING).await;
    let pod = owned(POD, "kafka.example.com/v1", "PodSet", "kafka");
    let create = "create -f - --as=system:serviceaccount:ops:operator";
    Scene::warned(&scene.kubectl(create, &pod).await, "NP001");
    Scene::denied(&scene.kubectl(create, &POD.replace("kafka-0", "bare")).await, "NP001");
}

#[tokio::test]
async fn a_workload_cannot_leave_its_policies_by_its_nodes_network_unseen() {
    let agent = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: $ns}}, spec: {{hostNetwork: true, containers: [{{name: c, image: example.com/agent}}]}}}}"
        )
    };
    let scene = Scene::new("nodes-network", Through::Url, "", STANDING).await;
    Scene::warned(&scene.kubectl("create -f -", &agent("agent")).await, "NP007");
    let scene = Scene::new("nodes-network-closed", Through::Url, "profile: restricted", STANDING).await;
    Scene::denied(&scene.kubectl("create -f -", &agent("agent")).await, "NP007");
}
