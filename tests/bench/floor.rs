//! The floor others are measured against: the least a webhook on the same crates can do. It parses
//! the review into the client library's types, and allows.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::routing::post;
use axum::{Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Whichever port is free.
pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Serves it until the parent ends.
pub(crate) fn serve(folder: &Path) -> Result {
    async fn validate(Json(review): Json<AdmissionReview<NetworkPolicy>>) -> Json<AdmissionReview<DynamicObject>> {
        let request: AdmissionRequest<NetworkPolicy> = review.try_into().expect("the review has a request");
        Json(AdmissionResponse::from(&request).into_review())
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let chain = CertificateDer::pem_file_iter(folder.join("tls.crt"))?.collect::<std::result::Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(folder.join("tls.key"))?;
        let mut settings = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let tls = TlsAcceptor::from(Arc::new(settings));
        let router = Router::new().route("/validate", post(validate));
        let listener = TcpListener::bind(ANY_PORT).await?;
        announce(listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (tls, service) = (tls.clone(), TowerToHyperService::new(router.clone()));
            tokio::spawn(async move {
                if let Ok(stream) = tls.accept(stream).await {
                    let io = TokioIo::new(stream);
                    // How a connection of the load ends does not matter.
                    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
                }
            });
        }
    })
}

/// The crypto both sides use.
pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Tells the parent where the server is, and ends with the parent.
pub(crate) fn announce(address: SocketAddr) {
    println!("{address}");
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_line(&mut String::new());
        std::process::exit(0);
    });
}

/// A certificate for `localhost` and its authority, in a folder of their own.
pub(crate) fn certificates() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("portcullis-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let mut authority = rcgen::CertificateParams::new(vec![])?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::CertifiedIssuer::self_signed(authority, rcgen::KeyPair::generate()?)?;
    let key = rcgen::KeyPair::generate()?;
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?
        .signed_by(&key, &issuer)?;
    std::fs::write(folder.join("ca.crt"), issuer.pem())?;
    std::fs::write(folder.join("tls.crt"), leaf.pem())?;
    std::fs::write(folder.join("tls.key"), key.serialize_pem())?;
    Ok(folder)
}
