//! Whether selectors cover *every* set of labels there could be: pods and namespaces to come
//! included, not just those that are there today.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{METADATA_NAME, Operator, Requirement, Selector};

/// How many steps the search takes before the question is left open. Real policies need a handful;
/// this is far above them and costs under a millisecond.
const MOST_STEPS: usize = 4096;

/// Whether selectors together match every pod there could be. Nothing where that takes too long to
/// find out.
pub(super) fn covers_everything(selectors: &[&Selector]) -> Option<bool> {
    let clauses: Vec<Clause<'_>> = selectors.iter().map(|selector| selector.requirements().iter().collect()).collect();
    covers(&clauses, &mut MOST_STEPS.clone())
}

/// Demands that must hold together.
type Clause<'a> = Vec<&'a Requirement>;

/// Whether every pod meets one of the clauses, tried key by key.
///
/// Only keys and values that some clause names can make a difference, so it is enough to try, for
/// each key: absent, one value nobody names, and each value named.
fn covers(clauses: &[Clause<'_>], steps: &mut usize) -> Option<bool> {
    if clauses.iter().any(Vec::is_empty) {
        return Some(true);
    }
    // A pod without labels meets no demand that some key be there.
    let demands_a_key = |it: &&Requirement| !it.matches_value(None);
    if clauses.iter().all(|clause| clause.iter().any(demands_a_key)) {
        return Some(false);
    }
    let key = &clauses.first()?.first()?.key;
    *steps = steps.checked_sub(1)?;
    let about_key = || clauses.iter().flatten().filter(|it| it.key == *key);
    let named: BTreeSet<&str> = about_key()
        .flat_map(|it| match &it.operator {
            Operator::In(values) | Operator::NotIn(values) => values.as_slice(),
            Operator::Exists | Operator::DoesNotExist | Operator::Unknown(_) => &[],
        })
        .map(crate::model::Str::as_str)
        .collect();
    for value in [Value::Absent, Value::Unnamed].into_iter().chain(named.into_iter().map(Value::Named)) {
        let left: Vec<Clause<'_>> = clauses
            .iter()
            .filter(|clause| clause.iter().all(|it| it.key != *key || value.meets(it)))
            .map(|clause| clause.iter().copied().filter(|it| it.key != *key).collect())
            .collect();
        if covers(&left, steps)? {
            continue;
        }
        return Some(false);
    }
    Some(true)
}

/// Whether a peer's selectors match a stranger: a pod without labels in a namespace that nobody
/// names. Whoever admits strangers admits everybody, but for those left out by name.
pub(super) fn admits_strangers(namespaces: &Selector, pods: &Selector) -> bool {
    let unlabelled = |it: &Requirement| it.matches_value(None);
    let unnamed = |it: &Requirement| if it.key == METADATA_NAME { Value::Unnamed.meets(it) } else { unlabelled(it) };
    namespaces.requirements().iter().all(unnamed) && pods.requirements().iter().all(unlabelled)
}

/// The label sets of pods that no selector names by a value: for each key some selector looks at,
/// the key absent or with a value nobody names. What holds for such a pod holds by default.
pub(super) fn nameless_pods<'a>(selectors: &[&'a Selector]) -> Vec<BTreeMap<&'a str, Value<'a>>> {
    let keys: BTreeSet<&str> =
        selectors.iter().flat_map(|selector| selector.requirements()).map(|it| it.key.as_str()).collect();
    let domains: Vec<(&str, Vec<Value<'_>>)> =
        keys.into_iter().take(10).map(|key| (key, vec![Value::Absent, Value::Unnamed])).collect();
    (0..1_usize << domains.len()).map(|number| assignment(&domains, number)).collect()
}

/// Whether a selector matches a pod of [`nameless_pods`].
pub(super) fn matches(selector: &Selector, pod: &BTreeMap<&str, Value<'_>>) -> bool {
    selector
        .requirements()
        .iter()
        .all(|requirement| pod.get(requirement.key.as_str()).copied().unwrap_or(Value::Absent).meets(requirement))
}

/// A label's value, as far as selectors can tell values apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
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

/// The combination of this number: its digits, each to the base of its domain's size.
fn assignment<'a, K: Ord + Copy>(domains: &[(K, Vec<Value<'a>>)], mut number: usize) -> BTreeMap<K, Value<'a>> {
    let mut chosen = BTreeMap::new();
    for (key, values) in domains {
        let value = values.get(number % values.len()).copied().unwrap_or(Value::Absent);
        number /= values.len();
        chosen.insert(*key, value);
    }
    chosen
}

#[cfg(test)]
mod tests {
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
        let clauses: Vec<Clause<'_>> = [&has, &has_not].map(|it| it.requirements().iter().collect()).to_vec();
        assert_eq!(super::covers(&clauses, &mut 1), Some(true));
        assert_eq!(super::covers(&clauses, &mut 0), None);
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
