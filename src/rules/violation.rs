//! One thing that is wrong with one subject: what the ratchet compares.

use super::oversized_policy::Limit;
use crate::model::{Direction, Str, WorkloadId};
use crate::netset::Family;

/// A violation's identity is its namespace, subject and aspect. Two of the same identity, before
/// and after a change, are the same violation; its badness tells whether it got worse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The namespace it is in.
    pub namespace: Str,
    /// Whom it concerns there.
    pub subject: Subject,
    /// What is wrong.
    pub aspect: Aspect,
    /// How bad, on the rule's own scale; larger is worse.
    pub badness: u8,
}

impl Violation {
    /// What makes it the same violation before and after.
    pub fn identity(&self) -> (&Str, &Subject, &Aspect) {
        (&self.namespace, &self.subject, &self.aspect)
    }
}

/// Whom a violation concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The namespace as a whole: pods to come included.
    Namespace,
    /// One workload.
    Workload(WorkloadId),
    /// A policy of this name.
    Policy(Str),
    /// A Waiver of this name.
    Waiver(Str),
}

/// What keeps the API server from a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Barrier {
    /// NetworkPolicies that admit nothing from outside the cluster.
    Policies,
    /// The mesh, which takes nothing but its own mutual TLS.
    Mesh,
}

/// What is wrong, in terms that stay the same while the cluster around changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// Not isolated, or given everything back, in a direction.
    Undefended(Direction),
    /// Cannot resolve names.
    DnsUnreachable,
    /// Can resolve names, but not every replica of DNS is reachable.
    DnsPartly,
    /// Can resolve names over UDP, but large answers need TCP.
    DnsTcpMissing,
    /// Selected by policies that do not govern it, for it is on its node's network.
    OnNodesNetwork,
    /// Most of an address space is admitted.
    WideBlock(Direction, Family),
    /// A cloud's metadata address is allowed by name.
    Metadata,
    /// The DNS Service of this name is not answered.
    DnsUnserved(Str),
    /// Everyone is admitted, on some ports.
    Everyone(Direction),
    /// Plaintext is accepted: on one port, or (nothing) on all that have no setting of their own.
    Plaintext(Option<u16>),
    /// Not in the mesh at all.
    OutsideMesh,
    /// Says STRICT and has no effect.
    Ineffective,
    /// A waiver that never held: the field below its `spec`, and what is wrong with it.
    Flawed(Str, Str),
    /// A waiver that has run out.
    Expired,
    /// Judged by a mode that is not the strictest.
    Lenient,
    /// More of something than a policy may have.
    Oversized(Limit),
    /// Out of the API server's reach on a port, though a webhook is answered there.
    CutOff(u16, Barrier),
}
