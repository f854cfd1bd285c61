//! How quiet the machine is: other people's processor time, a fixed piece of work, and synced appends.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::process;
use crate::stats::Spread;

/// Cores of others above which a measurement does not count.
pub const FOREIGN_MAX: f64 = 0.35;
/// Over how long others are watched before a measurement.
const WATCH: Duration = Duration::from_millis(300);
const APPENDS: usize = 80;

/// What a probe found.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Probe {
    /// Milliseconds of a fixed piece of work.
    pub hash_ms: f64,
    /// Milliseconds of the median append of 1 KiB with fdatasync.
    pub sync_ms: f64,
    /// Cores that others used before.
    pub foreign: f64,
}

/// Waits until others use little of the machine, at most so long, then probes.
///
/// # Errors
/// The folder cannot be written.
pub fn probe(folder: &Path, wait: Duration) -> Result<Probe> {
    let deadline = Instant::now() + wait;
    loop {
        let watch = Watch::start(0.0)?;
        std::thread::sleep(WATCH);
        let foreign = watch.foreign(0.0)?;
        if foreign <= FOREIGN_MAX || Instant::now() >= deadline {
            return Ok(Probe { hash_ms: hash(), sync_ms: syncs(folder)?, foreign });
        }
    }
}

/// Measures what others use from its start on.
pub struct Watch {
    begun: Instant,
    machine: f64,
    own: f64,
}

impl Watch {
    /// Begins; `server` is the processor time of our server.
    ///
    /// # Errors
    /// This is no Linux.
    pub fn start(server: f64) -> Result<Self> {
        Ok(Self { begun: Instant::now(), machine: process::machine_cpu()?, own: process::own_cpu() + server })
    }

    /// Cores that others used since.
    ///
    /// # Errors
    /// This is no Linux.
    pub fn foreign(&self, server: f64) -> Result<f64> {
        let all = process::machine_cpu()? - self.machine;
        let ours = process::own_cpu() + server - self.own;
        Ok(cores(all - ours, self.begun.elapsed()))
    }
}

/// Clocks that count hundredths of a second may say a little less than nothing.
fn cores(seconds: f64, elapsed: Duration) -> f64 {
    (seconds / elapsed.as_secs_f64()).max(0.0)
}

fn hash() -> f64 {
    let begun = Instant::now();
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in 0..20_000_000_u64 {
        state = (state ^ (byte & 0xff)).wrapping_mul(0x0100_0000_01b3);
    }
    std::hint::black_box(state);
    begun.elapsed().as_secs_f64() * 1e3
}

fn syncs(folder: &Path) -> Result<f64> {
    let path = folder.join("probe");
    let mut file = File::create(&path)?;
    let mut millis = Vec::with_capacity(APPENDS);
    for _ in 0..APPENDS {
        let begun = Instant::now();
        file.write_all(&[b'x'; 1024])?;
        file.sync_data()?;
        millis.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(path)?;
    Ok(Spread::of(&millis).map_or(0.0, |spread| spread.median))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_measures_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let probe = probe(folder.path(), Duration::ZERO).unwrap();
        assert!(probe.hash_ms > 0.0 && probe.sync_ms > 0.0, "{probe:?}");
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_our_server_used_is_not_foreign() {
        let watch = Watch::start(5.0).unwrap();
        // The server was said to have used 5 s before, and 1,000 s now: more than this machine has.
        assert_eq!(watch.foreign(1_005.0).unwrap(), 0.0);
        assert!(watch.foreign(-1_000.0).unwrap() > 0.0);
        assert_eq!(cores(1.0, Duration::from_secs(2)), 0.5);
    }
}
