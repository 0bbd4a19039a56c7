//! The audit, read back through the API server.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::support::{BINARY, ControlPlane, Gate, Knows, Setup, eventually};

/// The definitions of reports of a group, as they are published.
fn definitions(group: &str) -> String {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/helm/build");
    let built = Command::new(script).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let helm = PathBuf::from(String::from_utf8(built.stdout).unwrap().trim_end());
    let files = std::fs::read_dir(helm.with_file_name(group)).unwrap().map(|file| file.unwrap().path());
    let read: Vec<_> = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert_eq!(read.len(), 2, "one for namespaces, one for the cluster");
    read.join("\n---\n")
}

fn openreports() -> String {
    definitions("openreports")
}

const OPEN: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: portcullis}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: cart, namespace: shop}, spec: {selector: {matchLabels: {app: cart}}, template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: a, image: a}]}}}}
";

const CLOSED: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: default-deny, namespace: shop}, spec: {podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]}]}}";

async fn auditor(plane: &ControlPlane, identity: &str) -> Gate {
    let arguments = ["--audit", "--namespace", "portcullis", "--identity", identity];
    Gate::start(Setup { cluster: Knows::Live(plane.kubeconfig()), arguments: &arguments, ..Setup::default() }).await
}

async fn get(plane: &ControlPlane, words: &str) -> Option<Value> {
    let said = plane.kubectl(words.split_whitespace().chain(["-o", "json"]), "").await;
    said.succeeded.then(|| serde_json::from_str(&said.stdout).unwrap())
}

/// The report of a namespace, once it is there and `is_so`.
async fn report(plane: &ControlPlane, kind: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let words = format!("get {kind} portcullis -n shop");
    eventually(format!("the report is as it should be ({kind})"), async || get(plane, &words).await.filter(&is_so))
        .await
}

fn result<'a>(report: &'a Value, policy: &str) -> &'a Value {
    let results = report["results"].as_array().unwrap();
    results.iter().find(|it| it["policy"] == policy).unwrap_or_else(|| panic!("no {policy} in {report:#}"))
}

/// Waits until some audit has been told after this moment.
async fn audited_again(gate: &Gate) {
    let last = "portcullis_audit_duration_seconds_count";
    let before = gate.metric(last, "").await;
    eventually("another audit", async || (gate.metric(last, "").await > before).then_some(())).await;
}

#[tokio::test]
async fn a_namespace_has_one_report_that_is_written_when_what_it_says_changes() {
    let plane = ControlPlane::new().await;
    plane.apply(&openreports()).await;
    plane.apply(OPEN).await;
    let gate = auditor(&plane, "first").await;
    let kind = "reports.openreports.io";

    let open = report(&plane, kind, |_| true).await;
    let finding = result(&open, "missing-default-deny");
    assert_eq!(
        (&finding["result"], &finding["rule"], &finding["severity"]),
        (&"fail".into(), &"NP001".into(), &"high".into())
    );
    assert_eq!(finding["resources"][0]["kind"], "Deployment");
    assert!(finding["message"].as_str().unwrap().contains("`Deployment cart`"), "{finding}");
    assert_eq!(result(&open, "dns-blackhole")["result"], "pass");
    assert_eq!(
        (&open["summary"]["fail"], &open["scope"]["name"], &open["source"]),
        (&1.into(), &"shop".into(), &"portcullis".into())
    );
    assert!(
        gate.metric("portcullis_standing_findings", "action=\"deny\",rule=\"missing-default-deny\",severity=\"high\"")
            .await
            >= 1.0
    );

    // Something else changes, and the report stays as it is.
    plane.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop}}\n---\n{apiVersion: v1, kind: Service, metadata: {name: a, namespace: shop}, spec: {ports: [{port: 80}]}}").await;
    audited_again(&gate).await;
    let same = report(&plane, kind, |_| true).await;
    assert_eq!(same["metadata"]["resourceVersion"], open["metadata"]["resourceVersion"]);

    // What is mended is a pass, and an Event says so where a person looks.
    plane.apply(CLOSED).await;
    let closed = report(&plane, kind, |it| it["summary"]["fail"] == 0).await;
    assert_eq!(result(&closed, "missing-default-deny")["result"], "pass");
    let events = eventually("an Event of the mending", async || {
        let events = get(&plane, "get events.events.k8s.io -n shop").await?;
        events["items"].as_array()?.iter().find(|it| it["reason"] == "PolicyMended").cloned()
    })
    .await;
    assert_eq!(events["regarding"]["name"], "cart");

    // A new violation is told of once.
    let removed = plane.kubectl(["delete", "networkpolicy", "default-deny", "-n", "shop"], "").await;
    assert!(removed.succeeded);
    report(&plane, kind, |it| it["summary"]["fail"] == 1).await;
    eventually("an Event of the violation", async || {
        let events = get(&plane, "get events.events.k8s.io -n shop").await?;
        let told = events["items"].as_array()?.iter().filter(|it| it["reason"] == "PolicyViolation").count();
        assert!(told <= 1, "{events:#}");
        (told == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_the_garbage_collector_takes_and_opens_is_told_at_once() {
    let plane = ControlPlane::with_controllers().await;
    plane.apply(OPEN).await;
    plane.apply(CLOSED).await;
    let gate = auditor(&plane, "first").await;
    audited_again(&gate).await;
    // No registration asks this gate, as none is asked about the collector's deletions.
    let owner = r#"{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"nope","uid":"11111111-1111-1111-1111-111111111111"}]}}"#;
    let patch = format!("patch networkpolicy default-deny -n shop --type=merge --patch={owner}");
    let patched = plane.kubectl(patch.split_whitespace(), "").await;
    assert!(patched.succeeded, "{patched:?}");
    let event = eventually("an Event of the loss", async || {
        let events = get(&plane, "get events.events.k8s.io -n shop").await?;
        events["items"].as_array()?.iter().find(|it| it["reason"] == "ProtectionLost").cloned()
    })
    .await;
    assert_eq!((&event["regarding"]["kind"], &event["regarding"]["name"]), (&"Namespace".into(), &"shop".into()));
    let note = event["note"].as_str().unwrap();
    assert!(note.contains("it belonged to ConfigMap `nope`") && note.contains("`Deployment cart`"), "{note}");
    assert!(gate.metric("portcullis_protection_lost_total", "rule=\"missing-default-deny\"").await >= 1.0);
    eventually("the audit finds the open namespace", async || {
        let standing = "action=\"deny\",rule=\"missing-default-deny\",severity=\"high\"";
        (gate.metric("portcullis_standing_findings", standing).await >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn reports_are_of_the_older_kind_where_only_that_is_installed_and_move_to_the_newer() {
    let plane = ControlPlane::new().await;
    plane.apply(OPEN).await;
    let gate = auditor(&plane, "first").await;
    audited_again(&gate).await;
    // None is installed, and nothing fails for it.
    assert!(gate.metric("portcullis_audit_last_success_timestamp_seconds", "").await > 0.0);
    plane.apply(&definitions("wgpolicyk8s")).await;
    plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: more}}").await;
    let older = report(&plane, "policyreports.wgpolicyk8s.io", |_| true).await;
    assert_eq!(result(&older, "missing-default-deny")["result"], "fail");
    assert_eq!(result(&older, "missing-default-deny")["severity"], "high");
    assert!(older["summary"]["fail"].as_i64() > Some(0) && older["scope"]["name"] == "shop", "{older}");
    report(&plane, "clusterpolicyreports.wgpolicyk8s.io", |_| true).await;
    plane.apply(&openreports()).await;
    plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: again}}").await;
    report(&plane, "reports.openreports.io", |it| it["summary"]["fail"] == 1).await;
}

#[tokio::test]
async fn one_replica_audits_and_when_it_is_killed_another_takes_over_within_the_term() {
    let plane = ControlPlane::new().await;
    plane.apply(&openreports()).await;
    plane.apply(OPEN).await;
    let mut gates = Vec::new();
    for identity in ["first", "second", "third"] {
        gates.push((identity.to_owned(), auditor(&plane, identity).await));
    }
    let holder = async || {
        let lease = get(&plane, "get lease portcullis-audit -n portcullis").await?;
        lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
    };
    let first = eventually("a replica holds the lease", holder).await;
    let written = report(&plane, "reports.openreports.io", |_| true).await;
    let mut auditing = 0;
    for (_, gate) in &gates {
        auditing += i32::from(gate.metric("portcullis_reports_written_total", "").await > 0.0);
    }
    assert_eq!(auditing, 1, "one replica writes");

    let at = gates.iter().position(|(identity, _)| *identity == first).unwrap();
    // Dropped, it is killed: the Lease is not given up.
    drop(gates.remove(at));
    let begun = Instant::now();
    let second = eventually("another replica holds the lease", async || holder().await.filter(|it| *it != first)).await;
    assert!(begun.elapsed() < Duration::from_secs(15 + 3 + 5), "{:?}", begun.elapsed());
    let (_, gate) = gates.iter().find(|(identity, _)| *identity == second).unwrap();
    eventually("it audits", async || {
        (gate.metric("portcullis_audit_last_success_timestamp_seconds", "").await > 0.0).then_some(())
    })
    .await;
    // What it found is what was written already, and is not told again.
    let same = report(&plane, "reports.openreports.io", |_| true).await;
    assert_eq!(same["metadata"]["resourceVersion"], written["metadata"]["resourceVersion"]);
    let events = get(&plane, "get events.events.k8s.io -A").await.unwrap();
    let own =
        events["items"].as_array().unwrap().iter().filter(|it| it["reportingController"] == "portcullis.dev/audit");
    assert_eq!(own.count(), 0, "{events:#}");

    // One that is asked to end gives the Lease up, and nobody waits.
    let at = gates.iter().position(|(identity, _)| *identity == second).unwrap();
    let (_, gate) = gates.remove(at);
    gate.stop().await;
    let begun = Instant::now();
    eventually("the last replica holds the lease", async || holder().await.filter(|it| *it != second)).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_waiver_that_ends_soon_is_told_of_once_and_shows_in_the_report_until_it_ends() {
    let plane = ControlPlane::new().await;
    plane.apply(&openreports()).await;
    plane.apply(include_str!("../../../charts/portcullis/crds/waivers.portcullis.dev.yaml")).await;
    plane.apply(OPEN).await;
    let waiver = |ends: jiff::Timestamp| {
        format!(
            "{{apiVersion: portcullis.dev/v1alpha1, kind: Waiver, metadata: {{name: legacy, namespace: shop}}, spec: {{rules: [NP001], match: {{}}, owner: payments, reason: moves, expires: '{ends}'}}}}"
        )
    };
    eventually("Waivers are served", async || get(&plane, "get waivers -A").await).await;
    plane.apply(&waiver(jiff::Timestamp::now() + Duration::from_hours(5 * 24))).await;
    let gate = auditor(&plane, "first").await;

    let skipped = report(&plane, "reports.openreports.io", |it| it["summary"]["skip"] == 1).await;
    let finding = result(&skipped, "missing-default-deny");
    assert!(finding["properties"]["waived"].as_str().unwrap().contains("(owner payments): moves"), "{finding}");
    assert!(gate.metric("portcullis_waivers", "state=\"expires_within_7_days\"").await >= 1.0);
    assert!(gate.metric("portcullis_waivers", "state=\"expires_within_1_day\"").await < 1.0);
    let ends = async || {
        let events = get(&plane, "get events.events.k8s.io -n shop").await.unwrap();
        let own = events["items"].as_array().unwrap().iter().filter(|it| it["reason"] == "WaiverEnds");
        own.cloned().collect::<Vec<_>>()
    };
    let told = eventually("it is told of", async || ends().await.pop()).await;
    assert_eq!((&told["regarding"]["name"], &told["type"]), (&"legacy".into(), &"Warning".into()));
    assert!(
        told["note"].as_str().unwrap().contains("ends in less than 7 days")
            && told["note"].as_str().unwrap().contains("ask payments"),
        "{told}"
    );
    plane
        .apply("{apiVersion: v1, kind: Service, metadata: {name: a, namespace: shop}, spec: {ports: [{port: 80}]}}")
        .await;
    audited_again(&gate).await;
    assert_eq!(ends().await.len(), 1, "once for a stage");

    // The moment it runs out is an occasion of its own: nothing changes in the cluster.
    plane.apply(&waiver(jiff::Timestamp::now() + Duration::from_secs(12))).await;
    report(&plane, "reports.openreports.io", |it| it["summary"]["fail"] == 1 && it["summary"]["skip"] == 0).await;
    assert!(gate.metric("portcullis_waivers", "state=\"expired\"").await >= 1.0);
}

#[tokio::test]
async fn each_stage_of_a_waivers_end_is_told_of_once_and_so_is_the_passage_to_the_next() {
    let plane = ControlPlane::new().await;
    plane.apply(include_str!("../../../charts/portcullis/crds/waivers.portcullis.dev.yaml")).await;
    plane.apply(OPEN).await;
    eventually("Waivers are served", async || get(&plane, "get waivers -A").await).await;
    let grant = async |name: &str, left: Duration| {
        let ends = jiff::Timestamp::now() + left;
        let waiver = json!({
            "apiVersion": "portcullis.dev/v1alpha1", "kind": "Waiver",
            "metadata": { "name": name, "namespace": "shop" },
            "spec": { "rules": ["NP001"], "match": {}, "owner": "payments", "reason": "moves", "expires": ends.to_string() },
        });
        plane.apply(&waiver.to_string()).await;
    };
    let day = Duration::from_hours(24);
    grant("far", 20 * day).await;
    grant("fortnight", 13 * day).await;
    grant("week", 6 * day).await;
    grant("day", day / 2).await;
    let arguments = ["--audit", "--namespace", "portcullis", "--identity", "first", "--audit-every", "2"];
    let gate =
        Gate::start(Setup { cluster: Knows::Live(plane.kubeconfig()), arguments: &arguments, ..Setup::default() })
            .await;
    // Which waivers were told of, and at which stages.
    let told = async || {
        let events = get(&plane, "get events.events.k8s.io -n shop").await.unwrap();
        let ends = events["items"].as_array().unwrap().iter().filter(|it| it["reason"] == "WaiverEnds");
        let stages = ends.map(|it| {
            let (_, stage) = it["note"].as_str().unwrap().split_once("ends in less than ").unwrap();
            format!("{} {}", it["regarding"]["name"].as_str().unwrap(), stage.split_once(',').unwrap().0)
        });
        let mut stages: Vec<_> = stages.collect();
        stages.sort();
        stages
    };
    let is_told = async |expected: &[&str]| {
        eventually(format!("this is told: {expected:?}"), async || (told().await == expected).then_some(())).await;
        audited_again(&gate).await;
        audited_again(&gate).await;
        assert_eq!(told().await, expected, "once for a stage");
    };
    let counts = async |expected: [i32; 4]| {
        let states = ["active", "expires_within_14_days", "expires_within_7_days", "expires_within_1_day"];
        for (state, count) in states.into_iter().zip(expected) {
            let counted = gate.metric("portcullis_waivers", &format!("state=\"{state}\"")).await;
            assert!((counted - f64::from(count)).abs() < 0.1, "{state}: {counted}");
        }
    };
    is_told(&["day 1 day", "fortnight 14 days", "week 7 days"]).await;
    counts([4, 3, 2, 1]).await;

    // One by the hand of its owner, the other by the passing of time.
    grant("fortnight", 5 * day).await;
    grant("far", 7 * day + Duration::from_secs(15)).await;
    eventually("the stage before is told", async || told().await.contains(&"far 14 days".to_owned()).then_some(()))
        .await;
    is_told(&["day 1 day", "far 14 days", "far 7 days", "fortnight 14 days", "fortnight 7 days", "week 7 days"]).await;
    counts([4, 4, 4, 1]).await;
}

#[tokio::test]
async fn ten_thousand_findings_flood_neither_reports_nor_events() {
    let plane = ControlPlane::new().await;
    plane.apply(&openreports()).await;
    plane.apply(OPEN).await;
    let gate = auditor(&plane, "first").await;
    report(&plane, "reports.openreports.io", |_| true).await;
    // Each of them a finding of its own: a policy that opens everything.
    let wide = |number: usize| {
        json!({
            "metadata": { "name": format!("wide-{number}") },
            "spec": {
                "podSelector": { "matchLabels": { "app": format!("a{number}") } },
                "policyTypes": ["Egress"],
                "egress": [{ "to": [{ "ipBlock": { "cidr": "0.0.0.0/0" } }] }],
            },
        })
    };
    let client = plane.client().await;
    for namespace in ["shop"].into_iter().map(str::to_owned).chain((1..50).map(|number| format!("shop-{number}"))) {
        plane.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}")).await;
        let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), &namespace);
        let all: Vec<_> = (0..if namespace == "shop" { 400 } else { 196 }).map(wide).collect();
        for some in all.chunks(64) {
            let created = some.iter().map(|policy| {
                let (policy, policies) = (serde_json::from_value(policy.clone()).unwrap(), policies.clone());
                async move { policies.create(&PostParams::default(), &policy).await.unwrap() }
            });
            futures::future::join_all(created).await;
        }
    }
    let many = report(&plane, "reports.openreports.io", |it| it["summary"]["warn"].as_i64() >= Some(400)).await;
    assert!(many["results"].as_array().unwrap().len() <= 260, "{}", many["results"].as_array().unwrap().len());
    assert!(many.to_string().len() < 1024 * 1024, "{}", many.to_string().len());
    let text = many.to_string();
    assert!(text.contains("more: `portcullis audit shop` lists them all"), "what is left out is counted");
    eventually("all of it is found", async || {
        let labels = "action=\"warn\",rule=\"wildcard-ip-block\",severity=\"medium\"";
        (gate.metric("portcullis_standing_findings", labels).await >= 10_000.0).then_some(())
    })
    .await;
    audited_again(&gate).await;
    let written = gate.metric("portcullis_events_total", "result=\"written\"").await;
    let dropped = gate.metric("portcullis_events_total", "result=\"dropped\"").await;
    assert!(written <= 60.0 && dropped > 9000.0, "{written} written, {dropped} dropped");
    assert!(gate.metric("portcullis_reports_written_total", "").await < 200.0);
}

#[tokio::test]
async fn the_audit_of_a_laptop_shows_how_each_namespace_stands_and_what_may_not_be_read() {
    let plane = ControlPlane::new().await;
    plane.apply(OPEN).await;
    plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: bare, labels: {portcullis.dev/mode: warn}}}").await;
    let run = async |kubeconfig: PathBuf, words: &'static [&'static str]| {
        let said = tokio::task::spawn_blocking(move || {
            Command::new(BINARY).arg("audit").arg("--kubeconfig").arg(kubeconfig).args(words).output().unwrap()
        })
        .await
        .unwrap();
        (said.status.code(), String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap())
    };
    let (code, out, err) = run(plane.kubeconfig().to_owned(), &[]).await;
    assert_eq!((code, err.as_str()), (Some(1), ""), "{out}");
    insta::assert_snapshot!("audit_of_a_laptop", out);
    let (code, out, _) = run(plane.kubeconfig().to_owned(), &["shop"]).await;
    assert_eq!(code, Some(1));
    assert!(out.contains("deny[NP001]") && out.contains("# fix for NP001"), "{out}");
    let (code, out, _) = run(plane.kubeconfig().to_owned(), &["--output", "json", "--fail-on", "never"]).await;
    assert_eq!(code, Some(0));
    let json: Value = serde_json::from_str(&out).unwrap();
    let shop = json["namespaces"].as_array().unwrap().iter().find(|it| it["namespace"] == "shop").unwrap();
    assert_eq!((&shop["ingress"]["state"], &shop["workloads"]), (&"open".into(), &1.into()));

    // One who may read namespaces and nothing else.
    plane
        .apply("{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: looks}, rules: [{apiGroups: [''], resources: [namespaces], verbs: [list, watch]}]}\n---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: looks}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: looks}, subjects: [{kind: User, name: reader}]}")
        .await;
    let (_, _, err) = run(plane.reader_kubeconfig(), &[]).await;
    assert!(err.contains("`networkpolicies.networking.k8s.io` may not be read"), "{err}");
    let (code, out, err) = run(plane.kubeconfig().to_owned(), &["shpo"]).await;
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("there is no namespace `shpo`, did you mean `shop`?"), "{err}");
}

/// Refuses Events in one namespace.
const NO_EVENTS: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-events}
spec:
  failurePolicy: Fail
  matchConstraints: {resourceRules: [{apiGroups: [events.k8s.io], apiVersions: [v1], operations: [CREATE], resources: [events]}]}
  validations: [{expression: 'object.metadata.namespace != \"aaa\"', message: no events here}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-events}
spec: {policyName: no-events, validationActions: [Deny]}
";

const AN_EVENT: &str = "{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: a, namespace: aaa}, eventTime: '2026-01-01T00:00:00.000000Z', action: A, reason: A, type: Normal, reportingController: a.b/c, reportingInstance: a, regarding: {kind: Pod, namespace: aaa, name: a}}";

#[tokio::test]
async fn what_one_namespace_refuses_keeps_nothing_from_the_others() {
    let plane = ControlPlane::new().await;
    plane.apply(&openreports()).await;
    plane.apply(OPEN).await;
    // Whoever may set a quota of their own, before all others in the order of names.
    plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: aaa}}\n---\n{apiVersion: v1, kind: ResourceQuota, metadata: {name: none, namespace: aaa}, spec: {hard: {count/reports.openreports.io: '0'}}}").await;
    let full = "{\"status\":{\"hard\":{\"count/reports.openreports.io\":\"0\"},\"used\":{\"count/reports.openreports.io\":\"0\"}}}";
    let words = ["patch", "resourcequota", "none", "-n", "aaa", "--subresource=status", "--type=merge", "-p", full];
    assert!(plane.kubectl(words, "").await.succeeded);
    plane.apply(NO_EVENTS).await;
    eventually("Events are refused", async || {
        let said = plane.kubectl(["create", "--dry-run=server", "-f", "-"], AN_EVENT).await;
        said.stderr.contains("no events here").then_some(())
    })
    .await;
    let arguments = ["--audit", "--namespace", "portcullis", "--identity", "first", "--audit-every", "3"];
    let gate =
        Gate::start(Setup { cluster: Knows::Live(plane.kubeconfig()), arguments: &arguments, ..Setup::default() })
            .await;
    report(&plane, "reports.openreports.io", |it| it["summary"]["fail"] == 1).await;
    assert!(get(&plane, "get reports.openreports.io portcullis -n aaa").await.is_none(), "the quota holds");

    // It is no failure, and is said once however many audits follow.
    audited_again(&gate).await;
    for namespace in ["aaa", "shop"] {
        let words = ["label", "namespace", namespace, "portcullis.dev/mode=audit"];
        assert!(plane.kubectl(words, "").await.succeeded);
    }
    eventually("an Event where they are taken", async || {
        let events = get(&plane, "get events.events.k8s.io -n shop").await?;
        events["items"].as_array()?.iter().find(|it| it["reason"] == "PolicyWarning").cloned()
    })
    .await;
    audited_again(&gate).await;
    assert!(gate.metric("portcullis_audit_last_success_timestamp_seconds", "").await > 0.0);
    assert!((gate.metric("portcullis_reports_refused", "").await - 1.0).abs() < 0.1);
    assert!(gate.metric("portcullis_events_total", "result=\"refused\"").await >= 1.0);
    let complaints = gate.logged("the API server refuses what the audit writes in a namespace");
    let told: Vec<_> = complaints.iter().map(|line| (&line["namespace"], &line["what"])).collect();
    assert_eq!(told, [(&"aaa".into(), &"report".into()), (&"aaa".into(), &"event".into())], "{complaints:#?}");
    assert_eq!(gate.logged("what the audit found cannot be told, and is tried again").len(), 0);

    assert!(plane.kubectl(["delete", "resourcequota", "none", "-n", "aaa"], "").await.succeeded);
    eventually("the report is there", async || get(&plane, "get reports.openreports.io portcullis -n aaa").await).await;
    eventually("nothing is missing", async || {
        (gate.metric("portcullis_reports_refused", "").await < 0.1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_found_of_a_namespace_itself_or_in_an_exempt_one_is_told_like_anything_else() {
    let plane = ControlPlane::new().await;
    plane.apply(&openreports()).await;
    plane.apply(OPEN).await;
    let gate = auditor(&plane, "first").await;
    report(&plane, "reports.openreports.io", |_| true).await;
    // What the first audit finds is told by no Event.
    eventually("the first audit is over", async || {
        (gate.metric("portcullis_audit_last_success_timestamp_seconds", "").await > 0.0).then_some(())
    })
    .await;
    for namespace in ["shop", "portcullis"] {
        let labelled = plane.kubectl(["label", "namespace", namespace, "portcullis.dev/mode=audit"], "").await;
        assert!(labelled.succeeded);
    }
    for namespace in ["shop", "portcullis"] {
        let report = eventually(format!("the report of {namespace} tells of its mode"), async || {
            let report = get(&plane, &format!("get reports.openreports.io portcullis -n {namespace}")).await?;
            (result(&report, "mode-loosened")["result"] == "warn").then_some(report)
        })
        .await;
        assert_eq!(result(&report, "mode-loosened")["resources"][0]["name"], namespace);
        eventually(format!("an Event of {namespace} tells of its mode"), async || {
            let events = get(&plane, &format!("get events.events.k8s.io -n {namespace}")).await?;
            let told = |it: &&Value| it["reason"] == "PolicyWarning" && it["regarding"]["kind"] == "Namespace";
            events["items"].as_array()?.iter().find(told).cloned()
        })
        .await;
    }
}

#[tokio::test]
async fn what_changed_while_nobody_audited_is_told_by_whoever_audits_next() {
    let plane = ControlPlane::new().await;
    plane.apply(&openreports()).await;
    plane.apply(OPEN).await;
    plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: bank}}").await;
    let events = async || {
        let events = get(&plane, "get events.events.k8s.io -A").await.unwrap();
        let own =
            events["items"].as_array().unwrap().iter().filter(|it| it["reportingController"] == "portcullis.dev/audit");
        let said = own.map(|it| format!("{} {}", it["reason"], it["regarding"]["name"]).replace('"', ""));
        let mut said: Vec<_> = said.collect();
        said.sort();
        said
    };
    let is_over = async |gate: &Gate| {
        eventually("the first audit is over", async || {
            (gate.metric("portcullis_audit_last_success_timestamp_seconds", "").await > 0.0).then_some(())
        })
        .await;
    };
    for identity in ["first", "second"] {
        let gate = auditor(&plane, identity).await;
        is_over(&gate).await;
        gate.stop().await;
        assert_eq!(events().await, [""; 0], "nothing has changed before {identity}");
    }

    plane.apply(CLOSED).await;
    let label = ["label", "namespace", "bank", "portcullis.dev/mode=audit"];
    assert!(plane.kubectl(label, "").await.succeeded);
    // Of what came new there is nothing to compare with.
    plane
        .apply("{apiVersion: v1, kind: Namespace, metadata: {name: late, labels: {portcullis.dev/mode: audit}}}")
        .await;
    let gate = auditor(&plane, "third").await;
    is_over(&gate).await;
    let told = ["PolicyMended cart", "PolicyWarning bank"];
    assert_eq!(events().await, told);
    gate.stop().await;

    let gate = auditor(&plane, "fourth").await;
    is_over(&gate).await;
    assert_eq!(events().await, told, "it is told once");
}

#[tokio::test]
async fn a_report_that_somebody_removed_is_back_at_the_next_audit() {
    let plane = ControlPlane::new().await;
    plane.apply(&openreports()).await;
    plane.apply(OPEN).await;
    let arguments = ["--audit", "--namespace", "portcullis", "--identity", "first", "--audit-every", "3"];
    let _gate =
        Gate::start(Setup { cluster: Knows::Live(plane.kubeconfig()), arguments: &arguments, ..Setup::default() })
            .await;
    let kind = "reports.openreports.io";
    let first = report(&plane, kind, |_| true).await;
    assert!(plane.kubectl(["delete", kind, "portcullis", "-n", "shop"], "").await.succeeded);
    report(&plane, kind, |it| it["metadata"]["uid"] != first["metadata"]["uid"]).await;
}
