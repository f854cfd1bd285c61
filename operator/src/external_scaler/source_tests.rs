//! Consumers of a world, on Brokers that are listened to.

use std::time::Duration;

use super::*;
use crate::demand::stage::{Stage, apply, key, running};

struct Known {
    world: Arc<World>,
    source: Source,
}

async fn known() -> Known {
    let Stage { world, streams, .. } = running().await;
    Known { source: Source::new(Arc::clone(&world), streams), world }
}

/// What there is to do for a Consumer, as soon as it is known.
async fn demand(source: &Source, consumer: &str) -> Demand {
    let mut changed = source.changed();
    loop {
        match source.of(&key(consumer)) {
            Ok(demand) => return demand,
            Err(unseen) => assert!(matches!(unseen, Unseen::Unheard { .. }), "{unseen}"),
        }
        changed.changed().await.unwrap();
    }
}

#[tokio::test]
async fn push_and_pull_consumers_are_told_of_and_push_ones_shown() {
    let Known { source, .. } = known().await;
    let push = demand(&source, "push").await;
    assert_eq!((push.ready, push.leased, push.due, push.total()), (5, 2, 3, 10));
    assert!(push.oldest_ready.unwrap() >= Duration::from_secs(2));
    assert_eq!(demand(&source, "pull").await.total(), 10);
    let shown = source.all();
    let names: Vec<_> = shown.iter().map(|(key, _)| key.name.as_str()).collect();
    assert_eq!(names, ["push"], "`lost` has no queue");
}

#[tokio::test]
async fn why_nothing_is_known_is_told() {
    let Known { source, world } = known().await;
    demand(&source, "push").await;
    let reason = |consumer: &str| source.of(&key(consumer)).unwrap_err().to_string();
    assert_eq!(reason("none"), "there is no such Consumer, or the operator does not work in its namespace");
    assert_eq!(reason("lost"), "there is no Queue shop/nowhere");
    assert_eq!(reason("rival"), "the Queue shop/orders is consumed by the Consumer push");
    assert_eq!(reason("pull"), "the Broker shop/other has not answered for 0 s");
    let queue = "{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {name: nowhere, namespace: shop}}";
    apply(&world, queue);
    assert_eq!(reason("lost"), "the Broker shop/default does not have the Consumer's queue yet");
}

#[tokio::test]
async fn while_delivery_is_paused_only_what_pods_have_is_to_be_done() {
    let paused = "
apiVersion: capstan.dev/v1alpha1
kind: Consumer
metadata: {name: push, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {queueRef: {name: orders}, targetRef: {kind: Deployment, name: web}, paused: true}
";
    let whole = "
apiVersion: capstan.dev/v1alpha1
kind: Queue
metadata: {name: orders, namespace: shop}
spec: {delivery: Paused}
";
    for object in [paused, whole] {
        let Known { source, world } = known().await;
        assert_eq!(demand(&source, "push").await.total(), 10);
        apply(&world, object);
        assert_eq!(demand(&source, "push").await, Demand { leased: 2, ..Demand::default() });
    }
}
