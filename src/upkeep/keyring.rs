//! What the Secret holds, and what comes next: pure, with the time as an argument.
//!
//! An authority is replaced in steps, so that at no moment a certificate is served that some API
//! server cannot verify, and no replica has to know what the others have got round to:
//!
//! ```text
//!            ca.crt  ca-next.crt  ca-former.crt   caBundle   tls.crt is of
//! at rest    A                                    A          A
//! due        A       B                            A B        A      until the live caBundle has had B for a while
//! promoted   B                    A               A B        B      until A expires: a replica may be late
//! at rest    B                                    B          B
//! ```
//!
//! The key of A is gone with the promotion; its certificate stays trusted only for what it signed.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use super::issue::{self, Facts, Issued};
use super::trust;
use crate::server::Pair;

const CA: (&str, &str) = ("ca.crt", "ca.key");
const NEXT: (&str, &str) = ("ca-next.crt", "ca-next.key");
const FORMER: &str = "ca-former.crt";
const LEAF: (&str, &str) = ("tls.crt", "tls.key");

/// How many former authorities are kept at most. A replica is late by one or two; a Secret that is
/// deleted over and over must not let the bundle grow past what an object holds.
const FORMERS: usize = 4;

/// The members of a Secret, decoded.
pub(super) type Members = BTreeMap<String, Vec<u8>>;

/// How long certificates are to live, and for whom they are.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) authority: Duration,
    pub(super) leaf: Duration,
    /// The server's names, the one it is called by first.
    pub(super) names: Vec<String>,
}

/// An authority, the certificate it issued, and what overlaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keyring {
    authority: Issued,
    next: Option<Issued>,
    /// Certificates of former authorities, one PEM each.
    former: Vec<String>,
    leaf: Issued,
}

/// What a Secret holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing yet.
    Nothing,
    /// What a gate put there.
    Ours(Box<Keyring>),
    /// What a gate put there once and what cannot be used any more: why.
    Broken(String),
    /// A certificate without its authority's key: no gate issued it.
    Foreign,
}

impl Content {
    pub(super) fn of(members: &Members) -> Self {
        let is_there = |name: &str| members.get(name).is_some_and(|value| !value.is_empty());
        if !is_there(CA.1) {
            return if is_there(LEAF.0) || is_there(LEAF.1) { Self::Foreign } else { Self::Nothing };
        }
        match Keyring::read(members) {
            Ok(keyring) => Self::Ours(Box::new(keyring)),
            Err(why) => Self::Broken(why),
        }
    }
}

/// Why a keyring is written.
pub(super) type Why = &'static str;

impl Keyring {
    /// A new authority and a new certificate.
    pub(super) fn new(plan: &Plan, now: Timestamp) -> Result<Self, rcgen::Error> {
        Self::after(&[], plan, now)
    }

    /// The same where others had been issued that are lost and may be served somewhere: the
    /// authorities that are `trusted` stay so until they expire.
    pub(super) fn after(trusted: &[CertificateDer<'_>], plan: &Plan, now: Timestamp) -> Result<Self, rcgen::Error> {
        let authority = issue::authority(now, plan.authority)?;
        let leaf = issue::leaf(&authority, &plan.names, now, plan.leaf)?;
        let former = trusted.iter().take(FORMERS).map(|der| pem(der)).collect();
        Ok(Self { authority, next: None, former, leaf })
    }

    fn read(members: &Members) -> Result<Self, String> {
        let text = |name: &str| {
            let bytes = members.get(name).cloned().unwrap_or_default();
            String::from_utf8(bytes).map_err(|_| format!("`{name}` is no text"))
        };
        let issued = |(certificate, key): (&str, &str)| {
            let read = Issued { certificate: text(certificate)?, key: text(key)? };
            let fits = Pair::parse(read.certificate.as_bytes(), read.key.as_bytes());
            fits.map_err(|why| format!("`{certificate}`: {why}"))?;
            Facts::of(&read.certificate).ok_or_else(|| format!("`{certificate}` cannot be read"))?;
            Ok::<_, String>(read)
        };
        let next = members.get(NEXT.0).is_some_and(|value| !value.is_empty());
        // Another form of PEM is the same certificate.
        let former = trust::certificates(text(FORMER)?.as_bytes());
        let former = former.iter().map(|der| pem(der)).collect();
        Ok(Self { authority: issued(CA)?, next: next.then(|| issued(NEXT)).transpose()?, former, leaf: issued(LEAF)? })
    }

    /// The members of the Secret.
    pub(super) fn members(&self) -> Members {
        let Self { authority, next, former, leaf } = self;
        let mut members = Members::new();
        let mut put = |(certificate, key): (&str, &str), issued: &Issued| {
            members.insert(certificate.to_owned(), issued.certificate.clone().into_bytes());
            members.insert(key.to_owned(), issued.key.clone().into_bytes());
        };
        put(CA, authority);
        put(LEAF, leaf);
        if let Some(next) = next {
            put(NEXT, next);
        }
        if !former.is_empty() {
            members.insert(FORMER.to_owned(), former.concat().into_bytes());
        }
        members
    }

    /// What is served.
    pub(super) fn leaf(&self) -> &Issued {
        &self.leaf
    }

    /// When the authority expires.
    pub(super) fn authority_expires(&self) -> Option<Timestamp> {
        Facts::of(&self.authority.certificate).map(|facts| facts.not_after)
    }

    /// The authority that takes over, once the `caBundle` has had it for a while.
    pub(super) fn next(&self) -> Option<&str> {
        self.next.as_ref().map(|next| next.certificate.as_str())
    }

    /// What `caBundle` must hold.
    pub(super) fn bundle(&self) -> String {
        let next = self.next.iter().map(|next| next.certificate.as_str());
        let mut certificates: Vec<&str> = [self.authority.certificate.as_str()].into_iter().chain(next).collect();
        certificates.extend(self.former.iter().map(String::as_str));
        certificates.concat()
    }

    /// What to write now; nothing while all is well. `next_is_known` says that every API server has
    /// had time to learn of the next authority.
    pub(super) fn step(
        &self,
        plan: &Plan,
        now: Timestamp,
        next_is_known: bool,
    ) -> Result<Option<(Self, Why)>, rcgen::Error> {
        let Self { authority, next, former, leaf: _ } = self;
        let expired = |certificate: &str| Facts::of(certificate).is_none_or(|facts| facts.is_expired(now));
        let due = |certificate: &str| Facts::of(certificate).is_none_or(|facts| facts.is_due(now));
        if expired(&authority.certificate) {
            return Ok(Some((Self::new(plan, now)?, "the authority had expired")));
        }
        let kept = |former: &[String]| former.iter().filter(|it| !expired(it)).cloned().collect::<Vec<_>>();
        match next {
            Some(next) if expired(&next.certificate) => {
                let next = Some(issue::authority(now, plan.authority)?);
                return Ok(Some((Self { next, ..self.clone() }, "the next authority had expired")));
            }
            Some(next) if next_is_known => {
                let mut former = kept(former);
                former.push(authority.certificate.clone());
                former.drain(..former.len().saturating_sub(FORMERS));
                let leaf = issue::leaf(next, &plan.names, now, plan.leaf)?;
                let promoted = Self { authority: next.clone(), next: None, former, leaf };
                return Ok(Some((promoted, "the next authority takes over")));
            }
            None if due(&authority.certificate) => {
                let next = Some(issue::authority(now, plan.authority)?);
                return Ok(Some((Self { next, ..self.clone() }, "the authority is due")));
            }
            Some(_) | None => {}
        }
        if self.leaf_is_due(plan, now) {
            let leaf = issue::leaf(authority, &self.names(plan), now, plan.leaf)?;
            return Ok(Some((Self { leaf, ..self.clone() }, "the certificate is due")));
        }
        if former.iter().any(|it| expired(it)) {
            return Ok(Some((Self { former: kept(former), ..self.clone() }, "a former authority has expired")));
        }
        Ok(None)
    }

    /// The names of the next certificate. Where some were missing the others stay: while the gates are
    /// replaced by such as are called otherwise, both need theirs, and would take them from each other.
    fn names(&self, plan: &Plan) -> Vec<String> {
        let mut names = plan.names.clone();
        let old = Facts::of(&self.leaf.certificate).map(|facts| facts.dns).unwrap_or_default();
        if names.iter().any(|name| !old.contains(name)) {
            names.extend(old.into_iter().filter(|name| !plan.names.contains(name)));
        }
        names
    }

    fn leaf_is_due(&self, plan: &Plan, now: Timestamp) -> bool {
        let Some(facts) = Facts::of(&self.leaf.certificate) else { return true };
        let is_named = plan.names.iter().all(|name| facts.dns.contains(name));
        let chain = trust::certificates(self.leaf.certificate.as_bytes());
        let authority = trust::certificates(self.authority.certificate.as_bytes());
        let name = plan.names.first().map(String::as_str).unwrap_or_default();
        // A new one would not live longer than one that ends with its authority.
        let is_last = self.authority_expires().is_some_and(|end| facts.not_after >= end);
        !is_named || trust::verify(&chain, &authority, name, now).is_err() || facts.is_due(now) && !is_last
    }

    /// What to write where the Secret was lost: the same certificate, which API servers trust, and a
    /// new authority that takes over as soon as they trust it as well. Whoever deletes a Secret wants
    /// new keys; that is no reason for calls to fail meanwhile.
    pub(super) fn restored(&self, plan: &Plan, now: Timestamp) -> Result<Self, rcgen::Error> {
        let is_over = self.authority_expires().is_none_or(|end| now >= end);
        if is_over {
            return Self::new(plan, now);
        }
        Ok(Self { next: Some(issue::authority(now, plan.authority)?), ..self.clone() })
    }
}

/// A certificate as PEM, as this program writes it.
pub(super) fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn plan() -> Plan {
        Plan { authority: 360 * DAY, leaf: 90 * DAY, names: vec!["gate.ns.svc".to_owned()] }
    }

    /// So many days after the start.
    fn day(number: i64) -> Timestamp {
        "2026-01-01T12:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(24 * number)
    }

    fn new() -> Keyring {
        Keyring::new(&plan(), day(0)).unwrap()
    }

    fn stepped(keyring: &Keyring, day: Timestamp, known: bool) -> (Keyring, Why) {
        keyring.step(&plan(), day, known).unwrap().expect("there is something to do")
    }

    fn rests(keyring: &Keyring, day: Timestamp) {
        assert_eq!(keyring.step(&plan(), day, false).unwrap(), None);
    }

    /// That what is served can be verified by the bundle of another keyring.
    fn is_trusted(served: &Keyring, bundle: &Keyring, now: Timestamp) -> bool {
        let chain = trust::certificates(served.leaf.certificate.as_bytes());
        trust::verify(&chain, &trust::certificates(bundle.bundle().as_bytes()), "gate.ns.svc", now).is_ok()
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut keyring = stepped(&new(), day(245), false).0;
        keyring.former = vec![new().authority.certificate];
        assert_eq!(Content::of(&keyring.members()), Content::Ours(Box::new(keyring)));
    }

    #[test]
    fn a_leaf_is_renewed_at_two_thirds_of_its_life_by_the_same_authority() {
        let keyring = new();
        rests(&keyring, day(59));
        let (renewed, why) = stepped(&keyring, day(61), false);
        assert_eq!(why, "the certificate is due");
        assert_ne!(renewed.leaf, keyring.leaf);
        assert_eq!(renewed.bundle(), keyring.bundle());
        rests(&renewed, day(62));
    }

    #[test]
    fn an_authority_is_replaced_in_steps_and_every_leaf_is_trusted_at_each_of_them() {
        let first = stepped(&new(), day(200), false).0;
        let (due, why) = stepped(&first, day(241), false);
        assert_eq!(why, "the authority is due");
        assert_eq!(due.leaf, first.leaf, "what nobody trusts yet is not served");
        assert!(is_trusted(&due, &first, day(241)) && is_trusted(&first, &due, day(241)));
        rests(&due, day(242));

        let (promoted, why) = stepped(&due, day(242), true);
        assert_eq!(why, "the next authority takes over");
        assert!(is_trusted(&promoted, &due, day(242)) && is_trusted(&first, &promoted, day(242)));
        assert!(
            !String::from_utf8(promoted.members().into_values().flatten().collect())
                .unwrap()
                .contains(&due.authority.key)
        );
        rests(&promoted, day(243));

        let promoted = stepped(&promoted, day(304), false).0;
        let (at_rest, why) = stepped(&promoted, day(361), false);
        assert_eq!(why, "a former authority has expired");
        assert_eq!(trust::certificates(at_rest.bundle().as_bytes()).len(), 1);
    }

    #[test]
    fn an_authority_that_has_expired_is_replaced_at_once() {
        let (keyring, why) = stepped(&new(), day(360), false);
        assert_eq!(why, "the authority had expired");
        assert!(is_trusted(&keyring, &keyring, day(360)));
    }

    #[test]
    fn while_the_next_authority_is_not_known_the_last_leaf_of_the_old_one_is_not_renewed_over_and_over() {
        let mut keyring = stepped(&new(), day(241), false).0;
        let mut renewals = 0;
        for number in 241..360 {
            if let Some((renewed, _)) = keyring.step(&plan(), day(number), false).unwrap() {
                (keyring, renewals) = (renewed, renewals + 1);
            }
        }
        assert_eq!(renewals, 2);
        assert!(is_trusted(&keyring, &keyring, day(359)));
    }

    #[test]
    fn a_leaf_for_another_service_is_issued_anew() {
        let renamed = Plan { names: vec!["door.ns.svc".to_owned()], ..plan() };
        let (both, why) = new().step(&renamed, day(1), false).unwrap().unwrap();
        assert_eq!(why, "the certificate is due");
        rests(&both, day(1));
        assert_eq!(both.step(&renamed, day(1), false).unwrap(), None, "replicas of both names are content");
        let (renewed, _) = both.step(&renamed, day(62), false).unwrap().unwrap();
        assert_eq!(Facts::of(&renewed.leaf.certificate).unwrap().dns, renamed.names);
    }

    #[test]
    fn a_lost_secret_gets_new_keys_and_what_is_trusted_is_served_on() {
        let lost = new();
        let restored = lost.restored(&plan(), day(1)).unwrap();
        assert_eq!(restored.leaf, lost.leaf);
        let (promoted, _) = stepped(&restored, day(1), true);
        assert!(promoted.authority != lost.authority && is_trusted(&promoted, &restored, day(1)));
    }

    #[test]
    fn what_others_serve_stays_trusted_by_whoever_begins_anew() {
        let lost = new();
        let begun = Keyring::after(&trust::certificates(lost.bundle().as_bytes()), &plan(), day(1)).unwrap();
        assert!(is_trusted(&lost, &begun, day(1)) && is_trusted(&begun, &begun, day(1)));
        assert!(!is_trusted(&begun, &lost, day(1)));
        assert_eq!(Content::of(&begun.members()), Content::Ours(Box::new(begun.clone())));
    }

    #[test]
    fn a_secret_that_is_deleted_over_and_over_does_not_let_the_bundle_grow() {
        let mut keyring = new();
        for _ in 0..20 {
            let restored = keyring.restored(&plan(), day(1)).unwrap();
            let (promoted, _) = stepped(&restored, day(1), true);
            assert!(is_trusted(&keyring, &promoted, day(1)) && is_trusted(&promoted, &restored, day(1)));
            keyring = promoted;
        }
        assert_eq!(trust::certificates(keyring.bundle().as_bytes()).len(), 1 + FORMERS);
    }

    #[test]
    fn what_cannot_be_used_is_told_from_what_is_somebody_elses() {
        let members = new().members();
        let with = |name: &str, value: &[u8]| {
            let mut members = members.clone();
            members.insert(name.to_owned(), value.to_vec());
            Content::of(&members)
        };
        assert_eq!(Content::of(&Members::new()), Content::Nothing);
        assert_eq!(with("ca.key", b""), Content::Foreign);
        let other = new();
        for (name, value) in [
            ("tls.key", b"nonsense".as_slice()),
            ("tls.crt", b""),
            ("tls.key", other.leaf.key.as_bytes()),
            ("ca.crt", other.authority.certificate.as_bytes()),
            ("ca-next.crt", b"half"),
        ] {
            assert!(matches!(with(name, value), Content::Broken(_)), "{name}");
        }
    }
}
