//! A pattern with a scaler, and what is measured of it.

use serde::Serialize;

use crate::arrivals::{PATTERNS, Pattern};
use crate::capstan::Capstan;
use crate::hpa::Hpa;
use crate::keda::Keda;
use crate::world::{START, World};

/// The most pods, for all.
pub const MAX: u32 = 20;
/// Seconds between two points of a plot.
pub const POINT: u64 = 10;
/// Nothing takes longer; a simulation that does is wrong.
const ENOUGH: u64 = 24 * 3600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scaler {
    Capstan,
    /// With a scaler that sees what waits, and not what is being worked on.
    KedaWaiting,
    /// With a scaler that sees both.
    KedaAll,
    /// Sees what waits, and keeps one pod.
    Hpa,
}

impl Scaler {
    pub const ALL: [Self; 4] = [Self::Capstan, Self::KedaWaiting, Self::KedaAll, Self::Hpa];

    pub fn name(self) -> &'static str {
        match self {
            Self::Capstan => "Capstan",
            Self::KedaWaiting => "KEDA, waiting",
            Self::KedaAll => "KEDA, waiting and in flight",
            Self::Hpa => "HPA, waiting",
        }
    }
}

/// How long messages waited for the call that handled them, in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Waited {
    pub p50: u64,
    pub p99: u64,
    pub most: u64,
}

#[derive(Debug, Serialize)]
pub struct Result {
    pub scaler: Scaler,
    pub messages: usize,
    pub pod_seconds: u64,
    pub waited: Waited,
    /// From the first message until a pod was asked for; `None` where there always is one.
    pub first_pod: Option<u64>,
    pub stopped_busy: u32,
    pub cut_off: u32,
    /// Messages that were delivered more than once, all of them because of scaling.
    pub twice: usize,
    pub changes: u32,
    /// Replicas and waiting messages, each [`POINT`] seconds.
    #[serde(skip)]
    pub points: Vec<(u32, u64)>,
}

#[derive(Debug, Serialize)]
pub struct Results {
    #[serde(flatten)]
    pub pattern: Pattern,
    pub scalers: Vec<Result>,
}

/// All patterns with all scalers.
pub fn all() -> Vec<Results> {
    let of = |pattern: &Pattern| {
        let scalers = Scaler::ALL.into_iter().map(|scaler| one(pattern, scaler)).collect();
        Results { pattern: *pattern, scalers }
    };
    PATTERNS.iter().map(of).collect()
}

fn one(pattern: &Pattern, scaler: Scaler) -> Result {
    let arrivals = pattern.arrivals();
    let always = u32::from(scaler == Scaler::Hpa);
    let mut world = World::new(pattern.service, always);
    let mut tick = ticker(scaler, pattern.target);
    let (mut come, mut points) = (arrivals.iter().peekable(), Vec::new());
    while world.now < pattern.lasts || come.peek().is_some() || world.waiting() + world.in_flight() > 0 {
        assert!(world.now < ENOUGH, "{} with {scaler:?} does not end", pattern.name);
        let arrived = std::iter::from_fn(|| come.next_if(|at| **at <= world.now)).count();
        world.step(arrived);
        tick(&mut world);
        if world.now.is_multiple_of(POINT) && world.now < pattern.lasts {
            points.push((world.replicas, world.waiting()));
        }
        world.now += 1;
    }
    let first = arrivals.first().copied().unwrap_or_default().max(START);
    Result { points, ..measured(scaler, &world, (always == 0).then_some(first)) }
}

fn ticker(scaler: Scaler, target: u32) -> Box<dyn FnMut(&mut World)> {
    match scaler {
        Scaler::Capstan => {
            let mut capstan = Capstan::new(MAX, target);
            Box::new(move |world| capstan.tick(world))
        }
        Scaler::KedaWaiting | Scaler::KedaAll => {
            let mut keda = Keda::new(MAX, target, scaler == Scaler::KedaAll);
            Box::new(move |world| keda.tick(world))
        }
        Scaler::Hpa => {
            let mut hpa = Hpa::new(1, MAX, target);
            Box::new(move |world| {
                let waiting = world.waiting();
                hpa.tick(world, waiting);
            })
        }
    }
}

fn measured(scaler: Scaler, world: &World, first: Option<u64>) -> Result {
    let mut waited: Vec<_> = world.messages.iter().map(|message| message.started - message.arrived).collect();
    waited.sort_unstable();
    let at = |percent: usize| waited.get(waited.len().saturating_sub(1) * percent / 100).copied();
    let at = |percent| at(percent).unwrap_or_default();
    let counts = world.counts;
    Result {
        scaler,
        messages: world.messages.iter().filter(|message| message.handled).count(),
        pod_seconds: counts.pod_seconds,
        waited: Waited { p50: at(50), p99: at(99), most: at(100) },
        first_pod: first.and_then(|first| counts.first_pod.map(|pod| pod - first)),
        stopped_busy: counts.stopped_busy,
        cut_off: counts.cut_off,
        twice: world.messages.iter().filter(|message| message.deliveries > 1).count(),
        changes: counts.changes,
        points: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_handled_whoever_scales() {
        for Results { pattern, scalers } in all() {
            for result in scalers {
                assert_eq!(result.messages, pattern.arrivals().len(), "{}: {result:?}", pattern.name);
                // A killed call is the only reason to deliver again, and may come more than once.
                assert!(result.twice <= result.cut_off as usize);
                assert!(result.cut_off <= result.stopped_busy);
            }
        }
    }

    /// What docs/scaling.md says in words, which must not hang on one seed.
    #[test]
    fn what_is_said_holds_for_other_seeds() {
        for seed in 10..14 {
            let run = |index: usize| {
                let mut pattern = PATTERNS[index];
                pattern.seed = seed;
                Scaler::ALL.map(|scaler| one(&pattern, scaler))
            };
            let sparse = run(3).map(|result| result.waited.p50);
            assert!(sparse[0] == 5 && sparse[1] > 10 && sparse[3] == 0, "{seed}: {sparse:?}");
            for index in [0, 2, 4] {
                let results = run(index);
                let busy = results.each_ref().map(|result| result.stopped_busy);
                assert!(busy[0] == 0 && busy[1..].iter().all(|busy| *busy > 0), "{seed}: {busy:?}");
                let cost = results.each_ref().map(|result| result.pod_seconds * 100 / results[0].pod_seconds);
                assert!(cost.iter().all(|cost| (95..=115).contains(cost)), "{seed}: {cost:?}");
                let late = results.each_ref().map(|result| result.waited.p99);
                assert!(late[1..].iter().all(|peer| *peer >= late[0]), "{seed}: {late:?}");
            }
            let long = run(5).map(|result| result.cut_off);
            assert!(
                long[0] == 0 && long[2] > 0 && long[1] > long[2] && long[3] > long[2],
                "{seed}: {long:?}"
            );
            let few = run(6).map(|result| result.cut_off);
            assert!(few[1..].iter().all(|peer| *peer > 5 * few[0].max(1)), "{seed}: {few:?}");
        }
    }
}
