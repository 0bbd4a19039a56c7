//! Ways around the gate that are none.

use serde_json::json;

use crate::gate::{ALLOW_ALL, CART, DEFAULT_DENY, OPEN, OPENS_SOME, POD, closed, create, gate, owned, update};

const CONTROLLER: &str = "system:serviceaccount:kube-system:replicaset-controller";

fn with_open_policy() -> String {
    [&closed(), OPENS_SOME].join("\n---\n")
}

#[test]
fn an_owner_reference_that_is_no_controllers_is_none() {
    let pod = owned(POD, "Deployment", "cart").replace("controller: true", "controller: false");
    gate(&[OPEN, CART].join("\n---\n")).denies(&create(&pod));
}

#[test]
fn a_controllers_pod_is_recorded_and_not_denied() {
    // Its owner is not in the cache yet; the one who asked for the owner has had the answer.
    gate(OPEN).only_records(&create(&owned(POD, "ReplicaSet", "fresh")).by(CONTROLLER));
}

#[test]
fn the_name_of_a_controller_excuses_nothing_else() {
    let gate = gate(&closed());
    gate.denies(&create(ALLOW_ALL).by(CONTROLLER));
    gate.denies(
        &update(DEFAULT_DENY, &ALLOW_ALL.replace("allow-all", "default-deny")).by("system:kube-controller-manager-x"),
    );
}

#[test]
fn an_account_that_is_only_called_a_controller_is_none() {
    let pod = create(&owned(POD, "ReplicaSet", "fresh"));
    for name in [
        "system:serviceaccount:kube-system:my-controller",
        "system:serviceaccount:shop:replicaset-controller",
        "replicaset-controller",
        "system:serviceaccount:kube-system:replicaset-controller-2",
        "",
    ] {
        gate(OPEN).denies(&pod.clone().by(name));
    }
    // Nor is a bare pod a controller's, whoever creates it.
    gate(OPEN).denies(&create(POD).by(CONTROLLER));
}

#[test]
fn a_replica_set_of_no_replicas_can_be_scaled_unseen_so_it_is_judged() {
    let set = |metadata: &str| {
        format!(
            "
apiVersion: apps/v1
kind: ReplicaSet
metadata: {{name: quiet, namespace: shop, {metadata}}}
spec: {{replicas: 0, template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: []}}}}}}"
        )
    };
    gate(OPEN).denies(&create(&set("ownerReferences: [{kind: Deployment, name: none, controller: true}]")));
    gate(OPEN).denies(&create(&set("labels: {}")));
}

#[test]
fn an_empty_replica_set_of_a_forged_owner_is_opened_by_no_policy_and_loses_none() {
    let set = "
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: quiet, namespace: shop, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: anchor, controller: true}]}
spec: {replicas: 0, template: {metadata: {labels: {open: 'yes'}}, spec: {containers: []}}}";
    let gate = gate(&[&closed(), set].join("\n---\n"));
    gate.denies(&create(OPENS_SOME));
    let alone = crate::gate::gate(&[OPEN, DEFAULT_DENY, set].join("\n---\n"));
    alone.denies(&crate::gate::delete(DEFAULT_DENY));
}

#[test]
fn old_replica_sets_are_scaled_up_again_without_a_word() {
    let set = |replicas: u8| {
        format!(
            "
apiVersion: apps/v1
kind: ReplicaSet
metadata: {{name: cart-1, namespace: shop, ownerReferences: [{{kind: Deployment, name: cart, controller: true}}]}}
spec: {{replicas: {replicas}, template: {{metadata: {{labels: {{app: cart}}}}, spec: {{containers: []}}}}}}"
        )
    };
    let cluster = [OPEN, CART, &set(0)].join("\n---\n");
    gate(&cluster).passes(&update(&set(0), &set(3)));
    let pod = owned(&POD.replace("app: debug", "app: cart"), "ReplicaSet", "cart-1");
    gate(&cluster).passes(&create(&pod).by(CONTROLLER));
}

#[test]
fn a_pod_that_says_it_has_ended_is_judged_as_one_that_starts() {
    let ended = POD.replace("spec:", "status: {phase: Succeeded}\nspec:");
    gate(OPEN).denies(&create(&ended));
    let opened = ended.replace("{app: debug}", "{app: debug, open: 'yes'}");
    gate(&with_open_policy()).denies(&update(POD, &opened));
}

#[test]
fn a_job_that_says_it_is_complete_is_judged_as_one_that_starts() {
    gate(OPEN).denies(&create(
        "
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: shop}
spec: {template: {metadata: {labels: {a: b}}, spec: {containers: []}}}
status: {conditions: [{type: Complete, status: 'True'}]}",
    ));
}

#[test]
fn an_object_that_says_it_is_being_deleted_is_judged() {
    let leaving = "namespace: shop, deletionTimestamp: '2026-06-01T00:00:00Z', finalizers: [a/b]}";
    let opened = ALLOW_ALL.replace("allow-all", "default-deny");
    // On the new object the mark means nothing, and a policy that is held by a finalizer is in
    // force for as long as it is held.
    gate(&closed()).denies(&update(DEFAULT_DENY, &opened.replace("namespace: shop}", leaving)));
    gate(&closed()).denies(&update(
        &DEFAULT_DENY.replace("namespace: shop}", leaving),
        &opened.replace("namespace: shop}", leaving),
    ));
    gate(&closed()).denies(&create(&ALLOW_ALL.replace("namespace: shop}", leaving)));
}

#[test]
fn a_namespace_that_says_it_is_terminating_is_judged() {
    let namespace = |rest: &str| format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: shop{rest}}}");
    let defended = gate(&with_selector());
    let (before, after) = (namespace(", labels: {dns: 'yes'}}"), namespace("}, status: {phase: Terminating}"));
    defended.denies(&update(&before, &after));
}

/// A namespace whose pods resolve names only as long as it carries a label.
fn with_selector() -> String {
    let dns = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: dns, namespace: kube-system}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress: [{from: [{namespaceSelector: {matchLabels: {dns: 'yes'}}}]}]
";
    [&closed().replace("{name: shop}", "{name: shop, labels: {dns: 'yes'}}"), dns].join("\n---\n")
}

#[test]
fn a_label_that_lowers_the_mode_does_not_excuse_what_comes_with_it() {
    let before = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {dns: 'yes'}}}";
    let after = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {portcullis.dev/mode: audit}}}";
    gate(&with_selector()).denies(&update(before, after));
}

#[test]
fn the_mode_on_anything_but_a_namespace_means_nothing() {
    let labelled = CART.replace("namespace: shop}", "namespace: shop, labels: {portcullis.dev/mode: audit}}");
    gate(OPEN).denies(&create(&labelled));
    gate(OPEN).denies(&create(&POD.replace("app: debug", "portcullis.dev/mode: audit")));
}

#[test]
fn exempt_goes_by_the_name_of_the_namespace_and_by_no_label() {
    let labelled = OPEN.replace("{name: shop}", "{name: shop, labels: {kubernetes.io/metadata.name: kube-system}}");
    gate(&labelled).denies(&create(CART));
}

#[test]
fn who_asks_does_not_matter() {
    for name in ["system:admin", "kubernetes-admin", "system:serviceaccount:argocd:argocd-application-controller"] {
        gate(OPEN).denies(&create(CART).by(name));
    }
}

const COREDNS: &str = "
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns}, ports: [{name: dns, port: 53, protocol: UDP}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system}
spec: {replicas: 2, template: {metadata: {labels: {k8s-app: kube-dns}}, spec: {containers: []}}}";

/// A request for the subresource by which a Deployment is scaled.
fn scaled(name: &str, replicas: &str) -> crate::gate::Review {
    let scale = |spec: &str| {
        format!(
            "{{apiVersion: autoscaling/v1, kind: Scale, metadata: {{name: {name}, namespace: kube-system}}, spec: {spec}}}"
        )
    };
    update(&scale("{replicas: 2}"), &scale(replicas))
        .with("resource", json!({"group": "apps", "version": "v1", "resource": "deployments"}))
        .with("subResource", "scale")
}

#[test]
fn a_namespace_editor_cannot_scale_cluster_dns_away_in_silence() {
    let gate = gate(COREDNS);
    // None is left out of a Scale.
    for none in ["{replicas: 0}", "{}"] {
        gate.warns(&scaled("coredns", none));
    }
    gate.passes(&scaled("coredns", "{replicas: 1}"));
    gate.passes(&scaled("other", "{replicas: 0}"));
    gate.configured("profile: restricted").denies(&scaled("coredns", "{replicas: 0}"));
}

#[test]
fn a_namespace_editor_cannot_leave_out_the_peers_of_a_wide_rule() {
    let rule = |peers: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: web-egress, namespace: shop}}, spec: {{podSelector: {{}}, policyTypes: [Egress], egress: [{{{peers}ports: [{{port: 443}}, {{port: 80}}]}}]}}}}"
        )
    };
    let block = rule("to: [{ipBlock: {cidr: 0.0.0.0/0}}], ");
    let gate = gate(&[&closed(), CART, &block].join("\n---\n")).configured("profile: restricted");
    gate.denies(&update(&block, &rule("")));
    gate.denies(&create(&rule("").replace("web-egress", "other")));
    gate.denies(&create(&rule("to: [{ipBlock: {cidr: '64:ff9b::/96'}}], ").replace("web-egress", "other")));
}
