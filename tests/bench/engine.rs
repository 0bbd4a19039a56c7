//! The engine alone: what judging a change costs beside parsing it, a full check, and memory.
//!
//! Criterion measures the means. The table at the end holds percentiles, which criterion does not
//! give, and sizes: `cargo bench --bench engine -- --quick` shortens the first part.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark fails by panicking, prints its figures, and needs no more digits than a float has"
)]

mod world;

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criterion::Criterion;
use jiff::Timestamp;
use portcullis::admission;
use portcullis::cluster::Cluster;
use portcullis::config::Settings;
use portcullis::model::{Change, Object};
use portcullis::rules::RuleSet;

fn main() {
    let before = resident();
    let cluster = world::cluster();
    let state = resident() - before;
    let rules = Settings::default().rule_set();

    let mut criterion = Criterion::default().configure_from_args();
    means(&mut criterion, &rules, &cluster);
    criterion.final_summary();
    // `cargo test --benches` only asks whether it runs.
    if std::env::args().any(|arg| arg == "--bench") {
        figures(&rules, &cluster, state);
    }
}

fn means(criterion: &mut Criterion, rules: &RuleSet, cluster: &Cluster) {
    let now = Timestamp::UNIX_EPOCH;
    let review = world::review(500);
    let mut group = criterion.benchmark_group("a policy change");
    group.bench_function("parsing it (floor)", |bencher| bencher.iter(|| parse(black_box(&review))));
    group.bench_function("the whole review", |bencher| {
        bencher.iter(|| admission::review(rules, cluster.into(), black_box(review.as_bytes()), now));
    });
    for (name, change) in changes(cluster, 500) {
        group.bench_function(name, |bencher| bencher.iter(|| rules.judge(cluster, black_box(&change), now)));
    }
    group.finish();
    let mut group = criterion.benchmark_group("the whole cluster");
    group.sample_size(10);
    group.bench_function("full check", |bencher| bencher.iter(|| rules.judge_all(black_box(cluster), now)));
    group.finish();
}

/// Into the client library's types: what any webhook written with them does first.
fn parse(review: &str) -> kube::core::admission::AdmissionReview<k8s_openapi::api::networking::v1::NetworkPolicy> {
    serde_json::from_str(review).unwrap()
}

/// Changes of a policy in one namespace: a new narrow one, a wide one that becomes wider, and the
/// deletion of one.
fn changes(cluster: &Cluster, number: usize) -> [(&'static str, Change); 3] {
    let state = cluster.namespace(&world::name(number)).unwrap();
    let policy = |name: &str| state.policies.get(name).unwrap();
    let mut narrow = policy("policy-3").as_ref().clone();
    narrow.name = "narrow".into();
    let dns = policy("policy-1");
    let mut without_dns = dns.as_ref().clone();
    without_dns.egress.clear();
    [
        ("judging a new policy", Change::Create(Object::NetworkPolicy(narrow.into()))),
        (
            "judging one that cuts off DNS",
            Change::Update(Object::NetworkPolicy(dns.clone()), Object::NetworkPolicy(without_dns.into())),
        ),
        ("judging a deletion", Change::Delete(Object::NetworkPolicy(policy("policy-4").clone()))),
    ]
}

fn figures(rules: &RuleSet, cluster: &Cluster, state: usize) {
    let now = Timestamp::UNIX_EPOCH;
    let mut parsing = Vec::new();
    let mut judging: Vec<(&str, Vec<Duration>)> = Vec::new();
    for number in 0..world::NAMESPACES {
        let review = world::review(number);
        parsing.push(timed(|| parse(&review)));
        for (name, change) in changes(cluster, number) {
            let took = timed(|| rules.judge(cluster, &change, now));
            match judging.iter_mut().find(|(known, _)| *known == name) {
                Some((_, all)) => all.push(took),
                None => judging.push((name, vec![took])),
            }
        }
    }
    let floor = percentile(&mut parsing, 50);
    println!(
        "\nat {} pods, {} namespaces, {} policies",
        world::NAMESPACES * world::PODS,
        world::NAMESPACES,
        world::NAMESPACES * world::POLICIES
    );
    println!("{:<34} {:>10} {:>10} {:>16}", "", "p50", "p99", "p50 to parsing");
    row("parsing a policy's review", &mut parsing, floor);
    for (name, mut all) in judging {
        row(name, &mut all, floor);
    }
    let mut checks: Vec<_> = (0..10).map(|_| timed(|| rules.judge_all(cluster, now))).collect();
    row("full check", &mut checks, floor);
    let mut cold = cold_checks();
    row("`check` of 100 objects, from cold", &mut cold, floor);
    println!("{:<34} {:>7.1} MiB", "memory for the state", state as f64 / 1024.0 / 1024.0);
}

/// Runs of the program over a hundred objects from standard input, process start included.
fn cold_checks() -> Vec<Duration> {
    let mut manifests = String::new();
    for number in 0..50 {
        let labels = format!("{{app: app-{number}}}");
        write!(
            manifests,
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: app-{number}, namespace: shop}}\nspec:\n  template:\n    metadata: {{labels: {labels}}}\n    spec: {{containers: [{{name: app, image: app}}]}}\n---\n\
             apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: app-{number}, namespace: shop}}\nspec:\n  podSelector: {{matchLabels: {labels}}}\n  policyTypes: [Ingress, Egress]\n  ingress: [{{from: [{{podSelector: {{}}}}]}}]\n---\n"
        )
        .unwrap();
    }
    let run = || {
        let mut process = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["check", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        process.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
        process.wait().unwrap()
    };
    run();
    (0..20).map(|_| timed(run)).collect()
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(work());
    start.elapsed()
}

fn row(name: &str, all: &mut [Duration], floor: Duration) {
    let (p50, p99) = (percentile(all, 50), percentile(all, 99));
    let ratio = p50.as_secs_f64() / floor.as_secs_f64();
    println!("{name:<34} {:>10} {:>10} {ratio:>15.2}x", micros(p50), micros(p99));
}

fn micros(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    if micros < 1e4 { format!("{micros:.1} µs") } else { format!("{:.1} ms", micros / 1e3) }
}

fn percentile(all: &mut [Duration], percent: usize) -> Duration {
    all.sort_unstable();
    all[(all.len() * percent / 100).min(all.len() - 1)]
}

/// Bytes of memory in use (`VmRSS`).
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
}
