//! NetworkPolicy: defaults filled in as the API server would, blocks and ports parsed, and
//! everything the API server would refuse said.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as netv1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;

use super::meta::Meta;
use super::read::{Many, Source, Strict};
use super::spec::{Block, EgressRule, IngressRule, LabelSelector, Peer, PolicyPort, PolicySpec};
use super::{Lowered, MOST_PROBLEMS, Problem, Read};
use crate::model::{
    Direction, Directions, FieldPath, IpBlock, NetworkPolicy, Object, Operator, PeerSpec, PolicyRule, Port, PortSpec,
    Requirement, Selector, Str,
};
use crate::netset::Protocol;

#[derive(Deserialize)]
struct WellFormed {
    metadata: Meta,
    spec: Option<PolicySpec>,
}

#[derive(Deserialize)]
struct Written {
    metadata: Meta,
    spec: Option<Strict<netv1::NetworkPolicySpec>>,
}

pub(super) fn lower<'a>(source: impl Source<'a>, namespace: &str) -> Read {
    let spec_path = FieldPath::root().field("spec");
    let mut cx = Problems::default();
    let (metadata, spec) = if let Some(WellFormed { metadata, spec }) = source.read_well_formed() {
        (metadata, spec)
    } else if source.is_large() {
        let WellFormed { metadata, spec } = source.read()?;
        (metadata, spec)
    } else {
        let Written { metadata, spec } = source.read()?;
        let spec = spec.map(|Strict { value, unknown }| {
            for path in unknown {
                let path = FieldPath::new(format!("spec.{path}"));
                cx.push(path, "unknown field: the API server drops it, and a newer version may give it a meaning");
            }
            value.into()
        });
        (metadata, spec)
    };
    // A policy without a spec is `spec: {}`: every pod, ingress, nothing admitted.
    let PolicySpec { pod_selector, policy_types, ingress, egress } = spec.unwrap_or_default();
    let pods = pod_selector
        .map_or_else(Selector::everything, |selector| cx.selector(&selector, || spec_path.field("podSelector")));
    let (ingress, egress) = (ingress.unwrap_or_default(), egress.unwrap_or_default());
    let isolates = isolates(policy_types.as_deref().unwrap_or_default(), !egress.is_empty(), &mut cx);
    let ingress = ingress
        .into_iter()
        .enumerate()
        .map(|(rule, IngressRule { from, ports })| cx.rule(Direction::Ingress, rule, from, ports));
    let ingress: Vec<_> = ingress.collect();
    let egress = egress
        .into_iter()
        .enumerate()
        .map(|(rule, EgressRule { to, ports })| cx.rule(Direction::Egress, rule, to, ports));
    let egress: Vec<_> = egress.collect();
    let policy = NetworkPolicy {
        namespace: metadata.namespace(namespace),
        name: metadata.name(),
        created: metadata.created(),
        lifetime: metadata.lifetime(),
        pods,
        isolates,
        ingress,
        egress,
        is_partial: cx.is_partial,
    };
    Ok(Lowered { object: Some(Object::NetworkPolicy(Arc::new(policy))), problems: cx.problems })
}

/// `policyTypes`, or what the API server fills in where there are none: Ingress always, and Egress
/// when there are egress rules (`SetDefaults_NetworkPolicy`).
fn isolates(written: &[Str], has_egress_rules: bool, cx: &mut Problems) -> Directions {
    if written.is_empty() {
        return Directions { ingress: true, egress: has_egress_rules };
    }
    if written.len() > 2 {
        cx.remark(FieldPath::new("spec.policyTypes"), "there are only two policy types: list each once");
    }
    let mut isolates = Directions::default();
    for (i, policy_type) in written.iter().enumerate() {
        match policy_type.as_str() {
            "Ingress" => isolates.ingress = true,
            "Egress" => isolates.egress = true,
            other => cx.push(
                FieldPath::new(format!("spec.policyTypes[{i}]")),
                format!("unknown policy type `{other}`: `Ingress` and `Egress` are supported"),
            ),
        }
    }
    isolates
}

#[derive(Default)]
struct Problems {
    problems: Vec<Problem>,
    /// Whether the meaning of something is not known.
    is_partial: bool,
}

impl Problems {
    fn push(&mut self, path: FieldPath, message: impl Into<String>) {
        self.is_partial = true;
        self.remark(path, message);
    }

    /// Something that is written wrongly and means what it means all the same.
    fn remark(&mut self, path: FieldPath, message: impl Into<String>) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(Problem::new(path, message));
        }
    }

    fn rule(
        &mut self,
        direction: Direction,
        rule: usize,
        peers: Option<Many<Peer>>,
        ports: Option<Many<PolicyPort>>,
    ) -> PolicyRule {
        let peers = peers.filter(|peers| !peers.is_empty()).map(|peers| {
            let peers = peers.into_iter().enumerate();
            peers.map(|(i, peer)| self.peer(&peer, || NetworkPolicy::peer_path(direction, rule, i))).collect()
        });
        let ports = ports.filter(|ports| !ports.is_empty()).map(|ports| {
            let ports = ports.into_iter().enumerate();
            ports
                .map(|(i, port)| self.port(&port, || NetworkPolicy::rule_path(direction, rule).field("ports").index(i)))
                .collect()
        });
        PolicyRule { peers, ports }
    }

    fn peer(&mut self, peer: &Peer, path: impl Fn() -> FieldPath) -> PeerSpec {
        let Peer { ip_block, namespace_selector, pod_selector } = peer;
        match (ip_block, namespace_selector, pod_selector) {
            (Some(block), None, None) => self.block(block, || path().field("ipBlock")),
            (Some(_), _, _) => {
                self.push(path(), "`ipBlock` cannot stand beside a selector: make them two peers");
                PeerSpec::Unreadable
            }
            (None, None, None) => {
                self.push(path(), "a peer needs `podSelector`, `namespaceSelector` or `ipBlock`");
                PeerSpec::Unreadable
            }
            (None, namespaces, pods) => PeerSpec::Pods {
                namespaces: namespaces
                    .as_ref()
                    .map(|selector| self.selector(selector, || path().field("namespaceSelector"))),
                pods: pods.as_ref().map_or_else(Selector::everything, |selector| {
                    self.selector(selector, || path().field("podSelector"))
                }),
                pods_written: pods.is_some(),
            },
        }
    }

    fn block(&mut self, block: &Block, path: impl Fn() -> FieldPath) -> PeerSpec {
        let Some(cidr) = self.network(&block.cidr, || path().field("cidr")) else {
            return PeerSpec::Unreadable;
        };
        let mut except = Vec::new();
        for (i, text) in block.except.iter().flatten().enumerate() {
            let path = || path().field("except").index(i);
            let Some(inner) = self.network(text, path) else { continue };
            if !cidr.contains(&inner) || inner.prefix_len() <= cidr.prefix_len() {
                self.push(path(), format!("`{inner}` must lie inside `{cidr}` and be smaller than it"));
            }
            // Overlapping or not, it removes from the block at most what it holds.
            except.push(inner);
        }
        PeerSpec::Block(IpBlock::new(cidr, except))
    }

    fn network(&mut self, text: &str, path: impl Fn() -> FieldPath) -> Option<IpNet> {
        let Some(net) = parse_network(text) else {
            self.push(path(), not_a_network(text));
            return None;
        };
        let Some(mapped) = unmapped(&net) else { return Some(net) };
        // `net.IPNet` of Go takes it for the IPv4 network; newer API servers refuse it.
        self.remark(path(), format!("`{text}` is IPv4 written as IPv6, which not all take alike: write `{mapped}`"));
        Some(mapped)
    }

    fn port(&mut self, port: &PolicyPort, path: impl Fn() -> FieldPath) -> PortSpec {
        let PolicyPort { protocol, port, end_port } = port;
        let Some(parsed) = self::protocol(protocol.as_deref()) else {
            let written = protocol.as_deref().unwrap_or_default();
            self.push(
                path().field("protocol"),
                format!("unknown protocol `{written}`: TCP, UDP and SCTP are supported"),
            );
            return PortSpec { protocol: Protocol::Tcp, port: Port::Unreadable };
        };
        let port = match (port, end_port) {
            (None, None) => Port::All,
            (None, Some(_)) => {
                self.push(path().field("endPort"), "`endPort` needs `port`, the first of the range");
                Port::Unreadable
            }
            (Some(IntOrString::Int(first)), end) => self.range(*first, *end, &path),
            (Some(IntOrString::String(name)), end) => {
                if end.is_some() {
                    self.push(path().field("endPort"), "`endPort` needs a numeric `port`");
                }
                if is_port_name(name) {
                    Port::Named(name.as_str().into())
                } else {
                    self.push(path().field("port"), not_a_port_name(name));
                    Port::Unreadable
                }
            }
        };
        PortSpec { protocol: parsed, port }
    }

    fn range(&mut self, first: i32, end: Option<i32>, path: impl Fn() -> FieldPath) -> Port {
        let Some(from) = port_number(first) else {
            self.push(path().field("port"), format!("{first} is no port: ports are 1 to 65535"));
            return Port::Unreadable;
        };
        let end = end.unwrap_or(first);
        if let Some(last) = port_number(end).filter(|last| *last >= from) {
            return Port::Range(from, last);
        }
        self.push(path().field("endPort"), format!("must lie between `port` ({from}) and 65535, not {end}"));
        Port::Unreadable
    }

    fn selector(&mut self, selector: &LabelSelector, path: impl Fn() -> FieldPath) -> Selector {
        let LabelSelector { match_labels, match_expressions } = selector;
        let mut requirements = Vec::new();
        for (key, value) in match_labels.iter().flatten() {
            requirements.push(Requirement { key: key.clone(), operator: Operator::In(vec![value.clone()]) });
        }
        for (i, expression) in match_expressions.iter().flatten().enumerate() {
            let path = || path().field("matchExpressions").index(i);
            let mut values: Vec<Str> = expression.values.iter().flatten().cloned().collect();
            values.sort();
            values.dedup();
            let (takes_values, operator) = match expression.operator.as_str() {
                "In" => (true, Operator::In(values.clone())),
                "NotIn" => (true, Operator::NotIn(values.clone())),
                "Exists" => (false, Operator::Exists),
                "DoesNotExist" => (false, Operator::DoesNotExist),
                other => {
                    let message =
                        format!("unknown operator `{other}`: In, NotIn, Exists and DoesNotExist are supported");
                    self.push(path().field("operator"), message);
                    (!values.is_empty(), Operator::Unknown(other.into()))
                }
            };
            if takes_values == values.is_empty() {
                let verb = if takes_values { "needs at least one value" } else { "takes no values" };
                self.push(path().field("values"), format!("operator `{}` {verb}", expression.operator));
            }
            requirements.push(Requirement { key: expression.key.clone(), operator });
        }
        Selector::new(requirements)
    }
}

/// A protocol as written: TCP where none is.
pub(super) fn protocol(written: Option<&str>) -> Option<Protocol> {
    match written {
        None | Some("") => Some(Protocol::Tcp),
        Some(written) => written.parse().ok(),
    }
}

pub(super) fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}

/// A network as the API server reads stored ones: host bits are masked, and leading zeros, which
/// old objects carry, are decimal (`ParseCIDRSloppy`).
fn parse_network(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok().or_else(|| {
        let octet = |octet: &str| (octet.len() <= 3).then(|| number::<u8>(octet)).flatten();
        let octets: Vec<u8> = address.split('.').map(octet).collect::<Option<_>>()?;
        <[u8; 4]>::try_from(octets).ok().map(IpAddr::from)
    })?;
    IpNet::new(address, number(length)?).ok().map(|net| net.trunc())
}

/// A number of decimal digits only: Rust's own parser takes a plus sign.
pub(super) fn number<T: FromStr>(digits: &str) -> Option<T> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// The IPv4 network that an IPv6 one of mapped addresses (`::ffff:0:0/96` and below) stands for.
fn unmapped(net: &IpNet) -> Option<IpNet> {
    let IpNet::V6(net) = net else { return None };
    let address = net.network().to_ipv4_mapped()?;
    IpNet::new(address.into(), net.prefix_len().checked_sub(96)?).ok()
}

fn not_a_network(text: &str) -> String {
    if text.parse::<IpAddr>().is_ok() {
        let length = if text.contains(':') { 128 } else { 32 };
        return format!("`{text}` is one address, not a network: write `{text}/{length}`");
    }
    format!("`{text}` is no network: write an address, a slash and the length of the prefix, as in `10.0.0.0/8`")
}

/// `IsValidPortName` of apimachinery: 1 to 15 of `a-z`, `0-9` and `-`, at least one letter, no two
/// hyphens together and none at an end.
pub(super) fn is_port_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-')
}

pub(super) fn not_a_port_name(name: &str) -> String {
    if name.parse::<u16>().is_ok() {
        return format!(
            "`\"{name}\"` in quotes is a port's name, and a name needs a letter: write {name} without quotes"
        );
    }
    format!("`{name}` is no port name: at most 15 of a-z, 0-9 and `-`, with at least one letter")
}
