//! Capstan: the decision of the operator itself, and how it brings it about.

use std::time::Duration;

use capstan_scaling::{Demand, Memory, Rule};

use crate::world::World;

/// Pods that are to go may end their calls for as long as a call may take, within these bounds, before `replicas` drops.
const PATIENCE: std::ops::RangeInclusive<u64> = 30..=600;

pub struct Capstan {
    rule: Rule,
    memory: Memory,
    /// Since when pods are chosen to go.
    choosing: Option<u64>,
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
        let idle = world.choose(world.replicas.saturating_sub(desired));
        if desired >= world.replicas {
            self.choosing = None;
            world.scale(desired);
            return;
        }
        let since = *self.choosing.get_or_insert(world.now);
        if idle || world.now - since >= world.timeout().clamp(*PATIENCE.start(), *PATIENCE.end()) {
            self.choosing = None;
            world.scale(desired);
        }
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
