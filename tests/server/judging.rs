//! What becomes of a review once its body is there.

use portcullis::rules::STACK;

use super::*;

/// A reviewer that says when it begins and goes on until it is asked to stop.
fn endless() -> (mpsc::UnboundedReceiver<()>, Reviewer) {
    let (entered, begun) = mpsc::unbounded_channel();
    let reviewer = move |rules: &RuleSet, sight: Sight<'_>, body: &[u8], now: jiff::Timestamp| {
        entered.send(()).unwrap();
        let stop = sight.stop.expect("a server can stop its reviews");
        while !stop.is_requested() {
            std::thread::sleep(Duration::from_millis(1));
        }
        allow(rules, sight, body, now)
    };
    (begun, Arc::new(reviewer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_review_past_its_deadline_is_asked_to_stop_and_gives_its_place_back() {
    let (mut begun, reviewer) = endless();
    let server = start(|options| {
        options.reviewer = reviewer;
        options.limits.reviews = 1;
    })
    .await;
    for uid in ["first", "second"] {
        let late = server.https().await.send(Request::post("/validate?timeout=250ms"), review(uid)).await.unwrap();
        assert_eq!(late.json()["response"]["uid"], uid);
        begun.recv().await.unwrap();
        server.until_metric("portcullis_inflight 0").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_review_whose_client_has_gone_is_asked_to_stop() {
    let (mut begun, reviewer) = endless();
    let server = start(|options| options.reviewer = reviewer).await;
    let mut client = server.https().await;
    let asking = tokio::spawn(async move { client.review("given up").await });
    timeout(LONG, begun.recv()).await.unwrap().unwrap();
    asking.abort();
    server.until_metric("portcullis_inflight 0").await;
}

/// Uses this much of the stack.
fn descend(bytes: usize) -> usize {
    const FRAME: usize = 16 * 1024;
    let frame = std::hint::black_box([1_u8; FRAME]);
    let below = if bytes > FRAME { descend(bytes - FRAME) } else { 0 };
    below + usize::from(frame[bytes % FRAME])
}

#[test]
fn a_review_has_the_stack_that_judging_is_built_for() {
    let runtime = portcullis::server::runtime().unwrap();
    runtime.block_on(async {
        let server = start(|options| {
            options.reviewer = Arc::new(|rules, sight, body, now| {
                assert!(descend(STACK / 2) > 0);
                allow(rules, sight, body, now)
            });
        })
        .await;
        let mut client = server.https().await;
        // On a worker, and, for its size, on a thread of its own.
        let large = review("large").replace('{', &format!("{}{{", " ".repeat(40 * 1024)));
        for body in [review("small"), large] {
            let answer = client.send(Request::post("/validate?timeout=10s"), body).await.unwrap();
            assert_eq!(answer.json()["response"]["allowed"], true);
        }
    });
}
