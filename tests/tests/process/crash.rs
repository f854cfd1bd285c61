//! `kill -9` in a loop, under load: what was answered is kept, nothing else appears, and what is repeated with its key is
//! stored once.

mod history;
mod load;
mod sniper;

use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::process::{Broker, Starting, progress};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::fixture::{declaration, queue};
use history::History;
use load::{Consumer, Moment, NAMESPACE, Producer, Target};

/// Of the suite; `CAPSTAN_KILLS` takes another number for a long run.
const KILLS: usize = 200;
const PRODUCERS: u32 = 8;
const CONSUMERS: u32 = 2;
const MAX_RETRIES: u32 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_and_make_nothing_up() {
    let seed = number("CAPSTAN_SEED").unwrap_or_else(rand::random);
    let kills = number("CAPSTAN_KILLS").map_or(KILLS, |kills| usize::try_from(kills).unwrap());
    progress(&format!("crash: seed {seed} (CAPSTAN_SEED={seed} makes the same choices again)"));
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path());
    let consumer = json!({"dead_letter_queue": "letters", "visibility_timeout_ms": 2_000});
    let queues = [
        queue("orders", MAX_RETRIES, json!({ "namespace": NAMESPACE, "consumer": consumer })),
        queue("letters", 0, json!({ "namespace": NAMESPACE })),
    ];
    broker.control().declare(&declaration("1", &queues)).await.unwrap();

    let (history, target) = (Arc::new(History::default()), Target::new(&broker));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|number| tokio::spawn(Producer::new(number, seed, &history, &target).run()))
        .collect();
    let consumers: Vec<_> = (0..CONSUMERS)
        .map(|number| tokio::spawn(Consumer::new(number, seed, &history, &target).run()))
        .collect();
    let mut random = StdRng::seed_from_u64(seed);
    let mut broker = Some(broker);
    for kill in 1..=kills {
        let load = Duration::from_millis(random.random_range(20..220));
        tokio::time::sleep(load).await;
        kill_under(&target, broker.take().unwrap(), kill, &history).await;
        // Every fifth time the next process is killed too, somewhere in its recovery.
        if kill % 5 == 0 {
            let starting = Starting::spawn(folder.path());
            tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
            starting.kill();
        }
        let next = tokio::task::block_in_place(|| Broker::start(folder.path()));
        target.point_at(&next);
        broker = Some(next);
        if kill % 50 == 0 {
            progress(&format!("crash: {kill} of {kills} kills, {history}"));
        }
    }
    target.stop_sending();
    for producer in producers {
        producer.await.unwrap();
    }
    progress("crash: emptying the queues");
    target.drain();
    for consumer in consumers {
        consumer.await.unwrap();
    }
    let broker = broker.unwrap();
    load::empty(&broker, "letters", &history).await;
    for queue in broker.control().state().await.unwrap().queues {
        let counts = [queue.ready, queue.delayed, queue.leased, queue.dead, queue.bytes];
        assert_eq!(counts, [0; 5], "{queue:?}");
    }
    progress(&format!("crash: {history}"));
    history.check(MAX_RETRIES);
    broker.stop();
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Kills a broker, in turn at any moment and at the moment of an answer: what it says then must be on disk already.
async fn kill_under(target: &Target, mut broker: Broker, kill: usize, history: &History) {
    match kill % 4 {
        0 => {}
        1 => await_trap(target, Moment::Stored, &mut broker).await,
        2 => await_trap(target, Moment::Settled, &mut broker).await,
        _ => tokio::task::block_in_place(|| sniper::shoot(&broker, u32::try_from(kill).unwrap(), history)),
    }
    target.lost();
    broker.kill();
}

/// Lets the client kill it that gets such an answer next.
async fn await_trap(target: &Target, moment: Moment, broker: &mut Broker) {
    target.kill_at(moment, broker.killer());
    let waited = Instant::now();
    while broker.is_running() && waited.elapsed() < Duration::from_secs(1) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    target.disarm();
}
