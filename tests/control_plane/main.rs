//! The gate in front of a real API server: each test is a claim, made with real clients.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what is not as expected fails the test it is in"
)]

mod cold_start;
mod continuity;
mod doctor;
mod faults;
mod live;
mod load;
mod mesh;
mod plane;
mod pressure;
mod rules;
mod scene;
mod support;
mod upkeep;
