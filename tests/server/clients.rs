//! The check of clients' certificates.

use std::path::PathBuf;
use std::sync::Arc;

use portcullis::server::{AllowedClients, Limits};
use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Client, Running, start};

type Clients = CertifiedIssuer<'static, KeyPair>;

/// An authority of clients.
fn authority(name: &str) -> Clients {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A client's certificate and key.
fn client(authority: &Clients, common_name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.der().clone(), PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap())
}

async fn guarded(clients: &Clients, name: Option<&str>) -> (Running, PathBuf) {
    guarded_within(Limits::default(), clients, name).await
}

async fn guarded_within(limits: Limits, clients: &Clients, name: Option<&str>) -> (Running, PathBuf) {
    let mut path = PathBuf::new();
    let server = start(|options| {
        options.limits = limits;
        let portcullis::server::CertificateSource::Files { chain, .. } = &options.certificate else { unreachable!() };
        path = chain.with_file_name("clients.crt");
        std::fs::write(&path, clients.pem()).unwrap();
        options.clients = Some(AllowedClients { authority: path.clone(), name: name.map(str::to_owned) });
    })
    .await;
    (server, path)
}

/// A connection whose client has this certificate.
async fn connect(
    server: &Running,
    identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(server.authority.roots());
    let config = match identity {
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let tcp = TcpStream::connect(server.addresses.webhook).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await
}

/// Whether a client with this certificate gets an answer.
async fn gets_in(server: &Running, identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>) -> bool {
    // By TLS 1.3 a client learns only with the first answer that it was turned away.
    let Ok(mut stream) = connect(server, identity).await else { return false };
    if stream.write_all(b"GET /nothing HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n").await.is_err() {
        return false;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer.starts_with(b"HTTP/1.1 404")
}

#[tokio::test]
async fn only_a_certificate_of_the_authority_gets_in() {
    let (own, other) = (authority("own"), authority("other"));
    let (server, _) = guarded(&own, None).await;
    assert!(gets_in(&server, Some(client(&own, "anybody"))).await);
    assert!(!gets_in(&server, Some(client(&other, "anybody"))).await);
    assert!(!gets_in(&server, None).await);
    assert!(server.metrics().contains(r#"portcullis_rejected_total{reason="handshake"} 2"#), "{}", server.metrics());
}

#[tokio::test]
async fn where_a_name_is_asked_for_another_one_does_not_get_in() {
    let own = authority("own");
    let (server, _) = guarded(&own, Some("kube-apiserver")).await;
    assert!(gets_in(&server, Some(client(&own, "kube-apiserver"))).await);
    assert!(!gets_in(&server, Some(client(&own, "kubelet"))).await);
}

#[tokio::test]
async fn the_authority_is_replaced_while_the_server_runs() {
    let (old, new) = (authority("old"), authority("new"));
    let (server, path) = guarded(&old, None).await;
    assert!(!gets_in(&server, Some(client(&new, "anybody"))).await);
    std::fs::write(path, new.pem()).unwrap();
    let begun = std::time::Instant::now();
    while !gets_in(&server, Some(client(&new, "anybody"))).await {
        assert!(begun.elapsed() < super::LONG, "the new authority is never taken");
    }
    assert!(!gets_in(&server, Some(client(&old, "anybody"))).await);
}

#[tokio::test]
async fn without_clients_nobody_is_asked_for_a_certificate() {
    let server = start(|_| {}).await;
    assert!(gets_in(&server, None).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_with_a_certificate_keep_their_places_among_others_of_their_address() {
    let clients = authority("clients");
    // One of four is the share of an address.
    let (server, _) = guarded_within(Limits { connections: 4, ..Limits::default() }, &clients, None).await;
    let mut api_server = Vec::new();
    for _ in 0..3 {
        let stream = connect(&server, Some(client(&clients, "kube-apiserver"))).await.unwrap();
        let mut client = Client::over(stream).await;
        client.review("before").await.unwrap();
        api_server.push(client);
    }
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(server.addresses.webhook).await.unwrap());
    }
    server.until_metric(r#"portcullis_rejected_total{reason="connections"} 4"#).await;
    for client in &mut api_server {
        client.review("after").await.expect("it stays");
    }
}
