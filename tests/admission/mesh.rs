//! Ways out of a mesh that look like none, and ways to make a denial of one a doubt.

use crate::gate::{create, delete, gate, update};

/// A namespace in the mesh that demands mutual TLS, with a Deployment and a pod that runs.
fn shop(label: &str) -> String {
    let mesh = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, labels: {{{label}}}}}}}");
    [&mesh, INJECTOR, CONFIG, STRICT, &deployment("", ""), &pod("", "")].join("\n---\n")
}

const SIDECARS: &str = "istio-injection: enabled";
const AMBIENT: &str = "istio.io/dataplane-mode: ambient";

const INJECTOR: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: istio-sidecar-injector, labels: {istio.io/rev: default}}
webhooks:
- name: rev.namespace.sidecar-injector.istio.io
  clientConfig: {service: {name: istiod, namespace: istio-system, path: /inject}}
";

const CONFIG: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'rootNamespace: istio-system'}
";

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop, creationTimestamp: '2026-03-02T09:00:00Z'}
spec: {mtls: {mode: STRICT}}
";

const ISOLATED: &str = "rules: {missing-default-deny: {action: 'off'}, dns-blackhole: {action: 'off'}}";

/// A Deployment whose pods carry these labels and annotations, each ready to follow a comma.
fn deployment(labels: &str, annotations: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: cart, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: cart}}}}
  template:
    metadata: {{labels: {{app: cart{labels}}}, annotations: {{a: b{annotations}}}}}
    spec:
      containers:
      - {{name: cart, image: example.com/cart, ports: [{{containerPort: 8080}}]}}
"
    )
}

/// The Deployment with one more container in this list.
fn beside(deployment: &str, list: &str, container: &str) -> String {
    match list {
        "containers" => format!("{}\n      - {container}\n", deployment.trim_end()),
        list => format!("{}\n      {list}:\n      - {container}\n", deployment.trim_end()),
    }
}

/// A pod of it that runs.
fn pod(labels: &str, annotations: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: cart-1, namespace: shop, labels: {{app: cart{labels}}}, annotations: {{a: b{annotations}}}}}
spec: {{containers: [{{name: cart, image: example.com/cart}}]}}
status: {{phase: Running, podIP: 10.0.0.7}}
"
    )
}

#[test]
fn a_container_named_istio_proxy_is_not_a_proxy() {
    let gate = gate(&shop(SIDECARS)).configured(ISOLATED);
    let (before, off) = (deployment("", ""), deployment(", sidecar.istio.io/inject: 'false'", ""));
    gate.denies(&update(&before, &off));
    for (list, container) in [
        ("containers", "{name: istio-proxy, image: registry.k8s.io/pause:3.10}"),
        ("initContainers", "{name: istio-proxy, image: registry.k8s.io/pause:3.10}"),
        ("initContainers", "{name: istio-proxy, image: registry.k8s.io/pause:3.10, restartPolicy: Always}"),
    ] {
        let fake = beside(&off, list, container);
        gate.denies(&update(&before, &fake));
        gate.warns(&create(&fake.replace("name: cart, namespace", "name: evil, namespace")));
    }
    // With the injector at work it only sets the proxy's resources, say.
    gate.passes(&update(&before, &beside(&before, "containers", "{name: istio-proxy, image: auto}")));
}

#[test]
fn no_annotation_takes_traffic_past_the_sidecar() {
    let gate = gate(&shop(SIDECARS)).configured(ISOLATED);
    for annotation in [
        "traffic.sidecar.istio.io/excludeInboundPorts: '8080'",
        "traffic.sidecar.istio.io/includeInboundPorts: ''",
        "traffic.sidecar.istio.io/excludeInterfaces: eth0",
        "traffic.sidecar.istio.io/kubevirtInterfaces: eth0",
        "istio.io/reroute-virtual-interfaces: eth0",
        "sidecar.istio.io/interceptionMode: NONE",
        "proxy.istio.io/config: '{interceptionMode: NONE}'",
        "inject.istio.io/templates: gateway",
    ] {
        gate.denies(&update(&deployment("", ""), &deployment("", &format!(", {annotation}"))));
    }
    gate.passes(&update(&deployment("", ""), &deployment("", ", proxy.istio.io/config: '{concurrency: 2}'")));
    gate.passes(&update(&deployment("", ""), &deployment("", ", istio.io/reroute-virtual-interfaces: k6t-eth0")));
}

#[test]
fn a_pod_that_runs_in_ambient_is_not_taken_out_by_a_label_or_an_annotation() {
    let gate = gate(&shop(AMBIENT)).configured(ISOLATED);
    let before = pod("", ", ambient.istio.io/redirection: enabled");
    let after =
        |labels: &str, annotations: &str| pod(labels, &format!(", ambient.istio.io/redirection: enabled{annotations}"));
    gate.denies(&update(&before, &after(", istio.io/dataplane-mode: none", "")));
    gate.denies(&update(&before, &after("", ", sidecar.istio.io/status: ''")));
    gate.denies(&update(&before, &after("", ", ambient.istio.io/bypass-inbound-capture: 'True'")));
    gate.denies(&update(&before, &after("", ", istio.io/reroute-virtual-interfaces: eth0")));
    // What its agent writes is status, and no other value of the label opts out.
    gate.passes(&update(&before, &pod("", ", ambient.istio.io/redirection: pending")));
    gate.passes(&update(&before, &after(", istio.io/dataplane-mode: sidecar", "")));
}

#[test]
fn a_template_that_says_ztunnel_has_its_pods_is_not_in_ambient() {
    let gate = gate(&shop(AMBIENT)).configured(ISOLATED);
    let claims = ", ambient.istio.io/redirection: enabled";
    gate.denies(&update(&deployment("", ""), &deployment(", istio.io/dataplane-mode: none", claims)));
}

#[test]
fn a_tenants_config_map_does_not_move_the_meshs_root() {
    let gate = gate(&shop(SIDECARS)).configured(ISOLATED);
    for mesh in ["rootNamespace: shop", "accessLogFile: x"] {
        for name in ["istio", "istio-canary"] {
            let config = format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: shop}}, data: {{mesh: '{mesh}'}}}}"
            );
            gate.passes(&create(&config));
            gate.passes(&delete(&config));
        }
    }
    // The mesh's own still counts.
    let mesh_wide = STRICT.replace("namespace: shop", "namespace: istio-system");
    let cluster = [shop(SIDECARS).replace(STRICT, &mesh_wide)].join("\n---\n");
    let gate = crate::gate::gate(&cluster).configured(ISOLATED);
    gate.denies(&update(CONFIG, &CONFIG.replace("rootNamespace: istio-system", "rootNamespace: elsewhere")));
}

#[test]
fn a_tenants_config_map_turns_no_denial_into_a_warning() {
    let weaker = STRICT.replace("STRICT", "PERMISSIVE");
    let claims = "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: shop}, data: {mesh: 'rootNamespace: shop'}}";
    for proof in [INJECTOR, CONFIG, ""] {
        let cluster = shop(SIDECARS).replace(INJECTOR, "").replace(CONFIG, "");
        let cluster = [&cluster, proof, claims].join("\n---\n");
        gate(&cluster).configured(ISOLATED).denies(&update(STRICT, &weaker));
    }
}

#[test]
fn a_policy_is_not_handed_to_a_revision_that_is_not_there() {
    let gate = gate(&shop(SIDECARS)).configured(ISOLATED);
    let of = |revision: &str| {
        STRICT.replace("namespace: shop,", &format!("namespace: shop, labels: {{istio.io/rev: {revision}}},"))
    };
    gate.denies(&update(STRICT, &of("gone")));
    gate.passes(&update(STRICT, &of("default")));
}

#[test]
fn a_workload_on_its_nodes_network_is_never_silent_in_a_mesh() {
    let gate = gate(&shop(SIDECARS)).configured(ISOLATED);
    let on_the_node = deployment("", "").replace("    spec:\n", "    spec:\n      hostNetwork: true\n");
    gate.denies(&update(&deployment("", ""), &on_the_node));
    gate.warns(&create(&on_the_node.replace("name: cart, namespace", "name: evil, namespace")));
}
