//! What a namespace editor or a pod tries, with a real client on a real API server.

mod crowds;
mod deletion;
mod dns;
mod mesh;
mod openings;
mod workloads;
