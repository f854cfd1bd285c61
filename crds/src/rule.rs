//! CEL rules of the schemas, each with a message that names the field and what to write.

use serde_json::{Value, json};

/// A rule and its message.
pub(crate) fn rule(cel: &str, message: &str) -> Value {
    json!({ "rule": cel, "message": message })
}

/// A duration within bounds.
pub(crate) fn between(field: &str, least: &str, most: &str) -> Value {
    let mut rules = vec![rule(
        &format!("duration(self) <= duration('{most}')"),
        &format!("{field} must be at most {most}"),
    )];
    if least != "0s" {
        rules.push(rule(
            &format!("duration(self) >= duration('{least}')"),
            &format!("{field} must be at least {least}"),
        ));
    }
    Value::Array(rules)
}

/// A value that stays as it was created.
pub(crate) fn immutable(field: &str, remedy: &str) -> Value {
    json!([rule("self == oldSelf", &format!("{field} is immutable; {remedy}"))])
}

/// A quantity that is not too small and never shrinks. None asks for whole bytes: to the API server's `isInteger`, 1.5Gi
/// is no integer either.
pub(crate) fn growing_size(field: &str, least: &str) -> Value {
    json!([
        rule(
            &format!("quantity(string(self)).compareTo(quantity('{least}')) >= 0"),
            &format!("{field} must be at least {least}"),
        ),
        rule(
            "quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0",
            &format!(
                "{field} can only grow; for a smaller volume create a new Broker and consume the old one's messages"
            ),
        )
    ])
}
