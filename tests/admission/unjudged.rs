//! Reviews that come to no verdict: late, without room, or failed.

use portcullis::admission::{Unjudged, unjudged};
use serde_json::{Value, json};

use crate::gate::{ALLOW_ALL, CART, DEFAULT_DENY, Gate, OPEN, Review, closed, create, delete, gate, update};

const WHYS: [Unjudged; 4] = [Unjudged::Failed, Unjudged::Late, Unjudged::Crowded, Unjudged::TooLarge];

fn response(gate: &Gate, review: &Review, why: Unjudged) -> Value {
    let answer = unjudged(&gate.rules, &gate.cluster, &review.body(), why).unwrap();
    let mut body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["response"]["allowed"], answer.record.allowed);
    assert_eq!(body["response"]["uid"], answer.record.uid);
    body["response"].take()
}

/// `deny`, `warn`, `audit` or `off`.
fn late(gate: &Gate, review: &Review) -> &'static str {
    let response = response(gate, review, Unjudged::Late);
    match (&response["allowed"], &response["warnings"], &response["auditAnnotations"]) {
        (Value::Bool(false), Value::Null, Value::Null) => "deny",
        (Value::Bool(true), Value::Array(_), Value::Null) => "warn",
        (Value::Bool(true), Value::Null, Value::Object(_)) => "audit",
        (Value::Bool(true), Value::Null, Value::Null) => "off",
        _ => panic!("{response:#}"),
    }
}

#[test]
fn what_is_late_is_refused_where_the_mode_enforces() {
    for review in [create(ALLOW_ALL), create(CART), update(DEFAULT_DENY, ALLOW_ALL), delete(DEFAULT_DENY)] {
        assert_eq!(late(&gate(OPEN), &review), "deny");
        assert_eq!(late(&gate(OPEN).configured("mode: warn"), &review), "warn");
        assert_eq!(late(&gate(OPEN).configured("mode: audit"), &review), "audit");
    }
}

#[test]
fn the_mode_of_the_namespace_decides_and_not_that_of_the_cluster() {
    let labelled =
        |mode: &str| OPEN.replace("{name: shop}", &format!("{{name: shop, labels: {{portcullis.dev/mode: {mode}}}}}"));
    assert_eq!(late(&gate(&labelled("warn")), &create(ALLOW_ALL)), "warn");
    assert_eq!(late(&gate(&labelled("enforce")).configured("mode: audit"), &create(ALLOW_ALL)), "deny");
}

#[test]
fn the_configuration_decides_less_and_never_more() {
    assert_eq!(late(&gate(OPEN).configured("onTimeout: warn"), &create(ALLOW_ALL)), "warn");
    assert_eq!(late(&gate(OPEN).configured("onTimeout: audit"), &create(ALLOW_ALL)), "audit");
    assert_eq!(late(&gate(OPEN).configured("{onTimeout: warn, onError: deny}"), &create(ALLOW_ALL)), "warn");
    let failed = |settings: &str| response(&gate(OPEN).configured(settings), &create(CART), Unjudged::Failed);
    assert_eq!(failed("{}")["allowed"], true, "`onError` is `warn` by default");
    assert_eq!(failed("onError: deny")["allowed"], false);
}

#[test]
fn cleanup_is_never_held_up() {
    let open = gate(OPEN);
    for user in [
        "system:serviceaccount:kube-system:namespace-controller",
        "system:serviceaccount:kube-system:generic-garbage-collector",
        "system:serviceaccount:kube-system:replicaset-controller",
        "system:kube-controller-manager",
    ] {
        assert_eq!(late(&open, &delete(DEFAULT_DENY).by(user)), "audit", "{user}");
    }
    let leaving = gate(&format!(
        "{}\n---\n{DEFAULT_DENY}",
        OPEN.replace("{name: shop}", "{name: shop, deletionTimestamp: '2026-06-01T12:00:00Z'}")
    ));
    assert_eq!(late(&leaving, &delete(DEFAULT_DENY)), "audit");
    assert_eq!(late(&leaving, &create(ALLOW_ALL)), "deny", "nothing is created in a namespace that goes");
    assert_eq!(late(&open, &delete(CART)), "warn");
    let shop = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}";
    assert_eq!(late(&open, &delete(shop)), "warn");
    assert_eq!(late(&open, &create(shop)), "warn", "creating a namespace never fails");
    assert_eq!(late(&open, &update(shop, shop)), "deny");
}

#[test]
fn what_is_exempt_and_what_no_rule_reads_is_never_refused() {
    let review = create(&ALLOW_ALL.replace("namespace: shop", "namespace: kube-system"));
    assert_eq!(late(&gate(OPEN), &review), "warn");
    assert_eq!(late(&gate(OPEN).configured("namespaces: {exempt: []}"), &review), "deny");
    let lease = "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: a, namespace: shop}}";
    assert_eq!(late(&gate(OPEN), &create(lease)), "off");
}

#[test]
fn a_denial_says_what_happened_and_what_to_do() {
    let denied =
        |why| response(&gate(&closed()).configured("onError: deny"), &delete(DEFAULT_DENY), why)["status"].take();
    assert_eq!(
        denied(Unjudged::Late),
        json!({
            "status": "Failure", "code": 504, "reason": "Timeout",
            "message": "NetworkPolicy shop/default-deny: portcullis did not finish judging this change in time; \
                the change is refused, and what stood stays. Try again. If it is late again, the object or its namespace \
                is too large, or the gate is overloaded: make the object smaller, or ask the operators of the gate to \
                look at its load",
        })
    );
    let crowded = denied(Unjudged::Crowded);
    assert_eq!((&crowded["code"], &crowded["details"]["retryAfterSeconds"]), (&json!(429), &json!(1)));
    let failed = denied(Unjudged::Failed);
    assert_eq!((&failed["code"], &failed["reason"]), (&json!(500), &json!("InternalError")));
    let warned = response(&gate(&closed()).configured("mode: warn"), &delete(DEFAULT_DENY), Unjudged::Late);
    assert_eq!(
        warned["warnings"],
        json!([
            "NetworkPolicy shop/default-deny: portcullis did not finish judging this change in time; the change is allowed, and no rule has judged it"
        ])
    );
}

#[test]
fn whatever_the_reason_every_message_is_one_line_and_names_the_object() {
    for why in WHYS {
        for settings in ["onError: deny", "mode: warn", "mode: audit"] {
            let response = response(&gate(OPEN).configured(settings), &create(CART), why);
            let said =
                [&response["status"]["message"], &response["warnings"][0], &response["auditAnnotations"]["unjudged"]];
            let said: Vec<&str> = said.into_iter().filter_map(Value::as_str).collect();
            let [message] = said[..] else { panic!("{response:#}") };
            assert!(message.starts_with("Deployment shop/cart: ") && !message.contains('\n'), "{message}");
        }
    }
}

#[test]
fn without_a_uid_there_is_no_answer() {
    let gate = gate(OPEN);
    assert!(unjudged(&gate.rules, &gate.cluster, br#"{"request":{"operation":"CREATE"}}"#, Unjudged::Late).is_none());
}

/// A policy of this many rules that admit everything.
fn rules(count: usize) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: many, namespace: shop}}, spec: {{podSelector: {{}}, ingress: [{}]}}}}",
        vec!["{}"; count].join(",")
    )
}

#[test]
fn an_object_of_more_items_than_are_read_is_refused_and_names_the_limit() {
    let huge = rules(60_000);
    let response = gate(&closed()).response(&create(&huge));
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(413)));
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("more than 50000 items") && message.starts_with("NetworkPolicy shop/many: "), "{message}");
    for (settings, said) in [("mode: warn", "warnings"), ("onTimeout: audit", "auditAnnotations")] {
        let response = gate(&closed()).configured(settings).response(&create(&huge));
        assert!(response["allowed"] == true && !response[said].is_null(), "{response:#}");
    }
}

#[test]
fn one_that_stood_may_become_smaller_lose_a_finalizer_or_go() {
    let (huge, smaller) = (rules(60_000), rules(0));
    let gate = gate(&closed());
    for review in [update(&huge, &smaller), update(&huge, &huge), delete(&huge)] {
        assert_eq!(gate.response(&review)["allowed"], true);
    }
    assert_eq!(gate.response(&update(&smaller, &huge))["allowed"], false);
}
