//! Who gets which queue, and what brokers are told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use capstan_crds::{Consumer, ConsumerFinding, Key, Object, Queue, QueueFinding, Resolution, parse, resolve};

/// Objects of namespace `shop` as `Kind name spec`.
fn objects(lines: &[&str]) -> (Vec<Queue>, Vec<Consumer>) {
    let (mut queues, mut consumers) = (Vec::new(), Vec::new());
    for (i, line) in lines.iter().enumerate() {
        let mut parts = line.splitn(3, ' ');
        let (kind, name, spec) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap_or(""));
        let text = format!(
            "{{apiVersion: capstan.dev/v1alpha1, kind: {kind}, metadata: {{namespace: shop, name: {name}, uid: uid-{name}, \
             creationTimestamp: '2026-01-01T00:00:0{i}Z'}}, spec: {{{spec}}}}}"
        );
        match parse(&text).unwrap().remove(0) {
            Object::Queue(queue) => queues.push(*queue),
            Object::Consumer(consumer) => consumers.push(*consumer),
            other => panic!("{other:?}"),
        }
    }
    (queues, consumers)
}

fn resolved(lines: &[&str]) -> Resolution {
    let (queues, consumers) = objects(lines);
    resolve(&queues, &consumers)
}

fn key(name: &str) -> Key {
    Key::new("shop", name)
}

/// `name of the consumer in the declaration, its dead-letter queue` per queue of the Broker `default`.
fn declared(resolution: &Resolution) -> Vec<(String, Option<String>, Option<String>)> {
    let queues = resolution.declaration(&key("default"), "uid").queues;
    let consumer = |q: &capstan_api::control::QueuePolicy| q.consumer.as_ref().map(|c| c.name.to_string());
    let dead = |q: &capstan_api::control::QueuePolicy| {
        let target = q.consumer.as_ref().and_then(|c| c.dead_letter_queue.as_ref());
        target.map(ToString::to_string)
    };
    queues.iter().map(|q| (q.name.to_string(), consumer(q), dead(q))).collect()
}

fn found(resolution: &Resolution, consumer: &str) -> ConsumerFinding {
    resolution.consumers[&key(consumer)].finding.clone()
}

#[test]
fn the_first_consumer_has_the_queue() {
    let lines = ["Queue q", "Consumer late queueRef: {name: q}", "Consumer later queueRef: {name: q}"];
    let resolution = resolved(&lines);
    assert_eq!(declared(&resolution), [("q".to_owned(), Some("late".to_owned()), None)]);
    assert_eq!(found(&resolution, "late"), ConsumerFinding::Accepted);
    let by = "late".to_owned();
    assert_eq!(found(&resolution, "later"), ConsumerFinding::QueueAlreadyConsumed { by });
    assert_eq!(resolution.queues[&key("q")].claim.as_ref().unwrap().uid, "uid-late");
}

#[test]
fn the_order_of_the_lists_does_not_matter() {
    let (mut queues, mut consumers) = objects(&[
        "Queue b",
        "Queue a",
        "Consumer y queueRef: {name: a}, deadLetterQueueRef: {name: x}",
        "Consumer x queueRef: {name: b}, deadLetterQueueRef: {name: x}",
        "Consumer z queueRef: {name: a}",
    ]);
    let first = resolve(&queues, &consumers);
    queues.reverse();
    consumers.reverse();
    assert_eq!(first, resolve(&queues, &consumers));
    let revision = first.declaration(&key("default"), "uid").revision;
    assert_eq!(revision.len(), 32);
    queues[0].spec.limits.max_messages = Some(1);
    assert_ne!(revision, resolve(&queues, &consumers).declaration(&key("default"), "uid").revision);
}

#[test]
fn a_claim_is_kept_until_its_consumer_is_gone() {
    let (mut queues, mut consumers) =
        objects(&["Queue q", "Consumer old queueRef: {name: q}", "Consumer new queueRef: {name: q}"]);
    queues[0].status = Some(capstan_crds::QueueStatus {
        consumer: Some(capstan_crds::queue::QueueConsumer {
            name: "new".to_owned(),
            uid: "uid-new".to_owned(),
        }),
        ..Default::default()
    });
    let resolution = resolve(&queues, &consumers);
    assert_eq!(found(&resolution, "new"), ConsumerFinding::Accepted);
    assert_eq!(found(&resolution, "old"), ConsumerFinding::QueueAlreadyConsumed { by: "new".to_owned() });

    consumers[1].metadata.uid = Some("another".to_owned());
    assert_eq!(found(&resolve(&queues, &consumers), "old"), ConsumerFinding::Accepted);
}

#[test]
fn consumers_without_queue_wait() {
    let resolution = resolved(&["Consumer c queueRef: {name: q}"]);
    assert_eq!(found(&resolution, "c"), ConsumerFinding::QueueNotFound);
    assert!(resolution.queues.is_empty());
}

#[test]
fn a_missing_dead_letter_queue_is_added_beside_its_source() {
    let resolution = resolved(&[
        "Queue q brokerRef: {name: main}",
        "Consumer c queueRef: {name: q}, deadLetterQueueRef: {name: a-dlq}",
        "Consumer d queueRef: {name: a-dlq}, deadLetterQueueRef: {name: last}",
    ]);
    assert!(declared(&resolution).is_empty(), "the Broker `default` has no queue");
    let names: Vec<String> =
        resolution.declaration(&key("main"), "uid").queues.iter().map(|q| q.name.to_string()).collect();
    assert_eq!(names, ["a-dlq", "last", "q"]);
    assert_eq!(found(&resolution, "d"), ConsumerFinding::Accepted);
    let missing = resolution.missing();
    assert_eq!(missing.len(), 2);
    assert_eq!(missing[0].spec.broker_ref.name, "main");
    assert_eq!(missing[0].metadata.owner_references, None);
    let finding = &resolution.queues[&key("a-dlq")].finding;
    assert_eq!(*finding, QueueFinding::Missing { consumer: "c".to_owned() });
}

#[test]
fn nothing_is_delivered_when_the_dead_letter_queue_is_elsewhere() {
    let resolution = resolved(&[
        "Queue q",
        "Queue dlq brokerRef: {name: other}",
        "Consumer c queueRef: {name: q}, deadLetterQueueRef: {name: dlq}",
    ]);
    assert_eq!(declared(&resolution), [("q".to_owned(), None, None)]);
    let finding = found(&resolution, "c");
    assert!(matches!(finding, ConsumerFinding::DeadLetterQueueElsewhere { broker, .. } if broker == "other"));
}

#[test]
fn deleted_objects_count_as_gone() {
    let (mut queues, mut consumers) = objects(&["Queue q", "Queue r", "Consumer c queueRef: {name: q}"]);
    let now = queues[0].metadata.creation_timestamp.clone();
    queues[1].metadata.deletion_timestamp.clone_from(&now);
    consumers[0].metadata.deletion_timestamp = now;
    let resolution = resolve(&queues, &consumers);
    assert_eq!(declared(&resolution), [("q".to_owned(), None, None)]);
    assert!(resolution.consumers.is_empty());
}

/// Messages go with a resource at the word of its Broker alone, and a resource that was made anew is told apart.
#[test]
fn a_declaration_says_whose_messages_go() {
    let lines = [
        "Queue kept",
        "Queue gone deletionPolicy: Delete",
        "Consumer c queueRef: {name: gone}, deadLetterQueueRef: {name: dlq}",
    ];
    let marks = |declaration: capstan_api::control::Declaration| {
        let of = |queue: capstan_api::control::QueuePolicy| {
            (queue.name.to_string(), queue.resource, queue.purged_by)
        };
        declaration.queues.into_iter().map(of).collect::<Vec<_>>()
    };
    let mark = |name: &str, resource: &str, by: Option<&str>| {
        (name.to_owned(), resource.to_owned(), by.map(str::to_owned))
    };
    let resolution = resolved(&lines);
    let expected =
        [mark("dlq", "", None), mark("gone", "uid-gone", Some("uid")), mark("kept", "uid-kept", None)];
    assert_eq!(marks(resolution.declaration(&key("default"), "uid")), expected);
    let nobody = [mark("dlq", "", None), mark("gone", "uid-gone", None), mark("kept", "uid-kept", None)];
    assert_eq!(marks(resolution.declaration(&key("default"), "")), nobody, "a Broker that is not known");
    let local = [mark("dlq", "", None), mark("gone", "", Some("capstan dev")), mark("kept", "", None)];
    assert_eq!(marks(resolution.declaration_of_all()), local, "files have no resources");
}

/// The whole policy, field by field.
#[test]
fn policies_carry_every_field() {
    let resolution = resolved(&[
        "Queue q deletionPolicy: Delete, delivery: Paused, deliveryDelay: 5s, messageRetention: 60s, limits: {maxMessageBytes: 7, maxBytes: 1Ki, maxMessages: 9}",
        "Consumer c queueRef: {name: q}, targetRef: {kind: StatefulSet, name: app}, endpoint: {port: 81, path: /x, timeout: 2s}, \
         maxBatchSize: 3, maxBatchBytes: 4, maxWaitTime: 5ms, concurrencyPerPod: 6, maxRetries: 7, retryDelay: 8s, \
         retryBackoff: {factor: 9, maxDelay: 10s}, deadLetterQueueRef: {name: d}, visibilityTimeout: 11s, maxConcurrency: 12, paused: true",
    ]);
    let declaration = resolution.declaration(&key("default"), "uid");
    assert_eq!(declaration.declarer, "uid");
    let policy = serde_json::to_value(&declaration.queues[1]).unwrap();
    let expected = serde_json::json!({
        "namespace": "shop", "name": "q", "delivery_paused": true, "delivery_delay_ms": 5000, "retention_ms": 60_000,
        "max_message_bytes": 7, "max_bytes": 1024, "max_messages": 9, "resource": "uid-q", "purged_by": "uid",
        "consumer": {
            "name": "c", "max_retries": 7, "retry_delay_ms": 8000, "retry_backoff": { "factor": 9, "max_delay_ms": 10_000 },
            "dead_letter_queue": "d", "visibility_timeout_ms": 11_000, "max_concurrency": 12, "paused": true,
            "push": {
                "workload": { "kind": "StatefulSet", "name": "app" },
                "endpoint": { "port": 81, "path": "/x", "timeout_ms": 2000 },
                "max_batch_size": 3, "max_batch_bytes": 4, "max_wait_ms": 5, "concurrency_per_pod": 6,
            },
        },
    });
    assert_eq!(policy, expected);
}
