//! Where in an object something is.

use std::fmt;

/// A field of an API object, as the API server prints it:
/// `spec.egress[0].to[1].ipBlock.cidr`, `metadata.labels[app.kubernetes.io/name]`.
///
/// Findings carry a path and never a line: only the edges know which file an object came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldPath(String);

impl FieldPath {
    /// The object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// A path written out.
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// The field of this name below this one. A key that is no plain identifier (a label's, say)
    /// is put in brackets, as `k8s.io/apimachinery/pkg/util/validation/field` does.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        Self(match (plain, self.0.is_empty()) {
            (true, true) => name.to_owned(),
            (true, false) => format!("{}.{name}", self.0),
            (false, _) => format!("{}[{name}]", self.0),
        })
    }

    /// The item at this place of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path of what holds this field; nothing for the object itself.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        let cut = if self.0.ends_with(']') { self.0.rfind('[') } else { self.0.rfind('.') };
        Some(Self(self.0.get(..cut.unwrap_or(0)).unwrap_or_default().to_owned()))
    }

    /// The path as text; empty for the object itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the object itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
