//! Pods of a workload: who has what, and that one that retires gets nothing more.

use std::cell::Cell;
use std::time::{Duration, Instant};

use capstan_api::control::{PodState, Pods, RETIRING_MS_MAX, Retiring};
use capstan_api::message::{Lease, Pull, Pulled, Settle};
use capstan_api::number::Whole;
use capstan_api::workload::Workload;
use capstan_api::{Client, ClientError};
use e2e::process::Broker;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::fixture::{DEADLINE, Fixture, NAMESPACE, message_of, name, queue, until};

/// Longer than any of these tests may take.
const LONG: u64 = 60_000;

fn workload() -> Workload {
    "Deployment/shop".parse().unwrap()
}

/// A queue that the workload consumes.
fn pushed(name: &str) -> Value {
    let push = json!({
        "workload": { "kind": "Deployment", "name": "shop" },
        "endpoint": { "port": 8080, "path": "/", "timeout_ms": 60_000 },
        "max_batch_size": 10, "max_batch_bytes": 1000, "max_wait_ms": 0, "concurrency_per_pod": 1,
    });
    queue(name, 3, json!({ "consumer": { "push": push, "visibility_timeout_ms": 600_000 } }))
}

/// The sidecar of a pod.
fn sidecar(fixture: &Fixture, pod: &str) -> Client {
    fixture.broker.client().with_identity(workload(), pod)
}

/// A pull for one message.
fn pull(client: &Client, queue: &str, idle_ms: u64) -> JoinHandle<Result<Pulled, ClientError>> {
    let wish = Pull { batch_size: Some(Whole(1)), idle_ms: Some(Whole(idle_ms)), ..Pull::default() };
    let (client, queue) = (client.clone(), name(queue));
    tokio::spawn(async move { client.pull(&name(NAMESPACE), &queue, &wish).await })
}

async fn leases(pull: JoinHandle<Result<Pulled, ClientError>>) -> Vec<String> {
    let pulled = tokio::time::timeout(DEADLINE / 2, pull).await.expect("an answer in time").unwrap().unwrap();
    pulled.messages.into_iter().map(|one| one.lease_id).collect()
}

async fn ack(client: &Client, queue: &str, leases: &[String]) {
    let acks = leases.iter().map(|lease| Lease { lease_id: lease.clone() }).collect();
    let settle = Settle { acks, ..Settle::default() };
    client.settle(&name(NAMESPACE), &name(queue), &settle).await.unwrap();
}

async fn pods(fixture: &Fixture) -> Pods {
    fixture.control.pods(NAMESPACE, &workload()).await.unwrap()
}

async fn retire(fixture: &Fixture, pods: &[&str], for_ms: u64) -> Pods {
    let retiring = Retiring { pods: pods.iter().map(|pod| (*pod).to_owned()).collect(), for_ms };
    fixture.control.retire(NAMESPACE, &workload(), &retiring).await.unwrap()
}

fn state(name: &str, leased: u64, waiting: u32, retiring: bool) -> PodState {
    PodState { name: name.to_owned(), leased, waiting, retiring }
}

async fn waits(fixture: &Fixture, pod: &str, waiting: u32) {
    let look = async || {
        pods(fixture).await.pods.iter().any(|one| one.name == pod && one.waiting == waiting).then_some(())
    };
    until(&format!("{waiting} pulls of {pod} wait"), look).await;
}

#[tokio::test]
async fn a_pod_that_retires_gets_nothing_more_and_another_gets_all() {
    let fixture = Fixture::new(&[pushed("orders"), pushed("mails")]).await;
    let (one, two) = (sidecar(&fixture, "shop-1"), sidecar(&fixture, "shop-2"));
    assert_eq!(pods(&fixture).await, Pods::default());
    for queue in ["orders", "mails"] {
        fixture.send(queue, json!({ "body": 1 })).await;
    }
    let (orders, mails) = (leases(pull(&one, "orders", LONG)).await, leases(pull(&one, "mails", LONG)).await);
    let waiting = pull(&one, "orders", LONG);
    waits(&fixture, "shop-1", 1).await;
    let retired = retire(&fixture, &["shop-1", "shop-1", "shop-3"], LONG).await;
    let expected = vec![state("shop-1", 2, 1, true), state("shop-3", 0, 0, true)];
    assert_eq!(retired, Pods { pods: expected, leased_elsewhere: 0 });

    for _ in 0..5 {
        fixture.send("orders", json!({ "body": 2 })).await;
    }
    assert!(leases(pull(&one, "orders", 0)).await.is_empty());
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.extend(leases(pull(&two, "orders", LONG)).await);
    }
    assert_eq!(taken.len(), 5);
    assert!(!waiting.is_finished(), "it waits on");
    assert_eq!(
        pods(&fixture).await.pods,
        [state("shop-1", 2, 1, true), state("shop-2", 5, 0, false), state("shop-3", 0, 0, true)]
    );

    // What it has it may finish.
    ack(&one, "orders", &orders).await;
    ack(&one, "mails", &mails).await;
    ack(&two, "orders", &taken).await;
    assert_eq!(pods(&fixture).await.pods, [state("shop-1", 0, 1, true), state("shop-3", 0, 0, true)]);

    // Another list ends it, without a message that comes.
    fixture.send("orders", json!({ "body": 3 })).await;
    let retired = retire(&fixture, &[], 0).await;
    assert!(retired.pods.iter().all(|pod| !pod.retiring), "{retired:?}");
    assert_eq!(leases(waiting).await.len(), 1);
    assert_eq!(pods(&fixture).await.pods, [state("shop-1", 1, 0, false)]);
}

#[tokio::test]
async fn a_retirement_ends_by_time_and_with_the_broker() {
    let fixture = Fixture::new(&[pushed("orders")]).await;
    let one = sidecar(&fixture, "shop-1");
    fixture.send("orders", json!({ "body": 1 })).await;
    let began = Instant::now();
    retire(&fixture, &["shop-1"], 1_500).await;
    assert_eq!(leases(pull(&one, "orders", LONG)).await.len(), 1);
    let after = began.elapsed();
    assert!(after >= Duration::from_millis(1_300), "{after:?}: the broker's time may be a little faster");
    assert!(after < Duration::from_secs(15), "{after:?}");

    // Leases are kept over a restart, and nobody knows then who has them.
    fixture.send("orders", json!({ "body": 2 })).await;
    retire(&fixture, &["shop-1"], RETIRING_MS_MAX).await;
    let fixture = fixture.again(Broker::kill);
    assert_eq!(pods(&fixture).await, Pods { pods: Vec::new(), leased_elsewhere: 1 });
    let other = fixture.control.pods(NAMESPACE, &"StatefulSet/shop".parse().unwrap()).await.unwrap();
    assert_eq!(other, Pods::default(), "of another workload");
    let one = sidecar(&fixture, "shop-1");
    assert_eq!(leases(pull(&one, "orders", 0)).await.len(), 1, "it retires no more");
    let expected = Pods { pods: vec![state("shop-1", 1, 0, false)], leased_elsewhere: 1 };
    assert_eq!(pods(&fixture).await, expected);
}

/// Pulls and acknowledges as long as it lives, with several pulls at once.
fn consume(fixture: &Fixture, pod: &str) -> Vec<JoinHandle<()>> {
    let slot = || {
        let client = sidecar(fixture, pod);
        tokio::spawn(async move {
            loop {
                let taken = leases(pull(&client, "orders", 1_000)).await;
                ack(&client, "orders", &taken).await;
            }
        })
    };
    (0..4).map(|_| slot()).collect()
}

#[tokio::test]
async fn under_load_a_pod_that_retires_is_leased_nothing_from_the_answer_on() {
    let fixture = Fixture::new(&[pushed("orders")]).await;
    let names = ["shop-1", "shop-2", "shop-3"];
    let mut tasks: Vec<_> = names.iter().flat_map(|pod| consume(&fixture, pod)).collect();
    let producer = fixture.broker.client();
    tasks.push(tokio::spawn(async move {
        loop {
            let message = message_of(&json!({ "body": 1 }));
            producer.send(&name(NAMESPACE), &name("orders"), &message).await.unwrap();
        }
    }));
    let leased =
        |pods: &Pods, name: &str| pods.pods.iter().find(|pod| pod.name == name).map_or(0, |pod| pod.leased);
    for round in 0..9 {
        let pod = names[round % names.len()];
        let retired = retire(&fixture, &[pod], LONG).await;
        assert!(retired.pods.iter().all(|one| one.retiring == (one.name == pod)), "{retired:?}");
        let before = Cell::new(leased(&retired, pod));
        let began = fixture.queue("orders").await.totals.delivered;
        // It only gets less, and the others go on.
        let goes_on = async || {
            let now = leased(&pods(&fixture).await, pod);
            let before = before.replace(now);
            assert!(now <= before, "{pod} had {before} leases, and has {now}");
            (now == 0 && fixture.queue("orders").await.totals.delivered > began + 50).then_some(())
        };
        until("it has nothing, and others have more", goes_on).await;
    }
    for task in tasks {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled(), "it failed");
    }
}

/// A hundred workloads with as many pods as a list may have are all that may retire at once.
#[tokio::test]
async fn retiring_pods_are_bounded_over_all_workloads() {
    let fixture = Fixture::new(&[pushed("orders")]).await;
    let list = || Retiring { pods: (0..1_000).map(|pod| format!("shop-{pod}")).collect(), for_ms: 600_000 };
    let of = |number: usize| format!("Deployment/shop-{number}").parse::<Workload>().unwrap();
    for number in 0..100 {
        let pods = fixture.control.retire(NAMESPACE, &of(number), &list()).await.unwrap();
        assert_eq!(pods.pods.len(), 1_000);
        assert!(pods.pods.is_sorted_by_key(|pod| &pod.name) && pods.pods.iter().all(|pod| pod.retiring));
    }
    let one = Retiring { pods: vec!["shop-1".to_owned()], for_ms: 1_000 };
    let refused = fixture.control.retire(NAMESPACE, &of(100), &one).await.unwrap_err();
    assert_eq!(refused.code(), Some(10250), "{refused}");
    assert!(refused.to_string().contains("100000"), "{refused}");
    // In place of its own list there is room, and then for others.
    fixture.control.retire(NAMESPACE, &of(7), &one).await.unwrap();
    fixture.control.retire(NAMESPACE, &of(100), &one).await.unwrap();
}

/// Its sidecar has asked, and died: the answer is nobody's.
#[tokio::test]
async fn a_pod_that_dies_while_it_waits_is_forgotten() {
    let fixture = Fixture::new(&[pushed("orders")]).await;
    let waiting = pull(&sidecar(&fixture, "shop-1"), "orders", LONG);
    waits(&fixture, "shop-1", 1).await;
    waiting.abort();
    let gone = async || pods(&fixture).await.pods.is_empty().then_some(());
    until("its pull is gone", gone).await;
}
