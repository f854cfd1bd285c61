//! What the core must do, in the simplest form: a list of messages and their states.

pub(crate) mod demand;
pub(crate) mod operation;
pub(crate) mod sends;

use std::collections::BTreeMap;

use capstan_core::{Lease, MessageId, QueueId, Settle};
pub(crate) use sends::Recalled;
use sends::Remembered;

/// The state of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    Delayed { due: u64 },
    Leased { until: u64 },
    Dead,
}

#[derive(Debug, Clone)]
struct Message {
    queue: QueueId,
    id: MessageId,
    bytes: u64,
    sent_at: u64,
    stored_at: u64,
    state: State,
    /// Since when it is ready, if it is.
    since: u64,
    /// It became ready by more than being sent.
    is_back: bool,
    attempts: u32,
    releases: u32,
    lease: Option<Lease>,
    /// The number of the pull that leased it last.
    pull: u64,
    /// All leases it ever had here: a late ack counts by any of them.
    leases: Vec<Lease>,
}

impl Message {
    /// It is ready again.
    fn back(&mut self, now: u64) -> State {
        (self.since, self.is_back) = (now, true);
        State::Ready
    }
}

/// All messages of all queues, in the order in which their queues took them.
#[derive(Debug, Default)]
pub(crate) struct Model {
    messages: Vec<Message>,
    sends: Vec<Remembered>,
    /// Time without a process.
    down: u64,
}

impl Model {
    pub(crate) fn sent(&mut self, queue: QueueId, id: MessageId, bytes: u64, now: u64, delay: u64) {
        let state = if delay == 0 { State::Ready } else { State::Delayed { due: now + delay } };
        let (attempts, releases, lease, leases) = (0, 0, None, Vec::new());
        let (sent_at, stored_at) = (now, now);
        self.messages.push(Message {
            queue,
            id,
            // The test's bodies are as many bytes as their value.
            bytes,
            sent_at,
            stored_at,
            state,
            since: now,
            is_back: false,
            attempts,
            releases,
            lease,
            pull: 0,
            leases,
        });
    }

    pub(crate) fn delivered(
        &mut self,
        queue: QueueId,
        id: MessageId,
        (lease, pull): (Lease, u64),
        attempt: u32,
        until: u64,
    ) {
        let found =
            self.messages.iter_mut().find(|m| m.queue == queue && m.id == id && m.state == State::Ready);
        let message = found.expect("only ready messages are delivered");
        assert_eq!(attempt, message.attempts + 1, "attempts count deliveries that ended in failure");
        message.state = State::Leased { until };
        message.lease = Some(lease);
        message.pull = pull;
        message.leases.push(lease);
    }

    /// Whether the one verdict of `settle` had an effect.
    pub(crate) fn settled(&mut self, settle: &Settle, now: u64, max_retries: u32) -> bool {
        if let Some(lease) = settle.acks.first() {
            let living = |m: &Message| m.leases.contains(lease) && m.state != State::Dead;
            let before = self.messages.len();
            self.messages.retain(|m| !living(m));
            return self.messages.len() < before;
        }
        if let Some(retry) = settle.retries.first() {
            let Some(message) = self.held(retry.lease) else {
                return false;
            };
            let delay = retry.delay.unwrap_or(0);
            fail(message, now, delay, max_retries);
            return true;
        }
        let Some(message) = settle.releases.first().and_then(|lease| self.held(*lease)) else {
            return false;
        };
        message.releases += 1;
        message.lease = None;
        message.state = match message.releases {
            0..=10 => message.back(now),
            11..=1000 => {
                State::Delayed { due: now + 60_000.min(1000 * 2_u64.pow((message.releases - 11).min(9))) }
            }
            _ => {
                fail(message, now, 0, max_retries);
                return true;
            }
        };
        true
    }

    pub(crate) fn extended(&mut self, lease: Lease, until: u64) -> bool {
        let Some(message) = self.held(lease) else {
            return false;
        };
        message.state = State::Leased { until };
        true
    }

    /// Of what came back before, only that is known then.
    pub(crate) fn reopened(&mut self, now: u64) {
        for message in self.messages.iter_mut().filter(|m| m.is_back) {
            message.since = message.since.max(now);
        }
    }

    fn held(&mut self, lease: Lease) -> Option<&mut Message> {
        self.messages.iter_mut().find(|m| m.lease == Some(lease))
    }

    /// Pulls of which messages are leased.
    pub(crate) fn pulls_open(&self, queue: QueueId) -> usize {
        let leased = |m: &&Message| m.queue == queue && matches!(m.state, State::Leased { .. });
        self.messages.iter().filter(leased).map(|m| m.pull).collect::<std::collections::BTreeSet<_>>().len()
    }

    pub(crate) fn purged(&mut self, queue: QueueId) {
        self.messages.retain(|m| m.queue != queue);
    }

    pub(crate) fn removed(&mut self, queue: QueueId, id: MessageId) {
        self.messages.retain(|m| m.queue != queue || m.id != id);
    }

    pub(crate) fn ids(&self, queue: QueueId) -> Vec<MessageId> {
        self.messages.iter().filter(|m| m.queue == queue).map(|m| m.id).collect()
    }

    /// Downtime moves the ends of leases.
    pub(crate) fn leases_move(&mut self, by: u64) {
        for message in &mut self.messages {
            if let State::Leased { until } = &mut message.state {
                *until += by;
            }
        }
    }

    /// Time passes until `now`, and dead messages go to `dead_letters`.
    pub(crate) fn pass(&mut self, now: u64, dead_letters: Option<QueueId>, max_retries: u32, retention: u64) {
        for message in &mut self.messages {
            match message.state {
                State::Delayed { due } if due <= now => message.state = message.back(now),
                State::Leased { until } if until <= now => fail(message, now, 0, max_retries),
                _ => {}
            }
        }
        // In the core's order: what is too old goes before the dead move on, and a failure moves on at once.
        self.messages
            .retain(|m| m.stored_at + retention > now || (m.state == State::Dead && dead_letters.is_some()));
        let Some(target) = dead_letters else { return };
        let (dead, living): (Vec<_>, Vec<_>) = self.messages.drain(..).partition(|m| m.state == State::Dead);
        self.messages = living;
        for message in dead {
            self.sent(target, message.id, message.bytes, now, 0);
            if let Some(moved) = self.messages.last_mut() {
                moved.sent_at = message.sent_at;
            }
        }
    }

    pub(crate) fn count(&self, queue: QueueId, wanted: impl Fn(State) -> bool) -> usize {
        self.messages.iter().filter(|m| m.queue == queue && wanted(m.state)).count()
    }

    pub(crate) fn states(&self, queue: QueueId, limit: usize) -> BTreeMap<MessageId, &'static str> {
        let name = |state| match state {
            State::Ready => "ready",
            State::Delayed { .. } => "delayed",
            State::Leased { .. } => "leased",
            State::Dead => "dead",
        };
        let of_queue = self.messages.iter().filter(|m| m.queue == queue);
        of_queue.take(limit).map(|m| (m.id, name(m.state))).collect()
    }

    pub(crate) fn bytes(&self, queue: QueueId) -> u64 {
        self.messages.iter().filter(|m| m.queue == queue).map(|m| m.bytes).sum()
    }

    pub(crate) fn oldest(&self, queue: QueueId) -> Option<u64> {
        self.messages.iter().find(|m| m.queue == queue).map(|m| m.sent_at)
    }
}

fn fail(message: &mut Message, now: u64, delay: u64, max_retries: u32) {
    message.attempts += 1;
    message.lease = None;
    message.state = match (message.attempts > max_retries, delay) {
        (true, _) => State::Dead,
        (false, 0) => message.back(now),
        (false, delay) => State::Delayed { due: now + delay },
    };
}
