//! One resource: listed, then watched from there, for ever.
//!
//! The client library's own watcher reconnects in silence, so that nobody could say how old a quiet
//! view is. This loop tells [`Health`] of everything it hears, bookmarks included.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures::StreamExt as _;
use kube::api::{ListParams, WatchParams};
use kube::core::{ListMeta, Request, WatchEvent};
use kube::{Client, Error};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::health::Health;
use super::resources::Resource;
use crate::k8s::{self, Kind, Lowered, TypeName};
use crate::model::{MeshConfig, Object, Str};

/// How many objects are asked for at a time: what of a list is in memory unread.
const PAGE: u32 = 500;
/// More pages than any cluster fills: a list that goes on beyond them has no end.
const MOST_PAGES: usize = 4000;

/// After how long the API server ends a watch, in seconds. It sends a bookmark at the end and about
/// every minute, so a connection that is silent for longer is dead.
const WATCH_SECONDS: u32 = 120;
pub(super) const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// The longest a page of a list may take.
const PAGE_TIME: Duration = Duration::from_mins(1);

/// A watch that lasted this long went well, whatever ended it.
const LASTING: Duration = Duration::from_secs(5);
/// The pauses after one failure, and after many. A view that is not current is one not to deny by, so
/// they stay shorter than those of controllers, which have no caller waiting.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// How many objects that cannot be read in full are remembered as told of.
const MOST_TOLD: usize = 1000;

/// What a feed brings.
#[derive(Debug)]
pub(super) enum Event {
    /// All there is of a resource.
    Listed(&'static Resource, Vec<Object>),
    /// An object as it is now.
    Applied(Object),
    /// An object as it was last.
    Deleted(Object),
}

/// What feeds one resource into the index.
pub(super) struct Feed {
    pub(super) client: Client,
    pub(super) resource: &'static Resource,
    pub(super) path: String,
    pub(super) health: Health,
    pub(super) events: mpsc::Sender<Event>,
}

/// Why a watch ended.
enum End {
    /// It did not fail: it goes on from where it was.
    Over,
    /// What happened since cannot be told any more: it must be listed again.
    Gone,
    /// The writer is gone, and so is the reason to go on.
    Unwanted,
}

/// A page of a list, its objects still text.
#[derive(Deserialize)]
struct Page<'a> {
    metadata: ListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

impl Feed {
    /// Runs until nobody takes what it brings.
    pub(super) async fn run(self) {
        let mut backoff = patience();
        let mut told = BTreeSet::new();
        loop {
            let mut version = match self.list(&mut told).await {
                Ok(Some(version)) => version,
                Ok(None) => return,
                Err(error) => {
                    self.trouble(&error, &mut backoff).await;
                    continue;
                }
            };
            loop {
                let begun = Instant::now();
                let end = self.watch(&mut version, &mut told).await;
                let has_lasted = begun.elapsed() >= LASTING;
                if has_lasted {
                    backoff = patience();
                }
                match end {
                    Ok(End::Unwanted) => return,
                    Ok(end) => {
                        // A server that ends each watch at once must not be asked without a pause,
                        // and in the pause nothing is heard.
                        if !has_lasted {
                            self.health.failed(self.resource, "the watch ended at once".to_owned());
                            pause(&mut backoff).await;
                        }
                        // From no version a watch tells what there is, and not what is gone.
                        if matches!(end, End::Gone) || version.is_empty() {
                            break;
                        }
                    }
                    Err(error) => {
                        self.trouble(&error, &mut backoff).await;
                        // What comes back under its name is not what it was.
                        if is_not_there(&error) {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Brings all there is, and tells the version to watch from; nothing where nobody takes it.
    async fn list(&self, told: &mut BTreeSet<String>) -> Result<Option<String>, Error> {
        let request = Request::new(&self.path);
        let mut objects = Vec::new();
        let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
        for _ in 0..MOST_PAGES {
            let request = request.list(&params).map_err(Error::BuildRequest)?;
            let text = timeout(PAGE_TIME, self.client.request_text(request)).await;
            let text = match text.map_err(|_| Error::Service("the list did not come in time".into()))? {
                // Its pages are outdated faster than they are read: once more, in one piece.
                Err(Error::Api(status)) if status.code == 410 && params.continue_token.is_some() => {
                    objects.clear();
                    params = ListParams::default();
                    continue;
                }
                text => text?,
            };
            let page: Page<'_> = serde_json::from_str(&text).map_err(Error::SerdeError)?;
            objects.extend(page.items.into_iter().flatten().filter_map(|item| self.lower(item, told)));
            let next = page.metadata.continue_.filter(|token| !token.is_empty());
            if next.is_none() {
                let version = page.metadata.resource_version.unwrap_or_default();
                if self.events.send(Event::Listed(self.resource, objects)).await.is_err() {
                    return Ok(None);
                }
                // Heard of once the writer has it: ready is what has been taken in.
                self.health.heard(self.resource);
                return Ok(Some(version));
            }
            if next == params.continue_token {
                break;
            }
            params.continue_token = next;
        }
        Err(Error::Service("the list does not end".into()))
    }

    async fn watch(&self, version: &mut String, told: &mut BTreeSet<String>) -> Result<End, Error> {
        let params = WatchParams { timeout: Some(WATCH_SECONDS), ..WatchParams::default() };
        let request = Request::new(&self.path).watch(&params, version).map_err(Error::BuildRequest)?;
        let events = match timeout(SILENCE, self.client.request_events::<Box<RawValue>>(request)).await {
            // 400: this version is none to the server.
            Ok(Err(Error::Api(status))) if matches!(status.code, 400 | 410) => return Ok(End::Gone),
            Ok(events) => events?,
            Err(_) => return Err(Error::Service("the API server does not answer".into())),
        };
        self.health.heard(self.resource);
        let mut events = std::pin::pin!(events);
        loop {
            let event = match timeout(SILENCE, events.next()).await {
                Ok(Some(Ok(event))) => event,
                // What it said is lost, and would be said the same way again. The client takes any
                // JSON object that is no event for a status.
                Ok(Some(Err(error @ (Error::SerdeError(_) | Error::Api(_))))) => return Ok(self.unheard(&error)),
                Ok(Some(Err(error))) => return Err(error),
                Ok(None) => return Ok(End::Over),
                Err(_) => return Err(Error::Service("nothing was heard for too long".into())),
            };
            self.health.heard(self.resource);
            let (object, is_deleted) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(bookmark) => {
                    let seen = bookmark.metadata.resource_version;
                    if !seen.is_empty() {
                        *version = seen;
                    }
                    continue;
                }
                WatchEvent::Error(status) => return Ok(self.unheard(&Error::Api(status))),
            };
            // One without a version is told again after a cut, which changes nothing.
            let Metadata { name, namespace, resource_version } = metadata_of(&object);
            if !resource_version.is_empty() {
                *version = resource_version;
            }
            let event = match self.lower(&object, told) {
                Some(object) if is_deleted => Event::Deleted(object),
                Some(object) => Event::Applied(object),
                None => match self.what_it_was(name, namespace) {
                    Some(object) => Event::Deleted(object),
                    None => continue,
                },
            };
            if self.events.send(event).await.is_err() {
                return Ok(End::Unwanted);
            }
        }
    }

    /// A watch said something else than an event. Going on from the same version could bring the
    /// same again for ever, and a list does not.
    fn unheard(&self, error: &Error) -> End {
        if !matches!(error, Error::Api(status) if status.code == 410) {
            tracing::warn!(resource = self.resource.full_name(), error = reason(error), "the watch broke off");
        }
        End::Gone
    }

    /// The object as far as it can be read. What cannot be is told of once, and holds nothing up.
    fn lower(&self, object: &RawValue, told: &mut BTreeSet<String>) -> Option<Object> {
        let name = TypeName { group: self.resource.group, kind: self.resource.kind };
        let Lowered { object, problems } = k8s::lower_json(name, object.get(), "");
        if let Some(problem) = problems.first() {
            let who = object.as_ref().map_or_else(|| self.resource.full_name(), |it| it.reference().to_string());
            if told.len() < MOST_TOLD && told.insert(who.clone()) {
                tracing::warn!(
                    object = who,
                    field = problem.path.as_str(),
                    problem = problem.message,
                    "not read in full"
                );
            }
        }
        object
    }

    /// What stands under the name of an object that is of no interest: of some kinds only those are
    /// that say so of themselves, and they may cease to.
    fn what_it_was(&self, name: Str, namespace: Str) -> Option<Object> {
        match self.resource.known_as() {
            Kind::ConfigMap => Some(Object::MeshConfig(Arc::new(MeshConfig { namespace, name, root_namespace: None }))),
            Kind::Namespace
            | Kind::Service
            | Kind::Workload
            | Kind::NetworkPolicy
            | Kind::PeerAuthentication
            | Kind::WebhookConfiguration(_)
            | Kind::ForeignPolicy
            | Kind::Waiver => None,
        }
    }

    /// Notes what went wrong and waits before the next attempt.
    async fn trouble(&self, error: &Error, backoff: &mut ExponentialBackoff) {
        match error {
            Error::Api(status) if status.code == 403 => self.health.forbidden(self.resource),
            // A resource that goes away while it is watched, and all its objects with it. Discovery
            // ends this feed, unless it is back by then.
            error if is_not_there(error) && !self.resource.is_builtin => {
                let _ = self.events.send(Event::Listed(self.resource, Vec::new())).await;
                self.health.not_installed(self.resource);
            }
            error => self.health.failed(self.resource, reason(error)),
        }
        pause(backoff).await;
    }
}

async fn pause(backoff: &mut ExponentialBackoff) {
    tokio::time::sleep(backoff.next().unwrap_or(PAUSES.1)).await;
}

/// Ever longer pauses, none of which two feeds make alike.
fn patience() -> ExponentialBackoff {
    let (least, most) = PAUSES;
    let pauses = ExponentialBuilder::new().with_min_delay(least).with_max_delay(most).with_factor(2.0);
    pauses.with_jitter().without_max_times().build()
}

/// An error and what caused it, on one line.
pub(super) fn reason(error: &Error) -> String {
    // What the API server says is for people; the error's own text repeats all of its fields.
    if let Error::Api(status) = error
        && !status.message.is_empty()
    {
        return status.message.clone();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn is_not_there(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 404)
}

/// Who an object is, and in which version; what it does not say is empty.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Str,
    namespace: Str,
    resource_version: String,
}

fn metadata_of(object: &RawValue) -> Metadata {
    #[derive(Deserialize)]
    struct Written {
        metadata: Metadata,
    }
    serde_json::from_str(object.get()).map(|Written { metadata }| metadata).unwrap_or_default()
}
