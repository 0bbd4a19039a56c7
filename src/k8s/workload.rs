//! Pods and everything with a pod template.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::meta::{Identity, Meta};
use super::policy::{port_number, protocol};
use super::read::{Many, Source};
use super::{Lowered, Problem, Read};
use crate::model::{
    ContainerPort, DnsPolicy, FieldPath, Labels, MESH_ANNOTATIONS, NamedProxy, Object, PROXY_CONFIG, Str, Workload,
    WorkloadId,
};
use crate::yaml;

#[derive(Deserialize)]
struct PodWritten {
    metadata: Meta,
    spec: Option<PodSpec>,
    status: Option<PodStatus>,
}

/// A kind with its template at `spec.template`.
#[derive(Deserialize)]
struct TemplateWritten {
    metadata: Meta,
    spec: Option<TemplateSpec>,
    status: Option<JobStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TemplateSpec {
    replicas: Option<i64>,
    template: Option<Template>,
    job_template: Option<JobTemplate>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobTemplate {
    spec: Option<JobSpec>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobSpec {
    template: Option<Template>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Template {
    metadata: Option<Meta>,
    spec: Option<PodSpec>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    containers: Option<Many<Container>>,
    init_containers: Option<Many<Container>>,
    host_network: Option<bool>,
    dns_policy: Option<Str>,
    dns_config: Option<DnsConfig>,
    termination_grace_period_seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: Option<Str>,
    ports: Option<Many<PortWritten>>,
    restart_policy: Option<Str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortWritten {
    name: Option<Str>,
    protocol: Option<Str>,
    container_port: i32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DnsConfig {
    nameservers: Option<Many<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus {
    phase: Option<Str>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Many<PodIp>>,
}

#[derive(Deserialize)]
struct PodIp {
    #[serde(default)]
    ip: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobStatus {
    conditions: Option<Many<Condition>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: Str,
    status: Str,
}

pub(super) fn lower<'a>(kind: &str, source: impl Source<'a>, namespace: &str) -> Read {
    let mut problems = Vec::new();
    let workload = if kind == "Pod" {
        let PodWritten { metadata, spec, status } = source.read()?;
        let status = status.unwrap_or_default();
        let mut workload =
            pod(kind, &metadata, &metadata, spec.unwrap_or_default(), namespace, &FieldPath::root(), &mut problems);
        workload.is_finished = status.phase.as_deref().is_some_and(|phase| phase == "Succeeded" || phase == "Failed");
        let listed = status.pod_ips.into_iter().flatten().map(|pod_ip| pod_ip.ip);
        workload.ips = status.pod_ip.into_iter().chain(listed).filter_map(|ip| ip.parse().ok()).collect();
        workload.ips.sort_unstable();
        workload.ips.dedup();
        workload
    } else {
        let TemplateWritten { metadata, spec, status } = source.read()?;
        let spec = spec.unwrap_or_default();
        let path = FieldPath::new(if kind == "CronJob" { "spec.jobTemplate.spec.template" } else { "spec.template" });
        let template = match kind {
            "CronJob" => spec.job_template.and_then(|job| job.spec).and_then(|spec| spec.template),
            _ => spec.template,
        };
        let Template { metadata: pod_metadata, spec: pod_spec } = template.unwrap_or_default();
        let (pod_metadata, pod_spec) = (pod_metadata.unwrap_or_default(), pod_spec.unwrap_or_default());
        let mut workload = pod(kind, &metadata, &pod_metadata, pod_spec, namespace, &path, &mut problems);
        let mut conditions = status.unwrap_or_default().conditions.into_iter().flatten();
        let has_ended = |it: Condition| (it.kind == "Complete" || it.kind == "Failed") && it.status == "True";
        workload.is_finished = kind == "Job" && conditions.any(has_ended);
        workload.is_idle = kind == "ReplicaSet" && spec.replicas == Some(0);
        workload.is_scaled_to_zero = kind != "ReplicaSet" && spec.replicas == Some(0);
        workload
    };
    Ok(Lowered { object: Some(Object::Workload(Arc::new(workload))), problems })
}

fn pod(
    kind: &str,
    metadata: &Meta,
    pod_metadata: &Meta,
    spec: PodSpec,
    namespace: &str,
    path: &FieldPath,
    problems: &mut Vec<Problem>,
) -> Workload {
    let spec_path = path.field("spec");
    let PodSpec {
        containers,
        init_containers,
        host_network,
        dns_policy,
        dns_config,
        termination_grace_period_seconds: grace,
    } = spec;
    let containers = containers.unwrap_or_default();
    let init_containers = init_containers.unwrap_or_default();
    let mut ports = Vec::new();
    let (mut has_proxy, mut has_others) = (false, false);
    for (field, list) in [("containers", &containers), ("initContainers", &init_containers)] {
        // An ordinary init container is gone before the pod serves; one that restarts is a sidecar.
        let serves = |it: &&Container| field == "containers" || it.restart_policy.as_deref() == Some("Always");
        for (c, container) in list.iter().enumerate().filter(|(_, it)| serves(it)) {
            let is_proxy = container.name.as_deref() == Some("istio-proxy");
            (has_proxy, has_others) = (has_proxy || is_proxy, has_others || !is_proxy);
            for (p, written) in container.ports.iter().flatten().enumerate() {
                match container_port(written) {
                    Ok(port) => ports.push(port),
                    Err((at, message)) => {
                        let path = spec_path.field(field).index(c).field("ports").index(p).field(at);
                        problems.push(Problem::new(path, message));
                    }
                }
            }
        }
    }
    let proxy = match (has_proxy, has_others) {
        (false, _) => NamedProxy::None,
        (true, true) => NamedProxy::Beside,
        (true, false) => NamedProxy::Alone,
    };
    let dns_policy = match dns_policy.as_deref() {
        None | Some("" | "ClusterFirst") => DnsPolicy::ClusterFirst,
        Some("ClusterFirstWithHostNet") => DnsPolicy::ClusterFirstWithHostNet,
        Some("Default") => DnsPolicy::Default,
        Some("None") => DnsPolicy::None,
        Some(other) => {
            let message = format!("unknown policy `{other}`: where these pods resolve names is not known");
            problems.push(Problem::new(spec_path.field("dnsPolicy"), message));
            DnsPolicy::Unknown
        }
    };
    let mut nameservers = Vec::new();
    for (i, text) in dns_config.and_then(|config| config.nameservers).into_iter().flatten().enumerate() {
        match text.parse::<IpAddr>() {
            Ok(address) => nameservers.push(address),
            Err(_) => problems.push(Problem::new(
                spec_path.field("dnsConfig").field("nameservers").index(i),
                format!("`{text}` is no IP address"),
            )),
        }
    }
    Workload {
        id: WorkloadId { kind: kind.into(), name: metadata.name() },
        namespace: metadata.namespace(namespace),
        uid: metadata.uid(),
        labels: pod_metadata.labels(),
        annotations: mesh_annotations(pod_metadata),
        owner: metadata.controller(),
        ending: metadata.ending(kind == "Pod", grace),
        ports,
        host_network: host_network.unwrap_or(false),
        dns_policy,
        nameservers,
        ips: Vec::new(),
        is_finished: false,
        is_idle: false,
        is_scaled_to_zero: false,
        proxy,
        is_partial: !problems.is_empty(),
    }
}

/// The annotations that decide about a pod's mesh.
fn mesh_annotations(metadata: &Meta) -> Labels {
    let annotations = metadata.annotations(&MESH_ANNOTATIONS);
    match annotations.get(PROXY_CONFIG) {
        None => annotations,
        Some(written) => {
            let kept = interception_mode(written).map(|mode| (PROXY_CONFIG.into(), mode));
            let others = annotations.iter().filter(|(key, _)| *key != PROXY_CONFIG);
            others.map(|(key, value)| (key.clone(), value.clone())).chain(kept).collect()
        }
    }
}

/// `interceptionMode: …` where a proxy's configuration sets it, as YAML or JSON of protobuf spells it.
fn interception_mode(written: &str) -> Option<Str> {
    let document = yaml::parse(written).into_iter().next()?.ok()?.value();
    let mode = document.get("interceptionMode").or_else(|| document.get("interception_mode"))?;
    let mode = match mode {
        Value::String(mode) => mode.clone(),
        Value::Number(number) if number.as_u64() == Some(2) => "NONE".to_owned(),
        other => other.to_string(),
    };
    Some(format!("interceptionMode: {mode}").into())
}

fn container_port(written: &PortWritten) -> Result<ContainerPort, (&'static str, String)> {
    let PortWritten { name, protocol, container_port } = written;
    let number = port_number(*container_port)
        .ok_or_else(|| ("containerPort", format!("{container_port} is no port: ports are 1 to 65535")))?;
    let protocol = self::protocol(protocol.as_deref())
        .ok_or_else(|| ("protocol", "unknown protocol: TCP, UDP and SCTP are supported".to_owned()))?;
    Ok(ContainerPort { name: name.clone(), protocol, number })
}

/// What is left of a workload whose shape cannot be read: its name, the labels that are texts, and
/// whether it is on its node's network. It runs all the same, so it is not left out.
pub(super) fn unreadable<'a>(kind: &str, source: impl Source<'a>, namespace: &str) -> Option<Object> {
    #[derive(Deserialize)]
    struct Written {
        metadata: Identity,
    }
    let Written { metadata } = source.read().ok()?;
    // A value of any shape takes many times the memory of its text.
    let object: Value = if source.is_large() { Value::Null } else { source.read().ok()? };
    let workload = Workload::bare(kind, &metadata.namespace(namespace), &metadata.name(), Labels::default());
    let pod = match workload.pod_path().as_str() {
        "" => Some(&object),
        path => object.pointer(&format!("/{}", path.replace('.', "/"))),
    };
    let labels = pod.and_then(|pod| pod.pointer("/metadata/labels")).and_then(Value::as_object);
    let labels = labels.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
    let host_network = pod.and_then(|pod| pod.pointer("/spec/hostNetwork")) == Some(&Value::Bool(true));
    Some(Object::Workload(Arc::new(Workload {
        labels: labels.collect(),
        host_network,
        dns_policy: DnsPolicy::Unknown,
        is_partial: true,
        ..workload
    })))
}
