//! What the HTTP side holds of the engine. Cheap to clone; channels stay inside.

use std::collections::BTreeSet;
use std::sync::Arc;

use capstan_api::control::Pods;
use capstan_core::{Command, Peek, Pull, QueueId, Recall, Refusal, Reply, SendItem};
use tokio::sync::{oneshot, watch};

use super::horizon::Asked;
use super::lanes::{Depths, Full, Lanes};
use super::pods::{Ask, PodsAnswer};
use super::waiters::WaitingPull;
use super::{Answers, Backlog, Changed, Job, Outcome, Owner, Puller, Snapshot, TooManyRetire, Version};
use crate::directory::Directory;
use crate::store::{NearlyFull, Volume};

/// Why the engine gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// Too much is waiting; nothing was done.
    Overloaded,
    /// A send, while the volume has room for verdicts only; nothing was done.
    NearlyFull(NearlyFull),
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
    pub(super) lanes: Arc<Lanes>,
    pub(super) directory: watch::Receiver<Arc<Directory>>,
    pub(super) version: watch::Receiver<Version>,
    pub(super) asked: Asked,
    pub(super) pulled: Answers,
    pub(super) peeked: Answers,
    pub(super) volume: Arc<Volume>,
}

impl Handle {
    /// The volume that the store is on.
    #[must_use]
    pub(crate) fn volume(&self) -> &Volume {
        &self.volume
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
        if let Command::Send(send) = &command
            && let Err(full) = self.volume.take(send.items.len(), bytes(&command))
        {
            let full = Unavailable::NearlyFull(full);
            // What is stored already needs no room.
            let idempotency = send.idempotency.ok_or(full)?;
            let recall = Command::Recall(Recall { queue: send.queue, idempotency });
            let outcome = self.put(recall, backlog).await?;
            return if outcome.reply == Reply::Refused(Refusal::NotSent) { Err(full) } else { Ok(outcome) };
        }
        self.put(command, backlog).await
    }

    async fn put(&self, command: Command, backlog: Option<QueueId>) -> Result<Outcome, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let (verdicts, bytes) = (verdicts(&command), bytes(&command));
        let job = Job::Apply { command, backlog, reply };
        match verdicts {
            Some(size) => self.lanes.push_verdict(job, size)?,
            None => self.lanes.push_work(job, bytes)?,
        }
        answer.await.map_err(|_| Unavailable::Ended)?
    }

    /// Leases messages, to `puller` if that is known; gathers `wait` milliseconds after the first, waits `idle` milliseconds for it.
    ///
    /// Dropping the future gives back what was leased.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub(crate) async fn pull(
        &self,
        pull: Pull,
        puller: Option<Puller>,
        wait: u64,
        idle: u64,
    ) -> Result<Outcome, Unavailable> {
        let (queue, (reply, answer)) = (pull.queue, oneshot::channel());
        self.lanes.push_work(Job::Pull(WaitingPull { pull, wait, idle, reply }, puller), 0)?;
        let mut answer = PullAnswer { lanes: Arc::clone(&self.lanes), queue, answer, over: false };
        let outcome = (&mut answer.answer).await;
        answer.over = true;
        outcome.map_err(|_| Unavailable::Ended)
    }

    /// What is in a queue.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub(crate) async fn backlog(&self, queue: QueueId) -> Result<Backlog, Unavailable> {
        // A peek of nothing costs nothing and carries the backlog.
        let look = Command::Peek(Peek { queue, count: 0, bytes: 0 });
        Ok(self.apply(look, Some(queue)).await?.backlog.unwrap_or_default())
    }

    /// Counts everything.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.lanes.push_verdict(Job::Snapshot(reply), 1)?;
        answer.await.map_err(|_| Unavailable::Ended)
    }

    /// Tells of commits that changed queues, and of messages that are due soon.
    #[must_use]
    pub(crate) fn subscribe(&self) -> watch::Receiver<Version> {
        self.asked.ask();
        self.version.clone()
    }

    /// Counts the queues that changed after a version; all of them when it is none of this engine's.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub(crate) async fn changes(&self, since: Option<Version>) -> Result<Changed, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.lanes.push_verdict(Job::Changes(since, reply), 1)?;
        answer.await.map_err(|_| Unavailable::Ended)
    }

    /// Tells which pods of a workload have messages, or ask for some.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub(crate) async fn pods(&self, owner: Owner) -> Result<Pods, Unavailable> {
        // Only a retirement is ever refused.
        Ok(self.ask_pods(owner, None).await?.unwrap_or_default())
    }

    /// Lets these pods of a workload retire for `lasts` milliseconds, and no others. From the answer on they are leased
    /// nothing.
    ///
    /// # Errors
    /// [`Unavailable`], or [`TooManyRetire`].
    pub(crate) async fn retire(
        &self,
        owner: Owner,
        pods: BTreeSet<String>,
        lasts: u64,
    ) -> Result<Result<Pods, TooManyRetire>, Unavailable> {
        self.ask_pods(owner, Some((pods, lasts))).await
    }

    async fn ask_pods(
        &self,
        owner: Owner,
        retire: Option<(BTreeSet<String>, u64)>,
    ) -> Result<PodsAnswer, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.lanes.push_verdict(Job::Pods(Ask { owner, retire, reply }), 1)?;
        answer.await.map_err(|_| Unavailable::Ended)
    }

    /// Bytes in answers that clients have not taken yet.
    #[must_use]
    pub(crate) fn unread(&self) -> u64 {
        self.pulled.bytes() + self.peeked.bytes()
    }

    /// What waits for the engine.
    #[must_use]
    pub(crate) fn depths(&self) -> Depths {
        self.lanes.depths()
    }

    /// Answers all waiting pulls; later ones do not wait.
    pub(crate) fn stop_waiting(&self) {
        let _ = self.lanes.push_verdict(Job::StopWaiting, 1);
    }

    /// Jobs that the engine has not taken yet.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lanes.waiting()
    }

    /// Ends the engine after what it has taken.
    pub(crate) fn close(&self) {
        self.lanes.close();
    }
}

/// The answer to a pull on its way. Dropped before it was taken out, its leases are given back, and what it gathered
/// goes to the next pull.
struct PullAnswer {
    lanes: Arc<Lanes>,
    queue: QueueId,
    answer: oneshot::Receiver<Outcome>,
    over: bool,
}

impl Drop for PullAnswer {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // From here on the engine notices by itself.
        self.answer.close();
        let leases: Vec<_> = match self.answer.try_recv() {
            Ok(Outcome { reply: Reply::Delivered(delivered), .. }) => {
                delivered.iter().map(|one| one.lease).collect()
            }
            _ => Vec::new(),
        };
        let size = leases.len().max(1);
        // An engine that is ending takes nothing more: these leases end by time.
        let _ = self.lanes.push_verdict(Job::Abandoned(self.queue, leases), size);
    }
}

/// The size of a command that is never refused; `None` for one that may be.
fn verdicts(command: &Command) -> Option<usize> {
    match command {
        Command::Settle(settle) => Some(settle.acks.len() + settle.retries.len() + settle.releases.len()),
        Command::Extend(extend) => Some(extend.leases.len()),
        Command::Declare(declaration) => Some(declaration.queues.len()),
        Command::Remove(remove) => Some(remove.messages.len()),
        // They make room, and are few.
        Command::Purge(_) => Some(1),
        _ => None,
    }
}

/// What a command holds in memory while it waits, or its answer once it is there.
fn bytes(command: &Command) -> usize {
    /// Of a message that is looked at; its size is not known yet.
    const PEEKED: usize = 10_000;
    match command {
        Command::Send(send) => send.items.iter().map(|item: &SendItem| item.body.len()).sum(),
        Command::Peek(peek) => peek.count * PEEKED,
        _ => 0,
    }
}
