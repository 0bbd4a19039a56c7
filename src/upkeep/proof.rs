//! The proof that the gate is asked and that its denials arrive: a dry run of a known violation,
//! sent through the API server the way everybody's changes come.

use kube::api::{Api, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, Status};
use kube::{Client, Error};
use rustls::crypto::aws_lc_rs;
use serde_json::json;

use super::MANAGER;
use crate::admission::PROBE;

/// The rule that the probe breaks.
const BROKEN: &str = "wildcard-ip-block";

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The gate denied it.
    Denied,
    /// It was let through: nobody asked the gate, or its answer did not count.
    Admitted,
    /// The API server could not call the gate: what it says.
    Unreachable(String),
    /// It could not be asked at all, or something else denied it: why.
    Unasked(String),
}

impl Proof {
    /// Whether it shows that the gate's denials arrive.
    pub fn holds(&self) -> bool {
        matches!(self, Self::Denied)
    }
}

/// For people, with what to look at.
impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied => f.write_str("a policy that opens everything was denied by portcullis, as it must be"),
            Self::Admitted => f.write_str("a policy that opens everything was let through"),
            Self::Unreachable(why) => write!(f, "the API server cannot reach portcullis: {why}"),
            Self::Unasked(why) => write!(f, "the API server could not be asked: {why}"),
        }
    }
}

/// Sends a known violation into a namespace, as a dry run: nothing is stored.
///
/// Whoever asks must be allowed to `create` `networkpolicies` there, for a dry run needs no less.
pub async fn probe(client: &Client, namespace: &str) -> Proof {
    let mark = match mark() {
        Ok(mark) => mark,
        Err(why) => return Proof::Unasked(why),
    };
    let kind = GroupVersionKind::gvk("networking.k8s.io", "v1", "NetworkPolicy");
    let resource = ApiResource::from_gvk_with_plural(&kind, "networkpolicies");
    let policies: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let mut policy = DynamicObject::new(&format!("portcullis-probe-{mark}"), &resource);
    policy.metadata.annotations = Some([(PROBE.to_owned(), mark.clone())].into());
    // Even if it were stored it would select no pod.
    policy.data = json!({ "spec": {
        "podSelector": { "matchLabels": { PROBE: mark } },
        "policyTypes": ["Ingress"],
        "ingress": [{ "from": [{ "ipBlock": { "cidr": "0.0.0.0/0" } }] }],
    } });
    let dry_run = PostParams { dry_run: true, field_manager: Some(MANAGER.to_owned()) };
    match policies.create(&dry_run, &policy).await {
        Ok(_) => Proof::Admitted,
        Err(Error::Api(status)) => judged(&status),
        Err(error) => Proof::Unasked(super::said(&error)),
    }
}

/// What an answer that is no success means.
fn judged(status: &Status) -> Proof {
    let message = status.message.clone();
    let is_denial = message.contains("denied the request");
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    if is_denial && causes.iter().any(|cause| cause.reason == BROKEN) {
        Proof::Denied
    } else if message.contains("failed calling webhook") {
        Proof::Unreachable(message)
    } else if is_denial {
        Proof::Unasked(format!("something else denied the probe, so it tells nothing: {message}"))
    } else {
        Proof::Unasked(message)
    }
}

/// A name nobody else takes.
fn mark() -> Result<String, String> {
    let mut bytes = [0_u8; 5];
    let random = aws_lc_rs::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| "there is no source of random numbers".to_owned())?;
    Ok(bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, message: &str, cause: &str) -> Status {
        let causes = [json!({ "reason": cause, "message": "" })];
        let status = json!({ "status": "Failure", "code": code, "message": message, "details": { "causes": causes } });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn only_a_denial_for_the_known_violation_is_a_proof() {
        let denial = r#"admission webhook "gate.portcullis.dev" denied the request: [NP003] …"#;
        assert_eq!(judged(&status(403, denial, BROKEN)), Proof::Denied);
        let other = judged(&status(403, r#"admission webhook "other" denied the request: no"#, "other"));
        assert!(matches!(other, Proof::Unasked(_)), "{other:?}");
        let forbidden = judged(&status(403, r#"networkpolicies is forbidden: User "x" cannot create"#, BROKEN));
        assert!(matches!(forbidden, Proof::Unasked(_)), "{forbidden:?}");
        let failed = judged(&status(500, r#"failed calling webhook "gate.portcullis.dev": x509"#, ""));
        assert!(matches!(failed, Proof::Unreachable(_)), "{failed:?}");
    }
}
