//! What the core must remember of sends with idempotency keys, in the simplest form: a list.

use capstan_core::{MessageId, QueueId, limits};

use super::Model;

/// A send with a key.
#[derive(Debug)]
pub(crate) struct Remembered {
    of: (QueueId, u8),
    content: u8,
    ids: Vec<MessageId>,
    /// In time with a process.
    at: u64,
}

/// What a send with a key is to its queue.
#[derive(Debug)]
pub(crate) enum Recalled {
    Unknown,
    Same(Vec<MessageId>),
    Other,
}

impl Model {
    pub(crate) fn remember(&mut self, of: (QueueId, u8), content: u8, ids: Vec<MessageId>, now: u64) {
        self.sends.push(Remembered { of, content, ids, at: now - self.down });
    }

    pub(crate) fn recalled(&self, of: (QueueId, u8), content: u8, now: u64, window: u64) -> Recalled {
        let known = |one: &&Remembered| one.of == of && one.at + window > now - self.down;
        match self.sends.iter().find(known) {
            None => Recalled::Unknown,
            Some(one) if one.content == content => Recalled::Same(one.ids.clone()),
            Some(_) => Recalled::Other,
        }
    }

    /// How many are remembered, or kept a little longer.
    pub(crate) fn remembered(&self, queue: Option<QueueId>) -> usize {
        self.sends.iter().filter(|one| queue.is_none_or(|queue| one.of.0 == queue)).count()
    }

    /// Those whose window is over go, now and then.
    pub(crate) fn forget(&mut self, now: u64, window: u64) {
        const EVERY: u64 = limits::SENDS_FORGOTTEN_EVERY_MS;
        let down = self.down;
        let all_over = |at: u64| (at + window + down).div_ceil(EVERY) * EVERY <= now;
        // One look takes all whose window is over by then.
        let looked: Vec<QueueId> =
            self.sends.iter().filter(|one| all_over(one.at)).map(|one| one.of.0).collect();
        self.sends.retain(|one| !(looked.contains(&one.of.0) && one.at + window + down <= now));
    }

    /// There was no process for so long.
    pub(crate) fn away(&mut self, down: u64) {
        self.down += down;
    }
}
