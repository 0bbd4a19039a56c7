//! The certificate the gate serves, seen by asking it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Known;

/// How long the gate may take to answer.
const TIME: Duration = Duration::from_secs(3);

/// What the gate serves.
#[derive(Clone, Debug)]
pub struct Served {
    /// Where it was asked.
    pub address: SocketAddr,
    /// What the API server calls it: `gate.guard.svc`.
    pub name: String,
    /// Its certificate and what comes with it.
    pub chain: Vec<CertificateDer<'static>>,
}

/// Asks at this address for what is served under this name.
pub(super) async fn served(address: SocketAddr, name: &str) -> Known<Served> {
    let server = ServerName::try_from(name.to_owned()).map_err(|_| format!("`{name}` is no name of a server"))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let seen = Arc::new(Witness { chain: Mutex::default(), algorithms: provider.signature_verification_algorithms });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(seen.clone())
        .with_no_client_auth();
    let connecting = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        // One that asks for a certificate of the client ends the handshake after it has shown its own.
        let _ = TlsConnector::from(Arc::new(config)).connect(server, stream).await;
        Ok::<_, String>(())
    };
    timeout(TIME, connecting).await.map_err(|_| format!("{address} does not answer"))??;
    let chain = std::mem::take(&mut *seen.chain.lock().unwrap_or_else(PoisonError::into_inner));
    if chain.is_empty() {
        return Err(format!("{address} shows no certificate"));
    }
    Ok(Served { address, name: name.to_owned(), chain })
}

/// Takes note of a certificate and judges nothing: whether it is trusted is told afterwards, and
/// nothing is sent over the connection.
#[derive(Debug)]
struct Witness {
    chain: Mutex<Vec<CertificateDer<'static>>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(leaf).chain(intermediates).map(|it| it.clone().into_owned()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
