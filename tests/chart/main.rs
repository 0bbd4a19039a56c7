//! The chart: what it renders, what it refuses, and what becomes of it on a real API server.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what is not as expected fails the test it is in"
)]

mod changes;
mod generated;
mod helm;
mod installed;
#[path = "../control_plane/load.rs"]
#[allow(dead_code, reason = "the chart's tests need some of it")]
mod load;
mod release;
mod rendered;
mod rights;
#[path = "../control_plane/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the chart's tests need some of it")]
mod support;
