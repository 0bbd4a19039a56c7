//! Whatever bytes come in, an answer goes out: never a panic, never a rule that fails. Arbitrary
//! bytes seldom get past the first brace, so most cases here start from a valid document and break
//! it: in its bytes, or in its fields.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what is missing here is a failed test, and these say where"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use serde_json::{Value, json};
use targets::{TARGETS, Target};

#[path = "fuzz/targets.rs"]
mod targets;

/// The valid documents a target's fuzzing starts from.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target.name);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn every_document_of_the_corpus_is_answered() {
    for target in &TARGETS {
        let documents = corpus(target);
        assert!(documents.len() > 1, "{}", target.name);
        for document in &documents {
            (target.feed)(document);
        }
    }
}

/// One way to break bytes; places and lengths are taken modulo what there is.
#[derive(Clone, Debug)]
enum Break {
    Cut(Index),
    Remove(Index, u8),
    Repeat(Index, u8),
    Put(Index, &'static str),
    Set(Index, u8),
}

/// What parsers trip over.
const SNAGS: [&str; 29] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    "- ",
    ",",
    "\"",
    "'",
    "\n",
    "\t",
    "\u{feff}",
    "\0",
    "&a ",
    "*a",
    "<<: ",
    "!!binary ",
    "---\n",
    "...\n",
    "|\n",
    "? ",
    "null",
    "-1",
    "1e999",
    "99999999999999999999",
    "0.0.0.0/0",
    "::/0",
    "é",
    "\\ud800",
];

fn breaks() -> impl Strategy<Value = Vec<Break>> {
    let one = prop_oneof![
        1 => any::<Index>().prop_map(Break::Cut),
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, length)| Break::Remove(at, length)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, length)| Break::Repeat(at, length)),
        4 => (any::<Index>(), select(&SNAGS)).prop_map(|(at, snag)| Break::Put(at, snag)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Break::Set(at, byte)),
    ];
    vec(one, 1..5)
}

fn broken(mut bytes: Vec<u8>, breaks: &[Break]) -> Vec<u8> {
    for one in breaks {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match one {
            Break::Cut(at) => bytes.truncate(place(at)),
            Break::Remove(at, length) => {
                let start = place(at);
                let end = bytes.len().min(start + usize::from(*length));
                bytes.drain(start..end);
            }
            Break::Repeat(at, length) => {
                let start = place(at);
                let part = bytes[start..bytes.len().min(start + usize::from(*length))].to_vec();
                bytes.splice(start..start, part);
            }
            Break::Put(at, snag) => {
                let start = place(at);
                bytes.splice(start..start, snag.bytes());
            }
            Break::Set(at, byte) => {
                let start = place(at);
                if let Some(found) = bytes.get_mut(start) {
                    *found = *byte;
                }
            }
        }
    }
    bytes
}

/// One way to break a field of a document.
#[derive(Clone, Debug)]
enum Twist {
    Becomes(Value),
    Goes,
    Twice,
    Nested,
}

fn twists() -> impl Strategy<Value = Vec<(Index, Twist)>> {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(65536),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("*"),
        json!("a".repeat(300)),
        json!("Ünï\ncode\u{0}"),
        json!([]),
        json!({}),
        json!([null]),
        json!([[]]),
        json!({"": null}),
        json!("0.0.0.0/0"),
        json!("::ffff:10.0.0.0/100"),
        json!("10.0.0.1"),
        json!("STRICT"),
        json!("UNKNOWN"),
        json!("53"),
    ];
    let twist = prop_oneof![
        4 => select(values.to_vec()).prop_map(Twist::Becomes),
        2 => Just(Twist::Goes),
        1 => Just(Twist::Twice),
        1 => Just(Twist::Nested),
    ];
    vec((any::<Index>(), twist), 1..5)
}

/// The document with this field twisted; fields are counted from the outside in.
fn twisted(mut document: Value, twists: &[(Index, Twist)]) -> Value {
    for (at, twist) in twists {
        let field = at.index(count(&document));
        let _ = visit(&mut document, &mut { field }, twist);
    }
    document
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Counts down to the field and twists it; says whether it has to go from what holds it.
fn visit(value: &mut Value, left: &mut usize, twist: &Twist) -> Option<bool> {
    if *left == 0 {
        match twist {
            Twist::Becomes(other) => *value = other.clone(),
            Twist::Goes => return Some(true),
            Twist::Twice => match value {
                Value::Array(items) => items.extend(items.clone()),
                other => *other = json!([other.clone(), other.clone()]),
            },
            Twist::Nested => *value = json!({"nested": [value.clone()]}),
        }
        return Some(false);
    }
    *left -= 1;
    match value {
        Value::Array(items) => {
            let (at, goes) =
                items.iter_mut().enumerate().find_map(|(at, item)| Some((at, visit(item, left, twist)?)))?;
            if goes {
                items.remove(at);
            }
        }
        Value::Object(fields) => {
            let found = fields.iter_mut().find_map(|(key, field)| Some((key.clone(), visit(field, left, twist)?)));
            let (key, goes) = found?;
            if goes {
                fields.remove(&key);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    }
    Some(false)
}

/// The documents of a corpus that are JSON.
fn json_corpus(target: &Target) -> Vec<Value> {
    corpus(target).iter().filter_map(|bytes| serde_json::from_slice(bytes).ok()).collect()
}

/// As many cases as given, the same ones each time; `PROPTEST_CASES` and `PROPTEST_RNG_SEED` ask
/// for others.
fn cases(cases: u32) -> ProptestConfig {
    let ProptestConfig { cases: asked, rng_seed, .. } = ProptestConfig::default();
    let is_set = |name| std::env::var_os(name).is_some();
    ProptestConfig {
        cases: if is_set("PROPTEST_CASES") { asked } else { cases },
        rng_seed: if is_set("PROPTEST_RNG_SEED") { rng_seed } else { RngSeed::Fixed(0x0C0F_FEE1) },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn arbitrary_bytes_are_answered(bytes in vec(any::<u8>(), 0..400), text in "\\PC{0,200}") {
        for target in &TARGETS {
            (target.feed)(&bytes);
            (target.feed)(text.as_bytes());
        }
    }

    #[test]
    fn documents_broken_in_their_bytes_are_answered(which in any::<Index>(), breaks in breaks()) {
        for target in &TARGETS {
            let corpus = corpus(target);
            (target.feed)(&broken(corpus[which.index(corpus.len())].clone(), &breaks));
        }
    }

    #[test]
    fn documents_broken_in_their_fields_are_answered(which in any::<Index>(), twists in twists()) {
        for target in &TARGETS {
            let corpus = json_corpus(target);
            if !corpus.is_empty() {
                let document = twisted(corpus[which.index(corpus.len())].clone(), &twists);
                (target.feed)(document.to_string().as_bytes());
            }
        }
        // A review's object is a manifest as well.
        let reviews = json_corpus(&TARGETS[0]);
        let object = &reviews[which.index(reviews.len())]["request"]["object"];
        (TARGETS[1].feed)(twisted(object.clone(), &twists).to_string().as_bytes());
    }
}

#[test]
fn a_document_nested_without_end_is_answered() {
    for depth in [100, 127, 128, 129, 1000, 100_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("- ", ""), ("{\"metadata\":", "}")] {
            let nested = open.repeat(depth) + "1" + &close.repeat(depth);
            let review = format!(
                r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","kind":{{"group":"networking.k8s.io","version":"v1","kind":"NetworkPolicy"}},"namespace":"shop","operation":"CREATE","object":{nested}}}}}"#
            );
            for target in &TARGETS {
                (target.feed)(nested.as_bytes());
                (target.feed)(review.as_bytes());
            }
        }
        let indented: String = (0..depth.min(2000)).map(|level| " ".repeat(level) + "a:\n").collect();
        for target in &TARGETS {
            (target.feed)(indented.as_bytes());
        }
    }
}

#[test]
fn aliases_that_multiply_are_answered() {
    let mut bomb = "a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{},", level - 1).repeat(9);
        let _ = writeln!(bomb, "a{level}: &a{level} [{alias}]");
    }
    let cycle = "a: &a [*a]\n";
    let merges = "a: &a {<<: *a}\nkind: Pod\n";
    for text in [bomb.as_str(), cycle, merges] {
        for target in &TARGETS {
            (target.feed)(text.as_bytes());
            (target.feed)(format!("apiVersion: v1\nkind: Pod\n{text}").as_bytes());
        }
    }
}
