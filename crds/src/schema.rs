//! Checks a JSON value against the bounds of a structural schema, as an API server does before any rule runs.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::Regex;
use serde_json::{Map, Value};

/// What is wrong, each with the path of its field.
pub(crate) fn problems(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, value, "", &mut found);
    found
}

/// Removes nulls: in a schema without nullable fields, null means absent.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, child)| !child.is_null())
            .map(|(key, child)| (key, without_nulls(child)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn check(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    if !is_of_type(schema, value) {
        found.push(format!("{path}: must be {}, not {value}", type_name(schema)));
        return;
    }
    match value {
        Value::Object(fields) => object(schema, fields, path, found),
        Value::Array(items) => {
            bound(schema, "maxItems", items.len(), "items", path, found);
            for (i, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{path}[{i}]"), found);
            }
        }
        Value::String(text) => string(schema, text, path, found),
        Value::Number(number) => range(schema, number.as_f64().unwrap_or(0.0), path, found),
        Value::Null | Value::Bool(_) => {}
    }
}

fn object(schema: &Value, fields: &Map<String, Value>, path: &str, found: &mut Vec<String>) {
    let at = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(key) {
            found.push(format!("{}: is required", at(key)));
        }
    }
    bound(schema, "maxProperties", fields.len(), "entries", path, found);
    for (key, child) in fields {
        let declared = &schema["properties"][key.as_str()];
        let free = &schema["additionalProperties"];
        if declared.is_object() {
            check(declared, child, &at(key), found);
        } else if free.is_object() {
            check(free, child, &at(key), found);
        } else if schema["properties"].is_object() && !is_standard(path, key) {
            found.push(format!("{}: unknown field; known are {}", at(key), known(schema)));
        }
    }
}

/// What every object has at its root beside its own fields.
fn is_standard(path: &str, key: &str) -> bool {
    path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&key)
}

fn known(schema: &Value) -> String {
    let fields = schema["properties"].as_object();
    let names: Vec<&str> = fields.into_iter().flat_map(Map::keys).map(String::as_str).collect();
    names.join(", ")
}

fn string(schema: &Value, text: &str, path: &str, found: &mut Vec<String>) {
    let length = text.chars().count();
    bound(schema, "maxLength", length, "characters", path, found);
    if schema["minLength"].as_u64().is_some_and(|least| (length as u64) < least) {
        found.push(format!("{path}: must have at least {} characters", schema["minLength"]));
    }
    if let Some(choices) = schema["enum"].as_array()
        && !choices.iter().any(|choice| choice == text)
    {
        let choices: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
        found.push(format!("{path}: {text:?} is not one of {}", choices.join(", ")));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !compiled(pattern).is_some_and(|regex| regex.is_match(text))
    {
        found.push(format!("{path}: {text:?} does not have the form {pattern}"));
    }
}

/// A pattern, compiled once; there are as many as the schemas have.
fn compiled(pattern: &str) -> Option<Regex> {
    static PATTERNS: LazyLock<Mutex<BTreeMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);
    let mut patterns = PATTERNS.lock().unwrap_or_else(PoisonError::into_inner);
    let regex = patterns.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
    regex.clone()
}

fn range(schema: &Value, number: f64, path: &str, found: &mut Vec<String>) {
    let (least, most) = (&schema["minimum"], &schema["maximum"]);
    if least.as_f64().is_some_and(|least| number < least) {
        found.push(format!("{path}: {number} is too small; at least {least}"));
    }
    if most.as_f64().is_some_and(|most| number > most) {
        found.push(format!("{path}: {number} is too large; at most {most}"));
    }
}

fn bound(schema: &Value, key: &str, count: usize, what: &str, path: &str, found: &mut Vec<String>) {
    if schema[key].as_u64().is_some_and(|most| count as u64 > most) {
        found.push(format!("{path}: must have at most {} {what}", schema[key]));
    }
}

fn is_of_type(schema: &Value, value: &Value) -> bool {
    if schema["x-kubernetes-int-or-string"] == Value::Bool(true) {
        return value.is_string() || value.is_i64();
    }
    match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    }
}

fn type_name(schema: &Value) -> &str {
    schema["type"].as_str().unwrap_or("a number or a string")
}
