//! JSON as an expression of CEL, with other expressions in its place at some paths.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

/// Expressions by the JSON pointer of the value that each replaces.
pub type Replaced = BTreeMap<String, String>;

/// The value as an expression. What a map or a list holds is `dyn`, since CEL wants all entries of one type.
///
/// Entries of `replaced` whose path the value does not have are left over; [`unused`] finds them.
#[must_use]
pub fn expression(value: &Value, replaced: &Replaced) -> String {
    let mut text = String::new();
    write(value, replaced, &mut String::new(), &mut text);
    text
}

/// Paths of `replaced` that the value does not have.
#[must_use]
pub fn unused<'a>(value: &Value, replaced: &'a Replaced) -> Vec<&'a str> {
    replaced.keys().map(String::as_str).filter(|path| value.pointer(path).is_none()).collect()
}

/// Text as a literal.
#[must_use]
pub fn string(text: &str) -> String {
    // JSON escapes quotes, backslashes and control characters as CEL does.
    Value::String(text.to_owned()).to_string()
}

fn write(value: &Value, replaced: &Replaced, path: &mut String, text: &mut String) {
    if let Some(expression) = replaced.get(path.as_str()) {
        text.push_str(expression);
        return;
    }
    match value {
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| (format!("{}: ", string(key)), key.clone(), value));
            list(entries, ('{', '}'), replaced, path, text);
        }
        Value::Array(items) => {
            let entries = items.iter().enumerate().map(|(at, item)| (String::new(), at.to_string(), item));
            list(entries, ('[', ']'), replaced, path, text);
        }
        Value::String(literal) => text.push_str(&string(literal)),
        other => text.push_str(&other.to_string()),
    }
}

fn list<'a>(
    entries: impl Iterator<Item = (String, String, &'a Value)>,
    (open, close): (char, char),
    replaced: &Replaced,
    path: &mut String,
    text: &mut String,
) {
    text.push(open);
    for (at, (prefix, part, value)) in entries.enumerate() {
        let length = path.len();
        // Writing to a String does not fail.
        let _ = write!(path, "/{}", part.replace('~', "~0").replace('/', "~1"));
        if at > 0 {
            text.push_str(", ");
        }
        text.push_str(&prefix);
        text.push_str("dyn(");
        write(value, replaced, path, text);
        text.push(')');
        path.truncate(length);
    }
    text.push(close);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_value_is_written() {
        let value = json!({"a": 1, "b": [true, null], "c": {"d": "it's \"x\"\n"}});
        assert_eq!(
            expression(&value, &Replaced::new()),
            r#"{"a": dyn(1), "b": dyn([dyn(true), dyn(null)]), "c": dyn({"d": dyn("it's \"x\"\n")})}"#
        );
    }

    #[test]
    fn values_are_replaced_where_asked() {
        let value = json!({"env": [{"name": "A", "value": "x"}], "a/b": 1});
        let replaced: Replaced = [
            ("/env/0/value".into(), "params.a".into()),
            ("/a~1b".into(), "2".into()),
            ("/no".into(), "3".into()),
        ]
        .into();
        assert_eq!(
            expression(&value, &replaced),
            r#"{"env": dyn([dyn({"name": dyn("A"), "value": dyn(params.a)})]), "a/b": dyn(2)}"#
        );
        assert_eq!(unused(&value, &replaced), ["/no"]);
    }
}
