//! The Kubernetes objects a document holds, or why it holds none.

use std::path::Path;

use serde_json::Value;

use crate::model::{FieldPath, ObjectRef};
use crate::yaml::{Document, Problem, Span};

/// What the documents of one file came to.
#[derive(Default)]
pub(super) struct Objects {
    /// The objects in their order.
    pub(super) read: Vec<Found>,
    /// What is no object, and why.
    pub(super) problems: Vec<Problem>,
    /// Documents that are for kustomize.
    pub(super) for_kustomize: Vec<Span>,
}

/// An object and where it is.
pub(super) struct Found {
    pub(super) value: Value,
    /// The number of its document in the file.
    pub(super) document: usize,
    /// Its path in the document: `items[3]` in a list, else nothing.
    pub(super) within: FieldPath,
}

impl Objects {
    /// Takes the documents of a file.
    pub(super) fn of(name: &str, text: &str, documents: Vec<Result<Document, Problem>>) -> Self {
        let mut objects = Self::default();
        for (number, document) in documents.into_iter().enumerate() {
            match document {
                Ok(document) if document.is_empty() => {}
                Ok(document) => objects.take(name, &document, number),
                Err(problem) => objects.problems.push(problem),
            }
        }
        objects.problems = as_template(text, objects.problems);
        objects
    }

    fn take(&mut self, name: &str, document: &Document, number: usize) {
        let value = document.value();
        if value.is_object() && is_for_kustomize(name, &value) {
            self.for_kustomize.push(document.start());
            return;
        }
        self.flatten(value, document, number, FieldPath::root());
        if let Some(problem) = self.problems.last_mut()
            && problem.help.is_none()
            && file_name(name).starts_with("values")
        {
            problem.help = Some(
                "values of a Helm chart are not checked themselves; `helm template CHART -f VALUES | portcullis check -` checks what they make"
                    .to_owned(),
            );
        }
    }

    /// Takes an object, or the items of a list. Items as the API server lists them (`PodList`)
    /// carry neither kind nor version: they are the list's.
    fn flatten(&mut self, mut value: Value, document: &Document, number: usize, within: FieldPath) {
        if let Err((field, message)) = is_object(&value) {
            self.problems.push(Problem::new(document.find(&within, &FieldPath::new(field)), message));
            return;
        }
        let kind = text(&value, "kind").to_owned();
        let is_list = kind == "List" || kind.ends_with("List") && value.get("items").is_some_and(Value::is_array);
        if !is_list {
            self.read.push(Found { value, document: number, within });
            return;
        }
        let version = value.get("apiVersion").cloned().unwrap_or_default();
        let items = match value.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            Some(_) | None => Vec::new(),
        };
        let item_kind = kind.strip_suffix("List").unwrap_or_default();
        for (index, mut item) in items.into_iter().enumerate() {
            if let Some(fields) = item.as_object_mut()
                && !item_kind.is_empty()
            {
                fields.entry("kind").or_insert_with(|| item_kind.into());
                fields.entry("apiVersion").or_insert_with(|| version.clone());
            }
            self.flatten(item, document, number, within.field("items").index(index));
        }
    }
}

/// Whether a value is a Kubernetes object; if not, the field to point at and what to say.
fn is_object(value: &Value) -> Result<(), (&'static str, String)> {
    let Some(fields) = value.as_object() else {
        let what = match value {
            Value::Array(_) => "a list",
            Value::Null => "nothing",
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => "a single value",
        };
        return Err(("", format!("this is {what}, not a Kubernetes object")));
    };
    let is_missing = |field: &&str| fields.get(*field).is_none_or(|value| value.is_null() || value == "");
    let missing: Vec<_> =
        ["apiVersion", "kind"].into_iter().filter(is_missing).map(|it| format!("no `{it}`")).collect();
    if !missing.is_empty() {
        return Err(("", format!("this is not a Kubernetes object: it has {}", missing.join(" and "))));
    }
    match ["apiVersion", "kind"].into_iter().find(|field| !fields.get(*field).is_some_and(Value::is_string)) {
        Some(field) => Err((field, format!("`{field}` has to be a string"))),
        None => Ok(()),
    }
}

/// A kustomization, which says so by its version or, as most do, by the name of its file alone.
fn is_for_kustomize(name: &str, value: &Value) -> bool {
    let version = text(value, "apiVersion");
    version.starts_with("kustomize.config.k8s.io/")
        || version.is_empty() && super::files::KUSTOMIZATIONS.contains(&file_name(name))
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn file_name(name: &str) -> &str {
    Path::new(name).file_name().and_then(|file| file.to_str()).unwrap_or_default()
}

/// The identity an object claims, where it has no other form.
pub(super) fn reference(value: &Value) -> ObjectRef {
    let metadata = value.get("metadata").unwrap_or(&Value::Null);
    let namespace = text(metadata, "namespace");
    ObjectRef {
        kind: text(value, "kind").into(),
        namespace: (!namespace.is_empty()).then(|| namespace.into()),
        name: text(metadata, "name").into(),
    }
}

/// In a file that is a template, one problem in place of the many that `{{` causes. Braces at the
/// margin cannot be part of a block of text, which is indented.
fn as_template(text: &str, problems: Vec<Problem>) -> Vec<Problem> {
    let is_among_braces = |problem: &Problem| {
        let before = text.get(..problem.span.start).unwrap_or_default();
        let line = before.rfind('\n').map_or(0, |at| at + 1);
        text.get(line..).and_then(|rest| rest.lines().next()).is_some_and(|line| line.contains("{{"))
    };
    let has_control_lines = || text.lines().any(|line| line.starts_with("{{"));
    let is_template = problems.iter().any(is_among_braces) || !problems.is_empty() && has_control_lines();
    match text.find("{{") {
        Some(at) if is_template => vec![
            Problem::new(at..at + 2, "this is a template and not YAML yet")
                .help("render it first: `helm template CHART | portcullis check -`"),
        ],
        _ => problems,
    }
}
