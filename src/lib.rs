//! Portcullis judges what the network policies and mesh settings of a Kubernetes cluster add up to,
//! before a change takes effect.
//!
//! Everything turns on one value, [`cluster::Cluster`]: immutable, cheap to clone, cheap to change
//! by one object. An admission review is a question about two of them, the cluster before a change
//! and the cluster after it; `check` is a question about one. Where a cluster came from, its rules
//! cannot tell.
//!
//! ```text
//!  manifests, --> source ---+
//!  API server               +--> k8s --> model --> cluster ---> reach, mesh ---> rules ---> findings
//!  AdmissionReview ---------+          (lowered)   (before, after)  (what it     (what is     |
//!                                                                   adds up to)   wrong)      v
//!                                                                      admission: allowed, warned, denied
//!                                                                      report:    text, JSON
//! ```
//!
//! # Where things are
//!
//! | layer | modules | what is theirs |
//! |---|---|---|
//! | domain | [`netset`], [`model`], [`cluster`], [`reach`], [`mesh`], [`rules`] | the meaning: pure, synchronous, no clock, no I/O, cannot fail |
//! | adapters | [`prose`], [`yaml`], [`k8s`], [`source`], [`config`], [`report`], [`telemetry`] | bytes into values and back |
//! | uses | [`admission`], [`audit`] | one review from bytes to bytes, a pure function; what stands, judged and told |
//! | edges | [`server`], [`upkeep`], [`doctor`], [`cli`] | sockets, files, the gate's own registration, what keeps it from guarding, signals, exit codes |
//!
//! `tests/architecture.rs` holds who may import whom.
//!
//! # What holds everywhere
//!
//! - **Invariant:** the domain reads no clock and no file; time is an argument.
//! - **Invariant:** lowering never fails. What cannot be read is said, and counts as unknown.
//! - **Invariant:** only [`k8s`] names the API's own types.
//! - **Invariant:** a finding names a field, never a line; only the edges know about files.
//! - **Invariant:** the same cluster and the same rules give the same findings in the same order.
//! - **Invariant:** missing knowledge never denies.

pub mod netset;

pub mod model;

pub mod prose;

pub mod yaml;

pub mod cluster;

pub mod reach;

pub mod mesh;

pub mod rules;

pub mod k8s;

pub mod source;

pub mod config;

pub mod report;

pub mod admission;

pub mod telemetry;

pub mod audit;

pub mod server;

pub mod upkeep;

pub mod doctor;

pub mod cli;
