//! Verdicts: ack, retry, release.

use crate::command::{Lease, Reply, Retry, Settle, Settled, Verdict, Warning};
use crate::core::Core;
use crate::fault::Fault;
use crate::id::{Millis, QueueId};
use crate::limits;
use crate::record::{Delivery, Place};
use crate::store::Store;

/// What a lease's holder may still do.
enum Standing {
    /// The lease lasts.
    Holds(Delivery),
    /// The lease ended; the message lives.
    Late(Delivery),
    /// There is nothing to settle.
    Nothing(Warning),
}

impl Core {
    pub(crate) fn settle<S: Store>(
        &mut self,
        settle: Settle,
        store: &mut S,
    ) -> Result<Reply, Fault<S::Error>> {
        let Settle { queue, acks, retries, releases } = settle;
        if !self.queues.contains_key(&queue) {
            return Ok(crate::command::Refusal::QueueUnknown.into());
        }
        let mut settled = Settled::default();
        for lease in acks {
            self.ack(queue, lease, &mut settled, store)?;
        }
        for retry in retries {
            self.retry(queue, &retry, &mut settled, store)?;
        }
        for lease in releases {
            self.release(queue, lease, &mut settled, store)?;
        }
        Ok(Reply::Settled(settled))
    }

    /// An ack counts while the message lives, whoever leases it.
    fn ack<S: Store>(
        &mut self,
        queue: QueueId,
        lease: Lease,
        settled: &mut Settled,
        store: &mut S,
    ) -> Result<(), Fault<S::Error>> {
        let (delivery, late) = match self.standing(queue, lease, store)? {
            Standing::Holds(delivery) => (delivery, false),
            Standing::Late(delivery) => (delivery, true),
            Standing::Nothing(warning) => {
                settled.warnings.push((lease, warning));
                return Ok(());
            }
        };
        if late {
            settled.warnings.push((lease, Warning::Late(Verdict::Ack)));
        }
        self.remove_delivered(queue, lease.seq, &delivery, store);
        self.total(queue, |totals| totals.acknowledged += 1);
        settled.acks += 1;
        Ok(())
    }

    fn retry<S: Store>(
        &mut self,
        queue: QueueId,
        retry: &Retry,
        settled: &mut Settled,
        store: &mut S,
    ) -> Result<(), Fault<S::Error>> {
        match self.standing(queue, retry.lease, store)? {
            Standing::Holds(delivery) => {
                self.total(queue, |totals| totals.retried += 1);
                settled.retries += 1;
                self.fail(queue, retry.lease.seq, delivery, retry.delay, &retry.reason, store)
            }
            Standing::Late(_) => {
                settled.warnings.push((retry.lease, Warning::Late(Verdict::Retry)));
                Ok(())
            }
            Standing::Nothing(warning) => {
                settled.warnings.push((retry.lease, warning));
                Ok(())
            }
        }
    }

    fn release<S: Store>(
        &mut self,
        queue: QueueId,
        lease: Lease,
        settled: &mut Settled,
        store: &mut S,
    ) -> Result<(), Fault<S::Error>> {
        let mut delivery = match self.standing(queue, lease, store)? {
            Standing::Holds(delivery) => delivery,
            Standing::Late(_) => {
                settled.warnings.push((lease, Warning::Late(Verdict::Release)));
                return Ok(());
            }
            Standing::Nothing(warning) => {
                settled.warnings.push((lease, warning));
                return Ok(());
            }
        };
        self.total(queue, |totals| totals.released += 1);
        settled.releases += 1;
        delivery.releases = delivery.releases.saturating_add(1);
        if delivery.releases > limits::RELEASES_MAX {
            return self.fail(queue, lease.seq, delivery, Some(0), "released too often", store);
        }
        self.leave(queue, lease.seq, &delivery, store);
        match release_delay(delivery.releases) {
            0 => self.give_back(queue, lease.seq, delivery, store),
            delay => self.wait(queue, lease.seq, delivery, delay, store),
        }
        Ok(())
    }

    /// The delivery of a lease that lasts.
    pub(crate) fn held<S: Store>(
        &self,
        queue: QueueId,
        lease: Lease,
        verdict: Verdict,
        store: &S,
    ) -> Result<Result<Delivery, Warning>, Fault<S::Error>> {
        Ok(match self.standing(queue, lease, store)? {
            Standing::Holds(delivery) => Ok(delivery),
            Standing::Late(_) => Err(Warning::Late(verdict)),
            Standing::Nothing(warning) => Err(warning),
        })
    }

    fn standing<S: Store>(
        &self,
        queue: QueueId,
        lease: Lease,
        store: &S,
    ) -> Result<Standing, Fault<S::Error>> {
        if lease.queue != queue {
            return Ok(Standing::Nothing(Warning::OtherQueue));
        }
        if self.queues.get(&queue).is_none_or(|queue| queue.is_gone(lease.seq)) {
            return Ok(Standing::Nothing(Warning::Gone));
        }
        Ok(match self.delivery(queue, lease.seq, store)? {
            None => Standing::Nothing(Warning::Gone),
            // It is on its way to the dead-letter queue: no verdict touches it any more.
            Some(Delivery { place: Place::Dead { .. }, .. }) => Standing::Nothing(Warning::Gone),
            Some(delivery) => match delivery.place {
                Place::Leased { nonce, .. } if nonce == lease.nonce => Standing::Holds(delivery),
                _ => Standing::Late(delivery),
            },
        })
    }
}

/// How long a message waits that is released for the `releases`th time: not at all at first, then twice as long each time.
fn release_delay(releases: u32) -> Millis {
    let beyond = releases.saturating_sub(limits::RELEASES_PROMPT);
    let doublings = beyond.saturating_sub(1).min(16);
    if beyond == 0 { 0 } else { (1000 << doublings).min(limits::RELEASE_DELAY_MAX_MS) }
}
