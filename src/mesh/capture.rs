//! Traffic that never passes the proxy: no policy counts for it, STRICT included.

use std::collections::BTreeMap;

use super::{Authority, Dataplane, Effective, Mode, Setting};
use crate::model::{PROXY_CONFIG, Workload};

const INCLUDE_PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";
const EXCLUDE_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
const EXCLUDE_INTERFACES: &str = "traffic.sidecar.istio.io/excludeInterfaces";
const INTERCEPTION_MODE: &str = "sidecar.istio.io/interceptionMode";
const AMBIENT_BYPASS: &str = "ambient.istio.io/bypass-inbound-capture";

/// What comes in by these interfaces is taken for what the pod sends, and so past every rule about
/// what comes in (`istio-iptables`, `RerouteVirtualInterfaces`; the same in ambient).
const REROUTED_INTERFACES: [&str; 2] =
    ["istio.io/reroute-virtual-interfaces", "traffic.sidecar.istio.io/kubevirtInterfaces"];

/// The proxy's own ports (status, health, telemetry), which the injector excludes for every pod.
const PROXY_PORTS: [u16; 3] = [15020, 15021, 15090];

/// How many ports of an annotation's list are told apart. An annotation has room for tens of thousands,
/// and each would be told of for each pod. A longer list of exclusions counts as all ports, and of a
/// longer list of inclusions the rest is not captured. Real lists have a handful.
const MOST_PORTS: usize = 100;

/// The interface kubelet has every container runtime give a pod; others are secondary networks.
const POD_INTERFACE: &str = "eth0";

/// What is accepted once a workload's annotations have taken ports from the proxy.
pub(super) fn uncaptured<'a>(effective: Effective<'a>, workload: &Workload, dataplane: Dataplane) -> Effective<'a> {
    if workload.annotations.is_empty() {
        return effective;
    }
    match dataplane {
        Dataplane::Sidecar => past_the_sidecar(effective, workload),
        Dataplane::Ambient => {
            if workload.annotations.get(AMBIENT_BYPASS).is_some_and(|value| is_true(value)) {
                return all_bypassed(AMBIENT_BYPASS);
            }
            match rerouted(workload) {
                Some(annotation) => all_bypassed(annotation),
                None => effective,
            }
        }
        Dataplane::Outside | Dataplane::Unknown => effective,
    }
}

fn past_the_sidecar<'a>(mut effective: Effective<'a>, workload: &Workload) -> Effective<'a> {
    let annotation = |key: &str| workload.annotations.get(key);
    match (annotation(INTERCEPTION_MODE), annotation(PROXY_CONFIG)) {
        (Some(mode), _) if mode == "NONE" => return all_bypassed(INTERCEPTION_MODE),
        // The annotation counts before the proxy's configuration.
        (None, Some(config)) if config == "interceptionMode: NONE" => return all_bypassed(PROXY_CONFIG),
        _ => {}
    }
    if annotation(EXCLUDE_INTERFACES).is_some_and(|list| names_the_pod_interface(list)) {
        return all_bypassed(EXCLUDE_INTERFACES);
    }
    if let Some(annotation) = rerouted(workload) {
        return all_bypassed(annotation);
    }
    match annotation(INCLUDE_PORTS) {
        // An empty list captures nothing; exclusions count only where everything is captured.
        Some(list) if list.trim() != "*" => {
            let included = ports(list).take(MOST_PORTS).map(|port| (port, effective.port(port)));
            Effective { ports: included.collect(), ..all_bypassed(INCLUDE_PORTS) }
        }
        _ => {
            let excluded = annotation(EXCLUDE_PORTS).into_iter().flat_map(|list| ports(list));
            for (count, port) in excluded.filter(|port| !PROXY_PORTS.contains(port)).enumerate() {
                if count == MOST_PORTS {
                    return all_bypassed(EXCLUDE_PORTS);
                }
                effective.ports.insert(port, bypassed(EXCLUDE_PORTS));
            }
            effective
        }
    }
}

fn rerouted(workload: &Workload) -> Option<&'static str> {
    let names_it = |key: &&str| workload.annotations.get(key).is_some_and(|list| names_the_pod_interface(list));
    REROUTED_INTERFACES.into_iter().find(names_it)
}

/// Whether a list of interfaces has the pod's own. iptables takes a `+` at the end for any rest.
fn names_the_pod_interface(list: &str) -> bool {
    list.split(',').map(str::trim).any(|name| match name.strip_suffix('+') {
        Some(start) => POD_INTERFACE.starts_with(start),
        None => name == POD_INTERFACE,
    })
}

/// Go's `strconv.ParseBool`, by which the node's agent reads an annotation.
fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// The ports of a list. The injector refuses a pod with anything else in it.
fn ports(list: &str) -> impl Iterator<Item = u16> {
    list.split(',').filter_map(|port| port.trim().parse().ok())
}

fn bypassed<'a>(annotation: &'static str) -> Setting<'a> {
    Setting { mode: Mode::Bypassed, by: Authority::Annotation(annotation) }
}

fn all_bypassed<'a>(annotation: &'static str) -> Effective<'a> {
    Effective { default: bypassed(annotation), ports: BTreeMap::new() }
}
