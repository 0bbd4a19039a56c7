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
            rules(field, &schema, &mut out);
        } else {
            let value = settings.get(name).cloned().unwrap_or_default();
            setting(name, field, &value, &schema, 0, &mut out);
        }
    }
    out
}

fn rules(schema_of_rules: &Value, root: &Value, out: &mut String) {
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
                Some(value) => setting(&name, &field, value, root, 4, out),
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

/// What a reference in a schema refers to, be it the schema or the first of its alternatives.
fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let reference = schema.get("$ref").or_else(|| schema.pointer("/anyOf/0/$ref")).and_then(Value::as_str);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read;
    use crate::yaml::Source;

    #[test]
    fn the_default_file_reads_as_the_defaults() {
        let read = read(Source::new("default.yaml", defaults())).unwrap_or_else(|error| panic!("{error}"));
        let default = Settings::default();
        let Settings { profile, mode, on_error, on_timeout, rules: _, namespaces, dns, mesh, cni, waivers, view } =
            &read;
        assert_eq!((*profile, *mode), (default.profile, default.mode));
        assert_eq!((*on_error, *on_timeout), (default.on_error, default.on_timeout));
        assert_eq!((namespaces, dns, mesh, cni), (&default.namespaces, &default.dns, &default.mesh, &default.cni));
        assert_eq!((waivers, view), (&default.waivers, &default.view));
        for entry in RULES {
            assert_eq!(read.action(entry), default.action(entry), "{}", entry.meta.name);
            assert_eq!(read.changed_options(entry), [], "{}", entry.meta.name);
        }
    }

    #[test]
    fn the_default_file_names_every_rule_and_every_option() {
        let text = defaults();
        for entry in RULES {
            assert!(text.contains(&format!("\n  {}:\n", entry.meta.name)), "{}", entry.meta.name);
            for option in object(entry.schema().to_value().get("properties")).keys() {
                let is_there =
                    text.lines().any(|line| line.trim_start_matches([' ', '#']).starts_with(&format!("{option}:")));
                assert!(is_there, "{} {option}", entry.meta.name);
            }
        }
    }

    #[test]
    fn a_commented_action_is_what_the_profile_asks_for() {
        let uncommented = defaults().replace("# action: ", "action: ");
        let read = read(Source::new("default.yaml", uncommented)).unwrap_or_else(|error| panic!("{error}"));
        for entry in RULES {
            assert_eq!(read.action(entry), entry.meta.baseline, "{}", entry.meta.name);
        }
    }

    #[test]
    fn comments_stay_within_the_width() {
        let too_long: Vec<_> =
            defaults().lines().filter(|line| line.chars().count() > 100).map(str::to_owned).collect();
        assert!(too_long.is_empty(), "{too_long:#?}");
    }
}
