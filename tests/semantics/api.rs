//! NetworkPolicies as the API writes them, into the model: a second reading of the API, apart from
//! the library's own, for tests that must not depend on it.
//!
//! It reads valid policies only and panics at anything else.

use portcullis::model::{
    Directions, IpBlock, Lifetime, NetworkPolicy, Operator, PeerSpec, PolicyRule, Port, PortSpec, Requirement, Selector,
};
use portcullis::netset::Protocol;
use serde_json::Value;

/// `{metadata: {name}, spec: {…}}` in a namespace.
pub(crate) fn network_policy(namespace: &str, policy: &Value) -> NetworkPolicy {
    let spec = &policy["spec"];
    let ingress = rules(&spec["ingress"], "from");
    let egress = rules(&spec["egress"], "to");
    let types: Vec<&str> = items(&spec["policyTypes"]).map(|it| it.as_str().unwrap()).collect();
    let isolates = if types.is_empty() {
        Directions { ingress: true, egress: !egress.is_empty() }
    } else {
        Directions { ingress: types.contains(&"Ingress"), egress: types.contains(&"Egress") }
    };
    NetworkPolicy {
        namespace: namespace.into(),
        name: policy["metadata"]["name"].as_str().unwrap().into(),
        created: None,
        lifetime: Lifetime::default(),
        pods: selector(&spec["podSelector"]),
        isolates,
        ingress,
        egress,
        is_partial: false,
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    assert!(list.is_null() || list.is_array(), "not a list: {list}");
    list.as_array().into_iter().flatten()
}

fn rules(list: &Value, peers_field: &str) -> Vec<PolicyRule> {
    let some = |list: &Value| (!list.is_null() && list != &Value::Array(Vec::new())).then_some(());
    items(list)
        .map(|rule| PolicyRule {
            peers: some(&rule[peers_field]).map(|()| items(&rule[peers_field]).map(peer).collect()),
            ports: some(&rule["ports"]).map(|()| items(&rule["ports"]).map(port).collect()),
        })
        .collect()
}

fn peer(peer: &Value) -> PeerSpec {
    let (pods, namespaces, block) = (&peer["podSelector"], &peer["namespaceSelector"], &peer["ipBlock"]);
    if !block.is_null() {
        assert!(pods.is_null() && namespaces.is_null(), "a block beside a selector: {peer}");
        let except = items(&block["except"]).map(|net| net.as_str().unwrap().parse().unwrap()).collect();
        return PeerSpec::Block(IpBlock::new(block["cidr"].as_str().unwrap().parse().unwrap(), except));
    }
    assert!(!(pods.is_null() && namespaces.is_null()), "an empty peer");
    PeerSpec::Pods {
        namespaces: (!namespaces.is_null()).then(|| selector(namespaces)),
        pods: selector(pods),
        pods_written: !pods.is_null(),
    }
}

fn port(port: &Value) -> PortSpec {
    let protocol: Protocol = port["protocol"].as_str().unwrap_or("TCP").parse().unwrap();
    let number = |value: &Value| u16::try_from(value.as_u64().unwrap()).unwrap();
    let ports = match &port["port"] {
        Value::Null => Port::All,
        Value::String(name) => Port::Named(name.as_str().into()),
        first => {
            let last = &port["endPort"];
            Port::Range(number(first), number(if last.is_null() { first } else { last }))
        }
    };
    PortSpec { protocol, port: ports }
}

/// A `LabelSelector`; nothing is everything.
pub(crate) fn selector(selector: &Value) -> Selector {
    let labels = selector["matchLabels"].as_object().into_iter().flatten().map(|(key, value)| Requirement {
        key: key.as_str().into(),
        operator: Operator::In(vec![value.as_str().unwrap().into()]),
    });
    let expressions = items(&selector["matchExpressions"]).map(|it| {
        let values = items(&it["values"]).map(|value| value.as_str().unwrap().into()).collect();
        let operator = match it["operator"].as_str().unwrap() {
            "In" => Operator::In(values),
            "NotIn" => Operator::NotIn(values),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            unknown => Operator::Unknown(unknown.into()),
        };
        Requirement { key: it["key"].as_str().unwrap().into(), operator }
    });
    Selector::new(labels.chain(expressions))
}
