//! The body of a review: read whole, within bounds of size, time and memory.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

/// How much of a body that is too large is kept, to find its uid in.
const PREFIX: usize = 4 * 1024;

/// How many times the limit is read and thrown away before the client is cut off. A client that
/// is still sending does not look for an answer, and sees a reset instead of it.
const PATIENCE: u64 = 4;

/// What came.
#[derive(Debug)]
pub(super) enum Received {
    /// The whole body.
    Whole(Bytes),
    /// More than the limit: only the start is kept.
    TooLarge(Bytes),
    /// The connection broke.
    Broken(axum::Error),
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn receive(mut body: Body, limit: usize) -> Received {
    let announced = body.size_hint().lower();
    let mut kept = match next(&mut body).await {
        // Most reviews come in one piece, which is used where it lies.
        Ok(Some(first)) if body.is_end_stream() && first.len() <= limit => return Received::Whole(first),
        Ok(Some(first)) => {
            let room = usize::try_from(announced).unwrap_or(usize::MAX).min(limit).max(first.len());
            let mut kept = BytesMut::with_capacity(room);
            kept.extend_from_slice(&first);
            kept
        }
        Ok(None) => return Received::Whole(Bytes::new()),
        Err(error) => return Received::Broken(error),
    };
    while announced <= limit as u64 && kept.len() <= limit {
        match next(&mut body).await {
            Ok(Some(more)) => kept.extend_from_slice(&more),
            Ok(None) => return Received::Whole(kept.freeze()),
            Err(error) => return Received::Broken(error),
        }
    }
    let mut passed = kept.len() as u64;
    kept.truncate(PREFIX);
    let prefix = Bytes::copy_from_slice(&kept);
    drop(kept);
    while passed <= limit as u64 * PATIENCE
        && let Ok(Some(more)) = next(&mut body).await
    {
        passed += more.len() as u64;
    }
    Received::TooLarge(prefix)
}

/// The next piece of data; trailers are passed over.
async fn next(body: &mut Body) -> Result<Option<Bytes>, axum::Error> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;

    use super::*;

    /// A body that comes in pieces, without a length.
    struct Pieces<I>(I);

    impl<I: Iterator<Item = &'static str> + Unpin> hyper::body::Body for Pieces<I> {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece.into()))))
        }
    }

    async fn received(pieces: &'static [&'static str], limit: usize) -> Received {
        receive(Body::new(Pieces(pieces.iter().copied())), limit).await
    }

    fn whole(received: Received) -> Bytes {
        match received {
            Received::Whole(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn pieces_make_a_whole() {
        assert_eq!(whole(received(&[], 8).await), "");
        assert_eq!(whole(received(&["abcd"], 8).await), "abcd");
        assert_eq!(whole(received(&["abcd", "", "efgh"], 8).await), "abcdefgh");
    }

    #[tokio::test]
    async fn one_byte_more_than_the_limit_is_too_large() {
        for pieces in [&["abcdefghi"][..], &["abcd", "efghi"], &["abcd", "efgh", "i", "rest"]] {
            match received(pieces, 8).await {
                Received::TooLarge(prefix) => assert!(prefix.starts_with(b"abcdefgh"), "{prefix:?}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn what_announces_itself_too_large_is_not_gathered() {
        let body = Body::from(vec![b'a'; 64 * 1024]);
        match receive(body, 16 * 1024).await {
            Received::TooLarge(prefix) => assert_eq!(prefix.len(), PREFIX),
            other => panic!("{other:?}"),
        }
    }
}
