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
    let fine = written("guard", "portcullis.yaml", r"mode: warn\n");
    gate.passes(&create(&fine));
    gate.denies(&update(&fine, &written("guard", "portcullis.yaml", BAD)));
}

#[test]
fn other_configmaps_are_nobodys_business() {
    let gate = own();
    gate.passes(&create(&written("shop", "portcullis.yaml", BAD)));
    gate.passes(&create(&written("guard", "other.yaml", BAD)));
    gate.passes(&delete(&written("guard", "portcullis.yaml", BAD)));
    // Where the gate does not know where it runs, no ConfigMap is its own.
    crate::gate::gate("").passes(&bad());
}

#[test]
fn what_was_refused_before_is_mended_in_steps() {
    let (old, new) = (r"mode: loud\nprofile: none\n", r"mode: warn\nprofile: none\n");
    let of = |text: &str| written("guard", "portcullis.yaml", text);
    own().warns(&update(&of(old), &of(new)));
}

#[test]
fn the_mode_and_the_action_cap_it() {
    let configured = |settings: &str| {
        let mut gate = own().configured(settings);
        gate.rules.environment.own_namespace = Some("guard".into());
        gate
    };
    configured("mode: warn").warns(&bad());
    configured("rules: {invalid-configuration: {action: audit}}").only_records(&bad());
    configured("rules: {invalid-configuration: {action: 'off'}}").passes(&bad());
}
