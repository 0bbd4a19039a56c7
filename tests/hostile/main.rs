//! The gate held against those it guards: each attack is a test, named as a claim.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what is not as expected fails the test it is in"
)]

mod attacks;
mod choices;
mod editor;
mod grammar;
mod honest;
mod sequences;
mod shop;
#[path = "../control_plane/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "these tests need some of it")]
mod support;
