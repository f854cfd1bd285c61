//! The decision of one Consumer, and what has to be remembered for the next one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::rule::{Demand, Rule};

/// While a message is too old, another pod is added so often, beside the first one.
pub const STEP_EVERY: Duration = Duration::from_secs(60);

/// What is remembered of a Consumer between decisions. Bounded by [`Rule::max`].
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// What was wanted, and until when: falling numbers, so that the first is the most of the last while.
    wanted: VecDeque<(Duration, u32)>,
    /// Since when there is nothing to do.
    idle_since: Option<Duration>,
    /// Since when a message is too old.
    late_since: Option<Duration>,
}

/// How many pods there should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub demand: Demand,
    /// By the formula alone.
    pub pods: u32,
    /// The same within `minReplicas` and `maxReplicas`.
    pub wanted: u32,
    /// What to bring about now.
    pub desired: u32,
    /// Which bound the formula met.
    pub limit: Option<Limit>,
    /// Pods that were added because a message is too old.
    pub steps: u32,
    /// When time alone may change it, if ever.
    pub again: Option<Duration>,
}

/// A bound of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Min,
    Max,
}

impl Memory {
    /// Decides, with `current` pods at time `now`.
    ///
    /// Growing is immediate. Shrinking waits until fewer were wanted for as long as `scale_down_stabilization`; what was
    /// wanted before the first decision is not known, so `current` stands for it. Zero comes when there was nothing to do for
    /// `idle_period`, and only then.
    pub fn decide(&mut self, rule: &Rule, demand: Demand, current: u32, now: Duration) -> Decision {
        let is_idle = self.idle(rule, &demand, current, now);
        let steps = self.steps(rule, &demand, now);
        let pods = rule.pods(&demand).saturating_add(steps);
        let least = if is_idle && rule.min == 0 { 0 } else { rule.min.max(1) };
        let most = rule.max.max(least);
        let wanted = pods.clamp(least, most);
        let kept = self.most_wanted(rule, wanted, current, now);
        let desired = match wanted {
            0 => 0,
            _ if wanted >= current => wanted,
            _ => kept.min(current).clamp(wanted, most),
        };
        let limit = match pods {
            _ if pods > most => Some(Limit::Max),
            // The last pod, which stays for `idle_period`, is no bound.
            _ if pods < rule.min => Some(Limit::Min),
            _ => None,
        };
        let again = self.again(rule, &demand, (current, desired, wanted), now);
        Decision { demand, pods, wanted, desired, limit, steps, again }
    }

    /// Whether there was nothing to do for long enough.
    fn idle(&mut self, rule: &Rule, demand: &Demand, current: u32, now: Duration) -> bool {
        if demand.total() > 0 {
            self.idle_since = None;
            return false;
        }
        let quiet_since = demand.quiet_for.map(|quiet| now.saturating_sub(quiet));
        let since = self.idle_since.unwrap_or(now).max(quiet_since.unwrap_or_default());
        self.idle_since = Some(since);
        // Who sleeps already, sleeps on.
        current == 0 || now.saturating_sub(since) >= rule.idle_period
    }

    fn steps(&mut self, rule: &Rule, demand: &Demand, now: Duration) -> u32 {
        if !rule.is_late(demand) {
            self.late_since = None;
            return 0;
        }
        let since = *self.late_since.get_or_insert(now);
        let more = now.saturating_sub(since).as_secs() / STEP_EVERY.as_secs();
        u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// The most that was wanted within `scale_down_stabilization`.
    fn most_wanted(&mut self, rule: &Rule, wanted: u32, current: u32, now: Duration) -> u32 {
        if self.wanted.is_empty() {
            self.wanted.push_back((now, current));
        }
        // Who decides at events alone may not have asked since: what was wanted last was wanted until now.
        if let Some((until, _)) = self.wanted.back_mut().filter(|(_, last)| *last > wanted) {
            *until = now;
        }
        while self.wanted.back().is_some_and(|(_, less)| *less <= wanted) {
            self.wanted.pop_back();
        }
        self.wanted.push_back((now, wanted));
        let is_over = |at: Duration| now.saturating_sub(at) >= rule.scale_down_stabilization;
        while self.wanted.len() > 1 && self.wanted.front().is_some_and(|(at, _)| is_over(*at)) {
            self.wanted.pop_front();
        }
        self.wanted.front().map_or(wanted, |(_, most)| *most)
    }

    fn again(
        &self,
        rule: &Rule,
        demand: &Demand,
        (current, desired, wanted): (u32, u32, u32),
        now: Duration,
    ) -> Option<Duration> {
        let until = |since: Duration, lasts: Duration| since.saturating_add(lasts).saturating_sub(now);
        let kept = self.wanted.front().filter(|_| desired > wanted);
        let kept = kept.map(|(at, _)| until(*at, rule.scale_down_stabilization));
        let is_to_end = rule.min == 0 && current > 0 && desired > 0;
        let idle = self.idle_since.filter(|_| is_to_end).map(|since| until(since, rule.idle_period));
        let step = self.late_since.map(|since| {
            let steps = now.saturating_sub(since).as_secs() / STEP_EVERY.as_secs() + 1;
            until(since, STEP_EVERY.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX)))
        });
        let late = rule.max_oldest_age.zip(demand.oldest_ready).filter(|_| self.late_since.is_none());
        let late = late.map(|(most, age)| most.saturating_sub(age) + Duration::from_millis(1));
        [kept, idle, step, late].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_by_the_most_pods() {
        let second = Duration::from_secs(1);
        let rule = Rule {
            min: 0,
            max: 10,
            backlog_per_replica: 1,
            max_oldest_age: None,
            scale_down_stabilization: second * 1_000_000,
            idle_period: second * 1_000_000,
        };
        let mut memory = Memory::default();
        for at in 0..10_000_u32 {
            let demand = Demand { ready: 10_000 - u64::from(at * 7919 % 10_000), ..Demand::default() };
            memory.decide(&rule, demand, 10, second * at);
        }
        for at in 0..20_u32 {
            let demand = Demand { ready: 20 - u64::from(at), ..Demand::default() };
            memory.decide(&rule, demand, 10, second * (10_000 + at));
        }
        assert!(memory.wanted.len() <= 11, "{memory:?}");
        assert!(memory.wanted.iter().map(|(_, pods)| pods).is_sorted_by(|more, less| more > less));
    }
}
