//! Asking an API server that may be away for a moment, as people do: again.

use std::time::{Duration, Instant};

use e2e::cluster::LONG;

/// How soon.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks until there is an answer.
pub(crate) async fn insist<T>(what: &str, mut ask: impl AsyncFnMut() -> kube::Result<T>) -> T {
    let start = Instant::now();
    let mut tries = 0;
    loop {
        tries += 1;
        match ask().await {
            Ok(answer) => return answer,
            Err(error) if is_away(&error) && start.elapsed() < LONG => println!("{what}: {error}"),
            Err(error) => panic!("{what}, the {tries}th time: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Creates something until it is there: an answer that was lost is no reason to fail.
pub(crate) async fn create<T>(what: &str, mut create: impl AsyncFnMut() -> kube::Result<T>) {
    let mut tries = 0;
    insist(what, async || {
        tries += 1;
        match create().await {
            Err(kube::Error::Api(status)) if tries > 1 && status.is_already_exists() => Ok(()),
            other => other.map(drop),
        }
    })
    .await;
}

fn is_away(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        _ => true,
    }
}
