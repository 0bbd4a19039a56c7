//! Waivers through their life, on a control plane of their own: definitions are the cluster's.

use std::time::Duration;

use jiff::Timestamp;

use crate::scene::Scene;
use crate::support::{ControlPlane, Gate, Knows, Registration, Setup, Through, eventually};

const DEFINITION: &str = include_str!("../../../charts/portcullis/crds/waivers.portcullis.dev.yaml");
/// How readiness names them.
const NAME: &str = "waivers.portcullis.dev";

fn waiver(name: &str, expires: impl std::fmt::Display) -> String {
    format!(
        "{{apiVersion: portcullis.dev/v1alpha1, kind: Waiver, metadata: {{name: {name}, namespace: shop}}, spec: {{rules: [NP001], match: {{}}, owner: payments, reason: moves in January, expires: '{expires}'}}}}"
    )
}

fn deployment(name: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: shop}}, spec: {{selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{{name: a, image: a}}]}}}}}}}}"
    )
}

/// A control plane that knows Waivers, with a gate that has noticed it.
async fn plane_and_gate() -> (ControlPlane, Gate) {
    let plane = ControlPlane::new().await;
    let gate = Gate::start(Setup { cluster: Knows::Live(plane.kubeconfig()), ..Setup::default() }).await;
    let (_, ready) = gate.get("/readyz?verbose").await.unwrap();
    assert!(ready.contains(&format!("[+]{NAME} ok: not installed\n")), "{ready}");
    Registration::new(&plane, &gate, Through::Url, "waivers").await;
    plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {gate: waivers}}}").await;
    plane.apply(DEFINITION).await;
    eventually("the gate has noticed Waivers", async || {
        let (_, ready) = gate.get("/readyz?verbose").await?;
        ready.contains(&format!("[+]{NAME} ok\n")).then_some(())
    })
    .await;
    (plane, gate)
}

#[tokio::test]
async fn a_waiver_holds_from_the_next_request_to_its_last_moment_with_no_restart() {
    let (plane, _gate) = plane_and_gate().await;
    let kubectl = async |words: &str, input: &str| plane.kubectl(words.split_whitespace(), input).await;

    Scene::denied(&kubectl("apply -f -", &deployment("early")).await, "NP001");

    // Both at once, as a folder is applied: the denial that the second would meet is confirmed first.
    let ends = Timestamp::now() + Duration::from_secs(15);
    let folder = [waiver("legacy", ends), deployment("cart")].join("\n---\n");
    let applied = kubectl("apply -f -", &folder).await;
    assert!(applied.succeeded && applied.stderr.is_empty(), "{applied:?}");
    let listed = kubectl("get waivers -n shop", "").await.stdout;
    let (head, row) = listed.split_once('\n').unwrap();
    assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["NAME", "RULES", "OWNER", "UNTIL", "AGE"]);
    assert!(row.contains(r#"["NP001"]"#) && row.contains("payments") && row.contains(&ends.to_string()), "{row}");

    // The first moment at which it has run out.
    tokio::time::sleep(Duration::try_from(ends - Timestamp::now()).unwrap_or_default()).await;
    Scene::denied(&kubectl("apply -f -", &deployment("late")).await, "NP001");
    // What got in stays, and may change.
    assert!(kubectl("scale deployment/cart -n shop --replicas 3", "").await.succeeded);
}

#[tokio::test]
async fn a_waiver_that_would_waive_nothing_is_refused_with_what_to_write() {
    let (plane, _gate) = plane_and_gate().await;
    let kubectl = async |input: &str| plane.kubectl(["apply", "-f", "-"], input).await;

    // What the definition itself refuses never reaches the gate.
    let nobodys = kubectl(&waiver("nobodys", "2026-01-01").replace("owner: payments, ", "")).await;
    assert!(!nobodys.succeeded && nobodys.stderr.contains("spec.owner: Required value"), "{nobodys:?}");
    let endless = kubectl(&waiver("endless", "never")).await;
    assert!(!endless.succeeded && endless.stderr.contains("spec.expires: Invalid value"), "{endless:?}");

    let far = kubectl(&waiver("far", "2099-12-31")).await;
    Scene::denied(&far, "CL006");
    assert!(far.stderr.contains("may reach 30 days") && far.stderr.contains("or an earlier day"), "{far:?}");
    let past = kubectl(&waiver("past", "2020-01-01")).await;
    Scene::denied(&past, "CL006");
    assert!(past.stderr.contains("has run out: it held until 2020-01-01"), "{past:?}");
    let unknown = kubectl(&waiver("unknown", "2099-12-31").replace("NP001", "no-such-rule")).await;
    Scene::denied(&unknown, "CL006");
    assert!(unknown.stderr.contains("these can: `missing-default-deny`"), "{unknown:?}");
}

#[tokio::test]
async fn a_waiver_with_a_misspelt_match_is_refused_and_does_not_come_to_be_about_everything() {
    let (plane, _gate) = plane_and_gate().await;
    // As clients other than `kubectl` send it, which ask for a warning at most.
    let misspelt = waiver("misspelt", Timestamp::now() + Duration::from_hours(24))
        .replace("match: {}", "match: {workload: [Deployment/cart]}");
    let said = plane.kubectl(["apply", "--validate=ignore", "-f", "-"], &misspelt).await;
    assert!(!said.succeeded && said.stderr.contains("workload"), "{said:?}");
}
