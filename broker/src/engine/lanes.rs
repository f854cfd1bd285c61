//! The way into the engine: two bounded lanes. Verdicts come first and are never refused while the engine lives.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Job;

/// Most sends, pulls and looks that wait; more are refused.
const WORK_MAX: usize = 10_000;
/// Most body bytes that wait.
const WORK_BYTES_MAX: usize = 64 << 20;
/// Most verdict jobs taken at once.
const VERDICTS_PER_GROUP: usize = 512;
/// Most other jobs taken at once.
const WORK_PER_GROUP: usize = 1024;
/// Most body bytes taken at once: a group of this size commits in a few milliseconds.
const BYTES_PER_GROUP: usize = 1 << 20;

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// Too much is waiting.
    Overloaded,
    /// The engine is ending.
    Closed,
}

/// Jobs on their way to the engine.
#[derive(Default)]
pub(super) struct Lanes {
    inner: Mutex<Inner>,
    arrived: Condvar,
}

#[derive(Default)]
struct Inner {
    verdicts: VecDeque<Job>,
    work: VecDeque<(Job, usize)>,
    work_bytes: usize,
    closed: bool,
}

/// What the engine takes in one round.
pub(super) struct Group {
    pub(super) jobs: Vec<Job>,
    /// Nothing more will come.
    pub(super) closed: bool,
}

impl Lanes {
    /// Puts a verdict, or another job that must not wait behind sends.
    pub(super) fn push_verdict(&self, job: Job) -> Result<(), Full> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Full::Closed);
        }
        inner.verdicts.push_back(job);
        self.arrived.notify_one();
        Ok(())
    }

    /// Puts a job that may be refused; `bytes` is the size of its bodies.
    pub(super) fn push_work(&self, job: Job, bytes: usize) -> Result<(), Full> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Full::Closed);
        }
        if inner.work.len() >= WORK_MAX || inner.work_bytes.saturating_add(bytes) > WORK_BYTES_MAX {
            return Err(Full::Overloaded);
        }
        inner.work_bytes += bytes;
        inner.work.push_back((job, bytes));
        self.arrived.notify_one();
        Ok(())
    }

    /// Refuses new jobs; those that are waiting are still taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Takes a bounded group of what waits, oldest first; waits up to `patience` for a first one.
    pub(super) fn take(&self, patience: Duration) -> Group {
        let idle = |inner: &mut Inner| inner.verdicts.is_empty() && inner.work.is_empty() && !inner.closed;
        let waited = self.arrived.wait_timeout_while(self.lock(), patience, idle);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        let verdicts = inner.verdicts.len().min(VERDICTS_PER_GROUP);
        let mut jobs: Vec<Job> = inner.verdicts.drain(..verdicts).collect();
        let mut taken = 0;
        while jobs.len() < verdicts + WORK_PER_GROUP && taken < BYTES_PER_GROUP {
            let Some((job, bytes)) = inner.work.pop_front() else {
                break;
            };
            inner.work_bytes -= bytes;
            taken += bytes;
            jobs.push(job);
        }
        Group { jobs, closed: inner.closed && inner.verdicts.is_empty() && inner.work.is_empty() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic aborts the process in release builds; elsewhere the queue itself is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
