//! Ports by protocol: what may pass between two ends.

use std::fmt;

use super::IntervalSet;

/// Ports 1 to 65535.
pub type PortSet = IntervalSet<u16>;

/// The protocols a NetworkPolicy can name (`NetworkPolicyPort.protocol`). ICMP and others are
/// outside the API: what becomes of them is up to the CNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// The API's default where none is written.
    Tcp,
    /// What DNS uses first.
    Udp,
    /// Needs support in the CNI and the kernel.
    Sctp,
}

impl Protocol {
    /// All of them, in the order they are printed.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The API's spelling: `TCP`, `UDP`, `SCTP`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == text).ok_or(())
    }
}

/// A set of (protocol, port) pairs.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionSet {
    ports: [PortSet; 3],
}

impl ConnectionSet {
    /// Nothing.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Every port of every protocol.
    pub fn full() -> Self {
        Self { ports: [PortSet::full(), PortSet::full(), PortSet::full()] }
    }

    /// The given ports of one protocol.
    pub fn of(protocol: Protocol, ports: PortSet) -> Self {
        let mut set = Self::empty();
        *set.slot(protocol) = ports;
        set
    }

    /// The ports of one protocol.
    pub fn ports(&self, protocol: Protocol) -> &PortSet {
        let [tcp, udp, sctp] = &self.ports;
        match protocol {
            Protocol::Tcp => tcp,
            Protocol::Udp => udp,
            Protocol::Sctp => sctp,
        }
    }

    fn slot(&mut self, protocol: Protocol) -> &mut PortSet {
        let [tcp, udp, sctp] = &mut self.ports;
        match protocol {
            Protocol::Tcp => tcp,
            Protocol::Udp => udp,
            Protocol::Sctp => sctp,
        }
    }

    /// Whether one connection is in the set.
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        self.ports(protocol).contains(port)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.ports.iter().all(PortSet::is_empty)
    }

    /// Whether everything is in the set.
    pub fn is_full(&self) -> bool {
        self.ports.iter().all(PortSet::is_full)
    }

    /// Whether every member of `other` is a member of this set.
    pub fn is_superset(&self, other: &Self) -> bool {
        self.ports.iter().zip(&other.ports).all(|(mine, theirs)| mine.is_superset(theirs))
    }

    /// Members of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, PortSet::union)
    }

    /// Members of any of the sets: one sort, where a chain of unions would copy what it has each time.
    pub fn union_of<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut ranges = [const { Vec::new() }; 3];
        for set in sets {
            for (all, ports) in ranges.iter_mut().zip(&set.ports) {
                all.extend_from_slice(ports.ranges());
            }
        }
        Self { ports: ranges.map(PortSet::from_ranges) }
    }

    /// Members of both sets.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        self.combine(other, PortSet::intersect)
    }

    /// Members of this set that are not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        self.combine(other, PortSet::subtract)
    }

    fn combine(&self, other: &Self, by: impl Fn(&PortSet, &PortSet) -> PortSet) -> Self {
        let each = |protocol| by(self.ports(protocol), other.ports(protocol));
        Self { ports: Protocol::ALL.map(each) }
    }
}

/// `everything`, `nothing`, or `TCP 80, 443; UDP 53`.
impl fmt::Display for ConnectionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_full() {
            return f.write_str("everything");
        }
        if self.is_empty() {
            return f.write_str("nothing");
        }
        let present = Protocol::ALL.into_iter().filter(|protocol| !self.ports(*protocol).is_empty());
        for (i, protocol) in present.enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            let ports = self.ports(protocol);
            if ports.is_full() {
                write!(f, "all {protocol}")?;
                continue;
            }
            write!(f, "{protocol} ")?;
            for (k, (first, last)) in ports.ranges().iter().enumerate() {
                let comma = if k > 0 { ", " } else { "" };
                if first == last {
                    write!(f, "{comma}{first}")?;
                } else {
                    write!(f, "{comma}{first}-{last}")?;
                }
            }
        }
        Ok(())
    }
}
