//! The producer gateway before a scripted broker: what it passes on, tries again, holds, and says.

use std::time::{Duration, Instant};

use capstan_sidecar::gateway::Settings;
use reqwest::{Client, Response};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::support::sends::{HELLO, Sends, Sent, Step, TAKEN, between};
use crate::support::{PATIENCE, Running, get, name, soon, until_metrics};

/// A sidecar with a gateway to `url`.
async fn start(url: String, change: impl FnOnce(&mut Settings)) -> Running {
    let mut settings = Settings { port: 0, hold: PATIENCE, ..Settings::default() };
    change(&mut settings);
    let mut config =
        capstan_sidecar::Config::new(url, name("shop"), "Deployment/shop".parse().unwrap(), "shop-1");
    (config.admin, config.gateway) = (Some("127.0.0.1:0".parse().unwrap()), Some(settings));
    Running::start(config).await
}

fn url(gateway: &Running, path: &str) -> String {
    format!("http://{}{path}", gateway.gateway.unwrap())
}

async fn post(gateway: &Running, path: &str, body: &'static str) -> Response {
    let send = Client::new().post(url(gateway, path)).body(body).send();
    soon("an answer", send).await.unwrap()
}

/// Lets the gateway learn that the broker minds keys.
async fn hello(gateway: &Running) {
    assert_eq!(post(gateway, "/queues/orders/messages", HELLO).await.status(), 200);
}

/// Status and the first error's code and message.
async fn refusal(answer: Response) -> (u16, u64, String) {
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no envelope: {text}"));
    assert_eq!((&body["success"], &body["result"]), (&Value::Bool(false), &Value::Null), "{body}");
    let error = &body["errors"][0];
    (status, error["code"].as_u64().unwrap(), error["message"].as_str().unwrap().to_owned())
}

/// A port at which nobody listens now.
async fn nobody() -> u16 {
    Sends::start([]).await.end().await
}

#[tokio::test]
async fn a_send_arrives_as_it_is_and_so_does_its_answer() {
    let refused = r#"{"success":false,"errors":[{"code":10104,"message":"no"}],"messages":[],"result":null}"#;
    let broker = Sends::start([
        Step::Answer(200, &[], TAKEN),
        Step::Answer(404, &[("x-should-retry", "false"), ("set-cookie", "a=b")], refused),
    ])
    .await;
    let gateway = start(broker.url(), |_| {}).await;
    let send = Client::new()
        .post(url(&gateway, "/queues/orders/messages?ignored=1"))
        .header("content-type", "text/plain")
        .header("authorization", "Bearer secret")
        .header("traceparent", "00-1")
        .header("tracestate", "a=1")
        .header("tracestate", "b=2")
        .header("capstan-attr-tenant", "x")
        .header("idempotency-key", "mine")
        .body(r#"{"body": 1}"#)
        .send();
    let answer = soon("an answer", send).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, TAKEN));
    let answer = post(&gateway, "/queues/orders/messages/batch", r#"{"messages": []}"#).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-should-retry"]),
        (404, &"false".parse().unwrap())
    );
    assert!(!answer.headers().contains_key("set-cookie"));
    assert_eq!(answer.text().await.unwrap(), refused);
    let metrics = reqwest::get(url(&gateway, "/queues/orders/metrics")).await.unwrap();
    assert_eq!(metrics.text().await.unwrap(), TAKEN);

    let sent = broker.sent();
    let lines: Vec<&str> = sent.iter().map(|sent| sent.line.as_str()).collect();
    let path = "/client/v4/accounts/shop/queues/orders";
    let expected = [
        format!("POST {path}/messages HTTP/1.1"),
        format!("POST {path}/messages/batch HTTP/1.1"),
        format!("GET {path}/metrics HTTP/1.1"),
    ];
    assert_eq!(lines, expected);
    assert_eq!((sent[0].body.as_str(), sent[1].body.as_str()), (r#"{"body": 1}"#, r#"{"messages": []}"#));
    for (name, values) in [
        ("content-type", vec!["text/plain"]),
        ("traceparent", vec!["00-1"]),
        ("tracestate", vec!["a=1", "b=2"]),
        ("capstan-attr-tenant", vec!["x"]),
        ("idempotency-key", vec!["mine"]),
    ] {
        assert_eq!(sent[0].headers[name], values);
    }
    assert!(!sent[0].headers.contains_key("authorization"));
    assert!(!sent[2].headers.contains_key("idempotency-key"), "looking needs none");
    gateway.end().await;
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_again_with_the_same_key() {
    let broker = Sends::start([Step::Cut, Step::CutAnswer]).await;
    let gateway = start(broker.url(), |_| {}).await;
    hello(&gateway).await;
    for _ in 0..2 {
        assert_eq!(post(&gateway, "/queues/orders/messages", r#"{"body": 1}"#).await.status(), 200);
    }
    let sent = broker.sent();
    assert_eq!(sent.len(), 4);
    assert!(sent.iter().all(|one| one.body == r#"{"body": 1}"# && one.key().len() == 36));
    assert_eq!((sent[0].key(), sent[1].key()), (sent[1].key(), sent[2].key()));
    assert_ne!(sent[2].key(), sent[3].key(), "another send is another message");
    let (_, metrics) = get(gateway.admin.unwrap(), "/metrics").await;
    for line in [
        r#"capstan_sidecar_gateway_retries_total{reason="broken"} 2"#,
        r#"capstan_sidecar_gateway_requests_total{outcome="answered"} 3"#,
        "capstan_sidecar_gateway_requests_open 0",
        "capstan_sidecar_gateway_requests_held 0",
        "capstan_sidecar_gateway_bytes 0",
        "capstan_sidecar_gateway_seconds_count 3",
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line}: {metrics}");
    }
    gateway.end().await;
}

#[tokio::test]
async fn what_passes_soon_is_tried_again_and_the_rest_is_said_at_once() {
    for status in [502, 503, 504] {
        let broker = Sends::start([Step::Answer(status, &[], "")]).await;
        let gateway = start(broker.url(), |_| {}).await;
        hello(&gateway).await;
        assert_eq!(post(&gateway, "/queues/orders/messages", "{}").await.status(), 200, "{status}");
        let sent = broker.sent();
        assert_eq!((sent.len(), sent[0].key()), (2, sent[1].key()));
        gateway.end().await;
    }
    for status in [301, 400, 403, 404, 405, 409, 500, 501] {
        let broker = Sends::start([Step::Answer(status, &[], "{}")]).await;
        let gateway = start(broker.url(), |_| {}).await;
        assert_eq!(post(&gateway, "/queues/orders/messages", "{}").await.status().as_u16(), status);
        assert_eq!(broker.sent().len(), 1);
        gateway.end().await;
    }
}

const NO_ROOM_FOR_KEYS: Step = Step::Answer(
    429,
    &[("retry-after", "1")],
    r#"{"success":false,"errors":[{"code":10281,"message":"no room"}],"messages":[],"result":null}"#,
);

#[tokio::test]
async fn a_broker_without_room_for_keys_gets_sends_without_one() {
    let broker =
        Sends::start([NO_ROOM_FOR_KEYS, Step::Answer(200, &[], TAKEN), NO_ROOM_FOR_KEYS, Step::Cut]).await;
    let gateway = start(broker.url(), |_| {}).await;
    assert_eq!(post(&gateway, "/queues/orders/messages", "{}").await.status(), 200);
    // Without its key it cannot be tried again when it may have been stored.
    let (status, code, message) = refusal(post(&gateway, "/queues/orders/messages", "{}").await).await;
    assert_eq!((status, code), (503, 15000));
    assert!(message.contains("stored twice"), "{message}");
    let sent = broker.sent();
    let keys: Vec<bool> = sent.iter().map(|sent| sent.headers.contains_key("idempotency-key")).collect();
    assert_eq!(keys, [true, false, true, false]);
    assert!(sent[1].at - sent[0].at < Duration::from_secs(1), "nothing is waited for");
    gateway.end().await;
}

#[tokio::test]
async fn a_key_that_the_application_gave_is_kept_and_so_is_one_of_a_send_that_may_be_stored() {
    let broker =
        Sends::start([NO_ROOM_FOR_KEYS, Step::Answer(200, &[], TAKEN), Step::Cut, NO_ROOM_FOR_KEYS]).await;
    let gateway = start(broker.url(), |_| {}).await;
    hello(&gateway).await;
    let send = Client::new()
        .post(url(&gateway, "/queues/orders/messages"))
        .header("idempotency-key", "mine")
        .body("{}");
    assert_eq!(soon("an answer", send.send()).await.unwrap().status(), 200);
    assert_eq!(post(&gateway, "/queues/orders/messages", "{}").await.status(), 200);
    let sent = broker.sent();
    let keys: Vec<&str> = sent.iter().map(Sent::key).collect();
    assert_eq!(keys[..2], ["mine", "mine"]);
    assert!(keys[2] == keys[3] && keys[3] == keys[4], "{keys:?}");
    gateway.end().await;
}

#[tokio::test]
async fn a_broker_that_does_not_mind_keys_gets_no_send_twice() {
    for step in [Step::Cut, Step::Answer(503, &[], "{}")] {
        let broker = Sends::start([step.clone(), Step::Answer(200, &[], TAKEN), step]).await;
        let gateway = start(broker.url(), |_| {}).await;
        let answer = post(&gateway, "/queues/orders/messages", "{}").await;
        assert!(answer.headers().contains_key("idempotency-key"), "the broker may mind it after all");
        let (status, code, message) = refusal(answer).await;
        assert_eq!((status, code), (503, 15000));
        assert!(message.contains("too old to mind keys"), "{message}");
        assert_eq!(broker.sent().len(), 1, "it is not tried again");
        // The broker's answer has the key: from then on it is known.
        for _ in 0..2 {
            assert_eq!(post(&gateway, "/queues/orders/messages", "{}").await.status(), 200);
        }
        assert_eq!(broker.sent().len(), 4);
        gateway.end().await;
    }
}

#[tokio::test]
async fn a_busy_broker_is_asked_again_when_it_said() {
    let broker = Sends::start([Step::Answer(429, &[("retry-after", "1")], "{}")]).await;
    let gateway = start(broker.url(), |_| {}).await;
    assert_eq!(post(&gateway, "/queues/orders/messages", "{}").await.status(), 200);
    assert!(between(&broker.sent())[0] >= Duration::from_secs(1));
    gateway.end().await;
}

#[tokio::test]
async fn a_broker_that_stays_busy_is_heard_and_nothing_was_stored() {
    let full = r#"{"success":false,"errors":[{"code":10251,"message":"full"}],"messages":[],"result":null}"#;
    let broker = Sends::start([Step::Answer(429, &[("retry-after", "3600")], full)]).await;
    let gateway = start(broker.url(), |_| {}).await;
    let answer = post(&gateway, "/queues/orders/messages", "{}").await;
    assert_eq!(answer.headers()["retry-after"], "3600");
    assert_eq!(refusal(answer).await, (429, 10251, "full".to_owned()));
    assert_eq!(broker.sent().len(), 1);
    gateway.end().await;
}

#[tokio::test]
async fn when_the_time_is_over_the_answer_says_what_may_have_been_stored() {
    const HOLD: Duration = Duration::from_secs(1);
    let began = Instant::now();
    let gateway =
        start(format!("http://127.0.0.1:{}", nobody().await), |settings| settings.hold = HOLD).await;
    let answer = post(&gateway, "/queues/orders/messages", "{}").await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(answer.headers().contains_key("retry-after"));
    let (status, code, message) = refusal(answer).await;
    assert_eq!((status, code), (503, 15000));
    assert!(message.contains("nothing was stored") && message.contains("refused"), "{message}");
    gateway.end().await;

    // Whatever came before and after: one try that may have arrived is enough.
    let steps = [Step::Answer(429, &[], ""), Step::Cut]
        .into_iter()
        .chain((0..50).map(|_| Step::Answer(429, &[], "")));
    for steps in [steps.collect::<Vec<_>>(), vec![Step::Hold; 50]] {
        let broker = Sends::start(steps).await;
        let gateway = start(broker.url(), |settings| settings.hold = HOLD).await;
        hello(&gateway).await;
        let answer = post(&gateway, "/queues/orders/messages", "{}").await;
        let key = answer.headers()["idempotency-key"].to_str().unwrap().to_owned();
        let (status, code, message) = refusal(answer).await;
        assert_eq!((status, code), (503, 15000));
        assert!(message.contains("may have been stored"), "{message}");
        let left =
            message.rsplit("within ").next().and_then(|text| text.strip_suffix(" s, and it is stored once"));
        let left = left.and_then(|text| text.parse::<u64>().ok());
        let longest = 300 - HOLD.as_secs();
        assert!(left.is_some_and(|left| (1..=longest).contains(&left)), "{left:?}: {message}");
        assert!(broker.sent().iter().all(|sent| sent.key() == key));
        gateway.end().await;
    }
}

#[tokio::test]
async fn a_broker_that_is_away_is_waited_for() {
    let port = nobody().await;
    let gateway = start(format!("http://127.0.0.1:{port}"), |_| {}).await;
    let sends: Vec<_> = (0..20)
        .map(|_| tokio::spawn(Client::new().post(url(&gateway, "/queues/orders/messages")).body("{}").send()))
        .collect();
    let held = |metrics: &str| metrics.contains("capstan_sidecar_gateway_requests_held 20\n");
    until_metrics(gateway.admin.unwrap(), "all are held", held).await;
    let broker = Sends::at(port, []).await;
    for send in sends {
        assert_eq!(soon("an answer", send).await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(broker.sent().len(), 20);
    gateway.end().await;
}

#[tokio::test]
async fn beyond_its_bytes_nothing_is_held() {
    let broker = Sends::start([Step::Hold]).await;
    let gateway = start(broker.url(), |settings| settings.hold_bytes = 1000).await;
    let long = |bytes| "x".repeat(bytes);
    let send = |bytes| Client::new().post(url(&gateway, "/queues/orders/messages")).body(long(bytes)).send();
    let first = tokio::spawn(send(600));
    broker.until("the first is held", |seen| seen.held == 1).await;
    let answer = soon("an answer", send(500)).await.unwrap();
    assert!(answer.headers().contains_key("retry-after"));
    let (status, code, message) = refusal(answer).await;
    assert_eq!((status, code), (503, 10250));
    assert!(message.contains("1000 bytes") && message.contains("nothing was stored"), "{message}");
    assert_eq!(soon("an answer", send(400)).await.unwrap().status(), 200, "what fits is passed on");
    let (status, code, _) = refusal(soon("an answer", send(1001)).await.unwrap()).await;
    assert_eq!((status, code), (400, 10205), "it would never fit");
    broker.let_go(1);
    assert_eq!(soon("an answer", first).await.unwrap().unwrap().status(), 200);
    assert_eq!(soon("an answer", send(500)).await.unwrap().status(), 200, "there is room again");
    let (_, metrics) = get(gateway.admin.unwrap(), "/metrics").await;
    assert!(metrics.contains(r#"requests_total{outcome="full"} 1"#), "{metrics}");
    gateway.end().await;
}

#[tokio::test]
async fn a_queue_that_is_full_leaves_room_to_the_others() {
    let broker = Sends::start([Step::Hold, Step::Answer(429, &[("retry-after", "1")], "{}")]).await;
    let gateway = start(broker.url(), |settings| settings.hold_bytes = 1000).await;
    let body = "x".repeat(501);
    let first = tokio::spawn(Client::new().post(url(&gateway, "/queues/a/messages")).body(body).send());
    broker.until("the first is held", |seen| seen.held == 1).await;
    assert_eq!(post(&gateway, "/queues/b/messages", "{}").await.status(), 429);
    broker.let_go(1);
    assert_eq!(soon("an answer", first).await.unwrap().unwrap().status(), 200);
    gateway.end().await;
}

#[tokio::test]
async fn many_small_sends_to_a_queue_that_is_full_leave_connections_to_the_others() {
    const MANY: usize = 500;
    let broker = Sends::start(vec![Step::Answer(429, &[("retry-after", "25")], "{}"); MANY]).await;
    let gateway = start(broker.url(), |_| {}).await;
    let url = url(&gateway, "/queues/full/messages");
    let client = Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let sends: Vec<_> = (0..MANY).map(|_| tokio::spawn(client.post(&url).body("{}").send())).collect();
    broker.until("all were tried", |seen| seen.sent.len() >= MANY).await;
    assert_eq!(post(&gateway, "/queues/free/messages", "{}").await.status(), 200);
    let held = sends.iter().filter(|send| !send.is_finished()).count();
    assert!(held <= MANY / 2 + 1, "{held} sends have connections");
    sends.iter().for_each(tokio::task::JoinHandle::abort);
    gateway.end().await;
}

#[tokio::test]
async fn an_application_that_goes_away_takes_its_send_along() {
    let port = nobody().await;
    let gateway = start(format!("http://127.0.0.1:{port}"), |_| {}).await;
    let send = tokio::spawn(Client::new().post(url(&gateway, "/queues/orders/messages")).body("{}").send());
    let shows = async |line: &str| {
        until_metrics(gateway.admin.unwrap(), line, |metrics| metrics.lines().any(|one| one == line)).await;
    };
    shows("capstan_sidecar_gateway_requests_held 1").await;
    send.abort();
    shows(r#"capstan_sidecar_gateway_requests_total{outcome="cut"} 1"#).await;
    shows("capstan_sidecar_gateway_requests_held 0").await;
    let broker = Sends::at(port, []).await;
    assert_eq!(post(&gateway, "/queues/orders/messages", r#"{"body": 2}"#).await.status(), 200);
    assert_eq!(broker.sent().iter().map(|sent| sent.body.as_str()).collect::<Vec<_>>(), [r#"{"body": 2}"#]);
    gateway.end().await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_without_the_broker() {
    let gateway = start(format!("http://127.0.0.1:{}", nobody().await), |_| {}).await;
    for path in [
        "/queues/Orders/messages",
        "/queues/a.b/messages/batch",
        "/queues/%ff/messages",
        "/queues/-/messages",
    ] {
        let (status, code, message) = refusal(post(&gateway, path, "{}").await).await;
        assert_eq!((status, code), (400, 10107), "{path}");
        assert!(message.contains("path"), "{message}");
    }
    let answer = reqwest::get(url(&gateway, "/queues/Orders/metrics")).await.unwrap();
    assert_eq!(refusal(answer).await.1, 10107);
    let answer = reqwest::get(url(&gateway, "/queues/orders/messages")).await.unwrap();
    assert_eq!(answer.headers()["allow"], "POST");
    let (status, code, _) = refusal(answer).await;
    assert_eq!((status, code), (405, 7003));
    for path in
        ["/", "/queues/orders/messages/pull", "/metrics", "/client/v4/accounts/shop/queues/orders/messages"]
    {
        let (status, code, _) = refusal(post(&gateway, path, "{}").await).await;
        assert_eq!((status, code), (404, 7003), "{path}");
    }
    gateway.end().await;
}

#[tokio::test]
async fn a_page_in_a_browser_sends_nothing() {
    let broker = Sends::start([]).await;
    let gateway = start(broker.url(), |_| {}).await;
    for origin in ["https://example.com", "null"] {
        let send = Client::new().post(url(&gateway, "/queues/orders/messages")).header("origin", origin);
        let answer = soon("an answer", send.body("{}").send()).await.unwrap();
        assert_eq!(answer.status(), 403);
        assert!(answer.text().await.unwrap().contains("origin"));
    }
    assert!(broker.sent().is_empty());
    gateway.end().await;
}

#[tokio::test]
async fn it_listens_on_both_loopback_addresses_and_nowhere_else() {
    let broker = Sends::start([]).await;
    let gateway = start(broker.url(), |_| {}).await;
    let port = gateway.gateway.unwrap().port();
    let six = std::net::TcpListener::bind("[::1]:0").is_ok();
    for host in ["127.0.0.1", "[::1]"].into_iter().take(if six { 2 } else { 1 }) {
        let send =
            Client::new().post(format!("http://{host}:{port}/queues/orders/messages")).body("{}").send();
        assert_eq!(soon("an answer", send).await.unwrap().status(), 200, "{host}");
    }
    // All of 127.0.0.0/8 is this machine.
    let refused = TcpStream::connect(("127.0.0.2", port)).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    gateway.end().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let settings = Settings { port, ..Settings::default() };
    let bound = capstan_sidecar::gateway::Gateway::bind("http://127.0.0.1:1", name("shop"), &settings).await;
    let error = bound.unwrap_err().to_string();
    assert!(error.contains(&port.to_string()) && error.contains("CAPSTAN_GATEWAY_PORT"), "{error}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_waited_for() {
    let broker = Sends::start([]).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let gateway = start(broker.url(), |settings| settings.port = port).await;
    let listening = |value| move |metrics: &str| metrics.contains(&format!("gateway_listening {value}\n"));
    until_metrics(gateway.admin.unwrap(), "the sidecar works", listening(0)).await;
    drop(taken);
    until_metrics(gateway.admin.unwrap(), "it listens", listening(1)).await;
    assert_eq!(post(&gateway, "/queues/orders/messages", "{}").await.status(), 200);
    gateway.end().await;
    // One that never gets its port ends all the same.
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    start(broker.url(), |settings| settings.port = port).await.end().await;
    drop(taken);
}

#[tokio::test]
async fn ending_the_application_does_not_end_the_gateway_and_ending_the_sidecar_does_it_last() {
    let broker = Sends::start([]).await;
    let mut gateway = start(broker.url(), |_| {}).await;
    let admin = gateway.admin.unwrap();
    assert_eq!(get(admin, "/quiesce").await.0, 200);
    assert_eq!(post(&gateway, "/queues/orders/messages", "{}").await.status(), 200, "quiescent");
    let drained = reqwest::Client::new().post(format!("http://{admin}/drain")).send().await.unwrap();
    assert_eq!(drained.status(), 200);
    assert_eq!(post(&gateway, "/queues/orders/messages", "{}").await.status(), 200, "drained");

    let broker = {
        let port = broker.end().await;
        Sends::at(port, [Step::Hold]).await
    };
    let address = gateway.gateway.unwrap();
    let send = tokio::spawn(Client::new().post(url(&gateway, "/queues/orders/messages")).body("{}").send());
    broker.until("a send is open", |seen| seen.held == 1).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    gateway.shut_down();
    // A connection without a request is closed: the gateway is ending, and waits for the send.
    assert_eq!(soon("it closes", idle.read(&mut [0])).await.unwrap(), 0);
    broker.let_go(1);
    assert_eq!(soon("an answer", send).await.unwrap().unwrap().status(), 200);
    gateway.ended().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_send_that_is_held_when_the_sidecar_ends_is_answered() {
    let mut gateway = start(format!("http://127.0.0.1:{}", nobody().await), |_| {}).await;
    let send = tokio::spawn(Client::new().post(url(&gateway, "/queues/orders/messages")).body("{}").send());
    let held = |metrics: &str| metrics.contains("capstan_sidecar_gateway_requests_held 1\n");
    until_metrics(gateway.admin.unwrap(), "it is held", held).await;
    gateway.shut_down();
    let (status, code, message) = refusal(soon("an answer", send).await.unwrap().unwrap()).await;
    assert_eq!((status, code), (503, 15000));
    assert!(message.contains("ending"), "{message}");
    gateway.ended().await;
}
