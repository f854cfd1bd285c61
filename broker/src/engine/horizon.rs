//! When to look which delayed messages are due soon: while somebody asks for changes. A sleeping consumer is woken by what is
//! found.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use capstan_api::control::DUE_SOON;

use super::{Engine, EngineError, Transaction};

/// So long after somebody asked there are looks. Who waits for changes asks once a minute at least.
const WATCHED_MS: u64 = 120_000;
/// Between two looks, a little less than the engine's longest sleep: each time it wakes by itself it looks.
const LOOK_MS: u64 = 900;

/// Whether somebody wants to know of changes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked(Arc<AtomicBool>);

impl Asked {
    /// Somebody wants to know.
    pub(super) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// When to look, in the engine's time.
#[derive(Debug)]
pub(super) struct Horizon {
    asked: Asked,
    /// Nobody wants to know from then on.
    until: Option<u64>,
    next: u64,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Nothing,
    Look,
    /// Nobody has asked for long.
    Forget,
}

impl Horizon {
    pub(super) const fn new(asked: Asked) -> Self {
        Self { asked, until: None, next: 0 }
    }

    fn turn(&mut self, now: u64) -> Turn {
        if self.asked.0.load(Ordering::Relaxed) {
            self.asked.0.store(false, Ordering::Relaxed);
            self.until = Some(now.saturating_add(WATCHED_MS));
        }
        let Some(until) = self.until else { return Turn::Nothing };
        if until <= now {
            (self.until, self.next) = (None, 0);
            return Turn::Forget;
        }
        if now < self.next {
            return Turn::Nothing;
        }
        self.next = now.saturating_add(LOOK_MS);
        Turn::Look
    }
}

impl Engine {
    /// Looks ahead when it is time to; subscribers are told of queues that have more to come than they had.
    pub(super) fn look_ahead(&mut self, now: u64, transaction: &Transaction<'_>) -> Result<(), EngineError> {
        match self.horizon.turn(now) {
            Turn::Nothing => {}
            Turn::Forget => self.core.look_no_more(),
            Turn::Look => {
                let within = u64::try_from(DUE_SOON.as_millis()).unwrap_or(u64::MAX);
                let found = self.core.look_ahead(now, within, transaction)?;
                self.changes.note(found);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_looks_while_somebody_asks_and_no_others() {
        let asked = Asked::default();
        let mut horizon = Horizon::new(asked.clone());
        assert_eq!(horizon.turn(0), Turn::Nothing);
        asked.ask();
        assert_eq!(horizon.turn(1_000), Turn::Look);
        assert_eq!(horizon.turn(1_001), Turn::Nothing, "it was now");
        assert_eq!(horizon.turn(1_000 + LOOK_MS), Turn::Look);
        asked.ask();
        assert_eq!(horizon.turn(2_000), Turn::Nothing);
        let until = 2_000 + WATCHED_MS;
        assert_eq!(horizon.turn(until - 1), Turn::Look);
        assert_eq!(horizon.turn(until), Turn::Forget);
        assert_eq!(horizon.turn(until + 1), Turn::Nothing);
        asked.ask();
        assert_eq!(horizon.turn(until + 2), Turn::Look, "at once");
    }
}
