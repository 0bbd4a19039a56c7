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

/// What a Lease says that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    holder: String,
    renewed: String,
    transitions: i64,
    term: Duration,
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
            return self.write(None, 0).await;
        };
        let record = Record::of(&found);
        if record.holder == self.identity {
            self.seen = None;
            return self.write(Some(&found), record.transitions).await;
        }
        let since = match &self.seen {
            Some((seen, since)) if *seen == record => *since,
            _ => {
                let now = Instant::now();
                self.seen = Some((record.clone(), now));
                now
            }
        };
        if record.holder.is_empty() || since.elapsed() >= record.term {
            return self.write(Some(&found), record.transitions + 1).await;
        }
        Ok(false)
    }

    /// Gives it up, so that the next one need not wait.
    pub(super) async fn release(&mut self) {
        let Ok(Some(mut found)) = self.api.get_opt(&self.name).await else { return };
        if Record::of(&found).holder != self.identity {
            return;
        }
        found.data["spec"]["holderIdentity"] = "".into();
        found.data["spec"]["leaseDurationSeconds"] = 1.into();
        if let Err(error) = self.api.replace(&self.name, &PostParams::default(), &found).await {
            tracing::debug!(%error, "the lease cannot be given up, and will run out");
        }
    }

    async fn write(&self, found: Option<&DynamicObject>, transitions: i64) -> Result<bool, Error> {
        let now = format!("{:.6}", Timestamp::now());
        let is_renewal = found.is_some_and(|found| Record::of(found).holder == self.identity);
        let acquired = match found {
            Some(found) if is_renewal => found.data["spec"]["acquireTime"].clone(),
            Some(_) | None => now.clone().into(),
        };
        let metadata = match found {
            Some(found) => json!({ "name": self.name, "resourceVersion": found.metadata.resource_version }),
            None => json!({ "name": self.name, "labels": { "app.kubernetes.io/managed-by": "portcullis" } }),
        };
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": TERM.as_secs(),
                "acquireTime": acquired,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        });
        let lease: DynamicObject = serde_json::from_value(lease).map_err(Error::SerdeError)?;
        let written = match found {
            Some(_) => self.api.replace(&self.name, &PostParams::default(), &lease).await,
            None => self.api.create(&PostParams::default(), &lease).await,
        };
        match written {
            Ok(_) => Ok(true),
            // Another was first.
            Err(Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Record {
    fn of(lease: &DynamicObject) -> Self {
        let spec = &lease.data["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        let seconds = spec["leaseDurationSeconds"].as_u64().unwrap_or(TERM.as_secs());
        Self {
            holder: text("holderIdentity"),
            renewed: text("renewTime"),
            transitions: spec["leaseTransitions"].as_i64().unwrap_or_default(),
            term: Duration::from_secs(seconds),
        }
    }
}
