//! What is measured where it happens: commits, refusals, recovery. Counts of queues are taken at each look instead.

use std::time::Duration;

use capstan_api::ErrorCode;
use prometheus::{Gauge, Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::store::Durability;

/// Seconds: from a commit that stays in memory to a disk that hangs.
const COMMIT_BUCKETS: [f64; 14] =
    [0.00001, 0.00003, 0.0001, 0.0003, 0.0006, 0.001, 0.002, 0.004, 0.008, 0.02, 0.05, 0.2, 1.0, 5.0];
/// Requests: a group grows with the load.
const GROUP_BUCKETS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Measurements since the broker's start. Labels are of fixed sets.
#[derive(Debug)]
pub(crate) struct Stats {
    pub(crate) registry: Registry,
    commits: HistogramVec,
    groups: Histogram,
    refusals: IntCounterVec,
    recovery: Gauge,
}

impl Stats {
    /// None yet.
    ///
    /// # Errors
    /// When two metrics have one name.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let help = "How long commits took: synced ones wait for the disk, buffered ones only lease.";
        let commits =
            HistogramOpts::new("capstan_store_commit_seconds", help).buckets(COMMIT_BUCKETS.to_vec());
        let help = "Requests that share one synced commit.";
        let groups =
            HistogramOpts::new("capstan_store_commit_requests", help).buckets(GROUP_BUCKETS.to_vec());
        let refusals = Opts::new("capstan_refusals_total", "Refused requests by the code in their answer.");
        let help = "How long the last start took until the store was open.";
        let stats = Self {
            registry: Registry::new(),
            commits: HistogramVec::new(commits, &["durability"])?,
            groups: Histogram::with_opts(groups)?,
            refusals: IntCounterVec::new(refusals, &["code"])?,
            recovery: Gauge::new("capstan_store_recovery_seconds", help)?,
        };
        stats.registry.register(Box::new(stats.commits.clone()))?;
        stats.registry.register(Box::new(stats.groups.clone()))?;
        stats.registry.register(Box::new(stats.refusals.clone()))?;
        stats.registry.register(Box::new(stats.recovery.clone()))?;
        Ok(stats)
    }

    pub(crate) fn committed(&self, durability: Durability, took: Duration) {
        let durability = match durability {
            Durability::Buffered => "buffered",
            Durability::Synced => "synced",
        };
        self.commits.with_label_values(&[durability]).observe(took.as_secs_f64());
    }

    /// So many requests were in one synced commit.
    pub(crate) fn grouped(&self, requests: usize) {
        self.groups.observe(requests as f64);
    }

    pub(crate) fn refused(&self, code: ErrorCode) {
        self.refusals.with_label_values(&[&code.code().to_string()]).inc();
    }

    pub(crate) fn recovered(&self, took: Duration) {
        self.recovery.set(took.as_secs_f64());
    }
}
