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
        Ok(bytes) => decode(name, bytes),
        Err(error) => Err(Error { source: Source::new(name, ""), problems: vec![Problem::not_opened(&error)] }),
    }
}

/// Reads a configuration as it stands in a file of this name.
pub fn decode(name: impl Into<String>, bytes: Vec<u8>) -> Result<Settings, Error> {
    match Source::decode(name, bytes) {
        (source, None) => read(source),
        (source, Some(problem)) => Err(Error { source, problems: vec![problem] }),
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
    let value = document.value();
    only_mappings(&value, &document).map_err(|problem| vec![problem])?;
    let mut settings: Settings = deserialize(value, &document, &FieldPath::root()).map_err(|it| vec![it])?;
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

/// Refuses a list where a section belongs: serde would take its items for the fields in their order.
fn only_mappings(value: &Value, document: &Document) -> Result<(), Problem> {
    let refuse = |path: FieldPath| {
        Err(Problem::new(document.find(&FieldPath::root(), &path), "expected a mapping here and not a list"))
    };
    if value.is_array() {
        return refuse(FieldPath::root());
    }
    let mut fields = value.as_object().into_iter().flatten();
    match fields.find(|(_, section)| section.is_array()) {
        Some((name, _)) => refuse(FieldPath::root().field(name)),
        None => Ok(()),
    }
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
        // An `off` without quotes is a truth value in the YAML that Kubernetes reads.
        let action = if action == Value::Bool(false) { Action::Off.as_str().into() } else { action };
        rule.action = Some(deserialize::<Action>(action, document, &action_path)?);
        if name == CL_RULE_FAILED.name {
            return Err(Problem::new(
                document.key(&action_path).unwrap_or(at),
                format!("the action of `{name}` is set by `onError`"),
            ));
        }
    }
    if entry.has_options() {
        let options = Value::Object(rule.options.clone());
        return build(options, document, path, |options| entry.build(options).map_or(Ok(()), |built| built.map(drop)));
    }
    match rule.options.keys().next() {
        None => Ok(()),
        Some(option) => {
            let at = document.key(&path.field(option)).unwrap_or(at);
            let problem = unknown("field", option, closest(option, ["action"]), at);
            Err(problem.help(format!("`{name}` has no options beside `action`")))
        }
    }
}

fn deserialize<T: DeserializeOwned>(value: Value, document: &Document, base: &FieldPath) -> Result<T, Problem> {
    build(value, document, base, serde_path_to_error::deserialize)
}

fn build<T>(
    value: Value,
    document: &Document,
    base: &FieldPath,
    attempt: impl Fn(Value) -> Result<T, serde_path_to_error::Error<serde_json::Error>>,
) -> Result<T, Problem> {
    let error = match attempt(value.clone()) {
        Ok(built) => return Ok(built),
        Err(error) => error,
    };
    let problem = problem(error.inner(), error.path(), document, base);
    if !error.inner().to_string().ends_with(", expected string or map") {
        return Err(problem);
    }
    // A choice tells its names only to a text that is none of them.
    let mut value = value;
    let steps = error.path().iter().map(ToString::to_string);
    let at = steps.fold(String::new(), |at, step| format!("{at}/{}", step.trim_matches(['[', ']'])));
    if let Some(choice) = value.pointer_mut(&at) {
        *choice = "".into();
    }
    let message = attempt(value).err().map(|error| error.inner().to_string()).unwrap_or_default();
    let names = message.strip_prefix("unknown variant ``, expected ").map(alternatives).unwrap_or_default();
    Err(if names.is_empty() { problem } else { one_of(problem, &names) })
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
    let problem = match message.split_once('\n') {
        // What the settings' own types refuse comes with advice.
        Some((what, advice)) => Problem::new(at, what).help(advice),
        None => Problem::new(at, in_words(&message)),
    };
    let is_plain = ["boolean", "integer", "floating point"].iter().any(|it| message.contains(&format!("type: {it} ")));
    if is_plain && message.ends_with(", expected a string") {
        return problem.help(
            "put it in quotes: without them YAML reads digits as a number, and `y`, `yes`, `on`, `n`, `no`, `off` as true or false",
        );
    }
    problem
}

/// serde's words for a wrong type or value, in those of a file: `invalid type: string "a", expected
/// a sequence` is ``expected a list here and not `"a"` ``.
fn in_words(message: &str) -> String {
    let unexpected = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    let Some((found, expected)) = unexpected.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return message.to_owned();
    };
    let found = match found.split_once(' ') {
        None | Some(("unit", _)) => match found {
            "map" => "a mapping".to_owned(),
            "sequence" => "a list".to_owned(),
            "null" => "nothing".to_owned(),
            other => other.to_owned(),
        },
        Some((_, value)) => format!("`{}`", value.trim_start_matches("point ").trim_matches('`')),
    };
    let expected = match expected {
        "a sequence" => "a list",
        "a map" => "a mapping",
        "a boolean" => "`true` or `false`",
        "a string" => "text",
        "string or map" => "one of the values",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number",
        other if other.starts_with("struct ") => "a mapping",
        other => other,
    };
    format!("expected {expected} here and not {found}")
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
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::OnError;
    use crate::rules::{CL_UNREADABLE_OBJECT, Mode, Profile, entry};

    fn accepted(text: &str) -> Settings {
        read(Source::new("c.yaml", text)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What is said of a configuration: what is under the caret, the message, the advice.
    fn refused(text: &str) -> Vec<(String, String, String)> {
        let Error { source, problems } = read(Source::new("c.yaml", text)).unwrap_err();
        let said = |problem: Problem| {
            (source.text[problem.span].to_owned(), problem.message, problem.help.unwrap_or_default())
        };
        problems.into_iter().map(said).collect()
    }

    fn one_refusal(text: &str) -> (String, String, String) {
        let mut said = refused(text);
        assert_eq!(said.len(), 1, "{said:?}");
        said.remove(0)
    }

    fn check(text: &str, under_caret: &str, message: &str) {
        let (caret, said, _) = one_refusal(text);
        assert_eq!((caret.as_str(), said.as_str()), (under_caret, message), "{text}");
    }

    #[test]
    fn nothing_at_all_is_the_defaults() {
        for text in
            ["", "# only a comment\n", "---\n", "rules:\ndns:\nmesh:\nprofile:\n", "rules: {unreadable-object: }"]
        {
            let settings = accepted(text);
            assert_eq!(settings.profile, Profile::Baseline, "{text}");
            assert_eq!(settings.namespaces, Settings::default().namespaces, "{text}");
        }
    }

    #[test]
    fn settings_reach_the_rule_set() {
        let settings = accepted(
            "profile: restricted\nmode: warn\nonError: deny\nrules: {unreadable-object: {action: audit}}\nnamespaces: {exempt: [a-*]}\ncni: {name: calico, podRanges: [10.244.0.0/16]}\ndns: {addresses: [169.254.20.10]}\nmesh: {rootNamespace: mesh}\n",
        );
        assert_eq!(settings.on_error, OnError::Deny);
        let rules = settings.rule_set();
        assert_eq!(
            (rules.environment.mode, rules.on_error, rules.action_of(&CL_UNREADABLE_OBJECT)),
            (Mode::Warn, Action::Deny, Action::Audit)
        );
        assert!(
            rules.environment.namespaces.is_exempt("a-b") && !rules.environment.namespaces.is_exempt("kube-system")
        );
        assert_eq!(rules.environment.mesh.root_namespace.as_deref(), Some("mesh"));
        assert_eq!(rules.environment.dns.addresses.len(), 1);
        assert_eq!(rules.environment.cni.pod_ranges.len(), 1);
    }

    #[test]
    fn a_profile_sets_the_actions_that_the_file_leaves_open() {
        let wildcard = entry("wildcard-ip-block").unwrap();
        for (text, action) in [
            ("", Action::Warn),
            ("profile: restricted", Action::Deny),
            ("{profile: restricted, rules: {wildcard-ip-block: {action: audit}}}", Action::Audit),
        ] {
            let settings = accepted(text);
            assert_eq!(settings.action(wildcard), action, "{text}");
            let rules = settings.rule_set();
            let active = rules.rules.iter().find(|active| active.rule.meta().code == "NP003").unwrap();
            assert_eq!(active.action, action, "{text}");
        }
    }

    #[test]
    fn a_rule_that_is_off_does_not_run() {
        for off in ["off", "Off", "'off'"] {
            let rules = accepted(&format!("rules: {{wildcard-ip-block: {{action: {off}}}}}")).rule_set();
            assert!(rules.rules.iter().all(|active| active.rule.meta().code != "NP003"), "{off}");
            assert!(!rules.rules.is_empty());
        }
    }

    #[test]
    fn options_reach_their_rule() {
        let settings = accepted("rules: {wildcard-ip-block: {maxShare: 50}}");
        let changed = settings.changed_options(entry("wildcard-ip-block").unwrap());
        assert_eq!(changed, [("maxShare".to_owned(), Value::from(50))]);
    }

    #[test]
    fn a_misspelt_name_is_answered_with_the_right_one() {
        check("profil: baseline", "profil", "unknown field `profil`, did you mean `profile`?");
        check("cni:\n  podRange: []", "podRange", "unknown field `podRange`, did you mean `podRanges`?");
        check("dns:\n  services:\n  - {namespace: a, nam: b}", "nam", "unknown field `nam`, did you mean `name`?");
        check("profile: restrcted", "restrcted", "unknown value `restrcted`, did you mean `restricted`?");
        check(
            "rules: {dns-blackhol: {}}",
            "dns-blackhol",
            "unknown rule `dns-blackhol`, did you mean `dns-blackhole`?",
        );
        check("rules: {NP003: {}}", "NP003", "unknown rule `NP003`, did you mean `wildcard-ip-block`?");
        check(
            "rules: {wildcard-ip-block: {maxshare: 5}}",
            "maxshare",
            "unknown field `maxshare`, did you mean `maxShare`?",
        );
        check("rules: {unreadable-object: {acton: deny}}", "acton", "unknown field `acton`, did you mean `action`?");
        check("rules: {dns-blackhole: {action: den}}", "den", "unknown value `den`, did you mean `deny`?");
        check(
            "waivers: {list: [{name: a, namespace: b, rules: [NP001], match: {}, owner: a, reason: b, expires: 2026-01-01, until: x}]}",
            "until",
            "unknown field `until`",
        );
        check("zzz: 1", "zzz", "unknown field `zzz`");
    }

    #[test]
    fn what_is_allowed_is_listed() {
        assert_eq!(one_refusal("mode: x").2, "allowed here: `audit`, `warn`, `enforce`");
        assert!(one_refusal("x: 1").2.starts_with("allowed here: `profile`, `mode`"));
    }

    #[test]
    fn a_wrong_type_is_said_in_words() {
        check("cni: {podRanges: 10.0.0.0/8}", "10.0.0.0/8", "expected a list here and not `\"10.0.0.0/8\"`");
        check(
            "rules: {wildcard-ip-block: {maxShare: 300}}",
            "300",
            "expected a whole number from 0 to 255 here and not `300`",
        );
        check("mode: 5", "5", "expected one of the values here and not `5`");
        check("dns: []", "[]", "expected a mapping here and not a list");
        check("rules: {dns-blackhole: 5}", "5", "expected a mapping here and not `5`");
        check("- profile", "profile", "expected a mapping here and not a list");
        check("dns: {addresses: [10.0.0.1, here]}", "here", "invalid IP address syntax");
    }

    #[test]
    fn what_would_mean_nothing_or_something_else_is_refused_with_advice() {
        for (text, under_caret, message, advice) in [
            ("namespaces: {exempt: [a, '*']}", "'*'", "`*` exempts every namespace", "mode: audit"),
            ("namespaces: {exempt: ['a*b']}", "'a*b'", "a `*` that is not its end", "`team-*`"),
            ("namespaces: {exempt: ['a**']}", "'a**'", "a `*` that is not its end", "`team-*`"),
            ("namespaces: {exempt: ['']}", "''", "`` is no namespace's name", "lower-case"),
            ("namespaces: {exempt: [Shop]}", "Shop", "`Shop` is no namespace's name", "lower-case"),
            ("rules: {missing-default-deny: {grace: -5m}}", "-5m", "less than no time", "`30s`"),
            ("rules: {missing-default-deny: {directions: []}}", "[]", "the list is empty", "switches the rule off"),
            ("rules: {wildcard-ip-block: {directions: []}}", "[]", "the list is empty", "switches the rule off"),
            ("rules: {missing-default-deny: {unrestrictedPods: [{a: b}, {}]}}", "{}", "no label", "at least one"),
            ("mesh: {rootNamespace: ''}", "''", "not a name Kubernetes takes", "lower-case"),
            ("cni: {podRanges: [10.0.0.0/8, 10.0.0.1/8]}", "10.0.0.1/8", "behind its prefix", "`10.0.0.0/8`"),
            ("rules: {wildcard-ip-block: {allow: ['fd00::1/8']}}", "'fd00::1/8'", "behind its prefix", "`fd00::/8`"),
            ("cni: {podRanges: [10.0.0.0]}", "10.0.0.0", "no range of addresses", "`10.0.0.0/8`"),
            ("dns: {services: [{namespace: a, name: y}]}", "y", "text here and not `true`", "quotes"),
            ("dns: {services: [{namespace: 5, name: a}]}", "5", "text here and not `5`", "quotes"),
            ("mode: 2", "2", "one of the values here and not `2`", "`enforce`"),
            ("rules: {dns-blackhole: {action: 2}}", "2", "one of the values here and not `2`", "`deny`"),
            ("rules: {missing-default-deny: {directions: [ingress, 2]}}", "2", "one of the values", "`egress`"),
        ] {
            let (caret, said, help) = one_refusal(text);
            assert_eq!(caret, under_caret, "{text}: {said}");
            assert!(said.contains(message) && help.contains(advice), "{text}: {said} / {help}");
            assert!(!said.contains('\n') && !help.contains('\n'), "{said} / {help}");
        }
        accepted("{namespaces: {exempt: [a, 'team-*', 'te*']}, rules: {missing-default-deny: {grace: 0s}}}");
        accepted("{mesh: {rootNamespace: null}, namespaces: {exempt: []}, cni: {podRanges: ['fd00::/8']}}");
    }

    #[test]
    fn every_rule_is_answered_at_once() {
        let said = refused("rules: {a: {}, dns-blackhole: {action: x}, wildcard-ip-block: {y: 1}}");
        let carets: Vec<_> = said.iter().map(|(caret, ..)| caret.as_str()).collect();
        assert_eq!(carets, ["a", "x", "y"]);
    }

    #[test]
    fn what_becomes_of_a_failed_rule_is_set_in_one_place() {
        check("rules: {rule-failed: {action: deny}}", "action", "the action of `rule-failed` is set by `onError`");
    }

    #[test]
    fn yaml_errors_have_their_place() {
        check("mode: warn\nmode: audit\n", "mode", "key `mode` is written twice, first on line 1");
        check("mode: warn\n---\nmode: audit\n", "mode", "a configuration is a single document");
        assert!(read(Source::new("c.yaml", "mode: [")).is_err());
    }

    #[test]
    fn an_error_prints_as_a_line_for_a_log() {
        let error = read(Source::new("c.yaml", "profile: baseline\n  \nmod: warn\n")).unwrap_err();
        assert_eq!(error.to_string(), "c.yaml:3:1: unknown field `mod`, did you mean `mode`?");
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let error = load(Path::new("no/such/file.yaml")).unwrap_err();
        assert!(error.to_string().ends_with("there is no such file or folder"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_gets_an_answer(text in "\\PC{0,80}") {
            let _ = read(Source::new("c.yaml", text));
        }

        #[test]
        fn any_shape_of_the_known_fields_gets_an_answer(
            field in "profile|mode|onError|rules|namespaces|dns|mesh|cni|view",
            rule in "dns-blackhole|wildcard-ip-block|missing-default-deny|unreadable-object|rule-failed",
            value in "[a-z0-9{}\\[\\]:, \n-]{0,30}",
        ) {
            for text in [format!("{field}: {value}"), format!("rules: {{{rule}: {{{value}}}}}")] {
                if let Err(Error { source, problems }) = read(Source::new("c.yaml", text)) {
                    prop_assert!(!problems.is_empty());
                    for problem in problems {
                        prop_assert!(source.text.get(problem.span).is_some());
                    }
                }
            }
        }
    }
}
