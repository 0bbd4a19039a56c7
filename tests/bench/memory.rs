//! What bodies become: the most memory that the server holds under the worst load it takes.
//!
//! For each kind of body a server of its own is started, as it is shipped, and asked by many clients
//! at once, each in a namespace of its own, with two objects: of the largest size an API server takes,
//! and of the largest that the server still judges.
//! What is printed is the most that was ever resident, and the program fails where that is more than
//! the chart's limit.
//!
//! ```text
//! cargo bench --bench memory [-- --clients 32 --only rules]
//! ```

#![allow(
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark that fails may stop where it stands, and printing is what it is for"
)]

#[allow(dead_code, reason = "the floor itself is another benchmark's")]
mod floor;
#[allow(dead_code, reason = "its review is another benchmark's")]
mod world;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::config::Settings;
use portcullis::k8s::{self, Problem, TypeName};
use portcullis::server::{CertificateSource, Options, Server};
use portcullis::telemetry::Telemetry;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use floor::{ANY_PORT, Result, announce, certificates, provider};

/// The largest object: an API server takes requests of 3 MiB.
const OBJECT: usize = 3 * 1024 * 1024 - 64 * 1024;
/// `resources.limits.memory` of the chart, in MiB.
const LIMIT: f64 = 384.0;

/// A kind of body: its name, what is asked about, and how an object of it is written in so many bytes.
type Body = (&'static str, [&'static str; 2], fn(usize) -> String);

const BODIES: &[Body] = &[
    ("usual size, many rules", POLICY, |_| policy(&format!(r#""ingress":[{}]"#, repeat("{}", 9_000)))),
    ("usual size, addresses", POLICY, |_| policy(&format!(r#""egress":[{{"to":[{}]}}]"#, addresses(30_000)))),
    ("rules", POLICY, |size| policy(&format!(r#""ingress":[{}]"#, repeat("{}", size)))),
    ("rules with ports", POLICY, |size| {
        policy(&format!(r#""ingress":[{}]"#, repeat(r#"{"ports":[{"port":1,"protocol":"TCP"}]}"#, size)))
    }),
    ("ports", POLICY, |size| {
        policy(&format!(r#""ingress":[{{"ports":[{}]}}]"#, repeat(r#"{"port":"a","protocol":"TCP"}"#, size)))
    }),
    ("peers", POLICY, |size| policy(&format!(r#""ingress":[{{"from":[{}]}}]"#, repeat(r#"{"podSelector":{}}"#, size)))),
    ("addresses", POLICY, |size| policy(&format!(r#""egress":[{{"to":[{}]}}]"#, addresses(size)))),
    ("exceptions", POLICY, |size| {
        policy(&format!(
            r#""egress":[{{"to":[{{"ipBlock":{{"cidr":"10.0.0.0/8","except":[{}]}}}}]}}]"#,
            numbered(size, |n| format!(r#""10.{}.{}.{}/32""#, n >> 16 & 255, n >> 8 & 255, n & 255))
        ))
    }),
    ("expressions", POLICY, |size| {
        let expressions = numbered(size, |n| format!(r#"{{"key":"k{n}","operator":"NotIn","values":["v"]}}"#));
        policy(&format!(r#""podSelector":{{"matchExpressions":[{expressions}]}}"#))
    }),
    ("values", POLICY, |size| {
        let values = numbered(size, |n| format!(r#""v{n}""#));
        policy(&format!(
            r#""podSelector":{{"matchExpressions":[{{"key":"k","operator":"NotIn","values":[{values}]}}]}}"#
        ))
    }),
    ("peers that are none", POLICY, |size| policy(&format!(r#""ingress":[{{"from":[{}]}}]"#, repeat("{}", size)))),
    ("unknown fields", POLICY, |size| policy(&numbered(size, |n| format!(r#""field{n}":{{}}"#)))),
    ("labels", POD, |size| {
        let labels = numbered(size, |n| format!(r#""k{n}":"""#));
        pod(&format!(r#""labels":{{{labels}}}"#), "")
    }),
    ("annotations", POD, |size| {
        let annotations = numbered(size, |n| format!(r#""k{n}":"""#));
        pod(&format!(r#""annotations":{{{annotations}}}"#), "")
    }),
    ("one long annotation", POD, |size| pod(&format!(r#""annotations":{{"k":"{}"}}"#, "a".repeat(size)), "")),
    ("managed fields", POD, |size| {
        let fields = numbered(size, |n| format!(r#""f:k{n}":{{}}"#));
        pod(&format!(r#""managedFields":[{{"fieldsV1":{{{fields}}}}}]"#), "")
    }),
    ("nesting", POD, |size| pod(&format!(r#""managedFields":{}{}"#, "[".repeat(size / 2), "]".repeat(size / 2)), "")),
    ("owners", POD, |size| pod(&format!(r#""ownerReferences":[{}]"#, repeat(r#"{"kind":"a","name":"a"}"#, size)), "")),
    ("containers", POD, |size| {
        pod("", &numbered(size, |n| format!(r#"{{"name":"c{n}","ports":[{{"containerPort":80}}]}}"#)))
    }),
    ("containers that are none", POD, |size| pod("", &repeat("{\"ports\":5}", size))),
    ("mesh configuration", ["", "ConfigMap"], |size| {
        format!(
            r#"{{"metadata":{{"name":"istio","namespace":"NS"}},"data":{{"mesh":"{}"}}}}"#,
            "- [a]\\n".repeat(size / 7)
        )
    }),
    ("data", ["", "ConfigMap"], |size| {
        let data = numbered(size, |n| format!(r#""k{n}":"""#));
        format!(r#"{{"metadata":{{"name":"istio","namespace":"NS"}},"data":{{{data}}}}}"#)
    }),
];

const POLICY: [&str; 2] = ["networking.k8s.io", "NetworkPolicy"];
const POD: [&str; 2] = ["", "Pod"];

fn policy(spec: &str) -> String {
    format!(r#"{{"metadata":{{"name":"large","namespace":"NS"}},"spec":{{{spec}}}}}"#)
}

fn pod(metadata: &str, containers: &str) -> String {
    let comma = if metadata.is_empty() { "" } else { "," };
    format!(
        r#"{{"metadata":{{"name":"large","namespace":"NS"{comma}{metadata}}},"spec":{{"containers":[{containers}]}}}}"#
    )
}

/// Items of a list, alike, in about so many bytes.
fn repeat(item: &str, size: usize) -> String {
    vec![item; size / (item.len() + 1)].join(",")
}

/// Items of a list or mapping, each its own, in about so many bytes.
fn numbered(size: usize, item: impl Fn(usize) -> String) -> String {
    let mut items = String::with_capacity(size);
    for number in 0.. {
        let item = item(number);
        if items.len() + item.len() + 1 > size {
            break;
        }
        let comma = if number == 0 { "" } else { "," };
        let _ = write!(items, "{comma}{item}");
    }
    items
}

fn addresses(size: usize) -> String {
    numbered(size, |n| format!(r#"{{"ipBlock":{{"cidr":"10.{}.{}.{}/32"}}}}"#, n >> 16 & 255, n >> 8 & 255, n & 255))
}

fn main() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", folder] => serve(Path::new(folder)),
        options => measure(options),
    }
}

/// The server as it is shipped, with all rules over a cluster of 10,000 pods.
fn serve(folder: &Path) -> Result {
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

fn measure(options: &[&str]) -> Result {
    let option = |name: &str| options.iter().position(|option| *option == name).and_then(|at| options.get(at + 1));
    let clients: usize = option("--clients").map_or(Ok(32), |number| number.parse())?;
    let folder = certificates()?;
    println!("{clients} clients, each with a review of two objects; the limit is {LIMIT} MiB");
    println!(
        "{:<26}{:>10}{:>10}{:>10}{:>9}{:>9}{:>9}",
        "", "KiB each", "idle MiB", "peak MiB", "judged", "refused", "seconds"
    );
    let mut worst: f64 = 0.0;
    for (name, [group, kind], object) in BODIES {
        if option("--only").is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let (largest, judged_size) = (object(OBJECT), largest_judged(group, kind, *object));
        let mut sizes = vec![largest];
        sizes.extend((judged_size < OBJECT).then(|| object(judged_size)));
        for object in sizes {
            let server = Process::start(&folder)?;
            let idle = server.memory("VmHWM:")?;
            let begun = Instant::now();
            let (judged, refused) = ask(&folder, &server.address, clients, |namespace| {
                let object = object.replacen("NS", namespace, 1);
                format!(
                    r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"u","kind":{{"group":"{group}","version":"v1","kind":"{kind}"}},"name":"large","namespace":"{namespace}","operation":"UPDATE","userInfo":{{"username":"a"}},"object":{object},"oldObject":{object}}}}}"#
                )
            })?;
            let (peak, seconds) = (server.memory("VmHWM:")?, begun.elapsed().as_secs_f64());
            let size = object.len() / 1024;
            println!("{name:<26}{size:>10}{idle:>10.0}{peak:>10.0}{judged:>9}{refused:>9}{seconds:>9.1}");
            worst = worst.max(peak);
        }
    }
    std::fs::remove_dir_all(folder)?;
    println!("the worst: {worst:.0} MiB");
    if worst >= LIMIT { Err("the server held more than the chart's limit".into()) } else { Ok(()) }
}

/// The size of the largest object that is read in full.
fn largest_judged(group: &str, kind: &str, object: fn(usize) -> String) -> usize {
    let name = TypeName { group, kind };
    let is_judged = |size: usize| !k8s::lower_json(name, &object(size), "").problems.iter().any(Problem::is_too_large);
    let (mut judged, mut refused) = (0, OBJECT);
    if is_judged(refused) {
        return OBJECT;
    }
    while refused - judged > 1024 {
        let middle = usize::midpoint(judged, refused);
        if is_judged(middle) { judged = middle } else { refused = middle }
    }
    judged
}

/// Two reviews from each of so many clients at once; how many answers came of judging, and how many said
/// that there was no room or no time.
fn ask(folder: &Path, address: &str, clients: usize, review: impl Fn(&str) -> String) -> Result<(usize, usize)> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt"))?)?;
    let settings = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = TlsConnector::from(Arc::new(settings));
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let mut tasks = Vec::new();
        for client in 0..clients {
            let (tls, address, body) = (tls.clone(), address.to_owned(), review(&world::name(client)));
            tasks.push(tokio::spawn(async move {
                let mut answers = Vec::new();
                for _ in 0..2 {
                    let stream = TcpStream::connect(&address).await?;
                    let mut stream = tls.connect(ServerName::try_from("localhost")?, stream).await?;
                    let head = format!(
                        "POST /validate?timeout=30s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    stream.write_all(head.as_bytes()).await?;
                    // A server that turns a body away may close before all of it is sent.
                    let _ = stream.write_all(body.as_bytes()).await;
                    let mut answer = Vec::new();
                    let _ = tokio::time::timeout(Duration::from_mins(1), stream.read_to_end(&mut answer)).await;
                    answers.push(String::from_utf8_lossy(&answer).into_owned());
                }
                Result::Ok(answers)
            }));
        }
        let (mut judged, mut refused) = (0, 0);
        for task in tasks {
            for answer in task.await?? {
                let is_judged = answer.starts_with("HTTP/1.1 200") && !answer.contains("no room") && !answer.contains("in time");
                if is_judged { judged += 1 } else { refused += 1 }
            }
        }
        Ok((judged, refused))
    })
}

/// One server's process.
struct Process {
    child: Child,
    address: String,
    /// Closed, it tells the server to end.
    _stdin: ChildStdin,
}

impl Process {
    fn start(folder: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", &folder.display().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take().ok_or("no stdin")?, child.stdout.take().ok_or("no stdout")?);
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address)?;
        Ok(Self { child, address: address.trim().to_owned(), _stdin: stdin })
    }

    /// A figure of proc(5)'s `status`, in MiB.
    fn memory(&self, figure: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(figure)).ok_or("no such figure")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
