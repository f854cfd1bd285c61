//! Passes a request on: tries until the broker answers, or the time is over.

use std::time::Duration;

use axum::http::Method;
use capstan_api::limits;
use tokio::time::{Instant, sleep, timeout_at};

use super::metrics::Reason;
use super::upstream::{Answer, Failure, Outgoing};
use super::{LAST_SENDS, Shared};
use crate::backoff::Backoff;

/// How long one try may take. A broker that is there answers within milliseconds, or 429.
const TRY_MAX: Duration = Duration::from_secs(10);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// A broker that is back is found within this.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Why a request was given up.
#[derive(Debug)]
pub(super) struct GivenUp {
    why: &'static str,
    held: Duration,
    last: String,
    /// Whether the broker may have taken it.
    pub(super) may_have_taken: bool,
}

impl GivenUp {
    /// For how many seconds more the key of what was taken is known: the first try may be the one that arrived.
    pub(super) const fn key_seconds(&self) -> u64 {
        limits::IDEMPOTENCY_WINDOW_SECONDS.saturating_sub(self.held.as_secs() + 1)
    }
}

impl std::fmt::Display for GivenUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { why, held, last, .. } = self;
        write!(f, "the broker did not take this within {:.1} s ({last}); {why}", held.as_secs_f32())
    }
}

/// What the tries of a request have shown.
struct Tries<'a> {
    shared: &'a Shared,
    began: Instant,
    may_have_taken: bool,
    last: String,
}

impl Tries<'_> {
    fn note(&mut self, failure: &Failure) {
        self.may_have_taken |= failure.may_have_taken();
        self.last.clone_from(&failure.text);
        self.shared.metrics.retried(failure.reason);
        if self.shared.warning.is_due() {
            let Failure { text, reason, .. } = failure;
            tracing::warn!(error = text, ?reason, "the broker takes no sends; holding them");
        }
    }

    fn give_up(self, why: &'static str) -> GivenUp {
        let Self { began, may_have_taken, last, .. } = self;
        GivenUp { why, held: began.elapsed(), last, may_have_taken }
    }
}

/// Asks the broker until it answers. Dropped, when the application goes away, it asks no more.
///
/// A send that may have been stored is tried again only at a broker that minds keys: an older one would store it twice.
/// A send whose own key the broker has no room for goes without it: better a send that is not tried again than none.
pub(super) async fn pass(shared: &Shared, outgoing: &mut Outgoing) -> Result<Answer, GivenUp> {
    let began = Instant::now();
    let deadline = began + shared.hold;
    let ending = async {
        shared.ending.cancelled().await;
        sleep(LAST_SENDS).await;
    };
    let mut ending = std::pin::pin!(ending);
    let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
    let mut tries = Tries { shared, began, may_have_taken: false, last: "no answer yet".to_owned() };
    let mut keyless = false;
    // From the first failure on.
    let mut holding = None;
    loop {
        let failure = tokio::select! {
            outcome = once(shared, outgoing, deadline) => match outcome {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            },
            () = &mut ending => {
                // This one may have arrived.
                tries.may_have_taken = true;
                return Err(tries.give_up("the sidecar is ending"));
            }
        };
        tries.note(&failure);
        if !tries.may_have_taken && failure.is_full_of_keys() && outgoing.drop_own_key() {
            keyless = true;
            continue;
        }
        if tries.may_have_taken && outgoing.method != Method::GET && !shared.upstream.minds_keys() {
            return Err(tries.give_up("it has not shown yet that it minds keys, so this is not tried again"));
        }
        if keyless && tries.may_have_taken {
            return Err(tries.give_up("the broker had no room for its key, so it is not tried again"));
        }
        let wait = failure.asked.unwrap_or_default().saturating_add(backoff.wait());
        let busy = failure.reason == Reason::Busy;
        let in_time = Instant::now().checked_add(wait).is_some_and(|next| next < deadline);
        let crowded = busy && is_crowded(shared);
        if !in_time || crowded {
            return match failure.answer {
                // The broker says best what it lacks, and that nothing was stored.
                Some(answer) if busy && !tries.may_have_taken => Ok(*answer),
                _ if crowded => Err(tries.give_up("others need the room")),
                _ => Err(tries.give_up("its time is over")),
            };
        }
        holding.get_or_insert_with(|| shared.metrics.hold());
        tokio::select! {
            () = sleep(wait) => {}
            () = &mut ending => return Err(tries.give_up("the sidecar is ending")),
        }
    }
}

async fn once(shared: &Shared, outgoing: &Outgoing, deadline: Instant) -> Result<Answer, Failure> {
    let now = Instant::now();
    let limit = deadline.min(now + TRY_MAX);
    match timeout_at(limit, shared.upstream.ask(outgoing)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::silent(limit.saturating_duration_since(now))),
    }
}

/// Whether half of the bytes or of the connections is taken: then a queue that is full must not take the rest from the others.
fn is_crowded(shared: &Shared) -> bool {
    let Shared { budget, connections, .. } = shared;
    budget.held() > budget.most() / 2 || connections.open() > connections.most() / 2
}
