//! Pods that have leases, that wait, and that retire; and what tells how many there should be.

use capstan_api::control::{PodState, Pods, QueuePolicy};

use super::*;

/// Longer than any of these tests.
const LONG: u64 = 600_000;

fn owner() -> Owner {
    super::super::holders::tests::owner("a")
}

/// The queue of the other tests, consumed by a workload.
fn pushed(more: &serde_json::Value) -> QueuePolicy {
    let mut document = serde_json::to_value(document()).unwrap();
    document["consumer"]["push"] = serde_json::json!({
        "workload": { "kind": "Deployment", "name": "a" },
        "endpoint": { "port": 8080, "path": "/", "timeout_ms": 60_000 },
        "max_batch_size": 10, "max_batch_bytes": 1000, "max_wait_ms": 0, "concurrency_per_pod": 1,
    });
    document["delivery_paused"] = more["delivery_paused"].as_bool().unwrap_or_default().into();
    serde_json::from_value(document).unwrap()
}

impl Running {
    async fn start_pods() -> Self {
        let run = Self::start(NO_WAIT).await;
        run.push(&serde_json::json!({})).await;
        run
    }

    async fn push(&self, more: &serde_json::Value) {
        let document = pushed(more);
        let queues = vec![DeclaredQueue {
            label: "shop/orders".to_owned(),
            policy: crate::policy::translate(&document),
            document: serde_json::to_vec(&document).unwrap(),
        }];
        let declaration = Declaration { revision: more.to_string(), declarer: String::new(), queues };
        self.engine.apply(Command::Declare(declaration), None).await.unwrap();
    }

    /// A pull of a pod for one message, on its own task.
    fn pull_as(&self, pod: &str, idle: u64) -> tokio::task::JoinHandle<Result<Outcome, Unavailable>> {
        let (engine, puller) = (self.engine.clone(), Puller { owner: owner(), pod: pod.to_owned() });
        let pull =
            Pull { queue: self.queue, count: 1, bytes: u64::MAX, lease: None, holder: Holder::UNKNOWN };
        tokio::spawn(async move { engine.pull(pull, Some(puller), 0, idle).await })
    }

    async fn retire(&self, pods: &[&str], lasts: u64) -> Pods {
        let pods = pods.iter().map(|pod| (*pod).to_owned()).collect();
        self.engine.retire(owner(), pods, lasts).await.unwrap().unwrap()
    }

    async fn pods(&self) -> Pods {
        self.engine.pods(owner()).await.unwrap()
    }

    /// Waits until so many pulls of each pod wait.
    async fn wait_for(&self, waiting: &[(&str, u32)]) {
        let began = Instant::now();
        loop {
            let pods = self.pods().await.pods;
            let waits = pods.iter().filter(|pod| pod.waiting > 0).map(|pod| (pod.name.as_str(), pod.waiting));
            if waits.eq(waiting.iter().copied()) {
                return;
            }
            assert!(began.elapsed() < DEADLINE, "{pods:?} are not {waiting:?}");
            tokio::task::yield_now().await;
        }
    }
}

fn state(name: &str, leased: u64, waiting: u32, retiring: bool) -> PodState {
    PodState { name: name.to_owned(), leased, waiting, retiring }
}

async fn answer(pull: tokio::task::JoinHandle<Result<Outcome, Unavailable>>) -> Vec<Delivered> {
    delivered(tokio::time::timeout(DEADLINE, pull).await.expect("an answer in time").unwrap())
}

#[tokio::test]
async fn a_pod_that_retires_is_leased_nothing_and_another_all() {
    let run = Running::start_pods().await;
    run.send(1).await.unwrap().unwrap();
    assert_eq!(answer(run.pull_as("one", 0)).await.len(), 1);
    let first = run.pull_as("one", LONG);
    run.wait_for(&[("one", 1)]).await;
    let retired = run.retire(&["one", "two"], LONG).await;
    assert_eq!(retired.pods, [state("one", 1, 1, true), state("two", 0, 0, true)]);
    assert_eq!(retired.leased_elsewhere, 0);

    // One that waits already, and one that comes now; they get nothing while there is something.
    let second = run.pull_as("one", LONG);
    run.wait_for(&[("one", 2)]).await;
    run.send(1).await.unwrap().unwrap();
    assert!(answer(run.pull_as("two", 0)).await.is_empty(), "its time is over at once");
    assert!(answer(run.pull_as("two", 50)).await.is_empty());
    assert_eq!(run.look().await.ready, 1);
    let taken = answer(run.pull_as("three", 0)).await;
    assert_eq!(taken.len(), 1);
    let unnamed = run.pull_now().await;
    assert!(unnamed.is_empty() && !first.is_finished() && !second.is_finished());
    assert_eq!(
        run.pods().await.pods,
        [state("one", 1, 2, true), state("three", 1, 0, false), state("two", 0, 0, true)]
    );

    // Who retires no more is served at once.
    let retired = run.retire(&["two"], LONG).await;
    assert_eq!(retired.pods[0], state("one", 1, 2, false));
    run.send(1).await.unwrap().unwrap();
    assert_eq!(answer(first).await.len(), 1);
    assert!(!second.is_finished());
    let acks = vec![taken[0].lease];
    run.settle(Settle { queue: run.queue, acks, retries: Vec::new(), releases: Vec::new() })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(run.pods().await.pods, [state("one", 2, 1, false), state("two", 0, 0, true)]);
}

#[tokio::test]
async fn a_retirement_ends_by_time() {
    let run = Running::start_pods().await;
    run.retire(&["one"], 300).await;
    run.send(1).await.unwrap().unwrap();
    let waits = run.pull_as("one", LONG);
    assert_eq!(answer(waits).await.len(), 1, "nothing else wakes it");
    assert_eq!(run.pods().await.pods, [state("one", 1, 0, false)]);
    assert_eq!(run.retire(&["two"], 0).await.pods, [state("one", 1, 0, false)], "it is over at once");
}

#[tokio::test]
async fn a_pod_that_retires_learns_that_delivery_is_paused() {
    let run = Running::start_pods().await;
    run.retire(&["one"], LONG).await;
    let waits = run.pull_as("one", LONG);
    run.wait_for(&[("one", 1)]).await;
    run.push(&serde_json::json!({ "delivery_paused": true })).await;
    let outcome = tokio::time::timeout(DEADLINE, waits).await.unwrap().unwrap().unwrap();
    assert_eq!(outcome.reply, Reply::Refused(capstan_core::Refusal::DeliveryPaused));
}

#[tokio::test]
async fn leases_of_nobody_are_counted_and_pods_that_have_nothing_are_forgotten() {
    let run = Running::start_pods().await;
    for _ in 0..3 {
        run.send(1).await.unwrap().unwrap();
    }
    assert_eq!(answer(run.pull_as("one", 0)).await.len(), 1);
    assert_eq!(run.pull_now().await.len(), 2);
    for pod in 0..3_000 {
        assert!(answer(run.pull_as(&format!("pod-{pod}"), 0)).await.is_empty());
    }
    let pods = run.pods().await;
    assert_eq!((pods.pods, pods.leased_elsewhere), (vec![state("one", 1, 0, false)], 2));
    let other = run.engine.pods(super::super::holders::tests::owner("b")).await.unwrap();
    assert_eq!(other, Pods::default(), "of another workload");
}

#[tokio::test]
async fn changes_tell_how_long_the_oldest_waits_and_in_how_many_batches_others_are() {
    let run = Running::start_pods().await;
    for _ in 0..3 {
        run.send(1).await.unwrap().unwrap();
    }
    for pod in ["one", "two"] {
        assert_eq!(answer(run.pull_as(pod, 0)).await.len(), 1);
    }
    let changed = run.engine.changes(None).await.unwrap().queues.remove(0);
    assert_eq!((changed.ready, changed.leased, changed.batches), (1, 2, 2));
    assert!(changed.oldest_ready_age_ms.is_some_and(|age| age < 30_000), "{changed:?}");
    let look = run.look().await;
    assert_eq!((look.batches, look.oldest_ready_age_ms), (2, None));
    assert_eq!(run.pull_now().await.len(), 1);
    let changed = run.engine.changes(None).await.unwrap().queues.remove(0);
    assert_eq!((changed.batches, changed.oldest_ready_age_ms), (3, None), "none is ready");
}

#[tokio::test]
async fn what_is_due_soon_is_known_while_somebody_asks() {
    let run = Running::start_pods().await;
    let send = |delay| {
        let (content_type, attributes) = (ContentType::Bytes, Vec::new());
        let items = vec![SendItem { delay: Some(delay), content_type, attributes, body: Vec::new() }];
        let send = Command::Send(Send { queue: run.queue, items, idempotency: None });
        let engine = run.engine.clone();
        async move { engine.apply(send, None).await.unwrap() }
    };
    send(9_000).await;
    send(LONG).await;
    assert_eq!((run.look().await.delayed, run.look().await.due_soon), (2, 0), "nobody asks");
    let mut versions = run.engine.subscribe();
    let changed = run.engine.changes(None).await.unwrap();
    assert_eq!((changed.queues[0].delayed, changed.queues[0].due_soon), (2, 1));
    // One that comes near by time alone raises the version.
    let known = *versions.borrow_and_update();
    send(10_500).await;
    let sent = run.engine.changes(Some(known)).await.unwrap();
    assert_eq!((sent.queues[0].delayed, sent.queues[0].due_soon), (3, 1));
    let near = versions.wait_for(|version| version.number > sent.version.number);
    tokio::time::timeout(DEADLINE, near).await.expect("it is told").unwrap();
    let changed = run.engine.changes(Some(sent.version)).await.unwrap();
    assert_eq!((changed.queues[0].delayed, changed.queues[0].due_soon), (3, 2));
}
