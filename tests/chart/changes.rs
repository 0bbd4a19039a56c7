//! What becomes of a release that guards the cluster when it is changed: the failure policy is `Fail`
//! and clients create without a pause, so that a single answer missed is a create refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::helm::{chart, helm};
use crate::load::Load;
use crate::release::{Release, get, on, webhook};
use crate::support::{Certificate, ControlPlane, Relay, eventually};

/// The certificate that the gate is given in a Secret: yours, or cert-manager's.
fn given() -> Certificate {
    Certificate::named(vec!["portcullis.portcullis.svc".to_owned()])
}

/// What every entry of the webhook configuration trusts, as PEM.
async fn trusted(release: &Release) -> String {
    let entries = webhook(&release.plane).await.unwrap()["webhooks"].clone();
    let bundles = entries.as_array().unwrap().iter().map(|entry| entry["clientConfig"]["caBundle"].as_str().unwrap());
    let bundles: Vec<_> = bundles.map(|it| String::from_utf8(STANDARD.decode(it).unwrap()).unwrap()).collect();
    assert!(bundles.len() == 3 && bundles.iter().all(|it| *it == bundles[0]), "{bundles:?}");
    bundles[0].clone()
}

/// The authority the gate has made for itself, as PEM.
async fn own_authority(release: &Release) -> String {
    let secret = get(&release.plane, "secret", "portcullis-tls").await;
    String::from_utf8(STANDARD.decode(secret["data"]["ca.crt"].as_str().unwrap()).unwrap()).unwrap()
}

/// Whether some PEM holds a certificate, in whatever form.
fn holds(bundle: &str, certificate: &str) -> bool {
    let joined = |pem: &str| pem.split_whitespace().collect::<String>();
    joined(bundle).contains(&joined(certificate))
}

/// With these words, and those where what the gate has set is in the way.
async fn goes_to_a_given_certificate_to_another_and_back(words: &[&str], over: &[&str]) {
    let mut release = Release::installed(ControlPlane::new().await).await;
    release.fails_closed().await;
    let own = own_authority(&release).await;
    let given = given();
    let load = Load::begin(&release.plane, "portcullis", 8).await;

    let values = |name: &str, given: &Certificate| {
        let bundle = STANDARD.encode(given.authority());
        format!("certificates.mode=secret,certificates.secret.name={name},certificates.secret.caBundle={bundle}")
    };
    release.upgrade(&[words, over, &["--set", &values("first", &given)]].concat()).await;
    // Those that stand must leave it so.
    release.replace(Some(&given)).await;
    let both = trusted(&release).await;
    assert!(holds(&both, &own) && holds(&both, &given.authority()), "{both}");
    release.upgrade(&[words, &["--set", &values("first", &given)]].concat()).await;
    assert_eq!(trusted(&release).await, given.authority(), "nothing of the gate's own is served any more");
    release.fails_closed().await;

    let (before, given) = (given, self::given());
    release.upgrade(&[words, &["--set", &values("second", &given)]].concat()).await;
    let both = trusted(&release).await;
    assert!(holds(&both, &before.authority()) && holds(&both, &given.authority()), "{both}");
    release.replace(Some(&given)).await;
    release.upgrade(&[words, &["--set", &values("second", &given)]].concat()).await;
    assert_eq!(trusted(&release).await, given.authority());

    release.upgrade(words).await;
    assert_eq!(trusted(&release).await, given.authority(), "the replicas that stand are trusted on");
    release.replace(None).await;
    let both = trusted(&release).await;
    assert!(holds(&both, &own) && holds(&both, &given.authority()), "{both}");
    release.upgrade(words).await;
    assert_eq!(trusted(&release).await, both);
    release.fails_closed().await;
    load.end_without_failure().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_its_own_certificate_to_a_given_one_to_another_and_back_no_call_fails() {
    goes_to_a_given_certificate_to_another_and_back(&[], &["--force-conflicts"]).await;
}

/// As Helm 3 does.
#[tokio::test(flavor = "multi_thread")]
async fn nor_does_one_where_helm_merges_what_it_applies_by_itself() {
    goes_to_a_given_certificate_to_another_and_back(&["--server-side=false"], &[]).await;
}

/// As much of cert-manager's definitions as the API server needs to take such objects.
const CERT_MANAGER: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: $plural.cert-manager.io}
spec:
  group: cert-manager.io
  scope: Namespaced
  names: {kind: $kind, listKind: $kindList, plural: $plural, singular: $singular}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

/// A control plane on which cert-manager is installed, and does nothing.
async fn with_cert_manager() -> ControlPlane {
    let plane = ControlPlane::new().await;
    for kind in ["Issuer", "Certificate"] {
        let singular = kind.to_lowercase();
        let plural = format!("{singular}s");
        plane
            .apply(&CERT_MANAGER.replace("$plural", &plural).replace("$kind", kind).replace("$singular", &singular))
            .await;
        eventually(format!("{plural} are served"), async || {
            let got = plane.kubectl(["get", &format!("{plural}.cert-manager.io")], "").await;
            got.succeeded.then_some(())
        })
        .await;
    }
    plane
}

/// Fills in the bundle of an annotated webhook configuration, as cert-manager's injector does.
async fn inject(release: &Release, authority: &str) {
    let registered = webhook(&release.plane).await.unwrap();
    assert_eq!(registered["metadata"]["annotations"]["cert-manager.io/inject-ca-from"], "portcullis/portcullis");
    let bundle = STANDARD.encode(authority);
    let patch = [0, 1, 2].map(|at| {
        serde_json::json!({ "op": "add", "path": format!("/webhooks/{at}/clientConfig/caBundle"), "value": bundle })
    });
    let patch = serde_json::json!(patch).to_string();
    let manager = "--field-manager=cert-manager-cainjector";
    let words = ["patch", "validatingwebhookconfiguration", "portcullis", "--type=json", manager, "-p", &patch];
    let patched = release.plane.kubectl(words, "").await;
    assert!(patched.succeeded, "{patched:?}");
}

/// The chart's README says how.
#[tokio::test(flavor = "multi_thread")]
async fn to_cert_manager_with_the_failure_policy_at_ignore_meanwhile_and_back_no_call_fails() {
    let mut release = Release::installed(with_cert_manager().await).await;
    release.fails_closed().await;
    let own = own_authority(&release).await;
    let given = given();
    let load = Load::begin(&release.plane, "portcullis", 8).await;

    release.upgrade(&["--set", "webhook.failurePolicy=Ignore"]).await;
    release.replace(None).await;
    release.has_failure_policy("Ignore").await;
    release.upgrade(&["--set", "webhook.failurePolicy=Ignore,certificates.mode=cert-manager"]).await;
    inject(&release, &given.authority()).await;
    release.replace(Some(&given)).await;
    release.upgrade(&["--set", "certificates.mode=cert-manager"]).await;
    release.replace(Some(&given)).await;
    release.fails_closed().await;
    assert_eq!(trusted(&release).await, given.authority());

    // The way back needs no such care: what cert-manager has filled in stays.
    release.upgrade(&[]).await;
    release.replace(None).await;
    let both = trusted(&release).await;
    assert!(holds(&both, &own) && holds(&both, &given.authority()), "{both}");
    release.fails_closed().await;
    load.end_without_failure().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn to_cert_manager_at_once_changes_are_refused_until_the_first_new_replica_is_ready() {
    let mut release = Release::installed(with_cert_manager().await).await;
    release.fails_closed().await;
    let given = given();
    release.upgrade(&["--set", "certificates.mode=cert-manager"]).await;
    inject(&release, &given.authority()).await;
    for gate in &release.gates {
        eventually("a replica that nobody trusts is not ready, and says why", async || {
            let (status, said) = gate.get("/readyz?verbose").await?;
            (status == 503 && said.contains("no certificate in the `caBundle` is its issuer's")).then_some(())
        })
        .await;
    }
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: default}, spec: {podSelector: {}, policyTypes: [Ingress]}}";
    let refused = release.plane.kubectl(["apply", "-f", "-"], policy).await;
    assert!(!refused.succeeded && refused.stderr.contains("failed calling webhook"), "{refused:?}");

    release.replace(Some(&given)).await;
    release.plane.apply(policy).await;
    release.fails_closed().await;
    assert_eq!(trusted(&release).await, given.authority(), "the gate leaves the bundle to cert-manager");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_fails_no_call_and_the_gate_fails_closed_again() {
    let mut release = Release::installed(ControlPlane::new().await).await;
    release.fails_closed().await;
    let load = Load::begin(&release.plane, "portcullis", 8).await;
    release.upgrade(&["--set", "mode=enforce"]).await;
    release.replace(None).await;
    let before = load.done();
    on(&release.plane, &["rollback", "portcullis", "1", "--namespace", "portcullis", "--force-conflicts"]).await;
    let configuration = get(&release.plane, "configmap", "portcullis").await["data"]["portcullis.yaml"].clone();
    assert!(configuration.as_str().unwrap().contains("mode: warn"), "{configuration}");
    release.replace(None).await;
    release.fails_closed().await;
    eventually("the load has gone on", async || (load.done() > before + 200).then_some(())).await;
    load.end_without_failure().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uninstall_takes_the_registration_away_before_anything_that_answers_for_it() {
    let release = Release::installed(ControlPlane::new().await).await;
    release.fails_closed().await;
    let relay = Relay::to(&release.plane).await;
    let kubeconfig = relay.kubeconfig().to_str().unwrap().to_owned();
    let words = ["uninstall", "portcullis", "--namespace", "portcullis", "--kubeconfig", &kubeconfig];
    let words = words.map(str::to_owned);
    let said = tokio::task::spawn_blocking(move || helm(words)).await.unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let deleted = relay.deleted();
    let at = |path: &str| {
        let found = deleted.iter().position(|it| it.ends_with(path));
        found.unwrap_or_else(|| panic!("{path} was not deleted: {deleted:#?}"))
    };
    let registration = at("/validatingwebhookconfigurations/portcullis");
    for path in [
        "/deployments/portcullis",
        "/services/portcullis",
        "/serviceaccounts/portcullis",
        "/clusterrolebindings/portcullis",
        "/networkpolicies/portcullis",
        "/configmaps/portcullis",
    ] {
        assert!(registration < at(path), "{deleted:#?}");
    }
}

/// A pod of a class without which nothing of a cluster runs.
fn critical(namespace: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: critical, namespace: {namespace}}}, spec: {{priorityClassName: system-cluster-critical, containers: [{{name: a, image: a}}]}}}}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_quota_must_name_the_priority_class_the_charts_lets_its_pods_in() {
    // Its controllers count what a quota leaves.
    let plane = ControlPlane::with_controllers().await;
    let refused = plane.kubectl(["apply", "-f", "-"], &critical("default")).await;
    let why = "insufficient quota to match these scopes";
    assert!(!refused.succeeded && refused.stderr.contains(why), "it is no such cluster: {refused:?}");
    let chart = chart();
    let install = ["install", "portcullis", chart.to_str().unwrap(), "--namespace=portcullis", "--create-namespace"];
    on(&plane, &install).await;
    eventually("the quota counts", async || {
        let quota = get(&plane, "resourcequota", "portcullis-critical-pods").await;
        quota["status"]["hard"]["pods"].is_string().then_some(())
    })
    .await;
    eventually("the Deployment's pods are there", async || {
        let quota = get(&plane, "resourcequota", "portcullis-critical-pods").await;
        (quota["status"]["used"]["pods"] == "2").then_some(())
    })
    .await;
    plane.apply(&critical("portcullis")).await;
    let quota = get(&plane, "resourcequota", "portcullis-critical-pods").await;
    assert_eq!(quota["status"]["used"]["pods"], "3", "{quota}");
}
