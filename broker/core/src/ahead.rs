//! A look ahead: which delayed messages are due soon. Known only while somebody asks, and then each timer is read once.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::Core;
use crate::fault::Fault;
use crate::id::{Millis, QueueId, Seq};
use crate::key::Key;
use crate::store::{Limit, Read, Store};

/// The place of a timer.
type Place = (Millis, QueueId, Seq);

/// The timers before a place.
#[derive(Debug, Clone)]
pub(crate) struct Ahead {
    /// All that live before `end`, at most [`crate::limits::Bounds::ahead`].
    timers: BTreeSet<Place>,
    /// How many of them each queue has.
    counts: BTreeMap<QueueId, u64>,
    /// From here on nobody has looked. Moves back when there are too many.
    end: Place,
}

impl Ahead {
    const fn new() -> Self {
        Self { timers: BTreeSet::new(), counts: BTreeMap::new(), end: (0, QueueId(0), Seq(0)) }
    }

    /// A timer is there. What lies behind `end` is found later.
    fn put(&mut self, place: Place, most: usize) {
        if place >= self.end || !self.timers.insert(place) {
            return;
        }
        *self.counts.entry(place.1).or_default() += 1;
        if self.timers.len() > most
            && let Some(last) = self.timers.last().copied()
        {
            self.remove(last);
            self.end = last;
        }
    }

    /// A timer is gone.
    fn remove(&mut self, place: Place) {
        if !self.timers.remove(&place) {
            return;
        }
        if let Some(count) = self.counts.get_mut(&place.1) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&place.1);
            }
        }
    }

    /// All timers of a queue are gone.
    fn forget(&mut self, queue: QueueId) {
        if self.counts.remove(&queue).is_some() {
            self.timers.retain(|(_, of, _)| *of != queue);
        }
    }
}

impl Core {
    /// Looks which messages are due before `now` and `within` more. To be called now and then while somebody wants to know;
    /// answers the queues of which it found more than was known. It reads at most [`crate::limits::AHEAD_MAX`] records.
    ///
    /// # Errors
    /// [`Fault`] when the store cannot be read.
    pub fn look_ahead<S: Store>(
        &mut self,
        now: Millis,
        within: Millis,
        store: &S,
    ) -> Read<BTreeSet<QueueId>, S> {
        let to = (now.max(self.now()).saturating_add(within), QueueId(0), Seq(0));
        let mut ahead = self.ahead.take().unwrap_or(Ahead::new());
        let mut found = BTreeSet::new();
        let most = self.bounds.ahead;
        let (room, from) = (most.saturating_sub(ahead.timers.len()), self.first_unseen(&ahead));
        if room == 0 {
            self.ahead = Some(ahead);
            return Ok(found);
        }
        let mut end = to;
        if from < to {
            let seen = store.scan(key(from), key(to), Limit::records(room))?;
            let is_all = seen.len() < room;
            for (key, _) in seen {
                let Key::Timer(due, id, seq) = key else { return Err(Fault::Corrupt(key)) };
                let place = (due, id, seq);
                if !is_all {
                    end = (due, id, seq.next());
                }
                // A purge may have left it.
                if self.queues.get(&id).is_some_and(|queue| !queue.is_gone(seq)) {
                    ahead.end = ahead.end.max((due, id, seq.next()));
                    ahead.put(place, most);
                    found.insert(id);
                }
            }
        }
        ahead.end = ahead.end.max(end);
        self.ahead = Some(ahead);
        Ok(found)
    }

    /// Forgets what looks ahead have found: nobody wants to know.
    pub fn look_no_more(&mut self) {
        self.ahead = None;
    }

    /// How many messages of a queue are due soon, as of the last look ahead; 0 when there was none. A lower bound when there
    /// are more than [`crate::limits::AHEAD_MAX`] of all queues.
    #[must_use]
    pub fn due_soon(&self, id: QueueId) -> u64 {
        let known = self.ahead.as_ref().and_then(|ahead| ahead.counts.get(&id)).copied().unwrap_or(0);
        self.queues.get(&id).map_or(0, |queue| known.min(queue.state.delayed))
    }

    /// Where the first timer may be that was not looked at. Where none are is not looked again.
    fn first_unseen(&self, ahead: &Ahead) -> Place {
        let at = |due| (due, QueueId(0), Seq(0));
        let first = self.clock.timer_head.max(at(self.next_timer.unwrap_or(Millis::MAX)));
        let from = ahead.end.max(first);
        if self.quiet.contains(&from.0) { at(self.quiet.end) } else { from }
    }

    /// A timer is written.
    pub(crate) fn note_timer(&mut self, due: Millis, id: QueueId, seq: Seq) {
        if let Some(ahead) = &mut self.ahead {
            ahead.put((due, id, seq), self.bounds.ahead);
        }
    }

    /// Removes a timer.
    pub(crate) fn remove_timer<S: Store>(&mut self, due: Millis, id: QueueId, seq: Seq, store: &mut S) {
        store.remove(Key::Timer(due, id, seq));
        if let Some(ahead) = &mut self.ahead {
            ahead.remove((due, id, seq));
        }
    }

    /// A queue has no timers that count any more.
    pub(crate) fn forget_timers(&mut self, id: QueueId) {
        if let Some(ahead) = &mut self.ahead {
            ahead.forget(id);
        }
    }
}

const fn key((due, id, seq): Place) -> Key {
    Key::Timer(due, id, seq)
}
