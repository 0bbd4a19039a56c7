//! What becomes of a release that guards the cluster when it is changed: the failure policy is `Fail`
//! and clients create without a pause, so that a single answer missed is a create refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::load::Load;
use crate::release::{Release, get, webhook};
use crate::support::{Certificate, ControlPlane};

/// The certificate that the gate is given in a Secret: yours, or cert-manager's.
fn given() -> Certificate {
    Certificate::named(vec!["portcullis.portcullis.svc".to_owned()])
}

/// What every entry of the webhook configuration trusts, as PEM.
async fn trusted(release: &Release) -> String {
    let entries = webhook(&release.plane).await.unwrap()["webhooks"].clone();
    let bundles = entries.as_array().unwrap().iter().map(|entry| entry["clientConfig"]["caBundle"].as_str().unwrap());
    let bundles: Vec<_> = bundles.map(|it| String::from_utf8(STANDARD.decode(it).unwrap()).unwrap()).collect();
    assert_eq!((bundles.len(), &bundles[0]), (2, &bundles[1]));
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
async fn goes_to_a_given_certificate_and_back(words: &[&str], over: &[&str]) {
    let mut release = Release::installed(ControlPlane::new().await).await;
    release.fails_closed().await;
    let own = own_authority(&release).await;
    let given = given();
    let load = Load::begin(&release.plane, "portcullis", 8).await;

    let bundle = STANDARD.encode(given.authority());
    let values =
        format!("certificates.mode=secret,certificates.secret.name=given,certificates.secret.caBundle={bundle}");
    release.upgrade(&[words, over, &["--set", &values]].concat()).await;
    // Those that stand must leave it so.
    release.replace(Some(&given)).await;
    let both = trusted(&release).await;
    assert!(holds(&both, &own) && holds(&both, &given.authority()), "{both}");
    release.upgrade(&[words, &["--set", &values]].concat()).await;
    assert_eq!(trusted(&release).await, given.authority(), "nothing of the gate's own is served any more");
    release.fails_closed().await;

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
async fn from_its_own_certificate_to_a_given_one_and_back_no_call_fails() {
    goes_to_a_given_certificate_and_back(&[], &["--force-conflicts"]).await;
}

/// As Helm 3 does.
#[tokio::test(flavor = "multi_thread")]
async fn nor_does_one_where_helm_merges_what_it_applies_by_itself() {
    goes_to_a_given_certificate_and_back(&["--server-side=false"], &[]).await;
}
