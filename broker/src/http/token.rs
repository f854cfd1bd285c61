//! Lease ids and message refs: what names a delivery or a message to a client, opaque and checked.
//!
//! The checksum is keyed by the store's incarnation: it catches mistakes and tokens of another store. It is no proof
//! of permission; who may settle is the business of access control.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use capstan_core::{Lease, QueueId, Seq};

const LEASE: u8 = 1;
const REFERENCE: u8 = 2;
/// Kind, queue, sequence number, nonce, checksum.
const LENGTH: usize = 1 + 4 + 8 + 8 + 8;

/// Writes and reads tokens of one store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens {
    pub(super) incarnation: u64,
}

impl Tokens {
    pub(super) fn lease(self, lease: Lease) -> String {
        self.write(LEASE, lease.queue, lease.seq, lease.nonce)
    }

    pub(super) fn read_lease(self, text: &str) -> Option<Lease> {
        let (queue, seq, nonce) = self.read(LEASE, text)?;
        Some(Lease { queue, seq, nonce })
    }

    pub(super) fn reference(self, queue: QueueId, seq: Seq) -> String {
        self.write(REFERENCE, queue, seq, 0)
    }

    /// The message of a ref to this queue.
    pub(super) fn read_reference(self, queue: QueueId, text: &str) -> Option<Seq> {
        let (of, seq, _) = self.read(REFERENCE, text)?;
        (of == queue).then_some(seq)
    }

    fn write(self, kind: u8, queue: QueueId, seq: Seq, nonce: u64) -> String {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(kind);
        bytes.extend_from_slice(&queue.0.to_be_bytes());
        bytes.extend_from_slice(&seq.0.to_be_bytes());
        bytes.extend_from_slice(&nonce.to_be_bytes());
        let sum = self.checksum(&bytes);
        bytes.extend_from_slice(&sum.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn read(self, kind: u8, text: &str) -> Option<(QueueId, Seq, u64)> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() == LENGTH)?;
        let (body, sum) = bytes.split_last_chunk::<8>()?;
        if body.first() != Some(&kind) || self.checksum(body) != u64::from_be_bytes(*sum) {
            return None;
        }
        let queue = u32::from_be_bytes(*body.get(1..)?.first_chunk()?);
        let seq = u64::from_be_bytes(*body.get(5..)?.first_chunk()?);
        let nonce = u64::from_be_bytes(*body.get(13..)?.first_chunk()?);
        Some((QueueId(queue), Seq(seq), nonce))
    }

    fn checksum(self, bytes: &[u8]) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(bytes, self.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn leases_are_read_as_written(queue: u32, seq: u64, nonce: u64, incarnation: u64) {
            let (tokens, lease) = (Tokens { incarnation }, Lease { queue: QueueId(queue), seq: Seq(seq), nonce });
            let text = tokens.lease(lease);
            prop_assert_eq!(tokens.read_lease(&text), Some(lease));
            let other = Tokens { incarnation: incarnation.wrapping_add(1) };
            prop_assert_eq!(other.read_lease(&text), None, "another store's");
            let reference = tokens.reference(QueueId(queue), Seq(seq));
            prop_assert_eq!(tokens.read_lease(&reference), None, "another kind");
            prop_assert_eq!(tokens.read_reference(QueueId(queue), &reference), Some(Seq(seq)));
            prop_assert_eq!(tokens.read_reference(QueueId(queue ^ 1), &reference), None, "another queue");
        }

        #[test]
        fn no_other_text_is_a_lease(text in "[A-Za-z0-9_.-]{0,60}") {
            prop_assert_eq!(Tokens { incarnation: 1 }.read_lease(&text), None);
        }
    }
}
