//! What a round owes: answers, which leave when all that was committed before them is on disk.

use capstan_core::{Lease, Reply};
use tokio::sync::oneshot;

use super::pods::PodsAnswer;
use super::{Changed, Outcome, Snapshot, Unavailable};

/// An answer and where it goes.
pub(super) enum Answer {
    Applied(oneshot::Sender<Result<Outcome, Unavailable>>, Outcome),
    Pulled(oneshot::Sender<Outcome>, Outcome),
    Counted(oneshot::Sender<Snapshot>, Snapshot),
    Changed(oneshot::Sender<Changed>, Changed),
    Pods(oneshot::Sender<PodsAnswer>, PodsAnswer),
}

impl Answer {
    /// Sends it; returns the leases of a pull that had gone away.
    fn send(self) -> Vec<Lease> {
        match self {
            Self::Applied(reply, outcome) => drop(reply.send(Ok(outcome))),
            Self::Counted(reply, snapshot) => drop(reply.send(snapshot)),
            Self::Changed(reply, changed) => drop(reply.send(changed)),
            Self::Pods(reply, pods) => drop(reply.send(pods)),
            Self::Pulled(reply, outcome) => {
                if let Err(Outcome { reply: Reply::Delivered(delivered), .. }) = reply.send(outcome) {
                    return delivered.iter().map(|one| one.lease).collect();
                }
            }
        }
        Vec::new()
    }
}

/// Sends all; returns the leases of pulls that had gone away.
pub(super) fn send(answers: Vec<Answer>) -> Vec<Lease> {
    answers.into_iter().flat_map(Answer::send).collect()
}

/// What a round's second commit owes.
#[derive(Default)]
pub(super) struct Round {
    pub(super) answers: Vec<Answer>,
    /// Requests that were applied.
    pub(super) requests: usize,
    pub(super) declared: bool,
}
