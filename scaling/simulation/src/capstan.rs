//! Capstan: the decision of the operator itself, and how it brings it about.

use std::time::Duration;

use capstan_scaling::{Demand, Memory, Rule};

use crate::world::World;

/// Pods that are to go may end their calls for as long as a call may take, within these bounds, before `replicas` drops.
const PATIENCE: std::ops::RangeInclusive<u64> = 30..=600;
/// Whoever is chosen meanwhile has the same time, but all of them together no more than so many times of it.
const PATIENCES_MOST: u64 = 2;
/// Pods that still work after so long make way for those that are idle by then.
const CHOSEN_FIRMLY: u64 = 5;

pub struct Capstan {
    rule: Rule,
    memory: Memory,
    /// Since when these pods are chosen to go, and since when some are.
    choosing: Option<(u64, u64)>,
}

impl Capstan {
    pub fn new(max: u32, target: u32) -> Self {
        let five_minutes = Duration::from_secs(300);
        let rule = Rule {
            min: 0,
            max,
            backlog_per_replica: target,
            max_oldest_age: None,
            scale_down_stabilization: five_minutes,
            idle_period: five_minutes,
        };
        Self { rule, memory: Memory::default(), choosing: None }
    }

    /// Decides each second: the broker tells the operator when demand changes.
    pub fn tick(&mut self, world: &mut World) {
        let demand = Demand {
            ready: world.waiting(),
            leased: world.in_flight(),
            due: 0,
            oldest_ready: world.oldest().map(Duration::from_secs),
            quiet_for: None,
        };
        let now = Duration::from_secs(world.now);
        let desired = self.memory.decide(&self.rule, demand, world.replicas, now).desired;
        let idle_first = self.choosing.is_some_and(|(since, _)| world.now - since >= CHOSEN_FIRMLY);
        let choice = world.choose(world.replicas.saturating_sub(desired), idle_first);
        if desired >= world.replicas || choice.is_idle || self.has_waited(world, choice.is_new) {
            self.choosing = None;
            world.scale(desired);
        }
    }

    /// Whether those that are chosen have had the time for their calls.
    fn has_waited(&mut self, world: &World, is_new: bool) -> bool {
        let now = world.now;
        let (since, begun) = self.choosing.get_or_insert((now, now));
        if is_new {
            *since = now;
        }
        let patience = world.timeout().clamp(*PATIENCE.start(), *PATIENCE.end());
        now - *since >= patience || now - *begun >= patience * PATIENCES_MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_pod_is_left_alone_while_another_can_go() {
        let mut world = World::new(1000, 2);
        let mut capstan = Capstan::new(5, 10);
        world.step(1);
        for _ in 0..400 {
            world.step(0);
            capstan.tick(&mut world);
            world.now += 1;
        }
        assert_eq!((world.replicas, world.counts.stopped_busy, world.in_flight()), (1, 0, 1));
    }
}
