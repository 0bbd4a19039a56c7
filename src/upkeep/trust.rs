//! Whether an API server would take the certificate that is served: its chain, its name, its time.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};

/// The certificates of a bundle; what is none is passed over, as the API server does.
pub(crate) fn certificates(bundle: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(bundle).filter_map(Result::ok).collect()
}

/// Verifies a chain by a bundle, or says for people why it does not hold. `name` is what the API
/// server calls the server.
pub(crate) fn verify(
    chain: &[CertificateDer<'_>],
    bundle: &[CertificateDer<'_>],
    name: &str,
    now: Timestamp,
) -> Result<(), String> {
    let Some((leaf, intermediates)) = chain.split_first() else { return Err("there is no certificate".to_owned()) };
    if bundle.is_empty() {
        return Err("the `caBundle` is empty".to_owned());
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(bundle.iter().cloned());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verifier = verifier.map_err(|error| format!("the `caBundle` cannot be used: {error}"))?;
    let server = ServerName::try_from(name).map_err(|_| format!("`{name}` is no name of a server"))?;
    let since = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
    match verifier.verify_server_cert(leaf, intermediates, &server, &[], UnixTime::since_unix_epoch(since)) {
        Ok(_) => Ok(()),
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            Err("no certificate in the `caBundle` is its issuer's".to_owned())
        }
        Err(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => Err(format!("it is not for `{name}`")),
        Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            Err("it, or its issuer's, has expired".to_owned())
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. })) => {
            Err("it is not valid yet".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::issue::{self, Issued};
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn now() -> Timestamp {
        "2026-11-21T08:00:00Z".parse().unwrap()
    }

    fn checked(leaf: &Issued, bundle: &[&Issued], name: &str, after: Duration) -> Result<(), String> {
        let bundle: String = bundle.iter().map(|it| it.certificate.as_str()).collect();
        let chain = certificates(leaf.certificate.as_bytes());
        let now = now() + jiff::SignedDuration::try_from(after).unwrap();
        verify(&chain, &certificates(bundle.as_bytes()), name, now)
    }

    #[test]
    fn a_leaf_holds_by_its_own_authority_for_its_name_and_its_time() {
        let (own, other) = (issue::authority(now(), 9 * HOUR).unwrap(), issue::authority(now(), 9 * HOUR).unwrap());
        let leaf = issue::leaf(&own, &["gate.ns.svc".to_owned()], now(), HOUR).unwrap();
        let at_once = Duration::ZERO;
        assert_eq!(checked(&leaf, &[&own], "gate.ns.svc", at_once), Ok(()));
        assert_eq!(checked(&leaf, &[&other, &own], "gate.ns.svc", at_once), Ok(()));
        let refused = |bundle: &[&Issued], name, after| checked(&leaf, bundle, name, after).unwrap_err();
        assert_eq!(refused(&[], "gate.ns.svc", at_once), "the `caBundle` is empty");
        assert_eq!(refused(&[&other], "gate.ns.svc", at_once), "no certificate in the `caBundle` is its issuer's");
        assert_eq!(refused(&[&own], "gate.other.svc", at_once), "it is not for `gate.other.svc`");
        assert_eq!(refused(&[&own], "gate.ns.svc", 2 * HOUR), "it, or its issuer's, has expired");
    }
}
