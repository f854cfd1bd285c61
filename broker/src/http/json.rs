//! What a `json` body may hold beyond being JSON: nothing that the parsers of applications stop at.
//!
//! JSON's grammar has no bounds, and serde_json hands a raw value on by its grammar alone. A message that the application
//! cannot read would fail again and again, with its whole batch, long after its producer was told that all is well.

use std::fmt;

use capstan_api::ErrorCode;
use capstan_api::limits::JSON_DEPTH_MAX;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_path_to_error::Track;

use super::at::At;
use super::body::pointer;
use super::refused::Refused;

/// Checks the body of the message at `at`, in one pass and without a copy of it.
///
/// # Errors
/// [`ErrorCode::MessageMetadataInvalid`], with the place in the body, for what is nested deeper than [`JSON_DEPTH_MAX`], for
/// numbers that no 64-bit float holds, and for strings and names with half of a surrogate pair.
pub(super) fn check(body: &RawValue, at: At) -> Result<(), Refused> {
    let mut json = serde_json::Deserializer::from_str(body.get());
    // To know the place costs as much as the reading: it is looked for when something is wrong.
    Value(0).deserialize(&mut json).or_else(|_| with_place(body, at))
}

fn with_place(body: &RawValue, at: At) -> Result<(), Refused> {
    let mut json = serde_json::Deserializer::from_str(body.get());
    let mut track = Track::new();
    let read = Value(0).deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track));
    read.map_err(|error| {
        let pointer = format!("{at}/body{}", pointer(&track.path()));
        Refused::at(ErrorCode::MessageMetadataInvalid, pointer, format!("body: {}", reason(&error)))
    })
}

/// serde_json says what is wrong in words alone.
fn reason(error: &serde_json::Error) -> String {
    if error.is_data() {
        return format!("{TOO_DEEP} {JSON_DEPTH_MAX} levels; send it flatter, or as text");
    }
    if error.to_string().starts_with("number out of range") {
        return "holds a number beyond those of a 64-bit float, about 1.8e308; send it as a string"
            .to_owned();
    }
    format!(
        "holds a string that is no Unicode text, as half of a surrogate pair (\\ud800 to \\udfff) is none; send it as bytes: \
         {error}"
    )
}

const TOO_DEEP: &str = "is nested deeper than";

/// Any value inside so many arrays and objects: read, and forgotten.
#[derive(Clone, Copy)]
struct Value(usize);

impl Value {
    fn inside<E: Error>(self) -> Result<Self, E> {
        let Self(depth) = self;
        if depth < JSON_DEPTH_MAX { Ok(Self(depth + 1)) } else { Err(E::custom(TOO_DEEP)) }
    }
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while list.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while object.next_key_seed(Value(0))?.is_some() {
            object.next_value_seed(inside)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(body: &str) -> Result<(), Refused> {
        check(&RawValue::from_string(body.to_owned()).unwrap(), At::message(2))
    }

    fn nested(levels: usize) -> [String; 2] {
        let object = r#"{"a":"#.repeat(levels - 1) + "{}" + &"}".repeat(levels - 1);
        ["[".repeat(levels) + &"]".repeat(levels), object]
    }

    #[test]
    fn what_parsers_read_is_taken() {
        for body in [
            "null",
            "-0",
            "1.7976931348623157e308",
            "1e-999",
            "123456789012345678901234567890",
            r#""\ud83d\ude00""#,
            r#"{"\ud83d\ude00":["\u0000", true, 1.5, -3, {}]}"#,
            r#""\\ud800""#,
        ] {
            assert_eq!(checked(body), Ok(()), "{body}");
        }
        for body in nested(JSON_DEPTH_MAX) {
            assert_eq!(checked(&body), Ok(()));
        }
    }

    #[test]
    fn what_parsers_stop_at_is_refused_by_its_place() {
        let deep = |part: &str| part.repeat(JSON_DEPTH_MAX);
        let [list, object] = nested(JSON_DEPTH_MAX + 1);
        let [deepest, _] = nested(60_000);
        let rows = [
            (list.as_str(), deep("/0"), "nested deeper than 96 levels"),
            (&object, deep("/a"), "nested deeper than 96 levels"),
            (&deepest, deep("/0"), "nested deeper than 96 levels"),
            ("1e999", String::new(), "64-bit float"),
            (&"9".repeat(400), String::new(), "64-bit float"),
            (r#"{"a/b":[0,-1e999]}"#, "/a~1b/1".to_owned(), "1.8e308"),
            (r#""\ud800""#, String::new(), "surrogate"),
            (r#"[1,"\ud800\u0041"]"#, "/1".to_owned(), "surrogate"),
            (r#"{"a":{"b":"x\udfff"}}"#, "/a/b".to_owned(), "surrogate"),
            (r#"{"a":{"\udc00":1}}"#, "/a".to_owned(), "surrogate"),
        ];
        for (body, place, says) in rows {
            let refused = checked(body).unwrap_err();
            assert_eq!(refused.code, ErrorCode::MessageMetadataInvalid);
            assert!(refused.message.starts_with("body: ") && refused.message.contains(says), "{refused:?}");
            assert_eq!(refused.pointer, Some(format!("/messages/2/body{place}")), "{body:.90}");
        }
    }

    /// A pointer to what holds the wrong value, when that has a name of any length.
    #[test]
    fn a_place_is_said_in_bounded_words() {
        let refused = checked(&format!(r#"{{"a":{{"{}":1e999}}}}"#, "b".repeat(100_000))).unwrap_err();
        assert_eq!(refused.pointer.as_deref(), Some("/messages/2/body/a"));
    }
}
