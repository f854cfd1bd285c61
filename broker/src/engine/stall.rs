//! Time in which the engine did not run: its process was stopped, its machine froze, or a disk did not answer.
//!
//! Verdicts and extensions that clients sent meanwhile are in no lane yet when it runs again. Were leases ended at once, what
//! was handled would be delivered again, or be dead; so they last as much longer as nobody could settle them.

use std::time::{Duration, Instant};

/// Leases last at most so much longer.
const GRACE_MAX: Duration = Duration::from_secs(30);

/// When the engine ran last, and until when nothing ends by time.
#[derive(Debug)]
pub(super) struct Stall {
    /// Longer than this between two looks, beyond what was meant to be waited, is a stall.
    least: Duration,
    looked: Instant,
    until: Option<Instant>,
}

impl Stall {
    pub(super) fn new(least: Duration) -> Self {
        Self { least, looked: Instant::now(), until: None }
    }

    /// The engine runs; it meant to wait so long at most since the last look. A stall within the time that another gave, or
    /// right after it, gives none: on a disk that is slow for good, leases and delays would never end.
    pub(super) fn look(&mut self, meant: Duration) {
        let now = Instant::now();
        let late = now.saturating_duration_since(self.looked).saturating_sub(meant);
        self.looked = now;
        if let Some(until) = self.until {
            self.until = Some(until).filter(|until| *until > now);
        } else if late >= self.least {
            tracing::warn!(
                seconds = late.as_secs_f32(),
                "the broker did not run for a while; leases last longer by it"
            );
            self.until = now.checked_add(late.min(GRACE_MAX));
        }
    }

    /// How long nothing ends by time yet.
    pub(super) fn left(&self) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(self.looked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(20);

    fn after(meant: Duration) -> Stall {
        let mut stall = Stall::new(LEAST);
        pass(2 * LEAST);
        stall.look(meant);
        stall
    }

    fn pass(time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            std::thread::yield_now();
        }
    }

    #[test]
    fn when_every_turn_is_late_something_ends_all_the_same() {
        let mut stall = after(Duration::ZERO);
        assert!(stall.left() > Duration::ZERO);
        // As late as what was given lasts, and later.
        pass(stall.left() + LEAST);
        stall.look(Duration::ZERO);
        assert_eq!(stall.left(), Duration::ZERO, "one stall gives time after the other");
        pass(2 * LEAST);
        stall.look(Duration::ZERO);
        assert!(stall.left() > Duration::ZERO, "a later one gives time again");
    }

    #[test]
    fn what_was_not_meant_is_a_stall_and_gives_as_much_time() {
        let mut stall = after(Duration::ZERO);
        assert!(stall.left() >= 2 * LEAST, "{:?}", stall.left());
        while stall.left() > Duration::ZERO {
            stall.look(Duration::ZERO);
        }
        assert_eq!(stall.until, None);
    }

    #[test]
    fn waiting_is_none() {
        assert_eq!(after(Duration::from_secs(60)).left(), Duration::ZERO);
    }
}
