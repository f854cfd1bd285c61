//! Notices a commit that does not return: the storage engine can wait for ever, for example for a flush that failed.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is watched. One of each may run at a time, on different threads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// Into the journal.
    Write,
    /// To the disk.
    Sync,
}

/// Watches commits.
pub(super) struct Watchdog {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// When what is running began, by [`Part`].
    since: [Option<Instant>; 2],
    ended: bool,
}

impl Watchdog {
    /// Starts watching; calls `stuck` once, from a thread of its own, when a commit takes longer than `limit`.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(super) fn start(limit: Duration, stuck: impl FnOnce() + Send + 'static) -> io::Result<Arc<Self>> {
        let watchdog = Arc::new(Self { state: Mutex::default(), ended: Condvar::new() });
        let watching = Arc::clone(&watchdog);
        let watch = move || {
            if watching.watch(limit) {
                stuck();
            }
        };
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch)?;
        Ok(watchdog)
    }

    /// Runs a part of a commit under watch.
    pub(super) fn during<T>(&self, part: Part, commit: impl FnOnce() -> T) -> T {
        self.set(part, Some(Instant::now()));
        let result = commit();
        self.set(part, None);
        result
    }

    fn set(&self, part: Part, since: Option<Instant>) {
        if let Some(slot) = self.lock().since.get_mut(part as usize) {
            *slot = since;
        }
    }

    /// Ends the watch.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.ended.notify_all();
    }

    /// Answers true when a commit is stuck, false when the watch ended.
    fn watch(&self, limit: Duration) -> bool {
        let mut state = self.lock();
        // It looks now and then instead of being told: a commit must not pay for waking it.
        while !state.ended {
            if state.since.iter().flatten().any(|since| since.elapsed() >= limit) {
                return true;
            }
            let waited = self.ended.wait_timeout(state, limit / 8);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    #[test]
    fn a_commit_that_does_not_return_is_noticed() {
        let (tell, told) = mpsc::channel();
        let watchdog = Watchdog::start(Duration::from_millis(20), move || tell.send(()).unwrap()).unwrap();
        watchdog.during(Part::Sync, || told.recv_timeout(SOON).unwrap());
    }

    #[test]
    fn short_commits_and_idle_times_are_not() {
        let (tell, told) = mpsc::channel::<()>();
        let watchdog = Watchdog::start(Duration::from_millis(200), move || tell.send(()).unwrap()).unwrap();
        // Longer than the limit in all.
        for _ in 0..300 {
            watchdog.during(Part::Write, || ());
            std::thread::sleep(Duration::from_millis(1));
        }
        watchdog.end();
        // The thread drops its end when the watch is over, having said nothing.
        assert_eq!(told.recv_timeout(SOON), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
