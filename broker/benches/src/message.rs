//! The message that every peer gets: 1 KiB of JSON that says its number and when it was due.

use std::sync::LazyLock;
use std::time::Instant;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes of a body: a JSON string with its quotes.
pub const BODY_BYTES: usize = 1024;
/// The opening quote and two numbers of 16 hexadecimal digits.
const HEAD_BYTES: usize = 33;
/// A whole number of Base64 groups that covers the head.
const HEAD_BASE64: usize = 44;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
static FILLER: LazyLock<Vec<u8>> = LazyLock::new(filler);

/// What a body says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The message's number, each used once in a cell.
    pub number: u64,
    /// When it was due to be sent, as [`now`] counts.
    pub due: u64,
}

/// Nanoseconds since this program started.
pub fn now() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Appends the body that says `stamp`.
pub fn write(stamp: Stamp, into: &mut Vec<u8>) {
    use std::io::Write;
    let _infallible = write!(into, "\"{:016x}{:016x}", stamp.number, stamp.due);
    let length = BODY_BYTES - HEAD_BYTES - 1;
    // Another place for each message, so that compression finds no copy of the last one.
    let at = usize::try_from(stamp.number.wrapping_mul(7919) % (FILLER.len() - length) as u64).unwrap_or(0);
    into.extend_from_slice(&FILLER[at..at + length]);
    into.push(b'"');
}

/// Reads what a body says.
///
/// # Errors
/// It is none of ours.
pub fn read(body: &[u8]) -> Result<Stamp> {
    let head = body.get(..HEAD_BYTES).filter(|head| head[0] == b'"');
    let head = head.context("a body came back that was not sent")?;
    let number = |range: std::ops::Range<usize>| -> Result<u64> {
        Ok(u64::from_str_radix(std::str::from_utf8(&head[range])?, 16)?)
    };
    Ok(Stamp { number: number(1..17)?, due: number(17..33)? })
}

/// The same of a body in Base64.
///
/// # Errors
/// As [`read`].
pub fn read_base64(body: &[u8]) -> Result<Stamp> {
    let head = body.get(..HEAD_BASE64).context("a body came back that was not sent")?;
    let mut bytes = [0; HEAD_BASE64];
    let length = STANDARD.decode_slice(head, &mut bytes)?;
    read(&bytes[..length])
}

/// Letters and digits without a pattern; the same in every run.
fn filler() -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        LETTERS[(state >> 58) as usize]
    };
    (0..1 << 20).map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_a_json_string_of_one_kibibyte_and_says_its_stamp() {
        for stamp in [Stamp { number: 0, due: 1 }, Stamp { number: u64::MAX, due: u64::MAX - 7 }] {
            let mut body = Vec::new();
            write(stamp, &mut body);
            assert_eq!(body.len(), BODY_BYTES);
            assert_eq!(serde_json::from_slice::<String>(&body).unwrap().len(), BODY_BYTES - 2);
            assert_eq!(read(&body).unwrap(), stamp);
            assert_eq!(read_base64(STANDARD.encode(&body).as_bytes()).unwrap(), stamp);
        }
        read(b"\"short").unwrap_err();
    }
}
