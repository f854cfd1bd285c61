//! The way into the engine: two lanes. Verdicts come first and are never refused while the engine lives.
//!
//! The lane of work has bounds of its own. That of verdicts is bounded by who puts them: a connection waits for the answer
//! to its request, so there is one for each connection, and the bodies of those that wait share a budget (`http::body`)
//! that is given back with the answer. A client that goes away leaves behind what it
//! has put, at most until the engine is found stuck: such a verdict, or for an unanswered pull the leases it was to carry.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capstan_core::QueueId;

use super::Job;

/// Most sends, pulls and looks that wait; more are refused.
const WORK_MAX: usize = 10_000;
/// Most body bytes that wait.
const WORK_BYTES_MAX: usize = 64 << 20;
/// Most verdicts taken at once, counted by the leases they name; one request names at most 1,000.
const VERDICTS_PER_GROUP: usize = 2048;
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
    verdicts: VecDeque<(Job, usize)>,
    work: VecDeque<(Job, usize)>,
    work_bytes: usize,
    /// Messages that verdicts and sends are about, about.
    weight: usize,
    /// Messages that pulls want, and the queue of the last of them.
    wanted: usize,
    pulled: Option<QueueId>,
    closed: bool,
    /// The engine is to look at something else.
    nudged: bool,
    /// The engine waits for a job. While it does not, waking it would be a system call for nothing.
    idle: bool,
}

impl Inner {
    fn is_empty(&self) -> bool {
        self.verdicts.is_empty() && self.work.is_empty() && !self.closed && !self.nudged
    }
}

/// What waits in the lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depths {
    /// Requests with verdicts.
    pub(crate) verdicts: usize,
    /// Sends, pulls and looks.
    pub(crate) work: usize,
    /// Of the sends' bodies.
    pub(crate) work_bytes: usize,
}

/// About how much work waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Messages that verdicts and sends are about.
    pub(super) weight: usize,
    /// Messages that pulls want.
    pub(super) wanted: usize,
    /// A queue in which pulls are to be answered.
    pub(super) pulled: Option<QueueId>,
}

/// What the engine takes in one round.
pub(super) struct Group {
    pub(super) jobs: Vec<Job>,
    /// Nothing more will come.
    pub(super) closed: bool,
}

impl Lanes {
    /// Puts a verdict, or another job that must not wait behind sends; `size` is the number of leases it names.
    pub(super) fn push_verdict(&self, job: Job, size: usize) -> Result<(), Full> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Full::Closed);
        }
        inner.weight += size.max(1);
        inner.verdicts.push_back((job, size));
        self.wake(inner);
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
        inner.weight += weight(&job, bytes);
        if let Job::Pull(waiting, _) = &job {
            inner.pulled = Some(waiting.pull.queue);
            inner.wanted += waiting.pull.count;
        }
        inner.work.push_back((job, bytes));
        self.wake(inner);
        Ok(())
    }

    /// Wakes the engine without a job.
    pub(super) fn nudge(&self) {
        let mut inner = self.lock();
        inner.nudged = true;
        self.wake(inner);
    }

    /// Refuses new jobs; those that are waiting are still taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Refuses new jobs and forgets those that wait: nobody will take them.
    pub(super) fn end(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        let waiting = (std::mem::take(&mut inner.verdicts), std::mem::take(&mut inner.work));
        (inner.work_bytes, inner.weight) = (0, 0);
        drop(inner);
        // Their replies are dropped with them, which wakes others.
        drop(waiting);
        self.arrived.notify_all();
    }

    /// Takes a bounded group of what waits, oldest first; waits up to `patience` for a first one.
    pub(super) fn take(&self, patience: Duration) -> Group {
        let mut inner = self.lock();
        if inner.is_empty() && !patience.is_zero() {
            inner.idle = true;
            let waited = self.arrived.wait_timeout_while(inner, patience, |inner| inner.is_empty());
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
            inner.idle = false;
        }
        (inner.nudged, inner.pulled, inner.wanted) = (false, None, 0);
        let (mut jobs, mut taken) = (Vec::new(), 0);
        while taken < VERDICTS_PER_GROUP {
            let Some((job, size)) = inner.verdicts.pop_front() else {
                break;
            };
            taken += size.max(1);
            inner.weight -= size.max(1);
            jobs.push(job);
        }
        let (verdicts, mut taken) = (jobs.len(), 0);
        while jobs.len() < verdicts + WORK_PER_GROUP && taken < BYTES_PER_GROUP {
            let Some((job, bytes)) = inner.work.pop_front() else {
                break;
            };
            inner.work_bytes -= bytes;
            inner.weight -= weight(&job, bytes);
            taken += bytes;
            jobs.push(job);
        }
        Group { jobs, closed: inner.closed && inner.verdicts.is_empty() && inner.work.is_empty() }
    }

    fn wake(&self, mut inner: MutexGuard<'_, Inner>) {
        let idle = std::mem::take(&mut inner.idle);
        drop(inner);
        if idle {
            self.arrived.notify_one();
        }
    }

    /// About how much work waits.
    pub(super) fn weight(&self) -> Waiting {
        let inner = self.lock();
        Waiting { weight: inner.weight, wanted: inner.wanted, pulled: inner.pulled }
    }

    pub(super) fn depths(&self) -> Depths {
        let inner = self.lock();
        let (verdicts, work) = (inner.verdicts.len(), inner.work.len());
        Depths { verdicts, work, work_bytes: inner.work_bytes }
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let Depths { verdicts, work, .. } = self.depths();
        verdicts + work
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic aborts the process in release builds; elsewhere the queue itself is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About how many messages a job is about. How many a pull will get is not known here.
fn weight(job: &Job, bytes: usize) -> usize {
    match job {
        Job::Pull(..) => 0,
        _ => 1 + bytes / 1024,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn verdict(leases: usize) -> Job {
        let lease =
            capstan_core::Lease { queue: capstan_core::QueueId(1), seq: capstan_core::Seq(1), nonce: 0 };
        Job::Abandoned(lease.queue, vec![lease; leases])
    }

    fn work() -> (Job, oneshot::Receiver<super::super::Snapshot>) {
        let (reply, answer) = oneshot::channel();
        (Job::Snapshot(reply), answer)
    }

    fn is_verdict(job: &Job) -> bool {
        matches!(job, Job::Abandoned(..))
    }

    #[test]
    fn verdicts_come_before_work_that_came_earlier() {
        let lanes = Lanes::default();
        lanes.push_work(work().0, 1).unwrap();
        lanes.push_verdict(verdict(1), 1).unwrap();
        let order: Vec<bool> = lanes.take(NOW).jobs.iter().map(is_verdict).collect();
        assert_eq!(order, [true, false]);
    }

    #[test]
    fn work_is_refused_when_too_much_waits_and_verdicts_never_are() {
        let lanes = Lanes::default();
        lanes.push_work(work().0, WORK_BYTES_MAX).unwrap();
        assert_eq!(lanes.push_work(work().0, 1), Err(Full::Overloaded));
        lanes.push_work(work().0, 0).unwrap();
        for _ in 0..WORK_MAX - 2 {
            lanes.push_work(work().0, 0).unwrap();
        }
        assert_eq!(lanes.push_work(work().0, 0), Err(Full::Overloaded));
        lanes.push_verdict(verdict(1), 1).unwrap();
        // What was taken makes room.
        assert_eq!(lanes.take(NOW).jobs.len(), 2);
        lanes.push_work(work().0, 1).unwrap();
    }

    #[test]
    fn a_group_is_bounded_in_leases_jobs_and_bytes() {
        let lanes = Lanes::default();
        for _ in 0..5 {
            lanes.push_verdict(verdict(1000), 1000).unwrap();
        }
        for _ in 0..5 {
            lanes.push_work(work().0, BYTES_PER_GROUP / 2).unwrap();
        }
        for _ in 0..2 * WORK_PER_GROUP {
            lanes.push_work(work().0, 0).unwrap();
        }
        let mut sizes = Vec::new();
        for _ in 0..5 {
            let jobs = lanes.take(NOW).jobs;
            let verdicts = jobs.iter().filter(|job| is_verdict(job)).count();
            sizes.push((verdicts, jobs.len() - verdicts));
        }
        assert_eq!(sizes, [(3, 2), (2, 2), (0, WORK_PER_GROUP), (0, WORK_PER_GROUP), (0, 1)]);
    }

    #[test]
    fn a_closed_lane_takes_nothing_and_gives_what_it_has() {
        let lanes = Lanes::default();
        lanes.push_work(work().0, 1).unwrap();
        lanes.close();
        assert_eq!(lanes.push_work(work().0, 1), Err(Full::Closed));
        assert_eq!(lanes.push_verdict(verdict(1), 1), Err(Full::Closed));
        let group = lanes.take(NOW);
        assert!(group.closed);
        assert_eq!(group.jobs.len(), 1);
    }

    #[test]
    fn at_the_end_whoever_waits_learns_that_there_is_no_answer() {
        let lanes = Lanes::default();
        let (job, mut answer) = work();
        lanes.push_work(job, 1).unwrap();
        lanes.end();
        assert_eq!(answer.try_recv().err(), Some(oneshot::error::TryRecvError::Closed));
        assert!(lanes.take(NOW).jobs.is_empty());
    }

    #[test]
    fn the_engine_is_woken_by_a_job() {
        let lanes = Lanes::default();
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| lanes.take(Duration::from_secs(60)).jobs.len());
            lanes.push_verdict(verdict(1), 1).unwrap();
            assert_eq!(taken.join().unwrap(), 1);
        });
    }
}
