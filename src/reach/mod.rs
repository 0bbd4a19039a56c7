//! Who can talk to whom, and which policies decided it.
//!
//! The answer is the union of all NetworkPolicies over real pods: a connection passes when the
//! source's egress lets it out *and* the destination's ingress lets it in. Where implementations
//! differ, or something could not be read, the answer has two ends: what is certainly allowed and
//! what is possibly allowed. [`Cni`] says what the cluster's implementation does and so narrows
//! the gap.
//!
//! Not here: policies of other systems ([`crate::model::ForeignPolicy`]); a rule that finds some
//! says that it cannot judge. Nor replies (always allowed), nor the kubelet's probes of its own
//! pods (always allowed in), nor ICMP (undefined by the API).

mod address;
mod cni;
mod dns;
mod side;

use crate::cluster::Cluster;
use crate::model::{Direction, NetworkPolicy, Stop, Workload};
use crate::netset::{ConnectionSet, Family, IpSet, Protocol};

use address::Families;
use side::Question;

pub use cni::{Cni, CniName, Truth};
pub use dns::{Dns, DnsSettings, DnsSource, DnsTarget, ServiceName, keeps_cluster_dns};
pub use side::{Allow, Side};

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub enum Peer<'a> {
    /// A pod, or the pods of a template.
    Workload(&'a Workload),
    /// Addresses outside the cluster. Where policies treat them differently, *certain* is what
    /// holds for all of them and *possible* what holds for some; [`Reach::split`] cuts a range
    /// into parts that are each treated alike.
    External(&'a IpSet),
}

/// What passes between two peers.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Allowed, whatever implements the policies. [`Cni`] says what an implementation that is not
    /// named is taken to support.
    pub certain: ConnectionSet,
    /// Allowed as far as is known: a superset of `certain`.
    pub possible: ConnectionSet,
    /// The source's part; nothing for an external source.
    pub egress: Option<Side<'a>>,
    /// The destination's part; nothing for an external destination.
    pub ingress: Option<Side<'a>>,
}

/// The evaluator of one cluster.
#[derive(Clone, Copy)]
pub struct Reach<'a> {
    cluster: &'a Cluster,
    cni: &'a Cni,
    /// Nothing: all of them.
    ports: Option<&'a [(Protocol, u16)]>,
    stop: Option<&'a Stop>,
}

impl<'a> Reach<'a> {
    /// The evaluator of a cluster whose policies this implementation enforces.
    pub fn new(cluster: &'a Cluster, cni: &'a Cni) -> Self {
        Self { cluster, cni, ports: None, stop: None }
    }

    /// The same evaluator, which ends when it is asked to; see [`Stop::check`].
    #[must_use]
    pub fn until(self, stop: Option<&'a Stop>) -> Self {
        Self { stop, ..self }
    }

    /// Returns, unless it was asked to end.
    fn check_stop(&self) {
        self.stop.inspect(|stop| stop.check());
    }

    /// The same evaluator, asked about these ports only: what its answers say of others means
    /// nothing. Rules about other ports need not be looked at, and most rules are.
    #[must_use]
    pub fn about(self, ports: &'a [(Protocol, u16)]) -> Self {
        Self { ports: Some(ports), ..self }
    }

    /// Which connections pass from one peer to another.
    pub fn connections(&self, from: Peer<'_>, to: Peer<'_>) -> Answer<'a> {
        let full = || (ConnectionSet::full(), ConnectionSet::full());
        if let (Peer::Workload(from), Peer::Workload(to)) = (from, to)
            && from.is_pod()
            && !from.is_finished
            && from.id == to.id
            && from.namespace == to.namespace
        {
            // A pod reaches itself over its own loopback, which no policy sees.
            let (certain, possible) = full();
            return Answer { certain, possible, egress: None, ingress: None };
        }
        let egress = match from {
            Peer::Workload(source) => Some(self.side(source, Direction::Egress, to)),
            Peer::External(_) => None,
        };
        let ingress = match to {
            Peer::Workload(destination) => Some(self.side(destination, Direction::Ingress, from)),
            Peer::External(_) => None,
        };
        let (mut certain, mut possible) = full();
        for side in egress.iter().chain(&ingress) {
            certain = certain.intersect(&side.certain);
            possible = possible.intersect(&side.possible);
        }
        if let (Peer::Workload(source), Peer::Workload(destination)) = (from, to)
            && egress.iter().chain(&ingress).all(|side| !side.allowed_by.is_empty())
            && !source.ips.is_empty()
            && !destination.ips.is_empty()
            && Families::between(source, to).are_both()
        {
            (certain, possible) = self.by_family(source, destination);
        }
        Answer { certain, possible, egress, ingress }
    }

    /// What passes between two pods that have addresses of both families. One connection uses one
    /// family at both ends: out over IPv4 and in over IPv6 makes none.
    fn by_family(&self, source: &Workload, destination: &Workload) -> (ConnectionSet, ConnectionSet) {
        let (mut certain, mut possible) = (ConnectionSet::empty(), ConnectionSet::empty());
        for family in Family::ALL {
            let families = Families::only(family);
            let side = |subject, direction, peer| {
                Side::evaluate(&Question { reach: *self, subject, direction, peer, families })
            };
            let egress = side(source, Direction::Egress, Peer::Workload(destination));
            let ingress = side(destination, Direction::Ingress, Peer::Workload(source));
            certain = certain.union(&egress.certain.intersect(&ingress.certain));
            possible = possible.union(&egress.possible.intersect(&ingress.possible));
        }
        (certain, possible)
    }

    /// What one end lets through in one direction, and the policies that say so.
    pub fn side(&self, subject: &Workload, direction: Direction, peer: Peer<'_>) -> Side<'a> {
        let families = Families::between(subject, peer);
        Side::evaluate(&Question { reach: *self, subject, direction, peer, families })
    }

    /// Whether a policy lets the pods it selects out to a pod on a port, told without a full answer:
    /// by a rule that names the port by its number and the pod by its labels, or names nobody. A yes
    /// is certain, whatever other policies there are, for they only add up; a no says nothing.
    pub fn lets_out_plainly(&self, policy: &NetworkPolicy, to: &Workload, protocol: Protocol, port: u16) -> bool {
        side::lets_out_plainly(self.cluster, policy, to, protocol, port)
    }

    /// The policies that select a workload, whichever directions they isolate.
    pub fn policies_of(&self, workload: &Workload) -> impl Iterator<Item = &'a NetworkPolicy> + use<'a> {
        let applies = !workload.host_network && !workload.is_finished;
        let state = self.cluster.namespace(&workload.namespace).filter(|_| applies);
        let selecting = state.map(|state| state.policies.within(&state.policies.selecting(&workload.labels)));
        selecting.into_iter().flatten()
    }

    /// The policies that isolate a workload in a direction.
    pub fn isolating(
        &self,
        workload: &Workload,
        direction: Direction,
    ) -> impl Iterator<Item = &'a NetworkPolicy> + use<'a> {
        self.policies_of(workload).filter(move |policy| policy.isolates.contains(direction))
    }

    /// Cuts a range of external addresses into parts that the workload's policies treat alike.
    pub fn split(&self, workload: &Workload, direction: Direction, range: &IpSet) -> Vec<IpSet> {
        let mut parts = vec![range.clone()];
        let blocks = self
            .policies_of(workload)
            .flat_map(|policy| policy.rules(direction))
            .flat_map(|rule| rule.peers.iter().flatten())
            .filter_map(|peer| match peer {
                crate::model::PeerSpec::Block(block) => Some(&block.addresses),
                crate::model::PeerSpec::Pods { .. } | crate::model::PeerSpec::Unreadable => None,
            });
        for block in blocks {
            self.check_stop();
            parts = parts
                .iter()
                .flat_map(|part| [part.intersect(block), part.subtract(block)])
                .filter(|part| !part.is_empty())
                .collect();
        }
        parts
    }
}
