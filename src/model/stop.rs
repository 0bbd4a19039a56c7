//! How judging ends before its answer is there.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A request that judging end, made when its answer would come too late.
///
/// Judging asks by [`Self::check`], in each loop whose length someone else chooses. One that is asked
/// to stop leaves by unwinding to the engine, as a query of a compiler does that is cancelled: so no
/// evaluator has a half answer that it could hand on as a whole one, and none needs a second type for
/// its answers. The engine makes [`Stopped`] of it; see [`crate::rules::RuleSet::judge_until`].
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

/// Judging ended before its answer was there, because it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl Stop {
    /// Asks all that was begun with this to end.
    pub fn request(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether it was asked for.
    pub fn is_requested(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Returns, unless it was asked to stop: then it unwinds with [`Stopped`], past everything up to
    /// the engine. It is one read of memory, cheap enough for each turn of a loop.
    pub fn check(&self) {
        if self.is_requested() {
            // No panic hook runs: nothing is wrong.
            resume_unwind(Box::new(Stopped));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_check_leaves_only_once_it_is_asked_to() {
        let stop = Stop::default();
        stop.check();
        stop.clone().request();
        let left = catch_unwind(AssertUnwindSafe(|| stop.check()));
        assert!(left.unwrap_err().is::<Stopped>());
    }
}
