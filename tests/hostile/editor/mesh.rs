//! Which pods take plaintext, worked out from the objects as they are stored: by what the injector
//! did when a pod was made, and by Istio's own precedence.

use serde_json::{Value, json};

use super::oracle::{list, selects};

/// What the injector does to a pod that is made in a namespace with injection: whether it gets a proxy
/// that all its traffic goes through.
pub(crate) fn inject(pod: &mut Value) -> bool {
    let opted_out = |field: &str| pod["metadata"][field]["sidecar.istio.io/inject"] == "false";
    if pod["spec"]["hostNetwork"] == true || opted_out("labels") || opted_out("annotations") {
        return false;
    }
    let annotations = &mut pod["metadata"]["annotations"];
    let goes_past = PAST_THE_PROXY.iter().any(|key| annotations.get(*key).is_some());
    annotations["sidecar.istio.io/status"] = r#"{"containers":["istio-proxy"],"revision":"default"}"#.into();
    if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
        containers.push(json!({ "name": "istio-proxy", "image": "istio/proxyv2" }));
    }
    !goes_past
}

const PAST_THE_PROXY: [&str; 2] =
    ["traffic.sidecar.istio.io/excludeInboundPorts", "traffic.sidecar.istio.io/kubevirtInterfaces"];

/// Whether some port of a pod behind a proxy takes plaintext.
pub(crate) fn takes_plaintext(pod: &Value, authentications: &[&Value]) -> bool {
    let mut oldest_first = authentications.to_vec();
    oldest_first.sort_by_key(|it| it["metadata"]["creationTimestamp"].to_string());
    let has_selector = |it: &&&Value| !it["spec"]["selector"].is_null();
    let own = oldest_first
        .iter()
        .filter(has_selector)
        .find(|it| selects(&it["spec"]["selector"], &pod["metadata"]["labels"]));
    let general = oldest_first.iter().find(|it| !has_selector(it));
    let mode = |it: Option<&&Value>| {
        let mode = it.and_then(|it| it["spec"]["mtls"]["mode"].as_str()).unwrap_or("UNSET");
        (mode != "UNSET").then(|| mode.to_owned())
    };
    let of_ports = own.into_iter().filter_map(|it| it["spec"]["portLevelMtls"].as_object()).flatten();
    let is_open_somewhere = of_ports.into_iter().any(|(_, it)| it["mode"] != "STRICT");
    is_open_somewhere || mode(own).or_else(|| mode(general)).as_deref() != Some("STRICT")
}

/// What a PeerAuthentication may say.
pub(crate) const AUTHENTICATIONS: [&str; 8] = [
    r#"{"mtls":{"mode":"STRICT"}}"#,
    r#"{"mtls":{"mode":"PERMISSIVE"}}"#,
    r#"{"mtls":{"mode":"DISABLE"}}"#,
    r"{}",
    r#"{"mtls":{"mode":"UNSET"}}"#,
    r#"{"selector":{"matchLabels":{"app":"web"}},"mtls":{"mode":"PERMISSIVE"}}"#,
    r#"{"selector":{"matchLabels":{"app":"web"}},"mtls":{"mode":"STRICT"}}"#,
    r#"{"selector":{"matchLabels":{"app":"db"}},"mtls":{"mode":"STRICT"},"portLevelMtls":{"8080":{"mode":"PERMISSIVE"}}}"#,
];

/// What an editor may write onto a template to leave the mesh, or to seem to be in it.
pub(crate) const ANNOTATIONS: [&str; 6] = [
    "{}",
    r#"{"sidecar.istio.io/status":"{}"}"#,
    r#"{"traffic.sidecar.istio.io/excludeInboundPorts":"8080"}"#,
    r#"{"traffic.sidecar.istio.io/kubevirtInterfaces":"eth0"}"#,
    r#"{"sidecar.istio.io/inject":"false"}"#,
    r#"{"example.com/note":"x"}"#,
];

/// Adds a container that is a proxy in name only.
pub(crate) fn with_fake_proxy(spec: &mut Value) {
    let mut containers = list(&spec["containers"]).to_vec();
    containers.push(json!({ "name": "istio-proxy", "image": "pause" }));
    spec["containers"] = containers.into();
}
