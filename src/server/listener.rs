//! Connections: taken, bounded in number and in time, and closed in good order.
//!
//! Each connection is a task of its own from the moment it is accepted, handshake included, so a
//! client that is slow holds up no other. How many there may be is for `places` to say.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service as _;

use super::Limits;
use super::places::{Caller, Known, Peer, Place, Places, Rules, Share, Turn};
use super::pulse::{Overdue, Pulse, Watched};
use super::shutdown::{PATIENCE, Phase};
use super::tls::H2;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Present, Rejection};

/// The largest head of a request, and how much of a body is read at once at most.
const BUFFER: usize = 64 * 1024;
/// How much of the bodies on one HTTP/2 connection may wait to be read.
const WINDOW: u32 = 1024 * 1024;
/// The largest head of a request over HTTP/2.
const HEADERS: u32 = 16 * 1024;
/// How many streams of one HTTP/2 connection may have been reset by the client before they were
/// looked at, and how many by the server for the client's errors.
const RESETS: (usize, usize) = (20, 256);
/// How often an HTTP/2 peer is asked whether it is still there, and how long it may take to say.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// One listening socket and what is served on it.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    /// Nothing for plain HTTP.
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) router: Router,
    pub(super) limits: Limits,
    /// Whose connections have places kept for them.
    pub(super) known: Known,
    pub(super) metrics: Metrics,
}

/// Who sent a request, and by which connection: an extension of each.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) caller: Caller,
    pub(super) pulse: Arc<Pulse>,
}

impl Listener {
    /// Serves until the phase says otherwise and the last connection is gone.
    pub(super) async fn run(self, mut phases: watch::Receiver<Phase>) {
        let Self { socket, tls, router, limits, known, metrics } = self;
        let places = Places::new(rules(&limits, &known, tls.is_some()), metrics.clone());
        let started = Instant::now();
        let server = Arc::new(Connections { tls, router, limits, metrics, phases: phases.clone() });
        let mut trouble = Trouble::default();
        // Each connection has a sender, so that the receiver ends with the last of them.
        let (open, mut ended) = mpsc::channel::<()>(1);
        let take = |(stream, from): (TcpStream, SocketAddr)| {
            let caller = Caller { peer: Peer::of(from.ip()), is_known: known.contains(from.ip()) };
            let pulse = Arc::new(Pulse::new(started));
            // Where there is no place, the connection is closed at once and not left in the backlog:
            // its client would wait there until its own timeout, and the API server with it.
            let Ok(place) = places.take(caller, 1, &pulse) else { return };
            let (server, open) = (Arc::clone(&server), open.clone());
            tokio::spawn(async move {
                server.handle(stream, Client { caller, pulse }, place).await;
                drop(open);
            });
        };
        let mut closing = pin!(async {
            // The sender gone is as good as a word from it.
            let _ = phases.wait_for(|phase| *phase >= Phase::Closing).await;
        });
        loop {
            tokio::select! {
                biased;
                () = &mut closing => break,
                accepted = socket.accept() => match accepted {
                    Ok(accepted) => {
                        trouble = Trouble::default();
                        take(accepted);
                    }
                    Err(error) if is_of_the_connection(&error) => {}
                    Err(error) => {
                        // Out of descriptors, most likely: a connection that does nothing has one.
                        server.rejected(Rejection::Accept);
                        places.make_room();
                        trouble.wait(&error).await;
                    }
                },
            }
        }
        // What the kernel accepted before the socket closes would be reset unanswered.
        while let Some(accepted) = std::future::poll_fn(|cx| match socket.poll_accept(cx) {
            Poll::Ready(Ok(accepted)) => Poll::Ready(Some(accepted)),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Ready(None),
        })
        .await
        {
            take(accepted);
        }
        drop((socket, open));
        let _ = ended.recv().await;
    }
}

/// How many connections there may be: for one peer a quarter of all, which is more than an API server
/// has requests under way.
fn rules(limits: &Limits, known: &Known, is_webhook: bool) -> Rules {
    let whole = limits.connections as u64;
    Rules {
        whole,
        share: Share::Of(whole.div_ceil(4)),
        kept: if known.is_empty() { 0 } else { whole / 4 },
        full: if is_webhook {
            (Rejection::Connections, Rejection::PeerConnections)
        } else {
            (Rejection::Operations, Rejection::Operations)
        },
    }
}

/// Whether accepting failed by the fault of the connection that was to be accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Trouble with accepting connections.
#[derive(Default)]
struct Trouble {
    /// How long it was waited for the last time.
    waited: Duration,
}

impl Trouble {
    /// Waits longer and longer: where the process is at fault, accepting would fail over and over
    /// without pause.
    async fn wait(&mut self, error: &io::Error) {
        if self.waited.is_zero() {
            tracing::error!(%error, "cannot accept connections");
        }
        self.waited = (self.waited * 2).clamp(Duration::from_millis(5), Duration::from_secs(1));
        sleep(self.waited).await;
    }
}

/// What the connections of one listener share.
struct Connections {
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    limits: Limits,
    metrics: Metrics,
    phases: watch::Receiver<Phase>,
}

impl Connections {
    fn rejected(&self, reason: Rejection) {
        self.metrics.rejected(if self.tls.is_some() { reason } else { Rejection::Operations });
    }

    async fn handle(&self, stream: TcpStream, mut client: Client, place: Place<Pulse>) {
        let _present: Option<Present> = self.tls.is_some().then(|| self.metrics.connected());
        // An answer is one small write: it must not wait for the acknowledgement of the last.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Some(tls) = &self.tls else {
            self.http1(stream, client).await;
            return;
        };
        let shaken = tokio::select! {
            biased;
            () = client.pulse.lost_place() => return,
            shaken = timeout(self.limits.handshake, handshake(tls, stream, &place.turn)) => shaken,
        };
        match shaken {
            Ok(Ok(stream)) => {
                client.pulse.open();
                let session = stream.get_ref().1;
                if session.peer_certificates().is_some() {
                    place.recognize();
                    client.caller.is_known = true;
                }
                if session.alpn_protocol() == Some(H2) {
                    self.http2(stream, client).await;
                } else {
                    self.http1(stream, client).await;
                }
            }
            // A probe that only connects ends here too, so this is no one's fault to act on.
            Ok(Err(error)) => {
                self.rejected(Rejection::Handshake);
                tracing::debug!(%error, "handshake failed");
            }
            Err(_) => {
                self.rejected(Rejection::Handshake);
                tracing::debug!("handshake took too long");
            }
        }
    }

    async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, client: Client) {
        let pulse = Arc::clone(&client.pulse);
        let service = service_fn(|mut request: Request<Incoming>| {
            let serving = pulse.begin();
            request.extensions_mut().insert(client.clone());
            let answer = self.router.clone().call(request);
            let phases = &self.phases;
            async move {
                let mut answer = answer.await;
                if let Ok(answer) = &mut answer
                    && *phases.borrow() >= Phase::Closing
                {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                drop(serving);
                answer
            }
        });
        // Hyper's own timeout for heads runs while a connection idles, too, and would cut those
        // that API servers keep for later; `Pulse` tells the two apart.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(Watched { stream, pulse: Arc::clone(&pulse) }), service);
        self.drive(connection, &pulse, PATIENCE).await;
    }

    async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, client: Client) {
        let pulse = Arc::clone(&client.pulse);
        // Clients open another connection when one has no stream left, so that one connection needs
        // no more than a part of the places.
        let streams = u32::try_from(self.limits.reviews / 4).unwrap_or(u32::MAX).max(1);
        let service = service_fn(|mut request: Request<Incoming>| {
            let serving = pulse.begin();
            request.extensions_mut().insert(client.clone());
            let answer = self.router.clone().call(request);
            async move {
                let answer = answer.await;
                drop(serving);
                answer
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams)
            // A head in many frames, streams that are reset as soon as they are opened, and errors that
            // make the server reset them: each ends the connection beyond this.
            .max_header_list_size(HEADERS)
            .max_pending_accept_reset_streams(RESETS.0)
            .max_local_error_reset_streams(RESETS.1)
            .initial_stream_window_size(WINDOW / 4)
            .initial_connection_window_size(WINDOW)
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            .serve_connection(TokioIo::new(stream), service);
        // GOAWAY names the last request that will be answered, so there is no race to be patient for.
        self.drive(connection, &pulse, Duration::ZERO).await;
    }

    /// Serves a connection until its end, or until it is time to end it.
    async fn drive<C: GracefulConnection>(&self, connection: C, pulse: &Pulse, patience: Duration)
    where
        C::Error: std::fmt::Display,
    {
        let mut phases = self.phases.clone();
        let mut connection = pin!(connection);
        let mut checks = interval(self.limits.head / 2);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut phase = Phase::Serving;
        let mut going = pin!(sleep_until(Instant::now()));
        let mut is_asked_to_go = false;
        // When it is cut though it was asked to go: a client that reads no answer never goes.
        let mut patient_until = None;
        loop {
            tokio::select! {
                biased;
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection failed");
                    }
                    return;
                }
                () = pulse.lost_place() => return,
                changed = phases.changed() => {
                    phase = if changed.is_ok() { *phases.borrow_and_update() } else { Phase::Cut };
                    match phase {
                        Phase::Serving => {}
                        Phase::Closing => going.as_mut().reset(Instant::now() + patience),
                        Phase::Cut => return,
                    }
                }
                () = &mut going, if phase == Phase::Closing && !is_asked_to_go => {
                    connection.as_mut().graceful_shutdown();
                    is_asked_to_go = true;
                }
                now = checks.tick() => match pulse.overdue(&self.limits) {
                    None => patient_until = None,
                    Some(Overdue::Head) => {
                        self.rejected(Rejection::Idle);
                        return;
                    }
                    Some(_) if patient_until.is_some_and(|until| now >= until) => return,
                    Some(_) if patient_until.is_some() => {}
                    Some(overdue) => {
                        if overdue == Overdue::First {
                            self.rejected(Rejection::Idle);
                        }
                        connection.as_mut().graceful_shutdown();
                        patient_until = Some(now + self.limits.head);
                    }
                },
            }
        }
    }
}

/// Shakes hands. What costs most, keys and signatures, each peer's connections do one after the
/// other, so that between any two of a crowd all others have their turn.
async fn handshake(tls: &Arc<ServerConfig>, stream: TcpStream, turn: &Turn) -> io::Result<TlsStream<TcpStream>> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let accept = {
        let _turn = turn.lock().await;
        hello.into_stream(Arc::clone(tls))
    };
    accept.await
}
