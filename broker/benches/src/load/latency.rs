//! Messages at a fixed rate, whether the server keeps up or not: how long from when each was due until it is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Crew, DRAIN_MAX, IDLE};
use crate::message;

/// Messages a second, over all producers.
const RATE: u32 = 2_000;
/// What is not counted at the beginning.
const WARM: Duration = Duration::from_millis(500);
/// Due messages that wait for one producer.
const QUEUE_MAX: usize = 100_000;

/// Milliseconds of each message, in the order of arrival.
///
/// # Errors
/// A client fails, a message comes twice, or some never come.
pub async fn latency(producers: Crew, consumers: Crew, time: Duration) -> Result<Vec<f64>> {
    let ledger = Arc::clone(&producers.ledger);
    let finished = Arc::new(AtomicBool::new(false));
    let (mut sending, mut taking) = (JoinSet::new(), JoinSet::new());
    let mut dues = Vec::new();
    let begun = Instant::now();
    let counted = message::now() + nanos(WARM);
    for mut client in consumers.clients {
        let (ledger, finished) = (Arc::clone(&ledger), Arc::clone(&finished));
        taking.spawn(async move {
            let mut millis = Vec::new();
            while !(finished.load(Ordering::Relaxed) && ledger.received() == ledger.confirmed()) {
                ensure!(begun.elapsed() < WARM + time + DRAIN_MAX, "messages are missing after a minute");
                let stamps = client.take(0, 100, IDLE).await?;
                let now = message::now();
                if stamps.is_empty() {
                    continue;
                }
                ledger.receive(&stamps)?;
                client.settle(0).await?;
                ledger.settle(stamps.len());
                let counted = stamps.iter().filter(|stamp| stamp.due >= counted);
                millis.extend(counted.map(|stamp| now.saturating_sub(stamp.due) as f64 / 1e6));
            }
            anyhow::Ok(millis)
        });
    }
    for mut client in producers.clients {
        let (tell, mut told) = mpsc::channel(QUEUE_MAX);
        dues.push(tell);
        let ledger = Arc::clone(&ledger);
        sending.spawn(async move {
            while let Some(due) = told.recv().await {
                client.publish(0, &ledger.issue(1, due)).await?;
                ledger.confirm(1);
            }
            anyhow::Ok(())
        });
    }
    // The runtime's timers count whole milliseconds, a thread's sleep does not.
    let pacer = std::thread::spawn(move || pace(&dues, WARM + time));
    while let Some(ended) = sending.join_next().await {
        ended??;
    }
    finished.store(true, Ordering::Relaxed);
    let mut millis = Vec::new();
    while let Some(ended) = taking.join_next().await {
        millis.extend(ended??);
    }
    ensure!(pacer.join().is_ok_and(|kept_up| kept_up), "a producer fell too far behind");
    Ok(millis)
}

/// Hands each producer in turn the time when its next message is due.
fn pace(dues: &[mpsc::Sender<u64>], time: Duration) -> bool {
    let (begun, first) = (Instant::now(), message::now());
    let gap = Duration::from_secs(1) / RATE;
    for (number, producer) in (0..).zip(dues.iter().cycle()) {
        let at = gap * number;
        if at >= time {
            return true;
        }
        if let Some(left) = at.checked_sub(begun.elapsed()) {
            std::thread::sleep(left);
        }
        if producer.try_send(first + nanos(at)).is_err() {
            return false;
        }
    }
    false
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
