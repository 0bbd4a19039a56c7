use crate::rules::Mode;
use crate::rules::testing::*;

/// A namespace with a workload and these policies, judged by this rule alone.
fn shop(policies: &[&str]) -> Gate {
    gate(&(namespace("shop", "") + &deployment("shop/cart", "app: cart") + &policies.concat())).only("NP001")
}

fn deny_all() -> String {
    policy("shop/deny", "podSelector: {}, policyTypes: [Ingress, Egress]")
}

fn allow(spec: &str) -> String {
    policy("shop/allow", &format!("podSelector: {{}}, policyTypes: [Ingress, Egress], {spec}"))
}

const OPEN: &str = "ingress: [{}], egress: [{}]";

// What it is not fooled by.

#[test]
fn a_namespace_without_policies_is_undefended() {
    shop(&[]).check().is(&["deny NP001"]).mentions("the namespace has no NetworkPolicy");
}

#[test]
fn an_allow_all_is_no_default_deny_whatever_its_name() {
    let disguised =
        policy("shop/default-deny-all", &format!("podSelector: {{}}, policyTypes: [Ingress, Egress], {OPEN}"));
    shop(&[&disguised]).check().is(&["deny NP001"]).mentions("`default-deny-all`");
}

#[test]
fn an_allow_all_undoes_the_default_deny_beside_it() {
    shop(&[&deny_all(), &allow(OPEN)]).check().is(&["deny NP001"]).mentions("gives all ingress and egress back");
}

#[test]
fn ingress_alone_leaves_egress_undefended() {
    let ingress = policy("shop/deny", "podSelector: {}, policyTypes: [Ingress]");
    let said = shop(&[&ingress]).check();
    said.is(&["deny NP001"]).mentions("no default-deny for egress").does_not_mention("for ingress,");
    said.mentions("isolates every pod, but not for egress");
}

#[test]
fn a_policy_that_defaults_to_ingress_leaves_egress_undefended() {
    shop(&[&policy("shop/deny", "podSelector: {}")]).check().is(&["deny NP001"]).mentions("for egress");
}

#[test]
fn a_selector_that_matches_todays_pods_does_not_defend_those_to_come() {
    let today = policy("shop/cart", "podSelector: {matchLabels: {app: cart}}, policyTypes: [Ingress, Egress]");
    let said = shop(&[&today]).check();
    said.is(&["deny NP001"]).mentions("isolates ingress of pods with `app=cart` only");
    said.mentions("its policies isolate only the pods they name").does_not_mention("leaves `Deployment cart` open");
}

#[test]
fn rules_whose_direction_is_missing_isolate_nothing() {
    let unlisted = policy("shop/deny", &format!("podSelector: {{}}, policyTypes: [Ingress], egress: [{TO_DNS}]"));
    shop(&[&unlisted])
        .check()
        .is(&["deny NP001"])
        .mentions("has egress rules, but `Egress` is not in its `policyTypes`");
}

#[test]
fn two_halves_that_together_admit_everyone_undo_the_default_deny() {
    let pods =
        policy("shop/pods", "podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}}]}]");
    let addresses = policy(
        "shop/internet",
        "podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]",
    );
    let gate = shop(&[&deny_all(), &pods, &addresses]).on("cilium");
    gate.check().is(&["deny NP001"]).mentions("NetworkPolicies `internet` and `pods` together give all ingress back");
    gate.without("NetworkPolicy shop/pods").check().nothing();
    gate.without("NetworkPolicy shop/internet").check().nothing();
}

#[test]
fn ports_split_over_rules_add_up() {
    shop(&[
        &deny_all(),
        &allow("ingress: [{ports: [{port: 1, endPort: 20000}]}, {ports: [{port: 20001, endPort: 65535}]}]"),
    ])
    .check()
    .is(&["deny NP001"]);
    shop(&[&deny_all(), &allow("ingress: [{ports: [{port: 1, endPort: 32767}]}]")]).check().is(&["deny NP001"]);
}

#[test]
fn blocks_in_halves_and_namespaces_by_the_label_all_carry_are_everyone() {
    let halves = "{ipBlock: {cidr: 0.0.0.0/1}}, {ipBlock: {cidr: 128.0.0.0/1, except: [192.0.2.1/32]}}";
    for namespaces in [
        "{}",
        "{matchExpressions: [{key: kubernetes.io/metadata.name, operator: Exists}]}",
        "{matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [nowhere]}]}",
        "{matchExpressions: [{key: no-such-label, operator: DoesNotExist}]}",
    ] {
        let open = allow(&format!("ingress: [{{from: [{halves}, {{namespaceSelector: {namespaces}}}]}}]"));
        shop(&[&deny_all(), &open]).on("cilium").check().is(&["deny NP001"]);
    }
}

#[test]
fn an_exception_of_a_few_pods_leaves_the_block_as_wide_as_it_was() {
    let open = allow("ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.1.2.3/32]}}]}]");
    shop(&[&deny_all(), &open]).on("calico").check().is(&["deny NP001"]);
    let ranges = shop(&[&deny_all(), &open]).set("cni", "{name: calico, podRanges: [10.244.0.0/16, 'fd00::/64']}");
    ranges.check().is(&["deny NP001"]);
}

#[test]
fn an_allow_all_for_one_workload_opens_that_workload() {
    let open = policy(
        "shop/debug",
        &format!("podSelector: {{matchLabels: {{app: cart}}}}, policyTypes: [Ingress, Egress], {OPEN}"),
    );
    let said = shop(&[&deny_all(), &open]).check();
    said.is(&["deny NP001"]).mentions("`debug` gives all ingress and egress back to `Deployment cart`");
}

#[test]
fn a_selector_of_many_keys_does_not_hide_that_it_leaves_pods_out() {
    let keys: Vec<_> = (0..20).map(|n| format!("{{key: k{n}, operator: DoesNotExist}}")).collect();
    let pods = format!("podSelector: {{matchExpressions: [{}]}}", keys.join(", "));
    let riddled = policy("shop/deny", &format!("{pods}, policyTypes: [Ingress, Egress]"));
    shop(&[&riddled]).check().is(&["deny NP001"]);
}

#[test]
fn an_opener_of_named_pods_is_not_blamed_for_what_another_opens() {
    let named = policy(
        "shop/named",
        &format!("podSelector: {{matchLabels: {{app: other}}}}, policyTypes: [Ingress, Egress], {OPEN}"),
    );
    shop(&[&deny_all(), &allow(OPEN), &named]).check().is(&["deny NP001"]).does_not_mention("`named`");
}

// What it is not raised for.

#[test]
fn a_default_deny_with_dns_is_a_defence() {
    shop(&[&default_deny("shop")]).check().nothing();
}

#[test]
fn a_policy_that_isolates_all_and_admits_something_narrower_is_a_defence() {
    for narrower in [
        "ingress: [{from: [{podSelector: {}}]}], egress: [{to: [{podSelector: {}}]}]",
        "ingress: [{from: [{namespaceSelector: {}}]}], egress: [{to: [{namespaceSelector: {}}]}]",
        "ingress: [{ports: [{port: 8080}]}], egress: [{ports: [{port: 443}]}]",
        "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]",
        "ingress: [{from: [{namespaceSelector: {matchLabels: {team: web}}}, {ipBlock: {cidr: 203.0.113.0/24}}]}]",
        "egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16]}}]}]",
        "egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]}]",
        "egress: [{ports: [{protocol: UDP, port: 49152, endPort: 65535}]}]",
        "ingress: [{ports: [{port: 30000, endPort: 32767}]}]",
        "ingress: [{ports: [{port: 80}, {port: 443}, {port: 8080}, {port: 8443}, {port: 15021}]}]",
        "egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 443}, {port: 80}]}]",
    ] {
        for cni in ["calico", "cilium", "unknown"] {
            shop(&[&allow(narrower)]).on(cni).check().nothing();
        }
    }
}

#[test]
fn what_holds_the_ports_that_matter_is_no_defence_whatever_the_protocol() {
    for (wide, over) in [
        ("ingress: [{ports: [{port: 1, endPort: 8191}]}]", "all ingress back"),
        ("ingress: [{ports: [{port: 1, endPort: 1023}]}]", "all ingress back"),
        ("egress: [{ports: [{protocol: UDP}]}]", "all egress over UDP back"),
        ("ingress: [{ports: [{protocol: SCTP}]}]", "all ingress over SCTP back"),
        ("ingress: [{ports: [{protocol: UDP}, {protocol: SCTP}]}]", "all ingress over UDP and SCTP back"),
        ("ingress: [{ports: [{port: 1, endPort: 3000}]}, {ports: [{port: 3001, endPort: 7000}]}]", "all ingress back"),
        (
            "ingress: [{from: [{namespaceSelector: {}}, {ipBlock: {cidr: 0.0.0.0/1}}], ports: [{port: 1, endPort: 4000}]}]",
            "all ingress back",
        ),
    ] {
        shop(&[&allow(wide)]).check().is(&["deny NP001"]).mentions(over);
    }
}

#[test]
fn all_pods_and_a_large_part_of_the_world_are_everyone() {
    for world in ["0.0.0.0/1", "64.0.0.0/2", "64:ff9b::/96", "2002::/16", "2000::/3"] {
        let peers = format!("egress: [{{to: [{{namespaceSelector: {{}}}}, {{ipBlock: {{cidr: '{world}'}}}}]}}]");
        shop(&[&allow(&peers)]).check().is(&["deny NP001"]);
    }
    for network in ["10.0.0.0/8", "203.0.113.0/24", "64:ff9b::a00:0/104", "fd00::/8"] {
        let peers = format!("egress: [{{to: [{{namespaceSelector: {{}}}}, {{ipBlock: {{cidr: '{network}'}}}}]}}]");
        shop(&[&allow(&peers)]).check().nothing();
    }
}

#[test]
fn a_selector_and_its_opposite_are_a_defence_together() {
    let of = |operator: &str| {
        let name = operator.to_lowercase();
        let pods = format!("podSelector: {{matchExpressions: [{{key: tier, operator: {operator}}}]}}");
        policy(&format!("shop/{name}"), &format!("{pods}, policyTypes: [Ingress, Egress]"))
    };
    shop(&[&of("Exists"), &of("DoesNotExist")]).check().nothing();
    shop(&[&of("Exists")]).check().is(&["deny NP001"]);
}

#[test]
fn two_policies_of_one_direction_each_are_a_defence_together() {
    let ingress = policy("shop/in", "podSelector: {}, policyTypes: [Ingress]");
    let egress = policy("shop/out", "podSelector: {}, policyTypes: [Egress]");
    shop(&[&ingress, &egress]).check().nothing();
}

#[test]
fn exempt_and_terminating_namespaces_are_left_alone() {
    gate(&pod("kube-system/agent", "")).only("NP001").check().nothing();
    gate(&pod("infra-a/agent", "")).only("NP001").set("namespaces", "exempt: [infra-*]").check().nothing();
    let terminating = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\nstatus: {phase: Terminating}\n";
    gate(&(terminating.to_owned() + &pod("shop/cart", ""))).only("NP001").check().nothing();
}

#[test]
fn pods_of_the_nodes_network_are_not_policies_business() {
    let host = pod_with("shop/agent", "app: agent", "hostNetwork: true");
    shop(&[]).create(&host).nothing();
    // Neither are those that are done.
    let done = pod("shop/done", "app: done") + "status: {phase: Succeeded}\n";
    gate(&(namespace("shop", "") + &done)).only("NP001").check().is(&["warn NP001"]).mentions("every pod to come");
}

// What it fires on.

#[test]
fn creating_a_workload_in_an_undefended_namespace_is_denied() {
    let empty = gate(&namespace("shop", "")).only("NP001");
    for workload in [
        pod("shop/cart", "app: cart"),
        deployment("shop/cart", "app: cart"),
        object("batch/v1", "CronJob", "name: cart, namespace: shop", "jobTemplate: {spec: {template: {}}}"),
    ] {
        empty.create(&workload).is(&["deny NP001"]).mentions("then repeat the request");
    }
}

#[test]
fn a_second_workload_in_an_undefended_namespace_is_new_and_the_first_stands() {
    let said = shop(&[]).create(&deployment("shop/pay", "app: pay"));
    said.is(&["deny NP001"]).mentions("`Deployment pay`").does_not_mention("cart");
    let image = deployment("shop/cart", "app: cart, version: two");
    shop(&[]).update(&image).is(&["warn NP001 standing"]);
}

#[test]
fn a_workload_in_a_defended_namespace_is_let_in() {
    shop(&[&default_deny("shop")]).create(&deployment("shop/pay", "app: pay")).nothing();
}

#[test]
fn taking_the_last_defence_is_denied_by_delete_and_by_update() {
    let gate = shop(&[&default_deny("shop")]);
    gate.delete("NetworkPolicy shop/default-deny")
        .is(&["deny NP001"])
        .mentions("deleting NetworkPolicy `default-deny`");
    let ingress_only = policy("shop/default-deny", "podSelector: {}, policyTypes: [Ingress]");
    gate.update(&ingress_only).is(&["deny NP001"]).mentions("changing NetworkPolicy `default-deny`");
    let narrower =
        policy("shop/default-deny", "podSelector: {matchLabels: {app: cart}}, policyTypes: [Ingress, Egress]");
    gate.update(&narrower).is(&["deny NP001"]).mentions("spec.podSelector");
    gate.with(&policy("shop/other", "podSelector: {}, policyTypes: [Ingress, Egress]"))
        .delete("NetworkPolicy shop/default-deny")
        .nothing();
}

#[test]
fn taking_a_workloads_own_isolation_is_denied_though_the_namespace_stood_undefended() {
    let own = policy("shop/cart", "podSelector: {matchLabels: {app: cart}}, policyTypes: [Ingress, Egress]");
    let gate = shop(&[&own]).with(&deployment("shop/pay", "app: pay"));
    let said = gate.delete("NetworkPolicy shop/cart");
    said.is(&["deny NP001", "warn NP001 standing"]);
    said.mentions("takes the last isolation of ingress and egress from `Deployment cart` in namespace `shop`");
    let relabelled = gate.update(&deployment("shop/cart", "app: basket"));
    relabelled.is(&["deny NP001"]).mentions("`Deployment cart`");
}

#[test]
fn an_allow_all_is_denied_when_it_comes_and_when_a_label_puts_a_workload_under_it() {
    let gate = shop(&[&deny_all()]);
    gate.create(&allow(OPEN)).is(&["deny NP001"]).mentions("NetworkPolicy shop/allow spec.ingress[0]");
    let open = policy(
        "shop/debug",
        &format!("podSelector: {{matchLabels: {{debug: 'yes'}}}}, policyTypes: [Ingress, Egress], {OPEN}"),
    );
    gate.create(&open).nothing();
    let labelled = deployment("shop/cart", "app: cart, debug: 'yes'");
    gate.with(&open).update(&labelled).is(&["deny NP001"]).mentions("`debug` gives all ingress and egress back");
}

#[test]
fn what_makes_a_namespace_stricter_passes_with_a_warning_at_most() {
    let gate = shop(&[]);
    gate.create(&deny_all()).nothing();
    gate.create(&policy("shop/deny", "podSelector: {}, policyTypes: [Ingress]")).is(&["warn NP001 standing"]);
    shop(&[&deny_all(), &allow(OPEN)]).delete("NetworkPolicy shop/allow").nothing();
    shop(&[]).delete("Deployment shop/cart").nothing();
}

#[test]
fn creating_a_namespace_warns_with_the_policy_to_apply() {
    let said = gate("").only("NP001").create(&namespace("shop", ""));
    said.is(&["warn NP001"]).mentions("namespace `shop` starts without a default-deny for ingress and egress");
    said.mentions("name: default-deny\n  namespace: shop");
}

#[test]
fn clearing_a_namespace_in_which_nothing_runs_is_a_warning() {
    let empty = gate(&(namespace("shop", "") + &default_deny("shop"))).only("NP001");
    empty.delete("NetworkPolicy shop/default-deny").is(&["warn NP001"]);
    empty.without("NetworkPolicy shop/default-deny").create(&pod("shop/cart", "")).is(&["deny NP001"]);
}

#[test]
fn no_one_is_denied_for_what_only_may_be_open() {
    let wide = allow("egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]");
    let gate = shop(&[&wide]);
    gate.clone().on("unknown").check().is(&["warn NP001"]).mentions("it depends on what enforces the policies");
    gate.clone().on("calico").check().is(&["deny NP001"]);
    gate.on("cilium").check().nothing();
}

#[test]
fn policies_of_other_systems_make_it_a_warning_that_says_so() {
    let said = shop(&[&cilium("shop/zero-trust")]).check();
    said.is(&["warn NP001"]).mentions("CiliumNetworkPolicy.cilium.io `zero-trust` may isolate these pods too");
    let everywhere = object("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", "name: floor", "");
    shop(&[&everywhere]).check().is(&["warn NP001"]).mentions("`floor`");
    let elsewhere = shop(&[&cilium("other/zero-trust")]);
    elsewhere.create(&pod("shop/pay", "")).is(&["deny NP001"]).does_not_mention("zero-trust");
}

#[test]
fn a_policy_that_cannot_be_read_in_full_makes_it_a_warning() {
    let partial = policy("shop/new", "podSelector: {}, policyTypes: [Ingress, Sideways]");
    let gate = gate(&(namespace("shop", "") + &pod("shop/cart", ""))).only("NP001").with(&partial);
    gate.check().is(&["warn NP001"]);
}

// Options, modes, ratchet.

#[test]
fn only_the_directions_asked_for_are_required() {
    let ingress = policy("shop/deny", "podSelector: {}, policyTypes: [Ingress]");
    let gate = shop(&[&ingress]).option("missing-default-deny", "directions: [ingress]");
    gate.check().nothing();
    let gate = gate.option("missing-default-deny", "directions: [egress]");
    gate.check().is(&["deny NP001"]).does_not_mention("for ingress");
}

#[test]
fn workloads_of_a_young_namespace_are_warned_about() {
    let born = |at: &str| {
        format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, creationTimestamp: '{at}'}}\n")
    };
    let cart = pod("shop/cart", "");
    let young = gate(&born("2026-11-01T11:59:45Z")).only("NP001");
    young.create(&cart).is(&["deny NP001"]);
    young.clone().option("missing-default-deny", "grace: 30s").create(&cart).is(&["warn NP001"]);
    young.option("missing-default-deny", "grace: 15s").create(&cart).is(&["deny NP001"]);
    // A namespace that seems to come from the future is no younger than new.
    gate(&born("2026-11-01T12:00:05Z")).only("NP001").create(&cart).is(&["deny NP001"]);
}

#[test]
fn the_grace_is_for_new_workloads_and_not_for_taking_defences() {
    let born =
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, creationTimestamp: '2026-11-01T11:59:45Z'}\n";
    let gate = gate(&(born.to_owned() + &default_deny("shop") + &pod("shop/cart", ""))).only("NP001");
    gate.option("missing-default-deny", "grace: 5m").delete("NetworkPolicy shop/default-deny").is(&["deny NP001"]);
}

#[test]
fn pods_listed_as_unrestricted_may_be_given_everything_back_but_must_be_isolated() {
    let gate = shop(&[&deny_all(), &allow(OPEN)]).option("missing-default-deny", "unrestrictedPods: [{app: cart}]");
    let gateway = pod("shop/gateway", "app: cart, tier: edge");
    gate.create(&gateway).nothing();
    gate.create(&pod("shop/pay", "app: pay")).is(&["deny NP001"]);
    let bare = shop(&[]).option("missing-default-deny", "unrestrictedPods: [{app: cart}]");
    bare.create(&gateway).is(&["deny NP001"]);
    // An entry without labels lists nobody.
}

#[test]
fn the_mode_caps_the_action_for_the_cluster_and_for_a_namespace() {
    let pay = pod("shop/pay", "");
    shop(&[]).mode(Mode::Warn).create(&pay).is(&["warn NP001"]);
    shop(&[]).mode(Mode::Audit).create(&pay).is(&["audit NP001"]);
    let labelled = |mode: &str| shop(&[]).with(&namespace("shop", &format!("portcullis.dev/mode: {mode}")));
    labelled("warn").create(&pay).is(&["warn NP001"]);
    labelled("audit").create(&pay).is(&["audit NP001"]);
    labelled("enforce").mode(Mode::Warn).create(&pay).is(&["deny NP001"]);
    labelled("nonsense").create(&pay).is(&["deny NP001"]);
}

#[test]
fn pods_of_one_controller_are_named_once() {
    let owned = |name: &str| {
        let owner = "ownerReferences: [{kind: ReplicaSet, name: cart-5d, controller: true}]";
        object("v1", "Pod", &format!("name: {name}, namespace: shop, labels: {{app: cart}}, {owner}"), "")
    };
    let set = object(
        "apps/v1",
        "ReplicaSet",
        "name: cart-5d, namespace: shop, ownerReferences: [{kind: Deployment, name: cart, controller: true}]",
        "template: {metadata: {labels: {app: cart}}}",
    );
    let said = shop(&[&set, &owned("cart-5d-a"), &owned("cart-5d-b")]).check();
    said.is(&["deny NP001"]).mentions("leaves `Deployment cart` open").does_not_mention("cart-5d");
}

#[test]
fn it_is_told_as_an_engineer_needs_it() {
    insta::assert_snapshot!(shop(&[]).create(&deployment("shop/pay", "app: pay")).text(), @r#"
    deny NP001 Deployment shop/pay
    namespace `shop` has no default-deny for ingress and egress, which leaves `Deployment pay` open
    why: a pod that no policy isolates is open: any pod of the cluster can connect to these pods, and they can connect to anything, inside the cluster and out of it
    - the namespace has no NetworkPolicy
    help: apply this policy first, then repeat the request. It isolates every pod of `shop` and lets them resolve names: connections the workloads need must be admitted by policies of their own
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata:
      name: default-deny
      namespace: shop
    spec:
      podSelector: {}
      policyTypes:
      - Ingress
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
    insta::assert_snapshot!(shop(&[&deny_all(), &allow(OPEN)]).check().text(), @r#"
    deny NP001 NetworkPolicy shop/allow spec.ingress[0]
    in namespace `shop`, NetworkPolicy `allow` gives all ingress and egress back to `Deployment cart`
    why: the union of the policies is what counts, and it admits everything: any pod of the cluster can connect to these pods, and they can connect to anything, inside the cluster and out of it
    - NetworkPolicy `allow` selects every pod and admits everything in `spec.ingress[0]` and `spec.egress[0]`
    help: narrow or delete `allow`: policies only add up, so no further policy takes back what it gives. What is below keeps the isolation and drops the rules that admit everything; name in it the peers that are needed
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata:
      name: allow
      namespace: shop
    spec:
      podSelector: {}
      policyTypes:
      - Ingress
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
    insta::assert_snapshot!(shop(&[&default_deny("shop")]).delete("NetworkPolicy shop/default-deny").text(), @r#"
    deny NP001 NetworkPolicy shop/default-deny
    deleting NetworkPolicy `default-deny` takes the last default-deny for ingress and egress from namespace `shop` and opens `Deployment cart`
    why: a pod that no policy isolates is open: any pod of the cluster can connect to these pods, and they can connect to anything, inside the cluster and out of it
    - no NetworkPolicy is left in the namespace
    help: apply this policy first. It isolates every pod of `shop` and lets them resolve names: connections the workloads need must be admitted by policies of their own
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata:
      name: default-deny-2
      namespace: shop
    spec:
      podSelector: {}
      policyTypes:
      - Ingress
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
}

// Labels that the cluster writes, and ReplicaSets without pods.

fn opens(name: &str, selector: &str) -> String {
    policy(&format!("shop/{name}"), &format!("podSelector: {selector}, policyTypes: [Ingress, Egress], {OPEN}"))
}

fn template(kind: &str, name: &str, labels: &str) -> String {
    let spec = format!("replicas: 0, template: {{metadata: {{labels: {{{labels}}}}}}}");
    object("apps/v1", kind, &format!("name: {name}, namespace: shop"), &spec)
}

fn set_of(owner: &str, name: &str, labels: &str) -> String {
    let owner =
        format!("ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: {owner}, controller: true}}]");
    template("ReplicaSet", name, labels).replace("namespace: shop", &format!("namespace: shop, {owner}"))
}

fn closed_with(workload: &str) -> Gate {
    gate(&(namespace("shop", "") + &deny_all() + workload)).only("NP001")
}

#[test]
fn a_namespace_editor_cannot_open_the_pods_a_stateful_set_is_scaled_to() {
    let gate = closed_with(&template("StatefulSet", "db", "app: db"));
    for selector in [
        "{matchExpressions: [{key: apps.kubernetes.io/pod-index, operator: In, values: ['1', '2']}]}",
        "{matchLabels: {statefulset.kubernetes.io/pod-name: db-7}}",
        "{matchExpressions: [{key: controller-revision-hash, operator: Exists}]}",
    ] {
        gate.create(&opens("open", selector)).is(&["deny NP001"]).mentions("to `StatefulSet db`");
    }
    gate.create(&opens("open", "{matchLabels: {statefulset.kubernetes.io/pod-name: other-0}}")).nothing();
    gate.create(&opens("open", "{matchLabels: {apps.kubernetes.io/pod-index: '01'}}")).nothing();
}

#[test]
fn a_namespace_editor_cannot_open_a_revision_by_the_hash_it_has() {
    let cluster =
        template("Deployment", "web", "app: web") + &set_of("web", "web-1", "app: web, pod-template-hash: abc");
    closed_with(&cluster).create(&opens("open", "{matchLabels: {pod-template-hash: abc}}")).is(&["deny NP001"]);
}

#[test]
fn an_allow_all_for_a_hash_that_no_revision_has_yet_is_warned_about() {
    let deployment = template("Deployment", "web", "app: web");
    let open = opens("open", "{matchLabels: {pod-template-hash: abc}}");
    let said = closed_with(&deployment).create(&open);
    said.is(&["warn NP001"]).mentions("may give all ingress and egress back to `Deployment web`");
    said.mentions("it depends on `pod-template-hash`, which the cluster writes on pods");
    closed_with(&open).create(&deployment).is(&["warn NP001"]);
}

#[test]
fn a_label_that_controllers_write_over_is_not_what_is_written() {
    let written = template("StatefulSet", "db", "app: db, apps.kubernetes.io/pod-index: safe");
    let open = opens("open", "{matchLabels: {apps.kubernetes.io/pod-index: '0'}}");
    closed_with(&open).create(&written).is(&["deny NP001"]);
    // In a bare pod it is a label like any other.
    closed_with(&open).create(&pod("shop/p", "apps.kubernetes.io/pod-index: safe")).nothing();
    closed_with(&open).create(&pod("shop/p", "apps.kubernetes.io/pod-index: '0'")).is(&["deny NP001"]);
}

#[test]
fn an_allow_all_for_the_zone_of_a_node_is_warned_about() {
    let open = opens("open", "{matchLabels: {topology.kubernetes.io/zone: a}}");
    closed_with(&template("Deployment", "web", "app: web")).create(&open).is(&["warn NP001"]);
}

#[test]
fn a_policy_that_isolates_by_a_hash_does_not_isolate_for_certain() {
    let only_one =
        policy("shop/one", "podSelector: {matchLabels: {pod-template-hash: abc}}, policyTypes: [Ingress, Egress]");
    let gate = gate(&(namespace("shop", "") + &only_one)).only("NP001");
    gate.create(&template("Deployment", "web", "app: web")).is(&["deny NP001"]);
    let others = policy(
        "shop/rest",
        "podSelector: {matchExpressions: [{key: pod-template-hash, operator: NotIn, values: [abc]}]}, policyTypes: [Ingress, Egress]",
    );
    gate.with(&others).create(&template("Deployment", "web", "app: web")).nothing();
}

#[test]
fn selectors_on_labels_the_cluster_writes_cost_little_however_many_values_they_name() {
    let values: Vec<String> = (0..20_000).map(|n| format!("'{n}'")).collect();
    let open = opens(
        "open",
        &format!(
            "{{matchExpressions: [{{key: apps.kubernetes.io/pod-index, operator: In, values: [{}]}}]}}",
            values.join(",")
        ),
    );
    let sets: String = (0..200).map(|n| template("StatefulSet", &format!("db-{n}"), "app: db")).collect();
    closed_with(&sets).create(&open).is(&["deny NP001"]);
}

#[test]
fn an_empty_replica_set_counts_unless_its_deployment_is_there() {
    let forged = template("ReplicaSet", "evil", "app: evil").replace(
        "namespace: shop",
        "namespace: shop, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: anchor, controller: true}]",
    );
    closed_with(&forged).delete("NetworkPolicy shop/deny").is(&["deny NP001"]).mentions("opens `ConfigMap anchor`");
    let bare = template("ReplicaSet", "evil", "app: evil");
    closed_with(&bare).create(&opens("open", "{matchLabels: {app: evil}}")).is(&["deny NP001"]);
    closed_with(&forged).create(&opens("open", "{matchLabels: {app: evil}}")).is(&["deny NP001"]);
}

#[test]
fn old_revisions_of_a_deployment_double_no_finding() {
    let cluster =
        template("Deployment", "web", "app: web") + &set_of("web", "web-1", "app: web, pod-template-hash: abc");
    let said = closed_with(&cluster).delete("NetworkPolicy shop/deny");
    said.is(&["deny NP001"]).mentions("opens `Deployment web`");
    closed_with(&cluster).create(&opens("open", "{matchLabels: {app: web}}")).is(&["deny NP001"]);
}

#[test]
fn an_allow_all_for_an_old_revision_is_warned_about() {
    let old = set_of("web", "web-1", "app: web, open: 'yes', pod-template-hash: abc");
    let said = closed_with(&(template("Deployment", "web", "app: web") + &old))
        .create(&opens("open", "{matchLabels: {open: 'yes'}}"));
    said.is(&["warn NP001"]).mentions("to pods of an old revision, should one be scaled up again");
}
