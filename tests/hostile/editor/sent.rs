//! What of a request the API server sends: the rules and match conditions of the registration itself,
//! by an evaluator of as much of CEL as they are written in.

use portcullis::admission::{FailurePolicy, Options, Registration, Target};
use portcullis::rules::RuleSet;
use serde_json::{Value, json};

use super::oracle::list;

/// The entries of a registration.
pub(crate) struct Entries(Vec<Value>);

impl Entries {
    pub(crate) fn of(rules: &RuleSet) -> Self {
        let options = Options {
            name: "portcullis".to_owned(),
            target: Target::Url("https://gate.example.com/validate".to_owned()),
            ca: None,
            own_namespace: Some("portcullis".to_owned()),
            timeout: 5,
            failure_policy: FailurePolicy::Fail,
            guard: false,
        };
        Self(list(&Registration::of(rules, &options).unwrap().object["webhooks"]).to_vec())
    }

    /// Whether some entry asks about this: `request`, `object` and `oldObject` as conditions see them.
    pub(crate) fn ask_about(&self, resource: &str, request: &Value, object: &Value, old: &Value) -> bool {
        let names = json!({ "request": request, "object": object, "oldObject": old });
        self.0.iter().any(|entry| {
            let holds = |rule: &Value, field: &str, what: &Value| list(&rule[field]).contains(what);
            let is_registered = list(&entry["rules"]).iter().any(|rule| {
                holds(rule, "resources", &resource.into()) && holds(rule, "operations", &request["operation"])
            });
            is_registered
                && list(&entry["matchConditions"]).iter().all(|condition| {
                    // A condition that fails counts as what the failure policy says, which is no way round.
                    Cel::evaluate(condition["expression"].as_str().unwrap(), &names) != Cel::Json(json!(false))
                })
        })
    }
}

/// A value of CEL.
#[derive(Clone, Debug, PartialEq)]
enum Cel {
    Json(Value),
    Optional(Option<Value>),
    Error,
}

/// Reads an expression and evaluates it on the way.
struct Reader<'a> {
    rest: &'a str,
    names: Value,
}

impl Cel {
    fn evaluate(expression: &str, names: &Value) -> Self {
        let mut reader = Reader { rest: expression, names: names.clone() };
        let value = reader.either();
        assert_eq!(reader.rest.trim(), "", "the evaluator of the tests does not know this part of `{expression}`");
        value
    }

    const fn bool(value: bool) -> Self {
        Self::Json(Value::Bool(value))
    }

    fn is(&self, value: bool) -> bool {
        *self == Self::bool(value)
    }

    fn member(self, key: &str) -> Self {
        match self {
            Self::Json(value) => value.get(key).map_or(Self::Error, |it| Self::Json(it.clone())),
            Self::Optional(value) => Self::Optional(value.and_then(|it| it.get(key).cloned())),
            Self::Error => Self::Error,
        }
    }

    fn optional_member(self, key: &str) -> Self {
        match self {
            Self::Json(Value::Null) | Self::Error => Self::Error,
            Self::Json(value) => Self::Optional(value.get(key).cloned()),
            Self::Optional(value) => Self::Optional(value.and_then(|it| it.get(key).cloned())),
        }
    }
}

impl<'a> Reader<'a> {
    fn takes(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start();
        let is_there = rest.starts_with(token);
        if is_there {
            self.rest = rest.split_at(token.len()).1;
        }
        is_there
    }

    fn must(&mut self, token: &str) {
        assert!(self.takes(token), "the evaluator of the tests expects `{token}` at `{}`", self.rest);
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        word
    }

    fn either(&mut self) -> Cel {
        let mut value = self.both();
        while self.takes("||") {
            let other = self.both();
            value = match (value, other) {
                (a, b) if a.is(true) || b.is(true) => Cel::bool(true),
                (a, b) if a.is(false) && b.is(false) => Cel::bool(false),
                _ => Cel::Error,
            };
        }
        value
    }

    fn both(&mut self) -> Cel {
        let mut value = self.comparison();
        while self.takes("&&") {
            let other = self.comparison();
            value = match (value, other) {
                (a, b) if a.is(false) || b.is(false) => Cel::bool(false),
                (a, b) if a.is(true) && b.is(true) => Cel::bool(true),
                _ => Cel::Error,
            };
        }
        value
    }

    fn comparison(&mut self) -> Cel {
        let value = self.unary();
        let (is_in, is_unequal) = (self.takes("in "), self.takes("!="));
        if !is_in && !is_unequal && !self.takes("==") {
            return value;
        }
        match (value, self.unary()) {
            (Cel::Error, _) | (_, Cel::Error) => Cel::Error,
            (Cel::Json(one), Cel::Json(all)) if is_in => {
                Cel::bool(list(&all).contains(&one) || all.get(one.as_str().unwrap_or_default()).is_some())
            }
            (one, other) => Cel::bool((one == other) != is_unequal),
        }
    }

    fn unary(&mut self) -> Cel {
        if self.takes("!") {
            let value = self.unary();
            return if value.is(true) || value.is(false) { Cel::bool(value.is(false)) } else { Cel::Error };
        }
        let mut value = self.primary();
        loop {
            if self.takes("[?") {
                let key = self.either();
                self.must("]");
                value = match key {
                    Cel::Json(Value::String(key)) => value.optional_member(&key),
                    _ => Cel::Error,
                };
            } else if self.takes(".?") {
                value = value.optional_member(self.word());
            } else if self.takes(".") {
                let word = self.word();
                value = if self.takes("(") { self.call(value, word) } else { value.member(word) };
            } else {
                return value;
            }
        }
    }

    fn call(&mut self, on: Cel, function: &str) -> Cel {
        if matches!(function, "exists" | "all") {
            return self.of_each(&on, function == "all");
        }
        let argument = if self.takes(")") { Cel::Error } else { self.argument() };
        match (function, on, argument) {
            ("orValue", Cel::Optional(value), argument) => value.map_or(argument, Cel::Json),
            ("hasValue", Cel::Optional(value), _) => Cel::bool(value.is_some()),
            ("startsWith", Cel::Json(text), Cel::Json(start)) => {
                Cel::bool(text.as_str().unwrap_or_default().starts_with(start.as_str().unwrap()))
            }
            // The one pattern there is, by which the mesh's configuration is known.
            ("matches", Cel::Json(text), Cel::Json(pattern)) if pattern == "^istio(-.*)?$" => {
                let text = text.as_str().unwrap_or_default();
                Cel::bool(text == "istio" || text.starts_with("istio-"))
            }
            ("orValue" | "hasValue" | "startsWith" | "matches", Cel::Error, _) => Cel::Error,
            (function, on, _) => panic!("the evaluator of the tests does not know `{function}` of {on:?}"),
        }
    }

    fn argument(&mut self) -> Cel {
        let value = self.either();
        self.must(")");
        value
    }

    /// `exists` or `all`, whose body is evaluated for each item.
    fn of_each(&mut self, on: &Cel, all: bool) -> Cel {
        let name = self.word().to_owned();
        self.must(",");
        let body = self.rest;
        let outer = self.names.get(&name).cloned();
        let items: Vec<Value> = match on {
            Cel::Json(items) => list(items).to_vec(),
            Cel::Optional(_) | Cel::Error => Vec::new(),
        };
        let mut results = Vec::new();
        // Once more than there are items, so that the body is read past where there are none.
        for item in items.iter().chain([&Value::Null]) {
            self.rest = body;
            self.names[&name] = item.clone();
            results.push(self.either());
        }
        results.pop();
        self.must(")");
        self.names[&name] = outer.unwrap_or_default();
        if *on == Cel::Error {
            return Cel::Error;
        }
        if results.iter().any(|it| it.is(!all)) {
            return Cel::bool(!all);
        }
        if results.iter().all(|it| it.is(all)) { Cel::bool(all) } else { Cel::Error }
    }

    fn primary(&mut self) -> Cel {
        if self.takes("(") {
            return self.argument();
        }
        if self.takes("[") {
            return self.items();
        }
        if self.takes("{") {
            self.must("}");
            return Cel::Json(json!({}));
        }
        if self.takes("'") {
            let (text, rest) = self.rest.split_once('\'').unwrap();
            self.rest = rest;
            return Cel::Json(text.into());
        }
        match self.word() {
            "has" => {
                self.must("(");
                Cel::bool(self.argument() != Cel::Error)
            }
            "null" => Cel::Json(Value::Null),
            "true" => Cel::bool(true),
            "false" => Cel::bool(false),
            name => self.names.get(name).map_or_else(
                || panic!("the evaluator of the tests does not know `{name}` before `{}`", self.rest),
                |value| Cel::Json(value.clone()),
            ),
        }
    }

    fn items(&mut self) -> Cel {
        let (mut items, mut fails) = (Vec::new(), false);
        while !self.takes("]") {
            match self.either() {
                Cel::Json(item) => items.push(item),
                Cel::Optional(_) | Cel::Error => fails = true,
            }
            self.takes(",");
        }
        if fails { Cel::Error } else { Cel::Json(items.into()) }
    }
}
