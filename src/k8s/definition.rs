//! The definition of the project's own kind, as the API server takes it.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::model::{GROUP, WaiverTerms};

/// The `CustomResourceDefinition` of Waivers. Its schema is that of the type they are read into.
pub fn waivers() -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut terms = settings.into_generator().into_root_schema_for::<WaiverTerms>().to_value();
    make_structural(&mut terms);
    let column = |name: &str, path: &str, description: &str, priority: u8| json!({ "name": name, "type": "string", "jsonPath": path, "description": description, "priority": priority });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("waivers.{GROUP}"), "labels": { "app.kubernetes.io/name": "portcullis" } },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": "Waiver",
                "listKind": "WaiverList",
                "plural": "waivers",
                "singular": "waiver",
                "categories": ["portcullis"],
            },
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "additionalPrinterColumns": [
                    column("Rules", ".spec.rules", "What may stand", 0),
                    column("Owner", ".spec.owner", "Who answers for it", 0),
                    // Kubernetes shows a date as an age, and of one to come says `<invalid>`.
                    column("Until", ".spec.expires", "The last day, or the moment it ends", 0),
                    column("Reason", ".spec.reason", "Why, and what will end it", 1),
                    { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
                ],
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "description": "Lets findings of Portcullis stand in its namespace for a while, by somebody's leave.",
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": { "type": "string" },
                        "kind": { "type": "string" },
                        "metadata": { "type": "object" },
                        "spec": terms,
                    },
                } },
            }],
        },
    })
}

/// What a structural schema may not hold is taken out: a default would be written into every object,
/// and unknown fields cannot be forbidden. The API server would drop them before the gate sees them,
/// and of a misspelt `match` there would be left one that is about everything; so they are kept, for
/// the gate to refuse.
fn make_structural(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("additionalProperties") == Some(&Value::Bool(false)) {
                fields.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
            }
            fields.retain(|name, value| {
                !(name == "title" && value.is_string()
                    || name == "default"
                    || name == "additionalProperties" && value.is_boolean())
            });
            fields.values_mut().for_each(make_structural);
        }
        Value::Array(items) => items.iter_mut().for_each(make_structural),
        _ => {}
    }
}
