//! The gate held against those it guards: each attack is a test, named as a claim.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what is not as expected fails the test it is in"
)]

mod choices;
mod grammar;
mod sequences;
