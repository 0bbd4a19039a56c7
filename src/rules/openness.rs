//! When ports that are admitted to everyone are as good as all of them.

use crate::netset::{ConnectionSet, PortSet, Protocol};

/// The ports on which the services that attacks look for usually listen over TCP.
#[rustfmt::skip]
const TCP_SERVICES: &[u16] = &[
    // Files, shells, mail, names and directories.
    21, 22, 23, 25, 53, 111, 139, 389, 445, 636, 873, 2049, 3389, 5900,
    // Web, proxies and registries.
    80, 443, 3000, 3128, 5000, 8000, 8080, 8443, 8888, 9000,
    // Databases, caches and queues.
    1433, 1521, 1883, 3306, 4222, 5432, 5672, 5984, 6379, 9042, 9092, 9200, 9300, 11211, 26257, 27017,
    // What clusters and machines are run by.
    2181, 2375, 2376, 2379, 2380, 6443, 8200, 8500, 9090, 10250, 15672, 50051,
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

/// Whether ports are so many, or so well chosen, that to admit everyone to them is to admit everything.
///
/// Nobody listens on an eighth of all ports, so a range of that size holds whatever there is. Over UDP
/// media servers do use that many, a quarter of them: there it takes half.
pub(super) fn is_as_good_as_all(ports: &ConnectionSet) -> bool {
    Protocol::ALL.into_iter().any(|protocol| is_most(ports.ports(protocol), protocol))
}

/// How many ports of a protocol may be admitted to everyone.
pub(super) const fn most_ports(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp | Protocol::Sctp => 8191,
        Protocol::Udp => 32767,
    }
}

fn is_most(ports: &PortSet, protocol: Protocol) -> bool {
    let services = match protocol {
        Protocol::Tcp => TCP_SERVICES,
        Protocol::Udp => UDP_SERVICES,
        Protocol::Sctp => &[],
    };
    ports.count() > f64::from(most_ports(protocol))
        || services.iter().filter(|port| ports.contains(**port)).count() > MOST_SERVICES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_all(protocol: Protocol, ranges: &[(u16, u16)]) -> bool {
        is_as_good_as_all(&ConnectionSet::of(protocol, PortSet::from_ranges(ranges.iter().copied())))
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
