//! What the API server refuses to take in single namespaces, by a quota for example.
//!
//! Nothing an audit does mends that, and whoever may set a quota could have everything told anew for
//! ever. So it is no failure: it is said once, counted for as long as it holds, and tried again on
//! the schedule, each time after a longer wait.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Error;
use tokio::time::Instant;

/// The longest wait, unless the schedule's own is longer.
const MOST_WAIT: Duration = Duration::from_hours(1);

/// The namespaces in which something is refused.
pub(super) struct Refusals {
    /// What is, for the log.
    what: &'static str,
    /// How long it is until it is tried a second time.
    first_wait: Duration,
    standing: BTreeMap<String, Refusal>,
}

struct Refusal {
    why: String,
    wait: Duration,
    until: Instant,
}

impl Refusals {
    pub(super) fn new(what: &'static str, first_wait: Duration) -> Self {
        Self { what, first_wait, standing: BTreeMap::new() }
    }

    /// Whether nothing is tried in this namespace for now.
    pub(super) fn is_waiting(&self, namespace: &str, now: Instant) -> bool {
        self.standing.get(namespace).is_some_and(|refusal| now < refusal.until)
    }

    /// Something was refused.
    pub(super) fn add(&mut self, namespace: &str, error: &Error, now: Instant) {
        let why = error.to_string();
        let last = self.standing.get(namespace);
        if last.is_none_or(|last| last.why != why) {
            tracing::warn!(
                namespace,
                what = self.what,
                why,
                "the API server refuses what the audit writes in a namespace"
            );
        }
        let most = MOST_WAIT.max(self.first_wait);
        let wait = last.map_or(self.first_wait, |last| (last.wait * 2).min(most));
        self.standing.insert(namespace.to_owned(), Refusal { why, wait, until: now + wait });
    }

    /// Something was taken, or is not to be written any more.
    pub(super) fn remove(&mut self, namespace: &str) {
        self.standing.remove(namespace);
    }

    /// Forgets the namespaces that are no concern any more.
    pub(super) fn retain(&mut self, is_concern: impl Fn(&str) -> bool) {
        self.standing.retain(|namespace, _| is_concern(namespace));
    }

    /// How many namespaces there are in which something is refused.
    pub(super) fn count(&self) -> usize {
        self.standing.len()
    }
}

/// Whether an error is about one object and not about whoever asks for all of them.
pub(super) fn is_about_one(error: &Error) -> bool {
    match error {
        // What RBAC does not allow it allows nowhere: `User "…" cannot create resource …`.
        Error::Api(status) if status.code == 403 => !status.message.contains("\" cannot "),
        // A webhook of others that is away and was to be asked, of some namespaces perhaps.
        Error::Api(status) if status.code == 500 => status.message.contains("failed calling webhook"),
        Error::Api(status) => matches!(status.code, 400 | 404 | 409 | 413 | 422),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn refusal() -> Error {
        Error::Api(Status::failure("exceeded quota: none", "Forbidden").with_code(403).boxed())
    }

    #[test]
    fn what_is_about_one_object_is_told_from_what_is_about_all() {
        for (code, message, expected) in [
            (403, r#"reports is forbidden: User "system:serviceaccount:a:b" cannot create resource "reports""#, false),
            (403, "exceeded quota: none", true),
            (403, "denied request: who writes here cannot be told", true),
            (500, r#"Internal error occurred: failed calling webhook "a.b": connection refused"#, true),
            (500, "etcdserver: leader changed", false),
            (429, "too many requests", false),
        ] {
            let error = Error::Api(Status::failure(message, "").with_code(code).boxed());
            assert_eq!(is_about_one(&error), expected, "{message}");
        }
    }

    #[test]
    fn what_is_refused_again_and_again_is_tried_less_and_less_often() {
        let pass = Duration::from_mins(10);
        let mut refusals = Refusals::new("report", pass);
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..6 {
            refusals.add("shop", &refusal(), now);
            let tried = (1..100).find(|passes| !refusals.is_waiting("shop", now + pass * *passes)).unwrap();
            waits.push(tried);
            now += pass * tried;
        }
        assert_eq!(waits, [1, 2, 4, 6, 6, 6]);
        assert!(!refusals.is_waiting("other", now));
    }

    #[test]
    fn what_was_taken_begins_anew() {
        let (pass, now) = (Duration::from_mins(10), Instant::now());
        let mut refusals = Refusals::new("report", pass);
        refusals.add("shop", &refusal(), now);
        refusals.add("shop", &refusal(), now + pass);
        assert!(refusals.is_waiting("shop", now + pass * 2));
        refusals.remove("shop");
        assert!(!refusals.is_waiting("shop", now + pass * 2));
        refusals.add("shop", &refusal(), now + pass * 2);
        assert!(!refusals.is_waiting("shop", now + pass * 3));
        assert_eq!(refusals.count(), 1);
    }
}
