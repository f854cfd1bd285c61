//! Since when the message has waited that a pull would get next.

use std::collections::VecDeque;

use crate::core::{Core, END};
use crate::id::{Millis, Order, QueueId};
use crate::key::Key;
use crate::record::Table;
use crate::store::{Limit, Read, Store, Typed};

/// Most marks; with more, every other one goes.
const MARKS_MAX: usize = 128;
/// Marks are at least this far apart.
const APART_MS: Millis = 1000;

/// When places among returned messages were taken, about: a record does not tell. A core that was just opened knows only that
/// those that are there came before.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    marks: VecDeque<(Order, Millis)>,
    apart: Millis,
}

impl Default for Taken {
    fn default() -> Self {
        Self { marks: VecDeque::new(), apart: APART_MS }
    }
}

impl Taken {
    /// A place is taken, behind all others.
    pub(crate) fn note(&mut self, order: Order, now: Millis) {
        if self.marks.back().is_some_and(|(_, at)| now.saturating_sub(*at) < self.apart) {
            return;
        }
        self.marks.push_back((order, now));
        if self.marks.len() > MARKS_MAX {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.apart = self.apart.saturating_mul(2);
        }
    }

    /// When a place was taken, or a little before; `None` when nothing is known. What lies before it is forgotten.
    fn at(&mut self, order: Order) -> Option<Millis> {
        while self.marks.get(1).is_some_and(|(next, _)| *next <= order) {
            self.marks.pop_front();
        }
        if self.marks.len() < 2 {
            self.apart = APART_MS;
        }
        self.marks.front().filter(|(first, _)| *first <= order).map(|(_, at)| *at)
    }
}

impl Core {
    /// Since when the message has waited that has waited for a consumer the longest; `None` when none is ready.
    ///
    /// Of one that came back since then, within a second or a 64th of that time; of one that had come back before the core
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

    /// A place each 100 ms, for hours; those that are asked for are as old as they are, within a 64th or a second.
    #[test]
    fn places_are_known_by_few_marks() {
        let mut taken = Taken::default();
        for order in 1..400_000 {
            taken.note(Order(order), order * 100);
            assert!(taken.marks.len() <= MARKS_MAX);
        }
        for order in [1, 2, 1_000, 150_000, 399_000, 399_999] {
            let (at, exact) = (taken.at(Order(order)).unwrap(), order * 100);
            let age = 40_000_000 - exact;
            assert!(at <= exact && exact - at <= APART_MS.max(40_000_000 / 64), "{order}: {at}, age {age}");
        }
        assert_eq!(taken.apart, APART_MS, "what is behind is known exactly again");
        assert_eq!(Taken::default().at(Order(1)), None);
    }
}
