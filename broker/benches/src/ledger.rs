//! Counts or fails: every number is sent once, and comes back at most once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};

use crate::message::Stamp;

/// What was sent, confirmed and received in a cell.
#[derive(Default)]
pub struct Ledger {
    issued: AtomicU64,
    confirmed: AtomicU64,
    received: AtomicU64,
    /// A bit for each number.
    seen: Mutex<Vec<u64>>,
}

impl Ledger {
    /// The next numbers, `count` of them, due at `due`.
    pub fn issue(&self, count: usize, due: u64) -> Vec<Stamp> {
        let first = self.issued.fetch_add(count as u64, Ordering::Relaxed);
        (first..first + count as u64).map(|number| Stamp { number, due }).collect()
    }

    /// Counts confirmed messages.
    pub fn confirm(&self, count: usize) {
        self.confirmed.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Counts delivered messages.
    ///
    /// # Errors
    /// One was never sent, or comes a second time.
    pub fn receive(&self, stamps: &[Stamp]) -> Result<()> {
        let issued = self.issued.load(Ordering::Relaxed);
        let mut seen = self.seen.lock().ok().context("a client failed")?;
        for stamp in stamps {
            if stamp.number >= issued {
                bail!("message {} came back and was never sent", stamp.number);
            }
            let (word, bit) = (usize::try_from(stamp.number / 64)?, 1 << (stamp.number % 64));
            if seen.len() <= word {
                seen.resize(word + 1024, 0);
            }
            if seen[word] & bit != 0 {
                bail!("message {} came back twice", stamp.number);
            }
            seen[word] |= bit;
        }
        Ok(())
    }

    /// Counts acknowledged messages.
    pub fn settle(&self, count: usize) {
        self.received.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Confirmed messages.
    pub fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// Received and acknowledged messages.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Compares with what the server holds.
    ///
    /// # Errors
    /// Messages are missing, or too many.
    pub fn check(&self, depth: u64) -> Result<()> {
        let (confirmed, received) = (self.confirmed(), self.received());
        if received + depth != confirmed {
            bail!("{confirmed} messages were confirmed, {received} acknowledged, and {depth} are there");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_counts_once() {
        let ledger = Ledger::default();
        let stamps = ledger.issue(3, 7);
        ledger.confirm(3);
        assert_eq!(stamps.last(), Some(&Stamp { number: 2, due: 7 }));
        ledger.receive(&stamps[..2]).unwrap();
        ledger.settle(2);
        ledger.check(1).unwrap();
        ledger.check(0).unwrap_err();
        ledger.receive(&stamps[1..]).unwrap_err();
        ledger.receive(&[Stamp { number: 3, due: 0 }]).unwrap_err();
    }
}
