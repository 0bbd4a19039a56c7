//! The JSON Schema of the configuration file, the rules' options included.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Settings;
use crate::rules::{CL_RULE_FAILED, RULES};

/// The schema, draft 2020-12.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12();
    let mut root = settings.into_generator().into_root_schema_for::<Settings>().to_value();
    let mut definitions = match root.get_mut("$defs").map(Value::take) {
        Some(Value::Object(definitions)) => definitions,
        _ => Map::new(),
    };
    let rules: Map<String, Value> =
        RULES.iter().map(|entry| (entry.meta.name.to_owned(), rule(entry, &mut definitions))).collect();
    if let Some(fields) = root.pointer_mut("/properties/rules").and_then(Value::as_object_mut) {
        fields.insert("type".to_owned(), json!(["object", "null"]));
        fields.insert("properties".to_owned(), rules.into());
        fields.insert("additionalProperties".to_owned(), false.into());
    }
    if let Some(fields) = root.as_object_mut() {
        fields.insert("title".to_owned(), "Portcullis configuration".into());
        fields.insert("$defs".to_owned(), definitions.into());
    }
    root
}

/// One rule's settings: its options and its action. The types its options name move to the root.
fn rule(entry: &crate::rules::Entry, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = entry.schema().to_value();
    if let Some(Value::Object(own)) = schema.get_mut("$defs").map(Value::take) {
        definitions.extend(own);
    }
    let options = match schema.get_mut("properties").map(Value::take) {
        Some(Value::Object(options)) => options,
        _ => Map::new(),
    };
    let mut properties = Map::new();
    if entry.meta.name != CL_RULE_FAILED.name {
        properties.insert(
            "action".to_owned(),
            json!({
                "description": format!(
                    "What becomes of a finding. Left out: `{}` in the profile `baseline`, `{}` in `restricted`.",
                    entry.meta.baseline, entry.meta.restricted
                ),
                "enum": ["deny", "warn", "audit", "off", null],
            }),
        );
    }
    properties.extend(options);
    json!({
        "description": entry.page().lines().next().unwrap_or_default(),
        "type": ["object", "null"],
        "properties": properties,
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::defaults;
    use crate::yaml::parse;

    /// The subset of JSON Schema that the configuration's uses, as a validator.
    fn fits(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let target = root.pointer(reference.trim_start_matches('#')).ok_or(format!("no {reference}"))?;
            return fits(value, target, root);
        }
        for all in ["anyOf", "oneOf"] {
            if let Some(variants) = schema.get(all).and_then(Value::as_array) {
                let fitting = variants.iter().filter(|variant| fits(value, variant, root).is_ok()).count();
                return if fitting > 0 { Ok(()) } else { Err(format!("{value} fits none of {all}")) };
            }
        }
        if schema.get("const").is_some_and(|only| only != value) {
            return Err(format!("{value} is not the constant"));
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return if values.contains(value) { Ok(()) } else { Err(format!("{value} is not in the enum")) };
        }
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let is_kind = match schema.get("type") {
            Some(Value::String(name)) => name == kind,
            Some(Value::Array(names)) => names.iter().any(|name| name == kind),
            _ => true,
        };
        if !is_kind {
            return Err(format!("{value} is not {}", schema["type"]));
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| fits(item, &schema["items"], root)),
            Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
                match schema.get("properties").and_then(|properties| properties.get(name)) {
                    Some(schema) => fits(value, schema, root).map_err(|error| format!("{name}: {error}")),
                    None if schema.get("additionalProperties") == Some(&json!(false)) => Err(format!("no {name}")),
                    None => Ok(()),
                }
            }),
            _ => Ok(()),
        }
    }

    fn validates(text: &str) -> Result<(), String> {
        let schema = schema();
        fits(&parse(text).remove(0).unwrap().value(), &schema, &schema)
    }

    #[test]
    fn the_default_file_fits_the_schema() {
        assert_eq!(validates(&defaults()), Ok(()));
        assert_eq!(validates(&defaults().replace("# action: ", "action: ")), Ok(()));
    }

    #[test]
    fn what_the_reader_refuses_the_schema_refuses() {
        for text in [
            "profil: baseline",
            "profile: strict",
            "mode: off_",
            "onError: never",
            "onTimeout: allow",
            "rules: {no-such-rule: {}}",
            "rules: {rule-failed: {action: deny}}",
            "rules: {unreadable-object: {action: den}}",
            "rules: {unreadable-object: {extra: 1}}",
            "dns: {servers: []}",
            "dns: {services: [{name: a}, {nam: b}]}",
            "cni: {name: flannel}",
            "namespaces: {exempt: 5}",
            "dns: []",
        ] {
            assert!(validates(text).is_err(), "{text}");
            assert!(crate::config::read(crate::yaml::Source::new("c", text)).is_err(), "{text}");
        }
    }

    #[test]
    fn rules_do_not_share_a_type_name_for_different_types() {
        let mut seen: Map<String, Value> = Map::new();
        for entry in RULES {
            let Some(Value::Object(own)) = entry.schema().to_value().get("$defs").cloned() else { continue };
            for (name, schema) in own {
                assert_eq!(seen.entry(name.clone()).or_insert_with(|| schema.clone()), &schema, "{name}");
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, out: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    out.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|value| references(value, out));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, out)),
                _ => {}
            }
        }
        let schema = schema();
        let mut found = Vec::new();
        references(&schema, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            assert!(schema.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}
