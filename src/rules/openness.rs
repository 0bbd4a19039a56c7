//! When ports that are admitted to everyone are as good as all of them.

use crate::model::{PolicyRule, Port};
use crate::netset::{ConnectionSet, PortSet, Protocol};

/// The ports on which the services that attacks look for usually listen over TCP, in order: files, shells,
/// mail, names and directories; web, proxies and registries; databases, caches and queues; and what
/// clusters and machines are run by.
const TCP_SERVICES: &[u16] = &[
    21, 22, 23, 25, 53, 80, 111, 139, 389, 443, 445, 636, 873, 1433, 1521, 1883, 2049, 2181, 2375, 2376, 2379, 2380,
    3000, 3128, 3306, 3389, 4222, 5000, 5432, 5672, 5900, 5984, 6379, 6443, 8000, 8080, 8200, 8443, 8500, 8888, 9000,
    9042, 9090, 9092, 9200, 9300, 10250, 11211, 15672, 26257, 27017, 50051,
];

/// The same over UDP.
const UDP_SERVICES: &[u16] = &[
    53, 67, 69, 111, 123, 137, 161, 389, 443, 500, 514, 1194, 1434, 1701, 1812, 1900, 2049, 3478, 4500, 4789, 5060,
    5353, 8472, 11211, 51820,
];

/// More of these than one program serves or one that people write a policy for talks to. A list of
/// single ports as long as this is not written by hand, and a range that holds so many was not chosen
/// for one of them.
const MOST_SERVICES: usize = 12;

/// How many ports of a protocol may be admitted to everyone. Nobody listens on an eighth of them, so a
/// range of that size holds whatever there is. Over UDP media servers do use that many, a quarter of
/// them: there it takes half.
const fn most_ports(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp | Protocol::Sctp => 8191,
        Protocol::Udp => 32767,
    }
}

const fn services(protocol: Protocol) -> &'static [u16] {
    match protocol {
        Protocol::Tcp => TCP_SERVICES,
        Protocol::Udp => UDP_SERVICES,
        Protocol::Sctp => &[],
    }
}

/// How many ports of one protocol there are in something, and how many of those that services use.
/// Ranges that do not overlap add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tally {
    services: usize,
    ports: usize,
}

impl Tally {
    /// The ports from the first to the last.
    pub(super) fn of(protocol: Protocol, first: u16, last: u16) -> Self {
        let all = services(protocol);
        let services = all.partition_point(|port| *port <= last) - all.partition_point(|port| *port < first);
        Self { services, ports: usize::from(last) + 1 - usize::from(first) }
    }

    pub(super) fn of_all(protocol: Protocol, ports: &PortSet) -> Self {
        let ranges = ports.ranges().iter().map(|(first, last)| Self::of(protocol, *first, *last));
        ranges.fold(Self::default(), Self::and)
    }

    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        Self { services: self.services.saturating_add(other.services), ports: self.ports.saturating_add(other.ports) }
    }

    #[must_use]
    pub(super) fn less(self, other: Self) -> Self {
        Self { services: self.services - other.services, ports: self.ports - other.ports }
    }

    /// Whether it is so much, or so well chosen, that to admit everyone to it is to admit everything.
    pub(super) fn is_as_good_as_all(self, protocol: Protocol) -> bool {
        self.ports > most_ports(protocol) || self.services > MOST_SERVICES
    }
}

/// The protocols of which so much is in a set that to admit everyone to it is to admit everything.
pub(super) fn as_good_as_all(ports: &ConnectionSet) -> impl Iterator<Item = Protocol> {
    Protocol::ALL.into_iter().filter(|protocol| {
        let tally = Tally::of_all(*protocol, ports.ports(*protocol));
        tally.is_as_good_as_all(*protocol)
    })
}

/// Whether there is one: see [`as_good_as_all`].
pub(super) fn is_as_good_as_all(ports: &ConnectionSet) -> bool {
    as_good_as_all(ports).next().is_some()
}

/// The ports of a rule that it gives by their numbers.
pub(super) fn numbered(rule: &PolicyRule) -> ConnectionSet {
    let Some(specs) = &rule.ports else { return ConnectionSet::full() };
    let mut ranges = [const { Vec::new() }; 3];
    for spec in specs {
        let [tcp, udp, sctp] = &mut ranges;
        let ranges = match spec.protocol {
            Protocol::Tcp => tcp,
            Protocol::Udp => udp,
            Protocol::Sctp => sctp,
        };
        match spec.port {
            Port::All => ranges.push((1, u16::MAX)),
            Port::Range(first, last) => ranges.push((first, last)),
            Port::Named(_) | Port::Unreadable => {}
        }
    }
    let [tcp, udp, sctp] = ranges.map(PortSet::from_ranges);
    let sets = [(Protocol::Tcp, tcp), (Protocol::Udp, udp), (Protocol::Sctp, sctp)];
    ConnectionSet::union_of(&sets.map(|(protocol, ports)| ConnectionSet::of(protocol, ports)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_all(protocol: Protocol, ranges: &[(u16, u16)]) -> bool {
        is_as_good_as_all(&ConnectionSet::of(protocol, PortSet::from_ranges(ranges.iter().copied())))
    }

    #[test]
    fn services_are_in_order_so_that_a_range_of_them_is_counted() {
        assert!(TCP_SERVICES.is_sorted() && UDP_SERVICES.is_sorted());
        let counted = Tally::of(Protocol::Tcp, 80, 443);
        assert_eq!(counted, Tally { services: 5, ports: 364 });
    }

    #[test]
    fn ranges_that_hold_the_usual_services_are_as_good_as_all_however_small() {
        for range in [(1, 65535), (1, 8191), (1, 1023), (1, 6000), (1024, 9300), (3000, 8191), (57344, 65535)] {
            assert!(is_all(Protocol::Tcp, &[range]), "{range:?}");
        }
        for range in [(1, 65535), (1, 32767), (1, 5000), (1024, 65535)] {
            assert!(is_all(Protocol::Udp, &[range]), "{range:?}");
        }
        assert!(is_all(Protocol::Sctp, &[(1, 65535)]) && is_all(Protocol::Sctp, &[(1, 8192)]));
    }

    #[test]
    fn what_one_program_needs_is_not() {
        for ports in [
            &[80, 443, 8080, 8443, 15021, 15443][..],
            &[25, 80, 110, 143, 443, 465, 587, 993, 995, 4190],
            &[53, 88, 135, 139, 389, 445, 464, 636, 3268, 3269],
            &[22, 80, 443, 3306, 5432, 5672, 6379, 8080, 9092, 9200, 27017],
        ] {
            assert!(!is_all(Protocol::Tcp, &ports.iter().map(|port| (*port, *port)).collect::<Vec<_>>()), "{ports:?}");
        }
        for range in [(30000, 32767), (8000, 9000), (49152, 57342)] {
            assert!(!is_all(Protocol::Tcp, &[range]), "{range:?}");
        }
        for range in [(49152, 65535), (10000, 20000), (50000, 60000), (16384, 32767)] {
            assert!(!is_all(Protocol::Udp, &[range]), "{range:?}");
        }
    }

    #[test]
    fn a_list_of_all_that_is_worth_reaching_is_as_good_as_all() {
        let list = [22, 80, 443, 3306, 5432, 6379, 8080, 8443, 9200, 27017, 2379, 6443, 10250].map(|port| (port, port));
        assert!(is_all(Protocol::Tcp, &list));
    }
}
