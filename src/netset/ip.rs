//! Sets of IP addresses. IPv4 and IPv6 are two spaces: `0.0.0.0/0` says nothing about IPv6.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::IntervalSet;

/// One of the two address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// 32-bit addresses.
    V4,
    /// 128-bit addresses.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The network that holds the whole family: `0.0.0.0/0` or `::/0`.
    pub const fn everything(self) -> &'static str {
        match self {
            Self::V4 => "0.0.0.0/0",
            Self::V6 => "::/0",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A set of addresses of both families.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct IpSet {
    /// The IPv4 members, as big-endian integers.
    pub v4: IntervalSet<u32>,
    /// The IPv6 members, as big-endian integers.
    pub v6: IntervalSet<u128>,
}

impl IpSet {
    /// No address.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Every address of both families.
    pub fn full() -> Self {
        Self { v4: IntervalSet::full(), v6: IntervalSet::full() }
    }

    /// Every address of one family.
    pub fn family(family: Family) -> Self {
        Self::full().only(family)
    }

    /// The members of one family.
    #[must_use]
    pub fn only(&self, family: Family) -> Self {
        match family {
            Family::V4 => Self { v4: self.v4.clone(), v6: IntervalSet::empty() },
            Family::V6 => Self { v4: IntervalSet::empty(), v6: self.v6.clone() },
        }
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether `address` is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.contains(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.contains(v6.to_bits()),
        }
    }

    /// Whether every member of `other` is a member of this set.
    pub fn is_superset(&self, other: &Self) -> bool {
        self.v4.is_superset(&other.v4) && self.v6.is_superset(&other.v6)
    }

    /// Whether the two sets share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.v4.overlaps(&other.v4) || self.v6.overlaps(&other.v6)
    }

    /// Members of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self { v4: self.v4.union(&other.v4), v6: self.v6.union(&other.v6) }
    }

    /// Members of any of the sets: one sort, where a chain of unions would copy what it has each time.
    pub fn union_of<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for set in sets {
            v4.extend_from_slice(set.v4.ranges());
            v6.extend_from_slice(set.v6.ranges());
        }
        Self { v4: IntervalSet::from_ranges(v4), v6: IntervalSet::from_ranges(v6) }
    }

    /// Members of both sets.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        Self { v4: self.v4.intersect(&other.v4), v6: self.v6.intersect(&other.v6) }
    }

    /// Members of this set that are not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        Self { v4: self.v4.subtract(&other.v4), v6: self.v6.subtract(&other.v6) }
    }

    /// The part of one family's whole space that is in the set, from 0.0 to 1.0.
    pub fn share(&self, family: Family) -> f64 {
        match family {
            Family::V4 => self.v4.share(),
            Family::V6 => self.v6.share(),
        }
    }

    /// How many addresses of one family, as a float (all of IPv6 does not fit an integer).
    pub fn count(&self, family: Family) -> f64 {
        match family {
            Family::V4 => self.v4.count(),
            Family::V6 => self.v6.count(),
        }
    }
}

/// The addresses of a network; host bits in it are masked away.
impl From<IpNet> for IpSet {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self {
                v4: IntervalSet::range(net.network().to_bits(), net.broadcast().to_bits()),
                v6: IntervalSet::empty(),
            },
            IpNet::V6(net) => Self {
                v4: IntervalSet::empty(),
                v6: IntervalSet::range(net.network().to_bits(), net.broadcast().to_bits()),
            },
        }
    }
}

impl From<IpAddr> for IpSet {
    fn from(address: IpAddr) -> Self {
        Self::from(IpNet::from(address))
    }
}

impl FromIterator<IpNet> for IpSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let sets: Vec<_> = nets.into_iter().map(Self::from).collect();
        Self::union_of(&sets)
    }
}

/// The set as the fewest networks, smallest address first: `10.0.0.0/8, 2001:db8::/32`.
impl fmt::Display for IpSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no address");
        }
        let v4 = self.v4.ranges().iter().flat_map(|&(first, last)| {
            ipnet::Ipv4Subnets::new(first.into(), last.into(), 0).map(|net: Ipv4Net| IpNet::V4(net))
        });
        let v6 = self.v6.ranges().iter().flat_map(|&(first, last)| {
            ipnet::Ipv6Subnets::new(first.into(), last.into(), 0).map(|net: Ipv6Net| IpNet::V6(net))
        });
        for (i, net) in v4.chain(v6).enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{net}")?;
        }
        Ok(())
    }
}
