//! YAML documents as JSON values, strict where `kubectl` is: a key that a mapping has twice is a problem.

use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A document, and the paths of the keys that it has more than once; of these the last is in the value.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) value: Value,
    pub(crate) repeated: Vec<String>,
}

/// Reads all documents up to the first that is no YAML: what follows it cannot be told apart.
pub(crate) fn documents(text: &str) -> (Vec<Document>, Option<serde_yaml::Error>) {
    let mut read = Vec::new();
    // Editors of other systems begin files with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for document in serde_yaml::Deserializer::from_str(text) {
        let mut repeated = Vec::new();
        match (Node { path: String::new(), repeated: &mut repeated }).deserialize(document) {
            Ok(value) => read.push(Document { value, repeated }),
            Err(error) => return (read, Some(error)),
        }
    }
    (read, None)
}

/// Reads the value at `path`.
struct Node<'a> {
    path: String,
    repeated: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value that JSON has too")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).map(Value::Number);
        number.ok_or_else(|| E::custom(format!("{}: {value} is no number of JSON", self.path)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, items.len());
            match source.next_element_seed(Node { path, repeated: &mut *self.repeated })? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = source.next_key::<String>()? {
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            if fields.contains_key(&key) && !self.repeated.contains(&path) {
                self.repeated.push(path.clone());
            }
            let value = source.next_value_seed(Node { path, repeated: &mut *self.repeated })?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}
