//! What objects take with them when they go: owners, finalizers, deletions that have begun.

use crate::gate::{ALLOW_ALL, CART, DEFAULT_DENY, OPEN, POD, closed, create, delete, gate, update};

const NOBODY: &str = "{apiVersion: v1, kind: ConfigMap, name: nope, uid: u-1}";
const OTHER: &str = "{apiVersion: v1, kind: ConfigMap, name: other, uid: u-2}";

/// An object with more in its metadata.
fn with(object: &str, metadata: &str) -> String {
    let with = object.replacen("namespace: shop", &format!("namespace: shop, {metadata}"), 1);
    assert_ne!(with, object);
    with
}

fn owned(object: &str, owners: &[&str]) -> String {
    with(object, &format!("ownerReferences: [{}]", owners.join(", ")))
}

fn leaving(object: &str) -> String {
    with(object, "deletionTimestamp: '2026-06-01T11:59:00Z', finalizers: [example.com/later]")
}

fn cluster(objects: &[&str]) -> String {
    objects.join("\n---\n")
}

fn message(gate: &crate::gate::Gate, review: &crate::gate::Review) -> String {
    gate.response(review)["status"]["message"].as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn an_owner_that_a_default_deny_is_given_is_judged_like_its_deletion() {
    let gate = gate(&closed());
    let given = update(DEFAULT_DENY, &owned(DEFAULT_DENY, &[NOBODY]));
    gate.denies(&given);
    let message = message(&gate, &given);
    assert!(
        message.contains(
            "the garbage collector deletes NetworkPolicy shop/default-deny once ConfigMap `nope` does not exist"
        ),
        "{message}"
    );
    assert!(message.contains("opens `Deployment cart`"), "{message}");
    // Another owner in place of one that is there.
    gate.denies(&update(&owned(DEFAULT_DENY, &[OTHER]), &owned(DEFAULT_DENY, &[NOBODY])));
    gate.denies(&update(&owned(DEFAULT_DENY, &[OTHER]), &owned(DEFAULT_DENY, &[NOBODY, OTHER])));
    // The one that keeps it is taken out, and the one that does not exist is left.
    gate.denies(&update(&owned(DEFAULT_DENY, &[NOBODY, OTHER]), &owned(DEFAULT_DENY, &[NOBODY])));
}

#[test]
fn the_owners_a_policy_has_bring_nothing_new() {
    let gate = gate(&closed());
    let had = owned(DEFAULT_DENY, &[NOBODY]);
    gate.passes(&update(&had, &with(&had, "labels: {a: b}")));
    gate.passes(&update(&had, &had.replace("uid: u-1", "uid: u-1, controller: true")));
    gate.passes(&update(&had, DEFAULT_DENY));
}

#[test]
fn an_owner_of_what_opens_nothing_is_no_reason_to_deny() {
    let second = DEFAULT_DENY.replace("default-deny", "second");
    gate(&cluster(&[&closed(), &second])).passes(&update(&second, &owned(&second, &[NOBODY])));
    gate(OPEN).denies(&create(POD));
    gate(&cluster(&[OPEN, DEFAULT_DENY])).warns(&update(DEFAULT_DENY, &owned(DEFAULT_DENY, &[NOBODY])));
}

#[test]
fn an_owner_that_the_meshs_policy_is_given_is_judged_like_its_deletion() {
    let strict = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}";
    let meshed = CART.replace("labels: {app: cart}", "labels: {app: cart, sidecar.istio.io/inject: 'true'}");
    let gate = gate(&cluster(&[OPEN, DEFAULT_DENY, strict, &meshed]));
    gate.denies(&delete(strict));
    gate.denies(&update(strict, &owned(strict, &[NOBODY])));
}

#[test]
fn a_policy_that_is_being_deleted_protects_nothing_that_is_made_now() {
    let held = gate(&cluster(&[OPEN, &leaving(DEFAULT_DENY)]));
    held.denies(&create(POD));
    held.denies(&create(CART));
    // Nor does it stand in for the one that is deleted next.
    let second = DEFAULT_DENY.replace("default-deny", "second");
    gate(&cluster(&[OPEN, CART, &leaving(DEFAULT_DENY), &second])).denies(&delete(&second));
}

#[test]
fn a_policy_that_is_being_deleted_admits_until_it_is_gone() {
    let debug = ALLOW_ALL.replace("podSelector: {}", "podSelector: {matchLabels: {app: debug}}");
    gate(&cluster(&[&closed(), &leaving(&debug)])).denies(&create(POD));
    gate(&cluster(&[&closed(), &leaving(DEFAULT_DENY)])).denies(&create(ALLOW_ALL));
}

#[test]
fn the_end_of_a_policy_is_not_a_second_deletion() {
    let (held, free) = (leaving(DEFAULT_DENY), leaving(DEFAULT_DENY).replace("example.com/later", ""));
    gate(&cluster(&[OPEN, &held, CART])).warns(&update(&held, &free));
    gate(&cluster(&[OPEN, &held, CART])).warns(&delete(&held));
}

#[test]
fn a_new_policy_whose_owner_may_not_exist_counts_with_a_warning() {
    let is_new = |policy: &str| gate(&cluster(&[OPEN, policy])).warns(&create(POD));
    is_new(&owned(DEFAULT_DENY, &[NOBODY]));
    is_new(&owned(DEFAULT_DENY, &["{apiVersion: apps/v1, kind: Deployment, name: nope, uid: u}"]));
    is_new(&with(&owned(DEFAULT_DENY, &[NOBODY]), "creationTimestamp: '2026-06-01T11:59:30Z'"));
    // The collector would have deleted an older one.
    let old = with(&owned(DEFAULT_DENY, &[NOBODY]), "creationTimestamp: '2026-06-01T11:00:00Z'");
    gate(&cluster(&[OPEN, &old])).passes(&create(POD));
    let known = owned(DEFAULT_DENY, &["{apiVersion: apps/v1, kind: Deployment, name: cart, uid: u}"]);
    gate(&cluster(&[OPEN, CART, &known])).passes(&create(POD));
    // It is not what is left when another is deleted.
    let second = owned(&DEFAULT_DENY.replace("default-deny", "second"), &[NOBODY]);
    gate(&cluster(&[&closed(), &second])).warns(&delete(DEFAULT_DENY));
}

const BY_SET: &str = "{apiVersion: apps/v1, kind: ReplicaSet, name: cart-5d, uid: r, controller: true}";
const BY_CART: &str = "{apiVersion: apps/v1, kind: Deployment, name: cart, uid: d, controller: true}";

fn replica_set() -> String {
    owned(
        &CART
            .replace("kind: Deployment", "kind: ReplicaSet")
            .replace("name: cart, namespace", "name: cart-5d, namespace"),
        &[BY_CART],
    )
}

fn pod() -> String {
    POD.replace("debug", "cart")
}

#[test]
fn what_is_being_deleted_is_not_opened_by_a_deletion() {
    let warns = |objects: &[&str]| {
        let all = cluster(&[&[OPEN, DEFAULT_DENY], objects].concat());
        gate(&all).warns(&delete(DEFAULT_DENY));
    };
    // The Deployment is gone, and the collector has not come to what it made.
    warns(&[&replica_set(), &owned(&pod(), &[BY_SET])]);
    warns(&[&owned(&pod(), &[BY_SET])]);
    // Its pods are shutting down.
    let ends = "deletionTimestamp: '2026-06-01T12:00:20Z', deletionGracePeriodSeconds: 30";
    warns(&[&with(&pod(), ends)]);
    // It is deleted in the foreground, and its pods come first.
    let foreground = with(CART, "deletionTimestamp: '2026-06-01T12:00:00Z', finalizers: [foregroundDeletion]");
    warns(&[&foreground, &replica_set(), &owned(&pod(), &[BY_SET])]);
}

#[test]
fn what_only_looks_as_if_it_were_being_deleted_is_opened() {
    let denies = |objects: &[&str]| {
        let all = cluster(&[&[OPEN, DEFAULT_DENY], objects].concat());
        gate(&all).denies(&delete(DEFAULT_DENY));
    };
    // It runs on for a year.
    denies(&[&with(&pod(), "deletionTimestamp: '2027-06-01T12:00:20Z', deletionGracePeriodSeconds: 31536000")]);
    let slow = pod().replace("spec: {", "spec: {terminationGracePeriodSeconds: 31536000, ");
    denies(&[&owned(&slow, &[BY_SET])]);
    // The collector cannot look up such an owner, and deletes nothing.
    denies(&[&owned(&pod(), &[&BY_SET.replace("apps/v1", "apps/v9")])]);
    denies(&[&owned(&pod(), &[&BY_SET.replace("ReplicaSet", "Rollout")])]);
    // Another owner keeps it.
    denies(&[&owned(&pod(), &[BY_SET, OTHER])]);
    // A finalizer keeps what owns it, and its pods run on.
    denies(&[&with(&replica_set(), "finalizers: [a/b]"), &owned(&pod(), &[BY_SET])]);
    denies(&[&leaving(CART), &replica_set(), &owned(&pod(), &[BY_SET])]);
    let orphaning = "deletionTimestamp: '2026-06-01T12:00:00Z', finalizers: [foregroundDeletion, orphan]";
    denies(&[&with(CART, orphaning), &replica_set(), &owned(&pod(), &[BY_SET])]);
}

#[test]
fn a_pod_with_an_owner_that_does_not_exist_is_judged_when_it_is_made() {
    gate(OPEN).denies(&create(&owned(&pod(), &[BY_SET])));
}

#[test]
fn a_policy_that_is_deleted_before_its_workloads_is_denied_with_the_order() {
    let gate = gate(&closed());
    let deletion = delete(DEFAULT_DENY);
    gate.denies(&deletion);
    let message = message(&gate, &deletion);
    assert!(message.contains("to uninstall, delete the workloads first, or the whole namespace"), "{message}");
}

#[test]
fn an_owner_of_a_real_name_with_another_uid_does_not_exist() {
    let cart = with(CART, "uid: d-1");
    let owned_by = |uid: &str| {
        owned(DEFAULT_DENY, &[&format!("{{apiVersion: apps/v1, kind: Deployment, name: cart, uid: {uid}}}")])
    };
    gate(&cluster(&[OPEN, &cart, &owned_by("d-1")])).passes(&create(POD));
    gate(&cluster(&[OPEN, &cart, &owned_by("made-up")])).warns(&create(POD));
}

#[test]
fn a_policy_with_an_owner_does_not_make_up_for_one_without() {
    let second = DEFAULT_DENY.replace("default-deny", "second");
    let by_cart = with(&owned(&second, &[BY_CART]), "creationTimestamp: '2026-06-01T11:00:00Z'");
    let all = gate(&cluster(&[&closed(), &by_cart]));
    let review = delete(DEFAULT_DENY);
    all.warns(&review);
    let warnings = all.response(&review)["warnings"].to_string();
    assert!(warnings.contains("does not make up for it"), "{warnings}");
    // What the one with the owner does, or what stands, is nothing new.
    gate(&cluster(&[OPEN, CART, &by_cart])).passes(&create(POD));
    all.passes(&create(POD));
    all.passes(&delete(&by_cart));
    let third = DEFAULT_DENY.replace("default-deny", "third");
    gate(&cluster(&[&closed(), &by_cart, &third])).passes(&delete(DEFAULT_DENY));
    let idle = DEFAULT_DENY
        .replace("default-deny", "idle")
        .replace("podSelector: {}\n  policy", "podSelector: {matchLabels: {app: gone}}\n  policy");
    gate(&cluster(&[OPEN, CART, &by_cart, &idle])).passes(&delete(&idle));
}

#[test]
fn an_empty_replica_set_of_a_deployment_that_a_finalizer_holds_is_opened() {
    let idle = replica_set().replace("spec:\n  template", "spec:\n  replicas: 0\n  template");
    assert_ne!(idle, replica_set());
    gate(&cluster(&[OPEN, DEFAULT_DENY, &leaving(CART), &idle])).denies(&delete(DEFAULT_DENY));
}
