//! Longer leases.

use crate::command::{Extend, Refusal, Reply, Verdict};
use crate::core::Core;
use crate::fault::Fault;
use crate::id::{Millis, QueueId};
use crate::key::Key;
use crate::record::{Place, Record};
use crate::store::Store;

impl Core {
    pub(crate) fn extend<S: Store>(
        &mut self,
        extend: &Extend,
        store: &mut S,
    ) -> Result<Reply, Fault<S::Error>> {
        let id = extend.queue;
        if !self.queues.contains_key(&id) {
            return Ok(Refusal::QueueUnknown.into());
        }
        let until = self.now().saturating_add(extend.duration.unwrap_or_else(|| self.visibility_timeout(id)));
        let (mut extended, mut warnings) = (0, Vec::new());
        for lease in &extend.leases {
            let mut delivery = match self.held(id, *lease, Verdict::Extend, store)? {
                Ok(delivery) => delivery,
                Err(warning) => {
                    warnings.push((*lease, warning));
                    continue;
                }
            };
            if let Place::Leased { until: before, nonce, batch } = delivery.place {
                self.leases.remove(&(before, id, lease.seq));
                self.leases.insert((until, id, lease.seq));
                delivery.place = Place::Leased { until, nonce, batch };
            }
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.extend(lease.seq, &delivery);
            }
            store.put(Key::Delivery(id, lease.seq), Record::Delivery(delivery));
            extended += 1;
        }
        Ok(Reply::Extended(extended, warnings))
    }

    /// The consumer's; when it is gone, what is leased keeps a usual one.
    fn visibility_timeout(&self, id: QueueId) -> Millis {
        const USUAL: Millis = 30_000;
        let consumer = self.queues.get(&id).and_then(|queue| queue.policy.consumer.as_ref());
        consumer.map_or(USUAL, |consumer| consumer.visibility_timeout)
    }
}
