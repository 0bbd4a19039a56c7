//! Reports, written when they change.

use std::collections::BTreeMap;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};
use serde_json::{Map, Value, json};

use super::{Scan, content};
use crate::rules::{Finding, RuleSet};
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
    /// The reports there are of one flavour, by namespace; the cluster's has none. Nothing until they
    /// have been listed.
    known: Option<(&'static str, BTreeMap<String, Known>)>,
}

/// A report there is.
struct Known {
    content: Map<String, Value>,
    version: String,
}

impl Publisher {
    pub(super) fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, metrics, known: None }
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
        let mut known = match self.known.take() {
            Some((group, known)) if group == flavour.group => known,
            _ => self.list(flavour).await?,
        };
        let mut findings: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
        for finding in &scan.findings {
            findings.entry(finding.namespace.as_deref().unwrap_or_default()).or_default().push(finding);
        }
        let mut found = |namespace: &str| findings.remove(namespace).unwrap_or_default();
        let judged = scan.namespaces.iter().filter(|posture| !posture.is_exempt);
        let mut wanted: BTreeMap<String, Map<String, Value>> = judged
            .map(|posture| {
                let name = posture.namespace.as_str();
                (name.to_owned(), content::of(rules, found(name), Some(name)))
            })
            .collect();
        wanted.insert(String::new(), content::of(rules, found(""), None));

        let mut outcome = Ok(());
        for (namespace, content) in &wanted {
            if known.get(namespace).is_some_and(|known| known.content == *content) {
                continue;
            }
            if !may_go_on() {
                break;
            }
            let version = known.get(namespace).map(|known| known.version.clone());
            match self.write(flavour, namespace, content, version, scan.at.as_second()).await {
                Ok(Some(version)) => {
                    self.metrics.report_written();
                    known.insert(namespace.clone(), Known { content: content.clone(), version });
                }
                // Somebody else has changed or removed it, or the namespace is going: looked at anew.
                Ok(None) => {
                    known.remove(namespace);
                    outcome = Err(());
                }
                Err(error) => {
                    self.known = Some((flavour.group, known));
                    return Err(error);
                }
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
        self.known = outcome.is_ok().then_some((flavour.group, known));
        Ok(())
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
    async fn list(&self, flavour: &Flavour) -> Result<BTreeMap<String, Known>, Error> {
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
                        known.insert(namespace, Known { content: content_of(report), version });
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
