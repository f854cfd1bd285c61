//! What answers hold in memory that their clients have not taken yet. Beyond a bound nothing more is leased, and the
//! connections of clients that do not read are cut.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Most bytes of bodies and attributes in answers to pulls that are on their way. One answer may go beyond it.
pub(super) const PULLED_MAX: u64 = 128 << 20;
/// The same for looks, which nobody waits for.
const PEEKED_MAX: u64 = 32 << 20;
/// A client that has not taken its answer for so long is cut off, if others need the room.
const PATIENCE: Duration = Duration::from_secs(5);

/// All answers of one kind that are on their way. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Answers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: u64,
    bytes: AtomicU64,
    next: AtomicU64,
    /// Of those that were given to a connection: since when, and how to end it.
    sent: Mutex<BTreeMap<u64, (Instant, CancellationToken)>>,
}

/// One answer's part of it, until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    all: Answers,
    bytes: u64,
    number: u64,
}

impl Answers {
    pub(super) fn of_peeks() -> Self {
        Self::new(PEEKED_MAX)
    }

    /// None yet, and at most so many bytes.
    pub(crate) fn new(most: u64) -> Self {
        let (bytes, next, sent) = Default::default();
        Self(Arc::new(Inner { most, bytes, next, sent }))
    }

    /// Counts an answer.
    #[must_use]
    pub(crate) fn hold(&self, bytes: u64) -> Held {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        Held { all: self.clone(), bytes, number: self.0.next.fetch_add(1, Ordering::Relaxed) }
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

    /// Cuts off the clients that do not read.
    pub(crate) fn cut_stalled(&self) {
        self.cut_older(PATIENCE);
    }

    fn cut_older(&self, patience: Duration) {
        for (since, connection) in self.0.sent().values() {
            if since.elapsed() >= patience && !connection.is_cancelled() {
                tracing::warn!("a connection is cut: its client reads no answer, and others need the memory");
                connection.cancel();
            }
        }
    }
}

impl Inner {
    fn sent(&self) -> MutexGuard<'_, BTreeMap<u64, (Instant, CancellationToken)>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// The answer is given to a connection, which `connection` ends.
    pub(crate) fn sent(&self, connection: CancellationToken) {
        self.all.0.sent().insert(self.number, (Instant::now(), connection));
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
    use super::*;

    #[test]
    fn an_answer_counts_until_it_is_dropped() {
        let answers = Answers::new(PULLED_MAX);
        let (one, two) = (answers.hold(PULLED_MAX - 1), answers.hold(1));
        assert!(answers.is_full());
        drop(two);
        assert_eq!((answers.is_full(), answers.bytes()), (false, PULLED_MAX - 1));
        drop(one);
        assert_eq!(answers.bytes(), 0);
    }

    #[test]
    fn who_does_not_read_is_cut_and_who_does_is_not() {
        let answers = Answers::new(PULLED_MAX);
        let [stalled, reading] = [(); 2].map(|()| CancellationToken::new());
        let (unread, read) = (answers.hold(1), answers.hold(1));
        unread.sent(stalled.clone());
        read.sent(reading.clone());
        answers.cut_stalled();
        assert!(!stalled.is_cancelled(), "it has time");
        drop(read);
        answers.cut_older(Duration::ZERO);
        assert_eq!((stalled.is_cancelled(), reading.is_cancelled()), (true, false));
    }
}
