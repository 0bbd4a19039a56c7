//! The gate must not be the reason a cluster cannot heal: registered as it registers itself, failing
//! closed, and away.

use std::process::Command;

use crate::support::{BINARY, ControlPlane, Folder, Gate, Knows, Setup, eventually};

/// The namespace of the gate; its certificate is good for Services of it.
pub(crate) const OWN: &str = "gates";

/// The gate as an installation has it: a Deployment, what it mounts, and a Service, which here has the
/// address of the process that plays its pods.
pub(crate) fn installation(gate: &Gate) -> String {
    let (ip, port) = (gate.webhook.ip(), gate.webhook.port());
    format!(
        "
{{apiVersion: v1, kind: Namespace, metadata: {{name: {OWN}}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: gate, namespace: {OWN}}}, spec: {{clusterIP: {ip}, selector: {{app: gate}}, ports: [{{port: {port}, targetPort: 8443}}]}}}}
---
{{apiVersion: v1, kind: Secret, metadata: {{name: gate, namespace: {OWN}}}}}
---
{{apiVersion: v1, kind: ConfigMap, metadata: {{name: gate, namespace: {OWN}}}, data: {{portcullis.yaml: 'mode: enforce'}}}}
---
{}
---
{{apiVersion: v1, kind: Namespace, metadata: {{name: shop}}}}
",
        deployment(OWN, "gate", "one")
    )
}

fn deployment(namespace: &str, name: &str, image: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{{name: {name}, image: 'example.com/{name}:{image}'}}]}}}}}}}}"
    )
}

pub(crate) const DENY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny}, spec: {podSelector: {}, policyTypes: [Ingress]}}";

/// Registers the gate as `portcullis webhook` prints it, for every namespace there is, and waits until
/// it is asked.
pub(crate) async fn register(plane: &ControlPlane, gate: &Gate) {
    let folder = Folder::new("portcullis-cold-start-");
    let printed = Command::new(BINARY)
        .args(["webhook", "--guard", "--service", &format!("{OWN}/gate:{}", gate.webhook.port()), "--ca-file"])
        .arg(folder.write("ca.crt", gate.authority()))
        .output()
        .unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let registration = String::from_utf8(printed.stdout).unwrap();
    assert!(registration.contains("failurePolicy: Fail"), "{registration}");
    plane.apply(&registration).await;
    let before = gate.reviews().await;
    eventually("the gate is asked", async || {
        let _ = apply_in(plane, "shop", &format!("{DENY}\n"), &["--dry-run=server"]).await;
        (gate.reviews().await > before).then_some(())
    })
    .await;
}

pub(crate) async fn apply_in(
    plane: &ControlPlane,
    namespace: &str,
    documents: &str,
    further: &[&str],
) -> crate::support::Kubectl {
    let arguments = ["apply", "--namespace", namespace, "-f", "-"];
    plane.kubectl(arguments.iter().chain(further).copied(), documents).await
}

pub(crate) async fn runs(plane: &ControlPlane, what: &str) {
    let told = plane.kubectl(what.split(' '), "").await;
    assert!(told.succeeded, "{what}: {told:?}");
}

/// Waits until a Deployment's controllers have made pods of this image.
pub(crate) async fn pods_of(plane: &ControlPlane, namespace: &str, image: &str) {
    eventually(format!("there are pods of {image} in {namespace}"), async || {
        let images = "jsonpath={.items[*].spec.containers[*].image}";
        let pods = plane.kubectl(["get", "pods", "--namespace", namespace, "--output", images], "").await;
        pods.stdout.contains(image).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_starts_and_heals_while_the_gate_that_fails_closed_is_away() {
    let plane = ControlPlane::with_controllers().await;
    let gate = Gate::start(Setup { cluster: Knows::Live(plane.kubeconfig()), ..Setup::default() }).await;
    plane.apply(&installation(&gate)).await;
    plane.apply(&deployment("shop", "cart", "one")).await;
    pods_of(&plane, "shop", "cart:one").await;
    register(&plane, &gate).await;
    gate.stop().await;

    let refused = apply_in(&plane, "shop", &deployment("shop", "other", "one"), &[]).await;
    assert!(!refused.succeeded && refused.stderr.contains("failed calling webhook"), "it fails closed: {refused:?}");

    // The system's own: whatever kind the rules read.
    let system = ["kube-system", "kube-public"];
    for namespace in system {
        for documents in [
            &deployment(namespace, "agent", "one"),
            &deployment(namespace, "agent", "two"),
            DENY,
            "{apiVersion: v1, kind: Service, metadata: {name: kube-dns}, spec: {clusterIP: None, ports: [{port: 53}]}}",
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: 'rootNamespace: a'}}",
        ] {
            let applied = apply_in(&plane, namespace, documents, &[]).await;
            assert!(applied.succeeded, "{namespace}: {applied:?}");
        }
        pods_of(&plane, namespace, "agent:two").await;
        runs(&plane, &format!("label namespace {namespace} team=platform")).await;
    }

    // Nodes come, say that they live, and are written to.
    plane.apply("{apiVersion: v1, kind: Node, metadata: {name: worker}}").await;
    runs(&plane, "label node worker zone=a").await;
    for second in 0..2 {
        let lease = format!(
            "{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {{name: worker, namespace: kube-node-lease}}, spec: {{holderIdentity: worker, renewTime: '2026-01-01T00:00:0{second}.000000Z'}}}}"
        );
        plane.apply(&lease).await;
    }

    // The gate itself: restarted, rolled out anew, its files and its namespace changed.
    runs(&plane, &format!("delete pods --all --namespace {OWN} --wait=false")).await;
    plane.apply(&deployment(OWN, "gate", "two")).await;
    pods_of(&plane, OWN, "gate:two").await;
    for change in [
        "patch secret gate --patch {\"stringData\":{\"tls.crt\":\"x\"}}",
        "patch configmap gate --patch {\"data\":{\"portcullis.yaml\":\"{}\"}}",
        "scale deployment gate --replicas=3",
        "label namespace gates portcullis.dev/mode=audit",
    ] {
        runs(&plane, &format!("{change} --namespace {OWN}")).await;
    }
    let policy = apply_in(&plane, OWN, DENY, &[]).await;
    assert!(policy.succeeded, "{policy:?}");

    // What runs elsewhere is kept running: pods that are gone are made again.
    runs(&plane, "delete pods --all --namespace shop --wait=false --force --grace-period=0").await;
    pods_of(&plane, "shop", "cart:one").await;

    // So are those of operators, which no controller of the cluster's makes; what a person claims is not.
    plane.apply("{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: operator}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}, subjects: [{kind: ServiceAccount, name: operator, namespace: ops}]}").await;
    let operator = "--as=system:serviceaccount:ops:operator";
    let pod = |metadata: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{{metadata}}}, spec: {{containers: [{{name: db, image: db}}]}}}}"
        )
    };
    let owner = "ownerReferences: [{apiVersion: example.com/v1, kind: Database, name: db, uid: 3e1f0d5c-0000-4000-8000-000000000000, controller: true}]";
    let first = pod(&format!("name: db-0, {owner}"));
    let made = apply_in(&plane, "shop", &first, &[operator]).await;
    assert!(made.succeeded, "{made:?}");
    runs(&plane, "label pod db-0 --namespace shop role=primary --as=system:serviceaccount:ops:operator").await;
    let second = pod(&format!("name: db-1, {owner}"));
    for (documents, further) in [(&second, &[][..]), (&pod("name: bare"), &[operator])] {
        let refused = apply_in(&plane, "shop", documents, further).await;
        assert!(refused.stderr.contains("failed calling webhook \"gate.portcullis.dev\""), "{refused:?}");
    }

    // And the way out.
    runs(&plane, "delete validatingwebhookconfiguration portcullis").await;
    eventually("nothing is asked any more", async || {
        apply_in(&plane, "shop", &deployment("shop", "other", "one"), &[]).await.succeeded.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_does_not_let_itself_be_cut_off_or_switched_off() {
    let plane = ControlPlane::with_controllers().await;
    let arguments = ["--namespace", OWN];
    let setup = Setup { cluster: Knows::Live(plane.kubeconfig()), arguments: &arguments, ..Setup::default() };
    let gate = Gate::start(setup).await;
    plane.apply(&installation(&gate)).await;
    register(&plane, &gate).await;
    let cut_off = eventually("the gate knows by whom it is called", async || {
        let told = apply_in(&plane, OWN, DENY, &["--dry-run=server"]).await;
        (!told.succeeded).then_some(told)
    })
    .await;
    let said = &cut_off.stderr;
    assert!(said.contains("\"guard.portcullis.dev\" denied the request: [CL008 webhook-cut-off]"), "{said}");
    assert!(said.contains("`Deployment gate` of namespace `gates`"), "{said}");

    let loosened =
        plane.kubectl("label namespace gates portcullis.dev/mode=audit --dry-run=server".split(' '), "").await;
    assert!(!loosened.succeeded && loosened.stderr.contains("[CL007 mode-loosened]"), "{loosened:?}");
    let elsewhere =
        plane.kubectl("label namespace shop portcullis.dev/mode=audit --dry-run=server".split(' '), "").await;
    assert!(elsewhere.succeeded && elsewhere.stderr.contains("Warning: [CL007"), "{elsewhere:?}");

    let patch = r#"{"data":{"portcullis.yaml":"mode:\tloud"}}"#;
    let configured = ["patch", "configmap", "gate", "--namespace", OWN, "--patch", patch];
    let refused = plane.kubectl(configured, "").await;
    assert!(!refused.succeeded && refused.stderr.contains("[CL009 invalid-configuration]"), "{refused:?}");
    runs(&plane, "patch configmap gate --namespace gates --patch {\"data\":{\"other\":\"loud\"}}").await;

    let patch = r#"{"data":null,"binaryData":{"portcullis.yaml":"bW9kZTogbG91ZAo="}}"#;
    let refused = plane.kubectl(["patch", "configmap", "gate", "--namespace", OWN, "--patch", patch], "").await;
    assert!(!refused.succeeded && refused.stderr.contains("[CL009 invalid-configuration]"), "{refused:?}");
    let patch = r#"{"data":{"portcullis.yaml":"mode: audit"}}"#;
    let weakened = plane.kubectl(["patch", "configmap", "gate", "--namespace", OWN, "--patch", patch], "").await;
    assert!(weakened.succeeded && weakened.stderr.contains("Warning: [CL010 weakened-configuration]"), "{weakened:?}");
    assert!(weakened.stderr.contains("`mode` falls from `enforce` to `audit`"), "{weakened:?}");
    let gone = plane.kubectl("delete configmap gate --namespace gates".split(' '), "").await;
    assert!(gone.succeeded && gone.stderr.contains("the gate's configuration goes"), "{gone:?}");
}

const DNS: &str = "
{apiVersion: v1, kind: Service, metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}, spec: {selector: {k8s-app: kube-dns}, ports: [{name: dns, port: 53, protocol: UDP}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: coredns, namespace: kube-system}, spec: {replicas: 2, selector: {matchLabels: {k8s-app: kube-dns}}, template: {metadata: {labels: {k8s-app: kube-dns}}, spec: {containers: [{name: coredns, image: 'example.com/coredns:one'}]}}}}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_editor_cannot_take_cluster_dns_from_everybody_in_silence() {
    let plane = ControlPlane::with_controllers().await;
    plane.apply(DNS).await;
    pods_of(&plane, "kube-system", "coredns:one").await;
    let arguments = ["--namespace", OWN];
    let setup = Setup { cluster: Knows::Live(plane.kubeconfig()), arguments: &arguments, ..Setup::default() };
    let gate = Gate::start(setup).await;
    plane.apply(&installation(&gate)).await;
    register(&plane, &gate).await;
    let external = r#"patch service kube-dns --patch {"spec":{"type":"ExternalName","externalName":"dns.example.com","clusterIP":null,"clusterIPs":null,"selector":null}}"#;
    for taking in [
        "scale deployment coredns --replicas=0",
        r#"patch deployment coredns --patch {"spec":{"replicas":0}}"#,
        "delete deployment coredns",
        "delete service kube-dns",
        r#"patch service kube-dns --patch {"spec":{"selector":{"k8s-app":"other"}}}"#,
        external,
    ] {
        let taking = format!("{taking} --namespace kube-system --dry-run=server");
        let told = plane.kubectl(taking.split(' '), "").await;
        assert!(told.succeeded && told.stderr.contains("Warning: [NP008 dns-unserved]"), "{taking}: {told:?}");
    }
    let before = gate.reviews().await;
    for upgrade in [
        "set image deployment/coredns coredns=example.com/coredns:two",
        "scale deployment coredns --replicas=3",
        "label deployment coredns team=platform",
        "delete pods --all --wait=false",
    ] {
        let upgrade = format!("{upgrade} --namespace kube-system");
        let told = plane.kubectl(upgrade.split(' '), "").await;
        assert!(told.succeeded && !told.stderr.contains("Warning"), "{upgrade}: {told:?}");
    }
    pods_of(&plane, "kube-system", "coredns:two").await;
    assert!(gate.reviews().await > before, "pods of DNS are asked about when they go");
}
