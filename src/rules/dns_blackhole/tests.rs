use crate::rules::Mode;
use crate::rules::testing::*;

/// A namespace with a workload and these policies beside cluster DNS, judged by this rule alone.
fn shop(policies: &[&str]) -> Gate {
    shop_beside(DNS, policies)
}

fn shop_beside(dns: &str, policies: &[&str]) -> Gate {
    let shop = namespace("shop", "") + &deployment("shop/cart", "app: cart");
    gate(&(shop + "---" + dns + "\n" + &policies.concat())).only("NP002")
}

/// The same where no object of DNS is known.
fn shop_without_dns(policies: &[&str]) -> Gate {
    shop_beside("", policies)
}

fn deny() -> String {
    policy("shop/deny", "podSelector: {}, policyTypes: [Ingress, Egress]")
}

/// An egress policy over every pod of these rules.
fn egress(rules: &str) -> String {
    policy("shop/egress", &format!("podSelector: {{}}, policyTypes: [Egress], egress: [{rules}]"))
}

/// An egress policy to these peers over UDP and TCP 53.
fn to(peers: &str) -> String {
    egress(&format!("{{to: [{peers}], ports: [{{port: 53, protocol: UDP}}, {{port: 53, protocol: TCP}}]}}"))
}

const SYSTEM: &str = "{matchLabels: {kubernetes.io/metadata.name: kube-system}}";
const KUBE_DNS: &str = "{matchLabels: {k8s-app: kube-dns}}";

/// OpenShift's DNS: the pods listen on 5353, under a name.
const OPENSHIFT: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: openshift-dns}
---
apiVersion: v1
kind: Service
metadata: {name: dns-default, namespace: openshift-dns}
spec:
  selector: {dns.operator.openshift.io/daemonset-dns: default}
  ports: [{port: 53, protocol: UDP, targetPort: dns}, {port: 53, protocol: TCP, targetPort: dns-tcp}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: dns-default, namespace: openshift-dns}
spec:
  template:
    metadata: {labels: {dns.operator.openshift.io/daemonset-dns: default}}
    spec:
      dnsPolicy: Default
      containers:
      - {name: dns, ports: [{name: dns, containerPort: 5353, protocol: UDP}, {name: dns-tcp, containerPort: 5353}]}
";

// What it is not fooled by.

#[test]
fn a_default_deny_without_dns_is_a_blackhole() {
    let said = shop(&[&deny()]).check();
    said.is(&["deny NP002"]).mentions("`Deployment cart` can resolve no name: NetworkPolicy `deny` isolates egress");
}

#[test]
fn a_namespace_label_that_no_namespace_carries_finds_nothing() {
    let said = shop(&[&to("{namespaceSelector: {matchLabels: {name: kube-system}}}")]).check();
    said.is(&["deny NP002"]).mentions("looks for namespaces labelled `name=kube-system`");
    said.mentions("spec.egress[0].to[0].namespaceSelector");
}

#[test]
fn the_pods_label_in_the_namespace_selector_finds_nothing() {
    let said = shop(&[&to(&format!("{{namespaceSelector: {KUBE_DNS}}}"))]).check();
    said.is(&["deny NP002"]).mentions("asks *namespaces* for `k8s-app`");
}

#[test]
fn a_pod_selector_alone_looks_in_its_own_namespace() {
    let said = shop(&[&to(&format!("{{podSelector: {KUBE_DNS}}}"))]).check();
    said.is(&["deny NP002"]).mentions("looks for `k8s-app=kube-dns` in namespace `shop` only");
}

#[test]
fn an_extra_dash_is_judged_as_the_or_it_is() {
    // Any pod of kube-system, or pods of the own namespace: wider than meant, and DNS is among it.
    let or = format!("{{namespaceSelector: {SYSTEM}}}, {{podSelector: {KUBE_DNS}}}");
    shop(&[&to(&or)]).check().nothing();
    let wrong = format!("{{namespaceSelector: {{matchLabels: {{name: kube-system}}}}}}, {{podSelector: {KUBE_DNS}}}");
    shop(&[&to(&wrong)]).check().is(&["deny NP002"]).mentions("to[1].podSelector");
}

#[test]
fn a_port_without_a_protocol_is_tcp() {
    let said = shop(&[&egress(&format!("{{to: [{{namespaceSelector: {SYSTEM}}}], ports: [{{port: 53}}]}}"))]).check();
    said.is(&["deny NP002"]).mentions("a port without `protocol` is TCP").mentions("spec.egress[0].ports[0]");
}

#[test]
fn the_services_address_is_gone_before_policies_look() {
    let cluster_ip = to("{ipBlock: {cidr: 10.96.0.10/32}}");
    for cni in ["unknown", "calico", "cilium"] {
        let said = shop(&[&cluster_ip]).on(cni).check();
        said.is(&["deny NP002"]).mentions("names the DNS Service's address 10.96.0.10");
    }
    // The AWS agent looks before the translation.
    shop(&[&cluster_ip]).on("aws-vpc-cni").check().nothing();
    // Pods without an address yet have no Service's either.
    let templates =
        DNS.split("---").next().unwrap().to_owned() + &deployment("kube-system/coredns", "k8s-app: kube-dns");
    shop_beside(&templates, &[&cluster_ip]).check().is(&["deny NP002"]);
}

#[test]
fn the_services_own_labels_are_not_its_pods() {
    let said = shop(&[&to(&format!(
        "{{namespaceSelector: {SYSTEM}, podSelector: {{matchLabels: {{kubernetes.io/name: CoreDNS}}}}}}"
    ))])
    .check();
    said.is(&["deny NP002"]).mentions("which the DNS Service carries and its pods do not");
}

#[test]
fn fifty_three_is_not_where_openshifts_pods_listen() {
    let openshift = "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: openshift-dns}}}";
    let said = shop_beside(OPENSHIFT, &[&to(openshift)]).check();
    said.is(&["deny NP002"]).mentions("but the DNS pods listen on UDP 5353").mentions("spec.egress[0].ports");
    for port in ["5353", "dns"] {
        let tcp = if port == "dns" { "dns-tcp" } else { port };
        let ports = format!("ports: [{{port: {port}, protocol: UDP}}, {{port: {tcp}, protocol: TCP}}]");
        shop_beside(OPENSHIFT, &[&egress(&format!("{{to: [{openshift}], {ports}}}"))]).check().nothing();
    }
}

#[test]
fn sctp_and_other_ports_are_no_dns() {
    for ports in
        ["{port: 53, protocol: SCTP}", "{port: 5353, protocol: UDP}", "{port: 54, endPort: 60000, protocol: UDP}"]
    {
        shop(&[&egress(&format!("{{to: [{{namespaceSelector: {SYSTEM}}}], ports: [{ports}]}}"))])
            .check()
            .is(&["deny NP002"]);
    }
}

#[test]
fn every_pod_of_the_own_namespace_is_not_dns() {
    shop(&[&egress("{to: [{podSelector: {}}]}")]).check().is(&["deny NP002"]);
}

#[test]
fn the_internet_is_not_dns_where_blocks_do_not_match_pods() {
    let internet = egress("{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}");
    shop(&[&internet]).on("cilium").check().is(&["deny NP002"]);
    shop_without_dns(&[&internet]).on("cilium").check().is(&["deny NP002"]);
    shop(&[&internet]).on("calico").check().nothing();
    shop(&[&internet]).on("unknown").check().is(&["warn NP002"]).mentions("depends on what enforces the policies");
}

#[test]
fn the_internet_without_private_networks_is_not_dns_anywhere() {
    let internet = egress("{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]}");
    for cni in ["unknown", "calico", "cilium"] {
        shop(&[&internet]).on(cni).check().is(&["deny NP002"]);
    }
}

#[test]
fn ingress_rules_for_dns_let_nothing_out() {
    let confused = policy(
        "shop/deny",
        "podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 53, protocol: UDP}]}]",
    );
    shop(&[&confused]).check().is(&["deny NP002"]);
}

#[test]
fn an_allow_dns_for_other_pods_does_not_help() {
    let other = policy(
        "shop/dns",
        &format!("podSelector: {{matchLabels: {{dns: 'yes'}}}}, policyTypes: [Egress], egress: [{TO_DNS}]"),
    );
    shop(&[&deny(), &other]).check().is(&["deny NP002"]);
    // Nor does one in another namespace.
    let elsewhere = policy("other/dns", &format!("podSelector: {{}}, policyTypes: [Egress], egress: [{TO_DNS}]"));
    shop(&[&deny(), &elsewhere]).check().is(&["deny NP002"]);
    // Nor one whose direction is not listed.
    let unlisted = policy("shop/dns", &format!("podSelector: {{}}, policyTypes: [Ingress], egress: [{TO_DNS}]"));
    shop(&[&deny(), &unlisted]).on("calico").check().is(&["deny NP002"]);
}

// What it is not raised for.

#[test]
fn a_default_deny_is_fine_with_the_allow_dns_in_another_policy() {
    shop(&[&deny(), &egress(TO_DNS)]).check().nothing();
}

#[test]
fn every_way_of_admitting_dns_will_do() {
    for peers in [
        format!("{{namespaceSelector: {SYSTEM}}}"),
        "{namespaceSelector: {}}".to_owned(),
        format!("{{namespaceSelector: {{}}, podSelector: {KUBE_DNS}}}"),
        "{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [kube-system]}]}}".to_owned(),
    ] {
        shop(&[&to(&peers)]).check().nothing();
    }
    for rules in [
        "{}",
        "{ports: [{port: 53, protocol: UDP}, {port: 53}]}",
        "{ports: [{port: 1, endPort: 1024, protocol: UDP}, {}]}",
    ] {
        shop(&[&egress(rules)]).check().nothing();
    }
}

#[test]
fn udp_and_tcp_may_come_from_different_policies() {
    let of = |protocol: &str| {
        let rule = format!("{{to: [{{namespaceSelector: {SYSTEM}}}], ports: [{{port: 53, protocol: {protocol}}}]}}");
        let name = protocol.to_lowercase();
        policy(&format!("shop/{name}"), &format!("podSelector: {{}}, policyTypes: [Egress], egress: [{rule}]"))
    };
    shop(&[&of("UDP"), &of("TCP")]).check().nothing();
}

#[test]
fn pods_that_do_not_use_cluster_dns_are_left_alone() {
    for spec in ["hostNetwork: true", "dnsPolicy: Default", "dnsPolicy: None", "dnsPolicy: SomethingNew"] {
        let gate =
            gate(&(namespace("shop", "") + &deny() + &pod_with("shop/cart", "", spec) + "---" + DNS)).only("NP002");
        gate.check().nothing();
    }
}

#[test]
fn a_pods_own_nameservers_are_what_counts_with_dns_policy_none() {
    let own = |nameservers: &str| {
        pod_with("shop/cart", "app: own", &format!("dnsPolicy: None, dnsConfig: {{nameservers: [{nameservers}]}}"))
    };
    let alone = gate(&(namespace("shop", "") + "---" + DNS)).only("NP002");
    let said = alone.with(&egress(TO_DNS)).create(&own("9.9.9.9"));
    said.is(&["deny NP002"]).mentions("cidr: 9.9.9.9/32").does_not_mention("k8s-app: kube-dns\n");
    alone.with(&to("{ipBlock: {cidr: 9.9.9.0/24}}")).create(&own("9.9.9.9")).nothing();
    alone.with(&to("{ipBlock: {cidr: 9.9.9.0/24}}")).create(&own("1.1.1.1, 9.9.9.9")).nothing();
    // The Service's address is cluster DNS again.
    alone.with(&egress(TO_DNS)).create(&own("10.96.0.10")).nothing();
    // A resolver within the pod is out of every policy's reach.
    alone.with(&deny()).create(&own("127.0.0.1")).nothing();
}

#[test]
fn a_nameserver_that_may_be_another_services_address_is_no_certainty() {
    let own = pod_with("shop/cart", "", "dnsPolicy: None, dnsConfig: {nameservers: [10.96.7.7]}");
    let custom = to("{podSelector: {matchLabels: {app: unbound}}}");
    let alone = gate(&(namespace("shop", "") + "---" + DNS)).only("NP002");
    alone.with(&custom).create(&own).is(&["warn NP002"]).mentions("probably");
    alone.with(&deny()).create(&own).is(&["deny NP002"]);
    // With no DNS Service known, it may be that Service's.
    let unknown = gate(&namespace("shop", "")).only("NP002");
    unknown.with(&egress(TO_DNS)).create(&own).nothing();
}

#[test]
fn pods_that_nothing_isolates_are_not_cut_off() {
    shop(&[]).check().nothing();
    shop(&[&policy("shop/deny", "podSelector: {}, policyTypes: [Ingress]")]).check().nothing();
    // Rules of a direction that is not listed have no effect by the API.
    let unlisted = policy("shop/in", "podSelector: {}, policyTypes: [Ingress], egress: [{ports: [{port: 443}]}]");
    shop(&[&unlisted]).check().nothing();
    let other = policy("shop/other", "podSelector: {matchLabels: {app: other}}, policyTypes: [Egress], egress: [{}]");
    shop(&[&unlisted, &other]).check().nothing();
}

#[test]
fn exempt_and_terminating_namespaces_are_left_alone() {
    let system = policy("kube-system/deny", "podSelector: {matchLabels: {app: agent}}, policyTypes: [Egress]");
    gate(&(system + &pod("kube-system/agent", "app: agent"))).only("NP002").check().nothing();
    let terminating = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\nstatus: {phase: Terminating}\n";
    shop(&[&deny(), terminating]).check().nothing();
}

// What it fires on.

#[test]
fn a_policy_that_cuts_workloads_off_is_denied_when_created_changed_and_deleted() {
    shop(&[]).create(&deny()).is(&["deny NP002"]);
    let gate = shop(&[&deny(), &egress(TO_DNS)]);
    gate.delete("NetworkPolicy shop/egress").is(&["deny NP002"]);
    gate.update(&egress("{ports: [{port: 443}]}")).is(&["deny NP002"]).mentions("NetworkPolicy shop/egress");
    gate.delete("NetworkPolicy shop/deny").nothing();
}

#[test]
fn a_workload_that_comes_under_such_policies_is_denied() {
    let isolated = policy("shop/locked", "podSelector: {matchLabels: {locked: 'yes'}}, policyTypes: [Egress]");
    let gate = shop(&[&isolated]);
    gate.create(&deployment("shop/pay", "locked: 'yes'")).is(&["deny NP002"]).mentions("`Deployment pay`");
    gate.create(&deployment("shop/pay", "app: pay")).nothing();
    let relabelled = gate.update(&deployment("shop/cart", "app: cart, locked: 'yes'"));
    relabelled.is(&["deny NP002"]).mentions("Deployment shop/cart spec.template.metadata.labels");
}

#[test]
fn labels_of_the_dns_namespace_decide_for_everybody() {
    let by_label = to("{namespaceSelector: {matchLabels: {dns: here}}}");
    let gate = shop(&[&by_label]).with(&namespace("kube-system", "dns: here"));
    gate.check().nothing();
    let said = gate.update(&namespace("kube-system", ""));
    said.is(&["deny NP002"]).mentions("Namespace kube-system metadata.labels").mentions("`Deployment cart`");
}

#[test]
fn labels_of_the_dns_pods_decide_for_everybody() {
    let system = format!("{{namespaceSelector: {SYSTEM}, podSelector: {{matchLabels: {{app: coredns}}}}}}");
    let dns = DNS
        .replace("labels: {k8s-app: kube-dns}}\nspec: {dns", "labels: {k8s-app: kube-dns, app: coredns}}\nspec: {dns");
    let gate = shop_beside(&dns, &[&to(&system)]);
    gate.check().nothing();
    let half = pod_with("kube-system/coredns-a", "k8s-app: kube-dns", "dnsPolicy: Default");
    gate.update(&half).is(&["warn NP002"]).mentions("only some of the DNS pods");
    let other = pod_with("kube-system/coredns-b", "k8s-app: kube-dns", "dnsPolicy: Default");
    gate.with(&half).update(&other).is(&["deny NP002"]);
}

#[test]
fn the_dns_service_moving_its_port_decides_for_everybody() {
    let moved = "apiVersion: v1\nkind: Service\nmetadata: {name: kube-dns, namespace: kube-system}\nspec: {selector: {k8s-app: kube-dns}, ports: [{port: 53, targetPort: 5353, protocol: UDP}]}\n";
    shop(&[&egress(TO_DNS)]).update(moved).is(&["deny NP002"]).mentions("listen on UDP 5353");
}

#[test]
fn dns_pods_that_admit_tcp_only_are_not_said_to_admit_nothing() {
    let guard = policy("kube-system/guard", "podSelector: {}, ingress: [{ports: [{port: 53}]}]");
    let said = gate(&(DNS.to_owned() + &pod("shop/cart", "app: cart"))).only("NP002").create(&guard);
    said.is(&["deny NP002"]).mentions(
        "NetworkPolicy `kube-system/guard` isolates the DNS pods and the policies there admit them over TCP only, while lookups start over UDP",
    );
}

#[test]
fn isolating_the_dns_pods_cuts_off_every_namespace_in_one_finding() {
    let guard = policy("kube-system/deny", "podSelector: {}, policyTypes: [Ingress]");
    let gate = shop(&[]).with(&(namespace("pay", "") + &pod("pay/ledger", "app: ledger")));
    let said = gate.create(&guard);
    said.is(&["deny NP002"]);
    said.mentions("workloads of namespaces `pay` and `shop` can resolve no name");
    said.mentions("NetworkPolicy `kube-system/deny` isolates the DNS pods and no policy there admits them");
    said.mentions("name: admit-dns-clients\n  namespace: kube-system").mentions("kube-system/deny spec.ingress");
}

#[test]
fn a_guard_of_the_dns_pods_that_lets_some_in_cuts_off_the_others() {
    let guard = policy(
        "kube-system/dns",
        "podSelector: {matchLabels: {k8s-app: kube-dns}}, ingress: [{from: [{namespaceSelector: {matchLabels: {dns: ok}}}]}]",
    );
    let gate = shop(&[]).with(&namespace("shop", "dns: ok"));
    gate.create(&guard).nothing();
    let gate = gate.with(&guard);
    gate.update(&namespace("shop", "")).is(&["deny NP002"]).mentions("`Deployment cart`");
    gate.with(&namespace("pay", "")).create(&pod("pay/ledger", "")).is(&["deny NP002"]).mentions("`Pod ledger`");
    // A guard that lets DNS pods go lets everybody in.
    let aside = policy("kube-system/dns", "podSelector: {matchLabels: {k8s-app: other}}");
    gate.update(&aside).nothing();
}

#[test]
fn a_guard_that_lets_go_of_admitting_cuts_off_though_it_selects_dns_no_more() {
    let deny = policy("kube-system/deny", "podSelector: {}, policyTypes: [Ingress]");
    let admit = |app: &str| {
        policy("kube-system/admit", &format!("podSelector: {{matchLabels: {{k8s-app: {app}}}}}, ingress: [{{}}]"))
    };
    let gate = shop(&[&deny, &admit("kube-dns")]);
    gate.check().nothing();
    gate.update(&admit("metrics")).is(&["deny NP002"]);
    gate.delete("NetworkPolicy kube-system/admit").is(&["deny NP002"]);
}

#[test]
fn both_ends_closed_are_told_and_mended_together() {
    let guard = policy("kube-system/deny", "podSelector: {}, policyTypes: [Ingress]");
    let said = shop(&[&deny(), &guard]).check();
    said.is(&["deny NP002"]).mentions("name: allow-dns\n  namespace: shop").mentions("name: admit-dns-clients");
}

#[test]
fn what_stood_is_at_most_a_warning_and_a_new_workload_is_denied() {
    let gate = shop(&[&deny()]);
    gate.update(&deployment("shop/cart", "app: cart, version: two")).is(&["warn NP002 standing"]);
    gate.create(&deployment("shop/pay", "app: pay")).is(&["deny NP002"]).does_not_mention("Deployment cart");
    gate.create(&egress(TO_DNS)).nothing();
    gate.delete("Deployment shop/cart").nothing();
}

#[test]
fn a_policy_that_comes_before_its_pods_is_a_warning_at_the_gate_and_denied_in_check() {
    let empty = gate(&(namespace("shop", "") + "---" + DNS)).only("NP002");
    let said = empty.create(&deny());
    said.is(&["warn NP002"]).mentions("pods to come can resolve no name");
    empty.with(&deny()).check().is(&["deny NP002"]);
    let named = policy("shop/cart", "podSelector: {matchLabels: {app: cart}}, policyTypes: [Egress]");
    empty.create(&named).is(&["warn NP002"]).mentions("pods with `app=cart`, of which there are none yet,");
}

// Shades.

#[test]
fn tcp_missing_is_a_warning() {
    let udp = egress(&format!("{{to: [{{namespaceSelector: {SYSTEM}}}], ports: [{{port: 53, protocol: UDP}}]}}"));
    shop(&[&udp]).check().is(&["warn NP002"]).mentions("over UDP but not over TCP");
    // Where the Service speaks no TCP, nothing is missing.
    let service = DNS.replace(", {name: dns-tcp, port: 53, protocol: TCP}", "");
    shop_beside(&service, &[&udp]).check().nothing();
}

#[test]
fn some_of_the_dns_pods_are_not_all_of_them() {
    let dns = DNS.replacen(
        "labels: {k8s-app: kube-dns}}\nspec: {dns",
        "labels: {k8s-app: kube-dns, shard: a}}\nspec: {dns",
        1,
    );
    let shard = to(&format!("{{namespaceSelector: {SYSTEM}, podSelector: {{matchLabels: {{shard: a}}}}}}"));
    shop_beside(&dns, &[&shard]).check().is(&["warn NP002"]).mentions("can reach only some of the DNS pods");
}

#[test]
fn the_address_of_a_dns_pod_counts_where_blocks_match_pods() {
    let both = to("{ipBlock: {cidr: 10.244.0.0/16}}");
    shop(&[&both]).on("calico").check().nothing();
    shop(&[&both]).on("cilium").check().is(&["deny NP002"]);
    shop(&[&both]).check().is(&["warn NP002"]).mentions("whether an `ipBlock` admits DNS depends");
    let one = to("{ipBlock: {cidr: 10.244.0.2/32}}");
    shop(&[&one]).on("calico").check().is(&["warn NP002"]).mentions("only some of the DNS pods");
}

#[test]
fn pod_ranges_settle_what_blocks_cover_of_pods_without_addresses() {
    let templates =
        DNS.split("---").next().unwrap().to_owned() + &deployment("kube-system/coredns", "k8s-app: kube-dns");
    let range = to("{ipBlock: {cidr: 10.244.0.0/16}}");
    let gate = shop_beside(&templates, &[&range]);
    gate.clone().on("calico").check().is(&["warn NP002"]);
    gate.clone().set("cni", "{name: calico, podRanges: [10.244.0.0/16]}").check().nothing();
    gate.set("cni", "{name: calico, podRanges: [10.128.0.0/14]}").check().is(&["deny NP002"]);
}

#[test]
fn policies_of_other_systems_make_it_a_warning_that_says_so() {
    shop(&[&deny(), &cilium("shop/dns")]).check().is(&["warn NP002"]).mentions("`dns` may decide this too");
    let guard = policy("kube-system/deny", "podSelector: {}, policyTypes: [Ingress]");
    shop(&[&guard, &cilium("kube-system/dns")]).check().is(&["warn NP002"]).mentions("`dns` may decide this too");
    shop(&[&deny(), &cilium("kube-system/dns")]).check().is(&["deny NP002"]);
}

#[test]
fn what_cannot_be_read_makes_it_a_warning() {
    let sideways = policy("shop/dns", "podSelector: {}, policyTypes: [Egress], egress: [{to: [{}]}]");
    shop(&[&deny(), &sideways])
        .check()
        .is(&["warn NP002"])
        .mentions("a part of NetworkPolicy `shop/dns` could not be read");
}

#[test]
fn the_mode_of_the_clients_namespace_counts_and_loosening_it_in_the_same_change_does_not_help() {
    let guard = policy(
        "kube-system/dns",
        "podSelector: {matchLabels: {k8s-app: kube-dns}}, ingress: [{from: [{namespaceSelector: {matchLabels: {dns: ok}}}]}]",
    );
    let gate = shop(&[&guard]).with(&namespace("shop", "dns: ok"));
    gate.update(&namespace("shop", "portcullis.dev/mode: audit")).is(&["deny NP002"]);
    let audited = gate.with(&namespace("shop", "dns: ok, portcullis.dev/mode: audit"));
    audited.update(&namespace("shop", "portcullis.dev/mode: audit")).is(&["audit NP002"]);
    gate.mode(Mode::Warn).update(&namespace("shop", "")).is(&["warn NP002"]);
}

// Where DNS is.

#[test]
fn without_dns_objects_the_usual_identities_are_taken_and_it_says_so() {
    let said = shop_without_dns(&[&deny()]).check();
    said.is(&["deny NP002"]).mentions("no DNS Service is among the known objects, so its usual place is assumed");
    for peers in [
        "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}",
        "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: coredns}}}",
        "{namespaceSelector: {}, podSelector: {matchLabels: {app.kubernetes.io/name: coredns}}}",
    ] {
        shop_without_dns(&[&to(peers)]).check().nothing();
    }
    let openshift = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: openshift-dns}}}], ports: [{port: 5353, protocol: UDP}, {port: 5353}]}";
    shop_without_dns(&[&egress(openshift)]).check().nothing();
}

#[test]
fn a_dns_of_ones_own_that_is_not_among_the_objects_is_no_certainty() {
    for rule in [
        "{to: [{namespaceSelector: {matchLabels: {team: network}}}], ports: [{port: 53, protocol: UDP}]}",
        "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: dns-system}}}]}",
        "{to: [{ipBlock: {cidr: 192.0.2.53/32}}], ports: [{port: 53, protocol: UDP}]}",
    ] {
        let said = shop_without_dns(&[&egress(rule)]).check();
        assert!(!said.denied(), "{said:#?}");
    }
    // Of a mistake there is no doubt.
    shop_without_dns(&[&to("{namespaceSelector: {matchLabels: {name: kube-system}}}")]).check().is(&["deny NP002"]);
}

#[test]
fn a_guard_of_presumed_dns_pods_is_a_warning() {
    let guard = policy("kube-system/deny", "podSelector: {}, policyTypes: [Ingress]");
    shop_without_dns(&[]).create(&guard).is(&["warn NP002"]).mentions("can probably resolve no name");
}

#[test]
fn configured_services_take_the_place_of_those_found() {
    let custom = "---\napiVersion: v1\nkind: Service\nmetadata: {name: resolver, namespace: dns}\nspec: {selector: {app: unbound}, ports: [{port: 53, targetPort: 5300, protocol: UDP}]}\n";
    let gate = shop(&[custom, &pod("dns/unbound", "app: unbound"), &egress(TO_DNS)]);
    gate.clone().check().nothing();
    let gate = gate.set("dns", "services: [{namespace: dns, name: resolver}]");
    gate.check().mentions("Service `dns/resolver`").mentions("port: 5300");
    let admitted = egress(
        "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: dns}}}], ports: [{port: 5300, protocol: UDP}]}",
    );
    assert!(!gate.with(&admitted).check().text().contains("Deployment cart"));
}

#[test]
fn configured_addresses_take_the_place_of_the_service() {
    let node_local = shop(&[&egress(TO_DNS)]).set("dns", "addresses: [169.254.20.10]");
    let said = node_local.check();
    said.is(&["deny NP002"]).mentions("cluster DNS is at `169.254.20.10`").mentions("cidr: 169.254.20.10/32");
    node_local.with(&to("{ipBlock: {cidr: 169.254.20.10/32}}")).check().nothing();
    // Beside Services, either is enough.
    let either = "{addresses: [169.254.20.10], services: [{namespace: kube-system, name: kube-dns}]}";
    shop(&[&egress(TO_DNS)]).set("dns", either).check().nothing();
    shop(&[&to("{ipBlock: {cidr: 169.254.20.10/32}}")]).set("dns", either).check().nothing();
}

#[test]
fn a_node_local_cache_that_is_not_configured_is_presumed() {
    let link_local = to("{ipBlock: {cidr: 169.254.20.10/32}}");
    shop(&[&link_local]).check().is(&["warn NP002"]).mentions("probably");
    shop_without_dns(&[&link_local]).check().nothing();
}

#[test]
fn headless_services_and_services_without_a_selector_are_understood() {
    let headless = DNS.replace("clusterIP: 10.96.0.10", "clusterIP: None");
    shop_beside(&headless, &[&egress(TO_DNS)]).check().nothing();
    shop_beside(&headless, &[&deny()]).check().is(&["deny NP002"]);
    // Who answers for it is not said, so the usual identities are assumed.
    let bare = DNS.split("---").next().unwrap().replace("  selector: {k8s-app: kube-dns}\n", "");
    shop_beside(&bare, &[&egress(TO_DNS)]).check().nothing();
    let said = shop_beside(&bare, &[&to("{ipBlock: {cidr: 192.0.2.53/32}}")]).check();
    assert!(!said.denied(), "{said:#?}");
}

#[test]
fn a_service_whose_pods_are_not_known_stands_for_them() {
    let service = DNS.split("---").next().unwrap();
    let said = shop_beside(service, &[&deny()]).check();
    said.is(&["deny NP002"]).mentions("its pods are not among the known objects");
    shop_beside(service, &[&egress(TO_DNS)]).check().nothing();
}

#[test]
fn a_tenants_service_of_that_name_does_not_stand_in_for_the_real_one() {
    let fake = "---\napiVersion: v1\nkind: Service\nmetadata: {name: coredns, namespace: shop}\nspec: {selector: {app: cart}, ports: [{port: 53, protocol: UDP}]}\n";
    shop(&[fake, &egress("{to: [{podSelector: {}}]}")]).check().is(&["deny NP002"]);
}

#[test]
fn dns_pods_on_the_nodes_network_are_offered_by_address() {
    let dns = DNS.replace("dnsPolicy: Default", "dnsPolicy: Default, hostNetwork: true");
    let said = shop_beside(&dns, &[&egress(TO_DNS)]).check();
    said.is(&["deny NP002"]).mentions("cidr: 10.244.0.2/32");
}

// What is offered.

#[test]
fn a_name_that_is_taken_or_about_to_be_is_not_offered() {
    let rules = format!("podSelector: {{}}, policyTypes: [Egress], egress: [{TO_DNS}]");
    let gate = shop(&[&deny(), &policy("shop/allow-dns", &rules)]);
    gate.delete("NetworkPolicy shop/allow-dns").is(&["deny NP002"]).mentions("name: allow-dns-2");
    let (a, b) = (
        policy("shop/a", "podSelector: {matchLabels: {app: a}}, policyTypes: [Egress]"),
        policy("shop/b", "podSelector: {matchLabels: {app: b}}, policyTypes: [Egress]"),
    );
    let taken = policy("shop/allow-dns", "podSelector: {matchLabels: {app: c}}, policyTypes: [Ingress]");
    let said = shop(&[&a, &b, &taken]).with(&(pod("shop/a", "app: a") + &pod("shop/b", "app: b"))).check();
    said.is(&["deny NP002"]).mentions("name: allow-dns-2\n").mentions("name: allow-dns-3\n");
}

#[test]
fn it_is_told_as_an_engineer_needs_it() {
    insta::assert_snapshot!(shop(&[]).create(&deny()).text(), @r#"
    deny NP002 NetworkPolicy shop/deny spec.policyTypes
    in namespace `shop`, `Deployment cart` can resolve no name: NetworkPolicy `deny` isolates egress and no policy admits DNS
    why: every new connection starts with a lookup, and each will fail after a timeout of several seconds; connections that are open stay open and hide it
    - cluster DNS is Service `kube-system/kube-dns` (pods `k8s-app=kube-dns`, listening on UDP 53 and TCP 53)
    help: apply the policy that admits DNS before `deny`, or write it above `deny` in the same file, which `kubectl` applies from the top. If you have none, this is one: it lets these pods reach DNS and opens nothing else
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata:
      name: allow-dns
      namespace: shop
    spec:
      podSelector: {}
      policyTypes:
      - Egress
      egress:
      - to:
        - namespaceSelector:
            matchLabels:
              kubernetes.io/metadata.name: kube-system
          podSelector:
            matchLabels:
              k8s-app: kube-dns
        ports:
        - protocol: UDP
          port: 53
        - protocol: TCP
          port: 53
    "#);
    insta::assert_snapshot!(shop(&[&to("{namespaceSelector: {matchLabels: {name: kube-system}}}")]).check().text(), @r#"
    deny NP002 NetworkPolicy shop/egress spec.egress[0].to[0].namespaceSelector
    in namespace `shop`, `Deployment cart` can resolve no name: NetworkPolicy `egress` isolates egress and no policy admits DNS
    why: every new connection starts with a lookup, and each will fail after a timeout of several seconds; connections that are open stay open and hide it
    - cluster DNS is Service `kube-system/kube-dns` (pods `k8s-app=kube-dns`, listening on UDP 53 and TCP 53)
    - `egress`: `spec.egress[0].to[0].namespaceSelector` looks for namespaces labelled `name=kube-system`, but namespace `kube-system` does not carry that label: every namespace carries `kubernetes.io/metadata.name`
    help: apply this as well: it lets these pods reach DNS and opens nothing else
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata:
      name: allow-dns
      namespace: shop
    spec:
      podSelector: {}
      policyTypes:
      - Egress
      egress:
      - to:
        - namespaceSelector:
            matchLabels:
              kubernetes.io/metadata.name: kube-system
          podSelector:
            matchLabels:
              k8s-app: kube-dns
        ports:
        - protocol: UDP
          port: 53
        - protocol: TCP
          port: 53
    "#);
    let guard = policy("kube-system/deny", "podSelector: {}, policyTypes: [Ingress]");
    insta::assert_snapshot!(shop(&[]).create(&guard).text(), @r#"
    deny NP002 NetworkPolicy kube-system/deny spec.ingress
    in namespace `shop`, `Deployment cart` can resolve no name: NetworkPolicy `kube-system/deny` isolates the DNS pods and no policy there admits them
    why: every new connection starts with a lookup, and each will fail after a timeout of several seconds; connections that are open stay open and hide it
    - cluster DNS is Service `kube-system/kube-dns` (pods `k8s-app=kube-dns`, listening on UDP 53 and TCP 53)
    - NetworkPolicy `kube-system/deny` isolates `Pod coredns-a` and `Pod coredns-b`, which answer DNS, and does not admit these pods on UDP 53
    help: apply the policy that admits DNS before `deny`, or write it above `deny` in the same file, which `kubectl` applies from the top. If you have none, this is one: it lets every pod ask the DNS pods and opens nothing else
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata:
      name: admit-dns-clients
      namespace: kube-system
    spec:
      podSelector:
        matchLabels:
          k8s-app: kube-dns
      policyTypes:
      - Ingress
      ingress:
      - from:
        - namespaceSelector: {}
        ports:
        - protocol: UDP
          port: 53
        - protocol: TCP
          port: 53
    "#);
}
