//! Reports, written when they change.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

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

/// A report there is: of what it says, only whether it is the same is of interest.
struct Known {
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
        let written = self.write_changed(flavour, &mut known, rules, scan, may_go_on).await;
        // What somebody else has changed is listed anew.
        if !matches!(written, Ok(Written::Outdated)) {
            self.known = Some((flavour.group, known));
        }
        written.map(drop)
    }

    async fn write_changed(
        &self,
        flavour: &Flavour,
        known: &mut BTreeMap<String, Known>,
        rules: &RuleSet,
        scan: &Scan,
        may_go_on: impl Fn() -> bool,
    ) -> Result<Written, Error> {
        let mut findings: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
        for finding in &scan.findings {
            findings.entry(finding.namespace.as_deref().unwrap_or_default()).or_default().push(finding);
        }
        let judged = scan.namespaces.iter().filter(|posture| !posture.is_exempt);
        // The cluster's own has no namespace.
        let wanted: BTreeSet<&str> = judged.map(|posture| posture.namespace.as_str()).chain([""]).collect();
        let mut outcome = Written::Whole;
        // One at a time: of a large cluster they are together many times what each of them is.
        for namespace in &wanted {
            let found = findings.remove(namespace).unwrap_or_default();
            let content = content::of(rules, found, Some(*namespace).filter(|name| !name.is_empty()));
            let fingerprint = fingerprint(&content);
            if known.get(*namespace).is_some_and(|known| known.fingerprint == fingerprint) {
                continue;
            }
            if !may_go_on() {
                return Ok(outcome);
            }
            let version = known.get(*namespace).map(|known| known.version.clone());
            match self.write(flavour, namespace, content, version, scan.at.as_second()).await? {
                Some(version) => {
                    self.metrics.report_written();
                    known.insert((*namespace).to_owned(), Known { fingerprint, version });
                }
                // Somebody else has changed or removed it, or the namespace is going.
                None => outcome = Written::Outdated,
            }
        }
        // A namespace that became exempt; one that went took its report along.
        let stale: Vec<String> = known.keys().filter(|name| !wanted.contains(name.as_str())).cloned().collect();
        for namespace in stale {
            if may_go_on() {
                let _ = self.api(flavour, &namespace).delete(NAME, &DeleteParams::default()).await;
                known.remove(&namespace);
            }
        }
        Ok(outcome)
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
                        known.insert(namespace, Known { fingerprint: fingerprint(&content_of(report)), version });
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
        content: Map<String, Value>,
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
    use super::*;

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
