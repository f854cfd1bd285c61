//! A door for `cargo fuzz`: the readers of keys and records.

use super::{codec, key};

/// Reads a key of the first bytes, by their count, and a record of the rest.
///
/// # Panics
/// When a key is not written as it was read, or a record that is read, written and read again is another one.
pub fn record(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (first, rest) = rest.split_at(rest.len().min(usize::from(*length % 32)));
    let Some(found) = key::decode(first) else { return };
    assert_eq!(key::encode(found).as_slice(), first);
    if let Ok(record) = codec::decode(found, rest) {
        assert_eq!(codec::decode(found, &codec::encode(&record)), Ok(record));
    }
}
