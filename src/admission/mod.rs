//! From the bytes of an AdmissionReview to the bytes of its answer: a pure function.

mod oversize;
mod unjudged;

use jiff::Timestamp;

use crate::cluster::Cluster;
use crate::rules::{Action, RuleSet};

pub use oversize::too_large;
pub use unjudged::unjudged;

/// What goes back to the API server, and what is recorded about it.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status: 200, or 400 where the request could not be understood.
    pub status: u16,
    /// The JSON body.
    pub body: Vec<u8>,
    /// For the log, metrics and the span of the review.
    pub record: Record,
}

/// A review in numbers and names, for the log and metrics.
#[derive(Debug, Default, Clone)]
pub struct Record {
    /// `request.uid`; empty where it could not be read.
    pub uid: String,
    /// `request.kind.kind`.
    pub kind: String,
    /// `request.namespace`.
    pub namespace: String,
    /// The object's name, or its `generateName` with an asterisk.
    pub name: String,
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`.
    pub operation: String,
    /// Whether the request was allowed.
    pub allowed: bool,
    /// Whether it was a dry run.
    pub dry_run: bool,
    /// The strongest action among the findings; [`Action::Off`] where there were none.
    pub verdict: Option<Action>,
    /// Rule names and actions of the findings.
    pub findings: Vec<(&'static str, Action)>,
}

/// Judges one AdmissionReview.
pub fn review(_rules: &RuleSet, _cluster: &Cluster, _body: &[u8], _now: Timestamp) -> Answer {
    Answer { status: 400, body: Vec::new(), record: Record::default() }
}
