//! More clients than there is room for: who keeps a place, and who makes room.

use super::*;

/// Where an API server and the kubelet send from in these tests, and where others do.
const API_SERVER: [u8; 4] = [127, 0, 0, 1];
const HOSTILE: [u8; 4] = [127, 0, 0, 2];

/// The start of a request whose body never ends.
fn under_way(length: usize) -> Vec<u8> {
    format!("POST /validate?timeout=30s HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{{").into_bytes()
}

/// The status line of what comes next.
async fn status(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = [0; 12];
    timeout(LONG, stream.read_exact(&mut answer)).await.expect("an answer").unwrap();
    String::from_utf8(answer.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_takes_the_place_of_the_one_that_is_idle_for_longest() {
    let server = limited(|limits| limits.connections = 1).await;
    let mut first = server.https().await;
    first.review("first").await.unwrap();
    let mut second = server.https().await;
    first.closed().await;
    assert_eq!(second.review("second").await.unwrap().status, StatusCode::OK);
    server.until_metric(r#"portcullis_rejected_total{reason="connections"} 1"#).await;
    server.until_metric("portcullis_connections 1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_is_closed_at_once_while_all_others_wait_for_verdicts() {
    let (mut held, reviewer) = Held::new();
    let server = start(|options| {
        options.limits.connections = 1;
        options.reviewer = reviewer;
    })
    .await;
    let mut first = server.https().await;
    let first = tokio::spawn(async move { (first.review("first").await, first) });
    held.begun().await;
    ends(&mut connect_from(HOSTILE, server.addresses.webhook).await).await;
    server.until_metric(r#"portcullis_rejected_total{reason="connections"} 1"#).await;
    held.release();
    let (answer, _first) = first.await.unwrap();
    assert_eq!(answer.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_opens_too_many_connections_closes_its_own() {
    let server = limited(|limits| limits.connections = 8).await;
    let mut api_server = server.https().await;
    api_server.review("before").await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(connect_from(HOSTILE, server.addresses.webhook).await);
    }
    // Two of eight are its share.
    server.until_metric(r#"portcullis_rejected_total{reason="peer_connections"} 4"#).await;
    for oldest in silent.iter_mut().take(4) {
        ends(oldest).await;
    }
    assert_eq!(api_server.review("after").await.unwrap().status, StatusCode::OK);
    assert_eq!(server.https().await.review("new").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_nothing_goes_before_what_is_used_also_behind_one_address() {
    let server = limited(|limits| limits.connections = 32).await;
    // Older than all the others, and in use.
    let mut api_server = server.https().await;
    api_server.review("before").await.unwrap();
    let mut silent = Vec::new();
    for number in 0..40 {
        let mut stream = connect_from(API_SERVER, server.addresses.webhook).await;
        match number % 3 {
            0 => stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap(),
            1 => {
                let tls = shake_hands(server.authority.roots(), stream, "http/1.1").await;
                if let Ok(mut tls) = tls {
                    tls.write_all(b"POST /validate HTTP/1.1\r\nhost: local").await.unwrap();
                    silent.push(tls.into_inner().0);
                }
                continue;
            }
            _ => {}
        }
        silent.push(stream);
    }
    assert_eq!(api_server.review("after").await.unwrap().status, StatusCode::OK);
    assert_eq!(server.https().await.review("new").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_addresses_leave_room_for_one_more() {
    let server = limited(|limits| limits.connections = 8).await;
    let mut crowd = Vec::new();
    for address in 2..6 {
        for _ in 0..2 {
            let mut stream = server.tls_from([127, 0, 0, address], "http/1.1").await;
            stream.write_all(&under_way(100)).await.unwrap();
            crowd.push(stream);
        }
    }
    let mut api_server = server.https().await;
    assert_eq!(api_server.review("new").await.unwrap().status, StatusCode::OK);
    for address in 2..6 {
        let mut more = connect_from([127, 0, 0, address], server.addresses.webhook).await;
        more.write_all(&[0x16]).await.unwrap();
        crowd.push(server.tls_from([127, 0, 0, address], "http/1.1").await);
    }
    assert_eq!(api_server.review("kept").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_do_not_go_on_hold_up_no_other_of_their_address() {
    let server = start(|_| {}).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut stream = connect_from(API_SERVER, server.addresses.webhook).await;
        stream.write_all(&[0x16, 0x03, 0x01, 0x02]).await.unwrap();
        silent.push(stream);
    }
    let answer = timeout(LONG / 4, async { server.https().await.review("u").await }).await.expect("no waiting");
    assert_eq!(answer.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_asks_nothing_is_closed_long_before_an_idle_one() {
    let server = limited(|limits| {
        limits.head = Duration::from_millis(20);
        limits.first = Duration::from_millis(50);
    })
    .await;
    let mut used = server.https().await;
    used.review("u").await.unwrap();
    for alpn in ["http/1.1", "h2"] {
        ends(&mut server.tls_from(HOSTILE, alpn).await).await;
    }
    server.until_metric(r#"portcullis_rejected_total{reason="idle"} 2"#).await;
    assert_eq!(used.review("u").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_no_answer_does_not_stay() {
    let server = start(|options| {
        options.limits.head = Duration::from_millis(20);
        options.limits.idle = Duration::from_millis(50);
        // More than the buffers of both ends hold.
        options.reviewer =
            Arc::new(|rules, sight, body, now| Answer { body: vec![b' '; 32 << 20], ..allow(rules, sight, body, now) });
    })
    .await;
    let mut deaf = server.tls_from(HOSTILE, "http/1.1").await;
    let body = review("deaf");
    let head = format!("POST /validate HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    deaf.write_all(head.as_bytes()).await.unwrap();
    server.until_metric("portcullis_connections 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_under_way_take_no_place_of_a_review() {
    let server = limited(|limits| limits.reviews = 1).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = server.tls_from(API_SERVER, "http/1.1").await;
        stream.write_all(&under_way(100)).await.unwrap();
        slow.push(stream);
    }
    server.until_metric("portcullis_inflight 20").await;
    assert_eq!(server.https().await.review("u").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_has_seconds_of_the_servers_own_whatever_its_client_says() {
    let server = limited(|limits| limits.receive = Duration::from_millis(50)).await;
    let mut slow = server.tls_from(HOSTILE, "http/1.1").await;
    let begun = Instant::now();
    slow.write_all(&under_way(100)).await.unwrap();
    assert_eq!(status(&mut slow).await, "HTTP/1.1 408");
    assert!(begun.elapsed() < LONG / 4);
    server.until_metric(r#"portcullis_rejected_total{reason="body"} 1"#).await;
    server.until_metric("portcullis_inflight 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_of_one_address_push_out_each_other_and_none_of_anothers() {
    const LARGE: usize = 1 << 20;
    let server = limited(|limits| limits.receiving = 6 * LARGE).await;
    let mut api_server = server.tls_from(API_SERVER, "http/1.1").await;
    api_server.write_all(&under_way(LARGE)).await.unwrap();
    server.until_metric("portcullis_inflight 1").await;
    let mut hostile = Vec::new();
    for number in 0..8 {
        let mut stream = server.tls_from(HOSTILE, "http/1.1").await;
        stream.write_all(&under_way(LARGE)).await.unwrap();
        hostile.push(stream);
        server.until_metric(&format!("portcullis_inflight {}", 2 + number.min(2))).await;
    }
    // Three of six are its share, and the oldest go.
    for oldest in hostile.iter_mut().take(5) {
        assert_eq!(status(oldest).await, "HTTP/1.1 429");
    }
    server.until_metric(r#"portcullis_rejected_total{reason="peer_receiving"} 5"#).await;
    let rest = vec![b' '; LARGE - 1];
    api_server.write_all(&rest).await.unwrap();
    assert_eq!(status(&mut api_server).await, "HTTP/1.1 200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_unknown_length_counts_as_the_largest_there_may_be() {
    let server = limited(|limits| limits.receiving = 4 * limits.body).await;
    let mut hostile = Vec::new();
    for _ in 0..3 {
        let mut stream = server.tls_from(HOSTILE, "http/1.1").await;
        let head = "POST /validate HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        hostile.push(stream);
    }
    server.until_metric(r#"portcullis_rejected_total{reason="peer_receiving"} 1"#).await;
    assert_eq!(status(&mut hostile[0]).await, "HTTP/1.1 429");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reviews_of_one_address_leave_room_for_those_of_others() {
    let (mut held, reviewer) = Held::new();
    let server = start(|options| {
        options.limits.reviews = 4;
        options.reviewer = reviewer;
    })
    .await;
    let mut hostile = Vec::new();
    for namespace in ["a", "b"] {
        let mut client = Client::over(server.tls_from(HOSTILE, "http/1.1").await).await;
        hostile.push(tokio::spawn(async move { client.review_in(namespace, "hostile").await }));
        held.begun().await;
    }
    let mut third = Client::over(server.tls_from(HOSTILE, "http/1.1").await).await;
    assert_eq!(third.review("third").await.unwrap().status, StatusCode::TOO_MANY_REQUESTS);
    server.until_metric(r#"portcullis_rejected_total{reason="peer_overload"} 1"#).await;
    let mut api_server = server.https().await;
    let judged = tokio::spawn(async move { api_server.review_in("shop", "u").await });
    held.begun().await;
    held.release();
    assert_eq!(judged.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_are_kept_for_the_addresses_of_api_servers() {
    let (mut held, reviewer) = Held::new();
    let server = start(|options| {
        options.limits.reviews = 4;
        options.limits.connections = 8;
        options.api_servers = vec!["127.0.0.1/32".parse().unwrap()];
        options.reviewer = reviewer;
    })
    .await;
    let mut waiting = Vec::new();
    let mut refused = 0;
    for (address, namespace) in [(2, "a"), (2, "b"), (3, "c"), (4, "d")] {
        let mut client = Client::over(server.tls_from([127, 0, 0, address], "http/1.1").await).await;
        if refused == 0 && waiting.len() == 3 {
            assert_eq!(client.review("refused").await.unwrap().status, StatusCode::TOO_MANY_REQUESTS);
            refused += 1;
            continue;
        }
        waiting.push(tokio::spawn(async move { client.review_in(namespace, "hostile").await }));
        held.begun().await;
    }
    assert_eq!((waiting.len(), refused), (3, 1));
    let mut api_server = server.https().await;
    let judged = tokio::spawn(async move { api_server.review_in("shop", "u").await });
    held.begun().await;
    held.release();
    assert_eq!(judged.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_keep_no_probe_out() {
    for from in [HOSTILE, API_SERVER] {
        let server = limited(|limits| limits.operations = 8).await;
        let mut silent = Vec::new();
        for number in 0..50 {
            let mut stream = connect_from(from, server.addresses.operations).await;
            if number % 2 == 0 {
                // One that is closed already may say so.
                let _ = stream.write_all(b"GET /metr").await;
            }
            silent.push(stream);
            if number % 10 == 9 {
                assert_eq!(server.get("/livez").await.0, StatusCode::OK);
            }
        }
        assert_eq!(server.get("/readyz").await.0, StatusCode::OK);
        let rejected = server.metrics();
        assert!(rejected.contains(r#"portcullis_rejected_total{reason="operations"} "#), "{rejected}");
        assert!(!rejected.contains(r#"portcullis_rejected_total{reason="operations"} 0"#), "{rejected}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_asks_nothing_of_the_operations_port_is_soon_closed() {
    let server = limited(|limits| {
        limits.head = Duration::from_millis(20);
        limits.first = Duration::from_millis(50);
    })
    .await;
    let mut silent = connect_from(HOSTILE, server.addresses.operations).await;
    let mut half = connect_from(HOSTILE, server.addresses.operations).await;
    half.write_all(b"GET /metr").await.unwrap();
    ends(&mut silent).await;
    ends(&mut half).await;
    server.until_metric(r#"portcullis_rejected_total{reason="operations"} 2"#).await;
}

#[test]
fn a_process_out_of_descriptors_closes_what_is_idle_and_goes_on() {
    const CHILD: &str = "PORTCULLIS_TEST_SCARCE";
    if let Some(folder) = std::env::var_os(CHILD) {
        let folder = PathBuf::from(folder);
        let runtime = portcullis::server::runtime().unwrap();
        return runtime.block_on(async {
            let options = Options {
                webhook: SocketAddr::from(([127, 0, 0, 1], 0)),
                operations: SocketAddr::from(([127, 0, 0, 1], 0)),
                reviewer: Arc::new(allow),
                ..Options::new(CertificateSource::files(folder.join("tls.crt"), folder.join("tls.key")))
            };
            let server = Server::bind(options).await.unwrap();
            println!("listening {} {}", server.addresses().webhook, server.addresses().operations);
            // Fewer than connections are allowed: what is open by now, and forty.
            let limit = rustix::process::Rlimit { current: Some(60), maximum: Some(60) };
            rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
            let (_cluster, cluster) = watch::channel(Arc::new(Cluster::default()));
            let (_rules, rules) = watch::channel(rules(Action::Warn));
            server.run(cluster, rules, Telemetry::default(), std::future::pending()).await.unwrap();
        });
    }
    let authority = Authority::new();
    let (certificate, key) = authority.issue();
    authority.install(&certificate, &key);
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crowds::a_process_out_of_descriptors_closes_what_is_idle_and_goes_on", "--nocapture"])
        .env(CHILD, &authority.folder)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let line = lines.find_map(|line| line.unwrap().split_once("listening ").map(|(_, rest)| rest.to_owned())).unwrap();
    let (webhook, operations) = line.split_once(' ').unwrap();
    let (webhook, operations) = (webhook.parse().unwrap(), operations.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let work = async {
        let mut silent = Vec::new();
        for _ in 0..100 {
            silent.push(connect_from(HOSTILE, webhook).await);
        }
        let stream = connect_from(API_SERVER, webhook).await;
        let mut client = Client::over(shake_hands(authority.roots(), stream, "http/1.1").await.unwrap()).await;
        let answer = client.review("u").await.unwrap();
        let mut probe = Client::over(connect_from(API_SERVER, operations).await).await;
        (answer.status, probe.send(Request::get("/livez"), "").await.unwrap().status)
    };
    let outcome = runtime.block_on(async { timeout(LONG, work).await });
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(outcome.expect("an answer in time"), (StatusCode::OK, StatusCode::OK));
}
