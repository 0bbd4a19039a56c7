//! What stood when somebody last audited: read from the reports that were left.
//!
//! While no replica audits, after all of them restarted for example, verdicts change and nobody
//! compares. What the reports say is what was told last, so it is what the first scan of a term is
//! compared with, as far as they can be relied on:
//!
//! - A report that left findings out (it is bounded) proves nothing by what is not in it, and is not
//!   compared with.
//! - A rule that a report does not mention, for it was off or is new, is not compared.
//! - A report is its namespace's word about its own objects. What it says of an object elsewhere is
//!   not compared, whoever wrote it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::content;
use crate::model::ObjectRef;

/// What the reports there were say.
#[derive(Default)]
pub(super) struct Left {
    /// By namespace; the cluster's own has none.
    reports: BTreeMap<String, Told>,
}

/// What one report says.
#[derive(Default)]
struct Told {
    /// The rules it says everything about.
    rules: BTreeSet<String>,
    /// The gravest verdict of each object and rule.
    verdicts: BTreeMap<(ObjectRef, String), &'static str>,
}

impl Left {
    /// Adds the report of a namespace.
    pub(super) fn add(&mut self, namespace: &str, report: &Map<String, Value>) {
        self.reports.insert(namespace.to_owned(), Told::of(namespace, report).unwrap_or_default());
    }

    /// Whether it was said what a rule found of an object, if it found anything.
    pub(super) fn knows(&self, object: &ObjectRef, rule: &str) -> bool {
        self.reports.get(home(object)).is_some_and(|told| told.rules.contains(rule))
    }

    /// Everything that stood.
    pub(super) fn verdicts(&self) -> impl Iterator<Item = (&ObjectRef, &str, &'static str)> {
        let known = self.reports.values().flat_map(|told| {
            told.verdicts
                .iter()
                .filter(|((_, rule), _)| told.rules.contains(rule))
                .map(|(key, verdict)| (key, *verdict))
        });
        known.map(|((object, rule), verdict)| (object, rule.as_str(), verdict))
    }
}

/// The namespace whose report is about an object.
pub(super) fn home(object: &ObjectRef) -> &str {
    match (&object.namespace, object.kind.as_str()) {
        (Some(namespace), _) => namespace,
        (None, "Namespace") => &object.name,
        (None, _) => "",
    }
}

impl Told {
    /// Nothing where it does not list everything.
    fn of(namespace: &str, report: &Map<String, Value>) -> Option<Self> {
        let mut told = Self::default();
        let mut unclear = BTreeSet::new();
        for result in report.get("results")?.as_array()? {
            let rule = result.get("policy")?.as_str()?.to_owned();
            if rule == content::LEFT_OUT {
                return None;
            }
            if result.get("result")? != "pass" {
                let about = object(result).filter(|object| home(object) == namespace);
                if let (Some(verdict), Some(object)) = (content::verdict_of(result), about) {
                    // They are listed gravest first.
                    told.verdicts.entry((object, rule.clone())).or_insert(verdict);
                } else {
                    unclear.insert(rule.clone());
                }
            }
            told.rules.insert(rule);
        }
        told.rules.retain(|rule| !unclear.contains(rule));
        Some(told)
    }
}

/// The object a result is about.
fn object(result: &Value) -> Option<ObjectRef> {
    let reference = result.get("resources")?.get(0)?;
    let field = |name: &str| reference.get(name).and_then(Value::as_str);
    Some(ObjectRef {
        kind: field("kind")?.into(),
        namespace: field("namespace").map(Into::into),
        name: field("name")?.into(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is left of a report of `shop` with these results: rule, verdict, the object's namespace.
    fn left(results: &[(&str, &str, &str)]) -> Left {
        let results = results.iter().map(|(rule, verdict, namespace)| {
            let object = json!({ "kind": "Deployment", "namespace": namespace, "name": "cart" });
            json!({ "policy": rule, "result": verdict, "resources": [object] })
        });
        let report = json!({ "results": results.collect::<Vec<_>>() });
        let mut left = Left::default();
        left.add("shop", report.as_object().unwrap());
        left
    }

    fn knows(left: &Left, rule: &str) -> bool {
        let cart = ObjectRef { kind: "Deployment".into(), namespace: Some("shop".into()), name: "cart".into() };
        left.knows(&cart, rule)
    }

    #[test]
    fn a_report_says_what_stood_and_what_passed_and_nothing_of_rules_it_does_not_mention() {
        let left = left(&[("a", "fail", "shop"), ("a", "skip", "shop"), ("b", "pass", "shop")]);
        assert_eq!(["a", "b", "c"].map(|rule| knows(&left, rule)), [true, true, false]);
        let stood: Vec<_> = left.verdicts().map(|(_, rule, verdict)| (rule, verdict)).collect();
        assert_eq!(stood, [("a", "fail")], "the gravest");
    }

    #[test]
    fn a_report_that_left_something_out_says_nothing() {
        let left = left(&[("a", "fail", "shop"), ("b", "pass", "shop"), (content::LEFT_OUT, "warn", "shop")]);
        assert_eq!((knows(&left, "a"), knows(&left, "b"), left.verdicts().count()), (false, false, 0));
    }

    #[test]
    fn a_report_says_nothing_of_objects_elsewhere() {
        let left = left(&[("a", "fail", "bank"), ("b", "pass", "shop")]);
        assert_eq!((knows(&left, "a"), knows(&left, "b"), left.verdicts().count()), (false, true, 0));
    }
}
