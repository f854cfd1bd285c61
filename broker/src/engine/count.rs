//! What the engine counts: for answers, for the operator, for metrics.

use capstan_core::{Core, QueueId, Refusal};

use super::{EngineError, Version};
use crate::store::Transaction;

/// What is in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Backlog {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    /// Milliseconds since 1970.
    pub(crate) oldest_sent_at: Option<u64>,
    /// When the queue was last purged, milliseconds since 1970; 0 when it never was.
    pub(crate) purged_at: u64,
    /// Whether records of purged messages are still on disk.
    pub(crate) purging: bool,
}

/// Everything that is counted.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) queues: Vec<QueueSnapshot>,
    /// Commits since the start, and those of them that waited for the disk.
    pub(crate) commits: Commits,
    /// Pulls that wait for messages.
    pub(crate) pulls_waiting: usize,
    /// The wall clock less the broker's time, milliseconds.
    pub(crate) clock_offset_ms: i64,
}

/// What changed since a version.
#[derive(Debug, Clone)]
pub(crate) struct Changed {
    /// To ask with the next time.
    pub(crate) version: Version,
    /// These are all queues; one that is missing is gone.
    pub(crate) whole: bool,
    pub(crate) queues: Vec<QueueSnapshot>,
}

/// Commits since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Commits {
    pub(crate) buffered: u64,
    pub(crate) synced: u64,
}

/// A queue as it stands.
#[derive(Debug, Clone)]
pub(crate) struct QueueSnapshot {
    pub(crate) id: QueueId,
    pub(crate) label: String,
    pub(crate) retained: bool,
    pub(crate) ready: u64,
    pub(crate) delayed: u64,
    /// Of these; see `horizon`.
    pub(crate) due_soon: u64,
    pub(crate) leased: u64,
    /// Pulls of which messages are leased.
    pub(crate) batches: u64,
    pub(crate) dead: u64,
    pub(crate) bytes: u64,
    pub(crate) oldest_age_ms: Option<u64>,
    /// Of those that are ready; only where it was asked for, as it is another read.
    pub(crate) oldest_ready_age_ms: Option<u64>,
    /// When the retention has removed all of a retained queue, milliseconds since 1970.
    pub(crate) empty_by_ms: Option<u64>,
    /// Why dead messages do not go on.
    pub(crate) blocked: Option<Refusal>,
    /// Sends with idempotency keys that are remembered.
    pub(crate) remembered: u64,
    pub(crate) totals: capstan_core::Totals,
}

/// Counts every queue.
pub(super) fn all(
    core: &mut Core,
    now: u64,
    transaction: &Transaction<'_>,
) -> Result<Vec<QueueSnapshot>, EngineError> {
    let ids = core.views().map(|view| view.id).collect();
    queues(core, ids, now, transaction)
}

/// Counts some queues; those that are gone are left out.
pub(super) fn queues(
    core: &mut Core,
    ids: Vec<QueueId>,
    now: u64,
    transaction: &Transaction<'_>,
) -> Result<Vec<QueueSnapshot>, EngineError> {
    let mut snapshots = Vec::with_capacity(ids.len());
    for id in ids {
        let oldest = core.oldest_sent_at(id, transaction)?;
        let Some(view) = core.view(id) else { continue };
        snapshots.push(QueueSnapshot {
            id,
            label: view.label.to_owned(),
            retained: view.retained,
            ready: view.state.ready,
            delayed: view.state.delayed,
            due_soon: core.due_soon(id),
            leased: view.state.leased,
            batches: view.batches as u64,
            dead: view.state.dead,
            bytes: view.state.bytes,
            oldest_age_ms: oldest.map(|sent_at| now.saturating_sub(sent_at)),
            oldest_ready_age_ms: None,
            empty_by_ms: core.empty_by(id),
            blocked: view.blocked,
            remembered: view.remembered,
            totals: view.totals,
        });
    }
    Ok(snapshots)
}

/// Adds how long the oldest ready message has waited, to each queue that has some.
pub(super) fn ready_ages(
    core: &mut Core,
    queues: &mut [QueueSnapshot],
    now: u64,
    transaction: &Transaction<'_>,
) -> Result<(), EngineError> {
    for queue in queues.iter_mut().filter(|queue| queue.ready > 0) {
        let since = core.ready_since(queue.id, transaction)?;
        queue.oldest_ready_age_ms = since.map(|since| now.saturating_sub(since));
    }
    Ok(())
}

/// Counts one queue.
pub(super) fn backlog(
    core: &mut Core,
    queue: QueueId,
    transaction: &Transaction<'_>,
) -> Result<Backlog, EngineError> {
    let oldest_sent_at = core.oldest_sent_at(queue, transaction)?;
    let view = core.view(queue);
    Ok(view.map_or_else(Backlog::default, |view| Backlog {
        count: view.state.count(),
        bytes: view.state.bytes,
        oldest_sent_at,
        purged_at: view.state.purged_at,
        purging: view.purging,
    }))
}
