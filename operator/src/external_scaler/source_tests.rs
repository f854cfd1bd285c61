//! Consumers of a world, on Brokers of which something is known.

use std::time::Duration;

use capstan_crds::{Object, parse};
use serde_json::json;

use super::*;

/// A push Consumer `push` of the Queue `orders`, a pull Consumer `pull` of `refunds` on the Broker `other`, and some that have none.
const SHOP: &str = "
apiVersion: capstan.dev/v1alpha1
kind: Queue
metadata: {name: orders, namespace: shop}
---
apiVersion: capstan.dev/v1alpha1
kind: Queue
metadata: {name: refunds, namespace: shop}
spec: {brokerRef: {name: other}}
---
apiVersion: capstan.dev/v1alpha1
kind: Consumer
metadata: {name: push, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {queueRef: {name: orders}, targetRef: {kind: Deployment, name: web}}
---
apiVersion: capstan.dev/v1alpha1
kind: Consumer
metadata: {name: rival, namespace: shop, creationTimestamp: '2026-01-02T00:00:00Z'}
spec: {queueRef: {name: orders}}
---
apiVersion: capstan.dev/v1alpha1
kind: Consumer
metadata: {name: pull, namespace: shop}
spec: {queueRef: {name: refunds}}
---
apiVersion: capstan.dev/v1alpha1
kind: Consumer
metadata: {name: lost, namespace: shop}
spec: {queueRef: {name: nowhere}, targetRef: {kind: Deployment, name: web}}
";

fn key(name: &str) -> Key {
    Key::new("shop", name)
}

fn apply(world: &World, yaml: &str) {
    let mut state = world.write();
    for object in parse(yaml).unwrap() {
        match object {
            Object::Queue(new) => {
                state.queues.insert(Key::of(&new.metadata), Arc::new(*new));
            }
            Object::Consumer(new) => {
                state.consumers.insert(Key::of(&new.metadata), Arc::new(*new));
            }
            other => panic!("not expected here: {other:?}"),
        }
    }
    // As a keeper does.
    state.forget_resolution("shop");
}

struct Known {
    world: Arc<World>,
    demands: demand::Demands,
    source: Source,
}

impl Known {
    fn new() -> Self {
        let (world, demands) = (Arc::new(World::default()), demand::Demands::default());
        apply(&world, SHOP);
        Self { source: Source::new(Arc::clone(&world), demands.clone()), world, demands }
    }

    /// A Broker says what a queue of it has.
    fn hear(&self, broker: &str, queue: &str) {
        self.demands.want(&key(broker));
        let queue = json!({"namespace": "shop", "name": queue, "retained": false, "ready": 5, "delayed": 7, "due_soon": 3,
            "leased": 2, "dead": 0, "bytes": 0, "oldest_ready_age_ms": 2000});
        let changes = json!({"version": "1", "whole": true, "queues": [queue]});
        self.demands.learn(&key(broker), serde_json::from_value(changes).unwrap());
    }

    fn reason(&self, consumer: &str) -> String {
        self.source.of(&key(consumer)).unwrap_err().to_string()
    }
}

#[tokio::test]
async fn push_and_pull_consumers_are_told_of_and_push_ones_shown() {
    let known = Known::new();
    known.hear("default", "orders");
    known.hear("other", "refunds");
    let push = known.source.of(&key("push")).unwrap();
    assert_eq!((push.ready, push.leased, push.due, push.total()), (5, 2, 3, 10));
    assert!(push.oldest_ready.unwrap() >= Duration::from_secs(2));
    assert_eq!(known.source.of(&key("pull")).unwrap().total(), 10);
    let shown = known.source.all();
    let names: Vec<_> = shown.iter().map(|(key, _)| key.name.as_str()).collect();
    assert_eq!(names, ["push"], "`lost` has no queue");
}

#[tokio::test]
async fn why_nothing_is_known_is_told() {
    let known = Known::new();
    known.hear("default", "orders");
    assert_eq!(
        known.reason("none"),
        "there is no such Consumer, or the operator does not work in its namespace"
    );
    assert_eq!(known.reason("lost"), "there is no Queue shop/nowhere");
    assert_eq!(known.reason("rival"), "the Queue shop/orders is consumed by the Consumer push");
    assert_eq!(known.reason("pull"), "the Broker shop/other has not answered for 0 s");
    let queue = "{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {name: nowhere, namespace: shop}}";
    apply(&known.world, queue);
    assert_eq!(known.reason("lost"), "the Broker shop/default does not have the Consumer's queue yet");
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
        let known = Known::new();
        known.hear("default", "orders");
        assert_eq!(known.source.of(&key("push")).unwrap().total(), 10);
        apply(&known.world, object);
        let left = Demand { leased: 2, ..Demand::default() };
        assert_eq!(known.source.of(&key("push")).unwrap(), left);
    }
}
