//! Services: how a name and a port become pods and ports of theirs.

use std::net::IpAddr;

use super::{Labels, Str};
use crate::netset::Protocol;

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace, which is also the only one its selector looks in.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
    /// `metadata.uid`; nothing where none is written.
    pub uid: Option<Str>,
    /// Its own labels, which its pods need not share.
    pub labels: Labels,
    /// Which pods back it; nothing for a Service whose endpoints are managed elsewhere.
    pub selector: Option<Labels>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Whether it is only another name for something (`type: ExternalName`).
    pub is_external_name: bool,
    /// Its virtual addresses: what clients dial, and what policies nearly never see.
    pub cluster_ips: Vec<IpAddr>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// TCP where none is written.
    pub protocol: Protocol,
    /// The port clients dial.
    pub port: u16,
    /// The port the pods listen on.
    pub target: TargetPort,
}

/// `targetPort`; the same as `port` where none is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// This port in each pod.
    Number(u16),
    /// Whatever port carries this name, pod by pod.
    Name(Str),
}
