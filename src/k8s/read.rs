//! Reading a typed value out of JSON text or a parsed value, with the path of what is wrong.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_path_to_error::Segment;

use super::Problem;
use crate::model::FieldPath;

/// How many items of lists and mappings are read of one object, all told. The shortest items are a
/// few bytes of text and many times as much in memory, so that the length of a text does not bound
/// what it becomes. What a cluster stores (at most 1.5 MiB in etcd) holds fewer addresses than this.
pub const MOST_ITEMS: usize = 50_000;

/// What is said of an object with more.
pub(super) const TOO_LARGE: &str = "too large to judge: the object holds more than 50000 items of lists and mappings";

/// A longer text is read into the types here alone, which [`MOST_ITEMS`] bounds.
const LARGE: usize = 128 * 1024;

thread_local! {
    /// How many items of the object that this thread reads are left to be read.
    static ITEMS_LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Begins to read an object.
fn begin() {
    ITEMS_LEFT.set(MOST_ITEMS);
}

/// Takes one more item into memory, or ends the reading.
fn one_more<E: serde::de::Error>() -> Result<(), E> {
    let left = ITEMS_LEFT.get().checked_sub(1).ok_or_else(|| E::custom(TOO_LARGE))?;
    ITEMS_LEFT.set(left);
    Ok(())
}

/// Where an object is read from.
pub(super) trait Source<'a>: Copy {
    /// The object as a `T`, or the first thing about it that is none.
    fn read<T: DeserializeOwned>(self) -> Result<T, Problem>;

    /// The object as a `T` that takes nothing but what is well formed. Nothing where it is not, and
    /// where nobody has seen to it that an object is a mapping: a derived type would also take a
    /// list of its fields in their order.
    fn read_well_formed<T: DeserializeOwned>(self) -> Option<T>;

    /// Whether it is too long a text for types that are not bounded.
    fn is_large(self) -> bool;
}

impl<'a> Source<'a> for &'a str {
    fn read<T: DeserializeOwned>(self) -> Result<T, Problem> {
        // The path costs time at every field, so it is asked for only once something is wrong.
        begin();
        serde_json::from_str(self).or_else(|_| {
            begin();
            let mut json = serde_json::Deserializer::from_str(self);
            serde_path_to_error::deserialize(&mut json).map_err(|error| problem(&error))
        })
    }

    fn read_well_formed<T: DeserializeOwned>(self) -> Option<T> {
        begin();
        serde_json::from_str(self).ok()
    }

    fn is_large(self) -> bool {
        self.len() > LARGE
    }
}

impl<'a> Source<'a> for &'a Value {
    fn read<T: DeserializeOwned>(self) -> Result<T, Problem> {
        begin();
        T::deserialize(self).or_else(|_| {
            begin();
            serde_path_to_error::deserialize(self).map_err(|error| problem(&error))
        })
    }

    fn read_well_formed<T: DeserializeOwned>(self) -> Option<T> {
        None
    }

    fn is_large(self) -> bool {
        false
    }
}

fn problem(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let path = error.path().iter().fold(FieldPath::root(), |path, segment| match segment {
        Segment::Seq { index } => path.index(*index),
        Segment::Map { key } => path.field(key),
        Segment::Enum { variant } => path.field(variant),
        Segment::Unknown => path,
    });
    let message = error.inner().to_string();
    // The place in a text nobody sees (one line of JSON) helps nobody.
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    Problem::new(path, message)
}

/// A list, read as far as [`MOST_ITEMS`] lets it.
#[derive(Debug, PartialEq)]
pub(super) struct Many<T>(Vec<T>);

/// A mapping, read as far as [`MOST_ITEMS`] lets it.
#[derive(Debug, PartialEq)]
pub(super) struct Mapping<K, V>(BTreeMap<K, V>);

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Many<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<K, V> Deref for Mapping<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.0
    }
}

impl<T> IntoIterator for Many<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Many<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<K, V> IntoIterator for Mapping<K, V> {
    type Item = (K, V);
    type IntoIter = std::collections::btree_map::IntoIter<K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, K, V> IntoIterator for &'a Mapping<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::collections::btree_map::Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T> FromIterator<T> for Many<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Mapping<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for Mapping<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

struct Items<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
    type Value = Many<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut written: A) -> Result<Many<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = written.next_element()? {
            one_more()?;
            items.push(item);
        }
        Ok(Many(items))
    }
}

struct Entries<K, V>(PhantomData<(K, V)>);

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
    type Value = Mapping<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut written: A) -> Result<Mapping<K, V>, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = written.next_entry()? {
            one_more()?;
            entries.insert(key, value);
        }
        Ok(Mapping(entries))
    }
}

/// A value together with the fields of it that its type does not know.
#[derive(Debug)]
pub(super) struct Strict<T> {
    pub(super) value: T,
    pub(super) unknown: Vec<FieldPath>,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Strict<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Asked for as a map: a derived struct would also take a list of its fields in their order.
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = Strict<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Strict<T>, A::Error> {
        let mut unknown = Vec::new();
        let fields = MapAccessDeserializer::new(fields);
        let value = serde_ignored::deserialize(fields, |path| unknown.push(field_path(&path)))?;
        Ok(Strict { value, unknown })
    }
}

fn field_path(path: &serde_ignored::Path<'_>) -> FieldPath {
    use serde_ignored::Path;
    match path {
        Path::Root => FieldPath::root(),
        Path::Seq { parent, index } => field_path(parent).index(*index),
        Path::Map { parent, key } => field_path(parent).field(key),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => field_path(parent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
        text.read()
    }

    #[test]
    fn a_list_and_a_mapping_are_read_up_to_the_limit_and_not_beyond() {
        for (items, is_read) in [(MOST_ITEMS, true), (MOST_ITEMS + 1, false)] {
            let list = format!("[{}]", vec!["{}"; items].join(","));
            assert_eq!(read::<Many<Empty>>(&list).is_ok(), is_read);
            let entries: Vec<_> = (0..items).map(|number| format!(r#""{number}":"""#)).collect();
            let read = read::<Mapping<String, String>>(&format!("{{{}}}", entries.join(",")));
            assert_eq!(read.is_ok(), is_read);
            assert_eq!(read.err().map(|problem| problem.is_too_large()), (!is_read).then_some(true));
        }
    }

    #[test]
    fn what_is_in_lists_of_lists_counts_together_and_each_object_for_itself() {
        let half = format!("[{}]", vec!["{}"; MOST_ITEMS / 2].join(","));
        for _ in 0..3 {
            assert!(read::<Many<Many<Empty>>>(&format!("[{half}]")).is_ok());
        }
        let problem = read::<Many<Many<Empty>>>(&format!("[{half},{half}]")).unwrap_err();
        assert!(problem.is_too_large(), "{problem:?}");
        assert_eq!(problem.path.as_str(), "[1]");
    }

    #[derive(Debug, Deserialize)]
    struct Empty {}
}
