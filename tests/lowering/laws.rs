//! What holds of every input: an answer and never a panic, and the same answer from a text and
//! from the value it is the text of.

use portcullis::k8s::{Lowered, TypeName, lower_json, lower_value};
use portcullis::model::Object;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const KINDS: &[(&str, &str)] = &[
    ("v1", "Namespace"),
    ("v1", "Service"),
    ("v1", "Pod"),
    ("v1", "ConfigMap"),
    ("v1", "ReplicationController"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("security.istio.io/v1", "PeerAuthentication"),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("cilium.io/v2", "CiliumNetworkPolicy"),
    ("projectcalico.org/v3", "GlobalNetworkPolicy"),
];

/// Words that mean something somewhere, so that what is generated gets past the first field.
const WORDS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "name",
    "namespace",
    "generateName",
    "labels",
    "annotations",
    "ownerReferences",
    "controller",
    "kind",
    "creationTimestamp",
    "deletionTimestamp",
    "podSelector",
    "matchLabels",
    "matchExpressions",
    "key",
    "operator",
    "values",
    "In",
    "Exists",
    "policyTypes",
    "Ingress",
    "Egress",
    "ingress",
    "egress",
    "from",
    "to",
    "ports",
    "port",
    "endPort",
    "protocol",
    "TCP",
    "UDP",
    "ipBlock",
    "cidr",
    "except",
    "10.0.0.0/8",
    "::/0",
    "::ffff:0:0/96",
    "template",
    "jobTemplate",
    "containers",
    "initContainers",
    "restartPolicy",
    "Always",
    "containerPort",
    "hostNetwork",
    "dnsPolicy",
    "dnsConfig",
    "nameservers",
    "replicas",
    "conditions",
    "type",
    "phase",
    "podIP",
    "podIPs",
    "ip",
    "selector",
    "mtls",
    "mode",
    "STRICT",
    "portLevelMtls",
    "8080",
    "data",
    "mesh",
    "istio",
    "rootNamespace: x",
    "targetPort",
    "clusterIP",
    "clusterIPs",
    "istio.io/rev",
    "",
    "\u{0}",
    "é\n",
];

fn value() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(WORDS);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (0_i64..70_000).prop_map(Into::into),
        any::<f64>().prop_map(|number| serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number)),
        word.clone().prop_map(Into::into),
        ".{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            3 => prop::collection::vec((prop::sample::select(WORDS), inner), 0..6)
                .prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>().into()),
        ]
    })
}

/// A whole object of a kind, with one of its fields replaced by anything.
fn spoilt() -> impl Strategy<Value = Value> {
    let whole = prop::sample::select(vec![
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {
            "podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"namespaceSelector": {}}],
                         "ports": [{"port": 80, "endPort": 90, "protocol": "TCP"}]}]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "ownerReferences": [{"kind": "A", "name": "b", "controller": true}]},
            "spec": {"replicas": 1, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"hostNetwork": true, "dnsConfig": {"nameservers": ["1.1.1.1"]},
                "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}]}}}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "clusterIPs": ["10.0.0.1"],
            "ports": [{"port": 80, "targetPort": "http"}]}}),
        json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "p"}, "spec": {
            "selector": {"matchLabels": {"a": "b"}}, "mtls": {"mode": "STRICT"}, "portLevelMtls": {"80": {"mode": "DISABLE"}}}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio"}, "data": {"mesh": "rootNamespace: x"}}),
    ]);
    (whole, any::<prop::sample::Index>(), value()).prop_map(|(mut whole, place, value)| {
        let mut paths = Vec::new();
        places(&whole, String::new(), &mut paths);
        let path = &paths[place.index(paths.len())];
        *whole.pointer_mut(path).unwrap() = value;
        whole
    })
}

/// The paths of all fields but the object's kind.
fn places(value: &Value, path: String, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let fields =
                fields.iter().filter(|(key, _)| !path.is_empty() || !matches!(key.as_str(), "kind" | "apiVersion"));
            for (key, value) in fields {
                places(value, format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), out);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                places(item, format!("{path}/{i}"), out);
            }
        }
        _ => {}
    }
    if !path.is_empty() {
        out.push(path);
    }
}

/// Kinds of which an object may be of no interest: a ConfigMap that is not the mesh's.
fn may_be_nothing(object: &Value) -> bool {
    object["kind"] == "ConfigMap"
}

fn both_ways(object: &Value) -> Result<Lowered, TestCaseError> {
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let value = lower_value(object, "default");
    // Text holds no number a value could not, so both hold the same.
    let text = lower_json(TypeName::new(version, kind), &object.to_string(), "default");
    prop_assert_eq!(&value.object, &text.object);
    prop_assert_eq!(value.problems.len(), text.problems.len());
    for (value, text) in value.problems.iter().zip(&text.problems) {
        prop_assert_eq!(&value.path, &text.path);
    }
    Ok(value)
}

proptest! {
    #[test]
    fn anything_of_any_kind_is_an_object_or_a_problem((version, kind) in prop::sample::select(KINDS), value in value()) {
        let mut object = match value {
            Value::Object(fields) => fields,
            other => Map::from_iter([("metadata".to_owned(), json!({"name": "x"})), ("spec".to_owned(), other)]),
        };
        object.insert("apiVersion".to_owned(), version.into());
        object.insert("kind".to_owned(), kind.into());
        let object = Value::Object(object);
        let lowered = both_ways(&object)?;
        prop_assert!(may_be_nothing(&object) || lowered.object.is_some() || !lowered.problems.is_empty());
    }

    #[test]
    fn a_policy_or_workload_spoilt_anywhere_but_in_its_name_still_stands(object in spoilt()) {
        let lowered = both_ways(&object)?;
        let is_named = object["metadata"].is_object();
        let stands = matches!(object["kind"].as_str(), Some("NetworkPolicy" | "PeerAuthentication" | "Deployment"));
        prop_assert!(!(is_named && stands) || lowered.object.is_some(), "{:?}", lowered.problems);
        if let Some(Object::NetworkPolicy(policy)) = &lowered.object {
            prop_assert!(!policy.is_partial || lowered.problems.iter().any(|it| it.path.as_str().starts_with("spec")));
        }
    }

    #[test]
    fn any_text_is_answered(text in ".{0,60}", (version, kind) in prop::sample::select(KINDS)) {
        let lowered = lower_json(TypeName::new(version, kind), &text, "default");
        prop_assert!(lowered.object.is_some() || !lowered.problems.is_empty());
    }
}
