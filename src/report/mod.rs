//! Findings for people and for programs.
//!
//! Both forms are made from the same [`Report`]. The text is for a terminal and may change its
//! wording in any version; the JSON is a contract, whose types are here and nowhere else.

mod audit;
mod json;
mod page;
mod text;

use crate::rules::{Action, Finding};
use crate::yaml::{Place, Problem};

pub use audit::{Audited, JsonAudit};
pub use json::{Catalogue, JsonReport, catalogue};
pub use page::page;
pub use text::{fault, findings, note, summary};

/// Everything there is to say of some manifests.
pub struct Report<'a> {
    /// The findings in the order they are told.
    pub findings: Vec<Located<'a>>,
    /// What could not be read.
    pub faults: Vec<LocatedFault<'a>>,
    /// Remarks about the files, one line each.
    pub notes: Vec<String>,
    /// The numbers.
    pub summary: Summary,
}

/// A finding and where its field is.
pub struct Located<'a> {
    /// The finding.
    pub finding: &'a Finding,
    /// The place; nothing for an object that no file holds.
    pub place: Option<Place<'a>>,
}

/// Something that could not be read, and where.
pub struct LocatedFault<'a> {
    /// The file.
    pub name: &'a str,
    /// The place, where the file could be opened.
    pub place: Option<Place<'a>>,
    /// What is wrong.
    pub problem: &'a Problem,
}

/// How much was found, in how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Findings to deny.
    pub denied: usize,
    /// Findings to warn of.
    pub warned: usize,
    /// Findings to record.
    pub audited: usize,
    /// Findings that stand by somebody's leave.
    pub waived: usize,
    /// What could not be read.
    pub errors: usize,
    /// Objects that some rule reads.
    pub objects: usize,
    /// Documents, of whatever kind.
    pub documents: usize,
}

impl Summary {
    /// The numbers of these findings.
    pub fn of<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Self {
        let mut summary = Self::default();
        for finding in findings {
            match finding.action {
                _ if finding.waived.is_some() => summary.waived += 1,
                Action::Deny => summary.denied += 1,
                Action::Warn => summary.warned += 1,
                Action::Audit | Action::Off => summary.audited += 1,
            }
        }
        summary
    }
}
