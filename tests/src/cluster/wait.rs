//! Waiting for a condition, with a deadline, telling what is waited for.
#![allow(clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

/// For what is done within the cluster's own machinery: objects, statuses.
pub const SHORT: Duration = Duration::from_secs(60);
/// For what starts and ends pods on a busy machine, or handles a thousand messages.
pub const LONG: Duration = Duration::from_secs(240);

/// How often is asked.
const PAUSE: Duration = Duration::from_millis(200);
/// Answers are told so far.
const ANSWER_CHARS_MAX: usize = 300;

/// Asks again and again until the answer is Ok. Err says what is still missing.
///
/// # Panics
/// When it is not Ok within the deadline; the message has the last answer.
pub async fn until<T>(what: &str, within: Duration, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    println!("waiting: {what}");
    let start = Instant::now();
    let mut told = String::new();
    loop {
        let missing = match tokio::time::timeout(within, ask()).await {
            Ok(Ok(answer)) => {
                println!("  after {:.1} s: {what}", start.elapsed().as_secs_f64());
                return answer;
            }
            Ok(Err(missing)) => missing.chars().take(ANSWER_CHARS_MAX).collect(),
            Err(_) => "no answer at all".to_owned(),
        };
        assert!(start.elapsed() < within, "{what}: not within {} s; {missing}", within.as_secs());
        if missing != told {
            println!("  not yet: {missing}");
            told = missing;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
