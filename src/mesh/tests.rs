//! Istio's truth tables, and an oracle that knows nothing of the code above.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::model::{
    AdmissionWebhook, DnsPolicy, Ending, Labels, Lifetime, MtlsMode, NamedProxy, Namespace, Object, OnFailure,
    PeerAuthentication, Revision, WebhookConfiguration, WebhookKind, WorkloadId,
};

const ROOT: &str = "root";
/// What the pod in question carries.
const POD: [(&str, &str); 2] = [("app", "cart"), ("tier", "web")];

fn written(mode: &str) -> MtlsMode {
    match mode {
        "" | "UNSET" => MtlsMode::Unset,
        "DISABLE" => MtlsMode::Disable,
        "PERMISSIVE" => MtlsMode::Permissive,
        "STRICT" => MtlsMode::Strict,
        other => MtlsMode::Unknown(other.into()),
    }
}

/// `namespace/name @age selector mode port:mode …`: `shop/a @1 app=cart STRICT 80:DISABLE`. A
/// selector of `-` is none, one of `{}` has no labels; an age of `-` is not stored yet.
fn policy(text: &str) -> PeerAuthentication {
    let mut words = text.split_whitespace();
    let (namespace, name) = words.next().unwrap().split_once('/').unwrap();
    let age = words.next().unwrap().strip_prefix('@').unwrap();
    let selector = words.next().unwrap();
    let pairs = selector.split(',').filter_map(|pair| pair.split_once('='));
    let mode = written(words.next().unwrap());
    let ports =
        words.map(|word| word.split_once(':').unwrap()).map(|(port, mode)| (port.parse().unwrap(), written(mode)));
    PeerAuthentication {
        namespace: namespace.into(),
        name: name.into(),
        created: age.parse().ok().map(|second| Timestamp::from_second(second).unwrap()),
        revision: None,
        lifetime: Lifetime::default(),
        has_empty_selector: selector == "{}",
        selector: pairs.collect(),
        mode,
        ports: ports.collect(),
        is_partial: false,
    }
}

fn objects(policies: &[&str]) -> Vec<Object> {
    policies.iter().map(|text| Object::PeerAuthentication(Arc::new(policy(text)))).collect()
}

fn settings(root: &str) -> MeshSettings {
    MeshSettings { root_namespace: Some(root.into()), ..MeshSettings::default() }
}

/// The modes of a workload of `namespace` as text: the default, then the ports asked for.
fn modes(policies: &[&str], namespace: &str, dataplane: Dataplane, ports: &[u16]) -> String {
    let cluster = Cluster::of(objects(policies));
    let mesh = Mesh::new(&cluster, &settings(ROOT));
    let effective = mesh.policies(namespace).effective(&Labels::from(POD), dataplane);
    let at = ports.iter().map(|port| effective.port(*port).mode.to_string());
    std::iter::once(effective.default.mode.to_string()).chain(at).collect::<Vec<_>>().join(" ")
}

/// Vectors PA-01 to PA-28 and PA-V: id, policies, ports asked for, what holds by default and
/// there.
#[test]
fn a_sidecar_gets_the_mode_of_istios_own_precedence() {
    #[rustfmt::skip]
    let table: &[(&str, &[&str], &[u16], &str)] = &[
        ("PA-01", &[], &[80], "PERMISSIVE PERMISSIVE"),
        ("PA-02", &["root/a @0 - STRICT"], &[], "STRICT"),
        ("PA-03", &["root/a @0 - STRICT"], &[], "STRICT"),
        ("PA-04", &["root/a @0 - STRICT", "shop/a @0 - PERMISSIVE"], &[], "PERMISSIVE"),
        ("PA-05", &["root/a @0 - DISABLE", "shop/a @0 - PERMISSIVE"], &[], "PERMISSIVE"),
        ("PA-06", &["root/a @0 app=cart STRICT"], &[], "PERMISSIVE"),
        ("PA-07", &["shop/a @0 - UNSET", "shop/b @0 app=cart UNSET"], &[], "PERMISSIVE"),
        ("PA-08", &["root/c @1 - DISABLE", "root/a @0 - PERMISSIVE", "root/b @0 - STRICT"], &[], "PERMISSIVE"),
        ("PA-09", &["shop/c @1 - DISABLE", "shop/a @0 - PERMISSIVE", "shop/b @0 - STRICT"], &[], "PERMISSIVE"),
        ("PA-10", &["shop/c @1 app=cart DISABLE", "shop/a @0 app=cart PERMISSIVE", "shop/b @0 tier=web STRICT"], &[], "PERMISSIVE"),
        ("PA-11", &["root/a @0 - UNSET"], &[], "PERMISSIVE"),
        ("PA-12", &["root/a @0 - STRICT", "shop/a @0 app=cart UNSET"], &[], "STRICT"),
        ("PA-13", &["shop/a @0 - STRICT", "shop/b @0 app=cart UNSET"], &[], "STRICT"),
        ("PA-14", &["root/a @0 - STRICT", "shop/a @0 - UNSET", "shop/b @0 app=cart UNSET"], &[], "STRICT"),
        ("PA-15", &["root/a @0 - STRICT", "shop/a @0 app=cart UNSET 80:DISABLE 90:UNSET 100:"], &[80, 90, 100], "STRICT DISABLE STRICT STRICT"),
        ("PA-16", &["shop/a @0 app=cart DISABLE 8080:STRICT"], &[8080], "DISABLE STRICT"),
        ("PA-17", &["shop/a @0 app=cart UNSET 7070:STRICT"], &[8080, 7070], "PERMISSIVE PERMISSIVE STRICT"),
        ("PA-18", &["shop/a @0 app=cart STRICT", "shop/b @1 app=cart DISABLE"], &[], "STRICT"),
        ("PA-19", &["shop/a @1 app=cart DISABLE", "shop/b @0 app=cart PERMISSIVE"], &[], "PERMISSIVE"),
        ("PA-20", &["shop/a @0 - STRICT", "shop/b @0 app=cart,version=v1 DISABLE"], &[], "STRICT"),
        ("PA-21", &["other/a @0 - STRICT"], &[], "PERMISSIVE"),
        ("PA-24", &["shop/old @0 - PERMISSIVE", "shop/new @1 - STRICT"], &[], "PERMISSIVE"),
        ("PA-24, not stored yet", &["shop/old @0 - PERMISSIVE", "shop/a-new @- - STRICT"], &[], "PERMISSIVE"),
        ("PA-25, before", &["shop/old @0 - STRICT", "shop/new @1 - PERMISSIVE"], &[], "STRICT"),
        ("PA-25, after", &["shop/new @1 - PERMISSIVE"], &[], "PERMISSIVE"),
        ("PA-26", &["istio-system/a @0 - STRICT"], &[], "PERMISSIVE"),
        ("PA-27", &["shop/a @0 app=cart UNSET 80:STRICT", "shop/b @1 app=cart UNSET 90:STRICT"], &[80, 90], "PERMISSIVE STRICT PERMISSIVE"),
        // What the API server refuses, and what it comes to where it was let in.
        ("PA-V1", &["shop/a @0 - PERMISSIVE 80:STRICT"], &[80], "PERMISSIVE PERMISSIVE"),
        ("PA-V2", &["shop/a @0 app=cart STRICT 0:DISABLE"], &[80], "STRICT STRICT"),
        ("PA-V3", &["shop/a @0 app=cart STRICT"], &[80], "STRICT STRICT"),
        ("PA-V4", &["shop/a @0 app=* STRICT"], &[], "PERMISSIVE"),
        ("PA-V5", &["shop/a @0 - STRICT"], &[], "STRICT"),
        ("a mode of another version", &["root/a @0 - STRICT", "shop/a @0 - MUTUAL"], &[], "unknown"),
        ("a mode of another version that does not decide", &["root/a @0 - MUTUAL", "shop/a @0 - STRICT"], &[], "STRICT"),
        ("a port's mode of another version", &["shop/a @0 app=cart STRICT 80:MUTUAL"], &[80], "STRICT unknown"),
    ];
    for (id, policies, ports, expected) in table {
        assert_eq!(modes(policies, "shop", Dataplane::Sidecar, ports), *expected, "{id}");
    }
    // PA-28: the root namespace's own pods get the mesh-wide policy and no other.
    let policies = ["root/a @0 - STRICT", "root/b @0 app=cart DISABLE"];
    assert_eq!(modes(&policies, ROOT, Dataplane::Sidecar, &[]), "STRICT", "PA-28");
}

/// Vectors PA-22 and PA-23.
#[test]
fn a_namespace_without_any_policy_has_no_mode_of_its_own() {
    let mode = |policies: &[&str]| {
        let cluster = Cluster::of(objects(policies));
        let mesh = Mesh::new(&cluster, &settings(ROOT));
        mesh.policies("shop").namespace_mode().map(|setting| setting.mode)
    };
    assert_eq!(mode(&[]), None, "PA-22");
    assert_eq!(mode(&["root/a @0 - UNSET"]), Some(Mode::Permissive), "PA-23");
}

/// Vectors AM-01 to AM-10, asked at ports 8080, 9090 and one without a setting.
#[test]
fn ambient_is_strict_or_not_and_knows_no_disable() {
    #[rustfmt::skip]
    let table: &[(&str, &[&str], &str)] = &[
        ("AM-01", &["root/a @0 - PERMISSIVE", "shop/a @0 - STRICT"], "STRICT STRICT STRICT"),
        ("AM-02", &["shop/a @0 - STRICT", "shop/b @0 app=cart PERMISSIVE"], "PERMISSIVE PERMISSIVE PERMISSIVE"),
        ("AM-03", &["shop/b @0 app=cart PERMISSIVE 9090:STRICT"], "PERMISSIVE PERMISSIVE STRICT"),
        ("AM-04", &["shop/b @0 app=cart STRICT 9090:PERMISSIVE"], "STRICT STRICT PERMISSIVE"),
        ("AM-05", &["shop/b @0 app=cart STRICT 9090:DISABLE"], "STRICT STRICT PERMISSIVE"),
        ("AM-06", &["shop/a @0 - STRICT", "shop/b @0 app=cart UNSET 9090:PERMISSIVE"], "STRICT STRICT PERMISSIVE"),
        ("AM-07", &["shop/a @0 - DISABLE"], "PERMISSIVE PERMISSIVE PERMISSIVE"),
        ("AM-08", &["root/a @0 app=cart STRICT"], "PERMISSIVE PERMISSIVE PERMISSIVE"),
        ("AM-09", &["shop/a @0 - PERMISSIVE", "shop/b @0 app=cart UNSET 9090:STRICT"], "PERMISSIVE PERMISSIVE STRICT"),
        ("AM-10", &["root/a @0 - PERMISSIVE", "shop/a @0 - UNSET", "shop/b @0 app=cart UNSET 9090:STRICT 8080:PERMISSIVE"], "PERMISSIVE PERMISSIVE STRICT"),
        ("DISABLE under an inherited STRICT", &["shop/a @0 - STRICT", "shop/b @0 app=cart UNSET 9090:DISABLE"], "STRICT STRICT STRICT"),
        ("DISABLE with PERMISSIVE beside it", &["shop/a @0 - STRICT", "shop/b @0 app=cart UNSET 9090:DISABLE 8080:PERMISSIVE"], "STRICT PERMISSIVE PERMISSIVE"),
        ("an empty selector in the root", &["root/a @0 {} STRICT"], "PERMISSIVE PERMISSIVE PERMISSIVE"),
        ("an empty selector elsewhere", &["shop/a @0 {} STRICT"], "STRICT STRICT STRICT"),
        ("a STRICT port under the mesh alone", &["root/a @0 - STRICT", "shop/b @0 app=cart PERMISSIVE 8080:STRICT"], "PERMISSIVE PERMISSIVE PERMISSIVE"),
        ("a STRICT port under the namespace", &["root/a @0 - STRICT", "shop/a @0 - PERMISSIVE", "shop/b @0 app=cart PERMISSIVE 8080:STRICT"], "PERMISSIVE STRICT PERMISSIVE"),
        ("an exception under the mesh", &["root/a @0 - STRICT", "shop/b @0 app=cart UNSET 8080:PERMISSIVE"], "STRICT PERMISSIVE STRICT"),
        ("an exception, and a namespace that leaves it open", &["root/a @0 - STRICT", "shop/a @0 - UNSET", "shop/b @0 app=cart UNSET 8080:PERMISSIVE"], "PERMISSIVE PERMISSIVE PERMISSIVE"),
        ("an exception under an empty selector", &["shop/a @0 {} STRICT", "shop/b @0 app=cart UNSET 8080:PERMISSIVE"], "PERMISSIVE PERMISSIVE PERMISSIVE"),
        ("an exception and a STRICT port there", &["shop/a @0 {} STRICT", "shop/b @0 app=cart UNSET 8080:PERMISSIVE 9090:STRICT"], "PERMISSIVE PERMISSIVE STRICT"),
        ("a mesh that reaches past an empty selector", &["root/a @0 - STRICT", "shop/a @0 {} DISABLE", "shop/b @0 app=cart UNSET 8080:DISABLE 9090:STRICT"], "STRICT PERMISSIVE STRICT"),
        ("two of one second", &["shop/a @0 - STRICT", "shop/b @0 - PERMISSIVE"], "PERMISSIVE PERMISSIVE PERMISSIVE"),
        ("two of one second that say the same", &["shop/a @0 - STRICT", "shop/b @0 - STRICT"], "STRICT STRICT STRICT"),
        ("two of a workload and one second", &["shop/a @0 app=cart STRICT 8080:PERMISSIVE", "shop/b @0 tier=web STRICT 9090:PERMISSIVE"], "STRICT PERMISSIVE PERMISSIVE"),
        ("a mode of another version", &["root/a @0 - STRICT", "shop/a @0 - MUTUAL"], "unknown unknown unknown"),
        ("a port's mode of another version", &["shop/a @0 app=cart STRICT 8080:MUTUAL"], "STRICT unknown STRICT"),
        ("DISABLE under DISABLE", &["shop/b @0 app=cart DISABLE 9090:STRICT"], "PERMISSIVE PERMISSIVE STRICT"),
    ];
    for (id, policies, expected) in table {
        assert_eq!(modes(policies, "shop", Dataplane::Ambient, &[8080, 9090]), *expected, "{id}");
    }
}

#[test]
fn each_setting_names_the_policy_that_decided_it() {
    let cluster = Cluster::of(objects(&[
        "root/mesh @0 - STRICT",
        "shop/own @0 app=cart UNSET 80:PERMISSIVE 90:UNSET",
        "shop/late @1 app=cart DISABLE",
    ]));
    let mesh = Mesh::new(&cluster, &settings(ROOT));
    let effective = mesh.policies("shop").effective(&Labels::from(POD), Dataplane::Sidecar);
    let by = |setting: Setting<'_>| match setting.by {
        Authority::Policy(policy) => policy.name.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(by(effective.default), "mesh");
    assert_eq!(by(effective.port(80)), "own");
    assert_eq!(by(effective.port(90)), "mesh");
    assert_eq!(by(mesh.policies("elsewhere").inherited(Dataplane::Sidecar)), "mesh");
    assert_eq!(
        by(Mesh::new(&Cluster::default(), &settings(ROOT)).policies("shop").inherited(Dataplane::Sidecar)),
        "Nobody"
    );
}

#[test]
fn a_policy_that_could_not_be_read_leaves_nothing_certain_in_its_reach() {
    let mut partial = policy("shop/young @9 version=v1 STRICT");
    partial.is_partial = true;
    let mut all = objects(&["shop/old @0 - STRICT", "other/a @0 - STRICT"]);
    all.push(Object::PeerAuthentication(Arc::new(partial)));
    let cluster = Cluster::of(all);
    let mesh = Mesh::new(&cluster, &settings(ROOT));
    let mode = |namespace| mesh.policies(namespace).effective(&Labels::from(POD), Dataplane::Sidecar).default.mode;
    assert_eq!(mode("shop"), Mode::Unknown);
    assert_eq!(mode("other"), Mode::Strict);
}

#[test]
fn creation_counts_in_whole_seconds() {
    let mut early = policy("shop/b @5 - PERMISSIVE");
    early.created = Some(Timestamp::new(5, 100).unwrap());
    let mut late = policy("shop/a @5 - STRICT");
    late.created = Some(Timestamp::new(5, 900).unwrap());
    let cluster = Cluster::of([early, late].map(|policy| Object::PeerAuthentication(Arc::new(policy))));
    let mesh = Mesh::new(&cluster, &settings(ROOT));
    assert_eq!(mesh.policies("shop").inherited(Dataplane::Sidecar).mode, Mode::Strict);
}

// Root namespace.

fn config(namespace: &str, name: &str, root: Option<&str>) -> Object {
    Object::MeshConfig(Arc::new(MeshConfig {
        namespace: namespace.into(),
        name: name.into(),
        root_namespace: root.map(Str::from),
    }))
}

#[test]
fn the_root_namespace_is_that_of_the_settings_then_the_meshs_then_istios_default() {
    let root = |objects: Vec<Object>, settings: &MeshSettings| {
        Mesh::new(&Cluster::of(objects), settings).root().namespace.to_string()
    };
    let unset = MeshSettings::default();
    assert_eq!(root(vec![], &unset), "istio-system");
    assert_eq!(root(vec![config("istio-system", "istio", None)], &unset), "istio-system");
    assert_eq!(root(vec![config("istio-system", "istio", Some("istio-config"))], &unset), "istio-config");
    assert_eq!(root(vec![config("istio-system", "istio", Some("istio-config"))], &settings(ROOT)), ROOT);
}

#[test]
fn a_config_map_of_a_tenant_does_not_move_the_root_namespace() {
    let cluster = Cluster::of([config("a-tenant", "istio", Some("a-tenant")), config("istio-system", "istio", None)]);
    let mesh = Mesh::new(&cluster, &MeshSettings::default());
    assert_eq!(mesh.root().namespace, "istio-system");
    assert!(matches!(mesh.root().source, RootSource::Config(_)));
}

#[test]
fn config_maps_that_disagree_leave_the_root_namespace_disputed() {
    let configs = [config("mesh", "istio", Some("one")), config("mesh", "istio-canary", Some("two"))];
    let cluster = Cluster::of(configs.into_iter().chain([injector_in("mesh")]));
    assert!(matches!(Mesh::new(&cluster, &MeshSettings::default()).root().source, RootSource::Disputed(_)));
}

/// An injector whose Service is in a namespace.
fn injector_in(namespace: &str) -> Object {
    let webhook = AdmissionWebhook {
        name: "sidecar-injector.istio.io".into(),
        namespace: namespace.into(),
        service: "istiod".into(),
        port: 443,
        on_failure: OnFailure::Fail,
    };
    Object::WebhookConfiguration(Arc::new(WebhookConfiguration {
        kind: WebhookKind::Mutating,
        name: format!("istiod-{namespace}").into(),
        revision: Some(Revision { revision: Some("default".into()), tag: None }),
        webhooks: vec![webhook],
    }))
}

#[test]
fn the_root_namespace_is_where_an_injector_runs_and_no_tenant_moves_it() {
    let tenant = || config("a-tenant", "istio", Some("a-tenant"));
    #[rustfmt::skip]
    let table: &[(Vec<Object>, &str, bool)] = &[
        (vec![], "istio-system", false),
        // Nothing proves it, and anyone could have written it: it stays where it is usually.
        (vec![config("aks", "istio-asm-1-27", Some("aks"))], "istio-system", false),
        (vec![injector_in("aks"), config("aks", "istio-asm-1-27", Some("aks"))], "aks", false),
        (vec![injector_in("aks"), config("aks", "istio-asm-1-27", Some("elsewhere"))], "elsewhere", false),
        (vec![injector_in("aks"), config("aks", "istio", None)], "istio-system", false),
        (vec![injector_in("aks")], "aks", true),
        // What an old installation left behind is not where the injector is.
        (vec![injector_in("aks"), config("istio-system", "istio", Some("old"))], "aks", true),
        (vec![injector_in("istio-system")], "istio-system", false),
        (vec![injector_in("istio-system"), config("istio-system", "istio", Some("root"))], "root", false),
        // An injector outside the cluster is in no namespace.
        (vec![injector("remote", Revision { revision: Some("default".into()), tag: None })], "istio-system", false),
    ];
    for (objects, expected, is_doubtful) in table {
        let root = |more: Vec<Object>| {
            let cluster = Cluster::of(objects.iter().cloned().chain(more));
            Mesh::new(&cluster, &MeshSettings::default()).root().clone()
        };
        let found = root(Vec::new());
        assert_eq!((found.namespace.as_str(), found.is_doubtful()), (*expected, *is_doubtful), "{objects:?}");
        assert_eq!(root(vec![tenant()]).namespace, *expected, "{objects:?}");
        if !objects.is_empty() && !matches!(found.source, RootSource::Unproven(_)) && objects.len() > 1 {
            assert_eq!(root(vec![tenant()]), found, "{objects:?}");
        }
    }
}

/// Revisions and their tags.
type Injectors = &'static [(&'static str, Option<&'static str>)];

#[test]
fn a_policy_counts_for_the_revision_its_label_names() {
    const I: &str = "istio-injection=enabled";
    let mode = |namespace_labels: &str, revisions: Injectors, label: &str| {
        let mut strict = policy("shop/default @0 - STRICT");
        strict.revision = Some(label.into());
        let injectors = revisions.iter().map(|(revision, tag)| {
            let revision = Revision { revision: Some((*revision).into()), tag: tag.map(Str::from) };
            injector(&format!("{revision:?}"), revision)
        });
        let strict = Object::PeerAuthentication(Arc::new(strict));
        let cluster = Cluster::of(injectors.chain([namespace("shop", namespace_labels), strict]));
        Mesh::new(&cluster, &MeshSettings::default()).posture(&workload("")).effective.default.mode
    };
    let one: Injectors = &[("default", None)];
    let two: Injectors = &[("default", None), ("canary", None), ("canary", Some("prod"))];
    #[rustfmt::skip]
    let table: &[(&str, Injectors, &str, Mode)] = &[
        (I, one, "default", Mode::Strict),
        (I, one, "gone", Mode::Permissive),
        (I, two, "default", Mode::Strict),
        (I, two, "canary", Mode::Permissive),
        ("istio.io/rev=canary", two, "canary", Mode::Strict),
        ("istio.io/rev=prod", two, "canary", Mode::Strict),
        // A tag is no revision there.
        ("istio.io/rev=prod", two, "prod", Mode::Permissive),
        // Which of them ztunnel listens to is not known, nor which there are where none is.
        ("istio.io/dataplane-mode=ambient", two, "canary", Mode::Unknown),
        ("istio.io/dataplane-mode=ambient", one, "gone", Mode::Permissive),
        (I, &[], "default", Mode::Unknown),
    ];
    for (labels, revisions, label, expected) in table {
        assert_eq!(mode(labels, revisions, label), *expected, "{labels} {revisions:?} {label}");
    }
}

// Membership.

/// A Deployment's template with these labels; annotations are keys with a `!` before them.
fn workload(marks: &str) -> Workload {
    let is_annotation = |word: &&str| word.starts_with('!');
    let pairs = |words: Vec<&str>| -> Labels {
        words.iter().filter_map(|word| word.trim_start_matches('!').split_once('=')).collect()
    };
    Workload {
        id: WorkloadId { kind: "Deployment".into(), name: "cart".into() },
        namespace: "shop".into(),
        uid: None,
        labels: pairs(marks.split_whitespace().filter(|word| !is_annotation(word)).collect()),
        annotations: pairs(marks.split_whitespace().filter(is_annotation).collect()),
        owner: None,
        ending: Ending::default(),
        ports: Vec::new(),
        host_network: marks.contains("hostNetwork"),
        dns_policy: DnsPolicy::ClusterFirst,
        nameservers: Vec::new(),
        ips: Vec::new(),
        is_finished: false,
        is_idle: false,
        is_scaled_to_zero: false,
        proxy: match marks {
            _ if marks.contains("only-istio-proxy") => NamedProxy::Alone,
            _ if marks.contains("istio-proxy") => NamedProxy::Beside,
            _ => NamedProxy::None,
        },
        is_partial: marks.contains("unreadable"),
    }
}

fn namespace(name: &str, labels: &str) -> Object {
    let labels: Labels = labels.split_whitespace().filter_map(|label| label.split_once('=')).collect();
    Object::Namespace(Arc::new(Namespace {
        name: name.into(),
        uid: None,
        labels,
        created: None,
        is_terminating: false,
    }))
}

fn injector(name: &str, revision: Revision) -> Object {
    Object::WebhookConfiguration(Arc::new(WebhookConfiguration {
        kind: WebhookKind::Mutating,
        name: name.into(),
        revision: Some(revision),
        webhooks: Vec::new(),
    }))
}

/// What a pod with these marks is, in a namespace with these labels, where these revisions are
/// installed.
fn membership(namespace_labels: &str, pod: &str, revisions: &[&str], inject_by_default: bool) -> Membership {
    let revision =
        |name: &&str| injector(&format!("istiod-{name}"), Revision { revision: Some((*name).into()), tag: None });
    let objects = revisions.iter().map(revision).chain([namespace("shop", namespace_labels)]);
    let cluster = Cluster::of(objects);
    Mesh::new(&cluster, &MeshSettings { inject_by_default, ..MeshSettings::default() }).membership(&workload(pod))
}

/// The table of the injector's webhooks, a row each, and what the injector adds to it.
#[test]
fn a_pod_is_in_the_mesh_by_the_injectors_own_table() {
    use Dataplane::{Ambient, Outside, Sidecar, Unknown};
    const I: &str = "istio-injection=enabled";
    #[rustfmt::skip]
    let table: &[(&str, &str, &str, Dataplane)] = &[
        ("row 1", I, "", Sidecar),
        ("row 1, R present", "istio-injection=enabled istio.io/rev=nowhere", "", Sidecar),
        ("row 1, PR present", I, "istio.io/rev=nowhere", Sidecar),
        ("row 1, P true", I, "sidecar.istio.io/inject=true", Sidecar),
        ("row 1, P empty", I, "sidecar.istio.io/inject= !sidecar.istio.io/inject=false", Sidecar),
        ("row 1, P as YAML 1.1 says true", I, "sidecar.istio.io/inject=Yes", Sidecar),
        ("row 1, P of another value", I, "sidecar.istio.io/inject=maybe", Unknown),
        ("row 1, P in capitals", I, "sidecar.istio.io/inject=False", Unknown),
        ("row 1, P as YAML 1.1 says false", I, "!sidecar.istio.io/inject=off", Unknown),
        ("row 2", I, "sidecar.istio.io/inject=false", Outside),
        ("row 3", "istio-injection=disabled", "", Outside),
        ("row 3, P true", "istio-injection=disabled", "sidecar.istio.io/inject=true", Outside),
        ("row 3, R present", "istio-injection=disabled istio.io/rev=default", "", Outside),
        ("row 3, PR present", "istio-injection=off", "istio.io/rev=default", Outside),
        ("row 4", "istio.io/rev=default", "", Sidecar),
        ("row 4, P true", "istio.io/rev=default", "sidecar.istio.io/inject=true", Sidecar),
        ("row 5", "istio.io/rev=default", "sidecar.istio.io/inject=false", Outside),
        ("row 6", "", "sidecar.istio.io/inject=true", Sidecar),
        ("row 7", "", "istio.io/rev=default", Sidecar),
        ("row 7, P true", "", "istio.io/rev=default sidecar.istio.io/inject=true", Sidecar),
        ("row 7, P false", "", "istio.io/rev=default sidecar.istio.io/inject=false", Outside),
        ("row 8", "", "", Outside),
        ("hostNetwork", I, "hostNetwork", Outside),
        ("hostNetwork in ambient", "istio.io/dataplane-mode=ambient", "hostNetwork", Outside),
        ("the annotation alone says false", I, "!sidecar.istio.io/inject=false", Outside),
        ("the label counts before the annotation", I, "sidecar.istio.io/inject=true !sidecar.istio.io/inject=false", Sidecar),
        ("the annotation alone asks for nothing", "", "!sidecar.istio.io/inject=true", Outside),
        ("unknown revision", "istio.io/rev=nowhere", "", Outside),
        ("unknown revision of the pod", "", "istio.io/rev=nowhere", Outside),
        ("what the injector takes and is customized", I, "istio-proxy", Sidecar),
        ("a container of that name", "", "istio-proxy", Unknown),
        ("a container of that name with the injector's mark", "", "istio-proxy !sidecar.istio.io/status={}", Unknown),
        ("a container in spite of the label", I, "istio-proxy sidecar.istio.io/inject=false", Outside),
        ("a container in spite of the annotation", I, "istio-proxy !sidecar.istio.io/inject=false", Outside),
        ("nothing but a container of that name", I, "only-istio-proxy sidecar.istio.io/inject=false", Outside),
        ("a claim without a proxy", "", "security.istio.io/tlsMode=istio !sidecar.istio.io/status={}", Outside),
        ("a claim that covers an opt-out", I, "sidecar.istio.io/inject=false security.istio.io/tlsMode=istio", Outside),
        ("ambient by namespace", "istio.io/dataplane-mode=ambient", "", Ambient),
        ("ambient by pod", "", "istio.io/dataplane-mode=ambient", Ambient),
        ("ambient, the pod opts out", "istio.io/dataplane-mode=ambient", "istio.io/dataplane-mode=none", Outside),
        ("ambient, the pod opts in again", "istio.io/dataplane-mode=none", "istio.io/dataplane-mode=ambient", Ambient),
        ("a sidecar wins over ambient", "istio-injection=enabled istio.io/dataplane-mode=ambient", "", Sidecar),
        ("ambient, the pod says anything else", "istio.io/dataplane-mode=ambient", "istio.io/dataplane-mode=sidecar", Ambient),
        ("ambient, the pod says nothing", "istio.io/dataplane-mode=ambient", "istio.io/dataplane-mode=", Ambient),
        ("ambient, and a container of that name", "istio.io/dataplane-mode=ambient", "istio-proxy", Ambient),
        ("ambient, and a container with the injector's mark", "istio.io/dataplane-mode=ambient", "istio-proxy !sidecar.istio.io/status={}", Unknown),
        ("ambient, opted out with a container", "istio.io/dataplane-mode=ambient", "istio-proxy istio.io/dataplane-mode=none", Outside),
        ("declining the sidecar leaves ambient", "istio-injection=enabled istio.io/dataplane-mode=ambient", "sidecar.istio.io/inject=false", Ambient),
        ("a status without a sidecar keeps ambient away", "istio.io/dataplane-mode=ambient", "!sidecar.istio.io/status={}", Outside),
        ("a template that says ztunnel has its pods", "", "!ambient.istio.io/redirection=enabled", Outside),
        ("a pod that says so against its label", "istio.io/dataplane-mode=ambient", "istio.io/dataplane-mode=none !ambient.istio.io/redirection=enabled", Outside),
        ("a gateway of the chart", I, "only-istio-proxy istio=ingressgateway sidecar.istio.io/inject=true !inject.istio.io/templates=gateway", Outside),
        ("a gateway istiod made", "", "only-istio-proxy gateway.networking.k8s.io/gateway-name=public sidecar.istio.io/inject=false", Outside),
        ("a gateway's template where nothing is injected", "istio.io/dataplane-mode=ambient", "!inject.istio.io/templates=gateway", Ambient),
        ("a gateway's template beside the usual", I, "!inject.istio.io/templates=sidecar,gateway", Unknown),
        ("a label alone makes no gateway", I, "istio=ingressgateway gateway.networking.k8s.io/gateway-name=public", Sidecar),
        ("a label alone makes no gateway of what runs", I, "istio-proxy istio=ingressgateway", Sidecar),
        ("templates of its own", I, "!inject.istio.io/templates=grpc-agent", Unknown),
        ("templates beside the usual", I, "!inject.istio.io/templates=sidecar,tuned", Sidecar),
        ("unreadable", I, "unreadable", Unknown),
    ];
    for (id, namespace_labels, pod, expected) in table {
        let found = membership(namespace_labels, pod, &["default"], false);
        assert_eq!(found.dataplane, *expected, "{id}: {}", found.reason);
    }
}

#[test]
fn namespaces_without_a_label_are_in_the_mesh_only_where_the_injector_says_so() {
    assert_eq!(membership("", "", &[], true).dataplane, Dataplane::Sidecar);
    assert_eq!(membership("", "", &[], false).dataplane, Dataplane::Outside);
    assert_eq!(membership("", "sidecar.istio.io/inject=maybe", &[], true).dataplane, Dataplane::Outside);
}

#[test]
fn a_revision_is_taken_for_installed_where_none_is_known_at_all() {
    assert_eq!(membership("istio.io/rev=1-30", "", &[], false).dataplane, Dataplane::Sidecar);
    assert_eq!(membership("istio.io/rev=1-30", "", &["1-29"], false).reason, Reason::UnknownRevision("1-30".into()));
    let tag = Revision { revision: Some("1-29".into()), tag: Some("prod".into()) };
    let cluster = Cluster::of([injector("tag", tag), namespace("shop", "istio.io/rev=prod")]);
    let mesh = Mesh::new(&cluster, &MeshSettings::default());
    assert_eq!(mesh.membership(&workload("")).dataplane, Dataplane::Sidecar);
    // `istio-injection` means the revision `default`, which this control plane does not have.
    assert_eq!(membership("istio-injection=enabled", "", &["1-29"], false).dataplane, Dataplane::Outside);
}

#[test]
fn system_namespaces_are_never_injected() {
    for name in ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"] {
        let cluster = Cluster::of([namespace(name, "istio-injection=enabled istio.io/dataplane-mode=ambient")]);
        let mesh = Mesh::new(&cluster, &MeshSettings::default());
        let pod = Workload { namespace: name.into(), ..workload("sidecar.istio.io/inject=true") };
        assert_ne!(mesh.membership(&pod).dataplane, Dataplane::Sidecar, "{name}");
        assert_ne!(mesh.membership_of_new_pods(name).dataplane, Dataplane::Sidecar, "{name}");
    }
}

#[test]
fn a_pod_that_runs_without_a_proxy_is_outside_until_it_is_started_anew() {
    let cluster = Cluster::of([namespace("shop", "istio-injection=enabled")]);
    let mesh = Mesh::new(&cluster, &MeshSettings::default());
    let pod = running("");
    assert_eq!(mesh.membership(&Workload { ips: Vec::new(), ..pod.clone() }).dataplane, Dataplane::Sidecar);
    assert_eq!(mesh.membership(&pod).reason, Reason::RunsWithout);
}

/// A pod with these marks that has an address.
fn running(marks: &str) -> Workload {
    let id = WorkloadId { kind: "Pod".into(), name: "cart-1".into() };
    Workload { id, ips: vec!["10.0.0.1".parse().unwrap()], ..workload(marks) }
}

/// What a pod that runs was given when it started stays, whatever its namespace says since.
#[test]
fn a_proxy_that_runs_stays_and_one_that_declines_the_injector_is_a_doubt() {
    use Dataplane::{Ambient, Outside, Sidecar, Unknown};
    #[rustfmt::skip]
    let table: &[(&str, &str, Dataplane)] = &[
        ("", "istio-proxy", Sidecar),
        ("istio-injection=disabled", "istio-proxy", Sidecar),
        ("istio-injection=enabled", "istio-proxy", Sidecar),
        ("istio-injection=enabled", "istio-proxy sidecar.istio.io/inject=false", Unknown),
        ("istio-injection=enabled", "only-istio-proxy sidecar.istio.io/inject=false", Outside),
        ("istio.io/dataplane-mode=ambient", "", Ambient),
        ("istio.io/dataplane-mode=ambient", "!sidecar.istio.io/status={}", Outside),
        ("istio.io/dataplane-mode=ambient", "istio-proxy !sidecar.istio.io/status={}", Sidecar),
        ("", "!ambient.istio.io/redirection=enabled", Outside),
    ];
    for (labels, marks, expected) in table {
        let cluster = Cluster::of([namespace("shop", labels)]);
        let found = Mesh::new(&cluster, &MeshSettings::default()).membership(&running(marks));
        assert_eq!(found.dataplane, *expected, "{labels} {marks}: {}", found.reason);
    }
}

#[test]
fn a_namespace_nobody_described_leaves_membership_open() {
    let cluster = Cluster::default();
    let mesh = Mesh::new(&cluster, &MeshSettings::default());
    assert_eq!(mesh.membership(&workload("")).dataplane, Dataplane::Unknown);
    assert_eq!(mesh.membership(&workload("istio-proxy")).dataplane, Dataplane::Unknown);
    assert_eq!(mesh.membership(&running("istio-proxy")).dataplane, Dataplane::Sidecar);
    assert_eq!(mesh.membership(&running("!ambient.istio.io/redirection=enabled")).dataplane, Dataplane::Ambient);
    assert_eq!(mesh.membership(&workload("sidecar.istio.io/inject=false")).dataplane, Dataplane::Unknown);
    let declined = "sidecar.istio.io/inject=false istio.io/dataplane-mode=none";
    assert_eq!(mesh.membership(&workload(declined)).dataplane, Dataplane::Outside);
}

// Capture.

fn captured(namespace_labels: &str, pod: &str, ports: &[u16]) -> String {
    let mut all = objects(&["shop/default @0 - STRICT"]);
    all.push(namespace("shop", namespace_labels));
    let cluster = Cluster::of(all);
    let effective = Mesh::new(&cluster, &MeshSettings::default()).posture(&workload(pod)).effective;
    let at = ports.iter().map(|port| effective.port(*port).mode.to_string());
    std::iter::once(effective.default.mode.to_string()).chain(at).collect::<Vec<_>>().join(", ")
}

#[test]
fn strict_does_not_count_for_what_passes_by_the_proxy() {
    const I: &str = "istio-injection=enabled";
    const A: &str = "istio.io/dataplane-mode=ambient";
    const STRICT_ALL: &str = "STRICT, STRICT, STRICT";
    const PAST_ALL: &str = "past the proxy, past the proxy, past the proxy";
    #[rustfmt::skip]
    let table: &[(&str, &str, &str)] = &[
        (I, "", STRICT_ALL),
        (I, "!traffic.sidecar.istio.io/excludeInboundPorts=80", "STRICT, past the proxy, STRICT"),
        (I, "!traffic.sidecar.istio.io/excludeInboundPorts=80,90", "STRICT, past the proxy, past the proxy"),
        (I, "!traffic.sidecar.istio.io/includeInboundPorts=*", STRICT_ALL),
        (I, "!traffic.sidecar.istio.io/includeInboundPorts=", PAST_ALL),
        (I, "!traffic.sidecar.istio.io/includeInboundPorts=90", "past the proxy, past the proxy, STRICT"),
        (I, "!traffic.sidecar.istio.io/includeInboundPorts=90 !traffic.sidecar.istio.io/excludeInboundPorts=90", "past the proxy, past the proxy, STRICT"),
        (I, "!traffic.sidecar.istio.io/excludeInterfaces=eth0", PAST_ALL),
        (I, "!traffic.sidecar.istio.io/excludeInterfaces=net1", STRICT_ALL),
        (I, "!sidecar.istio.io/interceptionMode=NONE", PAST_ALL),
        (I, "!sidecar.istio.io/interceptionMode=TPROXY", STRICT_ALL),
        (I, "!ambient.istio.io/bypass-inbound-capture=true", STRICT_ALL),
        (I, "!proxy.istio.io/config=interceptionMode:TPROXY", STRICT_ALL),
        (I, "!traffic.sidecar.istio.io/excludeInterfaces=net1,eth+", PAST_ALL),
        (I, "!traffic.sidecar.istio.io/kubevirtInterfaces=eth0", PAST_ALL),
        (I, "!istio.io/reroute-virtual-interfaces=net1,eth0", PAST_ALL),
        (I, "!istio.io/reroute-virtual-interfaces=k6t-eth0", STRICT_ALL),
        (A, "!istio.io/reroute-virtual-interfaces=eth0", PAST_ALL),
        (A, "!istio.io/reroute-virtual-interfaces=k6t-eth0", STRICT_ALL),
        (A, "!ambient.istio.io/bypass-inbound-capture=true", PAST_ALL),
        (A, "!ambient.istio.io/bypass-inbound-capture=True", PAST_ALL),
        (A, "!ambient.istio.io/bypass-inbound-capture=1", PAST_ALL),
        (A, "!ambient.istio.io/bypass-inbound-capture=yes", STRICT_ALL),
        (A, "!ambient.istio.io/bypass-inbound-capture=false", STRICT_ALL),
        (A, "!traffic.sidecar.istio.io/excludeInboundPorts=80", STRICT_ALL),
    ];
    for (labels, pod, expected) in table {
        assert_eq!(captured(labels, pod, &[80, 90]), *expected, "{labels} {pod}");
    }
    let own = "!traffic.sidecar.istio.io/excludeInboundPorts=15020,15021,15090";
    assert_eq!(captured(I, own, &[15020, 15021, 15090]), "STRICT, STRICT, STRICT, STRICT");
}

// Laws, and an oracle written from Istio's pseudo code alone.

/// What the pod `labels` of `namespace` gets: sort everything, drop what does not count, look.
fn oracle(all: &[PeerAuthentication], namespace: &str, labels: &Labels, port: u16) -> MtlsMode {
    let mut sorted = all.to_vec();
    sorted.sort_by_key(|it| (it.created.map_or(i64::MAX, Timestamp::as_second), it.name.clone(), it.namespace.clone()));
    let mut kept: Vec<PeerAuthentication> = Vec::new();
    for one in sorted {
        let second =
            one.selector.is_empty() && kept.iter().any(|it| it.selector.is_empty() && it.namespace == one.namespace);
        let ignored = one.namespace == ROOT && !one.selector.is_empty();
        if !second && !ignored {
            kept.push(one);
        }
    }
    let applicable = |it: &&PeerAuthentication| {
        (it.namespace == namespace || it.namespace == ROOT)
            && it.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let mesh = kept.iter().filter(applicable).find(|it| it.namespace == ROOT);
    let nsp = kept.iter().filter(applicable).find(|it| it.namespace != ROOT && it.selector.is_empty());
    let wl = kept.iter().filter(applicable).find(|it| it.namespace != ROOT && !it.selector.is_empty());
    let mut mode = MtlsMode::Permissive;
    for scope in [mesh, nsp, wl].into_iter().flatten() {
        if scope.mode != MtlsMode::Unset {
            mode = scope.mode.clone();
        }
    }
    match wl.and_then(|it| it.ports.get(&port)) {
        Some(MtlsMode::Unset) | None => mode,
        Some(own) => own.clone(),
    }
}

fn any_mode() -> impl Strategy<Value = MtlsMode> {
    prop_oneof![Just(MtlsMode::Unset), Just(MtlsMode::Disable), Just(MtlsMode::Permissive), Just(MtlsMode::Strict)]
}

fn any_labels() -> impl Strategy<Value = Labels> {
    prop::collection::vec((prop::sample::select(vec!["app", "tier"]), prop::sample::select(vec!["a", "b"])), 0..3)
        .prop_map(|pairs| pairs.into_iter().collect())
}

fn any_policy() -> impl Strategy<Value = PeerAuthentication> {
    let namespaces = prop::sample::select(vec![ROOT, "shop", "other"]);
    let names = prop::sample::select(vec!["a", "b", "c", "d", "e"]);
    let ages = prop::option::of(0_i64..3);
    let ports = prop::collection::btree_map(80_u16..82, any_mode(), 0..2);
    (namespaces, names, ages, any_labels(), any_mode(), ports).prop_map(
        |(namespace, name, age, selector, mode, ports)| PeerAuthentication {
            namespace: namespace.into(),
            name: name.into(),
            created: age.map(|second| Timestamp::from_second(second).unwrap()),
            revision: None,
            lifetime: Lifetime::default(),
            has_empty_selector: false,
            selector,
            mode,
            ports,
            is_partial: false,
        },
    )
}

/// Policies of different names, as a cluster has them.
fn any_policies() -> impl Strategy<Value = Vec<PeerAuthentication>> {
    prop::collection::vec(any_policy(), 0..8).prop_map(|all| {
        let by_name: BTreeMap<_, _> = all.into_iter().map(|it| ((it.namespace.clone(), it.name.clone()), it)).collect();
        by_name.into_values().collect()
    })
}

fn effective_modes(all: &[PeerAuthentication], namespace: &str, labels: &Labels) -> Vec<Mode> {
    let cluster = Cluster::of(all.iter().cloned().map(|it| Object::PeerAuthentication(Arc::new(it))));
    let mesh = Mesh::new(&cluster, &settings(ROOT));
    let effective = mesh.policies(namespace).effective(labels, Dataplane::Sidecar);
    [80, 81, 82].into_iter().map(|port| effective.port(port).mode).collect()
}

proptest! {
    #[test]
    fn the_effective_mode_is_that_of_the_oracle(
        all in any_policies(),
        labels in any_labels(),
        namespace in prop::sample::select(vec![ROOT, "shop", "other", "empty"]),
    ) {
        let expected: Vec<_> = [80, 81, 82]
            .into_iter()
            .map(|port| match oracle(&all, namespace, &labels, port) {
                MtlsMode::Strict => Mode::Strict,
                MtlsMode::Disable => Mode::Disable,
                MtlsMode::Permissive => Mode::Permissive,
                MtlsMode::Unset | MtlsMode::Unknown(_) => unreachable!("the oracle resolves these"),
            })
            .collect();
        prop_assert_eq!(effective_modes(&all, namespace, &labels), expected);
    }

    #[test]
    fn the_order_of_policies_does_not_matter(
        (all, shuffled) in any_policies().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        labels in any_labels(),
    ) {
        prop_assert_eq!(effective_modes(&all, "shop", &labels), effective_modes(&shuffled, "shop", &labels));
    }

    #[test]
    fn a_younger_policy_of_the_same_scope_changes_nothing(
        all in any_policies(),
        one in any_policy(),
        mode in any_mode(),
        labels in any_labels(),
    ) {
        let mut before = all;
        before.retain(|it| it.created.is_some() && (it.namespace != one.namespace || it.name != one.name));
        before.push(PeerAuthentication { created: Some(Timestamp::from_second(5).unwrap()), ..one.clone() });
        let younger = PeerAuthentication { name: "z".into(), created: None, mode, ports: BTreeMap::new(), ..one };
        let mut after = before.clone();
        after.push(younger);
        prop_assert_eq!(effective_modes(&before, "shop", &labels), effective_modes(&after, "shop", &labels));
    }

    #[test]
    fn what_drops_is_what_accepts_more(
        before in any_policies(),
        after in any_policies(),
        labels in any_labels(),
    ) {
        let (old, new) = (Cluster::of(before.iter().cloned().map(Arc::new).map(Object::PeerAuthentication)),
            Cluster::of(after.iter().cloned().map(Arc::new).map(Object::PeerAuthentication)));
        let (old, new) = (Mesh::new(&old, &settings(ROOT)), Mesh::new(&new, &settings(ROOT)));
        let old = old.policies("shop").effective(&labels, Dataplane::Sidecar);
        let new = new.policies("shop").effective(&labels, Dataplane::Sidecar);
        let weaker = [80, 81, 82].into_iter().any(|port| new.port(port).mode.is_weaker_than(old.port(port).mode));
        prop_assert_eq!(!old.drops_to(&new).is_empty(), weaker);
    }
}
