//! Admission webhooks: whom the API server calls, and what becomes of a change while nobody answers.

use super::{Revision, Str};

/// A `ValidatingWebhookConfiguration` or `MutatingWebhookConfiguration`, as far as it says whom the
/// API server has to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfiguration {
    /// Which of the two kinds it is.
    pub kind: WebhookKind,
    /// Its name.
    pub name: Str,
    /// What it is to the mesh, where it injects sidecars.
    pub revision: Option<Revision>,
    /// Those of its webhooks that are called by a Service of the cluster. One that is called by an
    /// address is no workload's.
    pub webhooks: Vec<AdmissionWebhook>,
}

/// The kinds of webhook configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WebhookKind {
    /// They change objects.
    Mutating,
    /// They refuse objects.
    Validating,
}

impl WebhookKind {
    /// The kind of the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mutating => "MutatingWebhookConfiguration",
            Self::Validating => "ValidatingWebhookConfiguration",
        }
    }
}

/// A webhook behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionWebhook {
    /// Its name in the configuration: `gate.portcullis.dev`.
    pub name: Str,
    /// The Service's namespace.
    pub namespace: Str,
    /// The Service's name.
    pub service: Str,
    /// The Service's port that is called: 443 where none is written.
    pub port: u16,
    /// What becomes of a change while it does not answer.
    pub on_failure: OnFailure,
}

/// `failurePolicy` of a webhook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnFailure {
    /// The change is let through as if the webhook were not there.
    Ignore,
    /// The change is refused: the API's default.
    #[default]
    Fail,
}
