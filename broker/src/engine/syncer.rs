//! The syncer: a thread that brings one group's commit to disk and answers it, while the engine applies the next.
//!
//! Answers leave in the order of commits, and none before everything that was committed before it is on disk.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use capstan_core::Lease;

use super::EngineError;
use super::round::{Answer, send};
use crate::store::StoreError;

/// Brings a commit, and all before it, to disk.
pub(super) type Sync = Box<dyn Fn(Written) -> Result<(), StoreError> + Send>;

/// A commit that is in the journal, and not on disk yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) number: u64,
    pub(super) began: std::time::Instant,
    /// Requests that it answers.
    pub(super) requests: usize,
}

/// A running syncer. Dropped, it ends after what it was given.
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// To be synced next.
    given: Option<Written>,
    /// A commit was given, and is not answered yet.
    busy: bool,
    answers: Vec<Answer>,
    /// Leases whose client went away before the answer.
    undelivered: Vec<Lease>,
    failed: bool,
    ended: bool,
}

impl Syncer {
    /// Starts it. `returned` is told when a client went away; `fail` is called once, when a sync failed.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(super) fn start(
        sync: Sync,
        returned: impl Fn() + Send + 'static,
        fail: impl FnOnce(EngineError) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let work = Arc::clone(&shared);
        let run = move || {
            // Release builds abort instead.
            let result = catch_unwind(AssertUnwindSafe(|| work.run(&sync, &returned)));
            let error = match result {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.into(),
                Err(_) => EngineError::Panicked,
            };
            // Before the engine notices, so that this is what is told.
            fail(error);
            work.fail();
        };
        let thread = std::thread::Builder::new().name("syncer".to_owned()).spawn(run)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Gives it a commit and what is to be answered after it. The one before must be done: [`Self::wait`].
    pub(super) fn give(&self, written: Written, answers: Vec<Answer>) {
        let mut state = self.shared.lock();
        debug_assert!(!state.busy, "one at a time");
        state.given = Some(written);
        state.busy = true;
        state.answers = answers;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits until what it was given is on disk and answered.
    ///
    /// # Errors
    /// It failed, and has told so.
    pub(super) fn wait(&self) -> Result<(), EngineError> {
        let state = self.shared.lock();
        let done = self.shared.changed.wait_while(state, |state| state.busy && !state.failed);
        if done.unwrap_or_else(PoisonError::into_inner).failed { Err(EngineError::Unsynced) } else { Ok(()) }
    }

    /// Answers after what is on its way to the disk; at once when nothing is. Returns leases that nobody took.
    pub(super) fn answer(&self, answers: Vec<Answer>) -> Vec<Lease> {
        let mut state = self.shared.lock();
        if state.busy {
            // After a failure they are dropped with the engine.
            state.answers.extend(answers);
            return Vec::new();
        }
        drop(state);
        send(answers)
    }

    /// Leases that were answered to clients that had gone.
    pub(super) fn take_undelivered(&self) -> Vec<Lease> {
        std::mem::take(&mut self.shared.lock().undelivered)
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, sync: &Sync, returned: &impl Fn()) -> Result<(), StoreError> {
        while let Some(written) = self.next() {
            sync(written)?;
            if self.finish() {
                returned();
            }
        }
        Ok(())
    }

    /// Nobody is answered any more: what is on disk is unknown.
    fn fail(&self) {
        let mut state = self.lock();
        state.failed = true;
        let answers = std::mem::take(&mut state.answers);
        drop(state);
        // Their clients learn that there is none.
        drop(answers);
        self.changed.notify_all();
    }

    fn next(&self) -> Option<Written> {
        let state = self.lock();
        let waited = self.changed.wait_while(state, |state| state.given.is_none() && !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).given.take()
    }

    /// Answers; true when someone had gone.
    fn finish(&self) -> bool {
        let mut state = self.lock();
        // Others may come while these are sent.
        while !state.answers.is_empty() {
            let answers = std::mem::take(&mut state.answers);
            drop(state);
            let undelivered = send(answers);
            state = self.lock();
            state.undelivered.extend(undelivered);
        }
        state.busy = false;
        let gone = !state.undelivered.is_empty();
        drop(state);
        self.changed.notify_all();
        gone
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
