//! How the server stops: unready at once, serving for a moment more, then out of the way.
//!
//! ```text
//! signal -> unready, serving as before        `linger`: until the endpoint is known to be gone
//!        -> no new connections; each answer closes its HTTP/1.1 connection, HTTP/2 gets GOAWAY
//!        -> idle connections are closed       `PATIENCE` later
//!        -> whatever is still open is cut     `drain` after the listener closed
//! ```
//!
//! Connections of API servers are kept alive for long, and to close an idle one is a race against
//! the next request on it. So an HTTP/1.1 connection is closed by an answer where that is
//! possible, and only one on which nothing comes for a while is closed as it is.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// How long each part of the way down may take.
#[derive(Clone, Copy, Debug)]
pub struct Shutdown {
    /// How long requests are served as before, after readiness is withdrawn. The other parts of
    /// the cluster learn of a pod that goes within a few seconds.
    pub linger: Duration,
    /// How long requests that have begun may take after that.
    pub drain: Duration,
}

impl Default for Shutdown {
    /// Together below Kubernetes' default grace of 30 seconds.
    fn default() -> Self {
        Self { linger: Duration::from_secs(5), drain: Duration::from_secs(20) }
    }
}

/// How long an idle HTTP/1.1 connection is left for one more request before it is closed. On a machine
/// under load a connection in full use may see nothing for a second.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// How far down the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Connections come and stay.
    Serving,
    /// No connection comes, and those there are go.
    Closing,
    /// Those that are left are cut.
    Cut,
}

/// Completes when the process is asked to end: SIGTERM from the kubelet, SIGINT from a terminal.
///
/// The signals are caught from the call on, not from the first poll on.
pub fn requested() -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "asked to stop");
    })
}
