//! Where the numbers come from: what the Consumers of the world have on Brokers that are heard.

use std::sync::Arc;

use capstan_crds::Key;
use capstan_scaling::Demand;
use tokio::sync::watch;

use super::place::{Place, Unseen, place};
use super::{Demands, Numbers};
use crate::demand::{self, Heard};
use crate::world::World;

/// The numbers of all Consumers.
pub(crate) struct Source {
    world: Arc<World>,
    demands: demand::Demands,
}

impl Source {
    /// Of these Brokers.
    pub(crate) fn new(world: Arc<World>, demands: demand::Demands) -> Self {
        Self { world, demands }
    }
}

impl Source {
    /// While delivery is paused, only what pods have already: what waits does not wait for a pod.
    fn known(&self, place: Place) -> Result<Demand, Unseen> {
        let broker = place.broker;
        match self.demands.queue(&broker, &place.queue) {
            Heard::Seen(numbers) => Ok(numbers.to_do(place.is_paused)),
            Heard::Unknown => Err(Unseen::Undeclared { broker }),
            Heard::Unheard => {
                let since = self.demands.silent_for(&broker);
                Err(Unseen::Unheard { broker, since })
            }
        }
    }
}

impl Demands for Source {
    fn of(&self, consumer: &Key) -> Result<Demand, Unseen> {
        let place = place(&self.world.read(), consumer)?;
        // On a standby nobody else wants to hear of it.
        self.demands.want(&place.broker);
        self.known(place)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.demands.changed()
    }
}

impl Numbers for Source {
    /// Of Brokers that somebody wants to hear of: on the active operator all, as it looks at their Consumers.
    fn all(&self) -> Vec<(Key, Demand)> {
        let places: Vec<(Key, Place)> = {
            let state = self.world.read();
            let push = state.consumers.all().filter(|consumer| consumer.spec.target_ref.is_some());
            let keys = push.map(|consumer| Key::of(&consumer.metadata));
            keys.filter_map(|key| place(&state, &key).ok().map(|place| (key, place))).collect()
        };
        let seen = |(key, place)| self.known(place).ok().map(|demand| (key, demand));
        places.into_iter().filter_map(seen).collect()
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
