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
    gates: Arc<Mutex<BTreeMap<String, State>>>,
}

/// How a gate stands.
enum State {
    /// Closed: what it waits for.
    Pending(String),
    /// Open, with a remark that may be empty.
    Open(String),
    /// Open all the same: what is not as it should be.
    Degraded(String),
}

/// One thing the process is not ready without.
pub struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// A closed gate. `pending` says what it waits for. Taking a name again closes that gate.
    pub fn gate(&self, name: &'static str, pending: &str) -> Gate {
        self.set_pending(name, pending);
        Gate { name, readiness: self.clone() }
    }

    /// Closes a gate, or says anew what it waits for.
    pub fn set_pending(&self, name: &str, pending: &str) {
        self.lock().insert(name.to_owned(), State::Pending(pending.to_owned()));
    }

    /// Opens a gate. `remark` may be empty.
    pub fn set_open(&self, name: &str, remark: &str) {
        self.lock().insert(name.to_owned(), State::Open(remark.to_owned()));
    }

    /// Opens a gate although something is wrong that the process can do without.
    pub fn set_degraded(&self, name: &str, why: &str) {
        self.lock().insert(name.to_owned(), State::Degraded(why.to_owned()));
    }

    /// Whether all gates are open.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(|state| !matches!(state, State::Pending(_)))
    }

    /// Every gate on a line of its own, as the API server prints its own checks:
    /// `[+]rules ok`, `[-]cluster pending: reading manifests`, `[!]pods degraded: forbidden`.
    pub fn describe(&self) -> String {
        let mut lines = String::new();
        for (name, state) in &*self.lock() {
            let written = match state {
                State::Open(remark) if remark.is_empty() => writeln!(lines, "[+]{name} ok"),
                State::Open(remark) => writeln!(lines, "[+]{name} ok: {remark}"),
                State::Degraded(why) => writeln!(lines, "[!]{name} degraded: {why}"),
                State::Pending(pending) => writeln!(lines, "[-]{name} pending: {pending}"),
            };
            written.expect("writing to a String cannot fail");
        }
        lines
    }

    /// A poisoned lock is taken all the same: each write to the map is a single insertion.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Says anew what the gate waits for.
    pub fn pending(&self, pending: &str) {
        self.readiness.set_pending(self.name, pending);
    }

    /// There is nothing more to wait for.
    pub fn open(self) {
        self.readiness.set_open(self.name, "");
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
    fn a_degraded_gate_is_open_and_says_why() {
        let readiness = Readiness::default();
        readiness.set_degraded("pods", "forbidden");
        assert!(readiness.is_ready());
        assert_eq!(readiness.describe(), "[!]pods degraded: forbidden\n");
    }

    #[test]
    fn a_gate_taken_again_is_closed_again() {
        let readiness = Readiness::default();
        readiness.gate("listener", "binding").open();
        let _gate = readiness.gate("listener", "shutting down");
        assert!(!readiness.is_ready());
    }
}
