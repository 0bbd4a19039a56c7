//! `portcullis webhook`: the registration of the gate with an API server.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use axum::http::Uri;
use axum::http::uri::Authority;
use clap::ValueEnum;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{Outcome, Said, pretty, settings};
use crate::admission::{self, Registration, Target};
use crate::report;

/// Prints the `ValidatingWebhookConfiguration` that registers the gate with an API server.
///
/// It asks for what the rules that are on need and nothing else: their kinds and operations, and of
/// these only changes that say something new. Pods that a controller of the cluster makes are not
/// sent, for the controller's template was; nor is anything in the gate's own namespace, in
/// kube-system, kube-public and kube-node-lease, and in namespaces the configuration exempts by
/// their whole name. So the cluster can start, and heal, while the gate is away.
///
/// Cluster DNS usually runs in kube-system: a policy there that cuts off the DNS pods, or one in the
/// gate's own namespace that cuts off the gate, is not seen unless `--guard` is given.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portcullis webhook --service portcullis/gate --ca-file ca.crt | kubectl apply -f -
  portcullis webhook --url https://gate.example.com:8443 --ca-file ca.crt --failure-policy ignore
  portcullis webhook --service portcullis/gate --config portcullis.yaml --guard")]
pub(super) struct Args {
    /// Where the API server reaches the gate; without a path, at `/validate`
    #[arg(long, value_name = "URL", value_parser = url, conflicts_with = "service", required_unless_present = "service")]
    url: Option<Target>,
    /// The Service the API server reaches the gate by; its port is 443 where none is given
    #[arg(long, value_name = "NAMESPACE/NAME[:PORT]", value_parser = service)]
    service: Option<Target>,
    /// The certificates that the gate's is verified by, as PEM; left out, to be filled in by
    /// something else, such as cert-manager
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The configuration of the gate; left out, its defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The namespace the gate runs in; left out, its Service's
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// What becomes of a change while the gate does not answer
    #[arg(long, value_name = "POLICY", default_value = "fail")]
    failure_policy: FailurePolicy,
    /// How many seconds the API server waits for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=30))]
    timeout_seconds: u8,
    /// Adds an entry for what could cut off cluster DNS or the gate in the namespaces of these, for
    /// their modes, and for the gate's own waivers and configuration; it never holds anything up
    /// there, whatever `--failure-policy` says
    #[arg(long, alias = "guard-dns")]
    guard: bool,
    /// What to call the registration
    #[arg(long, value_name = "NAME", default_value = "portcullis", value_parser = subdomain)]
    name: String,
    /// How to print it
    #[arg(long, short, value_name = "FORMAT", default_value = "yaml")]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailurePolicy {
    /// It is refused
    Fail,
    /// It is let through unjudged
    Ignore,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// With the reasons as comments
    Yaml,
    /// For programs
    Json,
}

pub(super) fn run(args: &Args, said: &mut Said) -> anyhow::Result<Outcome> {
    let rules = settings(args.config.as_deref())?.rule_set();
    let Some(target) = args.url.clone().or_else(|| args.service.clone()) else {
        bail!("either `--url` or `--service` says where the gate is");
    };
    let own_namespace = args.namespace.clone().or_else(|| match &target {
        Target::Service { namespace, .. } => Some(namespace.clone()),
        Target::Url(_) => None,
    });
    let options = admission::Options {
        name: args.name.clone(),
        target,
        ca: args.ca_file.as_deref().map(certificates).transpose()?,
        own_namespace,
        timeout: args.timeout_seconds,
        failure_policy: match args.failure_policy {
            FailurePolicy::Fail => admission::FailurePolicy::Fail,
            FailurePolicy::Ignore => admission::FailurePolicy::Ignore,
        },
        guard: args.guard,
    };
    let Some(registration) = Registration::of(&rules, &options) else {
        bail!("no rule is on that judges changes, so there is nothing to register");
    };
    if options.ca.is_none() {
        said.err.push_str(&report::note(
            "without `--ca-file` there is no `caBundle`: until something fills it in, the API server trusts the gate only by the certificates of its own host",
        ));
    }
    for note in &registration.notes {
        said.err.push_str(&report::note(note));
    }
    said.out = match args.output {
        Format::Yaml => registration.yaml(),
        Format::Json => pretty(&registration.object)?,
    };
    Ok(Outcome::Clean)
}

/// What the API server takes for a webhook's address: `https`, a host, no user, no query.
fn url(text: &str) -> Result<Target, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    if uri.scheme_str() != Some("https") {
        return Err("the API server calls webhooks by `https://` only".to_owned());
    }
    let authority = uri.authority().map(Authority::as_str).unwrap_or_default();
    if uri.host().unwrap_or_default().is_empty() || authority.contains('@') || authority.ends_with(':') {
        return Err("expected a host and perhaps a port after `https://`, and no user".to_owned());
    }
    if uri.query().is_some() || text.contains('#') {
        return Err("the API server takes no query and no fragment here".to_owned());
    }
    let path = if uri.path() == "/" { "/validate" } else { uri.path() };
    Ok(Target::Url(format!("https://{authority}{path}")))
}

fn service(text: &str) -> Result<Target, String> {
    let Some((namespace, name)) = text.split_once('/') else {
        return Err("expected `NAMESPACE/NAME` or `NAMESPACE/NAME:PORT`".to_owned());
    };
    let (name, port) = match name.split_once(':') {
        Some((name, port)) => (name, port.parse().ok().filter(|port| *port > 0)),
        None => (name, Some(443)),
    };
    let Some(port) = port else { return Err("a port is a number from 1 to 65535".to_owned()) };
    for part in [namespace, name] {
        if part.contains('.') || subdomain(part).is_err() {
            return Err(format!("`{part}` is not a name Kubernetes takes here"));
        }
    }
    Ok(Target::Service { namespace: namespace.to_owned(), name: name.to_owned(), port })
}

/// A name as most objects have them: RFC 1123, lower case.
fn subdomain(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err("a name is made of lower-case letters, digits, `-` and `.`".to_owned())
}

/// The certificates of a file, as they stand there. A key among them would be published.
fn certificates(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = path.display();
    let pem = fs::read(path).with_context(|| format!("`{name}` cannot be read"))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| anyhow::anyhow!("`{name}` is not PEM: {error}"))?;
    ensure!(!found.is_empty(), "`{name}` has no certificate in it");
    let has_key = String::from_utf8_lossy(&pem).contains("PRIVATE KEY-----");
    ensure!(!has_key, "`{name}` has a private key in it, which everybody could read in the registration");
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_the_api_server_takes() {
        for (text, expected) in [
            ("https://gate:8443", Some("https://gate:8443/validate")),
            ("https://gate/", Some("https://gate/validate")),
            ("https://[::1]:8443/v2", Some("https://[::1]:8443/v2")),
            ("http://gate", None),
            ("gate:8443", None),
            ("https://", None),
            ("https://ada@gate", None),
            ("https://gate:", None),
            ("https://gate?x=1", None),
            ("https://gate/#x", None),
        ] {
            assert_eq!(url(text).ok(), expected.map(|url| Target::Url(url.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_service_has_a_namespace_a_name_and_a_port() {
        let of = |namespace: &str, name: &str, port| {
            Some(Target::Service { namespace: namespace.into(), name: name.into(), port })
        };
        for (text, expected) in [
            ("a/b", of("a", "b", 443)),
            ("a/b:8443", of("a", "b", 8443)),
            ("b", None),
            ("a/", None),
            ("/b", None),
            ("a/b:0", None),
            ("a/b:70000", None),
            ("a/b:", None),
            ("a/B", None),
            ("a/b/c", None),
            ("a/b.c", None),
        ] {
            assert_eq!(service(text).ok(), expected, "{text}");
        }
    }
}
