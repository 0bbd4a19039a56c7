//! Values written: on one line, or as a document.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::scalar;

/// A value in flow style, its strings plain where they stay strings: `[10.0.0.0/8, "yes"]`.
pub fn flow(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let field = |(key, value)| format!("{}: {}", flow(&Value::String(key)), flow(value));
            let fields: Vec<_> = fields.iter().map(|(key, value)| field((key.clone(), value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// A value as a document, with comments above the fields whose JSON pointers they stand for. Lists
/// of plain values stay on one line while they fit.
pub fn block(value: &Value, comments: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    write(&mut out, value, "", 0, comments);
    out
}

/// The width up to which a list stays on one line.
const WIDTH: usize = 100;

fn write(out: &mut String, value: &Value, pointer: &str, indent: usize, comments: &BTreeMap<String, String>) {
    let pad = " ".repeat(indent);
    let comment = |out: &mut String, pointer: &str| {
        for line in comments.get(pointer).into_iter().flat_map(|text| text.lines()) {
            let _ = writeln!(out, "{pad}# {line}");
        }
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                comment(out, &pointer);
                let key = flow(&Value::String(name.clone()));
                if is_inline(value, indent + key.len() + 2) {
                    let _ = writeln!(out, "{pad}{key}: {}", flow(value));
                } else {
                    let _ = writeln!(out, "{pad}{key}:");
                    let deeper = if value.is_object() { indent + 2 } else { indent };
                    write(out, value, &pointer, deeper, comments);
                }
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                let pointer = format!("{pointer}/{i}");
                comment(out, &pointer);
                if is_inline(item, indent + 2) {
                    let _ = writeln!(out, "{pad}- {}", flow(item));
                    continue;
                }
                let mut nested = String::new();
                write(&mut nested, item, &pointer, indent + 2, comments);
                // The dash stands before the first line that is no comment.
                let at = nested.lines().take_while(|line| line.trim_start().starts_with('#'));
                let at = at.map(|line| line.len() + 1).sum::<usize>() + indent;
                nested.replace_range(at..=at, "-");
                out.push_str(&nested);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let _ = writeln!(out, "{pad}{}", flow(value));
        }
    }
}

/// Whether a value is written behind its key.
fn is_inline(value: &Value, at: usize) -> bool {
    let is_scalar = |value: &Value| !value.is_array() && !value.is_object();
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.iter().all(is_scalar) && at + flow(value).len() <= WIDTH,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// Whether a string needs no quotes anywhere, within brackets too.
fn is_plain(text: &str) -> bool {
    let is_tame = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/' | b'*');
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(is_tame)
        && scalar::plain(text) == Ok(Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{block, flow};
    use crate::yaml::parse;

    #[test]
    fn strings_are_quoted_only_where_they_would_be_something_else() {
        let value =
            json!({"a": ["kube-system", "10.0.0.0/8", "yes", "0777", "a: b", "", "*", "::/0", "x y"], "1": null});
        let text = flow(&value);
        assert_eq!(text, r#"{a: [kube-system, 10.0.0.0/8, "yes", "0777", "a: b", "", "*", "::/0", "x y"], "1": null}"#);
        assert_eq!(parse(&text).remove(0).unwrap().value(), value);
    }
    #[test]
    fn a_document_reads_as_what_was_written() {
        let value = json!({
            "kind": "X", "a/b": {"c": [1, "yes"], "d": {}, "e": []},
            "list": [{"name": "a", "deep": [{"x": 1}]}, [[1], {"y": 2}], "x y"],
            "wide": ["a".repeat(60), "b".repeat(60)],
        });
        let comments =
            [("/kind", "one\ntwo"), ("/list/0", "above"), ("/list/0/deep/0/x", "within"), ("/a~1b/c", "key")];
        let text = block(&value, &comments.map(|(at, text)| (at.to_owned(), text.to_owned())).into());
        assert_eq!(parse(&text).remove(0).unwrap().value(), value, "{text}");
        assert_eq!(text.matches('#').count(), 5, "{text}");
        assert!(text.starts_with("# one\n# two\nkind: X\n"), "{text}");
    }
}
