//! The chart on a real API server, by real Helm.

use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::helm::{chart, helm, shape, shapes};
use crate::load::Load;
use crate::release::{Release, on, webhook};
use crate::support::{BINARY, ControlPlane, eventually};

/// Kinds whose definitions somebody else installs.
const FOREIGN: [&str; 2] = ["monitoring.coreos.com/", "cert-manager.io/"];

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

fn chart_readme() -> PathBuf {
    chart().join("README.md")
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
    let bundle = STANDARD.encode(std::fs::read(plane.authority()).unwrap());
    let patch = format!(
        r#"[{{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Fail"}},{{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"{bundle}"}}]"#
    );
    let manager = "--field-manager=portcullis";
    let words = ["patch", "validatingwebhookconfiguration", "portcullis", "--type=json", manager, "-p", &patch];
    let patched = plane.kubectl(words, "").await;
    assert!(patched.succeeded, "{patched:?}");

    let upgrade = ["upgrade", "portcullis", chart, "--namespace", "portcullis", "--set", "mode=enforce"];
    let notes = on(&plane, &upgrade).await;
    assert!(notes.contains("mode            enforce: what the rules deny is denied"), "{notes}");
    let upgraded = webhook(&plane).await.unwrap();
    assert_eq!(upgraded["webhooks"][0]["failurePolicy"], "Fail", "an upgrade would open the gate");
    assert_eq!(upgraded["webhooks"][0]["clientConfig"]["caBundle"], bundle.as_str(), "nobody would trust the gate");

    // What the README says of a rollback.
    let kubeconfig = plane.kubeconfig().to_str().unwrap();
    let rollback = ["rollback", "portcullis", "1", "--namespace", "portcullis"];
    let said = helm(rollback.iter().chain(&["--kubeconfig", kubeconfig]));
    let err = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success() && err.contains(r#"conflict with "portcullis""#), "{err}");
    let rollback = [&rollback[..], &["--force-conflicts"]].concat();
    assert!(std::fs::read_to_string(chart_readme()).unwrap().contains(&format!("helm {}", rollback.join(" "))));
    on(&plane, &rollback).await;
    assert_eq!(webhook(&plane).await.unwrap()["webhooks"][0]["failurePolicy"], "Ignore");
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

#[tokio::test]
async fn a_probe_where_the_webhook_is_not_asked_is_refused_by_the_namespaces_own_labels() {
    let plane = ControlPlane::new().await;
    plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}").await;
    let (chart, kubeconfig) = (chart(), plane.kubeconfig().to_str().unwrap().to_owned());
    let words = ["install", "portcullis", chart.to_str().unwrap(), "--namespace", "portcullis", "--create-namespace"];
    let selector = "webhook.namespaceSelector.matchExpressions[0]";
    let selector = format!("{selector}.key=team,{selector}.operator=In,{selector}.values={{a,b}}");
    let words = [&words[..], &["--kubeconfig", &kubeconfig, "--set", &selector]].concat();
    let said = helm(&words);
    let err = String::from_utf8_lossy(&said.stderr);
    assert!(
        !said.status.success()
            && err.contains(r#"`default` does not meet `webhook.namespaceSelector`: team In ["a","b"]"#),
        "{err}"
    );
    let said = helm([&words[..], &["--set", "probe.namespace=shop"]].concat());
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

const OPEN: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: cart, namespace: shop}, spec: {selector: {matchLabels: {app: cart}}, template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: a, image: a}]}}}}";

#[tokio::test(flavor = "multi_thread")]
async fn a_release_proves_itself_guards_and_is_upgraded_under_load_with_the_rights_it_was_given() {
    let plane = ControlPlane::new().await;
    plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: shop}}").await;
    let mut release = Release::installed(plane).await;
    for gate in &release.gates {
        // The API server may still be about to serve a definition that was installed a moment ago.
        eventually("nothing the gate would read is kept from it by the chart's rights", async || {
            let (_, ready) = gate.get("/readyz?verbose").await?;
            (!ready.contains("[!]")).then_some(())
        })
        .await;
    }
    release.fails_closed().await;
    let entry = webhook(&release.plane).await.unwrap()["webhooks"][0].clone();
    assert!(entry["clientConfig"]["caBundle"].is_string());
    for gate in &release.gates {
        for state in ["covers_rules", "whole"] {
            eventually("the chart's registration is what the gate would have it be", async || {
                (gate.metric("portcullis_webhook_state", state).await > 0.0).then_some(())
            })
            .await;
        }
    }
    eventually("one of them audits", async || {
        let mut audits = false;
        for gate in &release.gates {
            audits |= gate.metric("portcullis_audit_last_success_timestamp_seconds", "").await > 0.0;
        }
        audits.then_some(())
    })
    .await;
    // What `helm test` runs, with what it may do.
    let mut probe = Command::new(BINARY);
    probe.args(["probe", "--namespace", "default", "--kubeconfig"]).arg(&release.kubeconfig);
    let said = tokio::task::spawn_blocking(move || probe.output().unwrap()).await.unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));

    // On the first day nothing is denied.
    let warned = release.plane.kubectl(["apply", "-f", "-"], OPEN).await;
    assert!(warned.succeeded && warned.stderr.contains("Warning: [NP001 missing-default-deny]"), "{warned:?}");

    // Somebody takes the guard out; the upgrade below puts it back.
    let patch = r#"[{"op":"remove","path":"/webhooks/2"}]"#;
    let words = ["patch", "validatingwebhookconfiguration", "portcullis", "--type=json", "-p", patch];
    assert!(release.plane.kubectl(words, "").await.succeeded);
    let gate = &release.gates[0];
    eventually("a guard that is gone is told", async || {
        (gate.metric("portcullis_webhook_state", "covers_rules").await <= 0.0).then_some(())
    })
    .await;

    // Enforcing, by an upgrade in the midst of creates, with the replicas replaced one by one.
    let load = Load::begin(&release.plane, "portcullis", 8).await;
    release.upgrade(&["--set", "mode=enforce"]).await;
    let registered = webhook(&release.plane).await.unwrap()["webhooks"].clone();
    assert_eq!(
        (&registered[0]["failurePolicy"], &registered[2]["name"]),
        (&json!("Fail"), &json!("guard.portcullis.dev"))
    );
    release.replace(None).await;
    eventually("the load has gone on", async || (load.done() > 400).then_some(())).await;
    load.end_without_failure().await;
    let denied = release.plane.kubectl(["apply", "-f", "-"], &OPEN.replace("cart", "web")).await;
    assert!(!denied.succeeded && denied.stderr.contains("[NP001 missing-default-deny]"), "{denied:?}");

    on(&release.plane, &["uninstall", "portcullis", "--namespace", "portcullis"]).await;
    let free = release.plane.kubectl(["apply", "-f", "-"], &OPEN.replace("cart", "web")).await;
    assert!(free.succeeded && free.stderr.is_empty(), "{free:?}");
}

#[tokio::test]
async fn that_the_labels_of_the_probes_namespace_were_not_seen_is_said() {
    let plane = ControlPlane::new().await;
    plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}").await;
    let chart = chart();
    let notes = async |side: &str, set: &str| {
        let side = format!("--dry-run={side}");
        let install =
            ["install", "portcullis", chart.to_str().unwrap(), "--namespace=portcullis", "--create-namespace"];
        on(&plane, &[&install[..], &[&side, "--set", set]].concat()).await
    };
    let selecting = "probe.namespace=shop,webhook.namespaceSelector.matchLabels.team=a";
    let unseen = "The labels of namespace `shop` could not be looked at";
    assert!(notes("client", selecting).await.contains(unseen));
    assert!(!notes("server", selecting).await.contains(unseen));
    assert!(!notes("client", "probe.namespace=shop").await.contains(unseen));
}
