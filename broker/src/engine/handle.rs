//! What the HTTP side holds of the engine. Cheap to clone; channels stay inside.

use std::sync::Arc;

use capstan_core::{Command, Pull, QueueId, SendItem};
use tokio::sync::{oneshot, watch};

use super::lanes::{Full, Lanes};
use super::waiters::WaitingPull;
use super::{Job, Outcome, QueueSnapshot};
use crate::directory::Directory;

/// Why the engine gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// Too much is waiting; nothing was done.
    Overloaded,
    /// The engine is ending; whether it was done is unknown.
    Ended,
}

impl From<Full> for Unavailable {
    fn from(full: Full) -> Self {
        match full {
            Full::Overloaded => Self::Overloaded,
            Full::Closed => Self::Ended,
        }
    }
}

/// A way to the engine.
#[derive(Clone)]
pub(crate) struct Handle {
    lanes: Arc<Lanes>,
    directory: watch::Receiver<Arc<Directory>>,
}

impl Handle {
    pub(super) const fn new(lanes: Arc<Lanes>, directory: watch::Receiver<Arc<Directory>>) -> Self {
        Self { lanes, directory }
    }

    /// The queues, as of the last declaration.
    #[must_use]
    pub(crate) fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.borrow())
    }

    /// Tells of declarations.
    #[must_use]
    pub(crate) fn directory_changes(&self) -> watch::Receiver<Arc<Directory>> {
        self.directory.clone()
    }

    /// Applies a command; the answer comes when it is durable. Verdicts are never refused for load.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub(crate) async fn apply(
        &self,
        command: Command,
        backlog: Option<QueueId>,
    ) -> Result<Outcome, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let bytes = bytes(&command);
        let verdict = matches!(command, Command::Settle(_) | Command::Extend(_) | Command::Declare(_));
        let job = Job::Apply { command, backlog, reply };
        if verdict {
            self.lanes.push_verdict(job)?;
        } else {
            self.lanes.push_work(job, bytes)?;
        }
        answer.await.map_err(|_| Unavailable::Ended)
    }

    /// Leases messages; gathers `wait` milliseconds after the first, waits `idle` milliseconds for it.
    ///
    /// Dropping the future gives back what was leased.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub(crate) async fn pull(&self, pull: Pull, wait: u64, idle: u64) -> Result<Outcome, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.lanes.push_work(Job::Pull(WaitingPull { pull, wait, idle, reply }), 0)?;
        answer.await.map_err(|_| Unavailable::Ended)
    }

    /// Counts everything.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub(crate) async fn snapshot(&self) -> Result<Vec<QueueSnapshot>, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.lanes.push_verdict(Job::Snapshot(reply))?;
        answer.await.map_err(|_| Unavailable::Ended)
    }

    /// Answers all waiting pulls; later ones do not wait.
    pub(crate) fn stop_waiting(&self) {
        let _ = self.lanes.push_verdict(Job::StopWaiting);
    }

    /// Ends the engine after what it has taken.
    pub(crate) fn close(&self) {
        self.lanes.close();
    }
}

/// What a command holds in memory while it waits.
fn bytes(command: &Command) -> usize {
    match command {
        Command::Send(send) => send.items.iter().map(|item: &SendItem| item.body.len()).sum(),
        _ => 0,
    }
}
