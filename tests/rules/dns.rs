//! NP002 `dns-blackhole`.

use super::gate::{CLOSED, DNS, Gate, deployment, policy};

const OPEN: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}";
const DENY: &str = "podSelector: {}, policyTypes: [Ingress, Egress]";

/// A default-deny whose only egress rule has this peer and these ports.
fn egress(peer: &str, ports: &str) -> String {
    policy(
        "shop",
        "allow-dns",
        &format!("podSelector: {{}}, policyTypes: [Ingress, Egress], egress: [{{to: [{peer}], ports: [{ports}]}}]"),
    )
}

const KUBE_SYSTEM: &str = "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}";
const KUBE_DNS: &str = "podSelector: {matchLabels: {k8s-app: kube-dns}}";
const BOTH: &str = "{protocol: UDP, port: 53}, {protocol: TCP, port: 53}";

/// What becomes of a new policy in a namespace with one workload.
fn judged(policy: &str) -> super::gate::Verdicts {
    Gate::over(&[DNS, OPEN, &deployment("shop", "cart")]).create(policy)
}

#[test]
fn a_default_deny_without_dns_is_a_blackhole() {
    let verdicts = judged(&policy("shop", "deny", DENY));
    let finding = verdicts.denied("NP002");
    assert!(finding.message.contains("`Deployment cart`") && finding.message.contains("`deny`"), "{}", finding.message);
    assert!(finding.fix.contains("k8s-app: kube-dns"), "{}", finding.fix);
}

#[test]
fn a_default_deny_beside_an_allow_dns_is_none() {
    let gate = Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")]);
    gate.create(&policy("shop", "again", DENY)).silent("NP002");
    gate.check().silent("NP002");
    judged(&egress(&format!("{{{KUBE_SYSTEM}, {KUBE_DNS}}}"), BOTH)).silent("NP002");
}

#[test]
fn near_misses_are_denied_and_told() {
    for (peer, ports, told) in [
        (
            format!("{{namespaceSelector: {{matchLabels: {{name: kube-system}}}}, {KUBE_DNS}}}"),
            BOTH,
            "name=kube-system",
        ),
        ("{namespaceSelector: {matchLabels: {k8s-app: kube-dns}}}".to_owned(), BOTH, "podSelector"),
        (format!("{{{KUBE_DNS}}}"), BOTH, "own namespace"),
        (
            format!("{{{KUBE_SYSTEM}, podSelector: {{matchLabels: {{kubernetes.io/name: CoreDNS}}}}}}"),
            BOTH,
            "Service carries",
        ),
        (format!("{{{KUBE_SYSTEM}, {KUBE_DNS}}}"), "{port: 53}", "TCP only"),
        (format!("{{{KUBE_SYSTEM}, {KUBE_DNS}}}"), "{protocol: UDP, port: 5353}", "listen on UDP 53"),
        ("{ipBlock: {cidr: 10.96.0.10/32}}".to_owned(), BOTH, "10.96.0.10"),
    ] {
        let verdicts = judged(&egress(&peer, ports));
        let finding = verdicts.denied("NP002");
        assert!(finding.evidence.iter().any(|line| line.contains(told)), "{told}: {:#?}", finding.evidence);
        assert!(finding.path.as_str().starts_with("spec.egress[0]"), "{told}: {}", finding.path);
    }
}

#[test]
fn an_extra_dash_asks_for_pods_of_the_own_namespace_and_for_all_of_another() {
    // The second item alone reaches DNS, so nothing is dark; with the items the other way it is.
    judged(&egress(&format!("{{{KUBE_DNS}}}, {{{KUBE_SYSTEM}}}"), BOTH)).silent("NP002");
    let wrong = "{namespaceSelector: {matchLabels: {name: kube-system}}}";
    judged(&egress(&format!("{{{KUBE_DNS}}}, {wrong}"), BOTH)).denied("NP002");
}

#[test]
fn the_cluster_ip_counts_where_policies_see_it() {
    let block = egress("{ipBlock: {cidr: 10.96.0.10/32}}", BOTH);
    let gate = Gate::over(&[DNS, OPEN, &deployment("shop", "cart")]).with("cni: {name: aws-vpc-cni}");
    gate.create(&block).silent("NP002");
}

#[test]
fn missing_tcp_is_a_warning() {
    let udp_only = egress(&format!("{{{KUBE_SYSTEM}, {KUBE_DNS}}}"), "{protocol: UDP, port: 53}");
    judged(&udp_only).warned("NP002");
}

const OPENSHIFT: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: openshift-dns}}
---
apiVersion: v1
kind: Service
metadata: {name: dns-default, namespace: openshift-dns}
spec:
  selector: {dns.operator.openshift.io/daemonset-dns: default}
  ports: [{name: dns, protocol: UDP, port: 53, targetPort: dns}, {name: dns-tcp, protocol: TCP, port: 53, targetPort: dns-tcp}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: dns-default, namespace: openshift-dns}
spec: {template: {metadata: {labels: {dns.operator.openshift.io/daemonset-dns: default}}, spec: {containers: [{name: dns, ports: [{name: dns, protocol: UDP, containerPort: 5353}, {name: dns-tcp, protocol: TCP, containerPort: 5353}]}]}}}
";

#[test]
fn the_port_that_counts_is_the_one_the_pods_listen_on() {
    let gate = Gate::over(&[OPENSHIFT, OPEN, &deployment("shop", "cart")]);
    let to = |ports: &str| {
        egress(
            "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: openshift-dns}}, podSelector: {}}",
            ports,
        )
    };
    let verdicts = gate.create(&to(BOTH));
    let finding = verdicts.denied("NP002");
    assert!(finding.evidence.iter().any(|line| line.contains("5353")), "{:?}", finding.evidence);
    assert!(finding.fix.contains("port: 5353"), "{}", finding.fix);
    gate.create(&to("{protocol: UDP, port: 5353}, {protocol: TCP, port: 5353}")).silent("NP002");
    gate.create(&to("{protocol: UDP, port: dns}, {protocol: TCP, port: dns-tcp}")).silent("NP002");
}

#[test]
fn the_dns_pods_own_ingress_must_let_them_in() {
    let gate = Gate::over(&[DNS, OPEN, &deployment("shop", "cart"), &deployment("pay", "api")]);
    let verdicts = gate.create(&policy("kube-system", "deny", "podSelector: {}"));
    let finding = verdicts.denied("NP002");
    assert!(finding.message.contains("`pay` and `shop`"), "{}", finding.message);
    assert!(finding.fix.contains("namespace: kube-system"), "{}", finding.fix);
    let admitting = "podSelector: {matchLabels: {k8s-app: kube-dns}}, ingress: [{from: [{namespaceSelector: {}}], ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]}]";
    gate.create(&policy("kube-system", "admit", admitting)).silent("NP002");
    gate.create(&policy("kube-system", "other", "podSelector: {matchLabels: {app: metrics}}")).silent("NP002");
}

#[test]
fn changing_or_deleting_what_lets_names_resolve_is_denied() {
    let gate = Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")]);
    gate.delete("NetworkPolicy", "shop", "allow-dns").denied("NP002");
    gate.update(&policy("shop", "allow-dns", "podSelector: {}, policyTypes: [Egress]")).denied("NP002");
    gate.update(&policy("shop", "allow-dns", "podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]"))
        .denied("NP002");
}

#[test]
fn a_workload_under_policies_without_dns_is_denied() {
    let deny_web = policy("shop", "web", "podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]");
    let gate = Gate::over(&[DNS, OPEN, &deny_web, &deployment("shop", "cart")]);
    gate.create(&deployment("shop", "web")).denied("NP002");
    let relabelled = deployment("shop", "cart").replace("labels: {app: cart}", "labels: {app: web}");
    gate.update(&relabelled).denied("NP002");
}

#[test]
fn labels_of_namespaces_and_of_the_dns_pods_decide_too() {
    let by_team = egress("{namespaceSelector: {matchLabels: {team: infra}}}", BOTH);
    let labelled = "{apiVersion: v1, kind: Namespace, metadata: {name: kube-system, labels: {team: infra}}}";
    let gate = Gate::over(&[DNS, labelled, OPEN, &by_team, &deployment("shop", "cart")]);
    gate.check().silent("NP002");
    gate.update("{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}").denied("NP002");

    let gate = Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")]);
    let relabelled = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: coredns, namespace: kube-system}, spec: {template: {metadata: {labels: {k8s-app: kube-dns, new: label}}, spec: {dnsPolicy: Default, containers: [{name: coredns}]}}}}";
    gate.update(relabelled).silent("NP002");

    let only_labelled = policy(
        "kube-system",
        "guard",
        "podSelector: {matchLabels: {k8s-app: kube-dns}}, ingress: [{from: [{namespaceSelector: {matchLabels: {dns: allowed}}}]}]",
    );
    let allowed = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {dns: allowed}}}";
    let gate = Gate::over(&[DNS, &only_labelled, CLOSED, allowed, &deployment("shop", "cart")]);
    gate.check().silent("NP002");
    gate.update("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}").denied("NP002");
}

#[test]
fn a_service_that_points_elsewhere_is_a_change_of_dns() {
    let gate = Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")]);
    let moved = "{apiVersion: v1, kind: Service, metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}, spec: {clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns}, ports: [{protocol: UDP, port: 53, targetPort: 5353}, {protocol: TCP, port: 53, targetPort: 5353}]}}";
    gate.update(moved).denied("NP002");
}

#[test]
fn pods_that_do_not_use_cluster_dns_are_left_alone() {
    let gate = Gate::over(&[DNS, OPEN, &policy("shop", "deny", DENY)]);
    let pod = |spec: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: one, namespace: shop}}, spec: {{{spec}, containers: []}}}}"
        )
    };
    gate.create(&pod("hostNetwork: true")).silent("NP002");
    gate.create(&pod("dnsPolicy: Default")).silent("NP002");
    gate.create(&pod("hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet")).silent("NP002");
    gate.create(&pod("dnsPolicy: None")).silent("NP002");
    gate.create(&pod("dnsPolicy: ClusterFirst")).denied("NP002");
    let finished = pod("dnsPolicy: ClusterFirst").replace("spec:", "status: {phase: Succeeded}, spec:");
    gate.create(&finished).silent("NP002");
}

#[test]
fn the_nameservers_a_pod_names_itself_are_judged() {
    let pod = |ip: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: one, namespace: shop}}, spec: {{dnsPolicy: None, dnsConfig: {{nameservers: [{ip}]}}, containers: []}}}}"
        )
    };
    let closed = Gate::over(&[DNS, CLOSED]);
    closed.create(&pod("203.0.113.53")).denied("NP002");
    closed.create(&pod("10.96.0.10")).silent("NP002");
    let resolver = policy(
        "shop",
        "resolver",
        "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.53/32}}], ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]}]",
    );
    Gate::over(&[DNS, CLOSED, &resolver]).create(&pod("203.0.113.53")).silent("NP002");
}

#[test]
fn the_configuration_says_where_dns_is() {
    let node_local = egress("{ipBlock: {cidr: 169.254.20.10/32}}", BOTH);
    let gate = |settings: &str| Gate::over(&[DNS, OPEN, &deployment("shop", "cart")]).with(settings);
    gate("dns: {addresses: [169.254.20.10]}").create(&node_local).silent("NP002");
    // Nobody writes that address but for a cache on the node, which no object shows.
    gate("").create(&node_local).warned("NP002");
    let to_pods = egress(&format!("{{{KUBE_SYSTEM}, {KUBE_DNS}}}"), BOTH);
    let verdicts = gate("dns: {addresses: [169.254.20.10]}").create(&to_pods);
    assert!(verdicts.denied("NP002").fix.contains("169.254.20.10/32"));
    let own = "{apiVersion: v1, kind: Service, metadata: {name: resolver, namespace: infra}, spec: {selector: {app: bind}, ports: [{protocol: UDP, port: 53, targetPort: 1053}]}}";
    let gate = Gate::over(&[DNS, own, &deployment("infra", "bind"), OPEN, &deployment("shop", "cart")])
        .with("dns: {services: [{namespace: infra, name: resolver}]}");
    gate.create(&to_pods).denied("NP002");
    let to_own = egress(
        "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: infra}}, podSelector: {matchLabels: {app: bind}}}",
        "{protocol: UDP, port: 1053}",
    );
    gate.create(&to_own).silent("NP002");
}

#[test]
fn without_dns_objects_the_usual_place_is_assumed_and_said() {
    let gate = Gate::over(&[OPEN, &deployment("shop", "cart")]);
    let verdicts = gate.create(&policy("shop", "deny", DENY));
    let finding = verdicts.denied("NP002");
    assert!(finding.evidence.iter().any(|line| line.contains("assumed")), "{:?}", finding.evidence);
    gate.create(&egress(&format!("{{{KUBE_SYSTEM}, {KUBE_DNS}}}"), BOTH)).silent("NP002");
    gate.create(&egress("{ipBlock: {cidr: 169.254.20.10/32}}", BOTH)).silent("NP002");
    // Some deployment of DNS nobody has shown: not known is not denied.
    let custom = egress(
        "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: infra}}, podSelector: {matchLabels: {app: bind}}}",
        BOTH,
    );
    gate.create(&custom).warned("NP002");
}

#[test]
fn some_replicas_out_of_reach_are_a_warning() {
    let pod = |name: &str, zone: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: kube-system, labels: {{k8s-app: kube-dns, zone: {zone}}}}}, spec: {{containers: []}}}}"
        )
    };
    let gate = Gate::over(&[DNS, &pod("a", "one"), &pod("b", "two"), OPEN, &deployment("shop", "cart")]);
    let one_zone = egress(&format!("{{{KUBE_SYSTEM}, podSelector: {{matchLabels: {{zone: one}}}}}}"), BOTH);
    let verdicts = gate.create(&one_zone);
    assert!(verdicts.warned("NP002").message.contains("some"), "{verdicts:?}");
}

#[test]
fn whether_an_address_block_admits_the_dns_pods_is_the_implementations_to_say() {
    let everything =
        policy("shop", "out", "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]");
    let dns_pod = "{apiVersion: v1, kind: Pod, metadata: {name: coredns-1, namespace: kube-system, labels: {k8s-app: kube-dns}}, spec: {containers: []}, status: {podIP: 10.244.0.7}}";
    let gate = |cni: &str| {
        Gate::over(&[DNS, dns_pod, OPEN, &deployment("shop", "cart")]).with(&format!("cni: {{name: {cni}}}"))
    };
    gate("calico").create(&everything).silent("NP002");
    gate("unknown").create(&everything).warned("NP002");
    gate("cilium").create(&everything).denied("NP002");
}

#[test]
fn a_policy_whose_pods_are_yet_to_come_warns_now_and_is_reported_by_a_check() {
    let gate = Gate::over(&[DNS, OPEN]);
    gate.create(&policy("shop", "deny", DENY)).warned("NP002");
    Gate::over(&[DNS, OPEN, &policy("shop", "deny", DENY)]).check().denied("NP002");
}

#[test]
fn a_blackhole_that_stood_does_not_hold_up_other_changes() {
    let gate = Gate::over(&[DNS, OPEN, &policy("shop", "deny", DENY), &deployment("shop", "cart")]);
    gate.create(&policy("shop", "more", "podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]"))
        .harmless();
    gate.create(&policy("shop", "allow-dns", &format!("podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{{{KUBE_SYSTEM}, {KUBE_DNS}}}], ports: [{BOTH}]}}]"))).silent("NP002");
    gate.delete("NetworkPolicy", "shop", "deny").silent("NP002");
}
