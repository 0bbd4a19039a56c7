//! Readiness as gates, each with a name: ready is when all of them are open.
//!
//! Whoever has something to finish first takes a [`Gate`] and opens it when done. A gate that is
//! dropped unopened stays closed: a task that panicked half way has not made the process ready.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All gates of the process.
#[derive(Clone, Default)]
pub struct Readiness {
    /// What each gate waits for; nothing once it is open.
    gates: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

/// One thing the process is not ready without.
pub struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// A closed gate. `pending` says what it waits for. Taking a name again closes that gate.
    pub fn gate(&self, name: &'static str, pending: impl Into<String>) -> Gate {
        self.lock().insert(name, Some(pending.into()));
        Gate { name, readiness: self.clone() }
    }

    /// Whether all gates are open.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(Option::is_none)
    }

    /// Every gate on a line of its own, as the API server prints its own checks:
    /// `[+]rules ok`, `[-]cluster pending: reading manifests`.
    pub fn describe(&self) -> String {
        let mut lines = String::new();
        for (name, pending) in &*self.lock() {
            let written = match pending {
                None => writeln!(lines, "[+]{name} ok"),
                Some(pending) => writeln!(lines, "[-]{name} pending: {pending}"),
            };
            written.expect("writing to a String cannot fail");
        }
        lines
    }

    /// A poisoned lock is taken all the same: each write to the map is a single insertion.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Says anew what the gate waits for.
    pub fn pending(&self, pending: impl Into<String>) {
        self.readiness.lock().insert(self.name, Some(pending.into()));
    }

    /// There is nothing more to wait for.
    pub fn open(self) {
        self.readiness.lock().insert(self.name, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_every_gate_is_open() {
        let readiness = Readiness::default();
        let rules = readiness.gate("rules", "reading the configuration");
        let cluster = readiness.gate("cluster", "listing pods");
        rules.open();
        assert!(!readiness.is_ready());
        cluster.open();
        assert!(readiness.is_ready());
    }

    #[test]
    fn what_is_pending_is_named() {
        let readiness = Readiness::default();
        readiness.gate("rules", "reading the configuration").open();
        let cluster = readiness.gate("cluster", "listing pods");
        cluster.pending("listing policies");
        assert_eq!(readiness.describe(), "[-]cluster pending: listing policies\n[+]rules ok\n");
    }

    #[test]
    fn a_gate_dropped_unopened_stays_closed() {
        let readiness = Readiness::default();
        drop(readiness.gate("cluster", "listing pods"));
        assert!(!readiness.is_ready());
    }

    #[test]
    fn a_gate_taken_again_is_closed_again() {
        let readiness = Readiness::default();
        readiness.gate("listener", "binding").open();
        let _gate = readiness.gate("listener", "shutting down");
        assert!(!readiness.is_ready());
    }
}
