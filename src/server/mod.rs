//! The gate over HTTPS, and a plain listener beside it for probes and metrics.
//!
//! ```text
//! TCP -> handshake -> HTTP/1.1 or HTTP/2 -> POST /validate -> a review beside the connection
//!        (tls)        (listener)            (routes)          (admission, no I/O)
//! ```
//!
//! Everything a client can make grow has a bound: connections, the time of a handshake, of a head
//! and of a body, the size of a body, the bodies under way, the reviews in flight. [`Limits`] lists
//! them, and of each one address has a share.
//!
//! Where the cluster and the rules come from is not known here: both are the latest value of a
//! channel, and whoever holds its other end may replace it at any time.

mod body;
mod clients;
mod descriptors;
mod judge;
mod listener;
mod places;
mod pulse;
mod reload;
mod room;
mod routes;
mod shutdown;
mod tls;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admission::{Answer, Sight};
use crate::cluster::{Cluster, Reading};
use crate::k8s::Kind;
use crate::rules::{RuleSet, STACK};
use crate::telemetry::Telemetry;
use judge::Judge;
use listener::Listener;
use places::Known;
use shutdown::Phase;
use tls::FromFiles;
use workers::Workers;

pub use descriptors::raise_descriptors;
pub use reload::{ConfigFile, follow_config};
pub use shutdown::{Shutdown, requested as shutdown_requested};
pub use tls::{InService, Pair};

/// What judges a review: [`crate::admission::review`] or another function in its place.
pub type Reviewer = Arc<dyn Fn(&RuleSet, Sight<'_>, &[u8], Timestamp) -> Answer + Send + Sync>;

/// Where the cluster comes from, for what its latest value does not tell.
pub trait Origin: Send + Sync {
    /// How long ago all of it was last known to be current.
    fn age(&self) -> Duration;

    /// What could not be read, not yet or not at all.
    fn unread(&self) -> Vec<Kind>;

    /// A cluster with what rules may find absent in some namespaces read anew; or why that cannot
    /// be done, for people.
    fn renew(&self, cluster: Arc<Cluster>, reading: Reading) -> Renewed<'_>;
}

/// A cluster that is being read anew.
pub type Renewed<'a> = Pin<Box<dyn Future<Output = Result<Cluster, String>> + Send + 'a>>;

/// What a server is started with.
#[derive(Clone)]
pub struct Options {
    /// Where HTTPS is served; port 0 for one that is free.
    pub webhook: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub operations: SocketAddr,
    /// Where the certificate comes from.
    pub certificate: CertificateSource,
    /// The pair that is served, for whoever looks at it or puts it there.
    pub in_service: InService,
    /// Who may connect; nothing for everybody.
    pub clients: Option<AllowedClients>,
    /// Where API servers send from: places are kept for these. Of no effect on who may connect.
    pub api_servers: Vec<IpNet>,
    /// How often files of certificates are compared with what is in force.
    pub certificate_every: Duration,
    /// What clients can use up.
    pub limits: Limits,
    /// How long stopping may take.
    pub shutdown: Shutdown,
    /// What judges a review.
    pub reviewer: Reviewer,
    /// Where the cluster comes from; nothing where it is all there is to know.
    pub origin: Option<Arc<dyn Origin>>,
}

impl Options {
    /// The usual ports and limits with a certificate.
    pub fn new(certificate: CertificateSource) -> Self {
        Self {
            webhook: SocketAddr::from(([0, 0, 0, 0], 8443)),
            operations: SocketAddr::from(([0, 0, 0, 0], 8080)),
            certificate,
            in_service: InService::default(),
            clients: None,
            api_servers: Vec::new(),
            certificate_every: Duration::from_secs(10),
            limits: Limits::default(),
            shutdown: Shutdown::default(),
            reviewer: Arc::new(crate::admission::review),
            origin: None,
        }
    }
}

/// Where the server's certificate comes from.
#[derive(Clone, Debug)]
pub enum CertificateSource {
    /// PEM files, which somebody else writes. Without a good pair in them no server starts.
    Files {
        /// The certificate, its chain included.
        chain: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Whoever holds [`Options::in_service`] puts it there. Until then every handshake fails, and it
    /// is theirs to keep the server from being ready.
    InService,
}

impl CertificateSource {
    /// Files with a chain and its key.
    pub fn files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self::Files { chain: chain.into(), key: key.into() }
    }
}

/// The clients that may connect: those with a certificate of this authority.
#[derive(Clone, Debug)]
pub struct AllowedClients {
    /// The authority's certificates, a PEM file.
    pub authority: PathBuf,
    /// What the client's certificate must name it by: its common name, or a DNS name. Nothing for
    /// any name.
    pub name: Option<String>,
}

/// What clients can use up at most. One address has a part of each.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections on the webhook's listener; for one more, the one that does least is closed.
    pub connections: usize,
    /// Connections on the listener of probes and metrics.
    pub operations: usize,
    /// Reviews being judged; one more is answered `429`.
    pub reviews: usize,
    /// Bytes of a body.
    pub body: usize,
    /// Bytes of memory for judging, by what bodies become. A review for which there is none is
    /// answered as one that is late.
    pub memory: usize,
    /// Bytes of all bodies that are on their way, as long as they say they will be.
    pub receiving: usize,
    /// The time a TLS handshake may take.
    pub handshake: Duration,
    /// The time from the handshake to the first byte of a request, to within `head`.
    pub first: Duration,
    /// The time from the first byte of a request's head to its last, to within a half.
    pub head: Duration,
    /// The time a small body may take; each MiB of a larger one has as long again. It is the server's
    /// own: what a client says it has (`?timeout=`) can only shorten it.
    pub receive: Duration,
    /// How long a connection may be idle. Longer than clients keep theirs (90 seconds in Go's
    /// `net/http`): the one that closes first should be the client, which knows that no request
    /// is on its way.
    pub idle: Duration,
}

impl Limits {
    /// The same for the listener of probes and metrics: a probe asks once, at once, and a scraper
    /// comes again within a minute.
    fn of_operations(&self) -> Self {
        Self {
            connections: self.operations,
            first: self.first.min(Duration::from_secs(5)),
            head: self.head.min(Duration::from_secs(2)),
            idle: self.idle.min(Duration::from_secs(75)),
            ..*self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            operations: 256,
            reviews: 256,
            // An API server takes objects of 3 MiB, and an UPDATE carries two.
            body: 7 * 1024 * 1024,
            memory: 128 * 1024 * 1024,
            receiving: 64 * 1024 * 1024,
            handshake: Duration::from_secs(10),
            first: Duration::from_secs(10),
            head: Duration::from_secs(5),
            receive: Duration::from_secs(2),
            idle: Duration::from_mins(3),
        }
    }
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate cannot be served.
    #[error("{0}")]
    Certificate(String),
    /// The settings of TLS do not hold together.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A server whose sockets are open and whose files of certificates are good, not serving yet.
pub struct Server {
    webhook: TcpListener,
    operations: TcpListener,
    addresses: Addresses,
    files: Option<FromFiles>,
    clients: Option<clients::FromFile>,
    options: Options,
}

/// Where a server is reached, whatever port was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// HTTPS.
    pub webhook: SocketAddr,
    /// Plain HTTP.
    pub operations: SocketAddr,
}

/// A runtime fit for [`Server::run`]: one worker, and one in reserve for when a review lasts.
///
/// A worker judges tens of thousands of reviews a second, which is more than API servers send. With
/// several, the parts of one review wander between cores, and that costs more than judging it.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_stack_size(STACK).enable_all().build()
}

/// Serves until `shutdown` completes and every request that had begun is answered.
pub async fn run(
    options: Options,
    cluster: watch::Receiver<Arc<Cluster>>,
    rules: watch::Receiver<Arc<RuleSet>>,
    telemetry: Telemetry,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    Server::bind(options).await?.run(cluster, rules, telemetry, shutdown).await
}

impl Server {
    /// Opens the sockets and reads the files of certificates.
    pub async fn bind(options: Options) -> Result<Self, Error> {
        let files = match &options.certificate {
            CertificateSource::Files { chain, key } => {
                let read = FromFiles::read([chain.clone(), key.clone()], options.in_service.clone()).await;
                Some(read.map_err(Error::Certificate)?)
            }
            CertificateSource::InService => None,
        };
        let clients = match &options.clients {
            Some(allowed) => Some(clients::FromFile::read(allowed.clone()).await.map_err(Error::Certificate)?),
            None => None,
        };
        let (webhook, webhook_address) = listen(options.webhook)?;
        let (operations, operations_address) = listen(options.operations)?;
        let addresses = Addresses { webhook: webhook_address, operations: operations_address };
        Ok(Self { webhook, operations, addresses, files, clients, options })
    }

    /// Where it is reached.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `shutdown` completes and every request that had begun is answered.
    pub async fn run(
        self,
        cluster: watch::Receiver<Arc<Cluster>>,
        rules: watch::Receiver<Arc<RuleSet>>,
        telemetry: Telemetry,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let Self { webhook, operations, addresses, files, clients, options } = self;
        let Options {
            limits,
            certificate_every,
            api_servers,
            in_service,
            shutdown: Shutdown { linger, drain },
            reviewer,
            origin,
            ..
        } = options;
        let metrics = telemetry.metrics.clone();
        let gate = telemetry.readiness.gate("listener", "starting");
        let workers = Workers::new();
        let _holding = workers.hold_reserve();

        let judge = Judge { reviewer, origin, cluster, metrics: metrics.clone(), workers };
        let tls = tls::settings(in_service.clone(), clients.as_ref().map(clients::FromFile::verifier))?;
        let known = Known::new(&api_servers);
        let keeps_places = !known.is_empty();
        let (webhook_phase, phases) = watch::channel(Phase::Serving);
        let webhook = tokio::spawn(
            Listener {
                socket: webhook,
                tls: Some(Arc::new(tls)),
                router: routes::webhook(routes::Gate::new(judge, rules, limits, keeps_places)),
                limits,
                known,
                metrics: metrics.clone(),
            }
            .run(phases),
        );
        // Probes and metrics are answered to the very end.
        let (operations_phase, phases) = watch::channel(Phase::Serving);
        let operations = tokio::spawn(
            Listener {
                socket: operations,
                tls: None,
                router: routes::operations(&telemetry),
                limits: limits.of_operations(),
                known: Known::default(),
                metrics: metrics.clone(),
            }
            .run(phases),
        );
        let mut certificates = JoinSet::new();
        certificates.spawn(tls::watch_expiry(in_service, metrics.clone()));
        if let Some(files) = files {
            certificates.spawn(files.follow(certificate_every, metrics.clone()));
        }
        if let Some(clients) = clients {
            certificates.spawn(clients.follow(certificate_every));
        }
        gate.open();
        tracing::info!(webhook = %addresses.webhook, operations = %addresses.operations, "serving");

        shutdown.await;
        let _closed = telemetry.readiness.gate("listener", "shutting down");
        tokio::time::sleep(linger).await;
        end(webhook, &webhook_phase, drain).await;
        certificates.abort_all();
        operations_phase.send_replace(Phase::Cut);
        tracing::info!(unanswered = metrics.reviews_in_flight(), "stopped");
        drop(operations);
        Ok(())
    }
}

/// Ends a listener: in good order within `drain`, and by force after it.
async fn end(mut listener: tokio::task::JoinHandle<()>, phase: &watch::Sender<Phase>, drain: Duration) {
    phase.send_replace(Phase::Closing);
    if timeout(drain, &mut listener).await.is_err() {
        tracing::warn!("connections were still open at the end of the drain and are cut");
        phase.send_replace(Phase::Cut);
    }
}

/// How many connections the kernel keeps until they are accepted, as far as it lets one choose: with
/// fewer, those of an API server are dropped in a crowd, and come again a second later.
const BACKLOG: u32 = 4096;

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { address, source };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let socket = socket.listen(BACKLOG).map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((socket, bound))
}
