//! The CustomResourceDefinitions, from the Rust types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::rule::rule;
use crate::{Broker, BrokerSpec, Consumer, Queue, QueueSpec};

/// All definitions, as JSON: Queue, Consumer, Broker.
#[must_use]
pub fn definitions() -> [Value; 3] {
    [
        with_spec_default(definition(&Queue::crd(), 63), json!(QueueSpec::default())),
        definition(&Consumer::crd(), 63),
        with_spec_default(definition(&Broker::crd(), 40), json!(BrokerSpec::default())),
    ]
}

/// A definition as a YAML document, as it is stored in `crds/yaml`.
///
/// # Errors
/// Never in practice: definitions are plain data.
pub fn yaml(definition: &Value) -> Result<String, serde_yaml::Error> {
    Ok(format!("# Generated from the Rust types; do not edit.\n{}", serde_yaml::to_string(definition)?))
}

/// What derive makes, in the form that suits an API server.
fn definition(derived: &CustomResourceDefinition, name_length: usize) -> Value {
    let mut value = json!(derived);
    let schema = &mut value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    tidy(schema);
    schema["x-kubernetes-validations"] = json!([rule(
        &format!("self.metadata.name.size() <= {name_length} && !self.metadata.name.contains('.')"),
        &format!("metadata.name must have at most {name_length} characters and no '.'"),
    )]);
    value["metadata"]["annotations"] = json!({ "helm.sh/resource-policy": "keep" });
    value
}

/// Lets users leave out a spec whose every field has a default.
fn with_spec_default(mut definition: Value, default: Value) -> Value {
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["default"] = default;
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("required");
    }
    definition
}

/// Walks a schema: an absent field is absent rather than null, and integers have formats that API servers know.
fn tidy(schema: &mut Value) {
    if let Value::Object(node) = schema {
        node.remove("nullable");
        if node.get("default").is_some_and(Value::is_null) {
            node.remove("default");
        }
        if node.contains_key("x-kubernetes-int-or-string") {
            node.insert("anyOf".to_owned(), json!([{ "type": "integer" }, { "type": "string" }]));
        }
        tidy_format(node);
        for (key, child) in node.iter_mut() {
            match key.as_str() {
                "properties" => {
                    for field in child.as_object_mut().into_iter().flat_map(Map::values_mut) {
                        tidy(field);
                    }
                }
                "items" | "additionalProperties" => tidy(child),
                _ => {}
            }
        }
    }
}

fn tidy_format(node: &mut Map<String, Value>) {
    let format = match node.get("format").and_then(Value::as_str) {
        Some("uint8" | "uint16") => "int32",
        Some("uint32" | "uint64" | "uint") => "int64",
        _ => return,
    };
    node.insert("format".to_owned(), json!(format));
    let least = node.entry("minimum").or_insert(json!(0));
    *least = whole(least);
    if let Some(most) = node.get_mut("maximum") {
        *most = whole(most);
    }
}

/// `1.0` as `1`.
fn whole(number: &Value) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "bounds are whole numbers far below 2^53")]
    number.as_f64().map_or_else(|| number.clone(), |n| json!(n as i64))
}
