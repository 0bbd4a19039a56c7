//! A rule's page: its documentation with the Markdown taken out, and its options.

use std::fmt::Write as _;

use anstyle::Style;
use serde_json::Value;

use crate::rules::Entry;
use crate::{prose, yaml};

const BOLD: Style = Style::new().bold();
const WIDTH: usize = 96;

/// A rule's page for a terminal.
pub fn page(entry: &Entry) -> String {
    let meta = entry.meta;
    let mut out = format!("{BOLD}{} {}{BOLD:#}\n", meta.code, meta.name);
    let _ = writeln!(
        out,
        "severity {}, {} in the profile baseline, {} in restricted, since {}\n",
        meta.severity.as_str(),
        meta.baseline,
        meta.restricted,
        meta.since
    );
    body(&entry.page(), &mut out);
    options(entry, &mut out);
    out
}

/// Headings are set bold, code is indented, paragraphs are filled.
fn body(markdown: &str, out: &mut String) {
    let mut paragraph = String::new();
    let mut is_code = false;
    let flush = |paragraph: &mut String, out: &mut String| {
        for line in prose::wrap(paragraph, WIDTH) {
            out.push_str(&line);
            out.push('\n');
        }
        paragraph.clear();
    };
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            flush(&mut paragraph, out);
            is_code = !is_code;
        } else if is_code {
            out.push_str(format!("    {line}").trim_end());
            out.push('\n');
        } else if let Some(heading) = line.strip_prefix('#') {
            flush(&mut paragraph, out);
            let _ = writeln!(out, "{BOLD}{}{BOLD:#}", heading.trim_start_matches('#').trim());
        } else {
            paragraph.push_str(line);
            paragraph.push('\n');
        }
    }
    flush(&mut paragraph, out);
}

fn options(entry: &Entry, out: &mut String) {
    let schema = entry.schema().to_value();
    let Some(fields) = schema.get("properties").and_then(Value::as_object) else { return };
    if fields.is_empty() {
        return;
    }
    let defaults = match entry.build(Value::Object(serde_json::Map::new())) {
        Some(Ok(rule)) => rule.options(),
        Some(Err(_)) | None => Value::Null,
    };
    let _ = write!(out, "\n{BOLD}Options{BOLD:#}\nset under `rules.{}` in the configuration\n", entry.meta.name);
    for (name, field) in fields {
        let default = defaults.get(name).map(yaml::flow).unwrap_or_default();
        let _ = write!(out, "\n  {BOLD}{name}{BOLD:#}: {}, default {default}\n", type_name(field, &schema));
        let description = field.get("description").and_then(Value::as_str).unwrap_or_default();
        for line in prose::wrap(description, WIDTH - 6) {
            let _ = writeln!(out, "{}", format!("      {line}").trim_end());
        }
    }
}

/// A type in words: `list of text`, `audit | warn | enforce`.
fn type_name(schema: &Value, root: &Value) -> String {
    if let Some(target) =
        schema.get("$ref").and_then(Value::as_str).and_then(|reference| root.pointer(reference.strip_prefix('#')?))
    {
        return type_name(target, root);
    }
    let names = |values: &Value, of: fn(&Value) -> Option<&Value>| {
        let names: Vec<_> = values.as_array().into_iter().flatten().filter_map(of).map(yaml::flow).collect();
        names.join(" | ")
    };
    if let Some(values) = schema.get("enum") {
        return names(values, |value| Some(value));
    }
    if let Some(variants) = schema.get("oneOf") {
        return names(variants, |variant| variant.get("const"));
    }
    if let Some(variants) = schema.get("anyOf").and_then(Value::as_array) {
        let names: Vec<_> = variants.iter().map(|variant| type_name(variant, root)).collect();
        return names.join(" or ");
    }
    let one = |name: &str| match name {
        "string" => "text".to_owned(),
        "integer" | "number" => match (schema.get("minimum"), schema.get("maximum")) {
            (Some(least), Some(most)) => format!("number from {least} to {most}"),
            (Some(least), None) => format!("number from {least}"),
            (None, Some(most)) => format!("number up to {most}"),
            (None, None) => "number".to_owned(),
        },
        "boolean" => "true | false".to_owned(),
        "array" => {
            let items = schema.get("items").map(|items| type_name(items, root)).unwrap_or_default();
            format!("list of {items}")
        }
        "object" => "mapping".to_owned(),
        "null" => "nothing".to_owned(),
        other => other.to_owned(),
    };
    match schema.get("type") {
        Some(Value::String(name)) => one(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(one).collect::<Vec<_>>().join(" or "),
        _ => "value".to_owned(),
    }
}
