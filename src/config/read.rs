//! From text to [`Settings`], and from errors to places.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path as ErrorPath, Segment};

use super::Settings;
use crate::model::FieldPath;
use crate::rules::{Action, CL_RULE_FAILED, RULES};
use crate::yaml::{Document, Place, Problem, Source, Span, parse};

/// Why a configuration cannot be used.
#[derive(Debug)]
pub struct Error {
    /// The file.
    pub source: Source,
    /// What is wrong with it; at least one.
    pub problems: Vec<Problem>,
}

/// One line a problem: `gate.yaml:3:1: unknown field …`.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let place = Place { source: &self.source, span: problem.span.clone() };
            write!(f, "{}{place}: {}", if i > 0 { "\n" } else { "" }, problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Reads a configuration file.
pub fn load(path: &Path) -> Result<Settings, Error> {
    let name = path.display().to_string();
    match fs::read(path) {
        Ok(bytes) => match Source::decode(name, bytes) {
            (source, None) => read(source),
            (source, Some(problem)) => Err(Error { source, problems: vec![problem] }),
        },
        Err(error) => {
            let problem = Problem::new(0..0, format!("the configuration cannot be read: {error}"));
            Err(Error { source: Source::new(name, ""), problems: vec![problem] })
        }
    }
}

/// Reads a configuration.
pub fn read(source: Source) -> Result<Settings, Error> {
    match settings(&source.text) {
        Ok(settings) => Ok(settings),
        Err(problems) => Err(Error { source, problems }),
    }
}

fn settings(text: &str) -> Result<Settings, Vec<Problem>> {
    let documents: Vec<Document> =
        parse(text).into_iter().collect::<Result<_, _>>().map_err(|problem| vec![problem])?;
    let mut written = documents.into_iter().filter(|document| !document.is_empty());
    let Some(document) = written.next() else { return Ok(Settings::default()) };
    if let Some(second) = written.next() {
        return Err(vec![Problem::new(second.start(), "a configuration is a single document")]);
    }
    let mut settings: Settings = deserialize(document.value(), &document, &FieldPath::root()).map_err(|it| vec![it])?;
    let mut problems = Vec::new();
    for (name, rule) in &mut settings.rules {
        let path = FieldPath::root().field("rules").field(name);
        let at = document.key(&path).unwrap_or(0..0);
        if let Err(problem) = check_rule(name, rule, &document, &path, at) {
            problems.push(problem);
        }
    }
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

/// Takes the action out of a rule's settings and lets the rule judge the rest.
fn check_rule(
    name: &str,
    rule: &mut super::RuleSettings,
    document: &Document,
    path: &FieldPath,
    at: Span,
) -> Result<(), Problem> {
    let Some(entry) = RULES.iter().find(|entry| entry.meta.name == name) else {
        let by_code =
            RULES.iter().find(|entry| entry.meta.code.eq_ignore_ascii_case(name)).map(|entry| entry.meta.name);
        let near = by_code.or_else(|| closest(name, RULES.iter().map(|entry| entry.meta.name)));
        return Err(unknown("rule", name, near, at).help("`portcullis rules` lists the rules"));
    };
    if let Some(action) = rule.options.shift_remove("action")
        && !action.is_null()
    {
        let action_path = path.field("action");
        rule.action = Some(deserialize::<Action>(action, document, &action_path)?);
        if name == CL_RULE_FAILED.name {
            return Err(Problem::new(
                document.key(&action_path).unwrap_or(at),
                format!("the action of `{name}` is set by `onError`"),
            ));
        }
    }
    match entry.build(Value::Object(rule.options.clone())) {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(problem(error.inner(), error.path(), document, path)),
        None => match rule.options.keys().next() {
            None => Ok(()),
            Some(option) => {
                let at = document.key(&path.field(option)).unwrap_or(at);
                let problem = unknown("field", option, closest(option, ["action"]), at);
                Err(problem.help(format!("`{name}` has no options beside `action`")))
            }
        },
    }
}

fn deserialize<T: DeserializeOwned>(value: Value, document: &Document, base: &FieldPath) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| problem(error.inner(), error.path(), document, base))
}

/// What serde says, put to its place and in words that fit a file.
fn problem(error: &serde_json::Error, path: &ErrorPath, document: &Document, base: &FieldPath) -> Problem {
    let path = path.iter().fold(base.clone(), |path, segment| match segment {
        Segment::Seq { index } => path.index(*index),
        Segment::Map { key } => path.field(key),
        Segment::Enum { .. } | Segment::Unknown => path,
    });
    let root = FieldPath::root();
    let message = error.to_string();
    let quoted = |prefix: &str| message.strip_prefix(prefix).and_then(|rest| rest.split_once('`'));
    if let Some((name, rest)) = quoted("unknown field `") {
        let allowed = alternatives(rest);
        // The path is that of the field itself or of what holds it, as the type was derived.
        let at = document.key(&path.field(name)).or_else(|| document.key(&path));
        let at = at.unwrap_or_else(|| document.find(&root, &path));
        let near = closest(name, allowed.iter().copied());
        return one_of(unknown("field", name, near, at), &allowed);
    }
    let at = document.find(&root, &path);
    if let Some((value, rest)) = quoted("unknown variant `") {
        let allowed = alternatives(rest);
        let near = closest(value, allowed.iter().copied());
        return one_of(unknown("value", value, near, at), &allowed);
    }
    let message = message
        .replace("invalid type: map", "a mapping is written here")
        .replace("invalid type: sequence", "a list is written here")
        .replace("invalid type: null", "nothing is written here")
        .replace("invalid type: string", "text is written here,")
        .replace("invalid type: boolean", "a truth value is written here,")
        .replace("invalid type: integer", "a number is written here,")
        .replace("invalid type: floating point", "a number is written here,")
        .replace("expected struct", "expected the mapping");
    Problem::new(at, message)
}

/// The names serde lists behind `expected`.
fn alternatives(rest: &str) -> Vec<&str> {
    rest.split('`').skip(1).step_by(2).collect()
}

fn one_of(problem: Problem, allowed: &[&str]) -> Problem {
    if allowed.is_empty() {
        return problem.help("nothing can be set here");
    }
    let names: Vec<String> = allowed.iter().map(|name| format!("`{name}`")).collect();
    problem.help(format!("allowed here: {}", names.join(", ")))
}

fn unknown(what: &str, name: &str, near: Option<&str>, at: Span) -> Problem {
    let guess = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
    Problem::new(at, format!("unknown {what} `{name}`{guess}"))
}

/// The name most like this one, if one is like it at all.
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let scored = known.into_iter().map(|known| (strsim::jaro_winkler(&lower, &known.to_lowercase()), known));
    scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}
