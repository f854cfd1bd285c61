//! Keys as bytes: the kind, then big-endian numbers, so that bytes are ordered as [`Key`]s are.
//!
//! | kind | key | value |
//! |---|---|---|
//! | `00` | – | format version, u32 |
//! | `10` fresh, `11` parked | queue, seq | [`capstan_core::Message`] |
//! | `20` | queue, seq | [`capstan_core::Delivery`] |
//! | `30` returned, `31` dead | queue, order | seq |
//! | `40` | due, queue, seq | [`capstan_core::Timer`] |
//! | `50` | queue, seq | [`capstan_core::SentRecord`] |
//! | `81` | – | [`capstan_core::Meta`] |
//! | `82` | queue | [`capstan_core::QueueRecord`] |
//! | `83` | queue | [`capstan_core::State`] |
//! | `84` | – | [`capstan_core::Clock`] |
//! | `85` | – | the last commit's number and the last one known synced, u64 each |
//! | `86` | queue | [`capstan_core::PurgeRecord`] |
//! | `87` | queue | [`capstan_core::GapsRecord`] |
//! | `88` | queue | [`capstan_core::RememberedMarks`] |
//!
//! Queues are u32, everything else u64. Kinds are stored, so they never change their meaning. What is written when is
//! said at [`Key`]. `00` and `85` are the store's own: the core does not know them.

use capstan_core::{Key, Order, QueueId, Seq};

pub(super) const FORMAT: u8 = 0x00;
const META: u8 = 0x81;
const QUEUE: u8 = 0x82;
const STATE: u8 = 0x83;
const CLOCK: u8 = 0x84;
pub(super) const COMMIT: u8 = 0x85;
const PURGE: u8 = 0x86;
const GAPS: u8 = 0x87;
const SENDS: u8 = 0x88;
const FRESH: u8 = 0x10;
const PARKED: u8 = 0x11;
const DELIVERY: u8 = 0x20;
const RETURNED: u8 = 0x30;
const DEAD: u8 = 0x31;
const TIMER: u8 = 0x40;
const SENT: u8 = 0x50;

pub(super) fn encode(key: Key) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(21);
    match key {
        Key::Meta => bytes.push(META),
        Key::Clock => bytes.push(CLOCK),
        Key::Queue(queue) => put(&mut bytes, QUEUE, queue, &[]),
        Key::State(queue) => put(&mut bytes, STATE, queue, &[]),
        Key::Purge(queue) => put(&mut bytes, PURGE, queue, &[]),
        Key::Gaps(queue) => put(&mut bytes, GAPS, queue, &[]),
        Key::Remembered(queue) => put(&mut bytes, SENDS, queue, &[]),
        Key::Sent(queue, seq) => put(&mut bytes, SENT, queue, &[seq.0]),
        Key::Fresh(queue, seq) => put(&mut bytes, FRESH, queue, &[seq.0]),
        Key::Parked(queue, seq) => put(&mut bytes, PARKED, queue, &[seq.0]),
        Key::Delivery(queue, seq) => put(&mut bytes, DELIVERY, queue, &[seq.0]),
        Key::Returned(queue, order) => put(&mut bytes, RETURNED, queue, &[order.0]),
        Key::Dead(queue, order) => put(&mut bytes, DEAD, queue, &[order.0]),
        Key::Timer(due, queue, seq) => {
            bytes.push(TIMER);
            bytes.extend_from_slice(&due.to_be_bytes());
            bytes.extend_from_slice(&queue.0.to_be_bytes());
            bytes.extend_from_slice(&seq.0.to_be_bytes());
        }
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, kind: u8, queue: QueueId, numbers: &[u64]) {
    bytes.push(kind);
    bytes.extend_from_slice(&queue.0.to_be_bytes());
    for number in numbers {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
}

/// The key of bytes that [`encode`] made; `None` for all others.
pub(super) fn decode(bytes: &[u8]) -> Option<Key> {
    let (kind, rest) = bytes.split_first()?;
    match (*kind, rest.len()) {
        (META, 0) => Some(Key::Meta),
        (CLOCK, 0) => Some(Key::Clock),
        (QUEUE, 4) => Some(Key::Queue(queue(rest)?)),
        (STATE, 4) => Some(Key::State(queue(rest)?)),
        (PURGE, 4) => Some(Key::Purge(queue(rest)?)),
        (GAPS, 4) => Some(Key::Gaps(queue(rest)?)),
        (SENDS, 4) => Some(Key::Remembered(queue(rest)?)),
        (SENT, 12) => Some(Key::Sent(queue(rest)?, Seq(number(rest, 4)?))),
        (FRESH, 12) => Some(Key::Fresh(queue(rest)?, Seq(number(rest, 4)?))),
        (PARKED, 12) => Some(Key::Parked(queue(rest)?, Seq(number(rest, 4)?))),
        (DELIVERY, 12) => Some(Key::Delivery(queue(rest)?, Seq(number(rest, 4)?))),
        (RETURNED, 12) => Some(Key::Returned(queue(rest)?, Order(number(rest, 4)?))),
        (DEAD, 12) => Some(Key::Dead(queue(rest)?, Order(number(rest, 4)?))),
        (TIMER, 20) => Some(Key::Timer(number(rest, 0)?, queue(rest.get(8..)?)?, Seq(number(rest, 12)?))),
        _ => None,
    }
}

fn queue(bytes: &[u8]) -> Option<QueueId> {
    bytes.first_chunk().map(|chunk| QueueId(u32::from_be_bytes(*chunk)))
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_be_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn keys() -> impl Strategy<Value = Key> {
        (0..14u8, any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(kind, queue, a, b)| {
            let (queue, seq, order) = (QueueId(queue), Seq(a), Order(a));
            match kind {
                0 => Key::Meta,
                1 => Key::Queue(queue),
                2 => Key::State(queue),
                3 => Key::Clock,
                4 => Key::Fresh(queue, seq),
                5 => Key::Parked(queue, seq),
                6 => Key::Delivery(queue, seq),
                7 => Key::Returned(queue, order),
                8 => Key::Dead(queue, order),
                9 => Key::Purge(queue),
                10 => Key::Gaps(queue),
                11 => Key::Remembered(queue),
                12 => Key::Sent(queue, seq),
                _ => Key::Timer(b, queue, seq),
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn bytes_are_read_as_written_and_ordered_as_keys(a in keys(), b in keys()) {
            let (left, right) = (encode(a), encode(b));
            prop_assert_eq!(decode(&left), Some(a));
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
        }

        #[test]
        fn other_bytes_are_no_key(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            if let Some(key) = decode(&bytes) {
                prop_assert_eq!(encode(key), bytes);
            }
        }
    }
}
