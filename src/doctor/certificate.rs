//! Whether the API server can trust the gate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;

use super::registration::{entries, own};
use super::{Check, Facts};
use crate::upkeep::{CertificateFacts, certificates, verify};

/// What is worth a look: a certificate that ends sooner.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// The bundle the API server trusts, and what the gate serves.
pub(super) fn certificate(facts: &Facts) -> Check {
    const NAME: &str = "certificate";
    let Some(configuration) = own(facts) else {
        return Check::attention(NAME, "without a registration there is no `caBundle` to look at");
    };
    let all = entries(configuration);
    let Some(entry) = all.first() else {
        return Check::attention(NAME, "the registration is empty, so there is no `caBundle` to look at");
    };
    let bundle = entry.client_config.ca_bundle.as_deref().and_then(|text| STANDARD.decode(text).ok());
    let trusted = certificates(&bundle.unwrap_or_default());
    let untrusted = |found: &str| {
        Check::bad(NAME, found)
            .means("the API server does not trust the gate, so that it is as if it did not answer")
            .advice("whoever issues the certificate has to fill in `caBundle`: the gate with `--webhook`, cert-manager by its annotation, or you")
    };
    if trusted.is_empty() {
        return untrusted("the registration's `caBundle` is empty");
    }
    let mut told = Vec::new();
    let mut last = None;
    for facts_of in trusted.iter().filter_map(CertificateFacts::of_der) {
        told.push(format!("trusted: `{}`, until {}", facts_of.name, facts_of.not_after));
        // Authorities overlap: that a former one ends is as it should be.
        last = last.max(Some(facts_of.not_after));
    }
    if last.is_some_and(|last| last <= facts.now) {
        return untrusted("every certificate in the registration's `caBundle` has expired").facts(told);
    }
    let mut ends = last;
    let good = match &facts.served {
        Err(why) => {
            told.push(format!("what the gate serves was not seen from here: {why}"));
            "the registration trusts a certificate that is valid"
        }
        Ok(served) => {
            if let Some(leaf) = served.chain.first().and_then(CertificateFacts::of_der) {
                let until = leaf.not_after;
                told.push(format!("served at {}: for {}, until {until}", served.address, leaf.dns.join(", ")));
                ends = ends.min(Some(until));
            }
            if let Err(why) = verify(&served.chain, &trusted, &served.name, facts.now) {
                return untrusted(&format!("the API server would refuse what the gate serves: {why}")).facts(told);
            }
            "the registration trusts what the gate serves"
        }
    };
    let left = ends.map(|end| end.duration_since(facts.now));
    match left.filter(|left| *left < SOON) {
        Some(left) => Check::attention(NAME, format!("a certificate ends within {} days", left.as_hours() / 24 + 1))
            .means("if it is not renewed by then, the API server does not trust the gate any more")
            .advice("what issues it should have renewed it at two thirds of its life: see its log"),
        None => Check::good(NAME, good),
    }
    .facts(told)
}
