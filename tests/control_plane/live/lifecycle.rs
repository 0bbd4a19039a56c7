//! Every way in which objects come, change and go, with a gate in force that fails closed.

use crate::scene::Scene;
use crate::support::{Kubectl, Through, eventually};

/// A namespace whose pods are isolated and resolve names, with more than one way to name its
/// policies; and one that is open.
const STANDING: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: $ns, labels: {gate: $ns}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: $ns, labels: {tier: base}}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-dns, namespace: $ns, labels: {tier: base}}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress: [{to: [{namespaceSelector: {}}], ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: $ns}
spec:
  selector: {matchLabels: {app: cart}}
  template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: c, image: example.com/cart}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: $ns-open, labels: {gate: $ns}}}
";

/// The default-deny with a selector that selects next to nothing.
const NARROWED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: $ns, labels: {tier: base}}
spec: {podSelector: {matchLabels: {app: other}}, policyTypes: [Ingress, Egress]}
";

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: late, namespace: $where}
spec:
  selector: {matchLabels: {app: late}}
  template: {metadata: {labels: {app: late}}, spec: {containers: [{name: c, image: example.com/late}]}}
";

const GENERATED: &str = "
{apiVersion: v1, kind: Pod, metadata: {generateName: late-, namespace: $where}, spec: {containers: [{name: c, image: example.com/late}]}}
";

#[track_caller]
fn succeeded(said: &Kubectl) {
    assert!(said.succeeded, "{said:?}");
}

#[tokio::test]
async fn every_verb_that_opens_is_denied_and_every_verb_that_does_not_passes() {
    let scene = Scene::new("verbs", Through::Url, "", STANDING).await;
    let state = "get networkpolicies --namespace=$ns --output=jsonpath={.items[*].metadata.resourceVersion}";
    let before = scene.kubectl(state, "").await.stdout;
    let narrow = r#"{"spec":{"podSelector":{"matchLabels":{"app":"other"}}}}"#;
    let replace = r#"[{"op":"add","path":"/spec/podSelector/matchLabels","value":{"app":"other"}}]"#;
    for (command, input) in [
        ("create -f -", &*DEPLOYMENT.replace("$where", "$ns-open")),
        ("apply -f -", &DEPLOYMENT.replace("$where", "$ns-open")),
        ("apply --server-side -f -", &DEPLOYMENT.replace("$where", "$ns-open")),
        ("create -f -", &GENERATED.replace("$where", "$ns-open")),
        ("apply -f -", NARROWED),
        ("apply --server-side --force-conflicts -f -", NARROWED),
        ("replace -f -", NARROWED),
        (&format!("patch networkpolicy default-deny --namespace=$ns --type=strategic --patch={narrow}"), ""),
        (&format!("patch networkpolicy default-deny --namespace=$ns --type=merge --patch={narrow}"), ""),
        (&format!("patch networkpolicy default-deny --namespace=$ns --type=json --patch={replace}"), ""),
        ("delete networkpolicy default-deny --namespace=$ns", ""),
        ("delete networkpolicies --namespace=$ns --selector=tier=base --field-selector=metadata.name=default-deny", ""),
        ("delete --raw /apis/networking.k8s.io/v1/namespaces/$ns/networkpolicies", ""),
        ("delete --cascade=orphan networkpolicy default-deny --namespace=$ns", ""),
        ("delete --cascade=foreground networkpolicy default-deny --namespace=$ns", ""),
    ] {
        let said = scene.kubectl(command, input).await;
        assert!(!said.succeeded && said.stderr.contains("denied the request"), "{command}: {said:?}");
    }
    assert_eq!(scene.kubectl(state, "").await.stdout, before);

    let tier = r#"{"metadata":{"labels":{"tier":"more"}}}"#;
    let add = r#"[{"op":"add","path":"/metadata/annotations","value":{"why":"tests"}}]"#;
    for (command, input) in [
        ("create -f -", &*DEPLOYMENT.replace("$where", "$ns")),
        ("apply --server-side --force-conflicts -f -", &DEPLOYMENT.replace("$where", "$ns")),
        ("create -f -", &GENERATED.replace("$where", "$ns")),
        ("scale deployment late --namespace=$ns --replicas=3", ""),
        ("set image deployment/late c=example.com/later --namespace=$ns", ""),
        ("rollout restart deployment/late --namespace=$ns", ""),
        (&format!("patch networkpolicy default-deny --namespace=$ns --type=merge --patch={tier}"), ""),
        (&format!("patch networkpolicy default-deny --namespace=$ns --type=json --patch={add}"), ""),
        ("delete deployment late --namespace=$ns", ""),
        ("delete --raw /api/v1/namespaces/$ns/pods", ""),
    ] {
        let said = scene.kubectl(command, input).await;
        assert!(said.succeeded && said.stderr.is_empty(), "{command}: {said:?}");
    }
}

#[tokio::test]
async fn a_deployment_gets_its_pods_with_the_gate_in_force() {
    let scene = Scene::new("pods", Through::Service, "", STANDING).await;
    let pods = async |count: usize| {
        eventually(format!("there are {count} pods"), async || {
            let pods = scene.kubectl("get pods --namespace=$ns --selector=app=late --output=name", "").await;
            (pods.stdout.lines().count() == count).then_some(())
        })
        .await;
    };
    Scene::silent(&scene.kubectl("create -f -", &DEPLOYMENT.replace("$where", "$ns")).await);
    pods(1).await;
    Scene::silent(&scene.kubectl("scale deployment late --namespace=$ns --replicas=4", "").await);
    pods(4).await;
    Scene::silent(&scene.kubectl("scale deployment late --namespace=$ns --replicas=0", "").await);
    pods(0).await;
}

#[tokio::test]
async fn a_registration_that_spares_nobody_holds_up_neither_pods_nor_a_namespace_that_goes() {
    let scene = Scene::new("spared", Through::Url, "", STANDING).await;
    let all = r#"[{"op":"remove","path":"/webhooks/0/matchConditions"}]"#;
    let patch = format!("patch validatingwebhookconfiguration $ns --type=json --patch={all}");
    succeeded(&scene.kubectl(&patch, "").await);
    let reviews = async |labels: &str| scene.gate.metric("portcullis_reviews_total", labels).await;
    let mut times = 0;
    eventually("the gate is asked about what changes nothing", async || {
        times += 1;
        let annotate = format!("annotate networkpolicy allow-dns --namespace=$ns times={times} --overwrite");
        succeeded(&scene.kubectl(&annotate, "").await);
        (reviews("operation=\"UPDATE\"").await > 0.0).then_some(())
    })
    .await;

    Scene::silent(&scene.kubectl("create -f -", &DEPLOYMENT.replace("$where", "$ns")).await);
    eventually("the Deployment has its pod", async || {
        let pods = scene.kubectl("get pods --namespace=$ns --selector=app=late --output=name", "").await;
        (pods.stdout.lines().count() == 1).then_some(())
    })
    .await;
    let deletions = r#"kind="NetworkPolicy",operation="DELETE""#;
    let before = reviews(deletions).await;
    let denied = scene.kubectl("delete networkpolicy default-deny --namespace=$ns", "").await;
    Scene::denied(&denied, "NP001");
    // It waits until the namespace is gone.
    succeeded(&scene.kubectl("delete namespace $ns --timeout=50s", "").await);
    // The one that was denied, and two by the namespace controller.
    assert!(reviews(deletions).await > before + 2.5);
}

#[tokio::test]
async fn what_is_going_loses_its_last_finalizer() {
    let scene = Scene::new("finalizer", Through::Url, "", STANDING).await;
    let held = r#"{"metadata":{"finalizers":["example.com/held"]}}"#;
    let patch = |patch: &str| format!("patch networkpolicy default-deny --namespace=$ns --type=merge --patch={patch}");
    let mode = async |mode: &str| succeeded(&scene.kubectl(&format!("label namespace $ns {mode}"), "").await);
    Scene::silent(&scene.kubectl(&patch(held), "").await);
    mode("portcullis.dev/mode=warn").await;
    eventually("the deletion is warned about alone", async || {
        let delete = "delete networkpolicy default-deny --namespace=$ns --wait=false";
        scene.kubectl(delete, "").await.succeeded.then_some(())
    })
    .await;
    mode("portcullis.dev/mode-").await;
    eventually("the gate denies again", async || {
        let other = "delete networkpolicy allow-dns --namespace=$ns --dry-run=server";
        let open = "patch networkpolicy allow-dns --namespace=$ns --type=merge --dry-run=server --patch={\"spec\":{\"egress\":[{}]}}";
        let said = (scene.kubectl(other, "").await, scene.kubectl(open, "").await);
        (!said.0.succeeded || !said.1.succeeded).then_some(())
    })
    .await;
    succeeded(&scene.kubectl(&patch(r#"{"metadata":{"finalizers":null}}"#), "").await);
    let left = scene.kubectl("get networkpolicies --namespace=$ns --output=name", "").await;
    assert!(!left.stdout.contains("default-deny"), "{left:?}");
}

#[tokio::test]
async fn a_dry_run_leaves_no_trace_in_what_the_gate_knows() {
    let scene = Scene::new("dry", Through::Url, "", STANDING).await;
    let open = DEPLOYMENT.replace("$where", "$ns-open");
    let closing = NARROWED.replace("$ns", "$ns-open").replace("{matchLabels: {app: other}}", "{}");
    succeeded(&scene.kubectl("create --dry-run=server -f -", &closing).await);
    Scene::denied(&scene.kubectl("create -f -", &open).await, "NP001");
    let absent = scene.kubectl("get networkpolicies,deployments --namespace=$ns-open --output=name", "").await;
    assert_eq!(absent.stdout, "");

    let relaxed = "label namespace $ns portcullis.dev/mode=audit --dry-run=server";
    succeeded(&scene.kubectl(relaxed, "").await);
    let deletion = scene.kubectl("delete networkpolicy default-deny --namespace=$ns", "").await;
    Scene::denied(&deletion, "NP001");
    succeeded(&scene.kubectl("delete namespace $ns --dry-run=server", "").await);
    let deletion = scene.kubectl("delete networkpolicy default-deny --namespace=$ns", "").await;
    Scene::denied(&deletion, "NP001");
}
