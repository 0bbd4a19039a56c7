//! A brute-force evaluator of one flow, written from the API's documentation alone, against the
//! evaluator of sets.
//!
//! It shares nothing with the library: labels are lists of pairs, networks are compared bit by
//! bit, a policy is what its author wrote, defaults and all, and a flow is one protocol and port
//! between two addresses. What implementations do differently is an explicit world; the library's
//! certain answer must hold in each world there may be, its possible answer in all of them
//! together, and where only one world is left the two must be the same.

mod brute;
pub(crate) use brute::World;
mod compare;
pub(crate) mod generate;
