//! The webhook's answers, one trap of the admission protocol a test: AdmissionReview in,
//! AdmissionReview out, through the function the server calls.

mod answers;
mod evasions;
mod gate;
mod messages;
mod requests;
mod rules_that_fail;
