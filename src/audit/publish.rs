//! Reports, written when they change.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

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
}

/// The reports there are of one flavour.
struct Known {
    group: &'static str,
    listed: Instant,
    /// By namespace; the cluster's has none.
    reports: BTreeMap<String, Report>,
}

/// A report there is.
struct Report {
    content: Map<String, Value>,
    version: String,
}

impl Publisher {
    pub(super) fn new(client: Client, metrics: Metrics, trust: Duration) -> Self {
        Self { client, metrics, trust, known: None }
    }

    /// Writes what has changed since the last time. `may_go_on` is asked before each write.
    pub(super) async fn publish(
        &mut self,
        rules: &RuleSet,
        scan: &Scan,
        may_go_on: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let Some(flavour) = self.installed().await? else {
            self.known = None;
            return Ok(());
        };
        let wanted = wanted(rules, scan);
        // Where what is there is not what was known, it is looked at anew, once.
        for _ in 0..2 {
            let mut known = match self.known.take() {
                Some(known) if known.group == flavour.group && known.listed.elapsed() < self.trust => known,
                _ => Known { group: flavour.group, listed: Instant::now(), reports: self.list(flavour).await? },
            };
            let written = self.bring(flavour, &wanted, &mut known.reports, scan.at.as_second(), &may_go_on).await;
            if !matches!(written, Ok(Written::Overtaken)) {
                self.known = Some(known);
                return written.map(drop);
            }
        }
        Ok(())
    }

    /// Makes of the reports there are those that are wanted. What the API server refuses of one, by a
    /// quota of its namespace for example, is an error in the end and keeps nothing from the others.
    async fn bring(
        &self,
        flavour: &Flavour,
        wanted: &BTreeMap<String, Map<String, Value>>,
        known: &mut BTreeMap<String, Report>,
        seconds: i64,
        may_go_on: &impl Fn() -> bool,
    ) -> Result<Written, Error> {
        let (mut outcome, mut refused) = (Written::All, None);
        for (namespace, content) in wanted {
            if known.get(namespace).is_some_and(|known| known.content == *content) {
                continue;
            }
            if !may_go_on() {
                break;
            }
            let version = known.get(namespace).map(|known| known.version.clone());
            match self.write(flavour, namespace, content, version, seconds).await {
                Ok(Some(version)) => {
                    self.metrics.report_written();
                    known.insert(namespace.clone(), Report { content: content.clone(), version });
                }
                // Somebody else has changed or removed it, or the namespace is going.
                Ok(None) => outcome = Written::Overtaken,
                Err(error) if is_about_one(&error) => refused = refused.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        let stale: Vec<String> = known.keys().filter(|namespace| !wanted.contains_key(*namespace)).cloned().collect();
        for namespace in stale {
            // A namespace that became exempt; one that went took its report along.
            if may_go_on() {
                let _ = self.api(flavour, &namespace).delete(NAME, &DeleteParams::default()).await;
                known.remove(&namespace);
            }
        }
        refused.map_or(Ok(outcome), Err)
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
    async fn list(&self, flavour: &Flavour) -> Result<BTreeMap<String, Report>, Error> {
        let mut known = BTreeMap::new();
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
                        known.insert(namespace, Report { content: content_of(report), version });
                    }
                }
                match found.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => page = page.continue_token(&token),
                    None => break,
                }
            }
        }
        Ok(known)
    }

    /// Writes one; nothing where what is there is not what was known.
    async fn write(
        &self,
        flavour: &Flavour,
        namespace: &str,
        content: &Map<String, Value>,
        version: Option<String>,
        seconds: i64,
    ) -> Result<Option<String>, Error> {
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
            fields.extend(content.clone());
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
            Ok(written) => Ok(Some(written.metadata.resource_version.unwrap_or_default())),
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            // A namespace that is being deleted takes nothing new.
            Err(Error::Api(status)) if status.code == 403 && status.message.contains("being terminated") => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How far reports were brought to what is wanted.
enum Written {
    /// As far as they could be.
    All,
    /// Something was not as it was known.
    Overtaken,
}

/// Whether an error is about one object and not about whoever asks for all of them.
pub(super) fn is_about_one(error: &Error) -> bool {
    match error {
        // What RBAC does not allow it allows nowhere: "User … cannot create resource …".
        Error::Api(status) if status.code == 403 => !status.message.contains(" cannot "),
        Error::Api(status) => matches!(status.code, 400 | 404 | 409 | 413 | 422),
        _ => false,
    }
}

/// What each report has to say, by namespace; the cluster's has none.
fn wanted(rules: &RuleSet, scan: &Scan) -> BTreeMap<String, Map<String, Value>> {
    let mut findings: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in &scan.findings {
        findings.entry(finding.namespace.as_deref().unwrap_or_default()).or_default().push(finding);
    }
    let judged: Vec<_> = rules.rules.iter().map(|active| active.rule.meta()).collect();
    let mut wanted = BTreeMap::new();
    for posture in &scan.namespaces {
        let name = posture.namespace.as_str();
        let found = findings.remove(name).unwrap_or_default();
        // Of an exempt namespace it is told what was found all the same, and not that rules pass
        // which are not about it.
        let judged = match (posture.is_exempt, found.is_empty()) {
            (true, true) => continue,
            (true, false) => &[],
            (false, _) => judged.as_slice(),
        };
        wanted.insert(name.to_owned(), content::of(judged, found, Some(name)));
    }
    // In the cluster as a whole a rule passes where it does in every namespace.
    let is_passed = |meta: &&Meta| !scan.findings.iter().any(|it| it.rule.code == meta.code);
    let passed: Vec<_> = judged.into_iter().filter(is_passed).collect();
    wanted.insert(String::new(), content::of(&passed, findings.remove("").unwrap_or_default(), None));
    wanted
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
