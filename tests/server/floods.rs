//! HTTP/2 as an attacker writes it: frames no client of ours would send.

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// `ENHANCE_YOUR_CALM` (RFC 9113, section 7).
const CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `POST https://localhost/validate`, in indices of HPACK's static table where there are any.
fn head() -> Vec<u8> {
    let literal = |index: u8, text: &str| [&[index, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0x83, 0x87], literal(0x04, "/validate"), literal(0x01, "localhost")].concat()
}

/// A connection's start, and so many requests on it whose bodies go no further than their first byte.
pub(super) fn begin_streams(count: usize) -> Vec<u8> {
    let streams = (0..u32::try_from(count).unwrap()).map(|number| 2 * number + 1);
    let begun = streams.flat_map(|stream| [frame(HEADERS, END_HEADERS, stream, &head()), frame(DATA, 0, stream, b"{")]);
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].into_iter().chain(begun).flatten().collect()
}

async fn open(server: &Running) -> TlsStream<TcpStream> {
    let mut stream = server.tls_from([127, 0, 0, 2], "h2").await;
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    stream
}

/// Sends until the server ends the connection; the code of its GOAWAY.
async fn calmed(stream: TlsStream<TcpStream>, mut next: impl FnMut(u32) -> Vec<u8> + Send + 'static) -> Option<u32> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sending = tokio::spawn(async move {
        for number in 0..u32::MAX / 2 {
            if writer.write_all(&next(number)).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    });
    let mut received = Vec::new();
    // What follows a GOAWAY may be a reset.
    let _ = timeout(LONG, reader.read_to_end(&mut received)).await.expect("the server ends the connection");
    sending.abort();
    let mut rest = received.as_slice();
    while let Some((header, after)) = rest.split_at_checked(9) {
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let payload = after.get(..length)?;
        if header[3] == GOAWAY {
            return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        rest = &after[length..];
    }
    None
}

/// Others are served as if nothing were.
async fn serves(server: &Running) {
    assert_eq!(server.h2().await.review("u").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_opened_and_reset_at_once_end_their_connection() {
    let server = start(|_| {}).await;
    let attack = |number: u32| {
        let stream = 2 * number + 1;
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS, stream, &head()), reset].concat()
    };
    // In bursts, so that more than one is reset before it is looked at.
    let burst = move |number: u32| (0..64).flat_map(|at| attack(number * 64 + at)).collect();
    assert_eq!(calmed(open(&server).await, burst).await, Some(CALM));
    serves(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_without_an_end_ends_its_connection() {
    let server = start(|_| {}).await;
    let attack = |number: u32| match number {
        0 => frame(HEADERS, 0, 1, &head()),
        _ => frame(CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b']),
    };
    assert_eq!(calmed(open(&server).await, attack).await, Some(CALM));
    serves(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_without_bytes_does_not_pile_up() {
    let server = limited(|limits| limits.receive = Duration::from_millis(300)).await;
    let attack = |number: u32| match number {
        0 => frame(HEADERS, END_HEADERS, 1, &head()),
        _ => frame(DATA, 0, 1, &[]).repeat(100),
    };
    assert_eq!(calmed(open(&server).await, attack).await, Some(CALM));
    serves(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_and_settings_nobody_reads_the_answers_of_do_not_pile_up() {
    let server = limited(|limits| {
        limits.head = Duration::from_millis(50);
        limits.first = Duration::from_millis(200);
    })
    .await;
    for kind in [PING, SETTINGS] {
        let mut stream = open(&server).await;
        let payload: &[u8] = if kind == PING { &[7; 8] } else { &[] };
        let flood = frame(kind, 0, 0, payload).repeat(1000);
        // Its answers go unread, so that at some point nothing more is taken, and it is cut in the end.
        let sent = async {
            let mut sent = 0;
            while stream.write_all(&flood).await.is_ok() {
                sent += flood.len();
            }
            sent
        };
        let sent = timeout(LONG, sent).await.expect("it is cut");
        assert!(sent > 0);
    }
    server.until_metric("portcullis_connections 0").await;
    serves(&server).await;
}

/// Reviews on these streams, each whole.
fn reviews(streams: std::ops::Range<u32>) -> Vec<u8> {
    let body = review("u");
    let streams = streams.map(|number| 2 * number + 1);
    let whole = |stream| [frame(HEADERS, END_HEADERS, stream, &head()), frame(DATA, 1, stream, body.as_bytes())];
    streams.flat_map(whole).flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_nobody_reads_close_their_connections_before_they_pile_up() {
    let server = start(|_| {}).await;
    let mut api_server = server.https().await;
    api_server.review("before").await.unwrap();
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = server.tls_from([127, 0, 0, 2], "h2").await;
        // SETTINGS_INITIAL_WINDOW_SIZE: none of an answer's body may be sent.
        let start = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
        stream.write_all(&[start, reviews(0..60)].concat()).await.unwrap();
        deaf.push(stream);
    }
    // Of 1,200 answers one address may leave 1,024 unread.
    ends(&mut deaf[0]).await;
    assert_eq!(api_server.review("after").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_only_stream_was_reset_is_idle() {
    let server = limited(|limits| {
        limits.head = Duration::from_millis(20);
        limits.idle = Duration::from_millis(50);
    })
    .await;
    let mut stream = open(&server).await;
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &head())).await.unwrap();
    server.until_metric("portcullis_inflight 1").await;
    stream.write_all(&frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())).await.unwrap();
    ends(&mut stream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_has_a_quarter_of_the_places_in_streams() {
    let (mut held, reviewer) = Held::new();
    let server = start(|options| {
        options.limits.reviews = 16;
        options.reviewer = reviewer;
    })
    .await;
    let client = server.h2().await;
    // The server's settings are known after the first answer.
    let first = tokio::spawn(client.review("first"));
    held.begun().await;
    let waiting: Vec<_> =
        (0..8).map(|number| tokio::spawn(client.send(review_in(&format!("n{number}"), "u")))).collect();
    for _ in 0..3 {
        held.begun().await;
    }
    let mut another = server.https().await;
    let another = tokio::spawn(async move { another.review_in("another", "u").await });
    held.begun().await;
    assert!(server.metrics().contains("portcullis_inflight 5"), "{}", server.metrics());
    held.release();
    for answer in waiting {
        assert_eq!(answer.await.unwrap().unwrap().status, StatusCode::OK);
    }
    assert_eq!(first.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(another.await.unwrap().unwrap().status, StatusCode::OK);
}
