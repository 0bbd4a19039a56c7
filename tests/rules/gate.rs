//! A gate over a cluster given as YAML.

use jiff::Timestamp;
use portcullis::cluster::Cluster;
use portcullis::config;
use portcullis::k8s;
use portcullis::model::{Change, Object, ObjectRef};
use portcullis::rules::{Action, Finding, RuleSet};
use portcullis::yaml::{self, Source};

/// Cluster DNS as kubeadm sets it up, for tests to put their own namespaces beside.
pub(crate) const DNS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns, kubernetes.io/name: CoreDNS}}
spec:
  clusterIP: 10.96.0.10
  selector: {k8s-app: kube-dns}
  ports: [{name: dns, protocol: UDP, port: 53, targetPort: 53}, {name: dns-tcp, protocol: TCP, port: 53, targetPort: 53}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system}
spec: {template: {metadata: {labels: {k8s-app: kube-dns}}, spec: {dnsPolicy: Default, containers: [{name: coredns}]}}}
";

/// A namespace that isolates every pod and lets names be resolved.
pub(crate) const CLOSED: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-dns, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]
    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
";

/// A Deployment whose pods carry `app: NAME`.
pub(crate) fn deployment(namespace: &str, name: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{{name: c}}]}}}}}}}}"
    )
}

/// A NetworkPolicy with this spec, as flow YAML without its braces.
pub(crate) fn policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{{spec}}}}}"
    )
}

pub(crate) struct Gate {
    pub(crate) objects: Vec<Object>,
    rules: RuleSet,
    now: Timestamp,
}

impl Gate {
    /// A gate with its default settings over these documents.
    pub(crate) fn over(documents: &[&str]) -> Self {
        Self { objects: objects(&documents.join("\n---\n")), rules: rules(""), now: Timestamp::UNIX_EPOCH }
    }

    /// The same with these settings.
    pub(crate) fn with(mut self, settings: &str) -> Self {
        self.rules = rules(settings);
        self
    }

    pub(crate) fn at(mut self, now: &str) -> Self {
        self.now = now.parse().unwrap();
        self
    }

    pub(crate) fn cluster(&self) -> Cluster {
        Cluster::of(self.objects.iter().cloned())
    }

    pub(crate) fn create(&self, object: &str) -> Verdicts {
        self.judge(&Change::Create(one(object)))
    }

    /// An update of the object of the same identity in the cluster.
    pub(crate) fn update(&self, object: &str) -> Verdicts {
        let new = one(object);
        let old = self.find(&new.reference());
        self.judge(&Change::Update(old, new))
    }

    pub(crate) fn delete(&self, kind: &str, namespace: &str, name: &str) -> Verdicts {
        let namespace = (kind != "Namespace").then(|| namespace.into());
        self.judge(&Change::Delete(self.find(&ObjectRef { kind: kind.into(), namespace, name: name.into() })))
    }

    /// Everything that is wrong with the cluster as it stands.
    pub(crate) fn check(&self) -> Verdicts {
        Verdicts(self.rules.judge_all(&self.cluster(), self.now))
    }

    fn judge(&self, change: &Change) -> Verdicts {
        Verdicts(self.rules.judge(&self.cluster(), change, self.now))
    }

    fn find(&self, reference: &ObjectRef) -> Object {
        let found = self.objects.iter().rfind(|object| object.reference() == *reference);
        found.unwrap_or_else(|| panic!("there is no {reference}")).clone()
    }
}

fn rules(settings: &str) -> RuleSet {
    config::read(Source::new("settings", settings)).unwrap_or_else(|error| panic!("{error}")).rule_set()
}

pub(crate) fn objects(documents: &str) -> Vec<Object> {
    let documents = yaml::parse(documents).into_iter().map(|document| document.unwrap_or_else(|it| panic!("{it:?}")));
    let lowered = documents.filter(|it| !it.is_empty()).map(|it| k8s::lower_value(&it.value(), "default"));
    lowered.map(|it| it.object.unwrap_or_else(|| panic!("{:?}", it.problems))).collect()
}

fn one(document: &str) -> Object {
    let [object] = objects(document).try_into().unwrap();
    object
}

/// What was found.
pub(crate) struct Verdicts(pub(crate) Vec<Finding>);

impl Verdicts {
    /// The strongest action a rule takes; nothing where it is silent.
    pub(crate) fn of(&self, code: &str) -> Option<Action> {
        self.0.iter().filter(|finding| finding.rule.code == code).map(|finding| finding.action).max()
    }

    #[track_caller]
    pub(crate) fn denied(&self, code: &str) -> &Finding {
        assert_eq!(self.of(code), Some(Action::Deny), "{code} should deny: {self:#?}");
        self.first(code)
    }

    #[track_caller]
    pub(crate) fn warned(&self, code: &str) -> &Finding {
        assert_eq!(self.of(code), Some(Action::Warn), "{code} should warn: {self:#?}");
        self.first(code)
    }

    #[track_caller]
    pub(crate) fn silent(&self, code: &str) {
        assert_eq!(self.of(code), None, "{code} should be silent: {self:#?}");
    }

    /// Nothing is denied and nothing is new.
    #[track_caller]
    pub(crate) fn harmless(&self) {
        assert!(self.0.iter().all(|it| it.standing && it.action < Action::Deny), "{self:#?}");
    }

    fn first(&self, code: &str) -> &Finding {
        self.0.iter().find(|finding| finding.rule.code == code).unwrap()
    }
}

impl std::fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for finding in &self.0 {
            let standing = if finding.standing { " (standing)" } else { "" };
            writeln!(f, "{} {}{standing}: {}", finding.action, finding.rule.code, finding.message)?;
            for line in &finding.evidence {
                writeln!(f, "  - {line}")?;
            }
        }
        Ok(())
    }
}
