//! An API server, and what it stores in, that are killed (SIGKILL) and started again while objects change.

use std::time::Duration;

use e2e::cluster::{API_SERVER, ControlPlane, ETCD};
use e2e::process::progress;
use rand::Rng;

use super::kills::random;
use super::shop::Shop;
use crate::field::{Field, on_own_field};
use crate::stage::Operator;

/// What is killed, one after the other.
const KILLED: [&str; 6] = [API_SERVER, ETCD, API_SERVER, API_SERVER, ETCD, API_SERVER];
/// It is killed at the latest so long after the changes began, which by then were made and seen by the operator.
const MOMENT_MILLIS_MAX: u64 = 1_500;

/// An operator that has to have the Lease in order to work.
fn operator(field: &Field) -> Operator {
    let lease = [("CAPSTAN_LEASE_NAMESPACE", "default".into()), ("CAPSTAN_POD", "only".into())];
    field.starting_operator(&lease)
}

/// Kills a program at some moment of a change, and starts it again at once.
async fn kill(own: &mut ControlPlane, program: &str, moment: Duration) {
    progress(&format!("{program} is killed {} ms after changes began", moment.as_millis()));
    // A moment like any other: nothing is waited for.
    tokio::time::sleep(moment).await;
    own.kill(program);
    own.start_again(program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_killed_delays_and_no_more() {
    let mut random = random("kills of the API server");
    on_own_field("server", 1, async |field, own| {
        let mut operator = operator(field);
        operator.until_logged("active").await;
        let mut shop = Shop::open(field).await;
        for program in KILLED {
            let moment = Duration::from_millis(random.random_range(0..=MOMENT_MILLIS_MAX));
            tokio::join!(shop.change(), kill(own, program, moment));
            shop.converged().await;
            assert!(operator.is_alive(), "the operator ended:\n{}", operator.log());
        }
        // Away for so long that it may not act any more, and back.
        own.kill(API_SERVER);
        operator.until_logged("no longer active").await;
        tokio::join!(shop.change(), own.start_again(API_SERVER));
        shop.converged().await;
        assert!(operator.is_alive(), "the operator ended:\n{}", operator.log());
        assert!(!operator.has_logged("ended"), "{}", operator.log());
    })
    .await;
}
