//! What is served: `/validate` for the API server; `/livez`, `/readyz` and `/metrics` for whoever
//! runs it.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode, Uri, Version};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use futures::poll;
use hyper::body::Body as _;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::Limits;
use super::body::{Received, receive};
use super::judge::{Judge, Review, Unanswered};
use super::listener::Client;
use super::places::{self, Caller, Lasting, Place, Places, Share};
use super::pulse::Unread;
use super::room::{NoRoom, Room};
use crate::admission::{self, Answer, Head, Record, Unjudged};
use crate::model::Stop;
use crate::rules::{Action, RuleSet};
use crate::telemetry::metrics::{CONTENT_TYPE as METRICS_TYPE, Rejection, Verdict};
use crate::telemetry::{Metrics, Readiness, Telemetry};

/// What an API server gives a webhook that does not say (`timeoutSeconds` in
/// `admissionregistration.k8s.io/v1`).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A body from this size on is judged on a thread of its own, and few of them at a time: even to
/// parse it would hold up those that wait behind it, and several at once would fill the memory.
const LARGE: usize = 64 * 1024;

/// How many bodies of [`LARGE`] size are judged at a time.
/// What they hold besides the memory they are judged in is up to so many times `Limits::body`.
const LARGE_AT_ONCE: usize = 8;

/// As how many bytes a body under way counts at least.
const SMALL: u64 = 16 * 1024;

/// How many bytes of answers may be on their way. A client that reads is owed a few thousand at a time;
/// one that never does would have them pile up, on each of its streams.
const UNREAD: usize = 16 * 1024 * 1024;

/// As how many bytes an answer counts at least: so much its stream takes besides.
const LEAST_UNREAD: u64 = 8 * 1024;

/// What reviews are judged by, and how many may be under way and be judged.
pub(super) struct Gate {
    judge: Arc<Judge>,
    rules: watch::Receiver<Arc<RuleSet>>,
    metrics: Metrics,
    limits: Limits,
    /// Of bodies that are on their way, by bytes.
    receiving: Arc<Places<Notify>>,
    reviews: Arc<Places<Lasting>>,
    large: Arc<Places<Lasting>>,
    /// Of answers that are on their way, by bytes.
    unread: Arc<Places<Unread>>,
    room: Arc<Room>,
}

impl Gate {
    /// With places that are kept for API servers, or without.
    pub(super) fn new(judge: Judge, rules: watch::Receiver<Arc<RuleSet>>, limits: Limits, keeps_places: bool) -> Self {
        let metrics = judge.metrics.clone();
        let places = |whole: usize, share, full| {
            let whole = whole as u64;
            places::Rules { whole, share, kept: if keeps_places { whole / 4 } else { 0 }, full }
        };
        let (overload, under_way) = (
            (Rejection::Overload, Rejection::PeerOverload),
            places(
                limits.receiving,
                Share::Of(limits.receiving as u64 / 2),
                (Rejection::Receiving, Rejection::PeerReceiving),
            ),
        );
        let unread = places(UNREAD, Share::Of(UNREAD as u64 / 2), overload);
        Self {
            unread: Places::new(unread, metrics.clone()),
            receiving: Places::new(under_way, metrics.clone()),
            reviews: Places::new(places(limits.reviews, Share::AsMuchAsIsFree, overload), metrics.clone()),
            large: Places::new(places(LARGE_AT_ONCE, Share::AsMuchAsIsFree, overload), metrics.clone()),
            metrics,
            judge: Arc::new(judge),
            rules,
            limits,
            room: Arc::new(Room::new(&limits)),
        }
    }
}

/// The routes of the HTTPS listener.
pub(super) fn webhook(gate: Gate) -> Router {
    Router::new().route("/validate", post(validate)).with_state(Arc::new(gate))
}

/// The routes of the plain listener.
pub(super) fn operations(telemetry: &Telemetry) -> Router {
    Router::new()
        // The process answers, so it lives; whether it is of use is for `/readyz` to say.
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz).with_state(telemetry.readiness.clone()))
        .route("/metrics", get(metrics).with_state(telemetry.metrics.clone()))
}

async fn readyz(State(readiness): State<Readiness>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    let is_ready = readiness.is_ready();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let is_verbose = query.is_some_and(|query| parameter(&query, "verbose").is_some_and(|value| value != "false"));
    let text = match (is_verbose, is_ready) {
        (true, _) => readiness.describe(),
        (false, true) => "ok\n".to_owned(),
        (false, false) => "not ready: see /readyz?verbose\n".to_owned(),
    };
    (status, text)
}

async fn metrics(State(metrics): State<Metrics>) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE)], metrics.render()).into_response()
}

/// An answer, before it is on its way.
type Reply = hyper::Response<Vec<u8>>;

/// An answer on its way, and its place among those that are, until the last byte is sent.
struct OnItsWay {
    body: Vec<u8>,
    _place: Option<Place<Unread>>,
}

impl AsRef<[u8]> for OnItsWay {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

async fn validate(State(gate): State<Arc<Gate>>, Extension(client): Extension<Client>, request: Request) -> Response {
    answer(&gate, &client, request).await.map(|body| {
        let weight = (body.len() as u64).max(LEAST_UNREAD);
        let place = gate.unread.take(client.caller, weight, &Arc::new(client.pulse.unread())).ok();
        Body::from(Bytes::from_owner(OnItsWay { body, _place: place }))
    })
}

/// One review, from the head of its request to its answer.
async fn answer(gate: &Gate, client: &Client, request: Request) -> Reply {
    let deadline = Instant::now() + time_to_answer(request.uri());
    let in_flight = gate.metrics.in_flight();
    let http = request.version();
    let body = match body_in_time(gate, client.caller, request.into_body(), deadline).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    // Only what is there takes up a place: a client that sends slowly holds none.
    let Ok(place) = gate.reviews.take(client.caller, 1, &Arc::new(Lasting)) else { return overload() };
    let is_large = body.len() > LARGE;
    let large_place = is_large.then(|| gate.large.take(client.caller, 1, &Arc::new(Lasting)));
    let Ok(large_place) = large_place.transpose() else { return overload() };
    let _judging = client.pulse.judge();

    let received = Instant::now();
    let rules = Arc::clone(&gate.rules.borrow());
    let stop = Stop::default();
    // Late or given up by its client, a review stops, and its places are free again.
    let _ending = Ending(stop.clone());
    let namespace = Head::find(&body).map(|head| head.namespace).unwrap_or_default();
    let judged = match gate.room.enter(client.caller, &namespace, &body) {
        Ok(guest) => {
            let review = Review { rules: Arc::clone(&rules), body: body.clone(), guest, is_large, deadline, stop };
            timeout_at(deadline, gate.judge.begin(review, (place, large_place, in_flight))).await
        }
        Err(full) => Ok(Ok(Err(full.into()))),
    };
    let (answer, is_judged) = match judged {
        Ok(Ok(Ok(answer))) => (answer, true),
        Ok(Ok(Err(Unanswered::Full(full)))) => {
            gate.metrics.rejected(match full {
                NoRoom::Namespace => Rejection::Namespace,
                NoRoom::Memory => Rejection::Memory,
            });
            (not_judged(gate, &rules, &body, Unjudged::Crowded), false)
        }
        Ok(Err(_)) => (not_judged(gate, &rules, &body, Unjudged::Failed), false),
        Ok(Ok(Err(Unanswered::Late))) | Err(_) => (not_judged(gate, &rules, &body, Unjudged::Late), false),
    };
    report(&gate.metrics, &answer, is_judged, received.elapsed(), http);
    respond(answer.status, answer.body)
}

/// A whole body, within bounds of time and of what is under way; or the answer to what is not one.
async fn body_in_time(gate: &Gate, caller: Caller, body: Body, deadline: Instant) -> Result<Bytes, Reply> {
    let length = body.size_hint().upper().unwrap_or(u64::MAX).min(gate.limits.body as u64).max(SMALL);
    let mut receiving = pin!(receive(body, gate.limits.body));
    let received = match poll!(&mut receiving) {
        Poll::Ready(received) => Ok(received),
        Poll::Pending => {
            let pushed_out = Arc::new(Notify::new());
            let Ok(_place) = gate.receiving.take(caller, length, &pushed_out) else { return Err(overload()) };
            let until = deadline.min(Instant::now() + time_to_receive(gate.limits.receive, length));
            tokio::select! {
                biased;
                received = timeout_at(until, receiving) => received,
                () = pushed_out.notified() => return Err(overload()),
            }
        }
    };
    match received {
        Ok(Received::Whole(body)) => Ok(body),
        Ok(Received::TooLarge(prefix)) => Err(too_large(&gate.metrics, &prefix)),
        Ok(Received::Broken(error)) => {
            gate.metrics.rejected(Rejection::Body);
            tracing::debug!(%error, "a request broke off");
            Err(complaint(StatusCode::BAD_REQUEST, "the body broke off"))
        }
        Err(_) => {
            gate.metrics.rejected(Rejection::Body);
            Err(complaint(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))
        }
    }
}

/// How long a body of so many bytes may take.
fn time_to_receive(limit: Duration, length: u64) -> Duration {
    const MIB: u64 = 1024 * 1024;
    limit * u32::try_from(1 + length / MIB).unwrap_or(u32::MAX)
}

/// Asks a review to stop once its answer is of no use.
struct Ending(Stop);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.request();
    }
}

/// The answer to a review that came to no verdict; the configuration decides.
fn not_judged(gate: &Gate, rules: &RuleSet, body: &[u8], why: Unjudged) -> Answer {
    let cluster = Arc::clone(&gate.judge.cluster.borrow());
    admission::unjudged(rules, &cluster, body, why).unwrap_or_else(|| Answer {
        status: StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
        body: serde_json::json!({ "error": "the review was not judged, and has no uid" }).to_string().into_bytes(),
        record: Record { verdict: Some(Action::Deny), ..Record::default() },
    })
}

fn too_large(metrics: &Metrics, prefix: &[u8]) -> Reply {
    metrics.rejected(Rejection::TooLarge);
    match admission::too_large(prefix) {
        Some(answer) => {
            tracing::warn!(uid = answer.record.uid, "review denied: its body is too large");
            respond(answer.status, answer.body)
        }
        None => complaint(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
    }
}

/// More than there is room for: to say so at once leaves the API server its time, where a queue would
/// use it up. What there was no room for, the places have counted.
fn overload() -> Reply {
    let mut response = complaint(StatusCode::TOO_MANY_REQUESTS, "too many reviews at once");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn complaint(status: StatusCode, error: &str) -> Reply {
    respond(status.as_u16(), serde_json::json!({ "error": error }).to_string().into_bytes())
}

fn respond(status: u16, body: Vec<u8>) -> Reply {
    let mut response = Reply::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Counts a review and writes it down: with findings at INFO, for they are what the gate is run
/// for; without at DEBUG. By `http` one sees whether it came by a Service or by a URL: API servers
/// speak HTTP/1.1 to the one and HTTP/2 to the other.
fn report(metrics: &Metrics, answer: &Answer, is_judged: bool, took: Duration, http: Version) {
    let Answer { status, body: _, record } = answer;
    let Record { uid, kind, namespace, name, operation, allowed, dry_run, judged, verdict, findings, to_confirm: _ } =
        record;
    let counted = match verdict {
        _ if !is_judged => Verdict::Unjudged,
        _ if *status != 200 => Verdict::Unreadable,
        _ if *dry_run => Verdict::DryRun,
        _ if !allowed => Verdict::Denied,
        Some(Action::Warn) => Verdict::Warned,
        Some(Action::Deny | Action::Audit | Action::Off) | None => Verdict::Allowed,
    };
    metrics.review(kind, operation, counted, took);
    if !dry_run {
        for (rule, action) in findings {
            metrics.finding(rule, action.as_str());
        }
    }
    let has_findings = !findings.is_empty() || !allowed;
    if !(has_findings && tracing::enabled!(tracing::Level::INFO) || tracing::enabled!(tracing::Level::DEBUG)) {
        return;
    }
    let span = tracing::info_span!(
        "review",
        uid,
        kind,
        namespace,
        // As JSON a span has a name of its own, and of two members alike a reader keeps one.
        object = name,
        operation,
        allowed,
        dry_run,
        judged,
        ?http,
        duration_seconds = took.as_secs_f64(),
    );
    span.in_scope(|| {
        let rules = || findings.iter().map(|(rule, action)| format!("{rule}={action}")).collect::<Vec<_>>().join(" ");
        match counted {
            Verdict::Unjudged => tracing::error!("review not judged"),
            Verdict::Unreadable => tracing::warn!(status, "review not readable"),
            Verdict::Denied => tracing::info!(findings = rules(), "review denied"),
            Verdict::Allowed | Verdict::Warned | Verdict::DryRun if has_findings => {
                tracing::info!(findings = rules(), "review with findings");
            }
            Verdict::Allowed | Verdict::Warned | Verdict::DryRun => tracing::debug!("review allowed"),
        }
    });
}

/// How long there is to answer: four fifths of what the API server says it waits (`?timeout=10s`),
/// so that an answer that is late for judging is still in time for the API server.
fn time_to_answer(uri: &Uri) -> Duration {
    let given = uri.query().and_then(|query| parameter(query, "timeout")).and_then(go_duration);
    given.filter(|given| !given.is_zero()).unwrap_or(DEFAULT_TIMEOUT).min(Duration::from_secs(30)).mul_f64(0.8)
}

/// The value of a parameter of a query; empty for one that is only named.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// A duration as Go writes it (`time.Duration.String`): `5s`, `1m30s`, `1.5s`, `250ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let (number, unit) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let unit_end = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        let (unit, after) = unit.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        sum = sum.checked_add(part)?;
        rest = after;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fifths_of_the_time_given_are_used() {
        let time = |uri: &str| time_to_answer(&uri.parse().unwrap());
        assert_eq!(time("/validate?timeout=5s"), Duration::from_secs(4));
        assert_eq!(time("/validate?a=b&timeout=500ms"), Duration::from_millis(400));
        assert_eq!(time("/validate"), Duration::from_secs(8));
        assert_eq!(time("/validate?timeout=soon"), Duration::from_secs(8));
        assert_eq!(time("/validate?timeout=0s"), Duration::from_secs(8));
        assert_eq!(time("/validate?timeout=99h"), Duration::from_secs(24));
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, milliseconds) in
            [("5s", 5_000), ("1m30s", 90_000), ("1.5s", 1_500), ("250ms", 250), ("1h0m0s", 3_600_000)]
        {
            assert_eq!(go_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["5", "s", "-5s", "5 s", "5parsecs", "1..5s", "99999999999999999999h"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}
