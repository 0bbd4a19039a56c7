//! `NetworkPolicySpec` as it is written.
//!
//! Nearly all are well formed, and are read at once into these types, which take what the API
//! documents and nothing else. Whatever they refuse goes through the client library's types, by
//! which unknown fields and the place of an error are told; that costs several times as much.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1 as netv1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;

use super::read::{Many, Mapping};
use crate::model::Str;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PolicySpec {
    pub(super) pod_selector: Option<LabelSelector>,
    pub(super) policy_types: Option<Many<Str>>,
    pub(super) ingress: Option<Many<IngressRule>>,
    pub(super) egress: Option<Many<EgressRule>>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IngressRule {
    pub(super) from: Option<Many<Peer>>,
    pub(super) ports: Option<Many<PolicyPort>>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EgressRule {
    pub(super) to: Option<Many<Peer>>,
    pub(super) ports: Option<Many<PolicyPort>>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) ip_block: Option<Block>,
    pub(super) namespace_selector: Option<LabelSelector>,
    pub(super) pod_selector: Option<LabelSelector>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Block {
    pub(super) cidr: Str,
    pub(super) except: Option<Many<Str>>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PolicyPort {
    pub(super) protocol: Option<Str>,
    pub(super) port: Option<IntOrString>,
    pub(super) end_port: Option<i32>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LabelSelector {
    pub(super) match_labels: Option<Mapping<Str, Str>>,
    pub(super) match_expressions: Option<Many<Expression>>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expression {
    pub(super) key: Str,
    pub(super) operator: Str,
    pub(super) values: Option<Many<Str>>,
}

fn each<A: Into<B>, B>(items: Option<Vec<A>>) -> Option<Many<B>> {
    Some(items?.into_iter().map(Into::into).collect())
}

impl From<netv1::NetworkPolicySpec> for PolicySpec {
    fn from(spec: netv1::NetworkPolicySpec) -> Self {
        let netv1::NetworkPolicySpec { pod_selector, policy_types, ingress, egress } = spec;
        Self {
            pod_selector: pod_selector.map(Into::into),
            policy_types: each(policy_types),
            ingress: each(ingress),
            egress: each(egress),
        }
    }
}

impl From<netv1::NetworkPolicyIngressRule> for IngressRule {
    fn from(rule: netv1::NetworkPolicyIngressRule) -> Self {
        let netv1::NetworkPolicyIngressRule { from, ports } = rule;
        Self { from: each(from), ports: each(ports) }
    }
}

impl From<netv1::NetworkPolicyEgressRule> for EgressRule {
    fn from(rule: netv1::NetworkPolicyEgressRule) -> Self {
        let netv1::NetworkPolicyEgressRule { to, ports } = rule;
        Self { to: each(to), ports: each(ports) }
    }
}

impl From<netv1::NetworkPolicyPeer> for Peer {
    fn from(peer: netv1::NetworkPolicyPeer) -> Self {
        let netv1::NetworkPolicyPeer { ip_block, namespace_selector, pod_selector } = peer;
        Self {
            ip_block: ip_block.map(Into::into),
            namespace_selector: namespace_selector.map(Into::into),
            pod_selector: pod_selector.map(Into::into),
        }
    }
}

impl From<netv1::IPBlock> for Block {
    fn from(block: netv1::IPBlock) -> Self {
        let netv1::IPBlock { cidr, except } = block;
        Self { cidr: cidr.into(), except: each(except) }
    }
}

impl From<netv1::NetworkPolicyPort> for PolicyPort {
    fn from(port: netv1::NetworkPolicyPort) -> Self {
        let netv1::NetworkPolicyPort { protocol, port, end_port } = port;
        Self { protocol: protocol.map(Into::into), port, end_port }
    }
}

impl From<metav1::LabelSelector> for LabelSelector {
    fn from(selector: metav1::LabelSelector) -> Self {
        let metav1::LabelSelector { match_labels, match_expressions } = selector;
        let labels = |labels: BTreeMap<String, String>| {
            labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
        };
        Self { match_labels: match_labels.map(labels), match_expressions: each(match_expressions) }
    }
}

impl From<metav1::LabelSelectorRequirement> for Expression {
    fn from(requirement: metav1::LabelSelectorRequirement) -> Self {
        let metav1::LabelSelectorRequirement { key, operator, values } = requirement;
        Self { key: key.into(), operator: operator.into(), values: each(values) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::read::Source;
    use super::*;

    fn json() -> impl Strategy<Value = Value> {
        let key = prop::sample::select(vec![
            "podSelector",
            "policyTypes",
            "ingress",
            "egress",
            "from",
            "to",
            "ports",
            "ipBlock",
            "namespaceSelector",
            "cidr",
            "except",
            "protocol",
            "port",
            "endPort",
            "matchLabels",
            "matchExpressions",
            "key",
            "operator",
            "values",
            "unknown",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            Just(json!("TCP")),
            Just(json!("10.0.0.0/8")),
            Just(json!(80)),
            Just(json!({})),
            Just(json!([])),
            Just(json!({ "app": "a" })),
            Just(json!(["Ingress"])),
        ];
        leaf.prop_recursive(6, 40, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
                prop::collection::btree_map(key.clone(), inner, 0..4)
                    .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_taken_at_once_means_what_the_client_library_reads(spec in json()) {
            let text = spec.to_string();
            if text.contains('[') && serde_json::from_str::<netv1::NetworkPolicySpec>(&text).is_err() {
                // A list of a struct's fields in their order, which no API server sends.
                return Ok(());
            }
            if let Some(at_once) = text.as_str().read_well_formed::<PolicySpec>() {
                let read: netv1::NetworkPolicySpec = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(at_once, PolicySpec::from(read));
            }
        }
    }

    #[test]
    fn a_usual_policy_is_taken_at_once() {
        let spec = json!({
            "podSelector": { "matchLabels": { "app": "a" }, "matchExpressions": [{ "key": "b", "operator": "Exists" }] },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{ "from": [{ "namespaceSelector": {}, "podSelector": {} }], "ports": [{ "port": "http" }] }, {}],
            "egress": [{ "to": [{ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] } }],
                         "ports": [{ "protocol": "TCP", "port": 80, "endPort": 90 }] }],
        })
        .to_string();
        let read: netv1::NetworkPolicySpec = serde_json::from_str(&spec).unwrap();
        assert_eq!(spec.as_str().read_well_formed::<PolicySpec>().unwrap(), PolicySpec::from(read));
    }

    #[test]
    fn an_unknown_field_is_not_passed_over() {
        for spec in [
            r#"{"podSelectors":{}}"#,
            r#"{"podSelector":{"app":"a"}}"#,
            r#"{"ingress":[{"to":[]}]}"#,
            r#"{"egress":[{"to":[{"fqdn":"a"}]}]}"#,
        ] {
            assert!(spec.read_well_formed::<PolicySpec>().is_none(), "{spec}");
        }
    }
}
