//! The calls that a Consumer's status shows: they change all the time, and every write is seen by everyone who watches.

use std::time::Duration;

use capstan_crds::consumer::Calls;
use capstan_crds::{Consumer, Key};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::context::Context;
use crate::counts::{REFRESH, is_jump};
use crate::demand::{Heard, Numbers};

/// What appears, ends, doubles or halves is written so long after the calls before.
const JUMPS: Duration = Duration::from_secs(5);

/// What a status shows of calls: what it showed before, unless that is old, or too far from what is.
pub(super) fn calls(old: Option<&Calls>, numbers: Option<&Numbers>, now: &Time) -> Option<Calls> {
    let Some(numbers) = numbers else { return old.cloned() };
    let new = observed(numbers, now);
    match old {
        Some(old) if pause(old, &new, now).is_none_or(|pause| pause > Duration::ZERO) => Some(old.clone()),
        _ => Some(new),
    }
}

fn observed(numbers: &Numbers, now: &Time) -> Calls {
    Calls {
        in_flight: numbers.batches,
        error_ratio: numbers.error_ratio.map(|ratio| format!("{ratio:.2}")),
        observed_at: now.clone(),
    }
}

/// When the new ones are to be shown instead of the old: never, where they are the same.
fn pause(old: &Calls, new: &Calls, now: &Time) -> Option<Duration> {
    let is_alike = old.in_flight == new.in_flight && old.error_ratio == new.error_ratio;
    let is_far = is_jump(old.in_flight, new.in_flight) || are_failing(old) != are_failing(new);
    let age = Duration::try_from(now.0.duration_since(old.observed_at.0)).unwrap_or_default();
    let lasts = if is_far { JUMPS } else { REFRESH };
    (!is_alike).then(|| lasts.saturating_sub(age))
}

/// Whether more than half of the last deliveries failed, where any is known.
fn are_failing(calls: &Calls) -> Option<bool> {
    calls.error_ratio.as_ref().map(|ratio| ratio.parse::<f64>().is_ok_and(|ratio| ratio > 0.5))
}

/// When the calls that a status shows are to be written anew, if that is soon. Small changes are seen in time.
pub(super) fn due(shown: Option<&Calls>, numbers: Option<&Numbers>, now: &Time) -> Option<Duration> {
    pause(shown?, &observed(numbers?, now), now).filter(|pause| *pause <= JUMPS)
}

/// When the calls of a Consumer are worth a write of their own, if they are.
pub(crate) fn when_calls_are_news(
    context: &Context,
    consumer: &Consumer,
    broker: &Key,
    queue: &Key,
) -> Option<Duration> {
    let Heard::Seen(numbers) = context.demands.queue(broker, queue) else { return None };
    // The first ones come with the next status.
    let shown = consumer.status.as_ref()?.calls.as_ref();
    due(shown, Some(&numbers), &crate::status::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).unwrap())
    }

    fn numbers(batches: u64, error_ratio: Option<f64>) -> Numbers {
        Numbers { batches, error_ratio, ..Numbers::default() }
    }

    #[test]
    fn small_changes_are_shown_every_half_minute_at_most() {
        let first = calls(None, Some(&numbers(6, Some(0.01))), &at(0)).unwrap();
        assert_eq!((first.in_flight, first.error_ratio.as_deref()), (6, Some("0.01")));
        assert_eq!(calls(Some(&first), Some(&numbers(9, Some(0.02))), &at(29)).unwrap(), first);
        let second = calls(Some(&first), Some(&numbers(9, Some(0.0249))), &at(30)).unwrap();
        assert_eq!((second.in_flight, second.error_ratio.as_deref()), (9, Some("0.02")));
        assert_eq!(calls(Some(&second), Some(&numbers(9, Some(0.02))), &at(99)).unwrap(), second, "the same");
        assert_eq!(calls(Some(&second), None, &at(99)), Some(second), "nothing is known");
    }

    #[test]
    fn what_begins_or_ends_is_shown_within_seconds() {
        let none = calls(None, Some(&numbers(0, None)), &at(0)).unwrap();
        assert_eq!(calls(Some(&none), Some(&numbers(1, None)), &at(4)).unwrap(), none);
        let some = calls(Some(&none), Some(&numbers(1, None)), &at(5)).unwrap();
        assert_eq!(some.in_flight, 1);
        let failing = calls(Some(&some), Some(&numbers(1, Some(0.9))), &at(10)).unwrap();
        assert_eq!(failing.error_ratio.as_deref(), Some("0.90"));
        assert_eq!(calls(Some(&failing), Some(&numbers(0, Some(0.9))), &at(15)).unwrap().in_flight, 0);
        assert_eq!(pause(&none, &some, &at(2)), Some(Duration::from_secs(3)));
    }
}
