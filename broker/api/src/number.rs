//! Whole numbers as Cloudflare's SDKs send them: the Python and Go ones type every number as float, so `2.0` is 2.

/// Any number of JSON: a field of this type is read first, and then refused with a code of its own.
pub use serde_json::Number;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A whole number from 0 to 2^53, however it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Whole(pub u64);

impl Whole {
    /// The whole number that `number` is, however it was written.
    #[must_use]
    pub fn of(number: &Number) -> Option<Self> {
        Self::deserialize(number).ok()
    }
}

/// The largest whole number that a float holds exactly.
const EXACT_MAX: u64 = 1 << 53;

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor)
    }
}

struct WholeVisitor;

impl Visitor<'_> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a whole number of at least 0")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Whole, E> {
        if value > EXACT_MAX {
            return Err(E::invalid_value(de::Unexpected::Unsigned(value), &self));
        }
        Ok(Whole(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Whole, E> {
        u64::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self)).map(Whole)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole, and within 0 to 2^53"
    )]
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Whole, E> {
        if value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&value) {
            return Ok(Whole(value as u64));
        }
        Err(E::invalid_value(de::Unexpected::Float(value), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_whole_numbers_in_both_spellings() {
        for (text, value) in [("0", 0), ("5", 5), ("5.0", 5), ("1e3", 1000)] {
            assert_eq!(serde_json::from_str::<Whole>(text).unwrap(), Whole(value), "{text}");
        }
        for bad in ["-1", "1.5", "\"5\"", "null", "true", "1e300", "18446744073709551615"] {
            assert!(serde_json::from_str::<Whole>(bad).is_err(), "{bad}");
        }
        let of = |text| Whole::of(&serde_json::from_str(text).unwrap());
        assert_eq!(
            ["5", "5.0", "-1", "1.5", "1e300"].map(of),
            [Some(Whole(5)), Some(Whole(5)), None, None, None]
        );
    }
}
