//! What answers hold in memory that their clients have not taken yet. Beyond a bound nothing more is leased, and the
//! connections of clients that do not read are cut; what was leased for them is given back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use capstan_core::Lease;
use tokio_util::sync::CancellationToken;

/// Most bytes of bodies and attributes in answers to pulls that are on their way. One answer may go beyond it.
pub(super) const PULLED_MAX: u64 = 128 << 20;
/// The same for looks, which nobody waits for.
const PEEKED_MAX: u64 = 32 << 20;
/// A client that has not taken its answer for so long is cut off, if others need the room.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// All answers of one kind that are on their way. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Answers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: u64,
    patience: Duration,
    bytes: AtomicU64,
    next: AtomicU64,
    /// Those that were given to a connection.
    sent: Mutex<BTreeMap<u64, Sent>>,
}

/// An answer that a connection has, and its client not yet.
#[derive(Debug)]
struct Sent {
    since: Instant,
    /// Ends the connection.
    connection: CancellationToken,
    /// What was leased for it.
    leases: Vec<Lease>,
}

/// One answer's part of it, until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    all: Answers,
    bytes: u64,
    number: u64,
    leases: Vec<Lease>,
}

impl Answers {
    pub(super) fn of_peeks() -> Self {
        Self::new(PEEKED_MAX, PATIENCE)
    }

    /// None yet, at most so many bytes, and clients that may take so long.
    pub(crate) fn new(most: u64, patience: Duration) -> Self {
        let (bytes, next, sent) = Default::default();
        Self(Arc::new(Inner { most, patience, bytes, next, sent }))
    }

    /// Counts an answer, and what was leased for it.
    #[must_use]
    pub(crate) fn hold(&self, bytes: u64, leases: Vec<Lease>) -> Held {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        Held { all: self.clone(), bytes, number: self.0.next.fetch_add(1, Ordering::Relaxed), leases }
    }

    /// Whether no further answer is to be made.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.bytes() >= self.0.most
    }

    /// What is held now.
    #[must_use]
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Cuts off the clients that have not taken their answers in time. What was leased for them is to be given back: none
    /// of them has a whole answer, so none works on it.
    #[must_use]
    pub(crate) fn cut_stalled(&self) -> Vec<Lease> {
        let mut leases = Vec::new();
        for sent in self.0.sent().values_mut() {
            if sent.since.elapsed() >= self.0.patience && !sent.connection.is_cancelled() {
                tracing::warn!("a connection is cut: its client reads no answer, and others need the memory");
                sent.connection.cancel();
                leases.append(&mut sent.leases);
            }
        }
        leases
    }
}

impl Inner {
    fn sent(&self) -> MutexGuard<'_, BTreeMap<u64, Sent>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// The answer is given to a connection, which `connection` ends.
    pub(crate) fn sent(&mut self, connection: CancellationToken) {
        let (since, leases) = (Instant::now(), std::mem::take(&mut self.leases));
        self.all.0.sent().insert(self.number, Sent { since, connection, leases });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.0.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.all.0.sent().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use capstan_core::{QueueId, Seq};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn lease(n: u64) -> Lease {
        Lease { queue: QueueId(1), seq: Seq(n), nonce: n }
    }

    #[test]
    fn an_answer_counts_until_it_is_dropped() {
        let answers = Answers::new(PULLED_MAX, LONG);
        let (one, two) = (answers.hold(PULLED_MAX - 1, Vec::new()), answers.hold(1, Vec::new()));
        assert!(answers.is_full());
        drop(two);
        assert_eq!((answers.is_full(), answers.bytes()), (false, PULLED_MAX - 1));
        drop(one);
        assert_eq!(answers.bytes(), 0);
    }

    #[test]
    fn who_does_not_read_is_cut_once_and_who_does_is_not() {
        let answers = Answers::new(PULLED_MAX, Duration::ZERO);
        let [stalled, reading] = [(); 2].map(|()| CancellationToken::new());
        let (mut unread, mut read) =
            (answers.hold(1, vec![lease(1), lease(2)]), answers.hold(1, vec![lease(3)]));
        // Not given to a connection yet.
        assert_eq!(answers.cut_stalled(), []);
        unread.sent(stalled.clone());
        read.sent(reading.clone());
        drop(read);
        assert_eq!(answers.cut_stalled(), [lease(1), lease(2)]);
        assert_eq!((stalled.is_cancelled(), reading.is_cancelled()), (true, false));
        assert_eq!(answers.cut_stalled(), []);
    }

    #[test]
    fn a_client_has_time_to_read() {
        let answers = Answers::new(PULLED_MAX, LONG);
        let connection = CancellationToken::new();
        let mut unread = answers.hold(1, vec![lease(1)]);
        unread.sent(connection.clone());
        assert_eq!(answers.cut_stalled(), []);
        assert!(!connection.is_cancelled());
    }
}
