//! A look at the oldest messages, whatever their state.

use crate::command::{Peek, Peeked, Refusal, Reply};
use crate::core::Core;
use crate::fault::Fault;
use crate::id::{QueueId, Seq};
use crate::limits;
use crate::record::{Message, Place, Table};
use crate::store::{Limit, Store, Typed};

impl Core {
    pub(crate) fn peek<S: Store>(&mut self, peek: Peek, store: &S) -> Result<Reply, Fault<S::Error>> {
        let Some(queue) = self.queues.get(&peek.queue) else {
            return Ok(Refusal::QueueUnknown.into());
        };
        let count = peek.count.min(limits::BATCH_MAX);
        let (limit, mut found) = (Limit { records: count, bytes: peek.bytes }, Vec::new());
        let lows = [Table::Fresh, Table::Parked].map(|table| (table, queue.low(table)));
        for (table, low) in lows {
            for (seq, message) in self.living(peek.queue, table, low, limit, store)? {
                found.push((seq, table, message));
            }
        }
        found.sort_by_key(|(seq, ..)| *seq);
        found.truncate(count);
        let mut bytes = None;
        found.retain(|(_, _, message)| {
            let (first, sum) = (bytes.is_none(), bytes.unwrap_or(0) + message.bytes());
            bytes = Some(sum);
            first || sum <= peek.bytes
        });
        let mut peeked = Vec::with_capacity(found.len());
        for (seq, table, message) in found {
            peeked.push(look(peek.queue, seq, table, message, store)?);
        }
        Ok(Reply::Peeked(peeked))
    }
}

fn look<S: Store>(
    id: QueueId,
    seq: Seq,
    table: Table,
    message: Box<Message>,
    store: &S,
) -> Result<Peeked, Fault<S::Error>> {
    let (attempts, state) = match (store.delivery(id, seq)?, table) {
        (None, Table::Fresh) => (0, "ready"),
        (None, Table::Parked) => (0, "delayed"),
        (Some(delivery), _) => match delivery.place {
            Place::Leased { .. } => (delivery.attempts + 1, "leased"),
            Place::Returned { .. } => (delivery.attempts, "ready"),
            Place::Waiting { .. } => (delivery.attempts, "delayed"),
            Place::Dead { .. } => (delivery.attempts, "dead"),
        },
    };
    Ok(Peeked { seq, table, attempts, state, message })
}
