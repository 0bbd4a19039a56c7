//! The webhook configuration as it stands: what it trusts, what it refuses, what it asks about; and
//! the patches that put right what is the gate's to keep.
//!
//! Patches carry the version they were made from, so that whoever changed the object in between is
//! not overruled by what was read before.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kube::core::DynamicObject;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::{Value, json};

use super::issue::Facts;
use super::keyring::pem;
use super::trust;
use crate::admission::{GUARD, NOT_PODS_OF_OPERATORS, OWNED_PODS};

/// Annotations by which something else fills in `caBundle`.
const INJECTORS: [&str; 4] = [
    "cert-manager.io/inject-ca-from",
    "cert-manager.io/inject-ca-from-secret",
    "cert-manager.io/inject-apiserver-ca",
    "service.beta.openshift.io/inject-cabundle",
];

/// A webhook configuration, as far as the gate looks at it.
#[derive(Debug)]
pub(super) struct Registered {
    name: String,
    version: String,
    injector: Option<String>,
    entries: Vec<Entry>,
}

/// What of the requests an entry is about, by its name. No entry asks in another's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// All that no other entry is about.
    Gate,
    /// The pods that operators make.
    OwnedPods,
    /// What cuts off cluster DNS and the gate itself.
    Guard,
}

/// One of its webhooks.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    name: String,
    client_config: ClientConfig,
    failure_policy: Option<String>,
    match_policy: Option<String>,
    namespace_selector: Selector,
    object_selector: Selector,
    rules: Vec<Rule>,
    match_conditions: Vec<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Requirement>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Requirement {
    key: String,
    operator: String,
    values: BTreeSet<String>,
}

/// `matchConditions[*]`: all must hold, so that one more leaves out more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    name: String,
    expression: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClientConfig {
    ca_bundle: Option<String>,
    service: Option<Service>,
    url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Service {
    namespace: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    api_groups: Vec<String>,
    api_versions: Vec<String>,
    operations: Vec<String>,
    resources: Vec<String>,
    scope: Option<String>,
}

impl Rule {
    /// Whether it asks about this, of which the other rule asks about one resource and operation.
    fn asks(&self, group: &str, resource: &str, operation: &str, of: &Self) -> bool {
        let any = |list: &[String], one: &str| list.iter().any(|it| it == one || it == "*");
        // Where any version will do one that is served is enough: the others are equivalent.
        let is_version = match of.api_versions.first() {
            Some(version) if version != "*" => any(&self.api_versions, version),
            Some(_) | None => of.api_versions.is_empty() || !self.api_versions.is_empty(),
        };
        let is_scope = match self.scope.as_deref() {
            None | Some("*") => true,
            scope => scope == of.scope.as_deref(),
        };
        any(&self.api_groups, group)
            && is_version
            && any(&self.operations, operation)
            && (any(&self.resources, resource) || self.resources.iter().any(|it| it == "*/*"))
            && is_scope
    }

    /// Each group, resource and operation.
    fn all(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.api_groups.iter().flat_map(move |group| {
            self.resources.iter().flat_map(move |resource| {
                self.operations.iter().map(move |it| (group.as_str(), resource.as_str(), it.as_str()))
            })
        })
    }
}

/// The Service of the gate.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) namespace: String,
    pub(super) service: String,
}

/// What becomes of requests the gate does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// They are refused.
    Fail,
    /// They are let through.
    Ignore,
}

impl FailurePolicy {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "Fail",
            Self::Ignore => "Ignore",
        }
    }
}

impl Entry {
    /// What the API server calls the server, and expects its certificate to say.
    fn server_name(&self) -> Option<String> {
        let ClientConfig { service, url, .. } = &self.client_config;
        match (service, url) {
            (Some(Service { namespace, name }), _) => Some(format!("{name}.{namespace}.svc")),
            (None, Some(url)) => {
                let uri: axum::http::Uri = url.parse().ok()?;
                Some(uri.host()?.trim_matches(['[', ']']).to_owned())
            }
            (None, None) => None,
        }
    }

    fn bundle(&self) -> Vec<CertificateDer<'static>> {
        let encoded = self.client_config.ca_bundle.as_deref().unwrap_or_default();
        trust::certificates(&STANDARD.decode(encoded).unwrap_or_default())
    }

    fn part(&self) -> Part {
        match self.name.as_str() {
            GUARD => Part::Guard,
            OWNED_PODS => Part::OwnedPods,
            _ => Part::Gate,
        }
    }

    /// Whether it leaves the pods of operators to an entry of their own.
    fn shares_pods(&self) -> bool {
        self.match_conditions.iter().any(|it| it.name == NOT_PODS_OF_OPERATORS)
    }

    /// What it leaves out that another, for the same part, does not. `known` are the conditions by which
    /// nothing is left out that a rule reads.
    fn leaves_out(&self, ideal: &Self, known: &[Condition]) -> Vec<String> {
        let mut found = Vec::new();
        if self.match_policy.as_deref() == Some("Exact") {
            found.push("other versions of the same objects (`matchPolicy: Exact`)".to_owned());
        }
        let Selector { match_labels, match_expressions } = &self.object_selector;
        if !match_labels.is_empty() || !match_expressions.is_empty() {
            found.push("objects by their labels (`objectSelector`)".to_owned());
        }
        let Selector { match_labels, match_expressions } = &self.namespace_selector;
        let labels = match_labels.iter().map(|(key, value)| format!("namespaces without `{key}={value}`"));
        found.extend(labels);
        for Requirement { key, operator, values } in match_expressions {
            let same = ideal.namespace_selector.match_expressions.iter().find(|it| it.key == *key);
            let meant = same.filter(|it| it.operator == *operator).map(|it| &it.values);
            let more: Vec<_> = match (operator.as_str(), meant) {
                ("NotIn", Some(meant)) => values.difference(meant).collect(),
                ("In", Some(meant)) => meant.difference(values).collect(),
                _ => {
                    found.push(format!("namespaces by `{key}` (`namespaceSelector`)"));
                    continue;
                }
            };
            found.extend(more.into_iter().map(|name| format!("namespace `{name}`")));
        }
        let is_meant = |condition: &Condition| known.contains(condition) || ideal.match_conditions.contains(condition);
        let others = self.match_conditions.iter().filter(|condition| !is_meant(condition));
        found.extend(others.map(|it| format!("what the condition `{}` is not true of", it.name)));
        found
    }

    fn failure_policy(&self) -> FailurePolicy {
        // What an API server takes where nothing is said.
        if self.failure_policy.as_deref() == Some("Ignore") { FailurePolicy::Ignore } else { FailurePolicy::Fail }
    }
}

impl Registered {
    /// Reads a configuration. Entries that lead to another Service than the gate's are left out.
    pub(super) fn of(object: &DynamicObject, own: Option<&Own>) -> Self {
        let is_own = |entry: &Entry| match (&entry.client_config.service, own) {
            (Some(Service { namespace, name }), Some(own)) => *namespace == own.namespace && *name == own.service,
            (None, _) | (_, None) => true,
        };
        let entries = object.data.get("webhooks").cloned().unwrap_or_default();
        let entries: Vec<Entry> = serde_json::from_value(entries).unwrap_or_default();
        let annotations = object.metadata.annotations.clone().unwrap_or_default();
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            version: object.metadata.resource_version.clone().unwrap_or_default(),
            injector: INJECTORS.iter().find(|it| annotations.contains_key(**it)).map(|it| (*it).to_owned()),
            entries: entries.into_iter().filter(is_own).collect(),
        }
    }

    /// Whether it has the entry for the namespaces of cluster DNS and of the gate itself.
    pub(super) fn has_guard(&self) -> bool {
        self.entries.iter().any(|entry| entry.part() == Part::Guard)
    }

    /// Whether no webhook of it leads to the gate.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Why `caBundle` is not the gate's to write; nothing where it is.
    pub(super) fn is_managed_elsewhere(&self) -> Option<String> {
        let injector = self.injector.as_ref()?;
        Some(format!("the annotation `{injector}` says that something else fills in its `caBundle`"))
    }

    /// The patch that puts this bundle in every entry; nothing where it is there.
    ///
    /// What portcullis did not issue stays beside it until it expires: while gates are replaced by
    /// such as take their certificate from elsewhere, or the other way round, both are called.
    pub(super) fn with_bundle(&self, bundle: &str, now: Timestamp) -> Option<Value> {
        let wanted = trust::certificates(bundle.as_bytes());
        let is_foreign = |certificate: &CertificateDer<'_>| {
            Facts::of_der(certificate).is_some_and(|facts| !facts.is_our_authority() && !facts.is_expired(now))
        };
        self.patch(|entry| {
            let found = entry.bundle();
            let foreign: Vec<_> = found.iter().filter(|it| is_foreign(it)).collect();
            // Their order says nothing.
            let is_wanted = |it: &CertificateDer<'_>| wanted.contains(it) || foreign.contains(&it);
            let is_there = found.iter().all(is_wanted) && wanted.iter().all(|it| found.contains(it));
            let encoded = || STANDARD.encode(foreign.iter().fold(bundle.to_owned(), |all, it| all + &pem(it)));
            (!is_there).then(|| json!({ "clientConfig": { "caBundle": encoded() } }))
        })
    }

    /// The patch that sets the failure policy; nothing where it is set. Entries that hold nothing up by
    /// what they are about stay as they are.
    pub(super) fn with_failure_policy(&self, policy: FailurePolicy) -> Option<Value> {
        self.patch(|entry| {
            let concerned = entry.part() == Part::Gate && entry.failure_policy() != policy;
            concerned.then(|| json!({ "failurePolicy": policy.as_str() }))
        })
    }

    /// A strategic merge: entries go by their names.
    fn patch(&self, change: impl Fn(&Entry) -> Option<Value>) -> Option<Value> {
        let mut entries = Vec::new();
        for entry in &self.entries {
            if let Some(Value::Object(mut changed)) = change(entry) {
                changed.insert("name".to_owned(), entry.name.clone().into());
                entries.push(Value::Object(changed));
            }
        }
        let patch = json!({ "metadata": { "resourceVersion": self.version }, "webhooks": entries });
        (!entries.is_empty()).then_some(patch)
    }

    /// Whether every entry trusts this certificate authority.
    pub(super) fn knows(&self, authority: &str) -> bool {
        let wanted = trust::certificates(authority.as_bytes());
        !self.entries.is_empty()
            && self.entries.iter().all(|entry| {
                let bundle = entry.bundle();
                wanted.iter().all(|certificate| bundle.contains(certificate))
            })
    }

    /// Whether every entry verifies this chain; else why the first does not.
    pub(super) fn verifies(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), String> {
        for entry in &self.entries {
            let Some(name) = entry.server_name() else { continue };
            trust::verify(chain, &entry.bundle(), &name, now).map_err(|why| {
                format!("the served certificate is not what `{}` of `{}` trusts: {why}", entry.name, self.name)
            })?;
        }
        Ok(())
    }

    /// The authorities of gates that some entry trusts and that have not expired; none where the
    /// bundles are not the gate's to write.
    pub(super) fn authorities(&self, now: jiff::Timestamp) -> Vec<CertificateDer<'static>> {
        let mut authorities = Vec::new();
        if self.is_managed_elsewhere().is_some() {
            return authorities;
        }
        for certificate in self.entries.iter().flat_map(Entry::bundle) {
            let is_ours = |facts: Facts| facts.is_our_authority() && !facts.is_expired(now);
            if Facts::of_der(&certificate).is_some_and(is_ours) && !authorities.contains(&certificate) {
                authorities.push(certificate);
            }
        }
        authorities
    }

    /// When the last certificate of all bundles expires.
    pub(super) fn bundle_expires(&self) -> Option<Timestamp> {
        let bundles = self
            .entries
            .iter()
            .map(|entry| entry.bundle().iter().filter_map(|it| Facts::of_der(it)).map(|facts| facts.not_after).max());
        bundles.flatten().min()
    }

    /// Whether what the gate does not answer is refused.
    pub(super) fn fails_closed(&self) -> bool {
        self.entries.iter().any(|entry| entry.failure_policy() == FailurePolicy::Fail)
    }

    /// What another registration asks about and this one does not: `UPDATE pods`. No entry asks in
    /// another's place, but for the pods of operators where the first entry leaves none of them out.
    pub(super) fn lacks(&self, ideal: &Self) -> Vec<String> {
        let mut missing = BTreeSet::new();
        for entry in &ideal.entries {
            let part = entry.part();
            let is_asked_by = |it: &&Entry| {
                it.part() == part || part == Part::OwnedPods && it.part() == Part::Gate && !it.shares_pods()
            };
            let rules: Vec<_> = self.entries.iter().filter(is_asked_by).flat_map(|it| &it.rules).collect();
            let of = match part {
                Part::Gate => String::new(),
                Part::OwnedPods => format!(" of `{OWNED_PODS}`"),
                Part::Guard => format!(" of `{GUARD}`"),
            };
            for wanted in &entry.rules {
                for (group, resource, operation) in wanted.all() {
                    if !rules.iter().any(|rule| rule.asks(group, resource, operation, wanted)) {
                        missing.insert((part, group, resource, format!("{operation} {resource}{of}")));
                    }
                }
            }
        }
        missing.into_iter().map(|(.., what)| what).collect()
    }

    /// What this registration leaves out that another does not, whatever it asks about: namespaces,
    /// objects, and what conditions are not true of.
    pub(super) fn leaves_out(&self, ideal: &Self, known: &[Condition]) -> Vec<String> {
        let beside = |entry: &Entry| {
            let ideal = ideal.entries.iter().find(|it| it.part() == entry.part())?;
            Some(entry.leaves_out(ideal, known))
        };
        let found: BTreeSet<_> = self.entries.iter().filter_map(beside).flatten().collect();
        found.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::issue;
    use super::*;

    fn read(webhooks: &Value, annotations: &Value) -> Registered {
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": { "name": "portcullis", "resourceVersion": "7", "annotations": annotations },
            "webhooks": webhooks,
        });
        let own = Own { namespace: "ns".to_owned(), service: "gate".to_owned() };
        Registered::of(&serde_json::from_value(object).unwrap(), Some(&own))
    }

    fn entry(name: &str, service: &str, bundle: &str) -> Value {
        json!({
            "name": name,
            "clientConfig": { "service": { "namespace": "ns", "name": service }, "caBundle": STANDARD.encode(bundle) },
        })
    }

    fn authority() -> String {
        issue::authority(Timestamp::now(), Duration::from_hours(1)).unwrap().certificate
    }

    #[test]
    fn entries_of_other_services_are_left_alone() {
        let registered = read(&json!([entry("gate", "gate", ""), entry("other", "other", "")]), &json!({}));
        let patch = registered.with_bundle(&authority(), Timestamp::now()).unwrap();
        assert_eq!(patch["webhooks"].as_array().unwrap().len(), 1);
        assert_eq!(
            (&patch["webhooks"][0]["name"], &patch["metadata"]["resourceVersion"]),
            (&json!("gate"), &json!("7"))
        );
    }

    /// The bundle that an entry with the one gets where the other is wanted; nothing where it stays.
    fn patched(found: &str, wanted: &str) -> Option<BTreeSet<Vec<u8>>> {
        let patch = read(&json!([entry("gate", "gate", found)]), &json!({})).with_bundle(wanted, Timestamp::now())?;
        let bundle = STANDARD.decode(patch["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap()).unwrap();
        Some(of(std::str::from_utf8(&bundle).unwrap()))
    }

    fn of(pem: &str) -> BTreeSet<Vec<u8>> {
        trust::certificates(pem.as_bytes()).iter().map(|it| it.to_vec()).collect()
    }

    fn foreign(not_after: (i32, u8, u8)) -> String {
        let mut params = rcgen::CertificateParams::new(["ca".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(not_after.0, not_after.1, not_after.2);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn a_bundle_that_is_there_is_not_written_again_and_an_old_one_of_ours_is() {
        let (old, new) = (authority(), authority());
        let with = |bundle: &str| read(&json!([entry("gate", "gate", bundle)]), &json!({}));
        assert_eq!(patched(&new, &new), None);
        assert_eq!(patched(&format!("{old}{new}"), &format!("{new}{old}")), None);
        assert_eq!((patched(&old, &new), patched("", &new)), (Some(of(&new)), Some(of(&new))));
        assert!(with(&format!("{old}{new}")).knows(&old) && !with(&new).knows(&old));
    }

    #[test]
    fn what_others_are_trusted_by_stays_beside_our_own_until_it_expires() {
        let (own, other, expired) = (authority(), foreign((4000, 1, 1)), foreign((2001, 1, 1)));
        let both = format!("{own}{other}");
        assert_eq!(patched(&other, &own), Some(of(&both)));
        assert_eq!(patched(&both, &own), None);
        assert_eq!(patched(&format!("{both}{}", authority()), &own), Some(of(&both)), "our own old ones go");
        assert_eq!(patched(&format!("{both}{expired}"), &own), Some(of(&both)));
    }

    #[test]
    fn what_somebody_else_fills_in_is_known_by_its_annotation() {
        let annotated = read(&json!([entry("gate", "gate", "")]), &json!({ "cert-manager.io/inject-ca-from": "a/b" }));
        assert!(annotated.is_managed_elsewhere().unwrap().contains("cert-manager.io/inject-ca-from"));
        assert_eq!(read(&json!([entry("gate", "gate", &authority())]), &json!({})).is_managed_elsewhere(), None);
    }

    #[test]
    fn the_failure_policy_of_what_the_cluster_heals_with_stays() {
        let ignoring = |name: &str| {
            let mut entry = entry(name, "gate", "");
            entry["failurePolicy"] = "Ignore".into();
            entry
        };
        let registered = read(&json!([ignoring("gate"), ignoring(OWNED_PODS), ignoring(GUARD)]), &json!({}));
        let patch = registered.with_failure_policy(FailurePolicy::Fail).unwrap();
        assert_eq!(patch["webhooks"], json!([{ "name": "gate", "failurePolicy": "Fail" }]));
        assert_eq!(registered.with_failure_policy(FailurePolicy::Ignore), None);
        assert!(!registered.fails_closed());
    }

    #[test]
    fn whatever_narrows_it_is_named_and_what_follows_from_the_configuration_is_not() {
        let selector = |operator: &str, values: Value| json!({ "matchExpressions": [{ "key": "kubernetes.io/metadata.name", "operator": operator, "values": values }] });
        let client = json!({ "url": "https://gate" });
        let ideal = json!([
            { "name": "gate", "clientConfig": client, "namespaceSelector": selector("NotIn", json!(["a", "b"])) },
            { "name": GUARD, "clientConfig": client, "namespaceSelector": selector("In", json!(["a", "b"])) },
        ]);
        let known: Vec<Condition> = serde_json::from_value(json!([{ "name": "c", "expression": "x" }])).unwrap();
        let ideal = read(&ideal, &json!({}));
        let narrowed = |name: &str, field: &str, value: Value| {
            let mut entry = json!({ "name": name, "clientConfig": client });
            entry[field] = value;
            read(&json!([entry]), &json!({})).leaves_out(&ideal, &known)
        };
        for (name, field, value, left_out) in [
            ("gate", "namespaceSelector", selector("NotIn", json!(["b", "shop"])), "namespace `shop`"),
            (
                "gate",
                "namespaceSelector",
                selector("In", json!(["shop"])),
                "namespaces by `kubernetes.io/metadata.name` (`namespaceSelector`)",
            ),
            (GUARD, "namespaceSelector", selector("In", json!(["a"])), "namespace `b`"),
            ("gate", "namespaceSelector", json!({ "matchLabels": { "team": "a" } }), "namespaces without `team=a`"),
            (
                "gate",
                "objectSelector",
                json!({ "matchLabels": { "team": "a" } }),
                "objects by their labels (`objectSelector`)",
            ),
            ("gate", "matchPolicy", json!("Exact"), "other versions of the same objects (`matchPolicy: Exact`)"),
            (
                "gate",
                "matchConditions",
                json!([{ "name": "c", "expression": "y" }]),
                "what the condition `c` is not true of",
            ),
        ] {
            assert_eq!(narrowed(name, field, value), [left_out], "{name} {field}");
        }
        for (name, field, value) in [
            ("gate", "namespaceSelector", selector("NotIn", json!(["b"]))),
            ("gate", "namespaceSelector", json!({})),
            (GUARD, "namespaceSelector", selector("In", json!(["a", "b", "c"]))),
            ("gate", "objectSelector", json!({})),
            ("gate", "matchPolicy", json!("Equivalent")),
            ("gate", "matchConditions", json!([{ "name": "c", "expression": "x" }])),
        ] {
            assert_eq!(narrowed(name, field, value), [""; 0], "{name} {field}");
        }
    }

    #[test]
    fn what_is_not_asked_about_is_named() {
        let asking = |operations: Value, resources: Value| {
            read(
                &json!([{ "name": "gate", "clientConfig": { "url": "https://gate" },
                "rules": [{ "apiGroups": ["apps"], "operations": operations, "resources": resources }] }]),
                &json!({}),
            )
        };
        let ideal = asking(json!(["CREATE", "UPDATE"]), json!(["deployments"]));
        assert_eq!(asking(json!(["CREATE"]), json!(["deployments"])).lacks(&ideal), ["UPDATE deployments"]);
        assert!(asking(json!(["*"]), json!(["*"])).lacks(&ideal).is_empty());
    }

    #[test]
    fn pods_of_operators_are_a_gap_where_the_first_entry_leaves_them_to_one_that_is_not_there() {
        let asking = |name: &str, condition: &str| {
            json!({ "name": name, "clientConfig": { "url": "https://gate" },
                "rules": [{ "apiGroups": [""], "operations": ["CREATE"], "resources": ["pods"] }],
                "matchConditions": [{ "name": condition, "expression": "x" }] })
        };
        let of = |entries: &[Value]| read(&json!(entries), &json!({}));
        let (gate, owned) = (asking("gate", NOT_PODS_OF_OPERATORS), asking(OWNED_PODS, "pods-of-operators"));
        let ideal = of(&[gate.clone(), owned.clone()]);
        let gaps = |here: &Registered| (here.lacks(&ideal), here.leaves_out(&ideal, &[]));
        assert_eq!(gaps(&ideal), (Vec::new(), Vec::new()));
        assert_eq!(of(std::slice::from_ref(&gate)).lacks(&ideal), [format!("CREATE pods of `{OWNED_PODS}`")]);
        assert_eq!(of(&[asking("gate", "pods-of-operators")]).lacks(&ideal), [""; 0], "one entry asks about all");
        let swapped = of(&[asking("gate", "pods-of-operators"), owned]);
        assert_eq!(gaps(&swapped).1, ["what the condition `pods-of-operators` is not true of"]);
    }

    #[test]
    fn what_is_asked_in_other_namespaces_versions_or_scopes_is_not_asked() {
        let rule = |version: &str, scope: Option<&str>| json!({ "apiGroups": ["apps"], "apiVersions": [version], "operations": ["CREATE"], "resources": ["deployments"], "scope": scope });
        let of = |entries: &[(&str, Option<Value>)]| {
            let entries = entries.iter().map(|(name, rule)| {
                let rules: Vec<_> = rule.iter().collect();
                json!({ "name": name, "clientConfig": { "url": "https://gate" }, "rules": rules })
            });
            read(&entries.collect(), &json!({}))
        };
        let usual = rule("v1", Some("Namespaced"));
        let ideal = of(&[("gate", Some(usual.clone())), (GUARD, Some(usual.clone()))]);
        let guard = (GUARD, Some(usual.clone()));
        assert_eq!(of(&[("gate", None), guard.clone()]).lacks(&ideal), ["CREATE deployments"]);
        assert_eq!(
            of(&[("gate", Some(usual)), (GUARD, None)]).lacks(&ideal),
            [format!("CREATE deployments of `{GUARD}`")]
        );
        assert_eq!(of(std::slice::from_ref(&guard)).lacks(&ideal), ["CREATE deployments"], "the entry is gone");
        for other in [rule("v1beta1", None), rule("v1", Some("Cluster"))] {
            assert_eq!(of(&[("gate", Some(other)), guard.clone()]).lacks(&ideal), ["CREATE deployments"]);
        }
        for same in [rule("v1", None), rule("*", Some("*"))] {
            assert_eq!(of(&[("gate", Some(same)), guard.clone()]).lacks(&ideal), [""; 0]);
        }
        let of_any_version = of(&[("gate", Some(rule("*", Some("Namespaced"))))]);
        assert_eq!(of(&[("gate", Some(rule("v1", Some("Namespaced"))))]).lacks(&of_any_version), [""; 0]);
    }
}
