//! The volume below the store: its size, what is free, and whether sends may still be taken.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const MIB: u64 = 1 << 20;
/// What a volume must hold by its file system's account, which leaves out what that takes itself: of a volume of 256 MiB
/// up to a fifth.
const CAPACITY_LEAST: u64 = 200 * MIB;
/// Volumes below this have small memtables and tables: one of 1 GiB, less what its file system takes.
const CAPACITY_SMALL: u64 = 900 * MIB;
/// Volumes from here on have room for large memtables: of what is consumed soon, little is then ever written to a table.
const CAPACITY_LARGE: u64 = 7000 * MIB;
/// A message costs more than its body: keys, counts, a lease.
const MESSAGE_OVERHEAD: u64 = 256;
/// A byte is written to the journal, and later to a table.
const COPIES: u64 = 2;

/// How much of the volume sends may not use. Acks, retries, expiry, dead letters and compaction may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    percent: u8,
}

impl Reserve {
    /// What [`Self::percent`] keeps is at most this.
    const BYTES_MAX: u64 = 10 << 30;

    /// What the storage engine needs, and no more: 128 MiB; of a volume below 1 GiB a fifth, from 64 MiB on.
    pub const LEAST: Self = Self { percent: 0 };

    /// So many percent of the volume, at most 10 GiB, but never less than [`Self::LEAST`].
    #[must_use]
    pub const fn percent(percent: u8) -> Self {
        Self { percent }
    }

    fn bytes(self, capacity: u64) -> u64 {
        let part = (capacity / 100).saturating_mul(self.percent.into()).min(Self::BYTES_MAX);
        part.max(Sizes::of(capacity).reserve)
    }
}

/// What follows from the volume's size. Measured: with these a volume that is filled to the reserve compacts and opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Bytes of a memtable.
    pub(super) memtable: u64,
    /// Bytes of a table that compaction writes.
    pub(super) table: u64,
    /// Bytes kept for opening.
    pub(super) ballast: u64,
    /// Least bytes kept from sends.
    pub(super) reserve: u64,
}

impl Sizes {
    /// `capacity` in bytes; 0 when it is not known.
    pub(super) fn of(capacity: u64) -> Self {
        if capacity == 0 || capacity >= CAPACITY_SMALL {
            let memtable = if capacity >= CAPACITY_LARGE { 32 * MIB } else { 8 * MIB };
            Self { memtable, table: 8 * MIB, ballast: 64 * MIB, reserve: 128 * MIB }
        } else {
            let ballast = (capacity / 16).clamp(16 * MIB, 64 * MIB);
            let reserve = (capacity / 5).clamp(64 * MIB, 128 * MIB);
            Self { memtable: 2 * MIB, table: 4 * MIB, ballast, reserve }
        }
    }
}

/// A volume on which no broker works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the volume holds {} MiB beside what its file system takes, and needs {}: use one of at least 256 MiB, better 1 GiB",
    capacity / MIB,
    CAPACITY_LEAST / MIB
)]
pub struct TooSmall {
    capacity: u64,
}

/// A send was not taken. In bytes; said in MiB, rounded so that the sums are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NearlyFull {
    /// Less is free than what is kept, or was, and too little has come back since.
    #[error(
        "the broker's volume is nearly full: {} MiB are free, {} are kept for acks and compaction, and sends are taken again \
         when {} are free; consume or purge messages, or enlarge the volume",
        available / MIB,
        reserve.div_ceil(MIB),
        again.div_ceil(MIB)
    )]
    Reserve { available: u64, reserve: u64, again: u64 },
    /// What is free and not kept is needed for sends that were taken since the last look but one, and this one.
    #[error(
        "the broker's volume is nearly full: {} MiB are free, {} of them are kept for acks and compaction, and up to {} are \
         for this send and those of the last half second, which may not be written yet; try again, consume or purge \
         messages, or enlarge the volume",
        available / MIB,
        reserve.div_ceil(MIB),
        sends.div_ceil(MIB)
    )]
    Sends { available: u64, reserve: u64, sends: u64 },
}

/// The volume as of the last look, and what was taken since.
#[derive(Debug)]
pub(crate) struct Volume {
    folder: PathBuf,
    reserve: Reserve,
    capacity: AtomicU64,
    available: AtomicU64,
    /// Bytes of sends taken since the last look, and between it and the one before: these may still wait to be written.
    taken: [AtomicU64; 2],
    nearly_full: AtomicBool,
    refused: AtomicU64,
    used: AtomicU64,
    ballast: AtomicU64,
}

/// Bytes of a volume, for those who watch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) capacity: u64,
    pub(crate) available: u64,
    pub(crate) reserve: u64,
    /// Of the store, ballast not counted.
    pub(crate) used: u64,
    /// Held for opening; 0 while there is no room for it.
    pub(crate) ballast: u64,
    /// Sends refused since the start because of the volume.
    pub(crate) refused: u64,
    /// Sends are refused, as less than the reserve is free.
    pub(crate) nearly_full: bool,
}

impl Volume {
    /// Looks at the volume of `folder`, which exists.
    ///
    /// # Errors
    /// [`TooSmall`].
    pub(super) fn open(folder: &Path, reserve: Reserve) -> Result<Self, TooSmall> {
        let volume = Self {
            folder: folder.to_owned(),
            reserve,
            capacity: AtomicU64::new(0),
            available: AtomicU64::new(0),
            taken: Default::default(),
            nearly_full: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            used: AtomicU64::new(0),
            ballast: AtomicU64::new(0),
        };
        volume.look();
        check_capacity(volume.capacity.load(Ordering::Relaxed))?;
        Ok(volume)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn sizes(&self) -> Sizes {
        Sizes::of(self.capacity.load(Ordering::Relaxed))
    }

    /// Asks the file system. One that does not answer is left as it was.
    pub(super) fn look(&self) {
        let Ok(found) = rustix::fs::statvfs(&self.folder) else {
            return;
        };
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        self.saw(bytes(found.f_blocks), bytes(found.f_bavail));
    }

    fn saw(&self, capacity: u64, available: u64) {
        self.capacity.store(capacity, Ordering::Relaxed);
        self.available.store(available, Ordering::Relaxed);
        let [now, before] = &self.taken;
        before.store(now.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        let reserve = self.reserve();
        let was = self.nearly_full.load(Ordering::Relaxed);
        // Some more than the reserve must be free again, or it would go on and off with every table.
        let is = if was { available < again(reserve) } else { available < reserve };
        let is = is && capacity > 0;
        self.nearly_full.store(is, Ordering::Relaxed);
        if is != was {
            let (available, reserve) = (available / MIB, reserve / MIB);
            if is {
                tracing::warn!(available, reserve, "the volume is nearly full (MiB): sends are refused");
            } else {
                tracing::info!(available, reserve, "the volume has room again (MiB): sends are taken");
            }
        }
    }

    fn reserve(&self) -> u64 {
        match self.capacity.load(Ordering::Relaxed) {
            0 => 0,
            capacity => self.reserve.bytes(capacity),
        }
    }

    /// Whether sends are refused.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.nearly_full.load(Ordering::Relaxed)
    }

    /// Counts a send of `messages` with so many body bytes in all.
    ///
    /// # Errors
    /// [`NearlyFull`]: it must not be taken.
    pub(crate) fn take(&self, messages: usize, bytes: usize) -> Result<(), NearlyFull> {
        let (capacity, available) =
            (self.capacity.load(Ordering::Relaxed), self.available.load(Ordering::Relaxed));
        if capacity == 0 {
            return Ok(());
        }
        let cost = (bytes as u64).saturating_add(messages as u64 * MESSAGE_OVERHEAD) * COPIES;
        let reserve = self.reserve();
        let refused = if self.is_nearly_full() {
            NearlyFull::Reserve { available, reserve, again: again(reserve) }
        } else {
            let [now, before] = &self.taken;
            let earlier = now.fetch_add(cost, Ordering::Relaxed);
            let sends = earlier.saturating_add(before.load(Ordering::Relaxed)).saturating_add(cost);
            if sends.saturating_add(reserve) <= available {
                return Ok(());
            }
            // A look may have begun a new count in between.
            let back = |taken: u64| Some(taken.saturating_sub(cost));
            let _ = now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
            NearlyFull::Sends { available, reserve, sends }
        };
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(refused)
    }

    /// Notes what the store takes, and its ballast.
    pub(super) fn note(&self, used: u64, ballast: u64) {
        self.used.store(used, Ordering::Relaxed);
        self.ballast.store(ballast, Ordering::Relaxed);
    }

    /// Bytes free beyond what is kept from sends.
    pub(super) fn room(&self) -> u64 {
        self.available.load(Ordering::Relaxed).saturating_sub(self.reserve())
    }

    pub(super) fn available(&self) -> u64 {
        self.available.load(Ordering::Relaxed)
    }

    /// All numbers, as of the last look; `None` when the file system tells none.
    #[must_use]
    pub(crate) fn usage(&self) -> Option<Usage> {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let usage = Usage {
            capacity: read(&self.capacity),
            available: read(&self.available),
            reserve: self.reserve(),
            used: read(&self.used),
            ballast: read(&self.ballast),
            refused: read(&self.refused),
            nearly_full: self.is_nearly_full(),
        };
        (usage.capacity > 0).then_some(usage)
    }
}

/// Sends that were refused at this reserve are taken again when so much is free.
const fn again(reserve: u64) -> u64 {
    reserve.saturating_add(reserve / 8)
}

/// A capacity of 0 is not known.
fn check_capacity(capacity: u64) -> Result<(), TooSmall> {
    if (1..CAPACITY_LEAST).contains(&capacity) { Err(TooSmall { capacity }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(capacity: u64, available: u64) -> Volume {
        let volume = Volume::open(Path::new("/"), Reserve::percent(10)).unwrap();
        volume.saw(capacity, available);
        volume
    }

    #[test]
    fn the_reserve_is_a_part_of_the_volume_within_bounds() {
        let bytes = |capacity, percent| Reserve::percent(percent).bytes(capacity * MIB) / MIB;
        assert_eq!(bytes(256, 10), 64, "what a small volume needs");
        assert_eq!(bytes(1024, 10), 128, "what the store needs");
        assert_eq!(bytes(10_000, 10), 1000);
        assert_eq!(bytes(10_000, 50), 5000);
        assert_eq!(bytes(1_000_000, 10), 10 * 1024, "the most");
        assert_eq!(Reserve::LEAST.bytes(1_000_000 * MIB), 128 * MIB);
    }

    #[test]
    fn sends_stop_at_the_reserve_and_go_on_well_above_it() {
        let volume = volume(10_000 * MIB, 1001 * MIB);
        assert_eq!(volume.take(1, 1000), Ok(()));
        volume.saw(10_000 * MIB, 999 * MIB);
        let refused = volume.take(1, 1000).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains(": 999 MiB are free, 1000 are kept") && text.contains("when 1125 are free"),
            "{text}"
        );
        volume.saw(10_000 * MIB, 1100 * MIB);
        assert!(volume.take(1, 1000).is_err(), "just above the mark nothing changes");
        volume.saw(10_000 * MIB, 1126 * MIB);
        assert_eq!(volume.take(1, 1000), Ok(()));
        assert_eq!(volume.usage().unwrap().refused, 2);
    }

    #[test]
    fn what_was_taken_since_the_last_look_counts() {
        let taken = |volume: &Volume| (0..1000).take_while(|_| volume.take(1, 1 << 20).is_ok()).count();
        let volume = volume(10_000 * MIB, 1100 * MIB);
        let first = taken(&volume);
        assert!((45..=50).contains(&first), "100 MiB of room, each byte is written twice: {first}");
        let text = volume.take(1, 1 << 20).unwrap_err().to_string();
        let words: Vec<u64> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [free, kept, sends] = words[..] else { panic!("{text}") };
        assert!(free == 1100 && kept == 1000 && (101..=103).contains(&sends), "{text}");
        // Nothing of it is written yet at the next look.
        volume.saw(10_000 * MIB, 1100 * MIB);
        assert_eq!(taken(&volume), 0);
        volume.saw(10_000 * MIB, 1100 * MIB);
        assert_eq!(taken(&volume), first);
    }

    #[test]
    fn a_volume_of_unknown_size_takes_everything() {
        let volume = volume(0, 0);
        assert_eq!(volume.take(1, usize::MAX / 4), Ok(()));
        assert_eq!(volume.usage(), None);
    }

    #[test]
    fn a_small_volume_has_small_tables() {
        assert_eq!(
            Sizes::of(230 * MIB),
            Sizes { memtable: 2 * MIB, table: 4 * MIB, ballast: 16 * MIB, reserve: 64 * MIB }
        );
        assert_eq!(Sizes::of(973 * MIB).ballast, 64 * MIB);
        assert_eq!(Sizes::of(0), Sizes::of(2000 * MIB), "not known");
        assert_eq!([7999, 2000, 973].map(|mib| Sizes::of(mib * MIB).memtable / MIB), [32, 8, 8]);
    }

    #[test]
    fn the_least_volume_is_the_one_that_the_protocol_names() {
        assert_eq!([0, 200 * MIB].map(check_capacity), [Ok(()), Ok(())]);
        let text = check_capacity(200 * MIB - 1).unwrap_err().to_string();
        assert!(text.contains("holds 199 MiB") && text.contains("needs 200"), "{text}");
        let document = include_str!("../../../docs/protocol.md");
        let line = document.lines().find(|line| line.starts_with("A volume needs ")).unwrap();
        assert!(line.contains("256 MiB") && line.contains(" 200 "), "{line}");
        assert!(text.contains("at least 256 MiB"), "{text}");
    }
}
