use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::cluster::Cluster;
use crate::mesh::Mesh;
use crate::model::{
    AdmissionWebhook, DnsPolicy, Ending, Labels, Lifetime, MeshConfig, MtlsMode, NamedProxy, Namespace, ObjectRef,
    OnFailure, Owner, PeerAuthentication, Revision, Service, ServicePort, TargetPort, WebhookConfiguration,
    WebhookKind, WorkloadId,
};
use crate::netset::Protocol;
use crate::rules::{ActiveRule, Environment, RuleSet, builtin};

const NOW: i64 = 1_780_000_000;

// Builders. Times are days before now; a policy without one is not stored yet.

fn at(days_ago: i64) -> Timestamp {
    Timestamp::from_second(NOW - days_ago * 86_400).unwrap()
}

fn labels(text: &str) -> Labels {
    text.split_whitespace().filter_map(|pair| pair.split_once('=')).collect()
}

/// `shop istio-injection=enabled`, a year old.
fn namespace(text: &str) -> Object {
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    Object::Namespace(Arc::new(Namespace {
        name: name.into(),
        uid: None,
        labels: labels(rest),
        created: Some(at(365)),
        is_terminating: false,
    }))
}

fn meshed(name: &str) -> Object {
    namespace(&format!("{name} istio-injection=enabled"))
}

/// `shop/default 10 - STRICT 8080:PERMISSIVE`: name, age, selector (`app=cart`, `-`), mode, ports.
fn policy(text: &str) -> Object {
    let mut words = text.split_whitespace();
    let (namespace, name) = words.next().unwrap().split_once('/').unwrap();
    let created = words.next().unwrap().parse().ok().map(at);
    let selector = words.next().unwrap();
    let selector = labels(if selector == "-" { "" } else { selector });
    let mode = |text: &str| match text {
        "UNSET" => MtlsMode::Unset,
        "DISABLE" => MtlsMode::Disable,
        "PERMISSIVE" => MtlsMode::Permissive,
        "STRICT" => MtlsMode::Strict,
        other => MtlsMode::Unknown(other.into()),
    };
    let own = mode(words.next().unwrap());
    let ports = words.map(|word| word.split_once(':').unwrap()).map(|(port, it)| (port.parse().unwrap(), mode(it)));
    Object::PeerAuthentication(Arc::new(PeerAuthentication {
        namespace: namespace.into(),
        name: name.into(),
        created,
        revision: None,
        lifetime: Lifetime::default(),
        has_empty_selector: false,
        selector,
        mode: own,
        ports: ports.collect(),
        is_partial: false,
    }))
}

/// `shop/cart app=cart`: a Deployment with these labels on its pods, annotations after a `!`.
fn deployment(text: &str) -> Object {
    workload("Deployment", text, None)
}

fn owner(kind: &str, name: &str) -> Owner {
    Owner { group: Some("apps".into()), id: WorkloadId { kind: kind.into(), name: name.into() } }
}

fn workload(kind: &str, text: &str, owner: Option<Owner>) -> Object {
    let (name, marks) = text.split_once(' ').unwrap_or((text, ""));
    let (namespace, name) = name.split_once('/').unwrap();
    let of = |is_annotation: bool| -> Labels {
        let words = marks.split_whitespace().filter(|word| word.starts_with('!') == is_annotation);
        words.filter_map(|word| word.trim_start_matches('!').split_once('=')).collect()
    };
    Object::Workload(Arc::new(Workload {
        id: WorkloadId { kind: kind.into(), name: name.into() },
        namespace: namespace.into(),
        uid: None,
        labels: of(false),
        annotations: of(true),
        owner,
        ending: Ending::default(),
        ports: Vec::new(),
        host_network: marks.contains("hostNetwork"),
        dns_policy: DnsPolicy::ClusterFirst,
        nameservers: Vec::new(),
        ips: Vec::new(),
        is_finished: false,
        is_idle: false,
        is_scaled_to_zero: false,
        proxy: if marks.contains("istio-proxy") { NamedProxy::Beside } else { NamedProxy::None },
        is_partial: marks.contains("unreadable"),
    }))
}

/// A rule set of this one rule.
struct Gate {
    profile: Profile,
    options: PlaintextMtls,
    environment: Environment,
}

fn gate() -> Gate {
    Gate { profile: Profile::Baseline, options: PlaintextMtls::default(), environment: Environment::default() }
}

fn restricted() -> Gate {
    Gate { profile: Profile::Restricted, ..gate() }
}

impl Gate {
    fn rules(&self) -> RuleSet {
        let action = self.profile.of(PlaintextMtls::META.baseline, PlaintextMtls::META.restricted);
        RuleSet {
            rules: vec![ActiveRule { rule: Box::new(self.options.clone()), action }],
            environment: self.environment.clone(),
            profile: self.profile,
            builtin: builtin(|meta| meta.baseline),
            on_error: Action::Warn,
            on_timeout: Action::Deny,
            max_age: jiff::SignedDuration::MAX,
        }
    }

    fn judge(&self, cluster: &[Object], change: &Change) -> Vec<Finding> {
        self.rules().judge(&Cluster::of(cluster.to_vec()), change, Timestamp::from_second(NOW).unwrap())
    }

    fn check(&self, cluster: &[Object]) -> Vec<Finding> {
        self.rules().judge_all(&Cluster::of(cluster.to_vec()), Timestamp::from_second(NOW).unwrap())
    }
}

/// What a change is told in a cluster: one line a finding.
fn told(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|it| format!("{}: {}", it.action, it.message)).collect()
}

#[track_caller]
fn denied(findings: &[Finding]) -> &Finding {
    let denials: Vec<_> = findings.iter().filter(|it| it.action == Action::Deny).collect();
    assert_eq!(denials.len(), 1, "one denial is expected: {:#?}", told(findings));
    denials[0]
}

#[track_caller]
fn warned(findings: &[Finding]) -> &Finding {
    assert!(findings.iter().all(|it| it.action == Action::Warn), "only warnings are expected: {:#?}", told(findings));
    findings.first().expect("a warning is expected")
}

#[track_caller]
fn silent(findings: &[Finding]) {
    assert!(findings.is_empty(), "nothing is expected: {:#?}", told(findings));
}

fn create(object: Object) -> Change {
    Change::Create(object)
}

fn update(old: Object, new: Object) -> Change {
    Change::Update(old, new)
}

fn delete(object: Object) -> Change {
    Change::Delete(object)
}

/// The injector of a revision whose control plane is in a namespace.
fn injector(revision: &str, namespace: &str) -> Object {
    Object::WebhookConfiguration(Arc::new(WebhookConfiguration {
        kind: WebhookKind::Mutating,
        name: format!("istiod-{revision}").into(),
        revision: Some(Revision { revision: Some(revision.into()), tag: None }),
        webhooks: vec![AdmissionWebhook {
            name: "sidecar-injector.istio.io".into(),
            namespace: namespace.into(),
            service: "istiod".into(),
            port: 443,
            on_failure: OnFailure::Fail,
        }],
    }))
}

/// A STRICT shop with one Deployment, and what a test adds.
fn shop(more: &[&str]) -> Vec<Object> {
    let mut all = vec![meshed("shop"), policy("shop/default 30 - STRICT"), deployment("shop/cart app=cart")];
    all.extend(more.iter().map(|text| policy(text)));
    all
}

// What is not to be fooled.

#[test]
fn a_namespace_in_the_mesh_without_any_policy_accepts_plaintext() {
    let findings = gate().check(&[meshed("shop"), deployment("shop/cart app=cart")]);
    let finding = warned(&findings);
    assert_eq!(findings.len(), 1, "{:#?}", told(&findings));
    assert_eq!(
        finding.message,
        "`Deployment cart` and every pod to come in `shop` accept plaintext (PERMISSIVE): no PeerAuthentication \
         decides, and Istio's default is PERMISSIVE"
    );
    assert_eq!(finding.object.to_string(), "Namespace shop");
}

#[test]
fn unset_without_a_strict_parent_is_permissive() {
    let findings = gate().check(&[meshed("shop"), policy("shop/default 9 - UNSET"), deployment("shop/cart app=cart")]);
    assert!(warned(&findings).message.contains("`Deployment cart` and every pod to come in `shop` accept plaintext"));
    silent(&gate().check(&[
        meshed("shop"),
        policy("shop/default 9 - UNSET"),
        policy("istio-system/default 9 - STRICT"),
        deployment("shop/cart app=cart"),
    ]));
}

#[test]
fn an_exception_of_one_port_is_found_under_strict() {
    let findings = gate().check(&shop(&["shop/cart 20 app=cart STRICT 8080:PERMISSIVE 9090:PERMISSIVE 7070:STRICT"]));
    let finding = warned(&findings);
    assert_eq!(findings.len(), 1);
    assert!(
        finding
            .message
            .starts_with("`Deployment cart` in `shop` accepts plaintext (PERMISSIVE) on ports 8080 and 9090"),
        "{}",
        finding.message
    );
    assert_eq!(finding.path.as_str(), "spec.portLevelMtls.8080.mode");
}

#[test]
fn a_strict_policy_that_an_older_one_overrides_is_named_with_the_reason() {
    let cluster = [meshed("shop"), policy("shop/old 200 - PERMISSIVE"), deployment("shop/cart app=cart")];
    let findings = gate().judge(&cluster, &create(policy("shop/default - - STRICT")));
    warned(&findings);
    let of_policy = findings.iter().find(|it| it.object.name == "default").expect("the new policy has no effect");
    assert!(
        of_policy.message.contains("`PeerAuthentication shop/old` (PERMISSIVE, created 2025-11-"),
        "{}",
        of_policy.message
    );
    assert!(of_policy.message.contains("older"), "{}", of_policy.message);
    assert!(of_policy.fix.contains("name: old") && of_policy.fix.contains("mode: STRICT"), "{}", of_policy.fix);
    let of_workloads = findings.iter().find(|it| it.object.name == "old").expect("the workloads stay weak");
    assert!(of_workloads.standing);
    assert!(of_workloads.evidence.iter().any(|it| it.contains("shop/default` says STRICT without effect")));
}

#[test]
fn of_two_policies_of_one_second_the_name_decides_and_is_said_to() {
    let mut cluster = vec![meshed("shop"), policy("shop/a 9 - PERMISSIVE"), policy("shop/b 9 - STRICT")];
    let findings = gate().check(&cluster);
    assert!(findings.iter().any(|it| it.message.contains("both are of the same second")), "{:#?}", told(&findings));
    cluster[1] = policy("shop/c 9 - PERMISSIVE");
    silent(&gate().check(&cluster));
}

#[test]
fn a_strict_policy_that_selects_nothing_is_named_with_labels_that_exist() {
    let cluster = [meshed("shop"), deployment("shop/cart app=cart")];
    let findings = gate().judge(&cluster, &create(policy("shop/strict - app=crat STRICT")));
    warned(&findings);
    let finding = findings.iter().find(|it| it.object.name == "strict").expect("it selects nothing");
    assert!(finding.message.contains("no workload in its namespace is labelled `app=crat`"), "{}", finding.message);
    assert!(finding.help.contains("`app=cart`"), "{}", finding.help);
    // Before its workloads are there, a policy is not late but early.
    let findings = gate().judge(&[meshed("shop")], &create(policy("shop/strict - app=crat STRICT")));
    assert!(findings.iter().all(|it| it.object.name != "strict"), "{:#?}", told(&findings));
}

#[test]
fn a_selector_in_the_root_namespace_protects_nobody() {
    let cluster = [meshed("shop"), deployment("shop/cart app=cart")];
    let findings = gate().judge(&cluster, &create(policy("istio-system/cart - app=cart STRICT")));
    let finding = warned(&findings);
    assert!(finding.message.contains("Istio ignores policies with one"), "{}", finding.message);
    assert!(finding.fix.contains("namespace: shop"), "{}", finding.fix);
    assert_eq!(finding.path.as_str(), "spec.selector");
    let mut cluster = cluster.to_vec();
    cluster.push(policy("istio-system/cart 3 app=cart STRICT"));
    let findings = gate().check(&cluster);
    let weak = findings.iter().find(|it| it.object.kind == "Namespace").expect("the workload is weak");
    assert!(weak.evidence.iter().any(|it| it.contains("istio-system/cart` says STRICT without effect")), "{weak:#?}");
}

#[test]
fn a_policy_in_what_is_not_the_root_namespace_protects_only_that() {
    let config = MeshConfig {
        namespace: "istio-system".into(),
        name: "istio".into(),
        root_namespace: Some("istio-config".into()),
    };
    let cluster = [
        meshed("shop"),
        deployment("shop/cart app=cart"),
        Object::MeshConfig(Arc::new(config)),
        policy("istio-system/default 3 - STRICT"),
    ];
    let findings = gate().check(&cluster);
    warned(&findings);
    let weak = findings.iter().find(|it| it.object.name == "shop").expect("the shop is weak");
    let says = "the mesh's root namespace is `istio-config`";
    assert!(weak.evidence.iter().any(|it| it.contains(says)), "{weak:#?}");
    let idle = findings.iter().find(|it| it.object.name == "default").expect("the policy is named");
    assert!(idle.message.contains(says) && idle.fix.contains("namespace: istio-config"), "{idle:#?}");
}

#[test]
fn traffic_past_the_proxy_is_found_under_strict() {
    let cluster = [
        meshed("shop"),
        policy("shop/default 30 - STRICT"),
        deployment("shop/cart app=cart !traffic.sidecar.istio.io/excludeInboundPorts=8080"),
    ];
    let findings = gate().check(&cluster);
    let finding = warned(&findings);
    assert_eq!(
        finding.message,
        "`Deployment cart` in `shop` accepts plaintext past the proxy on port 8080: the annotation \
         `traffic.sidecar.istio.io/excludeInboundPorts: 8080` keeps traffic from the proxy"
    );
}

#[test]
fn disable_is_worse_than_permissive_and_says_so() {
    let findings =
        gate().check(&[meshed("shop"), policy("shop/default 3 - DISABLE"), deployment("shop/cart app=cart")]);
    let finding = denied(&findings);
    assert!(finding.message.contains("accept plaintext only (DISABLE)"), "{}", finding.message);
    assert!(finding.why.starts_with("DISABLE is worse than PERMISSIVE"), "{}", finding.why);
    let permissive = [meshed("shop"), policy("shop/default 3 - PERMISSIVE"), deployment("shop/cart app=cart")];
    let change = update(policy("shop/default 3 - PERMISSIVE"), policy("shop/default 3 - DISABLE"));
    assert!(denied(&gate().judge(&permissive, &change)).message.contains("from PERMISSIVE to DISABLE"));
}

#[test]
fn a_port_of_the_service_is_not_the_port_of_the_pods() {
    let service = Object::Service(Arc::new(Service {
        namespace: "shop".into(),
        name: "cart".into(),
        uid: None,
        labels: Labels::default(),
        selector: Some(labels("app=cart")),
        ports: vec![ServicePort { protocol: Protocol::Tcp, port: 80, target: TargetPort::Number(8080) }],
        is_external_name: false,
        cluster_ips: Vec::new(),
    }));
    let cluster = |policy_text: &str| {
        vec![meshed("shop"), deployment("shop/cart app=cart"), service.clone(), policy(policy_text)]
    };
    let says = "80 is a port of the Service `cart`: its pods listen on 8080";
    let findings = gate().check(&cluster("shop/cart 9 app=cart PERMISSIVE 80:STRICT"));
    let idle =
        findings.iter().find(|it| it.message.contains("without effect on port 80")).expect("it protects nothing");
    assert!(idle.message.contains(says), "{}", idle.message);
    assert_eq!(idle.path.as_str(), "spec.portLevelMtls.80.mode");
    let findings = gate().check(&cluster("shop/cart 9 app=cart STRICT 80:PERMISSIVE"));
    assert!(findings.iter().flat_map(|it| &it.evidence).any(|it| it.contains(says)), "{findings:#?}");
    let findings = gate().check(&cluster("shop/cart 9 app=cart PERMISSIVE 8080:STRICT"));
    assert!(!told(&findings).join("\n").contains("without effect"), "{:#?}", told(&findings));
}

// What it fires on.

#[test]
fn a_change_from_strict_to_permissive_is_denied() {
    let change = update(policy("shop/default 30 - STRICT"), policy("shop/default 30 - PERMISSIVE"));
    let findings = gate().judge(&shop(&[]), &change);
    let finding = denied(&findings);
    assert!(
        finding.message.starts_with(
            "changing `PeerAuthentication shop/default` takes `Deployment cart` and every pod to come in `shop` from \
             STRICT to PERMISSIVE: "
        ),
        "{}",
        finding.message
    );
    assert_eq!(finding.path.as_str(), "spec.mtls.mode");
    assert_eq!(findings.len(), 1);
}

#[test]
fn a_change_to_unset_without_a_parent_is_denied() {
    let change = update(policy("shop/default 30 - STRICT"), policy("shop/default 30 - UNSET"));
    denied(&gate().judge(&shop(&[]), &change));
}

#[test]
fn a_new_weaker_policy_for_a_workload_is_denied() {
    let findings = gate().judge(&shop(&[]), &create(policy("shop/cart - app=cart PERMISSIVE")));
    let finding = denied(&findings);
    assert!(
        finding.message.contains("takes `Deployment cart` in `shop` from STRICT to PERMISSIVE"),
        "{}",
        finding.message
    );
    assert!(finding.fix.contains("app: cart") && finding.fix.contains("mode: STRICT"), "{}", finding.fix);
}

#[test]
fn a_new_exception_of_one_port_is_denied() {
    let findings = gate().judge(&shop(&[]), &create(policy("shop/cart - app=cart UNSET 8080:DISABLE")));
    let finding = denied(&findings);
    assert!(finding.message.contains("from STRICT to DISABLE on port 8080"), "{}", finding.message);
}

#[test]
fn deleting_the_last_strict_policy_is_denied() {
    let findings = gate().judge(&shop(&[]), &delete(policy("shop/default 30 - STRICT")));
    let finding = denied(&findings);
    assert!(
        finding.message.contains("deleting `PeerAuthentication shop/default` takes `Deployment cart`"),
        "{}",
        finding.message
    );
    assert!(finding.message.contains("no PeerAuthentication decides"), "{}", finding.message);
    assert!(finding.fix.contains("name: strict"), "the name that goes is not offered: {}", finding.fix);
}

#[test]
fn deleting_the_last_policy_of_a_namespace_in_which_nothing_runs_is_a_warning() {
    let ending = |text: &str, owner: Option<Owner>, ending: Ending| {
        let Object::Workload(pod) = workload("Pod", text, owner) else { unreachable!() };
        Object::Workload(Arc::new(Workload { ending, ..Workload::clone(&pod) }))
    };
    let deleted = ending("shop/a app=cart", None, Ending { has_begun: true, ..Ending::default() });
    let collected = ending(
        "shop/b app=cart",
        Some(owner("ReplicaSet", "gone")),
        Ending { is_with_owner: true, ..Ending::default() },
    );
    let empty = [meshed("shop"), policy("shop/default 30 - STRICT")];
    let uninstalled = [empty.to_vec(), vec![deleted, collected]].concat();
    for cluster in [empty.to_vec(), uninstalled] {
        warned(&gate().judge(&cluster, &delete(policy("shop/default 30 - STRICT"))));
        // What weakens it in another way cleans nothing up.
        let weaken = update(policy("shop/default 30 - STRICT"), policy("shop/default 30 - PERMISSIVE"));
        denied(&gate().judge(&cluster, &weaken));
        denied(&gate().judge(&cluster, &update(meshed("shop"), namespace("shop"))));
        let running = [cluster.clone(), vec![workload("Pod", "shop/c app=c", None)]].concat();
        denied(&gate().judge(&running, &delete(policy("shop/default 30 - STRICT"))));
    }
}

#[test]
fn deleting_the_oldest_policy_wakes_the_weaker_one() {
    let findings = gate().judge(&shop(&["shop/old 10 - PERMISSIVE"]), &delete(policy("shop/default 30 - STRICT")));
    let finding = denied(&findings);
    assert!(finding.message.contains("`PeerAuthentication shop/old` (created 2026-05-"), "{}", finding.message);
    assert!(finding.fix.contains("name: old"), "{}", finding.fix);
    assert!(finding.help.contains("set `PeerAuthentication shop/old` to STRICT first"), "{}", finding.help);
}

#[test]
fn deleting_a_workloads_strict_policy_under_a_weak_namespace_is_denied() {
    let cluster = [
        meshed("shop"),
        policy("shop/default 30 - PERMISSIVE"),
        policy("shop/cart 20 app=cart STRICT"),
        deployment("shop/cart app=cart"),
    ];
    let findings = gate().judge(&cluster, &delete(policy("shop/cart 20 app=cart STRICT")));
    let finding = denied(&findings);
    assert!(
        finding.message.contains("takes `Deployment cart` in `shop` from STRICT to PERMISSIVE"),
        "{}",
        finding.message
    );
}

#[test]
fn taking_strict_from_one_port_of_a_weak_workload_is_denied() {
    let before = "shop/cart 20 app=cart PERMISSIVE 8080:STRICT";
    let cluster = [meshed("shop"), policy(before), deployment("shop/cart app=cart")];
    for after in ["shop/cart 20 app=cart PERMISSIVE", "shop/cart 20 app=cart PERMISSIVE 9090:STRICT"] {
        let findings = gate().judge(&cluster, &update(policy(before), policy(after)));
        let finding = denied(&findings);
        assert!(finding.message.contains("from STRICT to PERMISSIVE on port 8080"), "{}", finding.message);
    }
    denied(&gate().judge(&cluster, &delete(policy(before))));
}

#[test]
fn narrowing_a_selector_uncovers_the_rest() {
    let before = "shop/strict 20 tier=web STRICT";
    let cluster = [meshed("shop"), policy(before), deployment("shop/cart app=cart tier=web")];
    denied(&gate().judge(&cluster, &update(policy(before), policy("shop/strict 20 tier=web,app=other STRICT"))));
}

#[test]
fn a_label_that_takes_a_workload_under_a_weaker_policy_is_denied() {
    let cluster = shop(&["shop/legacy 10 tier=legacy PERMISSIVE"]);
    let change = update(deployment("shop/cart app=cart"), deployment("shop/cart app=cart tier=legacy"));
    let findings = gate().judge(&cluster, &change);
    let finding = denied(&findings);
    assert!(finding.message.contains("changing `Deployment shop/cart` takes `Deployment cart`"), "{}", finding.message);
    assert!(finding.message.contains("`PeerAuthentication shop/legacy`"), "{}", finding.message);
    assert_eq!(finding.path.as_str(), "spec.template.metadata.labels");
}

#[test]
fn a_label_that_takes_a_workload_from_under_its_strict_policy_is_denied() {
    let cluster = [meshed("shop"), policy("shop/strict 9 app=cart STRICT"), deployment("shop/cart app=cart")];
    denied(&gate().judge(&cluster, &update(deployment("shop/cart app=cart"), deployment("shop/cart app=basket"))));
}

#[test]
fn an_annotation_that_takes_a_port_from_the_proxy_is_denied() {
    let annotated = "shop/cart app=cart !traffic.sidecar.istio.io/excludeInboundPorts=8080";
    let findings = gate().judge(&shop(&[]), &update(deployment("shop/cart app=cart"), deployment(annotated)));
    let finding = denied(&findings);
    assert!(finding.message.contains("from STRICT to past the proxy on port 8080"), "{}", finding.message);
    assert_eq!(
        finding.path.as_str(),
        "spec.template.metadata.annotations[traffic.sidecar.istio.io/excludeInboundPorts]"
    );
}

#[test]
fn every_way_for_a_workload_to_leave_the_mesh_from_strict_is_denied() {
    for (marks, reason) in [
        ("sidecar.istio.io/inject=false", "sidecar.istio.io/inject=false"),
        ("!sidecar.istio.io/inject=false", "sidecar.istio.io/inject: false"),
        ("hostNetwork", "node's network"),
        ("!inject.istio.io/templates=gateway", "gateway"),
        ("sidecar.istio.io/inject=false istio-proxy", "sidecar.istio.io/inject=false"),
        ("!inject.istio.io/templates=gateway istio-proxy", "gateway"),
        ("sidecar.istio.io/inject=false security.istio.io/tlsMode=istio", "sidecar.istio.io/inject=false"),
    ] {
        let after = deployment(&format!("shop/cart app=cart {marks}"));
        let findings = gate().judge(&shop(&[]), &update(deployment("shop/cart app=cart"), after));
        let finding = denied(&findings);
        assert!(finding.message.contains("out of the mesh, where STRICT held"), "{}", finding.message);
        assert!(finding.message.contains(reason), "{}", finding.message);
    }
}

#[test]
fn a_namespace_that_leaves_the_mesh_from_strict_is_denied() {
    for after in [
        "shop",
        "shop istio-injection=disabled",
        "shop istio-injection=disabled istio.io/rev=default",
        "shop istio.io/dataplane-mode=none",
    ] {
        let findings = gate().judge(&shop(&[]), &update(meshed("shop"), namespace(after)));
        let finding = denied(&findings);
        assert!(
            finding.message.contains("takes `Deployment cart` and every pod to come in `shop` out of the mesh"),
            "{}",
            finding.message
        );
        assert_eq!(finding.path.as_str(), "metadata.labels");
        assert!(finding.fix.contains("istio-injection: enabled"), "{}", finding.fix);
    }
}

#[test]
fn a_revision_that_is_not_installed_is_a_way_out_of_the_mesh() {
    let mut cluster = shop(&[]);
    cluster.push(injector("default", "istio-system"));
    let findings = gate().judge(&cluster, &update(meshed("shop"), namespace("shop istio.io/rev=1-99")));
    assert!(denied(&findings).message.contains("`1-99` is installed"), "{:#?}", told(&findings));
}

#[test]
fn moving_from_a_sidecar_to_ambient_under_strict_is_no_weakening() {
    silent(&gate().judge(&shop(&[]), &update(meshed("shop"), namespace("shop istio.io/dataplane-mode=ambient"))));
}

#[test]
fn leaving_a_permissive_mesh_is_a_warning() {
    let cluster = [meshed("shop"), deployment("shop/cart app=cart")];
    let findings = gate().judge(&cluster, &update(meshed("shop"), namespace("shop")));
    assert!(warned(&findings).message.contains("where PERMISSIVE held"));
}

#[test]
fn the_meshs_own_policy_is_judged_for_every_namespace() {
    let mut cluster = vec![policy("istio-system/default 90 - STRICT")];
    for name in ["cart", "news", "shop"] {
        cluster.push(meshed(name));
        cluster.push(deployment(&format!("{name}/web app=web")));
    }
    cluster.push(policy("news/default 9 - STRICT"));
    cluster.push(namespace("outside"));
    let findings = gate().judge(&cluster, &delete(policy("istio-system/default 90 - STRICT")));
    let finding = denied(&findings);
    assert_eq!(findings.len(), 1, "{:#?}", told(&findings));
    assert!(
        finding.message.starts_with(
            "deleting `PeerAuthentication istio-system/default` takes 2 workloads and every pod to come in 2 namespaces \
             (`cart` and `shop`) and every namespace to come without a policy of its own from STRICT to PERMISSIVE"
        ),
        "{}",
        finding.message
    );
    assert_eq!(finding.evidence[0], "`cart`: `Deployment web`");
}

#[test]
fn moving_the_root_namespace_takes_the_meshs_policy_along() {
    let config = |root: &str| {
        Object::MeshConfig(Arc::new(MeshConfig {
            namespace: "istio-system".into(),
            name: "istio".into(),
            root_namespace: Some(root.into()),
        }))
    };
    let cluster = [meshed("shop"), policy("istio-system/default 9 - STRICT"), config("istio-system")];
    let findings = gate().judge(&cluster, &update(config("istio-system"), config("elsewhere")));
    assert!(findings.iter().any(|it| it.action == Action::Deny), "{:#?}", told(&findings));
}

#[test]
fn the_last_mesh_wide_strict_is_guarded_even_while_nobody_rests_on_it() {
    let cluster = [policy("istio-system/default 9 - STRICT")];
    let findings = gate().judge(&cluster, &delete(cluster[0].clone()));
    assert!(denied(&findings).message.contains("every namespace to come"), "{:#?}", told(&findings));
}

// Where it starts weak.

#[test]
fn a_new_workload_that_starts_weak_is_a_warning_in_baseline_and_denied_in_restricted() {
    let cluster = [meshed("shop"), policy("shop/default 9 - PERMISSIVE")];
    let change = create(deployment("shop/cart app=cart"));
    let findings = gate().judge(&cluster, &change);
    let finding = warned(&findings);
    assert!(
        finding.message.starts_with("`Deployment cart` in `shop` accepts plaintext (PERMISSIVE) from the start"),
        "{}",
        finding.message
    );
    assert!(!finding.standing);
    denied(&restricted().judge(&cluster, &change));
    let strict = Gate { options: PlaintextMtls { new_workloads: Some(Action::Deny), ..Default::default() }, ..gate() };
    denied(&strict.judge(&cluster, &change));
    let lax =
        Gate { options: PlaintextMtls { new_workloads: Some(Action::Off), ..Default::default() }, ..restricted() };
    silent(&lax.judge(&cluster, &change));
}

#[test]
fn a_namespace_can_be_created_before_its_policy_even_in_restricted() {
    let findings = restricted().judge(&[], &create(meshed("shop")));
    let finding = warned(&findings);
    assert!(finding.fix.contains("namespace: shop"), "{}", finding.fix);
}

#[test]
fn workloads_of_a_namespace_within_its_grace_are_a_warning() {
    let young = Object::Namespace(Arc::new(Namespace {
        name: "shop".into(),
        uid: None,
        labels: labels("istio-injection=enabled"),
        created: Some(Timestamp::from_second(NOW - 30).unwrap()),
        is_terminating: false,
    }));
    let change = create(deployment("shop/cart app=cart"));
    denied(&restricted().judge(std::slice::from_ref(&young), &change));
    let grace = PlaintextMtls { grace: SignedDuration::from_mins(1), ..Default::default() };
    warned(&Gate { options: grace.clone(), ..restricted() }.judge(&[young], &change));
    denied(&Gate { options: grace, ..restricted() }.judge(&[meshed("shop")], &change));
}

#[test]
fn joining_the_mesh_in_permissive_mode_is_never_denied() {
    let cluster = [namespace("shop"), deployment("shop/cart app=cart")];
    warned(&restricted().judge(&cluster, &update(namespace("shop"), meshed("shop"))));
}

#[test]
fn a_pod_counts_as_its_controllers() {
    let pod = |name: &str| workload("Pod", &format!("shop/{name} app=cart"), Some(owner("ReplicaSet", "cart-1")));
    let replica_set = workload("ReplicaSet", "shop/cart-1 app=cart", Some(owner("Deployment", "cart")));
    let cluster = [meshed("shop"), deployment("shop/cart app=cart"), replica_set, pod("cart-1-a"), pod("cart-1-b")];
    let findings = restricted().check(&cluster);
    assert!(
        denied(&findings).message.starts_with("`Deployment cart` and every pod to come in `shop`"),
        "{:#?}",
        told(&findings)
    );
    // It stood before in the template: a new pod of it is not new.
    warned(&restricted().judge(&cluster, &create(pod("cart-1-c"))));
}

#[test]
fn an_owner_that_does_not_make_a_workload_says_nothing_of_it() {
    let mut cluster = shop(&["shop/weak 10 tier=weak DISABLE"]);
    let legacy = |kind: &str| workload(kind, "shop/legacy app=legacy sidecar.istio.io/inject=false", None);
    cluster.extend(["Deployment", "ReplicaSet", "StatefulSet"].map(legacy));
    cluster.extend([
        workload("ReplicaSet", "shop/old app=old tier=weak", None),
        workload("ReplicaSet", "shop/noted app=old !sidecar.istio.io/inject=false", None),
    ]);
    let leaves = [
        // Of a kind that it does not make.
        workload("Pod", "shop/p app=legacy sidecar.istio.io/inject=false", Some(owner("Deployment", "legacy"))),
        workload("Deployment", "shop/p app=legacy sidecar.istio.io/inject=false", Some(owner("StatefulSet", "legacy"))),
        // With other labels, or more of them.
        workload("Pod", "shop/p app=cart sidecar.istio.io/inject=false", Some(owner("ReplicaSet", "legacy"))),
        workload("Pod", "shop/p app=legacy sidecar.istio.io/inject=false a=b", Some(owner("ReplicaSet", "legacy"))),
        // With other annotations, and on another network.
        workload("Pod", "shop/p app=old !sidecar.istio.io/inject=false !a=b", Some(owner("ReplicaSet", "noted"))),
        workload(
            "Pod",
            "shop/p app=legacy sidecar.istio.io/inject=false hostNetwork",
            Some(owner("ReplicaSet", "legacy")),
        ),
    ];
    for pod in leaves {
        let findings = gate().judge(&cluster, &create(pod.clone()));
        assert!(warned(&findings).message.contains("mesh"), "{pod:?}: {:#?}", told(&findings));
    }
    let weak = workload("Pod", "shop/p app=cart tier=weak", Some(owner("ReplicaSet", "old")));
    denied(&restricted().judge(&cluster, &create(weak)));
    // One more of what stands is compared with it.
    let more = workload("Pod", "shop/p app=old tier=weak pod-template-hash=1", Some(owner("ReplicaSet", "old")));
    warned(&restricted().judge(&cluster, &create(more)));
    let out = "shop/p app=legacy sidecar.istio.io/inject=false pod-template-hash=1";
    silent(&gate().judge(&cluster, &create(workload("Pod", out, Some(owner("ReplicaSet", "legacy"))))));
}

#[test]
fn a_weak_pod_does_not_hide_that_its_template_gets_weaker() {
    let pod = workload("Pod", "shop/cart-1 app=cart tier=legacy", Some(owner("Deployment", "cart")));
    let mut cluster = shop(&["shop/legacy 10 tier=legacy PERMISSIVE"]);
    cluster.push(pod);
    denied(&gate().judge(&cluster, &delete(policy("shop/default 30 - STRICT"))));
}

// Honest changes.

#[test]
fn what_makes_nothing_weaker_passes() {
    let weak = [
        meshed("shop"),
        policy("shop/default 30 - PERMISSIVE"),
        policy("shop/legacy 20 app=cart DISABLE"),
        deployment("shop/cart app=cart"),
    ];
    for change in [
        update(policy("shop/default 30 - PERMISSIVE"), policy("shop/default 30 - STRICT")),
        delete(policy("shop/legacy 20 app=cart DISABLE")),
        update(policy("shop/legacy 20 app=cart DISABLE"), policy("shop/legacy 20 app=cart PERMISSIVE")),
        update(policy("shop/legacy 20 app=cart DISABLE"), policy("shop/legacy 20 app=cart STRICT 8080:DISABLE")),
        create(policy("shop/new - - STRICT")),
        create(policy("shop/another - app=cart DISABLE")),
    ] {
        let findings = restricted().judge(&weak, &change);
        assert!(findings.iter().all(|it| it.action < Action::Deny), "{change:?}: {:#?}", told(&findings));
    }
}

#[test]
fn what_cannot_change_the_mode_says_nothing() {
    let weak = [meshed("shop"), policy("shop/default 30 - PERMISSIVE"), deployment("shop/cart app=cart")];
    for change in [
        delete(deployment("shop/cart app=cart")),
        update(deployment("shop/cart app=cart"), deployment("shop/cart app=cart")),
        update(policy("shop/default 30 - PERMISSIVE"), policy("shop/default 30 - PERMISSIVE")),
        update(meshed("shop"), meshed("shop")),
        delete(meshed("shop")),
    ] {
        silent(&restricted().judge(&weak, &change));
    }
}

#[test]
fn a_namespace_that_is_being_deleted_is_never_held_up() {
    let terminating = Object::Namespace(Arc::new(Namespace {
        name: "shop".into(),
        uid: None,
        labels: labels("istio-injection=enabled"),
        created: Some(at(9)),
        is_terminating: true,
    }));
    let cluster = [terminating, policy("shop/default 9 - STRICT"), deployment("shop/cart app=cart")];
    silent(&restricted().judge(&cluster, &delete(policy("shop/default 9 - STRICT"))));
}

#[test]
fn namespaces_outside_the_mesh_are_silent() {
    let cluster = [namespace("shop"), deployment("shop/cart app=cart"), policy("istio-system/default 9 - PERMISSIVE")];
    let findings = restricted().check(&cluster);
    assert!(findings.iter().all(|it| it.namespace.as_deref() != Some("shop")), "{:#?}", told(&findings));
    silent(&restricted().judge(&cluster, &create(deployment("shop/web app=web"))));
    silent(&restricted().judge(&cluster, &create(policy("shop/default - - PERMISSIVE"))));
}

#[test]
fn manifests_without_a_namespace_and_without_a_policy_say_nothing() {
    silent(&restricted().check(&[deployment("default/cart app=cart"), deployment("default/web app=web")]));
}

#[test]
fn exempt_namespaces_are_left_alone() {
    let mut gate = gate();
    gate.environment.namespaces.exempt.push("shop".into());
    silent(&gate.judge(&shop(&[]), &delete(policy("shop/default 30 - STRICT"))));
    silent(&gate.check(&[meshed("shop"), deployment("shop/cart app=cart")]));
}

#[test]
fn the_mode_label_of_a_namespace_caps_what_is_said_of_it() {
    let cluster = [
        namespace("shop istio-injection=enabled portcullis.dev/mode=warn"),
        policy("shop/default 9 - STRICT"),
        deployment("shop/cart app=cart"),
    ];
    warned(&gate().judge(&cluster, &delete(policy("shop/default 9 - STRICT"))));
}

// A mesh that is required.

#[test]
fn a_required_mesh_reports_what_is_outside_of_it() {
    let required = |profile| Gate {
        profile,
        options: PlaintextMtls { require_mesh: true, ..Default::default() },
        environment: Environment::default(),
    };
    let cluster = [
        namespace("shop"),
        deployment("shop/cart app=cart"),
        deployment("shop/node-agent hostNetwork"),
        namespace("istio-system"),
        deployment("istio-system/istiod app=istiod"),
    ];
    let findings = required(Profile::Restricted).check(&cluster);
    let finding = denied(&findings);
    assert!(
        finding.message.starts_with("`Deployment cart` and every pod to come in `shop` are not in the mesh"),
        "{}",
        finding.message
    );
    assert!(finding.fix.contains("istio-injection: enabled"), "{}", finding.fix);
    assert_eq!(findings.len(), 1, "{:#?}", told(&findings));
    warned(&required(Profile::Baseline).judge(&cluster, &create(deployment("shop/web app=web"))));
    let opted_out =
        [meshed("shop"), policy("shop/default 9 - STRICT"), deployment("shop/cart sidecar.istio.io/inject=false")];
    let findings = required(Profile::Baseline).check(&opted_out);
    assert_eq!(warned(&findings).object.to_string(), "Deployment shop/cart");
}

// What is not known.

#[test]
fn a_namespace_nobody_described_is_at_most_a_warning() {
    let cluster = [policy("shop/default 9 - STRICT"), deployment("shop/cart app=cart")];
    let findings = restricted().judge(&cluster, &delete(policy("shop/default 9 - STRICT")));
    assert!(findings.iter().all(|it| it.action < Action::Deny), "{:#?}", told(&findings));
    let findings = restricted().check(&[policy("shop/default 9 - PERMISSIVE"), deployment("shop/cart app=cart")]);
    let finding = warned(&findings);
    assert!(finding.message.contains("whether it is in the mesh"), "{}", finding.message);
    assert!(finding.help.contains("shop/default"), "{}", finding.help);
}

#[test]
fn a_mode_of_a_newer_version_is_at_most_a_warning_and_never_silent() {
    let change = update(policy("shop/default 30 - STRICT"), policy("shop/default 30 - MUTUAL_ONLY"));
    let findings = restricted().judge(&shop(&[]), &change);
    let finding = warned(&findings);
    assert!(
        finding.message.starts_with("cannot tell whether `Deployment cart` and every pod to come in `shop`"),
        "{}",
        finding.message
    );
    assert!(finding.message.contains("`MUTUAL_ONLY`"), "{}", finding.message);
}

#[test]
fn a_policy_that_could_not_be_read_is_at_most_a_warning_and_never_silent() {
    let Object::PeerAuthentication(read) = policy("shop/odd - app=other STRICT") else { unreachable!() };
    let odd = Object::PeerAuthentication(Arc::new(PeerAuthentication { is_partial: true, ..(*read).clone() }));
    let findings = restricted().judge(&shop(&[]), &create(odd));
    assert!(warned(&findings).message.contains("could not be read in full"), "{:#?}", told(&findings));
}

#[test]
fn a_disputed_root_namespace_is_at_most_a_warning() {
    let config = |name: &str, root: &str| {
        Object::MeshConfig(Arc::new(MeshConfig {
            namespace: "mesh".into(),
            name: name.into(),
            root_namespace: Some(root.into()),
        }))
    };
    let mut cluster = shop(&[]);
    cluster.extend([config("istio", "one"), config("istio-canary", "two"), injector("default", "mesh")]);
    let findings = restricted().judge(&cluster, &delete(policy("shop/default 30 - STRICT")));
    let finding = findings.iter().find(|it| it.namespace.as_deref() == Some("shop")).expect("the shop is weak");
    assert_eq!(finding.action, Action::Warn);
    assert!(finding.message.contains("the mesh's root namespace"), "{}", finding.message);
}

/// A ConfigMap that says where the mesh's root is.
fn mesh_config(namespace: &str, root: &str) -> Object {
    Object::MeshConfig(Arc::new(MeshConfig {
        namespace: namespace.into(),
        name: "istio".into(),
        root_namespace: Some(root.into()),
    }))
}

#[test]
fn a_tenants_config_map_turns_no_denial_into_a_warning() {
    let weaken = update(policy("shop/default 30 - STRICT"), policy("shop/default 30 - PERMISSIVE"));
    for proof in
        [vec![], vec![injector("default", "aks-istio-system")], vec![mesh_config("istio-system", "istio-system")]]
    {
        let mut cluster = shop(&[]);
        cluster.extend(proof);
        denied(&gate().judge(&cluster, &weaken));
        cluster.extend([mesh_config("shop", "shop"), mesh_config("news", "elsewhere")]);
        denied(&gate().judge(&cluster, &weaken));
        // Nor is writing it a change to judge.
        let change = create(mesh_config("attic", "attic"));
        assert!(gate().judge(&cluster, &change).is_empty());
    }
}

#[test]
fn a_config_map_that_nothing_proves_turns_no_denial_for_want_of_the_meshs_policy_into_a_warning() {
    let strict = [meshed("shop"), deployment("shop/cart app=cart"), policy("istio-system/default 90 - STRICT")];
    let weak = [meshed("shop"), policy("istio-system/default 90 - PERMISSIVE")];
    for (mut cluster, change) in [
        (strict.to_vec(), create(policy("shop/default - - PERMISSIVE"))),
        (strict.to_vec(), delete(policy("istio-system/default 90 - STRICT"))),
        (weak.to_vec(), create(deployment("shop/cart app=cart"))),
    ] {
        denied(&restricted().judge(&cluster, &change));
        silent(&restricted().judge(&cluster, &create(mesh_config("shop", "shop"))));
        cluster.push(mesh_config("shop", "shop"));
        denied(&restricted().judge(&cluster, &change));
    }
}

#[test]
fn a_root_that_only_an_injector_tells_of_is_at_most_a_warning_for_what_rests_on_it() {
    let mut cluster = shop(&[]);
    cluster.extend([injector("default", "mesh"), policy("mesh/default 90 - STRICT")]);
    // The mesh's own STRICT holds once the shop's is gone.
    silent(&gate().judge(&cluster, &delete(policy("shop/default 30 - STRICT"))));
    let findings = gate().judge(&cluster, &delete(policy("mesh/default 90 - STRICT")));
    assert!(warned(&findings).message.contains("its ConfigMap was not read"), "{:#?}", told(&findings));
    // With its ConfigMap it is certain.
    cluster.push(mesh_config("mesh", "mesh"));
    denied(&gate().judge(&cluster, &delete(policy("mesh/default 90 - STRICT"))));
}

#[test]
fn a_config_map_that_nothing_proves_is_said_where_the_root_matters() {
    let mut cluster = vec![meshed("shop"), deployment("shop/cart app=cart"), policy("aks/default 90 - STRICT")];
    cluster.push(mesh_config("aks", "aks"));
    let findings = restricted().check(&cluster);
    let told = told(&findings);
    assert!(findings.iter().all(|it| it.action == Action::Warn), "{told:#?}");
    assert!(
        told.iter().any(|it| it.contains("`ConfigMap aks/istio` may be the mesh's and may be anyone's")),
        "{told:#?}"
    );
}

// What is only called a proxy.

#[test]
fn a_container_named_istio_proxy_is_not_a_proxy() {
    let was = deployment("shop/cart app=cart");
    let fake = deployment("shop/cart app=cart sidecar.istio.io/inject=false istio-proxy");
    let findings = gate().judge(&shop(&[]), &update(was.clone(), fake.clone()));
    assert!(denied(&findings).message.contains("out of the mesh, where STRICT held"), "{:#?}", told(&findings));
    warned(&gate().judge(&[meshed("shop"), policy("shop/default 30 - STRICT")], &create(fake)));
    let claims = deployment("shop/cart app=cart sidecar.istio.io/inject=false istio-proxy !sidecar.istio.io/status={}");
    denied(&gate().judge(&shop(&[]), &update(was, claims)));
}

#[test]
fn a_container_in_place_of_ambient_is_not_silent() {
    let mut cluster = shop(&[]);
    cluster[0] = namespace("shop istio.io/dataplane-mode=ambient");
    for (marks, is_denied) in [
        ("istio.io/dataplane-mode=none", true),
        ("istio.io/dataplane-mode=none istio-proxy", true),
        ("istio.io/dataplane-mode=none !ambient.istio.io/redirection=enabled", true),
        ("!sidecar.istio.io/status={}", true),
        ("!sidecar.istio.io/status={} istio-proxy", false),
        ("!ambient.istio.io/bypass-inbound-capture=True", true),
        ("!istio.io/reroute-virtual-interfaces=eth0", true),
    ] {
        let after = deployment(&format!("shop/cart app=cart {marks}"));
        let findings = gate().judge(&cluster, &update(deployment("shop/cart app=cart"), after));
        if is_denied {
            denied(&findings);
        } else {
            warned(&findings);
        }
    }
    for marks in ["istio.io/dataplane-mode=sidecar", "!ambient.istio.io/redirection=pending", "istio-proxy"] {
        let after = deployment(&format!("shop/cart app=cart {marks}"));
        silent(&gate().judge(&cluster, &update(deployment("shop/cart app=cart"), after)));
    }
}

#[test]
fn what_is_made_to_stay_out_of_the_mesh_of_its_namespace_is_never_silent() {
    for marks in [
        "sidecar.istio.io/inject=false",
        "sidecar.istio.io/inject=off",
        "hostNetwork",
        "!inject.istio.io/templates=gateway",
        "!inject.istio.io/templates=grpc-agent",
    ] {
        let change = create(deployment(&format!("shop/new app=new {marks}")));
        for required in [false, true] {
            let gate = Gate { options: PlaintextMtls { require_mesh: required, ..Default::default() }, ..gate() };
            assert!(!gate.judge(&shop(&[]), &change).is_empty(), "{marks}");
        }
    }
}

#[test]
fn leaving_the_mesh_by_way_of_a_doubt_is_told_twice() {
    let doubtful = deployment("shop/cart app=cart !inject.istio.io/templates=own");
    let gone = deployment("shop/cart app=cart sidecar.istio.io/inject=false");
    let mut cluster = shop(&[]);
    cluster[2] = doubtful.clone();
    warned(&gate().judge(&cluster, &update(doubtful, gone)));
}

#[test]
fn ztunnel_and_gateways_are_nothing_to_report() {
    let alone = |marks: &str| match deployment(marks) {
        Object::Workload(it) => Object::Workload(Arc::new(Workload { proxy: NamedProxy::Alone, ..(*it).clone() })),
        other => other,
    };
    let ztunnel = alone(
        "istio-system/ztunnel app=ztunnel sidecar.istio.io/inject=false istio.io/dataplane-mode=none istio-proxy",
    );
    let waypoint = alone(
        "shop/waypoint gateway.networking.k8s.io/gateway-name=waypoint sidecar.istio.io/inject=false \
         istio.io/dataplane-mode=none istio-proxy",
    );
    let cluster = [meshed("istio-system"), meshed("shop"), policy("istio-system/default 9 - STRICT")];
    for object in [ztunnel, waypoint] {
        silent(&gate().judge(&cluster, &create(object.clone())));
        let mut all = cluster.to_vec();
        all.push(object);
        silent(&gate().check(&all));
    }
}

#[test]
fn a_policy_for_a_revision_that_is_not_installed_does_not_count() {
    let of = |text: &str, revision: &str| match policy(text) {
        Object::PeerAuthentication(it) => Object::PeerAuthentication(Arc::new(PeerAuthentication {
            revision: Some(revision.into()),
            ..(*it).clone()
        })),
        other => other,
    };
    let mut cluster = shop(&[]);
    let strict = "shop/default 30 - STRICT";
    // Which revisions there are is not known.
    warned(&gate().judge(&cluster, &update(policy(strict), of(strict, "default"))));
    cluster.push(injector("default", "istio-system"));
    silent(&gate().judge(&cluster, &update(policy(strict), of(strict, "default"))));
    let findings = gate().judge(&cluster, &update(policy(strict), of(strict, "gone")));
    assert!(findings.iter().any(|it| it.action == Action::Deny), "{:#?}", told(&findings));
    assert!(told(&findings).iter().any(|it| it.contains("`istio.io/rev=gone`")), "{:#?}", told(&findings));
    // Of two revisions the policy counts for one.
    cluster.push(injector("canary", "istio-system"));
    let findings = gate().judge(&cluster, &update(policy(strict), of(strict, "canary")));
    assert!(findings.iter().any(|it| it.action == Action::Deny), "{:#?}", told(&findings));
    cluster[0] = namespace("shop istio.io/rev=canary");
    assert!(
        gate()
            .judge(&cluster, &update(policy(strict), of(strict, "canary")))
            .iter()
            .all(|it| it.action != Action::Deny)
    );
}

#[test]
fn templates_nobody_knows_are_a_doubt_and_not_a_silence() {
    let after = deployment("shop/cart app=cart !inject.istio.io/templates=own");
    let findings = restricted().judge(&shop(&[]), &update(deployment("shop/cart app=cart"), after));
    assert!(
        warned(&findings).message.contains("may take `Deployment cart` in `shop` out of the mesh"),
        "{:#?}",
        told(&findings)
    );
}

// What it offers.

/// The objects of a fix, as the cluster would hold them: what exists keeps its age.
fn fixed(cluster: &[Object], fix: &str) -> Vec<Object> {
    let ages: BTreeMap<ObjectRef, Option<Timestamp>> = cluster
        .iter()
        .filter_map(|object| match object {
            Object::PeerAuthentication(policy) => Some((object.reference(), policy.created)),
            _ => None,
        })
        .collect();
    let mut all = cluster.to_vec();
    for parsed in crate::yaml::parse(fix) {
        let lowered = crate::k8s::lower_value(&parsed.expect("a fix is YAML").value(), "default");
        assert!(lowered.problems.is_empty(), "{:?}", lowered.problems);
        all.push(match lowered.object.expect("a fix is an object") {
            Object::PeerAuthentication(policy) => {
                let created = ages.get(&Object::PeerAuthentication(Arc::clone(&policy)).reference());
                let created = created.copied().unwrap_or_else(|| Some(at(0)));
                Object::PeerAuthentication(Arc::new(PeerAuthentication { created, ..(*policy).clone() }))
            }
            other => other,
        });
    }
    all
}

#[test]
fn what_is_offered_for_what_stands_mends_it() {
    for cluster in [
        vec![meshed("shop"), deployment("shop/cart app=cart")],
        vec![meshed("shop"), policy("shop/default 9 - PERMISSIVE"), deployment("shop/cart app=cart")],
        vec![meshed("shop"), policy("shop/default 9 app=other STRICT"), deployment("shop/cart app=cart")],
        vec![meshed("shop"), policy("shop/x 9 - UNSET"), deployment("shop/cart app=cart")],
        vec![meshed("shop"), policy("shop/old 9 - PERMISSIVE"), policy("shop/new 3 - STRICT")],
        vec![meshed("shop"), policy("istio-system/default 9 - DISABLE"), deployment("shop/cart app=cart")],
        shop(&["shop/cart 20 app=cart DISABLE 8080:STRICT 9090:PERMISSIVE"]),
        shop(&["shop/cart 20 app=cart UNSET 9090:PERMISSIVE"]),
        shop(&["shop/cart 20 app=cart,on=yes PERMISSIVE", "shop/again 10 app=cart PERMISSIVE"]),
    ] {
        let mut mended = cluster.clone();
        for finding in gate().check(&cluster) {
            // Which label was meant, nobody but its author knows.
            let is_guess = finding.message.contains("no workload in its namespace is labelled");
            assert_eq!(finding.fix.is_empty(), is_guess, "{}", finding.message);
            mended = fixed(&mended, &finding.fix);
        }
        let left = gate().check(&mended);
        let weak: Vec<_> = left.iter().filter(|it| !it.message.contains("to come without a policy")).collect();
        assert!(weak.is_empty(), "{cluster:#?}\nis left with {weak:#?}");
    }
}

#[test]
fn what_is_offered_against_a_deletion_makes_the_deletion_pass() {
    for cluster in [shop(&[]), shop(&["shop/old 10 - PERMISSIVE"]), shop(&["shop/old 10 - UNSET"])] {
        let change = delete(policy("shop/default 30 - STRICT"));
        let findings = gate().judge(&cluster, &change);
        let mended = fixed(&cluster, &denied(&findings).fix);
        silent(&gate().judge(&mended, &change));
    }
}

#[test]
fn what_is_offered_against_leaving_the_mesh_brings_it_back() {
    let findings = gate().judge(&shop(&[]), &update(meshed("shop"), namespace("shop istio-injection=disabled")));
    let back = fixed(&shop(&[]), &denied(&findings).fix);
    silent(&gate().check(&back));
}

#[test]
fn many_workloads_are_named_in_part_and_counted() {
    let mut cluster = vec![meshed("shop")];
    cluster.extend((1..=9).map(|n| deployment(&format!("shop/web-{n} app=web"))));
    let findings = gate().check(&cluster);
    assert_eq!(
        warned(&findings).message,
        "`Deployment web-1`, `Deployment web-2`, `Deployment web-3`, `Deployment web-4` and 5 more and every pod to \
         come in `shop` accept plaintext (PERMISSIVE): no PeerAuthentication decides, and Istio's default is PERMISSIVE"
    );
}

#[test]
fn ambient_says_that_it_has_no_disable() {
    let cluster = [
        namespace("shop istio.io/dataplane-mode=ambient"),
        policy("shop/default 9 - DISABLE"),
        deployment("shop/cart app=cart"),
    ];
    let findings = gate().check(&cluster);
    let finding = warned(&findings);
    assert!(finding.evidence.iter().any(|it| it.contains("does not support DISABLE")), "{finding:#?}");
}

#[test]
fn what_ambient_makes_of_a_policy_is_what_is_judged() {
    let exception = "shop/cart 9 app=cart UNSET 8080:PERMISSIVE";
    let cluster = |more: &str| {
        let ambient = namespace("shop istio.io/dataplane-mode=ambient");
        vec![ambient, deployment("shop/cart app=cart"), policy("istio-system/default 90 - STRICT"), policy(more)]
    };
    // A policy that says nothing at all takes the exception's parent away: all ports are open.
    let findings = gate().judge(&cluster(exception), &create(policy("shop/default - - UNSET")));
    assert!(denied(&findings).message.contains("`Deployment cart`"), "{:#?}", told(&findings));
    // An empty selector is none to sidecars and voids the mesh's policy in ambient.
    let mesh_wide = policy("istio-system/default 90 - STRICT");
    let emptied = match policy("istio-system/default 90 - STRICT") {
        Object::PeerAuthentication(it) => {
            Object::PeerAuthentication(Arc::new(PeerAuthentication { has_empty_selector: true, ..(*it).clone() }))
        }
        other => other,
    };
    let findings = gate().judge(&cluster("news/default 9 - STRICT"), &update(mesh_wide.clone(), emptied.clone()));
    denied(&findings);
    let sidecars = [meshed("shop"), deployment("shop/cart app=cart"), mesh_wide.clone()];
    silent(&gate().judge(&sidecars, &update(mesh_wide, emptied)));
}

#[test]
fn a_change_in_one_namespace_looks_at_no_other() {
    let cluster = Cluster::of(shop(&[]));
    let environment = Environment::default();
    let view = View::new(&cluster, &environment, Timestamp::from_second(NOW).unwrap());
    let scope = |change: &Change| PlaintextMtls::default().scope(change, &view, &view);
    let shop = Scope::Namespace("shop".into());
    assert_eq!(scope(&delete(policy("shop/default 30 - STRICT"))), shop);
    assert_eq!(scope(&update(meshed("shop"), namespace("shop"))), shop);
    assert_eq!(
        scope(&create(deployment("shop/cart app=cart"))),
        Scope::Workload("shop".into(), WorkloadId { kind: "Deployment".into(), name: "cart".into() })
    );
    assert_eq!(scope(&create(policy("istio-system/default - - STRICT"))), Scope::Cluster);
    assert_eq!(scope(&create(policy("istio-system/x - app=cart STRICT"))), Scope::Namespace("istio-system".into()));
}

// A denial, and nothing but a weakening.

fn any_policy() -> impl Strategy<Value = PeerAuthentication> {
    let mode =
        || prop::sample::select(vec![MtlsMode::Unset, MtlsMode::Disable, MtlsMode::Permissive, MtlsMode::Strict]);
    let namespaces = prop::sample::select(vec!["istio-system", "shop", "news"]);
    let selectors = prop::sample::select(vec!["", "app=a", "tier=t", "app=a tier=t", "app=none"]);
    let ports = prop::collection::btree_map(80_u16..82, mode(), 0..2);
    (namespaces, prop::sample::select(vec!["p", "q", "r"]), 0_i64..3, selectors, mode(), ports).prop_map(
        |(namespace, name, age, selector, mode, ports)| PeerAuthentication {
            namespace: namespace.into(),
            name: name.into(),
            created: Some(at(age)),
            revision: None,
            lifetime: Lifetime::default(),
            has_empty_selector: false,
            selector: labels(selector),
            mode,
            ports,
            is_partial: false,
        },
    )
}

/// What every port of everything in the mesh accepts, pods and namespaces to come included.
fn everywhere(cluster: &Cluster) -> Vec<Mode> {
    let mesh = Mesh::new(cluster, &Environment::default().mesh);
    let mut modes = vec![mesh.mesh_wide().mode];
    for namespace in ["shop", "news"] {
        let policies = mesh.policies(namespace);
        for pod in ["", "app=a", "app=a tier=t", "app=b"] {
            let effective = policies.effective(&labels(pod), Dataplane::Sidecar);
            modes.extend([80, 81, 82].into_iter().map(|port| effective.port(port).mode));
        }
    }
    modes
}

proptest! {
    #[test]
    fn what_is_denied_is_what_makes_something_weaker(
        standing in prop::collection::vec(any_policy(), 0..5),
        changed in any_policy(),
        after in prop::option::of(any_policy()),
        exists in any::<bool>(),
    ) {
        let identity = |it: &PeerAuthentication| (it.namespace.clone(), it.name.clone());
        let object = |it: PeerAuthentication| Object::PeerAuthentication(Arc::new(it));
        let mut objects: Vec<Object> = ["shop", "news"].map(meshed).to_vec();
        for namespace in ["shop", "news"] {
            objects.extend(["a app=a", "t app=a tier=t", "b app=b"].map(|it| deployment(&format!("{namespace}/{it}"))));
        }
        objects.extend(standing.into_iter().filter(|it| identity(it) != identity(&changed)).map(object));
        let after = after.map(|it| PeerAuthentication { namespace: changed.namespace.clone(), name: changed.name.clone(), ..it });
        let change = match (exists, after) {
            (false, _) => create(object(PeerAuthentication { created: None, ..changed })),
            (true, None) => delete(object(changed)),
            (true, Some(after)) => {
                let created = changed.created;
                update(object(changed), object(PeerAuthentication { created, ..after }))
            }
        };
        if let Some(before) = change.before() {
            objects.push(before.clone());
        }
        let before = Cluster::of(objects.clone());
        let (was, is) = (everywhere(&before), everywhere(&before.with(&change)));
        let weaker = was.iter().zip(&is).any(|(was, is)| is.is_weaker_than(*was));
        for gate in [gate(), restricted()] {
            let findings = gate.judge(&objects, &change);
            let is_denied = findings.iter().any(|it| it.action == Action::Deny);
            prop_assert_eq!(is_denied, weaker, "{:#?}", told(&findings));
        }
    }
}
