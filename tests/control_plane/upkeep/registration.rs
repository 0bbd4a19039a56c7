//! The registration: filled in, put right, and left to whom it belongs.

use std::path::Path;

use serde_json::{Value, json};

use super::{Home, certificates, decoded, readiness};
use crate::support::{Certificate, ControlPlane, Gate, Knows, Setup, eventually};

/// What the module's page says the account must be allowed to do, and the reading of the cluster.
fn account(home: &Home<'_>) -> String {
    let name = home.name;
    format!(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {name}}}
rules:
- {{apiGroups: ['', apps, batch, networking.k8s.io], resources: [namespaces, pods, services, configmaps, replicationcontrollers, deployments, daemonsets, replicasets, statefulsets, jobs, cronjobs, networkpolicies], verbs: [get, list, watch]}}
- {{apiGroups: [admissionregistration.k8s.io], resources: [mutatingwebhookconfigurations], verbs: [get, list, watch]}}
- {{apiGroups: [admissionregistration.k8s.io], resources: [validatingwebhookconfigurations], resourceNames: [{name}], verbs: [get, list, watch, patch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: reader}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: secret, namespace: {name}}}
rules:
- {{apiGroups: [''], resources: [secrets], resourceNames: [gate-tls], verbs: [get, list, watch, update]}}
- {{apiGroups: [''], resources: [secrets], verbs: [create]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: secret, namespace: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: secret}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: reader}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: probe, namespace: {name}-asked}}
rules:
- {{apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [create]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: probe, namespace: {name}-asked}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: probe}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: reader}}]
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_rights_it_asks_for_and_no_others_a_gate_sets_itself_up_and_keeps_it_so() {
    let plane = ControlPlane::new().await;
    let home = Home::new(&plane, "alone").await;
    plane.apply(&account(&home)).await;
    let flags = home.flags();
    let mut arguments: Vec<&str> = flags.iter().map(String::as_str).collect();
    arguments.extend(["--failure-policy", "fail"]);
    let reader = plane.reader_kubeconfig();
    let cluster = Knows::Live(Path::new(&reader));
    let setup = Setup { cluster, arguments: &arguments, listen: Some(home.address), ..Setup::default() };
    let gate = Gate::start(setup).await;
    assert!(
        readiness(&gate).await.contains("there is no ValidatingWebhookConfiguration"),
        "{}",
        readiness(&gate).await
    );
    assert_eq!(home.get("secret", "gate-tls").await["type"], "kubernetes.io/tls");

    home.register().await;
    home.until_it_fails_closed().await;
    let trusted = async || decoded(&home.entry().await["clientConfig"]["caBundle"]);
    assert_eq!(trusted().await, home.member("ca.crt").await);
    eventually("it says so", async || (readiness(&gate).await == "[+]certificate ok").then_some(())).await;
    for state in ["registered", "trusted", "proved", "failing_closed", "covers_rules"] {
        assert!(gate.metric("portcullis_webhook_state", state).await > 0.0, "{state}");
    }
    for certificate in ["leaf", "ca", "ca_bundle"] {
        let label = format!("\"{certificate}\"");
        assert!(gate.metric("portcullis_certificate_not_after_seconds", &label).await > 1.7e9, "{certificate}");
    }

    // As `helm upgrade` does, and a person in a hurry.
    home.patch(json!({ "clientConfig": { "caBundle": null }, "failurePolicy": "Ignore" })).await;
    home.until_it_fails_closed().await;
    assert_eq!(trusted().await, home.member("ca.crt").await);
    assert!(gate.metric("portcullis_webhook_repairs_total", "ca_bundle").await >= 2.0);

    let is_whole = async || gate.metric("portcullis_webhook_state", "whole").await > 0.0;
    let left_out = |what: &str| {
        let complaints = gate.logged("upkeep is held up");
        let mut told = complaints.iter().filter(|line| line["matter"] == "whole");
        told.any(|line| line["why"].as_str().unwrap().contains(what))
    };
    assert!(!is_whole().await && left_out("namespaces without `gate=alone`"));
    home.patch(json!({ "namespaceSelector": { "matchLabels": null } })).await;
    eventually("nothing is left out that is not exempt", async || is_whole().await.then_some(())).await;
    home.patch(json!({
        "namespaceSelector": { "matchExpressions": [
            { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "shop"] },
        ] },
        "matchConditions": [{ "name": "not-now", "expression": "false" }],
    }))
    .await;
    eventually("what it leaves out is told", async || (!is_whole().await).then_some(())).await;
    assert!(left_out("namespace `shop`") && left_out("the condition `not-now`"));

    home.patch(json!({ "rules": [] })).await;
    eventually("what it is no longer asked about is told", async || {
        (gate.metric("portcullis_webhook_state", "covers_rules").await <= 0.0).then_some(())
    })
    .await;
    let complaints = gate.logged("upkeep is held up");
    let told = complaints.iter().find(|line| line["matter"] == "covers_rules").unwrap();
    assert!(told["why"].as_str().unwrap().contains("CREATE networkpolicies"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_something_else_fills_in_is_compared_and_never_written() {
    let plane = ControlPlane::shared().await;
    let home = Home::new(plane, "injected").await;
    let (served, other) = (Certificate::new(&[home.address.ip()]), Certificate::new(&[]));
    let mut registration = home.registration();
    // The certificate of the tests is for Services of another namespace, and for this address.
    let url = format!("https://{}/validate", home.address);
    for entry in registration["webhooks"].as_array_mut().unwrap() {
        entry["clientConfig"] = json!({ "url": url });
    }
    registration["metadata"]["annotations"] = json!({ "cert-manager.io/inject-ca-from": "injected/gate" });
    plane.apply(&registration.to_string()).await;
    let setup = Setup {
        cluster: Knows::Live(plane.kubeconfig()),
        arguments: &["--webhook", "injected"],
        listen: Some(home.address),
        certificate: Some(&served),
        ..Setup::default()
    };
    let gate = Gate::begin(setup).await;
    let says = async |what: &str| {
        eventually(format!("readiness says: {what}"), async || readiness(&gate).await.contains(what).then_some(()))
            .await;
        if what.starts_with("[+]") {
            // What else there is to be ready for may take longer.
            gate.is_ready().await;
        } else {
            assert_eq!(gate.get("/readyz").await.unwrap().0, 503, "{what}");
        }
    };
    let inject = async |bundle: &str| {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(bundle);
        for name in ["gate.portcullis.dev", "owned-pods.portcullis.dev"] {
            home.patch_entry(name, json!({ "clientConfig": { "caBundle": encoded } })).await;
        }
    };
    says("the `caBundle` is empty").await;
    inject(&other.authority()).await;
    says("[-]certificate pending: the served certificate is not what `gate.portcullis.dev` of `injected` trusts: no certificate in the `caBundle` is its issuer's").await;
    inject(&(other.authority() + &served.authority())).await;
    says("[+]certificate ok").await;
    inject(&other.authority()).await;
    says("[-]certificate pending: ").await;

    let written = home.get("validatingwebhookconfiguration", "injected").await;
    let managers = written["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let is_ours = |manager: &Value| manager["manager"] == "portcullis";
    assert!(!managers.iter().any(is_ours), "{written:#}");
    assert_eq!(certificates(&decoded(&home.entry().await["clientConfig"]["caBundle"])).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_portcullis_did_not_issue_is_left_alone() {
    let plane = ControlPlane::shared().await;
    let home = Home::new(plane, "brought").await;
    let (certificate, key) = crate::support::Authority::new().issue(&["gate.brought.svc"]);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": "gate-tls", "namespace": "brought" },
        "stringData": { "tls.crt": certificate, "tls.key": key },
    });
    plane.apply(&secret.to_string()).await;
    let gate = home.begin(&[]).await;
    eventually("it says what is wrong", async || {
        readiness(&gate).await.contains("portcullis did not issue it").then_some(())
    })
    .await;
    assert_eq!(home.member("tls.crt").await, certificate);

    let deleted = plane.kubectl(["delete", "secret", "gate-tls", "--namespace=brought"], "").await;
    assert!(deleted.succeeded);
    gate.is_ready().await;
    assert!(!home.member("ca.key").await.is_empty());
}
