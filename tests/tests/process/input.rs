//! Bad input: each gets Cloudflare's envelope and code, names the field, and stores nothing.

use reqwest::Method;
use serde_json::{Value, json};

use crate::fixture::{Fixture, NAMESPACE, queue};

/// The first list too many.
const DEEPEST: &str = "/body/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0\
    /0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0";

/// A request that must be refused.
struct Row {
    what: &'static str,
    method: Method,
    path: String,
    body: Vec<u8>,
    status: u16,
    code: u64,
    /// The JSON pointer in the answer; none is expected when empty.
    pointer: &'static str,
    /// A header to send.
    header: Option<(&'static str, String)>,
    /// The header that the answer must name.
    named: Option<&'static str>,
    /// A part of the message.
    says: &'static str,
}

/// A POST to `orders`, or to the queue before the colon.
fn post(path: &str, body: impl Into<Vec<u8>>, status: u16, code: u64, pointer: &'static str) -> Row {
    let (queue, action) = path.split_once(':').unwrap_or(("orders", path));
    let path = format!("/client/v4/accounts/{NAMESPACE}/queues/{queue}/{action}");
    row(Method::POST, path, body, status, code, pointer)
}

fn row(
    method: Method,
    path: impl Into<String>,
    body: impl Into<Vec<u8>>,
    status: u16,
    code: u64,
    pointer: &'static str,
) -> Row {
    let (path, body, header, named) = (path.into(), body.into(), None, None);
    Row { what: "", method, path, body, status, code, pointer, header, named, says: "" }
}

impl Row {
    fn what(self, what: &'static str) -> Self {
        Self { what, ..self }
    }

    fn says(self, says: &'static str) -> Self {
        Self { says, ..self }
    }

    /// Sends a header, which is what is wrong.
    fn header(self, name: &'static str, value: impl Into<String>) -> Self {
        Self { header: Some((name, value.into())), named: Some(name), ..self }
    }

    /// The answer names a header that is not there.
    fn without(self, name: &'static str) -> Self {
        Self { named: Some(name), ..self }
    }
}

fn sends() -> Vec<Row> {
    let one = "messages";
    let text = |bytes: usize| json!({ "body": "x".repeat(bytes), "content_type": "text" }).to_string();
    let many = json!({ "messages": vec![json!({ "body": 1 }); 101] }).to_string();
    let large = json!({ "messages": vec![json!({ "body": "x".repeat(90_000) }); 3] }).to_string();
    let attributes: serde_json::Map<String, Value> = (0..17).map(|n| (format!("a{n}"), json!("b"))).collect();
    let attributes = json!({ "body": 1, "attributes": attributes }).to_string();
    let long = json!({ "body": 1, "attributes": { "a": "b".repeat(5_000) } }).to_string();
    let batch_delay = |delay: &str| format!(r#"{{"messages":[{{"body":1}}],"delay_seconds":{delay}}}"#);
    vec![
        post("nowhere:messages", r#"{"body":1}"#, 404, 10104, "").what("unknown queue").says("nowhere"),
        post("Or_ders:messages", r#"{"body":1}"#, 400, 10107, "").what("malformed queue").says("queue id"),
        post("%FF%FE:messages", r#"{"body":1}"#, 400, 10107, "").what("a path that is no text"),
        post(&format!("{}:messages", "q".repeat(64)), r#"{"body":1}"#, 400, 10107, "").what("long name"),
        post(one, r#"{"body":"#, 400, 10208, "").what("cut JSON").says("not JSON"),
        post(one, "body=1", 400, 10208, "").what("no JSON"),
        post(one, r#"{"body":1} {"body":2}"#, 400, 10208, "").what("two documents"),
        post(one, b"{\"body\":\"\xff\"}".to_vec(), 400, 10208, "").what("no UTF-8"),
        post(one, "", 400, 10207, "/body").what("no body"),
        post(one, "[]", 400, 10207, "").what("a list"),
        post(one, r#"["hello"]"#, 400, 10207, "")
            .what("a message as a list")
            .says("must be an object, is an array"),
        post(one, r#"["hello","text",5]"#, 400, 10207, "").what("all of a message as a list"),
        post(one, "{}", 400, 10207, "/body").what("no message"),
        post(one, r#"{"body":1,"delay_seconds":"5"}"#, 400, 10207, "/delay_seconds").what("a text as number"),
        post(one, r#"{"body":1,"delay_seconds":1.5}"#, 400, 10203, "/delay_seconds").what("half a second"),
        post(one, r#"{"body":1,"delay_seconds":-1}"#, 400, 10203, "/delay_seconds")
            .what("the past")
            .says("is -1"),
        post(one, r#"{"body":1,"delay_seconds":86401}"#, 400, 10203, "/delay_seconds").what("too late"),
        post(one, r#"{"body":1,"content_type":7}"#, 400, 10207, "/content_type").what("a number as type"),
        post(one, r#"{"body":1,"content_type":"xml"}"#, 400, 10203, "/content_type").what("unknown type"),
        post(one, r#"{"body":1,"content_type":"text"}"#, 400, 10203, "/body").what("a number as text"),
        post(one, r#"{"body":"%%","content_type":"bytes"}"#, 400, 10203, "/body").what("no base64"),
        post(one, format!(r#"{{"body":{}{}}}"#, "[".repeat(50_000), "]".repeat(50_000)), 400, 10203, DEEPEST)
            .what("lists in lists")
            .says("nested deeper than 96 levels"),
        post(one, r#"{"body":{"a":[1e999]}}"#, 400, 10203, "/body/a/0").what("a number that is infinite"),
        post(one, r#"{"body":"\ud800"}"#, 400, 10203, "/body").what("half a character").says("surrogate"),
        post(one, r#"{"body":"\ud800","content_type":"text"}"#, 400, 10203, "/body")
            .what("half a character as text")
            .says("surrogate"),
        post(
            "messages/batch",
            r#"{"messages":[{"body":1},{"body":{"b":-1e400}}]}"#,
            400,
            10203,
            "/messages/1/body/b",
        )
        .what("the second is infinite"),
        post(one, r#"{"body":1,"attributes":[]}"#, 400, 10207, "/attributes").what("a list of attributes"),
        post(one, r#"{"body":1,"attributes":{"a":1}}"#, 400, 10207, "/attributes/a")
            .what("a number as value"),
        post(one, r#"{"body":1,"attributes":{"A B":"x"}}"#, 400, 10203, "/attributes").what("attribute name"),
        post(one, attributes, 400, 10203, "/attributes").what("too many attributes").says("at most 16"),
        post(one, long, 400, 10203, "/attributes").what("long attributes"),
        post(one, text(128_001), 400, 10204, "/body").what("too large").says("exceeds limit of 128000"),
        post(one, r#"{"body":1}"#, 400, 10203, "")
            .what("long attribute in a header")
            .header("capstan-attr-long", "x".repeat(5_000))
            .says("at most 4096"),
        post(one, r#"{"body":1}"#, 400, 10207, "")
            .what("no idempotency key")
            .header("idempotency-key", "")
            .says("1 to 128 characters"),
        post(one, r#"{"body":1}"#, 400, 10207, "")
            .what("half an idempotency key")
            .header("idempotency-key", "\"a")
            .says("ends with one"),
        post(one, text(5 << 20), 400, 10205, "").what("a request without end").says("larger than 4608000"),
        post("nowhere:messages", text(5 << 20), 404, 10104, "").what("too much for an unknown queue"),
        post("messages/batch", r#"{"messages":{}}"#, 400, 10207, "/messages").what("no list"),
        post("messages/batch", r#"{"messages":[["a"],["b","text"]]}"#, 400, 10207, "/messages/0")
            .what("messages as lists")
            .says("messages[0]: must be an object, is an array"),
        post("messages/batch", r#"{"messages":[{"body":1},["b"]]}"#, 400, 10207, "/messages/1")
            .what("the second as a list"),
        post("messages/batch", r#"[[["a"]]]"#, 400, 10207, "").what("a batch as a list"),
        post("messages/batch", "{}", 400, 10207, "/messages").what("no messages"),
        post("messages/batch", r#"{"messages":[]}"#, 400, 10206, "/messages").what("empty batch"),
        post("messages/batch", many, 400, 10206, "/messages").what("too many").says("101"),
        post("messages/batch", large, 400, 10205, "/messages").what("large batch").says("256000"),
        post("messages/batch", r#"{"messages":[{"body":1},{}]}"#, 400, 10207, "/messages/1/body")
            .what("second empty"),
        post(
            "messages/batch",
            r#"{"messages":[{"body":1},{"body":2,"delay_seconds":90000}]}"#,
            400,
            10203,
            "/messages/1/delay_seconds",
        )
        .what("the second is too late, and the first must not be stored"),
        post(
            "messages/batch",
            r#"{"messages":[{"body":1}],"delay_seconds":90000}"#,
            400,
            10202,
            "/delay_seconds",
        )
        .what("batch delay"),
        post("messages/batch", batch_delay("-0.5"), 400, 10202, "/delay_seconds").what("a batch in the past"),
        post("messages/batch", batch_delay("\"5\""), 400, 10207, "/delay_seconds").what("a text as delay"),
        post("small:messages/batch", r#"{"messages":[{"body":1},{"body":2}]}"#, 400, 10205, "")
            .what("more than a queue holds")
            .says("never have room"),
    ]
}

fn pulls_and_verdicts() -> Vec<Row> {
    let (pull, ack) = ("messages/pull", "messages/ack");
    let leases = |count: usize| json!(vec![json!({ "lease_id": "x" }); count]);
    let many = json!({ "acks": leases(1001) }).to_string();
    let together = json!({ "acks": leases(500), "retries": leases(501) }).to_string();
    let extends = json!({ "extends": leases(1001) }).to_string();
    let refs = json!({ "refs": vec![json!({ "ref": "x" }); 1001] }).to_string();
    let cancel = "messages/pull/cancel";
    vec![
        post("nowhere:messages/pull/cancel", "", 404, 10104, "").what("cancel in an unknown queue"),
        post("Or_ders:messages/pull/cancel", "", 400, 10107, "").what("cancel in no queue"),
        post(cancel, "", 400, 10207, "").what("cancel of nothing").without("capstan-pull").says("is missing"),
        post(cancel, "", 400, 10207, "")
            .what("cancel of what has no name")
            .header("capstan-pull", "x".repeat(65))
            .says("1 to 64"),
        post(pull, "{}", 400, 10207, "")
            .what("a pull with no name")
            .header("capstan-pull", "")
            .says("1 to 64"),
        post("nowhere:messages/pull", "{}", 404, 10104, "").what("pull of an unknown queue"),
        post(pull, "{", 400, 10208, "").what("pull cut"),
        post(pull, "[1]", 400, 10207, "").what("a pull as a list").says("must be an object"),
        post(pull, r#"{"batch_size":"5"}"#, 400, 10207, "/batch_size").what("pull with a text"),
        post(pull, r#"{"batch_size":0}"#, 400, 10206, "/batch_size").what("pull of nothing"),
        post(pull, r#"{"batch_size":101}"#, 400, 10206, "/batch_size").what("pull of too many"),
        post(pull, r#"{"batch_size":2.5}"#, 400, 10207, "/batch_size").what("pull of a half"),
        post(pull, r#"{"visibility_timeout_ms":43200001}"#, 400, 10207, "/visibility_timeout_ms")
            .what("long lease"),
        post(pull, r#"{"visibility_timeout":43200001}"#, 400, 10207, "/visibility_timeout")
            .what("long old lease"),
        post(pull, r#"{"wait_ms":60001}"#, 400, 10207, "/wait_ms").what("long wait"),
        post("paused:messages/pull", "{}", 409, 10252, "").what("paused").says("queue_delivery_paused"),
        post("unread:messages/pull", "{}", 400, 0, "").what("no consumer").says("http_pull mode"),
        post("pushed:messages/pull", "{}", 400, 0, "").what("a push queue").says("Deployment/shop"),
        post("nowhere:messages/ack", "{}", 404, 10104, "").what("ack in an unknown queue"),
        post(ack, "nonsense", 400, 10208, "").what("ack without JSON"),
        post(ack, "[]", 400, 10207, "").what("verdicts as a list"),
        post(ack, r#"{"acks":[["x"]]}"#, 400, 10207, "/acks/0").what("an ack as a list"),
        post(ack, r#"{"retries":[["x",5]]}"#, 400, 10207, "/retries/0").what("a retry as a list"),
        post("messages/extend", r#"[[],5]"#, 400, 10207, "").what("an extension as a list"),
        post("messages/peek", "[5]", 400, 10207, "").what("a look as a list"),
        post(ack, r#"{"acks":"all"}"#, 400, 10207, "/acks").what("acks that are no list"),
        post(ack, r#"{"acks":["x"]}"#, 400, 10207, "/acks/0").what("an ack that is a text"),
        post(ack, r#"{"acks":[{}]}"#, 400, 10207, "/acks/0/lease_id").what("an ack of nothing"),
        post(ack, r#"{"acks":[{"lease_id":7}]}"#, 400, 10207, "/acks/0/lease_id").what("a number as lease"),
        post(ack, r#"{"acks":[{"lease_id":"x"}]}"#, 400, 10207, "/acks/0/lease_id").what("a bad lease"),
        post(ack, r#"{"retries":[{"lease_id":"x"}]}"#, 400, 10207, "/retries/0/lease_id").what("a bad retry"),
        post(ack, r#"{"releases":[{"lease_id":"x"}]}"#, 400, 10207, "/releases/0/lease_id")
            .what("a bad release"),
        post(ack, many, 400, 10206, "/acks").what("too many verdicts").says("at most 1000 lease ids"),
        post(ack, together, 400, 10206, "/retries").what("too many verdicts together").says("this one 1001"),
        post("messages/extend", "{}", 400, 10207, "/extends").what("an extension of nothing"),
        post("messages/extend", extends, 400, 10206, "/extends").what("too many extensions").says("1001"),
        post("messages/purge", "{}", 400, 10207, "/refs").what("a purge of nothing"),
        post("messages/purge", refs, 400, 10206, "/refs").what("too many refs").says("1001"),
        post("messages/peek", r#"{"batch_size":[]}"#, 400, 10207, "/batch_size").what("a look at a list"),
        post("nowhere:messages/peek", "{}", 404, 10104, "").what("a look at an unknown queue"),
    ]
}

fn routes() -> Vec<Row> {
    let row = |method, path: &str, status, code| row(method, path, "{}", status, code, "");
    let queues = "/client/v4/accounts/shop/queues";
    vec![
        row(Method::GET, "/", 404, 7003).what("the root").says("GET /"),
        row(Method::GET, "/client/v4/accounts/shop/que", 404, 7003).what("no such path"),
        row(Method::OPTIONS, "/client/v4/accounts/shop/que", 404, 7003).what("a question about no path"),
        row(Method::GET, &format!("{queues}/orders/messages"), 405, 7003)
            .what("a GET that is a POST")
            .says("does not take GET"),
        row(Method::DELETE, &format!("{queues}/orders/messages/pull"), 405, 7003).what("a DELETE of a POST"),
        row(Method::GET, "/client/v4/accounts/Sh_op/queues", 400, 10107)
            .what("a list of no namespace")
            .says("account id"),
        row(Method::GET, "/client/v4/accounts/-/queues?name=orders", 400, 10107)
            .what("a name in no namespace"),
        row(Method::GET, &format!("{queues}?page=0"), 400, 10207)
            .what("a page before the first")
            .says("page"),
        row(Method::GET, &format!("{queues}?per_page=x"), 400, 10207)
            .what("no size of a page")
            .says("per_page"),
        row(Method::GET, &format!("{queues}/nowhere"), 404, 10104).what("an unknown queue"),
        row(Method::GET, &format!("{queues}/nowhere/metrics"), 404, 10104)
            .what("metrics of an unknown queue"),
        row(Method::GET, &format!("{queues}/orders/consumers/nobody"), 404, 11001)
            .what("an unknown consumer"),
        row(Method::GET, "/client/v4/accounts/%FF/queues", 400, 10107).what("an account that is no text"),
        row(Method::POST, queues, 403, 10023).what("a new queue").says("kubectl apply"),
        row(Method::PUT, &format!("{queues}/orders"), 403, 10023).what("another queue"),
        row(Method::PATCH, &format!("{queues}/orders"), 403, 10023).what("a changed queue"),
        row(Method::DELETE, &format!("{queues}/orders"), 403, 10023).what("a queue deleted"),
        row(Method::POST, &format!("{queues}/orders/consumers"), 403, 10023).what("a new consumer"),
        row(Method::DELETE, &format!("{queues}/orders/consumers/orders"), 403, 10023)
            .what("a consumer deleted"),
        row(Method::GET, "/capstan/v1/namespaces/Sh_op/workloads/Deployment/x/consumers", 400, 10107)
            .what("consumers in no namespace"),
        row(Method::GET, "/capstan/v1/namespaces/shop/workloads/Pod/x/consumers", 404, 7003)
            .what("a bad kind"),
        row(
            Method::GET,
            "/capstan/v1/namespaces/shop/workloads/Deployment/x/consumers?wait_ms=y",
            400,
            10207,
        )
        .what("a bad parameter"),
    ]
}

/// A declaration whose only queue has one thing wrong.
fn declarations() -> Vec<Row> {
    let row = |what, body: Vec<u8>, code, pointer| {
        row(Method::PUT, "/control/v1/declaration", body, 400, code, pointer).what(what)
    };
    let wrong = |what, more: Value, pointer| {
        let queues = [queue("orders", 3, json!({})), queue("bad", 3, more)];
        row(what, json!({ "revision": "bad", "queues": queues }).to_string().into(), 10207, pointer)
    };
    let push = |more: Value| {
        let mut push = json!({
            "workload": { "kind": "Deployment", "name": "shop" },
            "endpoint": { "port": 8080, "path": "/", "timeout_ms": 60_000 },
            "max_batch_size": 10, "max_batch_bytes": 1000, "max_wait_ms": 0, "concurrency_per_pod": 1,
        });
        crate::fixture::overlay(&mut push, more);
        json!({ "consumer": { "push": push } })
    };
    let consumer = |more: Value| json!({ "consumer": more });
    vec![
        row("no JSON", b"revision: 1".to_vec(), 10208, ""),
        row("no declaration", b"{}".to_vec(), 10207, "/revision"),
        row("no list", br#"{"revision":"bad","queues":{}}"#.to_vec(), 10207, "/queues"),
        row("all as a list", br#"["bad",[]]"#.to_vec(), 10207, "").says("must be an object"),
        row(
            "queues as lists",
            br#"{"revision":"bad","queues":[["shop","bad"]]}"#.to_vec(),
            10207,
            "/queues/0",
        ),
        wrong("consumer as a list", json!({"consumer": ["bad"]}), "/queues/1/consumer"),
        row(
            "long revision",
            json!({"revision": "r".repeat(129), "queues": []}).to_string().into(),
            10207,
            "/revision",
        ),
        wrong("name", json!({"name": "Bad"}), "/queues/1/name").says("a-z"),
        wrong("namespace", json!({"namespace": "-"}), "/queues/1/namespace"),
        wrong("twice", json!({"name": "orders"}), "/queues/1").says("twice"),
        wrong("type", json!({"retention_ms": "4d"}), "/queues/1/retention_ms"),
        wrong("retention", json!({"retention_ms": 1}), "/queues/1/retention_ms").says("60000"),
        wrong("delay", json!({"delivery_delay_ms": 86_400_001}), "/queues/1/delivery_delay_ms"),
        wrong("size", json!({"max_message_bytes": 2_000_000}), "/queues/1/max_message_bytes"),
        wrong("retries", consumer(json!({"max_retries": 101})), "/queues/1/consumer/max_retries"),
        wrong(
            "lease",
            consumer(json!({"visibility_timeout_ms": 0})),
            "/queues/1/consumer/visibility_timeout_ms",
        ),
        wrong(
            "retry delay",
            consumer(json!({"retry_delay_ms": 86_400_001})),
            "/queues/1/consumer/retry_delay_ms",
        ),
        wrong(
            "backoff",
            consumer(json!({"retry_backoff": {"factor": 0, "max_delay_ms": 1}})),
            "/queues/1/consumer/retry_backoff/factor",
        ),
        wrong(
            "itself",
            consumer(json!({"dead_letter_queue": "bad"})),
            "/queues/1/consumer/dead_letter_queue",
        ),
        wrong("kind", push(json!({"workload": {"kind": "Pod"}})), "/queues/1/consumer/push/workload/kind"),
        wrong("port", push(json!({"endpoint": {"port": 0}})), "/queues/1/consumer/push/endpoint/port"),
        wrong("path", push(json!({"endpoint": {"path": "x"}})), "/queues/1/consumer/push/endpoint/path"),
        wrong(
            "timeout",
            push(json!({"endpoint": {"timeout_ms": 0}})),
            "/queues/1/consumer/push/endpoint/timeout_ms",
        ),
        wrong("batch", push(json!({"max_batch_size": 101})), "/queues/1/consumer/push/max_batch_size"),
        wrong("bytes", push(json!({"max_batch_bytes": 0})), "/queues/1/consumer/push/max_batch_bytes"),
        wrong("wait", push(json!({"max_wait_ms": 60_001})), "/queues/1/consumer/push/max_wait_ms"),
        wrong(
            "calls",
            push(json!({"concurrency_per_pod": 0})),
            "/queues/1/consumer/push/concurrency_per_pod",
        ),
    ]
}

fn retirements() -> Vec<Row> {
    let path = |of: &str| format!("/control/v1/namespaces/{of}/pods");
    let shop = || path("shop/workloads/Deployment/shop");
    let put = |body: Value, pointer| row(Method::PUT, shop(), body.to_string(), 400, 10207, pointer);
    let good = || json!({ "pods": ["shop-1"], "for_ms": 1000 }).to_string();
    vec![
        put(json!({ "pods": vec!["shop-1"; 1001], "for_ms": 1 }), "/pods").what("pods").says("1000"),
        put(json!({ "pods": ["shop-1", ""], "for_ms": 1 }), "/pods/1").what("no name").says("pods[1]"),
        put(json!({ "pods": ["x".repeat(254)], "for_ms": 1 }), "/pods/0").what("long name").says("253"),
        put(json!({ "pods": "shop-1", "for_ms": 1 }), "/pods").what("no list"),
        put(json!({ "pods": [], "for_ms": 600_001 }), "/for_ms").what("time").says("600000"),
        put(json!({ "pods": [] }), "/for_ms").what("no time"),
        put(json!({ "for_ms": 1 }), "/pods").what("no pods"),
        put(json!([["shop-1"], 1]), "").what("all as a list").says("must be an object"),
        row(Method::PUT, shop(), "pods", 400, 10208, "").what("no JSON"),
        row(Method::PUT, path("Shop/workloads/Deployment/shop"), good(), 400, 10107, "").says("namespace"),
        row(Method::PUT, path("shop/workloads/Pod/shop"), good(), 404, 7003, "").says("Deployment/NAME"),
        row(Method::GET, path("shop/workloads/Pod/shop"), "", 404, 7003, "").says("Deployment/NAME"),
        row(Method::GET, path("-/workloads/Deployment/shop"), "", 400, 10107, "").says("namespace"),
        row(Method::POST, shop(), good(), 405, 7003, ""),
        row(Method::GET, path("shop/workloads/Deployment"), "", 404, 7003, ""),
    ]
}

async fn check(http: &reqwest::Client, base: &str, row: &Row) {
    let Row { what, method, path, status, code, pointer, header, named, says, .. } = row;
    let mut request = http.request(method.clone(), format!("{base}{path}")).body(row.body.clone());
    if let Some((name, value)) = header {
        request = request.header(*name, value);
    }
    let answer = request.send().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let (found, kind) = (answer.status().as_u16(), answer.headers().get("content-type").cloned());
    let text = answer.text().await.unwrap();
    let envelope: Value =
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{what}: no envelope but {found} {text:?}"));
    assert_eq!(kind.unwrap(), "application/json", "{what}");
    assert_eq!(found, *status, "{what}: {text}");
    assert_eq!((&envelope["success"], &envelope["result"]), (&json!(false), &Value::Null), "{what}: {text}");
    let errors = envelope["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{what}: {text}");
    assert_eq!(errors[0]["code"], *code, "{what}: {text}");
    let source = &errors[0]["source"];
    assert_eq!(source["pointer"].as_str().unwrap_or(""), *pointer, "{what}: {text}");
    assert_eq!(source["header"].as_str(), *named, "{what}: {text}");
    let message = errors[0]["message"].as_str().unwrap();
    assert!(message.contains(says), "{what}: {message:?} does not contain {says:?}");
    // The last part of the pointer, if it is a field and not a place in a list, is also said in words.
    let field = pointer.rsplit('/').find(|part| part.parse::<u32>().is_err()).unwrap_or("");
    assert!(message.contains(field), "{what}: {message:?} does not name {field:?}");
}

#[tokio::test]
async fn every_bad_request_is_refused_by_name_and_stores_nothing() {
    let push = json!({"consumer": {"push": {
        "workload": { "kind": "Deployment", "name": "shop" },
        "endpoint": { "port": 8080, "path": "/", "timeout_ms": 60_000 },
        "max_batch_size": 10, "max_batch_bytes": 1000, "max_wait_ms": 0, "concurrency_per_pod": 1,
    }}});
    let names = ["orders", "paused", "pushed", "small", "unread"];
    let fixture = Fixture::new(&[
        queue("orders", 3, json!({})),
        queue("paused", 3, json!({"delivery_paused": true})),
        queue("pushed", 3, push),
        queue("small", 3, json!({"max_messages": 1})),
        queue("unread", 3, json!({"consumer": null})),
    ])
    .await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (api, admin) = (fixture.broker.url(), fixture.broker.admin_url());
    let mut rows = 0;
    for row in sends().iter().chain(&pulls_and_verdicts()).chain(&routes()) {
        check(&http, &api, row).await;
        rows += 1;
    }
    for row in declarations().iter().chain(&retirements()) {
        check(&http, &admin, row).await;
        rows += 1;
    }
    assert!(rows > 90, "only {rows} rows");

    let state = fixture.control.state().await.unwrap();
    assert_eq!(state.revision, "1", "a refused declaration leaves the last one");
    assert_eq!(state.queues.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>(), names);
    for queue in &state.queues {
        let counts = [queue.ready, queue.delayed, queue.leased, queue.dead, queue.bytes, queue.totals.sent];
        assert_eq!(counts, [0; 6], "{queue:?}");
    }
    for name in names {
        for state in ["ready", "delayed", "leased", "dead"] {
            let series =
                format!("capstan_queue_messages{{namespace=\"shop\",queue=\"{name}\",state=\"{state}\"}}");
            assert_eq!(fixture.metric(&series).await, 0.0, "{series}");
        }
    }
}
