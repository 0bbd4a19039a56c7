//! The gate's own upkeep in a cluster: its certificate, and its registration with the API server.
//!
//! ```text
//!            Secret: an authority, a certificate of it       ValidatingWebhookConfiguration
//!                 |            ^                                  |            ^
//!      follow what won    issue, renew: whoever writes       compare      caBundle, failurePolicy
//!                 v            | first wins                       v            | (once a probe is denied)
//!                 +------------+---------- a look ----------------+------------+
//!                                          |
//!                     served certificate, readiness `certificate`, metrics
//! ```
//!
//! Each look reads both objects afresh, the registration first: a write that was made from something
//! older than what is there fails, and is made again from what is there. Looks are made on a timer,
//! and as soon as a watch says that one of the objects changed.
//!
//! **Invariant:** whether a certificate is due, and from when to when a new one is valid, goes by the
//! time of the API server, which is who verifies it.
//!
//! **Invariant:** an authority that the registration trusts stays trusted until it expires: whoever
//! begins anew adds to the bundle and takes nothing from it.
//!
//! **What its account must be allowed to do**, and nothing beyond it:
//!
//! | for | resource | verbs | names |
//! |---|---|---|---|
//! | `--certificate-secret` | `secrets` in its own namespace | `get` `list` `watch` `update` | the Secret's |
//! | the same, unless the Secret is there (it may be empty) | `secrets` in its own namespace | `create` | none can be given |
//! | `--webhook` | `validatingwebhookconfigurations.admissionregistration.k8s.io` | `get` `list` `watch` | the configuration's |
//! | with it, `--certificate-secret` or `--failure-policy` | the same | `patch` | the configuration's |
//! | `--failure-policy` | `networkpolicies.networking.k8s.io` in `--probe-namespace` | `create` | none can be given |
//!
//! `list` and `watch` are by the object's name, which a rule with `resourceNames` allows. Where they
//! are forbidden, changes are noticed by the timer.

mod clock;
mod coverage;
mod issue;
mod keeper;
mod keyring;
mod proof;
mod registration;
mod secret;
mod standing;
mod trust;

use std::time::Duration;

pub(crate) use coverage::{Gaps, gaps};
pub(crate) use issue::Facts as CertificateFacts;
pub use keeper::Keeper;
pub use proof::{Proof, probe};
pub use registration::FailurePolicy;
pub(crate) use trust::{certificates, verify};

/// What fields it writes are known to be managed by.
const MANAGER: &str = "portcullis";

/// What is kept up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The certificate, where the gate issues it itself.
    pub certificate: Option<OwnCertificate>,
    /// The ValidatingWebhookConfiguration that registers the gate.
    pub webhook: Option<String>,
    /// Whether that is to have the guard's entry.
    pub guard: bool,
    /// The namespace and the Service by which it is called; nothing where it is called by a URL.
    pub service: Option<(String, String)>,
    /// What the `failurePolicy` is to be once it is proved that the gate is asked; nothing to leave
    /// it alone.
    pub failure_policy: Option<FailurePolicy>,
    /// Where probes are sent.
    pub probe_namespace: String,
    /// How often is looked at what nobody tells of.
    pub every: Duration,
}

/// A certificate of the gate's own issue.
#[derive(Clone, Debug)]
pub struct OwnCertificate {
    /// The namespace of the Secret.
    pub namespace: String,
    /// The Secret it is kept in.
    pub secret: String,
    /// The Service whose names it is for.
    pub service: String,
    /// How long an authority lives.
    pub authority_life: Duration,
    /// How long a certificate lives.
    pub leaf_life: Duration,
}

/// What an API server, or the way to it, said.
pub(crate) fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => {
            let mut text = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(why) = cause {
                text = format!("{text}: {why}");
                cause = why.source();
            }
            text
        }
    }
}
