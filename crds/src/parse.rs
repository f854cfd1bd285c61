//! Reads objects as an API server would: defaults, bounds, rules, and only then the Rust types.

use std::sync::LazyLock;

use kube_core::cel::{Validator, apply_defaults};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{API_VERSION, Broker, Consumer, GROUP, Queue, definitions, schema};

/// An object of a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    Queue(Box<Queue>),
    Consumer(Box<Consumer>),
    Broker(Box<Broker>),
    /// An object of another API, not looked at.
    Other {
        api_version: String,
        kind: String,
        name: String,
    },
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The text is no YAML.
    #[error("not valid YAML: {0}")]
    Yaml(#[from] serde_yaml::Error),
    /// A document is no Kubernetes object.
    #[error("document {0} is no Kubernetes object: it needs apiVersion, kind and metadata.name")]
    NoObject(usize),
    /// Capstan has no such kind.
    #[error("{name}: {api_version} has no kind {kind}; use {API_VERSION} with Queue, Consumer or Broker")]
    UnknownKind { api_version: String, kind: String, name: String },
    /// Fields are wrong.
    #[error("{kind} {name} is not valid:\n  {}", .problems.join("\n  "))]
    Invalid { kind: String, name: String, problems: Vec<String> },
}

/// Reads all documents of a YAML text, in order; empty documents are skipped.
///
/// # Errors
/// [`ParseError`], with every problem of the first object that has any.
pub fn parse(text: &str) -> Result<Vec<Object>, ParseError> {
    let mut objects = Vec::new();
    for (i, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let value = Value::deserialize(document)?;
        match value["items"].as_array() {
            _ if value.is_null() => {}
            Some(items) if value["kind"] == "List" => {
                for item in items {
                    objects.push(one(i + 1, item)?);
                }
            }
            _ => objects.push(one(i + 1, &value)?),
        }
    }
    Ok(objects)
}

/// Checks one object.
///
/// # Errors
/// [`ParseError`], with every problem of the object.
pub fn parse_object(value: &Value) -> Result<Object, ParseError> {
    one(1, value)
}

fn one(number: usize, value: &Value) -> Result<Object, ParseError> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let fields = (text(&value["apiVersion"]), text(&value["kind"]), text(&value["metadata"]["name"]));
    let (Some(api_version), Some(kind), Some(name)) = fields else {
        return Err(ParseError::NoObject(number));
    };
    if api_version.split('/').next() != Some(GROUP) {
        return Ok(Object::Other { api_version, kind, name });
    }
    let schema = schemas().iter().find(|(of, _)| api_version == API_VERSION && *of == kind);
    let Some((_, schema)) = schema else {
        return Err(ParseError::UnknownKind { api_version, kind, name });
    };
    let value = check(schema, value.clone()).map_err(|problems| invalid(&kind, &name, problems))?;
    let object = match kind.as_str() {
        "Queue" => typed(value).map(|queue| Object::Queue(Box::new(queue))),
        "Consumer" => typed(value).map(|consumer| Object::Consumer(Box::new(consumer))),
        _ => typed(value).map(|broker| Object::Broker(Box::new(broker))),
    };
    object.map_err(|problem| invalid(&kind, &name, vec![problem]))
}

fn invalid(kind: &str, name: &str, problems: Vec<String>) -> ParseError {
    ParseError::Invalid { kind: kind.to_owned(), name: name.to_owned(), problems }
}

/// The object with its defaults, or what is wrong with it. Rules run only on objects of the right form.
fn check(schema: &Value, value: Value) -> Result<Value, Vec<String>> {
    let value = apply_all_defaults(schema, schema::without_nulls(value));
    let mut problems = schema::problems(schema, &value);
    problems.extend(name_problem(&value));
    if !problems.is_empty() {
        return Err(problems);
    }
    let messages = |errors: kube_core::cel::ValidationErrors| {
        let message = |e: &kube_core::cel::ValidationError| format!("{}: {}", e.field_path, e.message);
        errors.iter().map(message).collect::<Vec<_>>()
    };
    Validator::new().validate(schema, &value, None).map_err(messages)?;
    Ok(value)
}

/// API servers look for defaults inside defaults too.
fn apply_all_defaults(schema: &Value, mut value: Value) -> Value {
    loop {
        let next = apply_defaults(schema, &value);
        if next == value {
            return value;
        }
        value = next;
    }
}

/// What API servers say of every object's name.
fn name_problem(value: &Value) -> Option<String> {
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let error = capstan_api::Name::new(name).err()?;
    Some(format!("metadata.name: {error}"))
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// The schema of each kind.
fn schemas() -> &'static [(String, Value)] {
    static SCHEMAS: LazyLock<Vec<(String, Value)>> = LazyLock::new(|| {
        let of = |definition: Value| {
            let kind = definition["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
            (kind, definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
        };
        definitions().into_iter().map(of).collect()
    });
    &SCHEMAS
}
