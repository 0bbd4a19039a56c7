//! How certificate and registration stand: readiness, metrics, and whether the gate may fail closed.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::coverage::{self, Gaps};
use super::keeper::{Keeper, Look};
use super::keyring::Keyring;
use super::registration::{FailurePolicy, Registered};
use super::{Proof, probe};
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::{Expiring, Probed, Repair, WebhookState};

/// The readiness gate.
pub(super) const GATE: &str = "certificate";
/// How often a proof is renewed that held.
const PROVE_EVERY: Duration = Duration::from_mins(5);
/// How many looks are left between setting the failure policy twice: while the gates are replaced by
/// such as are told otherwise, each would set what the other has just changed.
const LOOKS_BETWEEN: u32 = 3;

impl Keeper {
    /// Sets readiness and gauges.
    pub(super) fn report(&mut self, registered: &Look, trouble: Option<&str>) {
        let Telemetry { metrics, readiness } = self.telemetry.clone();
        if let Some(end) = self.last.as_ref().and_then(Keyring::authority_expires) {
            metrics.certificate_not_after(Expiring::Authority, since_1970(end));
        }
        let Some(current) = self.in_service.current() else {
            return readiness.set_pending(GATE, trouble.unwrap_or("there is no certificate yet"));
        };
        let webhook = self.settings.webhook.clone().unwrap_or_default();
        let open = || match trouble {
            Some(why) => readiness.set_degraded(GATE, why),
            None => readiness.set_open(GATE, ""),
        };
        metrics.webhook_state(WebhookState::Registered, matches!(registered, Look::Here(_)));
        match registered {
            Look::Unasked => open(),
            Look::Absent => {
                self.is_untrusted = false;
                metrics.webhook_state(WebhookState::Trusted, false);
                metrics.webhook_state(WebhookState::FailingClosed, false);
                readiness.set_degraded(
                    GATE,
                    &format!("there is no ValidatingWebhookConfiguration `{webhook}`, so no API server asks"),
                );
            }
            // What was found wrong is not right for nobody being able to look.
            Look::Unread(_) if self.is_untrusted => {}
            Look::Unread(why) => {
                readiness.set_degraded(GATE, &format!("the ValidatingWebhookConfiguration cannot be read: {why}"));
            }
            Look::Here(here) => {
                let verified = here.verifies(current.chain(), self.time());
                self.is_untrusted = verified.is_err();
                metrics.webhook_state(WebhookState::Trusted, verified.is_ok());
                metrics.webhook_state(WebhookState::FailingClosed, here.fails_closed());
                if let Some(end) = here.bundle_expires() {
                    metrics.certificate_not_after(Expiring::Bundle, since_1970(end));
                }
                self.compare(here);
                match verified {
                    Ok(()) if here.is_empty() => readiness.set_degraded(
                        GATE,
                        &format!(
                            "no webhook of the ValidatingWebhookConfiguration `{webhook}` leads to the gate's Service"
                        ),
                    ),
                    Ok(()) => {
                        open();
                        self.settled("trust");
                    }
                    Err(why) => {
                        readiness.set_pending(GATE, &why);
                        self.complain("trust", &why);
                    }
                }
            }
        }
    }

    /// Whether the registration asks about all that the rules in force judge.
    fn compare(&mut self, here: &Registered) {
        let (namespace, _) = self.settings.service.clone().unwrap_or_default();
        let Gaps { unasked, left_out } = coverage::of(here, &self.rules.borrow(), &namespace, self.settings.guard);
        self.covers(WebhookState::CoversRules, "does not ask about what the rules judge", &unasked);
        self.covers(WebhookState::Whole, "leaves out what the configuration does not exempt", &left_out);
    }

    fn covers(&mut self, state: WebhookState, otherwise: &str, missing: &[String]) {
        self.telemetry.metrics.webhook_state(state, missing.is_empty());
        if missing.is_empty() {
            self.settled(state.as_str());
        } else {
            self.complain(state.as_str(), &format!("the webhook configuration {otherwise}: {}", missing.join(", ")));
        }
    }

    /// Sets the failure policy once it is proved that the gate is asked. A proof that fails later is
    /// told and changes nothing: a gate that is away for a moment must not open the door for good,
    /// nor be the reason for two writers to contend.
    pub(super) async fn prove(&mut self, here: &Registered, policy: FailurePolicy) {
        let has_just_set = self.policy_set.is_some_and(|at| at.elapsed() < self.settings.every * LOOKS_BETWEEN);
        let patch = here.with_failure_policy(policy).filter(|_| !has_just_set);
        let is_due = match &self.proof {
            // One that does not hold keeps the failure policy waiting, where that waits for one.
            Some((proof, made)) if proof.holds() || policy == FailurePolicy::Ignore => made.elapsed() >= PROVE_EVERY,
            Some(_) | None => true,
        };
        let tightens = policy == FailurePolicy::Fail && patch.is_some();
        let mut is_proved = false;
        if (is_due || tightens) && !self.is_untrusted && self.telemetry.readiness.is_ready() {
            let proof = probe(&self.client, &self.settings.probe_namespace).await;
            let metrics = &self.telemetry.metrics;
            metrics.probed(match &proof {
                Proof::Denied => Probed::Denied,
                Proof::Admitted => Probed::Admitted,
                Proof::Unreachable(_) | Proof::Unasked(_) => Probed::Failed,
            });
            metrics.webhook_state(WebhookState::Proved, proof.holds());
            is_proved = proof.holds();
            if is_proved {
                self.settled("proof");
            } else {
                self.complain("proof", &proof.to_string());
            }
            self.proof = Some((proof, Instant::now()));
        }
        // A proof from before the change tells nothing of what is there now.
        if let Some(patch) = patch
            && (policy == FailurePolicy::Ignore || is_proved)
        {
            // Where somebody else wrote first, the watch brings what they wrote.
            if let Ok(Some(_)) = self.patch(patch, Repair::FailurePolicy).await {
                self.policy_set = Some(Instant::now());
                tracing::info!(policy = policy.as_str(), "failurePolicy set");
                self.telemetry.metrics.webhook_state(WebhookState::FailingClosed, policy == FailurePolicy::Fail);
            }
        }
    }
}

fn since_1970(moment: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(moment.as_second()).unwrap_or_default())
}
