//! The model of a queue and its pods, in steps of a second. Nothing here decides.

use std::collections::VecDeque;

/// A pod begins to work so long after it was asked for.
pub const START: u64 = 5;
/// A pod that was told to stop ends its call within so long, or is killed: Kubernetes's default.
pub const GRACE: u64 = 30;

#[derive(Debug, Clone)]
pub struct Message {
    pub arrived: u64,
    /// When the call began that handled it, or the last one so far.
    pub started: u64,
    pub deliveries: u32,
    pub handled: bool,
}

/// A pod, which works on one message at a time.
#[derive(Debug, Clone)]
pub struct Pod {
    born: u64,
    /// Since when it has no work.
    idle: u64,
    /// The message, and when its call ends.
    work: Option<(usize, u64)>,
    /// When it is killed.
    killed: Option<u64>,
    /// It gets nothing new, and is the first to go: what Capstan's operator asks of the broker and of the ReplicaSet.
    chosen: bool,
}

impl Pod {
    fn is_ready(&self, now: u64) -> bool {
        now >= self.born + START
    }
}

/// What scaling did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub pod_seconds: u64,
    /// Times that the number of replicas was changed.
    pub changes: u32,
    /// Pods told to stop while they worked.
    pub stopped_busy: u32,
    /// Calls that the end of a pod cut off.
    pub cut_off: u32,
    /// When the first pod was asked for.
    pub first_pod: Option<u64>,
}

#[derive(Debug, Default)]
pub struct World {
    pub now: u64,
    pub replicas: u32,
    pub messages: Vec<Message>,
    pub counts: Counts,
    service: u64,
    waiting: VecDeque<usize>,
    /// Cut off: when they come again.
    hidden: Vec<(u64, usize)>,
    pods: Vec<Pod>,
}

impl World {
    /// How long a call may take, as its Consumer says, and after which its message comes again.
    pub fn timeout(&self) -> u64 {
        (2 * self.service).max(60)
    }

    /// With so many pods that are there and ready.
    pub fn new(service: u64, replicas: u32) -> Self {
        let pod = Pod { born: 0, idle: 0, work: None, killed: None, chosen: false };
        let pods = vec![pod; replicas as usize];
        Self { now: START, service, replicas, pods, ..Self::default() }
    }

    pub fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Messages that are delivered and not handled, those of killed pods included.
    pub fn in_flight(&self) -> u64 {
        (self.pods.iter().filter(|pod| pod.work.is_some()).count() + self.hidden.len()) as u64
    }

    /// How long the oldest message that waits has done so.
    pub fn oldest(&self) -> Option<u64> {
        self.waiting.front().map(|message| self.now - self.messages[*message].arrived)
    }

    /// A second: `arrived` messages come, calls end, pods go, calls begin.
    pub fn step(&mut self, arrived: usize) {
        for _ in 0..arrived {
            self.waiting.push_back(self.messages.len());
            self.messages.push(Message { arrived: self.now, started: 0, deliveries: 0, handled: false });
        }
        self.show_hidden();
        self.end_calls();
        self.remove_pods();
        self.begin_calls();
        self.counts.pod_seconds += self.pods.len() as u64;
    }

    fn show_hidden(&mut self) {
        let now = self.now;
        for (_, message) in self.hidden.extract_if(.., |(until, _)| *until <= now) {
            self.waiting.push_front(message);
        }
    }

    fn end_calls(&mut self) {
        for pod in &mut self.pods {
            if let Some((message, _)) = pod.work.take_if(|(_, until)| *until <= self.now) {
                self.messages[message].handled = true;
                pod.idle = self.now;
            }
        }
    }

    fn remove_pods(&mut self) {
        let (now, timeout) = (self.now, self.timeout());
        let is_over = |pod: &mut Pod| pod.killed.is_some_and(|at| at <= now || pod.work.is_none());
        for pod in self.pods.extract_if(.., is_over) {
            if let Some((message, _)) = pod.work {
                // The visibility timeout is twice as long as a call, and a minute at least.
                self.hidden.push((self.messages[message].started + timeout, message));
                self.counts.cut_off += 1;
            }
        }
    }

    /// Who has asked for the longest time gets the oldest message.
    fn begin_calls(&mut self) {
        let (now, service) = (self.now, self.service);
        let can =
            |pod: &&mut Pod| pod.is_ready(now) && pod.work.is_none() && !pod.chosen && pod.killed.is_none();
        let mut asking: Vec<_> = self.pods.iter_mut().filter(can).collect();
        asking.sort_by_key(|pod| pod.idle);
        for pod in asking {
            let Some(message) = self.waiting.pop_front() else { return };
            pod.work = Some((message, now + service));
            self.messages[message].started = now;
            self.messages[message].deliveries += 1;
        }
    }

    /// Pods by who goes first: a ReplicaSet takes those that are not ready, then by the deletion cost, then the youngest.
    fn first_to_go(&self) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.pods.len()).filter(|pod| self.pods[*pod].killed.is_none()).collect();
        order.sort_by_key(|index| {
            let pod = &self.pods[*index];
            (pod.is_ready(self.now), !pod.chosen, std::cmp::Reverse((pod.born, *index)))
        });
        order
    }

    /// Changes the workload's `replicas`.
    pub fn scale(&mut self, replicas: u32) {
        if replicas == self.replicas {
            return;
        }
        if replicas > self.replicas {
            self.counts.first_pod.get_or_insert(self.now);
            let pod = Pod { born: self.now, idle: self.now, work: None, killed: None, chosen: false };
            self.pods.extend(std::iter::repeat_n(pod, (replicas - self.replicas) as usize));
        } else {
            let fewer = (self.replicas - replicas) as usize;
            for index in self.first_to_go().into_iter().take(fewer) {
                self.counts.stopped_busy += u32::from(self.pods[index].work.is_some());
                self.pods[index].killed = Some(self.now + GRACE);
            }
        }
        self.replicas = replicas;
        self.counts.changes += 1;
    }

    /// Chooses so many pods to go, those that have no work first. Who was chosen stays so, unless it works and those that are idle
    /// come first.
    pub fn choose(&mut self, pods: u32, idle_first: bool) -> Choice {
        let mut order = self.first_to_go();
        order.sort_by_key(|index| {
            let (chosen, works) = (self.pods[*index].chosen, self.pods[*index].work.is_some());
            (idle_first && works, !chosen, works)
        });
        let mut choice = Choice { is_new: false, is_idle: true };
        for (place, index) in order.into_iter().enumerate() {
            let pod = &mut self.pods[index];
            let chosen = place < pods as usize;
            choice.is_new |= chosen != pod.chosen;
            choice.is_idle &= !chosen || pod.work.is_none();
            pod.chosen = chosen;
        }
        choice
    }
}

/// The pods that were chosen to go.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// Others than before.
    pub is_new: bool,
    /// None of them works.
    pub is_idle: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(world: &mut World, seconds: u64) {
        for _ in 0..seconds {
            world.step(0);
            world.now += 1;
        }
    }

    #[test]
    fn a_pod_starts_and_works_on_one_message_at_a_time() {
        let mut world = World::new(2, 0);
        world.step(3);
        world.scale(1);
        assert_eq!((world.waiting(), world.in_flight(), world.counts.first_pod), (3, 0, Some(START)));
        steps(&mut world, START);
        assert_eq!((world.waiting(), world.oldest()), (3, Some(START)));
        steps(&mut world, 1);
        assert_eq!((world.waiting(), world.in_flight()), (2, 1));
        steps(&mut world, 6);
        assert!(world.messages.iter().all(|message| message.handled && message.deliveries == 1));
        let waited: Vec<_> = world.messages.iter().map(|message| message.started - message.arrived).collect();
        assert_eq!(waited, [5, 7, 9]);
    }

    #[test]
    fn who_stops_ends_its_call_within_the_grace_period() {
        let mut world = World::new(GRACE, 1);
        world.step(2);
        world.scale(0);
        steps(&mut world, GRACE + 1);
        assert_eq!((world.counts.stopped_busy, world.counts.cut_off, world.pods.len()), (1, 0, 0));
        assert_eq!(world.waiting(), 1, "it takes nothing new");
    }

    #[test]
    fn a_call_that_is_cut_off_comes_again_and_nothing_is_lost() {
        let mut world = World::new(100, 1);
        world.step(1);
        world.scale(0);
        steps(&mut world, GRACE + 1);
        assert_eq!((world.counts.cut_off, world.waiting(), world.in_flight()), (1, 0, 1));
        world.scale(1);
        steps(&mut world, 200 - GRACE - 1);
        assert_eq!((world.waiting(), world.in_flight()), (0, 1), "hidden for the visibility timeout");
        steps(&mut world, 102);
        assert!(world.messages[0].handled && world.messages[0].deliveries == 2);
    }

    /// Two pods of which the older one is idle, and the younger works.
    fn older_is_idle() -> World {
        let mut world = World::new(20, 2);
        world.step(1);
        world.now += 10;
        world.step(1);
        world.now += 10;
        world.step(0);
        assert!(world.pods[0].work.is_none() && world.pods[1].work.is_some());
        world
    }

    #[test]
    fn the_youngest_goes_first_unless_another_is_chosen() {
        let mut world = older_is_idle();
        world.scale(1);
        assert_eq!((world.counts.stopped_busy, world.pods[0].killed), (1, None));
        let mut world = older_is_idle();
        assert!(world.choose(1, false).is_idle);
        world.scale(1);
        assert_eq!((world.counts.stopped_busy, world.pods[1].killed), (0, None));
    }

    #[test]
    fn who_asked_for_longest_is_served_first() {
        let mut world = older_is_idle();
        world.now += 10;
        world.step(0);
        world.step(1);
        assert!(world.pods[0].work.is_some() && world.pods[1].work.is_none());
    }

    #[test]
    fn idle_pods_are_chosen_and_get_nothing_new() {
        let mut world = World::new(20, 3);
        world.step(2);
        assert!(world.choose(1, false).is_idle, "the third has no work");
        world.step(1);
        assert_eq!((world.waiting(), world.in_flight()), (1, 2));
        assert!(!world.choose(2, false).is_idle, "one of two works");
        assert!(world.choose(0, false).is_idle);
        world.step(0);
        assert_eq!(world.in_flight(), 3, "and back");
        assert!(!world.choose(1, false).is_idle);
        world.scale(2);
        assert_eq!(world.counts.stopped_busy, 1);
    }

    #[test]
    fn one_that_works_on_makes_way_for_one_that_is_idle() {
        let mut world = World::new(20, 2);
        world.step(2);
        assert!(!world.choose(1, false).is_idle);
        // The other one ends its call.
        world.pods[0].work = None;
        let choice = world.choose(1, false);
        assert!(!choice.is_new && !choice.is_idle, "who was chosen stays so");
        let choice = world.choose(1, true);
        assert!(choice.is_new && choice.is_idle);
    }
}
