//! One document as a tree whose every node knows its place.

use std::collections::{BTreeMap, HashSet};

use granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, StructureStyle, Tag};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::scalar;
use super::source::{Problem, Span};
use crate::model::FieldPath;

/// How many values the aliases and merge keys of one document may add up to. A manifest that shares
/// a block between all its containers needs hundreds; a bomb needs billions.
const EXPANSION_LIMIT: u64 = 100_000;

/// How deep values may lie in each other, aliases followed. The API's own types stay below 50.
const DEPTH_LIMIT: usize = 200;

/// The documents of a text in their order: each as far as it could be read.
pub type Parsed = Vec<Result<Document, Problem>>;

/// A document that was read in full.
#[derive(Debug)]
pub struct Document {
    nodes: Vec<Node>,
    root: NodeId,
}

type NodeId = usize;

#[derive(Debug)]
struct Node {
    span: Span,
    shape: Shape,
    /// How many values it holds, itself included, each alias counted in full.
    size: u64,
    /// How many levels lie below it.
    height: usize,
}

#[derive(Debug)]
enum Shape {
    Scalar(Value),
    Sequence { items: Vec<NodeId>, style: StructureStyle },
    Mapping { entries: Vec<Entry>, style: StructureStyle },
}

#[derive(Debug, Clone)]
struct Entry {
    key: String,
    key_span: Span,
    value: NodeId,
}

/// Reads a text of YAML documents, or of JSON values one after the other. A document with an error
/// does not keep those behind it from being read.
pub fn parse(text: &str) -> Parsed {
    match json_values(text) {
        Some(values) => values
            .into_iter()
            .flat_map(|span| {
                let offset = span.start;
                let documents = parse_yaml(text.get(span).unwrap_or_default());
                documents.into_iter().map(move |document| match document {
                    Ok(document) => Ok(document.shifted(offset)),
                    Err(problem) => Err(Problem { span: shift(&problem.span, offset), ..problem }),
                })
            })
            .collect(),
        None => parse_yaml(text),
    }
}

/// Where the values of a text are that holds several JSON values with nothing between them, as `jq`
/// prints them and `kubectl` takes them.
fn json_values(text: &str) -> Option<Vec<Span>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut values = Vec::new();
    let mut start = 0;
    while let Some(value) = stream.next() {
        value.ok()?;
        let end = stream.byte_offset();
        values.push(start..end);
        start = end;
    }
    (values.len() > 1).then_some(values)
}

fn parse_yaml(text: &str) -> Parsed {
    let mut options = Options::default();
    options.emit_comments = false;
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut parsed = Vec::new();
    let mut tree = Builder::new(text);
    loop {
        let problem = match parser.next_event() {
            None | Some(Ok((Event::StreamEnd, _))) => return parsed,
            Some(Ok((event, span))) => {
                let span = span.byte_range().unwrap_or_default();
                match tree.event(event, span) {
                    Ok(None) => continue,
                    Ok(Some(document)) => {
                        parsed.push(Ok(document));
                        tree = Builder::new(text);
                        continue;
                    }
                    Err(problem) => problem,
                }
            }
            Some(Err(error)) => {
                let at = error.marker().byte_offset().unwrap_or_default().min(text.len());
                match error.kind() {
                    // The parser's own limit, a little above ours: it reads ahead.
                    ErrorKind::RecursionLimitExceeded => too_deep(at..at),
                    _ => Problem::new(at..at, error.info()),
                }
            }
        };
        parsed.push(Err(problem));
        tree = Builder::new(text);
        if !parser.proceed_next_document().unwrap_or(false) {
            return parsed;
        }
    }
}

/// Builds the tree of one document.
struct Builder<'t> {
    text: &'t str,
    nodes: Vec<Node>,
    open: Vec<Open>,
    root: Option<NodeId>,
    /// The finished nodes that have an anchor, by the parser's number for it.
    anchors: BTreeMap<usize, NodeId>,
    /// How many values aliases and merge keys stand for so far.
    expanded: u64,
}

/// A collection that is not closed yet.
struct Open {
    start: usize,
    anchor: usize,
    style: StructureStyle,
    content: Content,
}

enum Content {
    Sequence(Vec<NodeId>),
    Mapping { entries: Vec<Entry>, key: Option<Key>, merges: Vec<Merge> },
}

/// A key whose value comes next.
struct Key {
    text: String,
    span: Span,
    is_merge: bool,
}

/// `<<: *base`, and how many entries stood before it.
struct Merge {
    before: usize,
    span: Span,
    from: NodeId,
}

impl<'t> Builder<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, nodes: Vec::new(), open: Vec::new(), root: None, anchors: BTreeMap::new(), expanded: 0 }
    }

    /// Takes one event; gives the document when it is complete.
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<Option<Document>, Problem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => self.scalar(&text, style, anchor, tag.as_deref(), span)?,
            Event::SequenceStart(style, anchor, _) => {
                self.begin(span, anchor, style, Content::Sequence(Vec::new()))?;
            }
            Event::MappingStart(style, anchor, _) => {
                let content = Content::Mapping { entries: Vec::new(), key: None, merges: Vec::new() };
                self.begin(span, anchor, style, content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(&span)?,
            Event::Alias(anchor) => self.alias(anchor, span)?,
            Event::DocumentEnd => {
                let root = self.root.take().unwrap_or_else(|| self.add(span, Shape::Scalar(Value::Null)));
                return Ok(Some(Document { nodes: std::mem::take(&mut self.nodes), root }));
            }
            // The stream's own events, and those that the options leave out.
            _ => {}
        }
        Ok(None)
    }

    fn awaits_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { content: Content::Mapping { key: None, .. }, .. }))
    }

    fn set_key(&mut self, next: Key) {
        if let Some(Open { content: Content::Mapping { key, .. }, .. }) = self.open.last_mut() {
            *key = Some(next);
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<(), Problem> {
        let is_plain = style == ScalarStyle::Plain;
        let value = match tag {
            None if is_plain => scalar::plain(text),
            None => Ok(Value::String(text.to_owned())),
            Some(tag) => scalar::tagged(tag.core_suffix().unwrap_or_default(), text),
        };
        let value = value.map_err(|scalar::Misfit| match tag {
            Some(tag) => Problem::new(span.clone(), format!("`{text}` cannot be read as `{}`", tag.original())),
            None => {
                Problem::new(span.clone(), format!("`{text}` is a number that JSON, and so Kubernetes, cannot hold"))
                    .help("put it in quotes if it is meant as text")
            }
        })?;
        if self.awaits_key() {
            let is_merge = is_plain && tag.is_none() && text == "<<";
            let text = key_text(&value, &span)?;
            if anchor != 0 {
                let node = self.add(span.clone(), Shape::Scalar(value));
                self.anchors.insert(anchor, node);
            }
            self.set_key(Key { text, span, is_merge });
            return Ok(());
        }
        let node = self.add(span, Shape::Scalar(value));
        self.place(node, anchor);
        Ok(())
    }

    fn begin(&mut self, span: Span, anchor: usize, style: StructureStyle, content: Content) -> Result<(), Problem> {
        if self.awaits_key() {
            return Err(Problem::new(span, "a key has to be a string, not a list or a mapping"));
        }
        if self.open.len() >= DEPTH_LIMIT {
            return Err(too_deep(span));
        }
        self.open.push(Open { start: span.start, anchor, style, content });
        Ok(())
    }

    fn end(&mut self, span: &Span) -> Result<(), Problem> {
        let Some(Open { start, anchor, style, content }) = self.open.pop() else { return Ok(()) };
        let shape = match content {
            Content::Sequence(items) => Shape::Sequence { items, style },
            Content::Mapping { entries, key: _, merges } => {
                let entries = self.merged(entries, merges)?;
                Shape::Mapping { entries, style }
            }
        };
        let node = self.add(start..span.end.max(start), shape);
        self.place(node, anchor);
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Problem> {
        let name = self.text.get(span.clone()).unwrap_or("*");
        let Some(target) = self.anchors.get(&anchor).copied() else {
            return Err(Problem::new(span, format!("alias `{name}` stands inside the value it stands for")));
        };
        let Some(node) = self.nodes.get(target) else { return Ok(()) };
        if self.open.len() + node.height > DEPTH_LIMIT {
            return Err(too_deep(span));
        }
        if self.awaits_key() {
            let Shape::Scalar(value) = &node.shape else {
                return Err(Problem::new(span, "a key has to be a string, not a list or a mapping"));
            };
            let text = key_text(value, &span)?;
            self.set_key(Key { text, span, is_merge: false });
            return Ok(());
        }
        self.expand(node.size, &span)?;
        self.place(target, 0);
        Ok(())
    }

    /// Counts what an alias or a merge key stands for, and refuses it past the limit.
    fn expand(&mut self, size: u64, span: &Span) -> Result<(), Problem> {
        self.expanded = self.expanded.saturating_add(size);
        if self.expanded <= EXPANSION_LIMIT {
            return Ok(());
        }
        Err(Problem::new(
            span.clone(),
            format!("the aliases up to here stand for more than {EXPANSION_LIMIT} values, which is the limit"),
        ))
    }

    fn add(&mut self, span: Span, shape: Shape) -> NodeId {
        let mut size = 1_u64;
        let mut height = 0;
        let mut hold = |child: NodeId| {
            if let Some(child) = self.nodes.get(child) {
                size = size.saturating_add(child.size);
                height = height.max(child.height + 1);
            }
        };
        match &shape {
            Shape::Scalar(_) => {}
            Shape::Sequence { items, .. } => items.iter().copied().for_each(&mut hold),
            Shape::Mapping { entries, .. } => entries.iter().for_each(|entry| hold(entry.value)),
        }
        self.nodes.push(Node { span, shape, size, height });
        self.nodes.len() - 1
    }

    /// Puts a finished node where the document has got to.
    fn place(&mut self, node: NodeId, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, node);
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::Sequence(items)) => items.push(node),
            Some(Content::Mapping { entries, key, merges }) => {
                // A value without a key does not come from the parser.
                let Some(Key { text, span, is_merge }) = key.take() else { return };
                if is_merge {
                    merges.push(Merge { before: entries.len(), span, from: node });
                } else {
                    entries.push(Entry { key: text, key_span: span, value: node });
                }
            }
        }
    }

    /// A mapping's entries and those it merges, each key once.
    fn merged(&mut self, entries: Vec<Entry>, merges: Vec<Merge>) -> Result<Vec<Entry>, Problem> {
        let mut keys = HashSet::with_capacity(entries.len());
        for entry in &entries {
            if !keys.insert(entry.key.as_str()) {
                let first = entries.iter().find(|other| other.key == entry.key).map_or(0, |first| first.key_span.start);
                let line = self.text.get(..first).unwrap_or_default().matches('\n').count() + 1;
                let message = format!("key `{}` is written twice, first on line {line}", entry.key);
                return Err(Problem::new(entry.key_span.clone(), message)
                    .help("only one of the two can take effect; take the other out"));
            }
        }
        if let [_, second, ..] = merges.as_slice() {
            return Err(Problem::new(second.span.clone(), "`<<` is written twice")
                .help("merge several mappings with a list: `<<: [*one, *two]`"));
        }
        let Some(merge) = merges.into_iter().next() else { return Ok(entries) };
        let sources = match self.nodes.get(merge.from).map(|node| &node.shape) {
            Some(Shape::Sequence { items, .. }) => items.clone(),
            Some(Shape::Mapping { .. } | Shape::Scalar(_)) | None => vec![merge.from],
        };
        let mut filled: BTreeMap<String, Entry> = BTreeMap::new();
        for source in sources {
            let Some(Shape::Mapping { entries: offered, .. }) = self.nodes.get(source).map(|node| &node.shape) else {
                return Err(Problem::new(merge.span, "`<<` takes a mapping or a list of mappings"));
            };
            let offered = offered.clone();
            let size = offered.iter().filter_map(|entry| self.nodes.get(entry.value)).map(|node| node.size + 1).sum();
            self.expand(size, &merge.span)?;
            for entry in offered {
                if !keys.contains(entry.key.as_str()) {
                    filled.entry(entry.key.clone()).or_insert(entry);
                } else if entries.iter().take(merge.before).any(|earlier| earlier.key == entry.key) {
                    // YAML lets the written key win, go-yaml v2 the later of the two.
                    let message = format!("`<<` brings a key `{}` that is written above it", entry.key);
                    return Err(Problem::new(merge.span, message)
                        .help("tools differ on which of the two counts; write `<<` first and the key after it"));
                }
            }
        }
        drop(keys);
        Ok(entries.into_iter().chain(filled.into_values()).collect())
    }
}

fn key_text(value: &Value, span: &Span) -> Result<String, Problem> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(Problem::new(span.clone(), "a key has to be a string, not null"))
        }
    }
}

fn too_deep(span: Span) -> Problem {
    Problem::new(span, format!("values lie in each other deeper than {DEPTH_LIMIT} levels, which is the limit"))
        .help("nothing Kubernetes takes lies this deep: look for brackets that are not closed, or for a text that should be in quotes")
}

fn shift(span: &Span, by: usize) -> Span {
    span.start + by..span.end + by
}

impl Document {
    /// The document as JSON.
    pub fn value(&self) -> Value {
        self.value_of(self.root)
    }

    fn value_of(&self, node: NodeId) -> Value {
        match self.nodes.get(node).map(|node| &node.shape) {
            None => Value::Null,
            Some(Shape::Scalar(value)) => value.clone(),
            Some(Shape::Sequence { items, .. }) => items.iter().map(|item| self.value_of(*item)).collect(),
            Some(Shape::Mapping { entries, .. }) => entries
                .iter()
                .map(|entry| (entry.key.clone(), self.value_of(entry.value)))
                .collect::<Map<_, _>>()
                .into(),
        }
    }

    /// Whether nothing is in it: only comments, or not even those.
    pub fn is_empty(&self) -> bool {
        self.nodes.get(self.root).is_none_or(|root| matches!(root.shape, Shape::Scalar(Value::Null)))
    }

    /// Where it begins.
    pub fn start(&self) -> Span {
        self.highlight(None, self.root)
    }

    /// Where to point for a field of the object at `object` (the document itself, or an item of a
    /// list): the field's value if it fits on a line, else its key. A field that is not there
    /// points to what would hold it, and the object itself to its name.
    pub fn find(&self, object: &FieldPath, path: &FieldPath) -> Span {
        let (base_key, base, _) = self.walk(None, self.root, object.as_str());
        let (key, node, steps) = self.walk(base_key, base, path.as_str());
        if steps > 0 {
            return self.highlight(key, node);
        }
        for name in ["metadata.name", "metadata.generateName", "kind"] {
            let (key, node, steps) = self.walk(None, base, name);
            if steps == name.split('.').count() {
                return self.highlight(key, node);
            }
        }
        self.highlight(None, base)
    }

    /// Where the key of a field is; nothing where the field is not there.
    pub fn key(&self, path: &FieldPath) -> Option<Span> {
        let (key, _, _) = self.walk(None, self.root, path.as_str());
        key.map(|entry| entry.key_span.clone()).filter(|_| self.holds(path))
    }

    fn holds(&self, path: &FieldPath) -> bool {
        let mut node = self.root;
        let mut rest = path.as_str();
        while !rest.is_empty() {
            let Some((_, next, after)) = self.step(node, rest) else { return false };
            (node, rest) = (next, after);
        }
        true
    }

    /// Follows a path as far as it goes: the entry and node it ends at, and how many steps it took.
    fn walk<'a>(&'a self, entry: Option<&'a Entry>, from: NodeId, path: &str) -> (Option<&'a Entry>, NodeId, usize) {
        let (mut entry, mut node, mut rest, mut steps) = (entry, from, path, 0);
        while !rest.is_empty() {
            let Some((next_entry, next, after)) = self.step(node, rest) else { break };
            (entry, node, rest) = (next_entry, next, after);
            steps += 1;
        }
        (entry, node, steps)
    }

    /// One step along a path, as [`FieldPath`] writes it: `.name`, `[key]` or `[0]`.
    fn step<'p>(&self, node: NodeId, path: &'p str) -> Option<(Option<&Entry>, NodeId, &'p str)> {
        let ends = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        match &self.nodes.get(node)?.shape {
            Shape::Scalar(_) => None,
            Shape::Sequence { items, .. } => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((None, *item, rest))
            }
            Shape::Mapping { entries, .. } => {
                let found = entries.iter().filter_map(|entry| {
                    let rest = match path.strip_prefix('[') {
                        Some(inside) => inside.strip_prefix(entry.key.as_str())?.strip_prefix(']')?,
                        None => path.strip_prefix('.').unwrap_or(path).strip_prefix(entry.key.as_str())?,
                    };
                    ends(rest).then_some((Some(entry), entry.value, rest))
                });
                // A key in brackets may itself hold brackets: the longest that fits is meant.
                found.min_by_key(|(_, _, rest)| rest.len())
            }
        }
    }

    /// What to underline for a node: all of it on one line, else its key, else where it begins.
    fn highlight(&self, entry: Option<&Entry>, node: NodeId) -> Span {
        let Some(node) = self.nodes.get(node) else { return 0..0 };
        let span = || node.span.clone();
        let key = || entry.map(|entry| entry.key_span.clone());
        match &node.shape {
            // A block scalar spans lines; an empty value has no place of its own.
            Shape::Scalar(value) => match (value, key()) {
                (_, Some(key)) if node.span.is_empty() => key,
                (Value::String(text), Some(key)) if text.contains('\n') => key,
                _ => span(),
            },
            Shape::Sequence { style: StructureStyle::Flow, .. }
            | Shape::Mapping { style: StructureStyle::Flow, .. } => span(),
            Shape::Sequence { items, style: StructureStyle::Block } => match (key(), items.first()) {
                (Some(key), _) => key,
                (None, Some(first)) => self.highlight(None, *first),
                (None, None) => span(),
            },
            Shape::Mapping { entries, style: StructureStyle::Block } => {
                key().or_else(|| entries.first().map(|first| first.key_span.clone())).unwrap_or_else(span)
            }
        }
    }

    fn shifted(mut self, by: usize) -> Self {
        for node in &mut self.nodes {
            node.span = shift(&node.span, by);
            if let Shape::Mapping { entries, .. } = &mut node.shape {
                for entry in entries {
                    entry.key_span = shift(&entry.key_span, by);
                }
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Vec<Value> {
        parse(text).into_iter().map(|document| document.unwrap_or_else(|e| panic!("{text}: {e:?}")).value()).collect()
    }

    /// The one error of a text: what is under the caret, and the message.
    fn refused(text: &str) -> (String, String) {
        let mut problems: Vec<_> = parse(text).into_iter().filter_map(Result::err).collect();
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        let problem = problems.remove(0);
        (text[problem.span].to_owned(), problem.message)
    }

    fn pointed(text: &str, path: &str) -> String {
        let document = parse(text).remove(0).unwrap();
        text[document.find(&FieldPath::root(), &FieldPath::new(path))].to_owned()
    }

    #[test]
    fn documents_are_read_in_their_order() {
        assert_eq!(
            read("a: 1\n---\nb: [x, {v: z}]\n...\n---\n\"c\"\n"),
            [json!({"a": 1}), json!({"b": ["x", {"v": "z"}]}), json!("c")]
        );
        assert_eq!(read("%YAML 1.2\n---\na: yes\n"), [json!({"a": true})]);
        assert_eq!(read("a: 1\r\nb:\r\n- x\r\n"), [json!({"a": 1, "b": ["x"]})]);
        assert_eq!(read("a: |\n  one\n  two\nb: >-\n  one\n  two\n"), [json!({"a": "one\ntwo\n", "b": "one two"})]);
    }

    #[test]
    fn nothing_but_comments_is_an_empty_document() {
        assert!(parse("").is_empty());
        assert!(parse("# only this\n").iter().all(|document| document.as_ref().unwrap().is_empty()));
        let documents = parse("---\n---\n# nothing\n---\na: 1\n");
        let empty: Vec<_> = documents.iter().map(|document| document.as_ref().unwrap().is_empty()).collect();
        assert_eq!(empty, [true, true, false]);
    }

    #[test]
    fn json_is_read_with_its_tabs_and_escapes() {
        assert_eq!(
            read("{\n\t\"a\":1,\n\t\"b\":[\"\\u0041\\/\", \"\\ud83d\\ude00\", null, 1.5e1, true],\"c\":{}\n}\n"),
            [json!({"a": 1, "b": ["A/", "😀", null, 15, true], "c": {}})]
        );
    }

    #[test]
    fn json_values_may_follow_each_other() {
        let text = "{\"a\":1}\n{\"b\":2} {\"c\":\n3}";
        assert_eq!(read(text), [json!({"a": 1}), json!({"b": 2}), json!({"c": 3})]);
        let documents = parse(text);
        let third = documents[2].as_ref().unwrap();
        assert_eq!(&text[third.find(&FieldPath::root(), &FieldPath::new("c"))], "3");
    }

    #[test]
    fn quoted_and_tagged_scalars_are_what_they_say() {
        assert_eq!(
            read("a: 'yes'\nb: \"0777\"\nc: !!str 5\nd: !!int '5'\ne: ! 5\nf: !Ref five\ng: !!str\n"),
            [json!({"a": "yes", "b": "0777", "c": "5", "d": 5, "e": "5", "f": "five", "g": ""})]
        );
        assert_eq!(refused("a: !!int foo").1, "`foo` cannot be read as `!!int`");
        assert_eq!(refused("a: .inf").0, ".inf");
    }

    #[test]
    fn keys_are_strings() {
        assert_eq!(
            read("1: a\nyes: b\n0x10: c\n'on': d\n1.10: e\n2001-01-01: f\n1e3: g\n"),
            [json!({"1": "a", "true": "b", "16": "c", "on": "d", "1.1": "e", "2001-01-01": "f", "1000": "g"})]
        );
        for text in ["? [a]\n: b", "~: a", "a: {{b: c}: d}"] {
            assert!(refused(text).1.starts_with("a key has to be a string"), "{text}");
        }
    }

    #[test]
    fn a_key_written_twice_is_refused() {
        let (at, message) = refused("spec:\n  a: 1\n  b: 2\n  a: 3\n");
        assert_eq!((at.as_str(), message.as_str()), ("a", "key `a` is written twice, first on line 2"));
        refused("{a: 1, a: 1}");
        refused("1: a\n'1': b");
    }

    #[test]
    fn aliases_stand_for_what_they_name() {
        assert_eq!(read("a: &x {p: [1]}\nb: *x\n"), [json!({"a": {"p": [1]}, "b": {"p": [1]}})]);
        assert_eq!(read("a: &x 1\nb: &x 2\nc: *x\n"), [json!({"a": 1, "b": 2, "c": 2})]);
        assert_eq!(
            read("&k key: v\nb: *k\nc: &n name\n*n : d\n"),
            [json!({"key": "v", "b": "key", "c": "name", "name": "d"})]
        );
        assert_eq!(refused("a: &x [1, *x]").0, "*x");
        assert_eq!(refused("a: &x {b: *x}").0, "*x");
        refused("a: *nothing");
    }

    #[test]
    fn an_anchor_does_not_reach_the_next_document() {
        let parsed = parse("a: &x 1\n---\nb: *x\n---\nc: 3\n");
        assert!(parsed[0].is_ok() && parsed[1].is_err() && parsed[2].is_ok());
    }

    #[test]
    fn merge_keys_fill_in_what_is_not_written() {
        let base = "base: &x {p: 1, q: 2}\nmore: &y {p: 5, r: 6}\n";
        let merged = |rest: &str| read(&format!("{base}{rest}")).remove(0)["b"].clone();
        assert_eq!(merged("b:\n  <<: *x\n  q: 3\n"), json!({"p": 1, "q": 3}));
        assert_eq!(merged("b:\n  <<: [*x, *y]\n  q: 3\n"), json!({"p": 1, "q": 3, "r": 6}));
        assert_eq!(merged("b:\n  '<<': {z: 1}\n"), json!({"<<": {"z": 1}}));
        assert_eq!(refused("b:\n  <<: 1\n").1, "`<<` takes a mapping or a list of mappings");
        assert_eq!(refused("b: &b\n  <<: *b\n").0, "*b");
        // go-yaml v2 lets `<<` win here, the specification does not.
        assert_eq!(
            refused(&format!("{base}b:\n  q: 3\n  <<: *x\n")).1,
            "`<<` brings a key `q` that is written above it"
        );
    }

    #[test]
    fn aliases_of_aliases_are_bounded() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..30 {
            let below = format!("*a{}, ", level - 1).repeat(9);
            writeln!(bomb, "a{level}: &a{level} [{below}]").unwrap();
        }
        assert!(refused(&bomb).1.contains("more than 100000 values"));
        let mut chain = "m0: &m0 {k0: 0}\n".to_owned();
        for level in 1..2000 {
            writeln!(chain, "m{level}: &m{level}\n  <<: *m{}\n  k{level}: 0", level - 1).unwrap();
        }
        assert!(refused(&chain).1.contains("more than 100000 values"));
    }

    #[test]
    fn depth_is_bounded_through_aliases_too() {
        let deep = |levels| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&deep(DEPTH_LIMIT))[0].is_ok());
        assert!(parse(&deep(DEPTH_LIMIT + 1))[0].is_err());
        assert!(parse(&deep(100_000)).iter().all(Result::is_err));
        let half = DEPTH_LIMIT / 2 + 1;
        let text = format!("a: &a {}\nb: {}*a{}\n", deep(half), "[".repeat(half), "]".repeat(half));
        assert!(refused(&text).1.contains("deeper than"));
    }

    #[test]
    fn an_error_in_one_document_leaves_the_others() {
        let parsed = parse("a: 1\n---\nb: [1, 2\n---\nc: 3\n---\nd: 'x\n");
        let read: Vec<_> = parsed.iter().map(|document| document.as_ref().ok().map(Document::value)).collect();
        assert_eq!(read, [Some(json!({"a": 1})), None, Some(json!({"c": 3})), None]);
        let parsed = parse("a: 1\na: 2\n---\nb: 2\n");
        assert!(parsed[0].is_err() && parsed[1].is_ok());
    }

    #[test]
    fn syntax_errors_say_where_they_are() {
        for (text, line) in [("a:\n\tb: 1\n", 2), ("a: b: c\n", 1), ("ok: 1\nbad: @x\n", 2), ("x: 'a\ny", 2)] {
            let problem = parse(text).into_iter().find_map(Result::err).unwrap_or_else(|| panic!("{text}"));
            let found = text[..problem.span.start].matches('\n').count() + 1;
            assert_eq!(found, line, "{text}: {problem:?}");
            assert!(!problem.message.is_empty());
        }
    }

    #[test]
    fn a_path_points_at_its_field() {
        let text = "\
metadata:
  name: web
  labels:
    app.kubernetes.io/name: cart
    plain: x
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
    - to:
        - ipBlock:
            cidr: 10.0.0.0/8
            except:
            - 10.1.0.0/16
  text: |
    more
  none:
";
        for (path, under) in [
            ("", "web"),
            ("metadata", "metadata"),
            ("metadata.labels[app.kubernetes.io/name]", "cart"),
            ("metadata.labels.plain", "x"),
            ("spec.podSelector", "{}"),
            ("spec.policyTypes", "[Egress]"),
            ("spec.policyTypes[0]", "Egress"),
            ("spec.egress", "egress"),
            ("spec.egress[0]", "to"),
            ("spec.egress[0].to", "to"),
            ("spec.egress[0].to[0]", "ipBlock"),
            ("spec.egress[0].to[0].ipBlock.cidr", "10.0.0.0/8"),
            ("spec.egress[0].to[0].ipBlock.except[0]", "10.1.0.0/16"),
            ("spec.text", "text"),
            ("spec.none", "none"),
            // What is not there points to what would hold it.
            ("spec.ingress[0].from", "spec"),
            ("spec.egress[7]", "egress"),
            ("status.phase", "web"),
        ] {
            assert_eq!(pointed(text, path), under, "{path}");
        }
    }

    #[test]
    fn every_path_leads_back_to_its_value() {
        // Paths as the model writes them, for keys that need brackets and keys that do not.
        let text = "a: {'b.c/d': [x0, {e-f_g: x1}], 'k[0]': x2, '0': x3, 'with space': x4, 'a]b[c': x5}\n";
        let root = FieldPath::root().field("a");
        for (path, under) in [
            (root.field("b.c/d").index(0), "x0"),
            (root.field("b.c/d").index(1).field("e-f_g"), "x1"),
            (root.field("k[0]"), "x2"),
            (root.field("0"), "x3"),
            (root.field("with space"), "x4"),
            (root.field("a]b[c"), "x5"),
        ] {
            assert_eq!(pointed(text, path.as_str()).trim_matches('\''), under, "{path}");
        }
    }

    #[test]
    fn the_key_of_a_field_can_be_pointed_at() {
        let text = "a:\n  b: 1\n";
        let document = parse(text).remove(0).unwrap();
        assert_eq!(document.key(&FieldPath::new("a.b")).map(|span| &text[span]), Some("b"));
        assert_eq!(document.key(&FieldPath::new("a.c")), None);
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            "[yYnNoO0-9.xbe_+-]{0,6}".prop_map(Value::from),
            Just(Value::from("two\nlines\n")),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[a-z./\\[\\]0-9]{1,8}", inner), 0..5)
                    .prop_map(|entries| entries.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    /// Block style, strings quoted: how a person's file looks, written without this parser.
    fn dump(value: &Value, indent: usize, out: &mut String) {
        let pad = " ".repeat(indent);
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                for (key, value) in entries {
                    let _ = write!(out, "\n{pad}{}:", Value::from(key.clone()));
                    dump(value, indent + 2, out);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for item in items {
                    let _ = write!(out, "\n{pad}-");
                    dump(item, indent + 2, out);
                }
            }
            scalar_or_empty => {
                let _ = write!(out, " {scalar_or_empty}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_value_dumped_as_yaml_reads_back_as_itself(value in json_value()) {
            let mut text = "---".to_owned();
            dump(&value, 0, &mut text);
            prop_assert_eq!(read(&text), [value]);
        }

        #[test]
        fn a_value_dumped_as_json_reads_back_as_itself(value in json_value()) {
            prop_assert_eq!(read(&value.to_string()), std::slice::from_ref(&value));
            prop_assert_eq!(read(&serde_json::to_string_pretty(&value).unwrap()), [value]);
        }

        #[test]
        fn any_text_gets_an_answer(text in "\\PC{0,80}") {
            for document in parse(&text).iter().flatten() {
                document.value();
            }
        }

        #[test]
        fn any_text_of_yaml_characters_gets_an_answer(text in "[-?:,{}#&*!|>'\"%@` \na<~0\\[\\]\t]{0,60}") {
            for document in parse(&text).iter().flatten() {
                let span = document.find(&FieldPath::root(), &FieldPath::new("a[0].a"));
                prop_assert!(text.get(span).is_some());
                document.value();
            }
            for problem in parse(&text).into_iter().filter_map(Result::err) {
                prop_assert!(text.get(problem.span).is_some());
            }
        }
    }
}
