//! Clusters from manifest files, with the way back to the line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::files::{File, Files};
use crate::cluster::Cluster;
use crate::k8s::{self, Lowered};
use crate::model::{FieldPath, Labels, METADATA_NAME, Namespace, Object, ObjectRef};
use crate::yaml::{self, Document, Parsed, Place, Problem, Source, Span};

/// The namespaces every cluster starts with.
const INITIAL_NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// Everything that was read from a list of paths.
///
/// Reading does not fail: what could not be read is a [`Fault`], and the rest is there.
#[derive(Default)]
pub struct Manifests {
    sources: Vec<Source>,
    /// The trees of the sources, parsed again when a place in one is asked for. Nearly all objects
    /// are never pointed at, and their trees would outweigh the cluster.
    trees: Vec<OnceLock<Parsed>>,
    objects: Vec<Object>,
    origins: BTreeMap<ObjectRef, Origin>,
    /// Kubernetes documents, items of lists counted singly, whether or not a rule reads their kind.
    pub documents: usize,
    /// What was read and cannot be understood in full.
    pub unreadable: Vec<Unreadable>,
    /// What could not be read.
    pub faults: Vec<Fault>,
    /// What a person should know about how the files were taken.
    pub notes: Vec<Note>,
}

/// Where an object was read.
#[derive(Clone, Debug)]
struct Origin {
    source: usize,
    document: usize,
    /// The object's path in its document: `items[3]` in a list, else nothing.
    within: FieldPath,
}

/// Something about an object that the lowering could not read.
#[derive(Debug)]
pub struct Unreadable {
    /// The object.
    pub object: ObjectRef,
    /// The namespace it is in.
    pub namespace: Option<crate::model::Str>,
    /// What it is about.
    pub problem: k8s::Problem,
}

/// Something that could not be read at all.
#[derive(Debug)]
pub struct Fault {
    /// The file or folder.
    pub name: String,
    source: Option<usize>,
    /// What is wrong, and where in the file if it was opened.
    pub problem: Problem,
}

/// A remark about the files.
#[derive(Debug)]
pub struct Note {
    /// Where, if it is about a place.
    pub place: Option<String>,
    /// What.
    pub message: String,
}

/// `shop/web.yaml:3:9: …`.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Fault {
    pub(super) fn about(path: &Path, problem: Problem) -> Self {
        Self { name: path.display().to_string(), source: None, problem }
    }
}

impl Manifests {
    /// Reads files, folders and (`-`) standard input. A namespaced object without a namespace is
    /// put in `default_namespace`.
    pub fn read<P: AsRef<Path>>(paths: &[P], default_namespace: &str) -> Self {
        let mut files = Files::default();
        for path in paths {
            files.take(path.as_ref());
        }
        let Files { read, faults, notes, .. } = files;
        let mut manifests = Self { faults, notes, ..Self::default() };
        for file in read {
            manifests.add(file, default_namespace);
        }
        manifests
    }

    /// Reads one text, as if it were a file of that name.
    pub fn of(source: Source, default_namespace: &str) -> Self {
        let mut manifests = Self::default();
        manifests.add(File { source, problem: None, is_found: false }, default_namespace);
        manifests
    }

    /// How many of the documents are of a kind some rule reads.
    pub fn objects(&self) -> usize {
        self.objects.len()
    }

    /// The cluster that holds exactly these objects.
    pub fn cluster(&self) -> Cluster {
        Cluster::of(self.objects.iter().cloned())
    }

    /// What an empty cluster becomes when these objects are applied to it.
    pub fn applied_to_empty(&self) -> Cluster {
        let initial = INITIAL_NAMESPACES.map(|name| {
            Object::Namespace(Arc::new(Namespace {
                name: name.into(),
                labels: Labels::from([(METADATA_NAME, name)]),
                created: None,
                is_terminating: false,
            }))
        });
        Cluster::of(initial.into_iter().chain(self.objects.iter().cloned()))
    }

    /// Where a field of an object is; nothing for an object that was not read from here.
    pub fn place(&self, object: &ObjectRef, path: &FieldPath) -> Option<Place<'_>> {
        let origin = self.origins.get(object)?;
        let source = self.sources.get(origin.source)?;
        let document = self.document(origin)?;
        Some(Place { source, span: document.find(&origin.within, path) })
    }

    /// Where a fault is, if its file could be opened.
    pub fn place_of(&self, fault: &Fault) -> Option<Place<'_>> {
        let source = self.sources.get(fault.source?)?;
        Some(Place { source, span: fault.problem.span.clone() })
    }

    fn document(&self, origin: &Origin) -> Option<&Document> {
        let source = self.sources.get(origin.source)?;
        let parsed = self.trees.get(origin.source)?.get_or_init(|| yaml::parse(&source.text));
        parsed.get(origin.document)?.as_ref().ok()
    }

    fn add(&mut self, file: File, default_namespace: &str) {
        let File { source, problem, is_found } = file;
        let documents = if problem.is_none() { yaml::parse(&source.text) } else { Vec::new() };
        let index = self.sources.len();
        let mut problems = Vec::from_iter(problem);
        let mut read = Vec::new();
        for (number, document) in documents.into_iter().enumerate() {
            match document {
                Ok(document) if document.is_empty() => {}
                Ok(document) => {
                    let origin = Origin { source: index, document: number, within: FieldPath::root() };
                    match kubernetes(&document, &source.name) {
                        Ok(value) if is_for_kustomize(&value) => {
                            if let Some(problem) = self.kustomization(&document, &source, is_found) {
                                problems.push(problem);
                            }
                        }
                        Ok(value) => flatten(value, origin, &mut read),
                        Err(problem) => problems.push(problem),
                    }
                }
                Err(problem) => problems.push(problem),
            }
        }
        let name = source.name.clone();
        let problems = as_template(&source.text, problems);
        self.faults.extend(problems.into_iter().map(|problem| Fault {
            name: name.clone(),
            source: Some(index),
            problem,
        }));
        self.sources.push(source);
        self.trees.push(OnceLock::new());
        for (value, origin) in read {
            self.lower(&value, &origin, default_namespace);
        }
    }

    fn kustomization(&mut self, document: &Document, source: &Source, is_found: bool) -> Option<Problem> {
        let message = "this is for kustomize and not for a cluster";
        let help = "`kustomize build FOLDER | portcullis check -` checks what it makes";
        if is_found {
            let place = Place { source, span: document.start() };
            self.notes.push(Note { place: Some(place.to_string()), message: format!("{message}; {help}") });
            return None;
        }
        Some(Problem::new(document.start(), message).help(help))
    }

    fn lower(&mut self, value: &Value, origin: &Origin, default_namespace: &str) {
        self.documents += 1;
        let Lowered { object, problems } = k8s::lower_value(value, default_namespace);
        if object.is_none() && problems.is_empty() {
            return;
        }
        let reference = object.as_ref().map_or_else(|| reference(value), Object::reference);
        let namespace = object.as_ref().map_or_else(|| reference.namespace.as_ref(), Object::namespace).cloned();
        if let Some(earlier) = self.origins.insert(reference.clone(), origin.clone())
            && let (Some(first), Some(second)) = (self.shown(&earlier), self.shown(origin))
        {
            let message = format!("{reference} is also in `{first}`; this one, the later, counts");
            self.notes.push(Note { place: Some(second), message });
        }
        self.unreadable.extend(problems.into_iter().map(|problem| Unreadable {
            object: reference.clone(),
            namespace: namespace.clone(),
            problem,
        }));
        self.objects.extend(object);
    }

    fn shown(&self, origin: &Origin) -> Option<String> {
        let span = self.document(origin)?.find(&origin.within, &FieldPath::root());
        Some(Place { source: self.sources.get(origin.source)?, span }.to_string())
    }
}

/// The document as an API object, or why it is none.
fn kubernetes(document: &Document, name: &str) -> Result<Value, Problem> {
    let value = document.value();
    let Some(fields) = value.as_object() else {
        let what = if value.is_array() { "a list" } else { "a single value" };
        return Err(Problem::new(document.start(), format!("this is {what}, not a Kubernetes object")));
    };
    let missing = |field: &str| fields.get(field).is_none_or(|value| value.is_null() || value == "");
    let message = match (missing("apiVersion"), missing("kind")) {
        (false, false) => {
            for field in ["apiVersion", "kind"] {
                if !fields.get(field).is_some_and(Value::is_string) {
                    let span = document.find(&FieldPath::root(), &FieldPath::new(field));
                    return Err(Problem::new(span, format!("`{field}` has to be a string")));
                }
            }
            return Ok(value);
        }
        (true, true) => "this is not a Kubernetes object: it has no `apiVersion` and no `kind`",
        (true, false) => "this is not a Kubernetes object: it has no `apiVersion`",
        (false, true) => "this is not a Kubernetes object: it has no `kind`",
    };
    let problem = Problem::new(document.start(), message);
    let file = Path::new(name).file_name().and_then(|file| file.to_str()).unwrap_or_default();
    Err(if file.starts_with("values") {
        problem.help("values of a Helm chart are not checked; `helm template CHART -f VALUES | portcullis check -` checks what they make")
    } else if fields.contains_key("resources") && file.starts_with("kustomization") {
        problem.help("`kustomize build FOLDER | portcullis check -` checks what it makes")
    } else {
        problem
    })
}

fn is_for_kustomize(value: &Value) -> bool {
    value
        .get("apiVersion")
        .and_then(Value::as_str)
        .is_some_and(|version| version.starts_with("kustomize.config.k8s.io/"))
}

/// An object, or the items of a list, each with its place. Items as the API server lists them
/// (`PodList`) carry neither kind nor version: they are the list's.
fn flatten(mut value: Value, origin: Origin, out: &mut Vec<(Value, Origin)>) {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let version = value.get("apiVersion").cloned().unwrap_or_default();
    let items = match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if kind.ends_with("List") => items,
        Some(Value::Null) | None if kind == "List" => Vec::new(),
        Some(other) => {
            if let Some(items) = value.get_mut("items") {
                *items = other;
            }
            return out.push((value, origin));
        }
        None => return out.push((value, origin)),
    };
    let item_kind = kind.strip_suffix("List").unwrap_or_default();
    for (index, mut item) in items.into_iter().enumerate() {
        let within = origin.within.field("items").index(index);
        if let Some(fields) = item.as_object_mut()
            && !item_kind.is_empty()
        {
            fields.entry("kind").or_insert_with(|| item_kind.into());
            fields.entry("apiVersion").or_insert_with(|| version.clone());
        }
        flatten(item, Origin { within, ..origin.clone() }, out);
    }
}

/// The name of an object that has no other form.
fn reference(value: &Value) -> ObjectRef {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().into();
    let metadata = value.get("metadata");
    ObjectRef {
        kind: text(value.get("kind")),
        namespace: metadata.and_then(|it| it.get("namespace")).and_then(Value::as_str).map(Into::into),
        name: text(metadata.and_then(|it| it.get("name"))),
    }
}

/// In a file that is a template, one problem in place of the many that `{{` causes.
fn as_template(text: &str, problems: Vec<Problem>) -> Vec<Problem> {
    let has_braces = |span: &Span| {
        let before = text.get(..span.start).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        text.get(start..).and_then(|rest| rest.lines().next()).is_some_and(|line| line.contains("{{"))
    };
    let has_control_lines = || text.lines().any(|line| line.trim_start().starts_with("{{"));
    let is_template =
        problems.iter().any(|problem| has_braces(&problem.span)) || !problems.is_empty() && has_control_lines();
    match text.find("{{") {
        Some(at) if is_template => vec![
            Problem::new(at..at + 2, "this is a template and not YAML yet")
                .help("render it first: `helm template CHART | portcullis check -`"),
        ],
        _ => problems,
    }
}
