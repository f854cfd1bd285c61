//! A delay, as a send or a retry names it.

use std::fmt;

use capstan_api::number::{Number, Whole};
use capstan_api::{ErrorCode, limits};

use super::refused::Refused;

/// Milliseconds of `delay_seconds`, which stands in the object at the JSON pointer `at`. Any other number is refused with
/// `code`.
pub(super) fn millis(
    seconds: Option<&Number>,
    code: ErrorCode,
    at: impl fmt::Display,
) -> Result<Option<u64>, Refused> {
    let Some(number) = seconds else {
        return Ok(None);
    };
    let most = limits::DELAY_SECONDS_MAX;
    match Whole::of(number) {
        Some(Whole(seconds)) if seconds <= most.into() => Ok(Some(seconds * 1000)),
        _ => {
            let message = format!("delay_seconds: is {number}, but must be a whole number of 0 to {most}");
            Err(Refused::at(code, format!("{at}/delay_seconds"), message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_of_a_day_at_most_are_delays() {
        let read = |text: &str| {
            let number: Number = serde_json::from_str(text).unwrap();
            millis(Some(&number), ErrorCode::BatchDelayInvalid, "/a")
        };
        for (text, expected) in [("0", 0), ("5.0", 5_000), ("86400", 86_400_000), ("-0.0", 0)] {
            assert_eq!(read(text), Ok(Some(expected)), "{text}");
        }
        for text in ["-1", "1.5", "86401", "1e300", "18446744073709551615"] {
            let refused = read(text).unwrap_err();
            assert_eq!(refused.code, ErrorCode::BatchDelayInvalid);
            assert_eq!(refused.pointer.as_deref(), Some("/a/delay_seconds"));
            assert!(refused.message.contains("0 to 86400"), "{refused:?}");
        }
        assert_eq!(millis(None, ErrorCode::BatchDelayInvalid, ""), Ok(None));
    }
}
