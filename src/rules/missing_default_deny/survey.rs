//! What the policies of one namespace come to in one direction: worked out once, for all its pods.
//!
//! A namespace may hold thousands of policies and of pods, written to make judging slow. Pods under
//! the same policies are judged once, and what the judging costs is bounded.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::opening::{Admits, Work, might_open, open};
use super::{badness, given_back};
use crate::cluster::{NamespaceState, PolicySet};
use crate::model::{Direction, Labels, NetworkPolicy, Selector, Str, Workload};
use crate::reach::Truth;
use crate::rules::View;
use crate::rules::cover::{covers_everything, nameless_pods};
use crate::rules::variants::{Variant, Variants};

/// How many questions of the largest size are answered of one namespace and direction.
const QUESTIONS: usize = 8;

/// Of how many policies the needed ones are found by leaving out each in turn. Of more, the widest
/// that are enough are named.
const FEW: usize = 32;

/// The policies of one namespace in one direction, and what was found out about them.
pub(super) struct Survey<'a, 'v> {
    view: &'a View<'v>,
    pub(super) state: &'a NamespaceState,
    direction: Direction,
    isolating: PolicySet,
    contributions: OnceCell<Contributions>,
    by_default: OnceCell<ByDefault>,
    variants: OnceCell<Variants<'a>>,
    opens: RefCell<BTreeMap<PolicySet, Truth>>,
    openers: RefCell<BTreeMap<PolicySet, Arc<[Str]>>>,
    work: Work,
}

/// What each policy contributes to opening pods.
struct Contributions {
    /// By place; nothing for a policy that contributes nothing.
    admits: Vec<Option<Admits>>,
    contributing: PolicySet,
    /// Those that give everything back alone.
    alone: PolicySet,
    /// Those that perhaps do.
    perhaps_alone: PolicySet,
}

/// What is true of a pod that no policy names by its labels, and so of pods to come.
pub(super) enum ByDefault {
    /// It is isolated, and not given everything back.
    Sound,
    /// Nothing isolates it.
    Missing,
    /// What holds for it takes too long to find out.
    Unknown,
    /// These policies isolate it and give everything back; perhaps.
    Opened(PolicySet, Truth),
}

impl ByDefault {
    pub(super) fn badness(&self) -> Option<u8> {
        match self {
            Self::Sound => None,
            Self::Missing => Some(badness::NOT_ISOLATED),
            Self::Unknown => Some(badness::UNCERTAIN),
            Self::Opened(_, truth) => given_back(*truth),
        }
    }
}

impl<'a, 'v> Survey<'a, 'v> {
    pub(super) fn of(view: &'a View<'v>, state: &'a NamespaceState, direction: Direction) -> Self {
        Self {
            view,
            state,
            direction,
            isolating: state.policies.having(|policy| policy.isolates.contains(direction)),
            contributions: OnceCell::new(),
            by_default: OnceCell::new(),
            variants: OnceCell::new(),
            opens: RefCell::default(),
            openers: RefCell::default(),
            work: Work::of_questions(QUESTIONS),
        }
    }

    /// The policies that isolate a pod with these labels.
    pub(super) fn selecting(&self, labels: &Labels) -> PolicySet {
        self.state.policies.selecting(labels).both(&self.isolating)
    }

    /// The pods of a workload, as far as the policies can tell them apart; nothing where they are of too
    /// many kinds.
    pub(super) fn pods_of(&self, workload: &Workload) -> Option<Vec<Variant>> {
        let selectors = || self.policies(&self.isolating).map(|policy| &policy.pods);
        self.variants.get_or_init(|| Variants::new(self.state, selectors())).of(workload)
    }

    /// The policies that give everything back to pods of a workload, or to some of them, or may.
    pub(super) fn opening(&self, workload: &Workload) -> Option<PolicySet> {
        let pods = self.pods_of(workload).unwrap_or_default();
        let opened = pods.iter().map(|pod| (self.selecting(&pod.labels), pod.is_certain));
        let opened = opened.map(|(set, is_certain)| (self.opens(&set), is_certain, set));
        let (truth, _, set) =
            opened.max_by_key(|(truth, is_certain, _)| (Truth::from(*is_certain).min(*truth), *truth))?;
        (truth > Truth::No).then_some(set)
    }

    /// What holds for pods that no policy names.
    pub(super) fn by_default(&self) -> &ByDefault {
        self.by_default.get_or_init(|| {
            let places: Vec<usize> = self.isolating.places().collect();
            let selectors: Vec<&Selector> = self.policies(&self.isolating).map(|policy| &policy.pods).collect();
            match covers_everything(&selectors) {
                Some(true) => {}
                Some(false) => return ByDefault::Missing,
                None => return ByDefault::Unknown,
            }
            if self.opens_nothing() {
                return ByDefault::Sound;
            }
            let nameless = nameless_pods(&selectors);
            let opened = nameless.matching.into_iter().map(|matching| {
                let mut set = self.state.policies.none();
                matching.into_iter().filter_map(|at| places.get(at)).for_each(|place| set.insert(*place));
                let truth = self.opens(&set);
                (set, truth)
            });
            match opened.max_by_key(|(_, truth)| *truth) {
                Some((set, truth)) if truth > Truth::No => ByDefault::Opened(set, truth),
                Some(_) | None if nameless.is_complete => ByDefault::Sound,
                Some(_) | None => ByDefault::Unknown,
            }
        })
    }

    /// A quick no: all policies of the namespace together would not open a pod.
    pub(super) fn opens_nothing(&self) -> bool {
        !might_open(self.policies(&self.isolating), self.direction) || self.opens(&self.isolating) == Truth::No
    }

    /// Whether policies give everything back to a pod that they, and no others, select.
    pub(super) fn opens(&self, set: &PolicySet) -> Truth {
        let Contributions { admits, contributing, alone, .. } = self.contributions();
        if set.overlaps(alone) {
            return Truth::Yes;
        }
        let set = set.both(contributing);
        if let Some(known) = self.opens.borrow().get(&set) {
            return *known;
        }
        let admits: Vec<&Admits> = set.places().filter_map(|place| admits.get(place)?.as_ref()).collect();
        let truth = open(self.view, &admits, &self.work);
        self.opens.borrow_mut().insert(set, truth);
        truth
    }

    /// The names of those policies of a set that give everything back: each that does so alone, else
    /// the fewest that were found to do so together.
    pub(super) fn openers(&self, set: &PolicySet) -> Arc<[Str]> {
        let Contributions { admits, contributing, alone, perhaps_alone } = self.contributions();
        let set = set.both(contributing);
        if let Some(known) = self.openers.borrow().get(&set) {
            return Arc::clone(known);
        }
        let whole = self.opens(&set);
        let by_themselves = set.both(if whole == Truth::Yes { alone } else { perhaps_alone });
        let mut needed = if by_themselves.is_empty() { set.clone() } else { by_themselves };
        if needed == set {
            if needed.len() > FEW {
                let mut widest: Vec<usize> = needed.places().collect();
                let width = |place: &usize| admits.get(*place).and_then(Option::as_ref).map_or(0.0, Admits::width);
                widest.sort_by(|a, b| width(b).total_cmp(&width(a)));
                let of_widest = |count: usize| {
                    let mut set = self.state.policies.none();
                    widest.iter().take(count).for_each(|place| set.insert(*place));
                    set
                };
                let (mut too_few, mut enough) = (0, widest.len());
                while too_few < enough {
                    let half = usize::midpoint(too_few, enough);
                    if self.opens(&of_widest(half)) == whole { enough = half } else { too_few = half + 1 }
                }
                needed = of_widest(enough);
            }
            if needed.len() <= FEW {
                for place in needed.clone().places() {
                    let mut rest = needed.clone();
                    rest.remove(place);
                    if self.opens(&rest) == whole {
                        needed = rest;
                    }
                }
            }
        }
        let names: Arc<[Str]> = self.policies(&needed).map(|policy| policy.name.clone()).collect();
        self.openers.borrow_mut().insert(set, Arc::clone(&names));
        names
    }

    fn policies(&self, set: &PolicySet) -> impl Iterator<Item = &'a NetworkPolicy> + use<'a> {
        self.state.policies.within(set)
    }

    fn contributions(&self) -> &Contributions {
        self.contributions.get_or_init(|| {
            let none = || self.state.policies.none();
            let mut all = Contributions {
                admits: Vec::with_capacity(self.state.policies.len()),
                contributing: none(),
                alone: none(),
                perhaps_alone: none(),
            };
            for (place, policy) in self.state.policies.iter().enumerate() {
                self.view.check_stop();
                let admits = self.isolating.contains(place).then(|| Admits::of(policy, self.direction));
                let admits = admits.filter(|admits| !admits.is_empty());
                if let Some(admits) = &admits {
                    all.contributing.insert(place);
                    match open(self.view, &[admits], &self.work) {
                        Truth::Yes => all.alone.insert(place),
                        Truth::Maybe => all.perhaps_alone.insert(place),
                        Truth::No => {}
                    }
                }
                all.admits.push(admits);
            }
            all
        })
    }
}
