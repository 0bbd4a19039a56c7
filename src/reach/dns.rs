//! Where cluster DNS is: the pods and ports behind the DNS Service, or what the configuration says.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::model::{Labels, Service, Str, TargetPort, Workload, written};
use crate::netset::Protocol;

/// Where pods resolve names. Left empty, cluster DNS is found by its Service and its pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct DnsSettings {
    /// The DNS Services, in place of those found by their usual names.
    pub services: Vec<ServiceName>,
    /// Resolvers that are no pods: NodeLocal DNSCache (`169.254.20.10`), Cloud DNS on GKE
    /// (`169.254.169.254`), resolvers outside the cluster. Alone they replace the DNS Service;
    /// together with `services`, reaching any of either is enough.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpAddr>,
}

/// A Service by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceName {
    /// Its namespace.
    #[serde(deserialize_with = "written::name")]
    #[schemars(with = "String")]
    pub namespace: Str,
    /// Its name.
    #[serde(deserialize_with = "written::name")]
    #[schemars(with = "String")]
    pub name: Str,
}

/// Cluster DNS as it was found.
#[derive(Debug, PartialEq)]
pub struct Dns<'a> {
    /// The pods (or templates) that answer, with the ports they answer on.
    pub targets: Vec<DnsTarget<'a>>,
    /// Resolvers that are no pods.
    pub addresses: Vec<IpAddr>,
    /// How it was found.
    pub source: DnsSource,
}

/// How cluster DNS was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsSource {
    /// By a Service and the pods behind it.
    Service,
    /// By a Service whose pods are not known: they are taken to carry what its selector demands.
    ServiceWithoutPods,
    /// The configuration names addresses.
    Addresses,
    /// Nothing was found: the identities the distributions give it are taken for it.
    WellKnown,
}

/// One pod (or template) that answers DNS.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsTarget<'a> {
    /// The pod; a stand-in where only its labels are known.
    pub workload: Arc<Workload>,
    /// The Service in front of it, where it was found by one.
    pub service: Option<&'a Service>,
    /// The port it answers UDP on: the Service's *target* port.
    pub udp: Option<u16>,
    /// The port it answers TCP on.
    pub tcp: Option<u16>,
}

impl<'a> Dns<'a> {
    /// Finds cluster DNS.
    pub fn find(cluster: &'a Cluster, settings: &DnsSettings) -> Self {
        let services: Vec<&'a Service> = if settings.services.is_empty() {
            if !settings.addresses.is_empty() {
                return Self::at_addresses(settings);
            }
            let (system, other): (Vec<_>, Vec<_>) =
                cluster.dns_services().map(AsRef::as_ref).partition(|it: &&Service| keeps_cluster_dns(&it.namespace));
            // Anyone may call a Service `coredns`: those elsewhere count where there is no other.
            if system.is_empty() { other } else { system }
        } else {
            let named = settings.services.iter().filter_map(|it| cluster.service(&it.namespace, &it.name));
            named.map(AsRef::as_ref).collect()
        };
        let (mut targets, mut known) = (Vec::new(), BTreeSet::new());
        for service in &services {
            for workload in backends(cluster, service) {
                let identity = (&workload.namespace, &workload.id);
                if known.contains(&identity) {
                    continue;
                }
                if let Some(target) = DnsTarget::of(service, workload.clone()) {
                    known.insert(identity);
                    targets.push(target);
                }
            }
        }
        let mut source = DnsSource::Service;
        if targets.is_empty() {
            source = DnsSource::ServiceWithoutPods;
            // Who answers for a Service without a selector, its objects do not say.
            let selecting = services.iter().filter(|service| service.selector.is_some());
            targets.extend(selecting.filter_map(|service| DnsTarget::of(service, stand_in(service))));
        }
        if targets.is_empty() {
            if !settings.addresses.is_empty() {
                return Self::at_addresses(settings);
            }
            source = DnsSource::WellKnown;
            targets = well_known();
        }
        Self { targets, addresses: settings.addresses.clone(), source }
    }

    fn at_addresses(settings: &DnsSettings) -> Self {
        Self { targets: Vec::new(), addresses: settings.addresses.clone(), source: DnsSource::Addresses }
    }

    /// Whether a namespace holds pods of cluster DNS.
    pub fn is_in(&self, namespace: &str) -> bool {
        self.targets.iter().any(|target| target.workload.namespace == namespace)
    }

    /// Whether an address is a DNS Service's.
    pub fn is_cluster_ip(&self, address: IpAddr) -> bool {
        self.targets.iter().filter_map(|target| target.service).any(|service| service.cluster_ips.contains(&address))
    }
}

impl DnsTarget<'_> {
    fn of(service: &Service, workload: Arc<Workload>) -> Option<DnsTarget<'_>> {
        let port = |protocol| {
            let entry = service.ports.iter().find(|port| port.port == 53 && port.protocol == protocol)?;
            match &entry.target {
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => {
                    let named = |port: &&crate::model::ContainerPort| {
                        port.protocol == protocol && port.name.as_ref() == Some(name)
                    };
                    workload.ports.iter().find(named).map(|port| port.number)
                }
            }
        };
        let (udp, tcp) = (port(Protocol::Udp), port(Protocol::Tcp));
        (udp.is_some() || tcp.is_some()).then_some(DnsTarget { workload, service: Some(service), udp, tcp })
    }
}

/// The pods a Service sends its traffic to. Templates stand for pods to come, and are left out
/// where pods of theirs are known.
fn backends<'a>(cluster: &'a Cluster, service: &Service) -> Vec<&'a Arc<Workload>> {
    let Some(selector) = &service.selector else { return Vec::new() };
    let Some(state) = cluster.namespace(&service.namespace) else { return Vec::new() };
    let selected: Vec<_> = state.live_workloads().filter(|workload| selector.is_subset(&workload.labels)).collect();
    let has_pods = selected.iter().any(|workload| workload.is_pod());
    selected.into_iter().filter(|workload| workload.is_pod() || !has_pods).collect()
}

/// A pod that carries what a Service's selector demands, and of which no more is known. A named
/// target port is what OpenShift's `dns-default` has, whose pods listen on 5353.
fn stand_in(service: &Service) -> Arc<Workload> {
    let named = service.ports.iter().filter_map(|port| match &port.target {
        TargetPort::Name(name) => {
            Some((port.protocol, name.clone(), if service.name == "dns-default" { 5353 } else { 53 }))
        }
        TargetPort::Number(_) => None,
    });
    let labels = service.selector.clone().unwrap_or_default();
    let mut workload = Workload::bare("Deployment", &service.namespace, &service.name, labels);
    workload.ports = named
        .map(|(protocol, name, number)| crate::model::ContainerPort { name: Some(name), protocol, number })
        .collect();
    workload.is_partial = true;
    Arc::new(workload)
}

/// An identity a distribution gives cluster DNS: namespace, name, labels, port.
type Identity = (&'static str, &'static str, &'static [(&'static str, &'static str)], u16);

const WELL_KNOWN: &[Identity] = &[
    // kubeadm, kind, EKS, AKS, GKE, k3s, RKE2.
    ("kube-system", "kube-dns", &[("k8s-app", "kube-dns")], 53),
    // The CoreDNS chart with its own defaults, and Canonical Kubernetes.
    (
        "kube-system",
        "coredns",
        &[("k8s-app", "coredns"), ("app.kubernetes.io/name", "coredns"), ("app.kubernetes.io/instance", "coredns")],
        53,
    ),
    // OpenShift.
    ("openshift-dns", "dns-default", &[("dns.operator.openshift.io/daemonset-dns", "default")], 5353),
];

/// Whether a namespace is one the distributions keep cluster DNS in.
pub fn keeps_cluster_dns(namespace: &str) -> bool {
    WELL_KNOWN.iter().any(|(system, ..)| *system == namespace)
}

fn well_known<'a>() -> Vec<DnsTarget<'a>> {
    WELL_KNOWN
        .iter()
        .map(|(namespace, name, labels, port)| DnsTarget {
            workload: Arc::new(Workload {
                is_partial: true,
                ..Workload::bare("Deployment", namespace, name, labels.iter().copied().collect::<Labels>())
            }),
            service: None,
            udp: Some(*port),
            tcp: Some(*port),
        })
        .collect()
}
