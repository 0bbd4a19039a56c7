//! What a connection is doing, and since when.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Limits;
use super::places::{Holder, Worth};

/// What a connection is doing: shaking hands, idle, receiving a head, serving.
///
/// Times are coarse on purpose: they are written on each request and looked at every few seconds.
pub(super) struct Pulse {
    /// What the times below count from.
    epoch: Instant,
    /// Requests whose head has come and whose answer is not given yet.
    serving: AtomicU32,
    /// Those of them whose body has come, too.
    judging: AtomicU32,
    /// Whether something of the next head has come.
    is_in_head: AtomicBool,
    /// Whether there ever was a request.
    has_asked: AtomicBool,
    /// When it last went from one to another, in milliseconds.
    since: AtomicU64,
    /// Its place was given to another connection.
    leave: Notify,
}

/// What a connection has been waited for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The start of its first request.
    First,
    /// The rest of a head.
    Head,
    /// Its next request.
    Next,
}

/// Counts a request as served, until it is dropped: by its answer, or with a stream that is reset.
pub(super) struct Serving(Arc<Pulse>);

/// Counts a request as judged, until it is dropped.
pub(super) struct Judging(Arc<Pulse>);

impl Pulse {
    pub(super) fn new(epoch: Instant) -> Self {
        let pulse = Self {
            epoch,
            serving: AtomicU32::new(0),
            judging: AtomicU32::new(0),
            is_in_head: AtomicBool::new(false),
            has_asked: AtomicBool::new(false),
            since: AtomicU64::new(0),
            leave: Notify::new(),
        };
        pulse.mark();
        pulse
    }

    /// The handshake is done.
    pub(super) fn open(&self) {
        self.mark();
    }

    /// A head is complete.
    pub(super) fn begin(self: &Arc<Self>) -> Serving {
        self.serving.fetch_add(1, Ordering::Relaxed);
        self.is_in_head.store(false, Ordering::Relaxed);
        self.has_asked.store(true, Ordering::Relaxed);
        self.mark();
        Serving(Arc::clone(self))
    }

    /// A body is there.
    pub(super) fn judge(self: &Arc<Self>) -> Judging {
        self.judging.fetch_add(1, Ordering::Relaxed);
        Judging(Arc::clone(self))
    }

    /// An answer is on its way.
    pub(super) fn unread(self: &Arc<Self>) -> Unread {
        Unread(Arc::clone(self))
    }

    /// Completes when the connection has lost its place.
    pub(super) async fn lost_place(&self) {
        self.leave.notified().await;
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

    /// What has taken too long, if anything has.
    pub(super) fn overdue(&self, limits: &Limits) -> Option<Overdue> {
        let (limit, overdue) = if self.is_in_head.load(Ordering::Relaxed) {
            (limits.head, Overdue::Head)
        } else if self.has_asked.load(Ordering::Relaxed) {
            (limits.idle, Overdue::Next)
        } else {
            (limits.first, Overdue::First)
        };
        self.waits_longer_than(limit).then_some(overdue)
    }

    fn waits_longer_than(&self, limit: Duration) -> bool {
        let waited = self.milliseconds().saturating_sub(self.since.load(Ordering::Relaxed));
        self.serving.load(Ordering::Relaxed) == 0 && Duration::from_millis(waited) >= limit
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.fetch_sub(1, Ordering::Relaxed);
        self.0.mark();
    }
}

impl Drop for Judging {
    fn drop(&mut self) {
        self.0.judging.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Holder for Pulse {
    /// What has asked for nothing goes first, then what is idle, then what is receiving a body. A
    /// request that is judged is never cut off: its client has done all it can.
    fn worth(&self) -> Option<Worth> {
        let since = self.since.load(Ordering::Relaxed);
        if self.judging.load(Ordering::Relaxed) > 0 {
            None
        } else if self.serving.load(Ordering::Relaxed) > 0 {
            Some((2, since))
        } else {
            Some((u8::from(self.has_asked.load(Ordering::Relaxed)), since))
        }
    }

    fn leave(&self) {
        self.leave.notify_one();
    }
}

/// An answer that its client has not read: where there is no room for more of them, the connection
/// with the oldest is closed.
pub(super) struct Unread(Arc<Pulse>);

impl Holder for Unread {
    fn worth(&self) -> Option<Worth> {
        Some((0, 0))
    }

    fn leave(&self) {
        self.0.leave();
    }
}

/// A stream that tells its connection's pulse when bytes come.
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) pulse: Arc<Pulse>,
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
