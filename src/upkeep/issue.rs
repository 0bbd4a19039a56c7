//! Certificates, made: an authority of the gate's own, and the server's certificate of it.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::Utf8StringRef;
use x509_cert::der::oid::db::rfc4519::CN;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::RelativeDistinguishedName;
use x509_cert::time::Time;

/// What the names of all authorities of gates begin with: by it one knows them in a `caBundle`.
const AUTHORITY: &str = "portcullis authority ";

/// How much before its issue a certificate is valid, at most: clocks differ.
const BACKDATED: Duration = Duration::from_hours(1);

/// A certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Without the key.
impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The common name of its subject.
    pub(crate) name: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// Its DNS names.
    pub(crate) dns: Vec<String>,
}

impl Facts {
    /// Of the first certificate in this PEM; nothing where there is none that parses.
    pub(crate) fn of(pem: &str) -> Option<Self> {
        Self::of_der(&CertificateDer::from_pem_slice(pem.as_bytes()).ok()?)
    }

    pub(crate) fn of_der(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let certificate = certificate.tbs_certificate();
        let mut subject = certificate.subject().as_ref().iter().flat_map(RelativeDistinguishedName::iter);
        let name = subject.find(|part| part.oid == CN);
        let name = name.and_then(|part| part.value.decode_as::<Utf8StringRef<'_>>().ok());
        let names = certificate.get_extension::<SubjectAltName>().ok().flatten();
        let dns = names.map(|(_, names)| names.0).unwrap_or_default().into_iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
            _ => None,
        });
        let moment = |time: Time| Timestamp::from_second(i64::try_from(time.to_unix_duration().as_secs()).ok()?).ok();
        Some(Self {
            name: name.map(|name| name.as_str().to_owned()).unwrap_or_default(),
            not_before: moment(certificate.validity().not_before)?,
            not_after: moment(certificate.validity().not_after)?,
            dns: dns.collect(),
        })
    }

    /// Whether it is an authority a gate made.
    pub(super) fn is_our_authority(&self) -> bool {
        self.name.starts_with(AUTHORITY)
    }

    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.not_after
    }

    /// Whether two thirds of its life are over. It goes by what the certificate says and not by what
    /// a replica was told about lifetimes, so that replicas told differently do not contend.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let life = self.not_after.duration_since(self.not_before);
        now.duration_since(self.not_before).as_secs() * 3 >= life.as_secs() * 2
    }
}

/// A new authority, valid for so long.
pub(super) fn authority(now: Timestamp, life: Duration) -> Result<Issued, rcgen::Error> {
    let key = KeyPair::generate()?;
    // Names differ, so that whoever verifies never tries the key of another authority.
    let mut params = authority_params(&format!("{AUTHORITY}{}", mark(&key)))?;
    limit(&mut params, now, life, Timestamp::MAX);
    let certificate = params.self_signed(&key)?.pem();
    Ok(Issued { certificate, key: key.serialize_pem() })
}

/// A server's certificate for these names. It does not outlive its authority.
pub(super) fn leaf(
    authority: &Issued,
    names: &[String],
    now: Timestamp,
    life: Duration,
) -> Result<Issued, rcgen::Error> {
    let facts = Facts::of(&authority.certificate).ok_or(rcgen::Error::CouldNotParseCertificate)?;
    // What of the authority goes into its leaves: its name and its key's identifier. Both are made
    // the way they were made for itself.
    let signer = Issuer::new(authority_params(&facts.name)?, KeyPair::from_pem(&authority.key)?);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, "portcullis");
    limit(&mut params, now, life, facts.not_after);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &signer)?.pem();
    Ok(Issued { certificate, key: key.serialize_pem() })
}

/// A part of a public key, to tell its owner from others.
fn mark(key: &KeyPair) -> String {
    key.der_bytes().iter().skip(1).take(8).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn authority_params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Valid from a while before now to the end of a life, or to the latest there may be.
fn limit(params: &mut CertificateParams, now: Timestamp, life: Duration, latest: Timestamp) {
    let seconds = |moment: Timestamp| u64::try_from(moment.as_second()).unwrap_or_default();
    let moment = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = moment(seconds(now).saturating_sub(BACKDATED.min(life / 10).as_secs()));
    params.not_after = moment(seconds(now).saturating_add(life.as_secs()).min(seconds(latest)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn issued(life: Duration) -> (Facts, Facts) {
        let now = at("2026-11-21T08:00:00Z");
        let authority = authority(now, 365 * DAY).unwrap();
        let leaf = leaf(&authority, &["gate.ns.svc".to_owned()], now, life).unwrap();
        (Facts::of(&authority.certificate).unwrap(), Facts::of(&leaf.certificate).unwrap())
    }

    #[test]
    fn a_certificate_is_valid_from_before_its_issue_on() {
        let (authority, leaf) = issued(90 * DAY);
        assert_eq!((authority.not_before, leaf.not_before), (at("2026-11-21T07:00:00Z"), at("2026-11-21T07:00:00Z")));
        assert_eq!((authority.not_after, leaf.not_after), (at("2027-11-21T08:00:00Z"), at("2027-02-19T08:00:00Z")));
        assert!(authority.is_our_authority() && !leaf.is_our_authority());
        assert_eq!(leaf.dns, ["gate.ns.svc"]);
    }

    #[test]
    fn a_leaf_does_not_outlive_its_authority() {
        let (authority, leaf) = issued(900 * DAY);
        assert_eq!(leaf.not_after, authority.not_after);
    }

    #[test]
    fn a_certificate_is_due_after_two_thirds_of_its_life() {
        let (_, leaf) = issued(90 * DAY);
        assert!(!leaf.is_due(at("2027-01-20T07:00:00Z")));
        assert!(leaf.is_due(at("2027-01-20T08:00:00Z")) && !leaf.is_expired(at("2027-01-20T08:00:00Z")));
        assert!(!leaf.is_expired(at("2027-02-19T07:59:59Z")) && leaf.is_expired(at("2027-02-19T08:00:00Z")));
    }

    #[test]
    fn two_authorities_have_two_names() {
        let now = at("2026-11-21T08:00:00Z");
        let name = || Facts::of(&authority(now, DAY).unwrap().certificate).unwrap().name;
        assert_ne!(name(), name());
    }
}
