//! Policies that admit nearly everything and are spelt as if they did not.

use crate::shop::{Profile, Shop};

fn policy(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: $ns}}, spec: {spec}}}"
    )
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
