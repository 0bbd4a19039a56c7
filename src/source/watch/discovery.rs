//! Which resources there are: those of every API server, and those that come and go with a mesh or
//! another policy system.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::{Client, Error};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::feed::{Event, Feed, reason};
use super::health::Health;
use super::resources::{RESOURCES, Resource};

/// How often it is looked for what was not there. One small request, which any account may make.
const EVERY: Duration = Duration::from_secs(5);
/// How long an answer may take.
const TIME: Duration = Duration::from_secs(10);

/// What starts and ends feeds.
pub(super) struct Discovery {
    pub(super) client: Client,
    pub(super) health: Health,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) mesh_root: String,
}

/// A feed of a resource that comes and goes.
struct Running {
    version: String,
    task: JoinHandle<()>,
}

impl Discovery {
    /// Runs for ever.
    pub(super) async fn run(self) {
        for resource in RESOURCES.iter().filter(|resource| resource.is_builtin) {
            self.start(resource, "v1");
        }
        let mut running: BTreeMap<String, Running> = BTreeMap::new();
        let mut last_failure = String::new();
        loop {
            match self.served().await {
                Ok(served) => {
                    last_failure.clear();
                    for resource in RESOURCES.iter().filter(|resource| !resource.is_builtin) {
                        let version = served.get(&resource.full_name()).map(String::as_str);
                        self.follow(resource, version, &mut running).await;
                    }
                }
                Err(error) => {
                    let why = reason(&error);
                    if why != last_failure {
                        tracing::warn!(error = why, "cannot discover what is installed");
                        last_failure = why;
                    }
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Starts, ends or replaces a feed, as the resource is served now.
    async fn follow(
        &self,
        resource: &'static Resource,
        version: Option<&str>,
        running: &mut BTreeMap<String, Running>,
    ) {
        let name = resource.full_name();
        match (running.get(&name), version) {
            (Some(feed), Some(version)) if feed.version == version => return,
            (None, None) => return self.health.not_installed(resource),
            _ => {}
        }
        if let Some(feed) = running.remove(&name) {
            feed.task.abort();
            // What the writer has of it is gone with it. The channel closes only at the very end.
            let _ = self.events.send(Event::Listed(resource, Vec::new())).await;
            self.health.not_installed(resource);
        }
        if let Some(version) = version {
            tracing::info!(resource = name, version, "installed");
            self.health.found(resource);
            running.insert(name, Running { version: version.to_owned(), task: self.start(resource, version) });
        }
    }

    fn start(&self, resource: &'static Resource, version: &str) -> JoinHandle<()> {
        let feed = Feed {
            client: self.client.clone(),
            resource,
            path: resource.path(version, &self.mesh_root),
            health: self.health.clone(),
            events: self.events.clone(),
        };
        tokio::spawn(feed.run())
    }

    /// The optional resources that are served, by full name, each with its preferred version.
    async fn served(&self) -> Result<BTreeMap<String, String>, Error> {
        let late = |_| Error::Service("discovery did not answer in time".into());
        let groups = timeout(TIME, self.client.list_api_groups()).await.map_err(late)??;
        let mut served = BTreeMap::new();
        for group in groups.groups {
            let is_of_interest = |resource: &Resource| !resource.is_builtin && resource.group == group.name;
            if !RESOURCES.iter().any(is_of_interest) {
                continue;
            }
            let preferred = group.preferred_version.or_else(|| group.versions.first().cloned());
            let Some(preferred) = preferred else { continue };
            let listed = timeout(TIME, self.client.list_api_group_resources(&preferred.group_version)).await;
            let listed = match listed.map_err(late)? {
                Ok(listed) => listed,
                // An aggregated API whose server is away: the others are none the worse.
                Err(error) => {
                    tracing::debug!(group = group.name, error = reason(&error), "cannot discover a group");
                    continue;
                }
            };
            for resource in listed.resources {
                served.insert(format!("{}.{}", resource.name, group.name), preferred.version.clone());
            }
        }
        Ok(served)
    }
}
