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
    plane_and_gate_with("").await
}

/// The same with this configuration.
async fn plane_and_gate_with(config: &str) -> (ControlPlane, Gate) {
    let plane = ControlPlane::new().await;
    let gate = Gate::start(Setup { cluster: Knows::Live(plane.kubeconfig()), config, ..Setup::default() }).await;
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
async fn a_waiver_cannot_be_prolonged_for_ever() {
    let (plane, _gate) = plane_and_gate_with("waivers: {maxDays: {high: 1}, renewals: 1}").await;
    let kubectl = async |input: &str| plane.kubectl(["apply", "-f", "-"], input).await;
    let day = |time: Timestamp| time.to_string().split_once('T').unwrap().0.to_owned();
    let now = Timestamp::now();
    let tomorrow = now + Duration::from_hours(24);
    let granted = kubectl(&waiver("legacy", day(now))).await;
    assert!(granted.succeeded, "{granted:?}");

    // It was granted two days ago and prolonged once, so today is its last day.
    let created = now - Duration::from_hours(48);
    let written = format!("{created:.0}");
    plane
        .rewrite("/registry/portcullis.dev/waivers/shop/legacy", |stored| {
            stored["metadata"]["creationTimestamp"] = written.as_str().into();
        })
        .await;
    eventually("the API server has met the older Waiver", async || {
        let said = plane.kubectl(["get", "waiver", "legacy", "-n", "shop", "-o", "yaml"], "").await;
        said.stdout.contains(&written).then_some(())
    })
    .await;
    let prolonged = kubectl(&waiver("legacy", day(tomorrow))).await;
    Scene::denied(&prolonged, "CL006");
    let limit =
        format!("has been prolonged as often as it may be: 1 times 1 days since it was created on {}", day(created));
    assert!(prolonged.stderr.contains(&limit), "{prolonged:?}");
    assert!(prolonged.stderr.contains(&format!("write `{}` or an earlier day", day(now))), "{prolonged:?}");
    // Whoever decides anew may have as much.
    let anew = kubectl(&waiver("anew", day(tomorrow))).await;
    assert!(anew.succeeded, "{anew:?}");
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
