//! What tests of rules are written in: a gate over a cluster given as YAML, and what it says.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::{Action, ActiveRule, Environment, Finding, Mode, Profile, RULES, RuleSet, builtin};
use crate::cluster::Cluster;
use crate::model::{Change, Labels, METADATA_NAME, Namespace, Object, ObjectRef};

/// The DNS of a kubeadm cluster: Service, Deployment and two pods.
pub(super) const DNS: &str = r"
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns, kubernetes.io/name: CoreDNS}}
spec:
  clusterIP: 10.96.0.10
  selector: {k8s-app: kube-dns}
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: v1
kind: Pod
metadata: {name: coredns-a, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {dnsPolicy: Default, containers: [{name: dns}]}
status: {podIP: 10.244.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: coredns-b, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {dnsPolicy: Default, containers: [{name: dns}]}
status: {podIP: 10.244.0.3}
";

/// The egress rule that every allow-dns comes down to.
pub(super) const TO_DNS: &str = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]}";

/// A NetworkPolicy: `policy("shop/deny", "podSelector: {}, policyTypes: [Egress]")`.
pub(super) fn policy(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    object("networking.k8s.io/v1", "NetworkPolicy", &format!("name: {name}, namespace: {namespace}"), spec)
}

/// A default-deny that lets names be resolved.
pub(super) fn default_deny(namespace: &str) -> String {
    let spec = format!("podSelector: {{}}, policyTypes: [Ingress, Egress], egress: [{TO_DNS}]");
    policy(&format!("{namespace}/default-deny"), &spec)
}

/// A pod with these labels: `pod("shop/cart", "app: cart")`.
pub(super) fn pod(name: &str, labels: &str) -> String {
    pod_with(name, labels, "")
}

/// A pod with these labels, and these fields in its spec.
pub(super) fn pod_with(name: &str, labels: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    let metadata = format!("name: {name}, namespace: {namespace}, labels: {{{labels}}}");
    object("v1", "Pod", &metadata, spec)
}

/// A Deployment of pods with these labels.
pub(super) fn deployment(name: &str, labels: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    let spec = format!("template: {{metadata: {{labels: {{{labels}}}}}}}");
    object("apps/v1", "Deployment", &format!("name: {name}, namespace: {namespace}"), &spec)
}

/// A namespace with these labels.
pub(super) fn namespace(name: &str, labels: &str) -> String {
    object("v1", "Namespace", &format!("name: {name}, labels: {{{labels}}}"), "")
}

/// A policy of Cilium's.
pub(super) fn cilium(name: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    object("cilium.io/v2", "CiliumNetworkPolicy", &format!("name: {name}, namespace: {namespace}"), "")
}

pub(super) fn object(version: &str, kind: &str, metadata: &str, spec: &str) -> String {
    format!("---\napiVersion: {version}\nkind: {kind}\nmetadata: {{{metadata}}}\nspec: {{{spec}}}\n")
}

/// Every object of a text, lowered.
pub(super) fn objects(yaml: &str) -> Vec<Object> {
    let documents =
        crate::yaml::parse(yaml).into_iter().map(|document| document.unwrap_or_else(|it| panic!("{it:?} in\n{yaml}")));
    let read = documents.filter(|it| !it.is_empty()).map(|document| {
        let lowered = crate::k8s::lower_value(&document.value(), "default");
        lowered.object.unwrap_or_else(|| panic!("no object: {:?} in\n{yaml}", lowered.problems))
    });
    read.collect()
}

/// A cluster and the rules that guard it.
#[derive(Clone)]
pub(super) struct Gate {
    objects: BTreeMap<ObjectRef, Object>,
    chosen: &'static str,
    options: BTreeMap<&'static str, Value>,
    pub(super) environment: Environment,
    profile: Profile,
    mode: Mode,
    now: Timestamp,
}

/// The gate of a cluster that holds these objects, beside the namespaces every cluster has; the
/// rules about network policies as the baseline has them.
pub(super) fn gate(yaml: &str) -> Gate {
    let initial = ["default", "kube-node-lease", "kube-public", "kube-system"].map(|name| {
        let labels = Labels::from([(METADATA_NAME, name)]);
        Object::Namespace(Arc::new(Namespace {
            name: name.into(),
            uid: None,
            labels,
            created: None,
            is_terminating: false,
        }))
    });
    let gate = Gate {
        objects: BTreeMap::new(),
        chosen: "NP",
        options: BTreeMap::new(),
        environment: Environment::default(),
        profile: Profile::Baseline,
        mode: Mode::Enforce,
        now: "2026-11-01T12:00:00Z".parse().unwrap(),
    };
    gate.holding(initial).with(yaml)
}

impl Gate {
    fn holding(mut self, objects: impl IntoIterator<Item = Object>) -> Self {
        self.objects.extend(objects.into_iter().map(|object| (object.reference(), object)));
        self
    }

    /// With these objects added or replaced, unjudged.
    pub(super) fn with(&self, yaml: &str) -> Self {
        self.clone().holding(objects(yaml))
    }

    /// With those rules only whose code starts like this.
    pub(super) fn only(self, code: &'static str) -> Self {
        Self { chosen: code, ..self }
    }

    /// With options of a rule, as YAML.
    pub(super) fn option(mut self, rule: &'static str, yaml: &str) -> Self {
        self.options.insert(rule, crate::yaml::parse(yaml).remove(0).unwrap().value());
        self
    }

    /// With settings about the cluster, each as JSON: `cni`, `dns`, `namespaces`.
    pub(super) fn set(mut self, section: &str, yaml: &str) -> Self {
        let value = crate::yaml::parse(yaml).remove(0).unwrap().value();
        match section {
            "cni" => self.environment.cni = serde_json::from_value(value).unwrap(),
            "dns" => self.environment.dns = serde_json::from_value(value).unwrap(),
            "waivers" => self.environment.waivers = serde_json::from_value(value).unwrap(),
            "namespaces" => self.environment.namespaces = serde_json::from_value(value).unwrap(),
            other => panic!("no section {other}"),
        }
        self
    }

    /// On clusters with this implementation.
    pub(super) fn on(self, cni: &str) -> Self {
        self.set("cni", &format!("name: {cni}"))
    }

    pub(super) fn restricted(self) -> Self {
        Self { profile: Profile::Restricted, ..self }
    }

    pub(super) fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// At another moment.
    pub(super) fn at(self, now: &str) -> Self {
        Self { now: now.parse().unwrap(), ..self }
    }

    fn rules(&self) -> RuleSet {
        let chosen = RULES.iter().filter(|entry| entry.meta.code.starts_with(self.chosen));
        let rules = chosen.filter_map(|entry| {
            let options = self.options.get(entry.meta.name).cloned().unwrap_or_else(|| Value::Object(<_>::default()));
            let action = self.profile.of(entry.meta.baseline, entry.meta.restricted);
            Some(ActiveRule { rule: entry.build(options)?.unwrap_or_else(|error| panic!("{error}")), action })
        });
        let rules: Vec<_> = rules.collect();
        assert!(!rules.is_empty());
        RuleSet {
            rules,
            environment: Environment { mode: self.mode, ..self.environment.clone() },
            profile: self.profile,
            builtin: builtin(|meta| meta.baseline),
            on_error: Action::Warn,
            on_timeout: Action::Deny,
            max_age: jiff::SignedDuration::MAX,
        }
    }

    fn cluster(&self) -> Cluster {
        Cluster::of(self.objects.values().cloned())
    }

    fn judge(&self, change: &Change) -> Said {
        Said(self.rules().judge(&self.cluster(), change, self.now))
    }

    /// What is said of an object's creation.
    pub(super) fn create(&self, yaml: &str) -> Said {
        self.judge(&Change::Create(one(yaml)))
    }

    /// What is said of an object's change; the old one is the one the cluster holds.
    pub(super) fn update(&self, yaml: &str) -> Said {
        let object = one(yaml);
        let old = self.objects.get(&object.reference()).unwrap_or_else(|| panic!("no {}", object.reference()));
        self.judge(&Change::Update(old.clone(), object))
    }

    /// What is said of the deletion of an object: `NetworkPolicy shop/deny`.
    pub(super) fn delete(&self, name: &str) -> Said {
        self.judge(&Change::Delete(self.get(name).clone()))
    }

    /// Without an object.
    pub(super) fn without(&self, name: &str) -> Self {
        let mut gate = self.clone();
        gate.objects.remove(&self.get(name).reference());
        gate
    }

    fn get(&self, name: &str) -> &Object {
        self.objects
            .values()
            .find(|object| object.reference().to_string() == name)
            .unwrap_or_else(|| panic!("no {name}"))
    }

    /// The names of the objects there are, as `NetworkPolicy shop/deny`.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.objects.values().any(|object| object.reference().to_string() == name)
    }

    /// What is said of all of it, as `check` says it: not of namespaces that nothing is put in.
    pub(super) fn check(&self) -> Said {
        let is_of_interest = |object: &&Object| match object {
            Object::Namespace(it) => it.labels.len() > 1 || !it.name.starts_with("kube-") && it.name != "default",
            _ => true,
        };
        let about: BTreeSet<_> =
            self.objects.values().filter(is_of_interest).filter_map(|it| it.namespace().cloned()).collect();
        let mut findings = self.rules().judge_all(&self.cluster(), self.now);
        findings.retain(|finding| finding.namespace.as_ref().is_none_or(|it| about.contains(it)));
        Said(findings)
    }
}

fn one(yaml: &str) -> Object {
    let mut objects = objects(yaml);
    assert_eq!(objects.len(), 1, "one object in\n{yaml}");
    objects.remove(0)
}

/// What was said: findings, gravest first.
#[derive(Debug)]
pub(super) struct Said(pub(super) Vec<Finding>);

impl Said {
    /// Each finding as `deny NP001`, with `standing` behind where it stood before.
    pub(super) fn brief(&self) -> Vec<String> {
        let line = |it: &Finding| {
            let standing = if it.standing { " standing" } else { "" };
            let waived = if it.waived.is_some() { " waived" } else { "" };
            format!("{} {}{standing}{waived}", it.action, it.rule.code)
        };
        self.0.iter().map(line).collect()
    }

    /// Fails unless exactly these findings were made, in [`Said::brief`]'s words.
    #[track_caller]
    pub(super) fn is(&self, expected: &[&str]) -> &Self {
        assert_eq!(self.brief(), expected, "{self:#?}");
        self
    }

    /// Fails if anything was said.
    #[track_caller]
    pub(super) fn nothing(&self) {
        self.is(&[]);
    }

    /// The only finding.
    #[track_caller]
    pub(super) fn only(&self) -> &Finding {
        assert_eq!(self.0.len(), 1, "{self:#?}");
        &self.0[0]
    }

    /// Fails unless some part of what was said holds this text.
    #[track_caller]
    pub(super) fn mentions(&self, text: &str) -> &Self {
        assert!(self.text().contains(text), "`{text}` in\n{}", self.text());
        self
    }

    /// Fails if some part of what was said holds this text.
    #[track_caller]
    pub(super) fn does_not_mention(&self, text: &str) -> &Self {
        assert!(!self.text().contains(text), "`{text}` in\n{}", self.text());
        self
    }

    /// Everything said, as a person reads it.
    pub(super) fn text(&self) -> String {
        let told = |it: &Finding| {
            let path = if it.path.is_root() { String::new() } else { format!(" {}", it.path) };
            let evidence = it.evidence.iter().map(|line| format!("- {line}\n")).collect::<Vec<_>>().concat();
            let Finding { action, rule, object, message, why, help, fix, .. } = it;
            format!("{action} {} {object}{path}\n{message}\nwhy: {why}\n{evidence}help: {help}\n{fix}", rule.code)
        };
        self.0.iter().map(told).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn denied(&self) -> bool {
        self.0.iter().any(|finding| finding.action == Action::Deny)
    }
}
