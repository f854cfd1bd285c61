//! Reads objects as an API server would: defaults, bounds, rules, and only then the Rust types.

use std::sync::LazyLock;

use kube_core::cel::{CompiledSchema, Validator, apply_defaults, compile_schema};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::document::{Document, documents};
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
    #[error("{place} is no Kubernetes object:\n  {}", .problems.join("\n  "))]
    NoObject { place: String, problems: Vec<String> },
    /// Capstan has no such kind.
    #[error("{name}: {api_version} has no kind {kind}; use {API_VERSION} with Queue, Consumer or Broker")]
    UnknownKind { api_version: String, kind: String, name: String },
    /// Fields are wrong.
    #[error("{kind} {name} is not valid:\n  {}", .problems.join("\n  "))]
    Invalid { kind: String, name: String, problems: Vec<String> },
}

/// What a text holds: its good objects, and every problem of the others.
#[derive(Debug, Default)]
pub struct Parsed {
    pub objects: Vec<Object>,
    pub errors: Vec<ParseError>,
}

/// Reads all documents of a YAML text, in order; empty documents are skipped.
///
/// # Errors
/// [`ParseError`], with every problem of the first object that has any.
pub fn parse(text: &str) -> Result<Vec<Object>, ParseError> {
    let Parsed { objects, errors } = parse_all(text);
    errors.into_iter().next().map_or(Ok(objects), Err)
}

/// The same, with the problems of all objects. Nothing is read behind what is no YAML.
#[must_use]
pub fn parse_all(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let validator = Validator::new();
    let (documents, error) = documents(text);
    for (i, Document { value, repeated }) in documents.into_iter().enumerate() {
        let place = format!("document {}", i + 1);
        let mut add =
            |place: &str, value: &Value, repeated: &[String]| match one(&validator, place, value, repeated) {
                Ok(object) => parsed.objects.push(object),
                Err(error) => parsed.errors.push(error),
            };
        match value["items"].as_array() {
            _ if value.is_null() => {}
            Some(items) if value["kind"] == "List" => {
                for (i, item) in items.iter().enumerate() {
                    let of_item = format!("items[{i}].");
                    let repeated: Vec<String> = repeated
                        .iter()
                        .filter_map(|path| path.strip_prefix(&of_item))
                        .map(Into::into)
                        .collect();
                    add(&format!("item {} of {place}", i + 1), item, &repeated);
                }
            }
            _ => add(&place, &value, &repeated),
        }
    }
    parsed.errors.extend(error.map(ParseError::Yaml));
    parsed
}

fn one(validator: &Validator, place: &str, value: &Value, repeated: &[String]) -> Result<Object, ParseError> {
    let Identity { api_version, kind, name } =
        identity(value).map_err(|problems| ParseError::NoObject { place: place.to_owned(), problems })?;
    let twice: Vec<String> = repeated.iter().map(|path| format!("{path}: is there more than once")).collect();
    let own = api_version.split('/').next() == Some(GROUP);
    if !own && twice.is_empty() {
        return Ok(Object::Other { api_version, kind, name });
    }
    if !own {
        return Err(invalid(&kind, &name, twice));
    }
    let schema = schemas().iter().find(|schema| api_version == API_VERSION && schema.kind == kind);
    let Some(schema) = schema else {
        return Err(ParseError::UnknownKind { api_version, kind, name });
    };
    let value =
        check(validator, schema, value.clone(), twice).map_err(|problems| invalid(&kind, &name, problems))?;
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

/// What every object needs to be one.
struct Identity {
    api_version: String,
    kind: String,
    name: String,
}

/// Reads it, or says of each part that is missing or no text why.
fn identity(value: &Value) -> Result<Identity, Vec<String>> {
    let metadata = &value["metadata"];
    let name = match &metadata["name"] {
        Value::Null if !metadata.is_object() && !metadata.is_null() => {
            Err(format!("metadata: must be a mapping with a name, not {metadata}"))
        }
        Value::Null if !metadata["generateName"].is_null() => Err(
            "metadata.name: is missing; generateName does not stand for it, since what is applied has a name"
                .to_owned(),
        ),
        name => text("metadata.name", name),
    };
    let parts = (text("apiVersion", &value["apiVersion"]), text("kind", &value["kind"]), name);
    match parts {
        (Ok(api_version), Ok(kind), Ok(name)) => Ok(Identity { api_version, kind, name }),
        (api_version, kind, name) => {
            Err([api_version.err(), kind.err(), name.err()].into_iter().flatten().collect())
        }
    }
}

fn text(field: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        Value::String(_) => Err(format!("{field}: is empty")),
        Value::Null => Err(format!("{field}: is missing")),
        other => Err(format!("{field}: must be a string, not {other}; quote it")),
    }
}

/// The object with its defaults, or what is wrong with it. Rules run only on objects of the right form.
fn check(
    validator: &Validator,
    schema: &Schema,
    value: Value,
    mut problems: Vec<String>,
) -> Result<Value, Vec<String>> {
    let value = apply_all_defaults(&schema.schema, schema::without_nulls(value));
    problems.extend(schema::problems(&schema.schema, &value));
    problems.extend(name_problem(&value));
    if !problems.is_empty() {
        return Err(problems);
    }
    let messages = |errors: kube_core::cel::ValidationErrors| {
        let message = |e: &kube_core::cel::ValidationError| format!("{}: {}", e.field_path, e.message);
        errors.iter().map(message).collect::<Vec<_>>()
    };
    validator.validate_compiled(&schema.rules, &value, None).map_err(messages)?;
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

/// Names are DNS labels. API servers alone would take more, such as `a.b`; a rule of the definitions takes that away,
/// and what is left are labels.
fn name_problem(value: &Value) -> Option<String> {
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let error = capstan_api::Name::new(name).err()?;
    Some(format!("metadata.name: {error}"))
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// The schema of a kind.
struct Schema {
    kind: String,
    schema: Value,
    /// Its rules, compiled once: that takes far longer than to run them.
    rules: CompiledSchema,
}

fn schemas() -> &'static [Schema] {
    static SCHEMAS: LazyLock<Vec<Schema>> = LazyLock::new(|| {
        let of = |definition: Value| {
            let kind = definition["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
            let schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
            let rules = compile_schema(&schema);
            Schema { kind, schema, rules }
        };
        definitions().into_iter().map(of).collect()
    });
    &SCHEMAS
}
