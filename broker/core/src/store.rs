//! What the core needs of a store, and typed reads over it.

use crate::fault::Fault;
use crate::id::{Order, QueueId, Seq};
use crate::key::Key;
use crate::record::{Delivery, Message, Record, Table};

/// An ordered map of records that sees its own uncommitted writes.
pub trait Store {
    type Error;

    /// The record of `key`.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&self, key: Key) -> Result<Option<Record>, Self::Error>;

    /// The first `limit` records from `from` on, below `to`.
    ///
    /// # Errors
    /// When one of them cannot be read.
    fn scan(&self, from: Key, to: Key, limit: usize) -> Result<Vec<(Key, Record)>, Self::Error>;

    /// Writes a record, with the next commit.
    fn put(&mut self, key: Key, record: Record);

    /// Removes a record, with the next commit.
    fn remove(&mut self, key: Key);
}

/// What a typed read answers.
type Read<T, S> = Result<T, Fault<<S as Store>::Error>>;

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

    /// The first `limit` messages of a table from `from` on.
    fn messages(
        &self,
        table: Table,
        queue: QueueId,
        from: Seq,
        limit: usize,
    ) -> Read<Vec<(Seq, Box<Message>)>, Self> {
        let (from, to) = (Key::message(table, queue, from), Key::message(table, queue, Seq(u64::MAX)));
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
        for (key, record) in self.scan(from, to, limit)? {
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
