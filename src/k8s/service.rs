//! Services.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta::Meta;
use super::policy::port_number;
use super::read::Source;
use super::{Read, Written as WrittenLabels, done, labels};
use crate::model::{Object, Service, ServicePort, TargetPort};
use crate::netset::Protocol;

#[derive(Deserialize)]
struct Written {
    metadata: Meta,
    spec: Option<Spec>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    selector: Option<WrittenLabels>,
    ports: Option<Vec<Port>>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
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
    let ports = spec.ports.into_iter().flatten().filter_map(|written| {
        let port = port_number(written.number)?;
        Some(ServicePort {
            protocol: written.protocol.as_deref().unwrap_or("TCP").parse().unwrap_or(Protocol::Tcp),
            port,
            target: match written.target {
                // Zero is what an unset target port decodes to: the same as the Service's port.
                None | Some(IntOrString::Int(0)) => TargetPort::Number(port),
                Some(IntOrString::Int(number)) => TargetPort::Number(port_number(number)?),
                Some(IntOrString::String(name)) => match name.parse() {
                    Ok(number) => TargetPort::Number(number),
                    Err(_) => TargetPort::Name(name.into()),
                },
            },
        })
    });
    let cluster_ips = spec.cluster_ip.into_iter().chain(spec.cluster_ips.into_iter().flatten());
    let mut cluster_ips: Vec<IpAddr> = cluster_ips.filter_map(|ip| ip.parse().ok()).collect();
    cluster_ips.sort_unstable();
    cluster_ips.dedup();
    Ok(done(Object::Service(Arc::new(Service {
        namespace: metadata.namespace(namespace),
        name: metadata.name(),
        labels: metadata.labels(),
        selector: spec.selector.as_ref().map(|written| labels(Some(written))).filter(|labels| !labels.is_empty()),
        ports: ports.collect(),
        cluster_ips,
    }))))
}
