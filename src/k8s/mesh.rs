//! Istio's objects, read tolerantly: a mode or field of a newer version must not make a policy
//! unreadable, and must not pass silently either.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::meta::{Identity, Meta};
use super::policy::number;
use super::read::{Mapping, Source, Strict};
use super::{Lowered, Problem, Read, Written as WrittenLabels, labels};
use crate::model::{FieldPath, Labels, Lifetime, MeshConfig, MtlsMode, Object, PeerAuthentication, Str};
use crate::yaml;

#[derive(Deserialize)]
struct Written {
    metadata: Meta,
    spec: Option<Strict<Spec>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    selector: Option<WorkloadSelector>,
    mtls: Option<Mtls>,
    port_level_mtls: Option<Mapping<String, Option<Mtls>>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WorkloadSelector {
    match_labels: Option<WrittenLabels>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Mtls {
    mode: Option<Str>,
}

pub(super) fn lower_peer_authentication<'a>(source: impl Source<'a>, namespace: &str) -> Read {
    let Written { metadata, spec } = source.read()?;
    let Strict { value: spec, unknown } = spec.unwrap_or(Strict { value: Spec::default(), unknown: Vec::new() });
    let mut problems: Vec<Problem> = unknown
        .into_iter()
        .map(|path| {
            let message = "unknown field: Istio ignores it, and a newer version may give it a meaning";
            Problem::new(FieldPath::new(format!("spec.{path}")), message)
        })
        .collect();
    // What is said below leaves no doubt about the rest, so that a policy cannot be made doubtful on
    // purpose: Istio ignores it, or it is a mode that says itself that it is unknown.
    let is_partial = !problems.is_empty();
    let Spec { selector, mtls, port_level_mtls } = spec;
    let mode = mode(mtls, || FieldPath::new("spec.mtls.mode"), &mut problems);
    let has_selector = selector.is_some();
    let selector = labels(selector.and_then(|selector| selector.match_labels).as_ref());
    if selector.iter().any(|(key, value)| key.contains('*') || value.contains('*')) {
        let message = "Istio takes no `*` here: labels are matched exactly";
        problems.push(Problem::new(FieldPath::new("spec.selector.matchLabels"), message));
    }
    let ports_path = FieldPath::new("spec.portLevelMtls");
    if port_level_mtls.is_some() && selector.is_empty() {
        let message = "`portLevelMtls` needs a `selector`: without one, Istio does not apply it";
        problems.push(Problem::new(ports_path.clone(), message));
    }
    if port_level_mtls.as_ref().is_some_and(|ports| ports.is_empty()) {
        problems.push(Problem::new(ports_path.clone(), "at least one port is needed here"));
    }
    let mut ports = BTreeMap::new();
    for (port, mtls) in port_level_mtls.into_iter().flatten() {
        let path = ports_path.field(&port);
        match number::<u16>(&port) {
            Some(number) if number > 0 => {
                let mode = self::mode(mtls, || path.field("mode"), &mut problems);
                ports.insert(number, mode);
            }
            _ => problems.push(Problem::new(path, format!("`{port}` is no port: ports are 1 to 65535"))),
        }
    }
    if ports.len() > MOST_PORTS {
        let message = format!("too large to judge: of more than {MOST_PORTS} ports only so many are looked at");
        problems.push(Problem::new(ports_path, message));
        // Those that accept plaintext come first: the findings are about those.
        let mut sorted: Vec<_> = ports.into_iter().collect();
        sorted.sort_by_key(|(_, mode)| *mode == MtlsMode::Strict);
        ports = sorted.into_iter().take(MOST_PORTS).collect();
    }
    let policy = PeerAuthentication {
        namespace: metadata.namespace(namespace),
        name: metadata.name(),
        created: metadata.created(),
        revision: metadata.labels().get("istio.io/rev").cloned(),
        lifetime: metadata.lifetime(),
        has_empty_selector: has_selector && selector.is_empty(),
        selector,
        mode,
        ports,
        is_partial,
    };
    Ok(Lowered { object: Some(Object::PeerAuthentication(Arc::new(policy))), problems })
}

fn mode(mtls: Option<Mtls>, path: impl Fn() -> FieldPath, problems: &mut Vec<Problem>) -> MtlsMode {
    match mtls.and_then(|mtls| mtls.mode).unwrap_or_default().as_str() {
        "" | "UNSET" => MtlsMode::Unset,
        "DISABLE" => MtlsMode::Disable,
        "PERMISSIVE" => MtlsMode::Permissive,
        "STRICT" => MtlsMode::Strict,
        other => {
            let message = format!("unknown mode `{other}`: UNSET, DISABLE, PERMISSIVE and STRICT are supported");
            problems.push(Problem::new(path(), message));
            MtlsMode::Unknown(other.into())
        }
    }
}

/// What is left of a PeerAuthentication whose shape cannot be read: one about its whole namespace,
/// of a mode nobody knows, so that nothing there is judged as if it were not there.
pub(super) fn unreadable_peer_authentication<'a>(source: impl Source<'a>, namespace: &str) -> Option<Object> {
    #[derive(Deserialize)]
    struct Written {
        metadata: Identity,
    }
    let Written { metadata } = source.read().ok()?;
    Some(Object::PeerAuthentication(Arc::new(PeerAuthentication {
        namespace: metadata.namespace(namespace),
        name: metadata.name(),
        created: None,
        revision: None,
        lifetime: Lifetime::default(),
        selector: Labels::default(),
        has_empty_selector: false,
        mode: MtlsMode::Unknown("unreadable".into()),
        ports: BTreeMap::new(),
        is_partial: true,
    })))
}

/// How many ports of a PeerAuthentication are looked at. There is room for all 65535, each would be judged
/// for each pod of the namespace, and real ones have a handful.
const MOST_PORTS: usize = 100;

/// The mesh's own ConfigMap: `istio`, or `istio-<revision>`, with the key `mesh`.
pub(super) fn lower_config<'a>(source: impl Source<'a>, namespace: &str) -> Read {
    #[derive(Deserialize)]
    struct Written {
        metadata: Meta,
        data: Option<Data>,
    }
    #[derive(Deserialize)]
    struct Data {
        mesh: Option<String>,
    }
    let Written { metadata, data } = source.read()?;
    let name = metadata.name();
    if name != "istio" && !name.starts_with("istio-") {
        return Ok(Lowered::default());
    }
    let Some(mesh) = data.and_then(|data| data.mesh) else { return Ok(Lowered::default()) };
    let mut problems = Vec::new();
    let root_namespace = match root_namespace(&mesh) {
        Ok(root_namespace) => root_namespace,
        Err(message) => {
            problems.push(Problem::new(FieldPath::new("data.mesh"), message));
            None
        }
    };
    let config = MeshConfig { namespace: metadata.namespace(namespace), name, root_namespace };
    Ok(Lowered { object: Some(Object::MeshConfig(Arc::new(config))), problems })
}

/// The longest text that is read as a `MeshConfig`: what it becomes takes many times its length. Those
/// of real meshes have a few kilobytes.
const LONGEST_MESH_CONFIG: usize = 128 * 1024;

/// `rootNamespace` of a `MeshConfig`, which the ConfigMap holds as a text of YAML.
fn root_namespace(mesh: &str) -> Result<Option<Str>, String> {
    if mesh.len() > LONGEST_MESH_CONFIG {
        return Err("too large to read: more than 128 KiB".to_owned());
    }
    let document = match yaml::parse(mesh).into_iter().next() {
        None => return Ok(None),
        Some(Ok(document)) => document.value(),
        Some(Err(problem)) => return Err(format!("this is no YAML: {}", problem.message)),
    };
    match document.get("rootNamespace") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => Ok((!name.is_empty()).then(|| name.as_str().into())),
        Some(other) => Err(format!("`rootNamespace` is no string: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::k8s::lower_value;
    use crate::model::Object;

    /// Vectors PA-V1 to PA-V5 as objects: what the API server refuses is said, and leaves no doubt
    /// about the rest.
    #[test]
    fn what_the_api_server_refuses_is_said_and_leaves_no_doubt() {
        let table = [
            ("PA-V1", json!({"portLevelMtls": {"80": {"mode": "STRICT"}}}), Some("spec.portLevelMtls")),
            (
                "PA-V2",
                json!({"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"0": {}}}),
                Some("spec.portLevelMtls.0"),
            ),
            (
                "PA-V2",
                json!({"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"65536": {}}}),
                Some("spec.portLevelMtls.65536"),
            ),
            (
                "PA-V3",
                json!({"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {}}),
                Some("spec.portLevelMtls"),
            ),
            ("PA-V4", json!({"selector": {"matchLabels": {"app": "ca*"}}}), Some("spec.selector.matchLabels")),
            ("PA-V5", json!({"selector": {}, "mtls": {"mode": "STRICT"}}), None),
        ];
        for (id, spec, path) in table {
            let object = json!({
                "apiVersion": "security.istio.io/v1",
                "kind": "PeerAuthentication",
                "metadata": {"name": "default", "namespace": "shop"},
                "spec": spec,
            });
            let lowered = lower_value(&object, "default");
            let paths: Vec<_> = lowered.problems.iter().map(|problem| problem.path.as_str()).collect();
            assert_eq!(paths, path.into_iter().collect::<Vec<_>>(), "{id}");
            let Some(Object::PeerAuthentication(policy)) = lowered.object else { panic!("{id} is no policy") };
            assert!(!policy.is_partial, "{id}");
        }
    }
}
