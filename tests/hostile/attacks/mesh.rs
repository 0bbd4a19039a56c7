//! Leaving the mesh, or moving it.

use crate::shop::{CART, STRICT, Shop, denied, done};

/// The workload with these labels, annotations and further fields of its template.
fn cart(labels: &str, annotations: &str, spec: &str) -> String {
    CART.replace(
        "{metadata: {labels: {app: cart}}, spec: {",
        &format!("{{metadata: {{labels: {{app: cart{labels}}}, annotations: {{{annotations}}}}}, spec: {{{spec}"),
    )
}

const NOT_INJECTED: &str = ", sidecar.istio.io/inject: 'false'";

#[tokio::test]
async fn a_container_that_is_only_named_istio_proxy_is_no_proxy() {
    let shop = Shop::in_mesh("named").await;
    denied(&shop.editor("apply -f -", &cart(NOT_INJECTED, "", "")).await, "MT001");
    let fake = "{name: istio-proxy, image: registry.k8s.io/pause}";
    let beside = cart(NOT_INJECTED, "", "").replace("containers: [", &format!("containers: [{fake}, "));
    denied(&shop.editor("apply -f -", &beside).await, "MT001");
    let before = cart(NOT_INJECTED, "", &format!("initContainers: [{fake}], "));
    denied(&shop.editor("apply -f -", &before).await, "MT001");
}

#[tokio::test]
async fn a_namespace_editor_cannot_lead_traffic_past_the_proxy() {
    let shop = Shop::in_mesh("past").await;
    for annotation in [
        "traffic.sidecar.istio.io/excludeInboundPorts: '8080'",
        "traffic.sidecar.istio.io/includeInboundPorts: '9999'",
        "traffic.sidecar.istio.io/kubevirtInterfaces: eth0",
        "istio.io/reroute-virtual-interfaces: eth0",
        "inject.istio.io/templates: gateway",
    ] {
        let said = shop.editor("apply -f -", &cart("", annotation, "")).await;
        let is_told = said.stderr.contains("[MT001 ");
        assert!(is_told, "{annotation}: {said:?}");
    }
    let said = shop.editor("apply -f -", &cart("", "", "hostNetwork: true, ")).await;
    assert!(!said.succeeded && said.stderr.contains("denied the request"), "{said:?}");
}

#[tokio::test]
async fn a_pod_that_runs_cannot_leave_the_ambient_mesh_by_its_metadata() {
    let standing = [crate::shop::CLOSED, STRICT, POD].join("\n---\n");
    let shop =
        Shop::standing(crate::shop::Profile::Restricted, "ambient", "istio.io/dataplane-mode: ambient", &standing)
            .await;
    let said = shop.editor("label pod runs istio.io/dataplane-mode=none --namespace=$ns", "").await;
    assert!(said.stderr.contains("[MT001 "), "{said:?}");
    let said = shop.editor("annotate pod runs sidecar.istio.io/status={} --namespace=$ns", "").await;
    assert!(said.stderr.contains("[MT001 "), "{said:?}");
    // What only the node's agent writes is no proof of membership.
    let fresh = POD
        .replace("name: runs", "name: claims, annotations: {ambient.istio.io/redirection: enabled}")
        .replace("{app: runs}", "{app: claims, istio.io/dataplane-mode: none}");
    let said = shop.editor("create -f -", &fresh).await;
    assert!(said.stderr.contains("[MT001 "), "{said:?}");
}

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: runs, namespace: $ns, labels: {app: runs}}
spec: {containers: [{name: c, image: example.com/runs, ports: [{containerPort: 8080}]}]}
";

#[tokio::test]
async fn a_tenants_config_map_can_neither_move_nor_dispute_the_root_of_the_mesh() {
    let shop = Shop::in_mesh("root").await;
    for mesh in ["rootNamespace: $ns", "accessLogFile: x"] {
        let map = format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio, namespace: $ns}}, data: {{mesh: '{mesh}'}}}}"
        );
        shop.editor("apply -f -", &map).await;
        let permissive = STRICT.replace("STRICT", "PERMISSIVE");
        denied(&shop.editor("apply -f -", &permissive).await, "MT001");
    }
    done(&shop.editor("delete configmap istio --namespace=$ns --ignore-not-found", "").await);
}
