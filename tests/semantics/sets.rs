//! Laws of the set algebra, against plain bitmaps for ports and against membership for addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis::netset::{Bound, ConnectionSet, Family, IntervalSet, IpSet, PortSet, Protocol};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::cases;

/// Ranges of ports, most of them near the ends of the space or near each other.
fn port_ranges() -> impl Strategy<Value = Vec<(u16, u16)>> {
    let port = prop_oneof![0..6u16, 78..84u16, 65530..=65535u16, any::<u16>()];
    vec((port.clone(), port), 0..6)
}

/// Numbers of the IPv6 space, most of them at its ends, around the middle or a small step apart.
fn numbers() -> impl Strategy<Value = u128> {
    prop_oneof![0..4u128, (1u128 << 127) - 2..(1u128 << 127) + 2, u128::MAX - 3..=u128::MAX, any::<u128>()]
}

/// One flag a port.
#[derive(Clone, PartialEq)]
struct Bitmap(Vec<bool>);

impl Bitmap {
    fn of(ranges: &[(u16, u16)]) -> Self {
        let mut flags = vec![false; 65536];
        for (first, last) in ranges.iter().filter(|(first, last)| first <= last) {
            flags[usize::from(*first)..=usize::from(*last)].fill(true);
        }
        // There is no port 0.
        flags[0] = false;
        Self(flags)
    }

    fn combine(&self, other: &Self, by: fn(bool, bool) -> bool) -> Self {
        let mut flags: Vec<bool> = self.0.iter().zip(&other.0).map(|(mine, theirs)| by(*mine, *theirs)).collect();
        flags[0] = false;
        Self(flags)
    }

    fn count(&self) -> u16 {
        u16::try_from(self.0.iter().filter(|flag| **flag).count()).unwrap()
    }
}

fn assert_canonical<T: Bound>(set: &IntervalSet<T>) {
    for (first, last) in set.ranges() {
        assert!(T::MIN <= *first && first <= last, "{set:?}");
    }
    for pair in set.ranges().windows(2) {
        assert!(pair[0].1.successor().is_some_and(|next| next < pair[1].0), "{set:?} touches itself");
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn port_sets_are_the_sets_of_their_members(a in port_ranges(), b in port_ranges()) {
        let (left, right) = (PortSet::from_ranges(a.clone()), PortSet::from_ranges(b.clone()));
        let (x, y) = (Bitmap::of(&a), Bitmap::of(&b));
        let holds = |found: &PortSet, expected: &Bitmap| {
            assert_canonical(found);
            Bitmap::of(found.ranges()) == *expected
        };
        prop_assert!(holds(&left, &x));
        prop_assert!(holds(&left.union(&right), &x.combine(&y, |x, y| x || y)));
        prop_assert!(holds(&left.intersect(&right), &x.combine(&y, |x, y| x && y)));
        prop_assert!(holds(&left.subtract(&right), &x.combine(&y, |x, y| x && !y)));
        prop_assert!(holds(&left.complement(), &x.combine(&y, |x, _| !x)));
        prop_assert_eq!(left.is_superset(&right), y.combine(&x, |y, x| y && !x).count() == 0);
        prop_assert_eq!(left.overlaps(&right), x.combine(&y, |x, y| x && y).count() > 0);
        prop_assert_eq!(left == right, x == y);
        prop_assert_eq!(left.is_empty(), x.count() == 0);
        prop_assert_eq!(left.is_full(), x.count() == 65535);
        let count = f64::from(x.count());
        prop_assert!((left.count() - count).abs() < f64::EPSILON);
        prop_assert!((left.share() - count / 65535.0).abs() < f64::EPSILON);
        for port in a.iter().flat_map(|(first, last)| [*first, *last, first.wrapping_sub(1), last.wrapping_add(1)]) {
            prop_assert_eq!(left.contains(port), x.0[usize::from(port)]);
        }
    }

    #[test]
    fn how_a_set_was_put_together_does_not_show(
        ranges in vec((100..140u16, 0..6u16).prop_map(|(first, more)| (first, first + more)), 0..8).prop_shuffle()
    ) {
        let at_once = PortSet::from_ranges(ranges.clone());
        let one_by_one = ranges.iter().fold(PortSet::empty(), |set, (a, b)| set.union(&PortSet::range(*a, *b)));
        prop_assert_eq!(&at_once, &one_by_one);
        let singles = ranges.iter().flat_map(|(first, last)| *first..=*last).map(PortSet::single);
        prop_assert_eq!(at_once, singles.fold(PortSet::empty(), |set, single| set.union(&single)));
    }

    #[test]
    fn the_ends_of_the_ipv6_space_are_like_any_other_number(
        a in vec((numbers(), numbers()), 0..5), b in vec((numbers(), numbers()), 0..5), also in vec(numbers(), 0..4),
    ) {
        let (left, right) = (IntervalSet::from_ranges(a.clone()), IntervalSet::from_ranges(b.clone()));
        let is_in = |ranges: &[(u128, u128)], value| ranges.iter().any(|(first, last)| *first <= value && value <= *last);
        let results = [left.union(&right), left.intersect(&right), left.subtract(&right), left.complement()];
        results.iter().for_each(assert_canonical);
        let ends = a.iter().chain(&b).flat_map(|(first, last)| [*first, *last]);
        let near = ends.flat_map(|end| [end, end.saturating_sub(1), end.saturating_add(1)]);
        for value in near.chain(also).chain([0, u128::MAX]) {
            let (x, y) = (is_in(&a, value), is_in(&b, value));
            let found = results.each_ref().map(|set| set.contains(value));
            prop_assert_eq!(found, [x || y, x && y, x && !y, !x], "at {}", value);
        }
        prop_assert_eq!(left.union(&left.complement()), IntervalSet::full());
        prop_assert_eq!(left.intersect(&left.complement()), IntervalSet::empty());
        prop_assert_eq!(left.complement().complement(), left.clone());
        prop_assert_eq!(left.is_superset(&right), right.subtract(&left).is_empty());
    }

    #[test]
    fn a_set_of_addresses_prints_as_networks_that_make_it_up_again(nets in vec(network(), 0..6)) {
        let set: IpSet = nets.iter().copied().collect();
        prop_assert_eq!(&set, &nets.iter().fold(IpSet::empty(), |set, net| set.union(&IpSet::from(*net))));
        let printed = set.to_string();
        if nets.is_empty() {
            prop_assert_eq!(printed, "no address");
        } else {
            let again: IpSet = printed.split(", ").map(|net| net.parse::<IpNet>().unwrap()).collect();
            prop_assert_eq!(again, set, "{}", printed);
        }
    }

    #[test]
    fn a_network_holds_the_addresses_that_share_its_prefix(net in network(), address in address(), flip in 0..128u32) {
        let near = match net.addr() {
            IpAddr::V4(v4) => IpAddr::from((v4.to_bits() ^ (1u32 << (flip % 32))).to_be_bytes()),
            IpAddr::V6(v6) => IpAddr::from((v6.to_bits() ^ (1u128 << flip)).to_be_bytes()),
        };
        let set = IpSet::from(net);
        for address in [address, net.addr(), near] {
            prop_assert_eq!(set.contains(address), shares_prefix(net, address), "{} in {}", address, net);
        }
    }

    #[test]
    fn addresses_subtract_by_family(a in vec(network(), 0..4), b in vec(network(), 0..4), probes in vec(address(), 4)) {
        let (left, right): (IpSet, IpSet) = (a.iter().copied().collect(), b.iter().copied().collect());
        let near = a.iter().chain(&b).flat_map(|net| [net.network(), net.broadcast()]);
        for address in near.chain(probes) {
            let (x, y) = (a.iter().any(|net| shares_prefix(*net, address)), b.iter().any(|net| shares_prefix(*net, address)));
            prop_assert_eq!(left.union(&right).contains(address), x || y);
            prop_assert_eq!(left.intersect(&right).contains(address), x && y);
            prop_assert_eq!(left.subtract(&right).contains(address), x && !y);
        }
        prop_assert_eq!(left.only(Family::V4).union(&left.only(Family::V6)), left.clone());
        prop_assert_eq!(left.overlaps(&right), !left.intersect(&right).is_empty());
        prop_assert_eq!(left.is_superset(&right), left.union(&right) == left);
        prop_assert_eq!(IpSet::union_of([&left, &right]), left.union(&right));
    }

    #[test]
    fn connections_are_ports_by_protocol(a in [port_ranges(), port_ranges(), port_ranges()], b in [port_ranges(), port_ranges(), port_ranges()]) {
        let connections = |ranges: &[Vec<(u16, u16)>; 3]| {
            let parts = Protocol::ALL.into_iter().zip(ranges);
            let parts = parts.map(|(protocol, ports)| ConnectionSet::of(protocol, PortSet::from_ranges(ports.clone())));
            parts.fold(ConnectionSet::empty(), |set, part| set.union(&part))
        };
        let (left, right) = (connections(&a), connections(&b));
        for (at, protocol) in Protocol::ALL.into_iter().enumerate() {
            let (x, y) = (PortSet::from_ranges(a[at].clone()), PortSet::from_ranges(b[at].clone()));
            prop_assert_eq!(left.ports(protocol), &x);
            let (union, both, rest) = (left.union(&right), left.intersect(&right), left.subtract(&right));
            prop_assert_eq!(union.ports(protocol), &x.union(&y));
            prop_assert_eq!(both.ports(protocol), &x.intersect(&y));
            prop_assert_eq!(rest.ports(protocol), &x.subtract(&y));
        }
        prop_assert_eq!(ConnectionSet::union_of([&left, &right]), left.union(&right));
        prop_assert_eq!(left.is_superset(&right), left.union(&right) == left);
        prop_assert_eq!(left.is_empty(), left == ConnectionSet::empty());
        prop_assert_eq!(left.is_full(), left == ConnectionSet::full());
    }
}

/// Networks of both families and every length, most of them close together.
fn network() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (address_v4(), 0..=32u8).prop_map(|(ip, length)| IpNet::new(ip, length).unwrap()),
        (address_v6(), 0..=128u8).prop_map(|(ip, length)| IpNet::new(ip, length).unwrap()),
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![address_v4(), address_v6()]
}

fn address_v4() -> impl Strategy<Value = IpAddr> {
    prop_oneof![0x0a00_0000..0x0a00_0010u32, 0..3u32, u32::MAX - 2..=u32::MAX, any::<u32>()]
        .prop_map(|bits| IpAddr::from(bits.to_be_bytes()))
}

fn address_v6() -> impl Strategy<Value = IpAddr> {
    numbers().prop_map(|bits| IpAddr::from(bits.to_be_bytes()))
}

/// Bit by bit, from the first one on.
fn shares_prefix(net: IpNet, address: IpAddr) -> bool {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    };
    let (mine, theirs) = (octets(net.addr()), octets(address));
    let bit = |octets: &[u8], at: usize| octets[at / 8] & (0x80 >> (at % 8)) != 0;
    mine.len() == theirs.len() && (0..usize::from(net.prefix_len())).all(|at| bit(&mine, at) == bit(&theirs, at))
}

#[test]
fn a_range_from_port_zero_starts_at_port_one() {
    assert_eq!(PortSet::range(0, 65535), PortSet::full());
    assert_eq!(PortSet::from_ranges([(0, 80)]), PortSet::range(1, 80));
    assert!(PortSet::single(0).is_empty());
}

#[test]
fn the_whole_of_a_space_has_share_one() {
    let exactly = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    exactly(PortSet::full().count(), 65535.0);
    exactly(IpSet::full().count(Family::V4), 4_294_967_296.0);
    exactly(IpSet::full().count(Family::V6) / 2f64.powi(128), 1.0);
    for family in Family::ALL {
        exactly(IpSet::full().share(family), 1.0);
        exactly(IpSet::empty().share(family), 0.0);
        let everything: IpNet = family.everything().parse().unwrap();
        assert_eq!(IpSet::from(everything), IpSet::family(family));
    }
    exactly(IpSet::from("128.0.0.0/1".parse::<IpNet>().unwrap()).share(Family::V4), 0.5);
    exactly(IpSet::from("8000::/2".parse::<IpNet>().unwrap()).share(Family::V6), 0.25);
}

#[test]
fn connections_print_as_people_write_them() {
    let of =
        |protocol, ranges: &[(u16, u16)]| ConnectionSet::of(protocol, PortSet::from_ranges(ranges.iter().copied()));
    assert_eq!(ConnectionSet::full().to_string(), "everything");
    assert_eq!(ConnectionSet::empty().to_string(), "nothing");
    let some = of(Protocol::Tcp, &[(80, 80), (443, 445)]).union(&of(Protocol::Udp, &[(1, 65535)]));
    assert_eq!(some.to_string(), "TCP 80, 443-445; all UDP");
}
