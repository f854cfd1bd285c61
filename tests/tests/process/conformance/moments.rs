//! The rows about the moment of a call: the sidecar ends, or the application is gone. All of them release.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::process::Pod;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::app::{App, First};
use super::{MOMENTS, WORDS, lines, send};
use crate::application::pushed;
use crate::fixture::{Fixture, NAMESPACE, name, until};

const WORKLOAD: &str = "Deployment/shop";
const DRAIN: &[(&str, &str)] = &[("CAPSTAN_DRAIN_SECONDS", "1")];

async fn fixture(port: u16) -> Fixture {
    let push = json!({ "endpoint": { "path": "/orders" }, "max_batch_size": WORDS.len() });
    Fixture::new(&[pushed("orders", port, json!({ "push": push }))]).await
}

async fn until_called(app: &App) {
    until("the call is open", async || (app.count("orders") == WORDS.len()).then_some(())).await;
}

/// Waits until all are released, and then handled by another sidecar at their first attempt.
async fn released(call: &str, fixture: &Fixture, app: &App, ids: &[String]) {
    let row = lines().into_iter().find(|(_, [of, ..])| *of == call).expect(call);
    assert_eq!(row.1[2..], ["release"; 3], "{}", row.0);
    let count = WORDS.len() as u64;
    until(call, async || (fixture.queue("orders").await.totals.released >= count).then_some(())).await;
    let state = fixture.queue("orders").await;
    assert_eq!((state.totals.retried, state.totals.lease_expired, state.totals.acknowledged), (0, 0, 0));
    let _sidecar = Pod::start(&fixture.broker.url(), WORKLOAD, "shop-2", &[]);
    let handled = async || (fixture.queue("orders").await.totals.acknowledged == count).then_some(());
    until("another one handles them", handled).await;
    for id in ids {
        let deliveries = app.deliveries("orders", id);
        assert!(deliveries.iter().all(|(_, attempts)| *attempts == 1), "{call}: {deliveries:?}");
    }
}

async fn ended(sidecar: Pod) {
    let (status, log) = tokio::task::spawn_blocking(|| sidecar.ended()).await.unwrap();
    assert!(status.success(), "{status}\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_refused_releases() {
    // Listens for one look, and then no more.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let fixture = fixture(port).await;
    let sidecar = Pod::start(&fixture.broker.url(), WORKLOAD, "shop-1", &[]);
    drop(listener.accept().await.unwrap());
    until("the slot pulls", async || (fixture.metric("capstan_pulls_waiting").await == 1.0).then_some(()))
        .await;
    drop(listener);
    let ids = send(&fixture.client, &name(NAMESPACE), "orders").await;
    let count = WORDS.len() as u64;
    until("all are released", async || {
        (fixture.queue("orders").await.totals.released == count).then_some(())
    })
    .await;
    sidecar.terminate();
    ended(sidecar).await;
    let app = App::at(port);
    app.listen();
    released(MOMENTS[0], &fixture, &app, &ids).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_during_shutdown_releases() {
    let now = Arc::new(Notify::new());
    let app = App::with([("orders", First::BreakLater(Arc::clone(&now)))]);
    app.listen();
    let fixture = fixture(app.port).await;
    let ids = send(&fixture.client, &name(NAMESPACE), "orders").await;
    let sidecar = Pod::start(&fixture.broker.url(), WORKLOAD, "shop-1", &[]);
    until_called(&app).await;
    sidecar.terminate();
    now.notify_one();
    ended(sidecar).await;
    released(MOMENTS[1], &fixture, &app, &ids).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_outlives_the_drain_releases() {
    let app = App::with([("orders", First::Never)]);
    app.listen();
    let fixture = fixture(app.port).await;
    let ids = send(&fixture.client, &name(NAMESPACE), "orders").await;
    let sidecar = Pod::start(&fixture.broker.url(), WORKLOAD, "shop-1", DRAIN);
    until_called(&app).await;
    sidecar.terminate();
    ended(sidecar).await;
    released(MOMENTS[2], &fixture, &app, &ids).await;
}

/// The answer to the pull is on its way when the shutdown begins: something between broker and sidecar holds it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_after_the_shutdown_began_is_released_without_a_call() {
    let app = App::with([]);
    app.listen();
    let fixture = fixture(app.port).await;
    let way = Way::to(fixture.broker.address()).await;
    let sidecar = Pod::start(&way.url, WORKLOAD, "shop-1", &[]);
    until("the slot pulls", async || (fixture.metric("capstan_pulls_waiting").await == 1.0).then_some(()))
        .await;
    way.hold(true);
    let ids = send(&fixture.client, &name(NAMESPACE), "orders").await;
    let count = WORDS.len() as u64;
    until("all are leased", async || (fixture.queue("orders").await.leased == count).then_some(())).await;
    sidecar.terminate();
    let draining = async || sidecar.log().lines().iter().any(|line| line.contains("draining")).then_some(());
    until("the shutdown began", draining).await;
    way.hold(false);
    ended(sidecar).await;
    assert_eq!(app.count("orders"), 0, "nothing was called");
    released(MOMENTS[3], &fixture, &app, &ids).await;
}

/// A way to the broker, on which answers can be held up.
struct Way {
    url: String,
    held: Arc<AtomicBool>,
}

impl Way {
    async fn to(broker: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let held = Arc::new(AtomicBool::new(false));
        let holds = Arc::clone(&held);
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(broker).await else { continue };
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(pass(near_in, far_out, None));
                tokio::spawn(pass(far_in, near_out, Some(Arc::clone(&holds))));
            }
        });
        Self { url, held }
    }

    fn hold(&self, is_held: bool) {
        self.held.store(is_held, Ordering::SeqCst);
    }
}

/// Passes bytes on, but for the time that they are held.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, held: Option<Arc<AtomicBool>>) {
    let mut bytes = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        while held.as_ref().is_some_and(|held| held.load(Ordering::SeqCst)) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
