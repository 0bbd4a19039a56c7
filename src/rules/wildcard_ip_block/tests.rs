use crate::rules::Action;
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
fn rules_without_peers_are_left_alone_where_the_configuration_says_so() {
    let gate = shop(&[&to_all("443")]).option("wildcard-ip-block", "everyone: false");
    gate.check().nothing();
    let both = "allow: [0.0.0.0/0, '::/0']";
    shop(&[&to_all("443")]).option("wildcard-ip-block", both).check().nothing();
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

// Rules that name no peer.

/// An egress policy without `to`: `to_all("80 443")`.
fn to_all(ports: &str) -> String {
    rule_to_all("Egress", ports)
}

/// An ingress policy without `from`.
fn from_all(ports: &str) -> String {
    rule_to_all("Ingress", ports)
}

fn rule_to_all(direction: &str, ports: &str) -> String {
    let ports: Vec<_> = ports.split_whitespace().map(|port| format!("{{port: {port}}}")).collect();
    let rules = format!("{}: [{{ports: [{}]}}]", direction.to_lowercase(), ports.join(", "));
    policy("shop/net", &format!("podSelector: {{}}, policyTypes: [{direction}], {rules}"))
}

#[test]
fn a_rule_without_peers_is_no_less_than_the_widest_block() {
    let gate = shop(&[]);
    gate.create(&to_all("80 443"))
        .is(&["warn NP003"])
        .mentions("`net` admits egress to every pod and every address on TCP 80 and TCP 443 for `Deployment cart`")
        .mentions("NetworkPolicy shop/net spec.egress[0]\n");
    gate.clone().restricted().create(&to_all("80 443")).is(&["deny NP003"]);
    gate.clone().restricted().create(&from_all("8080")).is(&["deny NP003"]);
    // In place of the block, which stood, it adds every pod.
    let block = to_all("443").replace("ports:", "to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports:");
    gate.with(&block).restricted().update(&to_all("443")).is(&["deny NP003"]);
    // The other way round it is narrowed.
    gate.with(&to_all("443")).restricted().update(&block).is(&["warn NP003 standing"]);
}

#[test]
fn dns_ports_may_be_open_to_all_and_a_service_of_ones_own_is_recorded() {
    let dns = to_all("53").replace("{port: 53}", "{port: 53}, {port: 53, protocol: UDP}");
    shop(&[]).create(&dns).nothing();
    shop(&[]).restricted().create(&dns).is(&["warn NP003"]);
    let dns_block = dns.replace("ports:", "to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports:");
    shop(&[]).create(&dns_block).nothing();
    shop(&[]).restricted().create(&dns_block).is(&["warn NP003"]);
    shop(&[]).create(&from_all("8080")).is(&["audit NP003"]);
    // DNS beside something else is no DNS rule.
    shop(&[]).create(&to_all("53 443")).is(&["warn NP003"]);
    shop(&[&dns]).restricted().update(&to_all("53 443")).is(&["deny NP003"]);
}

#[test]
fn who_answers_the_api_server_may_open_that_port_to_all() {
    let webhook = "---\napiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: images}\nwebhooks: [{name: images.example.com, clientConfig: {service: {namespace: shop, name: cart}}}]\n"
        .to_owned()
        + &object("v1", "Service", "name: cart, namespace: shop", "selector: {app: cart}, ports: [{port: 443, targetPort: 8443}]");
    let gate = shop(&[&webhook]);
    gate.create(&from_all("8443")).nothing();
    gate.clone().restricted().create(&from_all("8443")).nothing();
    gate.restricted().create(&from_all("8443 5432")).is(&["deny NP003"]).mentions("TCP 5432");
}

#[test]
fn what_gives_everything_back_is_told_by_the_rule_about_that() {
    let open = policy("shop/net", "podSelector: {}, policyTypes: [Egress], egress: [{}]");
    shop(&[&open]).check().nothing();
    // Narrowing it is not new.
    shop(&[&open]).restricted().update(&to_all("443")).is(&["warn NP003 standing"]);
}

#[test]
fn a_named_port_counts_for_the_pods_that_have_it() {
    let named = |direction: &str| rule_to_all(direction, "web");
    // Out of the pod it is looked up in other pods: no address of the world has one.
    shop(&[]).restricted().create(&named("Egress")).nothing();
    let container = |port: &str| {
        pod_with(
            "shop/cart-0",
            "",
            &format!("containers: [{{name: c, ports: [{{name: {port}, containerPort: 8080}}]}}]"),
        )
    };
    let alone = |pod: &str| gate(&(namespace("shop", "") + pod)).only("NP003").restricted();
    alone(&container("web")).create(&named("Ingress")).is(&["deny NP003"]);
    alone(&container("other")).create(&named("Ingress")).nothing();
    // Pods to come may well have it.
    alone("").create(&named("Ingress")).is(&["deny NP003"]);
}

// IPv6 networks that stand for IPv4.

#[test]
fn a_network_that_stands_for_all_of_ipv4_is_as_wide_as_it() {
    for network in ["64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::ffff:0:0/95", "64:ff9b::/97", "::/8"] {
        check(network).is(&["warn NP003"]).mentions("of IPv4");
    }
    check("64:ff9b::/96").mentions("stands for 4.3 billion IPv4 addresses").does_not_mention("of IPv6");
    check("64:ff9b::a00:0/104").nothing();
    let halves = shop(&[&blocks("a", "64:ff9b::/97 128.0.0.0/1")]);
    halves.check().is(&["warn NP003"]).mentions("100 % of IPv4");
    shop(&[&blocks("net", "64:ff9b::/96")]).option("wildcard-ip-block", "allow: [0.0.0.0/0]").check().nothing();
}

// What grows.

#[test]
fn what_a_wide_policy_grows_by_is_new() {
    let written = |pods: &str, peer: &str, ports: &str| {
        policy(
            "shop/net",
            &format!(
                "podSelector: {{{pods}}}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: '{peer}'}}}}], ports: [{ports}]}}]"
            ),
        )
    };
    let (cart, https) = ("matchLabels: {app: cart}", "{port: 443}");
    let gate = shop(&[&written(cart, "0.0.0.0/1", https)]).with(&deployment("shop/pay", "app: pay")).restricted();
    for (what, grown) in [
        ("more pods", written("matchExpressions: [{key: app, operator: In, values: [cart, pay]}]", "0.0.0.0/1", https)),
        ("all pods", written("", "0.0.0.0/1", https)),
        (
            "pods to come",
            written("matchExpressions: [{key: app, operator: In, values: [cart, web]}]", "0.0.0.0/1", https),
        ),
        ("other pods", written("matchLabels: {app: pay}", "0.0.0.0/2", https)),
        ("more ports", written(cart, "0.0.0.0/1", "{port: 443}, {port: 22}")),
        ("other ports", written(cart, "0.0.0.0/1", "{port: 22}")),
        ("another protocol", written(cart, "0.0.0.0/1", "{port: 443, protocol: UDP}")),
        ("a name", written(cart, "0.0.0.0/1", "{port: 443}, {port: web}")),
        ("another half", written(cart, "128.0.0.0/1", https)),
        ("another half by translation", written(cart, "64:ff9b::8000:0/97", https)),
    ] {
        let said = gate.update(&grown);
        assert!(said.0.iter().any(|it| it.action == Action::Deny && !it.standing), "{what}: {said:#?}");
    }
    for (what, same) in [
        ("fewer pods", written("matchLabels: {app: cart, tier: a}", "0.0.0.0/1", https)),
        ("fewer addresses", written(cart, "0.0.0.0/2", https)),
        (
            "the same, otherwise written",
            written(
                "matchExpressions: [{key: app, operator: In, values: [cart]}]",
                "0.0.0.0/1",
                "{port: 443, endPort: 443}",
            ),
        ),
    ] {
        let said = gate.update(&same);
        assert!(!said.denied(), "{what}: {said:#?}");
    }
    // A narrow block beside the wide one adds no wide peer.
    let beside = written(cart, "0.0.0.0/1", https)
        .replace("egress: [", "egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: 5432}]}, ");
    assert!(!gate.update(&beside).denied());
}

#[test]
fn what_was_given_back_already_grows_too() {
    let range = |last: u16| {
        policy(
            "shop/net",
            &format!("podSelector: {{}}, policyTypes: [Egress], egress: [{{ports: [{{port: 1, endPort: {last}}}]}}]"),
        )
    };
    let gate = shop(&[&range(10000)]).restricted();
    gate.update(&range(20000)).is(&["deny NP003"]);
    gate.update(&policy("shop/net", "podSelector: {}, policyTypes: [Egress], egress: [{}]")).is(&["deny NP003"]);
    gate.update(&range(9000)).nothing();
}

#[test]
fn halves_that_change_places_under_one_workload_have_grown() {
    let gate = shop(&[&blocks("low", "0.0.0.0/4"), &blocks("next", "16.0.0.0/4")]).restricted();
    gate.update(&blocks("next", "240.0.0.0/4")).is(&["deny NP003"]);
    gate.update(&blocks("next", "16.0.0.0/5")).is(&["warn NP003 standing"]);
}

mod law {
    use std::net::IpAddr;

    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;

    const SELECTORS: &[(&str, [bool; 3])] = &[
        ("", [true, true, true]),
        ("matchLabels: {a: x}", [true, false, false]),
        ("matchExpressions: [{key: a, operator: In, values: [x, w]}]", [true, true, false]),
        ("matchExpressions: [{key: a, operator: NotIn, values: [x]}]", [false, true, true]),
        ("matchExpressions: [{key: a, operator: Exists}]", [true, true, false]),
    ];
    /// Nothing: a rule without peers.
    const PEERS: &[Option<&str>] = &[
        None,
        Some("0.0.0.0/0"),
        Some("0.0.0.0/1"),
        Some("128.0.0.0/1"),
        Some("::/0"),
        Some("64:ff9b::/96"),
        Some("10.0.0.0/8"),
    ];
    const PORTS: &[(&str, &[u16])] = &[
        ("{port: 443}", &[443]),
        ("{port: 22}", &[22]),
        ("{port: 20, endPort: 500}", &[22, 443]),
        ("{port: 53}", &[]),
    ];

    type Rules = (usize, Vec<(usize, usize)>);

    fn rules() -> impl Strategy<Value = Rules> {
        let rule = (0..PEERS.len(), 0..PORTS.len());
        (0..SELECTORS.len(), proptest::collection::vec(rule, 0..3))
    }

    fn written(direction: &str, (selector, rules): &Rules) -> String {
        let peers_field = if direction == "Egress" { "to" } else { "from" };
        let rule = |(peer, ports): &(usize, usize)| {
            let peers = PEERS[*peer].map(|cidr| format!("{peers_field}: [{{ipBlock: {{cidr: '{cidr}'}}}}], "));
            format!("{{{}ports: [{}]}}", peers.unwrap_or_default(), PORTS[*ports].0)
        };
        let rules: Vec<_> = rules.iter().map(rule).collect();
        let spec = format!(
            "podSelector: {{{}}}, policyTypes: [{direction}], {}: [{}]",
            SELECTORS[*selector].0,
            direction.to_lowercase(),
            rules.join(", ")
        );
        policy("shop/net", &spec)
    }

    /// Whether a pod is admitted to an address on a port by some rule, or by some wide one.
    fn admits((selector, rules): &Rules, pod: usize, port: u16, address: &str, only_wide: bool) -> bool {
        let address: IpAddr = address.parse().unwrap();
        let holds = |peer: Option<&str>| peer.is_none_or(|cidr| cidr.parse::<IpNet>().unwrap().contains(&address));
        SELECTORS[*selector].1[pod]
            && rules.iter().any(|(peer, ports)| {
                let is_wide = PEERS[*peer] != Some("10.0.0.0/8");
                (is_wide || !only_wide) && holds(PEERS[*peer]) && PORTS[*ports].1.contains(&port)
            })
    }

    /// Addresses, and the one each stands for.
    const ADDRESSES: &[(&str, &str)] = &[
        ("1.1.1.1", "1.1.1.1"),
        ("200.1.1.1", "200.1.1.1"),
        ("2600::1", "2600::1"),
        ("64:ff9b::1.1.1.1", "1.1.1.1"),
        ("64:ff9b::200.1.1.1", "200.1.1.1"),
    ];

    proptest! {
        #[test]
        fn no_change_of_a_policy_adds_flows_of_a_wide_peer_in_silence(
            before in rules(),
            after in rules(),
            direction in prop::sample::select(vec!["Ingress", "Egress"]),
        ) {
            let pods = pod("shop/x", "a: x") + &pod("shop/w", "a: w") + &pod("shop/z", "");
            let gate = gate(&(namespace("shop", "") + &pods + &written(direction, &before))).only("NP003").restricted();
            let mut adds = false;
            for pod in 0..3 {
                for port in [22, 443] {
                    for (address, stands_for) in ADDRESSES {
                        let stood = admits(&before, pod, port, address, false) || admits(&before, pod, port, stands_for, false);
                        adds |= admits(&after, pod, port, address, true) && !stood;
                    }
                }
            }
            let said = gate.update(&written(direction, &after));
            let is_told = said.0.iter().any(|finding| finding.action == Action::Deny && !finding.standing);
            prop_assert!(is_told || !adds, "{before:?} {after:?}: {said:#?}");
        }
    }
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
