//! Reading JSON in which an object is an object: serde's derived structs also take an array, by the order of their fields.
//!
//! `["hello"]` is no message, whatever the order of a message's fields; [`Objects`] refuses it at any depth.

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor,
};

/// Reads one JSON document.
///
/// # Errors
/// What serde_json answers; also when an array stands where an object must.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = T::deserialize(Objects(&mut json))?;
    json.end()?;
    Ok(value)
}

/// A deserializer of JSON, or a part of one, that reads structs from objects alone.
#[derive(Debug)]
pub struct Objects<T>(pub T);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Objects<D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Inside { visitor, object: true })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Inside { visitor, object: false })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Inside { visitor, object: false })
    }

    // serde_json knows its raw values by this name.
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Inside { visitor, object: false })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, Inside { visitor, object: false })
    }

    // JSON says of everything else by itself what it is.
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

/// A visitor that hands on [`Objects`], and for a struct takes no array.
struct Inside<V> {
    visitor: V,
    object: bool,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Inside<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.object { f.write_str("an object") } else { self.visitor.expecting(f) }
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<V::Value, E> {
        self.visitor.visit_bool(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<V::Value, E> {
        self.visitor.visit_i64(value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<V::Value, E> {
        self.visitor.visit_u64(value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<V::Value, E> {
        self.visitor.visit_f64(value)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<V::Value, E> {
        self.visitor.visit_str(value)
    }

    fn visit_borrowed_str<E: de::Error>(self, value: &'de str) -> Result<V::Value, E> {
        self.visitor.visit_borrowed_str(value)
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<V::Value, E> {
        self.visitor.visit_string(value)
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Objects(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Objects(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        if self.object {
            return Err(de::Error::custom("must be an object, is an array"));
        }
        self.visitor.visit_seq(Objects(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Objects(object))
    }

    // No enum of the wire holds an object.
    fn visit_enum<A: EnumAccess<'de>>(self, choice: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(choice)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Objects<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Objects(deserializer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Declaration;
    use crate::message::{Pull, SendBatch, Settle};

    #[test]
    fn an_array_is_no_object_at_any_depth() {
        let says = |error: serde_json::Error| error.to_string();
        for text in [r#"["hello"]"#, "[]", r#"{"messages":[["a"]]}"#, r#"{"messages":[{"body":1},["a"]]}"#] {
            let error = says(from_slice::<SendBatch>(text.as_bytes()).unwrap_err());
            assert!(error.starts_with("must be an object, is an array"), "{text}: {error}");
        }
        assert!(from_slice::<Pull>(b"[1]").is_err());
        assert!(from_slice::<Settle>(br#"{"retries":[["x"]]}"#).is_err());
        let queue =
            r#"{"revision":"1","queues":[{"namespace":"a","name":"b","retention_ms":1,"consumer":["c"]}]}"#;
        assert!(says(from_slice::<Declaration>(queue.as_bytes()).unwrap_err()).contains("is an array"));
        let error = says(from_slice::<SendBatch>(b"7").unwrap_err());
        assert!(error.contains("expected an object"), "{error}");
    }

    #[test]
    fn everything_else_is_read_as_ever() {
        let text = r#"{"messages":[{"body":["a",[1]],"content_type":"json","delay_seconds":2.0,"attributes":{"a":"b\n"}},
            {"body":{"x":null},"content_type":null,"unknown":[{}]}],"delay_seconds":7}"#;
        let batch: SendBatch = from_slice(text.as_bytes()).unwrap();
        let plain: SendBatch = serde_json::from_str(text).unwrap();
        let write = |batch: &SendBatch| serde_json::to_string(batch).unwrap();
        assert_eq!(write(&batch), write(&plain));
        assert_eq!(batch.messages[0].body.get(), r#"["a",[1]]"#);
        let declaration = r#"{"revision":"1","queues":[{"namespace":"a","name":"b","retention_ms":1,"max_bytes":5,"consumer":
            {"name":"c","max_retries":1,"visibility_timeout_ms":1,"push":{"workload":{"kind":"Deployment","name":"d"},
            "endpoint":{"port":1,"path":"/","timeout_ms":1},"max_batch_size":1,"max_batch_bytes":1,"max_wait_ms":0,
            "concurrency_per_pod":1}}}]}"#;
        let plain: Declaration = serde_json::from_str(declaration).unwrap();
        assert_eq!(from_slice::<Declaration>(declaration.as_bytes()).unwrap(), plain);
        assert!(from_slice::<Settle>(b"{} {}").is_err());
    }
}
