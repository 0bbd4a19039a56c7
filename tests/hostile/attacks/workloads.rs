//! Workloads that are open and do not look it.

use crate::shop::{CART, CLOSED, Profile, Shop, denied, done, told};
use crate::support::{Kubectl, eventually};

/// An allow-all for the pods that a selector selects.
fn opens(name: &str, selector: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: $ns}}, spec: {{podSelector: {selector}, policyTypes: [Ingress, Egress], ingress: [{{}}], egress: [{{}}]}}}}"
    )
}

fn stateful_set(replicas: u8) -> String {
    format!(
        "
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db, namespace: $ns}}
spec:
  replicas: {replicas}
  podManagementPolicy: Parallel
  selector: {{matchLabels: {{app: db}}}}
  template: {{metadata: {{labels: {{app: db}}}}, spec: {{containers: [{{name: c, image: example.com/db}}]}}}}"
    )
}

#[track_caller]
fn one_is_told(steps: &[&Kubectl]) {
    let is_told = |said: &&Kubectl| said.stderr.contains("denied the request") || said.stderr.contains("Warning: [");
    assert!(steps.iter().any(is_told), "nothing was said of any of it: {steps:#?}");
}

/// The policy aims at pods that the workload has only once it is scaled, which no gate is asked
/// about: so the gate says something before.
async fn scaled_into_the_open(name: &str, replicas: u8, selector: &str) {
    let shop = Shop::standing(Profile::Restricted, name, "", CLOSED).await;
    let set = shop.editor("create -f -", &stateful_set(replicas)).await;
    let policy = shop.editor("create -f -", &opens("open", selector)).await;
    let scale = shop.editor("scale statefulset db --replicas=3 --namespace=$ns", "").await;
    one_is_told(&[&set, &policy, &scale]);
}

#[tokio::test]
async fn a_namespace_editor_cannot_open_pods_by_their_index() {
    let later = "{matchExpressions: [{key: apps.kubernetes.io/pod-index, operator: In, values: ['1', '2', '3']}]}";
    scaled_into_the_open("index", 1, later).await;
    scaled_into_the_open("index-zero", 0, "{matchLabels: {apps.kubernetes.io/pod-index: '0'}}").await;
}

#[tokio::test]
async fn a_namespace_editor_cannot_open_pods_by_the_name_their_controller_gives_them() {
    scaled_into_the_open("pod-name", 1, "{matchLabels: {statefulset.kubernetes.io/pod-name: db-2}}").await;
}

#[tokio::test]
async fn a_namespace_editor_cannot_open_pods_by_the_hash_of_their_template() {
    let shop = Shop::closed("hash").await;
    let hash = eventually("the Deployment has its ReplicaSet", async || {
        let get = "get replicasets --namespace=$ns --output=jsonpath={.items[0].metadata.labels.pod-template-hash}";
        let said = shop.admin(get, "").await;
        (said.succeeded && !said.stdout.is_empty()).then_some(said.stdout)
    })
    .await;
    let zero = shop.editor("scale deployment cart --replicas=0 --namespace=$ns", "").await;
    eventually("there are no pods", async || {
        shop.admin("get pods --namespace=$ns --output=name", "").await.stdout.is_empty().then_some(())
    })
    .await;
    let policy =
        shop.editor("create -f -", &opens("open", &format!("{{matchLabels: {{pod-template-hash: '{hash}'}}}}"))).await;
    let scale = shop.editor("scale deployment cart --replicas=3 --namespace=$ns", "").await;
    one_is_told(&[&zero, &policy, &scale]);
}

#[tokio::test]
async fn a_namespace_editor_cannot_open_the_pods_of_a_job_by_its_name() {
    let shop = Shop::standing(Profile::Restricted, "job", "", CLOSED).await;
    let policy =
        shop.editor("create -f -", &opens("open", "{matchLabels: {batch.kubernetes.io/job-name: once}}")).await;
    let job = shop.editor("create job once --image=example.com/once --namespace=$ns", "").await;
    one_is_told(&[&policy, &job]);
}

/// A ReplicaSet without replicas that somebody else seems to control.
const EMPTY: &str = "
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: quiet
  namespace: $ns
  ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: anchor, uid: $uid, controller: true}]
spec:
  replicas: 0
  selector: {matchLabels: {app: quiet}}
  template: {metadata: {labels: {app: quiet}}, spec: {containers: [{name: c, image: example.com/quiet}]}}
";

async fn anchored(shop: &Shop, object: &str) -> String {
    done(&shop.editor("create configmap anchor --namespace=$ns", "").await);
    let uid = shop.admin("get configmap anchor --namespace=$ns --output=jsonpath={.metadata.uid}", "").await.stdout;
    object.replace("$uid", &uid)
}

#[tokio::test]
async fn a_namespace_editor_cannot_hide_a_workload_as_an_empty_replica_set() {
    let shop = Shop::standing(Profile::Restricted, "quiet", "", CLOSED).await;
    let quiet = anchored(&shop, EMPTY).await;
    done(&shop.editor("create -f -", &quiet).await);
    eventually("the policy that keeps it closed stays", async || {
        let said = shop.editor("delete networkpolicy default-deny --namespace=$ns --dry-run=server", "").await;
        (!said.succeeded && said.stderr.contains("[NP001 ")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_namespace_editor_cannot_pass_a_pod_off_as_a_controllers() {
    let shop = Shop::standing(Profile::Restricted, "forged", "", "").await;
    let pod = anchored(
        &shop,
        "
apiVersion: v1
kind: Pod
metadata:
  name: forged
  namespace: $ns
  labels: {app: forged}
  ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: anchor, uid: $uid, controller: true}]
spec: {containers: [{name: c, image: example.com/forged}]}",
    )
    .await;
    denied(&shop.editor("create -f -", &pod).await, "NP001");
    let other = anchored_again(&pod, "Deployment");
    denied(&shop.editor("create -f -", &other).await, "NP001");
}

#[tokio::test]
async fn a_namespace_editor_cannot_act_as_an_operator() {
    let shop = Shop::standing(Profile::Restricted, "acts", "", "").await;
    let pod = "
apiVersion: v1
kind: Pod
metadata:
  name: kafka-0
  namespace: $ns
  labels: {app: forged}
  ownerReferences: [{apiVersion: core.strimzi.io/v1beta2, kind: StrimziPodSet, name: kafka, uid: 55555555-2222-2222-2222-222222222222, controller: true}]
spec: {containers: [{name: c, image: example.com/forged}]}";
    denied(&shop.editor("create -f -", pod).await, "NP001");
    denied(&shop.own_account("create -f -", pod).await, "NP001");
}

fn anchored_again(pod: &str, kind: &str) -> String {
    pod.replace("kind: ConfigMap", &format!("kind: {kind}"))
        .replace("apiVersion: v1, kind: Dep", "apiVersion: apps/v1, kind: Dep")
}

const HOST: &str = r#"{"spec":{"template":{"spec":{"hostNetwork":true}}}}"#;

#[tokio::test]
async fn a_namespace_editor_cannot_take_a_workload_to_the_hosts_network() {
    let shop = Shop::closed("host").await;
    let patch = format!("patch deployment cart --namespace=$ns --type=merge --patch={HOST}");
    let said = shop.editor(&patch, "").await;
    told(&said);
    assert!(!said.succeeded, "`restricted` denies it: {said:?}");
    let fresh =
        CART.replace("name: cart", "name: host").replace("spec: {containers", "spec: {hostNetwork: true, containers");
    let said = shop.editor("create -f -", &fresh).await;
    told(&said);
    assert!(!said.succeeded, "`restricted` denies it: {said:?}");
}

#[tokio::test]
async fn baseline_warns_of_a_workload_on_the_hosts_network() {
    let shop = Shop::standing(Profile::Baseline, "host-baseline", "", &[CLOSED, CART].join("\n---\n")).await;
    let said = shop.editor(&format!("patch deployment cart --namespace=$ns --type=merge --patch={HOST}"), "").await;
    told(&said);
    done(&said);
}
