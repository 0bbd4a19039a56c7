//! Workloads that say whose they are.

use crate::gate::{ALLOW_ALL, CART, OPEN, OPENS_SOME, POD, closed, create, gate, owned};

const CONTROLLER: &str = "system:serviceaccount:kube-system:replicaset-controller";
const OPERATOR: &str = "system:serviceaccount:strimzi:strimzi-cluster-operator";
/// What an operator is called that runs where its pods do; and what an editor of the namespace may be.
const LOCAL: &str = "system:serviceaccount:shop:operator";

/// A pod of the ReplicaSet that a Deployment made.
fn pod_of_the_set(labels: &str) -> String {
    owned(&POD.replace("app: debug", labels), "ReplicaSet", "cart-1")
}

fn the_set() -> String {
    let set = CART.replace("kind: Deployment", "kind: ReplicaSet").replace("name: cart,", "name: cart-1,");
    owned(&set, "Deployment", "cart")
}

fn in_the_open() -> String {
    [OPEN, CART, &the_set()].join("\n---\n")
}

/// A pod of an operator's.
fn kafka(name: &str, labels: &str) -> String {
    owned(
        &POD.replace("name: debug,", &format!("name: {name},")).replace("app: debug", labels),
        "StrimziPodSet",
        "kafka",
    )
}

#[test]
fn an_owner_that_is_not_there_excuses_nothing() {
    gate(OPEN).denies(&create(POD));
    gate(OPEN).denies(&create(&owned(POD, "ReplicaSet", "made-up")));
    gate(OPEN).denies(&create(&owned(POD, "Rollout", "cart")));
    gate(OPEN).denies(&create(&owned(POD, "ReplicaSet", "made-up")).by(OPERATOR));
}

#[test]
fn an_owner_that_does_not_make_such_workloads_excuses_nothing() {
    let gate = gate(&in_the_open());
    let evil = CART.replace("name: cart,", "name: evil,");
    for (object, kind, name) in [
        (POD, "Deployment", "cart"),
        (POD, "ConfigMap", "anchor"),
        (&evil, "Deployment", "cart"),
        (&evil, "ReplicaSet", "cart-1"),
    ] {
        gate.denies(&create(&owned(object, kind, name)));
    }
}

#[test]
fn a_workload_that_is_not_what_its_owners_template_makes_is_judged_as_new() {
    let gate = gate(&in_the_open());
    gate.denies(&create(&pod_of_the_set("app: evil")));
    gate.denies(&create(&pod_of_the_set("app: cart, more: 'yes'")));
    let set = the_set().replace("name: cart-1,", "name: evil,");
    gate.denies(&create(&set.replace("app: cart", "app: evil")));
}

#[test]
fn one_more_of_what_a_template_makes_is_never_denied_and_only_controllers_are_told_nothing() {
    let pod = pod_of_the_set("app: cart, pod-template-hash: abc");
    let gate = gate(&in_the_open());
    // The namespace is open, which was said of the Deployment.
    gate.passes(&create(&pod).by(CONTROLLER));
    gate.warns(&create(&pod));
    gate.warns(&create(&pod_of_the_set("app: cart")));
}

#[test]
fn an_operators_pod_comes_back_beside_its_kin() {
    let cluster = [OPEN, &kafka("kafka-1", "app: kafka")].join("\n---\n");
    for profile in ["baseline", "restricted"] {
        let gate = gate(&cluster).configured(&format!("profile: {profile}"));
        for operator in [OPERATOR, LOCAL] {
            gate.warns(&create(&kafka("kafka-0", "app: kafka")).by(operator));
        }
        gate.denies(&create(&kafka("kafka-0", "app: kafka")));
    }
}

#[test]
fn an_operators_only_pod_comes_back_after_a_drain() {
    let pod = create(&kafka("kafka-0", "app: kafka"));
    gate(OPEN).warns(&pod.clone().by(OPERATOR));
    gate(OPEN).warns(&pod.clone().by(LOCAL));
    let restricted = gate(OPEN).configured("profile: restricted");
    restricted.warns(&pod.clone().by(OPERATOR));
    // Who may edit the namespace may ask as its service accounts.
    restricted.denies(&pod.clone().by(LOCAL));
    gate(OPEN).denies(&pod);
}

#[test]
fn the_next_revision_of_a_rollout_is_let_in_beside_the_last() {
    let revision = |name: &str, hash: &str| {
        let set =
            CART.replace("kind: Deployment", "kind: ReplicaSet").replace("name: cart,", &format!("name: {name},"));
        owned(&set.replace("app: cart", &format!("app: cart, rollouts-pod-template-hash: {hash}")), "Rollout", "cart")
    };
    let cluster = [OPEN, &revision("cart-1", "a")].join("\n---\n");
    let gate = gate(&cluster).configured("profile: restricted");
    gate.warns(&create(&revision("cart-2", "b")).by("system:serviceaccount:argo-rollouts:argo-rollouts"));
    gate.denies(&create(&revision("cart-2", "b")));
}

#[test]
fn an_operator_makes_nothing_that_is_more_open_than_what_stands() {
    let opens = [&closed(), OPENS_SOME].join("\n---\n");
    let open = kafka("kafka-0", "app: kafka, open: 'yes'");
    gate(&opens).denies(&create(&open).by(OPERATOR));
    let beside = [&opens, &kafka("kafka-1", "app: kafka")].map(String::as_str).join("\n---\n");
    gate(&beside).denies(&create(&open).by(OPERATOR));
    let kin = [&opens, &kafka("kafka-1", "app: kafka, open: 'yes'")].map(String::as_str).join("\n---\n");
    gate(&kin).warns(&create(&open).by(OPERATOR));
    // Nor is a policy an operator's because it says so.
    gate(&closed()).denies(&create(&owned(ALLOW_ALL, "Kafka", "kafka")).by(OPERATOR));
}

#[test]
fn a_service_account_without_an_owner_to_name_is_anybody() {
    gate(OPEN).denies(&create(POD).by(OPERATOR));
    gate(OPEN).denies(&create(CART).by("system:serviceaccount:ci:deployer"));
}
