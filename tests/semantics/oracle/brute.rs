//! The evaluator of single flows.

use std::fmt;
use std::net::IpAddr;

pub(crate) type Labels = Vec<(&'static str, &'static str)>;

/// A cluster as plain lists.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) namespaces: Vec<Labels>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) policies: Vec<Policy>,
}

/// A pod, or the pods of a Deployment, which have no addresses yet.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: usize,
    pub(crate) labels: Labels,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) is_template: bool,
    pub(crate) host_network: bool,
    pub(crate) is_finished: bool,
    /// Name, protocol, number.
    pub(crate) ports: Vec<(&'static str, &'static str, u16)>,
}

/// `NetworkPolicySpec` as written: nothing is defaulted.
#[derive(Clone, Debug)]
#[allow(clippy::struct_field_names, reason = "the API's own names")]
pub(crate) struct Policy {
    pub(crate) namespace: usize,
    pub(crate) pod_selector: Option<Selector>,
    pub(crate) policy_types: Option<Vec<&'static str>>,
    pub(crate) ingress: Option<Vec<Rule>>,
    pub(crate) egress: Option<Vec<Rule>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) peers: Option<Vec<Peer>>,
    pub(crate) ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Peer {
    Pods { namespaces: Option<Selector>, pods: Option<Selector> },
    Block { cidr: Net, except: Vec<Net> },
}

/// `matchLabels` and `matchExpressions`: key, operator, values.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    pub(crate) labels: Labels,
    pub(crate) expressions: Vec<(&'static str, &'static str, Vec<&'static str>)>,
}

#[derive(Clone, Debug)]
#[allow(clippy::struct_field_names, reason = "the API's own names")]
pub(crate) struct Port {
    pub(crate) protocol: Option<&'static str>,
    pub(crate) port: Option<Number>,
    pub(crate) end: Option<u16>,
}

#[derive(Clone, Debug)]
pub(crate) enum Number {
    Number(u16),
    Name(&'static str),
}

/// An address and the length of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Net(pub(crate) IpAddr, pub(crate) u8);

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// What an implementation does where the API leaves room.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is one independent difference between implementations")]
pub(crate) struct Implementation {
    pub(crate) blocks_match_pods: bool,
    pub(crate) blocks_match_nodes: bool,
    pub(crate) enforces_unlisted: bool,
    pub(crate) honours_end_port: bool,
    pub(crate) honours_names: bool,
    /// Whether a host-network source happens to run on the destination's node.
    pub(crate) same_node: bool,
}

/// One end of a flow: a pod (by its place) at an address, or an address outside the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Pod(usize, IpAddr),
    Outside(IpAddr),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) from: End,
    pub(crate) to: End,
    pub(crate) protocol: &'static str,
    pub(crate) port: u16,
}

impl World {
    /// Whether a flow passes: the source's egress and the destination's ingress let it.
    pub(crate) fn passes(&self, implementation: Implementation, flow: Flow) -> bool {
        for end in [flow.from, flow.to] {
            if let End::Pod(pod, _) = end
                && self.pods[pod].is_finished
            {
                return false;
            }
        }
        if let (End::Pod(from, _), End::Pod(to, _)) = (flow.from, flow.to)
            && from == to
            && !self.pods[from].is_template
        {
            return true;
        }
        self.lets_out(implementation, flow) && self.lets_in(implementation, flow)
    }

    fn lets_out(&self, implementation: Implementation, flow: Flow) -> bool {
        let End::Pod(source, _) = flow.from else { return true };
        self.lets_through(implementation, source, flow.to, false, flow)
    }

    fn lets_in(&self, implementation: Implementation, flow: Flow) -> bool {
        let End::Pod(destination, _) = flow.to else { return true };
        if let End::Pod(source, _) = flow.from
            && self.pods[source].host_network
            && implementation.same_node
        {
            return true;
        }
        self.lets_through(implementation, destination, flow.from, true, flow)
    }

    fn lets_through(
        &self,
        implementation: Implementation,
        subject: usize,
        other: End,
        ingress: bool,
        flow: Flow,
    ) -> bool {
        let pod = &self.pods[subject];
        if pod.host_network {
            return true;
        }
        let mut is_isolated = false;
        for policy in &self.policies {
            if policy.namespace != pod.namespace {
                continue;
            }
            if let Some(selector) = &policy.pod_selector
                && !selects(selector, &pod.labels)
            {
                continue;
            }
            let egress_rules = policy.egress.iter().flatten().count();
            let rules = if ingress { &policy.ingress } else { &policy.egress };
            let is_listed = match &policy.policy_types {
                Some(types) if !types.is_empty() => types.contains(&if ingress { "Ingress" } else { "Egress" }),
                _ => ingress || egress_rules > 0,
            };
            let is_enforced = is_listed || implementation.enforces_unlisted && rules.iter().flatten().count() > 0;
            if !is_enforced {
                continue;
            }
            is_isolated = true;
            for rule in rules.iter().flatten() {
                let is_peer = match &rule.peers {
                    Some(peers) if !peers.is_empty() => {
                        peers.iter().any(|peer| self.is_about(implementation, policy.namespace, peer, other))
                    }
                    _ => true,
                };
                let is_port = match &rule.ports {
                    Some(ports) if !ports.is_empty() => ports.iter().any(|port| self.opens(implementation, port, flow)),
                    _ => true,
                };
                if is_peer && is_port {
                    return true;
                }
            }
        }
        !is_isolated
    }

    fn is_about(&self, implementation: Implementation, own_namespace: usize, peer: &Peer, other: End) -> bool {
        match (peer, other) {
            (Peer::Pods { .. }, End::Outside(_)) => false,
            (Peer::Pods { namespaces, pods }, End::Pod(pod, _)) => {
                let pod = &self.pods[pod];
                let in_namespace = match namespaces {
                    None => pod.namespace == own_namespace,
                    Some(selector) => selects(selector, &self.namespaces[pod.namespace]),
                };
                let has_labels = match pods {
                    None => true,
                    Some(selector) => selects(selector, &pod.labels),
                };
                !pod.host_network && in_namespace && has_labels
            }
            (Peer::Block { cidr, except }, end) => {
                let (address, is_matched) = match end {
                    End::Outside(address) => (address, true),
                    End::Pod(pod, address) if self.pods[pod].host_network => {
                        (address, implementation.blocks_match_nodes)
                    }
                    End::Pod(_, address) => (address, implementation.blocks_match_pods),
                };
                is_matched && cidr.contains(address) && !except.iter().any(|net| net.contains(address))
            }
        }
    }

    fn opens(&self, implementation: Implementation, port: &Port, flow: Flow) -> bool {
        if port.protocol.unwrap_or("TCP") != flow.protocol {
            return false;
        }
        match (&port.port, port.end) {
            (None, _) => true,
            (Some(Number::Number(first)), None) => flow.port == *first,
            (Some(Number::Number(first)), Some(last)) => {
                if implementation.honours_end_port {
                    *first <= flow.port && flow.port <= last
                } else {
                    flow.port == *first
                }
            }
            (Some(Number::Name(name)), _) => match flow.to {
                End::Outside(_) => false,
                End::Pod(pod, _) => {
                    implementation.honours_names && self.pods[pod].ports.contains(&(name, flow.protocol, flow.port))
                }
            },
        }
    }
}

fn selects(selector: &Selector, labels: &Labels) -> bool {
    for label in &selector.labels {
        if !labels.contains(label) {
            return false;
        }
    }
    for (key, operator, values) in &selector.expressions {
        let mut value = None;
        for (found, it) in labels {
            if found == key {
                value = Some(it);
            }
        }
        let is_met = match *operator {
            "In" => value.is_some_and(|it| values.contains(it)),
            "NotIn" => value.is_none_or(|it| !values.contains(it)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => unreachable!("no such operator is generated: {other}"),
        };
        if !is_met {
            return false;
        }
    }
    true
}

impl Net {
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        match (self.0, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let differing = u32::from(net) ^ u32::from(address);
                differing.leading_zeros() >= u32::from(self.1)
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let differing = u128::from(net) ^ u128::from(address);
                differing.leading_zeros() >= u32::from(self.1)
            }
            _ => false,
        }
    }
}
