//! The rules as they are in `crds/yaml`, and the table of their cases.

use serde::Deserialize;
use serde_json::Value;

/// A rule of a resource definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// The field it stands at; empty for the whole object.
    path: String,
    message: String,
    cel: String,
}

impl Rule {
    pub(super) fn key(&self) -> (&str, &str) {
        (&self.path, &self.message)
    }

    pub(super) fn is_about_changes(&self) -> bool {
        self.cel.contains("oldSelf")
    }
}

/// An object as a case has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Side {
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default = "empty")]
    pub(super) spec: Value,
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

/// What a rule refuses, and what it accepts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) path: String,
    pub(super) message: String,
    /// What is there before, for a rule about changes.
    #[serde(default)]
    pub(super) before: Option<Side>,
    pub(super) refused: Side,
    pub(super) accepted: Side,
}

impl Case {
    pub(super) fn key(&self) -> (&str, &str) {
        (&self.path, &self.message)
    }

    /// In how many places the two objects differ.
    pub(super) fn differences(&self) -> usize {
        let names = usize::from(self.refused.name != self.accepted.name);
        names + differences(&self.refused.spec, &self.accepted.spec)
    }
}

/// What only one of them has counts as one difference, and so does what is not of the same form.
fn differences(one: &Value, other: &Value) -> usize {
    match (one, other) {
        (Value::Object(left), Value::Object(right)) => {
            let added = right.keys().filter(|name| !left.contains_key(*name)).count();
            let both =
                left.iter().map(|(name, value)| right.get(name).map_or(1, |more| differences(value, more)));
            added + both.sum::<usize>()
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            left.iter().zip(right).map(|(one, other)| differences(one, other)).sum()
        }
        _ => usize::from(one != other),
    }
}

fn file(path: &str) -> String {
    let path = e2e::cluster::tool::root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cases of a kind.
pub(super) fn cases(kind: &str) -> Vec<Case> {
    let path = format!("tests/tests/api_server/rules/{}.yaml", kind.to_lowercase());
    serde_yaml::from_str(&file(&path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All rules of a kind, wherever they stand.
pub(super) fn rules(kind: &str) -> Vec<Rule> {
    let definition = file(&format!("crds/yaml/{}s.yaml", kind.to_lowercase()));
    let written =
        definition.lines().filter(|line| line.trim_start_matches([' ', '-']).starts_with("rule: ")).count();
    let definition: Value = serde_yaml::from_str(&definition).unwrap();
    let mut found = Vec::new();
    for version in definition["spec"]["versions"].as_array().unwrap() {
        collect(&version["schema"]["openAPIV3Schema"], "", &mut found);
    }
    assert!(written > 0 && found.len() == written, "{} of {written} rules of {kind} were found", found.len());
    found
}

fn collect(schema: &Value, path: &str, found: &mut Vec<Rule>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let rule = |rule: &Value| Rule {
        path: path.to_owned(),
        message: text(&rule["message"]),
        cel: text(&rule["rule"]),
    };
    found.extend(rules.map(rule));
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect(field, &path, found);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", ".*")] {
        if schema[key].is_object() {
            collect(&schema[key], &format!("{path}{mark}"), found);
        }
    }
}
