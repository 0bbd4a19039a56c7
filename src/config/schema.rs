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
