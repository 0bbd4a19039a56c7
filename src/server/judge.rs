//! From a whole body to its answer: on which thread it is judged, and what is looked at again
//! before it is refused.

use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::room::{Guest, NoRoom};
use super::workers::Workers;
use super::{Origin, Reviewer};
use crate::admission::{Answer, Doubt, Sight};
use crate::cluster::Cluster;
use crate::model::Stop;
use crate::rules::{Action, RuleSet};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Confirmation;

/// The share of the time left that reading anew may take; the rest is for judging again.
const TIME_TO_CONFIRM: f64 = 0.75;
/// How many namespaces are read anew for one review. A change for want of which more suffer at once
/// is one that was made with care, and not a folder being applied.
const MOST_CONFIRMED: usize = 16;

/// What judges reviews, and what it judges by.
pub(super) struct Judge {
    pub(super) reviewer: Reviewer,
    pub(super) origin: Option<Arc<dyn Origin>>,
    pub(super) cluster: watch::Receiver<Arc<Cluster>>,
    pub(super) metrics: Metrics,
    pub(super) workers: Workers,
}

/// A review to be judged.
pub(super) struct Review {
    pub(super) rules: Arc<RuleSet>,
    pub(super) body: Bytes,
    /// Its place in the room.
    pub(super) guest: Guest,
    /// Whether judging it may take so long that it gets a thread of its own.
    pub(super) is_large: bool,
    /// When the answer must be there.
    pub(super) deadline: Instant,
    /// Ends it, wherever it is by then.
    pub(super) stop: Stop,
}

/// Why a review has no answer of its own.
pub(super) enum Unanswered {
    /// There was no room to judge it.
    Full(NoRoom),
    /// What it leaves in place could not be read in time.
    Late,
}

impl From<NoRoom> for Unanswered {
    fn from(full: NoRoom) -> Self {
        Self::Full(full)
    }
}

impl Judge {
    /// Judges beside the connection, which can so answer when the deadline passes, and which a
    /// review that panics does not take with it. `places` go with the review: one that is late
    /// takes up room for as long as it runs.
    pub(super) fn begin(
        self: &Arc<Self>,
        review: Review,
        places: impl Send + 'static,
    ) -> JoinHandle<Result<Answer, Unanswered>> {
        let judge = Arc::clone(self);
        tokio::spawn(async move {
            let answer = judge.judge(review).await;
            drop(places);
            answer
        })
    }

    async fn judge(&self, review: Review) -> Result<Answer, Unanswered> {
        let cluster = Arc::clone(&self.cluster.borrow());
        let answer = self.once(&review, Arc::clone(&cluster), self.doubts(&review.rules)).await?;
        match &self.origin {
            Some(origin) if !answer.record.to_confirm.namespaces.is_empty() => {
                self.confirm(&review, origin.as_ref(), cluster, answer).await
            }
            Some(_) | None => Ok(answer),
        }
    }

    /// Judges again by what is there now: a watch trails what was just written, and whoever applies
    /// a policy and what it protects in one go must not be refused for want of the policy. Nor must
    /// whoever deletes all policies in one go find each of them to be one of several.
    async fn confirm(
        &self,
        review: &Review,
        origin: &dyn Origin,
        cluster: Arc<Cluster>,
        first: Answer,
    ) -> Result<Answer, Unanswered> {
        let time = review.deadline.saturating_duration_since(Instant::now()).mul_f64(TIME_TO_CONFIRM);
        let was_allowed = first.record.allowed;
        let mut reading = first.record.to_confirm.clone();
        reading.namespaces.truncate(MOST_CONFIRMED);
        // What is unread is left out of the renewal, and may have been read by the end of it.
        let mut doubts = self.doubts(&review.rules);
        let renewed = timeout(time, origin.renew(Arc::clone(&cluster), reading)).await;
        doubts.extend(self.doubts(&review.rules));
        let (cluster, is_confirmed) = match renewed {
            Ok(Ok(renewed)) => (Arc::new(renewed), true),
            Ok(Err(why)) if was_allowed => {
                tracing::warn!(error = why, "what a deletion leaves in place cannot be looked at again");
                self.metrics.confirmation(Confirmation::Failed);
                return Ok(first);
            }
            Ok(Err(why)) => {
                tracing::warn!(error = why, "a denial cannot be confirmed and becomes a warning");
                doubts.push(Doubt::Unconfirmed(why));
                (cluster, false)
            }
            // A namespace can be filled until reading it takes too long: that must open nothing.
            Err(_) => {
                tracing::warn!("a fresh read did not end in time, and `onTimeout` decides");
                if was_allowed {
                    self.metrics.confirmation(Confirmation::Failed);
                    return if review.rules.on_timeout == Action::Deny { Err(Unanswered::Late) } else { Ok(first) };
                }
                doubts.push(Doubt::Late);
                (cluster, false)
            }
        };
        let answer = self.once(review, cluster, doubts).await?;
        let outcome = match (is_confirmed, was_allowed, answer.record.allowed) {
            (false, ..) => Confirmation::Failed,
            (true, false, true) => Confirmation::Withdrawn,
            (true, true, false) => Confirmation::Overturned,
            (true, ..) => Confirmation::Upheld,
        };
        self.metrics.confirmation(outcome);
        Ok(answer)
    }

    /// Judges once, when it is its turn, on a worker while there is one to spare.
    async fn once(&self, review: &Review, cluster: Arc<Cluster>, doubts: Vec<Doubt>) -> Result<Answer, Unanswered> {
        let turn = review.guest.turn(review.deadline).await?;
        let (reviewer, rules) = (Arc::clone(&self.reviewer), Arc::clone(&review.rules));
        let (body, stop) = (Bytes::clone(&review.body), review.stop.clone());
        let judge = move || {
            // One that runs on past its deadline keeps its turn.
            let _turn = turn;
            let sight = Sight { cluster: &cluster, doubts: &doubts, stop: Some(&stop) };
            reviewer(&rules, sight, &body, Timestamp::now())
        };
        if !review.is_large
            && let Some(_place) = self.workers.take()
        {
            return Ok(judge());
        }
        match tokio::task::spawn_blocking(judge).await {
            Ok(answer) => Ok(answer),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn doubts(&self, rules: &RuleSet) -> Vec<Doubt> {
        let Some(origin) = &self.origin else { return Vec::new() };
        let (age, unread) = (origin.age(), origin.unread());
        let is_stale = SignedDuration::try_from(age).is_ok_and(|age| age > rules.max_age);
        let stale = is_stale.then_some(Doubt::Stale(age));
        let unread = (!unread.is_empty()).then_some(Doubt::Unread(unread));
        stale.into_iter().chain(unread).collect()
    }
}
