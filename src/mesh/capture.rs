//! Traffic that never passes the proxy: no policy counts for it, STRICT included.

use std::collections::BTreeMap;

use super::{Authority, Dataplane, Effective, Mode, Setting};
use crate::model::Workload;

const INCLUDE_PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";
const EXCLUDE_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
const EXCLUDE_INTERFACES: &str = "traffic.sidecar.istio.io/excludeInterfaces";
const INTERCEPTION_MODE: &str = "sidecar.istio.io/interceptionMode";
const AMBIENT_BYPASS: &str = "ambient.istio.io/bypass-inbound-capture";

/// The proxy's own ports (status, health, telemetry), which the injector excludes for every pod.
const PROXY_PORTS: [u16; 3] = [15020, 15021, 15090];

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
            if workload.annotations.has(AMBIENT_BYPASS, "true") {
                return all_bypassed(AMBIENT_BYPASS);
            }
            effective
        }
        Dataplane::Outside | Dataplane::Unknown => effective,
    }
}

fn past_the_sidecar<'a>(mut effective: Effective<'a>, workload: &Workload) -> Effective<'a> {
    let annotation = |key: &str| workload.annotations.get(key);
    if annotation(INTERCEPTION_MODE).is_some_and(|mode| mode == "NONE") {
        return all_bypassed(INTERCEPTION_MODE);
    }
    if annotation(EXCLUDE_INTERFACES).is_some_and(|list| list.split(',').any(|it| it.trim() == POD_INTERFACE)) {
        return all_bypassed(EXCLUDE_INTERFACES);
    }
    match annotation(INCLUDE_PORTS) {
        // An empty list captures nothing; exclusions count only where everything is captured.
        Some(list) if list.trim() != "*" => {
            let included = ports(list).map(|port| (port, effective.port(port)));
            Effective { ports: included.collect(), ..all_bypassed(INCLUDE_PORTS) }
        }
        _ => {
            let excluded = annotation(EXCLUDE_PORTS).into_iter().flat_map(|list| ports(list));
            for port in excluded.filter(|port| !PROXY_PORTS.contains(port)) {
                effective.ports.insert(port, bypassed(EXCLUDE_PORTS));
            }
            effective
        }
    }
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
