//! Room to judge in: whose review is judged when not all can be at once.
//!
//! A body that is there has two things in it that its sender chose: how long judging it takes, and
//! how much memory that needs. Neither may be taken from others.
//!
//! ```text
//! the share is full -> refused at once
//! else it is inside, and each time it is judged it waits, for half of the time that is left, for
//!   a turn among the reviews of its namespace   slow ones keep each other waiting and nobody else
//!   memory, by what it becomes                  large ones keep each other waiting, never small ones
//! ```
//!
//! A namespace's share is what its reviews have that one sender sends: anyone can write a review that
//! names another's namespace, but not from the API server's address.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::Limits;
use super::places::{Caller, Peer};
use crate::k8s::MOST_ITEMS;

/// The reviews of one namespace that are judged at the same time. It bounds what a namespace takes of
/// the processor from the others: reviews that take microseconds need no more.
const AT_ONCE: usize = 2;
/// A namespace has this share of all places, and at least [`LEAST_INSIDE`].
const SHARE: usize = 8;
/// No share is smaller, or a burst from one namespace would be turned away by an idle gate.
const LEAST_INSIDE: usize = 8;
/// How many shares are remembered that have no review inside.
const MOST_REMEMBERED: usize = 1024;
/// The longest name of a namespace (RFC 1123 label). What follows in a longer one is nobody's.
const LONGEST_NAME: usize = 63;

/// What an item of a list or a mapping takes at most while it is judged, in bytes: read, lowered, and
/// in what rules make of it. Measured by `make bench-memory`.
const ITEM: usize = 640;
/// What a byte of the body takes: it is kept while it is judged, and long texts in it are copied.
const BYTE: usize = 2;
/// A review of more memory counts as large. Nearly none is: a usual one takes some 100 KiB.
const LARGE: usize = 1024 * 1024;
/// The part of the memory that is kept for reviews that are not large.
const KEPT_FOR_SMALL: usize = 4;
/// What memory is counted in.
const UNIT: usize = 1024;

/// Room for the reviews whose bodies are there.
pub(super) struct Room {
    shares: Mutex<HashMap<Whose, Share>>,
    inside: usize,
    small: Pool,
    large: Pool,
}

/// Whose share it is.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Whose {
    /// The sender; nothing for those that are known, which send what the cluster is asked for.
    peer: Option<Peer>,
    namespace: Arc<str>,
}

/// What one namespace has of the room.
#[derive(Clone)]
struct Share {
    /// Its reviews that are here.
    inside: usize,
    turns: Arc<Semaphore>,
    /// Of those that are large only one is judged at a time.
    large_turn: Arc<Semaphore>,
}

/// Memory to judge in.
struct Pool {
    /// In [`UNIT`]s.
    free: Arc<Semaphore>,
    all: usize,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The namespace has its share, and takes all of it.
    Namespace,
    /// The memory is taken.
    Memory,
}

/// A review that is inside, until it is dropped.
pub(super) struct Guest {
    room: Arc<Room>,
    whose: Whose,
    share: Share,
    /// In bytes.
    memory: usize,
}

/// A turn to judge, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _among_large: Option<OwnedSemaphorePermit>,
    _among_all: OwnedSemaphorePermit,
    _memory: OwnedSemaphorePermit,
}

impl Room {
    pub(super) fn new(limits: &Limits) -> Self {
        let small = limits.memory / KEPT_FOR_SMALL;
        Self {
            shares: Mutex::default(),
            inside: (limits.reviews / SHARE).max(LEAST_INSIDE),
            small: Pool::new(small),
            large: Pool::new(limits.memory.saturating_sub(small)),
        }
    }

    /// Lets a review in, unless its namespace has all of its share inside.
    pub(super) fn enter(self: &Arc<Self>, caller: Caller, namespace: &str, body: &[u8]) -> Result<Guest, NoRoom> {
        let name = namespace.get(..namespace.floor_char_boundary(LONGEST_NAME)).unwrap_or_default();
        let whose = Whose { peer: (!caller.is_known).then_some(caller.peer), namespace: name.into() };
        let mut shares = self.shares();
        if shares.len() >= MOST_REMEMBERED {
            shares.retain(|_, share| share.inside > 0);
        }
        let share = shares.entry(whose.clone()).or_insert_with(Share::new);
        if share.inside >= self.inside {
            return Err(NoRoom::Namespace);
        }
        share.inside += 1;
        let share = share.clone();
        Ok(Guest { room: Arc::clone(self), whose, share, memory: memory(body) })
    }

    fn shares(&self) -> MutexGuard<'_, HashMap<Whose, Share>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    fn new() -> Self {
        Self { inside: 0, turns: Arc::new(Semaphore::new(AT_ONCE)), large_turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Guest {
    /// Waits for a turn to judge, for half of the time until `deadline`: the other half is to judge in.
    pub(super) async fn turn(&self, deadline: Instant) -> Result<Turn, NoRoom> {
        let until = deadline - deadline.saturating_duration_since(Instant::now()) / 2;
        let is_large = self.memory > LARGE;
        let (pool, large) = if is_large {
            (&self.room.large, Some(take(&self.share.large_turn, 1, until).await.ok_or(NoRoom::Namespace)?))
        } else {
            (&self.room.small, None)
        };
        let turn = take(&self.share.turns, 1, until).await.ok_or(NoRoom::Namespace)?;
        let memory = take(&pool.free, pool.units(self.memory), until).await.ok_or(NoRoom::Memory)?;
        Ok(Turn { _among_large: large, _among_all: turn, _memory: memory })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(share) = self.room.shares().get_mut(&self.whose) {
            share.inside -= 1;
        }
    }
}

impl Pool {
    fn new(bytes: usize) -> Self {
        let all = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(all)), all }
    }

    /// How much of it is taken for so many bytes: all of it for more than it has, for then nothing
    /// else is judged beside it, and what is read of an object is bounded.
    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT).min(self.all)).unwrap_or(u32::MAX)
    }
}

/// Permits, at once where there are some and else as soon as there are, in the order of asking.
async fn take(semaphore: &Arc<Semaphore>, permits: u32, until: Instant) -> Option<OwnedSemaphorePermit> {
    if let Ok(taken) = Arc::clone(semaphore).try_acquire_many_owned(permits) {
        return Some(taken);
    }
    timeout_at(until, Arc::clone(semaphore).acquire_many_owned(permits)).await.ok()?.ok()
}

/// What judging a body takes of memory at most, as far as its text tells.
fn memory(body: &[u8]) -> usize {
    // Each item of a list or a mapping stands behind one of these. Those in strings count as well.
    let items = body.iter().filter(|byte| matches!(byte, b'{' | b'[' | b',')).count();
    body.len() * BYTE + items.min(2 * MOST_ITEMS) * ITEM
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(20);

    fn room(memory: usize) -> Arc<Room> {
        Arc::new(Room::new(&Limits { memory, ..Limits::default() }))
    }

    fn from(address: &str) -> Caller {
        Caller { peer: Peer::of(address.parse().unwrap()), is_known: false }
    }

    fn enter(room: &Arc<Room>, namespace: &str, body: &[u8]) -> Result<Guest, NoRoom> {
        room.enter(from("10.0.0.1"), namespace, body)
    }

    fn body(bytes: usize) -> Vec<u8> {
        vec![b'a'; bytes]
    }

    async fn turn(guest: &Guest, time: Duration) -> Result<Turn, NoRoom> {
        guest.turn(Instant::now() + time).await
    }

    #[test]
    fn what_a_body_becomes_counts_and_not_its_length() {
        let empty_rules = format!("[{}]", vec!["{}"; 10_000].join(","));
        assert!(memory(empty_rules.as_bytes()) > 10_000 * ITEM);
        assert_eq!(memory(&body(30_000)), 60_000);
        // What is not read takes nothing.
        assert!(memory(&b",".repeat(1 << 22)) <= 2 * (1 << 22) + 2 * MOST_ITEMS * ITEM);
    }

    #[tokio::test]
    async fn a_namespace_that_takes_all_of_its_share_leaves_that_of_others() {
        let room = room(1 << 30);
        let guests: Vec<_> = (0..32).map(|_| enter(&room, "greedy", b"").unwrap()).collect();
        assert_eq!(enter(&room, "greedy", b"").err(), Some(NoRoom::Namespace));
        let mut turns = Vec::new();
        for guest in &guests[..AT_ONCE] {
            turns.push(turn(guest, LONG).await.unwrap());
        }
        assert_eq!(turn(&guests[AT_ONCE], SHORT).await.unwrap_err(), NoRoom::Namespace);
        let other = enter(&room, "modest", b"").unwrap();
        assert!(turn(&other, LONG).await.is_ok());
        drop(guests);
        assert!(enter(&room, "greedy", b"").is_ok());
    }

    #[tokio::test]
    async fn another_sender_cannot_use_up_a_namespaces_share() {
        let room = room(1 << 30);
        let [api_server, hostile] = ["10.0.0.1", "10.0.0.2"].map(from);
        let forged: Vec<_> = (0..32).map(|_| room.enter(hostile, "shop", b"").unwrap()).collect();
        assert_eq!(room.enter(hostile, "shop", b"").err(), Some(NoRoom::Namespace));
        let _turns = [turn(&forged[0], LONG).await.unwrap(), turn(&forged[1], LONG).await.unwrap()];
        assert!(turn(&room.enter(api_server, "shop", b"").unwrap(), LONG).await.is_ok());
        // Those that are known have one share, from wherever they send.
        let known = |caller| Caller { is_known: true, ..caller };
        let _held: Vec<_> = (0..32).map(|_| room.enter(known(hostile), "shop", b"").unwrap()).collect();
        assert_eq!(room.enter(known(api_server), "shop", b"").err(), Some(NoRoom::Namespace));
    }

    #[tokio::test]
    async fn a_turn_that_is_given_back_is_the_next_ones() {
        let room = room(1 << 30);
        let guest = enter(&room, "shop", b"").unwrap();
        let turns = [turn(&guest, LONG).await.unwrap(), turn(&guest, LONG).await.unwrap()];
        let waiting = turn(&guest, LONG);
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(SHORT, &mut waiting).await.is_err());
        drop(turns);
        assert!(waiting.await.is_ok());
    }

    #[tokio::test]
    async fn large_ones_wait_for_each_other_and_small_ones_for_none_of_them() {
        let room = room(8 << 20);
        let [first, second, same] = ["a", "b", "a"].map(|namespace| enter(&room, namespace, &body(2 << 20)).unwrap());
        let held = turn(&first, LONG).await.unwrap();
        assert_eq!(turn(&second, SHORT).await.unwrap_err(), NoRoom::Memory);
        assert_eq!(turn(&same, SHORT).await.unwrap_err(), NoRoom::Namespace, "one large one of a namespace at a time");
        let small = enter(&room, "a", &body(1024)).unwrap();
        assert!(turn(&small, LONG).await.is_ok());
        drop(held);
        assert!(turn(&second, LONG).await.is_ok());
    }

    #[tokio::test]
    async fn one_that_is_larger_than_the_memory_is_judged_alone() {
        let room = room(8 << 20);
        let [huge, other] = [64 << 20, 2 << 20].map(|bytes| enter(&room, "shop", &body(bytes)).unwrap());
        let held = turn(&huge, LONG).await.unwrap();
        assert!(turn(&other, SHORT).await.is_err());
        drop(held);
    }

    #[test]
    fn namespaces_that_come_and_go_are_forgotten() {
        let room = room(1 << 30);
        let kept = enter(&room, "kept", b"").unwrap();
        for number in 0..3 * MOST_REMEMBERED {
            drop(enter(&room, &format!("n{number}"), b"").unwrap());
        }
        assert!(room.shares().len() <= MOST_REMEMBERED + 1);
        assert!(room.shares().keys().any(|whose| &*whose.namespace == "kept"));
        drop(kept);
        let long = "x".repeat(1 << 20);
        assert_eq!(enter(&room, &long, b"").unwrap().whose.namespace.len(), LONGEST_NAME);
    }
}
