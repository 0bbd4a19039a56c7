//! Which resources there are: those of every API server, and those that come and go with a mesh or
//! another policy system.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::ListParams;
use kube::core::Request;
use kube::{Client, Error};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

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
        let mut answered = Instant::now();
        loop {
            let served = self.served().await;
            // A refusal is an answer; what stands before an API server that is away says 502 to 504.
            let is_answered = match &served {
                Ok(_) => true,
                Err(Error::Api(status)) => status.code < 500,
                Err(_) => false,
            };
            if is_answered {
                answered = Instant::now();
            }
            self.health.unanswered((!is_answered).then_some(answered.into_std()));
            match served {
                Ok(served) => {
                    last_failure.clear();
                    for resource in RESOURCES.iter().filter(|resource| !resource.is_builtin) {
                        let name = resource.full_name();
                        let version = served.versions.get(&name).map(String::as_str);
                        match served.doubtful.get(resource.group).filter(|_| version.is_none()) {
                            None => self.follow(resource, version, &mut running).await,
                            // What is watched goes on to be, and nothing of it is forgotten.
                            Some(_) if running.contains_key(&name) => {}
                            Some(why) => self.health.failed(resource, why.clone()),
                        }
                    }
                }
                Err(error) => {
                    if matches!(&error, Error::Api(status) if status.code == 403) {
                        self.may_not_look(&running);
                    }
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
            (Some(feed), None) if !self.is_gone(resource, &feed.version).await => return,
            _ => {}
        }
        let former = running.remove(&name);
        let is_new = former.is_none();
        if let Some(feed) = former {
            feed.task.abort();
            // Only when it has ended can it bring nothing any more.
            let _ = feed.task.await;
        }
        let Some(version) = version else {
            // What the writer has of it is gone with it. The channel closes only at the very end.
            let _ = self.events.send(Event::Listed(resource, Vec::new())).await;
            return self.health.not_installed(resource);
        };
        tracing::info!(resource = name, version, "installed");
        // In another version they are the same objects: what is known stands until it is listed.
        if is_new {
            self.health.found(resource);
        }
        running.insert(name, Running { version: version.to_owned(), task: self.start(resource, version) });
    }

    /// Whether the API server says of the resource itself that there is none. That it is not listed
    /// among what is served is no proof: after its start an API server leaves out for a moment what
    /// definitions define.
    async fn is_gone(&self, resource: &Resource, version: &str) -> bool {
        let request = Request::new(resource.path(version, &self.mesh_root));
        let Ok(request) = request.list(&ListParams::default().limit(1)) else { return false };
        let answer = timeout(TIME, self.client.request_text(request)).await;
        matches!(answer, Ok(Err(Error::Api(status))) if status.code == 404)
    }

    /// It may be so for good, and so what is not known is not waited for.
    fn may_not_look(&self, running: &BTreeMap<String, Running>) {
        let optional = RESOURCES.iter().filter(|resource| !resource.is_builtin);
        for resource in optional.filter(|resource| !running.contains_key(&resource.full_name())) {
            self.health.forbidden(resource);
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

    /// What is served of the optional resources.
    async fn served(&self) -> Result<Served, Error> {
        let late = |_| Error::Service("discovery did not answer in time".into());
        let groups = timeout(TIME, self.client.list_api_groups()).await.map_err(late)??;
        let mut served = Served::default();
        for group in groups.groups {
            let is_of_interest = |resource: &Resource| !resource.is_builtin && resource.group == group.name;
            if !RESOURCES.iter().any(is_of_interest) {
                continue;
            }
            // Not everything in a group is served in the version it prefers.
            let preferred = group.preferred_version;
            let others = group.versions.into_iter().filter(|version| Some(version) != preferred.as_ref());
            for version in preferred.iter().cloned().chain(others) {
                let listed = timeout(TIME, self.client.list_api_group_resources(&version.group_version)).await;
                match listed.map_err(late).flatten() {
                    Ok(listed) => {
                        for resource in listed.resources {
                            let name = format!("{}.{}", resource.name, group.name);
                            served.versions.entry(name).or_insert_with(|| version.version.clone());
                        }
                    }
                    // The other groups are none the worse.
                    Err(error) => {
                        served.doubtful.insert(group.name.clone(), reason(&error));
                        break;
                    }
                }
            }
        }
        Ok(served)
    }
}

/// What discovery found.
#[derive(Default)]
struct Served {
    /// By full name, the version to ask for: the preferred one where it is served in that.
    versions: BTreeMap<String, String>,
    /// The groups of which not all could be found out, and why.
    doubtful: BTreeMap<String, String>,
}
