//! Where the numbers come from: what the Consumers of the world have on Brokers that are heard.

use std::sync::Arc;
use std::time::Instant;

use capstan_crds::Key;
use capstan_scaling::Demand;
use tokio::sync::watch;

use super::place::{Unseen, place};
use super::{Demands, Numbers};
use crate::demand::{Sight, Streams};
use crate::world::World;

/// The numbers of all Consumers.
pub(crate) struct Source {
    world: Arc<World>,
    streams: Arc<Streams>,
}

impl Source {
    /// Of these Brokers.
    pub(crate) fn new(world: Arc<World>, streams: Arc<Streams>) -> Self {
        Self { world, streams }
    }
}

impl Demands for Source {
    /// While delivery is paused, only what pods have already: what waits does not wait for a pod.
    fn of(&self, consumer: &Key) -> Result<Demand, Unseen> {
        let place = place(&self.world.read(), consumer)?;
        let (broker, now) = (place.broker, tokio::time::Instant::now().into_std());
        match self.streams.queue(&broker, &place.queue) {
            Sight::Seen { backlog, .. } if place.is_paused => {
                Ok(Demand { leased: backlog.leased, ..Demand::default() })
            }
            Sight::Seen { backlog, .. } => Ok(backlog.demand(now)),
            Sight::Missing => Err(Unseen::Undeclared { broker }),
            Sight::Unheard { since } => Err(unheard(broker, since, now)),
        }
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.streams.changed()
    }
}

fn unheard(broker: Key, since: Instant, now: Instant) -> Unseen {
    Unseen::Unheard { broker, since: now.saturating_duration_since(since) }
}

impl Numbers for Source {
    fn all(&self) -> Vec<(Key, Demand)> {
        let state = self.world.read();
        let push = state.consumers.all().filter(|consumer| consumer.spec.target_ref.is_some());
        let consumers: Vec<Key> = push.map(|consumer| Key::of(&consumer.metadata)).collect();
        drop(state);
        let seen = |key: Key| self.of(&key).ok().map(|demand| (key, demand));
        consumers.into_iter().filter_map(seen).collect()
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
