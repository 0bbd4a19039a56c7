//! Clusters from manifest files, with the way back to the line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::files::{File, Files};
use super::objects::{self, Found, Objects};
use crate::cluster::Cluster;
use crate::k8s::{self, Lowered};
use crate::model::{FieldPath, Labels, METADATA_NAME, Namespace, Object, ObjectRef};
use crate::yaml::{self, Document, Parsed, Place, Problem, Source};

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
    /// What it is about.
    pub problem: k8s::Problem,
    origin: Origin,
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
                uid: None,
                labels: Labels::from([(METADATA_NAME, name)]),
                created: None,
                is_terminating: false,
            }))
        });
        Cluster::of(initial.into_iter().chain(self.objects.iter().cloned()))
    }

    /// Whether some object read here is in a namespace, or is that namespace.
    pub fn is_about(&self, namespace: &str) -> bool {
        self.objects.iter().any(|object| object.namespace().is_some_and(|name| name == namespace))
    }

    /// Where a field of an object is; nothing for an object that was not read from here.
    pub fn place(&self, object: &ObjectRef, path: &FieldPath) -> Option<Place<'_>> {
        self.place_in(self.origins.get(object)?, path)
    }

    /// Where something unreadable is. Not the same as the place of its object, of which another
    /// document may hold a later version.
    pub fn place_of_unreadable(&self, unreadable: &Unreadable) -> Option<Place<'_>> {
        self.place_in(&unreadable.origin, &unreadable.problem.path)
    }

    /// Where a fault is, if its file could be opened.
    pub fn place_of(&self, fault: &Fault) -> Option<Place<'_>> {
        let source = self.sources.get(fault.source?)?;
        Some(Place { source, span: fault.problem.span.clone() })
    }

    fn place_in(&self, origin: &Origin, path: &FieldPath) -> Option<Place<'_>> {
        let source = self.sources.get(origin.source)?;
        Some(Place { source, span: self.document(origin)?.find(&origin.within, path) })
    }

    fn document(&self, origin: &Origin) -> Option<&Document> {
        let source = self.sources.get(origin.source)?;
        let parsed = self.trees.get(origin.source)?.get_or_init(|| yaml::parse(&source.text));
        parsed.get(origin.document)?.as_ref().ok()
    }

    fn add(&mut self, file: File, default_namespace: &str) {
        let File { source, problem, is_found } = file;
        let documents = if problem.is_none() { yaml::parse(&source.text) } else { Vec::new() };
        let Objects { read, mut problems, for_kustomize } = Objects::of(&source.name, &source.text, documents);
        problems.extend(problem);
        for span in for_kustomize {
            let message = "this is for kustomize and not for a cluster";
            let help = "`kustomize build FOLDER | portcullis check -` checks what it makes";
            if is_found {
                let place = Some(Place { source: &source, span }.to_string());
                self.notes.push(Note { place, message: format!("{message}; {help}") });
            } else {
                problems.push(Problem::new(span, message).help(help));
            }
        }
        let index = self.sources.len();
        let fault = |problem| Fault { name: source.name.clone(), source: Some(index), problem };
        self.faults.extend(problems.into_iter().map(fault));
        self.sources.push(source);
        self.trees.push(OnceLock::new());
        for Found { value, document, within } in read {
            self.lower(&value, &Origin { source: index, document, within }, default_namespace);
        }
    }

    fn lower(&mut self, value: &Value, origin: &Origin, default_namespace: &str) {
        self.documents += 1;
        let Lowered { object, problems } = k8s::lower_value(value, default_namespace);
        if object.is_none() && problems.is_empty() {
            return;
        }
        let reference = object.as_ref().map_or_else(|| objects::reference(value), Object::reference);
        if let Some(earlier) = self.origins.insert(reference.clone(), origin.clone())
            && let (Some(first), Some(second)) = (self.shown(&earlier), self.shown(origin))
        {
            let message = format!("{reference} is also in `{first}`; this one, the later, counts");
            self.notes.push(Note { place: Some(second), message });
        }
        self.unreadable.extend(problems.into_iter().map(|problem| Unreadable {
            object: reference.clone(),
            problem,
            origin: origin.clone(),
        }));
        self.objects.extend(object);
    }

    fn shown(&self, origin: &Origin) -> Option<String> {
        self.place_in(origin, &FieldPath::root()).map(|place| place.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Manifests {
        Manifests::of(Source::new("a.yaml", text), "default")
    }

    fn names(manifests: &Manifests) -> Vec<String> {
        manifests.objects.iter().map(|object| object.reference().to_string()).collect()
    }

    /// The faults of a file, each with its line.
    fn faults(name: &str, text: &str) -> Vec<String> {
        let manifests = Manifests::of(Source::new(name, text), "default");
        let shown = |fault: &Fault| format!("{}: {}", manifests.place_of(fault).unwrap(), fault.problem.message);
        manifests.faults.iter().map(shown).collect()
    }

    fn pod(name: &str) -> String {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: []}}\n")
    }

    #[test]
    fn every_document_of_a_file_is_an_object() {
        let manifests = of(&format!("{}---\n# nothing\n---\n{}", pod("a"), pod("b")));
        assert_eq!(names(&manifests), ["Pod default/a", "Pod default/b"]);
        assert_eq!(manifests.documents, 2);
    }

    #[test]
    fn kinds_no_rule_reads_are_counted_and_left() {
        let manifests = of("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n");
        assert_eq!((manifests.documents, manifests.objects(), manifests.faults.len()), (1, 0, 0));
    }

    #[test]
    fn lists_are_their_items() {
        let items = "items:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {}}\n- apiVersion: v1\n  kind: List\n  items:\n  - {apiVersion: v1, kind: Service, metadata: {name: b}, spec: {}}\n";
        let manifests = of(&format!("apiVersion: v1\nkind: List\n{items}"));
        assert_eq!(names(&manifests), ["Pod default/a", "Service default/b"]);
        let typed = of("apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a, namespace: shop}\n  spec: {}\n");
        assert_eq!(names(&typed), ["Pod shop/a"]);
        assert_eq!(of("apiVersion: v1\nkind: List\n").documents, 0);
        assert_eq!(of("apiVersion: x/v1\nkind: AllowList\nmetadata: {name: a}\n").documents, 1);
    }

    #[test]
    fn an_item_of_a_list_is_found_where_it_stands() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: b, labels: {app: web}}\n";
        let manifests = of(text);
        let object = ObjectRef { kind: "Pod".into(), namespace: Some("default".into()), name: "b".into() };
        let place = |path: &str| manifests.place(&object, &FieldPath::new(path)).unwrap().to_string();
        assert_eq!(place("metadata.labels.app"), "a.yaml:7:37");
        assert_eq!(place(""), "a.yaml:7:20");
    }

    #[test]
    fn objects_without_a_namespace_go_to_the_default_one() {
        let manifests = Manifests::of(Source::new("a.yaml", pod("a")), "shop");
        assert_eq!(names(&manifests), ["Pod shop/a"]);
    }

    #[test]
    fn of_two_with_one_name_the_later_counts_and_is_said_to() {
        let manifests = of(&format!("{}---\n{}", pod("a"), pod("a")));
        let notes: Vec<_> = manifests.notes.iter().map(ToString::to_string).collect();
        assert_eq!(notes, ["a.yaml:8:18: Pod default/a is also in `a.yaml:3:18`; this one, the later, counts"]);
        assert_eq!(manifests.cluster(), of(&pod("a")).cluster());
        let object = manifests.objects[0].reference();
        assert_eq!(manifests.place(&object, &FieldPath::root()).unwrap().position().line, 8);
    }

    #[test]
    fn what_is_no_object_is_said_with_its_line() {
        assert_eq!(
            faults("a.yaml", "a: 1\n---\n- x\n---\nkind: Pod\n---\napiVersion: v1\nkind: 5\n---\nfive\n"),
            [
                "a.yaml:1:1: this is not a Kubernetes object: it has no `apiVersion` and no `kind`",
                "a.yaml:3:3: this is a list, not a Kubernetes object",
                "a.yaml:5:7: this is not a Kubernetes object: it has no `apiVersion`",
                "a.yaml:8:7: `kind` has to be a string",
                "a.yaml:10:1: this is a single value, not a Kubernetes object",
            ]
        );
        let in_a_list = "apiVersion: v1\nkind: List\nitems:\n- metadata: {name: a}\n- null\n";
        assert_eq!(
            faults("a.yaml", in_a_list),
            [
                "a.yaml:4:20: this is not a Kubernetes object: it has no `apiVersion` and no `kind`",
                "a.yaml:5:3: this is nothing, not a Kubernetes object"
            ]
        );
    }

    #[test]
    fn an_error_leaves_the_documents_around_it() {
        let manifests = of(&format!("{}---\na: [1\n---\n{}---\na: 1\na: 2\n", pod("a"), pod("b")));
        assert_eq!(names(&manifests), ["Pod default/a", "Pod default/b"]);
        assert_eq!(manifests.faults.len(), 2);
    }

    #[test]
    fn a_template_is_one_fault_with_advice() {
        let in_a_value = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}\n";
        assert_eq!(faults("a.yaml", in_a_value), ["a.yaml:4:9: this is a template and not YAML yet"]);
        let in_control = "{{- if .Values.on }}\napiVersion: v1\nkind: Pod\n---\na: {{ x }}\n{{- end }}\n";
        assert_eq!(faults("a.yaml", in_control), ["a.yaml:1:1: this is a template and not YAML yet"]);
        // Braces in text are text, whatever else is wrong with the file.
        let alert =
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  alert: |\n    {{ if }}\n---\nb: [1\n";
        assert!(!faults("a.yaml", alert)[0].contains("template"));
        assert!(faults("a.yaml", &alert.replace("---\nb: [1\n", "")).is_empty());
    }

    #[test]
    fn files_for_other_tools_are_told_from_manifests() {
        let kustomization = "resources: [a.yaml]\n";
        assert_eq!(
            faults("k/kustomization.yaml", kustomization),
            ["k/kustomization.yaml:1:1: this is for kustomize and not for a cluster"]
        );
        let values = Manifests::of(Source::new("chart/values.yaml", "a: 1\n"), "default");
        assert!(values.faults[0].problem.help.as_ref().unwrap().contains("helm template"));
    }

    #[test]
    fn an_empty_cluster_has_its_first_namespaces() {
        let cluster = of(&pod("a")).applied_to_empty();
        let names: Vec<_> = cluster.namespaces().map(|state| state.name.as_str()).collect();
        assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
        assert!(cluster.namespaces().all(|state| state.labels.has(METADATA_NAME, &state.name)));
        // A Namespace among the manifests is the one that counts.
        let labelled = of("apiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {a: b}}\n");
        assert!(labelled.applied_to_empty().namespace_labels("default").has("a", "b"));
        assert_eq!(of(&pod("a")).cluster().namespaces().count(), 1);
    }

    #[test]
    fn what_cannot_be_lowered_is_kept_with_its_own_place() {
        let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/99}}]}]}\n";
        let manifests = of(&format!("{policy}---\n{}", policy.replace("/99", "/8")));
        let [unreadable] = manifests.unreadable.as_slice() else { panic!("{:?}", manifests.unreadable) };
        assert_eq!(manifests.place_of_unreadable(unreadable).unwrap().to_string(), "a.yaml:4:60");
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (source, problem) = Source::decode("a.yaml", bytes);
            let mut manifests = Manifests::default();
            manifests.add(File { source, problem, is_found: false }, "default");
            for fault in &manifests.faults {
                prop_assert!(manifests.place_of(fault).is_some());
            }
        }

        #[test]
        fn any_object_gets_an_answer(
            kind in "Pod|NetworkPolicy|List|PodList|Namespace|PeerAuthentication",
            rest in "[a-z:{}\\[\\], \n0-9/-]{0,80}",
        ) {
            let manifests = of(&format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{{rest}}}\nitems: [{{{rest}}}]\n"));
            for object in &manifests.objects {
                prop_assert!(manifests.place(&object.reference(), &FieldPath::new("spec.a[0]")).is_some());
            }
        }
    }
}
