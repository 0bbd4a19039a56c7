//! What becomes of a finding.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a rule asks for, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The rule does not run.
    Off,
    /// Recorded only: the log, metrics and the API server's audit log.
    Audit,
    /// Allowed, and the user is told.
    Warn,
    /// Refused, and the user is told.
    Deny,
}

impl Action {
    /// `off`, `audit`, `warn`, `deny`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Audit => "audit",
            Self::Warn => "warn",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The strongest action the gate takes, for the whole cluster or for one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing is said to the user; findings are recorded.
    Audit,
    /// Nothing is denied; the user is warned.
    Warn,
    /// Rules get what they ask for.
    #[default]
    Enforce,
}

impl Mode {
    /// The namespace label that sets the mode for that namespace.
    pub const LABEL: &str = "portcullis.dev/mode";

    /// The strongest action this mode lets through.
    pub const fn ceiling(self) -> Action {
        match self {
            Self::Audit => Action::Audit,
            Self::Warn => Action::Warn,
            Self::Enforce => Action::Deny,
        }
    }

    /// `audit`, `warn`, `enforce`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Warn => "warn",
            Self::Enforce => "enforce",
        }
    }
}

impl std::str::FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Audit, Self::Warn, Self::Enforce].into_iter().find(|mode| mode.as_str() == text).ok_or(())
    }
}

/// A set of actions, one a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Denies what breaks or opens a namespace; warns of the rest.
    #[default]
    Baseline,
    /// Denies all four.
    Restricted,
}

impl Profile {
    /// `baseline`, `restricted`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }

    /// What of the two this profile asks for.
    pub const fn of(self, baseline: Action, restricted: Action) -> Action {
        match self {
            Self::Baseline => baseline,
            Self::Restricted => restricted,
        }
    }
}

/// How much harm a rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// Worth mending.
    Medium,
    /// An open door or an outage.
    High,
    /// Open to everyone.
    Critical,
}

impl Severity {
    /// `low` to `critical`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}
