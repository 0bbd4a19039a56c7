//! What is said of violations, for people.

use super::{Action, Meta, Waived};
use crate::model::{FieldPath, ObjectRef, Str};

/// One finding: what is wrong and for whom, where, why it matters and what to do.
///
/// Its texts are single paragraphs without a trailing line break; names in them stand in backticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Meta,
    /// What becomes of it, every cap applied.
    pub action: Action,
    /// Whether it stood before the change and is no worse.
    pub standing: bool,
    /// Whether it rests on what is known of the cluster, and not on the object under review alone.
    pub rests_on_state: bool,
    /// Whether it was found for want of something, which may be there by now.
    pub rests_on_absence: bool,
    /// The rule that did not answer, where that is what was found.
    pub failed: Option<&'static Meta>,
    /// By whose leave it stands for now; its action is then to record it, at most.
    pub waived: Option<Waived>,
    /// The namespace it is in.
    pub namespace: Option<Str>,
    /// The object to look at first.
    pub object: ObjectRef,
    /// The field of that object.
    pub path: FieldPath,
    /// What is wrong and for whom: one line that stands alone.
    pub message: String,
    /// Why it matters.
    pub why: String,
    /// The facts the verdict rests on, one line each: which policy isolates, which rule misses.
    pub evidence: Vec<String>,
    /// What to do.
    pub help: String,
    /// Objects that can be applied as they are, as YAML documents. Empty where there is no one fix.
    pub fix: String,
}

impl Finding {
    /// A finding about an object, with nothing said yet. [`super::RuleSet`] fills in the rule, the
    /// action and whether it stood.
    pub fn new(namespace: Option<Str>, object: ObjectRef, path: FieldPath, message: String) -> Self {
        Self {
            rule: &super::CL_RULE_FAILED,
            action: Action::Audit,
            standing: false,
            rests_on_state: false,
            rests_on_absence: false,
            failed: None,
            waived: None,
            namespace,
            object,
            path,
            message,
            why: String::new(),
            evidence: Vec::new(),
            help: String::new(),
            fix: String::new(),
        }
    }

    /// The same finding, no longer than can be read and sent. What it names was written by others: a
    /// selector alone may be a hundred thousand values.
    #[must_use]
    pub(super) fn bounded(mut self) -> Self {
        let Self { message, why, evidence, help, fix, .. } = &mut self;
        for text in [&mut *message, why, help].into_iter().chain(evidence.iter_mut()) {
            shorten(text);
        }
        if let Some(more) = evidence.len().checked_sub(MOST_LINES).filter(|more| *more > 0) {
            evidence.truncate(MOST_LINES);
            evidence.push(format!("and {more} more like these"));
        }
        if fix.len() > MOST_FIX {
            help.push_str(". What to apply is too long to be written out here");
            fix.clear();
        }
        self
    }
}

/// How many lines of evidence are told.
const MOST_LINES: usize = 40;
/// How long a text is, in bytes.
const MOST_TEXT: usize = 4000;
/// How long what can be applied is, in bytes.
const MOST_FIX: usize = 128 << 10;

fn shorten(text: &mut String) {
    if text.len() > MOST_TEXT {
        let end = (0..=MOST_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
}
