//! What an editor asks for: everything that `edit` lets him do with policies and workloads, with the
//! values by which attacks are made.

use serde_json::{Value, json};

use super::mesh::{ANNOTATIONS, AUTHENTICATIONS, with_fake_proxy};
use super::world::{Key, Outcome, World, owner};
use crate::choices::Choices;

/// Labels of a template or a pod.
const LABELS: [&str; 5] = [
    r#"{"app":"web"}"#,
    r#"{"app":"db"}"#,
    r#"{"app":"web","open":"yes"}"#,
    r#"{"app":"job","tier":"back"}"#,
    r#"{"app":"web","sidecar.istio.io/inject":"false"}"#,
];

/// Whom a policy selects.
const SELECTORS: [&str; 18] = [
    r#"{"matchLabels":{"app":"web"}}"#,
    r"{}",
    r#"{"matchLabels":{"app":"db"}}"#,
    r#"{"matchLabels":{"open":"yes"}}"#,
    r#"{"matchExpressions":[{"key":"open","operator":"DoesNotExist"}]}"#,
    r#"{"matchExpressions":[{"key":"app","operator":"Exists"}]}"#,
    r#"{"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]}"#,
    r#"{"matchExpressions":[{"key":"app","operator":"In","values":["web","db","job"]}]}"#,
    r#"{"matchLabels":{"pod-template-hash":"h0"}}"#,
    r#"{"matchExpressions":[{"key":"pod-template-hash","operator":"In","values":["h0","h1","h2"]}]}"#,
    r#"{"matchExpressions":[{"key":"pod-template-hash","operator":"Exists"}]}"#,
    r#"{"matchExpressions":[{"key":"apps.kubernetes.io/pod-index","operator":"In","values":["1","2","3"]}]}"#,
    r#"{"matchLabels":{"apps.kubernetes.io/pod-index":"0"}}"#,
    r#"{"matchLabels":{"statefulset.kubernetes.io/pod-name":"db-1"}}"#,
    r#"{"matchExpressions":[{"key":"controller-revision-hash","operator":"Exists"}]}"#,
    r#"{"matchLabels":{"batch.kubernetes.io/job-name":"once"}}"#,
    r#"{"matchExpressions":[{"key":"job-name","operator":"Exists"}]}"#,
    r#"{"matchExpressions":[{"key":"pod-template-hash","operator":"DoesNotExist"}]}"#,
];

/// Rules of a policy with `from`, which is `to` in the other direction.
const RULES: [&str; 11] = [
    r"[]",
    r#"[{"from":[{"podSelector":{}}]}]"#,
    r"[{}]",
    r#"[{"from":[{"namespaceSelector":{}}]}]"#,
    r#"[{"from":[{"namespaceSelector":{}},{"ipBlock":{"cidr":"0.0.0.0/0"}}]}]"#,
    r#"[{"from":[{"namespaceSelector":{}}]},{"from":[{"ipBlock":{"cidr":"0.0.0.0/1"}},{"ipBlock":{"cidr":"128.0.0.0/1"}}]}]"#,
    r#"[{"from":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["10.0.0.0/8"]}}]}]"#,
    r#"[{"ports":[{"protocol":"TCP","port":443}]}]"#,
    r#"[{"ports":[{"protocol":"TCP","port":1,"endPort":65535}]}]"#,
    r#"[{"ports":[{"protocol":"TCP","port":1,"endPort":32767}]},{"ports":[{"protocol":"TCP","port":32768,"endPort":65535}]}]"#,
    r#"[{"ports":[{"protocol":"UDP","port":53},{"protocol":"TCP","port":53}]}]"#,
];

const TYPES: [&str; 4] = [r#"["Ingress","Egress"]"#, r#"["Ingress"]"#, r#"["Egress"]"#, "null"];
const MAKERS: [&str; 4] = ["Deployment", "StatefulSet", "ReplicaSet", "Job"];
const POLICIES: [&str; 4] = ["default-deny", "allow-dns", "one", "two"];
const WORKLOADS: [&str; 4] = ["web", "db", "once", "late"];

/// One request, and what came of it as a line to read.
pub(crate) fn ask(world: &mut World, choices: &mut Choices<'_>) -> (String, Outcome) {
    match choices.below(14) {
        0 | 1 => create(world, policy(choices, world)),
        2 => {
            let key = ("NetworkPolicy".to_owned(), choices.one(&POLICIES).to_owned());
            let spec = policy_spec(choices);
            update(world, &key, &format!("spec {spec}"), |object| object["spec"] = spec.clone())
        }
        3 => create(world, workload(choices, world)),
        4 => create(world, pod(choices, world)),
        5 => {
            let (key, labels) = (workload_key(world, choices), parsed(choices.one(&LABELS)));
            let (host, fake) = (choices.once_in(6), choices.once_in(6));
            let annotations = parsed(choices.one(&ANNOTATIONS));
            let line = format!("labels {labels}, annotations {annotations}, host {host}, fake {fake}");
            update(world, &key, &line, |object| {
                let template = if key.0 == "Pod" { object } else { &mut object["spec"]["template"] };
                template["metadata"]["labels"] = labels.clone();
                if key.0 != "Pod" {
                    template["metadata"]["annotations"] = annotations.clone();
                    dress(&mut template["spec"], host, fake);
                }
            })
        }
        12 => {
            let key = ("PeerAuthentication".to_owned(), choices.one(&["default", "other", "a"]).to_owned());
            let spec = parsed(choices.one(&AUTHENTICATIONS));
            if world.get(&key).is_some() {
                return update(world, &key, &format!("spec {spec}"), |object| object["spec"] = spec.clone());
            }
            let version = "security.istio.io/v1";
            create(world, json!({ "apiVersion": version, "kind": key.0, "metadata": { "name": key.1 }, "spec": spec }))
        }
        6 => {
            let (key, replicas) = (scaled_key(world, choices), choices.one(&[1_u64, 2, 0]));
            (format!("scale {key:?} to {replicas}"), world.scale(&key, replicas))
        }
        7 | 8 => {
            let key = any_key(world, choices);
            let (line, change) = metadata(world, choices);
            update(world, &key, &line, |object| change(&mut object["metadata"]))
        }
        9 => {
            let name = choices.one(&["anchor", "other"]);
            create(world, json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } }))
        }
        _ => {
            let key = any_key(world, choices);
            (format!("delete {key:?}"), world.delete(&key))
        }
    }
}

fn create(world: &mut World, object: Value) -> (String, Outcome) {
    (format!("create {object}"), world.create(object))
}

fn update(world: &mut World, key: &Key, line: &str, change: impl FnOnce(&mut Value)) -> (String, Outcome) {
    (format!("update {key:?}: {line}"), world.update(key, change))
}

/// A change of an object's metadata: what the garbage collector and deletions go by.
fn metadata(world: &World, choices: &mut Choices<'_>) -> (String, impl Fn(&mut Value) + use<>) {
    let field = choices.one(&["ownerReferences", "finalizers"]);
    let value = match (field, choices.below(3)) {
        (_, 0) => Value::Null,
        ("finalizers", _) => json!(["example.com/later"]),
        (_, _) => json!([some_owner(world, choices)]),
    };
    let change = {
        let value = value.clone();
        move |metadata: &mut Value| metadata[field] = value.clone()
    };
    (format!("{field} {value}"), change)
}

/// An owner that is there, or is not.
fn some_owner(world: &World, choices: &mut Choices<'_>) -> Value {
    let keys = world.keys();
    let there = keys.get(choices.below(keys.len() * 2)).and_then(|key| world.get(key));
    let mut reference = match there {
        Some(object) => owner(object),
        None => {
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "nowhere", "uid": "11111111-1111-1111-1111-111111111111" })
        }
    };
    reference["controller"] = choices.once_in(2).into();
    reference
}

fn policy(choices: &mut Choices<'_>, world: &World) -> Value {
    let name = choices.one(&POLICIES);
    let spec = policy_spec(choices);
    let mut policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": name },
        "spec": spec,
    });
    adorn(&mut policy, choices, world);
    policy
}

fn policy_spec(choices: &mut Choices<'_>) -> Value {
    let mut spec = json!({ "podSelector": parsed(choices.one(&SELECTORS)) });
    let (ingress, egress) = (choices.one(&RULES), choices.one(&RULES).replace("from", "to"));
    for (field, rules) in [("ingress", ingress), ("egress", egress.as_str())] {
        if rules != "[]" {
            spec[field] = parsed(rules);
        }
    }
    let types = parsed(choices.one(&TYPES));
    if !types.is_null() {
        spec["policyTypes"] = types;
    }
    spec
}

fn workload(choices: &mut Choices<'_>, world: &World) -> Value {
    let (kind, name) = (choices.one(&MAKERS), choices.one(&WORKLOADS));
    let labels = parsed(choices.one(&LABELS));
    let mut template =
        json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "c", "image": "c" }] } });
    let replicas = choices.one(&[1, 0, 2]);
    let annotations = parsed(choices.one(&ANNOTATIONS));
    template["metadata"]["annotations"] = annotations;
    dress(&mut template["spec"], choices.once_in(8), choices.once_in(8));
    let spec = match kind {
        "Job" => json!({ "template": template }),
        _ => {
            json!({ "replicas": replicas, "selector": { "matchLabels": { "app": labels["app"] } }, "template": template })
        }
    };
    let version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    let mut workload = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, "spec": spec });
    adorn(&mut workload, choices, world);
    workload
}

fn pod(choices: &mut Choices<'_>, world: &World) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": choices.one(&["bare", "db-1", "web-0"]), "labels": parsed(choices.one(&LABELS)) },
        "spec": { "containers": [{ "name": "c", "image": "c" }] },
        "status": { "phase": "Running", "podIP": "10.0.1.1" },
    });
    adorn(&mut pod, choices, world);
    if choices.once_in(8) {
        pod["spec"]["hostNetwork"] = true.into();
    }
    pod
}

/// Puts a pod on its host's network, or a container in it that is a proxy in name only.
fn dress(spec: &mut Value, host: bool, fake: bool) {
    if host {
        spec["hostNetwork"] = true.into();
    }
    if fake {
        with_fake_proxy(spec);
    }
}

/// Owners and finalizers from the first moment on, at times.
fn adorn(object: &mut Value, choices: &mut Choices<'_>, world: &World) {
    if choices.once_in(4) {
        object["metadata"]["ownerReferences"] = json!([some_owner(world, choices)]);
    }
    if choices.once_in(4) {
        object["metadata"]["finalizers"] = json!(["example.com/later"]);
    }
}

fn any_key(world: &World, choices: &mut Choices<'_>) -> Key {
    // Policies are what it is about.
    let policies = world.names("NetworkPolicy");
    if !policies.is_empty() && !choices.once_in(2) {
        return ("NetworkPolicy".to_owned(), choices.one(&policies).to_owned());
    }
    let keys = world.keys();
    keys.get(choices.below(keys.len())).cloned().unwrap_or_default()
}

fn workload_key(world: &World, choices: &mut Choices<'_>) -> Key {
    keyed(world, choices, &["Deployment", "StatefulSet", "ReplicaSet", "Pod"])
}

fn scaled_key(world: &World, choices: &mut Choices<'_>) -> Key {
    keyed(world, choices, &["Deployment", "StatefulSet", "ReplicaSet"])
}

fn keyed(world: &World, choices: &mut Choices<'_>, kinds: &[&str]) -> Key {
    let mut keys = world.keys();
    keys.retain(|(kind, _)| kinds.contains(&kind.as_str()));
    if keys.is_empty() {
        return Key::default();
    }
    keys.swap_remove(choices.below(keys.len()))
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
