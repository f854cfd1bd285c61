//! A broker that was stopped and goes on: the time for which it did not answer ends no lease.

use std::time::Duration;

use capstan_api::message::Pull;
use capstan_api::number::Whole;
use serde_json::json;

use crate::fixture::{Fixture, NAMESPACE, name, queue, until};

/// Of a lease.
const VISIBILITY_MS: u64 = 1_000;
/// Longer than leases and their grace would last.
const FROZEN: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_verdict_that_waited_for_a_frozen_broker_counts() {
    let fixture = Fixture::new(&[queue("orders", 0, json!({}))]).await;
    for body in ["handled", "forgotten"] {
        fixture.send("orders", json!({ "body": body })).await;
    }
    let pull = Pull {
        batch_size: Some(Whole(2)),
        visibility_timeout_ms: Some(Whole(VISIBILITY_MS)),
        ..Pull::default()
    };
    let messages = fixture.client.pull(&name(NAMESPACE), &name("orders"), &pull).await.unwrap().messages;
    assert_eq!(messages.len(), 2);
    fixture.broker.freeze();
    tokio::time::sleep(FROZEN).await;
    fixture.broker.thaw();
    // Its engine runs again before it has read this.
    let settled = fixture.ack("orders", &[&messages[0].lease_id]).await;
    assert_eq!((settled.ack_count, settled.warnings.len()), (1, 0), "{settled:?}");
    // The other one, which nobody settles, ends by time all the same: it is dropped, as there are no retries.
    let ended = async || {
        let state = fixture.queue("orders").await;
        (state.leased == 0).then_some(state.totals)
    };
    let totals = until("the other lease ends", ended).await;
    assert_eq!((totals.acknowledged, totals.lease_expired), (1, 1), "{totals:?}");
}
