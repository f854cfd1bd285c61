//! Messages at a fixed rate, whether the server keeps up or not: how long from when each was due until it is there.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::taking::Progress;
use super::{Crew, Takers};
use crate::message;

/// What is not counted at the beginning.
const WARM: Duration = Duration::from_millis(500);
/// Due messages that wait for one producer.
const QUEUE_MAX: usize = 100_000;

/// Milliseconds of each message, in no order; `rate` messages a second, over all producers.
///
/// # Errors
/// A client fails, a message comes twice, or some never come.
pub async fn latency(producers: Crew, takers: Takers, rate: u32, time: Duration) -> Result<Vec<f64>> {
    let ledger = Arc::clone(&producers.ledger);
    let progress = Progress::new(&ledger, WARM + time);
    let mut sending = JoinSet::new();
    let mut dues = Vec::new();
    let counted = message::now() + nanos(WARM);
    let millis = Arc::new(Mutex::new(Vec::new()));
    let mut taking = {
        let millis = Arc::clone(&millis);
        takers.spawn(&progress, move |stamps, at| {
            let stamps = stamps.iter().filter(|stamp| stamp.due >= counted);
            // Of tasks that failed the result is not asked for.
            if let Ok(mut millis) = millis.lock() {
                millis.extend(stamps.map(|stamp| at.saturating_sub(stamp.due) as f64 / 1e6));
            }
        })
    };
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
    let pacer = std::thread::spawn(move || pace(&dues, rate, WARM + time));
    while let Some(ended) = sending.join_next().await {
        ended??;
    }
    progress.finished.store(true, Ordering::Relaxed);
    while let Some(ended) = taking.join_next().await {
        ended??;
    }
    ensure!(pacer.join().is_ok_and(|kept_up| kept_up), "a producer fell too far behind");
    let mut millis = millis.lock().ok().context("a client failed")?;
    Ok(std::mem::take(&mut *millis))
}

/// Hands each producer in turn the time when its next message is due.
fn pace(dues: &[mpsc::Sender<u64>], rate: u32, time: Duration) -> bool {
    let (begun, first) = (Instant::now(), message::now());
    let gap = Duration::from_secs(1) / rate;
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
