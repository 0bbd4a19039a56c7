//! Tests of what findings offer: applied as it is, it mends what was found and breaks nothing.
#![cfg(test)]

use std::collections::BTreeSet;

use super::testing::*;
use super::{Action, Finding};

/// A change, judged by a gate.
type Judge<'a> = &'a dyn Fn(&Gate) -> Said;

/// Clusters with something wrong with them.
#[allow(clippy::too_many_lines, reason = "a table")]
fn broken() -> Vec<(&'static str, Gate)> {
    let shop =
        namespace("shop", "") + &deployment("shop/cart", "app: cart") + &deployment("shop/pay", "app: pay, net: wide");
    let dns = format!("---{DNS}");
    let deny = policy("shop/deny", "podSelector: {}, policyTypes: [Ingress, Egress]");
    let named = |name: &str, pods: &str, rest: &str| {
        policy(&format!("shop/{name}"), &format!("podSelector: {{{pods}}}, policyTypes: [Ingress, Egress], {rest}"))
    };
    let open = "ingress: [{}], egress: [{}]";
    let guard = policy("kube-system/guard", "podSelector: {}, policyTypes: [Ingress]");
    let own = pod_with("shop/own", "app: own", "dnsPolicy: None, dnsConfig: {nameservers: [9.9.9.9, 10.96.0.10]}");
    let openshift = "---\napiVersion: v1\nkind: Service\nmetadata: {name: dns-default, namespace: openshift-dns}\nspec: {selector: {dns: default}, ports: [{port: 53, protocol: UDP, targetPort: dns}]}\n".to_owned()
        + &object("apps/v1", "DaemonSet", "name: dns-default, namespace: openshift-dns", "template: {metadata: {labels: {dns: default}}, spec: {dnsPolicy: Default, containers: [{name: dns, ports: [{name: dns, containerPort: 5353, protocol: UDP}]}]}}");
    let cart = "matchLabels: {app: cart}";
    let with = |parts: &[&str]| gate(&(shop.clone() + &parts.concat()));
    vec![
        ("nothing at all", with(&[])),
        ("nothing, beside DNS", with(&[&dns])),
        ("nothing, with a pod that has nameservers of its own", with(&[&dns, &own])),
        ("nothing, on OpenShift", with(&[&openshift])),
        (
            "an allow-all where DNS is",
            with(&[
                &openshift,
                &default_deny("shop"),
                &policy("openshift-dns/open", &format!("podSelector: {{}}, policyTypes: [Ingress, Egress], {open}")),
            ]),
        ),
        ("ingress only", with(&[&dns, &policy("shop/deny", "podSelector: {}")])),
        ("only the pods of today", with(&[&dns, &named("cart", cart, &format!("egress: [{TO_DNS}]"))])),
        ("a name that is taken", with(&[&dns, &named("default-deny", cart, &format!("egress: [{TO_DNS}]"))])),
        ("an allow-all", with(&[&dns, &deny, &named("open", "", open)])),
        ("an allow-all for one", with(&[&dns, &default_deny("shop"), &named("open", cart, open)])),
        (
            "an allow-all beside what is needed",
            with(&[
                &dns,
                &deny,
                &named(
                    "open",
                    "",
                    "ingress: [{from: [{podSelector: {}}]}, {}], egress: [{ports: [{port: 443}]}, {to: [{ipBlock: {cidr: 0.0.0.0/0}}, {namespaceSelector: {}}]}]",
                ),
            ]),
        ),
        ("two allow-alls", with(&[&dns, &deny, &named("open", "", open), &named("open-too", "", open)])),
        (
            "halves that are everyone together",
            with(&[
                &dns,
                &deny,
                &named("pods", "", "egress: [{to: [{namespaceSelector: {}}]}]"),
                &named("net", "", "egress: [{to: [{ipBlock: {cidr: 0.0.0.0/1}}, {ipBlock: {cidr: 128.0.0.0/1}}]}]"),
            ]),
        ),
        ("no DNS", with(&[&dns, &deny])),
        ("no DNS, and none known", with(&[&deny])),
        ("no DNS, the name taken", with(&[&dns, &deny, &named("allow-dns", cart, "")])),
        (
            "no DNS for pods of several policies",
            with(&[&dns, &named("a", cart, ""), &named("b", "matchLabels: {app: pay}", "")]),
        ),
        ("no DNS, with nameservers of its own", with(&[&dns, &own, &deny])),
        ("no DNS, on OpenShift", with(&[&openshift, &deny, &named("wrong", "", &format!("egress: [{TO_DNS}]"))])),
        (
            "UDP only",
            with(&[
                &dns,
                &named("udp", "", "egress: [{to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}]}]"),
            ]),
        ),
        ("DNS isolated", with(&[&dns, &default_deny("shop"), &guard])),
        ("DNS isolated, and no way out", with(&[&dns, &deny, &guard])),
        (
            "DNS isolated by a policy of the name that would be offered",
            with(&[&dns, &default_deny("shop"), &policy("kube-system/admit-dns-clients", "podSelector: {}")]),
        ),
        (
            "a wide block",
            with(&[
                &dns,
                &deny,
                &named(
                    "net",
                    "",
                    "egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}, {podSelector: {}}]}]",
                ),
            ]),
        ),
        (
            "a wide block that let names be resolved",
            with(&[
                &dns,
                &named(
                    "net",
                    "",
                    "egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 53, protocol: UDP}, {port: 443}]}]",
                ),
            ])
            .on("calico"),
        ),
        (
            "blocks that are wide together",
            with(&[
                &dns,
                &default_deny("shop"),
                &named("low", "", "egress: [{to: [{ipBlock: {cidr: 0.0.0.0/4}}]}]"),
                &named("high", "matchLabels: {net: wide}", "egress: [{to: [{ipBlock: {cidr: 16.0.0.0/4}}]}]"),
            ]),
        ),
        (
            "both families, both ways",
            with(&[
                &dns,
                &default_deny("shop"),
                &named(
                    "net",
                    "",
                    "ingress: [{from: [{ipBlock: {cidr: '::/0'}}, {ipBlock: {cidr: 0.0.0.0/0}}]}], egress: [{to: [{ipBlock: {cidr: '::/1'}}]}]",
                ),
            ]),
        ),
        (
            "on an implementation whose blocks admit pods",
            with(&[
                &dns,
                &named(
                    "net",
                    "",
                    "ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]",
                ),
            ])
            .on("calico"),
        ),
        ("a node-local cache", with(&[&dns, &deny]).set("dns", "addresses: [169.254.20.10]")),
        ("nothing, with a node-local cache", with(&[&dns]).set("dns", "addresses: [169.254.20.10]")),
    ]
}

fn identity(it: &Finding) -> (&'static str, Option<String>) {
    (it.rule.code, it.namespace.as_ref().map(ToString::to_string))
}

fn denied(said: &Said) -> BTreeSet<(&'static str, Option<String>)> {
    said.0.iter().filter(|it| it.action == Action::Deny).map(identity).collect()
}

#[test]
fn every_situation_is_found_and_every_finding_offers_a_fix() {
    for (what, gate) in broken() {
        let said = gate.check();
        assert!(!said.0.is_empty(), "{what}: nothing is found");
        for finding in &said.0 {
            assert!(!finding.fix.is_empty(), "{what}: nothing is offered\n{finding:#?}");
            assert!(!finding.help.is_empty() && !finding.why.is_empty(), "{what}\n{finding:#?}");
        }
    }
}

#[test]
fn what_is_offered_mends_the_finding_and_brings_no_new_denial() {
    for (what, gate) in broken() {
        let before = gate.check();
        for finding in &before.0 {
            let after = gate.with(&finding.fix).check();
            let is_left = after.0.iter().any(|it| it.message == finding.message);
            assert!(!is_left, "{what}: not mended\n{}\nby\n{}", finding.message, finding.fix);
            let new: Vec<_> = denied(&after).difference(&denied(&before)).cloned().collect();
            assert!(new.is_empty(), "{what}: {new:?} by\n{}\n{}", finding.fix, after.text());
        }
    }
}

#[test]
fn applying_all_that_is_offered_leaves_nothing_denied() {
    for (what, mut gate) in broken() {
        // One finding at a time, as a person would: a fix for one rule may mend another's finding.
        for _ in 0..6 {
            let said = gate.check();
            let Some(first) = said.0.iter().find(|it| it.action == Action::Deny) else { break };
            gate = gate.with(&first.fix);
        }
        let said = gate.check();
        assert!(!said.denied(), "{what}\n{}", said.text());
    }
}

#[test]
fn no_policy_is_overwritten_but_one_the_finding_says_to_narrow() {
    for (what, gate) in broken() {
        for finding in gate.check().0 {
            for object in objects(&finding.fix) {
                let reference = object.reference();
                let is_named = finding.help.contains(&format!("`{}`", reference.name))
                    || finding.message.contains(&format!("`{}`", reference.name));
                assert!(
                    !gate.holds(&reference.to_string()) || is_named,
                    "{what}: {reference} is overwritten\n{finding:#?}"
                );
            }
        }
    }
}

#[test]
fn what_is_offered_first_makes_the_change_pass() {
    let shop = namespace("shop", "") + "---" + DNS;
    let deny = policy("shop/deny", "podSelector: {}, policyTypes: [Ingress, Egress]");
    let dns = policy("shop/allow-dns", &format!("podSelector: {{}}, policyTypes: [Egress], egress: [{TO_DNS}]"));
    let cart = deployment("shop/cart", "app: cart");
    let guard = policy("kube-system/deny", "podSelector: {}, policyTypes: [Ingress]");
    let empty = gate(&shop);
    let full = gate(&(shop.clone() + &cart + &deny + &dns));
    let defended = gate(&(shop + &cart + &default_deny("shop")));
    let changes: [(&str, &Gate, Judge<'_>); 6] = [
        ("a first workload", &empty, &|gate| gate.create(&cart)),
        ("a namespace", &empty.without("Namespace shop"), &|gate| gate.create(&namespace("shop", ""))),
        ("the last default-deny goes", &full, &|gate| gate.delete("NetworkPolicy shop/deny")),
        ("the allow-dns goes", &full, &|gate| gate.delete("NetworkPolicy shop/allow-dns")),
        ("the policy that is both goes", &defended, &|gate| gate.delete("NetworkPolicy shop/default-deny")),
        ("the DNS pods are isolated", &full, &|gate| gate.create(&guard)),
    ];
    for (what, gate, judge) in changes {
        let said = judge(gate);
        let Some(first) = said.0.first() else { panic!("{what}: nothing is said") };
        let again = judge(&gate.with(&first.fix));
        assert!(!again.denied(), "{what}\n{}\nafter\n{}", again.text(), first.fix);
        assert!(again.0.iter().all(|it| it.rule != first.rule), "{what}\n{}", again.text());
    }
}

#[test]
fn a_mended_namespace_isolates_no_pod_that_was_not_by_letting_names_be_resolved() {
    let locked = policy("shop/locked", "podSelector: {matchLabels: {locked: 'yes'}}, policyTypes: [Egress]");
    let pods = pod("shop/locked", "locked: 'yes'") + &pod("shop/free", "app: free");
    let gate = gate(&(namespace("shop", "") + &pods + &locked + "---" + DNS)).only("NP002");
    let fix = gate.check().only().fix.clone();
    assert!(fix.contains("locked: \"yes\"") && fix.contains("- Egress") && !fix.contains("- Ingress"), "{fix}");
}
