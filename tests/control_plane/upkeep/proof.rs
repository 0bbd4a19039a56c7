//! What a proof is, and what follows from one.

use super::Home;
use crate::support::{ControlPlane, Gate, Knows, Setup, eventually};

/// What a probe sends, without being one.
const WIDE_OPEN: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: wide-open}
spec: {podSelector: {matchLabels: {app: none}}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_fails_closed_before_a_probe_was_denied() {
    let plane = ControlPlane::shared().await;
    let home = Home::new(plane, "proved").await;
    let label = async |value: &str| {
        let said = plane.kubectl(["label", "namespace", "proved-asked", "--overwrite", value], "").await;
        assert!(said.succeeded, "{said:?}");
    };
    // The gate is there and trusted, and not asked about the namespace.
    label("gate=nobody").await;
    home.register().await;
    let gate = home.begin(&["--failure-policy", "fail"]).await;
    gate.is_ready().await;
    let admitted = async || gate.metric("portcullis_probes_total", "admitted").await;
    eventually("it keeps trying", async || (admitted().await >= 3.0).then_some(())).await;
    assert_eq!(home.entry().await["failurePolicy"], "Ignore");
    assert_eq!(gate.logged("failurePolicy set").len(), 0);

    label("gate=proved").await;
    home.until_it_fails_closed().await;
    assert!(gate.metric("portcullis_probes_total", "denied").await > 0.0);
    assert_eq!(gate.logged("failurePolicy set").len(), 1);

    // It is proved once and for all: what fails later is told, and nothing is flipped.
    label("gate=nobody").await;
    let probe = home.probe("proved-asked").await;
    assert_eq!(probe.status.code(), Some(1), "{probe:?}");
    assert_eq!(home.entry().await["failurePolicy"], "Fail");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_ignore_is_set_without_a_proof() {
    let plane = ControlPlane::shared().await;
    let home = Home::new(plane, "ignoring").await;
    let mut registration = home.registration();
    registration["webhooks"][0]["failurePolicy"] = "Fail".into();
    // Nobody could prove anything by a gate that is not asked.
    registration["webhooks"][0]["namespaceSelector"]["matchLabels"] = serde_json::json!({ "gate": "nobody" });
    plane.apply(&registration.to_string()).await;
    let _gate = home.begin(&["--failure-policy", "ignore"]).await;
    eventually("the registration fails open", async || (home.entry().await["failurePolicy"] == "Ignore").then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_is_denied_by_a_gate_that_denies_nothing_else() {
    let plane = ControlPlane::shared().await;
    for mode in ["warn", "audit"] {
        let name = format!("probed-{mode}");
        let home = Home::new(plane, &name).await;
        home.register().await;
        let flags = home.flags();
        let arguments: Vec<&str> = flags.iter().map(String::as_str).collect();
        let setup = Setup {
            cluster: Knows::Live(plane.kubeconfig()),
            config: &format!("mode: {mode}"),
            arguments: &arguments,
            listen: Some(home.address),
            ..Setup::default()
        };
        let gate = Gate::start(setup).await;
        let asked = format!("{name}-asked");
        eventually("the API server asks", async || (home.probe(&asked).await.status.code() == Some(0)).then_some(()))
            .await;
        let probe = home.probe(&asked).await;
        let said = String::from_utf8(probe.stdout).unwrap();
        assert!(said.contains("was denied by portcullis, as it must be"), "{said}");

        let reviews = gate.reviews().await;
        let words = ["create", "--dry-run=server", "--namespace", &asked, "-f", "-"];
        let created = plane.kubectl(words, WIDE_OPEN).await;
        assert!(created.succeeded, "{mode}: {created:?}");
        assert!(gate.reviews().await > reviews, "the gate was asked about it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_is_not_denied_says_what_to_look_at() {
    let plane = ControlPlane::shared().await;
    let home = Home::new(plane, "unproved").await;
    let admitted = home.probe("unproved-asked").await;
    assert_eq!(admitted.status.code(), Some(1));
    let said = String::from_utf8(admitted.stdout).unwrap() + &String::from_utf8(admitted.stderr).unwrap();
    assert!(said.contains("was let through") && said.contains("leave unproved-asked out"), "{said}");

    let unasked = home.probe("not-there").await;
    assert_eq!(unasked.status.code(), Some(2));
    let said = String::from_utf8(unasked.stdout).unwrap();
    assert!(said.contains("namespaces \"not-there\" not found"), "{said}");
}
