//! The gate's own configuration, judged where it is written.

use crate::gate::{Gate, Review, create, delete, gate, update};

fn own() -> Gate {
    let mut gate = gate("{apiVersion: v1, kind: Namespace, metadata: {name: guard}}");
    gate.rules.environment.own_namespace = Some("guard".into());
    gate
}

fn written(namespace: &str, key: &str, configuration: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: gate, namespace: {namespace}}}, data: {{{key}: \"{configuration}\"}}}}"
    )
}

const BAD: &str = r"mode: warn\nrules:\n  dns-blackhole:\n    action: never\n";

fn bad() -> Review {
    create(&written("guard", "portcullis.yaml", BAD))
}

#[test]
fn a_configuration_that_would_be_refused_is_refused_where_it_is_written() {
    let gate = own();
    gate.denies(&bad());
    let response = gate.response(&bad());
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("portcullis.yaml:4:13: ") && message.contains("never"), "{message}");
    let cause = &response["status"]["details"]["causes"][0];
    assert_eq!(cause["field"], "data[portcullis.yaml]");
    assert_eq!(cause["reason"], "invalid-configuration");
    let fine = written("guard", "portcullis.yaml", r"profile: restricted\n");
    gate.passes(&create(&fine));
    gate.denies(&update(&fine, &written("guard", "portcullis.yaml", BAD)));
}

#[test]
fn other_configmaps_are_nobodys_business() {
    let gate = own();
    gate.passes(&create(&written("shop", "portcullis.yaml", BAD)));
    gate.passes(&create(&written("guard", "other.yaml", BAD)));
    gate.passes(&delete(&written("guard", "other.yaml", "mode: warn")));
    gate.passes(&update(
        &written("guard", "other.yaml", "mode: enforce"),
        &written("guard", "other.yaml", "mode: warn"),
    ));
    // Where the gate does not know where it runs, no ConfigMap is its own.
    crate::gate::gate("").passes(&bad());
}

#[test]
fn what_was_refused_before_is_mended_in_steps() {
    let (old, new) = (r"mode: loud\nprofile: none\n", r"mode: warn\nprofile: none\n");
    let of = |text: &str| written("guard", "portcullis.yaml", text);
    own().warns(&update(&of(old), &of(new)));
}

/// A gate in its own namespace with these settings in force.
fn configured(settings: &str) -> Gate {
    let mut gate = own().configured(settings);
    gate.rules.environment.own_namespace = Some("guard".into());
    gate
}

#[test]
fn the_mode_and_the_action_cap_it() {
    configured("mode: warn").warns(&bad());
    configured("rules: {invalid-configuration: {action: audit}}").only_records(&bad());
    configured("rules: {invalid-configuration: {action: 'off'}}").passes(&bad());
}

/// The gate's ConfigMap with this configuration.
fn config(configuration: &str) -> String {
    let text = serde_json::to_string(configuration).unwrap();
    format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: gate, namespace: guard}}, data: {{portcullis.yaml: {text}}}}}"
    )
}

/// What is said of a change from one configuration to another.
fn said(old: &str, new: &str) -> Vec<String> {
    let response = own().response(&update(&config(old), &config(new)));
    let warnings = response["warnings"].as_array().cloned().unwrap_or_default();
    warnings.iter().map(|warning| warning.as_str().unwrap().to_owned()).collect()
}

const LESS: &str =
    "[CL010 weakened-configuration] ConfigMap guard/gate: by this configuration the gate lets more pass: ";

#[test]
fn whatever_lets_more_pass_is_told_with_both_values() {
    for (old, new, change) in [
        ("", "mode: warn", "`mode` falls from `enforce` to `warn`"),
        ("mode: warn", "mode: audit", "`mode` falls from `warn` to `audit`"),
        ("", "onTimeout: warn", "`onTimeout` falls from `deny` to `warn`"),
        ("onError: deny", "", "`onError` falls from `deny` to `warn`"),
        ("", "rules: {dns-blackhole: {action: warn}}", "`rules.dns-blackhole.action` falls from `deny` to `warn`"),
        ("", "rules: {plaintext-mtls: {action: off}}", "`rules.plaintext-mtls.action` falls from `deny` to `off`"),
        (
            "rules: {unreadable-object: {action: deny}}",
            "",
            "`rules.unreadable-object.action` falls from `deny` to `warn`",
        ),
        (
            "",
            "rules: {weakened-configuration: {action: audit}}",
            "`rules.weakened-configuration.action` falls from `warn` to `audit`",
        ),
        (
            "",
            "rules: {missing-default-deny: {grace: 24h}}",
            "`rules.missing-default-deny.grace` goes from `0s` to `24h`",
        ),
        (
            "",
            "rules: {missing-default-deny: {directions: [ingress]}}",
            "`rules.missing-default-deny.directions` goes from `[ingress, egress]` to `[ingress]`",
        ),
        (
            "rules: {missing-default-deny: {unrestrictedPods: [{app: a, b: c}]}}",
            "rules: {missing-default-deny: {unrestrictedPods: [{app: a}]}}",
            "`rules.missing-default-deny.unrestrictedPods` goes from `[{app: a, b: c}]` to `[{app: a}]`",
        ),
        (
            "",
            "rules: {wildcard-ip-block: {maxShare: 100}}",
            "`rules.wildcard-ip-block.maxShare` goes from `7` to `100`",
        ),
        (
            "rules: {wildcard-ip-block: {allow: [10.0.0.0/8]}}",
            "rules: {wildcard-ip-block: {allow: [10.0.0.0/7]}}",
            "`rules.wildcard-ip-block.allow` goes from `[10.0.0.0/8]` to `[10.0.0.0/7]`",
        ),
        (
            "",
            "rules: {wildcard-ip-block: {everyone: false}}",
            "`rules.wildcard-ip-block.everyone` goes from `true` to `false`",
        ),
        (
            "rules: {plaintext-mtls: {newWorkloads: deny}}",
            "",
            "`rules.plaintext-mtls.newWorkloads` goes from `deny` to what the profile asks for",
        ),
        (
            "rules: {plaintext-mtls: {requireMesh: true}}",
            "",
            "`rules.plaintext-mtls.requireMesh` goes from `true` to `false`",
        ),
        (
            "",
            "rules: {mode-loosened: {otherNamespaces: audit}}",
            "`rules.mode-loosened.otherNamespaces` goes from what the profile asks for to `audit`",
        ),
        (
            "namespaces: {exempt: [team-a]}",
            "namespaces: {exempt: [team-*]}",
            "`namespaces.exempt` takes in `team-*`, whose workloads no rule is about then",
        ),
        ("", "waivers: {maxDays: {critical: 3650}}", "`waivers.maxDays.critical` rises from 14 to 3650"),
        ("", "waivers: {renewals: 100}", "`waivers.renewals` rises from 2 to 100"),
        ("", "view: {maxAge: 1s}", "`view.maxAge` falls from `5m` to `1s`, past which nothing is denied"),
    ] {
        assert_eq!(said(old, new), [format!("{LESS}{change}")], "{old} to {new}");
    }
}

#[test]
fn what_lets_no_more_pass_is_no_news() {
    for (old, new) in [
        ("mode: warn", "mode: enforce"),
        ("", "{profile: restricted, onError: deny, onTimeout: deny}"),
        ("rules: {dns-blackhole: {action: off}}", ""),
        ("rules: {wildcard-ip-block: {action: off}}", "rules: {wildcard-ip-block: {maxShare: 100, action: warn}}"),
        ("rules: {missing-default-deny: {grace: 1h, directions: [egress]}}", ""),
        (
            "rules: {missing-default-deny: {unrestrictedPods: [{app: a}]}}",
            "rules: {missing-default-deny: {unrestrictedPods: [{app: a, b: c}]}}",
        ),
        (
            "rules: {wildcard-ip-block: {allow: [10.0.0.0/8]}}",
            "rules: {wildcard-ip-block: {allow: [10.1.0.0/16, 10.2.0.0/16], maxShare: 5, everyone: true}}",
        ),
        (
            "rules: {wildcard-ip-block: {allow: [10.0.0.0/9, 10.128.0.0/9]}}",
            "rules: {wildcard-ip-block: {allow: [10.0.0.0/8]}}",
        ),
        ("rules: {missing-default-deny: {grace: 60m}}", "rules: {missing-default-deny: {grace: 1h}}"),
        ("rules: {plaintext-mtls: {newWorkloads: warn}}", ""),
        // What the profile asked for before was no more.
        (
            "",
            "{profile: restricted, rules: {plaintext-mtls: {newWorkloads: warn}, mode-loosened: {otherNamespaces: warn}}}",
        ),
        ("namespaces: {exempt: [team-*]}", "namespaces: {exempt: [team-a, team-b*]}"),
        ("waivers: {maxDays: {high: 3650}, renewals: 9}", ""),
        ("view: {maxAge: 1s}", ""),
        (
            "{dns: {addresses: [10.0.0.1, 10.0.0.2]}, cni: {podRanges: [10.0.0.0/9, 10.128.0.0/9]}}",
            "{dns: {addresses: [10.0.0.2, 10.0.0.1]}, cni: {podRanges: [10.0.0.0/8]}}",
        ),
        ("mode: warn", "# a comment\nmode: warn"),
        (
            "",
            "waivers: {list: [{name: a, namespace: shop, rules: [NP001], match: {}, owner: a, reason: b, expires: 2026-06-20}]}",
        ),
    ] {
        assert_eq!(said(old, new), [""; 0], "{old} to {new}");
    }
}

#[test]
fn of_many_settings_the_first_are_named_and_all_are_told_where_it_is_denied() {
    let strict = |more: &str| format!("rules: {{weakened-configuration: {{action: deny}}}}\n{more}");
    let (old, new) =
        (strict("profile: restricted"), strict("{}").replace("{}", "namespaces: {exempt: [kube-system, a]}"));
    let gate = configured(&old);
    gate.denies(&update(&config(&old), &config(&new)));
    let response = gate.response(&update(&config(&old), &config(&new)));
    insta::assert_snapshot!(response["status"]["message"].as_str().unwrap());
}

#[test]
fn what_it_takes_the_cluster_for_is_said_and_never_refused() {
    let strict = "rules: {weakened-configuration: {action: deny}}\n";
    let gate = configured(strict);
    for section in ["dns: {addresses: [10.0.0.1]}", "mesh: {rootNamespace: a}", "cni: {name: calico}"] {
        let change = update(&config(strict), &config(&format!("{strict}{section}")));
        gate.warns(&change);
        let warning = gate.response(&change)["warnings"][0].as_str().unwrap().to_owned();
        let name = section.split(':').next().unwrap();
        assert!(warning.ends_with(&format!("takes the cluster for something else: `{name}` changes")), "{warning}");
    }
}

#[test]
fn a_configuration_that_is_new_is_held_against_what_is_in_force() {
    configured("mode: warn").passes(&create(&config("mode: warn")));
    configured("mode: enforce").warns(&create(&config("mode: warn")));
    // So is one that replaces what could not be read.
    configured("mode: enforce").warns(&update(&config("mode: loud"), &config("mode: warn")));
    configured("mode: enforce").passes(&update(&config("mode: loud"), &config("mode: enforce")));
}

#[test]
fn a_configuration_that_goes_is_told_of_however_it_goes() {
    let (there, gone) = (config("mode: enforce"), written("guard", "other.yaml", "a"));
    let gate = own();
    for change in [delete(&there), update(&there, &gone)] {
        gate.warns(&change);
        let warning = gate.response(&change)["warnings"][0].as_str().unwrap().to_owned();
        assert!(warning.ends_with("the gate's configuration goes: `portcullis.yaml` is no longer in it"), "{warning}");
        configured("rules: {weakened-configuration: {action: deny}}").denies(&change);
        configured("rules: {weakened-configuration: {action: 'off'}}").passes(&change);
    }
    let cleaner = "system:serviceaccount:kube-system:namespace-controller";
    configured("rules: {weakened-configuration: {action: deny}}").only_records(&delete(&there).by(cleaner));
}

#[test]
fn what_is_written_as_binary_is_the_same_configuration() {
    let binary = |text: &str| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(text);
        format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: gate, namespace: guard}}, binaryData: {{portcullis.yaml: {text}}}}}"
        )
    };
    let gate = own();
    gate.denies(&create(&binary("mode: loud")));
    gate.warns(&update(&config("mode: enforce"), &binary("mode: audit")));
    gate.passes(&update(&config("mode: warn"), &binary("mode: warn")));
    gate.warns(&delete(&binary("mode: warn")));
}

#[test]
fn a_waiver_of_the_configuration_that_reaches_too_far_is_told_and_not_refused() {
    let waiver = |expires: &str| {
        format!(
            "waivers: {{list: [{{name: a, namespace: shop, rules: [NP001], match: {{}}, owner: a, reason: b, expires: {expires}}}]}}"
        )
    };
    let said = said("", &waiver("2030-01-01"));
    let [warning] = said.as_slice() else { panic!("{said:?}") };
    assert!(
        warning.starts_with("[CL009 invalid-configuration] ConfigMap guard/gate: portcullis.yaml: `waivers.list[0]` (shop/a) has no effect: `expires` reaches too far ahead"),
        "{warning}"
    );
    own().passes(&create(&config(&waiver("2026-05-01"))));
}

#[test]
fn a_configmap_that_is_also_the_meshs_is_judged_as_both() {
    let of = |mode: &str| config(&format!("mode: {mode}")).replace("data: {", "data: {mesh: 'rootNamespace: mesh', ");
    let istio = |mode: &str| of(mode).replace("name: gate", "name: istio");
    own().denies(&create(&istio("loud")));
    own().warns(&update(&istio("enforce"), &istio("audit")));
}
