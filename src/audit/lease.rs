//! Which replica audits: the one that holds a Lease (`coordination.k8s.io/v1`).
//!
//! Another's Lease is judged by when it was *seen* to change, on the clock of this process, and not
//! by the time written in it: clocks of machines differ. Every write names the version it was made
//! from, so of two that try at once one is refused.

use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

/// How long a holder that falls silent is waited for.
pub(super) const TERM: Duration = Duration::from_secs(15);
/// How often a holder renews, and others look.
pub(super) const EVERY: Duration = Duration::from_secs(3);
/// How long a holder believes in itself without having renewed: less than others wait.
pub(super) const BELIEF: Duration = Duration::from_secs(10);

/// One replica's view of the Lease.
pub(super) struct Lease {
    api: Api<DynamicObject>,
    name: String,
    identity: String,
    /// What was last seen of another's, and when it was first seen so.
    seen: Option<(Record, Instant)>,
}

/// `spec` of a Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Record {
    /// Empty where it was given up.
    holder_identity: Option<String>,
    lease_duration_seconds: Option<u64>,
    acquire_time: Option<String>,
    renew_time: Option<String>,
    lease_transitions: Option<i64>,
}

impl Lease {
    pub(super) fn new(client: &Client, namespace: &str, name: &str, identity: &str) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease"));
        Self {
            api: Api::namespaced_with(client.clone(), namespace, &resource),
            name: name.to_owned(),
            identity: identity.to_owned(),
            seen: None,
        }
    }

    /// Takes or renews it, if it is this replica's or nobody's; whether it now is this replica's.
    pub(super) async fn hold(&mut self) -> Result<bool, Error> {
        let Some(found) = self.api.get_opt(&self.name).await? else {
            return self.write(None, Record::default()).await;
        };
        let record = Record::of(&found);
        if record.is_of(&self.identity) {
            self.seen = None;
            return self.write(Some(&found), record).await;
        }
        let since = match &self.seen {
            Some((seen, since)) if *seen == record => *since,
            _ => {
                let now = Instant::now();
                self.seen = Some((record.clone(), now));
                now
            }
        };
        if record.is_of("") || since.elapsed() >= record.term() {
            let transitions = Some(record.lease_transitions.unwrap_or_default() + 1);
            return self.write(Some(&found), Record { lease_transitions: transitions, ..Record::default() }).await;
        }
        Ok(false)
    }

    /// Gives it up, so that the next one need not wait.
    pub(super) async fn release(&mut self) {
        let Ok(Some(found)) = self.api.get_opt(&self.name).await else { return };
        let record = Record::of(&found);
        if !record.is_of(&self.identity) {
            return;
        }
        let given_up = Record { holder_identity: Some(String::new()), lease_duration_seconds: Some(1), ..record };
        if let Err(error) = self.put(Some(&found), &given_up).await {
            tracing::debug!(%error, "the lease cannot be given up, and will run out");
        }
    }

    /// Writes it as this replica's, from now on.
    async fn write(&self, found: Option<&DynamicObject>, record: Record) -> Result<bool, Error> {
        let now = Some(format!("{:.6}", Timestamp::now()));
        let record = Record {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(TERM.as_secs()),
            acquire_time: record.acquire_time.or_else(|| now.clone()),
            renew_time: now,
            lease_transitions: Some(record.lease_transitions.unwrap_or_default()),
        };
        match self.put(found, &record).await {
            Ok(()) => Ok(true),
            // Another was first.
            Err(Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, found: Option<&DynamicObject>, record: &Record) -> Result<(), Error> {
        let metadata = match found {
            Some(found) => json!({ "name": self.name, "resourceVersion": found.metadata.resource_version }),
            None => json!({ "name": self.name, "labels": { "app.kubernetes.io/managed-by": "portcullis" } }),
        };
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": record,
        });
        let lease: DynamicObject = serde_json::from_value(lease).map_err(Error::SerdeError)?;
        match found {
            Some(_) => self.api.replace(&self.name, &PostParams::default(), &lease).await,
            None => self.api.create(&PostParams::default(), &lease).await,
        }
        .map(drop)
    }
}

impl Record {
    fn of(lease: &DynamicObject) -> Self {
        let spec = lease.data.get("spec").cloned().unwrap_or_default();
        serde_json::from_value(spec).unwrap_or_default()
    }

    fn is_of(&self, identity: &str) -> bool {
        self.holder_identity.as_deref().unwrap_or_default() == identity
    }

    fn term(&self) -> Duration {
        self.lease_duration_seconds.map_or(TERM, Duration::from_secs)
    }
}
