//! KEDA: its operator between zero and one, an HPA above, by its documentation.
//!
//! <https://keda.sh/docs/2.20/reference/scaledobject-spec/>

use crate::hpa::Hpa;
use crate::world::World;

/// The operator looks so often whether there is anything: `pollingInterval`.
const POLL: u64 = 30;
/// The last pod goes when the trigger was not active for so long: `cooldownPeriod`.
const COOLDOWN: u64 = 300;

pub struct Keda {
    /// Whether its scaler counts messages that were delivered and are not settled.
    in_flight: bool,
    hpa: Hpa,
    active: Option<u64>,
}

impl Keda {
    pub fn new(max: u32, target: u32, in_flight: bool) -> Self {
        Self { in_flight, hpa: Hpa::new(1, max, target), active: None }
    }

    pub fn tick(&mut self, world: &mut World) {
        let metric = world.waiting() + if self.in_flight { world.in_flight() } else { 0 };
        if world.now.is_multiple_of(POLL) {
            self.poll(world, metric);
        }
        self.hpa.tick(world, metric);
    }

    fn poll(&mut self, world: &mut World, metric: u64) {
        if metric > 0 {
            self.active = Some(world.now);
            if world.replicas == 0 {
                world.scale(1);
            }
        } else if self.active.is_none_or(|at| world.now - at > COOLDOWN) {
            world.scale(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The replicas of each second in which they changed, with one message that arrives at a second.
    fn changes(service: u64, arrives: u64, in_flight: bool) -> (Vec<(u64, u32)>, World) {
        let (mut world, mut keda) = (World::new(service, 0), Keda::new(10, 10, in_flight));
        let (mut last, mut changes) = (0, Vec::new());
        while world.now < 2000 {
            world.step(usize::from(world.now == arrives));
            keda.tick(&mut world);
            if world.replicas != last {
                last = world.replicas;
                changes.push((world.now, last));
            }
            world.now += 1;
        }
        (changes, world)
    }

    #[test]
    fn wakes_at_a_poll_and_sleeps_after_the_cooldown() {
        assert_eq!(changes(2, 61, false).0, [(90, 1), (420, 0)]);
        assert_eq!(changes(2, 90, false).0, [(90, 1), (420, 0)]);
    }

    #[test]
    fn a_long_call_is_work_only_for_scalers_that_see_it() {
        let (seen, world) = changes(600, 61, true);
        assert_eq!((seen, world.counts.cut_off), (vec![(90, 1), (1020, 0)], 0));
        let (_, world) = changes(600, 61, false);
        assert!(world.counts.cut_off > 0);
    }
}
