//! Who may connect: the optional check of a client's certificate.
//!
//! An API server shows one to a webhook when it is told to (`--admission-control-config-file`, the
//! kubeconfig of `ValidatingAdmissionWebhook`). Where it does, nobody else needs to get as far as a
//! request.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};
use tokio::time::MissedTickBehavior;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::{PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::CN;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::RelativeDistinguishedName;

use super::AllowedClients;
use super::reload::{Files, Look, Progress};

/// Verifies that a client has a certificate of the authority, and the right name. The authority may
/// be replaced while connections go on.
#[derive(Debug)]
pub(super) struct Clients {
    verifier: ArcSwap<Arc<dyn ClientCertVerifier>>,
    name: Option<String>,
}

/// A client with a certificate of the authority that is not the one who may connect.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is of {found}, and not of `{expected}`")]
struct SomeoneElse {
    found: String,
    expected: String,
}

impl ClientCertVerifier for Clients {
    /// None: an API server has one certificate for a webhook and shows it unasked for its issuer.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.load().verify_client_cert(end_entity, intermediates, now)?;
        let Some(expected) = &self.name else { return Ok(verified) };
        let found = names(end_entity);
        if found.contains(expected) {
            return Ok(verified);
        }
        let found = if found.is_empty() { "nobody".to_owned() } else { format!("`{}`", found.join("`, `")) };
        let error = OtherError(Arc::new(SomeoneElse { found, expected: expected.clone() }));
        Err(CertificateError::Other(error).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.load().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.load().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.load().supported_verify_schemes()
    }
}

/// What a certificate names its holder by: common names, which is what Kubernetes calls a user by,
/// and DNS names.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return Vec::new() };
    let certificate = certificate.tbs_certificate();
    let subject = certificate.subject().as_ref().iter().flat_map(RelativeDistinguishedName::iter);
    let common = subject.filter(|part| part.oid == CN).filter_map(|part| {
        let value = &part.value;
        let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
        utf8.or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned())).ok()
    });
    let mut names: Vec<String> = common.collect();
    if let Ok(Some((_, alternatives))) = certificate.get_extension::<SubjectAltName>() {
        names.extend(alternatives.0.into_iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
            _ => None,
        }));
    }
    names
}

fn verifier(authority: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        let certificate = certificate.map_err(|error| format!("the clients' authority is not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("the clients' authority cannot be used: {error}"))?;
    }
    if roots.is_empty() {
        return Err("the file of the clients' authority has no certificate in it".to_owned());
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    built.map_err(|error| format!("the clients' authority cannot be used: {error}"))
}

/// The authority's file, and the verifier made of it.
pub(super) struct FromFile {
    file: Files<1>,
    clients: Arc<Clients>,
}

impl FromFile {
    /// Reads the file for the first time: a server that cannot tell its clients does not start.
    pub(super) async fn read(allowed: AllowedClients) -> Result<Self, String> {
        let AllowedClients { authority, name } = allowed;
        let file = Files::read([authority]).await?;
        let [bytes] = &file.seen;
        let verifier = ArcSwap::from_pointee(verifier(bytes)?);
        Ok(Self { clients: Arc::new(Clients { verifier, name }), file })
    }

    pub(super) fn verifier(&self) -> Arc<Clients> {
        Arc::clone(&self.clients)
    }

    /// Compares the file for as long as it is awaited. What is refused leaves the last authority in
    /// force.
    pub(super) async fn follow(mut self, every: Duration) {
        let mut progress = Progress::default();
        let mut timer = tokio::time::interval(every);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            let look = self
                .file
                .look(|[bytes]| {
                    self.clients.verifier.store(Arc::new(verifier(bytes)?));
                    Ok(())
                })
                .await;
            match &look {
                Look::Taken => tracing::info!("authority of clients reloaded"),
                Look::Refused(error) => tracing::error!(error, "new authority of clients refused, the old one stays"),
                Look::Unread(error) if !progress.is_unread => {
                    tracing::error!(error, "authority of clients cannot be read, the old one stays");
                }
                Look::Same | Look::Unread(_) => {}
            }
            progress.after(&look);
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn a_client_is_called_by_its_common_name_and_its_dns_names() {
        let mut params = CertificateParams::new(vec!["api.example.com".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(names(certificate.der()), ["kube-apiserver", "api.example.com"]);
    }

    #[test]
    fn an_authority_without_a_certificate_is_refused() {
        assert!(verifier(b"").unwrap_err().contains("no certificate"));
    }
}
