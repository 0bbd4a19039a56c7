//! What the sets, selectors, the cluster and reachability mean, held against sources that share no
//! code with them: published truth tables, closed forms, algebraic laws and a brute-force evaluator.

#![allow(clippy::needless_pass_by_value, reason = "a fixture written in place reads best without a borrow")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what is missing here is a failed test, and these say where"
)]

mod api;
mod cluster_laws;
mod conformance;
mod edges;
mod grids;
mod oracle;
mod policy_laws;
mod selectors;
mod sets;
mod world;
