//! The envelope: what the API server takes for an answer, and what it would drop or refuse.

use insta::{assert_json_snapshot, assert_snapshot};
use portcullis::rules::{Action, RULES};
use serde_json::{Value, json};

use crate::gate::{ALLOW_ALL, CART, DEFAULT_DENY, OPEN, POD, UID, closed, create, delete, gate, update};

#[test]
fn a_denial_is_a_403_with_everything_in_it() {
    let response = gate(OPEN).response(&create(CART));
    assert_json_snapshot!(response, { ".uid" => "[uid]", ".status.message" => "[message]" });
}

#[test]
fn what_is_right_is_allowed_with_nothing_said() {
    gate(&closed()).passes(&create(POD));
}

#[test]
fn a_warning_allows_and_carries_no_status() {
    let response = gate(OPEN).response(&create("{apiVersion: v1, kind: Namespace, metadata: {name: new}}"));
    assert_eq!(response["allowed"], true);
    assert_eq!(response.get("status"), None, "the API server ignores it, and so would a reader");
    assert!(!response["warnings"].as_array().unwrap().is_empty());
}

#[test]
fn the_answer_is_an_admission_review_of_the_version_asked() {
    let body: Value = serde_json::from_slice(&gate(OPEN).answer(&create(CART).body()).body).unwrap();
    assert_eq!(body["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(body["kind"], "AdmissionReview");
    assert_eq!(body.as_object().unwrap().len(), 3, "the request is not sent back");
}

#[test]
fn the_uid_comes_back_as_it_was_sent() {
    for uid in [UID, "x", "\"quoted\" \\ \u{e9}\u{1f512}", "line\nbreak"] {
        let response = gate(OPEN).response(&create(CART).with("uid", uid));
        assert_eq!(response["uid"], uid);
    }
}

#[test]
fn no_answer_has_a_patch() {
    for review in [create(CART), create(DEFAULT_DENY), delete(DEFAULT_DENY)] {
        let response = gate(&closed()).response(&review);
        let fields: Vec<&str> = response.as_object().unwrap().keys().map(String::as_str).collect();
        let known = ["uid", "allowed", "status", "warnings", "auditAnnotations"];
        assert!(fields.iter().all(|field| known.contains(field)), "{fields:?}");
    }
}

#[test]
fn a_cause_names_the_field_of_the_object_under_review_where_there_is_one() {
    let cause = |cluster: &str, review| gate(cluster).response(&review)["status"]["details"]["causes"][0].clone();
    // The same violation, brought by a policy that opens pods and by a pod that nothing isolates.
    let policy = cause(&closed(), create(ALLOW_ALL));
    assert_eq!((&policy["reason"], &policy["field"]), (&json!("missing-default-deny"), &json!("spec.ingress[0]")));
    let workload = cause(OPEN, create(CART));
    assert_eq!((&workload["reason"], workload.get("field")), (&json!("missing-default-deny"), None));
}

#[test]
fn what_the_client_sent_is_what_the_details_name() {
    let review =
        create(CART).with("requestKind", json!({"group": "extensions", "version": "v1beta1", "kind": "Deployment"}));
    let details = gate(OPEN).response(&review)["status"]["details"].clone();
    assert_eq!((&details["group"], &details["kind"]), (&json!("extensions"), &json!("Deployment")));
    let without = gate(OPEN).response(&create(CART).with("requestKind", Value::Null));
    assert_eq!(without["status"]["details"]["group"], "apps");
}

#[test]
fn every_violation_is_in_one_denial() {
    let both = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: [{}]
";
    let response = gate(&closed()).response(&update(DEFAULT_DENY, both));
    let causes = response["status"]["details"]["causes"].as_array().unwrap();
    let reasons: Vec<_> = causes.iter().map(|cause| cause["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["missing-default-deny", "dns-blackhole"]);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("2 violations: NP001 missing-default-deny, NP002 dns-blackhole\n"), "{message}");
}

#[test]
fn keys_of_audit_annotations_are_bare_qualified_names() {
    let annotations = gate(OPEN).response(&create(CART))["auditAnnotations"].clone();
    let written = annotations.as_object().unwrap().keys().map(String::as_str);
    let possible = RULES.iter().map(|entry| entry.meta.name).chain(["verdict", "unjudged"]);
    for key in written.chain(possible) {
        let is_alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        assert!((1..=63).contains(&key.len()), "{key}");
        assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')), "{key}");
        assert!(is_alphanumeric(key.chars().next()) && is_alphanumeric(key.chars().next_back()), "{key}");
    }
}

#[test]
fn what_is_no_review_is_a_400_that_says_why() {
    let gate = gate(OPEN);
    let whole = create(CART).body();
    let v1beta1 = String::from_utf8(whole.clone()).unwrap().replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let with_bom = [b"\xef\xbb\xbf", whole.as_slice()].concat();
    let twice = [whole.as_slice(), whole.as_slice()].concat();
    let cut = &whole[..whole.len() - 1];
    let deep = format!(r#"{{"apiVersion":{}"#, "[".repeat(100_000));
    let said: Vec<String> = [
        b"".as_slice(),
        b"null",
        b"[]",
        b"\xff\xfe",
        b"apiVersion: admission.k8s.io/v1",
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}"#,
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":1}}"#,
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u"}}"#,
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"group":""}}}"#,
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","userInfo":{"username":[]}}}"#,
        br#"{"apiVersion":"admission.k8s.io/v1","apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
        br#"{"apiVersion":"v1","kind":"Pod"}"#,
        v1beta1.as_bytes(),
        &with_bom,
        &twice,
        cut,
        deep.as_bytes(),
    ]
    .into_iter()
    .map(|body| {
        let answer = gate.answer(body);
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(body));
        assert!(!answer.record.allowed && !answer.record.judged);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        body["error"].as_str().unwrap().to_owned()
    })
    .collect();
    assert_snapshot!(said.join("\n"));
}

#[test]
fn objects_may_be_as_deep_and_as_odd_as_they_like() {
    let gate = gate(&closed());
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    for oddity in [deep.as_str(), "1e400", "-0", "123456789012345678901234567890", r#""\ud800""#, r#"{"a":1,"a":2}"#] {
        let body = String::from_utf8(create(POD).body()).unwrap();
        let body = body.replacen(r#""containers""#, &format!(r#""unknown":{oddity},"containers""#), 1);
        let answer = gate.answer(body.as_bytes());
        assert_eq!((answer.status, answer.record.allowed, answer.record.verdict), (200, true, None), "{oddity}");
    }
}

#[test]
fn of_a_field_that_is_there_twice_the_last_counts_or_none() {
    let gate = gate(&closed()).configured("profile: restricted");
    let body = String::from_utf8(create(ALLOW_ALL).body()).unwrap();
    // In the spec the last, as the API server takes it.
    let spec = r#""spec":{"podSelector":{"matchLabels":{"a":"b"}},"#;
    let answer = gate.answer(body.replacen(r#""spec":{"#, spec, 1).as_bytes());
    assert_eq!(answer.record.findings, [("missing-default-deny", Action::Deny)]);
    let metadata = r#""metadata":{"namespace":"kube-system","#;
    let answer = gate.answer(body.replacen(r#""metadata":{"#, metadata, 1).as_bytes());
    assert_eq!(answer.record.verdict, Some(Action::Deny));
    assert!(answer.record.findings.contains(&("unreadable-object", Action::Deny)), "{:?}", answer.record);
}
