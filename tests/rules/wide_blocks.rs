//! NP003 `wildcard-ip-block`.

use super::gate::{CLOSED, DNS, Gate, Verdicts, deployment, policy};

fn to(blocks: &str) -> String {
    policy(
        "shop",
        "out",
        &format!(
            "podSelector: {{matchLabels: {{app: cart}}}}, policyTypes: [Egress], egress: [{{to: [{blocks}], ports: [{{port: 443}}]}}]"
        ),
    )
}

fn judged(policy: &str) -> Verdicts {
    Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")]).create(policy)
}

#[test]
fn most_of_an_address_space_is_reported_however_it_is_written() {
    for blocks in [
        "{ipBlock: {cidr: 0.0.0.0/0}}",
        "{ipBlock: {cidr: '::/0'}}",
        "{ipBlock: {cidr: 0.0.0.0/1}}, {ipBlock: {cidr: 128.0.0.0/1}}",
        "{ipBlock: {cidr: 128.0.0.0/2}}",
        "{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 192.168.0.0/16]}}",
        "{ipBlock: {cidr: 0.0.0.0/0, except: [0.0.0.0/1]}}, {ipBlock: {cidr: 10.0.0.0/8}}",
        "{ipBlock: {cidr: '2000::/3'}}",
        "{ipBlock: {cidr: '2000::/4'}}, {ipBlock: {cidr: '3000::/4'}}",
    ] {
        let verdicts = judged(&to(blocks));
        let finding = verdicts.warned("NP003");
        assert!(finding.path.as_str().starts_with("spec.egress[0].to["), "{blocks}: {}", finding.path);
    }
}

#[test]
fn what_is_small_or_leaves_little_passes() {
    for blocks in [
        "{ipBlock: {cidr: 10.0.0.0/8}}",
        "{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 172.16.0.0/12}}, {ipBlock: {cidr: 192.168.0.0/16}}",
        "{ipBlock: {cidr: 0.0.0.0/0, except: [0.0.0.0/1, 128.0.0.0/2, 192.0.0.0/3, 224.0.0.0/4]}}",
        "{ipBlock: {cidr: '2001:db8::/32'}}",
        "{ipBlock: {cidr: 'fc00::/7'}}",
        "{podSelector: {}}",
    ] {
        judged(&to(blocks)).silent("NP003");
    }
}

#[test]
fn halves_in_several_rules_or_policies_of_the_same_pods_are_added_up() {
    let rules = policy(
        "shop",
        "out",
        "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/4}}]}, {to: [{ipBlock: {cidr: 16.0.0.0/4}}]}]",
    );
    judged(&rules).warned("NP003");
    let half = |name: &str, app: &str, cidr: &str| {
        policy(
            "shop",
            name,
            &format!(
                "podSelector: {{{app}}}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: {cidr}}}}}]}}]"
            ),
        )
    };
    let first = half("first", "matchLabels: {app: cart}", "16.0.0.0/4");
    let gate = Gate::over(&[DNS, CLOSED, &first, &deployment("shop", "cart")]);
    let verdicts = gate.create(&half("second", "", "32.0.0.0/4"));
    let finding = verdicts.warned("NP003");
    assert!(
        finding.message.contains("`first`")
            && finding.message.contains("`second`")
            && finding.message.contains("`Deployment cart`"),
        "{}",
        finding.message
    );
    gate.create(&half("second", "matchLabels: {app: web}", "32.0.0.0/4")).silent("NP003");
    let both = Gate::over(&[
        DNS,
        CLOSED,
        &first,
        &half("second", "matchLabels: {tier: a}", "32.0.0.0/4"),
        &deployment("shop", "cart"),
    ]);
    both.update(&deployment("shop", "cart").replace("labels: {app: cart}", "labels: {app: cart, tier: a}"))
        .warned("NP003");
}

#[test]
fn ingress_counts_and_the_direction_can_be_chosen() {
    let from = policy(
        "shop",
        "in",
        "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 443}]}]",
    );
    judged(&from).warned("NP003");
    let gate = Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")])
        .with("rules: {wildcard-ip-block: {directions: [egress]}}");
    gate.create(&from).silent("NP003");
    gate.create(&to("{ipBlock: {cidr: 0.0.0.0/0}}")).warned("NP003");
}

#[test]
fn allowed_ranges_and_the_largest_share_are_options() {
    let gate = |settings: &str| {
        Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")])
            .with(&format!("rules: {{wildcard-ip-block: {{{settings}}}}}"))
    };
    gate("allow: [0.0.0.0/0]").create(&to("{ipBlock: {cidr: 0.0.0.0/0}}")).silent("NP003");
    gate("allow: [128.0.0.0/1]").create(&to("{ipBlock: {cidr: 128.0.0.0/2}}")).silent("NP003");
    gate("allow: [128.0.0.0/1]").create(&to("{ipBlock: {cidr: 0.0.0.0/0}}")).warned("NP003");
    gate("maxShare: 0").create(&to("{ipBlock: {cidr: 10.0.0.0/30}}")).warned("NP003");
    gate("maxShare: 50").create(&to("{ipBlock: {cidr: 0.0.0.0/1}}")).silent("NP003");
}

#[test]
fn rules_without_peers_count_unless_the_configuration_says_otherwise() {
    let peerless = policy("shop", "out", "podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 443}]}]");
    judged(&peerless).warned("NP003");
    let gate =
        Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")]).with("rules: {wildcard-ip-block: {everyone: false}}");
    gate.create(&peerless).silent("NP003");
}

#[test]
fn what_lies_inside_is_told() {
    let gate =
        Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")]).with("cni: {name: calico, podRanges: [10.244.0.0/16]}");
    let verdicts = gate.create(&to("{ipBlock: {cidr: 0.0.0.0/0, except: [192.168.0.0/16]}}"));
    let evidence = verdicts.warned("NP003").evidence.join("\n");
    for told in ["169.254.169.254", "10.0.0.0/8", "172.16.0.0/12", "10.244.0.0/16", "admits every pod"] {
        assert!(evidence.contains(told), "{told}: {evidence}");
    }
    let verdicts = gate.create(&to(
        "{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]}}",
    ));
    let evidence = verdicts.warned("NP003").evidence.join("\n");
    assert!(!evidence.contains("metadata") && !evidence.contains("private"), "{evidence}");
}

#[test]
fn the_profile_restricted_denies_and_narrowing_passes() {
    let wide = to("{ipBlock: {cidr: 0.0.0.0/0}}");
    let gate = Gate::over(&[DNS, CLOSED, &deployment("shop", "cart")]).with("profile: restricted");
    gate.create(&wide).denied("NP003");
    let standing = Gate::over(&[DNS, CLOSED, &wide, &deployment("shop", "cart")]).with("profile: restricted");
    standing.update(&to("{ipBlock: {cidr: 0.0.0.0/1}}")).harmless();
    standing.update(&to("{ipBlock: {cidr: 203.0.113.0/24}}")).silent("NP003");
    standing.delete("NetworkPolicy", "shop", "out").silent("NP003");
    let half = Gate::over(&[DNS, CLOSED, &to("{ipBlock: {cidr: 0.0.0.0/1}}"), &deployment("shop", "cart")])
        .with("profile: restricted");
    half.update(&wide).denied("NP003");
}

#[test]
fn a_block_in_a_direction_that_is_not_listed_opens_nothing() {
    let inert = policy(
        "shop",
        "out",
        "podSelector: {}, policyTypes: [Ingress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]",
    );
    judged(&inert).silent("NP003");
}
