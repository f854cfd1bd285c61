//! Applications that send through a sidecar's gateway: what the broker answers, what a killed one loses, what is held.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use capstan_api::message::Pull;
use capstan_api::number::Whole;
use e2e::process::{Broker, Sidecar, Starting, progress};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::fixture::{DEADLINE, Fixture, NAMESPACE, json_of, name, queue, until};

fn sidecar(fixture: &Fixture, environment: &[(&str, &str)]) -> Sidecar {
    Sidecar::start(&fixture.broker.url(), "Deployment/shop", "shop-1", environment)
}

/// Status, what of the headers speaks to clients, and body.
async fn read(answer: Response) -> (u16, Vec<Option<String>>, Value) {
    let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let headers = ["content-type", "retry-after", "x-should-retry"].map(header).to_vec();
    (answer.status().as_u16(), headers, answer.json().await.unwrap())
}

#[tokio::test]
async fn what_a_broker_refuses_its_gateway_refuses_in_the_same_words() {
    let small = json!({"max_messages": 1});
    let fixture = Fixture::new(&[queue("orders", 3, json!({})), queue("small", 3, small)]).await;
    fixture.send("small", json!({"body": 1})).await;
    let sidecar = sidecar(&fixture, &[("CAPSTAN_GATEWAY_HOLD_SECONDS", "1")]);
    let client = Client::new();
    let too_large = json!({"body": "x".repeat(128_001)}).to_string();
    let cases = [
        ("orders/messages", "", "{"),
        ("orders/messages", "", "{}"),
        ("orders/messages", "", &too_large),
        ("orders/messages", "", r#"{"body": 1, "content_type": "xml"}"#),
        ("orders/messages", "é", r#"{"body": 1}"#),
        ("orders/messages/batch", "", r#"{"messages": []}"#),
        ("orders/messages/batch", "", r#"{"messages": [{"body": 1, "delay_seconds": 86401}]}"#),
        ("nothing/messages", "", r#"{"body": 1}"#),
        ("Orders/messages", "", r#"{"body": 1}"#),
        ("small/messages/batch", "", r#"{"messages": [{"body": 1}, {"body": 2}]}"#),
        ("small/messages", "", r#"{"body": 1}"#),
    ];
    for (path, attribute, body) in cases {
        let send = async |base: &str| {
            let mut request = client.post(format!("{base}/queues/{path}")).body(body.to_owned());
            if !attribute.is_empty() {
                request = request.header("capstan-attr-a", attribute);
            }
            read(request.send().await.unwrap()).await
        };
        let direct = send(&format!("{}/accounts/{NAMESPACE}", fixture.base_url())).await;
        assert!(direct.0 >= 400, "{path} {body}: {direct:?}");
        assert_eq!(send(&sidecar.gateway_url()).await, direct, "{path} {body:.100}");
    }
    assert_eq!(fixture.queue("orders").await.totals.sent, 0);
    sidecar.stop();
}

#[tokio::test]
async fn an_application_sends_what_a_consumer_gets() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let sidecar = sidecar(&fixture, &[]);
    let url = |path: &str| format!("{}/queues/orders/{path}", sidecar.gateway_url());
    let post = |path, body: Value| Client::new().post(url(path)).body(body.to_string());
    let sent = post("messages", json!({"body": {"n": 1}, "delay_seconds": 0, "attributes": {"a": "b"}}));
    let sent = sent.header("traceparent", "00-1").header("capstan-attr-tenant", "x").send().await.unwrap();
    let (status, _, answer) = read(sent).await;
    assert_eq!((status, answer["result"]["ids"].as_array().unwrap().len()), (200, 1), "{answer}");
    let batch = json!({"messages": [{"body": "2", "content_type": "text"}, {"body": 3}]});
    let (status, _, answer) = read(post("messages/batch", batch).send().await.unwrap()).await;
    assert_eq!((status, answer["result"]["ids"].as_array().unwrap().len()), (200, 2), "{answer}");
    let metrics = read(Client::new().request(Method::GET, url("metrics")).send().await.unwrap()).await;
    assert_eq!((metrics.0, &metrics.2["result"]["backlog_count"]), (200, &json!(3)));
    let pulled = fixture.pull("orders", 10).await.messages;
    assert_eq!(pulled.len(), 3);
    assert_eq!(json_of(&pulled[0].body), json!({"n": 1}));
    let attributes: Vec<(&str, &str)> =
        pulled[0].attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(attributes, [("a", "b"), ("tenant", "x"), ("traceparent", "00-1")]);
    sidecar.stop();
}

/// The broker is killed three times while fifty sends are on their way, and the application never learns of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_loses_no_send_and_stores_none_twice() {
    const SENDERS: usize = 50;
    const SENDS: usize = 40;
    const KILLS: usize = 3;
    let mut fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    // As long as a slow machine takes to start a broker: what is looked at is what is stored.
    let sidecar = sidecar(&fixture, &[("CAPSTAN_GATEWAY_HOLD_SECONDS", "120")]);
    let (url, answered) =
        (format!("{}/queues/orders/messages", sidecar.gateway_url()), Arc::new(AtomicUsize::new(0)));
    let client = Client::new();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (client, url, answered) = (client.clone(), url.clone(), Arc::clone(&answered));
            tokio::spawn(async move {
                for send in 0..SENDS {
                    let body = json!({"body": sender * SENDS + send}).to_string();
                    let (status, _, body) = read(client.post(&url).body(body).send().await.unwrap()).await;
                    assert_eq!(status, 200, "{body}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let all = SENDERS * SENDS;
    for kill in 1..=KILLS {
        let enough = all * kill / (KILLS + 1);
        until("sends are answered", async || (answered.load(Ordering::Relaxed) >= enough).then_some(()))
            .await;
        let address = fixture.broker.address();
        fixture = tokio::task::block_in_place(|| {
            fixture.again_as(Broker::kill, |folder| Starting::at(folder, address))
        });
    }
    for sender in senders {
        tokio::time::timeout(DEADLINE, sender).await.expect("all sends are answered").unwrap();
    }
    let mut stored = BTreeMap::new();
    loop {
        let pull = Pull { batch_size: Some(Whole(100)), ..Pull::default() };
        let pulled = fixture.client.pull(&name(NAMESPACE), &name("orders"), &pull).await.unwrap().messages;
        if pulled.is_empty() {
            break;
        }
        for message in &pulled {
            *stored.entry(json_of(&message.body).as_u64().unwrap()).or_insert(0) += 1;
        }
        let leases: Vec<&str> = pulled.iter().map(|message| message.lease_id.as_str()).collect();
        fixture.ack("orders", &leases).await;
    }
    assert_eq!(stored.len(), all, "each send that was answered is stored");
    let retries = series(&sidecar, "capstan_sidecar_gateway_retries_total{").await;
    assert!(retries > 0.0, "no kill was noticed");
    let twice: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "stored more than once: {twice:?}");
    progress(&format!("gateway: {KILLS} kills, {retries} tries in vain, {all} stored once"));
    sidecar.stop();
}

/// The sum of all series of the sidecar that begin so.
async fn series(sidecar: &Sidecar, beginning: &str) -> f64 {
    let url = sidecar.url("/metrics");
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let values = text.lines().filter(|line| line.starts_with(beginning));
    values.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

/// An injected sidecar has 64 MiB. Into these fits what its gateway takes, beside four calls with the largest batches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_fits_into_the_sidecars_memory() {
    const SENDS: usize = 100;
    const CALLS: usize = 4;
    const LIMIT: u64 = 64 << 20;
    let application = application().await;
    let push = json!({
        "workload": { "kind": "Deployment", "name": "shop" },
        "endpoint": { "port": application, "path": "/", "timeout_ms": 3_600_000 },
        "max_batch_size": 100, "max_batch_bytes": 2 << 20, "max_wait_ms": 1_000, "concurrency_per_pod": CALLS,
    });
    let work = queue("work", 3, json!({ "consumer": { "push": push, "visibility_timeout_ms": 3_600_000 } }));
    let fixture = Fixture::new(&[queue("orders", 3, json!({})), work]).await;
    // Sixteen are 2 MiB.
    for _ in 0..16 * CALLS {
        fixture.send("work", json!({"body": "x".repeat(127_000)})).await;
    }
    let sidecar =
        sidecar(&fixture, &[("CAPSTAN_GATEWAY_HOLD_SECONDS", "120"), ("CAPSTAN_DRAIN_SECONDS", "1")]);
    let calls = async || series(&sidecar, "capstan_sidecar_calls_in_flight").await;
    until("all calls are open", async || (calls().await >= CALLS as f64).then_some(())).await;
    let calling = sidecar.memory();
    let (address, folder) = (fixture.broker.address(), fixture.folder().to_owned());
    fixture.broker.killer().kill();
    // What still reaches a broker that is ending may be stored, and is not held.
    until("nobody listens any more", async || tokio::net::TcpStream::connect(address).await.err()).await;
    let url = format!("{}/queues/orders/messages", sidecar.gateway_url());
    let client = Client::new();
    let body = json!({"body": "x".repeat(127_000)}).to_string();
    let sends: Vec<_> =
        (0..SENDS).map(|_| tokio::spawn(client.post(&url).body(body.clone()).send())).collect();
    let held = async || series(&sidecar, "capstan_sidecar_gateway_requests_held").await;
    until("all are held", async || (held().await >= SENDS as f64).then_some(())).await;
    let with_sends = sidecar.memory();
    // The rest of the room, and as many connections as there may be.
    let fill = tokio::spawn(client.post(&url).body(vec![b' '; 3 << 20]).send());
    until("there is no room", async || (held().await > SENDS as f64).then_some(())).await;
    let beyond = client.post(&url).body(vec![b' '; 3 << 20]).send().await.unwrap();
    assert_eq!(read(beyond).await.0, 503);
    let connections = connect(&sidecar, 600).await;
    let refused = async || series(&sidecar, "capstan_sidecar_gateway_connections_refused_total").await;
    until("there is no place", async || (refused().await >= 100.0).then_some(())).await;
    let (most, bytes) = (sidecar.memory(), series(&sidecar, "capstan_sidecar_gateway_bytes").await);
    progress(&format!(
        "gateway: {} KiB with {CALLS} calls open, {} KiB with {SENDS} sends held, {} KiB with {} connections too; \
         {bytes} bytes held",
        calling >> 10,
        with_sends >> 10,
        most >> 10,
        connections.len()
    ));
    assert!(bytes >= 15_000_000.0, "{bytes} bytes");
    assert!(most < LIMIT, "{most} bytes of memory");
    drop((connections, fill));
    let _broker = Starting::at(&folder, address).ready();
    for send in sends {
        let answer = tokio::time::timeout(DEADLINE, send).await.expect("an answer").unwrap().unwrap();
        assert_eq!(answer.status(), 200);
    }
    let peak = sidecar.memory_peak();
    progress(&format!("gateway: {} KiB at most, its program's own pages included", peak >> 10));
    assert!(peak < LIMIT, "{peak} bytes of memory at most");
    sidecar.stop();
}

/// The port of an application that takes whatever comes, and never answers.
async fn application() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
        }
    });
    port
}

/// Opens connections until so many were tried.
async fn connect(sidecar: &Sidecar, count: usize) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.extend(TcpStream::connect(sidecar.gateway()).await.ok());
    }
    connections
}
