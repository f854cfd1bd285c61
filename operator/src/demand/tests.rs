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

pub(crate) fn key(name: &str) -> Key {
    Key::new("shop", name)
}

pub(crate) fn apply(world: &World, yaml: &str) {
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

/// Streams of the Brokers of [`SHOP`], running.
pub(crate) struct Stage {
    pub(crate) world: Arc<World>,
    pub(crate) streams: Arc<Streams>,
    /// The queues of which there was news.
    told: Arc<Mutex<Vec<String>>>,
}

pub(crate) async fn running() -> Stage {
    let world = Arc::new(World::default());
    apply(&world, SHOP);
    let (default, other) = (broker("orders").await, broker("refunds").await);
    let told = Arc::new(Mutex::new(Vec::new()));
    let nudged = Arc::clone(&told);
    let nudge = move |_: &Key, queues: &[Key]| {
        nudged.lock().unwrap().extend(queues.iter().map(|queue| queue.name.clone()));
    };
    let streams = Arc::new(Streams::new(Arc::clone(&world), Box::new(nudge)));
    let reach = move |key: &Key| Ok(if key.name == "default" { default.clone() } else { other.clone() });
    tokio::spawn(Arc::clone(&streams).run(Arc::new(reach)));
    Stage { world, streams, told }
}

/// What a Broker says of a queue, as soon as it is heard.
async fn seen(streams: &Streams, broker: &str, queue: &str) -> Sight {
    let mut changed = streams.changed();
    loop {
        match streams.queue(&key(broker), &key(queue)) {
            Sight::Unheard { .. } => changed.changed().await.unwrap(),
            sight => return sight,
        }
    }
}

#[tokio::test]
async fn brokers_of_push_consumers_are_listened_to_and_others_when_asked_about() {
    let Stage { streams, told, .. } = running().await;
    let mut changed = streams.changed();
    changed.changed().await.unwrap();
    assert_eq!(*told.lock().unwrap(), ["orders"], "nobody asked about the other");
    let Sight::Seen { backlog, .. } = seen(&streams, "default", "orders").await else { panic!() };
    assert_eq!((backlog.ready, backlog.leased, backlog.due_soon), (5, 2, 3));
    assert_eq!(seen(&streams, "default", "refunds").await, Sight::Missing);
    assert!(matches!(seen(&streams, "other", "refunds").await, Sight::Seen { .. }));
    assert_eq!(*told.lock().unwrap(), ["orders", "refunds"]);
}

#[tokio::test]
async fn a_broker_that_is_gone_is_left_alone() {
    let Stage { streams, world, .. } = running().await;
    seen(&streams, "default", "orders").await;
    world.write().brokers.remove(&key("default"));
    assert!(!streams.wanted(now()).contains(&key("default")));
    seen(&streams, "other", "refunds").await;
    assert!(streams.wanted(now()).contains(&key("other")));
    let later = now() + ASKED_FOR + Duration::from_secs(60);
    assert!(streams.wanted(later).is_empty(), "nobody asked for ten minutes");
}
