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

#[test]
fn a_new_workload_that_says_no_to_the_mesh_of_its_namespace_is_warned_about() {
    let meshed = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: enabled}}}";
    let strict = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: shop}, spec: {mtls: {mode: STRICT}}}";
    let out = deployment("shop", "cart")
        .replace("labels: {app: cart}", "labels: {app: cart, sidecar.istio.io/inject: 'false'}");
    let verdicts = Gate::over(&[DNS, meshed, strict]).create(&out);
    let finding = verdicts.warned("MT001");
    assert!(finding.message.contains("cart"), "{}", finding.message);
    Gate::over(&[DNS, OPEN]).create(&out).silent("MT001");
}

#[test]
fn a_policy_as_large_as_can_be_stored_is_judged_as_a_small_one() {
    let closed = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: shop}, spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}";
    let gate = Gate::over(&[DNS, OPEN, closed, &deployment("shop", "cart")]);
    let repeated = |rule: &str, times: usize| {
        let rules = vec![rule; times].join(", ");
        super::gate::policy("shop", "many", &format!("podSelector: {{}}, ingress: [{rules}]"))
    };
    gate.create(&repeated("{}", 5000)).denied("NP001");
    gate.create(&repeated("{ports: [{protocol: TCP}]}", 5000)).denied("NP001");
    let stairs: Vec<String> = (1..3000).map(|port| format!("{{ports: [{{port: {port}, endPort: 65535}}]}}")).collect();
    gate.create(&super::gate::policy("shop", "many", &format!("podSelector: {{}}, ingress: [{}]", stairs.join(", "))))
        .denied("NP001");
    let blocks: Vec<String> = (0..2000)
        .map(|n| {
            format!(
                "{{from: [{{ipBlock: {{cidr: {}.{}.0.0/16}}}}], ports: [{{port: {}}}]}}",
                n / 250 + 1,
                n % 250,
                n + 1
            )
        })
        .collect();
    gate.create(&super::gate::policy("shop", "many", &format!("podSelector: {{}}, ingress: [{}]", blocks.join(", "))))
        .silent("NP001");
}
