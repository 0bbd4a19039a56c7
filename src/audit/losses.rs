//! Policies that are gone though the gate would have denied their deletion: by the garbage collector,
//! which no webhook is asked about, while the gate was away, or past it.
//!
//! Reports show what stands open. A loss that no review allowed is reported here, at once.

use jiff::Timestamp;

use crate::cluster::Cluster;
use crate::model::{Change, Object};
use crate::rules::{Action, Finding, RuleSet};

/// How many policies are looked at: what else is gone at the same moment is in the next report.
const MOST: usize = 100;

/// A policy that is gone, and what its deletion would have been denied for.
pub(super) struct Loss {
    pub(super) object: Object,
    pub(super) finding: Finding,
}

impl Loss {
    /// What happened, in one line.
    pub(super) fn message(&self) -> String {
        let owners = match &self.object {
            Object::NetworkPolicy(policy) => policy.lifetime.owners.as_slice(),
            Object::PeerAuthentication(policy) => policy.lifetime.owners.as_slice(),
            _ => &[],
        };
        let owners: Vec<String> = owners.iter().map(ToString::to_string).collect();
        let owned = if owners.is_empty() {
            String::new()
        } else {
            format!("; it belonged to {}, and the garbage collector deletes what no owner keeps", owners.join(", "))
        };
        format!(
            "{} is gone, which the gate would have denied{owned}: {}",
            self.object.reference(),
            self.finding.message
        )
    }
}

/// What the policies that are gone protected: what the gate would have denied if it had been asked
/// now. One that is there again, or whose workloads go too, is no loss.
pub(super) fn of(rules: &RuleSet, cluster: &Cluster, gone: Vec<Object>, now: Timestamp) -> Vec<Loss> {
    let gone = gone.into_iter().filter(|object| !is_there(cluster, object)).take(MOST);
    let losses = gone.flat_map(|object| {
        let judged = rules.judge(cluster, &Change::Delete(object.clone()), now);
        let denied = judged.into_iter().filter(|it| !it.standing && it.action == Action::Deny);
        denied.map(move |finding| Loss { object: object.clone(), finding })
    });
    losses.collect()
}

fn is_there(cluster: &Cluster, object: &Object) -> bool {
    let Some(state) = object.namespace().and_then(|namespace| cluster.namespace(namespace)) else { return false };
    let there = match object {
        Object::NetworkPolicy(it) => state.policies.get(&it.name).map(|it| &it.lifetime),
        Object::PeerAuthentication(it) => state.peer_authentications.get(&it.name).map(|it| &it.lifetime),
        _ => None,
    };
    there.is_some_and(|lifetime| !lifetime.is_ending)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::Index;

    fn policy() -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": { "name": "default-deny", "namespace": "shop" },
            "spec": { "podSelector": {}, "policyTypes": ["Ingress"] },
        })
    }

    fn pod(metadata: &Value) -> Value {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": { "containers": [] } })
    }

    fn cart() -> Value {
        pod(&json!({ "name": "cart", "namespace": "shop" }))
    }

    fn cluster(objects: &[Value]) -> Cluster {
        let shop = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } });
        let mut index = Index::new();
        for object in std::iter::once(&shop).chain(objects) {
            index.apply(crate::k8s::lower_value(object, "").object.unwrap());
        }
        index.snapshot()
    }

    /// What is told when one cluster becomes another.
    fn told(before: &[Value], after: &[Value]) -> Vec<String> {
        let rules = crate::config::Settings::default().rule_set();
        let (before, after) = (cluster(before), cluster(after));
        let losses = of(&rules, &after, after.lost_since(&before), Timestamp::UNIX_EPOCH);
        losses.iter().map(Loss::message).collect()
    }

    #[test]
    fn a_policy_that_is_gone_and_opens_what_runs_is_a_loss() {
        let told = told(&[policy(), cart()], &[cart()]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with("NetworkPolicy shop/default-deny is gone, which the gate would have denied: "),
            "{told:?}"
        );
    }

    #[test]
    fn a_policy_that_is_about_to_go_is_a_loss_once() {
        let mut leaving = policy();
        leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(told(&[policy(), cart()], &[leaving.clone(), cart()]).len(), 1);
        assert_eq!(told(&[leaving, cart()], &[cart()]), [""; 0]);
    }

    #[test]
    fn what_goes_with_what_it_protected_or_is_there_again_is_no_loss() {
        assert_eq!(told(&[policy()], &[]), [""; 0]);
        let going = json!({ "name": "cart", "namespace": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z" });
        assert_eq!(told(&[policy(), cart()], &[pod(&going)]), [""; 0]);
        let mut second = policy();
        second["metadata"]["name"] = "second".into();
        assert_eq!(told(&[policy(), cart()], &[second, cart()]), [""; 0]);
        let (before, after) = (cluster(&[policy(), cart()]), cluster(&[cart()]));
        let gone = after.lost_since(&before);
        let rules = crate::config::Settings::default().rule_set();
        assert!(of(&rules, &before, gone, Timestamp::UNIX_EPOCH).is_empty());
    }

    #[test]
    fn two_policies_that_go_at_once_do_not_stand_in_for_each_other() {
        let mut second = policy();
        second["metadata"]["name"] = "second".into();
        assert_eq!(told(&[policy(), second, cart()], &[cart()]).len(), 2);
    }
}
