//! Whether NetworkPolicies are enforced at all, by what runs in the cluster.
//!
//! The API server takes policies whether or not anything enforces them, and says nothing either way.
//! What is installed gives it away: `table` holds a row for each implementation, with the signs by
//! which it is known and the switches that turn it off. To find nothing is no proof of absence, and
//! so the answer is then that it is not known.

mod signs;
mod table;
#[cfg(test)]
mod tests;

use serde::Serialize;

use super::Known;
use signs::Sign;

pub use signs::Signals;
pub use table::CONFIG_MAPS;

/// Whether policies are enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforces {
    /// What is installed does not.
    No,
    /// It cannot be told.
    Unknown,
    /// They are.
    Yes,
}

/// How much an answer can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// It is a guess.
    Low,
    /// It rests on what usually is so.
    Medium,
    /// It rests on what runs.
    High,
}

/// An implementation, or something that lacks one.
struct Row {
    name: &'static str,
    /// Any of these tells that it is there.
    known_by: &'static [Sign],
    /// Any of these tells that another row is meant.
    unless: &'static [Sign],
    enforces: Enforces,
    confidence: Confidence,
    /// What changes the answer; the last one that holds counts.
    switches: &'static [Switch],
    /// What to know about it all the same.
    caveat: &'static str,
}

/// Something that turns enforcement on or off.
struct Switch {
    /// All of these must hold.
    signs: &'static [Sign],
    enforces: Enforces,
    /// What it means, for a person.
    because: &'static str,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Detection {
    /// What enforces policies, or what was found that does not.
    pub engines: Vec<&'static str>,
    /// Whether they are enforced.
    pub enforces: Enforces,
    /// How sure that is.
    pub confidence: Confidence,
    /// What it rests on.
    pub signals: Vec<String>,
    /// What to know all the same.
    pub caveats: Vec<String>,
}

/// A row that is there.
struct Found {
    row: &'static Row,
    enforces: Enforces,
}

/// What the signals add up to: one implementation that enforces is enough, and that none does is said
/// only where what was found is known not to, and everything could be looked at.
pub fn detect(signals: &Signals) -> Detection {
    let mut detection = Detection {
        engines: Vec::new(),
        enforces: Enforces::Unknown,
        confidence: Confidence::Low,
        signals: Vec::new(),
        caveats: Vec::new(),
    };
    let mut found = Vec::new();
    for row in table::ROWS {
        let seen: Vec<String> = row.known_by.iter().filter_map(|sign| sign.seen(signals)).collect();
        if seen.is_empty() || row.unless.iter().any(|sign| sign.seen(signals).is_some()) {
            continue;
        }
        detection.signals.extend(seen);
        let mut enforces = row.enforces;
        for switch in row.switches {
            let seen: Option<Vec<String>> = switch.signs.iter().map(|sign| sign.seen(signals)).collect();
            if let Some(seen) = seen {
                enforces = switch.enforces;
                detection.signals.extend(seen);
                detection.caveats.push(format!("{}: {}", row.name, switch.because));
            }
        }
        if !row.caveat.is_empty() {
            detection.caveats.push(format!("{}: {}", row.name, row.caveat));
        }
        found.push(Found { row, enforces });
    }
    detection.signals.dedup();
    let unseen = unseen(signals);
    detection.enforces = match found.iter().map(|it| it.enforces).max() {
        Some(Enforces::Yes) => Enforces::Yes,
        // What enforces may be among what could not be looked at.
        Some(Enforces::No) if unseen.is_empty() => Enforces::No,
        Some(Enforces::No | Enforces::Unknown) | None => Enforces::Unknown,
    };
    let deciding = found.iter().filter(|it| it.enforces == detection.enforces);
    detection.engines = deciding.clone().map(|it| it.row.name).collect();
    detection.confidence = deciding.map(|it| it.row.confidence).max().unwrap_or(Confidence::Low);
    if detection.enforces == Enforces::Unknown {
        detection.engines = found.iter().map(|it| it.row.name).collect();
        detection.confidence = Confidence::Low;
    }
    detection.caveats.extend(unseen);
    detection
}

/// What could not be looked at.
fn unseen(signals: &Signals) -> Vec<String> {
    let told = |what: &str, known: Option<&String>| known.map(|why| format!("{what} could not be read: {why}"));
    let because = |known: &Known<Vec<serde_json::Value>>| known.as_ref().err().cloned();
    [told("DaemonSets", because(&signals.daemon_sets).as_ref()), told("Nodes", because(&signals.nodes).as_ref())]
        .into_iter()
        .flatten()
        .collect()
}
