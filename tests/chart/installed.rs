//! The chart on a real API server, by real Helm. Nothing runs pods there, so the gate is started as a
//! process with the rights the chart gives it.

use serde_json::Value;

use crate::helm::{chart, helm, shape, shapes};
use crate::support::ControlPlane;

/// Kinds whose definitions somebody else installs.
const FOREIGN: [&str; 2] = ["monitoring.coreos.com/", "cert-manager.io/"];

/// Helm with these words on this control plane; it must succeed.
async fn on(plane: &ControlPlane, words: &[&str]) -> String {
    let kubeconfig = plane.kubeconfig().to_str().unwrap().to_owned();
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let all = words.clone().into_iter().chain(["--kubeconfig".to_owned(), kubeconfig]);
    let said = tokio::task::spawn_blocking(move || helm(all)).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "helm {}:\n{out}\n{err}", words.join(" "));
    out.into_owned()
}

#[tokio::test]
async fn the_api_server_takes_every_object_of_every_shape() {
    let plane = ControlPlane::shared().await;
    for namespace in ["portcullis", "istio-system"] {
        plane.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}")).await;
    }
    for (name, _) in shapes() {
        let objects = shape(&name).into_iter().filter(|object| {
            let version = object["apiVersion"].as_str().unwrap();
            !FOREIGN.iter().any(|group| version.starts_with(group))
        });
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<Value>>() });
        let words = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
        let said = plane.kubectl(words, &list.to_string()).await;
        assert!(said.succeeded, "{name}: {}", said.stderr);
    }
}

/// The webhook configuration, if it is there.
async fn webhook(plane: &ControlPlane) -> Option<Value> {
    let said = plane.kubectl(["get", "validatingwebhookconfigurations", "portcullis", "-o", "json"], "").await;
    said.succeeded.then(|| serde_json::from_str(&said.stdout).unwrap())
}

#[tokio::test]
async fn an_upgrade_leaves_in_force_what_the_gate_has_set_and_an_uninstall_leaves_nothing() {
    let plane = ControlPlane::new().await;
    let chart = chart();
    let chart = chart.to_str().unwrap();
    let install = ["install", "portcullis", chart, "--namespace", "portcullis", "--create-namespace"];
    let notes = on(&plane, &install).await;
    assert!(notes.contains("mode            warn: nothing is denied"), "{notes}");
    assert!(notes.contains("kubectl delete validatingwebhookconfiguration portcullis"), "{notes}");
    assert!(plane.kubectl(["get", "customresourcedefinition", "waivers.portcullis.dev"], "").await.succeeded);
    let installed = webhook(&plane).await.unwrap();
    assert_eq!(installed["webhooks"][0]["failurePolicy"], "Ignore");

    // What the gate does once it is proved.
    let bundle = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCi0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K";
    let patch = format!(
        r#"[{{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Fail"}},{{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"{bundle}"}}]"#
    );
    let words = [
        "patch",
        "validatingwebhookconfiguration",
        "portcullis",
        "--type=json",
        "--field-manager=portcullis",
        "-p",
        &patch,
    ];
    let patched = plane.kubectl(words, "").await;
    // An API server demands a certificate there; the test has none to give.
    let has_bundle = patched.succeeded;
    if !has_bundle {
        let patch = r#"[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Fail"}]"#;
        let words = [
            "patch",
            "validatingwebhookconfiguration",
            "portcullis",
            "--type=json",
            "--field-manager=portcullis",
            "-p",
            patch,
        ];
        assert!(plane.kubectl(words, "").await.succeeded, "{patched:?}");
    }

    let upgrade = ["upgrade", "portcullis", chart, "--namespace", "portcullis", "--set", "mode=enforce"];
    let notes = on(&plane, &upgrade).await;
    assert!(notes.contains("mode            enforce: what the rules deny is denied"), "{notes}");
    let upgraded = webhook(&plane).await.unwrap();
    assert_eq!(upgraded["webhooks"][0]["failurePolicy"], "Fail", "an upgrade would open the gate");
    assert_eq!(upgraded["webhooks"][0]["clientConfig"].get("caBundle").is_some(), has_bundle);

    on(&plane, &["rollback", "portcullis", "1", "--namespace", "portcullis", "--force-conflicts"]).await;
    assert!(webhook(&plane).await.is_some());
    on(&plane, &["uninstall", "portcullis", "--namespace", "portcullis"]).await;
    assert_eq!(webhook(&plane).await, None);
    let left = plane
        .kubectl(
            ["get", "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/name=portcullis", "-o", "name"],
            "",
        )
        .await;
    assert_eq!(left.stdout, "", "{left:?}");
}

#[tokio::test]
async fn a_namespace_in_which_something_else_runs_is_not_closed_unawares() {
    let plane = ControlPlane::new().await;
    plane
        .apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n---\n{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: shop}, spec: {containers: [{name: a, image: a}]}}")
        .await;
    let chart = chart();
    let kubeconfig = plane.kubeconfig().to_str().unwrap().to_owned();
    let words = ["install", "gate", chart.to_str().unwrap(), "--namespace", "shop", "--kubeconfig", &kubeconfig];
    let said = helm(words);
    let err = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success() && err.contains("Pod cart runs in namespace shop"), "{err}");
    let beside = ["--set", "networkPolicy.defaultDeny=false"];
    let said = helm(words.iter().chain(&beside));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}
