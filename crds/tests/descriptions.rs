//! What `kubectl explain` says: every field is described, with its bounds and its default.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::Value;

/// Less than this says nothing that the name does not.
const CHARS_MIN: usize = 20;
/// Lists and fields whose content is Kubernetes' own, in its own words.
const KUBERNETES: [&str; 4] =
    ["status.conditions", "spec.networkPolicy.from", "spec.networkPolicy.adminFrom", "spec.pod.tolerations"];

/// A field, and where it is.
struct Field<'a> {
    path: String,
    schema: &'a Value,
}

impl Field<'_> {
    fn description(&self) -> &str {
        self.schema["description"].as_str().unwrap_or_default()
    }

    /// Whether a user writes it.
    fn is_spec(&self) -> bool {
        self.path == "spec" || self.path.starts_with("spec.")
    }

    /// What is missing in its description.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let description = self.description();
        if description.chars().count() < CHARS_MIN || !description.ends_with('.') {
            problems.push(format!("is described by {description:?}: write a sentence"));
        }
        let default = &self.schema["default"];
        if self.is_spec() && !default.is_null() && !description.contains("Default") {
            problems.push(format!("does not say its Default {default}"));
        }
        // Of the defaults of objects each field tells.
        if default.is_string() || default.is_number() || default.is_boolean() {
            let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
            if self.is_spec() && !says(description, &default) {
                problems.push(format!("does not name its default {default}"));
            }
        }
        let bounds = self.bounds().into_iter().filter(|bound| !says(description, bound));
        problems.extend(bounds.map(|bound| format!("does not name its bound {bound}")));
        problems
    }

    /// The bounds of numbers, durations and sizes, and of lengths that a user may meet.
    fn bounds(&self) -> Vec<String> {
        let rules = self.schema["x-kubernetes-validations"].as_array().into_iter().flatten();
        // Those of an object are about several fields.
        let rules = rules.filter(|_| self.schema["properties"].is_null());
        let messages = rules.filter_map(|rule| rule["message"].as_str());
        let rules = messages.filter_map(|message| message.rsplit_once(" must be at "));
        let mut bounds: Vec<String> = rules
            .map(|(_, bound)| bound.trim_start_matches("least ").trim_start_matches("most ").to_owned())
            .collect();
        let has_rules = !bounds.is_empty();
        let minimum = self.schema["minimum"].as_f64();
        // Rules are narrower; and that there are no fewer than no messages goes without saying.
        if !has_rules && minimum.is_some_and(|minimum| self.is_spec() || minimum > 0.0) {
            bounds.extend(minimum.map(|minimum| minimum.to_string()));
        }
        bounds.extend(self.schema["maximum"].as_f64().map(|maximum| maximum.to_string()));
        let is_text = self.schema["type"] == "string" && !has_rules && self.is_spec();
        let lengths =
            [("maxLength", is_text), ("maxItems", self.is_spec()), ("maxProperties", self.is_spec())];
        let counted = lengths.iter().filter(|(_, counts)| *counts);
        bounds.extend(counted.filter_map(|(key, _)| self.schema[*key].as_u64()).map(|most| most.to_string()));
        bounds
    }
}

/// Whether a text has a word: `10` is none of `10Gi`.
fn says(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '/' || c == '-';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + word.len()..].chars().next());
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// All fields below a schema that are ours.
fn fields<'a>(schema: &'a Value, path: &str, found: &mut Vec<Field<'a>>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let is_kubernetes = KUBERNETES.contains(&path.as_str());
        found.push(Field { path: path.clone(), schema });
        if !is_kubernetes {
            fields(schema, &path, found);
            fields(&schema["items"], &format!("{path}[]"), found);
            fields(&schema["additionalProperties"], &format!("{path}.*"), found);
        }
    }
}

#[test]
fn every_field_says_what_it_is_within_which_bounds_and_by_default() {
    let (mut problems, mut seen) = (Vec::new(), Vec::new());
    for definition in capstan_crds::definitions() {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut found = Vec::new();
        fields(schema, "", &mut found);
        for field in found {
            problems
                .extend(field.problems().into_iter().map(|what| format!("{kind} {}: {what}", field.path)));
            seen.push((field.path.clone(), field.bounds().len(), !field.schema["default"].is_null()));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let bounds: usize = seen.iter().map(|(_, bounds, _)| bounds).sum();
    let defaults = seen.iter().filter(|(_, _, has_default)| *has_default).count();
    assert!(seen.len() > 100 && bounds > 50 && defaults > 30, "{} {bounds} {defaults}", seen.len());
    for path in KUBERNETES {
        assert!(seen.iter().any(|(seen, _, _)| seen == path), "{path} is no field");
    }
}

#[test]
fn what_kubernetes_makes_of_a_schema_is_not_written_down() {
    fn walk(schema: &Value, seen: &mut usize) {
        let Value::Object(node) = schema else { return };
        assert!(node.get("nullable").is_none(), "{schema}");
        assert!(!schema["format"].as_str().unwrap_or("").starts_with('u'), "{schema}");
        *seen += 1;
        node.values().for_each(|child| walk(child, seen));
    }
    let mut seen = 0;
    for definition in capstan_crds::definitions() {
        walk(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut seen);
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn words_are_whole() {
    assert!(says("1 to 100. Default 10.", "10") && says("`/`, at most", "/") && says("0s to 24h", "24h"));
    assert!(!says("at least 10Gi", "10") && !says("at most 1024 characters", "24"));
}
