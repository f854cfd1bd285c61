//! Something worth saying, but not each time.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// The least time between two warnings about the same outage.
const INTERVAL: Duration = Duration::from_secs(10);

/// Remembers when it was said last.
#[derive(Debug)]
pub(crate) struct Seldom(watch::Sender<Option<Instant>>);

impl Default for Seldom {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Seldom {
    /// Whether to say it again, now that many see the same.
    pub(crate) fn is_due(&self) -> bool {
        let now = Instant::now();
        self.0.send_if_modified(|last| {
            let due = last.is_none_or(|last| now.duration_since(last) >= INTERVAL);
            if due {
                *last = Some(now);
            }
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_within_the_interval() {
        let seldom = Seldom::default();
        assert_eq!([seldom.is_due(), seldom.is_due()], [true, false]);
        seldom.0.send_replace(Instant::now().checked_sub(INTERVAL));
        assert_eq!([seldom.is_due(), seldom.is_due()], [true, false]);
    }
}
