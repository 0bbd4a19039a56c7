//! The flags of `portcullis serve` for keeping up its own certificate and registration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use jiff::SignedDuration;
use kube::Client;
use tokio::sync::watch;

use crate::rules::RuleSet;
use crate::server::{AllowedClients, CertificateSource, InService};
use crate::source;
use crate::telemetry::Telemetry;
use crate::upkeep::{FailurePolicy, Keeper, OwnCertificate, Settings};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Certificate and registration")]
#[group(id = "upkeep")]
pub(super) struct Args {
    /// The certificate with its chain, PEM, where something else issues it
    #[arg(
        long,
        value_name = "FILE",
        env = "PORTCULLIS_TLS_CERT",
        requires = "tls_key",
        required_unless_present = "certificate_secret",
        conflicts_with = "certificate_secret"
    )]
    tls_cert: Option<PathBuf>,
    /// The certificate's key, PEM
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Instead of the two: the Secret of `--namespace` in which the gate keeps an authority and a
    /// certificate of its own, issued and renewed by whichever replica comes first
    #[arg(long, value_name = "NAME", requires_all = ["namespace", "service"])]
    certificate_secret: Option<String>,
    /// The namespace the gate runs in
    #[arg(long, value_name = "NAMESPACE", env = "PORTCULLIS_NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// The Service of that namespace by which the API server calls the gate
    #[arg(long, value_name = "NAME", requires = "namespace")]
    service: Option<String>,
    /// The ValidatingWebhookConfiguration that registers the gate: its `caBundle` is kept up, and the
    /// gate is not ready while it does not trust what is served
    #[arg(long, value_name = "NAME")]
    webhook: Option<String>,
    /// It has the entry that `portcullis webhook --guard` adds: that this is missing is then told, as is
    /// whatever else the registration leaves out
    #[arg(long, requires = "webhook")]
    guard: bool,
    /// What its `failurePolicy` becomes once a dry run of a known violation through the API server
    /// came back denied; left out, it is never touched
    #[arg(long, value_name = "POLICY", requires = "webhook")]
    failure_policy: Option<Policy>,
    /// The namespace that dry run is sent to; the webhook must not leave it out
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    probe_namespace: String,
    /// How long an own certificate is good: `2160h`; it is renewed at two thirds of that
    #[arg(long, value_name = "DURATION", default_value = "2160h", value_parser = life)]
    certificate_lifetime: Duration,
    /// How long its authority is good
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = life)]
    ca_lifetime: Duration,
    /// Turns away clients without a certificate of this authority, PEM; off unless given
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// The common name or DNS name a client's certificate must have
    #[arg(long, value_name = "NAME", requires = "client_ca")]
    client_name: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Policy {
    /// What the gate does not answer is refused
    Fail,
    /// It is let through unjudged
    Ignore,
}

/// Long enough for a few looks before it is due.
fn life(text: &str) -> Result<Duration, String> {
    let life: SignedDuration = text.parse().map_err(|_| "expected a duration, such as `2160h`".to_owned())?;
    let life = Duration::try_from(life).map_err(|_| "a life is not negative".to_owned())?;
    if life < Duration::from_secs(3) { Err("too short to be renewed in time".to_owned()) } else { Ok(life) }
}

impl Args {
    pub(super) fn source(&self) -> CertificateSource {
        match (&self.tls_cert, &self.tls_key) {
            (Some(chain), Some(key)) => CertificateSource::Files { chain: chain.clone(), key: key.clone() },
            _ => CertificateSource::InService,
        }
    }

    pub(super) fn clients(&self) -> Option<AllowedClients> {
        let authority = self.client_ca.clone()?;
        Some(AllowedClients { authority, name: self.client_name.clone() })
    }

    /// What keeps certificate and registration up, if anything is to be.
    pub(super) async fn keeper(
        &self,
        kubeconfig: Option<&Path>,
        context: Option<&str>,
        every: Duration,
        in_service: InService,
        rules: watch::Receiver<Arc<RuleSet>>,
        telemetry: &Telemetry,
    ) -> anyhow::Result<Option<Keeper>> {
        if self.certificate_secret.is_none() && self.webhook.is_none() {
            return Ok(None);
        }
        let service = self.namespace.clone().zip(self.service.clone());
        let certificate = self.certificate_secret.clone().zip(service.clone());
        let settings = Settings {
            certificate: certificate.map(|(secret, (namespace, service))| OwnCertificate {
                namespace,
                secret,
                service,
                authority_life: self.ca_lifetime,
                leaf_life: self.certificate_lifetime,
            }),
            webhook: self.webhook.clone(),
            guard: self.guard,
            service,
            failure_policy: self.failure_policy.map(|policy| match policy {
                Policy::Fail => FailurePolicy::Fail,
                Policy::Ignore => FailurePolicy::Ignore,
            }),
            probe_namespace: self.probe_namespace.clone(),
            every,
        };
        let configuration = source::configuration(kubeconfig, context).await?;
        let client = Client::try_from(configuration)?;
        Ok(Some(Keeper::new(settings, client, in_service, rules, telemetry.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_a_duration_of_some_seconds_at_least() {
        assert_eq!(life("2160h"), Ok(Duration::from_hours(2160)));
        assert_eq!(life("6s"), Ok(Duration::from_secs(6)));
        for wrong in ["90", "soon", "-6h", "1s"] {
            assert!(life(wrong).is_err(), "{wrong}");
        }
    }
}
