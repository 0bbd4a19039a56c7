//! The control plane itself: what the other tests stand on.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};

use crate::support::{ControlPlane, Part, eventually};

#[tokio::test]
async fn what_was_stored_outlives_both_programs() {
    let plane = ControlPlane::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(plane.client().await);
    let map = serde_json::json!({ "metadata": { "name": "kept" }, "data": { "a": "b" } });
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();

    plane.kill(Part::ApiServer);
    assert!(maps.get("kept").await.is_err());
    plane.start(Part::ApiServer).await;
    assert_eq!(maps.get("kept").await.unwrap().data.unwrap()["a"], "b");

    plane.kill(Part::Etcd);
    plane.start(Part::Etcd).await;
    let kept = eventually("the API server has found etcd again", async || maps.get("kept").await.ok()).await;
    assert_eq!(kept.data.unwrap()["a"], "b");

    plane.stop(Part::ApiServer).await;
    plane.stop(Part::Etcd).await;
}

#[tokio::test]
async fn controllers_make_pods_and_empty_namespaces() {
    let plane = ControlPlane::shared().await;
    plane
        .apply(
            "{apiVersion: v1, kind: Namespace, metadata: {name: controllers}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: controllers}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: example.com/web}]}}",
        )
        .await;
    eventually("the Deployment has its pods", async || {
        let pods = plane.kubectl(["get", "pods", "--namespace=controllers", "--output=name"], "").await;
        (pods.stdout.lines().count() == 2).then_some(())
    })
    .await;
    let deleted = plane.kubectl(["delete", "namespace", "controllers"], "").await;
    assert_eq!(deleted.stdout, "namespace \"controllers\" deleted\n", "{deleted:?}");
}
