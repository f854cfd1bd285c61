//! Operators that are killed (SIGKILL) at random moments.

use std::env;

use e2e::cluster::{LONG, until};
use e2e::process::progress;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Window;
use super::shop::Shop;
use crate::field::{Field, on_field};
use crate::stage::SYSTEM;

/// How often the operator is killed.
const KILLS: usize = 12;
/// It is killed at the latest after so many requests, which begin with a change.
const REQUESTS_MAX: u64 = 60;
/// It has done all there was to do when it looked at the broker so often.
const LOOKS_MAX: u64 = 5;

pub(super) fn random(what: &str) -> StdRng {
    let seed = env::var("CAPSTAN_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    progress(&format!("{what}: again with CAPSTAN_SEED={seed}"));
    StdRng::seed_from_u64(seed)
}

/// Waits until the operator asked something so often, or has nothing more to ask.
async fn requests(field: &Field, count: u64) {
    let looks = || field.plane.asked().values().sum::<u64>();
    let (from, looked) = (field.proxy.count().of(|_| true), looks());
    until(&format!("{count} requests"), LONG, async || {
        let asked = field.proxy.count().of(|_| true) - from;
        if asked >= count || looks() >= looked + LOOKS_MAX { Ok(()) } else { Err(format!("{asked} so far")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_operator_goes_on_where_it_was() {
    let mut random = random("kills of the operator");
    on_field("killed", 1, async |field| {
        let mut operator = field.operator(&[]).await;
        let mut shop = Shop::open(field).await;
        for _ in 0..KILLS {
            let window = Window::open(field);
            let moment = random.random_range(1..=REQUESTS_MAX);
            tokio::join!(shop.change(), async {
                requests(field, moment).await;
                operator.kill();
                // The next one may be killed before it knows the cluster.
                operator = field.starting_operator(&[]);
            });
            window.close(field, "a kill", shop.objects());
        }
        shop.converged().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_replicas_are_killed() {
    on_field("replicas", 1, async |field| {
        let replica =
            |name: &'static str| [("CAPSTAN_LEASE_NAMESPACE", SYSTEM.into()), ("CAPSTAN_POD", name.into())];
        let mut first = field.operator(&replica("first")).await;
        first.until_logged("active").await;
        let mut second = field.operator(&replica("second")).await;
        let mut shop = Shop::open(field).await;
        let window = Window::open(field);
        shop.change().await;
        requests(field, 1).await;
        first.kill();
        second.until_logged("active").await;
        shop.converged().await;
        shop.change().await;
        requests(field, 1).await;
        second.kill();
        let third = field.operator(&replica("third")).await;
        let fourth = field.operator(&replica("fourth")).await;
        shop.change().await;
        shop.converged().await;
        assert!(third.has_logged("active") != fourth.has_logged("active"), "one of them works");
        window.close(field, "all replicas were killed", 3 * shop.objects());
    })
    .await;
}
