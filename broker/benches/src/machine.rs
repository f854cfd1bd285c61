//! The machine that was measured, in a few lines of Markdown.

use anyhow::Result;

use crate::peer::{Peer, Place, version};
use crate::run::Sample;
use crate::stats::Spread;

/// Processor, memory, system, disk, and the servers' versions.
///
/// # Errors
/// A server's program is missing.
pub fn facts(place: &Place, peers: &[Peer], samples: &[Sample]) -> Result<String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    let sync = middle(samples, |sample| sample.probe.sync_ms);
    let hash = middle(samples, |sample| sample.probe.hash_ms);
    let mut text = format!(
        "Machine: {cores} × {}, {} of memory, Linux {}. Append of 1 KiB with fdatasync: {sync}; a fixed hash: {hash}.\n",
        field("/proc/cpuinfo", "model name"),
        field("/proc/meminfo", "MemTotal"),
        kernel.trim(),
    );
    let mut versions = Vec::new();
    for peer in peers.iter().filter(|peer| **peer != Peer::RedisSteady) {
        versions.push(format!("{} {}", peer.title(), version(*peer, place)?));
    }
    text += &format!("Versions: {}.\n", versions.join(", "));
    Ok(text)
}

fn middle(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> String {
    let values: Vec<f64> = samples.iter().map(of).collect();
    let range = |Spread { median, least, most }| format!("{median:.2} ms ({least:.2}–{most:.2})");
    Spread::of(&values).map_or("–".to_owned(), range)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
    line.map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
}
