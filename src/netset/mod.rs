//! Exact set algebra over ports, addresses and connections.
//!
//! Every set is canonical: sorted, disjoint, inclusive ranges with no two that touch. Two sets hold
//! the same members exactly when they are equal, so `Eq` is a semantic question here.
//!
//! This module knows numbers only. What a policy means by a port or a block is [`crate::model`]'s.

mod connection;
mod interval;
mod ip;

pub use connection::{ConnectionSet, PortSet, Protocol};
pub use interval::{Bound, IntervalSet};
pub use ip::{Family, IpSet};
