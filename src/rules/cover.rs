//! Whether selectors cover *every* set of labels there could be: pods and namespaces to come
//! included, not just those that are there today.
//!
//! Selectors are written by those the gate guards against, and the question is hard in general. So
//! nothing here recurses, and each search counts what it looks at and leaves the question open when
//! that is too much.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{METADATA_NAME, Operator, Requirement, Selector};

/// How many requirements the search looks at before the question is left open. Policies that people
/// write take some hundreds; this many take some ten milliseconds.
const MOST_WORK: usize = 1_000_000;

/// Whether selectors together match every pod there could be. Nothing where that takes too long to
/// find out.
pub(super) fn covers_everything(selectors: &[&Selector]) -> Option<bool> {
    covers(selectors, MOST_WORK)
}

fn covers(selectors: &[&Selector], mut work: usize) -> Option<bool> {
    let clauses: BTreeSet<Clause<'_>> = selectors.iter().map(|selector| selector.requirements()).collect();
    // What has no demand left comes first.
    match clauses.first() {
        None => return Some(false),
        Some([]) => return Some(true),
        Some(_) => {}
    }
    // Of selectors that look at different keys none fills the gaps of the others: a pod may be in the
    // gaps of each.
    let mut answer = Some(false);
    for part in by_shared_keys(&clauses) {
        match part_covers(part, &mut work) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => answer = None,
        }
    }
    answer
}

/// Demands that must hold together, sorted by their keys.
type Clause<'a> = &'a [Requirement];

/// Clauses in parts, such that no two parts look at one key.
fn by_shared_keys<'a>(clauses: &BTreeSet<Clause<'a>>) -> Vec<Vec<Clause<'a>>> {
    let mut keys: BTreeMap<&str, usize> = BTreeMap::new();
    // Each clause points to another of its part, or to itself.
    let mut parts: Vec<usize> = Vec::with_capacity(clauses.len());
    for (at, clause) in clauses.iter().enumerate() {
        parts.push(at);
        for Requirement { key, operator: _ } in *clause {
            let other = *keys.entry(key).or_insert(at);
            let (one, other) = (root(&mut parts, at), root(&mut parts, other));
            if let Some(part) = parts.get_mut(one) {
                *part = other;
            }
        }
    }
    let mut found: BTreeMap<usize, Vec<Clause<'a>>> = BTreeMap::new();
    for (at, clause) in clauses.iter().enumerate() {
        found.entry(root(&mut parts, at)).or_default().push(clause);
    }
    found.into_values().collect()
}

/// The end of a chain of pointers, which is halved on the way.
fn root(parts: &mut [usize], mut at: usize) -> usize {
    while let Some(next) = parts.get(at).copied().filter(|next| *next != at) {
        let after = parts.get(next).copied().unwrap_or(next);
        if let Some(part) = parts.get_mut(at) {
            *part = after;
        }
        at = after;
    }
    at
}

/// Whether every pod meets one of the clauses, tried key by key.
///
/// Only keys and values that some clause names can make a difference, so it is enough to try, for
/// each key: absent, one value that no clause names, and each value named. And of two values one
/// need not be tried where it meets every clause the other does.
fn part_covers(clauses: Vec<Clause<'_>>, work: &mut usize) -> Option<bool> {
    let mut untried = vec![clauses];
    while let Some(clauses) = untried.pop() {
        if clauses.iter().any(|clause| clause.is_empty()) {
            continue;
        }
        *work = work.checked_sub(clauses.iter().map(|clause| clause.len()).sum())?;
        // A pod without labels meets no demand that some key be there.
        let demands_a_key = |it: &Requirement| !it.matches_value(None);
        if clauses.iter().all(|clause| clause.iter().any(demands_a_key)) {
            return Some(false);
        }
        let Some(key) = clauses.iter().filter_map(|clause| clause.first()).map(|first| &first.key).min() else {
            return Some(false);
        };
        for value in worth_trying(&clauses, key, work)? {
            let mut left = Vec::new();
            let mut is_met = false;
            for clause in &clauses {
                let (about_key, others) = clause.split_at(clause.partition_point(|it| it.key <= *key));
                *work = work.checked_sub(1 + about_key.len())?;
                if about_key.iter().all(|it| value.meets(it)) {
                    left.push(others);
                    is_met = others.is_empty();
                }
                if is_met {
                    break;
                }
            }
            if !is_met {
                untried.push(left);
            }
        }
    }
    Some(true)
}

/// The values of a key, the smallest of all clauses, that could leave a pod out.
fn worth_trying<'a>(clauses: &[Clause<'a>], key: &str, work: &mut usize) -> Option<Vec<Value<'a>>> {
    let (mut exists, mut is_absent) = (false, false);
    // By value, the clauses that name it.
    let mut named: BTreeMap<&str, (bool, Vec<usize>)> = BTreeMap::new();
    for (at, clause) in clauses.iter().enumerate() {
        for requirement in clause.iter().take_while(|it| it.key == key) {
            let (values, excludes) = match &requirement.operator {
                Operator::In(values) => (values.as_slice(), false),
                Operator::NotIn(values) => (values.as_slice(), true),
                Operator::Exists => {
                    exists = true;
                    continue;
                }
                Operator::DoesNotExist => {
                    is_absent = true;
                    continue;
                }
                Operator::Unknown(_) => continue,
            };
            *work = work.checked_sub(values.len())?;
            for value in values {
                let (is_excluded, by) = named.entry(value).or_default();
                *is_excluded |= excludes;
                by.push(at);
            }
        }
    }
    // A pod without the key and one with a value that no clause names differ by `Exists` and
    // `DoesNotExist` only.
    let mut values = match (exists, is_absent) {
        (false, _) => vec![Value::Unnamed],
        (true, false) => vec![Value::Absent],
        (true, true) => vec![Value::Absent, Value::Unnamed],
    };
    // A value that no clause excludes meets all that an unnamed one does. Values that the same clauses
    // name are alike.
    let mut seen: BTreeSet<(Vec<usize>, Vec<bool>)> = BTreeSet::new();
    for (value, (is_excluded, by)) in named {
        let met = by
            .iter()
            .filter_map(|at| clauses.get(*at))
            .map(|clause| clause.iter().take_while(|it| it.key == key).all(|it| Value::Named(value).meets(it)));
        if is_excluded && seen.insert((by.clone(), met.collect())) {
            values.push(Value::Named(value));
        }
    }
    Some(values)
}

/// Whether a peer's selectors match a stranger: a pod without labels in a namespace that nobody
/// names. Whoever admits strangers admits everybody, but for those left out by name.
pub(super) fn admits_strangers(namespaces: &Selector, pods: &Selector) -> bool {
    let unlabelled = |it: &Requirement| it.matches_value(None);
    let unnamed = |it: &Requirement| if it.key == METADATA_NAME { Value::Unnamed.meets(it) } else { unlabelled(it) };
    namespaces.requirements().iter().all(unnamed) && pods.requirements().iter().all(unlabelled)
}

/// How many keys that some selectors demand and others forbid are tried both ways.
const MOST_CONTESTED: usize = 6;

/// Pods that no selector names by a value: for each key that some selector looks at, the key absent
/// or with a value that none names. What holds for such a pod holds by default.
pub(super) struct Nameless {
    /// The selectors that match such a pod, by their places; for those pods that as many match as can.
    pub(super) matching: BTreeSet<Vec<usize>>,
    /// Whether all of these pods were tried.
    pub(super) is_complete: bool,
}

/// Which selectors match the pods that none of them names.
pub(super) fn nameless_pods(selectors: &[&Selector]) -> Nameless {
    // What a selector demands of such a pod: the keys that must be there and those that must not.
    let demands = selectors.iter().enumerate().filter_map(|(place, selector)| {
        let mut keys: BTreeMap<&str, bool> = BTreeMap::new();
        for Requirement { key, operator } in selector.requirements() {
            let is_there = match operator {
                Operator::NotIn(_) => continue,
                Operator::Exists => true,
                Operator::DoesNotExist => false,
                Operator::In(_) | Operator::Unknown(_) => return None,
            };
            if *keys.entry(key).or_insert(is_there) != is_there {
                return None;
            }
        }
        Some((place, keys))
    });
    let demands: Vec<(usize, BTreeMap<&str, bool>)> = demands.collect();
    let keys = |wanted: bool| {
        let all = demands.iter().flat_map(|(_, keys)| keys);
        all.filter(move |(_, is_there)| **is_there == wanted).map(|(key, _)| *key).collect::<BTreeSet<&str>>()
    };
    // A key that is only ever demanded, or only ever forbidden, is best as all want it.
    let contested: Vec<&str> = keys(true).intersection(&keys(false)).copied().collect();
    let tried = contested.len().min(MOST_CONTESTED);
    let matching = (0..1_u32 << tried).map(|chosen| {
        let suits = |keys: &BTreeMap<&str, bool>| {
            contested.iter().enumerate().all(|(bit, key)| {
                let is_there = bit < tried && chosen >> bit & 1 == 1;
                keys.get(key).is_none_or(|wanted| *wanted == is_there)
            })
        };
        demands.iter().filter(|(_, keys)| suits(keys)).map(|(place, _)| *place).collect()
    });
    Nameless { matching: matching.collect(), is_complete: contested.len() == tried }
}

/// A label's value, as far as selectors can tell values apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Absent,
    Unnamed,
    Named(&'a str),
}

impl Value<'_> {
    fn meets(self, requirement: &Requirement) -> bool {
        match (self, &requirement.operator) {
            (Self::Absent, _) => requirement.matches_value(None),
            (Self::Named(value), _) => requirement.matches_value(Some(value)),
            (Self::Unnamed, Operator::NotIn(_) | Operator::Exists) => true,
            (Self::Unnamed, Operator::In(_) | Operator::DoesNotExist | Operator::Unknown(_)) => false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a place that is not there is a failed test")]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn selector(requirements: &[(&str, Operator)]) -> Selector {
        Selector::new(
            requirements.iter().map(|(key, operator)| Requirement { key: (*key).into(), operator: operator.clone() }),
        )
    }

    fn covers(selectors: &[Selector]) -> Option<bool> {
        covers_everything(&selectors.iter().collect::<Vec<_>>())
    }

    fn of(value: &str) -> Vec<crate::model::Str> {
        vec![value.into()]
    }

    #[test]
    fn an_empty_selector_covers_everything_and_none_covers_nothing() {
        assert_eq!(covers(&[Selector::everything()]), Some(true));
        assert_eq!(covers(&[]), Some(false));
    }

    #[test]
    fn a_selector_and_its_opposite_cover_everything() {
        let web = selector(&[("app", Operator::In(of("web")))]);
        let not_web = selector(&[("app", Operator::NotIn(of("web")))]);
        let (has, has_not) = (selector(&[("app", Operator::Exists)]), selector(&[("app", Operator::DoesNotExist)]));
        assert_eq!(covers(&[web.clone(), not_web.clone()]), Some(true));
        assert_eq!(covers(&[has.clone(), has_not.clone()]), Some(true));
        assert_eq!(covers(&[web, has]), Some(false));
        assert_eq!(covers(&[not_web, has_not]), Some(false));
    }

    #[test]
    fn a_union_over_two_keys_covers_only_if_no_pair_of_values_is_left_out() {
        let has_a = selector(&[("a", Operator::Exists)]);
        let (neither, only_b) = (
            selector(&[("a", Operator::DoesNotExist), ("b", Operator::DoesNotExist)]),
            selector(&[("a", Operator::DoesNotExist), ("b", Operator::Exists)]),
        );
        assert_eq!(covers(&[has_a.clone(), neither.clone(), only_b.clone()]), Some(true));
        assert_eq!(covers(&[has_a.clone(), neither.clone()]), Some(false));
        let b_is_not_v = selector(&[("a", Operator::DoesNotExist), ("b", Operator::NotIn(of("v")))]);
        let b_is_v = selector(&[("a", Operator::DoesNotExist), ("b", Operator::In(of("v")))]);
        assert_eq!(covers(&[has_a.clone(), b_is_not_v.clone(), b_is_v]), Some(true));
        assert_eq!(covers(&[has_a, b_is_not_v]), Some(false));
    }

    #[test]
    fn many_keys_do_not_hide_the_pod_that_is_left_out() {
        let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
        let none_of_them: Vec<_> = keys.iter().map(|key| (key.as_str(), Operator::DoesNotExist)).collect();
        assert_eq!(covers(&[selector(&none_of_them)]), Some(false));
        let each_apart: Vec<_> = keys.iter().map(|key| selector(&[(key, Operator::NotIn(of("v")))])).collect();
        assert_eq!(covers(&each_apart), Some(false));
    }

    #[test]
    fn a_search_that_takes_too_long_leaves_the_question_open() {
        let (has, has_not) = (selector(&[("x", Operator::Exists)]), selector(&[("x", Operator::DoesNotExist)]));
        assert_eq!(super::covers(&[&has, &has_not], 100), Some(true));
        assert_eq!(super::covers(&[&has, &has_not], 1), None);
    }

    #[test]
    fn demands_on_thousands_of_keys_are_answered_without_recursion() {
        let keys: Vec<String> = (0..5000).map(|n| format!("k{n}")).collect();
        let on_all: Vec<_> = keys.iter().map(|key| (key.as_str(), Operator::NotIn(of("v")))).collect();
        assert_eq!(covers(&[selector(&on_all)]), Some(false));
        let each_apart: Vec<_> = keys.iter().map(|key| selector(&[(key, Operator::NotIn(of("v")))])).collect();
        assert_eq!(covers(&each_apart), Some(false));
        let linked = |key: &String| selector(&[("a", Operator::Exists), (key, Operator::NotIn(of("v")))]);
        let linked: Vec<_> = keys.iter().map(linked).chain([selector(&[("a", Operator::DoesNotExist)])]).collect();
        assert_ne!(covers(&linked), Some(true));
        let named = |n: usize| selector(&[("app", Operator::In(of(&format!("v{n}"))))]);
        let many: Vec<_> = (0..5000).map(named).chain([selector(&[("app", Operator::NotIn(of("other")))])]).collect();
        assert_eq!(covers(&many), Some(false));
        let all: Vec<_> = many.into_iter().chain([selector(&[("app", Operator::In(of("other")))])]).collect();
        assert_eq!(covers(&all), Some(true));
        let values: Vec<crate::model::Str> = (0..100_000).map(|n| format!("v{n}").into()).collect();
        let (within, outside) =
            (selector(&[("app", Operator::In(values.clone()))]), selector(&[("app", Operator::NotIn(values))]));
        assert_eq!(covers(&[within, outside.clone()]), Some(true));
        assert_eq!(covers(&[outside]), Some(false));
    }

    /// Every set of labels over these keys and values, one value beside them included.
    fn every_pod(keys: &[&str], values: &[&str]) -> Vec<crate::model::Labels> {
        let mut pods = vec![crate::model::Labels::default()];
        for key in keys {
            let with = pods.iter().flat_map(|pod| values.iter().chain(&["unnamed"]).map(|value| pod.with(key, value)));
            pods.extend(with.collect::<Vec<_>>());
        }
        pods
    }

    fn some_selectors() -> impl Strategy<Value = Vec<Selector>> {
        let values = || vec(select(vec!["x", "y"]).prop_map(crate::model::Str::from), 1..3);
        let operator = prop_oneof![
            3 => values().prop_map(Operator::In),
            3 => values().prop_map(Operator::NotIn),
            2 => Just(Operator::Exists),
            2 => Just(Operator::DoesNotExist),
        ];
        let requirement = (select(vec!["a", "b", "c"]), operator)
            .prop_map(|(key, operator)| Requirement { key: key.into(), operator });
        vec(vec(requirement, 1..4).prop_map(Selector::new), 0..9)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn selectors_cover_everything_just_when_every_pod_is_selected(selectors in some_selectors()) {
            let every = every_pod(&["a", "b", "c"], &["x", "y"]);
            let expected = every.iter().all(|pod| selectors.iter().any(|selector| selector.matches(pod)));
            prop_assert_eq!(covers(&selectors), Some(expected));
        }

        #[test]
        fn each_pod_without_a_named_value_is_selected_by_no_more_than_was_found(selectors in some_selectors()) {
            let nameless = nameless_pods(&selectors.iter().collect::<Vec<_>>());
            prop_assert!(nameless.is_complete);
            let every = every_pod(&["a", "b", "c"], &[]);
            let selecting: BTreeSet<Vec<usize>> = every
                .iter()
                .map(|pod| (0..selectors.len()).filter(|at| selectors[*at].matches(pod)).collect())
                .collect();
            for set in &selecting {
                let is_within = |found: &&Vec<usize>| set.iter().all(|place| found.contains(place));
                prop_assert!(nameless.matching.iter().any(|found| is_within(&found)), "{set:?}");
            }
            for found in &nameless.matching {
                prop_assert!(selecting.contains(found), "{found:?}");
            }
        }
    }

    #[test]
    fn strangers_are_pods_without_labels_in_namespaces_with_a_name_of_their_own() {
        let everything = Selector::everything();
        let admits = |operator: Operator| admits_strangers(&selector(&[(METADATA_NAME, operator)]), &everything);
        assert!(admits(Operator::Exists));
        assert!(admits(Operator::NotIn(of("kube-system"))));
        assert!(!admits(Operator::In(of("kube-system"))));
        assert!(!admits(Operator::DoesNotExist));
        assert!(admits_strangers(&everything, &selector(&[("quarantined", Operator::DoesNotExist)])));
        assert!(!admits_strangers(&everything, &selector(&[("app", Operator::Exists)])));
        assert!(!admits_strangers(&selector(&[("team", Operator::Exists)]), &everything));
    }
}
