//! Label selectors, as `meta/v1 LabelSelector` and `labels.Requirement.Matches` of apimachinery
//! describe them.

use portcullis::model::{Labels, Operator, Requirement, Selector};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::json;

use crate::api;
use crate::world::cases;

/// The table: operator, values, the label's value (nothing: absent), whether it matches.
const TABLE: [(&str, &[&str], Option<&str>, bool); 16] = [
    ("In", &["a"], Some("a"), true),
    ("In", &["a"], Some("b"), false),
    ("In", &["a", "b"], Some("b"), true),
    ("In", &["a"], None, false),
    ("In", &[""], Some(""), true),
    ("In", &[""], None, false),
    ("NotIn", &["a"], Some("a"), false),
    ("NotIn", &["a"], Some("b"), true),
    ("NotIn", &["a", "b"], Some("b"), false),
    ("NotIn", &["a"], None, true),
    ("Exists", &[], Some(""), true),
    ("Exists", &[], Some("a"), true),
    ("Exists", &[], None, false),
    ("DoesNotExist", &[], Some(""), false),
    ("DoesNotExist", &[], Some("a"), false),
    ("DoesNotExist", &[], None, true),
];

#[test]
fn each_operator_matches_as_the_api_says() {
    for (operator, values, found, expected) in TABLE {
        let selector =
            api::selector(&json!({"matchExpressions": [{"key": "k", "operator": operator, "values": values}]}));
        let labels: Labels = found.map(|value| ("k", value)).into_iter().chain([("other", "a")]).collect();
        assert_eq!(selector.matches(&labels), expected, "{operator} {values:?} on {found:?}");
        assert_eq!(selector.may_match(&labels), expected, "all of it is known");
    }
}

#[test]
fn nothing_demanded_matches_everything() {
    for empty in [json!(null), json!({}), json!({"matchLabels": {}}), json!({"matchExpressions": []})] {
        let selector = api::selector(&empty);
        assert!(selector.is_everything());
        assert!(selector.matches(&Labels::default()));
        assert!(selector.matches(&Labels::from([("k", "a")])));
    }
}

#[test]
fn an_unknown_operator_matches_nothing_for_certain_and_anything_perhaps() {
    let selector = api::selector(&json!({"matchExpressions": [{"key": "k", "operator": "Like"}]}));
    for labels in [Labels::default(), Labels::from([("k", "a")])] {
        assert!(!selector.matches(&labels));
        assert!(selector.may_match(&labels));
    }
}

#[test]
fn a_key_is_pinned_by_exactly_one_value() {
    let pinned = |values: &[&str]| {
        let selector = api::selector(&json!({"matchExpressions": [{"key": "k", "operator": "In", "values": values}]}));
        selector.pinned("k").map(ToString::to_string)
    };
    assert_eq!(pinned(&["a"]).as_deref(), Some("a"));
    assert_eq!(pinned(&["a", "a"]).as_deref(), Some("a"), "the same value twice is one");
    assert_eq!(pinned(&["a", "b"]), None);
    assert_eq!(api::selector(&json!({"matchLabels": {"k": "a"}})).pinned("other"), None);
}

const KEYS: [&str; 3] = ["app", "tier", "x"];

fn labels() -> impl Strategy<Value = Vec<(String, String)>> {
    btree_map(prop::sample::select(&KEYS), "[ab]?", 0..3)
        .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let values = || vec("[abc]?", 1..3).prop_map(|values| values.into_iter().map(Into::into).collect());
    let operator = prop_oneof![
        values().prop_map(Operator::In),
        values().prop_map(Operator::NotIn),
        Just(Operator::Exists),
        Just(Operator::DoesNotExist),
    ];
    (prop::sample::select(&KEYS), operator).prop_map(|(key, operator)| Requirement { key: key.into(), operator })
}

/// The API's words, over a plain list of labels.
fn meets(labels: &[(String, String)], requirement: &Requirement) -> bool {
    let value = labels.iter().find(|(key, _)| *key == *requirement.key).map(|(_, value)| value.as_str());
    match (&requirement.operator, value) {
        (Operator::In(values), Some(value)) => values.iter().any(|it| it == value),
        (Operator::NotIn(values), Some(value)) => !values.iter().any(|it| it == value),
        (Operator::In(_), None) => false,
        (Operator::NotIn(_), None) => true,
        (Operator::Exists, value) => value.is_some(),
        (Operator::DoesNotExist, value) => value.is_none(),
        (Operator::Unknown(_), _) => unreachable!("not generated"),
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn every_requirement_must_be_met(
        all in labels(), requirements in vec(requirement(), 0..4).prop_shuffle(), seed in any::<prop::sample::Index>(),
    ) {
        let selector = Selector::new(requirements.clone());
        let labels: Labels = all.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let expected = requirements.iter().all(|requirement| meets(&all, requirement));
        prop_assert_eq!(selector.matches(&labels), expected);
        prop_assert_eq!(selector.may_match(&labels), expected);
        prop_assert_eq!(selector.is_everything(), requirements.is_empty());
        if !requirements.is_empty() {
            let mut turned = requirements.clone();
            turned.rotate_left(seed.index(requirements.len()));
            turned.push(requirements[0].clone());
            for requirement in &mut turned {
                if let Operator::In(values) | Operator::NotIn(values) = &mut requirement.operator {
                    values.reverse();
                }
            }
            prop_assert_eq!(Selector::new(turned), selector, "order and repetition do not show");
        }
    }

    #[test]
    fn the_exact_form_matches_labels_that_hold_it(mine in labels(), theirs in labels()) {
        let of = |all: &[(String, String)]| -> Labels { all.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect() };
        let (wanted, labels) = (of(&mine), of(&theirs));
        let expected = mine.iter().all(|label| theirs.contains(label));
        prop_assert_eq!(Selector::from(&wanted).matches(&labels), expected);
        prop_assert_eq!(wanted.is_subset(&labels), expected);
    }

    #[test]
    fn a_selector_implies_another_that_matches_all_it_matches(
        mine in vec(requirement(), 0..4), theirs in vec(requirement(), 0..3),
    ) {
        let (mine, theirs) = (Selector::new(mine), Selector::new(theirs));
        // Each key absent, with a value some requirement may name, and with one none does.
        let values = [None, Some(""), Some("a"), Some("b"), Some("c"), Some("other")];
        let all = values.into_iter().flat_map(|x| values.into_iter().flat_map(move |y| values.map(|z| [x, y, z])));
        let matched: Vec<Labels> = all
            .map(|chosen| KEYS.into_iter().zip(chosen).filter_map(|(key, value)| Some((key, value?))).collect())
            .filter(|labels: &Labels| mine.matches(labels))
            .collect();
        let expected = matched.iter().all(|labels| theirs.matches(labels));
        // What matches nothing implies everything, and need not be found out.
        if !matched.is_empty() {
            prop_assert_eq!(mine.implies(&theirs), Some(expected));
        }
    }

    #[test]
    fn labels_are_a_map(all in vec((prop::sample::select(&KEYS), "[ab]?"), 0..6)) {
        let labels = all.iter().fold(Labels::default(), |labels, (key, value)| labels.with(key, value));
        let map: std::collections::BTreeMap<&str, &str> = all.iter().map(|(key, value)| (*key, value.as_str())).collect();
        prop_assert_eq!(labels.len(), map.len());
        prop_assert_eq!(labels.is_empty(), map.is_empty());
        prop_assert!(labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(map.clone()));
        for key in KEYS {
            prop_assert_eq!(labels.get(key).map(portcullis::model::Str::as_str), map.get(key).copied());
        }
    }
}
