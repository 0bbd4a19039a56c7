//! Known violations sent on purpose.

use portcullis::admission::{self, Doubt, PROBE, Sight};
use portcullis::cluster::Cluster;
use portcullis::config::Settings;
use serde_json::{Value, json};

use crate::gate::{OPEN, Review, create, gate};

fn probe() -> Review {
    create(&format!(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: portcullis-probe-1, namespace: shop, annotations: {{{PROBE}: '1'}}}}
spec:
  podSelector: {{matchLabels: {{{PROBE}: '1'}}}}
  policyTypes: [Ingress]
  ingress: [{{from: [{{ipBlock: {{cidr: 0.0.0.0/0}}}}]}}]
"
    ))
    .with("dryRun", true)
}

#[test]
fn a_probe_is_denied_in_a_namespace_that_is_exempt_unless_something_is_said() {
    for namespace in ["portcullis", "kube-public"] {
        let mut probe = probe().with("namespace", namespace);
        probe.request["object"]["metadata"]["namespace"] = namespace.into();
        gate(OPEN).denies(&probe);
    }
}

/// The configurations that let the most through.
const LENIENT: [&str; 5] = [
    "mode: warn",
    "mode: audit",
    "rules: {wildcard-ip-block: {action: 'off'}}",
    "namespaces: {exempt: [shop]}\nrules: {wildcard-ip-block: {maxShare: 100}}",
    "namespaces: {exempt: ['sh*']}",
];

#[test]
fn a_probe_is_denied_whatever_is_configured() {
    for config in LENIENT {
        let answer = gate(OPEN).configured(config).answer(&probe().body());
        assert!(!answer.record.allowed, "{config}");
        assert!(answer.record.findings.iter().any(|(rule, _)| *rule == "wildcard-ip-block"), "{config}");
    }
}

#[test]
fn a_probe_is_denied_whatever_is_not_known() {
    let doubts = [Doubt::Stale(std::time::Duration::from_hours(1)), Doubt::Unconfirmed("no answer".to_owned())];
    let cluster = Cluster::default();
    let sight = Sight { cluster: &cluster, doubts: &doubts, stop: None };
    let answer =
        admission::review(&Settings::default().rule_set(), sight, &probe().body(), jiff::Timestamp::UNIX_EPOCH);
    assert!(!answer.record.allowed);
    assert!(answer.record.to_confirm.namespaces.is_empty(), "there is nothing to read anew for it");
}

#[test]
fn only_a_dry_run_with_the_annotation_is_a_probe() {
    let allowed = |review: Review| gate(OPEN).configured(LENIENT[1]).answer(&review.body()).record.allowed;
    assert!(!allowed(probe()));
    assert!(allowed(probe().with("dryRun", false)), "a policy that is stored is judged by the configuration");
    let mut unmarked = probe();
    unmarked.request["object"]["metadata"]["annotations"] = json!({ "other": PROBE });
    assert!(allowed(unmarked.clone()));
    unmarked.request["object"]["metadata"]["annotations"] = Value::Null;
    assert!(allowed(unmarked));
}
