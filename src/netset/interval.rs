//! Sets of numbers as sorted, disjoint, inclusive ranges.

use std::fmt;

use smallvec::SmallVec;

/// A number a range can end on: the algebra needs its extremes and its neighbours.
pub trait Bound: Copy + Ord + fmt::Debug {
    /// The smallest member of the space.
    const MIN: Self;
    /// The largest member of the space.
    const MAX: Self;
    /// The next larger number, or nothing at [`Bound::MAX`].
    fn successor(self) -> Option<Self>;
    /// The next smaller number, or nothing at the type's own minimum.
    fn predecessor(self) -> Option<Self>;
    /// How many numbers lie between `self` and `last`, both included, as a float: the IPv6 space
    /// has one more member than `u128` can count.
    fn distance(self, last: Self) -> f64;
}

macro_rules! bound {
    ($($number:ty: $min:expr),*) => {$(
        impl Bound for $number {
            const MIN: Self = $min;
            const MAX: Self = <$number>::MAX;
            fn successor(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn predecessor(self) -> Option<Self> {
                self.checked_sub(1)
            }
            #[allow(clippy::cast_precision_loss, clippy::cast_lossless, reason = "a share of an address space needs no more digits than a float has")]
            fn distance(self, last: Self) -> f64 {
                (last - self) as f64 + 1.0
            }
        }
    )*};
}

// Port 0 is no port (NetworkPolicyPort.port is 1 to 65535), so the port space starts at 1.
bound!(u16: 1, u32: 0, u128: 0);

/// Nearly every set of ports or addresses a policy names is one range or two, which then take no
/// memory of their own.
type Ranges<T> = SmallVec<[(T, T); 2]>;

/// A canonical set of numbers.
///
/// **Invariant:** ranges are inclusive, sorted, disjoint, and no two of them touch.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IntervalSet<T> {
    ranges: Ranges<T>,
}

impl<T> Default for IntervalSet<T> {
    fn default() -> Self {
        Self { ranges: Ranges::new() }
    }
}

impl<T: Bound> IntervalSet<T> {
    /// The set with no member.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The whole space.
    pub fn full() -> Self {
        Self::range(T::MIN, T::MAX)
    }

    /// The numbers from `first` to `last`, both included, as far as they are in the space; empty when
    /// `last` comes before `first`.
    pub fn range(first: T, last: T) -> Self {
        let first = first.max(T::MIN);
        let ranges = (first <= last).then_some((first, last)).into_iter().collect();
        Self { ranges }
    }

    /// The set of one number.
    pub fn single(value: T) -> Self {
        Self::range(value, value)
    }

    /// Every range given, in any order and with any overlap.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (T, T)>) -> Self {
        let inside = ranges.into_iter().map(|(first, last)| (first.max(T::MIN), last));
        let mut ranges: Ranges<T> = inside.filter(|(first, last)| first <= last).collect();
        ranges.sort_unstable();
        Self { ranges: merge_sorted(ranges) }
    }

    /// The ranges in ascending order.
    pub fn ranges(&self) -> &[(T, T)] {
        &self.ranges
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether the whole space is in the set.
    pub fn is_full(&self) -> bool {
        self.ranges.as_slice() == [(T::MIN, T::MAX)]
    }

    /// Whether `value` is in the set.
    pub fn contains(&self, value: T) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= value);
        after.checked_sub(1).and_then(|i| self.ranges.get(i)).is_some_and(|(_, last)| value <= *last)
    }

    /// Whether every member of `other` is a member of this set.
    pub fn is_superset(&self, other: &Self) -> bool {
        other.subtract(self).is_empty()
    }

    /// Whether the two sets share a member.
    pub fn overlaps(&self, other: &Self) -> bool {
        !self.intersect(other).is_empty()
    }

    /// How many members, as a float (the IPv6 space does not fit an integer).
    pub fn count(&self) -> f64 {
        self.ranges.iter().map(|(first, last)| first.distance(*last)).sum()
    }

    /// The part of the whole space that is in the set, from 0.0 to 1.0.
    pub fn share(&self) -> f64 {
        self.count() / T::MIN.distance(T::MAX)
    }

    /// Members of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        if self.is_empty() {
            return other.clone();
        }
        if other.is_empty() {
            return self.clone();
        }
        Self::from_ranges(self.ranges.iter().chain(&other.ranges).copied())
    }

    /// Members of both sets.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let mut ranges = Ranges::new();
        let (mut left, mut right) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(&&(a, b)), Some(&&(c, d))) = (left.peek(), right.peek()) {
            let (first, last) = (a.max(c), b.min(d));
            if first <= last {
                ranges.push((first, last));
            }
            if b < d {
                left.next();
            } else {
                right.next();
            }
        }
        Self { ranges }
    }

    /// Members of this set that are not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        self.intersect(&other.complement())
    }

    /// Members of the space that are not in this set.
    #[must_use]
    pub fn complement(&self) -> Self {
        let mut ranges = Ranges::with_capacity(self.ranges.len() + 1);
        let mut next = Some(T::MIN);
        for &(first, last) in &self.ranges {
            if let (Some(start), Some(end)) = (next, first.predecessor())
                && start <= end
            {
                ranges.push((start, end));
            }
            next = last.successor();
        }
        if let Some(start) = next {
            ranges.push((start, T::MAX));
        }
        Self { ranges }
    }
}

/// Joins ranges that overlap or touch; `ranges` is sorted.
fn merge_sorted<T: Bound>(ranges: Ranges<T>) -> Ranges<T> {
    let mut merged: Ranges<T> = Ranges::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if end.successor().is_none_or(|next| first <= next) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

impl<T: fmt::Debug + PartialEq> fmt::Debug for IntervalSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.ranges.iter().map(|(a, b)| a..=b)).finish()
    }
}
