//! Label selectors (`meta/v1 LabelSelector`).

use std::fmt;

use super::{Labels, Str};

/// What a label selector demands: every requirement, `matchLabels` and `matchExpressions` alike.
/// With none it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One demand on one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    /// The label's key.
    pub key: Str,
    /// What is demanded of it.
    pub operator: Operator,
}

/// How many values are compared before it is left open whether a selector implies another.
const MOST_STEPS: usize = 100_000;

/// The operators of `LabelSelectorRequirement`; `matchLabels` is `In` with one value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// The key is there with one of these values, which are sorted ([`Selector::new`] sees to it).
    In(Vec<Str>),
    /// The key is absent, or there with none of these values, which are sorted.
    NotIn(Vec<Str>),
    /// The key is there.
    Exists,
    /// The key is absent.
    DoesNotExist,
    /// An operator this version does not know: it may match or not, and counts as no match.
    Unknown(Str),
}

impl Selector {
    /// The selector that matches everything: `{}`.
    pub fn everything() -> Self {
        Self::default()
    }

    /// A selector of these requirements, in canonical order: neither theirs nor their values'
    /// matters.
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        let mut requirements: Vec<_> = requirements.into_iter().collect();
        for Requirement { key: _, operator } in &mut requirements {
            if let Operator::In(values) | Operator::NotIn(values) = operator {
                values.sort();
                values.dedup();
            }
        }
        requirements.sort();
        requirements.dedup();
        Self { requirements }
    }

    /// The requirements, sorted.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it is written as `{}`. Others may still match everything there is.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether it matches a set of labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether it matches a set of labels or might, were its unknown operators known.
    pub fn may_match(&self, labels: &Labels) -> bool {
        let may = |it: &Requirement| matches!(it.operator, Operator::Unknown(_)) || it.matches(labels);
        self.requirements.iter().all(may)
    }

    /// Whether `other` matches whatever this matches, pods to come included; of a selector that matches
    /// nothing at all it may say no. Nothing where it takes too long to find out: selectors that people
    /// write take a handful of steps.
    pub fn implies(&self, other: &Self) -> Option<bool> {
        let mut steps = MOST_STEPS;
        for demand in &other.requirements {
            if self.requirements.binary_search(demand).is_ok() {
                continue;
            }
            steps = steps.checked_sub(self.requirements.len())?;
            let mine: Vec<&Requirement> = self.requirements.iter().filter(|it| it.key == demand.key).collect();
            let values = mine.iter().copied().chain([demand]).flat_map(|it| it.operator.values());
            // Only values that are named can make a difference, and one that is not: no label has this one.
            let tried = [None, Some("\0")].into_iter().chain(values.map(|value| Some(value.as_str())));
            let cost = 1 + mine.iter().map(|it| it.operator.values().len()).sum::<usize>();
            for value in tried {
                steps = steps.checked_sub(cost)?;
                if mine.iter().all(|it| it.matches_value(value)) && !demand.matches_value(value) {
                    return Some(false);
                }
            }
        }
        Some(true)
    }

    /// Labels that meet it and carry no more than it takes, as far as that is possible.
    pub fn sample(&self) -> Labels {
        let label = |Requirement { key, operator }: &Requirement| match operator {
            Operator::In(values) => Some((key.clone(), values.first()?.clone())),
            Operator::Exists => Some((key.clone(), Str::default())),
            Operator::NotIn(_) | Operator::DoesNotExist | Operator::Unknown(_) => None,
        };
        self.requirements.iter().filter_map(label).collect()
    }

    /// The value the selector pins a key to, when it allows exactly one.
    pub fn pinned(&self, key: &str) -> Option<&Str> {
        self.requirements.iter().find_map(|requirement| match &requirement.operator {
            Operator::In(values) if requirement.key == key => match values.as_slice() {
                [value] => Some(value),
                _ => None,
            },
            _ => None,
        })
    }
}

impl Operator {
    /// The values it names.
    pub fn values(&self) -> &[Str] {
        match self {
            Self::In(values) | Self::NotIn(values) => values,
            Self::Exists | Self::DoesNotExist | Self::Unknown(_) => &[],
        }
    }
}

impl Requirement {
    /// Whether a set of labels meets this demand (`labels.Requirement.Matches` in apimachinery).
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_value(labels.get(&self.key).map(Str::as_str))
    }

    /// Whether a key with this value, or absent, meets this demand.
    pub fn matches_value(&self, found: Option<&str>) -> bool {
        match (&self.operator, found) {
            (Operator::In(values), Some(found)) => names(values, found),
            (Operator::NotIn(values), Some(found)) => !names(values, found),
            (Operator::Exists, Some(_)) | (Operator::NotIn(_) | Operator::DoesNotExist, None) => true,
            (Operator::DoesNotExist, Some(_))
            | (Operator::In(_) | Operator::Exists, None)
            | (Operator::Unknown(_), _) => false,
        }
    }
}

/// Whether a value is among sorted ones.
fn names(values: &[Str], value: &str) -> bool {
    values.binary_search_by(|it| it.as_str().cmp(value)).is_ok()
}

/// The exact-match form.
impl From<&Labels> for Selector {
    fn from(labels: &Labels) -> Self {
        Self::new(
            labels
                .iter()
                .map(|(key, value)| Requirement { key: key.clone(), operator: Operator::In(vec![value.clone()]) }),
        )
    }
}

/// `app=cart,tier in (a,b),!legacy`, as `kubectl -l` takes it; `{}` for everything.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_everything() {
            return f.write_str("{}");
        }
        for (i, Requirement { key, operator }) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match operator {
                Operator::In(values) => match values.as_slice() {
                    [value] => write!(f, "{key}={value}")?,
                    values => write!(f, "{key} in ({})", values.join(","))?,
                },
                Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Operator::Exists => write!(f, "{key}")?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
                Operator::Unknown(operator) => write!(f, "{key} {operator}(?)")?,
            }
        }
        Ok(())
    }
}
