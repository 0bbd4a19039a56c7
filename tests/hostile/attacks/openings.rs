//! Policies that admit nearly everything and are spelt as if they did not.

use crate::shop::{Profile, Shop, told};

fn policy(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: $ns}}, spec: {spec}}}"
    )
}

/// Each is denied by `restricted`.
const WIDE: [(&str, &str); 11] = [
    ("no-peers", "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 443}, {port: 80}]}]}"),
    (
        "block",
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 443}, {port: 80}]}]}",
    ),
    ("well-known", "{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 1, endPort: 8191}]}]}"),
    ("all-udp", "{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{protocol: UDP}]}]}"),
    ("all-sctp", "{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{protocol: SCTP}]}]}"),
    ("nat64", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: '64:ff9b::/96'}}]}]}"),
    ("six-to-four", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: '2002::/16'}}]}]}"),
    ("mapped", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: '::ffff:0:0/95'}}]}]}"),
    ("metadata", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 169.254.169.254/32}}]}]}"),
    (
        "halves",
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/1}}]}, {to: [{ipBlock: {cidr: 128.0.0.0/1}}]}]}",
    ),
    (
        "namespaces-and-world",
        "{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}}, {ipBlock: {cidr: 0.0.0.0/2}}]}]}",
    ),
];

#[tokio::test]
async fn a_namespace_editor_cannot_open_nearly_everything_without_a_word() {
    let shop = Shop::closed("wide").await;
    let mut silent = Vec::new();
    for (name, spec) in WIDE {
        let said = shop.editor("create --dry-run=server -f -", &policy(name, spec)).await;
        if said.succeeded {
            silent.push((name, said.stderr));
        }
    }
    assert!(silent.is_empty(), "`restricted` should deny each of these: {silent:#?}");
}

#[tokio::test]
async fn a_policy_that_is_wide_already_does_not_grow_in_silence() {
    let half = "{podSelector: {matchLabels: {app: cart}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/1}}], ports: [{port: 443}]}]}";
    let standing = [crate::shop::CLOSED, crate::shop::CART, &policy("wide", half)].join("\n---\n");
    let shop = Shop::standing(Profile::Restricted, "grows", "", &standing).await;
    shop.knows("cart").await;
    for grown in [
        half.replace("{matchLabels: {app: cart}}", "{}"),
        half.replace("0.0.0.0/1", "0.0.0.0/0"),
        half.replace("[{port: 443}]", "[{port: 443}, {port: 5432}]"),
        half.replace(
            "[{ipBlock: {cidr: 0.0.0.0/1}}]",
            "[{ipBlock: {cidr: 0.0.0.0/1}}, {ipBlock: {cidr: 128.0.0.0/1}}]",
        ),
    ] {
        let said = shop.editor("apply --dry-run=server -f -", &policy("wide", &grown)).await;
        assert!(!said.succeeded && said.stderr.contains("denied the request"), "{grown}: {said:?}");
    }
    // What stood may stand, and be told again.
    let narrower = half.replace("0.0.0.0/1", "10.0.0.0/8");
    let said = shop.editor("apply --dry-run=server -f -", &policy("wide", &narrower)).await;
    assert!(said.succeeded, "{said:?}");
}

#[tokio::test]
async fn baseline_has_something_to_say_of_a_namespace_that_is_opened_by_protocols() {
    let shop = Shop::standing(
        Profile::Baseline,
        "wide-baseline",
        "",
        &[crate::shop::CLOSED, crate::shop::CART].join("\n---\n"),
    )
    .await;
    for (name, spec) in WIDE.iter().filter(|(name, _)| ["well-known", "all-udp", "all-sctp"].contains(name)) {
        told(&shop.editor("create --dry-run=server -f -", &policy(name, spec)).await);
    }
}
