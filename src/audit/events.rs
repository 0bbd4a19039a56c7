//! Events, where a verdict changes: for those who look at an object and not at reports.
//!
//! They are named after what they say, so that what one replica has told another does not tell
//! again; and there is a budget, so that a change that breaks ten thousand objects is a few dozen
//! Events and a number.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};
use serde_json::json;
use tokio::time::Instant;

use super::left::{Left, home};
use super::losses::Loss;
use super::refusals::{Refusals, is_about_one};
use super::{Scan, content, gravity};
use crate::cluster::Cluster;
use crate::model::{ObjectRef, Str};
use crate::rules::{Finding, RuleSet, Standing};
use crate::telemetry::Metrics;

/// How many Events may be written at once, and how often one more.
const BURST: u32 = 25;
const ONE_EVERY: Duration = Duration::from_secs(10);
/// How many days before a waiver ends its owner is told.
const DAYS_BEFORE: [i64; 3] = [1, 7, 14];
/// The longest note an Event takes.
const MOST_NOTE: usize = 1000;

/// What writes Events, and what it compares with.
pub(super) struct Teller {
    client: Client,
    metrics: Metrics,
    identity: String,
    /// The verdict of each object and rule at the last scan; nothing before the first.
    known: Option<BTreeMap<Key, &'static str>>,
    budget: Budget,
    /// The budget for reports of lost policies: a flood of verdicts must not use it up.
    budget_of_losses: Budget,
    /// What was told of waivers, which stand at their stage for days.
    told: BTreeSet<(ObjectRef, String)>,
    /// What was to be told and could not be: it is not found a second time.
    pending: VecDeque<Event>,
    refusals: Refusals,
}

type Key = (ObjectRef, &'static str);

/// A bucket that fills by one token at a time.
struct Budget {
    tokens: u32,
    since: Instant,
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        let filled = now.duration_since(self.since).as_secs() / ONE_EVERY.as_secs();
        if let Ok(filled @ 1..) = u32::try_from(filled) {
            self.tokens = self.tokens.saturating_add(filled).min(BURST);
            self.since += ONE_EVERY * filled;
        }
        let has = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        has
    }
}

/// Something to tell.
struct Event {
    object: ObjectRef,
    is_warning: bool,
    reason: &'static str,
    note: String,
    /// What makes it the same as one that was told already.
    sameness: String,
}

impl Teller {
    /// `every` is how often everything is looked at.
    pub(super) fn new(client: Client, metrics: Metrics, identity: String, every: Duration) -> Self {
        Self {
            client,
            metrics,
            identity,
            known: None,
            budget: Budget { tokens: BURST, since: Instant::now() },
            budget_of_losses: Budget { tokens: BURST, since: Instant::now() },
            told: BTreeSet::new(),
            pending: VecDeque::new(),
            refusals: Refusals::new("event", every),
        }
    }

    /// Tells what has changed since the last scan. The first scan of a term has none before it, and
    /// is compared with what was `left`: where that says nothing, it only looks. What is refused of
    /// single namespaces is no error.
    pub(super) async fn tell(
        &mut self,
        rules: &RuleSet,
        cluster: &Cluster,
        scan: &Scan,
        left: Option<&Left>,
        may_go_on: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let verdicts = verdicts(scan);
        let mut events = Vec::new();
        let known = self.known.take().or_else(|| left.map(|left| stood(left, rules, scan, &verdicts)));
        if let Some(known) = known {
            for (key, (verdict, message)) in &verdicts {
                if known.get(key) != Some(verdict) {
                    events.push(changed(key, verdict, message));
                }
            }
            let mended = known.iter().filter(|(key, verdict)| **verdict != "skip" && !verdicts.contains_key(key));
            events.extend(
                mended.filter(|((object, _), _)| is_there(cluster, object)).map(|(key, _)| mended_event(key, scan.at)),
            );
        }
        self.known = Some(verdicts.into_iter().map(|(key, (verdict, _))| (key, verdict)).collect());
        // Waivers come first: each has its day, and a flood of verdicts must not take it. One that
        // could not be told of at this time is at the next.
        let ending = ending(rules, cluster, scan.at);
        let stages: BTreeSet<_> = ending.iter().map(stage).collect();
        self.told.retain(|stage| stages.contains(stage));
        self.refusals.retain(|namespace| cluster.namespace(namespace).is_some());
        for event in ending {
            // Where they are refused none is tried, so that they take no others' place.
            if self.told.contains(&stage(&event)) || self.is_refused(&event) {
                continue;
            }
            if !may_go_on() || !self.budget.take(Instant::now()) {
                break;
            }
            match self.write(&event, scan.at).await {
                Ok(()) => drop(self.told.insert(stage(&event))),
                // Told again when it was waited for: a waiver stands at its stage for days.
                Err(error) if is_about_one(&error) => self.refuse(&event, &error),
                Err(error) => {
                    self.keep(events);
                    return Err(error);
                }
            }
        }
        self.keep(events);
        self.flush(scan.at, may_go_on).await
    }

    /// Tells of policies that are gone, before all that waits to be told.
    pub(super) async fn tell_of_losses(
        &mut self,
        losses: &[Loss],
        now: Timestamp,
        may_go_on: impl Fn() -> bool,
    ) -> Result<(), Error> {
        for loss in losses {
            let event = lost(loss, now);
            if self.is_refused(&event) {
                self.metrics.event_refused();
            } else if self.budget_of_losses.take(Instant::now()) {
                self.pending.push_front(event);
            } else {
                self.metrics.event_dropped();
            }
        }
        self.flush(now, may_go_on).await
    }

    async fn flush(&mut self, now: Timestamp, may_go_on: impl Fn() -> bool) -> Result<(), Error> {
        while may_go_on() {
            let Some(event) = self.pending.pop_front() else { break };
            match self.write(&event, now).await {
                Ok(()) => {}
                // The verdict is in the report, if there are reports.
                Err(error) if is_about_one(&error) => self.refuse(&event, &error),
                Err(error) => {
                    self.pending.push_front(event);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn is_refused(&self, event: &Event) -> bool {
        self.refusals.is_waiting(event.namespace(), Instant::now())
    }

    fn refuse(&mut self, event: &Event, error: &Error) {
        self.metrics.event_refused();
        self.refusals.add(event.namespace(), error, Instant::now());
    }

    /// Puts by what is to be told, as far as the budget goes.
    fn keep(&mut self, events: Vec<Event>) {
        for event in events {
            if self.is_refused(&event) {
                self.metrics.event_refused();
            } else if self.pending.len() < BURST as usize && self.budget.take(Instant::now()) {
                self.pending.push_back(event);
            } else {
                self.metrics.event_dropped();
            }
        }
    }

    async fn write(&mut self, event: &Event, now: Timestamp) -> Result<(), Error> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("events.k8s.io", "v1", "Event"));
        let namespace = event.namespace();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let mut regarding = content::object(&event.object);
        // An Event is where what it regards is, or the API server refuses it.
        if let ("Namespace", Some(fields)) = (event.object.kind.as_str(), regarding.as_object_mut()) {
            fields.insert("namespace".to_owned(), namespace.into());
        }
        let mut hasher = DefaultHasher::new();
        (&event.object.kind, &event.object.name, event.reason, &event.sameness).hash(&mut hasher);
        let name: String = event.object.name.chars().take(200).filter(|c| *c != '*').collect();
        let name = format!("{}.{:016x}", name.trim_end_matches(['-', '.']), hasher.finish());
        let written = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": { "name": name, "namespace": namespace },
            "eventTime": format!("{now:.6}"),
            "reportingController": "portcullis.dev/audit",
            "reportingInstance": self.identity,
            "action": "Audit",
            "reason": event.reason,
            "type": if event.is_warning { "Warning" } else { "Normal" },
            "note": event.note.chars().take(MOST_NOTE).collect::<String>(),
            "regarding": regarding,
        });
        let written: DynamicObject = serde_json::from_value(written).map_err(Error::SerdeError)?;
        match api.create(&PostParams::default(), &written).await {
            Ok(_) => {
                self.refusals.remove(namespace);
                self.metrics.event_written();
                Ok(())
            }
            // Told before; or the namespace has gone meanwhile, or is going.
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(Error::Api(status)) if status.code == 403 && status.message.contains("being terminated") => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Event {
    /// Where it is written. Of what has no namespace Events are in `default`, as Kubernetes' own are;
    /// but those of a namespace in itself, where those who may look are.
    fn namespace(&self) -> &str {
        match (&self.object.namespace, self.object.kind.as_str()) {
            (Some(namespace), _) => namespace.as_str(),
            (None, "Namespace") => self.object.name.as_str(),
            (None, _) => "default",
        }
    }
}

/// The gravest verdict of each object and rule, and what was found.
fn verdicts(scan: &Scan) -> BTreeMap<Key, (&'static str, &str)> {
    let mut findings: Vec<&Finding> = scan.findings.iter().collect();
    // As reports list them.
    findings.sort_by_key(|finding| std::cmp::Reverse(gravity(finding)));
    let mut verdicts = BTreeMap::new();
    for finding in findings {
        let verdict = (content::verdict(finding), finding.message.as_str());
        verdicts.entry((finding.object.clone(), finding.rule.name)).or_insert(verdict);
    }
    verdicts
}

/// The verdicts as they stood by what was left. Where that says nothing of an object and a rule,
/// they stand as they are now.
fn stood(
    left: &Left,
    rules: &RuleSet,
    scan: &Scan,
    verdicts: &BTreeMap<Key, (&'static str, &str)>,
) -> BTreeMap<Key, &'static str> {
    let on: BTreeMap<_, _> = rules.rules.iter().map(|it| it.rule.meta().name).map(|name| (name, name)).collect();
    let known = left.verdicts().filter_map(|(object, rule, verdict)| Some(((object.clone(), *on.get(rule)?), verdict)));
    let mut stood: BTreeMap<Key, &'static str> = known.collect();
    // A finding may be in a namespace and about an object elsewhere, whose own report does not list it.
    let abroad = scan.findings.iter().filter(|it| it.namespace.as_deref().unwrap_or_default() != home(&it.object));
    let abroad: BTreeSet<Key> = abroad.map(|finding| (finding.object.clone(), finding.rule.name)).collect();
    for (key, (verdict, _)) in verdicts {
        if abroad.contains(key) || !left.knows(&key.0, key.1) {
            stood.insert(key.clone(), verdict);
        }
    }
    stood
}

/// The Event about a policy that is gone. It regards the namespace, which is still there. The same
/// loss at another time is another Event.
fn lost(loss: &Loss, at: Timestamp) -> Event {
    let namespace = loss.finding.namespace.as_ref().or(loss.object.namespace()).cloned().unwrap_or_default();
    Event {
        object: ObjectRef { kind: "Namespace".into(), namespace: None, name: namespace },
        is_warning: true,
        reason: "ProtectionLost",
        note: format!("[{}] {}", loss.finding.rule.name, loss.message()),
        sameness: format!("{} {} {at}", loss.finding.rule.name, loss.object.reference()),
    }
}

/// Which waiver is at which of its stages.
fn stage(event: &Event) -> (ObjectRef, String) {
    (event.object.clone(), event.sameness.clone())
}

fn changed((object, rule): &Key, verdict: &'static str, message: &str) -> Event {
    let (is_warning, reason) = match verdict {
        "fail" => (true, "PolicyViolation"),
        "warn" | "error" => (true, "PolicyWarning"),
        _ => (false, "PolicyWaived"),
    };
    Event {
        object: object.clone(),
        is_warning,
        reason,
        note: format!("[{rule}] {message}"),
        sameness: format!("{rule} {message}"),
    }
}

fn mended_event((object, rule): &Key, at: Timestamp) -> Event {
    Event {
        object: object.clone(),
        is_warning: false,
        reason: "PolicyMended",
        note: format!("[{rule}] nothing to object to any more"),
        sameness: format!("{rule} {at}"),
    }
}

/// Whether an object is there to tell something of.
fn is_there(cluster: &Cluster, object: &ObjectRef) -> bool {
    let namespace = object.namespace.as_ref().unwrap_or(&object.name);
    cluster.namespace(namespace).is_some_and(|state| {
        state.object.is_some()
            && match object.kind.as_str() {
                "NetworkPolicy" => state.policies.get(&object.name).is_some(),
                "PeerAuthentication" => state.peer_authentications.get(&object.name).is_some(),
                "Waiver" => state.waivers.get(&object.name).is_some(),
                "Namespace" => true,
                _ => state.workloads.iter().any(|it| it.id.kind == object.kind && it.id.name == object.name),
            }
    })
}

/// The waivers that end soon, each at the last of its stages it has reached.
fn ending(rules: &RuleSet, cluster: &Cluster, now: Timestamp) -> Vec<Event> {
    let mut events = Vec::new();
    for waiver in cluster.namespaces().flat_map(|state| state.waivers.iter()) {
        let object = crate::model::Object::Waiver(waiver.clone()).reference();
        let owner = &waiver.terms.owner;
        let (stage, note) = match rules.environment.waivers.standing(waiver, now) {
            Standing::Holds(ends) => {
                let within = |days: &i64| ends.duration_since(now) <= SignedDuration::from_hours(24 * days);
                let Some(days) = DAYS_BEFORE.into_iter().find(|days| within(days)) else { continue };
                let s = if days == 1 { "" } else { "s" };
                (days.to_string(), format!("ends in less than {days} day{s}, on {}; ask {owner}", waiver.terms.expires))
            }
            Standing::Expired(_) => (
                "expired".to_owned(),
                format!("has run out ({}) and counts as absent; ask {owner}", waiver.terms.expires),
            ),
            Standing::Invalid(_) => continue,
        };
        let rules: Vec<&str> = waiver.terms.rules.iter().map(Str::as_str).collect();
        events.push(Event {
            object,
            is_warning: true,
            reason: "WaiverEnds",
            note: format!("the waiver of {} {note}", rules.join(", ")),
            sameness: format!("{stage} {}", waiver.terms.expires),
        });
    }
    events
}

/// The waivers by what they come to, for the gauge: each stage counts those of the later ones too.
pub(super) fn waivers_by_state(rules: &RuleSet, cluster: &Cluster, now: Timestamp) -> [(&'static str, i64); 6] {
    let mut states = [
        ("active", 0),
        ("expires_within_14_days", 0),
        ("expires_within_7_days", 0),
        ("expires_within_1_day", 0),
        ("expired", 0),
        ("invalid", 0),
    ];
    let mut count = |name: &str| {
        if let Some(state) = states.iter_mut().find(|(state, _)| *state == name) {
            state.1 += 1;
        }
    };
    let settings = &rules.environment.waivers;
    let here = settings.list.iter().map(crate::rules::GrantedHere::waiver);
    let all = cluster.namespaces().flat_map(|state| state.waivers.iter()).map(|waiver| waiver.as_ref().clone());
    for waiver in all.chain(here) {
        match settings.standing(&waiver, now) {
            Standing::Holds(ends) => {
                count("active");
                let left = ends.duration_since(now);
                for (days, state) in
                    [(14, "expires_within_14_days"), (7, "expires_within_7_days"), (1, "expires_within_1_day")]
                {
                    if left <= SignedDuration::from_hours(24 * days) {
                        count(state);
                    }
                }
            }
            Standing::Expired(_) => count("expired"),
            Standing::Invalid(_) => count("invalid"),
        }
    }
    states
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn the_budget_holds_a_burst_and_fills_by_time() {
        let start = Instant::now();
        let mut budget = Budget { tokens: BURST, since: start };
        let taken = (0..100).filter(|_| budget.take(start)).count();
        assert_eq!(taken, 25);
        assert!(!budget.take(start + ONE_EVERY - Duration::from_millis(1)));
        assert!(budget.take(start + ONE_EVERY));
        assert!(!budget.take(start + ONE_EVERY));
        let later = start + Duration::from_hours(24);
        assert_eq!((0..100).filter(|_| budget.take(later)).count(), 25);
    }

    /// A cluster with so many violations, each of an object of its own, and a waiver that ends soon.
    fn scanned(violations: usize, now: Timestamp) -> (RuleSet, Cluster, Scan) {
        let rules = crate::config::Settings::default().rule_set();
        let ends = now + SignedDuration::from_hours(3 * 24);
        let waiver = json!({
            "apiVersion": "portcullis.dev/v1alpha1",
            "kind": "Waiver",
            "metadata": { "name": "legacy", "namespace": "shop" },
            "spec": { "rules": ["MT001"], "match": {}, "owner": "a", "reason": "b", "expires": ends.to_string() },
        });
        let wide = |number: usize| {
            json!({
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": { "name": format!("wide-{number}"), "namespace": "shop" },
                "spec": {
                    "podSelector": { "matchLabels": { "app": format!("a{number}") } },
                    "policyTypes": ["Egress"],
                    "egress": [{ "to": [{ "ipBlock": { "cidr": "0.0.0.0/0" } }] }],
                },
            })
        };
        let shop = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } });
        let mut index = crate::cluster::Index::new();
        for object in [shop, waiver].into_iter().chain((0..violations).map(wide)) {
            index.apply(crate::k8s::lower_value(&object, "default").object.unwrap());
        }
        let cluster = index.snapshot();
        let scan = crate::audit::scan(&rules, &cluster, now);
        (rules, cluster, scan)
    }

    /// A teller, whether its API server is up, and the Events that has taken by reason and name.
    fn teller() -> (Teller, Arc<AtomicBool>, Arc<Mutex<Vec<String>>>) {
        teller_that_meets(None)
    }

    /// The same, of an API server that says this to every Event.
    fn teller_that_meets(refusal: Option<u16>) -> (Teller, Arc<AtomicBool>, Arc<Mutex<Vec<String>>>) {
        let (is_up, taken) = (Arc::new(AtomicBool::new(true)), Arc::<Mutex<Vec<String>>>::default());
        let (up, taking) = (Arc::clone(&is_up), Arc::clone(&taken));
        let service = tower::service_fn(move |request: axum::http::Request<kube::client::Body>| {
            let (is_up, taken) = (up.load(Ordering::SeqCst), Arc::clone(&taking));
            async move {
                if !is_up {
                    return Err(std::io::Error::other("connection refused"));
                }
                let body = request.into_body().collect_bytes().await.unwrap();
                let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let [reason, name] = [&event["reason"], &event["regarding"]["name"]].map(|it| it.as_str().unwrap());
                taken.lock().unwrap().push(format!("{reason} {name}"));
                if let Some(code) = refusal {
                    let status =
                        json!({ "kind": "Status", "status": "Failure", "message": "no Events here", "code": code });
                    let refused = kube::client::Body::from(status.to_string().into_bytes());
                    return Ok(axum::http::Response::builder().status(code).body(refused).unwrap());
                }
                Ok(axum::http::Response::new(kube::client::Body::from(body.to_vec())))
            }
        });
        (
            Teller::new(Client::new(service, "default"), Metrics::default(), "a".to_owned(), Duration::from_mins(10)),
            is_up,
            taken,
        )
    }

    #[tokio::test]
    async fn a_flood_of_verdicts_does_not_take_the_day_of_a_waiver() {
        let (mut teller, _, taken) = teller();
        let now = Timestamp::now();
        let (rules, cluster, scan) = scanned(0, now - SignedDuration::from_hours(14 * 24));
        teller.tell(&rules, &cluster, &scan, None, || true).await.unwrap();
        taken.lock().unwrap().clear();
        let (rules, cluster, scan) = scanned(100, now);
        teller.tell(&rules, &cluster, &scan, None, || true).await.unwrap();
        let taken = taken.lock().unwrap().clone();
        assert_eq!(taken.iter().filter(|it| *it == "WaiverEnds legacy").count(), 1, "{taken:?}");
        assert!((20..=25).contains(&taken.len()), "{taken:?}");
    }

    #[tokio::test]
    async fn where_events_are_refused_none_is_tried_again_before_the_next_pass_and_nothing_fails() {
        let (mut teller, _, tried) = teller_that_meets(Some(403));
        let now = Timestamp::now();
        for violations in [0, 3, 6] {
            let (rules, cluster, scan) = scanned(violations, now);
            teller.tell(&rules, &cluster, &scan, None, || true).await.unwrap();
        }
        assert_eq!(*tried.lock().unwrap(), ["WaiverEnds legacy"]);
        assert_eq!(teller.budget.tokens, BURST - 1);
    }

    #[tokio::test]
    async fn what_cannot_be_told_while_the_api_server_is_away_is_told_when_it_is_back() {
        let (mut teller, is_up, taken) = teller();
        let now = Timestamp::now();
        let (rules, cluster, scan) = scanned(0, now);
        teller.tell(&rules, &cluster, &scan, None, || true).await.unwrap();
        taken.lock().unwrap().clear();
        is_up.store(false, Ordering::SeqCst);
        let (rules, cluster, scan) = scanned(3, now);
        assert!(teller.tell(&rules, &cluster, &scan, None, || true).await.is_err());
        is_up.store(true, Ordering::SeqCst);
        teller.tell(&rules, &cluster, &scan, None, || true).await.unwrap();
        teller.tell(&rules, &cluster, &scan, None, || true).await.unwrap();
        let mut told = taken.lock().unwrap().clone();
        told.retain(|it| it.contains("wide"));
        // Of several rules, each tells of it.
        told.dedup();
        assert_eq!(told, ["PolicyWarning wide-0", "PolicyWarning wide-1", "PolicyWarning wide-2"]);
    }
}
