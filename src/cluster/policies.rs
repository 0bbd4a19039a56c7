//! A namespace's NetworkPolicies, and which of them select a pod, told without asking each.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

use super::Table;
use crate::model::{Labels, NetworkPolicy, Operator, Selector, Str};

/// Up to this many policies are asked one by one, which costs less than an index of them.
const FEW: usize = 8;

/// The NetworkPolicies of one namespace, by name.
///
/// A namespace may hold thousands of policies and of pods. To try each policy on each pod would cost
/// their product, so selectors are indexed by the labels they look at: once for each state of the
/// policies, when first asked.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    table: Table<NetworkPolicy>,
    /// Worked out of `table`, and dropped with each change of it.
    selectors: OnceLock<Arc<Selectors>>,
}

/// The index follows from the policies, so it is not compared.
impl PartialEq for Policies {
    fn eq(&self, other: &Self) -> bool {
        self.table == other.table
    }
}

impl Deref for Policies {
    type Target = Table<NetworkPolicy>;

    fn deref(&self) -> &Table<NetworkPolicy> {
        &self.table
    }
}

impl Policies {
    /// No policies: the set that others are put into.
    pub fn none(&self) -> PolicySet {
        PolicySet::with_room_for(self.len())
    }

    /// The policies for which something holds.
    pub fn having(&self, holds: impl Fn(&NetworkPolicy) -> bool) -> PolicySet {
        let mut set = self.none();
        for (place, policy) in self.iter().enumerate() {
            if holds(policy) {
                set.insert(place);
            }
        }
        set
    }

    /// Those that select a pod with these labels.
    pub fn selecting(&self, labels: &Labels) -> PolicySet {
        if self.len() <= FEW {
            return self.having(|policy| policy.pods.matches(labels));
        }
        let selectors = self.selectors();
        selectors.may_match(labels, self).less(&selectors.unread)
    }

    /// Those that select a pod with these labels or might, were their unknown operators known.
    pub fn maybe_selecting(&self, labels: &Labels) -> PolicySet {
        if self.len() <= FEW {
            return self.having(|policy| policy.pods.may_match(labels));
        }
        self.selectors().may_match(labels, self)
    }

    /// The policies of a set, in the order of their names.
    pub fn within<'a>(&'a self, set: &PolicySet) -> impl Iterator<Item = &'a NetworkPolicy> + use<'a> {
        set.places().collect::<SmallVec<[usize; 8]>>().into_iter().filter_map(|place| self.at(place)).map(AsRef::as_ref)
    }

    /// Those of which a part could not be read: the selector, or anything else.
    pub fn unread(&self) -> impl Iterator<Item = &NetworkPolicy> {
        let set = if self.len() <= FEW {
            self.having(|policy| policy.is_partial || has_unknown_operator(&policy.pods))
        } else {
            let selectors = self.selectors();
            let mut set = selectors.unread.clone();
            set.insert_all(&selectors.partial);
            set
        };
        self.within(&set)
    }

    pub(super) fn insert(&mut self, policy: Arc<NetworkPolicy>) {
        self.selectors = OnceLock::new();
        self.table.insert(policy);
    }

    pub(super) fn remove(&mut self, name: &Str) {
        self.selectors = OnceLock::new();
        self.table.remove(name);
    }

    fn selectors(&self) -> &Selectors {
        self.selectors.get_or_init(|| Arc::new(Selectors::of(&self.table)))
    }
}

/// Some of a namespace's policies, by their places in the table: sets of one table can be compared
/// and combined, those of two cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicySet {
    words: SmallVec<[u64; 4]>,
}

impl PolicySet {
    fn with_room_for(policies: usize) -> Self {
        Self { words: SmallVec::from_elem(0, policies.div_ceil(64)) }
    }

    /// Puts in the policy of a place. There is none beyond the end of the table.
    pub fn insert(&mut self, place: usize) {
        if let Some(word) = self.words.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    /// Takes out the policy of a place.
    pub fn remove(&mut self, place: usize) {
        if let Some(word) = self.words.get_mut(place / 64) {
            *word &= !(1 << (place % 64));
        }
    }

    /// Puts in all of another set.
    pub fn insert_all(&mut self, other: &Self) {
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
    }

    /// Whether the policy of a place is in it.
    pub fn contains(&self, place: usize) -> bool {
        self.words.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// Whether no policy is in it.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// How many policies are in it.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether some policy is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).any(|(mine, theirs)| mine & theirs != 0)
    }

    /// Those that are in both.
    #[must_use]
    pub fn both(&self, other: &Self) -> Self {
        Self { words: self.words.iter().zip(&other.words).map(|(mine, theirs)| mine & theirs).collect() }
    }

    /// Those that are not in the other.
    #[must_use]
    pub fn less(&self, other: &Self) -> Self {
        Self { words: self.words.iter().zip(&other.words).map(|(mine, theirs)| mine & !theirs).collect() }
    }

    /// The places, in ascending order.
    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(at * 64 + bit)
            })
        })
    }
}

/// Selectors by the labels they look at.
#[derive(Debug)]
struct Selectors {
    /// Those that may match a pod without labels: what is true of a pod that carries none of the
    /// labels a selector looks at.
    bare: PolicySet,
    /// Those with an operator that is not known.
    unread: PolicySet,
    /// The policies of which some part could not be read.
    partial: PolicySet,
    keys: HashMap<Str, AboutKey>,
}

/// The selectors to which a label makes a difference.
#[derive(Debug, Default)]
struct AboutKey {
    /// Whatever its value.
    any: Vec<usize>,
    /// If it has this value.
    value: HashMap<Str, Vec<usize>>,
}

impl Selectors {
    fn of(policies: &Table<NetworkPolicy>) -> Self {
        let none = PolicySet::with_room_for(policies.len());
        let mut index = Self { bare: none.clone(), unread: none.clone(), partial: none, keys: HashMap::new() };
        let bare = Labels::default();
        for (place, policy) in policies.iter().enumerate() {
            if policy.pods.may_match(&bare) {
                index.bare.insert(place);
            }
            if has_unknown_operator(&policy.pods) {
                index.unread.insert(place);
            }
            if policy.is_partial {
                index.partial.insert(place);
            }
            for requirement in policy.pods.requirements() {
                let about = index.keys.entry(requirement.key.clone()).or_default();
                match &requirement.operator {
                    Operator::In(values) | Operator::NotIn(values) => {
                        for value in values {
                            about.value.entry(value.clone()).or_default().push(place);
                        }
                    }
                    Operator::Exists | Operator::DoesNotExist => about.any.push(place),
                    Operator::Unknown(_) => {}
                }
            }
        }
        index
    }

    /// A selector that none of the labels makes a difference to answers as for a pod without labels.
    fn may_match(&self, labels: &Labels, policies: &Table<NetworkPolicy>) -> PolicySet {
        let mut set = self.bare.clone();
        let mut asked = PolicySet::with_room_for(policies.len());
        for (key, value) in labels.iter() {
            let Some(AboutKey { any, value: values }) = self.keys.get(key) else { continue };
            for &place in any.iter().chain(values.get(value).into_iter().flatten()) {
                if asked.contains(place) {
                    continue;
                }
                asked.insert(place);
                match policies.at(place) {
                    Some(policy) if policy.pods.may_match(labels) => set.insert(place),
                    Some(_) | None => set.remove(place),
                }
            }
        }
        set
    }
}

fn has_unknown_operator(selector: &Selector) -> bool {
    selector.requirements().iter().any(|it| matches!(it.operator, Operator::Unknown(_)))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::model::{Directions, Lifetime, Requirement};

    fn requirement() -> impl Strategy<Value = Requirement> {
        let values = || vec(select(vec!["x", "y", "z"]).prop_map(Str::from), 1..3);
        let operator = prop_oneof![
            4 => values().prop_map(Operator::In),
            3 => values().prop_map(Operator::NotIn),
            2 => Just(Operator::Exists),
            2 => Just(Operator::DoesNotExist),
            1 => Just(Operator::Unknown("Near".into())),
        ];
        (select(vec!["a", "b", "c"]), operator).prop_map(|(key, operator)| Requirement { key: key.into(), operator })
    }

    fn policies() -> impl Strategy<Value = Policies> {
        vec((vec(requirement(), 0..4), any::<bool>()), 0..90).prop_map(|written| {
            let mut policies = Policies::default();
            for (number, (requirements, is_partial)) in written.into_iter().enumerate() {
                policies.insert(Arc::new(NetworkPolicy {
                    namespace: "shop".into(),
                    name: format!("{number}").into(),
                    created: None,
                    lifetime: Lifetime::default(),
                    pods: Selector::new(requirements),
                    isolates: Directions::BOTH,
                    ingress: Vec::new(),
                    egress: Vec::new(),
                    is_partial,
                }));
            }
            policies
        })
    }

    fn labels() -> impl Strategy<Value = Labels> {
        let label = (select(vec!["a", "b", "c", "d"]), select(vec!["x", "y", "z", "w"]));
        vec(label, 0..4).prop_map(|labels| labels.into_iter().collect())
    }

    proptest! {
        #[test]
        fn the_index_selects_what_asking_each_policy_selects(policies in policies(), pods in vec(labels(), 1..8)) {
            for pod in &pods {
                let names = |set: &PolicySet| policies.within(set).map(|it| it.name.clone()).collect::<Vec<_>>();
                prop_assert_eq!(
                    names(&policies.selecting(pod)),
                    names(&policies.having(|policy| policy.pods.matches(pod)))
                );
                prop_assert_eq!(
                    names(&policies.maybe_selecting(pod)),
                    names(&policies.having(|policy| policy.pods.may_match(pod)))
                );
            }
            let unread: Vec<_> = policies.unread().map(|it| it.name.clone()).collect();
            let is_unread = |it: &&Arc<NetworkPolicy>| it.is_partial || has_unknown_operator(&it.pods);
            prop_assert_eq!(unread, policies.iter().filter(is_unread).map(|it| it.name.clone()).collect::<Vec<_>>());
        }

        #[test]
        fn a_change_of_the_policies_shows_in_what_they_select(mut policies in policies(), pod in labels()) {
            let _ = policies.selecting(&pod);
            let first = policies.iter().next().map(|policy| policy.name.clone());
            if let Some(first) = first {
                policies.remove(&first);
            }
            let expected = policies.having(|policy| policy.pods.matches(&pod));
            prop_assert_eq!(policies.selecting(&pod), expected);
        }
    }

    #[test]
    fn sets_of_policies_combine_as_sets_do() {
        let of = |places: &[usize]| {
            let mut set = PolicySet::with_room_for(130);
            for place in places {
                set.insert(*place);
            }
            set
        };
        let (a, b) = (of(&[0, 63, 64, 129]), of(&[63, 128, 129]));
        assert_eq!(a.both(&b), of(&[63, 129]));
        assert_eq!(a.less(&b), of(&[0, 64]));
        assert!(a.overlaps(&b) && !a.overlaps(&of(&[1, 65])));
        assert_eq!(a.places().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!((a.len(), of(&[]).is_empty()), (4, true));
        let mut all = a.clone();
        all.insert_all(&b);
        all.remove(0);
        assert_eq!(all, of(&[63, 64, 128, 129]));
    }
}
