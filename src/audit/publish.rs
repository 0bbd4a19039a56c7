//! Reports, written when they change.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::left::Left;
use super::refusals::{Refusals, is_about_one};
use super::{Scan, content};
use crate::rules::{Finding, Meta, RuleSet};
use crate::telemetry::Metrics;

/// The label reports are known by as this program's.
const OWN: &str = "app.kubernetes.io/managed-by=portcullis";
/// What every report is called.
const NAME: &str = "portcullis";
/// How many are listed at a time.
const PAGE: u32 = 250;

/// A kind of reports that may be installed.
struct Flavour {
    group: &'static str,
    version: &'static str,
    namespaced: &'static str,
    clustered: &'static str,
}

/// In the order they are preferred: the second was the first's name until 2025.
const FLAVOURS: [Flavour; 2] = [
    Flavour { group: "openreports.io", version: "v1alpha1", namespaced: "Report", clustered: "ClusterReport" },
    Flavour {
        group: "wgpolicyk8s.io",
        version: "v1alpha2",
        namespaced: "PolicyReport",
        clustered: "ClusterPolicyReport",
    },
];

/// What writes reports, and what it has written.
pub(super) struct Publisher {
    client: Client,
    metrics: Metrics,
    /// For how long it is believed that reports are as they were left: somebody may remove one.
    trust: Duration,
    known: Option<Known>,
    refusals: Refusals,
    /// What the reports said that there were at first, until it is asked for; nothing before they were
    /// listed.
    left: Option<Left>,
    has_listed: bool,
}

/// The reports there are of one flavour.
struct Known {
    group: &'static str,
    listed: Instant,
    /// By namespace; the cluster's has none.
    reports: BTreeMap<String, Report>,
}

/// A report there is: of what it says, only whether it is the same is of interest.
struct Report {
    fingerprint: u64,
    version: String,
}

/// How far what has changed was written.
enum Written {
    /// As far as it was still to be.
    Whole,
    /// Something there is was not as it was known.
    Outdated,
}

/// What became of one report.
enum Put {
    /// It is there, in this version.
    Taken(String),
    /// What is there is not what was known: somebody else has changed or removed it.
    Outdated(Error),
    /// Its namespace is being deleted, and takes nothing new.
    Leaving,
}

impl Publisher {
    pub(super) fn new(client: Client, metrics: Metrics, trust: Duration) -> Self {
        let refusals = Refusals::new("report", trust);
        Self { client, metrics, trust, known: None, refusals, left: None, has_listed: false }
    }

    /// What the reports said before anything was written here. It is told once.
    pub(super) fn left(&mut self) -> Option<Left> {
        self.left.take()
    }

    /// Writes what has changed since the last time. `may_go_on` is asked before each write. What is
    /// refused of single namespaces is no error.
    pub(super) async fn publish(
        &mut self,
        rules: &RuleSet,
        scan: &Scan,
        may_go_on: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let Some(flavour) = self.installed().await? else {
            self.known = None;
            self.refusals.retain(|_| false);
            self.metrics.reports_refused(0);
            return Ok(());
        };
        // What somebody else has changed is listed anew, once.
        for is_again in [false, true] {
            let mut known = match self.known.take() {
                Some(known) if known.group == flavour.group && known.listed.elapsed() < self.trust => known,
                _ => Known { group: flavour.group, listed: Instant::now(), reports: self.list(flavour).await? },
            };
            let written = self.write_changed(flavour, &mut known.reports, is_again, rules, scan, &may_go_on).await;
            self.metrics.reports_refused(self.refusals.count());
            if let Written::Whole = written? {
                self.known = Some(known);
                break;
            }
        }
        Ok(())
    }

    /// Writes what has changed. What the API server refuses of one report, by a quota of its namespace
    /// for example, keeps nothing from the others.
    async fn write_changed(
        &mut self,
        flavour: &Flavour,
        known: &mut BTreeMap<String, Report>,
        is_again: bool,
        rules: &RuleSet,
        scan: &Scan,
        may_go_on: impl Fn() -> bool,
    ) -> Result<Written, Error> {
        let mut findings: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
        for finding in &scan.findings {
            findings.entry(finding.namespace.as_deref().unwrap_or_default()).or_default().push(finding);
        }
        // A rule that failed has not passed anywhere.
        let has_answered = |meta: &&Meta| !scan.findings.iter().any(|it| it.failed == Some(*meta));
        let judged: Vec<_> = rules.rules.iter().map(|active| active.rule.meta()).filter(has_answered).collect();
        // In the cluster as a whole a rule passes where it does in every namespace.
        let is_passed = |meta: &&Meta| !scan.findings.iter().any(|it| it.rule.code == meta.code);
        let passed: Vec<_> = judged.iter().copied().filter(is_passed).collect();
        // Of an exempt namespace it is told what was found all the same, and not that rules pass which
        // are not about it.
        let told = scan.namespaces.iter().filter(|it| !it.is_exempt || findings.contains_key(it.namespace.as_str()));
        let wanted: BTreeMap<&str, &[&Meta]> = told
            .map(|posture| (posture.namespace.as_str(), if posture.is_exempt { &[] } else { judged.as_slice() }))
            // The cluster's own has no namespace.
            .chain([("", passed.as_slice())])
            .collect();
        self.refusals.retain(|namespace| wanted.contains_key(namespace));
        let mut written = Written::Whole;
        // One at a time: of a large cluster they are together many times what each of them is.
        for (namespace, judged) in &wanted {
            let found = findings.remove(namespace).unwrap_or_default();
            let content = content::of(judged, found, Some(*namespace).filter(|name| !name.is_empty()));
            let fingerprint = fingerprint(&content);
            if known.get(*namespace).is_some_and(|known| known.fingerprint == fingerprint) {
                self.refusals.remove(namespace);
                continue;
            }
            if self.refusals.is_waiting(namespace, Instant::now()) {
                continue;
            }
            if !may_go_on() {
                break;
            }
            let version = known.get(*namespace).map(|known| known.version.clone());
            match self.write(flavour, namespace, content, version, scan.at.as_second()).await {
                Ok(Put::Taken(version)) => {
                    self.refusals.remove(namespace);
                    self.metrics.report_written();
                    known.insert((*namespace).to_owned(), Report { fingerprint, version });
                }
                // It takes what stands in it along, however long something keeps it.
                Ok(Put::Leaving) => {}
                // What is there after all have just been listed is not the gate's, or not by its label any more.
                Ok(Put::Outdated(error)) if is_again && !known.contains_key(*namespace) => {
                    self.refusals.add(namespace, &error, Instant::now());
                }
                Ok(Put::Outdated(_)) => written = Written::Outdated,
                Err(error) if is_about_one(&error) => self.refusals.add(namespace, &error, Instant::now()),
                Err(error) => return Err(error),
            }
        }
        // A namespace that became exempt; one that went took its report along.
        let stale: Vec<String> = known.keys().filter(|name| !wanted.contains_key(name.as_str())).cloned().collect();
        for namespace in stale {
            if may_go_on() {
                let _ = self.api(flavour, &namespace).delete(NAME, &DeleteParams::default()).await;
                known.remove(&namespace);
            }
        }
        Ok(written)
    }

    /// Which reports are installed.
    async fn installed(&self) -> Result<Option<&'static Flavour>, Error> {
        let groups = self.client.list_api_groups().await?;
        let has = |flavour: &&Flavour| {
            let version = format!("{}/{}", flavour.group, flavour.version);
            groups.groups.iter().any(|group| group.versions.iter().any(|it| it.group_version == version))
        };
        Ok(FLAVOURS.iter().find(has))
    }

    fn api(&self, flavour: &Flavour, namespace: &str) -> Api<DynamicObject> {
        let resource = |kind| ApiResource::from_gvk(&GroupVersionKind::gvk(flavour.group, flavour.version, kind));
        if namespace.is_empty() {
            return Api::all_with(self.client.clone(), &resource(flavour.clustered));
        }
        Api::namespaced_with(self.client.clone(), namespace, &resource(flavour.namespaced))
    }

    /// The reports there are, whichever replica wrote them.
    async fn list(&mut self, flavour: &Flavour) -> Result<BTreeMap<String, Report>, Error> {
        let (mut known, mut left) = (BTreeMap::new(), Left::default());
        for kind in [flavour.namespaced, flavour.clustered] {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(flavour.group, flavour.version, kind));
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            let mut page = ListParams::default().labels(OWN).limit(PAGE);
            loop {
                let found = api.list(&page).await?;
                for report in found.items {
                    if report.metadata.name.as_deref() == Some(NAME) {
                        let version = report.metadata.resource_version.clone().unwrap_or_default();
                        let namespace = report.metadata.namespace.clone().unwrap_or_default();
                        let content = content_of(report);
                        if !self.has_listed {
                            left.add(&namespace, &content);
                        }
                        known.insert(namespace, Report { fingerprint: fingerprint(&content), version });
                    }
                }
                match found.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => page = page.continue_token(&token),
                    None => break,
                }
            }
        }
        if !std::mem::replace(&mut self.has_listed, true) {
            self.left = Some(left);
        }
        Ok(known)
    }

    /// Writes one.
    async fn write(
        &self,
        flavour: &Flavour,
        namespace: &str,
        content: Map<String, Value>,
        version: Option<String>,
        seconds: i64,
    ) -> Result<Put, Error> {
        let kind = if namespace.is_empty() { flavour.clustered } else { flavour.namespaced };
        let mut report = json!({
            "apiVersion": format!("{}/{}", flavour.group, flavour.version),
            "kind": kind,
            "metadata": {
                "name": NAME,
                // Of the one that was known, if one was: another's is not written over.
                "resourceVersion": version,
                "labels": {
                    "app.kubernetes.io/managed-by": "portcullis",
                    "app.kubernetes.io/name": "portcullis",
                },
            },
        });
        if let Some(fields) = report.as_object_mut() {
            fields.extend(content);
            if flavour.group == "openreports.io" {
                fields.insert("source".to_owned(), content::SOURCE.into());
            }
            for result in fields.get_mut("results").and_then(Value::as_array_mut).into_iter().flatten() {
                result["timestamp"] = json!({ "seconds": seconds, "nanos": 0 });
            }
        }
        let report: DynamicObject = serde_json::from_value(report).map_err(Error::SerdeError)?;
        let api = self.api(flavour, namespace);
        let written = match version {
            Some(_) => api.replace(NAME, &PostParams::default(), &report).await,
            None => api.create(&PostParams::default(), &report).await,
        };
        match written {
            Ok(written) => Ok(Put::Taken(written.metadata.resource_version.unwrap_or_default())),
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Put::Outdated(Error::Api(status))),
            Err(Error::Api(status)) if status.code == 403 && status.message.contains("being terminated") => {
                Ok(Put::Leaving)
            }
            Err(error) => Err(error),
        }
    }
}

/// The content of a report as it was written: without what changes though nothing has.
fn content_of(report: DynamicObject) -> Map<String, Value> {
    let Value::Object(mut fields) = report.data else { return Map::new() };
    for result in fields.get_mut("results").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(result) = result.as_object_mut() {
            result.remove("timestamp");
        }
    }
    fields.retain(|name, _| matches!(name.as_str(), "scope" | "summary" | "results"));
    fields
}

/// The same for the same content, in whatever order its fields come.
fn fingerprint(content: &Map<String, Value>) -> u64 {
    fn walk(value: &Value, hasher: &mut DefaultHasher) {
        match value {
            Value::Object(fields) => {
                fields.len().hash(hasher);
                for (name, value) in fields.iter().collect::<BTreeMap<_, _>>() {
                    name.hash(hasher);
                    walk(value, hasher);
                }
            }
            Value::Array(items) => {
                items.len().hash(hasher);
                for item in items {
                    walk(item, hasher);
                }
            }
            leaf => leaf.to_string().hash(hasher),
        }
    }
    let mut hasher = DefaultHasher::new();
    content.len().hash(&mut hasher);
    for (name, value) in content.iter().collect::<BTreeMap<_, _>>() {
        name.hash(&mut hasher);
        walk(value, &mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Paths that were written to, and what was.
    type Writes = Arc<Mutex<Vec<(String, Value)>>>;

    /// A publisher, and what its API server was asked to write, with its path; it has openreports and
    /// takes nothing in the namespace `full`.
    fn publisher() -> (Publisher, Writes) {
        let written = Writes::default();
        let writing = Arc::clone(&written);
        let service = tower::service_fn(move |request: axum::http::Request<kube::client::Body>| {
            let written = Arc::clone(&writing);
            async move {
                let path = request.uri().path().to_owned();
                let is_write = request.method() != axum::http::Method::GET;
                if is_write {
                    let body = request.into_body().collect_bytes().await.unwrap();
                    written.lock().unwrap().push((path.clone(), serde_json::from_slice(&body).unwrap()));
                }
                let version = json!({ "groupVersion": "openreports.io/v1alpha1", "version": "v1alpha1" });
                let (code, answer) = match path.as_str() {
                    "/apis" => (200, json!({ "groups": [{ "name": "openreports.io", "versions": [version] }] })),
                    path if path.contains("/going/") => {
                        let message =
                            "forbidden: unable to create new content in namespace going because it is being terminated";
                        (403, json!({ "status": "Failure", "message": message, "code": 403 }))
                    }
                    path if path.contains("/taken/") => {
                        (409, json!({ "status": "Failure", "message": "already exists", "code": 409 }))
                    }
                    path if path.contains("/full/") => {
                        (403, json!({ "status": "Failure", "message": "exceeded quota: none", "code": 403 }))
                    }
                    _ if is_write => (201, json!({ "metadata": { "name": NAME, "resourceVersion": "1" } })),
                    _ => (200, json!({ "metadata": {}, "items": [] })),
                };
                let body = kube::client::Body::from(answer.to_string().into_bytes());
                Ok::<_, std::io::Error>(axum::http::Response::builder().status(code).body(body).unwrap())
            }
        });
        (Publisher::new(Client::new(service, "default"), Metrics::default(), Duration::from_mins(10)), written)
    }

    /// What is found in a cluster of these namespaces, in which nothing is.
    fn scanned(rules: &RuleSet, namespaces: &[&str]) -> Scan {
        let mut index = crate::cluster::Index::new();
        for name in namespaces {
            let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
            index.apply(crate::k8s::lower_value(&namespace, "default").object.unwrap());
        }
        crate::audit::scan(rules, &index.snapshot(), jiff::Timestamp::now())
    }

    #[tokio::test]
    async fn a_rule_that_failed_is_not_said_to_pass() {
        let (mut publisher, written) = publisher();
        let rules = crate::config::Settings::default().rule_set();
        let mut scan = scanned(&rules, &["shop"]);
        let cluster = crate::model::ObjectRef { kind: "Cluster".into(), namespace: None, name: "cluster".into() };
        let failed = crate::rules::entry("dns-blackhole").map(|entry| entry.meta);
        let path = crate::model::FieldPath::root();
        scan.findings.push(Finding { failed, ..Finding::new(None, cluster, path, "it failed".to_owned()) });
        publisher.publish(&rules, &scan, || true).await.unwrap();
        let written = written.lock().unwrap().clone();
        assert_eq!(written.len(), 2, "the namespace's and the cluster's");
        for (path, report) in written {
            let results = report["results"].as_array().unwrap();
            let of = |policy: &str| results.iter().find(|it| it["policy"] == policy).map(|it| it["result"].clone());
            assert_eq!((of("dns-blackhole"), of("wildcard-ip-block")), (None, Some("pass".into())), "{path}");
        }
    }

    #[tokio::test]
    async fn a_report_that_is_refused_is_not_tried_again_before_the_next_pass_and_nothing_fails() {
        let (mut publisher, written) = publisher();
        let rules = crate::config::Settings::default().rule_set();
        let scan = scanned(&rules, &["full", "shop"]);
        for _ in 0..3 {
            publisher.publish(&rules, &scan, || true).await.unwrap();
        }
        let of = |namespace: &str| written.lock().unwrap().iter().filter(|(path, _)| path.contains(namespace)).count();
        assert_eq!((of("/full/"), of("/shop/"), publisher.refusals.count()), (1, 1, 1));
    }

    #[tokio::test]
    async fn a_namespace_that_does_not_get_gone_is_no_reason_to_list_all_reports_anew() {
        let (mut publisher, _) = publisher();
        let rules = crate::config::Settings::default().rule_set();
        publisher.publish(&rules, &scanned(&rules, &["going", "shop"]), || true).await.unwrap();
        assert_eq!(publisher.known.as_ref().map(|known| known.reports.len()), Some(2), "the cluster's and one");
        assert_eq!(publisher.refusals.count(), 0);
    }

    #[tokio::test]
    async fn a_report_of_somebody_else_is_left_alone_and_no_reason_to_list_all_reports_anew() {
        let (mut publisher, written) = publisher();
        let rules = crate::config::Settings::default().rule_set();
        for _ in 0..3 {
            publisher.publish(&rules, &scanned(&rules, &["shop", "taken"]), || true).await.unwrap();
            assert!(publisher.known.is_some());
        }
        let tried = written.lock().unwrap().iter().filter(|(path, _)| path.contains("/taken/")).count();
        assert_eq!((tried, publisher.refusals.count()), (2, 1), "once more after they were listed");
    }

    fn of(text: &str) -> u64 {
        fingerprint(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn the_order_of_fields_does_not_matter_and_everything_else_does() {
        let one = of(r#"{"a": {"x": 1, "y": [1, 2]}, "b": "c"}"#);
        assert_eq!(one, of(r#"{"b": "c", "a": {"y": [1, 2], "x": 1}}"#));
        for other in [
            r#"{"a": {"x": 1, "y": [2, 1]}, "b": "c"}"#,
            r#"{"a": {"x": 1, "y": [1, 2]}, "b": "d"}"#,
            r#"{"a": {"x": 1, "y": [1, 2], "z": null}, "b": "c"}"#,
            r#"{"a": {"x": "1", "y": [1, 2]}, "b": "c"}"#,
            r#"{"a": {"x": 1, "y": [1, 2]}}"#,
        ] {
            assert_ne!(one, of(other), "{other}");
        }
    }
}
