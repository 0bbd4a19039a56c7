//! The chart's roles against what the gate reads.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::helm::{rendered, shape};

/// Each resource of a role or cluster role with each of its verbs: `apps/deployments watch`.
fn rights(objects: &[Value], kinds: &[&str]) -> BTreeSet<String> {
    let mut rights = BTreeSet::new();
    let texts =
        |value: &Value| value.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    for role in objects.iter().filter(|it| kinds.contains(&it["kind"].as_str().unwrap())) {
        for rule in role["rules"].as_array().unwrap() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        rights.insert(format!("{group}/{resource} {verb}"));
                    }
                }
            }
        }
    }
    rights
}

#[test]
fn what_is_watched_may_be_read_and_nothing_else_is() {
    let needed: BTreeSet<String> = portcullis::source::watched()
        .filter(|(_, resource)| *resource != "configmaps")
        .flat_map(|(group, resource)| ["get", "list", "watch"].map(|verb| format!("{group}/{resource} {verb}")))
        .collect();
    let given = rights(&shape("default"), &["ClusterRole"]);
    let missing: Vec<_> = needed.difference(&given).collect();
    assert!(missing.is_empty(), "watched and not given: {missing:?}");
    let own = ["openreports.io/", "wgpolicyk8s.io/", "events.k8s.io/events", "admissionregistration.k8s.io/"];
    let more: Vec<_> = given.difference(&needed).filter(|it| !own.iter().any(|own| it.starts_with(own))).collect();
    assert!(more.is_empty(), "given and not needed: {more:?}");
}

#[test]
fn nothing_may_be_written_but_reports_events_and_what_is_its_own() {
    let objects = shape("default");
    let writes = |kinds: &[&str]| -> BTreeSet<String> {
        let all = rights(&objects, kinds).into_iter();
        all.filter(|it| !["get", "list", "watch"].iter().any(|verb| it.ends_with(&format!(" {verb}")))).collect()
    };
    for right in writes(&["ClusterRole"]) {
        let is_expected =
            ["openreports.io/", "wgpolicyk8s.io/", "events.k8s.io/"].iter().any(|it| right.starts_with(it))
                || right == "admissionregistration.k8s.io/validatingwebhookconfigurations patch";
        assert!(is_expected, "{right}");
    }
    for role in objects.iter().filter(|it| it["kind"] == "ClusterRole") {
        for rule in role["rules"].as_array().unwrap() {
            let patches = rule["verbs"].as_array().unwrap().iter().any(|verb| verb == "patch");
            if patches && rule["apiGroups"][0] == "admissionregistration.k8s.io" {
                assert_eq!(rule["resourceNames"], serde_json::json!(["portcullis"]));
            }
        }
    }
    // Where neither the bundle nor the failure policy is its to set, it may set nothing.
    let idle = rendered(&["--set", "probe.namespace=,certificates.mode=secret,certificates.secret.name=own"]).unwrap();
    assert!(!rights(&idle, &["ClusterRole"]).iter().any(|it| it.ends_with(" patch")));
    let least = shape("least-rights");
    assert!(
        !rights(&least, &["ClusterRole"])
            .iter()
            .any(|it| it.contains("pods") || it.contains("istio") || it.contains("cilium"))
    );
    assert!(!rights(&least, &["Role"]).iter().any(|it| it.contains("leases") || it.contains("networkpolicies")));
}
