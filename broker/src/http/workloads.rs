//! The long poll by which a sidecar learns what it consumes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use capstan_api::ErrorCode;
use capstan_api::workload::{CONFIGURATION_WAIT_MS_MAX, Workload, WorkloadConsumers};
use capstan_port::path::{InPath, InQuery};
use serde::Deserialize;

use super::AppState;
use super::queue::check_account;
use super::refused::Refused;

/// What the sidecar knows already, and how long it waits for news.
#[derive(Deserialize)]
pub(super) struct Known {
    #[serde(default)]
    revision: String,
    #[serde(default)]
    wait_ms: u64,
}

/// Counts a sidecar that waits, until it is dropped.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers when the consumers are others than those of `revision`, or the time is over, or the broker ends.
pub(super) async fn consumers(
    State(state): State<AppState>,
    InPath((namespace, kind, name)): InPath<(String, String, String)>,
    InQuery(known): InQuery<Known>,
) -> Result<Json<WorkloadConsumers>, Refused> {
    check_account(&namespace)?;
    let workload: Workload = format!("{kind}/{name}")
        .parse()
        .map_err(|error| Refused::new(ErrorCode::NoRoute, format!("{error}")))?;
    let mut changes = state.engine.directory_changes();
    let wait = Duration::from_millis(known.wait_ms.min(CONFIGURATION_WAIT_MS_MAX));
    let _waiting = Waiting::new(&state.sidecars);
    let news = async {
        loop {
            let consumers = changes.borrow_and_update().consumers_of(&namespace, &workload);
            if consumers.revision != known.revision || changes.changed().await.is_err() {
                return consumers;
            }
        }
    };
    let over = async {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = state.ending.cancelled() => {}
        }
    };
    tokio::select! {
        consumers = news => Ok(Json(consumers)),
        () = over => Ok(Json(state.engine.directory().consumers_of(&namespace, &workload))),
    }
}
