//! What time it is where certificates are verified.
//!
//! A certificate is valid by the clock of the API server that looks at it. A gate whose own clock is
//! ahead would find everything expired, and issue for all gates what no API server takes yet.

use axum::http::Request;
use axum::http::header::DATE;
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use kube::{Client, Error};

/// By how much clocks may differ before it is worth a word.
const TOLERATED: SignedDuration = SignedDuration::from_mins(5);

/// The API server's time as it answers, and what is wrong with the clock here, if much is. An API
/// server that does not say is taken to have the time of this process.
pub(super) async fn now(client: &Client) -> Result<(Timestamp, Option<String>), Error> {
    let request = Request::get("/version").body(Body::empty()).map_err(Error::HttpError)?;
    // Every answer is dated, refusals too.
    let answer = client.send(request).await?;
    let here = Timestamp::now();
    let date = answer.headers().get(DATE);
    let there = date.and_then(|date| DateTimeParser::new().parse_timestamp(date.as_bytes()).ok()).unwrap_or(here);
    let ahead = here.duration_since(there);
    let wrong = (ahead.abs() > TOLERATED).then(|| {
        let direction = if ahead.is_positive() { "ahead of" } else { "behind" };
        format!(
            "the clock here is {} minutes {direction} the API server's, by which certificates are issued",
            ahead.abs().as_mins()
        )
    });
    Ok((there, wrong))
}
