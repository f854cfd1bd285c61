//! The header `Idempotency-Key`, by which a broker knows a repeated send (extension).
//!
//! As draft-ietf-httpapi-idempotency-key-header-07 has it: a structured field's string. Its text without quotes is taken too,
//! as most clients write it.

use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;

/// The header's name.
pub const HEADER: &str = "idempotency-key";

/// The name of one send in its queue: 1 to 128 characters of visible ASCII.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(String);

/// Why something is no [`IdempotencyKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It is empty, or too long.
    #[error("a key is 1 to {IDEMPOTENCY_KEY_BYTES_MAX} characters, this one {0}")]
    Length(usize),
    /// A character that no key has.
    #[error("a key is visible ASCII, without spaces, such as a UUID")]
    Character,
    /// It begins as a structured field's string, and is none.
    #[error(
        "a key that begins with a quote ends with one, and has nothing behind it; a quote or backslash in it has a backslash \
         before it"
    )]
    Quotes,
}

impl IdempotencyKey {
    /// Checks `text` and takes it.
    ///
    /// # Errors
    /// [`InvalidKey::Length`] and [`InvalidKey::Character`].
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidKey::Character);
        }
        if !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len()) {
            return Err(InvalidKey::Length(text.len()));
        }
        Ok(Self(text))
    }

    /// Reads the header's value: `"key"`, or `key`, which is the same key.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn from_header(value: &[u8]) -> Result<Self, InvalidKey> {
        let text = std::str::from_utf8(value).map_err(|_| InvalidKey::Character)?.trim_matches([' ', '\t']);
        match text.strip_prefix('"') {
            Some(quoted) => Self::new(unquoted(quoted)?),
            None => Self::new(text),
        }
    }

    /// The header's value, in quotes.
    #[must_use]
    pub fn to_header(&self) -> String {
        format!("\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for IdempotencyKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

/// What a structured field's string says (RFC 9651, section 4.2.5), behind its first quote.
fn unquoted(text: &str) -> Result<String, InvalidKey> {
    let (mut key, mut characters) = (String::with_capacity(text.len()), text.chars());
    loop {
        match characters.next() {
            Some('"') => break,
            Some('\\') => {
                key.push(characters.next().filter(|c| matches!(c, '"' | '\\')).ok_or(InvalidKey::Quotes)?);
            }
            Some(character) => key.push(character),
            None => return Err(InvalidKey::Quotes),
        }
    }
    if characters.next().is_some() { Err(InvalidKey::Quotes) } else { Ok(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<String, InvalidKey> {
        IdempotencyKey::from_header(value.as_bytes()).map(|key| key.0)
    }

    #[test]
    fn a_key_is_read_in_quotes_and_without() {
        let uuid = "8e03978e-40d5-43dd-bc93-6894a57f9324";
        for (value, key) in [
            (uuid, uuid),
            (&format!("\"{uuid}\""), uuid),
            (" a ", "a"),
            ("a\"b", "a\"b"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (&"x".repeat(128), &"x".repeat(128)),
        ] {
            assert_eq!(read(value).as_deref(), Ok(key), "{value}");
        }
    }

    #[test]
    fn whatever_else_it_is_is_said() {
        let long = "x".repeat(129);
        for (value, wrong) in [
            ("", InvalidKey::Length(0)),
            ("\"\"", InvalidKey::Length(0)),
            (long.as_str(), InvalidKey::Length(129)),
            ("a b", InvalidKey::Character),
            ("\"a b\"", InvalidKey::Character),
            ("ä", InvalidKey::Character),
            ("a, b", InvalidKey::Character),
            ("\"a", InvalidKey::Quotes),
            ("\"", InvalidKey::Quotes),
            ("\"a\\\"", InvalidKey::Quotes),
            ("\"a\\b\"", InvalidKey::Quotes),
            ("\"a\";p=1", InvalidKey::Quotes),
        ] {
            assert_eq!(read(value), Err(wrong), "{value}");
        }
        assert_eq!(IdempotencyKey::from_header(b"\xff"), Err(InvalidKey::Character));
    }

    #[test]
    fn what_is_written_is_read() {
        for text in ["a", r#"a"b\c"#, r"\", "\"", "\"a\""] {
            let key = IdempotencyKey::new(text).unwrap();
            assert_eq!(IdempotencyKey::from_header(key.to_header().as_bytes()), Ok(key));
        }
    }
}
