//! When a Queue's counts are worth a write: they change all the time, and every write is seen by everyone who watches.

use std::time::Duration;

use capstan_crds::queue::{DeadLetter, Messages};

/// Small changes are written when the counts are this old.
pub(crate) const REFRESH: Duration = Duration::from_secs(30);

/// The counts of a status: of the queue, and of its dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) messages: Option<Messages>,
    pub(crate) dead_letter: Option<DeadLetter>,
}

impl Counts {
    /// Whether `self` is worth a write over `old`: at once when something appears, ends, doubles or halves; when it
    /// changes less, and the old counts are old. Ages alone grow by themselves, so they count only when they double.
    pub(crate) fn is_news(&self, old: &Self) -> bool {
        let (new, known) = match (&self.messages, &old.messages) {
            (None, None) => return self.dead_letter != old.dead_letter,
            (Some(new), Some(known)) => (new, known),
            _ => return true,
        };
        if self.target() != old.target() {
            return true;
        }
        let (numbers, known_numbers) = (self.numbers(), old.numbers());
        let pairs = || numbers.iter().zip(&known_numbers);
        let ages = (self.ages(), old.ages());
        if pairs().chain(ages.0.iter().zip(&ages.1)).any(|(new, old)| is_jump(*old, *new)) {
            return true;
        }
        let age = new.observed_at.0.duration_since(known.observed_at.0);
        let is_old = Duration::try_from(age).is_ok_and(|age| age >= REFRESH);
        is_old && pairs().any(|(new, old)| new != old)
    }

    fn target(&self) -> Option<&str> {
        self.dead_letter.as_ref().map(|dead| dead.queue.as_str())
    }

    fn numbers(&self) -> [u64; 6] {
        let dead = self.dead_letter.as_ref().map_or(0, |dead| dead.ready);
        self.messages.as_ref().map_or([0; 6], |m| [m.ready, m.leased, m.delayed, m.dead, m.bytes, dead])
    }

    fn ages(&self) -> [u64; 2] {
        let seconds = |age: Option<&capstan_crds::Duration>| age.map_or(0, |age| age.millis() / 1000);
        let oldest = self.messages.as_ref().and_then(|messages| messages.oldest_age.as_ref());
        let dead = self.dead_letter.as_ref().and_then(|dead| dead.oldest_age.as_ref());
        [seconds(oldest), seconds(dead)]
    }
}

/// Whether a number appeared, ended, doubled or halved.
pub(crate) fn is_jump(old: u64, new: u64) -> bool {
    let (small, large) = (old.min(new), old.max(new));
    small != large && (small == 0 || large / 2 >= small)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn counts(ready: u64, age: u64, dead: u64, second: i64) -> Counts {
        let messages = Messages {
            ready,
            leased: 0,
            delayed: 0,
            dead: 0,
            bytes: ready * 100,
            oldest_age: (age > 0).then(|| capstan_crds::Duration::from_seconds(age)),
            observed_at: Time(jiff::Timestamp::from_second(second).unwrap()),
        };
        let dead_letter = DeadLetter { queue: "dead".into(), ready: dead, oldest_age: None };
        Counts { messages: Some(messages), dead_letter: Some(dead_letter) }
    }

    #[test]
    fn what_appears_ends_doubles_or_halves_is_news_at_once() {
        for (old, new) in [(0, 1), (1, 0), (10, 20), (20, 10), (1, 2), (100, 7)] {
            assert!(counts(new, 0, 0, 1).is_news(&counts(old, 0, 0, 0)), "{old} → {new}");
        }
        assert!(counts(5, 0, 1, 1).is_news(&counts(5, 0, 0, 0)), "dead letters");
        assert!(counts(5, 120, 0, 1).is_news(&counts(5, 60, 0, 0)), "age");
        assert!(counts(5, 0, 0, 1).is_news(&Counts::default()), "the first");
    }

    #[test]
    fn small_changes_wait_until_the_counts_are_old() {
        for (old, new) in [(10, 11), (10, 19), (20, 11)] {
            assert!(!counts(new, 0, 0, 29).is_news(&counts(old, 0, 0, 0)), "{old} → {new}");
            assert!(counts(new, 0, 0, 30).is_news(&counts(old, 0, 0, 0)), "{old} → {new}");
        }
    }

    #[test]
    fn nothing_new_is_never_news() {
        assert!(!counts(10, 60, 3, 10_000).is_news(&counts(10, 60, 3, 0)));
        assert!(!counts(10, 61, 3, 10_000).is_news(&counts(10, 60, 3, 0)), "an age grows by itself");
        assert!(!counts(0, 0, 0, 10_000).is_news(&counts(0, 0, 0, 0)));
    }

    #[test]
    fn another_dead_letter_queue_is_news() {
        let mut other = counts(10, 0, 3, 1);
        other.dead_letter.as_mut().unwrap().queue = "other".into();
        assert!(other.is_news(&counts(10, 0, 3, 0)));
        other.dead_letter = None;
        assert!(other.is_news(&counts(10, 0, 3, 0)));
    }
}
