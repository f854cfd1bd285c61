//! The broker's time: the last committed time plus what has passed since, drawn gently towards the wall clock.
//!
//! A wall clock that steps must neither expire leases nor wake delayed messages, so a difference is worn off at one
//! part in twenty of the time that passes, and time never runs backwards.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A difference to the wall clock goes at this share of elapsed time.
const SLEW: i64 = 20;

/// Milliseconds since 1970 that never jump.
#[derive(Debug)]
pub(crate) struct Clock {
    now: u64,
    read_at: Instant,
}

impl Clock {
    /// Starts at the later of the wall clock and `committed`, the time of the last commit.
    #[must_use]
    pub(crate) fn start(committed: u64) -> Self {
        Self { now: wall().max(committed), read_at: Instant::now() }
    }

    /// How far the wall clock is ahead of this one, milliseconds; it wears off.
    #[must_use]
    pub(crate) fn offset(&mut self) -> i64 {
        difference(wall(), self.now())
    }

    /// The time now.
    pub(crate) fn now(&mut self) -> u64 {
        let read_at = Instant::now();
        let elapsed = millis(read_at.saturating_duration_since(self.read_at));
        if elapsed > 0 {
            self.now = advance(self.now, elapsed, wall());
            // Whole milliseconds are taken, the rest is left for the next reading.
            self.read_at += Duration::from_millis(elapsed);
        }
        self.now
    }
}

/// The time `elapsed` after `now`, with a part of the difference to the wall clock taken off.
fn advance(now: u64, elapsed: u64, wall: u64) -> u64 {
    let steady = now.saturating_add(elapsed);
    let most = i64::try_from(elapsed).unwrap_or(i64::MAX) / SLEW;
    steady.saturating_add_signed(difference(wall, steady).clamp(-most, most))
}

fn difference(a: u64, b: u64) -> i64 {
    let size = i64::try_from(a.abs_diff(b)).unwrap_or(i64::MAX);
    if a < b { -size } else { size }
}

/// The wall clock, milliseconds since 1970.
#[must_use]
pub(crate) fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    #[test]
    fn a_step_of_the_wall_clock_is_no_step_of_this_one() {
        for wall in [100 * DAY + DAY, 100 * DAY - DAY] {
            let after = advance(100 * DAY, 1_000, wall);
            assert!((950..=1_050).contains(&(after - 100 * DAY)), "{after}");
        }
    }

    #[test]
    fn a_difference_wears_off() {
        let (mut now, mut wall) = (100 * DAY, 100 * DAY + 10_000);
        for _ in 0..400 {
            (now, wall) = (advance(now, 1_000, wall + 1_000), wall + 1_000);
        }
        assert_eq!(now, wall);
    }

    #[test]
    fn it_starts_where_the_last_commit_was() {
        let future = wall() + DAY;
        assert_eq!(Clock::start(future).now(), future);
    }
}
