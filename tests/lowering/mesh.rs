//! Istio's objects.

use portcullis::model::{Labels, MeshConfig, MtlsMode, Object, Revision};

use crate::{lower, peer_authentication, problems};

fn text(spec: &str) -> String {
    format!(
        "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: p, namespace: x}}, spec: {spec}}}"
    )
}

#[test]
fn modes() {
    for (spec, mode) in [
        ("null", MtlsMode::Unset),
        ("{}", MtlsMode::Unset),
        ("{mtls: null}", MtlsMode::Unset),
        ("{mtls: {}}", MtlsMode::Unset),
        ("{mtls: {mode: null}}", MtlsMode::Unset),
        ("{mtls: {mode: ''}}", MtlsMode::Unset),
        ("{mtls: {mode: UNSET}}", MtlsMode::Unset),
        ("{mtls: {mode: DISABLE}}", MtlsMode::Disable),
        ("{mtls: {mode: PERMISSIVE}}", MtlsMode::Permissive),
        ("{mtls: {mode: STRICT}}", MtlsMode::Strict),
    ] {
        assert_eq!(peer_authentication(&text(spec)).mode, mode, "{spec}");
        assert_eq!(problems(&text(spec)), [""; 0], "{spec}");
    }
}

#[test]
fn a_mode_nobody_knows_is_none_of_those_known_and_said() {
    for mode in ["strict", "MUTUAL", "ISTIO_MUTUAL", "STRICT "] {
        let text = text(&format!("{{mtls: {{mode: '{mode}'}}}}"));
        assert_eq!(peer_authentication(&text).mode, MtlsMode::Unknown(mode.into()));
        assert_eq!(problems(&text).len(), 1, "{mode}");
    }
}

#[test]
fn ports_have_modes_of_their_own() {
    let spec = "{selector: {matchLabels: {app: cart}}, portLevelMtls: {8080: {mode: DISABLE}, '9090': null, 80: {}}}";
    let policy = peer_authentication(&text(spec));
    assert_eq!(
        policy.ports.into_iter().collect::<Vec<_>>(),
        [(80, MtlsMode::Unset), (8080, MtlsMode::Disable), (9090, MtlsMode::Unset)]
    );
    assert_eq!(problems(&text(spec)), [""; 0]);
}

#[test]
fn ports_of_no_meaning_are_said() {
    for port in ["http", "0", "65536", "-1", "8080/tcp", "+80"] {
        let spec = format!("{{selector: {{matchLabels: {{a: b}}}}, portLevelMtls: {{'{port}': {{mode: STRICT}}}}}}");
        assert_eq!(problems(&text(&spec)).len(), 1, "{port}");
        assert!(peer_authentication(&text(&spec)).ports.is_empty(), "{port}");
    }
}

#[test]
fn what_istio_ignores_is_said_and_leaves_no_doubt_about_the_rest() {
    // Were it in doubt, a weak policy could hide behind a part that means nothing.
    let spec = "{mtls: {mode: PERMISSIVE}, portLevelMtls: {80: {mode: STRICT}}}";
    let policy = peer_authentication(&text(spec));
    assert_eq!((policy.mode, policy.is_partial), (MtlsMode::Permissive, false));
    assert_eq!(problems(&text(spec)).len(), 1);
    let wild = "{selector: {matchLabels: {app: 'cart*'}}, mtls: {mode: STRICT}}";
    assert!(!peer_authentication(&text(wild)).is_partial);
    assert_eq!(problems(&text(wild)).len(), 1);
}

#[test]
fn an_unknown_field_leaves_doubt() {
    for spec in ["{selector: {matchExpressions: []}}", "{targetRefs: []}", "{mtls: {mode: STRICT, cipher: x}}"] {
        assert!(peer_authentication(&text(spec)).is_partial, "{spec}");
        assert_eq!(problems(&text(spec)).len(), 1, "{spec}");
    }
}

#[test]
fn an_empty_selector_is_none() {
    for spec in
        ["{selector: null}", "{selector: {}}", "{selector: {matchLabels: {}}}", "{selector: {matchLabels: null}}"]
    {
        assert_eq!(peer_authentication(&text(spec)).selector, Labels::default(), "{spec}");
    }
}

#[test]
fn a_policy_of_another_shape_stands_with_a_mode_nobody_knows() {
    for spec in ["[]", "{mtls: STRICT}", "{mtls: {mode: 3}}", "{selector: {matchLabels: [a]}}"] {
        let policy = peer_authentication(&text(spec));
        assert!(matches!(policy.mode, MtlsMode::Unknown(_)) && policy.is_partial, "{spec}");
        assert_eq!(problems(&text(spec)).len(), 1, "{spec}");
    }
}

fn config(name: &str, data: &str) -> (Option<MeshConfig>, Vec<String>) {
    let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: istio-system}}\n{data}");
    let object = match lower(&text).object {
        Some(Object::MeshConfig(it)) => Some(MeshConfig::clone(&it)),
        None => None,
        other => panic!("{other:?}"),
    };
    (object, problems(&text))
}

#[test]
fn the_root_namespace_is_read_as_yaml() {
    for (mesh, root) in [
        ("rootNamespace: mesh", Some("mesh")),
        ("\"rootNamespace\": \"mesh\"", Some("mesh")),
        ("rootNamespace:   'mesh'   # the root", Some("mesh")),
        ("{\"defaultConfig\": {}, \"rootNamespace\": \"mesh\"}", Some("mesh")),
        ("defaultConfig:\n  rootNamespace: not-this", None),
        ("# rootNamespace: not-this", None),
        ("note: |\n  rootNamespace: not-this", None),
        ("rootNamespace: ''", None),
        ("rootNamespace:", None),
        ("trustDomain: cluster.local", None),
        ("", None),
    ] {
        let indented: Vec<_> = mesh.lines().map(|line| format!("    {line}")).collect();
        let (config, said) = config("istio", &format!("data:\n  mesh: |\n{}\n", indented.join("\n")));
        assert_eq!(config.unwrap().root_namespace.as_deref(), root, "{mesh}");
        assert_eq!(said, [""; 0], "{mesh}");
    }
}

#[test]
fn a_mesh_that_is_no_yaml_is_said() {
    for mesh in ["'rootNamespace: [a'", "'rootNamespace: [a]'", "'a: b: c'"] {
        let (config, said) = config("istio", &format!("data: {{mesh: {mesh}}}"));
        assert_eq!(config.unwrap().root_namespace, None);
        assert!(said.len() == 1 && said[0].starts_with("data.mesh: "), "{said:?}");
    }
}

#[test]
fn only_the_meshs_own_config_maps_are_read() {
    let mesh = "data: {mesh: 'rootNamespace: mesh'}";
    assert!(config("istio", mesh).0.is_some() && config("istio-canary", mesh).0.is_some());
    for (name, data) in [
        ("istiod", mesh),
        ("app", mesh),
        ("istio", ""),
        ("istio", "data: null"),
        ("istio", "data: {mesh: null}"),
        ("istio-ca-root-cert", "data: {root-cert.pem: x}"),
    ] {
        assert_eq!(config(name, data), (None, vec![]), "{name} {data}");
    }
}

#[test]
fn injectors_are_known_by_their_labels() {
    let revision = |labels: &str| {
        match lower(&format!("{{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingWebhookConfiguration, metadata: {{name: w, labels: {labels}}}, webhooks: [{{any: thing}}]}}")).object {
            Some(Object::WebhookConfiguration(it)) => it.revision.clone(),
            other => panic!("{other:?}"),
        }
    };
    let of = |revision: Option<&str>, tag: Option<&str>| {
        Some(Revision { revision: revision.map(Into::into), tag: tag.map(Into::into) })
    };
    assert_eq!(revision("{istio.io/rev: canary}"), of(Some("canary"), None));
    assert_eq!(revision("{istio.io/rev: canary, istio.io/tag: prod}"), of(Some("canary"), Some("prod")));
    for none in ["null", "{}", "{app: sidecar-injector}"] {
        assert_eq!(revision(none), None, "{none}");
    }
}
