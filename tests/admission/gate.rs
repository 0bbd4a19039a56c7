//! A gate over a cluster of manifests, and reviews as the API server writes them.

use jiff::Timestamp;
use portcullis::admission::{self, Answer};
use portcullis::cluster::Cluster;
use portcullis::config::{self, Settings};
use portcullis::k8s::lower_value;
use portcullis::rules::{ActiveRule, RuleSet};
use portcullis::yaml::{self, Source};
use serde_json::{Value, json};

pub(crate) const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

/// A namespace nothing defends, with cluster DNS known.
pub(crate) const OPEN: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: 10.96.0.10
  selector: {k8s-app: kube-dns}
  ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system}
spec:
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec: {containers: [{name: coredns, image: coredns}]}
";

/// [`OPEN`] with a default-deny that lets names be resolved, and a Deployment behind it.
pub(crate) fn closed() -> String {
    [OPEN, DEFAULT_DENY, CART].join("\n---\n")
}

pub(crate) const DEFAULT_DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  egress:
  - to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
      podSelector: {matchLabels: {k8s-app: kube-dns}}
    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
";

/// Admits everything, to the pods that carry `open: \"yes\"`.
pub(crate) const OPENS_SOME: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: shop}
spec:
  podSelector: {matchLabels: {open: 'yes'}}
  policyTypes: [Ingress, Egress]
  ingress: [{}]
  egress: [{}]
";

pub(crate) const ALLOW_ALL: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-all, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: [{}]
  egress: [{}]
";

pub(crate) const CART: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop}
spec:
  template:
    metadata: {labels: {app: cart}}
    spec: {containers: [{name: cart, image: cart}]}
";

pub(crate) const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: debug, namespace: shop, labels: {app: debug}}
spec: {containers: [{name: debug, image: debug}]}
";

/// An object of the namespace with a controller.
pub(crate) fn owned(object: &str, kind: &str, name: &str) -> String {
    let group = if ["Deployment", "ReplicaSet", "StatefulSet"].contains(&kind) { "apps" } else { "example.com" };
    let owner =
        format!("ownerReferences: [{{apiVersion: {group}/v1, kind: {kind}, name: {name}, uid: u, controller: true}}]");
    let (start, rest) = object.split_once("namespace: shop").unwrap();
    format!("{start}namespace: shop, {owner}{rest}")
}

/// One document of YAML.
pub(crate) fn object(text: &str) -> Value {
    let mut documents = objects(text);
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0)
}

fn objects(text: &str) -> Vec<Value> {
    let documents = yaml::parse(text).into_iter().map(|document| document.unwrap());
    documents.filter(|document| !document.is_empty()).map(|document| document.value()).collect()
}

/// A review under construction.
#[derive(Clone)]
pub(crate) struct Review {
    pub(crate) request: Value,
}

pub(crate) fn create(object: &str) -> Review {
    Review::of("CREATE", Some(self::object(object)), None)
}

pub(crate) fn update(old: &str, new: &str) -> Review {
    Review::of("UPDATE", Some(object(new)), Some(object(old)))
}

pub(crate) fn delete(old: &str) -> Review {
    Review::of("DELETE", None, Some(object(old)))
}

impl Review {
    fn of(operation: &str, new: Option<Value>, old: Option<Value>) -> Self {
        let object = new.as_ref().or(old.as_ref()).unwrap();
        let (group, version) = match object["apiVersion"].as_str().unwrap().split_once('/') {
            Some((group, version)) => (group, version),
            None => ("", "v1"),
        };
        let kind = json!({ "group": group, "version": version, "kind": object["kind"] });
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        // Of a Namespace, the request's namespace is its own name.
        let namespace = match object["kind"].as_str() {
            Some("Namespace") => name,
            _ => object["metadata"]["namespace"].as_str().unwrap_or_default(),
        };
        let request = json!({
            "uid": UID,
            "kind": kind,
            "requestKind": kind,
            "name": name,
            "namespace": namespace,
            "operation": operation,
            "userInfo": { "username": "alice", "groups": ["system:authenticated"] },
            "object": new,
            "oldObject": old,
            "dryRun": false,
            "options": null,
        });
        Self { request }
    }

    /// The same with a field of the request set.
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.request[field] = value.into();
        self
    }

    pub(crate) fn by(self, username: &str) -> Self {
        self.with("userInfo", json!({ "username": username }))
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": self.request });
        review.to_string().into_bytes()
    }
}

/// What judges.
pub(crate) struct Gate {
    pub(crate) rules: RuleSet,
    pub(crate) cluster: Cluster,
}

/// A gate with the defaults over these manifests.
pub(crate) fn gate(cluster: &str) -> Gate {
    let objects = objects(cluster).into_iter().map(|object| {
        let lowered = lower_value(&object, "default");
        assert_eq!(lowered.problems, [], "{object}");
        lowered.object.unwrap()
    });
    Gate { rules: Settings::default().rule_set(), cluster: Cluster::of(objects) }
}

impl Gate {
    pub(crate) fn configured(self, settings: &str) -> Self {
        let settings = config::read(Source::new("gate.yaml", settings)).unwrap_or_else(|error| panic!("{error}"));
        Self { rules: settings.rule_set(), ..self }
    }

    pub(crate) fn with_rule(mut self, rule: ActiveRule) -> Self {
        self.rules.rules.insert(0, rule);
        self
    }

    pub(crate) fn answer(&self, body: &[u8]) -> Answer {
        admission::review(
            &self.rules,
            (&self.cluster).into(),
            body,
            "2026-06-01T12:00:00Z".parse::<Timestamp>().unwrap(),
        )
    }

    /// The `response` of the answer.
    pub(crate) fn response(&self, review: &Review) -> Value {
        let answer = self.answer(&review.body());
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        let mut body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["response"]["allowed"], answer.record.allowed);
        body["response"].take()
    }

    /// What of the request becomes: `deny`, `warn`, `audit`, or nothing where nothing was found.
    pub(crate) fn verdict(&self, review: &Review) -> Option<String> {
        let response = self.response(review);
        let verdict = response["auditAnnotations"]["verdict"].as_str().map(str::to_owned);
        assert_eq!(response["allowed"] == false, verdict.as_deref() == Some("deny"));
        assert!(verdict.as_deref() != Some("audit") || response["warnings"].is_null(), "{response:#}");
        verdict
    }

    #[track_caller]
    pub(crate) fn denies(&self, review: &Review) {
        assert_eq!(self.verdict(review).as_deref(), Some("deny"), "{:#}", self.response(review));
    }

    #[track_caller]
    pub(crate) fn warns(&self, review: &Review) {
        assert_eq!(self.verdict(review).as_deref(), Some("warn"), "{:#}", self.response(review));
    }

    #[track_caller]
    pub(crate) fn only_records(&self, review: &Review) {
        assert_eq!(self.verdict(review).as_deref(), Some("audit"), "{:#}", self.response(review));
    }

    /// Nothing is found, nothing is said.
    #[track_caller]
    pub(crate) fn passes(&self, review: &Review) {
        assert_eq!(self.response(review), json!({ "uid": UID, "allowed": true }));
    }
}
