//! Reading YAML and JSON with positions: the only parser of either in the program's inputs.
//!
//! Manifests are read as `kubectl` reads them (sigs.k8s.io/yaml over go-yaml v2): plain scalars by
//! YAML 1.1, duplicate keys refused, merge keys and aliases expanded within bounds. Every value
//! keeps its place in the text, so that whatever is said of a field can point at it.
//!
//! What a document means is left to others; so is reading files.

mod document;
mod scalar;
mod source;
mod write;

pub use document::{Document, Parsed, parse};
pub use write::{block, flow};

pub use source::{Place, Position, Problem, Source, Span};
