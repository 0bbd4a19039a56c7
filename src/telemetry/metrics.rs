//! Metrics: what is counted and measured, in a registry of the process's own.
//!
//! [`CATALOGUE`] lists every one with its type, labels and meaning; documentation is made from it.
//! Labels come from closed sets, never from what a user can name: a cluster of ten thousand
//! namespaces has as many series as one of ten.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// The type of what [`Metrics::render`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One metric, for the registry and for documentation alike.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// `portcullis_<noun>_<unit|total>`.
    pub name: &'static str,
    /// What it does over time.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means, in one line.
    pub help: &'static str,
}

/// What a metric does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    /// `counter`, `gauge`, `histogram`, as the exposition format spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Every metric there is, in the order documentation lists them.
pub static CATALOGUE: &[&Metric] = &[
    &REVIEWS,
    &REVIEW_DURATION,
    &FINDINGS,
    &CONFIRMATIONS,
    &INFLIGHT,
    &REJECTED,
    &CONNECTIONS,
    &VIEW_AGE,
    &OBJECTS,
    &CERTIFICATE_NOT_AFTER,
    &CERTIFICATE_RELOADS,
    &CERTIFICATE_LAST_RELOAD_SUCCESS,
    &WEBHOOK_STATE,
    &WEBHOOK_REPAIRS,
    &PROBES,
    &STANDING_FINDINGS,
    &WAIVERS,
    &AUDIT_LAST_SUCCESS,
    &AUDIT_DURATION,
    &REPORTS_WRITTEN,
    &REPORTS_REFUSED,
    &EVENTS,
    &PROTECTION_LOST,
    &CONFIG_RELOADS,
    &CONFIG_LAST_RELOAD_SUCCESS,
    &BUILD_INFO,
];

const REVIEWS: Metric = Metric {
    name: "portcullis_reviews_total",
    kind: Kind::Counter,
    labels: &["kind", "operation", "verdict"],
    help: "Admission reviews answered. A dry run counts as `dry_run` whatever its verdict, and kinds no rule reads as `other`.",
};

const REVIEW_DURATION: Metric = Metric {
    name: "portcullis_review_duration_seconds",
    kind: Kind::Histogram,
    labels: &["operation"],
    help: "Time from a review's last byte to its answer.",
};

const FINDINGS: Metric = Metric {
    name: "portcullis_findings_total",
    kind: Kind::Counter,
    labels: &["rule", "action"],
    help: "Findings in reviews by rule and what became of them; dry runs are left out.",
};

const CONFIRMATIONS: Metric = Metric {
    name: "portcullis_review_confirmations_total",
    kind: Kind::Counter,
    labels: &["outcome"],
    help: "Denials for want of something, and deletions of policies, that were judged again by a fresh read, by what came of them.",
};

const INFLIGHT: Metric =
    Metric { name: "portcullis_inflight", kind: Kind::Gauge, labels: &[], help: "Reviews being read or judged now." };

const REJECTED: Metric = Metric {
    name: "portcullis_rejected_total",
    kind: Kind::Counter,
    labels: &["reason"],
    help: "Connections and requests turned away before they were judged. Connections: `connections`, too many are open; `peer_connections`, too many from one address; `accept`, the process could not accept it; `handshake`, it failed or took too long; `idle`, no request arrived in time; `operations`, any of these on the port for probes and metrics. Requests: `receiving`, too many bytes of bodies are being received; `peer_receiving`, too many from one address; `body`, the body broke off or did not arrive in time; `too_large`, the body is over 7 MiB; `overload`, too many reviews are being judged; `peer_overload`, too many from one address; `namespace`, too many of one namespace; `memory`, judging needs more memory than is free.",
};

const CONNECTIONS: Metric = Metric {
    name: "portcullis_connections",
    kind: Kind::Gauge,
    labels: &[],
    help: "Open HTTPS connections, those still in the handshake among them.",
};

const VIEW_AGE: Metric = Metric {
    name: "portcullis_view_age_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "How long ago all that is known of the cluster was last known to be current; 0 while no watch is cut off and the API server answers.",
};

const OBJECTS: Metric = Metric {
    name: "portcullis_objects",
    kind: Kind::Gauge,
    labels: &["kind"],
    help: "Objects of the cluster that reviews are judged against.",
};

const CERTIFICATE_NOT_AFTER: Metric = Metric {
    name: "portcullis_certificate_not_after_seconds",
    kind: Kind::Gauge,
    labels: &["certificate"],
    help: "When a certificate expires, in seconds since 1970: `leaf`, the one that is served; `ca`, the authority that issues it here; `ca_bundle`, the last of those by which the webhook configuration has it verified. 0 where there is none.",
};

const WEBHOOK_STATE: Metric = Metric {
    name: "portcullis_webhook_state",
    kind: Kind::Gauge,
    labels: &["state"],
    help: "What holds of the webhook configuration, 1 or 0: `registered`, it is there; `trusted`, its `caBundle` verifies the served certificate; `proved`, the last probe through the API server was denied as it must be; `failing_closed`, its `failurePolicy` is `Fail`; `covers_rules`, it asks about all that the rules judge; `whole`, it leaves out nothing but what the configuration exempts and what no rule reads.",
};

const WEBHOOK_REPAIRS: Metric = Metric {
    name: "portcullis_webhook_repairs_total",
    kind: Kind::Counter,
    labels: &["field"],
    help: "Times a field of the webhook configuration was set by this replica, because it was not as it should be.",
};

const PROBES: Metric = Metric {
    name: "portcullis_probes_total",
    kind: Kind::Counter,
    labels: &["result"],
    help: "Dry runs of a known violation sent through the API server, by what came of them.",
};

const CERTIFICATE_RELOADS: Metric = Metric {
    name: "portcullis_certificate_reloads_total",
    kind: Kind::Counter,
    labels: &["result"],
    help: "Times the certificate's files were found changed, by whether the new pair was taken.",
};

const CERTIFICATE_LAST_RELOAD_SUCCESS: Metric = Metric {
    name: "portcullis_certificate_last_reload_success",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 while the certificate's files are what is served, 0 while they were refused or cannot be read.",
};

const STANDING_FINDINGS: Metric = Metric {
    name: "portcullis_standing_findings",
    kind: Kind::Gauge,
    labels: &["rule", "severity", "action"],
    help: "What the audit finds wrong now, by rule and by what would become of it (`waived` where somebody lets it stand). Told by the replica that audits.",
};

const WAIVERS: Metric = Metric {
    name: "portcullis_waivers",
    kind: Kind::Gauge,
    labels: &["state"],
    help: "Waivers by what they come to. Those that expire within 14, 7 and 1 days are active too. Told by the replica that audits.",
};

const AUDIT_LAST_SUCCESS: Metric = Metric {
    name: "portcullis_audit_last_success_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "When the last audit was done and told, in seconds since 1970; 0 on a replica that does not audit.",
};

const AUDIT_DURATION: Metric = Metric {
    name: "portcullis_audit_duration_seconds",
    kind: Kind::Histogram,
    labels: &[],
    help: "Time an audit took, its reports and Events included.",
};

const REPORTS_WRITTEN: Metric = Metric {
    name: "portcullis_reports_written_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Reports written, because what they say had changed.",
};

const REPORTS_REFUSED: Metric = Metric {
    name: "portcullis_reports_refused",
    kind: Kind::Gauge,
    labels: &[],
    help: "Reports that are missing or old because the API server refuses them, by a quota of their namespace for example. Told by the replica that audits.",
};

const EVENTS: Metric = Metric {
    name: "portcullis_events_total",
    kind: Kind::Counter,
    labels: &["result"],
    help: "Events about changed verdicts, by whether they were written, dropped because there were too many, or refused by the API server.",
};

const PROTECTION_LOST: Metric = Metric {
    name: "portcullis_protection_lost_total",
    kind: Kind::Counter,
    labels: &["rule"],
    help: "Findings about deleted policies whose deletion the gate was not asked about and would have denied, by rule.",
};

/// What waivers come to.
const WAIVER_STATES: [&str; 6] =
    ["active", "expires_within_14_days", "expires_within_7_days", "expires_within_1_day", "expired", "invalid"];
/// The bounds of how long an audit takes, in seconds.
const AUDIT_BOUNDS: [f64; 8] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

const CONFIG_RELOADS: Metric = Metric {
    name: "portcullis_config_reloads_total",
    kind: Kind::Counter,
    labels: &["result"],
    help: "Times the configuration file was found changed, by whether it was taken.",
};

const CONFIG_LAST_RELOAD_SUCCESS: Metric = Metric {
    name: "portcullis_config_last_reload_success",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 while the configuration file is what is in force, 0 while it was refused or cannot be read.",
};

const BUILD_INFO: Metric = Metric {
    name: "portcullis_build_info",
    kind: Kind::Gauge,
    labels: &["version", "commit"],
    help: "Always 1; the labels say what is running.",
};

/// Bounds of [`REVIEW_DURATION`]: most reviews take microseconds, a change that concerns the whole
/// cluster a tenth of a second, and no API server waits longer than 30 seconds.
const DURATION_BOUNDS: [f64; 14] =
    [0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Kinds with a series of their own; the rest is `other`.
const KINDS: [&str; 13] = [
    "NetworkPolicy",
    "PeerAuthentication",
    "Namespace",
    "Pod",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "ReplicationController",
    "Job",
    "CronJob",
    "Service",
    "other",
];

/// Operations of an AdmissionReview; what could not be read is `unknown`.
const OPERATIONS: [&str; 5] = ["CREATE", "UPDATE", "DELETE", "CONNECT", "unknown"];

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed, nothing said.
    Allowed,
    /// Allowed with a warning.
    Warned,
    /// Refused.
    Denied,
    /// A dry run, whatever was answered.
    DryRun,
    /// Not judged in time or at all; the configuration decided.
    Unjudged,
    /// No AdmissionReview.
    Unreadable,
}

impl Verdict {
    const ALL: [Self; 6] = [Self::Allowed, Self::Warned, Self::Denied, Self::DryRun, Self::Unjudged, Self::Unreadable];

    /// Its label and its word in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Warned => "warned",
            Self::Denied => "denied",
            Self::DryRun => "dry_run",
            Self::Unjudged => "unjudged",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What came of an answer that was judged again by a fresh read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// It was right.
    Upheld,
    /// What had been absent was there by then.
    Withdrawn,
    /// A deletion would have been allowed for what had gone by then, and was denied.
    Overturned,
    /// The fresh read failed: a denial became a warning, a deletion was allowed.
    Failed,
}

impl Confirmation {
    const ALL: [Self; 4] = [Self::Upheld, Self::Withdrawn, Self::Overturned, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Upheld => "upheld",
            Self::Withdrawn => "withdrawn",
            Self::Overturned => "overturned",
            Self::Failed => "failed",
        }
    }
}

/// Why a connection or a request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Too many connections are open, and one was closed or not taken.
    Connections,
    /// One address has too many connections open, and one of them was closed or not taken.
    PeerConnections,
    /// A connection could not be accepted, for want of descriptors for example.
    Accept,
    /// The TLS handshake failed or took too long.
    Handshake,
    /// A request's head took too long, or none ever began.
    Idle,
    /// Too many bytes of bodies are under way.
    Receiving,
    /// One address has too many bytes of bodies under way.
    PeerReceiving,
    /// Too many reviews are in flight.
    Overload,
    /// One address has too many reviews in flight.
    PeerOverload,
    /// As many reviews of one namespace are in flight as are its share.
    Namespace,
    /// What the body becomes needs more memory than is free.
    Memory,
    /// The body is larger than any an API server sends.
    TooLarge,
    /// The body did not come in time, or broke off.
    Body,
    /// A connection to the port of probes and metrics was too many, or asked nothing in time.
    Operations,
}

impl Rejection {
    const ALL: [Self; 14] = [
        Self::Connections,
        Self::PeerConnections,
        Self::Accept,
        Self::Handshake,
        Self::Idle,
        Self::Receiving,
        Self::PeerReceiving,
        Self::Overload,
        Self::PeerOverload,
        Self::Namespace,
        Self::Memory,
        Self::TooLarge,
        Self::Body,
        Self::Operations,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::PeerConnections => "peer_connections",
            Self::Accept => "accept",
            Self::Handshake => "handshake",
            Self::Idle => "idle",
            Self::Receiving => "receiving",
            Self::PeerReceiving => "peer_receiving",
            Self::Overload => "overload",
            Self::Namespace => "namespace",
            Self::Memory => "memory",
            Self::PeerOverload => "peer_overload",
            Self::TooLarge => "too_large",
            Self::Body => "body",
            Self::Operations => "operations",
        }
    }
}

/// A certificate whose expiry is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiring {
    /// The server's own.
    Leaf,
    /// The authority that issues it, where the gate is that itself.
    Authority,
    /// What the webhook configuration verifies it by.
    Bundle,
}

impl Expiring {
    const ALL: [Self; 3] = [Self::Leaf, Self::Authority, Self::Bundle];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Leaf => "leaf",
            Self::Authority => "ca",
            Self::Bundle => "ca_bundle",
        }
    }
}

/// Something that holds of the webhook configuration, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookState {
    /// It is there.
    Registered,
    /// It verifies the served certificate.
    Trusted,
    /// The last probe was denied.
    Proved,
    /// What is not answered is refused.
    FailingClosed,
    /// It asks about all that the rules judge.
    CoversRules,
    /// It leaves out no namespace, object or change but what the configuration exempts and no rule
    /// reads.
    Whole,
}

impl WebhookState {
    const ALL: [Self; 6] =
        [Self::Registered, Self::Trusted, Self::Proved, Self::FailingClosed, Self::CoversRules, Self::Whole];

    /// `registered`, `trusted`, …
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Trusted => "trusted",
            Self::Proved => "proved",
            Self::FailingClosed => "failing_closed",
            Self::CoversRules => "covers_rules",
            Self::Whole => "whole",
        }
    }
}

/// A field of the webhook configuration that the gate keeps as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// `caBundle`.
    Bundle,
    /// `failurePolicy`.
    FailurePolicy,
}

impl Repair {
    const ALL: [Self; 2] = [Self::Bundle, Self::FailurePolicy];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Bundle => "ca_bundle",
            Self::FailurePolicy => "failure_policy",
        }
    }
}

/// What came of a dry run of a known violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// It was denied, as it must be.
    Denied,
    /// It was let through.
    Admitted,
    /// It could not be asked.
    Failed,
}

impl Probed {
    const ALL: [Self; 3] = [Self::Denied, Self::Admitted, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Admitted => "admitted",
            Self::Failed => "failed",
        }
    }
}

/// The metrics of one process. A clone is a reference count.
#[derive(Clone)]
pub struct Metrics {
    series: Arc<Series>,
}

struct Series {
    registry: Registry,
    reviews: IntCounterVec,
    /// The series of [`Self::reviews`] met so far, so that a review does not look its labels up.
    reviews_met: Vec<OnceLock<IntCounter>>,
    durations: [Histogram; OPERATIONS.len()],
    findings: IntCounterVec,
    inflight: IntGauge,
    rejected: [IntCounter; Rejection::ALL.len()],
    confirmations: [IntCounter; Confirmation::ALL.len()],
    connections: IntGauge,
    view_age: Gauge,
    objects: IntGaugeVec,
    certificate_not_after: [IntGauge; Expiring::ALL.len()],
    webhook_state: [IntGauge; WebhookState::ALL.len()],
    webhook_repairs: [IntCounter; Repair::ALL.len()],
    probes: [IntCounter; Probed::ALL.len()],
    standing: IntGaugeVec,
    waivers: IntGaugeVec,
    audit_last_success: IntGauge,
    audit_duration: Histogram,
    reports_written: IntCounter,
    reports_refused: IntGauge,
    events_written: IntCounter,
    events_dropped: IntCounter,
    events_refused: IntCounter,
    protection_lost: IntCounterVec,
    certificate: Reloads,
    config: Reloads,
}

/// A file that is read again when it changes.
struct Reloads {
    taken: IntCounter,
    refused: IntCounter,
    last: IntGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let reviews = counters(&registry, &REVIEWS);
        let durations = registered(
            &registry,
            HistogramVec::new(
                HistogramOpts::new(REVIEW_DURATION.name, REVIEW_DURATION.help).buckets(DURATION_BOUNDS.to_vec()),
                REVIEW_DURATION.labels,
            ),
        );
        let rejected = counters(&registry, &REJECTED);
        let confirmations = counters(&registry, &CONFIRMATIONS);
        let not_after = gauges(&registry, &CERTIFICATE_NOT_AFTER);
        let webhook_state = gauges(&registry, &WEBHOOK_STATE);
        let webhook_repairs = counters(&registry, &WEBHOOK_REPAIRS);
        let probes = counters(&registry, &PROBES);
        let events = counters(&registry, &EVENTS);
        let waivers = gauges(&registry, &WAIVERS);
        for state in WAIVER_STATES {
            waivers.with_label_values(&[state]).set(0);
        }
        let build = gauges(&registry, &BUILD_INFO);
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("PORTCULLIS_COMMIT")]).set(1);
        Self {
            series: Arc::new(Series {
                reviews,
                reviews_met: std::iter::repeat_with(OnceLock::new)
                    .take(KINDS.len() * OPERATIONS.len() * Verdict::ALL.len())
                    .collect(),
                durations: OPERATIONS.map(|operation| durations.with_label_values(&[operation])),
                findings: counters(&registry, &FINDINGS),
                inflight: gauge(&registry, &INFLIGHT),
                rejected: Rejection::ALL.map(|reason| rejected.with_label_values(&[reason.as_str()])),
                confirmations: Confirmation::ALL.map(|outcome| confirmations.with_label_values(&[outcome.as_str()])),
                connections: gauge(&registry, &CONNECTIONS),
                objects: gauges(&registry, &OBJECTS),
                view_age: registered(&registry, Gauge::new(VIEW_AGE.name, VIEW_AGE.help)),
                certificate_not_after: Expiring::ALL.map(|it| not_after.with_label_values(&[it.as_str()])),
                webhook_state: WebhookState::ALL.map(|it| webhook_state.with_label_values(&[it.as_str()])),
                webhook_repairs: Repair::ALL.map(|it| webhook_repairs.with_label_values(&[it.as_str()])),
                probes: Probed::ALL.map(|it| probes.with_label_values(&[it.as_str()])),
                standing: gauges(&registry, &STANDING_FINDINGS),
                waivers,
                audit_last_success: gauge(&registry, &AUDIT_LAST_SUCCESS),
                audit_duration: registered(
                    &registry,
                    Histogram::with_opts(
                        HistogramOpts::new(AUDIT_DURATION.name, AUDIT_DURATION.help).buckets(AUDIT_BOUNDS.to_vec()),
                    ),
                ),
                reports_written: registered(&registry, IntCounter::new(REPORTS_WRITTEN.name, REPORTS_WRITTEN.help)),
                reports_refused: gauge(&registry, &REPORTS_REFUSED),
                events_written: events.with_label_values(&["written"]),
                events_dropped: events.with_label_values(&["dropped"]),
                events_refused: events.with_label_values(&["refused"]),
                protection_lost: counters(&registry, &PROTECTION_LOST),
                certificate: Reloads::new(&registry, &CERTIFICATE_RELOADS, &CERTIFICATE_LAST_RELOAD_SUCCESS),
                config: Reloads::new(&registry, &CONFIG_RELOADS, &CONFIG_LAST_RELOAD_SUCCESS),
                registry,
            }),
        }
    }
}

impl Metrics {
    /// A review was answered.
    pub fn review(&self, kind: &str, operation: &str, verdict: Verdict, took: Duration) {
        let kind_at = place(&KINDS, kind);
        let operation_at = place(&OPERATIONS, operation);
        if let Some(duration) = self.series.durations.get(operation_at) {
            duration.observe(took.as_secs_f64());
        }
        let at = (kind_at * OPERATIONS.len() + operation_at) * Verdict::ALL.len() + verdict as usize;
        if let Some(met) = self.series.reviews_met.get(at) {
            let label = |names: &[&'static str], at: usize| names.get(at).copied().unwrap_or_default();
            met.get_or_init(|| {
                let labels = [label(&KINDS, kind_at), label(&OPERATIONS, operation_at), verdict.as_str()];
                self.series.reviews.with_label_values(&labels)
            })
            .inc();
        }
    }

    /// A rule found something. `rule` and `action` are from the catalogue of rules.
    pub fn finding(&self, rule: &'static str, action: &'static str) {
        self.series.findings.with_label_values(&[rule, action]).inc();
    }

    /// A denial was judged again.
    pub fn confirmation(&self, outcome: Confirmation) {
        if let Some(counter) = self.series.confirmations.get(outcome as usize) {
            counter.inc();
        }
    }

    /// A connection or a request was turned away.
    pub fn rejected(&self, reason: Rejection) {
        if let Some(counter) = self.series.rejected.get(reason as usize) {
            counter.inc();
        }
    }

    /// Counts a review as in flight until the guard is dropped.
    pub fn in_flight(&self) -> Present {
        Present::new(&self.series.inflight)
    }

    /// How many reviews are in flight.
    pub fn reviews_in_flight(&self) -> i64 {
        self.series.inflight.get()
    }

    /// Counts a connection as open until the guard is dropped.
    pub fn connected(&self) -> Present {
        Present::new(&self.series.connections)
    }

    /// How old the view of the cluster is.
    pub fn view_age(&self, age: Duration) {
        self.series.view_age.set(age.as_secs_f64());
    }

    /// How many objects of a kind the cluster has. For whoever loads it; `kind` is one of the
    /// model's.
    pub fn objects(&self, kind: &'static str, count: usize) {
        self.series.objects.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The certificate's files changed, and the new pair was taken or not.
    pub fn certificate_reloaded(&self, taken: bool) {
        self.series.certificate.count(taken);
    }

    /// The certificate's files are what is served, or not.
    pub fn certificate_current(&self, current: bool) {
        self.series.certificate.last.set(i64::from(current));
    }

    /// When a certificate expires, in seconds since 1970.
    pub fn certificate_not_after(&self, certificate: Expiring, not_after: Duration) {
        if let Some(gauge) = self.series.certificate_not_after.get(certificate as usize) {
            gauge.set(i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX));
        }
    }

    /// Something holds of the webhook configuration, or does not.
    pub fn webhook_state(&self, state: WebhookState, holds: bool) {
        if let Some(gauge) = self.series.webhook_state.get(state as usize) {
            gauge.set(i64::from(holds));
        }
    }

    /// A field of the webhook configuration was set.
    pub fn webhook_repaired(&self, field: Repair) {
        if let Some(counter) = self.series.webhook_repairs.get(field as usize) {
            counter.inc();
        }
    }

    /// A known violation was sent through the API server.
    pub fn probed(&self, result: Probed) {
        if let Some(counter) = self.series.probes.get(result as usize) {
            counter.inc();
        }
    }

    /// What stands now: the rule, its severity and what becomes of each finding.
    pub fn standing(&self, findings: impl Iterator<Item = (&'static str, &'static str, &'static str)>) {
        let mut counts: BTreeMap<_, i64> = BTreeMap::new();
        for finding in findings {
            *counts.entry(finding).or_default() += 1;
        }
        self.series.standing.reset();
        for ((rule, severity, action), count) in counts {
            self.series.standing.with_label_values(&[rule, severity, action]).set(count);
        }
    }

    /// How many waivers have come to this.
    pub fn waivers(&self, state: &'static str, count: i64) {
        debug_assert!(WAIVER_STATES.contains(&state), "{state}");
        self.series.waivers.with_label_values(&[state]).set(count);
    }

    /// An audit is done and told.
    pub fn audited(&self, at: jiff::Timestamp, took: Duration) {
        self.series.audit_last_success.set(at.as_second());
        self.series.audit_duration.observe(took.as_secs_f64());
    }

    /// This replica does not audit: what it said of what stands is not its to say any more.
    pub fn no_audit(&self) {
        // Whether or not an audit of this replica ever came to an end.
        self.series.audit_last_success.set(0);
        self.series.standing.reset();
        self.series.reports_refused.set(0);
        for state in WAIVER_STATES {
            self.waivers(state, 0);
        }
    }

    /// A report was written.
    pub fn report_written(&self) {
        self.series.reports_written.inc();
    }

    /// How many reports are refused.
    pub fn reports_refused(&self, count: usize) {
        self.series.reports_refused.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// An Event was written.
    pub fn event_written(&self) {
        self.series.events_written.inc();
    }

    /// An Event was one too many.
    pub fn event_dropped(&self) {
        self.series.events_dropped.inc();
    }

    /// An Event was refused by the API server.
    pub fn event_refused(&self) {
        self.series.events_refused.inc();
    }

    /// A policy is gone, and by this rule the gate would have denied its deletion.
    pub fn protection_lost(&self, rule: &str) {
        self.series.protection_lost.with_label_values(&[rule]).inc();
    }

    /// The configuration file changed, and was taken or not.
    pub fn config_reloaded(&self, taken: bool) {
        self.series.config.count(taken);
    }

    /// The configuration file is what is in force, or not.
    pub fn config_current(&self, current: bool) {
        self.series.config.last.set(i64::from(current));
    }

    /// Everything in the text format, of type [`CONTENT_TYPE`].
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new()
            .encode(&self.series.registry.gather(), &mut text)
            .expect("names and help are constants that encode, and writing to a Vec cannot fail");
        text
    }
}

/// Counts something while it is there.
pub struct Present(IntGauge);

impl Present {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Reloads {
    fn new(registry: &Registry, reloads: &Metric, last: &Metric) -> Self {
        let reloads = counters(registry, reloads);
        Self {
            taken: reloads.with_label_values(&["taken"]),
            refused: reloads.with_label_values(&["refused"]),
            last: gauge(registry, last),
        }
    }

    fn count(&self, taken: bool) {
        if taken { &self.taken } else { &self.refused }.inc();
    }
}

/// Where a name stands in its closed set; one that is not in it counts as the last.
fn place<const N: usize>(names: &[&str; N], name: &str) -> usize {
    names.iter().position(|known| *known == name).unwrap_or(N - 1)
}

fn counters(registry: &Registry, metric: &Metric) -> IntCounterVec {
    registered(registry, IntCounterVec::new(Opts::new(metric.name, metric.help), metric.labels))
}

fn gauges(registry: &Registry, metric: &Metric) -> IntGaugeVec {
    registered(registry, IntGaugeVec::new(Opts::new(metric.name, metric.help), metric.labels))
}

fn gauge(registry: &Registry, metric: &Metric) -> IntGauge {
    registered(registry, IntGauge::new(metric.name, metric.help))
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> C {
    let collector = collector.expect("names and labels in the catalogue are valid");
    registry.register(Box::new(collector.clone())).expect("each metric of the catalogue is registered once");
    collector
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render()).unwrap()
    }

    /// One series of everything.
    fn touched() -> Metrics {
        let metrics = Metrics::default();
        metrics.review("NetworkPolicy", "CREATE", Verdict::Denied, Duration::from_micros(30));
        metrics.protection_lost("missing-default-deny");
        metrics.finding("dns-blackhole", "deny");
        metrics.rejected(Rejection::Overload);
        metrics.objects("Pod", 3);
        metrics.standing([("dns-blackhole", "high", "deny")].into_iter());
        metrics
    }

    #[test]
    fn the_catalogue_lists_what_is_exposed_and_nothing_else() {
        let gathered = touched().series.registry.gather();
        let exposed: BTreeSet<_> = gathered
            .iter()
            .map(|family| {
                let labels: Vec<String> = family.get_metric()[0]
                    .get_label()
                    .iter()
                    .map(|label| label.name().to_owned())
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect();
                let kind = format!("{:?}", family.get_field_type()).to_lowercase();
                (family.name().to_owned(), kind, labels, family.help().to_owned())
            })
            .collect();
        let documented: BTreeSet<_> = CATALOGUE
            .iter()
            .map(|metric| {
                let labels: BTreeSet<String> = metric.labels.iter().map(|label| (*label).to_owned()).collect();
                let labels: Vec<String> = labels.into_iter().collect();
                (metric.name.to_owned(), metric.kind.as_str().to_owned(), labels, metric.help.to_owned())
            })
            .collect();
        assert_eq!(exposed, documented);
    }

    #[test]
    fn names_say_what_is_counted_and_in_which_unit() {
        for metric in CATALOGUE {
            assert!(metric.name.starts_with("portcullis_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
        }
    }

    #[test]
    fn a_kind_nobody_listed_makes_no_series_of_its_own() {
        let metrics = Metrics::default();
        metrics.review("Widget", "CREATE", Verdict::Allowed, Duration::ZERO);
        metrics.review("Gadget", "PONDER", Verdict::Allowed, Duration::ZERO);
        let text = text(&metrics);
        assert!(text.contains(r#"portcullis_reviews_total{kind="other",operation="CREATE",verdict="allowed"} 1"#));
        assert!(text.contains(r#"portcullis_reviews_total{kind="other",operation="unknown",verdict="allowed"} 1"#));
        assert!(!text.contains("Widget") && !text.contains("PONDER"));
    }

    #[test]
    fn each_verdict_and_rejection_counts_under_its_own_name() {
        let metrics = Metrics::default();
        for verdict in Verdict::ALL {
            metrics.review("Pod", "UPDATE", verdict, Duration::ZERO);
        }
        for reason in Rejection::ALL {
            metrics.rejected(reason);
        }
        let text = text(&metrics);
        for verdict in Verdict::ALL {
            let line = format!(r#"kind="Pod",operation="UPDATE",verdict="{}"}} 1"#, verdict.as_str());
            assert!(text.contains(&line), "{line}");
        }
        for reason in Rejection::ALL {
            assert!(text.contains(&format!(r#"portcullis_rejected_total{{reason="{}"}} 1"#, reason.as_str())));
        }
    }

    #[test]
    fn a_review_is_in_flight_until_its_guard_is_dropped() {
        let metrics = Metrics::default();
        let guard = metrics.in_flight();
        assert_eq!(metrics.reviews_in_flight(), 1);
        drop(guard);
        assert_eq!(metrics.reviews_in_flight(), 0);
    }
}
