//! Since when the message has waited that a pull would get next.

use std::collections::VecDeque;

use crate::core::{Core, END};
use crate::id::{Millis, Order, QueueId};
use crate::key::Key;
use crate::record::Table;
use crate::store::{Limit, Read, Store, Typed};

/// With more marks some are left out: of two weeks about 400 are worth keeping.
const MARKS_MAX: usize = 512;
/// Marks are at least this far apart.
const APART_MS: Millis = 1000;
/// The longer ago, the further apart they may be: by this part of the time that is over.
const PART: Millis = 16;

/// When places among returned messages were taken, about: a record does not tell. A core that was just opened knows only that
/// those that are there came before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    /// In order. A place was taken when the last mark before it was made, or a little later.
    marks: VecDeque<(Order, Millis)>,
}

impl Taken {
    /// A place is taken, behind all others; `head` is the first that counts.
    pub(crate) fn note(&mut self, order: Order, head: Order, now: Millis) {
        if self.marks.back().is_some_and(|(_, at)| now.saturating_sub(*at) < APART_MS) {
            return;
        }
        self.pass(head);
        self.marks.push_back((order, now));
        if self.marks.len() > MARKS_MAX {
            self.thin(now);
        }
    }

    /// When a place was taken, or a little before; `None` when nothing is known. What lies before it is forgotten.
    fn at(&mut self, order: Order) -> Option<Millis> {
        self.pass(order);
        self.marks.front().filter(|(first, _)| *first <= order).map(|(_, at)| *at)
    }

    fn pass(&mut self, head: Order) {
        while self.marks.get(1).is_some_and(|(next, _)| *next <= head) {
            self.marks.pop_front();
        }
    }

    /// Leaves out each mark without which those beside it are near enough, now and ever after.
    fn thin(&mut self, now: Millis) {
        let mut kept: Vec<(Order, Millis)> = Vec::with_capacity(self.marks.len());
        for mark in self.marks.drain(..) {
            if let [.., before, _] = kept[..]
                && mark.1 - before.1 <= (now.saturating_sub(mark.1) / PART).max(APART_MS)
            {
                kept.pop();
            }
            kept.push(mark);
        }
        self.marks = kept.into();
    }
}

impl Core {
    /// Since when the message has waited that has waited for a consumer the longest; `None` when none is ready.
    ///
    /// Of one that came back since then, within a second or a sixteenth of that time; of one that had come back before the core
    /// was opened, since that.
    ///
    /// # Errors
    /// [`crate::Fault`] when the store cannot be read.
    pub fn ready_since<S: Store>(&mut self, id: QueueId, store: &S) -> Read<Option<Millis>, S> {
        let Some(queue) = self.queues.get(&id).filter(|queue| queue.state.ready > 0) else {
            return Ok(None);
        };
        let first = queue.state.cursor.max(queue.state.fresh_low);
        let returned = self.returned_since(id, store)?;
        let fresh = self.living(id, Table::Fresh, first, Limit::records(1), store)?.pop();
        // A dead letter came here when it was moved.
        let since = |message: &crate::record::Message| {
            message.origin.as_ref().map_or(message.sent_at, |origin| origin.moved_at)
        };
        let fresh = fresh.map(|(_, message)| since(&message));
        Ok([returned, fresh].into_iter().flatten().min())
    }

    fn returned_since<S: Store>(&mut self, id: QueueId, store: &S) -> Read<Option<Millis>, S> {
        let opened = self.opened;
        let Some(queue) = self.queues.get_mut(&id) else { return Ok(None) };
        let head = queue.state.returned_head;
        if head >= queue.state.next_order {
            return Ok(None);
        }
        let first = store.entries(Key::Returned(id, head), Key::Returned(id, END), 1)?.pop();
        // Those that went another way are not passed again.
        let moved = first.map_or(queue.state.next_order, |(order, _)| order);
        queue.state.returned_head = moved;
        let since = first.map(|(order, _)| queue.taken.at(order).unwrap_or(opened));
        if moved != head {
            self.touched.insert(id);
        }
        Ok(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place each 400 ms for two weeks: each is known as well as it must be, also
    /// after most were passed quickly.
    #[test]
    fn places_are_known_by_few_marks() {
        const PLACES: u64 = 3_000_000;
        const EVERY: u64 = 400;
        let (mut taken, mut most) = (Taken::default(), 0);
        for order in 1..=PLACES {
            taken.note(Order(order), Order(1), order * EVERY);
            most = most.max(taken.marks.len());
        }
        assert!(most <= MARKS_MAX + 1, "{most}");
        let now = PLACES * EVERY;
        for back in (0..63).rev().map(|bit| 3_u64.pow(bit / 2)).filter(|back| *back < PLACES) {
            let (at, exact) = (taken.at(Order(PLACES - back)).unwrap(), (PLACES - back) * EVERY);
            let about = ((now - exact) / PART).max(APART_MS);
            assert!(at <= exact && exact - at <= about, "{back}: {at} for {exact}");
        }
        assert_eq!(Taken::default().at(Order(1)), None);
    }

    #[test]
    fn what_was_there_before_the_first_mark_is_not_known() {
        let mut taken = Taken::default();
        taken.note(Order(5), Order(1), 1_000);
        assert_eq!(
            (taken.at(Order(4)), taken.at(Order(5)), taken.at(Order(9))),
            (None, Some(1_000), Some(1_000))
        );
    }
}
