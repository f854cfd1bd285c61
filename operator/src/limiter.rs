//! How often something may happen: so many per second, as many at once.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A token bucket that holds one second's worth.
#[derive(Debug)]
pub(crate) struct Limiter {
    interval: Duration,
    burst: Duration,
    /// When the bucket is full again, were nothing taken any more.
    full_at: Mutex<Instant>,
}

impl Limiter {
    /// At most `per_second` (at least one) each second.
    pub(crate) fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, burst: Duration::from_secs(1), full_at: Mutex::new(Instant::now()) }
    }

    /// Whether one more may happen now; then it counts.
    pub(crate) fn try_take(&self) -> bool {
        self.take(|wait| wait.is_zero())
    }

    /// Counts what happens all the same, so that the rest waits.
    pub(crate) fn force_take(&self) {
        self.take(|_| true);
    }

    fn take(&self, accept: impl FnOnce(Duration) -> bool) -> bool {
        let now = Instant::now();
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*full_at).max(now) + self.interval;
        let accepted = accept(next.duration_since(now).saturating_sub(self.burst));
        if accepted {
            *full_at = next;
        }
        accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_has_so_many() {
        let limiter = Limiter::new(20);
        let taken = |limiter: &Limiter| (0..100).filter(|_| limiter.try_take()).count();
        assert_eq!((taken(&limiter), taken(&limiter)), (20, 0));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(taken(&limiter), 10);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(taken(&limiter), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn what_must_happen_makes_the_rest_wait() {
        let limiter = Limiter::new(20);
        (0..40).for_each(|_| limiter.force_take());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!limiter.try_take());
        tokio::time::advance(Duration::from_millis(50)).await;
        assert!(limiter.try_take());
    }
}
