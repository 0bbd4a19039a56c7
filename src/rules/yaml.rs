//! Objects written out as YAML that can be applied as it is.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::Moment;
use crate::model::{
    Direction, Directions, DnsPolicy, IpBlock, Labels, Lifetime, METADATA_NAME, NetworkPolicy, Operator, PeerSpec,
    PolicyRule, Port, PortSpec, Requirement, Selector, Str, Workload,
};
use crate::netset::Protocol;
use crate::reach::{Dns, DnsTarget};

/// A NetworkPolicy as a YAML document, without a leading separator.
pub(super) fn network_policy(policy: &NetworkPolicy) -> String {
    let mut out = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: {}\n  namespace: {}\nspec:\n",
        scalar(&policy.name),
        scalar(&policy.namespace)
    );
    selector(&mut out, "  ", "podSelector", &policy.pods);
    out.push_str("  policyTypes:\n");
    for direction in Direction::ALL.into_iter().filter(|direction| policy.isolates.contains(*direction)) {
        let _ = writeln!(out, "  - {}", direction.policy_type());
    }
    for direction in Direction::ALL {
        let rules = policy.rules(direction);
        if rules.is_empty() {
            continue;
        }
        let _ = writeln!(out, "  {}:", direction.field());
        for rule in rules {
            self::rule(&mut out, direction, rule);
        }
    }
    out
}

/// Several documents as one file.
pub(super) fn documents(documents: &[String]) -> String {
    documents.join("---\n")
}

fn rule(out: &mut String, direction: Direction, rule: &PolicyRule) {
    let PolicyRule { peers, ports } = rule;
    let mut lead = "  - ";
    if let Some(peers) = peers {
        let _ = writeln!(out, "{lead}{}:", direction.peers_field());
        lead = "    ";
        for peer in peers {
            self::peer(out, peer);
        }
    }
    if let Some(ports) = ports {
        let _ = writeln!(out, "{lead}ports:");
        lead = "    ";
        for PortSpec { protocol, port } in ports {
            let _ = writeln!(out, "    - protocol: {protocol}");
            match port {
                Port::All | Port::Unreadable => {}
                Port::Range(first, last) if first == last => {
                    let _ = writeln!(out, "      port: {first}");
                }
                Port::Range(first, last) => {
                    let _ = writeln!(out, "      port: {first}\n      endPort: {last}");
                }
                Port::Named(name) => {
                    let _ = writeln!(out, "      port: {}", scalar(name));
                }
            }
        }
    }
    if lead == "  - " {
        out.push_str("  - {}\n");
    }
}

fn peer(out: &mut String, peer: &PeerSpec) {
    match peer {
        PeerSpec::Unreadable => {}
        PeerSpec::Block(IpBlock { cidr, except, addresses: _ }) => {
            let _ = writeln!(out, "    - ipBlock:\n        cidr: {cidr}");
            if !except.is_empty() {
                out.push_str("        except:\n");
                for net in except {
                    let _ = writeln!(out, "        - {net}");
                }
            }
        }
        PeerSpec::Pods { namespaces, pods, pods_written } => {
            let mut text = String::new();
            if let Some(namespaces) = namespaces {
                selector(&mut text, "      ", "namespaceSelector", namespaces);
            }
            if *pods_written || namespaces.is_none() {
                selector(&mut text, "      ", "podSelector", pods);
            }
            out.push_str("    - ");
            out.push_str(text.trim_start());
        }
    }
}

fn selector(out: &mut String, indent: &str, field: &str, selector: &Selector) {
    if selector.is_everything() {
        let _ = writeln!(out, "{indent}{field}: {{}}");
        return;
    }
    let _ = writeln!(out, "{indent}{field}:");
    let exact = |requirement: &&Requirement| matches!(&requirement.operator, Operator::In(values) if values.len() == 1);
    let (labels, expressions): (Vec<_>, Vec<_>) = selector.requirements().iter().partition(exact);
    if !labels.is_empty() {
        let _ = writeln!(out, "{indent}  matchLabels:");
        for Requirement { key, operator } in labels {
            if let Operator::In(values) = operator {
                let value = values.first().map(Str::as_str).unwrap_or_default();
                let _ = writeln!(out, "{indent}    {}: {}", scalar(key), scalar(value));
            }
        }
    }
    if !expressions.is_empty() {
        let _ = writeln!(out, "{indent}  matchExpressions:");
        for Requirement { key, operator } in expressions {
            let (operator, values) = match operator {
                Operator::In(values) => ("In", values.as_slice()),
                Operator::NotIn(values) => ("NotIn", values.as_slice()),
                Operator::Exists => ("Exists", [].as_slice()),
                Operator::DoesNotExist => ("DoesNotExist", [].as_slice()),
                Operator::Unknown(operator) => (operator.as_str(), [].as_slice()),
            };
            let _ = writeln!(out, "{indent}  - key: {}\n{indent}    operator: {operator}", scalar(key));
            if !values.is_empty() {
                let values: Vec<_> = values.iter().map(|value| scalar(value)).collect();
                let _ = writeln!(out, "{indent}    values: [{}]", values.join(", "));
            }
        }
    }
}

/// A string as a YAML scalar: plain where every reader takes it for a string, else quoted.
pub(super) fn scalar(text: &str) -> String {
    let is_plain = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | "nan" | "inf"
        );
    if is_plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// Names for suggested policies. None is one that a policy of the namespace has, or had before the
/// change that is judged: applying a suggestion overwrites nothing, and the change does not take it
/// away again.
pub(super) struct FreeNames<'a> {
    taken: BTreeSet<&'a str>,
    given: BTreeSet<Str>,
}

impl<'a> FreeNames<'a> {
    pub(super) fn of(namespace: &str, moment: &'a Moment<'_>) -> Self {
        let before = moment.change.map(|(_, before)| before);
        let states = [Some(moment.view), before].into_iter().flatten().filter_map(|it| it.cluster.namespace(namespace));
        let taken = states.flat_map(|state| state.policies.iter()).map(|policy| policy.name.as_str()).collect();
        Self { taken, given: BTreeSet::new() }
    }

    /// This name, or the first of it with a number that is free.
    pub(super) fn next(&mut self, base: &str) -> Str {
        let numbered = (2..).map(|n| Str::from(format!("{base}-{n}")));
        let is_free = |name: &Str| !self.taken.contains(name.as_str()) && !self.given.contains(name);
        let name = std::iter::once(base.into()).chain(numbered).find(is_free).unwrap_or_default();
        self.given.insert(name.clone());
        name
    }
}

/// The egress rules that let pods of which nothing is known, and these workloads, resolve names.
pub(super) fn resolver_rules<'w>(dns: &Dns<'_>, workloads: impl IntoIterator<Item = &'w Workload>) -> Vec<PolicyRule> {
    let mut rules = dns_rules(dns);
    rules.extend(address_rule(&nameservers(dns, workloads)));
    rules
}

/// The nameservers that workloads name themselves: neither a Service's address, which is cluster
/// DNS again, nor one within the pod.
pub(super) fn nameservers<'w>(dns: &Dns<'_>, workloads: impl IntoIterator<Item = &'w Workload>) -> Vec<IpAddr> {
    let own = workloads.into_iter().filter(|workload| workload.dns_policy == DnsPolicy::None);
    let named: BTreeSet<IpAddr> = own.flat_map(|workload| workload.nameservers.iter().copied()).collect();
    named.into_iter().filter(|ip| !ip.is_loopback() && !dns.is_cluster_ip(*ip)).collect()
}

/// A rule that lets pods ask at these addresses; none without an address.
pub(super) fn address_rule(addresses: &[IpAddr]) -> Option<PolicyRule> {
    let blocks: Vec<_> = addresses.iter().map(|ip| PeerSpec::Block(IpBlock::new((*ip).into(), Vec::new()))).collect();
    let ports = [Protocol::Udp, Protocol::Tcp].map(|protocol| PortSpec { protocol, port: Port::Range(53, 53) });
    (!blocks.is_empty()).then(|| PolicyRule { peers: Some(blocks), ports: Some(ports.to_vec()) })
}

/// The egress rules that let pods resolve names in this cluster.
pub(super) fn dns_rules(dns: &Dns<'_>) -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    // Of several stock identities one is enough in a suggestion: the one nearly every cluster has.
    let targets = match dns.source {
        crate::reach::DnsSource::WellKnown => dns.targets.get(..1).unwrap_or_default(),
        crate::reach::DnsSource::Service
        | crate::reach::DnsSource::ServiceWithoutPods
        | crate::reach::DnsSource::Addresses => dns.targets.as_slice(),
    };
    for target in targets {
        if target.workload.host_network {
            // Selectors do not reach a pod on its node's network; its address does.
            rules.extend(address_rule(&target.workload.ips));
            continue;
        }
        let labels = match target.service.and_then(|service| service.selector.as_ref()) {
            Some(selector) => selector.clone(),
            None => target.workload.labels.clone(),
        };
        let rule = PolicyRule {
            peers: Some(vec![PeerSpec::Pods {
                namespaces: Some(Selector::from(&Labels::from([(METADATA_NAME, target.workload.namespace.as_str())]))),
                pods: Selector::from(&labels),
                pods_written: true,
            }]),
            ports: Some(ports(target)),
        };
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules.extend(address_rule(&dns.addresses));
    rules
}

/// Policies that let every pod of the cluster ask the DNS pods of a namespace: one for each set of
/// labels these are found by.
pub(super) fn admit_dns_clients(dns: &Dns<'_>, namespace: &Str, names: &mut FreeNames<'_>) -> Vec<NetworkPolicy> {
    let mut policies: Vec<NetworkPolicy> = Vec::new();
    for target in dns.targets.iter().filter(|target| target.workload.namespace == *namespace) {
        let labels = match target.service.and_then(|service| service.selector.as_ref()) {
            Some(selector) => selector,
            None => &target.workload.labels,
        };
        let pods = Selector::from(labels);
        if policies.iter().any(|policy| policy.pods == pods) {
            continue;
        }
        let everyone = PeerSpec::Pods {
            namespaces: Some(Selector::everything()),
            pods: Selector::everything(),
            pods_written: false,
        };
        let ingress_only = Directions { ingress: true, egress: false };
        let mut policy = isolating(namespace, names.next("admit-dns-clients"), pods, ingress_only, Vec::new());
        policy.ingress = vec![PolicyRule { peers: Some(vec![everyone]), ports: Some(ports(target)) }];
        policies.push(policy);
    }
    policies
}

/// The ports a DNS pod answers on. TCP carries answers that do not fit a datagram, so it is among
/// them even where the Service forgets to name it.
fn ports(target: &DnsTarget<'_>) -> Vec<PortSpec> {
    let ports = [(Protocol::Udp, target.udp), (Protocol::Tcp, target.tcp.or(target.udp))];
    let known = ports.into_iter().filter_map(|(protocol, port)| Some((protocol, port?)));
    known.map(|(protocol, port)| PortSpec { protocol, port: Port::Range(port, port) }).collect()
}

/// Adds the rules that are not there yet.
pub(super) fn add_rules(rules: &mut Vec<PolicyRule>, more: Vec<PolicyRule>) {
    for rule in more {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
}

/// A policy that isolates pods in these directions and admits these egress rules.
pub(super) fn isolating(
    namespace: &Str,
    name: Str,
    pods: Selector,
    isolates: Directions,
    egress: Vec<PolicyRule>,
) -> NetworkPolicy {
    NetworkPolicy {
        namespace: namespace.clone(),
        name,
        created: None,
        lifetime: Lifetime::default(),
        pods,
        isolates,
        ingress: Vec::new(),
        egress,
        is_partial: false,
    }
}
