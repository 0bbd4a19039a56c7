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

/// Goes down the stack until this much of it is in use, however large a frame is.
fn descend(bytes: usize, top: usize) -> usize {
    let frame = std::hint::black_box([1_u8; 1024]);
    let here = std::ptr::from_ref(&frame).addr();
    let below = if top.abs_diff(here) < bytes { descend(bytes, top) } else { 0 };
    below + usize::from(frame[here % frame.len()])
}

#[test]
fn a_review_has_the_stack_that_judging_is_built_for() {
    let runtime = portcullis::server::runtime().unwrap();
    runtime.block_on(async {
        let server = start(|options| {
            options.reviewer = Arc::new(|rules, sight, body, now| {
                let top = 0_u8;
                assert!(descend(STACK / 4 * 3, std::ptr::from_ref(&top).addr()) > 0);
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

/// A reviewer that never answers for the namespace `slow` while it is held, and at once for others.
fn slow_in_one_namespace() -> (Held, Reviewer) {
    let (held, blocked) = Held::new();
    let reviewer = move |rules: &RuleSet, sight: Sight<'_>, body: &[u8], now: jiff::Timestamp| {
        let is_slow = body.windows(6).any(|word| word == b"\"slow\"");
        if is_slow { blocked(rules, sight, body, now) } else { allow(rules, sight, body, now) }
    };
    (held, Arc::new(reviewer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slow_reviews_of_one_namespace_leave_those_of_another_untouched() {
    let (mut held, reviewer) = slow_in_one_namespace();
    let server = start(|options| options.reviewer = reviewer).await;
    server.rules.send_replace(rules(Action::Deny));
    let slow = server.h2().await;
    let reviews: Vec<_> = (0..100)
        .map(|_| {
            let mut sender = slow.sender.clone();
            let request = Request::post("https://localhost/validate?timeout=25s");
            let request = request.body(Full::new(review_in("slow", "slow").into())).unwrap();
            tokio::spawn(async move {
                sender.ready().await.unwrap();
                Received::of(sender.send_request(request).await.unwrap()).await.unwrap()
            })
        })
        .collect();
    held.begun().await;
    held.begun().await;
    server.until_metric(r#"portcullis_rejected_total{reason="namespace"} 68"#).await;
    // None of the rest is judged yet, and none of them is in the way.
    assert!(held.begun.try_recv().is_err(), "two of a namespace are judged at once");
    let mut client = server.https().await;
    for _ in 0..50 {
        let begun = Instant::now();
        let answer = client.send(Request::post("/validate"), review_in("shop", "quick")).await.unwrap();
        assert_eq!(answer.json()["response"]["allowed"], true);
        assert!(begun.elapsed() < Duration::from_secs(2), "it was not judged at once");
    }
    held.release();
    let mut judged = 0;
    for review in reviews {
        let answer = review.await.unwrap().json()["response"].take();
        match answer["allowed"].as_bool() {
            Some(true) => judged += 1,
            _ => assert_eq!(
                (&answer["status"]["code"], &answer["status"]["reason"]),
                (&json!(429), &json!("TooManyRequests"))
            ),
        }
    }
    assert_eq!(judged, 32, "what was let in is judged in the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reviews_that_another_sends_in_its_name_leave_a_namespace_its_share() {
    let (mut held, reviewer) = slow_in_one_namespace();
    let server = start(|options| options.reviewer = reviewer).await;
    let mut forged = Vec::new();
    for _ in 0..2 {
        let mut client = Client::over(server.tls_from([127, 0, 0, 2], "http/1.1").await).await;
        forged.push(tokio::spawn(async move { client.review_in("shop", "slow").await }));
        held.begun().await;
    }
    let answer = server.https().await.review_in("shop", "quick").await.unwrap();
    assert_eq!(answer.json()["response"]["warnings"], Value::Null, "{answer:?}");
    held.release();
    for answer in forged {
        assert_eq!(answer.await.unwrap().unwrap().status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_room_is_refused_where_its_namespace_enforces_and_allowed_where_it_warns() {
    let (mut held, reviewer) = slow_in_one_namespace();
    let server = start(|options| {
        options.reviewer = reviewer;
        options.limits.memory = 64 * 1024;
    })
    .await;
    let mut first = server.https().await;
    let first = tokio::spawn(async move { first.send(Request::post("/validate"), review_in("slow", "first")).await });
    held.begun().await;
    // What is small shares what is kept for it: all of it is taken by one that is larger.
    let larger = |uid| review_in("shop", uid).replacen('{', &format!("{{{}", " ".repeat(16 * 1024)), 1);
    let mut client = server.https().await;
    for (action, allowed) in [(Action::Deny, false), (Action::Warn, true)] {
        server.rules.send_replace(rules(action));
        let answer = client.send(Request::post("/validate?timeout=200ms"), larger("refused")).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "the API server reads no other answer");
        assert_eq!(answer.json()["response"]["allowed"], allowed);
    }
    server.until_metric(r#"portcullis_rejected_total{reason="memory"} 2"#).await;
    held.release();
    assert_eq!(first.await.unwrap().unwrap().json()["response"]["allowed"], true);
    assert_eq!(
        client.send(Request::post("/validate"), larger("later")).await.unwrap().json()["response"]["allowed"],
        true
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_review_that_waits_for_its_turn_has_half_of_its_time_left_to_be_judged_in() {
    let (mut held, reviewer) = slow_in_one_namespace();
    let server = start(|options| options.reviewer = reviewer).await;
    let waiting: Vec<_> = futures::future::join_all((0..3).map(|_| server.https())).await;
    let mut answers = Vec::new();
    for mut client in waiting {
        answers.push(tokio::spawn(async move {
            let begun = Instant::now();
            let answer = client.send(Request::post("/validate?timeout=1s"), review_in("slow", "u")).await.unwrap();
            (begun.elapsed(), answer.json()["response"]["warnings"][0].as_str().unwrap_or_default().to_owned())
        }));
    }
    held.begun().await;
    let answers = futures::future::join_all(answers).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    let crowded: Vec<_> = answers.iter().filter(|(_, said)| said.contains("has no room")).collect();
    assert_eq!(crowded.len(), 1, "{answers:?}");
    assert!(crowded[0].0 < Duration::from_millis(700), "{answers:?}");
}

#[test]
fn a_policy_of_thousands_of_keys_ends_no_process() {
    let expressions: Vec<_> =
        (0..4096).map(|key| json!({ "key": format!("k{key}"), "operator": "NotIn", "values": ["v"] })).collect();
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let review = json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "u", "operation": "CREATE", "name": "keys", "namespace": "shop",
            "kind": { "group": "networking.k8s.io", "version": "v1", "kind": "NetworkPolicy" },
            "userInfo": { "username": "alice" },
            "object": {
                "metadata": { "name": "keys", "namespace": "shop", "managedFields": "NESTED" },
                "spec": { "podSelector": { "matchExpressions": expressions }, "ingress": [{}] },
            },
        },
    })
    .to_string()
    .replace("\"NESTED\"", &nested);
    let runtime = portcullis::server::runtime().unwrap();
    runtime.block_on(async {
        let server = start(|options| options.reviewer = Arc::new(portcullis::admission::review)).await;
        server.rules.send_replace(Arc::new(portcullis::config::Settings::default().rule_set()));
        let answer = server.https().await.send(Request::post("/validate?timeout=10s"), review).await.unwrap();
        assert_eq!(answer.json()["response"]["uid"], "u");
        let next = server.https().await.review("next").await.unwrap();
        assert_eq!(next.status, StatusCode::BAD_REQUEST, "it lives, and what names no kind is not a review");
    });
}
