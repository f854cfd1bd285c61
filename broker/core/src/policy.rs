//! A queue's policy, and the decisions that follow from it alone.

use crate::id::{Millis, mix};

/// How a queue behaves. All durations are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Nothing is leased.
    pub paused: bool,
    /// Delay of a send that names none.
    pub delivery_delay: Millis,
    pub retention: Millis,
    /// Sends beyond so many bytes are refused.
    pub max_bytes: Option<u64>,
    /// Sends beyond so many messages are refused.
    pub max_messages: Option<u64>,
    pub consumer: Option<Consumer>,
    /// Tells what the queue comes from from a later one of the same label.
    pub resource: String,
    /// Whose word that the resource is gone purges the messages; they are retained when `None`.
    pub purged_by: Option<String>,
}

impl Policy {
    /// Whether messages go when `declarer` says that the resource is gone. From nobody is nobody's word.
    pub(crate) fn goes_at_the_word_of(&self, declarer: &str) -> bool {
        !declarer.is_empty() && self.purged_by.as_deref() == Some(declarer)
    }
}

/// How a queue is consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Nothing is leased to it.
    pub paused: bool,
    /// Most pulls whose messages are leased at once.
    pub max_concurrency: Option<u32>,
    pub max_retries: u32,
    pub retry_delay: Millis,
    pub backoff: Option<Backoff>,
    /// The label of the queue that takes messages whose retries are used up.
    pub dead_letter: Option<String>,
    pub visibility_timeout: Millis,
}

/// A retry delay that grows with the attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub factor: u32,
    pub max_delay: Millis,
}

impl Consumer {
    /// The delay after the `attempt`-th attempt failed, when the verdict names none. `noise` decides the jitter.
    pub(crate) fn retry_delay(&self, attempt: u32, noise: u64) -> Millis {
        let Some(backoff) = self.backoff else {
            return self.retry_delay;
        };
        let growth = u64::from(backoff.factor).saturating_pow(attempt.saturating_sub(1));
        let ceiling = self.retry_delay.saturating_mul(growth).min(backoff.max_delay);
        // Full jitter: anything from 0 to the ceiling, so that messages that failed together do not come back together.
        mix(noise) % ceiling.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(retry_delay: Millis, backoff: Option<Backoff>) -> Consumer {
        Consumer {
            paused: false,
            max_concurrency: None,
            max_retries: 3,
            retry_delay,
            backoff,
            dead_letter: None,
            visibility_timeout: 1000,
        }
    }

    #[test]
    fn without_backoff_the_delay_is_constant() {
        let consumer = consumer(700, None);
        assert!((1..100).all(|attempt| consumer.retry_delay(attempt, u64::from(attempt)) == 700));
    }

    #[test]
    fn backoff_stays_below_its_ceiling_and_uses_the_room() {
        let consumer = consumer(1000, Some(Backoff { factor: 2, max_delay: 60_000 }));
        for (attempt, ceiling) in [(1, 1000), (2, 2000), (3, 4000), (7, 60_000), (100, 60_000)] {
            let delays: Vec<_> = (0..500).map(|noise| consumer.retry_delay(attempt, noise)).collect();
            let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
            assert!(*most <= ceiling && *most > ceiling * 9 / 10, "attempt {attempt}: {most} of {ceiling}");
            assert!(*least < ceiling / 10, "attempt {attempt}: {least}");
        }
    }
}
