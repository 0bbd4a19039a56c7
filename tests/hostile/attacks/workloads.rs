//! Workloads that are open and do not look it.

use crate::shop::{CLOSED, Profile, Shop, denied, done};
use crate::support::Kubectl;

/// An allow-all for the pods that a selector selects.
fn opens(name: &str, selector: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: $ns}}, spec: {{podSelector: {selector}, policyTypes: [Ingress, Egress], ingress: [{{}}], egress: [{{}}]}}}}"
    )
}

#[track_caller]
fn one_is_told(steps: &[&Kubectl]) {
    let is_told = |said: &&Kubectl| said.stderr.contains("denied the request") || said.stderr.contains("Warning: [");
    assert!(steps.iter().any(is_told), "nothing was said of any of it: {steps:#?}");
}

#[tokio::test]
async fn a_namespace_editor_cannot_open_the_pods_of_a_job_by_its_name() {
    let shop = Shop::standing(Profile::Restricted, "job", "", CLOSED).await;
    let policy =
        shop.editor("create -f -", &opens("open", "{matchLabels: {batch.kubernetes.io/job-name: once}}")).await;
    let job = shop.editor("create job once --image=example.com/once --namespace=$ns", "").await;
    one_is_told(&[&policy, &job]);
}

async fn anchored(shop: &Shop, object: &str) -> String {
    done(&shop.editor("create configmap anchor --namespace=$ns", "").await);
    let uid = shop.admin("get configmap anchor --namespace=$ns --output=jsonpath={.metadata.uid}", "").await.stdout;
    object.replace("$uid", &uid)
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
