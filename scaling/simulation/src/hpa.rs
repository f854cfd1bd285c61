//! The HorizontalPodAutoscaler on an external metric of the type `AverageValue`, by its documentation.
//!
//! <https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/>

use std::collections::VecDeque;

use crate::world::World;

/// It looks so often.
const SYNC: u64 = 15;
/// And so long after each poll of KEDA's operator: nobody tunes one to the other, so that half of the interval is fair.
const PHASE: u64 = 7;
/// Percent of the target below which a difference is none.
const TOLERANCE: u64 = 10;
/// It shrinks to the most that it recommended within so long.
const STABILIZATION: u64 = 300;
/// Its policies count changes of so long.
const PERIOD: u64 = 15;
/// Within a period it adds so many pods, or as many as there are, whichever is more.
const PODS: u32 = 4;

pub struct Hpa {
    min: u32,
    max: u32,
    target: u32,
    recommended: VecDeque<(u64, u32)>,
    added: VecDeque<(u64, u32)>,
}

impl Hpa {
    pub fn new(min: u32, max: u32, target: u32) -> Self {
        Self { min, max, target, recommended: VecDeque::new(), added: VecDeque::new() }
    }

    pub fn tick(&mut self, world: &mut World, metric: u64) {
        // It does nothing for a workload that was scaled to zero.
        if world.now % SYNC == PHASE && world.replicas > 0 {
            let desired = self.desired(metric, world.replicas, world.now);
            world.scale(desired);
        }
    }

    /// What to bring about with `current` pods while the metric, of all pods together, is so much.
    fn desired(&mut self, metric: u64, current: u32, now: u64) -> u32 {
        let wanted = self.by_metric(metric, current);
        let stable = self.stabilized(wanted, current, now);
        let desired = stable.min(self.most(current, now)).clamp(self.min, self.max);
        if desired > current {
            self.added.push_back((now, desired - current));
        }
        desired
    }

    fn by_metric(&self, metric: u64, current: u32) -> u32 {
        let (target, full) = (u64::from(self.target), u64::from(self.target * current));
        if metric.abs_diff(full) * 100 <= full * TOLERANCE {
            return current;
        }
        u32::try_from(metric.div_ceil(target)).unwrap_or(u32::MAX)
    }

    fn stabilized(&mut self, wanted: u32, current: u32, now: u64) -> u32 {
        if self.recommended.is_empty() {
            self.recommended.push_back((now, current));
        }
        self.recommended.push_back((now, wanted));
        while self.recommended.front().is_some_and(|(at, _)| now - at > STABILIZATION) {
            self.recommended.pop_front();
        }
        let most = self.recommended.iter().map(|(_, pods)| *pods).max().unwrap_or(wanted);
        // Growing is not held back, and shrinking goes no lower than the most of the window.
        if wanted >= current { wanted } else { most.min(current) }
    }

    /// The most that the policies for growing allow.
    fn most(&mut self, current: u32, now: u64) -> u32 {
        while self.added.front().is_some_and(|(at, _)| now - at >= PERIOD) {
            self.added.pop_front();
        }
        let before = current - self.added.iter().map(|(_, pods)| *pods).sum::<u32>().min(current);
        (before + PODS).max(before * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_of_the_documentation() {
        // 200m with a target of 100m doubles, 50m halves, and a tenth is no difference.
        let rows = [(200, 1, 2), (400, 2, 4), (50, 1, 1), (100, 2, 1), (110, 1, 1), (111, 1, 2), (90, 1, 1)];
        let rows = rows.into_iter().chain([(360, 4, 4), (359, 4, 4), (300, 4, 3), (0, 4, 0)]);
        for (metric, current, wanted) in rows {
            assert_eq!(Hpa::new(1, 100, 100).by_metric(metric, current), wanted, "{metric} with {current}");
        }
    }

    #[test]
    fn grows_by_four_or_to_twice_as_many_in_a_period() {
        let mut hpa = Hpa::new(1, 100, 10);
        let (mut current, mut grown) = (1, Vec::new());
        for sync in 0..6 {
            current = hpa.desired(10_000, current, sync * SYNC);
            grown.push(current);
        }
        assert_eq!(grown, [5, 10, 20, 40, 80, 100]);
        assert_eq!(Hpa { added: [(0, 4)].into(), ..Hpa::new(1, 100, 10) }.most(5, 14), 5, "once in a period");
    }

    #[test]
    fn shrinks_to_the_most_of_five_minutes() {
        let mut hpa = Hpa::new(1, 100, 10);
        assert_eq!(hpa.desired(100, 10, 0), 10);
        assert_eq!(hpa.desired(50, 10, 15), 10);
        assert_eq!(hpa.desired(0, 10, 300), 10);
        assert_eq!(hpa.desired(0, 10, 315), 5, "the ten are out of the window, the five are in it");
        assert_eq!(hpa.desired(0, 5, 330), 1, "never below its minimum");
    }
}
