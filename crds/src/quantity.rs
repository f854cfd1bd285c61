//! Kubernetes quantities: of any resource, and sizes in bytes.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// An amount of CPU, memory or another resource, handed on as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quantity(String);

/// A size in bytes, as it was written: `1Gi`, `500M`, `1.5Gi`, `1024`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ByteSize(String);

/// What Kubernetes takes as a quantity.
const QUANTITY_PATTERN: &str = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$";
/// Whole and fractional numbers of bytes; no milli-bytes.
const SIZE_PATTERN: &str = r"^[0-9]{1,15}(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$";
const LENGTH_MAX: usize = 24;

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size: write a number of bytes with an optional unit, such as 500M or 1Gi")]
pub struct InvalidSize(pub String);

impl Quantity {
    /// A constant of this crate.
    pub(crate) fn literal(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ByteSize {
    /// The size in bytes, a fraction of a byte rounded up.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        bytes(&self.0).unwrap_or(0)
    }

    /// A size as people read it: at most one decimal, in the largest binary unit.
    #[must_use]
    pub fn rounded(bytes: u64) -> Self {
        let mut unit = 0;
        while unit + 1 < BINARY.len() && bytes >> (10 * (unit + 1)) > 0 {
            unit += 1;
        }
        let tenths = ((u128::from(bytes) * 10) >> (10 * unit)) as u64;
        let (whole, tenth, suffix) = (tenths / 10, tenths % 10, BINARY[unit]);
        Self(if unit == 0 || tenth == 0 {
            format!("{whole}{suffix}")
        } else {
            format!("{whole}.{tenth}{suffix}")
        })
    }

    /// A constant of this crate, known to be well-formed.
    pub(crate) fn literal(text: &'static str) -> Self {
        debug_assert!(bytes(text).is_some());
        Self(text.to_owned())
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const BINARY: [&str; 6] = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
const DECIMAL: [&str; 6] = ["", "k", "M", "G", "T", "P"];

fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor = match (BINARY.iter().position(|s| *s == suffix), DECIMAL.iter().position(|s| *s == suffix)) {
        (Some(power), _) => 1024_u128.pow(u32::try_from(power).ok()?),
        (None, Some(power)) => 1000_u128.pow(u32::try_from(power).ok()?),
        (None, None) => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if !(1..=15).contains(&whole.len()) || !(1..=3).contains(&fraction.len()) {
        return None;
    }
    let thousandths = whole.parse::<u128>().ok()? * 1000 + format!("{fraction:0<3}").parse::<u128>().ok()?;
    u64::try_from((thousandths * factor).div_ceil(1000)).ok().or(Some(u64::MAX))
}

impl TryFrom<String> for ByteSize {
    type Error = InvalidSize;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        if bytes(&text).is_some() {
            Ok(Self(text))
        } else {
            Err(InvalidSize(text.chars().take(LENGTH_MAX).collect()))
        }
    }
}

/// Quantities may be written as plain numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(i64),
    Text(String),
}

impl NumberOrText {
    fn text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(NumberOrText::deserialize(deserializer)?.text()))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = NumberOrText::deserialize(deserializer)?.text();
        Self::try_from(text).map_err(serde::de::Error::custom)
    }
}

impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn int_or_string(pattern: &str) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "pattern": pattern,
        "minimum": 0,
        "maxLength": LENGTH_MAX,
    })
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        int_or_string(QUANTITY_PATTERN)
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        int_or_string(SIZE_PATTERN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("1Ki", 1024),
            ("1k", 1000),
            ("1.5Gi", 1_610_612_736),
            ("0.001k", 1),
            ("0.0009", 0),
            ("10Gi", 10_737_418_240),
        ] {
            let size = ByteSize::try_from(text.to_owned());
            assert_eq!(size.map_or(0, |s| s.bytes()), bytes, "{text}");
        }
        for bad in ["", "Gi", "-1", "1m", "1KB", "1 Gi", "1e3", ".5Gi", "1.Gi"] {
            assert!(ByteSize::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        let numbers: Vec<ByteSize> = serde_json::from_str("[1024, \"1Ki\"]").unwrap();
        assert_eq!(numbers[0].bytes(), numbers[1].bytes());
    }

    #[test]
    fn writes_sizes_as_people_read_them() {
        for (bytes, text) in
            [(0, "0"), (1023, "1023"), (1024, "1Ki"), (1_610_612_736, "1.5Gi"), (u64::MAX, "16383.9Pi")]
        {
            assert_eq!(ByteSize::rounded(bytes).as_str(), text);
        }
    }
}
