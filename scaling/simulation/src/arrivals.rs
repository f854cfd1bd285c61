//! When messages arrive: seeded, so that each run is the same.

use serde::Serialize;

/// A load, and the consumers that are to carry it. Times in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Pattern {
    pub name: &'static str,
    /// The name of its plot.
    pub file: &'static str,
    pub about: &'static str,
    pub seed: u64,
    /// How long is simulated at least; later until all is handled.
    pub lasts: u64,
    /// How long a call takes.
    pub service: u64,
    /// Messages for each pod, of all scalers.
    pub target: u32,
    /// Messages each second, at a second.
    #[serde(skip)]
    shape: Shape,
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    /// So many each 1,000 seconds, at random, until a second.
    Even { of_thousand: u64, until: u64 },
    /// So many at once.
    Burst { messages: usize, at: u64 },
    /// From nothing to so many of 1,000 seconds and back, once.
    Wave { most: u64, until: u64 },
    /// One message each so often, up to 20 s early or late.
    Single { every: u64, until: u64 },
    /// Between two rates, each for so long.
    Steps { low: u64, high: u64, each: u64, until: u64 },
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// All patterns, in the order of the document.
pub const PATTERNS: [Pattern; 7] = [
    Pattern {
        name: "Steady",
        file: "steady",
        about: "two messages each second for 50 minutes",
        seed: 1,
        lasts: HOUR + 10 * MINUTE,
        service: 2,
        target: 10,
        shape: Shape::Even { of_thousand: 2000, until: 50 * MINUTE },
    },
    Pattern {
        name: "Burst from zero",
        file: "burst",
        about: "2,000 messages at once",
        seed: 2,
        lasts: 30 * MINUTE,
        service: 2,
        target: 10,
        shape: Shape::Burst { messages: 2000, at: 75 },
    },
    Pattern {
        name: "A day in two hours",
        file: "day",
        about: "a wave from nothing to six messages each second and back in 100 minutes",
        seed: 3,
        lasts: 2 * HOUR,
        service: 2,
        target: 10,
        shape: Shape::Wave { most: 6000, until: 100 * MINUTE },
    },
    Pattern {
        name: "Sparse",
        file: "sparse",
        about: "one message every seven minutes, for three hours",
        seed: 4,
        lasts: 3 * HOUR + 10 * MINUTE,
        service: 2,
        target: 10,
        shape: Shape::Single { every: 7 * MINUTE, until: 3 * HOUR },
    },
    Pattern {
        name: "Sawtooth",
        file: "sawtooth",
        about: "one message and four messages each second in turn, for four minutes each",
        seed: 5,
        lasts: HOUR + 10 * MINUTE,
        service: 2,
        target: 10,
        shape: Shape::Steps { low: 1000, high: 4000, each: 4 * MINUTE, until: 56 * MINUTE },
    },
    Pattern {
        name: "Long calls",
        file: "long",
        about: "a call every 30 s and one every 20 s in turn, for 15 minutes each",
        seed: 6,
        lasts: 2 * HOUR,
        service: 5 * MINUTE,
        target: 1,
        shape: Shape::Steps { low: 33, high: 50, each: 15 * MINUTE, until: 90 * MINUTE },
    },
    Pattern {
        name: "Long calls, too few pods",
        file: "few",
        about: "the same, with a setting that wants fewer pods than there are calls",
        seed: 6,
        lasts: 2 * HOUR,
        service: 5 * MINUTE,
        target: 3,
        shape: Shape::Steps { low: 33, high: 50, each: 15 * MINUTE, until: 90 * MINUTE },
    },
];

impl Pattern {
    /// The seconds at which messages arrive, in order.
    pub fn arrivals(&self) -> Vec<u64> {
        let mut random = Random(self.seed);
        match self.shape {
            Shape::Burst { messages, at } => vec![at; messages],
            Shape::Single { every, until } => {
                (1..=until / every).map(|n| n * every - 20 + random.below(41)).collect()
            }
            Shape::Even { of_thousand, until } => at_rate(until, &mut random, |_| of_thousand),
            Shape::Wave { most, until } => at_rate(until, &mut random, |at| wave(at, until, most)),
            Shape::Steps { low, high, each, until } => {
                at_rate(until, &mut random, |at| if (at / each).is_multiple_of(2) { low } else { high })
            }
        }
    }
}

/// A parabola, in whole numbers so that every machine computes the same: nothing at both ends, `most` in the middle.
fn wave(at: u64, until: u64, most: u64) -> u64 {
    4 * most * at / until * (until - at) / until
}

/// Twenty chances each second.
fn at_rate(until: u64, random: &mut Random, rate: impl Fn(u64) -> u64) -> Vec<u64> {
    let chances = (0..until).flat_map(|at| (0..20).map(move |_| at));
    chances.filter(|at| random.below(20_000) < rate(*at)).collect()
}

/// A small generator of numbers (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_the_same_each_time_and_about_as_many_as_said() {
        let about =
            [(5800, 6200), (2000, 2000), (23_000, 25_000), (25, 25), (8000, 8800), (180, 270), (180, 270)];
        for (pattern, (least, most)) in PATTERNS.iter().zip(about) {
            let arrivals = pattern.arrivals();
            assert_eq!(arrivals, pattern.arrivals());
            assert!(arrivals.is_sorted() && arrivals.last().is_some_and(|last| *last < pattern.lasts));
            assert!((least..=most).contains(&arrivals.len()), "{}: {}", pattern.name, arrivals.len());
        }
    }
}
