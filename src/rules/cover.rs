//! Whether selectors cover *every* set of labels there could be: pods and namespaces to come
//! included, not just those that are there today.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Operator, Requirement, Selector};

/// How many combinations of label values are tried before the question is left open. Real policies
/// name a handful of keys; this is far above them and costs under a millisecond.
const MOST_COMBINATIONS: usize = 4096;

/// Demands that must hold together: on a namespace's labels and on a pod's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clause<'a> {
    pub(super) namespace: Option<&'a Selector>,
    pub(super) pod: &'a Selector,
}

/// Whether the clauses together match every labelled pod in every labelled namespace. Nothing where
/// there are too many combinations to try.
///
/// Only keys and values that some clause names can make a difference, so it is enough to try, for
/// each key: absent, each value named, and one value nobody names.
pub(super) fn covers_everything(clauses: &[Clause<'_>]) -> Option<bool> {
    let is_empty =
        |clause: &Clause<'_>| clause.pod.is_everything() && clause.namespace.is_none_or(Selector::is_everything);
    if clauses.iter().any(is_empty) {
        return Some(true);
    }
    // A clause that pins a key to some values only covers a part, and with nothing but such
    // clauses the pod without that key is left out.
    let pins = |clause: &Clause<'_>| {
        requirements(clause).any(|(_, it)| matches!(it.operator, Operator::In(_) | Operator::Exists))
    };
    if clauses.iter().all(pins) {
        return Some(false);
    }
    let mut values: BTreeMap<(bool, &str), BTreeSet<&str>> = BTreeMap::new();
    for clause in clauses {
        for (of_namespace, Requirement { key, operator }) in requirements(clause) {
            let known = values.entry((of_namespace, key)).or_default();
            if let Operator::In(named) | Operator::NotIn(named) = operator {
                known.extend(named.iter().map(crate::model::Str::as_str));
            }
        }
    }
    let domains: Vec<((bool, &str), Vec<Value<'_>>)> = values
        .into_iter()
        .map(|(key, named)| {
            let named = named.into_iter().map(Value::Named);
            (key, [Value::Absent, Value::Unnamed].into_iter().chain(named).collect())
        })
        .collect();
    let combinations = domains.iter().try_fold(1_usize, |product, (_, values)| product.checked_mul(values.len()))?;
    if combinations > MOST_COMBINATIONS {
        return None;
    }
    Some((0..combinations).all(|number| {
        let assignment = assignment(&domains, number);
        clauses.iter().any(|clause| {
            requirements(clause).all(|(of_namespace, requirement)| {
                let value = assignment.get(&(of_namespace, requirement.key.as_str())).copied();
                value.unwrap_or(Value::Absent).meets(requirement)
            })
        })
    }))
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

fn requirements<'a>(clause: &Clause<'a>) -> impl Iterator<Item = (bool, &'a Requirement)> + use<'a> {
    let of_namespace = clause.namespace.into_iter().flat_map(Selector::requirements);
    of_namespace.map(|it| (true, it)).chain(clause.pod.requirements().iter().map(|it| (false, it)))
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
        covers_everything(&selectors.iter().map(|pod| Clause { namespace: None, pod }).collect::<Vec<_>>())
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
    fn demands_on_namespaces_and_on_pods_are_told_apart() {
        let (has, has_not) = (selector(&[("x", Operator::Exists)]), selector(&[("x", Operator::DoesNotExist)]));
        let clauses =
            [Clause { namespace: Some(&has), pod: &Selector::everything() }, Clause { namespace: None, pod: &has_not }];
        assert_eq!(covers_everything(&clauses), Some(false));
    }

    #[test]
    fn too_many_combinations_leave_the_question_open() {
        let selectors: Vec<_> = (0..20).map(|n| selector(&[(&format!("k{n}"), Operator::NotIn(of("v")))])).collect();
        assert_eq!(covers(&selectors), None);
    }
}
