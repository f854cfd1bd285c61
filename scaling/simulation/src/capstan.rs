//! Capstan: the decision of the operator itself, and how it brings it about.

use std::time::Duration;

use capstan_scaling::{Demand, Memory, Rule, patience};

use crate::world::World;

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
        let idle_first =
            self.choosing.is_some_and(|(since, _)| world.now - since >= patience::CHOSEN_FIRMLY.as_secs());
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
        let seconds = Duration::from_secs;
        patience::is_over(seconds(world.timeout()), seconds(now - *since), seconds(now - *begun))
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
