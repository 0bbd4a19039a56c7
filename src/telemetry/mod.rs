//! What the process says about itself: logs for people and collectors, metrics for Prometheus, and
//! whether it is ready to serve.
//!
//! This module knows nothing of what is measured: callers hand it names and numbers.

pub mod logs;
pub mod metrics;
pub mod readiness;

pub use metrics::Metrics;
pub use readiness::{Gate, Readiness};

/// What parts of the process report to. A clone is two reference counts.
#[derive(Clone, Default)]
pub struct Telemetry {
    /// Counted and measured.
    pub metrics: Metrics,
    /// What must be done before requests may come.
    pub readiness: Readiness,
}
