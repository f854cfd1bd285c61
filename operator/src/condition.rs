//! Conditions of a status: set by type, with transition times that stay when nothing changed.

pub use capstan_crds::condition::Verdict;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A longer message is cut: it is read in a terminal, and written on every change. (The API takes 32,768 bytes.)
const MESSAGE_CHARS_MAX: usize = 1024;

/// The new conditions, in the order they are set, built over the old ones.
#[derive(Debug)]
pub struct Conditions<'a> {
    old: &'a [Condition],
    generation: Option<i64>,
    now: &'a Time,
    new: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// Starts with none.
    #[must_use]
    pub fn new(old: &'a [Condition], generation: Option<i64>, now: &'a Time) -> Self {
        Self { old, generation, now, new: Vec::new() }
    }

    /// Sets one.
    #[must_use]
    pub fn set(mut self, type_: &str, verdict: &Verdict) -> Self {
        let status = if verdict.holds { "True" } else { "False" };
        self.push(type_, status, verdict.reason, &verdict.message);
        self
    }

    /// Sets one of which nothing is known.
    #[must_use]
    pub fn set_unknown(mut self, type_: &str, reason: &str, message: &str) -> Self {
        self.push(type_, "Unknown", reason, message);
        self
    }

    /// Takes over an old one as it is, unless there is none: it is about the generation for which it was found.
    #[must_use]
    pub fn keep(mut self, condition: Option<&Condition>) -> Self {
        self.new.extend(condition.cloned());
        self
    }

    fn push(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let old = self.old.iter().find(|condition| condition.type_ == type_ && condition.status == status);
        let since = old.map_or_else(|| self.now.clone(), |old| old.last_transition_time.clone());
        self.new.push(Condition {
            last_transition_time: since,
            message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
            observed_generation: self.generation,
            reason: reason.to_owned(),
            status: status.to_owned(),
            type_: type_.to_owned(),
        });
    }

    /// All that were set.
    #[must_use]
    pub fn finish(self) -> Vec<Condition> {
        self.new
    }
}

/// A condition of a list.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether a condition of a list is True.
#[must_use]
pub fn holds(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time(jiff::Timestamp::from_second(seconds).unwrap())
    }

    #[test]
    fn a_transition_time_moves_with_the_status_only() {
        let first = Conditions::new(&[], Some(1), &at(1)).set("Ready", &Verdict::no("Waiting", "a")).finish();
        let second =
            Conditions::new(&first, Some(2), &at(2)).set("Ready", &Verdict::no("Other", "b")).finish();
        assert_eq!(second[0].last_transition_time, at(1));
        assert_eq!((second[0].observed_generation, second[0].reason.as_str()), (Some(2), "Other"));
        let third =
            Conditions::new(&second, Some(2), &at(3)).set("Ready", &Verdict::yes("Fine", "")).finish();
        assert_eq!(third[0].last_transition_time, at(3));
        assert!(holds(&third, "Ready") && !holds(&second, "Ready") && !holds(&third, "Other"));
    }
}
