//! Which threads judge.
//!
//! A review takes microseconds, and a thread of its own would cost it as many again, so reviews run
//! on the runtime's workers. But a worker that judges attends to no deadline and no probe, and that
//! a review ends soon is not known before it has ended. So the runtime has one worker in reserve.
//! While reviews end quickly it is held back: two workers on one core make each other wait for whole
//! time slices of the operating system's, and on two cores the parts of a review wander between them,
//! which costs more than judging it. A review that lasts sets it free.
//!
//! ```text
//! a place is free   -> the review runs on a worker    it lasts -> the reserve works
//! no place is free  -> the review runs on a thread of its own
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime;

/// How long a review may keep its worker before the reserve is set free.
const PATIENCE: Duration = Duration::from_millis(10);
/// How often the held reserve looks, so that deadlines are kept to within twice this.
const TICK: Duration = Duration::from_millis(10);
/// After how many looks that met no review the reserve sleeps until there is one.
const QUIET: u32 = 5;
/// How long it sleeps at most before its worker may look at its own tasks.
const SLEEP: Duration = Duration::from_millis(100);
/// The time of a place nobody has.
const VACANT: u64 = 0;

/// The workers of one runtime, as reviews take them up.
#[derive(Clone)]
pub(super) struct Workers(Arc<Shared>);

struct Shared {
    /// One for each review that may be on a worker: the milliseconds from `epoch` to its begin.
    places: Box<[AtomicU64]>,
    epoch: Instant,
    reserve: Mutex<Reserve>,
    changed: Condvar,
    /// Whether the reserve sleeps until it is woken. Written under the lock, read without.
    sleeps: AtomicBool,
    /// Whether the reserve is [`Reserve::Free`]. Written under the lock, read without.
    is_free: AtomicBool,
}

/// What the worker in reserve does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reserve {
    /// It is held back.
    Held,
    /// It works, for a review lasts.
    Free,
    /// Nothing is held back any more.
    Ended,
}

/// A review's place on a worker, until it is dropped.
pub(super) struct Place<'a> {
    shared: &'a Arc<Shared>,
    place: &'a AtomicU64,
}

/// The runtimes whose reserve is held back. Two servers on one must not take it twice: there is one
/// worker to spare, and with none left to work nothing would ever let go.
static HELD: Mutex<Vec<runtime::Id>> = Mutex::new(Vec::new());

/// Ends the holding back when it is dropped; a runtime could not end otherwise.
pub(super) struct Holding(Option<(Workers, runtime::Id)>);

impl Workers {
    /// The workers of the runtime this is called in; one with a single worker judges nothing on it.
    pub(super) fn new() -> Self {
        let workers = runtime::Handle::current().metrics().num_workers();
        Self(Arc::new(Shared {
            places: (1..workers).map(|_| AtomicU64::new(VACANT)).collect(),
            epoch: Instant::now(),
            reserve: Mutex::new(Reserve::Ended),
            changed: Condvar::new(),
            sleeps: AtomicBool::new(false),
            is_free: AtomicBool::new(false),
        }))
    }

    /// Holds one worker back from now on, unless another server on this runtime does.
    pub(super) fn hold_reserve(&self) -> Holding {
        let id = runtime::Handle::current().id();
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.places.is_empty() || held.contains(&id) {
            return Holding(None);
        }
        held.push(id);
        *self.0.reserve() = Reserve::Held;
        self.0.hold();
        Holding(Some((self.clone(), id)))
    }

    /// A place on a worker, if there is one.
    pub(super) fn take(&self) -> Option<Place<'_>> {
        let shared = &self.0;
        let now = shared.now();
        let is_taken = |place: &&AtomicU64| place.compare_exchange(VACANT, now, SeqCst, SeqCst).is_ok();
        let place = shared.places.iter().find(is_taken)?;
        if shared.sleeps.load(SeqCst) {
            // With the lock, so that it either sleeps by now or sees the place taken.
            let _reserve = shared.reserve();
            shared.changed.notify_one();
        }
        Some(Place { shared, place })
    }
}

impl Shared {
    /// Never [`VACANT`].
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn reserve(&self) -> MutexGuard<'_, Reserve> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the longest of the reviews on workers has been there.
    fn longest(&self) -> Option<Duration> {
        let begun = self.places.iter().map(|place| place.load(SeqCst)).filter(|begun| *begun != VACANT).min()?;
        Some(Duration::from_millis(self.now().saturating_sub(begun)))
    }

    fn hold(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let mut quiet = 0;
            while shared.sit(&mut quiet) {
                // Tasks that have used up their share of a turn wait on this very worker, where no other
                // can take them, until it comes round: it must never be held for long at a stretch.
                tokio::task::yield_now().await;
            }
        });
    }

    /// Keeps the worker it runs on from working for a moment; whether it is to be kept for another one,
    /// or a review lasts, or it is all over.
    fn sit(&self, quiet: &mut u32) -> bool {
        let mut reserve = self.reserve();
        if *reserve != Reserve::Held {
            return false;
        }
        match self.longest() {
            Some(time) if time >= PATIENCE => {
                *reserve = Reserve::Free;
                self.is_free.store(true, SeqCst);
                return false;
            }
            Some(_) => *quiet = 0,
            None => *quiet += 1,
        }
        if *quiet < QUIET {
            let _held = self.changed.wait_timeout(reserve, TICK).unwrap_or_else(PoisonError::into_inner);
            return true;
        }
        *quiet = 0;
        self.sleeps.store(true, SeqCst);
        // One that began before it could see the flag is looked for once more.
        if self.longest().is_none() {
            let _held = self.changed.wait_timeout(reserve, SLEEP).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleeps.store(false, SeqCst);
        true
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.place.store(VACANT, SeqCst);
        if !self.shared.is_free.load(SeqCst) {
            return;
        }
        let mut reserve = self.shared.reserve();
        if *reserve == Reserve::Free && self.shared.longest().is_none_or(|time| time < PATIENCE) {
            *reserve = Reserve::Held;
            self.shared.is_free.store(false, SeqCst);
            self.shared.hold();
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let Some((workers, id)) = &self.0 else { return };
        *workers.0.reserve() = Reserve::Ended;
        workers.0.changed.notify_one();
        HELD.lock().unwrap_or_else(PoisonError::into_inner).retain(|held| held != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(workers: usize) -> runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap()
    }

    /// Waits for a reserve to be what is expected, and fails when it never is.
    fn becomes(workers: &Workers, expected: Reserve) {
        let begun = Instant::now();
        while *workers.0.reserve() != expected {
            assert!(begun.elapsed() < Duration::from_secs(10), "the reserve never changes");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_review_that_lasts_sets_the_reserve_free_and_its_end_holds_it_again() {
        let runtime = runtime(2);
        let _inside = runtime.enter();
        let workers = Workers::new();
        let _holding = workers.hold_reserve();
        for _ in 0..3 {
            let place = workers.take().unwrap();
            becomes(&workers, Reserve::Free);
            drop(place);
            becomes(&workers, Reserve::Held);
        }
    }

    #[test]
    fn a_sleeping_reserve_wakes_for_a_review() {
        let runtime = runtime(2);
        let _inside = runtime.enter();
        let workers = Workers::new();
        let _holding = workers.hold_reserve();
        let begun = Instant::now();
        while !workers.0.sleeps.load(SeqCst) {
            assert!(begun.elapsed() < Duration::from_secs(10), "it never sleeps");
            std::thread::yield_now();
        }
        let _place = workers.take().unwrap();
        becomes(&workers, Reserve::Free);
    }

    #[test]
    fn there_is_a_place_for_each_worker_but_one() {
        let runtime = runtime(3);
        let _inside = runtime.enter();
        let workers = Workers::new();
        let (first, second) = (workers.take(), workers.take());
        assert!(first.is_some() && second.is_some());
        assert!(workers.take().is_none());
        drop(first);
        assert!(workers.take().is_some());
    }

    #[test]
    fn two_servers_on_one_runtime_hold_one_worker_back() {
        let runtime = runtime(2);
        let _inside = runtime.enter();
        let (first, second) = (Workers::new(), Workers::new());
        let (_first_holding, _second_holding) = (first.hold_reserve(), second.hold_reserve());
        assert!(*first.0.reserve() == Reserve::Held && *second.0.reserve() == Reserve::Ended);
        runtime.block_on(async { tokio::spawn(async {}).await.unwrap() });
    }

    #[test]
    fn a_single_worker_is_neither_held_back_nor_judges() {
        let runtime = runtime(1);
        let _inside = runtime.enter();
        let workers = Workers::new();
        let _holding = workers.hold_reserve();
        assert!(workers.take().is_none());
        runtime.block_on(async { tokio::spawn(async {}).await.unwrap() });
    }
}
