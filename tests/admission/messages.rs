//! The texts, as `kubectl` prints them.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::gate::{ALLOW_ALL, CART, DEFAULT_DENY, OPEN, closed, create, delete, gate, object, update};
use portcullis::yaml;

const PREFIX: &str = "Error from server (Forbidden): error when creating \"cart.yaml\": \
                      admission webhook \"validate.portcullis.dev\" denied the request: ";

fn message(response: &Value) -> &str {
    response["status"]["message"].as_str().unwrap()
}

fn warnings(response: &Value) -> Vec<&str> {
    response["warnings"].as_array().into_iter().flatten().map(|warning| warning.as_str().unwrap()).collect()
}

#[test]
fn one_finding_reads_as_a_line_its_reasons_and_the_yaml_that_mends_it() {
    let response = gate(OPEN).response(&create(CART));
    assert_snapshot!(format!("{PREFIX}{}", message(&response)));
}

#[test]
fn several_findings_are_numbered_and_their_yaml_comes_last() {
    let cluster = closed();
    let response = gate(&cluster).response(&update(DEFAULT_DENY, BOTH_WRONG));
    assert_snapshot!(format!("{PREFIX}{}", message(&response)));
}

const BOTH_WRONG: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: [{}]
";

#[test]
fn what_follows_the_findings_can_be_applied_as_it_is() {
    for (review, documents) in [(create(CART), 1), (update(DEFAULT_DENY, BOTH_WRONG), 2), (create(ALLOW_ALL), 1)] {
        let cluster = if review.request["operation"] == "CREATE" && review.request["kind"]["kind"] == "Deployment" {
            OPEN.to_owned()
        } else {
            closed()
        };
        let response = gate(&cluster).response(&review);
        let message = message(&response);
        let start = message.find("\n\n# mends").or_else(|| message.find("\n\napiVersion")).unwrap();
        let parsed = yaml::parse(&message[start..]);
        assert_eq!(parsed.len(), documents, "{message}");
        for document in parsed {
            assert_eq!(document.unwrap().value()["kind"], "NetworkPolicy", "{message}");
        }
    }
}

#[test]
fn no_line_but_the_first_of_a_finding_is_wider_than_a_terminal() {
    let response = gate(&closed()).response(&update(DEFAULT_DENY, BOTH_WRONG));
    for line in message(&response).lines().filter(|line| !line.contains("[NP0")) {
        assert!(line.chars().count() <= 96, "{line}");
    }
}

#[test]
fn a_denial_of_very_many_findings_stays_small_and_counts_them() {
    let namespaces: Vec<String> = (0..2000)
        .map(|i| format!("apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: team-{i:04}}}\nspec: {{template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: []}}}}}}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: deny, namespace: team-{i:04}}}\nspec: {{podSelector: {{}}, policyTypes: [Ingress, Egress], egress: [{{to: [{{namespaceSelector: {{matchLabels: {{dns: here}}}}}}]}}]}}"))
        .collect();
    let named = "{apiVersion: v1, kind: Namespace, metadata: {name: kube-system, labels: {dns: here}}}";
    let unnamed = "{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}";
    let cluster = [OPEN, named, &namespaces.join("\n---\n")].join("\n---\n");
    let response = gate(&cluster).response(&update(named, unnamed));
    let causes = response["status"]["details"]["causes"].as_array().unwrap();
    assert_eq!(causes.len(), 2000);
    let message = message(&response);
    assert!(message.len() < 64 * 1024, "{}", message.len());
    assert!(message.starts_with("2000 violations: NP002 dns-blackhole\n"));
    assert!(message.contains("\nand 1"), "the rest is counted");
}

#[test]
fn a_namespace_is_warned_about_with_a_command_that_mends_it() {
    let response = gate(OPEN).response(&create("{apiVersion: v1, kind: Namespace, metadata: {name: new}}"));
    let warnings = warnings(&response);
    assert_snapshot!(warnings.join("\n"));
    // What a shell hands to kubectl is the object.
    let command = warnings.iter().find_map(|it| it.split_once("to mend it: ")).unwrap().1;
    let quoted = command.strip_prefix("printf %s ").unwrap().strip_suffix(" | kubectl apply -f -").unwrap();
    let output = std::process::Command::new("sh").args(["-c", &format!("printf %s {quoted}")]).output().unwrap();
    let policy: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&policy["kind"], &policy["metadata"]["namespace"]), (&json!("NetworkPolicy"), &json!("new")));
}

#[test]
fn a_name_cannot_reach_the_shell_of_whoever_copies_the_command() {
    let review = create("{apiVersion: v1, kind: Namespace, metadata: {name: \"x'; echo owned > owned; '\"}}");
    let response = gate(OPEN).response(&review);
    let warnings = warnings(&response);
    let command = warnings.iter().find_map(|it| it.split_once("to mend it: ")).unwrap().1;
    let folder = tempfile::tempdir().unwrap();
    let harmless = command.replace("kubectl apply -f -", "cat");
    let output = std::process::Command::new("sh").args(["-c", &harmless]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{command}");
    let policy: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(policy["metadata"]["namespace"], "x'; echo owned > owned; '");
}

#[test]
fn what_is_warned_of_has_no_control_character_and_no_prefix() {
    let odd = "x\n[NP000 all-clear] y\t\u{7}\u{1b}[2Jz\u{202e}w\u{2028}v";
    let mut review = create("{apiVersion: v1, kind: Namespace, metadata: {name: new}}").with("name", odd);
    review.request["object"]["metadata"]["name"] = odd.into();
    let response = gate(OPEN).response(&review);
    let warnings = warnings(&response);
    assert!(!warnings.is_empty());
    for warning in warnings {
        assert!(!warning.chars().any(|c| c.is_control() || c == '\u{202e}' || c == '\u{2028}'), "{warning:?}");
        assert!(!warning.to_lowercase().starts_with("warning"), "{warning:?}");
        assert!(!warning.is_empty());
    }
    for (_, value) in response["auditAnnotations"].as_object().unwrap() {
        assert!(!value.as_str().unwrap().chars().any(char::is_control), "{value}");
    }
}

#[test]
fn a_name_cannot_forge_a_line_of_a_denial() {
    let odd = "x\n\n2. [NP000 all-clear] nothing to see\n---\nkind: Pod";
    let mut review = create(CART).with("name", odd);
    review.request["object"]["metadata"]["name"] = odd.into();
    let response = gate(OPEN).response(&review);
    assert!(!message(&response).lines().any(|line| line.starts_with("2. ") || line == "kind: Pod"));
    let cause = response["status"]["details"]["causes"][0]["message"].as_str().unwrap();
    assert!(!cause.contains('\n'));
}

/// A policy with this many blocks, each in a rule of its own that cannot be read.
fn unreadable(blocks: usize, length: usize) -> String {
    let peers: Vec<String> =
        (0..blocks).map(|i| format!("  - from: [{{ipBlock: {{cidr: '{i}{}'}}}}]", "x".repeat(length))).collect();
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: many, namespace: shop}}\nspec:\n  podSelector: {{}}\n  ingress:\n{}\n",
        peers.join("\n")
    )
}

#[test]
fn warnings_are_at_most_twenty_and_the_last_counts_the_rest() {
    let at_most = gate(&closed()).response(&create(&unreadable(20, 1)));
    assert_eq!(warnings(&at_most).len(), 20);
    assert!(!warnings(&at_most).last().unwrap().contains("more"));
    let response = gate(&closed()).response(&create(&unreadable(50, 1)));
    let warnings = warnings(&response);
    assert_eq!(warnings.len(), 20);
    assert!(warnings.last().unwrap().starts_with("[portcullis] and 31 more"), "{warnings:#?}");
}

#[test]
fn warnings_together_stay_below_what_the_api_server_cuts() {
    for length in [10, 100, 300, 1_000, 5_000] {
        let response = gate(&closed()).response(&create(&unreadable(30, length)));
        let warnings = warnings(&response);
        let runes: usize = warnings.iter().map(|warning| warning.chars().count()).sum();
        assert!(runes <= 4096, "{runes}");
        assert!(warnings.len() > 1, "something is said beside the count: {warnings:?}");
        let told = warnings.len() - 1;
        assert!(warnings[told].starts_with(&format!("[portcullis] and {} more", 30 - told)), "{}", warnings[told]);
    }
}

#[test]
fn the_same_warning_is_given_once() {
    let twice = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: many, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{ipBlock: {cidr: 0.0.0.0/1}}, {ipBlock: {cidr: 128.0.0.0/1}}]}]
  ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]
";
    let response = gate(&closed()).response(&create(twice));
    let mut warnings = warnings(&response);
    let all = warnings.len();
    assert!(all > 0);
    warnings.sort_unstable();
    warnings.dedup();
    assert_eq!(warnings.len(), all);
}

#[test]
fn annotations_are_short_and_name_the_gravest_finding_of_a_rule() {
    let response = gate(&closed()).response(&create(&unreadable(30, 5_000)));
    let annotation = response["auditAnnotations"]["unreadable-object"].as_str().unwrap();
    assert!(annotation.chars().count() < 540, "{annotation}");
    assert!(annotation.starts_with("warn: ") && annotation.ends_with("… (and 29 more)"), "{annotation}");
}

#[test]
fn what_is_said_of_a_deletion_is_about_what_goes() {
    let response = gate(&closed()).response(&delete(DEFAULT_DENY));
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["details"]["name"], object(DEFAULT_DENY)["metadata"]["name"]);
}
