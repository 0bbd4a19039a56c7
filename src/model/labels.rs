//! Labels: a small sorted map.

use std::fmt;
use std::sync::Arc;

use super::Str;

/// A set of labels (or the exact-match form of a selector), sorted by key, one value a key.
///
/// Pods of one workload share theirs, so a clone is a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[(Str, Str)]>);

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl Labels {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Str> {
        let at = self.0.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Whether a key has exactly this value.
    pub fn has(&self, key: &str, value: &str) -> bool {
        self.get(key).is_some_and(|found| found == value)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Keys and values in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Str, &Str)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Whether every label here is on `other` too: exact-match selection.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter().all(|(key, value)| other.get(key).is_some_and(|found| found == value))
    }

    /// These labels with one more, which wins over one of the same key.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        let kept = self.iter().filter(|(k, _)| *k != key).map(|(k, v)| (k.clone(), v.clone()));
        kept.chain([(Str::from(key), Str::from(value))]).collect()
    }

    /// These labels but for the one of this key.
    #[must_use]
    pub fn without(&self, key: &str) -> Self {
        if self.get(key).is_none() {
            return self.clone();
        }
        self.iter().filter(|(k, _)| *k != key).map(|(k, v)| (k.clone(), v.clone())).collect()
    }
}

impl<K: Into<Str>, V: Into<Str>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let mut sorted: Vec<(Str, Str)> = labels.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        sorted.sort();
        sorted.dedup_by(|next, kept| next.0 == kept.0);
        Self(sorted.into())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Labels {
    fn from(labels: [(&str, &str); N]) -> Self {
        labels.into_iter().collect()
    }
}

/// `app=cart,tier=web`, as `kubectl -l` takes it.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Labels({self})")
    }
}
