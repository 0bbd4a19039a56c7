//! What the rules say of a change, as a person with kubectl meets it.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, ListParams};

use crate::scene::Scene;
use crate::support::{Through, eventually};

/// Three namespaces alike, in which pods are isolated, names resolve and mutual TLS is demanded.
/// What is denied in one is warned of in the next. The last one is open.
fn standing() -> String {
    let closed = |namespace: &str, labels: &str| {
        format!(
            "
{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}, labels: {{gate: $ns, istio-injection: enabled{labels}}}}}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: default-deny, namespace: {namespace}}}
spec: {{podSelector: {{}}, policyTypes: [Ingress, Egress]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: allow-dns, namespace: {namespace}}}
spec:
  podSelector: {{}}
  policyTypes: [Egress]
  egress:
  - to: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: kube-system}}}}, podSelector: {{matchLabels: {{k8s-app: kube-dns}}}}}}]
    ports: [{{protocol: UDP, port: 53}}, {{protocol: TCP, port: 53}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: {namespace}}}
spec: {{mtls: {{mode: STRICT}}}}
---
{}",
            deployment(namespace, "cart")
        )
    };
    let open = "{apiVersion: v1, kind: Namespace, metadata: {name: $ns-open, labels: {gate: $ns}}}";
    [closed("$ns-deny", ""), closed("$ns-warn", ", portcullis.dev/mode: warn"), open.to_owned()].join("\n---\n")
}

fn deployment(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{{name: c, image: example.com/{name}}}]}}}}"
    )
}

/// Each rule, a change in a namespace that it objects to, and one like it that is in order.
const CASES: [(&str, &str, &str); 4] = [
    (
        "NP001",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: open, namespace: $where}, spec: {podSelector: {}, ingress: [{}]}}",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: open, namespace: $where}, spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}}",
    ),
    (
        "NP002",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: allow-dns, namespace: $where}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 5353}]}]}}",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: allow-dns, namespace: $where}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]}]}}",
    ),
    (
        "NP003",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: out, namespace: $where}, spec: {podSelector: {matchLabels: {app: cart}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 443}]}]}}",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: out, namespace: $where}, spec: {podSelector: {matchLabels: {app: cart}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/24}}], ports: [{port: 443}]}]}}",
    ),
    (
        "MT001",
        "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: $where}, spec: {mtls: {mode: PERMISSIVE}}}",
        "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: cart, namespace: $where}, spec: {selector: {matchLabels: {app: cart}}, mtls: {mode: STRICT}}}",
    ),
];

const CONFIG: &str = "rules: {wildcard-ip-block: {action: deny}}";

/// Every rule denies, warns and lets through; a dry run is answered like the change itself and
/// leaves nothing behind.
async fn every_rule_answers(through: Through) {
    let scene = Scene::new("rules", through, CONFIG, &standing()).await;
    let versions = "get networkpolicies,peerauthentications --namespace=$ns-warn --output=jsonpath={.items[*].metadata.resourceVersion}";
    let state = async || scene.kubectl(versions, "").await.stdout;
    for (code, wrong, right) in CASES {
        let at = |change: &str, namespace: &str| change.replace("$where", namespace);
        for dry_run in [" --dry-run=server", ""] {
            let apply = format!("apply -f -{dry_run}");
            Scene::denied(&scene.kubectl(&apply, &at(wrong, "$ns-deny")).await, code);
        }
        let before = state().await;
        let dry = scene.kubectl("apply -f - --dry-run=server", &at(wrong, "$ns-warn")).await;
        Scene::warned(&dry, code);
        assert_eq!(state().await, before);
        let done = scene.kubectl("apply -f -", &at(wrong, "$ns-warn")).await;
        Scene::warned(&done, code);
        assert_eq!(done.stderr, dry.stderr);
        Scene::silent(&scene.kubectl("apply -f -", &at(right, "$ns-deny")).await);
    }
    let spoken = match through {
        Through::Url => "HTTP/2.0",
        Through::Service => "HTTP/1.1",
    };
    let denied = scene.gate.logged("review denied");
    let objects: Vec<_> = denied.iter().map(|line| line["span"]["object"].as_str().unwrap()).collect();
    assert_eq!(objects, ["open", "allow-dns", "out", "default"]);
    let otherwise: Vec<_> = denied.iter().filter(|line| line["span"]["http"] != spoken).collect();
    assert!(otherwise.is_empty(), "not all of it was {spoken}: {otherwise:#?}");
}

#[tokio::test]
async fn every_rule_denies_warns_and_lets_through_by_url() {
    every_rule_answers(Through::Url).await;
}

#[tokio::test]
async fn every_rule_denies_warns_and_lets_through_by_service() {
    every_rule_answers(Through::Service).await;
}

#[tokio::test]
async fn a_person_is_told_everything_at_once() {
    let scene = Scene::new("told", Through::Service, CONFIG, &standing()).await;
    let opened = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: temporary, namespace: $where}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: [{}]
  egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 443}]}]
";
    let denied = scene.kubectl("apply -f -", &opened.replace("$where", "$ns-deny")).await;
    assert!(!denied.succeeded && denied.stdout.is_empty(), "{denied:?}");
    insta::assert_snapshot!("denied", denied.stderr);

    let warned = scene.kubectl("apply -f -", &opened.replace("$where", "$ns-warn")).await;
    assert!(warned.succeeded, "{warned:?}");
    insta::assert_snapshot!("warned", warned.stderr);
}

#[tokio::test]
async fn a_name_yet_to_be_made_up_and_a_deletion_of_many_are_judged_too() {
    let scene = Scene::new("many", Through::Url, "", &standing()).await;
    let made_up = "{apiVersion: v1, kind: Pod, metadata: {generateName: cart-, namespace: $ns-open}, spec: {containers: [{name: c, image: example.com/cart}]}}";
    Scene::denied(&scene.kubectl("create -f -", made_up).await, "NP001");

    let policies: Api<NetworkPolicy> = Api::namespaced(scene.plane.client().await, &scene.named("$ns-deny"));
    let refused = policies.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    let refused = refused.expect_err("the policies are what isolates the pods").to_string();
    assert!(refused.contains("denied the request"), "{refused}");
    // They go one by one, and what the gate holds on to stays.
    let names: Vec<_> = policies.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test]
async fn however_an_object_is_changed_the_change_is_judged() {
    let scene = Scene::new("changed", Through::Service, "", &standing()).await;
    let policy = |spec: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: default-deny, namespace: $ns-deny}}, spec: {spec}}}"
        )
    };
    let opened = policy("{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}]}");
    let patch = r#"--patch=[{"op":"add","path":"/spec/ingress","value":[{}]}]"#;
    for (command, input) in [
        ("apply -f -", &opened),
        ("apply -f - --server-side --force-conflicts", &opened),
        ("replace -f -", &opened),
        (&*format!("patch networkpolicy default-deny --namespace=$ns-deny --type=json {patch}"), &String::new()),
        ("delete networkpolicy default-deny --namespace=$ns-deny", &String::new()),
    ] {
        Scene::denied(&scene.kubectl(command, input).await, "NP001");
    }
    let labelled = "annotate networkpolicy default-deny --namespace=$ns-deny owner=ada";
    Scene::silent(&scene.kubectl(labelled, "").await);
}

#[tokio::test]
async fn controllers_make_pods_and_namespaces_go_with_all_that_is_in_them() {
    let scene = Scene::new("carried", Through::Service, "", &standing()).await;
    Scene::silent(&scene.kubectl("apply -f -", &deployment("$ns-deny", "web")).await);
    eventually("the Deployment has its pod", async || {
        let pods = scene.kubectl("get pods --namespace=$ns-deny --selector=app=web --output=name", "").await;
        (pods.stdout.lines().count() == 1).then_some(())
    })
    .await;
    // The default-deny among them, which nobody may delete by itself.
    let deleted = scene.kubectl("delete namespace $ns-deny", "").await;
    assert!(deleted.succeeded, "{deleted:?}");
    let left = scene.kubectl("get namespace $ns-deny", "").await;
    assert!(left.stderr.contains("NotFound"), "{left:?}");
}
