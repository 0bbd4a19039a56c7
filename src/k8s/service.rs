//! Services.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta::Meta;
use super::policy::{is_port_name, not_a_port_name, port_number, protocol};
use super::read::{Many, Source};
use super::{Lowered, Problem, Read, Written as WrittenLabels, labels};
use crate::model::{FieldPath, Object, Service, ServicePort, TargetPort};

#[derive(Deserialize)]
struct Written {
    metadata: Meta,
    spec: Option<Spec>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    r#type: Option<String>,
    selector: Option<WrittenLabels>,
    ports: Option<Many<Port>>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Many<String>>,
}

#[derive(Deserialize)]
struct Port {
    protocol: Option<String>,
    #[serde(rename = "port")]
    number: i32,
    #[serde(rename = "targetPort")]
    target: Option<IntOrString>,
}

pub(super) fn lower<'a>(source: impl Source<'a>, namespace: &str) -> Read {
    let Written { metadata, spec } = source.read()?;
    let spec = spec.unwrap_or_default();
    let mut problems = Vec::new();
    let mut ports = Vec::new();
    for (i, written) in spec.ports.into_iter().flatten().enumerate() {
        match service_port(written) {
            Ok(port) => ports.push(port),
            Err((field, message)) => {
                problems.push(Problem::new(FieldPath::new("spec.ports").index(i).field(field), message));
            }
        }
    }
    let cluster_ips = spec.cluster_ip.into_iter().chain(spec.cluster_ips.into_iter().flatten());
    let mut cluster_ips: Vec<IpAddr> = cluster_ips.filter_map(|ip| ip.parse().ok()).collect();
    cluster_ips.sort_unstable();
    cluster_ips.dedup();
    let service = Service {
        namespace: metadata.namespace(namespace),
        name: metadata.name(),
        uid: metadata.uid(),
        labels: metadata.labels(),
        selector: spec.selector.as_ref().map(|written| labels(Some(written))).filter(|labels| !labels.is_empty()),
        ports,
        is_external_name: spec.r#type.as_deref() == Some("ExternalName"),
        cluster_ips,
    };
    Ok(Lowered { object: Some(Object::Service(Arc::new(service))), problems })
}

fn service_port(Port { protocol, number, target }: Port) -> Result<ServicePort, (&'static str, String)> {
    let no_port = |number: i32| format!("{number} is no port: ports are 1 to 65535");
    let port = port_number(number).ok_or_else(|| ("port", no_port(number)))?;
    let protocol = self::protocol(protocol.as_deref())
        .ok_or_else(|| ("protocol", "unknown protocol: TCP, UDP and SCTP are supported".to_owned()))?;
    let target = match target {
        // Zero is what an unset target port decodes to: the same as the Service's port.
        None | Some(IntOrString::Int(0)) => TargetPort::Number(port),
        Some(IntOrString::Int(number)) => {
            TargetPort::Number(port_number(number).ok_or_else(|| ("targetPort", no_port(number)))?)
        }
        Some(IntOrString::String(name)) if name.is_empty() => TargetPort::Number(port),
        Some(IntOrString::String(name)) if is_port_name(&name) => TargetPort::Name(name.into()),
        Some(IntOrString::String(name)) => return Err(("targetPort", not_a_port_name(&name))),
    };
    Ok(ServicePort { protocol, port, target })
}
