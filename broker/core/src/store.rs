//! What the core needs of a store, and typed reads over it.

use crate::fault::Fault;
use crate::id::{Order, QueueId, Seq};
use crate::key::Key;
use crate::record::{Delivery, Gap, Message, Record, Table};

/// How far a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Most records.
    pub records: usize,
    /// Most bytes of bodies and attributes. The record that passes it is the last one: so there is always one.
    pub bytes: u64,
}

impl Limit {
    /// Of records that have no bodies.
    #[must_use]
    pub const fn records(records: usize) -> Self {
        Self { records, bytes: u64::MAX }
    }

    /// Counts a record with so many bytes of body and attributes.
    pub fn count(&mut self, bytes: u64) {
        self.records = self.records.saturating_sub(1);
        match self.bytes.checked_sub(bytes) {
            Some(left) => self.bytes = left,
            None => self.records = 0,
        }
    }

    /// Whether no further record may be read.
    #[must_use]
    pub const fn is_reached(&self) -> bool {
        self.records == 0
    }
}

/// An ordered map of records that sees its own uncommitted writes.
pub trait Store {
    type Error;

    /// The record of `key`.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&self, key: Key) -> Result<Option<Record>, Self::Error>;

    /// The first records from `from` on, below `to`, until `limit` is reached.
    ///
    /// # Errors
    /// When one of them cannot be read.
    fn scan(&self, from: Key, to: Key, limit: Limit) -> Result<Vec<(Key, Record)>, Self::Error>;

    /// Writes a record, with the next commit.
    fn put(&mut self, key: Key, record: Record);

    /// Removes a record, with the next commit.
    fn remove(&mut self, key: Key);
}

/// What a typed read answers.
pub(crate) type Read<T, S> = Result<T, Fault<<S as Store>::Error>>;

/// Messages of one table, with their places.
pub(crate) type Messages = Vec<(Seq, Box<Message>)>;

/// Reads that know which record belongs to a key.
pub(crate) trait Typed: Store {
    fn message(&self, table: Table, queue: QueueId, seq: Seq) -> Read<Box<Message>, Self> {
        let key = Key::message(table, queue, seq);
        match self.get(key)? {
            Some(Record::Message(message)) => Ok(message),
            _ => Err(Fault::Corrupt(key)),
        }
    }

    fn delivery(&self, queue: QueueId, seq: Seq) -> Read<Option<Delivery>, Self> {
        let key = Key::Delivery(queue, seq);
        match self.get(key)? {
            None => Ok(None),
            Some(Record::Delivery(delivery)) => Ok(Some(delivery)),
            Some(_) => Err(Fault::Corrupt(key)),
        }
    }

    /// The first messages of a stretch of a table.
    fn messages(&self, table: Table, queue: QueueId, stretch: &Gap, limit: Limit) -> Read<Messages, Self> {
        let (from, to) = (Key::message(table, queue, stretch.start), Key::message(table, queue, stretch.end));
        let mut found = Vec::new();
        for (key, record) in self.scan(from, to, limit)? {
            match (key, record) {
                (Key::Fresh(_, seq) | Key::Parked(_, seq), Record::Message(message)) => {
                    found.push((seq, message));
                }
                _ => return Err(Fault::Corrupt(key)),
            }
        }
        Ok(found)
    }

    /// The first `limit` entries of an ordered index between two keys of it.
    fn entries(&self, from: Key, to: Key, limit: usize) -> Read<Vec<(Order, Seq)>, Self> {
        let mut found = Vec::new();
        for (key, record) in self.scan(from, to, Limit::records(limit))? {
            match (key, record) {
                (Key::Returned(_, order) | Key::Dead(_, order), Record::Entry(seq)) => {
                    found.push((order, seq));
                }
                _ => return Err(Fault::Corrupt(key)),
            }
        }
        Ok(found)
    }
}

impl<S: Store + ?Sized> Typed for S {}
