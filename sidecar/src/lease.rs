//! When to extend the leases of a batch, and when to give up on them. Pure: instants are arguments.

use std::time::{Duration, Instant};

/// Longest time for which a broker that does not answer stops the clock.
pub const SILENCE_MAX: Duration = Duration::from_secs(3600);
/// First wait before an extend that failed is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// The leases of one batch; they were granted together and end together.
#[derive(Debug, Clone)]
pub struct Lease {
    visibility: Duration,
    ends_at: Instant,
    next: Instant,
    /// No lease is extended after this: the call is over, or will be cut.
    call_ends_at: Instant,
    silence: Duration,
}

impl Lease {
    /// Leases granted at `granted_at` for `visibility`, with a call that ends at `call_ends_at` at the latest.
    #[must_use]
    pub fn new(granted_at: Instant, visibility: Duration, call_ends_at: Instant) -> Self {
        Self {
            visibility,
            ends_at: granted_at + visibility,
            next: granted_at + visibility / 3,
            call_ends_at,
            silence: Duration::ZERO,
        }
    }

    /// When to extend next; never when the call must have ended by then.
    #[must_use]
    pub fn next_extend(&self) -> Option<Instant> {
        (self.next < self.call_ends_at).then_some(self.next)
    }

    /// An extend that was sent at `sent_at` succeeded.
    pub fn extended(&mut self, sent_at: Instant) {
        self.ends_at = sent_at + self.visibility;
        self.next = sent_at + self.visibility / 3;
    }

    /// An extend failed at `now`: it is tried again soon, for the broker may be back before the lease ends.
    pub fn not_extended(&mut self, now: Instant) {
        self.next = now + AGAIN.max(self.visibility / 12);
    }

    /// When the leases end, as far as the sidecar knows.
    #[must_use]
    pub const fn ends_at(&self) -> Instant {
        self.ends_at
    }

    /// Longest wait between two tries of a settle. A broker that was down gives each lease the time that it had left, which
    /// was two thirds when the leases were extended in time.
    #[must_use]
    pub fn resend_within(&self) -> Duration {
        self.visibility / 3
    }

    /// The broker did not answer for `time`. A broker that is down moves its leases by the downtime, and one that is
    /// merely out of reach takes a late verdict without harm, so that time does not count: at most [`SILENCE_MAX`].
    pub fn silent(&mut self, time: Duration) {
        let time = time.min(SILENCE_MAX.saturating_sub(self.silence));
        self.silence += time;
        self.ends_at += time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn leases_are_extended_at_each_third_until_the_call_must_end() {
        let start = Instant::now();
        let mut lease = Lease::new(start, seconds(30), start + seconds(60));
        let mut extended = Vec::new();
        while let Some(at) = lease.next_extend() {
            extended.push((at - start).as_secs());
            lease.extended(at);
        }
        assert_eq!(extended, [10, 20, 30, 40, 50]);
        assert_eq!(lease.ends_at() - start, seconds(80), "the answer at 60 s has time to be settled");
    }

    #[test]
    fn a_call_shorter_than_a_third_needs_no_extend() {
        let start = Instant::now();
        let lease = Lease::new(start, seconds(30), start + seconds(10));
        assert_eq!((lease.next_extend(), lease.ends_at()), (None, start + seconds(30)));
    }

    #[test]
    fn a_failed_extend_is_tried_again_before_the_lease_ends() {
        let start = Instant::now();
        let mut lease = Lease::new(start, seconds(30), start + seconds(60));
        let mut tries = 0;
        while let Some(at) = lease.next_extend().filter(|at| *at < lease.ends_at()) {
            lease.not_extended(at);
            tries += 1;
        }
        assert_eq!(tries, 8, "every 2.5 s from 10 s on");
        let mut short = Lease::new(start, seconds(1), start + seconds(60));
        short.not_extended(start);
        assert_eq!(short.next_extend(), Some(start + AGAIN));
    }

    #[test]
    fn a_silent_broker_stops_the_clock_but_not_for_ever() {
        let start = Instant::now();
        let mut lease = Lease::new(start, seconds(30), start + seconds(60));
        lease.silent(seconds(60));
        assert_eq!(lease.ends_at(), start + seconds(90));
        lease.silent(seconds(1_000_000));
        assert_eq!(lease.ends_at(), start + seconds(30) + SILENCE_MAX);
    }
}
