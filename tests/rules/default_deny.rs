//! NP001 `missing-default-deny`.

use super::gate::{CLOSED, DNS, Gate, deployment, policy};

const OPEN: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}";
const DENY: &str = "podSelector: {}, policyTypes: [Ingress, Egress]";

#[test]
fn a_workload_in_an_undefended_namespace_is_denied() {
    let gate = Gate::over(&[DNS, OPEN]);
    let verdicts = gate.create(&deployment("shop", "cart"));
    let finding = verdicts.denied("NP001");
    assert!(finding.message.contains("`Deployment cart`"), "{}", finding.message);
    gate.create("{apiVersion: v1, kind: Pod, metadata: {name: one, namespace: shop}, spec: {containers: []}}")
        .denied("NP001");
}

#[test]
fn a_second_workload_in_an_undefended_namespace_is_denied_too() {
    let gate = Gate::over(&[DNS, OPEN, &deployment("shop", "cart")]);
    gate.create(&deployment("shop", "web")).denied("NP001");
}

#[test]
fn a_workload_in_a_closed_namespace_is_let_in() {
    Gate::over(&[DNS, CLOSED]).create(&deployment("shop", "cart")).harmless();
}

#[test]
fn creating_a_namespace_warns_with_the_policy_to_apply() {
    let verdicts = Gate::over(&[DNS]).create(OPEN);
    let finding = verdicts.warned("NP001");
    assert!(finding.fix.contains("namespace: shop") && finding.fix.contains("podSelector: {}"), "{}", finding.fix);
}

#[test]
fn an_allow_all_under_whatever_name_is_seen_through() {
    let named = "podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]";
    let gate = Gate::over(&[DNS, OPEN, &policy("shop", "default-deny", named)]);
    gate.create(&deployment("shop", "cart")).denied("NP001");
}

#[test]
fn an_allow_all_beside_a_default_deny_is_denied() {
    let gate = Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")]);
    for spec in [
        "podSelector: {}, ingress: [{}]",
        "podSelector: {}, policyTypes: [Egress], egress: [{}]",
        "podSelector: {}, policyTypes: [Egress], egress: [{ports: [{protocol: TCP}, {protocol: UDP}]}]",
        "podSelector: {}, ingress: [{ports: [{port: 1, endPort: 65535}]}]",
        "podSelector: {}, ingress: [{ports: [{port: 1, endPort: 30000}]}, {ports: [{port: 30001, endPort: 65535}]}]",
        "podSelector: {}, ingress: [{from: [{namespaceSelector: {}}, {ipBlock: {cidr: 0.0.0.0/0}}]}]",
        "podSelector: {}, ingress: [{from: [{namespaceSelector: {}}, {ipBlock: {cidr: 0.0.0.0/1}}, {ipBlock: {cidr: 128.0.0.0/1}}]}]",
        "podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: a, operator: Exists}]}}, {namespaceSelector: {matchExpressions: [{key: a, operator: DoesNotExist}]}}, {ipBlock: {cidr: '::/0'}}]}]",
        "podSelector: {matchExpressions: [{key: nothing, operator: DoesNotExist}]}, ingress: [{}]",
        "podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [nobody]}]}, ingress: [{}]",
    ] {
        gate.create(&policy("shop", "temporary", spec)).denied("NP001");
    }
}

#[test]
fn one_workload_that_is_given_everything_back_is_named() {
    let gate = Gate::over(&[DNS, CLOSED, &deployment("shop", "cart"), &deployment("shop", "web")]);
    let open_web = policy("shop", "web", "podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{}]");
    let verdicts = gate.create(&open_web);
    let finding = verdicts.denied("NP001");
    assert!(finding.message.contains("`Deployment web`") && !finding.message.contains("cart"), "{}", finding.message);
    assert_eq!(finding.path.as_str(), "spec.egress[0]");
    gate.with("rules: {missing-default-deny: {unrestrictedPods: [{app: web}]}}").create(&open_web).silent("NP001");
}

#[test]
fn what_is_narrower_than_everything_passes() {
    let gate = Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")]);
    for spec in [
        "podSelector: {}, ingress: [{from: [{podSelector: {}}]}]",
        "podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]",
        "podSelector: {}, ingress: [{ports: [{port: 8080}]}]",
        "podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 443}]}]",
        "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]",
    ] {
        gate.create(&policy("shop", "narrow", spec)).silent("NP001");
    }
    let alone = policy(
        "shop",
        "own-namespace",
        "podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}], egress: [{to: [{podSelector: {}}]}]",
    );
    Gate::over(&[DNS, OPEN, &alone]).create(&deployment("shop", "cart")).silent("NP001");
}

#[test]
fn a_policy_for_one_direction_leaves_the_other_open() {
    let ingress_only = policy("shop", "deny", "podSelector: {}, policyTypes: [Ingress]");
    let gate = Gate::over(&[DNS, OPEN, &ingress_only]);
    let verdicts = gate.create(&deployment("shop", "cart"));
    let finding = verdicts.denied("NP001");
    assert!(finding.message.contains("egress") && !finding.message.contains("ingress"), "{}", finding.message);
    gate.with("rules: {missing-default-deny: {directions: [ingress]}}")
        .create(&deployment("shop", "cart"))
        .silent("NP001");
}

#[test]
fn rules_without_their_policy_type_isolate_nothing() {
    let spec = "podSelector: {}, policyTypes: [Ingress], egress: [{to: [{podSelector: {}}]}]";
    let gate = Gate::over(&[DNS, OPEN, &policy("shop", "deny", spec)]);
    let verdicts = gate.create(&deployment("shop", "cart"));
    let finding = verdicts.denied("NP001");
    assert!(finding.evidence.iter().any(|line| line.contains("policyTypes")), "{:?}", finding.evidence);
}

#[test]
fn missing_policy_types_are_defaulted_as_the_api_server_does() {
    let gate = |spec: &str| Gate::over(&[DNS, OPEN, &policy("shop", "deny", spec)]);
    gate("podSelector: {}, egress: [{to: [{podSelector: {}}]}]").create(&deployment("shop", "cart")).silent("NP001");
    gate("podSelector: {}").create(&deployment("shop", "cart")).denied("NP001");
}

#[test]
fn a_selector_of_todays_pods_is_no_default() {
    let gate = Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")]);
    for selector in [
        "matchLabels: {app: cart}",
        "matchExpressions: [{key: app, operator: Exists}]",
        "matchExpressions: [{key: legacy, operator: DoesNotExist}]",
        "matchExpressions: [{key: app, operator: NotIn, values: [web]}]",
    ] {
        let spec = format!("podSelector: {{{selector}}}, policyTypes: [Ingress, Egress]");
        let verdicts = gate.update(&policy("shop", "default-deny", &spec));
        assert_eq!(verdicts.denied("NP001").path.as_str(), "spec.podSelector", "{selector}");
    }
}

#[test]
fn two_selectors_that_cover_every_pod_together_are_a_default() {
    let one = policy("shop", "web", "podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]");
    let rest = policy(
        "shop",
        "rest",
        "podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}, policyTypes: [Ingress, Egress]",
    );
    let gate = Gate::over(&[DNS, OPEN, &one, &rest, &deployment("shop", "api")]);
    gate.create(&deployment("shop", "cart")).silent("NP001");
    gate.delete("NetworkPolicy", "shop", "rest").denied("NP001");
}

#[test]
fn deleting_or_hollowing_out_the_last_defence_is_denied() {
    let gate = Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")]);
    gate.delete("NetworkPolicy", "shop", "default-deny").denied("NP001");
    gate.update(&policy("shop", "default-deny", "podSelector: {}, policyTypes: [Egress]")).denied("NP001");
    gate.update(&policy("shop", "default-deny", "podSelector: {}, ingress: [{}], policyTypes: [Ingress, Egress]"))
        .denied("NP001");
    // Another one is left.
    let twice = Gate::over(&[DNS, CLOSED, &policy("shop", "again", DENY), &deployment("shop", "cart")]);
    twice.delete("NetworkPolicy", "shop", "default-deny").harmless();
}

#[test]
fn whoever_clears_a_namespace_is_warned_and_not_held_up() {
    let gate = Gate::over(&[DNS, CLOSED]);
    gate.delete("NetworkPolicy", "shop", "default-deny").warned("NP001");
    // What is created there afterwards is judged.
    Gate::over(&[DNS, OPEN]).create(&deployment("shop", "cart")).denied("NP001");
}

#[test]
fn what_stood_is_a_warning_at_most_and_mending_passes() {
    let gate = Gate::over(&[DNS, OPEN, &deployment("shop", "cart")]);
    let verdicts = gate.update(&deployment("shop", "cart").replace("{name: c}", "{name: d}"));
    assert_ne!(verdicts.of("NP001"), Some(portcullis::rules::Action::Deny), "{verdicts:?}");
    gate.create(&policy("shop", "half", "podSelector: {}, policyTypes: [Ingress]")).harmless();
    gate.delete("Deployment", "shop", "cart").harmless();
}

#[test]
fn a_relabelled_workload_that_comes_under_an_allow_all_is_denied() {
    let open_web = policy("shop", "web", "podSelector: {matchLabels: {app: web}}, ingress: [{}]");
    let gate = Gate::over(&[DNS, CLOSED, &open_web, &deployment("shop", "cart")]);
    gate.update(&deployment("shop", "cart").replace("labels: {app: cart}", "labels: {app: web}")).denied("NP001");
}

#[test]
fn exempt_and_terminating_namespaces_are_left_alone() {
    let gate = Gate::over(&[DNS]);
    gate.create(&deployment("kube-system", "proxy")).silent("NP001");
    let terminating =
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, deletionTimestamp: '2026-11-01T00:00:00Z'}}";
    let gate = Gate::over(&[DNS, CLOSED, terminating]);
    gate.delete("NetworkPolicy", "shop", "default-deny").silent("NP001");
    let gate = Gate::over(&[DNS, OPEN]).with("namespaces: {exempt: ['sh*']}");
    gate.create(&deployment("shop", "cart")).silent("NP001");
}

#[test]
fn a_young_namespace_has_its_grace() {
    let young = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, creationTimestamp: '2026-11-01T00:00:00Z'}}";
    let settings = "rules: {missing-default-deny: {grace: 5m}}";
    let gate = |now: &str| Gate::over(&[DNS, young]).with(settings).at(now);
    gate("2026-11-01T00:04:59Z").create(&deployment("shop", "cart")).warned("NP001");
    gate("2026-11-01T00:05:01Z").create(&deployment("shop", "cart")).denied("NP001");
    Gate::over(&[DNS, young]).at("2026-11-01T00:00:01Z").create(&deployment("shop", "cart")).denied("NP001");
}

#[test]
fn a_policy_of_another_system_turns_a_denial_into_a_warning_that_names_it() {
    let foreign =
        "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: lock, namespace: shop}, spec: {}}";
    let gate = Gate::over(&[DNS, OPEN, foreign]);
    let verdicts = gate.create(&deployment("shop", "cart"));
    let finding = verdicts.warned("NP001");
    assert!(finding.evidence.iter().any(|line| line.contains("`lock`")), "{:?}", finding.evidence);
}

#[test]
fn whether_blocks_admit_pods_is_the_implementations_to_say() {
    let open = policy("shop", "open", "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]");
    let gate =
        |cni: &str| Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")]).with(&format!("cni: {{name: {cni}}}"));
    gate("calico").create(&open).denied("NP001");
    gate("unknown").create(&open).warned("NP001");
    gate("cilium").create(&open).silent("NP001");
}

#[test]
fn pods_of_the_nodes_network_are_nobodys_to_isolate() {
    let node = "{apiVersion: v1, kind: Pod, metadata: {name: agent, namespace: shop}, spec: {hostNetwork: true, containers: []}}";
    Gate::over(&[DNS, OPEN]).create(node).silent("NP001");
}
