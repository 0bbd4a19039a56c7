//! What waivers let stand, and for how long.

use super::super::Mode;
use super::super::testing::*;

/// A Waiver of `shop`, created on 1 November 2026: `waiver("rules: [NP001], match: {}")`.
fn waiver(spec: &str, expires: &str) -> String {
    waiver_of("legacy", spec, expires)
}

fn waiver_of(name: &str, spec: &str, expires: &str) -> String {
    let metadata = format!("name: {name}, namespace: shop, creationTimestamp: 2026-11-01T12:00:00Z");
    let spec = format!("{spec}, owner: payments, reason: moves in January, expires: {expires}");
    object("portcullis.dev/v1alpha1", "Waiver", &metadata, &spec)
}

/// An open namespace in which something runs.
fn open() -> Gate {
    gate(&[namespace("shop", ""), deployment("shop/cart", "app: cart")].concat())
}

#[test]
fn a_waived_finding_is_recorded_and_says_until_when_and_by_whose_leave() {
    let gate = open().with(&waiver("rules: [NP001], match: {}", "2026-11-20"));
    let said = gate.check();
    said.is(&["audit NP001 waived"]);
    let waived = said.only().waived.clone().unwrap();
    assert_eq!(waived.to_string(), "until 2026-11-20 by Waiver shop/legacy (owner payments): moves in January");
    gate.create(&deployment("shop/web", "app: web")).is(&["audit NP001 waived"]);
    open().create(&deployment("shop/web", "app: web")).is(&["deny NP001"]);
}

#[test]
fn a_waiver_that_has_run_out_counts_as_absent_from_that_moment() {
    let gate = open().with(&waiver("rules: [NP001], match: {}", "'2026-11-20'"));
    let web = deployment("shop/web", "app: web");
    gate.clone().at("2026-11-20T23:59:59Z").create(&web).is(&["audit NP001 waived"]);
    gate.clone().at("2026-11-21T00:00:00Z").create(&web).is(&["deny NP001"]);
    let to_the_minute = open().with(&waiver("rules: [NP001], match: {}", "'2026-11-20T10:30:00+02:00'"));
    to_the_minute.clone().at("2026-11-20T08:29:59Z").create(&web).is(&["audit NP001 waived"]);
    to_the_minute.at("2026-11-20T08:30:00Z").create(&web).is(&["deny NP001"]);
}

#[test]
fn a_waiver_that_is_being_deleted_counts_as_absent_whatever_holds_it() {
    let waiver = waiver("rules: [NP001], match: {}", "2026-11-20");
    let ending = waiver
        .replace("namespace: shop,", "namespace: shop, deletionTimestamp: 2026-11-02T12:00:00Z, finalizers: [a/b],");
    let web = deployment("shop/web", "app: web");
    open().with(&waiver).create(&web).is(&["audit NP001 waived"]);
    open().with(&ending).create(&web).is(&["deny NP001"]);
}

#[test]
fn only_the_rules_it_names_are_waived() {
    let gate = open().with(&waiver("rules: [wildcard-ip-block, dns-blackhole], match: {}", "2026-11-20"));
    gate.check().is(&["deny NP001"]);
    open().with(&waiver("rules: [np001], match: {}", "2026-11-20")).check().is(&["audit NP001 waived"]);
}

#[test]
fn a_waiver_of_a_workload_is_no_waiver_of_its_namespace_or_of_others() {
    let gate = open().with(&waiver("rules: [NP001], match: {workloads: [Deployment/web]}", "2026-11-20"));
    let web = gate.create(&deployment("shop/web", "app: web"));
    web.is(&["audit NP001 waived"]);
    gate.create(&deployment("shop/api", "app: web")).is(&["deny NP001"]);
}

#[test]
fn a_pod_goes_by_its_controllers_name() {
    let blind = policy("shop/blind", "podSelector: {}, policyTypes: [Egress]");
    let owned = "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: cart-x\n  namespace: shop\n  labels: {app: cart}\n  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: cart, controller: true}]\nspec: {}\n";
    let gate = open().only("NP002").with(DNS).with(owned);
    let waived = gate.with(&waiver("rules: [NP002], match: {workloads: [cart]}", "2026-11-20"));
    waived.create(&blind).is(&["audit NP002 waived"]);
    gate.with(&waiver("rules: [NP002], match: {workloads: [Pod/cart]}", "2026-11-20"))
        .create(&blind)
        .is(&["deny NP002"]);
}

#[test]
fn labels_and_names_of_policies_narrow_it() {
    let wide = policy(
        "shop/out",
        "podSelector: {matchLabels: {app: cart}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]",
    );
    let gate = open().only("NP003");
    for (matched, is_waived) in
        [("{policies: [out]}", true), ("{policies: ['o*']}", true), ("{policies: [in]}", false), ("{}", true)]
    {
        let gate = gate.with(&waiver(&format!("rules: [NP003], match: {matched}"), "2026-11-20"));
        gate.create(&wide).is(if is_waived { &["audit NP003 waived"] } else { &["warn NP003"] });
    }
    let labelled = open().with(&waiver("rules: [NP001], match: {labels: {app: web}}", "2026-11-20"));
    labelled.create(&deployment("shop/web", "app: web")).is(&["audit NP001 waived"]);
    labelled.create(&deployment("shop/api", "app: api")).is(&["deny NP001"]);
}

#[test]
fn another_namespaces_waiver_is_none() {
    let gate =
        open().with(&waiver("rules: [NP001], match: {}", "2026-11-20").replace("namespace: shop", "namespace: other"));
    gate.create(&deployment("shop/web", "app: web")).is(&["deny NP001"]);
}

#[test]
fn one_that_reaches_too_far_does_not_hold_and_is_refused_with_the_day_to_write() {
    let far = waiver("rules: [wildcard-ip-block, missing-default-deny], match: {}", "2027-06-30");
    open().with(&far).check().is(&["deny NP001"]);
    let said = gate("").only("CL").create(&far);
    said.is(&["deny CL006"])
        .mentions("Waiver shop/legacy: `spec.expires` reaches too far ahead")
        .mentions("a waiver of `missing-default-deny` (high) may reach 30 days")
        .mentions("write `2026-12-01` or an earlier day");
    gate("").only("CL").create(&far.replace("2027-06-30", "2026-12-01")).nothing();
    gate("").only("CL").create(&far.replace("2027-06-30", "2026-12-02")).is(&["deny CL006"]);
    let longer = gate("").only("CL").set("waivers", "maxDays: {high: 300}");
    longer.create(&far).nothing();
}

#[test]
fn one_is_prolonged_as_often_as_the_configuration_lets_it_be() {
    let first = waiver("rules: [NP001], match: {}", "2026-11-30");
    let gate = gate(&first).only("CL");
    let prolonged = |now: &str, expires: &str| gate.clone().at(now).update(&first.replace("2026-11-30", expires));
    prolonged("2026-11-29T12:00:00Z", "2026-12-29").nothing();
    prolonged("2026-12-29T12:00:00Z", "2027-01-28").nothing();
    prolonged("2027-01-28T12:00:00Z", "2027-02-10")
        .is(&["deny CL006"])
        .mentions("2 times 30 days since it was created on 2026-11-01")
        .mentions("write `2027-01-30` or an earlier day");
    // No day is left to write.
    let said = prolonged("2027-02-05T12:00:00Z", "2027-02-10");
    said.is(&["deny CL006"]).mentions("let its owner decide anew, and create another").does_not_mention("2027-01-30");
}

#[test]
fn what_means_nothing_is_refused_with_what_to_write() {
    let gate = gate("").only("CL");
    for (spec, message) in [
        (
            "rules: [no-such-rule], match: {}, owner: a, reason: b, expires: 2026-11-20",
            "`no-such-rule` is no rule that can be waived",
        ),
        ("rules: [NP001, rule-failed], match: {}, owner: a, reason: b, expires: 2026-11-20", "`spec.rules[1]`"),
        ("rules: [invalid-waiver], match: {}, owner: a, reason: b, expires: 2026-11-20", "`invalid-waiver` is no rule"),
        ("rules: [], match: {}, owner: a, reason: b, expires: 2026-11-20", "names no rule"),
        ("rules: [NP001], match: {}, owner: ' ', reason: b, expires: 2026-11-20", "`spec.owner` is empty"),
        ("rules: [NP001], match: {}, owner: a, reason: '', expires: 2026-11-20", "`spec.reason` is empty"),
        ("rules: [NP001], match: {}, owner: a, reason: b, expires: never", "is neither a day nor a time"),
        ("rules: [NP001], match: {}, owner: a, reason: b, expires: 2026-10-31", "has run out"),
    ] {
        let said = gate.create(&object("portcullis.dev/v1alpha1", "Waiver", "name: a, namespace: shop", spec));
        said.is(&["deny CL006"]).mentions(message);
    }
}

#[test]
fn one_that_runs_out_by_itself_holds_up_no_change_and_is_named_by_the_audit() {
    let old = waiver("rules: [NP001], match: {}", "2026-11-20");
    let gate = gate(&old).only("CL").at("2026-12-24T00:00:00Z");
    gate.update(&old.replace("moves in January", "moved")).nothing();
    gate.create(&waiver_of("other", "rules: [NP001], match: {}", "2027-01-01")).nothing();
    gate.delete("Waiver shop/legacy").nothing();
    gate.check().is(&["warn CL006"]).mentions("has run out: it held until 2026-11-20");
}

#[test]
fn one_of_the_configuration_holds_like_one_of_the_cluster() {
    let granted = "list: [{name: legacy, namespace: shop, rules: [NP001], match: {}, owner: payments, reason: moves, expires: 2026-11-20}]";
    let gate = open().set("waivers", granted);
    gate.check().is(&["audit NP001 waived"]);
    assert_eq!(gate.check().only().waived.as_ref().unwrap().by, "waiver legacy of the configuration");
    gate.clone().at("2026-11-21T00:00:00Z").check().is(&["deny NP001"]);
    open().set("waivers", &granted.replace("2026-11-20", "2028-11-20")).check().is(&["deny NP001"]);
    open().set("waivers", &granted.replace("namespace: shop", "namespace: other")).check().is(&["deny NP001"]);
}

#[test]
fn of_several_the_one_that_lasts_longest_is_named() {
    let gate = open()
        .with(&waiver_of("short", "rules: [NP001], match: {}", "2026-11-10"))
        .with(&waiver_of("long", "rules: [NP001], match: {}", "2026-11-20"))
        .with(&waiver_of("gone", "rules: [NP001], match: {}", "2026-10-31"));
    assert_eq!(gate.check().0.iter().find_map(|it| it.waived.clone()).unwrap().until, "2026-11-20");
}

#[test]
fn the_mode_holds_for_what_is_said_of_waivers_too() {
    let bad = object(
        "portcullis.dev/v1alpha1",
        "Waiver",
        "name: a, namespace: shop",
        "rules: [x], match: {}, owner: a, reason: b, expires: 2026-11-20",
    );
    gate("").only("CL").mode(Mode::Warn).create(&bad).is(&["warn CL006"]);
}

#[test]
fn a_waiver_with_a_field_there_is_not_waives_nothing_and_says_which() {
    let misspelt = waiver("rules: [NP001], match: {workload: [Deployment/cart]}", "2026-11-20");
    gate("")
        .only("CL")
        .create(&misspelt)
        .is(&["deny CL006"])
        .mentions("`spec.match.workload` cannot be read: unknown field `workload`");
    open().with(&misspelt).create(&deployment("shop/web", "app: web")).is(&["deny NP001"]);
    let shapeless = "apiVersion: portcullis.dev/v1alpha1\nkind: Waiver\nmetadata: {name: a, namespace: shop}\nspec: {rules: [NP001]}\n";
    gate("").only("CL").create(shapeless).is(&["deny CL006"]).mentions("`spec` cannot be read: missing field");
    // What was a waiver and is changed into none ceases to be one.
    let fit = waiver("rules: [NP001], match: {}", "2026-11-20");
    open().with(&fit).with(&misspelt).create(&deployment("shop/web", "app: web")).is(&["deny NP001"]);
}

#[test]
fn a_waiver_of_any_time_there_is_has_an_answer() {
    let late = waiver("rules: [NP001], match: {}", "2026-11-20").replace("2026-11-01T", "9999-12-01T");
    open().with(&late).check().is(&["audit NP001 waived"]);
}

#[test]
fn what_guards_the_gate_itself_cannot_be_waived_in_its_own_namespace() {
    let leave = waiver("rules: [mode-loosened, NP001], match: {}", "2026-11-20");
    let mut gate = gate(&[namespace("shop", ""), leave].concat()).only("CL007");
    let lowered = namespace("shop", "portcullis.dev/mode: warn");
    gate.update(&lowered).is(&["audit CL007 waived"]);
    gate.environment.own_namespace = Some("shop".into());
    gate.update(&lowered).is(&["deny CL007"]);
    // Its workloads are like any other.
    let open = gate.with(&deployment("shop/cart", "app: cart")).only("NP001");
    open.check().is(&["audit NP001 waived"]);
}
