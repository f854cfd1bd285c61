//! What the application gets, and what its answer does at the broker.

use std::time::Duration;

use crate::support::app::{self, App, Reply};
use crate::support::broker::{Broker, Seen, message};
use crate::support::{Running, config, policy, soon};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use capstan_api::message::PulledMessage;
use capstan_api::workload::WorkloadConsumer;
use capstan_sidecar::event::{Message, What};
use capstan_sidecar::verdict::Decision;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// A broker with the messages `ids`, and a sidecar with one slot.
async fn start(policy: WorkloadConsumer, ids: &[&str]) -> (Broker, Running) {
    let broker = Broker::start().await;
    broker.send(ids);
    broker.declare(vec![policy]);
    let sidecar = Running::start(config(&broker)).await;
    (broker, sidecar)
}

#[tokio::test]
async fn a_batch_is_posted_and_acknowledged() {
    let app = App::start([]).await;
    let (broker, mut sidecar) = start(policy(app.port), &["1", "2"]).await;
    broker.until("both are acknowledged", |seen| seen.acked() == ["1", "2"]).await;
    app.read(|seen| {
        let request = &seen.requests[0];
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/take"));
        assert_eq!(request.headers["content-type"], "application/json");
        assert_eq!(request.headers["capstan-queue"], "orders");
        let message = json!({"id": "1", "timestampMs": 1_795_473_420_076_u64, "attempts": 1, "contentType": "json",
            "body": {"id": "1"}, "attributes": {}});
        assert_eq!(request.body["queue"], "orders");
        assert_eq!(request.body["messages"][0], message);
    });
    let pull = broker.read(|seen| seen.pulls[0].1.clone());
    assert_eq!((pull.batch_size.unwrap().0, pull.batch_bytes.unwrap().0), (10, 256_000));
    assert_eq!((pull.wait_ms.unwrap().0, pull.idle_ms.unwrap().0), (0, 30_000));
    assert_eq!(pull.visibility_timeout_ms.unwrap().0, 30_000);

    let mut what = async || soon("an event", sidecar.events.recv()).await.unwrap().what;
    let message = |id: &str| Message { id: id.to_owned(), attempts: 1 };
    assert!(matches!(what().await, What::Reachable));
    assert!(matches!(what().await, What::Delivered { messages } if messages == [message("1"), message("2")]));
    for id in ["1", "2"] {
        let settled = what().await;
        assert!(
            matches!(&settled, What::Settled { message: of, decision: Decision::Ack } if *of == message(id)),
            "{settled:?}"
        );
    }
    sidecar.end().await;
}

#[tokio::test]
async fn a_verdict_retries_one_message_and_acknowledges_the_others() {
    let app = App::start([Reply::body(r#"{"retryMessages": [{"msgId": "2", "delaySeconds": 5}]}"#)]).await;
    let (broker, sidecar) = start(policy(app.port), &["1", "2", "3"]).await;
    broker.until("the batch is settled", |seen| !seen.settles.is_empty()).await;
    broker.read(|seen| {
        assert_eq!((seen.acked(), seen.retried()), (vec!["1".into(), "3".into()], vec!["2".into()]));
        let retry = &seen.settles[0].retries[0];
        assert_eq!(retry.delay_seconds, Some(5.into()));
        assert_eq!(retry.reason.as_deref(), Some("the application asked for it"));
    });
    sidecar.end().await;
}

#[tokio::test]
async fn a_failure_and_a_malformed_verdict_retry_all() {
    let app = App::start([Reply::status(500), Reply::body(r#"{"retry_messages": [{"msgId": "2"}]}"#)]).await;
    let (broker, sidecar) = start(policy(app.port), &["1"]).await;
    broker.until("the first batch is settled", |seen| seen.settles.len() == 1).await;
    broker.send(&["2", "3"]);
    broker.until("the second batch is settled", |seen| seen.settles.len() == 2).await;
    broker.read(|seen| {
        assert_eq!((seen.acked(), seen.retried()), (vec![], vec!["1".into(), "2".into(), "3".into()]));
        let reason = seen.settles[1].retries[0].reason.as_deref().unwrap();
        assert!(reason.contains("retry_messages"), "{reason}");
        assert_eq!(seen.settles[0].retries[0].delay_seconds, None, "the Consumer's delay applies");
    });
    sidecar.end().await;
}

/// A broker takes no such body, but one of an earlier version did: it fails like any other, and stops nobody.
#[tokio::test]
async fn a_body_that_no_parser_reads_fails_and_the_next_is_handled() {
    let app = App::start([]).await;
    let mut policy = policy(app.port);
    policy.max_batch_size = 1;
    let (broker, sidecar) = start(policy, &[]).await;
    let bodies = ["[".repeat(60_000) + &"]".repeat(60_000), r#""\ud800""#.to_owned(), "1e999".to_owned()];
    let stored = bodies.iter().enumerate().map(|(n, body)| {
        let body = STANDARD.encode(body);
        PulledMessage { body, ..message(&format!("{n}")) }
    });
    let all: Vec<PulledMessage> = stored.chain([message("good")]).collect();
    broker.change(|seen| seen.ready.extend(all));
    broker.until("the last is acknowledged", |seen| seen.acked() == ["good"]).await;
    broker.until("the others are retried", |seen| seen.retried() == ["0", "1", "2"]).await;
    broker.read(|seen| {
        let reason = seen.settles[0].retries[0].reason.as_deref().unwrap();
        assert!(reason.contains("400"), "the application said so: {reason}");
    });
    sidecar.end().await;
}

#[tokio::test]
async fn no_answer_in_time_is_a_failure() {
    let app = App::start([Reply::held()]).await;
    let mut policy = policy(app.port);
    policy.endpoint.timeout_ms = 300;
    let (broker, sidecar) = start(policy, &["1"]).await;
    broker.until("it is retried", |seen| seen.retried() == ["1"]).await;
    assert_eq!(
        broker.read(|seen| seen.settles[0].retries[0].reason.clone().unwrap()),
        "no answer within 0.3 s"
    );
    app.until("the call is cut", |seen| seen.held == 0).await;
    sidecar.end().await;
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_failure() {
    let (_sender, when) = watch::channel(true);
    let (port, _, _app) = app::breaking(when).await;
    let (broker, sidecar) = start(policy(port), &["1"]).await;
    broker.until("it is retried", |seen| seen.retried() == ["1"]).await;
    assert!(broker.read(|seen| seen.released()).is_empty());
    sidecar.end().await;
}

#[tokio::test]
async fn leases_are_extended_while_the_call_is_open() {
    let app = App::start([Reply::held()]).await;
    let mut policy = policy(app.port);
    policy.visibility_timeout_ms = 600;
    let (broker, sidecar) = start(policy, &["1", "2"]).await;
    // One extend is refused, and tried again.
    broker.change(|seen| seen.refuse_extends = 1);
    broker.until("leases are extended", |seen| seen.extends.len() >= 4).await;
    broker.read(|seen| {
        assert!(seen.settles.is_empty());
        let leases: Vec<&str> = seen.extends[0].extends.iter().map(|lease| lease.lease_id.as_str()).collect();
        assert_eq!(leases, ["lease-1", "lease-2"]);
        assert_eq!(seen.extends[0].visibility_timeout_ms.unwrap().0, 600);
    });
    app.let_go(1);
    broker.until("both are acknowledged", |seen| seen.acked() == ["1", "2"]).await;
    sidecar.end().await;
}

#[tokio::test]
async fn a_verdict_is_sent_until_the_broker_takes_it() {
    let app = App::start([]).await;
    let (broker, sidecar) = start(policy(app.port), &[]).await;
    broker.change(|seen| {
        seen.refuse_settles = 2;
        seen.lose_settles = 1;
    });
    broker.send(&["1"]);
    // Two are refused, and the answer to the third is lost: the fourth says the same again.
    broker.until("it is sent again", |seen| seen.acked() == ["1", "1"]).await;
    assert_eq!(app.read(|seen| seen.requests.len()), 1, "the application is called once");
    sidecar.end().await;
}

#[tokio::test]
async fn a_verdict_nobody_takes_is_given_up_when_the_lease_has_ended() {
    let app = App::start([]).await;
    let mut policy = policy(app.port);
    policy.visibility_timeout_ms = 1000;
    let (broker, sidecar) = start(policy, &[]).await;
    broker.change(|seen| seen.refuse_settles = usize::MAX);
    broker.send(&["1"]);
    app.until("it is handled", |seen| seen.requests.len() == 1).await;
    broker.send(&["2"]);
    app.until("the next one is handled", |seen| seen.requests.len() == 2).await;
    broker.send(&["3"]);
    // The slot keeps one verdict and handles one batch more; the third needs the first to be given up.
    app.until("the third one is handled", |seen| seen.requests.len() == 3).await;
    assert!(broker.read(|seen| seen.settles.is_empty()));
    broker.change(|seen| seen.refuse_settles = 0);
    sidecar.end().await;
}

#[tokio::test]
async fn a_request_refused_before_it_was_read_is_released() {
    // More than fits into the socket's buffers, and an application that answers without reading it.
    let answer = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (port, _app) = app::raw(answer).await;
    let (broker, sidecar) = start(policy(port), &[]).await;
    let mut large = crate::support::broker::message("1");
    large.body = "x".repeat(8 * 1024 * 1024);
    large.metadata.insert("CF-Content-Type".to_owned(), "text".to_owned());
    broker.change(|seen| seen.ready.push_back(large));
    broker.until("it is settled", |seen| !seen.settles.is_empty()).await;
    assert_eq!(broker.read(|seen| (seen.released(), seen.retried())), (vec!["1".to_owned()], vec![]));
    sidecar.end().await;
}

#[tokio::test]
async fn as_many_calls_as_slots_are_open_and_nothing_is_leased_beyond() {
    let app = App::start((0..9).map(|_| Reply::held())).await;
    let mut policy = policy(app.port);
    (policy.concurrency_per_pod, policy.max_batch_size) = (3, 1);
    let (broker, sidecar) = start(policy, &[]).await;
    broker.until("each slot pulls", |seen| seen.waiting == 3).await;
    broker.send(&["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    app.until("three calls are open", |seen| seen.held == 3).await;
    broker.read(|seen| assert_eq!((seen.ready.len(), seen.waiting), (6, 0)));
    for open in (3..9).rev() {
        app.let_go(1);
        broker.until("one more is leased", |seen| seen.ready.len() == open - 3).await;
    }
    app.let_go(3);
    broker.until("all are acknowledged", |seen| seen.acked().len() == 9).await;
    assert_eq!(app.read(|seen| seen.held_most), 3);
    sidecar.end().await;
}

#[tokio::test]
async fn an_application_that_refuses_is_left_alone_and_then_tried_with_one_message() {
    let app = App::start([Reply::status(404), Reply::status(200)]).await;
    let (broker, mut sidecar) = start(policy(app.port), &["1", "2", "3"]).await;
    broker.until("all are released", |seen| seen.released() == ["1", "2", "3"]).await;
    let pulled = broker.read(|seen| seen.pulls[0].0);
    broker.until("it is tried again", |seen| seen.pulls.len() == 2).await;
    broker.read(|seen| {
        let (at, pull) = &seen.pulls[1];
        assert!(*at - pulled >= Duration::from_millis(990), "the breaker stays open for a second");
        assert_eq!((pull.batch_size.unwrap().0, pull.wait_ms.unwrap().0), (1, 0));
    });
    broker.until("all are acknowledged", |seen| seen.acked() == ["1", "2", "3"]).await;
    broker.read(|seen| {
        assert!(seen.retried().is_empty());
        assert_eq!(seen.pulls[2].1.batch_size.unwrap().0, 10, "whole batches again");
    });
    loop {
        let event = soon("an event", sidecar.events.recv()).await.unwrap();
        if let What::Unreachable { reason, wait } = event.what {
            assert_eq!((reason.as_str(), wait.as_secs()), ("the application answered 404", 1));
            break;
        }
    }
    sidecar.end().await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let refusal = Reply { retry_after: Some("2"), ..Reply::status(503) };
    let app = App::start([refusal]).await;
    let (broker, sidecar) = start(policy(app.port), &["1"]).await;
    broker.until("it is acknowledged", |seen| seen.acked() == ["1"]).await;
    broker.read(|seen| assert!(seen.pulls[1].0 - seen.pulls[0].0 >= Duration::from_millis(1990)));
    sidecar.end().await;
}

#[tokio::test]
async fn nothing_is_leased_before_the_application_listens() {
    let (socket, port) = app::silent();
    let (broker, mut sidecar) = start(policy(port), &["1"]).await;
    let event = soon("an event", sidecar.events.recv()).await.unwrap();
    assert!(matches!(event.what, What::Unreachable { .. }), "{event:?}");
    assert!(broker.read(|seen| seen.pulls.is_empty()));
    let _app = App::on(socket.listen(64).unwrap(), []);
    broker.until("it is acknowledged", |seen| seen.acked() == ["1"]).await;
    assert!(broker.read(|seen| seen.released()).is_empty());
    sidecar.end().await;
}

#[tokio::test]
async fn an_application_on_the_other_loopback_is_found_also_when_it_moves() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let app = App::on(listener, []);
    let (broker, sidecar) = start(policy(app.port), &["1"]).await;
    broker.until("it is acknowledged", |seen| seen.acked() == ["1"]).await;
    assert_eq!(app.read(|seen| seen.requests[0].headers["host"].clone()), format!("[::1]:{}", app.port));
    app.stop_listening().await;
    let moved = App::on(TcpListener::bind(("127.0.0.1", app.port)).await.unwrap(), []);
    broker.send(&["2"]);
    broker.until("it is acknowledged too", |seen| seen.acked() == ["1", "2"]).await;
    assert_eq!((moved.read(|seen| seen.requests.len()), broker.read(|seen| seen.retried().len())), (1, 0));
    sidecar.end().await;
}

#[tokio::test]
async fn a_refusal_stands_although_its_body_never_ends() {
    let (port, _app) = app::raw(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 10\r\n\r\n").await;
    let mut policy = policy(port);
    policy.endpoint.timeout_ms = 300;
    let (broker, sidecar) = start(policy, &["1"]).await;
    broker.until("it is settled", |seen| !seen.settles.is_empty()).await;
    assert_eq!(broker.read(|seen| (seen.released(), seen.retried())), (vec!["1".to_owned()], vec![]));
    sidecar.end().await;
}

#[tokio::test]
async fn a_success_whose_body_never_ends_is_a_failure() {
    let (port, _app) = app::raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await;
    let mut policy = policy(port);
    policy.endpoint.timeout_ms = 300;
    let (broker, sidecar) = start(policy, &["1"]).await;
    broker.until("it is retried", |seen| seen.retried() == ["1"]).await;
    sidecar.end().await;
}

#[tokio::test]
async fn a_connection_that_nobody_accepts_costs_no_attempt() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut policy = policy(address.port());
    policy.endpoint.timeout_ms = 1000;
    let (broker, sidecar) = start(policy, &[]).await;
    broker.until("the slot pulls", |seen| seen.waiting == 1).await;
    drop(listener.accept().await.unwrap());
    // Nobody accepts any more: the system takes a few connections by itself, and then none.
    let (mut taken, patience) = (Vec::new(), Duration::from_millis(300));
    while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        taken.push(stream.unwrap());
    }
    broker.send(&["1"]);
    broker.until("it is settled", |seen| !seen.settles.is_empty()).await;
    assert_eq!(broker.read(|seen| (seen.released(), seen.retried())), (vec!["1".to_owned()], vec![]));
    sidecar.end().await;
}

#[tokio::test]
async fn when_one_slot_is_refused_the_others_stop_too() {
    let app = App::start((0..100).map(|_| Reply::status(404))).await;
    let mut policy = policy(app.port);
    policy.concurrency_per_pod = 20;
    let (broker, sidecar) = start(policy, &[]).await;
    broker.until("each slot pulls", |seen| seen.waiting == 20).await;
    broker.send(&["1"]);
    // Else the message would go through all slots within moments, and use up its releases.
    let probed = |seen: &Seen| seen.pulls.iter().any(|(_, pull)| pull.batch_size.unwrap().0 == 1);
    broker.until("it is tried again", probed).await;
    broker.read(|seen| assert!((1..=3).contains(&seen.released().len()), "{:?}", seen.released()));
    sidecar.end().await;
}

#[tokio::test]
async fn nothing_is_extended_when_the_call_is_over() {
    let app = App::start([]).await;
    let mut policy = policy(app.port);
    policy.visibility_timeout_ms = 300;
    let (broker, sidecar) = start(policy, &["1"]).await;
    broker.until("it is acknowledged", |seen| seen.acked() == ["1"]).await;
    // When a later call is extended, the earlier one would have been extended before.
    app.change(|seen| seen.replies.push_back(Reply::held()));
    broker.send(&["2"]);
    broker.until("the second is extended", |seen| !seen.extends.is_empty()).await;
    let leases =
        broker.read(|seen| seen.extends.iter().flat_map(|one| one.extends.clone()).collect::<Vec<_>>());
    assert!(leases.iter().all(|lease| lease.lease_id == "lease-2"), "{leases:?}");
    app.let_go(1);
    broker.until("it is acknowledged too", |seen| seen.acked() == ["1", "2"]).await;
    sidecar.end().await;
}
