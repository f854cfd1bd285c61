//! How long to wait after a failure: doubling, bounded, with jitter.

use std::time::Duration;

/// The waits of one thing that keeps failing.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next wait: between half of it and all of it, so that many sidecars do not come back in one moment.
    pub(crate) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.longest);
        whole.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// The next wait, but not before the time that the other side asked for.
    pub(crate) fn wait_at_least(&mut self, asked: Option<Duration>) -> Duration {
        let wait = self.wait();
        wait.max(asked.unwrap_or_default().min(self.longest))
    }

    /// It worked: the next failure waits shortly again.
    pub(crate) const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for whole in [100, 200, 350, 350] {
            let wait = backoff.wait().as_millis();
            assert!((whole / 2..=whole).contains(&wait), "{wait} of {whole}");
        }
        backoff.reset();
        assert!(backoff.wait().as_millis() <= 100);
        assert_eq!(backoff.wait_at_least(Some(Duration::from_secs(9))).as_millis(), 350);
    }
}
