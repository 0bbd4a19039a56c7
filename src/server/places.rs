//! Who holds how much of what all peers share: connections, bodies under way, reviews.
//!
//! One peer can fill its share and no more. When a share or the whole is full, the least useful place
//! is taken from its holder: among the peers, from the one that holds most, and of its places, the
//! one that does least for longest. So a client that opens ten thousand connections closes its own,
//! and a client that opens two finds room.
//!
//! A peer is an address, for nothing else is known of a client that has shown no certificate. What
//! is sent from one address, by way of one node for example, shares what that address has.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::sync::Notify;

use crate::telemetry::Metrics;
use crate::telemetry::metrics::Rejection;

/// Where a client comes from: an IPv4 address, or the /64 of an IPv6 address, which is what one host
/// may choose its addresses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Peer(IpAddr);

impl Peer {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IpAddr::V4(address)),
            IpAddr::V6(address) => {
                Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::from(u64::MAX) << 64))))
            }
        }
    }
}

/// The addresses API servers send from, as far as they are configured.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<[IpNet]>);

impl Known {
    pub(super) fn new(addresses: &[IpNet]) -> Self {
        Self(addresses.into())
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|known| known.contains(&address))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Who asks for a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) peer: Peer,
    /// Whether it is an API server's address, or has shown a client certificate that is accepted.
    pub(super) is_known: bool,
}

/// Whether those that hold a place are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Known,
    Unknown,
}

impl Caller {
    fn standing(self) -> Standing {
        if self.is_known { Standing::Known } else { Standing::Unknown }
    }
}

/// What holds a place, and may have to give it up.
pub(super) trait Holder {
    /// How much would be lost with it, the least first; nothing where it must not be taken away.
    fn worth(&self) -> Option<Worth>;

    /// The place is gone.
    fn leave(&self);
}

/// What a holder does, and since when in milliseconds.
pub(super) type Worth = (u8, u64);

/// A body that is being received: all are worth the same, and the oldest goes first.
impl Holder for Notify {
    fn worth(&self) -> Option<Worth> {
        Some((0, 0))
    }

    fn leave(&self) {
        self.notify_one();
    }
}

/// What cannot be stopped half way.
pub(super) struct Lasting;

impl Holder for Lasting {
    fn worth(&self) -> Option<Worth> {
        None
    }

    fn leave(&self) {}
}

/// How much there is for all and for each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// For all together.
    pub(super) whole: u64,
    /// For one peer that is not known.
    pub(super) share: Share,
    /// Of the whole, what is kept for peers that are known.
    pub(super) kept: u64,
    /// How it is counted that the whole is full, and that a share is.
    pub(super) full: (Rejection, Rejection),
}

/// How much one peer may hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Share {
    /// So much. Fits what can be taken away again.
    Of(u64),
    /// As much as is still free. Fits what cannot: one peer gets half, two get a third each, and there
    /// is something left for the next one.
    AsMuchAsIsFree,
}

/// The places of one kind.
pub(super) struct Places<T: Holder> {
    rules: Rules,
    held: Mutex<Held<T>>,
    metrics: Metrics,
}

struct Held<T> {
    /// By all.
    all: u64,
    /// By those that are not known.
    unknown: u64,
    next: u64,
    peers: BTreeMap<Peer, Holdings<T>>,
}

/// What one peer holds, the oldest first.
struct Holdings<T> {
    /// By its places that are known, and by the others.
    known: u64,
    unknown: u64,
    turn: Turn,
    places: BTreeMap<u64, Taken<T>>,
}

struct Taken<T> {
    weight: u64,
    standing: Standing,
    holder: Arc<T>,
}

/// What the connections of one peer do one after the other.
pub(super) type Turn = Arc<tokio::sync::Mutex<()>>;

/// A place, until it is dropped.
pub(super) struct Place<T: Holder> {
    places: Arc<Places<T>>,
    peer: Peer,
    number: u64,
    /// The peer's.
    pub(super) turn: Turn,
}

/// There is no place.
#[derive(Debug)]
pub(super) struct Full;

impl<T: Holder> Places<T> {
    pub(super) fn new(rules: Rules, metrics: Metrics) -> Arc<Self> {
        let held = Held { all: 0, unknown: 0, next: 0, peers: BTreeMap::new() };
        Arc::new(Self { rules, held: Mutex::new(held), metrics })
    }

    /// A place of this weight; where there is none left, that of a holder which can be spared.
    pub(super) fn take(self: &Arc<Self>, caller: Caller, weight: u64, holder: &Arc<T>) -> Result<Place<T>, Full> {
        let mut held = self.held();
        while let Some((full, reason)) = self.lacks(&held, caller, weight) {
            self.metrics.rejected(reason);
            let spared = match full {
                Lacks::Share => held.spare_of(caller.peer, Standing::Unknown),
                Lacks::Whole => held.spare(Some((caller, weight))),
            };
            held.release(spared.ok_or(Full)?).leave();
        }
        Ok(self.enter(&mut held, caller, weight, holder))
    }

    /// Has the holder that can best be spared give up its place, whatever is free.
    pub(super) fn make_room(&self) {
        let mut held = self.held();
        if let Some(spared) = held.spare(None) {
            held.release(spared).leave();
        }
    }

    fn lacks(&self, held: &Held<T>, caller: Caller, weight: u64) -> Option<(Lacks, Rejection)> {
        let Rules { whole, share, kept, full: (all_full, share_full) } = self.rules;
        if held.all.saturating_add(weight) > whole {
            return Some((Lacks::Whole, all_full));
        }
        if caller.is_known {
            return None;
        }
        let own = held.of(caller.peer, Standing::Unknown).saturating_add(weight);
        let share = match share {
            Share::Of(share) => share,
            Share::AsMuchAsIsFree => whole - held.all,
        };
        if own > share {
            return Some((Lacks::Share, share_full));
        }
        (held.unknown.saturating_add(weight) > whole - kept).then_some((Lacks::Whole, all_full))
    }

    fn enter(self: &Arc<Self>, held: &mut Held<T>, caller: Caller, weight: u64, holder: &Arc<T>) -> Place<T> {
        let number = held.next;
        held.next += 1;
        held.all += weight;
        held.unknown += if caller.is_known { 0 } else { weight };
        let holdings = held.peers.entry(caller.peer).or_insert_with(|| Holdings {
            known: 0,
            unknown: 0,
            turn: Turn::default(),
            places: BTreeMap::new(),
        });
        *holdings.of_mut(caller.standing()) += weight;
        holdings.places.insert(number, Taken { weight, standing: caller.standing(), holder: Arc::clone(holder) });
        Place { places: Arc::clone(self), peer: caller.peer, number, turn: Arc::clone(&holdings.turn) }
    }

    fn held(&self) -> MutexGuard<'_, Held<T>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is not enough of.
enum Lacks {
    Whole,
    Share,
}

/// Which place: whose, and its number.
type Which = (Peer, u64);

impl<T> Holdings<T> {
    fn of(&self, standing: Standing) -> u64 {
        match standing {
            Standing::Known => self.known,
            Standing::Unknown => self.unknown,
        }
    }

    fn of_mut(&mut self, standing: Standing) -> &mut u64 {
        match standing {
            Standing::Known => &mut self.known,
            Standing::Unknown => &mut self.unknown,
        }
    }
}

impl<T: Holder> Held<T> {
    fn of(&self, peer: Peer, standing: Standing) -> u64 {
        self.peers.get(&peer).map_or(0, |holdings| holdings.of(standing))
    }

    /// The place that can best be spared, for this caller if there is one. Those that are known lose
    /// nothing to those that are not.
    fn spare(&self, caller: Option<(Caller, u64)>) -> Option<Which> {
        let spared = self.spare_among(Standing::Unknown, caller);
        let is_known = caller.is_some_and(|(caller, _)| caller.is_known);
        spared.or_else(|| is_known.then(|| self.spare_among(Standing::Known, caller))?)
    }

    /// The same among these: of the peer that holds most, once the caller has what it asks for. A peer
    /// that holds less than the caller would gives nothing up for it.
    fn spare_among(&self, standing: Standing, caller: Option<(Caller, u64)>) -> Option<Which> {
        let asked = |peer: Peer| match caller {
            Some((caller, weight)) if caller.peer == peer && caller.standing() == standing => weight,
            Some(_) | None => 0,
        };
        let own = caller.map_or(0, |(caller, weight)| match asked(caller.peer) {
            0 => 0,
            _ => self.of(caller.peer, standing).saturating_add(weight),
        });
        let holders = self.peers.iter().map(|(peer, it)| (it.of(standing).saturating_add(asked(*peer)), *peer));
        let mut holders: Vec<_> = holders.filter(|(held, _)| *held >= own).collect();
        holders.sort_by_key(|(held, _)| Reverse(*held));
        holders.into_iter().find_map(|(_, peer)| self.spare_of(peer, standing))
    }

    /// The place of this peer's that can best be spared. Of those that do nothing at all it is the first
    /// that was taken, without a look at the rest: in a crowd, each newcomer asks for one.
    fn spare_of(&self, peer: Peer, standing: Standing) -> Option<Which> {
        let mut best = None;
        for (number, taken) in self.peers.get(&peer)?.places.iter().filter(|(_, taken)| taken.standing == standing) {
            let Some(worth) = taken.holder.worth() else { continue };
            if best.is_none_or(|(least, _)| worth < least) {
                best = Some((worth, *number));
            }
            if worth.0 == 0 {
                break;
            }
        }
        best.map(|(_, number)| (peer, number))
    }

    /// Takes a place away that is held.
    fn release(&mut self, (peer, number): Which) -> Arc<T> {
        self.remove(peer, number).expect("what is spared is held").holder
    }

    fn remove(&mut self, peer: Peer, number: u64) -> Option<Taken<T>> {
        let holdings = self.peers.get_mut(&peer)?;
        let taken = holdings.places.remove(&number)?;
        *holdings.of_mut(taken.standing) -= taken.weight;
        if holdings.places.is_empty() {
            self.peers.remove(&peer);
        }
        self.all -= taken.weight;
        self.unknown -= if taken.standing == Standing::Known { 0 } else { taken.weight };
        Some(taken)
    }
}

impl<T: Holder> Place<T> {
    /// Its holder has proved to be known.
    pub(super) fn recognize(&self) {
        let mut held = self.places.held();
        let Some(holdings) = held.peers.get_mut(&self.peer) else { return };
        let Some(taken) = holdings.places.get_mut(&self.number) else { return };
        if taken.standing == Standing::Unknown {
            taken.standing = Standing::Known;
            let weight = taken.weight;
            holdings.known += weight;
            holdings.unknown -= weight;
            held.unknown -= weight;
        }
    }
}

impl<T: Holder> Drop for Place<T> {
    /// Finds nothing where the place was taken away.
    fn drop(&mut self) {
        drop(self.places.held().remove(self.peer, self.number));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A holder with a worth of its own, which remembers that it had to go.
    struct Guest {
        worth: Option<Worth>,
        is_gone: AtomicBool,
    }

    impl Guest {
        fn new(worth: Option<Worth>) -> Arc<Self> {
            Arc::new(Self { worth, is_gone: AtomicBool::new(false) })
        }

        fn is_gone(&self) -> bool {
            self.is_gone.load(Ordering::Relaxed)
        }
    }

    impl Holder for Guest {
        fn worth(&self) -> Option<Worth> {
            self.worth
        }

        fn leave(&self) {
            self.is_gone.store(true, Ordering::Relaxed);
        }
    }

    fn from(address: &str) -> Caller {
        Caller { peer: Peer::of(address.parse().unwrap()), is_known: false }
    }

    fn known(address: &str) -> Caller {
        Caller { is_known: true, ..from(address) }
    }

    fn places<T: Holder>(whole: u64, share: Share, kept: u64) -> Arc<Places<T>> {
        let full = (Rejection::Connections, Rejection::PeerConnections);
        Places::new(Rules { whole, share, kept, full }, Metrics::default())
    }

    const IDLE: Option<Worth> = Some((1, 0));
    const BUSY: Option<Worth> = None;

    /// Takes so many places for guests of this worth.
    fn crowd(
        places: &Arc<Places<Guest>>,
        caller: Caller,
        count: usize,
        worth: Option<Worth>,
    ) -> Vec<(Arc<Guest>, Place<Guest>)> {
        let taken = (0..count).map(|_| {
            let guest = Guest::new(worth);
            let place = places.take(caller, 1, &guest).expect("there is a place");
            (guest, place)
        });
        taken.collect()
    }

    fn gone(crowd: &[(Arc<Guest>, Place<Guest>)]) -> usize {
        crowd.iter().filter(|(guest, _)| guest.is_gone()).count()
    }

    #[test]
    fn an_ipv4_address_is_a_peer_however_it_is_written_and_an_ipv6_network_is_one() {
        let peer = |address: &str| Peer::of(address.parse().unwrap());
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
        assert_eq!(peer("2001:db8:0:1::1"), peer("2001:db8:0:1:ffff::2"));
        assert_ne!(peer("2001:db8:0:1::1"), peer("2001:db8:0:2::1"));
    }

    #[test]
    fn addresses_of_api_servers_are_known_however_they_are_written() {
        let known = Known::new(&["10.0.0.0/24".parse().unwrap()]);
        let contains = |address: &str| known.contains(address.parse().unwrap());
        assert!(contains("10.0.0.7") && contains("::ffff:10.0.0.7"));
        assert!(!contains("10.0.1.7") && !contains("::"));
    }

    #[test]
    fn a_peer_beyond_its_share_loses_its_own_oldest_and_idlest() {
        let places = places(100, Share::Of(4), 0);
        let other = crowd(&places, from("10.0.0.9"), 1, Some((0, 0)));
        let guests = [Some((1, 9)), Some((1, 5)), Some((0, 7)), BUSY].map(Guest::new);
        let held: Vec<_> = guests.iter().map(|it| places.take(from("10.0.0.1"), 1, it).unwrap()).collect();
        let gone = || guests.iter().map(|it| it.is_gone()).collect::<Vec<_>>();
        let _more = crowd(&places, from("10.0.0.1"), 1, BUSY);
        assert_eq!(gone(), [false, false, true, false]);
        let _more = crowd(&places, from("10.0.0.1"), 1, BUSY);
        assert_eq!(gone(), [false, true, true, false], "of two that are idle the one that is so for longer");
        let _more = crowd(&places, from("10.0.0.1"), 1, BUSY);
        assert_eq!(gone(), [true, true, true, false]);
        assert!(places.take(from("10.0.0.1"), 1, &Guest::new(IDLE)).is_err(), "all it has is busy");
        assert!(!other[0].0.is_gone());
        drop(held);
    }

    #[test]
    fn when_the_whole_is_full_the_peer_that_holds_most_makes_room() {
        let places = places(10, Share::Of(10), 0);
        let many = crowd(&places, from("10.0.0.1"), 7, IDLE);
        let few = crowd(&places, from("10.0.0.2"), 3, IDLE);
        let more = crowd(&places, from("10.0.0.2"), 2, IDLE);
        assert_eq!((gone(&many), gone(&few), gone(&more)), (2, 0, 0), "five each");
        let _more = crowd(&places, from("10.0.0.2"), 2, IDLE);
        assert_eq!((gone(&many), gone(&few)), (2, 2), "then it is at its own expense");
        let _third = crowd(&places, from("10.0.0.3"), 3, IDLE);
        assert_eq!(gone(&many) + gone(&few) + gone(&more), 7);
    }

    #[test]
    fn what_is_busy_is_left_and_another_peer_makes_room() {
        let places = places(4, Share::Of(4), 0);
        let busy = crowd(&places, from("10.0.0.1"), 3, BUSY);
        let idle = crowd(&places, from("10.0.0.2"), 1, IDLE);
        let _third = crowd(&places, from("10.0.0.3"), 1, BUSY);
        assert_eq!((gone(&busy), gone(&idle)), (0, 1));
        assert!(places.take(from("10.0.0.4"), 1, &Guest::new(IDLE)).is_err());
    }

    #[test]
    fn a_place_is_free_again_once_whether_it_was_given_back_or_taken_away() {
        let places = places(2, Share::Of(2), 0);
        let first = crowd(&places, from("10.0.0.1"), 2, IDLE);
        let second = crowd(&places, from("10.0.0.2"), 1, BUSY);
        assert_eq!(gone(&first), 1);
        drop(first);
        assert_eq!(places.held().all, 1);
        drop(second);
        let held = places.held();
        assert!((held.all, held.unknown) == (0, 0) && held.peers.is_empty());
    }

    #[test]
    fn as_much_as_is_free_leaves_something_for_the_next_peer() {
        let places = places(256, Share::AsMuchAsIsFree, 0);
        let mut held = Vec::new();
        let mut counts = Vec::new();
        for peer in 1..=5 {
            let caller = from(&format!("10.0.0.{peer}"));
            let before = held.len();
            while let Ok(place) = places.take(caller, 1, &Guest::new(BUSY)) {
                held.push(place);
            }
            counts.push(held.len() - before);
        }
        assert_eq!(counts, [128, 64, 32, 16, 8]);
    }

    #[test]
    fn a_peer_alone_always_finds_one_place() {
        for whole in 1..5 {
            let places = places(whole, Share::AsMuchAsIsFree, 0);
            let _one = crowd(&places, from("10.0.0.1"), 1, BUSY);
        }
    }

    #[test]
    fn places_are_kept_for_those_that_are_known_and_no_share_binds_them() {
        let places = places(8, Share::Of(100), 2);
        let unknown = crowd(&places, from("10.0.0.1"), 6, IDLE);
        let more = crowd(&places, from("10.0.0.1"), 1, IDLE);
        assert_eq!(gone(&unknown), 1, "the kept ones are not for it");
        let api_server = crowd(&places, known("10.0.0.2"), 8, BUSY);
        assert_eq!((gone(&unknown) + gone(&more), gone(&api_server)), (7, 0), "and it has all others, too");
        assert!(places.take(known("10.0.0.2"), 1, &Guest::new(IDLE)).is_err());
    }

    #[test]
    fn those_that_are_known_lose_nothing_to_those_that_are_not() {
        let places = places(8, Share::Of(8), 2);
        let api_server = crowd(&places, known("10.0.0.2"), 8, IDLE);
        assert!(places.take(from("10.0.0.1"), 1, &Guest::new(IDLE)).is_err());
        let _other = crowd(&places, known("10.0.0.3"), 4, IDLE);
        assert_eq!(gone(&api_server), 4, "among themselves they share");
    }

    #[test]
    fn one_that_proves_to_be_known_is_left_alone_among_others_of_its_address() {
        let places = places(8, Share::Of(2), 2);
        let proved = crowd(&places, from("10.0.0.1"), 1, Some((0, 0)));
        proved[0].1.recognize();
        proved[0].1.recognize();
        assert_eq!(places.held().unknown, 0);
        let others = crowd(&places, from("10.0.0.1"), 1, Some((0, 1)));
        let _more = crowd(&places, from("10.0.0.1"), 3, Some((0, 2)));
        assert_eq!((gone(&proved), gone(&others)), (0, 1));
        drop(proved);
        let held = places.held();
        assert_eq!(held.all, held.unknown);
    }

    #[test]
    fn what_is_larger_takes_the_places_of_several() {
        let places = places(10, Share::Of(8), 0);
        let small = crowd(&places, from("10.0.0.1"), 8, IDLE);
        let large = Guest::new(IDLE);
        let _large = places.take(from("10.0.0.2"), 5, &large).unwrap();
        assert_eq!(gone(&small), 3);
        assert!(places.take(from("10.0.0.2"), 9, &Guest::new(IDLE)).is_err(), "more than a share is never given");
    }
}
