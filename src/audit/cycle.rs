//! The audit as it runs in the gate: on the replica that holds the Lease, after every change and on a
//! schedule.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::events::{Teller, waivers_by_state};
use super::lease::{BELIEF, EVERY, Lease};
use super::publish::Publisher;
use super::{Scan, losses, scan};
use crate::cluster::Cluster;
use crate::model::Object;
use crate::rules::RuleSet;
use crate::telemetry::Metrics;

/// How long nothing has to change before what has changed is looked at.
const QUIET: Duration = Duration::from_secs(2);
/// How long it is waited for that at most: a busy cluster is never quiet.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long after a policy is gone it is looked at what it protected: what goes with it is marked by
/// then.
const AFTER_LOSS: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(15);
/// How long one attempt at the Lease may take.
const LEASE_TIME: Duration = Duration::from_secs(5);

/// What is audited, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The Lease.
    pub lease: String,
    /// What this replica is called in it.
    pub identity: String,
    /// How often all of it is looked at although nothing has changed.
    pub every: Duration,
    /// Whether reports are written.
    pub reports: bool,
    /// Whether Events are written.
    pub events: bool,
}

/// Audits until `shutdown` completes, and gives the Lease up then. `is_whole` says whether all of the
/// cluster has been listed: of half a cluster nothing is told.
pub async fn run(
    settings: Settings,
    client: Client,
    cluster: watch::Receiver<Arc<Cluster>>,
    rules: watch::Receiver<Arc<RuleSet>>,
    metrics: Metrics,
    is_whole: impl Fn() -> bool + Send + Sync + 'static,
    shutdown: impl Future<Output = ()>,
) {
    let (held, is_held) = watch::channel(None);
    let lease = Lease::new(&client, &settings.namespace, &settings.lease, &settings.identity);
    let keeping = tokio::spawn(keep(lease, held));
    let auditing = tokio::spawn(async move {
        let seen = Arc::clone(&cluster.borrow());
        let auditor = Auditor { settings, client, cluster, rules, metrics, is_held, seen, gone: Vec::new() };
        auditor.run(is_whole).await;
    });
    shutdown.await;
    // What is being written is finished or not; nothing of it is half.
    auditing.abort();
    end(keeping).await;
}

/// Stops renewing the Lease and gives it up.
async fn end(keeping: JoinHandle<()>) {
    // It gives the Lease up when it is asked to end, which is when nobody looks at it any more.
    let _ = timeout(LEASE_TIME * 2, keeping).await;
}

/// Keeps the Lease, or keeps trying for it. What is held is known by when it was last renewed.
async fn keep(mut lease: Lease, held: watch::Sender<Option<Instant>>) {
    let mut was_held = false;
    loop {
        let asked = Instant::now();
        let is_held = match timeout(LEASE_TIME, lease.hold()).await {
            Ok(Ok(is_held)) => Some(is_held),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the audit's lease cannot be looked at");
                None
            }
            Err(_) => None,
        };
        match is_held {
            Some(true) => {
                held.send_replace(Some(asked));
            }
            Some(false) => {
                held.send_replace(None);
            }
            // It runs out by itself where it cannot be renewed.
            None => {}
        }
        if is_held == Some(true) && !was_held {
            tracing::info!("this replica audits");
        }
        was_held = is_held.unwrap_or(was_held);
        tokio::select! {
            () = sleep(EVERY) => {}
            () = held.closed() => break,
        }
    }
    if was_held {
        let _ = timeout(LEASE_TIME, lease.release()).await;
    }
}

struct Auditor {
    settings: Settings,
    client: Client,
    cluster: watch::Receiver<Arc<Cluster>>,
    rules: watch::Receiver<Arc<RuleSet>>,
    metrics: Metrics,
    is_held: watch::Receiver<Option<Instant>>,
    /// The cluster as it was last looked at.
    seen: Arc<Cluster>,
    /// The policies that have gone since the last scan.
    gone: Vec<Object>,
}

/// How long it is until a waiver runs out, to the moment after.
fn next_end(scan: &Scan) -> Option<Duration> {
    let next = scan.namespaces.iter().filter_map(|posture| posture.waivers.next_end).min()?;
    let left = Duration::try_from(next.duration_since(scan.at)).unwrap_or_default();
    Some(left + Duration::from_millis(100))
}

/// Whether the Lease is held for certain: it was renewed a short while ago.
fn is_held(held: &watch::Receiver<Option<Instant>>) -> bool {
    held.borrow().is_some_and(|renewed| renewed.elapsed() < BELIEF)
}

impl Auditor {
    async fn run(mut self, is_whole: impl Fn() -> bool) {
        loop {
            while !(is_held(&self.is_held) && is_whole()) {
                self.metrics.no_audit();
                sleep(Duration::from_millis(200)).await;
            }
            self.term(&is_whole).await;
        }
    }

    /// Audits for as long as the Lease is held.
    async fn term(&mut self, is_whole: impl Fn() -> bool) {
        let mut publisher = Publisher::new(self.client.clone(), self.metrics.clone(), self.settings.every);
        let mut teller = {
            let Settings { identity, every, .. } = &self.settings;
            Teller::new(self.client.clone(), self.metrics.clone(), identity.clone(), *every)
        };
        // What was listed last may be a moment from being known.
        sleep(QUIET).await;
        // What went before this term is compared by its reports.
        (self.seen, self.gone) = (Arc::clone(&self.cluster.borrow()), Vec::new());
        while is_held(&self.is_held) {
            if !is_whole() {
                return;
            }
            let cluster = Arc::clone(&self.cluster.borrow_and_update());
            let rules = Arc::clone(&self.rules.borrow_and_update());
            let begun = Instant::now();
            self.notice(&cluster);
            let lost = self.tell_of_losses(&rules, &cluster, &mut teller).await;
            let judged = {
                let (cluster, rules) = (Arc::clone(&cluster), Arc::clone(&rules));
                tokio::task::spawn_blocking(move || scan(&rules, &cluster, Timestamp::now())).await
            };
            // A rule that panics is a finding, so this is a fault of the audit's own.
            let Ok(scan) = judged else { return };
            self.gauge(&rules, &cluster, &scan);
            let told = self.tell(&rules, &cluster, &scan, &mut publisher, &mut teller).await.and(lost);
            match told {
                Ok(()) => {
                    self.metrics.audited(scan.at, begun.elapsed());
                    let next = next_end(&scan).unwrap_or(self.settings.every);
                    self.rest(self.settings.every.min(next)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "what the audit found cannot be told, and is tried again");
                    self.rest(AFTER_FAILURE).await;
                }
            }
        }
        tracing::info!("another replica audits");
    }

    /// Notes what policies have gone since the cluster was last looked at.
    fn notice(&mut self, cluster: &Arc<Cluster>) {
        self.gone.extend(cluster.lost_since(&self.seen));
        self.seen = Arc::clone(cluster);
    }

    /// Tells of what the policies that are gone protected, before all else.
    async fn tell_of_losses(
        &mut self,
        rules: &Arc<RuleSet>,
        cluster: &Arc<Cluster>,
        teller: &mut Teller,
    ) -> Result<(), kube::Error> {
        let gone = std::mem::take(&mut self.gone);
        if gone.is_empty() {
            return Ok(());
        }
        let (rules, cluster, now) = (Arc::clone(rules), Arc::clone(cluster), Timestamp::now());
        let judged = tokio::task::spawn_blocking(move || losses::of(&rules, &cluster, gone, now)).await;
        let losses = judged.unwrap_or_default();
        for loss in &losses {
            self.metrics.protection_lost(loss.finding.rule.name);
            tracing::warn!(
                object = %loss.object.reference(),
                rule = loss.finding.rule.name,
                finding = loss.message(),
                "a policy is gone whose deletion the gate would have denied"
            );
        }
        if !self.settings.events {
            return Ok(());
        }
        let held = self.is_held.clone();
        teller.tell_of_losses(&losses, now, || is_held(&held)).await
    }

    async fn tell(
        &self,
        rules: &RuleSet,
        cluster: &Cluster,
        scan: &Scan,
        publisher: &mut Publisher,
        teller: &mut Teller,
    ) -> Result<(), kube::Error> {
        let held = self.is_held.clone();
        let may_go_on = || is_held(&held);
        let mut outcome = Ok(());
        if self.settings.reports {
            outcome = publisher.publish(rules, scan, &may_go_on).await;
        }
        if self.settings.events {
            let left = publisher.left();
            outcome = teller.tell(rules, cluster, scan, left.as_ref(), &may_go_on).await.and(outcome);
        }
        outcome
    }

    fn gauge(&self, rules: &RuleSet, cluster: &Cluster, scan: &Scan) {
        self.metrics.standing(scan.findings.iter().map(|finding| {
            let action = if finding.waived.is_some() { "waived" } else { finding.action.as_str() };
            (finding.rule.name, finding.rule.severity.as_str(), action)
        }));
        for (state, count) in waivers_by_state(rules, cluster, scan.at) {
            self.metrics.waivers(state, count);
        }
    }

    /// Waits for something to change and then be quiet, for a waiver to run out, for the schedule, or
    /// for the Lease to be lost.
    async fn rest(&mut self, every: Duration) {
        let scheduled = Instant::now() + every;
        let (mut changed_at, mut gone_at): (Option<Instant>, Option<Instant>) = (None, None);
        let mut look_at = scheduled;
        loop {
            tokio::select! {
                changed = self.cluster.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let cluster = Arc::clone(&self.cluster.borrow_and_update());
                    self.notice(&cluster);
                }
                changed = self.rules.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = sleep_until(look_at) => return,
                () = sleep(EVERY) => {
                    if !is_held(&self.is_held) {
                        return;
                    }
                    continue;
                }
            }
            let first = *changed_at.get_or_insert_with(Instant::now);
            // A lost protection is reported at once, however busy the cluster is.
            let loss = (!self.gone.is_empty()).then(|| *gone_at.get_or_insert_with(Instant::now) + AFTER_LOSS);
            look_at = (Instant::now() + QUIET).min(first + PATIENCE).min(scheduled).min(loss.unwrap_or(scheduled));
        }
    }
}
