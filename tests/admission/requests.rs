//! The shapes requests come in.

use serde_json::{Value, json};

use crate::gate::{ALLOW_ALL, CART, DEFAULT_DENY, OPEN, POD, closed, create, delete, gate, object, update};

#[test]
fn a_generated_name_is_shown_by_its_prefix() {
    let nameless = "
apiVersion: v1
kind: Pod
metadata: {generateName: debug-, namespace: shop}
spec: {containers: []}
";
    let response = gate(OPEN).response(&create(nameless));
    assert_eq!(response["status"]["details"]["name"], "debug-*");
    let answer = gate(OPEN).answer(&create(nameless).body());
    assert_eq!((answer.record.name.as_str(), answer.record.allowed), ("debug-*", false));
}

#[test]
fn an_item_of_a_collection_that_goes_is_named_by_its_old_object() {
    let gate = gate(&closed());
    let review = delete(DEFAULT_DENY).with("name", "");
    gate.denies(&review);
    assert_eq!(gate.response(&review)["status"]["details"]["name"], "default-deny");
}

#[test]
fn a_deletion_has_only_the_old_object() {
    let gate = gate(&closed());
    assert_eq!(delete(DEFAULT_DENY).request["object"], Value::Null);
    gate.denies(&delete(DEFAULT_DENY));
    gate.passes(&delete(CART));
}

#[test]
fn a_deletion_without_the_old_object_is_judged_by_what_is_known() {
    let gate = gate(&closed());
    gate.denies(&delete(DEFAULT_DENY).with("oldObject", Value::Null));
    gate.passes(&delete(CART).with("oldObject", Value::Null));
}

#[test]
fn a_deletion_of_something_unknown_without_the_old_object_says_so() {
    let unknown = delete(ALLOW_ALL).with("oldObject", Value::Null);
    gate(&closed()).warns(&unknown);
}

#[test]
fn a_request_without_its_object_is_not_taken_for_one_about_nothing() {
    let gate = gate(&closed()).configured("profile: restricted");
    gate.denies(&create(CART).with("object", Value::Null));
    gate.denies(&update(CART, CART).with("object", Value::Null));
}

#[test]
fn creating_what_the_cluster_already_knows_is_judged_against_its_absence() {
    // The watch was faster than the review: what is asked for must not look like what stood.
    let cluster = [&closed(), ALLOW_ALL].join("\n---\n");
    gate(&cluster).denies(&create(ALLOW_ALL));
}

#[test]
fn updating_what_the_cluster_does_not_know_is_judged_by_the_old_object() {
    let gate = gate(&[OPEN, CART].join("\n---\n"));
    gate.denies(&update(DEFAULT_DENY, &DEFAULT_DENY.replace("[Ingress, Egress]", "[Egress]")));
    gate.passes(&update(
        DEFAULT_DENY,
        &DEFAULT_DENY.replace("namespace: shop}", "namespace: shop, annotations: {a: b}}"),
    ));
}

#[test]
fn deleting_what_the_cluster_does_not_know_is_judged_by_the_old_object() {
    gate(&[OPEN, CART].join("\n---\n")).denies(&delete(DEFAULT_DENY));
}

#[test]
fn an_unchanged_object_is_no_change() {
    gate(OPEN).passes(&update(CART, CART));
}

#[test]
fn what_stood_is_at_most_a_warning() {
    let relabelled = CART.replace("{app: cart}", "{app: cart, v: two}");
    gate(&[OPEN, CART].join("\n---\n")).warns(&update(CART, &relabelled));
}

#[test]
fn a_dry_run_is_answered_like_any_other() {
    let gate = gate(OPEN);
    for review in [create(CART), create("{apiVersion: v1, kind: Namespace, metadata: {name: new}}")] {
        assert_eq!(gate.response(&review), gate.response(&review.clone().with("dryRun", true)));
    }
    assert!(gate.answer(&create(CART).with("dryRun", true).body()).record.dry_run);
    assert!(!gate.answer(&create(CART).body()).record.dry_run);
}

#[test]
fn a_status_update_is_no_change() {
    let running = POD.replace("spec:", "status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}\nspec:");
    gate(OPEN).passes(&update(POD, &running).with("subResource", "status"));
}

#[test]
fn a_label_that_comes_with_a_status_update_is_judged() {
    let open = POD.replace("{app: debug}", "{app: debug, open: 'yes'}");
    let cluster = [&closed(), crate::gate::OPENS_SOME].join("\n---\n");
    gate(&cluster).denies(&update(POD, &open).with("subResource", "status"));
}

#[test]
fn subresources_with_a_kind_of_their_own_are_not_judged() {
    let gate = gate(OPEN);
    let scale =
        "{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: cart, namespace: shop}, spec: {replicas: 3}}";
    gate.passes(&update(scale, scale).with("subResource", "scale"));
    let eviction = "{apiVersion: policy/v1, kind: Eviction, metadata: {name: debug, namespace: shop}}";
    gate.passes(&create(eviction).with("subResource", "eviction"));
    let options = json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": true});
    gate.passes(&create(POD).with("operation", "CONNECT").with("subResource", "exec").with("object", options));
}

#[test]
fn an_operation_nobody_knows_is_let_through() {
    gate(OPEN).passes(&create(CART).with("operation", "CONNECT"));
    gate(OPEN).passes(&create(CART).with("operation", "HIBERNATE"));
}

#[test]
fn a_kind_nobody_reads_is_let_through_and_not_counted_as_judged() {
    let secret = create("{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: shop}}");
    gate(OPEN).passes(&secret);
    assert!(!gate(OPEN).answer(&secret.body()).record.judged);
    gate(OPEN).passes(&create("{apiVersion: example.com/v1, kind: Deployment, metadata: {name: s, namespace: shop}}"));
    assert!(gate(OPEN).answer(&create(CART).body()).record.judged);
}

#[test]
fn a_config_map_that_is_not_the_meshs_is_let_through() {
    gate(OPEN)
        .passes(&create("{apiVersion: v1, kind: ConfigMap, metadata: {name: app, namespace: shop}, data: {mesh: x}}"));
    gate(OPEN)
        .passes(&create("{apiVersion: v1, kind: ConfigMap, metadata: {name: istio-ca, namespace: istio-system}}"));
}

#[test]
fn the_kind_of_the_request_counts_and_not_that_of_the_object() {
    let mut review = create(CART);
    review.request["object"]["kind"] = "Secret".into();
    review.request["object"]["apiVersion"] = "v1".into();
    gate(OPEN).denies(&review);
}

#[test]
fn an_object_without_a_namespace_is_in_the_requests() {
    let mut review = create(CART);
    review.request["object"]["metadata"].as_object_mut().unwrap().remove("namespace");
    gate(OPEN).denies(&review);
}

#[test]
fn an_object_in_another_namespace_than_the_requests_is_said_to_be() {
    let elsewhere = create(POD).with("namespace", "kube-system");
    gate(&closed()).warns(&elsewhere);
    gate(&closed()).configured("profile: restricted").denies(&elsewhere);
}

#[test]
fn the_namespace_of_a_namespaces_request_is_itself() {
    let review = create("{apiVersion: v1, kind: Namespace, metadata: {name: new}}");
    assert_eq!(review.request["namespace"], "new");
    let response = gate(OPEN).response(&review);
    assert!(!response.to_string().contains("new/new"), "{response}");
    gate(OPEN).warns(&review.with("namespace", ""));
}

#[test]
fn a_namespace_that_is_being_deleted_is_not_held_up() {
    let leaving = closed().replace(
        "metadata: {name: shop}",
        "metadata: {name: shop, deletionTimestamp: '2026-06-01T00:00:00Z'}\nstatus: {phase: Terminating}",
    );
    gate(&leaving).passes(&delete(DEFAULT_DENY));
    gate(&leaving).passes(&create(CART));
}

#[test]
fn what_goes_with_its_namespace_may_turn_unreadable() {
    let configured = "rules: {unreadable-object: {action: deny}}";
    let sound =
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: shop}\nspec: {}";
    let odd = sound.replace("spec: {}", "spec: text");
    let leaving = OPEN.replace("metadata: {name: shop}", "metadata: {name: shop}\nstatus: {phase: Terminating}");
    gate(OPEN).configured(configured).denies(&update(sound, &odd));
    gate(&leaving).configured(configured).only_records(&update(sound, &odd));
}

#[test]
fn deleting_a_namespace_is_not_denied() {
    gate(&closed()).passes(&delete("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}"));
}

#[test]
fn what_cleans_up_is_recorded_and_not_denied() {
    let gate = gate(&closed());
    for account in ["namespace-controller", "generic-garbage-collector"] {
        gate.only_records(&delete(DEFAULT_DENY).by(&format!("system:serviceaccount:kube-system:{account}")));
        gate.denies(&delete(DEFAULT_DENY).by(&format!("system:serviceaccount:shop:{account}")));
    }
    gate.only_records(&delete(DEFAULT_DENY).by("system:kube-controller-manager"));
}

#[test]
fn taking_the_last_finalizer_off_is_never_denied_and_never_silent() {
    let held = |finalizers: &str| {
        DEFAULT_DENY.replace(
            "namespace: shop}",
            &format!("namespace: shop, deletionTimestamp: '2026-06-01T00:00:00Z', finalizers: [{finalizers}]}}"),
        )
    };
    let gate = gate(&closed());
    gate.passes(&update(&held("a/b, c/d"), &held("a/b")));
    // With the last one the policy goes, and nothing else says so.
    gate.warns(&update(&held("a/b"), &held("")));
}

#[test]
fn an_object_unreadable_before_and_after_is_at_most_warned_of() {
    let policy = |rules: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: old, namespace: shop}}\nspec: {{podSelector: {{}}, policyTypes: [Ingress], ingress: [{rules}]}}"
        )
    };
    let (bad, good) = ("{from: [{ipBlock: {cidr: broken}}]}", "{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}");
    let gate = gate(&closed()).configured("profile: restricted");
    gate.denies(&create(&policy(bad)));
    gate.denies(&update(&policy(good), &policy(bad)));
    // One rule fewer: what is left has moved, and is no more unreadable than it was.
    gate.warns(&update(&policy(&format!("{good}, {bad}")), &policy(bad)));
    gate.denies(&update(&policy(bad), &policy(&format!("{bad}, {bad}"))));
    gate.passes(&update(&policy(bad), &policy(good)));
}

#[test]
fn what_became_unreadable_has_not_gone() {
    let mut review = update(CART, CART);
    review.request["object"]["spec"]["template"]["spec"]["containers"] = json!("none");
    gate(&closed()).warns(&review);
    let mut namespace = update(
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}",
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}",
    );
    namespace.request["object"]["metadata"]["labels"] = json!([1]);
    gate(&closed()).warns(&namespace);
    gate(&closed()).configured("profile: restricted").denies(&namespace);
}

#[test]
fn a_workload_that_is_unreadable_in_part_is_judged_for_the_rest() {
    let mut review = create(CART);
    review.request["object"]["spec"]["template"]["spec"]["containers"] = json!([{"ports": [{"containerPort": "80"}]}]);
    let response = gate(OPEN).response(&review);
    assert_eq!(response["status"]["details"]["causes"][0]["reason"], "missing-default-deny");
    assert!(response["warnings"][0].as_str().unwrap().contains("[CL001 unreadable-object]"), "{response:#}");
}

#[test]
fn nothing_is_denied_on_the_strength_of_an_old_object_that_cannot_be_read() {
    let mut review = update(CART, CART);
    review.request["oldObject"] = json!("gone");
    gate(OPEN).warns(&review);
}

#[test]
fn the_modes_cap_what_is_said() {
    let labelled =
        |mode: &str| OPEN.replace("{name: shop}", &format!("{{name: shop, labels: {{portcullis.dev/mode: {mode}}}}}"));
    gate(&labelled("warn")).warns(&create(CART));
    gate(&labelled("audit")).only_records(&create(CART));
    gate(&labelled("enforce")).configured("mode: audit").denies(&create(CART));
    gate(&labelled("nonsense")).denies(&create(CART));
    gate(OPEN).configured("mode: warn").warns(&create(CART));
    gate(OPEN).configured("mode: audit").only_records(&create(CART));
}

#[test]
fn the_modes_cap_what_is_said_of_the_unreadable_too() {
    let bad = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: x}}]}]}}";
    let labelled = closed().replace("{name: shop}", "{name: shop, labels: {portcullis.dev/mode: audit}}");
    gate(&closed()).configured("profile: restricted").denies(&create(bad));
    gate(&labelled).configured("profile: restricted").only_records(&create(bad));
    gate(&closed()).configured("{profile: restricted, mode: warn}").warns(&create(bad));
    gate(&closed()).configured("rules: {unreadable-object: {action: 'off'}}").passes(&create(bad));
}

#[test]
fn a_patch_is_an_update_of_whole_objects() {
    // The API server sends the patched object; what a client sent is not in the review.
    let review = update(DEFAULT_DENY, ALLOW_ALL.replace("allow-all", "default-deny").as_str());
    gate(&closed()).denies(&review.with("options", json!({"kind": "PatchOptions", "fieldManager": "kubectl-patch"})));
    assert_eq!(object(DEFAULT_DENY)["metadata"]["name"], "default-deny");
}
