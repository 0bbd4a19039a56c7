//! The look that is made over and over: what is there, what it should be, one step towards it.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Client, Error};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::clock;
use super::keyring::{Content, Keyring, Plan};
use super::registration::{Own, Registered};
use super::secret::{Found, Place, Written};
use super::standing::GATE;
use super::{MANAGER, OwnCertificate, Proof, Settings, said};
use crate::rules::RuleSet;
use crate::server::{InService, Pair};
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::Repair;

/// How long one look may take.
const LOOK_TIME: Duration = Duration::from_secs(30);
/// How many times one look begins again because somebody else wrote.
const ATTEMPTS: usize = 5;
/// For how long the registration must have held a new authority before something of it is served, at
/// most: API servers learn of it by a watch, which takes milliseconds where nothing is wrong.
const SETTLING: Duration = Duration::from_mins(5);

/// How long a replica that has just begun leaves it to others to put a lost Secret back: they have what
/// was in it, and so can go over to new keys with no call failing.
const RESTORING: Duration = Duration::from_secs(10);

/// Keeps certificate and registration as they should be.
pub struct Keeper {
    pub(super) settings: Settings,
    secret: Option<(Place, Plan)>,
    pub(super) client: Client,
    pub(super) in_service: InService,
    pub(super) rules: watch::Receiver<Arc<RuleSet>>,
    pub(super) telemetry: Telemetry,
    /// What the Secret held last.
    pub(super) last: Option<Keyring>,
    /// The next authority, and since when the registration is known to hold it.
    known: Option<(String, Instant)>,
    /// The last proof, and when it was made.
    pub(super) proof: Option<(Proof, Instant)>,
    /// When the failure policy was set last.
    pub(super) policy_set: Option<Instant>,
    /// Whether the registration does not trust what is served, as of the last time it was read.
    pub(super) is_untrusted: bool,
    /// Whether it was waited for another replica to put a lost Secret back.
    has_waited: bool,
    /// By how much the clock here is ahead of the API server's.
    ahead: SignedDuration,
    /// What was complained of last, of each matter, so that it is not said over and over.
    said: Vec<(&'static str, String)>,
}

/// The registration, as it was found.
pub(super) enum Look {
    /// There is none to look at.
    Unasked,
    Absent,
    Here(Registered),
    /// It cannot be read: why.
    Unread(String),
}

/// That a look has to begin again: somebody else wrote.
pub(super) struct Again;

impl Keeper {
    /// Nothing is done yet but to close the readiness gate `certificate`.
    pub fn new(
        settings: Settings,
        client: Client,
        in_service: InService,
        rules: watch::Receiver<Arc<RuleSet>>,
        telemetry: Telemetry,
    ) -> Self {
        telemetry.readiness.set_pending(GATE, "not looked at yet");
        let secret = settings.certificate.as_ref().map(|own| {
            let OwnCertificate { namespace, secret, service, authority_life, leaf_life } = own;
            let names = ["svc", "svc.cluster.local"].map(|end| format!("{service}.{namespace}.{end}"));
            let names = names.into_iter().chain([format!("{service}.{namespace}")]).collect();
            let plan = Plan { authority: *authority_life, leaf: *leaf_life, names };
            (Place::new(client.clone(), namespace, secret), plan)
        });
        Self {
            settings,
            secret,
            client,
            in_service,
            rules,
            telemetry,
            last: None,
            known: None,
            proof: None,
            policy_set: None,
            is_untrusted: false,
            has_waited: false,
            ahead: SignedDuration::ZERO,
            said: Vec::new(),
        }
    }

    /// Looks for as long as it is awaited.
    pub async fn run(mut self) {
        let mut changes = self.changes();
        let mut timer = interval(self.settings.every);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = timer.tick() => {}
                Some(()) = changes.next() => {}
            }
            if timeout(LOOK_TIME, self.look()).await.is_err() {
                self.complain("look", "the API server did not answer in time");
            }
        }
    }

    /// Says when one of the objects changed.
    fn changes(&self) -> impl Stream<Item = ()> + Unpin + use<> {
        let mut watches = Vec::new();
        if let Some((place, _)) = &self.secret {
            watches.push(watch_object(place.api(), place.name()).default_backoff().map(|_| ()).boxed());
        }
        if let Some(webhook) = &self.settings.webhook {
            watches.push(watch_object(self.registrations(), webhook).default_backoff().map(|_| ()).boxed());
        }
        futures::stream::select_all(watches)
    }

    fn registrations(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration");
        let resource = ApiResource::from_gvk_with_plural(&kind, "validatingwebhookconfigurations");
        Api::all_with(self.client.clone(), &resource)
    }

    async fn look(&mut self) {
        for _ in 0..ATTEMPTS {
            if self.attempt().await.is_ok() {
                return;
            }
        }
    }

    async fn attempt(&mut self) -> Result<(), Again> {
        // Before the Secret: what is written to it below was then made from what is as new.
        let mut registered = self.registration().await;
        let trouble = match self.keyring(&registered).await {
            Ok(Some(keyring)) => {
                registered = self.with_bundle(registered, &keyring).await?;
                self.serve(&keyring, &registered);
                self.last = Some(keyring);
                self.settled("certificate");
                None
            }
            Ok(None) => None,
            Err(Ok(Again)) => return Err(Again),
            Err(Err(why)) => {
                self.complain("certificate", &why);
                Some(why)
            }
        };
        self.report(&registered, trouble.as_deref());
        if let (Look::Here(here), Some(policy)) = (&registered, self.settings.failure_policy) {
            self.prove(here, policy).await;
        }
        Ok(())
    }

    async fn registration(&mut self) -> Look {
        let Some(webhook) = &self.settings.webhook else { return Look::Unasked };
        match self.registrations().get_opt(webhook).await {
            Ok(found) => {
                self.settled("registration");
                found.map_or(Look::Absent, |object| Look::Here(self.read(&object)))
            }
            Err(error) => {
                let why = said(&error);
                self.complain("registration", &why);
                Look::Unread(why)
            }
        }
    }

    fn read(&self, object: &DynamicObject) -> Registered {
        let own = self.settings.service.clone();
        Registered::of(object, own.map(|(namespace, service)| Own { namespace, service }).as_ref())
    }

    /// What the Secret holds after this look; nothing where the certificate is somebody else's
    /// business.
    async fn keyring(&mut self, registered: &Look) -> Result<Option<Keyring>, Result<Again, String>> {
        if self.secret.is_none() {
            return Ok(None);
        }
        let now = self.now().await.map_err(|error| Err(format!("the API server cannot be asked: {}", said(&error))))?;
        let Some((place, plan)) = &self.secret else { return Ok(None) };
        let failed = |error: &Error| Err(format!("the Secret `{}` cannot be used: {}", place.name(), said(error)));
        let unissued = |error: rcgen::Error| Err(format!("no certificate can be issued: {error}"));
        let found = place.read().await.map_err(|error| failed(&error))?;
        let (keyring, why) = match (&found.content, &self.last) {
            (Content::Foreign, _) => {
                return Err(Err(format!(
                    "the Secret `{}` holds a certificate and no `ca.key`: portcullis did not issue it and leaves it alone; delete it, name another Secret, or mount it and give `--tls-cert` and `--tls-key`",
                    place.name()
                )));
            }
            (Content::Ours(keyring), _) => {
                let keyring = Keyring::clone(keyring);
                let next_is_known = next_is_known(&mut self.known, &keyring, registered, plan);
                match keyring.step(plan, now, next_is_known).map_err(unissued)? {
                    None => return Ok(Some(keyring)),
                    Some(step) => step,
                }
            }
            (Content::Nothing | Content::Broken(_), Some(last)) => {
                (last.restored(plan, now).map_err(unissued)?, "it was lost, and everything in it is replaced")
            }
            (Content::Nothing | Content::Broken(_), None) => {
                let trusted = match registered {
                    Look::Here(here) => here.authorities(now),
                    Look::Unasked | Look::Absent | Look::Unread(_) => Vec::new(),
                };
                if !trusted.is_empty() && !std::mem::replace(&mut self.has_waited, true) {
                    tracing::info!(secret = place.name(), "a lost Secret is left to replicas that know what was in it");
                    until_restored(place, &found).await;
                    return Err(Ok(Again));
                }
                let why = if found.content == Content::Nothing { "there was none" } else { "it could not be used" };
                (Keyring::after(&trusted, plan, now).map_err(unissued)?, why)
            }
        };
        if let Content::Broken(broken) = &found.content {
            tracing::error!(secret = place.name(), why = broken, "the Secret of the certificate cannot be used");
        }
        match place.write(&found, &keyring).await.map_err(|error| failed(&error))? {
            Written::Lost => Err(Ok(Again)),
            Written::Done => {
                tracing::info!(secret = place.name(), why, "certificate written");
                Ok(Some(keyring))
            }
        }
    }

    /// The API server's time.
    async fn now(&mut self) -> Result<Timestamp, Error> {
        let (now, wrong) = clock::now(&self.client).await?;
        self.ahead = Timestamp::now().duration_since(now);
        match wrong {
            Some(why) => self.complain("clock", &why),
            None => self.settled("clock"),
        }
        Ok(now)
    }

    /// The same, by what it was when it was asked last.
    pub(super) fn time(&self) -> Timestamp {
        Timestamp::now().saturating_sub(self.ahead).unwrap_or_else(|_| Timestamp::now())
    }

    /// The registration with the bundle it should have.
    async fn with_bundle(&mut self, registered: Look, keyring: &Keyring) -> Result<Look, Again> {
        let Look::Here(here) = registered else { return Ok(registered) };
        let Some(patch) = here.with_bundle(&keyring.bundle(), self.time()) else { return Ok(Look::Here(here)) };
        if let Some(why) = here.is_managed_elsewhere() {
            self.complain("caBundle", &format!("{why}, so portcullis leaves it alone"));
            return Ok(Look::Here(here));
        }
        match self.patch(patch, Repair::Bundle).await? {
            Some(patched) => Ok(Look::Here(patched)),
            None => Ok(Look::Here(here)),
        }
    }

    /// The registration after a patch; nothing where it could not be patched.
    pub(super) async fn patch(&mut self, patch: Value, field: Repair) -> Result<Option<Registered>, Again> {
        let webhook = self.settings.webhook.clone().unwrap_or_default();
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match self.registrations().patch(&webhook, &params, &Patch::Strategic(patch)).await {
            Ok(object) => {
                self.settled("patch");
                self.telemetry.metrics.webhook_repaired(field);
                tracing::info!(webhook, ?field, "webhook configuration updated");
                Ok(Some(self.read(&object)))
            }
            Err(Error::Api(status)) if status.code == 409 => Err(Again),
            Err(error) => {
                self.complain("patch", &said(&error));
                Ok(None)
            }
        }
    }

    /// Serves the keyring's certificate, unless that would be the step from one that the registration
    /// trusts to one that it does not.
    fn serve(&mut self, keyring: &Keyring, registered: &Look) {
        let leaf = keyring.leaf();
        let pair = match Pair::parse(leaf.certificate.as_bytes(), leaf.key.as_bytes()) {
            Ok(pair) => pair,
            Err(why) => return self.complain("certificate", &why),
        };
        let current = self.in_service.current();
        if current.as_ref().is_some_and(|current| current.chain() == pair.chain()) {
            return;
        }
        if let (Look::Here(here), Some(current)) = (registered, &current) {
            let now = self.time();
            if let Err(why) = here.verifies(pair.chain(), now)
                && here.verifies(current.chain(), now).is_ok()
            {
                return self.complain("serving", &format!("the old certificate is served on: {why}"));
            }
        }
        let is_first = current.is_none();
        self.in_service.put(pair);
        self.telemetry.metrics.certificate_current(true);
        if !is_first {
            self.telemetry.metrics.certificate_reloaded(true);
        }
        tracing::info!(is_first, "certificate in service");
    }

    /// Logs what is wrong in a matter, once for as long as it stays so.
    pub(super) fn complain(&mut self, matter: &'static str, why: &str) {
        match self.said.iter_mut().find(|(known, _)| *known == matter) {
            Some((_, last)) if last == why => return,
            Some((_, last)) => *last = why.to_owned(),
            None => self.said.push((matter, why.to_owned())),
        }
        tracing::warn!(matter, why, "upkeep is held up");
    }

    /// Forgets a matter that is settled: the next complaint is news.
    pub(super) fn settled(&mut self, matter: &'static str) {
        self.said.retain(|(known, _)| *known != matter);
    }
}

/// Waits until the Secret is not as it was found, for a while.
async fn until_restored(place: &Place, found: &Found) {
    let is_other =
        |object: Option<DynamicObject>| object.and_then(|it| it.metadata.resource_version) != found.version();
    let seen = watch_object(place.api(), place.name()).default_backoff();
    let other = seen.any(|seen| futures::future::ready(seen.is_ok_and(is_other)));
    let _ = timeout(RESTORING, other).await;
}

/// Whether every API server has had time to learn of the next authority. Where there is no
/// registration nobody has to, and the same time is left to whoever copies `ca.crt` elsewhere.
fn next_is_known(known: &mut Option<(String, Instant)>, keyring: &Keyring, registered: &Look, plan: &Plan) -> bool {
    let Some(next) = keyring.next() else {
        *known = None;
        return false;
    };
    let is_there = match registered {
        Look::Here(here) => here.knows(next),
        Look::Absent | Look::Unasked => true,
        Look::Unread(_) => return false,
    };
    if !is_there {
        *known = None;
        return false;
    }
    match known {
        Some((seen, since)) if seen == next => since.elapsed() >= SETTLING.min(plan.authority / 12),
        Some(_) | None => {
            *known = Some((next.to_owned(), Instant::now()));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::http::{Request, Response};
    use jiff::fmt::rfc2822::DateTimePrinter;
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn days(number: i64) -> SignedDuration {
        SignedDuration::from_hours(24 * number)
    }

    /// A keeper with nothing but a Secret, and what is written to it, of an API server with this time.
    fn keeper(secret: Value, time: Timestamp) -> (Keeper, Arc<Mutex<Vec<Value>>>) {
        let written = Arc::<Mutex<Vec<Value>>>::default();
        let writing = Arc::clone(&written);
        let service = tower::service_fn(move |request: Request<Body>| {
            let (written, secret) = (Arc::clone(&writing), secret.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                if head.method == "PUT" {
                    written.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                }
                let answer = if head.uri.path().contains("validatingwebhookconfigurations") {
                    let client = json!({ "url": "https://gate.ns.svc/validate", "caBundle": secret["data"]["ca.crt"] });
                    let entry = json!({ "name": "gate", "clientConfig": client });
                    json!({ "metadata": { "name": "gate" }, "webhooks": [entry] }).to_string().into_bytes()
                } else if body.is_empty() {
                    secret.to_string().into_bytes()
                } else {
                    body.to_vec()
                };
                let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap();
                let answer = Response::builder().header("date", date).body(Body::from(answer));
                Ok::<_, std::io::Error>(answer.unwrap())
            }
        });
        let own = OwnCertificate {
            namespace: "ns".to_owned(),
            secret: "gate-tls".to_owned(),
            service: "gate".to_owned(),
            authority_life: 360 * DAY,
            leaf_life: 90 * DAY,
        };
        let settings = Settings {
            certificate: Some(own),
            webhook: None,
            guard: false,
            service: None,
            failure_policy: None,
            probe_namespace: "ns".to_owned(),
            every: DAY,
        };
        let rules = watch::channel(Arc::new(crate::config::Settings::default().rule_set())).1;
        let client = Client::new(service, "ns");
        (Keeper::new(settings, client, InService::default(), rules, Telemetry::default()), written)
    }

    /// A Secret as a gate wrote it then.
    fn secret(then: Timestamp) -> Value {
        let names = ["svc", "svc.cluster.local"].map(|end| format!("gate.ns.{end}"));
        let names = names.into_iter().chain(["gate.ns".to_owned()]).collect();
        let plan = Plan { authority: 360 * DAY, leaf: 90 * DAY, names };
        let members = Keyring::new(&plan, then).unwrap().members().into_iter();
        let encoded = members.map(|(name, value)| {
            use base64::Engine as _;
            (name, base64::engine::general_purpose::STANDARD.encode(value))
        });
        let data: std::collections::BTreeMap<_, _> = encoded.collect();
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "gate-tls", "resourceVersion": "1" }, "data": data })
    }

    #[tokio::test]
    async fn a_clock_far_ahead_of_the_api_servers_renews_nothing() {
        for behind in [100, 400] {
            let there = Timestamp::now() - days(behind);
            let (mut keeper, written) = keeper(secret(there - days(1)), there);
            assert!(keeper.attempt().await.is_ok());
            assert_eq!(written.lock().unwrap().len(), 0, "{behind} days");
            let told = keeper.said.iter().find(|(matter, _)| *matter == "clock").unwrap();
            assert!(told.1.contains("minutes ahead of the API server's"), "{}", told.1);
        }
    }

    #[tokio::test]
    async fn what_the_api_server_trusts_is_trusted_whatever_time_it_is_here() {
        for ahead in [-2, 100, 400] {
            let there = Timestamp::now() - days(ahead);
            let (mut keeper, _) = keeper(secret(there - days(1)), there);
            keeper.settings.webhook = Some("gate".to_owned());
            assert!(keeper.attempt().await.is_ok());
            assert!(!keeper.is_untrusted, "{ahead} days: {:?}", keeper.said);
        }
    }

    #[tokio::test]
    async fn what_is_due_by_the_api_servers_clock_is_renewed_by_it() {
        let there = Timestamp::now() + days(70);
        let (mut keeper, written) = keeper(secret(Timestamp::now()), there);
        assert!(keeper.attempt().await.is_ok());
        assert_eq!(written.lock().unwrap().len(), 1);
        let leaf = keeper.last.as_ref().unwrap().leaf();
        let facts = super::super::issue::Facts::of(&leaf.certificate).unwrap();
        assert!(facts.not_after > there + days(89), "{}", facts.not_after);
    }
}
