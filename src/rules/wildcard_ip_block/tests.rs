use crate::rules::testing::*;

/// A namespace with a workload and these policies, judged by this rule alone.
fn shop(policies: &[&str]) -> Gate {
    gate(&(namespace("shop", "") + &deployment("shop/cart", "app: cart") + &policies.concat())).only("NP003")
}

/// An egress policy to these blocks: `blocks("all", "0.0.0.0/0")`.
fn blocks(name: &str, networks: &str) -> String {
    let peers: Vec<_> = networks.split_whitespace().map(|cidr| format!("{{ipBlock: {{cidr: '{cidr}'}}}}")).collect();
    egress(name, &peers.join(", "))
}

fn egress(name: &str, peers: &str) -> String {
    policy(&format!("shop/{name}"), &format!("podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{peers}]}}]"))
}

/// The first networks of prefix length 8.
fn slash_eights(count: u8) -> String {
    (0..count).map(|n| format!("{n}.0.0.0/8")).collect::<Vec<_>>().join(" ")
}

fn check(networks: &str) -> Said {
    shop(&[&blocks("net", networks)]).check()
}

// What it is not fooled by.

#[test]
fn the_whole_of_either_family_is_wide() {
    check("0.0.0.0/0").is(&["warn NP003"]).mentions("egress to 100 % of IPv4 (4.3 billion addresses)");
    check("::/0").is(&["warn NP003"]).mentions("egress to 100 % of IPv6");
    check("0.0.0.0/0 ::/0").is(&["warn NP003"]).mentions("IPv4").mentions("and egress to 100 % of IPv6");
}

#[test]
fn two_halves_are_a_whole_in_one_rule_in_two_and_in_two_policies() {
    check("0.0.0.0/1 128.0.0.0/1").is(&["warn NP003"]).mentions("100 %");
    let two = "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/1}}]}, {to: [{ipBlock: {cidr: 128.0.0.0/1}}]}]";
    shop(&[&policy("shop/net", two)]).check().is(&["warn NP003"]).mentions("100 %");
    let (low, high) = (blocks("low", "0.0.0.0/1"), blocks("high", "128.0.0.0/1"));
    let gate = shop(&[&low, &high]).option("wildcard-ip-block", "maxShare: 50");
    gate.check().is(&["warn NP003"]).mentions("NetworkPolicies `high` and `low` together admit egress to 100 %");
}

#[test]
fn halves_over_policies_of_pods_to_come_are_a_whole_too() {
    let (low, high) = (blocks("low", "0.0.0.0/1"), blocks("high", "128.0.0.0/1"));
    let empty = gate(&(namespace("shop", "") + &low + &high)).only("NP003").option("wildcard-ip-block", "maxShare: 50");
    empty.check().is(&["warn NP003"]).mentions("NetworkPolicies `high` and `low` together");
}

#[test]
fn short_prefixes_are_wide_and_a_slash_four_is_not() {
    for prefix in ["0.0.0.0/2", "64.0.0.0/3", "2000::/3", "2000::/4", "2000::/6"] {
        check(prefix).is(&["warn NP003"]);
    }
    for prefix in ["16.0.0.0/4", "10.0.0.0/8", "2001:db8::/32", "2600::/8", "fc00::/7"] {
        check(prefix).nothing();
    }
}

#[test]
fn many_blocks_add_up() {
    let quarter = slash_eights(64);
    check(&quarter).is(&["warn NP003"]).mentions("25 % of IPv4");
    let sixteen = slash_eights(16);
    check(&sixteen).nothing();
}

#[test]
fn an_exception_that_removes_nothing_that_matters_changes_nothing() {
    let but = |except: &str| egress("net", &format!("{{ipBlock: {{cidr: 0.0.0.0/0, except: [{except}]}}}}"));
    shop(&[&but("192.0.2.1/32")]).check().is(&["warn NP003"]);
    shop(&[&but("10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 169.254.0.0/16")])
        .check()
        .is(&["warn NP003"])
        .does_not_mention("private networks are inside")
        .does_not_mention("metadata service");
}

#[test]
fn an_exception_that_another_peer_admits_again_is_none() {
    let again =
        egress("net", "{ipBlock: {cidr: 0.0.0.0/0, except: [0.0.0.0/1, 128.0.0.0/1]}}, {ipBlock: {cidr: 0.0.0.0/1}}");
    shop(&[&again]).check().is(&["warn NP003"]).mentions("50 %");
}

#[test]
fn ports_do_not_make_a_block_narrower() {
    let web = policy(
        "shop/net",
        "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 443}]}]",
    );
    shop(&[&web]).check().is(&["warn NP003"]);
}

#[test]
fn blocks_beside_selectors_count() {
    shop(&[&egress("net", "{podSelector: {}}, {ipBlock: {cidr: 0.0.0.0/0}}")]).check().is(&["warn NP003"]);
}

// What it is not raised for.

#[test]
fn a_wide_block_whose_exceptions_leave_little_is_narrow() {
    let most = (1..16).map(|n| format!("{}.0.0.0/4", n * 16)).collect::<Vec<_>>().join(", ");
    shop(&[&egress("net", &format!("{{ipBlock: {{cidr: 0.0.0.0/0, except: [{most}]}}}}"))]).check().nothing();
}

#[test]
fn a_block_inside_an_allowed_range_does_not_count() {
    let allow = "allow: [0.0.0.0/1, '2000::/3']";
    shop(&[&blocks("net", "0.0.0.0/2 2000::/4")]).option("wildcard-ip-block", allow).check().nothing();
    let over = shop(&[&blocks("net", "0.0.0.0/0")]).option("wildcard-ip-block", allow).check();
    over.is(&["warn NP003"]).mentions("50 % of IPv4");
}

#[test]
fn directions_that_are_not_in_force_do_not_count() {
    let unlisted = "podSelector: {}, policyTypes: [Ingress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]";
    shop(&[&policy("shop/net", unlisted)]).check().nothing();
    let ingress = "podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]";
    let gate = shop(&[&policy("shop/net", ingress)]);
    gate.check().is(&["warn NP003"]).mentions("ingress from 100 %").does_not_mention("metadata service");
    gate.option("wildcard-ip-block", "directions: [egress]").check().nothing();
}

#[test]
fn ingress_and_egress_do_not_add_up() {
    let each = "podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/4}}]}], egress: [{to: [{ipBlock: {cidr: 16.0.0.0/4}}]}]";
    shop(&[&policy("shop/net", each)]).check().nothing();
}

#[test]
fn policies_of_different_pods_do_not_add_up() {
    let of = |app: &str, network: &str| {
        let spec = format!(
            "podSelector: {{matchLabels: {{app: {app}}}}}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: {network}}}}}]}}]"
        );
        policy(&format!("shop/{app}"), &spec)
    };
    shop(&[&of("cart", "0.0.0.0/4"), &of("pay", "16.0.0.0/4")]).with(&pod("shop/pay", "app: pay")).check().nothing();
}

#[test]
fn rules_without_peers_count_only_where_asked() {
    let everyone = policy("shop/net", "podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 443}]}]");
    shop(&[&everyone]).check().nothing();
    let gate = shop(&[&everyone]).option("wildcard-ip-block", "everyone: true");
    gate.check().is(&["warn NP003"]).mentions("names no peer, which admits everyone");
}

#[test]
fn exempt_and_terminating_namespaces_and_the_nodes_network_are_left_alone() {
    let system = blocks("net", "0.0.0.0/0").replace("namespace: shop", "namespace: kube-system");
    gate(&system).only("NP003").check().nothing();
    let terminating = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\nstatus: {phase: Terminating}\n";
    gate(&(terminating.to_owned() + &blocks("net", "0.0.0.0/0"))).only("NP003").check().nothing();
    let halves = blocks("low", "0.0.0.0/4") + &blocks("high", "16.0.0.0/4");
    let host = pod_with("shop/agent", "", "hostNetwork: true");
    gate(&(namespace("shop", "") + &halves)).only("NP003").create(&host).nothing();
}

// What it fires on.

#[test]
fn a_wide_block_is_told_when_it_comes_and_not_when_it_goes() {
    let gate = shop(&[]);
    gate.create(&blocks("net", "0.0.0.0/0")).is(&["warn NP003"]).mentions("spec.egress[0].to[0].ipBlock.cidr");
    gate.clone().restricted().create(&blocks("net", "0.0.0.0/0")).is(&["deny NP003"]);
    let wide = gate.with(&blocks("net", "0.0.0.0/0"));
    wide.delete("NetworkPolicy shop/net").nothing();
    wide.update(&blocks("net", "10.0.0.0/8")).nothing();
    gate.with(&blocks("net", "10.0.0.0/8")).restricted().update(&blocks("net", "0.0.0.0/0")).is(&["deny NP003"]);
}

#[test]
fn the_second_half_is_denied_and_named_with_the_first() {
    let gate = shop(&[&blocks("low", "0.0.0.0/4")]).restricted();
    gate.check().nothing();
    let said = gate.create(&blocks("next", "16.0.0.0/4"));
    said.is(&["deny NP003"]).mentions("NetworkPolicies `low` and `next` together admit").mentions("`Deployment cart`");
    said.mentions("NetworkPolicy shop/next spec.egress[0].to[0].ipBlock.cidr");
}

#[test]
fn a_label_that_puts_a_workload_under_two_halves_is_denied() {
    let labelled = |name: &str, network: &str| {
        blocks(name, network).replace("podSelector: {}", "podSelector: {matchLabels: {net: 'yes'}}")
    };
    let gate = shop(&[&labelled("low", "0.0.0.0/4"), &blocks("next", "16.0.0.0/4")]).restricted();
    gate.update(&deployment("shop/cart", "app: cart, net: 'yes'")).is(&["deny NP003"]);
    gate.create(&deployment("shop/pay", "net: 'yes'")).is(&["deny NP003"]);
    gate.create(&deployment("shop/pay", "net: 'no'")).nothing();
}

#[test]
fn a_workload_under_a_policy_that_is_wide_by_itself_is_that_policys_finding() {
    shop(&[&blocks("net", "0.0.0.0/0")]).restricted().create(&deployment("shop/pay", "app: pay")).nothing();
}

#[test]
fn narrowing_one_of_two_is_never_denied_for_what_stood() {
    let gate = shop(&[&blocks("a", "0.0.0.0/0"), &blocks("b", "16.0.0.0/4")]).restricted();
    gate.update(&blocks("a", "0.0.0.0/4")).is(&["warn NP003 standing"]);
    gate.update(&blocks("a", "0.0.0.0/1")).is(&["warn NP003 standing"]);
}

#[test]
fn widening_what_stood_is_denied() {
    let gate = shop(&[&blocks("a", "0.0.0.0/2")]).restricted();
    gate.update(&blocks("a", "0.0.0.0/1")).is(&["deny NP003"]);
    gate.create(&blocks("b", "10.0.0.0/8")).is(&["warn NP003 standing"]);
}

#[test]
fn other_systems_and_unreadable_parts_make_it_a_warning() {
    let gate = shop(&[&cilium("shop/floor")]).restricted();
    gate.create(&blocks("net", "0.0.0.0/0")).is(&["warn NP003"]).mentions("`floor` may deny some of it");
    let partial = egress("net", "{ipBlock: {cidr: 0.0.0.0/0, except: [nonsense]}}");
    shop(&[]).restricted().create(&partial).is(&["warn NP003"]);
}

#[test]
fn the_largest_share_is_an_option() {
    let gate =
        |share: u8| shop(&[&blocks("net", "0.0.0.0/1")]).option("wildcard-ip-block", &format!("maxShare: {share}"));
    gate(49).check().is(&["warn NP003"]);
    gate(50).check().nothing();
    shop(&[&blocks("net", "192.0.2.1/32")]).option("wildcard-ip-block", "maxShare: 0").check().is(&["warn NP003"]);
}

// What it says of the inside.

#[test]
fn it_says_what_of_note_lies_inside() {
    let gate = shop(&[&blocks("net", "0.0.0.0/0")]);
    gate.check()
        .mentions("the metadata service 169.254.169.254, which hands out the node's credentials, is inside")
        .mentions("private networks are inside: `10.0.0.0/8`, `172.16.0.0/12` and `192.168.0.0/16`");
    let on = |cni: &str| {
        gate.clone().set("cni", &format!("{{name: {cni}, podRanges: [10.244.0.0/16, 'fd00::/64']}}")).check()
    };
    on("calico").mentions("the pods' own range `10.244.0.0/16` is inside, so it admits every pod too");
    on("cilium").mentions("but blocks do not admit pods here");
    on("unknown").mentions("on most implementations it admits every pod too");
    check("32.0.0.0/3").does_not_mention("10.0.0.0/8").does_not_mention("metadata service");
}

#[test]
fn families_and_directions_are_each_looked_into() {
    let both = "podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: '::/0'}}]}], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]";
    let said = shop(&[&policy("shop/net", both)]).check();
    said.is(&["warn NP003"]).mentions("`fc00::/7`").mentions("metadata service").mentions("`10.0.0.0/8`");
}

// What is offered.

#[test]
fn as_few_blocks_are_dropped_as_it_takes_and_allowed_ones_never() {
    let net = blocks("net", "0.0.0.0/1 64.0.0.0/8 203.0.113.0/24");
    let said = shop(&[&net]).check();
    assert!(said.only().fix.contains("64.0.0.0/8") && said.only().fix.contains("203.0.113.0/24"), "{said:#?}");
    assert!(!said.only().fix.contains("0.0.0.0/1"));
    let sixty = slash_eights(60);
    let fixed = shop(&[&blocks("net", &sixty)]);
    fixed.with(&fixed.check().only().fix).check().nothing();
    let allowed = shop(&[&blocks("net", "0.0.0.0/1 128.0.0.0/1")]).option("wildcard-ip-block", "allow: [0.0.0.0/1]");
    let said = allowed.check();
    assert!(said.only().fix.contains("cidr: 0.0.0.0/1"), "{said:#?}");
}

#[test]
fn a_rule_left_without_peers_is_dropped_and_dns_is_kept() {
    let gate = shop(&[&blocks("net", "0.0.0.0/0")]);
    let fix = gate.check().only().fix.clone();
    assert!(fix.contains("k8s-app: kube-dns") && !fix.contains("- {}") && !fix.contains("ipBlock"), "{fix}");
}

#[test]
fn it_is_told_as_an_engineer_needs_it() {
    insta::assert_snapshot!(check("0.0.0.0/0").text(), @r#"
    warn NP003 NetworkPolicy shop/net spec.egress[0].to[0].ipBlock.cidr
    in namespace `shop`, NetworkPolicy `net` admits egress to 100 % of IPv4 (4.3 billion addresses)
    why: these pods may connect to almost any address, which is how stolen data leaves
    - `net`: `spec.egress[0].to[0].ipBlock.cidr` is `0.0.0.0/0`: 4.3 billion addresses
    - the metadata service 169.254.169.254, which hands out the node's credentials, is inside
    - private networks are inside: `10.0.0.0/8`, `172.16.0.0/12` and `192.168.0.0/16`
    help: name the networks that are needed in place of `spec.egress[0].to[0].ipBlock`, or list them under `rules.wildcard-ip-block.allow` in the configuration. What is below is the same without it: it closes what it opens, so add the needed networks to it first
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata:
      name: net
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
    insta::assert_snapshot!(shop(&[&blocks("low", "0.0.0.0/4")]).create(&blocks("next", "16.0.0.0/4")).text(), @r#"
    warn NP003 NetworkPolicy shop/next spec.egress[0].to[0].ipBlock.cidr
    in namespace `shop`, NetworkPolicies `low` and `next` together admit egress to 12 % of IPv4 (536.9 million addresses) for `Deployment cart`
    why: these pods may connect to a large part of all addresses, which is how stolen data leaves
    - `low`: `spec.egress[0].to[0].ipBlock.cidr` is `0.0.0.0/4`: 268.4 million addresses
    - `next`: `spec.egress[0].to[0].ipBlock.cidr` is `16.0.0.0/4`: 268.4 million addresses
    - private networks are inside: `10.0.0.0/8`
    help: name the networks that are needed in place of `spec.egress[0].to[0].ipBlock` of `next`, or list them under `rules.wildcard-ip-block.allow` in the configuration. What is below is the same without it: it closes what it opens, so add the needed networks to it first
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata:
      name: next
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
}
