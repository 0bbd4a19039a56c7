//! What a finding prints can be applied as it is, mends what it says, and breaks nothing else.

use portcullis::model::Object;
use portcullis::rules::Action;

use super::gate::{CLOSED, DNS, Gate, deployment, objects, policy};

const OPEN: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}";

/// Broken clusters: what to lay beside DNS, and the rule that must speak.
fn broken() -> Vec<(&'static str, Vec<String>)> {
    let cart = || deployment("shop", "cart");
    let web = || deployment("shop", "web");
    let with = |spec: &str| vec![CLOSED.to_owned(), cart(), web(), policy("shop", "extra", spec)];
    let alone = |spec: &str| vec![OPEN.to_owned(), cart(), web(), policy("shop", "allow-dns", spec)];
    vec![
        ("NP001", vec![OPEN.to_owned(), cart()]),
        (
            "NP001",
            vec![OPEN.to_owned(), cart(), policy("shop", "default-deny", "podSelector: {matchLabels: {app: cart}}")],
        ),
        ("NP001", with("podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]")),
        ("NP001", with("podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{}]")),
        (
            "NP001",
            with(
                "podSelector: {}, ingress: [{from: [{podSelector: {}}]}, {from: [{namespaceSelector: {}}, {ipBlock: {cidr: 0.0.0.0/0}}]}]",
            ),
        ),
        ("NP002", alone("podSelector: {}, policyTypes: [Ingress, Egress]")),
        (
            "NP002",
            alone(
                "podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {matchLabels: {name: kube-system}}}], ports: [{protocol: UDP, port: 53}]}]",
            ),
        ),
        (
            "NP002",
            alone(
                "podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}], ports: [{protocol: UDP, port: 53}]}]",
            ),
        ),
        ("NP002", alone("podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]")),
        ("NP002", vec![CLOSED.to_owned(), cart(), policy("kube-system", "deny", "podSelector: {}")]),
        (
            "NP003",
            with(
                "podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 443}]}]",
            ),
        ),
        (
            "NP003",
            with(
                "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/1}}, {podSelector: {}}]}, {to: [{ipBlock: {cidr: 128.0.0.0/1}}]}]",
            ),
        ),
    ]
}

#[test]
fn applying_what_a_finding_prints_mends_it_and_denies_nothing_new() {
    for (code, documents) in broken() {
        let mut all = vec![DNS];
        all.extend(documents.iter().map(String::as_str));
        let mut gate = Gate::over(&all).with("profile: restricted");
        let before = gate.check();
        let denied =
            |verdicts: &super::gate::Verdicts| verdicts.0.iter().filter(|it| it.action == Action::Deny).count();
        let fixes: Vec<_> = before.0.iter().filter(|it| it.rule.code == code).map(|it| it.fix.clone()).collect();
        assert!(!fixes.is_empty(), "{code} is silent: {documents:?}");
        for fix in fixes {
            assert!(!fix.is_empty(), "{code} offers nothing: {documents:?}\n{before:?}");
            for object in objects(&fix) {
                // A suggestion may narrow the policy it speaks of, and overwrites no other.
                let known = gate.objects.iter().position(|it| it.reference() == object.reference());
                if let Some(at) = known {
                    assert!(
                        before.0.iter().any(|it| it
                            .evidence
                            .iter()
                            .chain([&it.message])
                            .any(|line| line.contains(&*object.reference().name))),
                        "{fix}"
                    );
                    gate.objects[at] = object;
                } else {
                    gate.objects.push(object);
                }
            }
        }
        let after = gate.check();
        after.silent(code);
        assert!(denied(&after) <= denied(&before), "{code}: {documents:?}\n{after:?}");
    }
}

#[test]
fn what_a_refused_deletion_offers_makes_room_for_it() {
    let workload = deployment("shop", "cart");
    for name in ["default-deny", "allow-dns"] {
        let mut gate = Gate::over(&[DNS, CLOSED, &workload]);
        let refused = gate.delete("NetworkPolicy", "shop", name);
        let fix = refused.0.iter().find(|it| it.action == Action::Deny).unwrap().fix.clone();
        for object in objects(&fix) {
            let Object::NetworkPolicy(policy) = &object else { panic!("{fix}") };
            assert_ne!(policy.name, name, "the replacement is what is being deleted:\n{fix}");
            gate.objects.push(object);
        }
        gate.delete("NetworkPolicy", "shop", name).harmless();
    }
}
