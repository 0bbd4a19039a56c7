//! Reading a typed value out of JSON text or a parsed value, with the path of what is wrong.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_path_to_error::Segment;

use super::Problem;
use crate::model::FieldPath;

/// Where an object is read from.
pub(super) trait Source<'a>: Copy {
    /// The object as a `T`, or the first thing about it that is none.
    fn read<T: DeserializeOwned>(self) -> Result<T, Problem>;

    /// The object as a `T` that takes nothing but what is well formed. Nothing where it is not, and
    /// where nobody has seen to it that an object is a mapping: a derived type would also take a
    /// list of its fields in their order.
    fn read_well_formed<T: DeserializeOwned>(self) -> Option<T>;
}

impl<'a> Source<'a> for &'a str {
    fn read<T: DeserializeOwned>(self) -> Result<T, Problem> {
        // The path costs time at every field, so it is asked for only once something is wrong.
        serde_json::from_str(self).or_else(|_| {
            let mut json = serde_json::Deserializer::from_str(self);
            serde_path_to_error::deserialize(&mut json).map_err(|error| problem(&error))
        })
    }

    fn read_well_formed<T: DeserializeOwned>(self) -> Option<T> {
        serde_json::from_str(self).ok()
    }
}

impl<'a> Source<'a> for &'a Value {
    fn read<T: DeserializeOwned>(self) -> Result<T, Problem> {
        T::deserialize(self).or_else(|_| serde_path_to_error::deserialize(self).map_err(|error| problem(&error)))
    }

    fn read_well_formed<T: DeserializeOwned>(self) -> Option<T> {
        None
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
