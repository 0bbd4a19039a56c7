//! Certificates: issued, agreed upon, renewed and lost, with nothing failing for it.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::Api;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Home, certificates, decoded};
use crate::load::{Balancer, Load};
use crate::support::{ControlPlane, Gate, eventually, own_address};

/// What a gate shows, verified by this bundle.
async fn shown(gate: &Gate, home: &Home<'_>, bundle: &str) -> Result<Vec<u8>, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(certificates(bundle));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(gate.webhook).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(format!("gate.{}.svc", home.name)).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())?;
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
}

fn elsewhere() -> SocketAddr {
    SocketAddr::new(own_address(), 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_agree() {
    let plane = ControlPlane::shared().await;
    let home = Home::new(plane, "agreed").await;
    home.register().await;
    let (a, b, c) =
        tokio::join!(home.begin_at(elsewhere(), &[]), home.begin_at(elsewhere(), &[]), home.begin_at(elsewhere(), &[]));
    let gates = [a, b, c];
    for gate in &gates {
        gate.is_ready().await;
    }
    let bundle = decoded(&home.entry().await["clientConfig"]["caBundle"]);
    assert_eq!(bundle, home.member("ca.crt").await);
    let served = CertificateDer::into_owned(certificates(&home.member("tls.crt").await).remove(0));
    for gate in &gates {
        assert_eq!(shown(gate, &home, &bundle).await.unwrap(), served.to_vec());
    }
    let written: usize = gates.iter().map(|gate| gate.logged("certificate written").len()).sum();
    assert_eq!(written, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_there_empty_or_spoiled_is_filled_and_keeps_what_else_is_in_it() {
    let plane = ControlPlane::shared().await;
    for (name, data) in [("filled", json!({})), ("refilled", json!({ "ca.key": "half", "tls.crt": "half" }))] {
        let home = Home::new(plane, name).await;
        let mut secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "gate-tls", "namespace": name, "labels": { "owner": "somebody" } },
            "stringData": data,
        });
        secret["stringData"]["note"] = "kept".into();
        plane.apply(&secret.to_string()).await;
        let gate = home.begin(&[]).await;
        gate.is_ready().await;
        shown(&gate, &home, &home.member("ca.crt").await).await.unwrap();
        assert_eq!(home.member("note").await, "kept");
        assert_eq!(home.get("secret", "gate-tls").await["metadata"]["labels"]["owner"], "somebody");
    }
}

/// Two replicas behind the Service, failing closed, with a load on them.
struct Busy<'a> {
    home: Home<'a>,
    gates: [Gate; 2],
    load: Load,
    _balancer: Balancer,
}

impl Busy<'static> {
    async fn new(name: &'static str, lives: &[&str]) -> Self {
        let plane = ControlPlane::shared().await;
        let home = Home::new(plane, name).await;
        home.register().await;
        let mut flags = vec!["--failure-policy", "fail"];
        flags.extend(lives);
        let (a, b) = tokio::join!(home.begin_at(elsewhere(), &flags), home.begin_at(elsewhere(), &flags));
        let gates = [a, b];
        let balancer = Balancer::new(home.address).await;
        for gate in &gates {
            gate.is_ready().await;
            balancer.add(gate);
        }
        home.until_it_fails_closed().await;
        // More clients than an API server keeps idle connections, so that it keeps making new ones.
        let load = Load::begin(plane, name, 32).await;
        Self { home, gates, load, _balancer: balancer }
    }
}

/// How much an API server may be behind with what it knows of registrations: less than what the gates
/// wait for, a twelfth of an authority's life.
const LATE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn renewing_leaf_and_authority_over_and_over_fails_no_call() {
    let Busy { home, mut gates, load, _balancer } =
        Busy::new("rotated", &["--ca-lifetime", "24s", "--certificate-lifetime", "9s"]).await;
    let begun = Instant::now();
    let (mut leaves, mut authorities, mut largest) = (BTreeSet::new(), BTreeSet::new(), 0);
    // The API server of the load hears of a change within milliseconds. Beside it, each handshake is
    // made as by one that hears of everything a second late.
    let mut bundles: VecDeque<(Instant, String)> = VecDeque::new();
    let registrations: Api<ValidatingWebhookConfiguration> = Api::all(home.plane.client().await);
    while begun.elapsed() < Duration::from_secs(80) {
        let registration = registrations.get(home.name).await.unwrap();
        let bundle = registration.webhooks.unwrap().remove(0).client_config.ca_bundle.unwrap().0;
        bundles.push_back((Instant::now(), String::from_utf8(bundle).unwrap()));
        while bundles.get(1).is_some_and(|(read, _)| read.elapsed() >= LATE) {
            bundles.pop_front();
        }
        for (_, bundle) in [&bundles[0], &bundles[bundles.len() - 1]] {
            largest = largest.max(certificates(bundle).len());
            authorities.extend(certificates(bundle).iter().map(|it| it.to_vec()));
            for gate in &gates {
                let shown = shown(gate, &home, bundle).await;
                leaves.insert(shown.unwrap_or_else(|why| panic!("{:?} after the start: {why}", begun.elapsed())));
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    load.end_without_failure().await;
    for gate in &mut gates {
        gate.assert_running();
        assert!(gate.reviews().await > 100.0, "the load did not reach this gate");
    }
    assert!(leaves.len() >= 8, "{} certificates were served", leaves.len());
    assert!(authorities.len() >= 4, "{} authorities took over", authorities.len());
    assert!((2..=3).contains(&largest), "{largest} authorities were trusted at a time");
    let trusted = certificates(&decoded(&home.entry().await["clientConfig"]["caBundle"])).len();
    assert!(trusted <= 3, "those that have expired go: {trusted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_deleted_or_spoiled_is_replaced_and_no_call_fails() {
    let Busy { home, mut gates, load, _balancer } = Busy::new("lost", &["--ca-lifetime", "36s"]).await;
    let has_new_keys = async |what: &str, old: &str| {
        eventually(format!("the authority of a {what} Secret is replaced"), async || {
            let new = home.member("ca.crt").await;
            (!new.is_empty() && new != old).then_some(())
        })
        .await;
        eventually("all gates show a certificate of the new authority", async || {
            let new = home.member("ca.crt").await;
            for gate in &gates {
                shown(gate, &home, &new).await.ok()?;
            }
            Some(())
        })
        .await;
    };
    let first = home.member("ca.crt").await;
    let words = ["delete", "secret", "gate-tls", "--namespace", home.name];
    assert!(home.plane.kubectl(words, "").await.succeeded);
    has_new_keys("deleted", &first).await;

    let second = home.member("ca.crt").await;
    let spoiled = r#"{"data":{"tls.key":"bm9uc2Vuc2U="}}"#;
    let words = ["patch", "secret", "gate-tls", "--namespace", home.name, "--patch", spoiled];
    assert!(home.plane.kubectl(words, "").await.succeeded);
    has_new_keys("spoiled", &second).await;
    let told: usize = gates.iter().map(|gate| gate.logged("the Secret of the certificate cannot be used").len()).sum();
    assert!(told > 0);

    load.end_without_failure().await;
    gates.iter_mut().for_each(Gate::assert_running);
}

/// A replica that serves, hears nothing for now, and whose Secret is gone; with its authority.
async fn frozen_without_secret(home: &Home<'_>) -> (Gate, String) {
    home.register().await;
    let gate = home.begin_at(elsewhere(), &[]).await;
    gate.is_ready().await;
    let authority = home.member("ca.crt").await;
    gate.signal("STOP");
    let words = ["delete", "secret", "gate-tls", "--namespace", home.name];
    assert!(home.plane.kubectl(words, "").await.succeeded);
    (gate, authority)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_secret_is_left_to_a_replica_that_knows_what_was_in_it() {
    let home = Home::new(ControlPlane::shared().await, "left").await;
    let (first, old) = frozen_without_secret(&home).await;
    let second = home.begin_at(elsewhere(), &[]).await;
    eventually("the second has found the Secret gone", async || {
        let (waits, writes) = ("a lost Secret is left to replicas that know what was in it", "certificate written");
        (second.logged(waits).len() + second.logged(writes).len() > 0).then_some(())
    })
    .await;
    first.signal("CONT");
    let restored = eventually("the Secret is there", async || {
        Some(home.member("ca.crt").await).filter(|authority| !authority.is_empty())
    })
    .await;
    assert_eq!(restored, old);
    second.is_ready().await;
    assert_eq!((first.logged("certificate written").len(), second.logged("certificate written").len()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_knows_the_lost_secret_what_is_still_served_stays_trusted() {
    let home = Home::new(ControlPlane::shared().await, "begun").await;
    let (first, old) = frozen_without_secret(&home).await;
    let second = home.begin_at(elsewhere(), &[]).await;
    second.is_ready().await;
    let new = home.member("ca.crt").await;
    assert_ne!(new, old);
    let bundle = decoded(&home.entry().await["clientConfig"]["caBundle"]);
    assert_eq!(certificates(&bundle), [certificates(&new), certificates(&old)].concat());
    shown(&second, &home, &bundle).await.unwrap();
    // The first goes over to what there is now, and keeps both trusted.
    first.signal("CONT");
    eventually("the first shows a certificate of the new authority", async || shown(&first, &home, &new).await.ok())
        .await;
    assert_eq!(decoded(&home.entry().await["clientConfig"]["caBundle"]), bundle);
}
