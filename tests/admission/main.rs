//! The webhook's answers, one trap of the admission protocol a test: AdmissionReview in,
//! AdmissionReview out, through the function the server calls.

#![allow(
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that fails may panic, and a fixture written in place reads best without a borrow"
)]

mod answers;
mod ends;
mod evasions;
mod gate;
mod mesh;
mod messages;
mod own;
mod owned;
mod probes;
mod requests;
mod rules_that_fail;
mod stops;
mod unjudged;
