//! The circuit breaker before the application: when to pull, and when to leave it alone. Pure: instants are arguments.
//!
//! ```text
//!  Unknown ──► Connecting ──connected──► Closed ◄──began── Probing ◄──time over── Open
//!                  └───refused──► Absent     └──not begun──► Open   └─not begun─► Open, for twice as long
//! ```
//!
//! Absent is as Open, but Connecting comes next: who listens again is another process, and what the one before answered says
//! nothing of it. Each state that tried or was closed becomes Absent when nobody listens.

use std::time::{Duration, Instant};

/// How often an application that starts is looked for: to connect in vain costs both next to nothing, and messages wait.
pub const STARTS: Duration = Duration::from_millis(100);
/// How long the breaker stays open first.
pub const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest it stays open by itself.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// The longest it stays open because the application asked for it (`Retry-After`).
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// The breaker of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    state: State,
    /// How long it was open last; zero when the application has begun since.
    wait: Duration,
    /// Nobody has listened yet.
    starts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody tried yet.
    Unknown,
    /// Someone looks whether the application listens; nothing is leased before.
    Connecting,
    /// The application takes batches.
    Closed,
    /// It took nothing: leave it alone until then.
    Open { until: Instant },
    /// Nobody listens: look again then.
    Absent { until: Instant },
    /// Someone tries with one message.
    Probing,
}

/// What someone who wants to pull may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Pull whole batches.
    Pull,
    /// Look whether the application listens, and report.
    Connect,
    /// Look whether it listens, try one message, and report.
    Probe,
    /// Ask again then.
    WaitUntil(Instant),
    /// Someone else is trying: ask again when the breaker has changed.
    WaitForChange,
}

/// What came of an attempt to reach the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The application began, whatever came of it.
    Began,
    /// It never began, and may have said when to come back.
    NotBegun { retry_after: Option<Duration> },
    /// Nobody listens on its port.
    Absent,
    /// Nobody listens yet.
    Starting,
}

/// A change that others want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Opened { wait: Duration },
    Closed,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Unknown, wait: Duration::ZERO, starts: false }
    }
}

impl Breaker {
    /// Whether the application takes batches.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// May someone pull? An answer of `Connect` or `Probe` must be followed by [`Breaker::report`] or [`Breaker::abandon`].
    pub fn ask(&mut self, now: Instant) -> Ask {
        match self.state {
            State::Closed => Ask::Pull,
            State::Connecting | State::Probing => Ask::WaitForChange,
            State::Open { until } | State::Absent { until } if now < until => Ask::WaitUntil(until),
            State::Open { .. } => {
                self.state = State::Probing;
                Ask::Probe
            }
            State::Unknown | State::Absent { .. } => {
                self.state = State::Connecting;
                Ask::Connect
            }
        }
    }

    /// Takes what came of a call (`probe` false) or of the trial that this breaker gave out (`probe` true).
    pub fn report(&mut self, reach: Reach, probe: bool, now: Instant) -> Option<Change> {
        let trying = matches!(self.state, State::Connecting | State::Probing);
        // A call that began before the breaker opened says nothing new.
        if (probe && !trying) || (!probe && self.state != State::Closed) {
            return None;
        }
        match reach {
            Reach::Began => {
                let change = (self.state != State::Closed).then_some(Change::Closed);
                *self = Self { state: State::Closed, wait: Duration::ZERO, starts: false };
                change
            }
            Reach::NotBegun { retry_after } => {
                let wait = self.next_wait();
                let open_for = wait.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX));
                *self = Self { state: State::Open { until: now + open_for }, wait, starts: false };
                Some(Change::Opened { wait: open_for })
            }
            Reach::Absent => {
                let wait = self.next_wait();
                *self = Self { state: State::Absent { until: now + wait }, wait, starts: false };
                Some(Change::Opened { wait })
            }
            Reach::Starting => {
                let change = (!self.starts).then_some(Change::Opened { wait: STARTS });
                let state = State::Absent { until: now + STARTS };
                *self = Self { state, wait: Duration::ZERO, starts: true };
                change
            }
        }
    }

    fn next_wait(&self) -> Duration {
        self.wait.saturating_mul(2).clamp(WAIT_MIN, WAIT_MAX)
    }

    /// The trial ended without a result: someone else may try at once.
    pub fn abandon(&mut self, now: Instant) {
        self.state = match self.state {
            State::Connecting => State::Unknown,
            State::Probing => State::Open { until: now },
            other => other,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_BEGUN: Reach = Reach::NotBegun { retry_after: None };

    fn closed(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.ask(now), Ask::Connect);
        assert_eq!(breaker.report(Reach::Began, true, now), Some(Change::Closed));
        breaker
    }

    #[test]
    fn nothing_is_pulled_before_the_application_listens() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!(breaker.ask(now), Ask::Connect);
        assert_eq!(breaker.ask(now), Ask::WaitForChange);
        assert_eq!(breaker.report(NOT_BEGUN, true, now), Some(Change::Opened { wait: WAIT_MIN }));
        assert_eq!(breaker.ask(now), Ask::WaitUntil(now + WAIT_MIN));
        assert_eq!(closed(now).ask(now), Ask::Pull);
    }

    #[test]
    fn waits_double_from_one_to_sixty_seconds_and_start_over() {
        let mut now = Instant::now();
        let mut breaker = closed(now);
        let mut change = breaker.report(NOT_BEGUN, false, now);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = Duration::from_secs(seconds);
            assert_eq!(change, Some(Change::Opened { wait }));
            assert_eq!(breaker.ask(now), Ask::WaitUntil(now + wait));
            now += wait;
            assert_eq!(breaker.ask(now), Ask::Probe);
            assert_eq!(breaker.ask(now), Ask::WaitForChange, "one at a time");
            change = breaker.report(NOT_BEGUN, true, now);
        }
        now += WAIT_MAX;
        assert_eq!(breaker.ask(now), Ask::Probe);
        assert_eq!(breaker.report(Reach::Began, true, now), Some(Change::Closed));
        assert_eq!(breaker.report(NOT_BEGUN, false, now), Some(Change::Opened { wait: WAIT_MIN }));
    }

    #[test]
    fn one_that_went_away_is_looked_for_and_begun_with_anew() {
        let mut now = Instant::now();
        let mut breaker = closed(now);
        let mut change = breaker.report(Reach::Absent, false, now);
        for seconds in [1, 2, 4] {
            let wait = Duration::from_secs(seconds);
            assert_eq!(change, Some(Change::Opened { wait }));
            assert_eq!(breaker.ask(now), Ask::WaitUntil(now + wait));
            now += wait;
            assert_eq!(breaker.ask(now), Ask::Connect, "no message is risked, and none is needed");
            change = breaker.report(Reach::Absent, true, now);
        }
        now += WAIT_MAX;
        assert_eq!(breaker.ask(now), Ask::Connect);
        assert_eq!(breaker.report(Reach::Began, true, now), Some(Change::Closed));
        assert_eq!(breaker.report(NOT_BEGUN, false, now), Some(Change::Opened { wait: WAIT_MIN }));
        now += WAIT_MIN;
        assert_eq!(breaker.ask(now), Ask::Probe, "one that answers so is tried with one message");
        assert!(breaker.report(Reach::Absent, true, now).is_some());
        assert_eq!(breaker.ask(now + WAIT_MAX), Ask::Connect);
    }

    #[test]
    fn one_that_starts_is_looked_for_often_and_said_once() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        for change in [Some(Change::Opened { wait: STARTS }), None, None] {
            assert_eq!(breaker.ask(now), Ask::Connect);
            assert_eq!(breaker.report(Reach::Starting, true, now), change);
            assert_eq!(breaker.ask(now), Ask::WaitUntil(now + STARTS));
            now += STARTS;
        }
        assert_eq!(breaker.ask(now), Ask::Connect);
        let absent = breaker.report(Reach::Absent, true, now);
        assert_eq!(absent, Some(Change::Opened { wait: WAIT_MIN }), "it does not start");
        assert_eq!(breaker.ask(now + WAIT_MIN), Ask::Connect);
        assert_eq!(breaker.report(Reach::Began, true, now), Some(Change::Closed));
    }

    #[test]
    fn retry_after_is_honoured_within_bounds() {
        for (asked, wait) in [(0, 1), (7, 7), (300, 300), (1_000_000, 600)] {
            let now = Instant::now();
            let reach = Reach::NotBegun { retry_after: Some(Duration::from_secs(asked)) };
            let change = closed(now).report(reach, false, now);
            assert_eq!(change, Some(Change::Opened { wait: Duration::from_secs(wait) }), "asked {asked}");
        }
    }

    #[test]
    fn calls_that_began_earlier_change_nothing() {
        let now = Instant::now();
        let mut breaker = closed(now);
        assert!(breaker.report(NOT_BEGUN, false, now).is_some());
        let open = breaker.clone();
        for reach in [NOT_BEGUN, Reach::Began] {
            assert_eq!(breaker.report(reach, false, now), None);
        }
        assert_eq!(breaker, open);
    }

    #[test]
    fn an_abandoned_trial_is_taken_up_by_the_next() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!(breaker.ask(now), Ask::Connect);
        breaker.abandon(now);
        assert_eq!(breaker.ask(now), Ask::Connect);
        breaker.report(NOT_BEGUN, true, now);
        assert_eq!(breaker.ask(now + WAIT_MIN), Ask::Probe);
        breaker.abandon(now + WAIT_MIN);
        assert_eq!(breaker.ask(now + WAIT_MIN), Ask::Probe);
        let wait = Duration::from_secs(2);
        assert_eq!(breaker.report(NOT_BEGUN, true, now), Some(Change::Opened { wait }), "it still counts");
    }
}
