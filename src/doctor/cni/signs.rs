//! What an implementation is known by.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::doctor::Known;

/// What of a cluster tells of an implementation, each as the API server gave it or why it did not.
#[derive(Debug)]
pub struct Signals {
    /// All DaemonSets.
    pub daemon_sets: Known<Vec<Value>>,
    /// Deployments of `kube-system`.
    pub deployments: Known<Vec<Value>>,
    /// All nodes.
    pub nodes: Known<Vec<Value>>,
    /// The ConfigMaps of [`super::CONFIG_MAPS`] that are there, by name.
    pub config_maps: BTreeMap<&'static str, Value>,
    /// The ClusterRole `kindnet`, where it is there and may be read.
    pub kindnet_role: Option<Value>,
    /// `networks.config.openshift.io/cluster`, where there is one.
    pub openshift_network: Option<Value>,
    /// `networks.operator.openshift.io/cluster`, where there is one.
    pub openshift_operator: Option<Value>,
}

/// Of a cluster that shows nothing.
impl Default for Signals {
    fn default() -> Self {
        Self {
            daemon_sets: Ok(Vec::new()),
            deployments: Ok(Vec::new()),
            nodes: Ok(Vec::new()),
            config_maps: BTreeMap::new(),
            kindnet_role: None,
            openshift_network: None,
            openshift_operator: None,
        }
    }
}

/// A sign.
pub(super) enum Sign {
    /// A DaemonSet of this name on its nodes' network, scheduled somewhere. Only what may do anything
    /// on a node runs there, so a tenant's DaemonSet of that name is none.
    DaemonSet(&'static str),
    /// A container of this name in it.
    Container(&'static str, &'static str),
    /// An argument of some container of a DaemonSet or Deployment of that name.
    Argument(&'static str, &'static str),
    /// An environment variable of some container of it.
    Variable(&'static str, &'static str, &'static str),
    /// A value in a ConfigMap.
    Setting(&'static str, &'static str, &'static str),
    /// A text somewhere in a ConfigMap's value.
    SettingHolds(&'static str, &'static str, &'static str),
    /// A node whose kubelet's version holds this.
    KubeletVersion(&'static str),
    /// A node with a label that begins like this.
    NodeLabel(&'static str),
    /// A node with an annotation that begins like this.
    NodeAnnotation(&'static str),
    /// A node whose arguments, as k3s and RKE2 note them, hold this.
    NodeArgument(&'static str),
    /// The ClusterRole of kindnet may list NetworkPolicies, or (false) may not.
    KindnetReadsPolicies(bool),
    /// OpenShift says that its network is of this type.
    NetworkType(&'static str),
    /// The mode of OpenShift's own network.
    SdnMode(&'static str),
}

impl Sign {
    /// What was seen, in words; nothing where it was not.
    pub(super) fn seen(&self, signals: &Signals) -> Option<String> {
        match self {
            Self::DaemonSet(name) => {
                let found = daemon_set(signals, name)?;
                let (ready, desired) = (number(found, "numberReady"), number(found, "desiredNumberScheduled"));
                let namespace = text(found, "/metadata/namespace");
                let nodes = match (ready, desired) {
                    (Some(ready), Some(desired)) if ready < desired => {
                        format!(", ready on {ready} of {desired} nodes")
                    }
                    _ => String::new(),
                };
                Some(format!("DaemonSet {namespace}/{name}{nodes}"))
            }
            Self::Container(owner, name) => {
                let is_it = |container: &&Value| text(container, "/name") == *name;
                let found = daemon_set(signals, owner).is_some_and(|it| containers(it).any(|it| is_it(&it)));
                found.then(|| format!("container `{name}` in DaemonSet {owner}"))
            }
            Self::Argument(owner, argument) => {
                let found = workloads(signals, owner).flat_map(containers).any(|container| {
                    ["args", "command"].iter().any(|field| {
                        strings(container.get(*field)).any(|text| text.split_whitespace().any(|it| it == *argument))
                    })
                });
                found.then(|| format!("argument `{argument}` of {owner}"))
            }
            Self::Variable(owner, name, value) => {
                let is_set = |variable: &Value| text(variable, "/name") == *name && text(variable, "/value") == *value;
                let found = workloads(signals, owner)
                    .flat_map(containers)
                    .any(|container| list(container.get("env")).any(is_set));
                found.then(|| format!("variable {name}={value} of {owner}"))
            }
            Self::Setting(map, key, value) => (setting(signals, map, key)?.trim() == *value)
                .then(|| format!("`{key}: {value}` in ConfigMap kube-system/{map}")),
            Self::SettingHolds(map, key, part) => {
                let held: String = setting(signals, map, key)?.split_whitespace().collect();
                held.contains(part).then(|| format!("`{part}` in `{key}` of ConfigMap kube-system/{map}"))
            }
            Self::KubeletVersion(part) => {
                node(signals, |node| text(node, "/status/nodeInfo/kubeletVersion").contains(part))
                    .map(|name| format!("node {name} runs a kubelet of version `…{part}…`"))
            }
            Self::NodeLabel(prefix) => node(signals, |node| has_key(node, "labels", prefix))
                .map(|name| format!("label `{prefix}…` of node {name}")),
            Self::NodeAnnotation(prefix) => node(signals, |node| has_key(node, "annotations", prefix))
                .map(|name| format!("annotation `{prefix}…` of node {name}")),
            Self::NodeArgument(argument) => node(signals, |node| {
                ["k3s.io~1node-args", "rke2.io~1node-args"]
                    .iter()
                    .any(|key| text(node, &format!("/metadata/annotations/{key}")).contains(argument))
            })
            .map(|name| format!("node {name} was started with `{argument}`")),
            Self::KindnetReadsPolicies(expected) => {
                let role = signals.kindnet_role.as_ref()?;
                let reads = list(role.get("rules"))
                    .any(|rule| strings(rule.get("resources")).any(|it| it == "networkpolicies" || it == "*"));
                let not = if reads { "" } else { " not" };
                (reads == *expected).then(|| format!("ClusterRole kindnet may{not} read NetworkPolicies"))
            }
            Self::NetworkType(kind) => {
                let network = signals.openshift_network.as_ref()?;
                let said = ["/status/networkType", "/spec/networkType"].map(|path| text(network, path));
                said.contains(kind).then(|| format!("network type {kind} of OpenShift"))
            }
            Self::SdnMode(mode) => {
                let path = "/spec/defaultNetwork/openshiftSDNConfig/mode";
                (text(signals.openshift_operator.as_ref()?, path) == *mode)
                    .then(|| format!("OpenShift SDN in mode {mode}"))
            }
        }
    }
}

/// A DaemonSet on its nodes' network, by name.
fn daemon_set<'a>(signals: &'a Signals, name: &str) -> Option<&'a Value> {
    signals.daemon_sets.iter().flatten().find(|it| {
        text(it, "/metadata/name") == name
            && it.pointer("/spec/template/spec/hostNetwork") == Some(&Value::Bool(true))
            && number(it, "desiredNumberScheduled") != Some(0)
    })
}

/// What runs under a name.
fn workloads<'a>(signals: &'a Signals, name: &'a str) -> impl Iterator<Item = &'a Value> {
    let deployments = signals.deployments.iter().flatten().filter(move |it| text(it, "/metadata/name") == name);
    daemon_set(signals, name).into_iter().chain(deployments)
}

fn containers(workload: &Value) -> impl Iterator<Item = &Value> {
    list(workload.pointer("/spec/template/spec/containers"))
        .chain(list(workload.pointer("/spec/template/spec/initContainers")))
}

fn node(signals: &Signals, is_it: impl Fn(&Value) -> bool) -> Option<&str> {
    signals.nodes.iter().flatten().find(|node| is_it(node)).map(|node| text(node, "/metadata/name"))
}

fn has_key(object: &Value, field: &str, prefix: &str) -> bool {
    let fields = object.pointer(&format!("/metadata/{field}")).and_then(Value::as_object);
    fields.is_some_and(|fields| fields.keys().any(|key| key.starts_with(prefix)))
}

fn setting<'a>(signals: &'a Signals, map: &str, key: &str) -> Option<&'a str> {
    signals.config_maps.get(map)?.get("data")?.get(key)?.as_str()
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    list(value).filter_map(Value::as_str)
}

fn number(object: &Value, field: &str) -> Option<u64> {
    object.get("status")?.get(field)?.as_u64()
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}
