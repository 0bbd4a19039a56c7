use crate::rules::testing::*;

/// A webhook of two pods behind a Service, all in namespace `guard`, which the injector looks after.
fn world() -> String {
    configuration("Fail")
        + "---\napiVersion: v1\nkind: Service\nmetadata: {name: gate, namespace: guard}\nspec: {selector: {app: gate}, ports: [{port: 443, targetPort: https}]}\n"
        + &namespace("guard", "")
        + &deployment("guard/gate", "app: gate").replace("labels: {app: gate}}", PORTS)
        + &pod("guard/other", "app: other")
}

const PORTS: &str =
    "labels: {app: gate}}, spec: {containers: [{name: a, ports: [{name: https, containerPort: 8443}]}]}";

fn configuration(on_failure: &str) -> String {
    format!(
        "---\napiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {{name: gate}}\nwebhooks: [{{name: gate.dev, failurePolicy: {on_failure}, clientConfig: {{service: {{namespace: guard, name: gate}}}}}}]\n"
    )
}

fn guarded() -> Gate {
    gate(&world()).only("CL008")
}

fn deny() -> String {
    policy("guard/deny", "podSelector: {}, policyTypes: [Ingress]")
}

fn admitting(rule: &str) -> String {
    policy("guard/admit", &format!("podSelector: {{matchLabels: {{app: gate}}}}, ingress: [{rule}]"))
}

fn mtls(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    let metadata = format!("name: {name}, namespace: {namespace}, creationTimestamp: '2026-01-01T00:00:00Z'");
    object("security.istio.io/v1", "PeerAuthentication", &metadata, spec)
}

const STRICT: &str = "mtls: {mode: STRICT}";

#[test]
fn a_default_deny_cuts_the_api_server_off_and_is_refused() {
    let said = guarded().create(&deny());
    said.is(&["deny CL008"]).mentions("everything it is asked about is refused");
    said.mentions("`Deployment gate` of namespace `guard`, which answers `ValidatingWebhookConfiguration gate`");
    assert!(said.only().rests_on_absence);
    let quiet = guarded().with(&configuration("Ignore")).create(&deny());
    quiet.is(&["deny CL008"]).mentions("changes pass unjudged");
}

#[test]
fn what_admits_some_outside_address_on_the_port_does_not_cut_off() {
    let gate = guarded();
    for rule in [
        "{ports: [{port: 8443}]}",
        "{ports: [{port: https}]}",
        "{}",
        "{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 8443}]}",
        "{ports: [{port: 8000, endPort: 9000}]}",
    ] {
        gate.with(&admitting(rule)).create(&deny()).nothing();
        gate.create(&admitting(rule)).nothing();
    }
    for rule in [
        "{ports: [{port: 443}]}",
        "{ports: [{port: 8443, protocol: UDP}]}",
        "{from: [{namespaceSelector: {}}]}",
        "{from: [{podSelector: {}}], ports: [{port: 8443}]}",
    ] {
        gate.create(&admitting(rule)).is(&["deny CL008"]);
    }
}

#[test]
fn to_delete_what_admitted_the_api_server_cuts_it_off() {
    let gate = guarded().with(&(deny() + &admitting("{ports: [{port: 8443}]}")));
    gate.delete("NetworkPolicy guard/admit").is(&["deny CL008"]);
    gate.delete("NetworkPolicy guard/deny").nothing();
    gate.update(&admitting("{ports: [{port: 9443}]}")).is(&["deny CL008"]);
}

#[test]
fn policies_about_others_and_namespaces_without_a_webhook_are_none_of_its_business() {
    let gate = guarded().with(&namespace("shop", ""));
    gate.create(&policy("guard/other", "podSelector: {matchLabels: {app: other}}, policyTypes: [Ingress]")).nothing();
    gate.create(&policy("guard/out", "podSelector: {}, policyTypes: [Egress]")).nothing();
    gate.create(&policy("shop/deny", "podSelector: {}, policyTypes: [Ingress, Egress]")).nothing();
    gate.without("ValidatingWebhookConfiguration gate").create(&deny()).nothing();
    gate.without("Service guard/gate").create(&deny()).nothing();
    gate.without("Deployment guard/gate").create(&deny()).nothing();
}

#[test]
fn an_exempt_namespace_is_no_less_guarded() {
    guarded().set("namespaces", "exempt: [guard]").create(&deny()).is(&["deny CL008"]);
}

#[test]
fn pods_on_their_nodes_network_are_not_cut_off() {
    let on_node = deployment("guard/gate", "app: gate")
        .replace("labels: {app: gate}}", &PORTS.replace("spec: {", "spec: {hostNetwork: true, "));
    guarded().with(&on_node).create(&deny()).nothing();
}

#[test]
fn where_calls_come_through_pods_of_the_system_these_may_be_admitted_by_labels() {
    let gate = guarded().with(&pod("kube-system/konnectivity", "k8s-app: konnectivity-agent"));
    gate.create(&deny()).is(&["deny CL008"]);
    let system = "{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]}";
    gate.with(&admitting(system)).create(&deny()).nothing();
}

#[test]
fn policies_of_other_systems_may_admit_what_these_do_not() {
    guarded().with(&cilium("guard/own")).create(&deny()).is(&["warn CL008"]);
}

#[test]
fn what_stood_before_is_no_reason_to_refuse() {
    let gate = guarded().with(&deny());
    gate.create(&policy("guard/deny-too", "podSelector: {}")).is(&["warn CL008 standing"]);
    gate.check().is(&["deny CL008"]);
}

#[test]
fn strict_mutual_tls_cuts_the_api_server_off_from_what_is_in_the_mesh() {
    let outside = guarded();
    outside.create(&mtls("guard/default", STRICT)).nothing();
    let sidecars = outside.with(&namespace("guard", "istio-injection: enabled"));
    sidecars.create(&mtls("guard/default", STRICT)).is(&["deny CL008"]).mentions("STRICT by PeerAuthentication");
    sidecars.create(&mtls("istio-system/default", STRICT)).is(&["deny CL008"]);
    sidecars.create(&mtls("shop/default", STRICT)).nothing();
    sidecars.create(&mtls("guard/default", "mtls: {mode: PERMISSIVE}")).nothing();
    let ambient = outside.with(&namespace("guard", "istio.io/dataplane-mode: ambient"));
    ambient.create(&mtls("guard/default", STRICT)).is(&["deny CL008"]);
}

#[test]
fn a_port_that_is_excepted_stays_in_reach() {
    let gate = guarded().with(&namespace("guard", "istio-injection: enabled"));
    let about = "selector: {matchLabels: {app: gate}}";
    for mode in ["PERMISSIVE", "DISABLE"] {
        let excepted = mtls("guard/gate", &format!("{about}, {STRICT}, portLevelMtls: {{8443: {{mode: {mode}}}}}"));
        gate.create(&excepted).nothing();
    }
    gate.create(&mtls("guard/gate", &format!("{about}, {STRICT}, portLevelMtls: {{443: {{mode: DISABLE}}}}")))
        .is(&["deny CL008"]);
    let annotated = world().replace(
        "labels: {app: gate}}, spec",
        "labels: {app: gate}, annotations: {traffic.sidecar.istio.io/excludeInboundPorts: '8443'}}, spec",
    );
    gate.with(&annotated)
        .with(&namespace("guard", "istio-injection: enabled"))
        .create(&mtls("guard/default", STRICT))
        .nothing();
}

#[test]
fn a_label_that_brings_the_pods_into_a_strict_mesh_cuts_off() {
    let gate = guarded().with(&mtls("istio-system/default", STRICT));
    gate.update(&namespace("guard", "istio-injection: enabled")).is(&["deny CL008"]);
    gate.update(&namespace("guard", "team: a")).nothing();
}

#[test]
fn a_mode_nobody_knows_denies_nothing() {
    let gate = guarded().with(&namespace("guard", "istio-injection: enabled"));
    gate.create(&mtls("guard/default", "mtls: {mode: STRICTER}")).nothing();
}

#[test]
fn what_is_offered_lets_the_api_server_in_again() {
    let change = deny();
    let gate = guarded();
    let said = gate.create(&change);
    gate.with(&said.only().fix).create(&change).nothing();
    assert!(said.only().fix.contains("port: 8443") && !said.only().fix.contains("from:"), "{}", said.only().fix);

    let meshed = gate.with(&namespace("guard", "istio-injection: enabled"));
    let change = mtls("guard/default", STRICT);
    let said = meshed.create(&change);
    meshed.with(&said.only().fix).create(&change).nothing();

    // A policy of the workload's own that is there already is the only one that counts.
    let own = mtls("guard/gate", "selector: {matchLabels: {app: gate}}, mtls: {mode: PERMISSIVE}");
    let stricter = own.replace("PERMISSIVE", "STRICT, extra: x").replace(", extra: x", "");
    let meshed = meshed.with(&own);
    let said = meshed.update(&stricter);
    said.is(&["deny CL008"]);
    meshed.update(&said.only().fix).nothing();
}
