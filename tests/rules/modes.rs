//! Modes, the ratchet, and what cannot be read.

use super::gate::{DNS, Gate, deployment};

const OPEN: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}";

fn labelled(mode: &str) -> String {
    format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, labels: {{portcullis.dev/mode: {mode}}}}}}}")
}

#[test]
fn the_mode_caps_what_rules_ask_for() {
    let gate = |mode: &str| Gate::over(&[DNS, OPEN]).with(&format!("mode: {mode}"));
    gate("enforce").create(&deployment("shop", "cart")).denied("NP001");
    gate("warn").create(&deployment("shop", "cart")).warned("NP001");
    let verdicts = gate("audit").create(&deployment("shop", "cart"));
    assert_eq!(verdicts.of("NP001"), Some(portcullis::rules::Action::Audit));
}

#[test]
fn a_namespaces_label_sets_its_own_mode() {
    let gate = |label: &str, mode: &str| Gate::over(&[DNS, &labelled(label)]).with(&format!("mode: {mode}"));
    gate("enforce", "warn").create(&deployment("shop", "cart")).denied("NP001");
    gate("warn", "enforce").create(&deployment("shop", "cart")).warned("NP001");
    gate("nonsense", "enforce").create(&deployment("shop", "cart")).denied("NP001");
}

#[test]
fn a_label_that_loosens_the_mode_does_not_cover_the_change_that_sets_it() {
    let strict = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: enabled}}}";
    let policy = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: shop}, spec: {mtls: {mode: STRICT}}}";
    let gate = Gate::over(&[DNS, strict, policy, &deployment("shop", "cart")]);
    gate.update(&labelled("audit")).denied("MT001");
}

#[test]
fn an_action_can_be_set_for_each_rule() {
    let gate = |settings: &str| {
        Gate::over(&[DNS, OPEN]).with(&format!("rules: {{missing-default-deny: {{action: {settings}}}}}"))
    };
    gate("off").create(&deployment("shop", "cart")).silent("NP001");
    gate("warn").create(&deployment("shop", "cart")).warned("NP001");
}
