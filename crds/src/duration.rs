//! Durations as the Gateway API writes them: `96h`, `1m30s`, `500ms`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A duration, kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration(String);

/// One to four numbers of at most seven digits, each with its unit.
const PATTERN: &str = "^([0-9]{1,7}(h|m|s|ms)){1,4}$";
const LENGTH_MAX: usize = 16;
const PARTS_MAX: usize = 4;
const DIGITS_MAX: usize = 7;

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write numbers with the units h, m, s or ms, such as 90s or 1h30m")]
pub struct InvalidDuration(pub String);

impl Duration {
    /// The length of time; what [`Duration::try_from`] takes is at most a few thousand years, so nothing overflows.
    #[must_use]
    pub fn get(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.millis())
    }

    /// The length of time in milliseconds.
    #[must_use]
    pub fn millis(&self) -> u64 {
        parts(&self.0).map_or(0, |parts| parts.iter().sum())
    }

    /// A duration of whole seconds, as text in the largest units.
    #[must_use]
    pub fn from_seconds(seconds: u64) -> Self {
        let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let mut text = String::new();
        for (number, unit) in [(hours, "h"), (minutes, "m"), (rest, "s")] {
            if number > 0 {
                text.push_str(&format!("{number}{unit}"));
            }
        }
        Self(if text.is_empty() { "0s".to_owned() } else { text })
    }

    /// A constant of this crate, known to be well-formed.
    pub(crate) fn literal(text: &'static str) -> Self {
        debug_assert!(parts(text).is_some());
        Self(text.to_owned())
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The parts in milliseconds.
fn parts(text: &str) -> Option<Vec<u64>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let factor = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return None,
        };
        if !(1..=DIGITS_MAX).contains(&digits) {
            return None;
        }
        parts.push(number.parse::<u64>().ok()?.checked_mul(factor)?);
        rest = tail;
    }
    (1..=PARTS_MAX).contains(&parts.len()).then_some(parts)
}

impl TryFrom<String> for Duration {
    type Error = InvalidDuration;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.len() <= LENGTH_MAX && parts(&text).is_some() {
            Ok(Self(text))
        } else {
            Err(InvalidDuration(text.chars().take(LENGTH_MAX + 1).collect()))
        }
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl std::fmt::Display for Duration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": LENGTH_MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_gateway_api_writes() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("96h", 345_600_000),
            ("1h1m1s1ms", 3_661_001),
        ] {
            assert_eq!(Duration::try_from(text.to_owned()).unwrap().millis(), millis, "{text}");
        }
        for bad in ["", "1", "s", "1d", "-1s", "1.5h", "12345678s", "1s1s1s1s1s", "1 s", "1us"] {
            assert!(Duration::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn writes_the_largest_units() {
        for (seconds, text) in [(0, "0s"), (14, "14s"), (90, "1m30s"), (10_800, "3h"), (86_461, "24h1m1s")] {
            assert_eq!(Duration::from_seconds(seconds).as_str(), text);
        }
    }
}
