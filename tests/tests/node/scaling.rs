//! Pods come with the work and go with it: from zero and back, in time for what is delayed, and at no message's cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use e2e::cluster::{BrokerAccess, Cluster, Entries, LONG, Namespace, SHORT, Turn, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};

use crate::fixture::{PODS, is_rolled_out, until_consuming};
use crate::subject::{Subject, orders, send_while, until_handled};

/// Messages of the burst, and how long each takes.
const BURST: usize = 2000;
const TAKES_MS: u64 = 50;
/// What the burst asks for: 2,000 / 500.
const PEAK: i32 = 4;
/// How often a message comes that is handled at once, and for how long: idlePeriod is between them.
const SPARSE: Duration = Duration::from_secs(4);
const SPARSE_FOR: Duration = Duration::from_secs(25);
/// The annotation by which a ReplicaSet chooses.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// A delay that is longer than pods are woken ahead of time.
const DELAY: Duration = Duration::from_secs(25);
/// How long before it is due a message wakes its Consumer, with a second for the clocks of those who look.
const AHEAD: Duration = Duration::from_secs(11);

const SLEEPER: Subject = Subject {
    replicas: 0,
    batch: 1,
    consumer: "scaling: {minReplicas: 0, maxReplicas: 6, backlogPerReplica: 500, scaleDownStabilization: 5s, idlePeriod: 10s}",
    ..Subject::DEFAULT
};

/// The smallest and the largest number of pods that the Deployment asked for since it was watched.
struct Extremes {
    seen: Arc<[AtomicI32; 2]>,
    task: tokio::task::JoinHandle<()>,
}

impl Extremes {
    fn watch(namespace: &Namespace) -> Self {
        let seen = Arc::new([AtomicI32::new(i32::MAX), AtomicI32::new(0)]);
        let (extremes, api) = (Arc::clone(&seen), namespace.api::<Deployment>());
        let task = tokio::spawn(async move {
            use futures::StreamExt;
            let config = Config::default().fields("metadata.name=orders");
            let mut events = watcher(api, config).default_backoff().applied_objects().boxed();
            while let Some(event) = events.next().await {
                let Some(replicas) = event.ok().and_then(|one| one.spec.replicas) else { continue };
                extremes[0].fetch_min(replicas, Ordering::Relaxed);
                extremes[1].fetch_max(replicas, Ordering::Relaxed);
            }
        });
        Self { seen, task }
    }

    fn end(self) -> [i32; 2] {
        self.task.abort();
        [0, 1].map(|end| self.seen[end].load(Ordering::Relaxed))
    }
}

/// Waits until the Deployment asks for a number of pods; since when it was waited.
async fn until_replicas(namespace: &Namespace, what: &str, accept: impl Fn(i32) -> bool) -> Duration {
    let start = Instant::now();
    let check = |deployment: &Deployment| {
        let replicas = deployment.spec.replicas.unwrap_or(1);
        if accept(replicas) { Ok(()) } else { Err(format!("{replicas} replicas")) }
    };
    namespace.wait_for::<Deployment>("orders", what, LONG, check).await;
    start.elapsed()
}

async fn until_asleep(namespace: &Namespace) {
    let took = until_replicas(namespace, "sleeps", |replicas| replicas == 0).await;
    println!("asleep after {:.1} s", took.as_secs_f64());
    until("its pods are gone", LONG, async || {
        let pods = namespace.pods(PODS).await.len();
        if pods == 0 { Ok(()) } else { Err(format!("{pods} are there")) }
    })
    .await;
}

#[tokio::test]
async fn from_zero_to_the_peak_and_back() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "burst", async |namespace| {
        SLEEPER.run(namespace).await;
        let broker = BrokerAccess::of(namespace);
        until_asleep(namespace).await;

        let extremes = Extremes::watch(namespace);
        let mut sent = broker.send("orders", &orders(BURST, TAKES_MS)).await;
        until_handled(namespace, &broker).await.assert_once(&sent);
        assert_eq!(extremes.end()[1], PEAK, "as the formula says");
        until_asleep(namespace).await;

        // One message to a sleeping Consumer, and where the time goes.
        let start = Instant::now();
        sent.extend(broker.send_now("orders", &orders(1, 0)).await);
        let requested = until_replicas(namespace, "was woken", |replicas| replicas == 1).await;
        namespace.wait_for::<Deployment>("orders", "has its pod ready", LONG, is_rolled_out).await;
        let ready = start.elapsed();
        until_handled(namespace, &broker).await.assert_once(&sent);
        println!(
            "a message to a sleeping Consumer: pod requested after {:.2} s, ready after {:.2} s, handled by {:.2} s",
            requested.as_secs_f64(),
            ready.as_secs_f64(),
            start.elapsed().as_secs_f64()
        );

        // Each is handled at once, so that there never is anything to do when somebody looks.
        let extremes = Extremes::watch(namespace);
        sent.extend(send_while(&broker, (1, SPARSE), 0, tokio::time::sleep(SPARSE_FOR)).await);
        assert_eq!(extremes.end(), [1, 1], "who has messages now and then stays awake");
        until_handled(namespace, &broker).await.assert_once(&sent);
        until_asleep(namespace).await;
    })
    .await;
}

#[tokio::test]
async fn a_delayed_message_wakes_its_consumer_in_time_and_not_early() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "delayed", async |namespace| {
        SLEEPER.run(namespace).await;
        let broker = BrokerAccess::of(namespace);
        until_asleep(namespace).await;
        // The broker knows the queue.
        let mut sent = broker.send("orders", &orders(1, 0)).await;
        until_handled(namespace, &broker).await.assert_once(&sent);
        until_asleep(namespace).await;

        let start = Instant::now();
        sent.extend(broker.send_later("orders", &orders(1, 0), DELAY.as_secs()).await);
        until_replicas(namespace, "was woken", |replicas| replicas == 1).await;
        let woken = start.elapsed();
        assert!(woken + AHEAD >= DELAY, "woken {:.1} s after the send", woken.as_secs_f64());
        until_handled(namespace, &broker).await.assert_once(&sent);
        println!(
            "due after {} s: woken after {:.1} s, handled by {:.1} s",
            DELAY.as_secs(),
            woken.as_secs_f64(),
            start.elapsed().as_secs_f64()
        );
    })
    .await;
}

#[tokio::test]
async fn pods_that_go_under_load_cut_no_call_and_cost_no_attempt() {
    let scaling = "concurrencyPerPod: 2\n  scaling: {minReplicas: 1, maxReplicas: 4, backlogPerReplica: 10, scaleDownStabilization: 0s}";
    let subject = Subject { replicas: 1, batch: 1, consumer: scaling, ..Subject::DEFAULT };
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "shrink", async |namespace| {
        subject.run(namespace).await;
        let broker = BrokerAccess::of(namespace);
        // Up: more than four pods' worth, of calls that take two seconds.
        let mut sent = broker.send("orders", &orders(40, 2000)).await;
        let up = until_replicas(namespace, "has four pods", |replicas| replicas == 4).await;
        println!("four pods were requested after {:.2} s", up.as_secs_f64());
        // Down, while a trickle keeps all pods that are left busy.
        let shrunk = async {
            until_replicas(namespace, "needs one pod", |replicas| replicas == 1).await;
            namespace.wait_for::<Deployment>("orders", "has one pod", LONG, is_rolled_out).await;
        };
        sent.extend(send_while(&broker, (1, Duration::from_secs(2)), 1500, shrunk).await);
        until_handled(namespace, &broker).await.assert_once(&sent);
        let stay: Vec<Pod> = namespace.pods(PODS).await;
        let stay: Vec<&Pod> = stay.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        assert_eq!(stay.len(), 1);
        assert!(!stay[0].annotations().contains_key(COST), "who stays has no cost");
        until("the ledger has them", SHORT, async || Entries::read(namespace).await).await.assert_once(&sent);
        until_consuming(namespace, "orders", "orders").await;
    })
    .await;
}
