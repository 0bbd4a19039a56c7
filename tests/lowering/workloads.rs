//! Namespaces, pods and everything with a pod template.

use portcullis::k8s::{Kind, TypeName, lower_json};
use portcullis::model::{ContainerPort, DnsPolicy, Labels, NamedProxy, Object, Owner, Workload, WorkloadId};
use portcullis::netset::Protocol;

use crate::{lower, problems, workload};

/// A pod with this spec.
fn pod(spec: &str) -> Workload {
    workload(&text(spec))
}

fn text(spec: &str) -> String {
    format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: x}}, spec: {{{spec}}}}}")
}

#[test]
fn every_kind_with_pods_is_read_from_its_template() {
    let template = "metadata: {labels: {app: cart}, annotations: {sidecar.istio.io/inject: 'true', other: x}}, spec: {hostNetwork: true, containers: [{name: c, ports: [{containerPort: 80}]}]}";
    for (version, kind, spec) in [
        ("v1", "ReplicationController", format!("template: {{{template}}}")),
        ("apps/v1", "Deployment", format!("template: {{{template}}}")),
        ("apps/v1", "StatefulSet", format!("template: {{{template}}}")),
        ("apps/v1", "DaemonSet", format!("template: {{{template}}}")),
        ("apps/v1", "ReplicaSet", format!("template: {{{template}}}")),
        ("batch/v1", "Job", format!("template: {{{template}}}")),
        ("batch/v1", "CronJob", format!("jobTemplate: {{spec: {{template: {{{template}}}}}}}")),
    ] {
        let text = format!(
            "{{apiVersion: {version}, kind: {kind}, metadata: {{name: w, labels: {{not: these}}}}, spec: {{{spec}}}}}"
        );
        let read = workload(&text);
        assert_eq!((read.id.kind.as_str(), read.id.name.as_str(), read.namespace.as_str()), (kind, "w", "default"));
        assert_eq!(read.labels, Labels::from([("app", "cart")]), "{kind}");
        assert_eq!(read.annotations, Labels::from([("sidecar.istio.io/inject", "true")]), "{kind}");
        assert_eq!((read.ports.len(), read.host_network, read.is_finished), (1, true, false), "{kind}");
        assert_eq!(problems(&text), [""; 0], "{kind}");
    }
    let pod = workload("{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {app: cart}}}");
    assert_eq!(pod.labels, Labels::from([("app", "cart")]));
}

#[test]
fn what_finished_is_marked() {
    let is_finished = |kind: &str, rest: &str| {
        let version = if kind == "Pod" {
            "v1"
        } else if kind == "Job" {
            "batch/v1"
        } else {
            "apps/v1"
        };
        workload(&format!("{{apiVersion: {version}, kind: {kind}, {rest}}}")).is_finished
    };
    for (phase, finished) in
        [("Succeeded", true), ("Failed", true), ("Running", false), ("Pending", false), ("New", false)]
    {
        assert_eq!(
            is_finished("Pod", &format!("metadata: {{name: p}}, status: {{phase: {phase}}}")),
            finished,
            "{phase}"
        );
    }
    for (condition, finished) in [
        ("{type: Complete, status: 'True'}", true),
        ("{type: Failed, status: 'True'}", true),
        ("{type: Complete, status: 'False'}", false),
        ("{type: Suspended, status: 'True'}", false),
        ("{type: Suspended, status: 'False'}, {type: Failed, status: 'True'}", true),
    ] {
        let rest = format!("metadata: {{name: j}}, status: {{conditions: [{condition}]}}");
        assert_eq!(is_finished("Job", &rest), finished, "{condition}");
    }
    assert!(!is_finished("Deployment", "metadata: {name: d}, spec: {replicas: 0}"));
}

#[test]
fn a_replica_set_of_no_replicas_is_idle_and_not_finished() {
    let set = |kind: &str, replicas: &str| {
        workload(&format!("{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: r}}, spec: {{{replicas}}}}}"))
    };
    let idle = set("ReplicaSet", "replicas: 0");
    assert!(idle.is_idle && !idle.is_finished);
    for (kind, replicas) in [("ReplicaSet", "replicas: 1"), ("ReplicaSet", ""), ("Deployment", "replicas: 0")] {
        assert!(!set(kind, replicas).is_idle, "{kind} {replicas}");
    }
}

#[test]
fn ports_of_containers_that_serve_are_read() {
    let ports = |spec: &str| pod(spec).ports.iter().map(|port| port.number).collect::<Vec<_>>();
    assert_eq!(
        ports("containers: [{ports: [{containerPort: 1}]}, {ports: [{containerPort: 2}, {containerPort: 3}]}]"),
        [1, 2, 3]
    );
    assert_eq!(ports("containers: [], initContainers: [{ports: [{containerPort: 4}]}]"), [0_u16; 0]);
    assert_eq!(ports("initContainers: [{restartPolicy: Always, ports: [{containerPort: 5}]}]"), [5]);
    assert_eq!(ports("containers: null"), [0_u16; 0]);
    let named = |name: &str, protocol| ContainerPort { name: Some(name.into()), protocol, number: 53 };
    assert_eq!(
        pod("containers: [{ports: [{name: dns, containerPort: 53, protocol: UDP}, {name: dns-tcp, containerPort: 53, protocol: ''}]}]").ports,
        [named("dns", Protocol::Udp), named("dns-tcp", Protocol::Tcp)]
    );
}

#[test]
fn ports_of_no_meaning_are_said_with_their_place() {
    assert_eq!(
        problems(&text(
            "containers: [{}, {ports: [{containerPort: 80}, {containerPort: 0}]}], initContainers: [{restartPolicy: Always, ports: [{containerPort: 1, protocol: icmp}]}]"
        )),
        [
            "spec.containers[1].ports[1].containerPort: 0 is no port: ports are 1 to 65535",
            "spec.initContainers[0].ports[0].protocol: unknown protocol: TCP, UDP and SCTP are supported",
        ]
    );
}

#[test]
fn where_names_are_resolved() {
    for (spec, policy) in [
        ("", DnsPolicy::ClusterFirst),
        ("dnsPolicy: null", DnsPolicy::ClusterFirst),
        ("dnsPolicy: ''", DnsPolicy::ClusterFirst),
        ("dnsPolicy: ClusterFirst", DnsPolicy::ClusterFirst),
        ("dnsPolicy: ClusterFirstWithHostNet", DnsPolicy::ClusterFirstWithHostNet),
        ("dnsPolicy: Default", DnsPolicy::Default),
        ("dnsPolicy: None", DnsPolicy::None),
    ] {
        assert_eq!(pod(spec).dns_policy, policy, "{spec}");
        assert_eq!(problems(&text(spec)), [""; 0], "{spec}");
    }
    assert_eq!(pod("dnsPolicy: clusterFirst").dns_policy, DnsPolicy::Unknown);
    assert_eq!(problems(&text("dnsPolicy: clusterFirst")).len(), 1);
    let own = "dnsPolicy: None, dnsConfig: {nameservers: [10.0.0.10, '::1', dns.example], searches: [a], options: [{name: ndots}]}";
    assert_eq!(pod(own).nameservers.len(), 2);
    assert_eq!(problems(&text(own)), ["spec.dnsConfig.nameservers[2]: `dns.example` is no IP address"]);
}

#[test]
fn addresses_are_read_once() {
    let pod = workload(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: '2001:db8::1'}, {}]}}",
    );
    assert_eq!(pod.ips.len(), 2);
    assert!(workload("{apiVersion: v1, kind: Pod, metadata: {name: p}, status: {}}").ips.is_empty());
}

#[test]
fn only_a_controller_owns() {
    let owner = |references: &str| {
        workload(&format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p, ownerReferences: {references}}}}}")).owner
    };
    let cart = Some(Owner { group: None, id: WorkloadId { kind: "ReplicaSet".into(), name: "cart".into() } });
    assert_eq!(owner("[{kind: Node, name: node-1}, {kind: ReplicaSet, name: cart, controller: true}]"), cart);
    for none in ["null", "[]", "[{kind: Node, name: node-1}]", "[{kind: Node, name: node-1, controller: false}]"] {
        assert_eq!(owner(none), None, "{none}");
    }
}

#[test]
fn an_owner_of_the_same_kind_in_another_group_is_another() {
    let owner = |version: &str, kind: &str| {
        let references = format!("[{{apiVersion: {version}, kind: {kind}, name: cart, controller: true}}]");
        let pod = format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p, ownerReferences: {references}}}}}");
        workload(&pod).owner.unwrap()
    };
    for (version, kind) in [("apps/v1", "StatefulSet"), ("batch/v1", "Job"), ("v1", "ReplicationController")] {
        assert_eq!(owner(version, kind).workload().map(|id| id.kind.as_str()), Some(kind));
    }
    for (version, kind) in [("apps.kruise.io/v1", "StatefulSet"), ("v1", "Deployment"), ("v1", "ConfigMap")] {
        assert_eq!(owner(version, kind).workload(), None, "{version} {kind}");
    }
}

#[test]
fn a_proxy_is_seen_in_either_list() {
    for (spec, proxy) in [
        ("containers: [{name: istio-proxy}]", NamedProxy::Alone),
        ("containers: [{name: app}, {name: istio-proxy}]", NamedProxy::Beside),
        ("containers: [{name: app}], initContainers: [{name: istio-proxy, restartPolicy: Always}]", NamedProxy::Beside),
        ("containers: [{name: app}], initContainers: [{name: istio-init}]", NamedProxy::None),
    ] {
        assert_eq!(pod(spec).proxy, proxy, "{spec}");
    }
}

#[test]
fn an_init_container_that_ends_is_no_proxy() {
    for policy in ["", ", restartPolicy: Never", ", restartPolicy: OnFailure"] {
        let spec = format!("containers: [{{name: app}}], initContainers: [{{name: istio-proxy{policy}}}]");
        assert_eq!(pod(&spec).proxy, NamedProxy::None, "{spec}");
    }
}

#[test]
fn of_a_proxys_configuration_the_interception_is_kept_however_it_is_written() {
    for (written, kept) in [
        ("{interceptionMode: NONE, concurrency: 2}", Some("interceptionMode: NONE")),
        ("{\"interceptionMode\": \"NONE\"}", Some("interceptionMode: NONE")),
        ("{interception_mode: NONE}", Some("interceptionMode: NONE")),
        ("{interceptionMode: 2}", Some("interceptionMode: NONE")),
        ("{interceptionMode: TPROXY}", Some("interceptionMode: TPROXY")),
        ("{concurrency: 2}", None),
        ("[", None),
        ("", None),
    ] {
        let text = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p, annotations: {{proxy.istio.io/config: '{written}'}}}}}}"
        );
        assert_eq!(workload(&text).annotations.get("proxy.istio.io/config").map(|it| &**it), kept, "{written}");
    }
}

#[test]
fn an_object_without_a_name_goes_by_its_prefix_or_is_said() {
    let named = |metadata: &str| workload(&format!("{{apiVersion: v1, kind: Pod, metadata: {{{metadata}}}}}")).id.name;
    assert_eq!(named("generateName: job-"), "job-*");
    assert_eq!(named("name: a, generateName: job-"), "a");
    assert_eq!(named("name: '', generateName: job-"), "job-*");
    assert_eq!(problems("{apiVersion: v1, kind: Pod, metadata: {}}"), ["metadata.name: the object has no name"]);
    assert_eq!(problems("{apiVersion: v1, kind: Pod}"), [": missing field `metadata`"]);
}

#[test]
fn a_workload_of_another_shape_keeps_what_can_be_read() {
    let text = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: x}, spec: {template: {metadata: {labels: {app: cart, n: 1}}, spec: {hostNetwork: true, containers: [{ports: [{containerPort: '80'}]}]}}}}";
    let read = workload(text);
    assert_eq!((read.id.name.as_str(), read.namespace.as_str()), ("d", "x"));
    assert_eq!(read.labels, Labels::from([("app", "cart")]));
    assert!(read.host_network && read.is_partial);
    assert_eq!(read.dns_policy, DnsPolicy::Unknown);
    assert_eq!(problems(text).len(), 1);
}

#[test]
fn what_no_rule_reads_of_a_pod_may_be_broken() {
    let text = text("containers: [{name: c, resources: {limits: {cpu: [1]}}, env: 7}], volumes: nonsense, unknown: {}");
    assert_eq!(problems(&text), [""; 0]);
}

#[test]
fn a_namespace_has_the_label_of_its_name() {
    let namespace = |rest: &str| match lower(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: shop{rest}}}"
    ))
    .object
    {
        Some(Object::Namespace(it)) => it,
        other => panic!("{other:?}"),
    };
    let label = "kubernetes.io/metadata.name";
    assert!(namespace("}").labels.has(label, "shop"));
    assert!(namespace(&format!(", labels: {{{label}: other}}}}")).labels.has(label, "shop"));
    assert!(!namespace("}").is_terminating && !namespace(", deletionTimestamp: null}").is_terminating);
    assert!(namespace("}, status: {phase: Terminating}").is_terminating);
    assert!(namespace(", deletionTimestamp: '2026-01-01T00:00:00Z'}").is_terminating);
    assert!(namespace(", creationTimestamp: '2026-01-01T00:00:00Z'}").created.is_some());
    for none in [", creationTimestamp: null}", ", creationTimestamp: ''}", ", creationTimestamp: yesterday}"] {
        assert_eq!(namespace(none).created, None, "{none}");
    }
}

#[test]
fn the_kind_of_a_text_is_given_and_that_of_a_value_is_its_own() {
    let text = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"p"}}"#;
    let lowered = lower_json(TypeName { group: "", kind: "Pod" }, text, "x");
    assert!(matches!(lowered.object, Some(Object::Workload(_))));
    assert!(lower("{apiVersion: v1, kind: Secret, metadata: {name: p}}").object.is_none());
}

#[test]
fn a_kind_is_known_by_its_group() {
    assert_eq!(Kind::of("", "Pod"), Some(Kind::Workload));
    for (group, kind) in
        [("apps", "Pod"), ("", "Deployment"), ("extensions", "NetworkPolicy"), ("", "pod"), ("x", "Namespace")]
    {
        assert_eq!(Kind::of(group, kind), None, "{group}/{kind}");
    }
    for version in ["apps/v1", "apps/v1beta2", "apps/v9"] {
        assert!(lower(&format!("{{apiVersion: {version}, kind: Deployment, metadata: {{name: d}}}}")).object.is_some());
    }
}
