//! A control plane of one's own: etcd, an API server and, if asked for, a controller manager, on
//! this machine and for as long as the test runs; and the gate beside them, as a process.
//!
//! ```text
//! programs ----> process ----> plane ----> kubectl, a client
//! (built once)   (ends with    (starts, stops, kills, starts again)
//!                 this one)              ^
//!                  ^                     | registers
//!                  +------------------ gate (portcullis serve)
//! ```
//!
//! What goes wrong here panics and says what, with the end of the log of the program concerned.
//! Benches and examples include it too, by `#[path]`.

mod gate;
mod pki;
mod plane;
mod process;
mod programs;
mod relay;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "for benches and examples")]
pub(crate) use gate::BINARY;
pub(crate) use gate::{Certificate, Gate, Knows, Registration, Setup, Through, get, own_address};
pub(crate) use pki::Authority;
#[allow(unused_imports, reason = "for benches and examples")]
pub(crate) use plane::DNS;
#[allow(unused_imports, reason = "for benches and examples")]
pub(crate) use plane::WEBHOOK_CLIENT;
pub(crate) use plane::{ControlPlane, Kubectl, Part};
pub(crate) use process::{Folder, Process};
pub(crate) use relay::Relay;

/// Far longer than anything takes, so that what hangs fails.
pub(crate) const LONG: Duration = Duration::from_mins(1);

/// Waits until `attempt` gives something, and fails with `what` when it takes too long.
pub(crate) async fn eventually<T>(what: impl std::fmt::Display, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(done) = attempt().await {
            return done;
        }
        assert!(begun.elapsed() < LONG, "it took too long: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port nothing listens on at this address.
pub(crate) fn free_port(address: impl Into<IpAddr>) -> u16 {
    let address = SocketAddr::new(address.into(), 0);
    TcpListener::bind(address)
        .unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"))
        .local_addr()
        .unwrap()
        .port()
}
