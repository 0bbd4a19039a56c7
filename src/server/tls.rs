//! The server's certificate: from files or from whoever issues it, replaced while connections go on.
//!
//! A new pair is looked at as a whole before it is served: the key must fit the certificate. What
//! does not fit, as while only one of the two files has been written, leaves the old pair in
//! service. A replaced pair is used from the next handshake on; open connections keep theirs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio::sync::watch;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::clients::Clients;
use super::reload::{Files, Look, Progress};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Expiring;

/// What ALPN calls HTTP/2.
pub(super) const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// A chain and the key of its first certificate, ready to serve.
#[derive(Debug)]
pub struct Pair {
    key: Arc<CertifiedKey>,
    /// When the first certificate expires, in seconds since 1970; nothing where that part of it
    /// does not parse, which TLS itself does not mind.
    pub not_after: Option<Duration>,
}

impl Pair {
    /// Reads a chain and a key that are PEM, or says for people why they cannot be served.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("the certificate is not PEM: {error}"))?;
        let Some(leaf) = chain.first() else {
            return Err("the certificate file has no certificate in it".to_owned());
        };
        let not_after =
            Certificate::from_der(leaf).ok().map(|leaf| leaf.tbs_certificate().validity().not_after.to_unix_duration());
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key is not PEM: {error}"))?;
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".to_owned(),
            error => format!("the pair cannot be used: {error}"),
        })?;
        Ok(Self { key: Arc::new(key), not_after })
    }

    /// The certificates that a client is shown, the server's own first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }
}

/// The pair in service: whoever holds it may look at it, and put another in its place, which the
/// next handshake uses. Empty, every handshake fails.
#[derive(Clone, Debug)]
pub struct InService(watch::Sender<Option<Arc<Pair>>>);

impl Default for InService {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl InService {
    /// Serves this pair from the next handshake on.
    pub fn put(&self, pair: Pair) {
        self.0.send_replace(Some(Arc::new(pair)));
    }

    /// What is served.
    pub fn current(&self) -> Option<Arc<Pair>> {
        self.0.borrow().clone()
    }

    /// The pair from now on, whenever another one takes its place.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<Pair>>> {
        self.0.subscribe()
    }
}

impl ResolvesServerCert for InService {
    /// The one pair there is, whatever name the client asks for: the API server verifies the name.
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().as_ref().map(|pair| Arc::clone(&pair.key))
    }
}

/// The settings of every connection.
pub(super) fn settings(
    in_service: InService,
    clients: Option<Arc<Clients>>,
) -> Result<rustls::ServerConfig, rustls::Error> {
    let settings = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?;
    let settings = match clients {
        Some(clients) => settings.with_client_cert_verifier(clients),
        None => settings.with_no_client_auth(),
    };
    let mut settings = settings.with_cert_resolver(Arc::new(in_service));
    settings.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    Ok(settings)
}

/// A pair that comes from files.
pub(super) struct FromFiles {
    files: Files<2>,
    in_service: InService,
}

impl FromFiles {
    /// Serves the pair in the files; a server without a good one does not start.
    pub(super) async fn read(paths: [PathBuf; 2], in_service: InService) -> Result<Self, String> {
        let files = Files::read(paths).await?;
        let [chain, key] = &files.seen;
        in_service.put(Pair::parse(chain, key)?);
        Ok(Self { files, in_service })
    }

    /// Compares the files for as long as it is awaited, and serves a new pair from the next
    /// handshake on.
    pub(super) async fn follow(mut self, every: Duration, metrics: Metrics) {
        let mut progress = Progress::default();
        let mut timer = tokio::time::interval(every);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        metrics.certificate_current(true);
        loop {
            timer.tick().await;
            let look = self
                .files
                .look(|[chain, key]| {
                    self.in_service.put(Pair::parse(chain, key)?);
                    Ok(())
                })
                .await;
            match &look {
                Look::Taken => {
                    metrics.certificate_reloaded(true);
                    tracing::info!("certificate reloaded");
                }
                Look::Refused(error) => {
                    metrics.certificate_reloaded(false);
                    tracing::error!(error, "new certificate refused, the old one stays");
                }
                Look::Unread(error) if !progress.is_unread => {
                    tracing::error!(error, "certificate cannot be read, the old one stays");
                }
                Look::Same | Look::Unread(_) => {}
            }
            metrics.certificate_current(progress.after(&look));
        }
    }
}

/// Tells when the served certificate expires, for as long as it is awaited.
pub(super) async fn watch_expiry(in_service: InService, metrics: Metrics) {
    let mut served = in_service.follow();
    loop {
        if let Some(pair) = &*served.borrow_and_update() {
            report_not_after(pair.not_after, &metrics);
        }
        if served.changed().await.is_err() {
            return;
        }
    }
}

fn report_not_after(not_after: Option<Duration>, metrics: &Metrics) {
    if let Some(not_after) = not_after {
        metrics.certificate_not_after(Expiring::Leaf, not_after);
    } else {
        tracing::warn!("the certificate's expiry cannot be read, so it is not watched");
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, Issuer, KeyPair};

    use super::*;

    /// A chain of leaf and issuer, and the leaf's key, as PEM.
    fn pair() -> (String, String) {
        let ca_key = KeyPair::generate().unwrap();
        let ca_params = CertificateParams::new(vec![]).unwrap();
        let ca = ca_params.self_signed(&ca_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2041, 5, 6);
        let leaf = params.signed_by(&key, &Issuer::new(ca_params, ca_key)).unwrap();
        (leaf.pem() + &ca.pem(), key.serialize_pem())
    }

    fn refusal(chain: &str, key: &str) -> String {
        Pair::parse(chain.as_bytes(), key.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_chain_is_served_whole_and_its_expiry_is_the_first_certificates() {
        let (chain, key) = pair();
        let pair = Pair::parse(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(pair.key.cert.len(), 2);
        assert_eq!(pair.not_after, Some(Duration::from_hours(625_392)), "2041-05-06");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ((chain, _), (_, key)) = (pair(), pair());
        assert_eq!(refusal(&chain, &key), "the key is not the certificate's");
    }

    #[test]
    fn half_a_file_is_refused() {
        let (chain, key) = pair();
        let cut = chain.len() / 4;
        assert!(refusal(&chain[..cut], &key).starts_with("the certificate"));
        assert!(refusal(&chain, &key[..key.len() / 2]).starts_with("the key is not PEM"));
        assert_eq!(refusal("", &key), "the certificate file has no certificate in it");
    }

    #[test]
    fn two_files_in_each_others_place_are_refused() {
        let (chain, key) = pair();
        assert_eq!(refusal(&key, &chain), "the certificate file has no certificate in it");
    }
}
