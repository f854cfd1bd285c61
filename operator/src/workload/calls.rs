//! The calls that a Consumer's status shows: they change all the time, and every write is seen by everyone who watches.

use std::time::Duration;

use capstan_crds::consumer::Calls;
use capstan_crds::{Consumer, Key};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::context::Context;
use crate::counts::{REFRESH, is_jump};
use crate::demand::{Heard, Numbers};

/// What a status shows of calls: what it showed before, unless that is old.
pub(super) fn calls(old: Option<&Calls>, numbers: Option<&Numbers>, now: &Time) -> Option<Calls> {
    let Some(numbers) = numbers else { return old.cloned() };
    let new = Calls {
        in_flight: numbers.batches,
        error_ratio: numbers.error_ratio.map(|ratio| format!("{ratio:.2}")),
        observed_at: now.clone(),
    };
    match old {
        Some(old) if !is_old(old, now) || is_alike(old, &new) => Some(old.clone()),
        _ => Some(new),
    }
}

fn is_old(old: &Calls, now: &Time) -> bool {
    Duration::try_from(now.0.duration_since(old.observed_at.0)).is_ok_and(|age| age >= REFRESH)
}

fn is_alike(old: &Calls, new: &Calls) -> bool {
    old.in_flight == new.in_flight && old.error_ratio == new.error_ratio
}

/// Whether the calls of a Consumer are worth a write of their own.
pub(crate) fn are_calls_news(context: &Context, consumer: &Consumer, broker: &Key, queue: &Key) -> bool {
    let Heard::Seen(numbers) = context.demands.queue(broker, queue) else { return false };
    let old = consumer.status.as_ref().and_then(|status| status.calls.as_ref());
    // The first ones come with the next status.
    let Some(old) = old else { return false };
    is_jump(old.in_flight, numbers.batches)
        && is_old(old, &crate::status::now())
        && context.count_writes.try_take()
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
    fn what_is_shown_changes_every_half_minute_at_most() {
        let first = calls(None, Some(&numbers(3, None)), &at(0)).unwrap();
        assert_eq!((first.in_flight, first.error_ratio.as_deref()), (3, None));
        assert_eq!(calls(Some(&first), Some(&numbers(9, None)), &at(29)).unwrap(), first);
        let second = calls(Some(&first), Some(&numbers(9, Some(0.0249))), &at(30)).unwrap();
        assert_eq!((second.in_flight, second.error_ratio.as_deref()), (9, Some("0.02")));
        assert_eq!(calls(Some(&second), Some(&numbers(9, Some(0.02))), &at(99)).unwrap(), second, "the same");
        assert_eq!(calls(Some(&second), None, &at(99)), Some(second), "nothing is known");
    }
}
