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
/// From here on a number of bytes has more digits than the pattern takes.
const BYTES_MAX: u64 = 1_000_000_000_000_000;

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

    /// The size that a quantity of the API server says, in any form in which Kubernetes writes one: `2254857830400m` for
    /// 2.1Gi. What people do not write becomes a number of bytes, a fraction of a byte rounded up. None: it is no size.
    #[must_use]
    pub fn of_quantity(text: &str) -> Option<Self> {
        if bytes(text).is_some() {
            return Some(Self(text.to_owned()));
        }
        Some(Self::in_bytes(quantity_bytes(text)?))
    }

    /// As it was written where that is a whole number of bytes, otherwise rounded up to one: Kubernetes writes a fraction
    /// of a byte as milli-bytes (`2.1Gi` as `2254857830400m`), and drivers round it, each in its way.
    #[must_use]
    pub fn whole(&self) -> Self {
        match millis(&self.0) {
            Some(millis) if millis % 1000 != 0 => Self::in_bytes(self.bytes()),
            _ => self.clone(),
        }
    }

    fn in_bytes(bytes: u64) -> Self {
        Self(if bytes < BYTES_MAX { bytes.to_string() } else { format!("{}Mi", bytes.div_ceil(1 << 20)) })
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
    u64::try_from(millis(text)?.div_ceil(1000)).ok().or(Some(u64::MAX))
}

/// In thousandths of a byte.
fn millis(text: &str) -> Option<u128> {
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
    Some(thousandths * factor)
}

/// Most digits of a number, and most powers of ten, that are read: more than a u64 has.
const DIGITS_MAX: usize = 20;
/// Fractions of a unit, as powers of ten.
const FRACTIONS: [(&str, i32); 3] = [("n", -9), ("u", -6), ("m", -3)];

/// The bytes of any quantity that is not negative, rounded up; none where they are no u64.
fn quantity_bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (binary, decimal) = power(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if whole.len() > DIGITS_MAX || fraction.len() > DIGITS_MAX {
        return None;
    }
    let power = decimal.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let number = digits.parse::<u128>().ok()?.checked_mul(1024_u128.checked_pow(binary)?)?;
    let ten = 10_u128.checked_pow(power.unsigned_abs())?;
    let bytes = if power < 0 { number.div_ceil(ten) } else { number.checked_mul(ten)? };
    u64::try_from(bytes).ok()
}

/// The powers of 1024 and of ten that a suffix stands for.
fn power(suffix: &str) -> Option<(u32, i32)> {
    let position = |units: &[&str]| units.iter().position(|unit| *unit == suffix).map(|at| at as u32);
    if let Some(power) = position(&BINARY).or_else(|| (suffix == "Ei").then_some(6)) {
        return Some((power, 0));
    }
    if let Some(power) = position(&DECIMAL).or_else(|| (suffix == "E").then_some(6)) {
        return Some((0, 3 * i32::try_from(power).ok()?));
    }
    if let Some((_, power)) = FRACTIONS.iter().find(|(unit, _)| *unit == suffix) {
        return Some((0, *power));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    Some((0, exponent.parse().ok()?))
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
    fn reads_what_the_api_server_makes_of_sizes() {
        for (text, read) in [
            ("10Gi", "10Gi"),
            ("2254857830400m", "2254857831"),
            ("1000m", "1"),
            ("1m", "1"),
            ("2500000u", "3"),
            ("1n", "1"),
            ("1e9", "1000000000"),
            ("12E6", "12000000"),
            ("5e-1", "1"),
            (".5Gi", "536870912"),
            ("2.Gi", "2147483648"),
            ("1Ei", "1099511627776Mi"),
            ("1E", "953674316407Mi"),
            ("1.23456Ki", "1265"),
        ] {
            let size = ByteSize::of_quantity(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(size.as_str(), read, "{text}");
            assert!(ByteSize::try_from(read.to_owned()).is_ok(), "{read}");
        }
        for bad in [
            "",
            ".",
            "Gi",
            "-1",
            "1KB",
            "1 Gi",
            "1e",
            "1e99",
            "1e-2147483648",
            "1.5e-2147483648",
            "99Ei",
            "1.2.3",
        ] {
            assert_eq!(ByteSize::of_quantity(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_fraction_of_a_byte_is_rounded_up() {
        for (text, whole) in
            [("1.5Gi", "1.5Gi"), ("2.1Gi", "2254857831"), ("0.1", "1"), ("7", "7"), ("1.1Pi", "1181116007Mi")]
        {
            assert_eq!(ByteSize::try_from(text.to_owned()).unwrap().whole().as_str(), whole, "{text}");
        }
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
