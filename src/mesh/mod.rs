//! Effective mutual TLS, by the mesh's own precedence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Str;

/// How the mesh is set up, where the cluster does not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct MeshSettings {
    /// The mesh's root namespace. Left out, it is read from the mesh's ConfigMap, and is
    /// `istio-system` where there is none.
    #[schemars(with = "Option<String>")]
    pub root_namespace: Option<Str>,
}
