//! How well each watch is doing, and what follows for what is known.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::feed::SILENCE;
use super::resources::{RESOURCES, Resource};
use crate::k8s::Kind;
use crate::telemetry::Readiness;

/// A feed that runs has heard something by then, or told of its failure.
const MOST_SILENCE: Duration = SILENCE.saturating_mul(2);

/// What is said of a watch that has met no trouble yet.
const LOOKING: &str = "looking for it";
const LISTING: &str = "listing";

/// The state of every watch.
#[derive(Clone)]
pub(super) struct Health {
    watches: Arc<Mutex<Vec<Watch>>>,
    readiness: Readiness,
}

/// The state of one.
#[derive(Clone, Debug)]
struct Watch {
    resource: &'static Resource,
    state: State,
    /// When something was last heard, if ever.
    heard: Option<Instant>,
    /// Whether it was ever known how this stands: listed, forbidden or not installed. From then on
    /// the process has been ready without it, or with it, and does not wait for it again.
    is_settled: bool,
}

/// How a watch is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has not listed yet: why not, as far as that is known.
    Listing(String),
    /// It hears of every change.
    Current,
    /// It is cut off, and what is known is what it last heard.
    Cut(String),
    /// The API server does not let us read this.
    Forbidden,
    /// The API server knows no such thing.
    NotInstalled,
}

impl Watch {
    /// Whether it is of what makes pods, and not of pods.
    fn is_of_templates(&self) -> bool {
        self.resource.known_as() == Kind::Workload && self.resource.kind != "Pod"
    }

    /// Whether a denial can be wrong for want of its latest news. What makes pods only adds to what is
    /// protected, and a policy of another system only ever turns denials into warnings; whoever broke
    /// one of their definitions would otherwise open the gate.
    fn may_deny(&self) -> bool {
        !self.is_of_templates() && self.resource.known_as() != Kind::ForeignPolicy
    }
}

impl Health {
    /// Nothing is known yet, and the process is not ready.
    pub(super) fn new(readiness: Readiness) -> Self {
        let start = |resource: &'static Resource| {
            let state = State::Listing(LOOKING.to_owned());
            Watch { resource, state, heard: None, is_settled: false }
        };
        let health = Self { watches: Arc::new(Mutex::new(RESOURCES.iter().map(start).collect())), readiness };
        for watch in &*health.lock() {
            health.publish(watch);
        }
        health
    }

    /// A watch heard from the API server: an event, a bookmark, a list.
    pub(super) fn heard(&self, resource: &'static Resource) {
        self.change(resource, |watch| {
            watch.heard = Some(Instant::now());
            State::Current
        });
    }

    /// A watch failed, for this reason.
    pub(super) fn failed(&self, resource: &'static Resource, why: String) {
        self.change(resource, |watch| match watch.heard {
            Some(_) => State::Cut(why),
            None => State::Listing(why),
        });
    }

    /// The API server refuses this watch. What was known of it is no longer kept up.
    pub(super) fn forbidden(&self, resource: &'static Resource) {
        self.change(resource, |watch| {
            watch.heard = None;
            State::Forbidden
        });
    }

    /// The API server has come to know it.
    pub(super) fn found(&self, resource: &'static Resource) {
        self.change(resource, |_| State::Listing(LISTING.to_owned()));
    }

    /// The API server knows no such resource.
    pub(super) fn not_installed(&self, resource: &'static Resource) {
        self.change(resource, |watch| {
            watch.heard = None;
            State::NotInstalled
        });
    }

    /// How long ago all that is known was last known to be current: since the longest silent of the
    /// watches that are cut off was last heard. One that is silent for longer than its feed would
    /// bear has lost its feed, and is cut off as well.
    pub(super) fn age(&self) -> Duration {
        let watches = self.lock();
        let ages = watches.iter().filter(|watch| watch.may_deny()).filter_map(|watch| {
            let age = watch.heard?.elapsed();
            match watch.state {
                State::Cut(_) => Some(age),
                State::Current => (age > MOST_SILENCE).then_some(age),
                State::Listing(_) | State::Forbidden | State::NotInstalled => None,
            }
        });
        ages.max().unwrap_or_default()
    }

    /// What has not been read: forbidden, or not listed yet.
    pub(super) fn unread(&self) -> Vec<Kind> {
        let watches = self.lock();
        let unread = watches.iter().filter(|watch| matches!(watch.state, State::Listing(_) | State::Forbidden));
        // What makes pods only adds to what is protected; not to know of it denies nothing.
        let unread = unread.filter(|watch| !watch.is_of_templates());
        unread.map(|watch| watch.resource.known_as()).collect()
    }

    /// What the API server knows no resource for.
    pub(super) fn absent(&self) -> Vec<Kind> {
        let watches = self.lock();
        let absent = watches.iter().filter(|watch| matches!(watch.state, State::NotInstalled));
        absent.map(|watch| watch.resource.known_as()).collect()
    }

    /// What is being listed for the first time, by its full name.
    pub(super) fn listing(&self) -> Vec<String> {
        self.named(|state| matches!(state, State::Listing(_)))
    }

    /// Why something could not be listed so far, if it was tried and failed.
    pub(super) fn trouble(&self) -> Option<String> {
        let watches = self.lock();
        watches.iter().find_map(|watch| match &watch.state {
            State::Listing(why) if why != LOOKING && why != LISTING => Some(why.clone()),
            _ => None,
        })
    }

    /// What may not be read, by its full name.
    pub(super) fn forbidden_names(&self) -> Vec<String> {
        self.named(|state| matches!(state, State::Forbidden))
    }

    fn named(&self, is_meant: impl Fn(&State) -> bool) -> Vec<String> {
        let watches = self.lock();
        watches.iter().filter(|it| is_meant(&it.state)).map(|it| it.resource.full_name()).collect()
    }

    fn change(&self, resource: &'static Resource, state: impl FnOnce(&mut Watch) -> State) {
        let mut watches = self.lock();
        let Some(watch) = watches.iter_mut().find(|watch| std::ptr::eq(watch.resource, resource)) else { return };
        let state = state(watch);
        if watch.state == state {
            return;
        }
        let name = resource.full_name();
        match (&watch.state, &state) {
            (State::Cut(_), State::Current) => tracing::info!(resource = name, "watch recovered"),
            (_, State::Current) => tracing::debug!(resource = name, "watching"),
            (State::Cut(_), State::Cut(_))
            | (State::Listing(_), State::NotInstalled)
            | (State::NotInstalled, State::Listing(_)) => {}
            (_, State::Cut(why)) => tracing::warn!(resource = name, error = why, "watch cut off"),
            (_, State::Listing(why)) => tracing::warn!(resource = name, error = why, "cannot list"),
            (_, State::Forbidden) => {
                tracing::error!(resource = name, "may not be read: grant `get`, `list` and `watch`");
            }
            (_, State::NotInstalled) => tracing::info!(resource = name, "not installed any more"),
        }
        watch.is_settled |= !matches!(state, State::Listing(_));
        watch.state = state;
        self.publish(watch);
    }

    fn publish(&self, watch: &Watch) {
        let Watch { resource, state, heard: _, is_settled } = watch;
        let name = resource.full_name();
        match state {
            // Installed while this runs. Every replica meets it at once: none would be left to answer.
            State::Listing(why) if *is_settled => self.readiness.set_degraded(&name, why),
            State::Listing(why) => self.readiness.set_pending(&name, why),
            State::Current => self.readiness.set_open(&name, ""),
            State::Cut(why) => self.readiness.set_degraded(&name, &format!("cut off: {why}")),
            State::Forbidden => {
                let why = "forbidden: grant `get`, `list` and `watch`; until then rules that rest on it only warn";
                self.readiness.set_degraded(&name, why);
            }
            State::NotInstalled => self.readiness.set_open(&name, "not installed"),
        }
    }

    /// A poisoned lock is taken all the same: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, Vec<Watch>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> &'static Resource {
        Resource::of("", "Pod")
    }

    fn all_current(health: &Health) {
        for resource in RESOURCES {
            health.heard(resource);
        }
    }

    #[test]
    fn ready_is_when_everything_was_listed_or_cannot_be() {
        let readiness = Readiness::default();
        let health = Health::new(readiness.clone());
        for resource in RESOURCES {
            assert!(!readiness.is_ready());
            match resource.kind {
                "PeerAuthentication" => health.not_installed(resource),
                "CronJob" => health.forbidden(resource),
                _ => health.heard(resource),
            }
        }
        assert!(readiness.is_ready());
        let described = readiness.describe();
        assert!(described.contains("[+]peerauthentications.security.istio.io ok: not installed\n"), "{described}");
        assert!(described.contains("[!]cronjobs.batch degraded: forbidden"), "{described}");
    }

    #[test]
    fn what_is_installed_later_is_not_waited_for() {
        let readiness = Readiness::default();
        let health = Health::new(readiness.clone());
        all_current(&health);
        let late = Resource::of("security.istio.io", "PeerAuthentication");
        health.not_installed(late);
        health.found(late);
        health.failed(late, "reset".to_owned());
        assert!(readiness.is_ready());
        assert_eq!(health.unread(), [Kind::PeerAuthentication]);
        let described = readiness.describe();
        assert!(described.contains("[!]peerauthentications.security.istio.io degraded: reset\n"), "{described}");
        health.heard(late);
        assert_eq!(health.unread(), []);
    }

    #[test]
    fn a_watch_that_is_cut_off_ages_and_stays_ready() {
        let readiness = Readiness::default();
        let health = Health::new(readiness.clone());
        all_current(&health);
        assert_eq!(health.age(), Duration::ZERO);
        health.failed(pods(), "connection refused".to_owned());
        assert!(health.age() > Duration::ZERO && readiness.is_ready());
        assert_eq!(health.unread(), []);
        health.heard(pods());
        assert_eq!(health.age(), Duration::ZERO);
    }

    #[test]
    fn what_denies_nothing_does_not_age_the_view() {
        let health = Health::new(Readiness::default());
        all_current(&health);
        health.failed(Resource::of("cilium.io", "CiliumNetworkPolicy"), "conversion failed".to_owned());
        health.failed(Resource::of("batch", "Job"), "reset".to_owned());
        assert_eq!(health.age(), Duration::ZERO);
    }

    #[test]
    fn a_watch_whose_feed_is_gone_ages() {
        let health = Health::new(Readiness::default());
        all_current(&health);
        let long = MOST_SILENCE + Duration::from_secs(1);
        let pods = health.lock().iter_mut().find(|watch| watch.resource.kind == "Pod").map(|watch| {
            watch.heard = watch.heard.and_then(|heard| heard.checked_sub(long));
        });
        assert!(pods.is_some() && health.age() >= long, "{:?}", health.age());
        health.heard(self::pods());
        assert_eq!(health.age(), Duration::ZERO);
    }

    #[test]
    fn what_was_never_listed_is_unread_and_not_old() {
        let health = Health::new(Readiness::default());
        all_current(&health);
        health.forbidden(pods());
        health.failed(Resource::of("batch", "Job"), "reset".to_owned());
        assert_eq!(health.unread(), [Kind::Workload]);
    }
}
