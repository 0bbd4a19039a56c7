//! The server under load, against a floor: the least a webhook on the same crates can do.
//!
//! Both are processes of their own on core 0, the clients one process on core 1. Rounds alternate,
//! and each ratio is the median over pairs of neighbouring rounds, so that what else the machine
//! does meets both alike.
//!
//! ```text
//! cargo bench --bench load [-- --rounds 9 --seconds 3 --connections 16]
//! ```

#![allow(
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark that fails may stop where it stands, and printing is what it is for"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "counts of a few million and shares of them"
)]

mod floor;
mod world;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::config::Settings;
use portcullis::server::{CertificateSource, Options, Server};
use portcullis::telemetry::Telemetry;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use floor::{ANY_PORT, Result, announce, certificates, provider};

/// The namespace the policy is made in.
const NAMESPACE: usize = 500;

fn main() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["ours", folder] => ours(Path::new(folder)),
        ["floor", folder] => floor::serve(Path::new(folder)),
        ["judge"] => {
            judge();
            Ok(())
        }
        ["clients", folder, address, connections, seconds] => clients(
            Path::new(folder),
            address.parse()?,
            connections.parse()?,
            Duration::from_secs_f64(seconds.parse()?),
        ),
        options => compare(options),
    }
}

/// Ours, as it is shipped, with all rules over the whole cluster.
fn ours(folder: &Path) -> Result {
    portcullis::server::runtime()?.block_on(async {
        let options = Options {
            webhook: ANY_PORT,
            operations: ANY_PORT,
            ..Options::new(CertificateSource::files(folder.join("tls.crt"), folder.join("tls.key")))
        };
        let server = Server::bind(options).await?;
        let (_cluster, cluster) = watch::channel(Arc::new(world::cluster()));
        let (_rules, rules) = watch::channel(Arc::new(Settings::default().rule_set()));
        announce(server.addresses().webhook);
        Ok(server.run(cluster, rules, Telemetry::default(), std::future::pending()).await?)
    })
}

/// Ours without a network: prints nanoseconds a review.
fn judge() {
    const REVIEWS: u32 = 500;
    let (cluster, rules, body) = (world::cluster(), Settings::default().rule_set(), world::review(NAMESPACE));
    let run = || {
        let begun = Instant::now();
        for _ in 0..REVIEWS {
            let answer =
                portcullis::admission::review(&rules, (&cluster).into(), body.as_bytes(), jiff::Timestamp::now());
            assert!(answer.record.allowed && answer.record.judged, "the review is judged, and allowed");
            std::hint::black_box(answer);
        }
        begun.elapsed() / REVIEWS
    };
    // The fastest batch is the one in which the machine did the least else.
    println!("{}", (0..40).map(|_| run()).min().unwrap_or_default().as_nanos());
}

// The clients.

/// Sends one review after another on each connection and prints `requests p50 p99 seconds`.
fn clients(folder: &Path, address: SocketAddr, connections: usize, time: Duration) -> Result {
    let body = world::review(NAMESPACE);
    let request = Arc::<[u8]>::from(
        format!(
            "POST /validate?timeout=10s HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\n\
             content-type: application/json\r\nuser-agent: kube-apiserver-admission\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    );
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt"))?)?;
    let settings = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = TlsConnector::from(Arc::new(settings));
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            streams.push(tls.connect(ServerName::try_from("localhost")?, stream).await?);
        }
        let begun = Instant::now();
        let tasks: Vec<_> = streams
            .into_iter()
            .map(|mut stream| {
                let request = Arc::clone(&request);
                tokio::spawn(async move {
                    let (mut times, mut answer) = (Vec::with_capacity(1 << 16), Vec::with_capacity(8192));
                    while begun.elapsed() < time {
                        let sent = Instant::now();
                        stream.write_all(&request).await?;
                        read_answer(&mut stream, &mut answer).await?;
                        times.push(sent.elapsed());
                    }
                    Result::Ok(times)
                })
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await??);
        }
        let seconds = begun.elapsed().as_secs_f64();
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_nanos();
        println!("{} {} {} {seconds}", times.len(), at(0.5), at(0.99));
        Ok(())
    })
}

/// Reads one answer, which has a length and must allow.
async fn read_answer(stream: &mut (impl tokio::io::AsyncRead + Unpin), answer: &mut Vec<u8>) -> Result {
    answer.clear();
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err("the server closed the connection".into());
        }
        let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&answer[..head])?;
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or("no length")?;
        if answer.len() < head + 4 + length.parse::<usize>()? {
            continue;
        }
        let body = std::str::from_utf8(&answer[head + 4..])?;
        let allowed = text.starts_with("HTTP/1.1 200") && body.contains(r#""allowed":true"#);
        return if allowed { Ok(()) } else { Err(format!("{text}\n{body}").into()) };
    }
}

// The comparison.

/// One server's process.
struct Process {
    child: Child,
    address: String,
    /// Closed, it tells the server to end.
    _stdin: ChildStdin,
}

/// What one round showed.
#[derive(Clone, Copy)]
struct Round {
    requests_a_second: f64,
    p50: f64,
    p99: f64,
    cpu_a_request: f64,
}

fn compare(options: &[&str]) -> Result {
    let option = |name: &str, default: &str| {
        let at = options.iter().position(|option| *option == name);
        at.and_then(|at| options.get(at + 1)).copied().unwrap_or(default).to_owned()
    };
    let rounds: usize = option("--rounds", "9").parse()?;
    let seconds = option("--seconds", "3");
    let connections = option("--connections", "16");
    let folder = certificates()?;
    let (ours, floor) = (Process::start("ours", &folder)?, Process::start("floor", &folder)?);
    let run = |server: &Process, seconds: &str| server.round(&folder, &connections, seconds);
    for server in [&ours, &floor] {
        run(server, "1")?;
    }
    let mut pairs = Vec::new();
    for _ in 0..rounds {
        pairs.push((run(&ours, &seconds)?, run(&floor, &seconds)?));
    }
    println!(
        "one {} byte review over {connections} connections; medians of {rounds} rounds of {seconds} s",
        world::review(NAMESPACE).len()
    );
    println!(
        "cluster: {} namespaces, {} pods, {} policies",
        world::NAMESPACES,
        world::NAMESPACES * world::PODS,
        world::NAMESPACES * world::POLICIES
    );
    println!("{:<18}{:>12}{:>12}{:>9}   worst..best pair", "", "portcullis", "floor", "ratio");
    let show = |name: &str, of: fn(&Round) -> f64, unit: f64| {
        let ratios = sorted(pairs.iter().map(|(ours, floor)| of(ours) / of(floor)));
        let middle = |values: Vec<f64>| values[values.len() / 2];
        let ours = middle(sorted(pairs.iter().map(|(ours, _)| of(ours) * unit)));
        let floor = middle(sorted(pairs.iter().map(|(_, floor)| of(floor) * unit)));
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        println!("{name:<18}{ours:>12.1}{floor:>12.1}{:>9.2}   {least:.2}..{most:.2}", middle(ratios));
    };
    show("requests/s", |round| round.requests_a_second, 1.0);
    show("p50 µs", |round| round.p50, 1e-3);
    show("p99 µs", |round| round.p99, 1e-3);
    show("CPU µs/request", |round| round.cpu_a_request, 1e6);
    let alone = role("0", &["judge"])?.output()?.stdout;
    let alone = String::from_utf8(alone)?.trim().parse::<f64>()? * 1e-3;
    println!("{:<18}{alone:>12.1}{:>12}            (without HTTP and TLS)", "judging µs", "");
    let (ours, floor) = (ours.memory()?, floor.memory()?);
    println!("{:<18}{ours:>12.1}{floor:>12.1}{:>9.2}   (the floor keeps no cluster)", "RSS MB", ours / floor);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// This program again, in another role, on one core where the machine can pin.
fn role(core: &str, arguments: &[&str]) -> Result<Command> {
    let this = std::env::current_exe()?;
    let can_pin = Command::new("taskset").args(["-c", core, "true"]).status().is_ok_and(|status| status.success());
    let mut command = if can_pin {
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(this);
        command
    } else {
        eprintln!("cannot pin to core {core}: taskset is missing, or the core is");
        Command::new(this)
    };
    command.args(arguments);
    Ok(command)
}

impl Process {
    fn start(name: &str, folder: &Path) -> Result<Self> {
        let mut child =
            role("0", &[name, &folder.display().to_string()])?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (stdin, stdout) = (child.stdin.take().ok_or("no stdin")?, child.stdout.take().ok_or("no stdout")?);
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address)?;
        Ok(Self { child, address: address.trim().to_owned(), _stdin: stdin })
    }

    fn round(&self, folder: &Path, connections: &str, seconds: &str) -> Result<Round> {
        let before = self.cpu()?;
        let output = role("1", &["clients", &folder.display().to_string(), &self.address, connections, seconds])?
            .stderr(Stdio::inherit())
            .output()?;
        let cpu = self.cpu()? - before;
        let text = String::from_utf8(output.stdout)?;
        let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
        let [requests, p50, p99, seconds] = numbers[..] else { return Err("the clients failed".into()) };
        std::io::stdout().flush()?;
        Ok(Round { requests_a_second: requests / seconds, p50, p99, cpu_a_request: cpu / requests })
    }

    /// Seconds of CPU used so far (`utime` and `stime` in proc(5), in hundredths).
    fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit(") ").next().ok_or("no stat")?;
        let fields: Vec<&str> = after_name.split(' ').collect();
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
    }

    /// Resident memory in megabytes.
    fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
