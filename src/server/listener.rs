//! Connections: taken, bounded in number and in time, and closed in good order.
//!
//! Each connection is a task of its own from the moment it is accepted, handshake included, so a
//! client that is slow holds up nobody else.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use super::Limits;
use super::shutdown::{PATIENCE, Phase};
use super::tls::H2;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Present, Rejection};

/// The largest head of a request, and how much of a body is read at once at most.
const BUFFER: usize = 64 * 1024;
/// How much of the bodies on one HTTP/2 connection may wait to be read.
const WINDOW: u32 = 1024 * 1024;
/// How often an HTTP/2 peer is asked whether it is still there, and how long it may take to say.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// One listening socket and what is served on it.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    /// Nothing for plain HTTP.
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) router: Router,
    pub(super) limits: Limits,
    /// Nothing where connections are not worth counting.
    pub(super) metrics: Option<Metrics>,
}

impl Listener {
    /// Serves until the phase says otherwise and the last connection is gone.
    pub(super) async fn run(self, mut phases: watch::Receiver<Phase>) {
        let Self { socket, tls, router, limits, metrics } = self;
        let permits = Arc::new(Semaphore::new(limits.connections));
        let server =
            Arc::new(Connections { tls, router, limits, metrics, started: Instant::now(), phases: phases.clone() });
        let mut trouble = Trouble::default();
        let take = |stream: TcpStream| {
            // A connection too many is closed at once and not left in the backlog: its client
            // would wait there until its own timeout, and the API server with it.
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                server.rejected(Rejection::Connections);
                return;
            };
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                server.handle(stream).await;
                drop(permit);
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
                    Ok((stream, _)) => {
                        trouble = Trouble::default();
                        take(stream);
                    }
                    Err(error) => trouble.wait(&error).await,
                },
            }
        }
        // What the kernel accepted before the socket closes would be reset unanswered.
        while let Some(stream) = std::future::poll_fn(|cx| match socket.poll_accept(cx) {
            Poll::Ready(Ok((stream, _))) => Poll::Ready(Some(stream)),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Ready(None),
        })
        .await
        {
            take(stream);
        }
        drop(socket);
        let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
        permits.acquire_many(all).await.expect("the permits are never closed").forget();
    }
}

/// Trouble with accepting connections.
#[derive(Default)]
struct Trouble {
    /// How long it was waited for the last time.
    waited: Duration,
}

impl Trouble {
    /// Goes on at once where the connection itself was at fault, and waits longer and longer where
    /// the process is: out of descriptors, accepting would fail over and over without pause.
    async fn wait(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        if self.waited.is_zero() {
            tracing::error!(%error, "cannot accept connections");
        }
        self.waited = (self.waited * 2).clamp(Duration::from_millis(5), Duration::from_secs(1));
        sleep(self.waited).await;
    }
}

/// What the connections of one listener share.
struct Connections {
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    metrics: Option<Metrics>,
    started: Instant,
    phases: watch::Receiver<Phase>,
}

impl Connections {
    fn rejected(&self, reason: Rejection) {
        if let Some(metrics) = &self.metrics {
            metrics.rejected(reason);
        }
    }

    async fn handle(&self, stream: TcpStream) {
        let _present: Option<Present> = self.metrics.as_ref().map(Metrics::connected);
        // An answer is one small write: it must not wait for the acknowledgement of the last.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Some(tls) = &self.tls else {
            self.http1(stream).await;
            return;
        };
        match timeout(self.limits.handshake, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                if stream.get_ref().1.alpn_protocol() == Some(H2) {
                    self.http2(stream).await;
                } else {
                    self.http1(stream).await;
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

    async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) {
        let pulse = Arc::new(Pulse::new(self.started));
        let service = service_fn(|request: Request<Incoming>| {
            pulse.begin();
            let answer = self.router.clone().call(request);
            let pulse = Arc::clone(&pulse);
            let phases = &self.phases;
            async move {
                let mut answer = answer.await;
                if let Ok(answer) = &mut answer
                    && *phases.borrow() >= Phase::Closing
                {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                pulse.end();
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

    async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) {
        let pulse = Arc::new(Pulse::new(self.started));
        let service = service_fn(|request: Request<Incoming>| {
            pulse.begin();
            let answer = self.router.clone().call(request);
            let pulse = Arc::clone(&pulse);
            async move {
                let answer = answer.await;
                pulse.end();
                answer
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(u32::try_from(self.limits.reviews).unwrap_or(u32::MAX))
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
        loop {
            tokio::select! {
                biased;
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection failed");
                    }
                    return;
                }
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
                _ = checks.tick() => {
                    if pulse.is_stuck(&self.limits) {
                        self.rejected(Rejection::Idle);
                        return;
                    }
                    if pulse.is_idle(&self.limits) {
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }
}

/// What an HTTP/1.1 connection is doing: idle, receiving a head, or serving.
///
/// Times are coarse on purpose: they are written on each request and looked at every few seconds.
struct Pulse {
    /// What the times below count from.
    epoch: Instant,
    /// Requests being served.
    serving: AtomicU32,
    /// Whether something of the next head has come.
    is_in_head: AtomicBool,
    /// When it last went from one to another, in milliseconds.
    since: AtomicU64,
}

impl Pulse {
    fn new(epoch: Instant) -> Self {
        let pulse =
            Self { epoch, serving: AtomicU32::new(0), is_in_head: AtomicBool::new(false), since: AtomicU64::new(0) };
        pulse.mark();
        pulse
    }

    /// A head is complete.
    fn begin(&self) {
        self.serving.fetch_add(1, Ordering::Relaxed);
        self.is_in_head.store(false, Ordering::Relaxed);
    }

    /// Its answer is given.
    fn end(&self) {
        self.serving.fetch_sub(1, Ordering::Relaxed);
        self.mark();
    }

    /// Bytes came.
    fn received(&self) {
        if self.serving.load(Ordering::Relaxed) == 0 && !self.is_in_head.swap(true, Ordering::Relaxed) {
            self.mark();
        }
    }

    fn mark(&self) {
        self.since.store(self.milliseconds(), Ordering::Relaxed);
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether a head has been on its way for too long.
    fn is_stuck(&self, limits: &Limits) -> bool {
        self.is_in_head.load(Ordering::Relaxed) && self.waits_longer_than(limits.head)
    }

    /// Whether nothing has come for so long that the connection is not worth its memory.
    fn is_idle(&self, limits: &Limits) -> bool {
        !self.is_in_head.load(Ordering::Relaxed) && self.waits_longer_than(limits.idle)
    }

    fn waits_longer_than(&self, limit: Duration) -> bool {
        let waited = self.milliseconds().saturating_sub(self.since.load(Ordering::Relaxed));
        self.serving.load(Ordering::Relaxed) == 0 && Duration::from_millis(waited) >= limit
    }
}

/// A stream that tells its connection's pulse when bytes come.
struct Watched<S> {
    stream: S,
    pulse: Arc<Pulse>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.pulse.received();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
