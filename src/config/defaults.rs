//! The default configuration as a file a person can start from.

use serde_json::{Map, Value};

use super::{Settings, schema};
use crate::rules::RULES;
use crate::{prose, yaml};

/// Every setting with its default and what it means. What has no default but an absence (an
/// action, which the profile decides) is there as a comment.
pub fn defaults() -> String {
    let schema = schema();
    let settings = serde_json::to_value(Settings::default()).expect("settings are plain data with string keys");
    let mut out = "# The configuration of Portcullis: every setting with its default.\n".to_owned();
    let properties = object(schema.get("properties"));
    for (name, field) in &properties {
        out.push('\n');
        comment(description(field), 0, &mut out);
        if name == "rules" {
            out.push_str("rules:\n");
            rules(field, &mut out);
        } else {
            let value = settings.get(name).cloned().unwrap_or_default();
            setting(name, field, &value, &schema, 0, &mut out);
        }
    }
    out
}

fn rules(schema_of_rules: &Value, out: &mut String) {
    for (i, entry) in RULES.iter().enumerate() {
        let schema = schema_of_rules.get("properties").and_then(|rules| rules.get(entry.meta.name));
        let defaults = match entry.build(Value::Object(Map::new())) {
            Some(Ok(rule)) => object(Some(&rule.options())),
            Some(Err(_)) | None => Map::new(),
        };
        if i > 0 {
            out.push('\n');
        }
        comment(&format!("{}: {}", entry.meta.code, schema.map(description).unwrap_or_default()), 2, out);
        line(2, &format!("{}:", entry.meta.name), out);
        for (name, field) in object(schema.and_then(|schema| schema.get("properties"))) {
            comment(description(&field), 4, out);
            match defaults.get(&name) {
                Some(value) => setting(&name, &field, value, &Value::Null, 4, out),
                None => line(4, &format!("# {name}: {}", entry.meta.baseline), out),
            }
        }
    }
}

/// One setting with its value; a mapping with what is said of each of its fields.
fn setting(name: &str, schema: &Value, value: &Value, root: &Value, indent: usize, out: &mut String) {
    let target = resolve(schema, root);
    let fields = object(target.get("properties"));
    match value {
        Value::Object(values) if !fields.is_empty() => {
            line(indent, &format!("{name}:"), out);
            for (field, schema) in &fields {
                comment(description(schema), indent + 2, out);
                let value = values.get(field).cloned().unwrap_or_default();
                setting(field, schema, &value, root, indent + 2, out);
            }
        }
        Value::Null => line(indent, &format!("# {name}:"), out),
        Value::Array(items) if !items.is_empty() => {
            line(indent, &format!("{name}:"), out);
            for item in items {
                line(indent + 2, &format!("- {}", yaml::flow(item)), out);
            }
        }
        value => line(indent, &format!("{name}: {}", yaml::flow(value)), out),
    }
}

/// What a reference in a schema refers to.
fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let reference = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref")).and_then(Value::as_str);
    reference.and_then(|reference| root.pointer(reference.strip_prefix('#')?)).unwrap_or(schema)
}

fn object(value: Option<&Value>) -> Map<String, Value> {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

fn description(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

fn comment(text: &str, indent: usize, out: &mut String) {
    for wrapped in prose::wrap(text, 98 - indent) {
        line(indent, format!("# {wrapped}").trim_end(), out);
    }
}

fn line(indent: usize, text: &str, out: &mut String) {
    out.push_str(&" ".repeat(indent));
    out.push_str(text);
    out.push('\n');
}
