//! Makes development certificates: an authority, a server certificate and their keys, in the
//! folder given (this one, if none is).
//!
//! ```text
//! cargo run --example dev-certs -- certs-dev
//! ```

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// What the server is called by: from this machine, and from an API server in a cluster.
const NAMES: [&str; 6] = [
    "localhost",
    "127.0.0.1",
    "::1",
    "portcullis.portcullis.svc",
    "portcullis.portcullis.svc.cluster.local",
    "host.docker.internal",
];

/// Long enough for an experiment, too short to be kept for anything else.
const LIFE: Duration = Duration::from_hours(90 * 24);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("certs-dev"), PathBuf::from);
    fs::create_dir_all(&folder)?;

    let ca_key = KeyPair::generate()?;
    let mut ca = params(vec![], "Portcullis development authority")?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_certificate = ca.self_signed(&ca_key)?;

    let key = KeyPair::generate()?;
    let mut server = params(NAMES.map(str::to_owned).to_vec(), "portcullis")?;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    write(&folder.join("ca.key"), &ca_key.serialize_pem(), 0o600)?;
    let issuer = Issuer::new(ca, ca_key);
    let certificate = server.signed_by(&key, &issuer)?;

    write(&folder.join("ca.crt"), &ca_certificate.pem(), 0o644)?;
    write(&folder.join("tls.key"), &key.serialize_pem(), 0o600)?;
    write(&folder.join("tls.crt"), &certificate.pem(), 0o644)?;
    writeln!(io::stdout(), "{}: ca.crt ca.key tls.crt tls.key, good for 90 days", folder.display())?;
    Ok(())
}

fn params(names: Vec<String>, common_name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = SystemTime::now();
    // Clocks of containers may be a little behind.
    params.not_before = (now - Duration::from_hours(1)).into();
    params.not_after = (now + LIFE).into();
    Ok(params)
}

/// Writes a file that has these permissions from its first byte on.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(text.as_bytes())
}
