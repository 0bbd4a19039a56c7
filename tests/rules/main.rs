//! The rules as a person meets them: changes in, verdicts out, everything from YAML.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod default_deny;
mod dns;
mod examples;
mod fixes;
mod gate;
mod modes;
mod wide_blocks;
