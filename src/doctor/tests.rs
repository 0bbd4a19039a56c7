#![allow(clippy::needless_pass_by_value, reason = "a fixture written in place reads best without a borrow")]

use serde_json::json;

use super::*;
use crate::config::Settings;
use crate::k8s::lower_value;
use crate::yaml;

fn cluster(text: &str) -> Arc<Cluster> {
    let objects = yaml::parse(text).into_iter().map(|document| document.unwrap().value());
    Arc::new(Cluster::of(objects.map(|object| lower_value(&object, "default").object.unwrap())))
}

const WORLD: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: guard}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: legacy, labels: {gate: 'off'}}}
---
{apiVersion: v1, kind: Service, metadata: {name: gate, namespace: guard}, spec: {selector: {app: gate}, ports: [{port: 443, targetPort: 8443}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: gate-1, namespace: guard, labels: {app: gate}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: gate}
webhooks: [{name: gate.portcullis.dev, clientConfig: {service: {namespace: guard, name: gate}}}]
";

fn own(namespace_selector: Value, failure_policy: &str) -> Value {
    json!({
        "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "gate" },
        "webhooks": [{
            "name": "gate.portcullis.dev",
            "failurePolicy": failure_policy,
            "namespaceSelector": namespace_selector,
            "clientConfig": { "service": { "namespace": "guard", "name": "gate" } },
            "rules": [{ "operations": ["CREATE"], "apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"] }],
        }],
    })
}

fn not_in(names: &[&str]) -> Value {
    json!({ "matchExpressions": [{ "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": names }] })
}

fn facts() -> Facts {
    Facts {
        namespace: "guard".to_owned(),
        webhook: "gate".to_owned(),
        now: "2026-11-21T08:00:00Z".parse().unwrap(),
        signals: cni::Signals::default(),
        configuration: Origin::ConfigMap("guard/gate".to_owned()),
        cluster: cluster(WORLD),
        unread: Vec::new(),
        webhooks: Ok(vec![own(not_in(&["guard", "kube-system"]), "Fail")]),
        served: Err("not asked".to_owned()),
        proof: Some(Proof::Denied),
    }
}

#[track_caller]
fn check(facts: &Facts, name: &str, verdict: Verdict) -> String {
    let checks = examine(facts, &Settings::default().rule_set());
    let check = checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no {name}: {checks:#?}"));
    assert_eq!(check.verdict, verdict, "{check:#?}");
    assert!(verdict != Verdict::Bad || !check.advice.is_empty() && !check.meaning.is_empty(), "{check:#?}");
    format!("{}\n{}\n{}\n{}", check.found, check.facts.join("\n"), check.meaning, check.fix)
}

#[test]
fn what_is_well_is_said_to_be() {
    let facts = facts();
    for name in ["registration", "namespaces", "asked", "rules", "reach", "other-webhooks"] {
        check(&facts, name, Verdict::Good);
    }
}

#[test]
fn a_registration_that_is_missing_open_or_empty_is_told() {
    let with = |webhooks| Facts { webhooks, ..facts() };
    check(&with(Ok(Vec::new())), "registration", Verdict::Bad);
    check(&with(Err("forbidden".to_owned())), "registration", Verdict::Attention);
    check(&with(Ok(vec![own(not_in(&[]), "Ignore")])), "registration", Verdict::Attention);
    let mut empty = own(not_in(&[]), "Fail");
    empty["webhooks"][0]["rules"] = json!([]);
    check(&with(Ok(vec![empty])), "registration", Verdict::Bad);
}

#[test]
fn pods_of_operators_that_start_while_the_gate_is_away_do_not_make_it_fail_open() {
    let with_owned = |policy: &str, rules: Value| {
        let mut own = own(not_in(&["guard", "kube-system"]), policy);
        let mut owned = own["webhooks"][0].clone();
        (owned["name"], owned["failurePolicy"]) = (crate::admission::OWNED_PODS.into(), "Ignore".into());
        own["webhooks"][0]["rules"] = rules;
        own["webhooks"].as_array_mut().unwrap().push(owned);
        Facts { webhooks: Ok(vec![own]), ..facts() }
    };
    let rules = own(json!({}), "Fail")["webhooks"][0]["rules"].clone();
    check(&with_owned("Fail", rules.clone()), "registration", Verdict::Good);
    check(&with_owned("Ignore", rules), "registration", Verdict::Attention);
    check(&with_owned("Fail", json!([])), "registration", Verdict::Bad);
}

#[test]
fn namespaces_that_are_left_out_are_named_with_what_leaves_them_out() {
    let with = |selector| Facts { webhooks: Ok(vec![own(selector, "Fail")]), ..facts() };
    let labelled = json!({ "matchExpressions": [{ "key": "gate", "operator": "NotIn", "values": ["off"] }] });
    let said = check(&with(labelled), "namespaces", Verdict::Attention);
    assert!(said.contains("`legacy` is left out: its labels do not meet `gate notin (off)`"), "{said}");
    assert!(!said.contains("`shop`"), "{said}");
    check(&with(json!({ "matchLabels": { "nobody": "has" } })), "namespaces", Verdict::Bad);
    let said = check(&with(not_in(&["guard", "kube-system"])), "namespaces", Verdict::Good);
    assert!(said.contains("`kube-system` is left out, so that the cluster can heal"), "{said}");
    let mut narrowed = own(not_in(&["guard"]), "Fail");
    narrowed["webhooks"][0]["objectSelector"] = json!({ "matchLabels": { "judge": "me" } });
    check(&Facts { webhooks: Ok(vec![narrowed]), ..facts() }, "namespaces", Verdict::Attention);
}

#[test]
fn a_guard_that_is_asked_about_its_own_namespaces_does_not_make_the_others_seen() {
    let mut own = own(json!({ "matchLabels": { "nobody": "has" } }), "Fail");
    let mut guard = own["webhooks"][0].clone();
    guard["name"] = crate::admission::GUARD.into();
    guard["namespaceSelector"] = json!({});
    own["webhooks"].as_array_mut().unwrap().push(guard);
    let said = check(&Facts { webhooks: Ok(vec![own]), ..facts() }, "namespaces", Verdict::Bad);
    assert!(said.contains("`guard` is guarded"), "{said}");
}

#[test]
fn a_dry_run_that_passes_or_cannot_be_answered_is_bad_and_one_that_cannot_be_sent_is_not_known() {
    let with = |proof| Facts { proof, ..facts() };
    check(&with(Some(Proof::Admitted)), "asked", Verdict::Bad);
    check(&with(Some(Proof::Unreachable("x509".to_owned()))), "asked", Verdict::Bad);
    check(&with(Some(Proof::Unasked("forbidden".to_owned()))), "asked", Verdict::Attention);
    check(&with(None), "asked", Verdict::Attention);
}

#[test]
fn rules_that_rest_on_what_may_not_be_read_are_named() {
    let facts = Facts { unread: vec![Kind::PeerAuthentication], ..facts() };
    let said = check(&facts, "rules", Verdict::Attention);
    assert!(said.contains("PeerAuthentications may not be read") && said.contains("`plaintext-mtls`"), "{said}");
    assert!(!said.contains("`wildcard-ip-block`"), "{said}");
}

#[test]
fn a_default_deny_or_strict_mutual_tls_that_cuts_the_gate_off_is_bad_and_comes_with_what_mends_it() {
    let deny = "\n---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: guard}, spec: {podSelector: {}, policyTypes: [Ingress]}}\n";
    let said = check(&Facts { cluster: cluster(&(WORLD.to_owned() + deny)), ..facts() }, "reach", Verdict::Bad);
    assert!(said.contains("isolated for ingress by `deny`") && said.contains("port: 8443"), "{said}");
    let meshed = WORLD
        .replace("metadata: {name: guard}}", "metadata: {name: guard, labels: {istio.io/dataplane-mode: ambient}}}");
    let strict = "\n---\n{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a, namespace: guard}, spec: {mtls: {mode: STRICT}}}\n";
    let said = check(&Facts { cluster: cluster(&(meshed + strict)), ..facts() }, "reach", Verdict::Bad);
    assert!(said.contains("takes nothing but the mesh's mutual TLS"), "{said}");
    // Another's webhook is another's trouble, and worth a look.
    let elsewhere = Facts { namespace: "other".to_owned(), cluster: cluster(&(WORLD.to_owned() + deny)), ..facts() };
    check(&elsewhere, "reach", Verdict::Attention);
}

#[test]
fn a_webhook_of_another_that_has_to_answer_for_the_gates_pods_is_named() {
    let other = |selector: Value, policy: &str, resource: &str, service: &str| {
        let other = json!({
            "kind": "MutatingWebhookConfiguration",
            "metadata": { "name": "other" },
            "webhooks": [{
                "name": "other.dev",
                "failurePolicy": policy,
                "timeoutSeconds": 30,
                "namespaceSelector": selector,
                "clientConfig": { "service": { "namespace": "guard", "name": service } },
                "rules": [{ "operations": ["*"], "apiGroups": [""], "resources": [resource] }],
            }],
        });
        Facts { webhooks: Ok(vec![own(not_in(&["guard"]), "Fail"), other]), ..facts() }
    };
    let said = check(&other(json!({}), "Fail", "pods", "gate"), "other-webhooks", Verdict::Attention);
    assert!(said.contains("`other.dev`") && said.contains("after 30 seconds"), "{said}");
    let said = check(&other(json!({}), "Fail", "*", "gone"), "other-webhooks", Verdict::Bad);
    assert!(said.contains("there is no Service guard/gone"), "{said}");
    check(&other(json!({}), "Ignore", "pods", "gone"), "other-webhooks", Verdict::Good);
    check(&other(json!({}), "Fail", "secrets", "gone"), "other-webhooks", Verdict::Good);
    check(&other(not_in(&["guard"]), "Fail", "pods", "gone"), "other-webhooks", Verdict::Good);
    // As a mesh's injector does, which is there in every cluster with the mesh.
    let by_label = |value: &str| {
        let mut facts = other(json!({}), "Fail", "pods", "gone");
        let webhooks = facts.webhooks.as_mut().unwrap();
        webhooks[1]["webhooks"][0]["objectSelector"] = json!({ "matchLabels": { "app": value } });
        facts
    };
    check(&by_label("other"), "other-webhooks", Verdict::Good);
    check(&by_label("gate"), "other-webhooks", Verdict::Bad);
    let unknown =
        Facts { cluster: cluster("{apiVersion: v1, kind: Namespace, metadata: {name: guard}}"), ..by_label("other") };
    check(&unknown, "other-webhooks", Verdict::Bad);
    let unread = Facts { unread: vec![Kind::Service], ..other(json!({}), "Fail", "pods", "gone") };
    check(&unread, "other-webhooks", Verdict::Attention);
}

/// A certificate for the gate's Service, good until a day, as DER and in a bundle.
fn certified(last_day: u8) -> (rustls::pki_types::CertificateDer<'static>, Value) {
    use base64::Engine as _;
    let mut parameters = rcgen::CertificateParams::new(vec!["gate.guard.svc".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2026, 12, last_day);
    let certificate = parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let bundle = base64::engine::general_purpose::STANDARD.encode(certificate.pem());
    (certificate.der().clone(), bundle.into())
}

fn certified_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[test]
fn a_certificate_is_held_against_the_bundle() {
    let registered = |bundle: &Value| {
        let mut own = own(not_in(&[]), "Fail");
        own["webhooks"][0]["clientConfig"]["caBundle"] = bundle.clone();
        Ok(vec![own])
    };
    let serving = |der: &rustls::pki_types::CertificateDer<'static>| {
        Ok(Served {
            address: "127.0.0.1:1".parse().unwrap(),
            name: "gate.guard.svc".to_owned(),
            chain: vec![der.clone()],
        })
    };
    check(&facts(), "certificate", Verdict::Bad);
    let ((der, bundle), (_, other)) = (certified(31), certified(31));
    let unseen = Facts { webhooks: registered(&bundle), ..facts() };
    assert!(check(&unseen, "certificate", Verdict::Good).contains("was not seen from here: not asked"));
    let good = Facts { webhooks: registered(&bundle), served: serving(&der), ..facts() };
    assert!(check(&good, "certificate", Verdict::Good).contains("for gate.guard.svc, until 2026-12-31"));
    let foreign = Facts { webhooks: registered(&other), served: serving(&der), ..facts() };
    assert!(check(&foreign, "certificate", Verdict::Bad).contains("no certificate in the `caBundle` is its issuer's"));
    let (ending, bundle) = certified(3);
    let ending = Facts { webhooks: registered(&bundle), served: serving(&ending), ..facts() };
    assert!(check(&ending, "certificate", Verdict::Attention).contains("within 12 days"));
    let unseen = Facts { served: Err("not asked".to_owned()), webhooks: registered(&bundle), ..facts() };
    assert!(check(&unseen, "certificate", Verdict::Attention).contains("within 12 days"));
    // After the authority has changed, the former one is still trusted until its end.
    let both = [&certified_pem(&der), &certified_pem(&certified(3).0)].map(String::as_str).concat();
    let both = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, both).into();
    check(&Facts { webhooks: registered(&both), served: serving(&der), ..facts() }, "certificate", Verdict::Good);
    let late = Facts { now: "2027-02-01T00:00:00Z".parse().unwrap(), ..ending };
    assert!(check(&late, "certificate", Verdict::Bad).contains("has expired"));
}

#[test]
fn by_what_the_gate_judges_is_told_and_whether_it_denies_anything() {
    let with = |origin, settings: &str| {
        let rules = crate::config::read(yaml::Source::new("c", settings)).unwrap().rule_set();
        let checks = examine(&Facts { configuration: origin, ..facts() }, &rules);
        let check = checks.into_iter().find(|check| check.name == "configuration").unwrap();
        (check.verdict, format!("{}\n{}", check.found, check.facts.join("\n")))
    };
    let here = || Origin::ConfigMap("guard/gate".to_owned());
    let (verdict, said) = with(here(), "profile: restricted");
    assert_eq!(verdict, Verdict::Good);
    assert!(said.contains("ConfigMap guard/gate: profile `restricted`, mode `enforce`"), "{said}");
    assert_eq!(with(here(), "mode: warn").0, Verdict::Attention);
    let (verdict, said) =
        with(Origin::Refused("guard/gate".to_owned(), vec!["portcullis.yaml:1:1: no".to_owned()]), "");
    assert_eq!(verdict, Verdict::Bad);
    assert!(said.contains("portcullis.yaml:1:1: no"), "{said}");
    let (verdict, said) = with(Origin::Unknown("forbidden".to_owned()), "");
    assert_eq!(verdict, Verdict::Attention);
    assert!(said.contains("forbidden") && said.contains("the defaults are taken"), "{said}");
}

#[test]
fn what_the_registration_does_not_cover_of_the_rules_is_named() {
    use crate::admission::{FailurePolicy, Options, Registration, Target};
    let rules = Settings::default().rule_set();
    let options = Options {
        name: "gate".to_owned(),
        target: Target::Service { namespace: "guard".to_owned(), name: "gate".to_owned(), port: 443 },
        ca: None,
        own_namespace: Some("guard".to_owned()),
        timeout: 5,
        failure_policy: FailurePolicy::Fail,
        guard: true,
    };
    let whole = Registration::of(&rules, &options).unwrap().object;
    let with = |configuration: &Value| Facts { webhooks: Ok(vec![configuration.clone()]), ..facts() };
    check(&with(&whole), "coverage", Verdict::Good);
    let mut narrowed = whole.clone();
    narrowed["webhooks"][0]["matchConditions"][0]["expression"] = "false".into();
    narrowed["webhooks"][2]["namespaceSelector"]["matchExpressions"][0]["values"] = json!(["guard"]);
    let said = check(&with(&narrowed), "coverage", Verdict::Attention);
    assert!(said.contains("leaves out what the condition `not-the-clusters-cleaners` is not true of"), "{said}");
    assert!(said.contains("leaves out namespace `kube-system`"), "{said}");
    let mut silent = whole;
    silent["webhooks"][0]["rules"] = json!([]);
    let unknown = Facts { configuration: Origin::Unknown("forbidden".to_owned()), ..with(&silent) };
    assert!(check(&unknown, "coverage", Verdict::Attention).contains("this is by the defaults"));
    let said = check(&with(&silent), "coverage", Verdict::Bad);
    assert!(said.contains("does not ask about CREATE deployments"), "{said}");
}
