//! Lowering: Kubernetes and Istio objects into the model.

use serde_json::Value;

use crate::model::{FieldPath, Object};

/// An object as far as it could be read.
#[derive(Debug, Default)]
pub struct Lowered {
    /// The object; nothing where the kind is one no rule reads.
    pub object: Option<Object>,
    /// What could not be read, or what the API server would refuse.
    pub problems: Vec<Problem>,
}

/// Something about an object that cannot be read as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub path: FieldPath,
    /// What, in one line.
    pub message: String,
}

/// Lowers one object given as JSON text. `default_namespace` is where a namespaced object without
/// `metadata.namespace` is put.
pub fn lower_json(_json: &str, _default_namespace: &str) -> Lowered {
    Lowered::default()
}

/// Lowers one object given as a parsed value.
pub fn lower_value(_object: &Value, _default_namespace: &str) -> Lowered {
    Lowered::default()
}
