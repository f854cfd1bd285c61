//! Brokers behind real sockets, and a world that says which of them store whose queues.

use axum::extract::{Query, State as Shared};
use axum::routing::get;
use axum::{Json, Router};
use capstan_api::control::CHANGES_PATH;
use capstan_crds::{Object, parse};
use tokio::net::TcpListener;

use super::super::known::tests::changes;
use super::*;

/// A push Consumer `push` of the Queue `orders`, a pull Consumer `pull` of `refunds` on the Broker `other`, and some that have none.
const SHOP: &str = "
apiVersion: capstan.dev/v1alpha1
kind: Broker
metadata: {name: default, namespace: shop}
---
apiVersion: capstan.dev/v1alpha1
kind: Broker
metadata: {name: other, namespace: shop}
---
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
    for object in parse(yaml).unwrap() {
        let mut state = world.write();
        match object {
            Object::Broker(new) => {
                state.brokers.insert(Key::of(&new.metadata), Arc::new(*new));
            }
            Object::Queue(new) => {
                state.queues.insert(Key::of(&new.metadata), Arc::new(*new));
            }
            Object::Consumer(new) => {
                state.consumers.insert(Key::of(&new.metadata), Arc::new(*new));
            }
            other => panic!("not expected here: {other:?}"),
        }
        // As a keeper does.
        state.forget_resolution("shop");
    }
}

#[derive(serde::Deserialize)]
struct Asked {
    since: String,
}

/// Says of both queues what it is made with, once, and then nothing more.
async fn answer(Shared(queue): Shared<&'static str>, Query(asked): Query<Asked>) -> Json<Changes> {
    if !asked.since.is_empty() {
        return std::future::pending().await;
    }
    Json(changes(true, &[(queue, 5, 2)]))
}

async fn broker(queue: &'static str) -> ControlClient {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = ControlClient::new(&format!("http://{}", socket.local_addr().unwrap())).unwrap();
    let router = Router::new().route(CHANGES_PATH, get(answer)).with_state(queue);
    tokio::spawn(async move { axum::serve(socket, router).await });
    client
}

/// Streams of the Brokers of [`SHOP`], running, and what is told of queues.
async fn running() -> (Arc<Streams>, Arc<Mutex<Vec<String>>>) {
    let world = Arc::new(World::default());
    apply(&world, SHOP);
    let (default, other) = (broker("orders").await, broker("refunds").await);
    let told = Arc::new(Mutex::new(Vec::new()));
    let nudged = Arc::clone(&told);
    let nudge = move |_: &Key, queues: &[Key]| {
        nudged.lock().unwrap().extend(queues.iter().map(|queue| queue.name.clone()));
    };
    let streams = Arc::new(Streams::new(world, Box::new(nudge)));
    let reach = move |key: &Key| Ok(if key.name == "default" { default.clone() } else { other.clone() });
    tokio::spawn(Arc::clone(&streams).run(Arc::new(reach)));
    (streams, told)
}

/// What there is to do for a Consumer, as soon as it is known.
async fn demand(streams: &Streams, consumer: &str) -> Demand {
    let mut changed = streams.changed();
    loop {
        match streams.of(&key(consumer)) {
            Ok(demand) => return demand,
            Err(unseen) => assert!(matches!(unseen, Unseen::Unheard { .. }), "{unseen}"),
        }
        changed.changed().await.unwrap();
    }
}

#[tokio::test]
async fn brokers_of_push_consumers_are_listened_to_and_others_when_asked_about() {
    let (streams, told) = running().await;
    let mut changed = streams.changed();
    changed.changed().await.unwrap();
    assert_eq!(*told.lock().unwrap(), ["orders"], "nobody asked about the other");
    let seen = streams.all();
    assert_eq!(seen.iter().map(|(key, _)| key.name.as_str()).collect::<Vec<_>>(), ["push"]);
    let push = demand(&streams, "push").await;
    assert_eq!((push.ready, push.leased, push.due, push.total()), (5, 2, 3, 10));
    assert!(push.oldest_ready.unwrap() >= Duration::from_secs(2));
    assert_eq!(demand(&streams, "pull").await.total(), 10);
    assert_eq!(*told.lock().unwrap(), ["orders", "refunds"]);
}

#[tokio::test]
async fn why_nothing_is_known_is_told() {
    let (streams, _) = running().await;
    demand(&streams, "push").await;
    let reason = |consumer: &str| streams.of(&key(consumer)).unwrap_err().to_string();
    assert_eq!(reason("none"), "there is no such Consumer, or the operator does not work in its namespace");
    assert_eq!(reason("lost"), "there is no Queue shop/nowhere");
    assert_eq!(reason("rival"), "the Queue shop/orders is consumed by the Consumer push");
    assert_eq!(reason("pull"), "the Broker shop/other has not answered for 0 s");
    apply(
        &streams.world,
        "
apiVersion: capstan.dev/v1alpha1
kind: Queue
metadata: {name: nowhere, namespace: shop}
",
    );
    assert_eq!(reason("lost"), "the Broker shop/default does not have the Consumer's queue yet");
}

#[tokio::test]
async fn while_delivery_is_paused_only_what_pods_have_is_to_be_done() {
    let (streams, _) = running().await;
    assert_eq!(demand(&streams, "push").await.total(), 10);
    apply(
        &streams.world,
        "
apiVersion: capstan.dev/v1alpha1
kind: Consumer
metadata: {name: push, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {queueRef: {name: orders}, targetRef: {kind: Deployment, name: web}, paused: true}
",
    );
    assert_eq!(demand(&streams, "push").await, Demand { leased: 2, ..Demand::default() });
}

#[tokio::test]
async fn a_broker_that_is_gone_is_left_alone() {
    let (streams, _) = running().await;
    demand(&streams, "push").await;
    streams.world.write().brokers.remove(&key("default"));
    assert!(!streams.wanted(now()).contains(&key("default")));
    let later = now() + ASKED_FOR;
    demand(&streams, "pull").await;
    assert!(streams.wanted(now()).contains(&key("other")));
    assert!(streams.wanted(later + Duration::from_secs(60)).is_empty(), "nobody asked for ten minutes");
}
