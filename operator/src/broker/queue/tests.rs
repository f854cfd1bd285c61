//! What is said of Queues, from small objects.

use capstan_crds::{Consumer, Object, Resolution, parse, resolve};

use super::*;

fn objects(yaml: &str) -> (Vec<Queue>, Vec<Consumer>, Resolution) {
    let (mut queues, mut consumers) = (Vec::new(), Vec::new());
    for object in parse(yaml).unwrap() {
        match object {
            Object::Queue(mut queue) => {
                queue.metadata.generation = Some(7);
                queues.push(queue.as_ref().clone());
            }
            Object::Consumer(consumer) => consumers.push(consumer.as_ref().clone()),
            other => panic!("not expected here: {other:?}"),
        }
    }
    let resolution = resolve(&queues, &consumers);
    (queues, consumers, resolution)
}

const QUEUE: &str =
    "apiVersion: capstan.dev/v1alpha1\nkind: Queue\nmetadata: {name: orders, namespace: shop}\nspec: {}\n";
const CONSUMER: &str = "---\napiVersion: capstan.dev/v1alpha1\nkind: Consumer\nmetadata: {name: c, namespace: shop, uid: u}\n\
    spec: {queueRef: {name: orders}, targetRef: {kind: Deployment, name: shop}, deadLetterQueueRef: {name: dead}}\n";

fn state(revision: &str) -> BrokerState {
    let queue = |name: &str, ready| {
        serde_json::json!({"namespace": "shop", "name": name, "retained": false, "ready": ready, "delayed": 1,
            "leased": 2, "dead": 0, "bytes": 300, "oldest_age_ms": 90_500})
    };
    serde_json::from_value(serde_json::json!({
        "incarnation": "7f3c", "revision": revision, "version": "0.1.0",
        "queues": [queue("dead", 4), queue("orders", 3)],
    }))
    .unwrap()
}

fn exists() -> Found {
    Found::Exists { refused: None }
}

fn declared() -> Control {
    Control { state: Some(state("r")), is_declared: true, problem: None }
}

fn of(yaml: &str, found: &Found, control: &Control) -> QueueStatus {
    let (queues, _, resolution) = objects(yaml);
    let resolved = &resolution.queues[&Key::of(&queues[0].metadata)];
    status(&queues[0], resolved, found, control, &status::now())
}

fn reason_of(status: &QueueStatus, type_: &str) -> (String, String) {
    let condition = find(&status.conditions, type_).unwrap();
    assert_eq!(condition.observed_generation, Some(7));
    (condition.status.clone(), condition.reason.clone())
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_queue_that_is_served_shows_everything() {
    let status = of(&format!("{QUEUE}{CONSUMER}"), &exists(), &declared());
    assert_eq!(reason_of(&status, READY), is("True", "AsDeclared"));
    assert_eq!(reason_of(&status, DELIVERING), is("True", "Delivering"));
    assert_eq!(status.observed_generation, Some(7));
    assert_eq!(status.consumer.unwrap().uid, "u");
    let broker = status.broker.unwrap();
    assert_eq!(broker.endpoint, "http://capstan-default.shop.svc");
    assert_eq!(broker.incarnation.as_deref(), Some("7f3c"));
    let messages = status.messages.unwrap();
    assert_eq!((messages.ready, messages.delayed, messages.leased, messages.bytes), (3, 1, 2, 300));
    assert_eq!(messages.oldest_age.unwrap().as_str(), "1m30s");
    let dead = status.dead_letter.unwrap();
    assert_eq!((dead.queue.as_str(), dead.ready), ("dead", 4));
}

#[test]
fn a_queue_is_ready_without_a_consumer_but_delivers_nothing() {
    let status = of(QUEUE, &exists(), &declared());
    assert_eq!(reason_of(&status, READY), is("True", "AsDeclared"));
    assert_eq!(reason_of(&status, DELIVERING), is("False", "NoConsumer"));
    assert_eq!((status.consumer, status.dead_letter), (None, None));
}

#[test]
fn a_missing_broker_is_said_to_be_missing_or_coming() {
    let status = of(QUEUE, &Found::Missing, &Control::unasked());
    assert_eq!(reason_of(&status, READY), is("False", "BrokerNotFound"));
    assert_eq!(reason_of(&status, BROKER_RESOLVED), is("False", "BrokerNotFound"));
    assert_eq!((status.broker, status.messages), (None, None));
    for coming in [Found::Coming, Found::Ending] {
        let status = of(QUEUE, &coming, &Control::unasked());
        assert_eq!(reason_of(&status, READY), is("False", "Pending"));
    }
    let status = of(QUEUE, &Found::Refused("quota".into()), &Control::unasked());
    assert_eq!(reason_of(&status, READY), is("False", "ApplyRefused"));
    assert!(find(&status.conditions, READY).unwrap().message.contains("quota"));
}

#[test]
fn a_broker_that_does_not_answer_or_does_not_know_is_told_apart() {
    let yaml = format!("{QUEUE}{CONSUMER}");
    let silent = Control { problem: Some("refused".into()), ..Control::unasked() };
    let status = of(&yaml, &exists(), &silent);
    assert_eq!(reason_of(&status, READY), is("False", "BrokerUnavailable"));
    assert_eq!(reason_of(&status, DELIVERING), is("False", "BrokerUnavailable"));
    let behind = Control { state: Some(state("old")), is_declared: false, problem: Some("too many".into()) };
    let status = of(&yaml, &exists(), &behind);
    assert_eq!(reason_of(&status, READY), is("False", "NotDeclared"));
    assert!(find(&status.conditions, READY).unwrap().message.contains("too many"));
}

#[test]
fn what_is_paused_says_who_paused_it() {
    let paused = format!("{}{CONSUMER}", QUEUE.replace("spec: {}", "spec: {delivery: Paused}"));
    let status = of(&paused, &exists(), &declared());
    assert_eq!(reason_of(&status, DELIVERING), is("False", "Paused"));
    let paused = format!("{QUEUE}{}", CONSUMER.replace("spec: {", "spec: {paused: true, "));
    let status = of(&paused, &exists(), &declared());
    assert_eq!(reason_of(&status, DELIVERING), is("False", "Paused"));
    assert!(find(&status.conditions, DELIVERING).unwrap().message.contains("Consumer c"));
}

#[test]
fn a_pull_consumer_is_no_delivery_to_pods() {
    let pull = CONSUMER.replace("targetRef: {kind: Deployment, name: shop}, ", "");
    let status = of(&format!("{QUEUE}{pull}"), &exists(), &declared());
    assert_eq!(reason_of(&status, DELIVERING), is("True", "Pull"));
}

#[test]
fn counts_stay_while_nobody_can_be_asked() {
    let (mut queues, _, resolution) = objects(QUEUE);
    queues[0].status = Some(of(QUEUE, &exists(), &declared()));
    let resolved = &resolution.queues[&Key::of(&queues[0].metadata)];
    let status = status(&queues[0], resolved, &exists(), &Control::unasked(), &status::now());
    assert_eq!(status.messages.unwrap().ready, 3);
    assert_eq!(status.broker.unwrap().incarnation.as_deref(), Some("7f3c"));
}

/// The state of `orders` with other fields, and of the volume.
fn changed(queue: serde_json::Value, storage: serde_json::Value) -> Control {
    let mut state = serde_json::to_value(state("r")).unwrap();
    let queues = state["queues"].as_array_mut().unwrap();
    let serde_json::Value::Object(more) = queue else { panic!("no object: {queue}") };
    queues[1].as_object_mut().unwrap().extend(more);
    state["storage"] = storage;
    Control { state: Some(serde_json::from_value(state).unwrap()), is_declared: true, problem: None }
}

fn said(status: &QueueStatus, type_: &str) -> String {
    find(&status.conditions, type_).unwrap().message.clone()
}

/// What is said next, after `before`.
fn after(yaml: &str, before: QueueStatus, control: &Control, now: &Time) -> QueueStatus {
    let (mut queues, _, resolution) = objects(yaml);
    queues[0].status = Some(before);
    status(&queues[0], &resolution.queues[&Key::of(&queues[0].metadata)], &exists(), control, now)
}

fn at(second: i64) -> Time {
    Time(jiff::Timestamp::from_second(second).unwrap())
}

#[test]
fn a_nearly_full_volume_is_no_place_for_sends() {
    let volume = |available: u64, refused: bool| {
        serde_json::json!({"capacity_bytes": 1000, "available_bytes": available, "reserve_bytes": 100,
            "sends_refused": refused})
    };
    let yaml = format!("{QUEUE}{CONSUMER}");
    for storage in [volume(110, true), volume(99, false)] {
        let status = of(&yaml, &exists(), &changed(serde_json::json!({}), storage));
        assert_eq!(reason_of(&status, READY), is("False", "StorageFull"));
        assert!(said(&status, READY).contains("Broker default") && said(&status, READY).contains("enlarge"));
        assert_eq!(reason_of(&status, DELIVERING), is("True", "Delivering"), "what is there goes out");
    }
    let status = of(&yaml, &exists(), &changed(serde_json::json!({}), volume(101, false)));
    assert_eq!(reason_of(&status, READY), is("True", "AsDeclared"));
}

#[test]
fn a_queue_at_its_limit_is_full_until_a_twentieth_is_free() {
    let limited = |limits: &str| QUEUE.replace("spec: {}", &format!("spec: {{limits: {{{limits}}}}}"));
    let holding = |ready: u64, bytes: u64| {
        changed(
            serde_json::json!({"ready": ready, "delayed": 0, "leased": 0, "bytes": bytes}),
            serde_json::Value::Null,
        )
    };
    for (limits, full, freed, free, named) in [
        ("maxMessages: 100", (100, 1), (96, 1), (95, 1), "maxMessages (100)"),
        ("maxMessages: 9", (9, 1), (9, 1), (8, 1), "maxMessages (9)"),
        ("maxBytes: 100000", (9, 99_001), (9, 95_001), (9, 95_000), "maxBytes (100000)"),
        ("maxBytes: 1Gi", (9, (1 << 30) - 127_999), (9, (1 << 30) - 200_000), (9, 1 << 29), "maxBytes (1Gi)"),
        ("maxMessages: 0", (0, 0), (0, 0), (0, 0), "maxMessages (0)"),
    ] {
        let yaml = limited(limits);
        let status = of(&yaml, &exists(), &holding(full.0, full.1));
        assert_eq!(reason_of(&status, READY), is("False", "QueueFull"), "{limits}");
        assert!(said(&status, READY).contains(named), "{}", said(&status, READY));
        let status = after(&yaml, status, &holding(freed.0, freed.1), &at(1));
        assert_eq!(reason_of(&status, READY), is("False", "QueueFull"), "{limits}: not for so little");
        if !limits.ends_with(" 0") {
            let status = after(&yaml, status, &holding(free.0, free.1), &at(2));
            assert_eq!(reason_of(&status, READY), is("True", "AsDeclared"), "{limits}");
            // From there it is not full before it is at its limit again.
            let status = after(&yaml, status, &holding(full.0 - 1, full.1 - 1), &at(3));
            assert_eq!(reason_of(&status, READY), is("True", "AsDeclared"), "{limits}");
        }
    }
}

#[test]
fn dead_letters_that_wait_say_why_and_what_to_do() {
    let yaml = format!("{QUEUE}{CONSUMER}");
    let of_cause = |yaml: &str, why: &str, dead: u64| {
        let more = serde_json::json!({"dead": dead, "dead_blocked": why});
        of(yaml, &exists(), &changed(more, serde_json::Value::Null))
    };
    for (why, reason, remedy) in [
        ("target_bytes_full", "DeadLetterQueueFull", "limits.maxBytes"),
        ("target_messages_full", "DeadLetterQueueFull", "limits.maxMessages"),
        ("target_too_small", "DeadLetterQueueFull", "raise limits.maxBytes"),
        ("target_retained", "DeadLetterQueueRetained", "create it"),
        ("target_missing", "DeadLetterQueueRetained", "create it"),
        ("from_a_later_version", "DeadLetterQueueFull", "log"),
    ] {
        let status = of_cause(&yaml, why, 5);
        assert_eq!(reason_of(&status, DEAD_LETTER_BLOCKED), is("True", reason), "{why}");
        let message = said(&status, DEAD_LETTER_BLOCKED);
        assert!(message.contains(remedy) && message.contains("dead"), "{message}");
        assert_eq!(reason_of(&status, READY), is("True", "AsDeclared"), "sends go on");
    }
    let elsewhere = format!(
        "{yaml}---\napiVersion: capstan.dev/v1alpha1\nkind: Queue\nmetadata: {{name: dead, namespace: shop}}\n\
         spec: {{brokerRef: {{name: other}}}}\n"
    );
    let status = of_cause(&elsewhere, "no_consumer", 5);
    assert_eq!(reason_of(&status, DEAD_LETTER_BLOCKED), is("True", "DeadLetterQueueElsewhere"));
    let status = of_cause(QUEUE, "no_consumer", 5);
    assert_eq!(reason_of(&status, DEAD_LETTER_BLOCKED), is("True", "NoConsumer"));
    let calm = of_cause(&yaml, "target_retained", 0);
    assert_eq!(reason_of(&calm, DEAD_LETTER_BLOCKED), is("False", "NotBlocked"));
    // On their way.
    let moving = of(&yaml, &exists(), &changed(serde_json::json!({"dead": 3}), serde_json::Value::Null));
    assert_eq!(reason_of(&moving, DEAD_LETTER_BLOCKED), is("False", "NotBlocked"));
    let blocked = of_cause(&yaml, "target_retained", 5);
    let (silent, known) = (Control::unasked(), find(&blocked.conditions, DEAD_LETTER_BLOCKED).cloned());
    let silent = after(&yaml, blocked, &silent, &at(1));
    assert_eq!(find(&silent.conditions, DEAD_LETTER_BLOCKED).cloned(), known, "what was said last");
}

#[test]
fn a_store_that_was_lost_with_messages_is_shown_as_long_as_they_would_have_been_kept() {
    let hour = QUEUE.replace("spec: {}", "spec: {messageRetention: 1h}");
    let other = || {
        let mut control =
            changed(serde_json::json!({"ready": 0, "delayed": 0, "leased": 0}), serde_json::Value::Null);
        control.state.as_mut().unwrap().incarnation = "b00b".to_owned();
        control
    };
    let before = of(&hour, &exists(), &declared());
    assert_eq!(before.replaced_store, None);
    let first = after(&hour, before.clone(), &other(), &at(1_000));
    assert_eq!(
        first.replaced_store,
        Some(ReplacedStore { incarnation: "7f3c".into(), messages: 6, noticed_at: at(1_000) })
    );
    assert_eq!(first.broker.as_ref().unwrap().incarnation.as_deref(), Some("b00b"));
    assert_eq!(reason_of(&first, BROKER_RESOLVED), is("True", "StoreReplaced"));
    let message = said(&first, BROKER_RESOLVED);
    assert!(
        message.contains("6 messages")
            && message.contains("7f3c")
            && message.contains("1970-01-01T00:16:40Z")
    );
    assert_eq!(reason_of(&first, READY), is("True", "AsDeclared"));
    assert!(said(&first, READY).contains("6 messages went"));
    // Said again without change, and while nobody answers.
    let again = after(&hour, first.clone(), &other(), &at(1_001));
    assert_eq!((&again.replaced_store, &again.conditions), (&first.replaced_store, &first.conditions));
    let silent = after(&hour, first.clone(), &Control::unasked(), &at(1_002));
    assert_eq!(silent.replaced_store, first.replaced_store);
    let later = after(&hour, first, &other(), &at(1_000 + 3_600));
    assert_eq!(
        (later.replaced_store.as_ref(), reason_of(&later, BROKER_RESOLVED)),
        (None, is("True", "Resolved"))
    );
    // Where none was waiting, nothing was lost.
    let mut empty = before;
    let counts = empty.messages.as_mut().unwrap();
    (counts.ready, counts.delayed, counts.leased) = (0, 0, 0);
    assert_eq!(after(&hour, empty, &other(), &at(1_000)).replaced_store, None);
}

#[test]
fn a_broker_sums_what_its_queues_lost_whether_or_not_they_show_it_already() {
    let other = BrokerState { incarnation: "b00b".to_owned(), ..state("r") };
    let (mut queues, _, _) = objects(QUEUE);
    queues[0].status = Some(of(QUEUE, &exists(), &declared()));
    let mut broker: capstan_crds::Broker = serde_yaml::from_str(
        "{apiVersion: capstan.dev/v1alpha1, kind: Broker, metadata: {name: default, namespace: shop}, spec: {}, \
         status: {incarnation: 7f3c, retainedQueues: [{name: old, messages: 4, bytes: 9}]}}",
    )
    .unwrap();
    let lost = |broker: &capstan_crds::Broker, queues: &[Queue], state: &BrokerState, now: &Time| {
        lost::of_broker(broker, queues.iter(), Some(state), now)
    };
    let expected = Some(ReplacedStore { incarnation: "7f3c".into(), messages: 10, noticed_at: at(1_000) });
    assert_eq!(lost(&broker, &queues, &other, &at(1_000)), expected);
    assert_eq!(lost(&broker, &queues, &state("r"), &at(1_000)), None, "the same store");
    // The Queue's status was written, and the Broker's was not.
    let control = Control { state: Some(other.clone()), is_declared: true, problem: None };
    queues[0].status = Some(after(QUEUE, queues[0].status.clone().unwrap(), &control, &at(999)));
    assert_eq!(lost(&broker, &queues, &other, &at(1_000)), expected);
    // Both were: it is shown for 14 days.
    let status = broker.status.as_mut().unwrap();
    (status.incarnation, status.replaced_store) = (Some("b00b".to_owned()), expected.clone());
    status.retained_queues.clear();
    assert_eq!(lost(&broker, &queues, &other, &at(1_000 + 13 * 86_400)), expected);
    assert_eq!(lost(&broker, &queues, &other, &at(1_000 + 14 * 86_400)), None);
}
