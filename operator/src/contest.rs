//! When to stop: someone else writes the same fields, and neither side gives in.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use capstan_api::workload::Workload as Reference;
use tokio::time::Instant;

/// So many times within [`WINDOW`] is a contest, unless another number is given.
const TIMES: usize = 3;
const WINDOW: Duration = Duration::from_secs(600);

/// When each workload was contested lately.
#[derive(Debug)]
pub(crate) struct Contests {
    times: usize,
    workloads: Mutex<HashMap<(String, Reference), VecDeque<Instant>>>,
}

impl Default for Contests {
    fn default() -> Self {
        Self::of(TIMES)
    }
}

impl Contests {
    /// So many times are a contest.
    pub(crate) fn of(times: usize) -> Self {
        Self { times, workloads: Mutex::default() }
    }

    /// It happened once more; how long to leave the workload alone, if at all.
    pub(crate) fn add_and_pause(&self, namespace: &str, workload: &Reference) -> Option<Duration> {
        self.add(namespace, workload);
        self.pause(namespace, workload)
    }

    /// Someone took the sidecar out, or owns its fields.
    pub(crate) fn add(&self, namespace: &str, workload: &Reference) {
        let mut contests = self.workloads.lock().unwrap_or_else(PoisonError::into_inner);
        let times = contests.entry((namespace.to_owned(), workload.clone())).or_default();
        times.push_back(Instant::now());
        if times.len() > self.times {
            times.pop_front();
        }
    }

    /// An operator before this one found a contest so long ago.
    pub(crate) fn adopt(&self, namespace: &str, workload: &Reference, ago: Duration) {
        let Some(at) = Instant::now().checked_sub(ago.min(WINDOW)) else { return };
        let mut contests = self.workloads.lock().unwrap_or_else(PoisonError::into_inner);
        let known = contests.entry((namespace.to_owned(), workload.clone())).or_default();
        if known.len() < self.times {
            *known = VecDeque::from(vec![at; self.times]);
        }
    }

    /// How long to leave the workload alone, if at all.
    pub(crate) fn pause(&self, namespace: &str, workload: &Reference) -> Option<Duration> {
        let mut contests = self.workloads.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        contests.retain(|_, times| times.back().is_some_and(|last| now.duration_since(*last) < WINDOW));
        let times = contests.get(&(namespace.to_owned(), workload.clone()))?;
        let first = times.front().filter(|_| times.len() == self.times)?;
        let last = times.back()?;
        (last.duration_since(*first) < WINDOW).then(|| WINDOW - now.duration_since(*last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn three_times_in_ten_minutes_is_a_contest_for_ten_minutes() {
        let contests = Contests::default();
        let (web, other) = ("Deployment/web".parse().unwrap(), "Deployment/other".parse().unwrap());
        for _ in 0..2 {
            contests.add("shop", &web);
            assert_eq!(contests.pause("shop", &web), None);
            tokio::time::advance(Duration::from_secs(200)).await;
        }
        contests.add("shop", &web);
        assert_eq!(contests.pause("shop", &web), Some(WINDOW));
        assert_eq!(contests.pause("shop", &other), None);
        assert_eq!(contests.pause("home", &web), None);
        tokio::time::advance(Duration::from_secs(599)).await;
        assert_eq!(contests.pause("shop", &web), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(contests.pause("shop", &web), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_operator_before_found_lasts_on() {
        let (contests, web) = (Contests::of(2), "Deployment/web".parse().unwrap());
        tokio::time::advance(2 * WINDOW).await;
        contests.adopt("shop", &web, Duration::from_secs(200));
        assert_eq!(contests.pause("shop", &web), Some(Duration::from_secs(400)));
        tokio::time::advance(Duration::from_secs(400)).await;
        assert_eq!(contests.pause("shop", &web), None);
        contests.adopt("shop", &web, 2 * WINDOW);
        assert_eq!(contests.pause("shop", &web), None, "that is over");
    }

    #[tokio::test(start_paused = true)]
    async fn now_and_then_is_no_contest() {
        let contests = Contests::default();
        let web = "Deployment/web".parse().unwrap();
        for _ in 0..10 {
            contests.add("shop", &web);
            assert_eq!(contests.pause("shop", &web), None);
            tokio::time::advance(Duration::from_secs(301)).await;
        }
    }
}
