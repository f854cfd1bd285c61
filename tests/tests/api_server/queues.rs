//! Queues: what becomes of their messages when they are deleted, and when they say that something is in the way.

use std::collections::BTreeMap;

use capstan_api::Name;
use capstan_api::control::QueueState;
use capstan_api::message::{Lease, Pull, Retry, Send, Settle};
use capstan_api::number::{Number, Whole};
use capstan_crds::queue::ReplacedStore;
use capstan_crds::{Broker, Consumer, Queue};
use e2e::cluster::{Namespace, SHORT, tool, until};
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;

use crate::fixture::{QUEUE, message, until_condition, until_nothing_is_retained};
use crate::stage::{Stage, on_stage};

const DELETED: &str = "
apiVersion: capstan.dev/v1alpha1
kind: Queue
metadata: {name: orders}
spec: {deletionPolicy: Delete}
";

/// A pull consumer whose messages get one attempt.
const PULL: &str = "
apiVersion: capstan.dev/v1alpha1
kind: Consumer
metadata: {name: orders}
spec: {queueRef: {name: orders}, maxRetries: 0, deadLetterQueueRef: {name: orders-dlq}}
";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn send(stage: &Stage, namespace: &Namespace, queue: &str, count: usize) {
    let message: Send = serde_json::from_str(r#"{"body": {"id": 1}}"#).unwrap();
    for _ in 0..count {
        stage.broker.client().send(&name(&namespace.name), &name(queue), &message).await.unwrap();
    }
}

/// Pulls so many messages and fails them.
async fn fail(stage: &Stage, namespace: &Namespace, count: u64) {
    let (client, account, orders) = (stage.broker.client(), name(&namespace.name), name("orders"));
    let pull = Pull { batch_size: Some(Whole(count)), ..Pull::default() };
    let pulled = client.pull(&account, &orders, &pull).await.unwrap().messages;
    assert_eq!(pulled.len() as u64, count);
    let retry =
        |lease: Lease| Retry { lease_id: lease.lease_id, delay_seconds: Some(Number::from(0)), reason: None };
    let retries = pulled.into_iter().map(|one| retry(Lease { lease_id: one.lease_id })).collect();
    client.settle(&account, &orders, &Settle { retries, ..Settle::default() }).await.unwrap();
}

/// What the broker knows of a queue.
async fn known(stage: &Stage, queue: &str) -> Option<QueueState> {
    let state = stage.broker.control().state().await.unwrap();
    state.queues.into_iter().find(|one| one.name.as_str() == queue)
}

async fn until_known(stage: &Stage, what: &str, queue: &str, check: impl Fn(Option<&QueueState>) -> bool) {
    until(what, SHORT, async || {
        let found = known(stage, queue).await;
        if check(found.as_ref()) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// Waits until a Queue was told to the broker as it is.
async fn until_told(namespace: &Namespace) -> Queue {
    until_condition::<Queue>(namespace, "orders", ("Ready", "True", "AsDeclared")).await
}

async fn until_event(namespace: &Namespace, object: &str, reason: &str) {
    until(&format!("there is an event {reason} of {object}"), SHORT, async || {
        let events =
            namespace.api::<Event>().list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let told: BTreeMap<_, _> = events
            .items
            .into_iter()
            .map(|event| ((event.involved_object.kind, event.reason), event.type_))
            .collect();
        let key = (Some(object.to_owned()), Some(reason.to_owned()));
        match told.get(&key) {
            Some(Some(type_)) if type_ == "Warning" => Ok(()),
            _ => Err(format!("{told:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_deleted_queue_go_only_if_it_says_so() {
    on_stage("deletion", async |stage, namespace| {
        namespace.apply(QUEUE).await;
        let queue = until_told(namespace).await;
        assert_eq!(serde_json::to_value(queue.spec.deletion_policy).unwrap(), "Retain", "the default");
        send(stage, namespace, "orders", 3).await;
        namespace.kubectl(&["delete", "queue.capstan.dev", "orders"]).await;
        let broker = namespace
            .wait_for::<Broker>("default", "shows the retained queue", SHORT, |broker| {
                let retained = broker.status.as_ref().map_or(&[][..], |status| &status.retained_queues);
                if retained.len() == 1 { Ok(()) } else { Err(format!("{retained:?}")) }
            })
            .await;
        let retained = broker.status.unwrap().retained_queues.remove(0);
        let left =
            retained.empty_by.unwrap().0.duration_since(k8s_openapi::jiff::Timestamp::now()).as_hours();
        assert!((95..=96).contains(&left), "the default retention is 96h: {left}h are left");
        assert_eq!(retained.messages, 3);

        // Adopted, and gone with the resource from then on.
        namespace.apply(DELETED).await;
        until_known(stage, "the messages are adopted", "orders", |queue| {
            queue.is_some_and(|queue| !queue.retained && queue.ready == 3)
        })
        .await;
        until_told(namespace).await;
        namespace.kubectl(&["delete", "queue.capstan.dev", "orders"]).await;
        until_known(stage, "the queue is gone from the broker", "orders", |queue| queue.is_none()).await;
        until_nothing_is_retained(namespace).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_went_and_came_back_while_nobody_looked_begins_empty() {
    on_stage("unseen", async |stage, namespace| {
        namespace.apply(DELETED).await;
        until_told(namespace).await;
        send(stage, namespace, "orders", 2).await;
        stage.operator.stop();
        namespace.kubectl(&["delete", "queue.capstan.dev", "orders"]).await;
        namespace.apply(DELETED).await;
        assert_eq!(known(stage, "orders").await.unwrap().ready, 2, "nobody has told the broker");
        stage.operator = stage.another_operator(&[]).await;
        until_known(stage, "the new queue is empty", "orders", |queue| {
            queue.is_some_and(|queue| !queue.retained && queue.ready == 0 && queue.totals.purged == 2)
        })
        .await;
        until_told(namespace).await;

        // A Broker that is made anew does not know what was deleted before: it keeps what it does not find.
        send(stage, namespace, "orders", 4).await;
        stage.operator.stop();
        namespace.kubectl(&["delete", "queue.capstan.dev", "orders"]).await;
        namespace.kubectl(&["delete", "broker.capstan.dev", "default"]).await;
        namespace.apply("apiVersion: capstan.dev/v1alpha1\nkind: Broker\nmetadata: {name: default}\n").await;
        stage.operator = stage.another_operator(&[]).await;
        until_known(stage, "the queue is retained", "orders", |queue| {
            queue.is_some_and(|queue| queue.retained && queue.ready == 4)
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_outlive_everything_that_led_to_them() {
    on_stage("letters", async |stage, namespace| {
        namespace.apply(&format!("{DELETED}---{PULL}")).await;
        until_condition::<Consumer>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        let letters: Queue = until_condition(namespace, "orders-dlq", ("Ready", "True", "AsDeclared")).await;
        assert_eq!(letters.metadata.owner_references, None, "it belongs to nobody");
        send(stage, namespace, "orders", 2).await;
        fail(stage, namespace, 2).await;
        let has_both = |queue: Option<&QueueState>| queue.is_some_and(|q| !q.retained && q.ready == 2);
        until_known(stage, "they are dead letters", "orders-dlq", has_both).await;
        namespace.kubectl(&["delete", "consumer.capstan.dev", "orders"]).await;
        namespace.kubectl(&["delete", "queue.capstan.dev", "orders"]).await;
        until_known(stage, "their source is gone", "orders", |queue| queue.is_none()).await;
        until_known(stage, "they are there", "orders-dlq", has_both).await;
        let still = namespace.api::<Queue>().get("orders-dlq").await.unwrap();
        assert_eq!((still.metadata.uid, still.metadata.deletion_timestamp), (letters.metadata.uid, None));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_cannot_move_on_say_why() {
    on_stage("blocked", async |stage, namespace| {
        let small = QUEUE.replace("orders", "orders-dlq") + "spec: {limits: {maxMessages: 1}}\n";
        namespace.apply(&format!("{QUEUE}---{small}---{PULL}")).await;
        until_condition::<Consumer>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        until_condition::<Queue>(namespace, "orders", ("DeadLetterBlocked", "False", "NotBlocked")).await;
        send(stage, namespace, "orders", 3).await;
        fail(stage, namespace, 3).await;
        let queue: Queue =
            until_condition(namespace, "orders", ("DeadLetterBlocked", "True", "DeadLetterQueueFull")).await;
        let text = message(&queue, "DeadLetterBlocked");
        assert!(text.contains("limits.maxMessages") && text.contains("orders-dlq"), "{text}");
        until_event(namespace, "Queue", "DeadLetterQueueFull").await;
        // The target itself says that it is full.
        let full: Queue = until_condition(namespace, "orders-dlq", ("Ready", "False", "QueueFull")).await;
        assert!(message(&full, "Ready").contains("maxMessages (1)"));

        // Who says where they go has gone.
        namespace.kubectl(&["delete", "consumer.capstan.dev", "orders"]).await;
        until_condition::<Queue>(namespace, "orders", ("DeadLetterBlocked", "True", "NoConsumer")).await;

        // Another dead-letter queue, which another Broker has.
        let elsewhere = QUEUE.replace("orders", "far") + "spec: {brokerRef: {name: far}}\n";
        namespace.apply(&format!("{elsewhere}---{}", PULL.replace("orders-dlq", "far"))).await;
        let reason = ("DeadLetterBlocked", "True", "DeadLetterQueueElsewhere");
        until_condition::<Queue>(namespace, "orders", reason).await;
        namespace.apply(PULL).await;
        until_condition::<Queue>(namespace, "orders", ("DeadLetterBlocked", "True", "DeadLetterQueueFull"))
            .await;

        // With room they move on by themselves.
        namespace.apply(&small.replace("maxMessages: 1", "maxMessages: 100")).await;
        until_condition::<Queue>(namespace, "orders", ("DeadLetterBlocked", "False", "NotBlocked")).await;
        until_condition::<Queue>(namespace, "orders-dlq", ("Ready", "True", "AsDeclared")).await;
        until_known(stage, "all are dead letters", "orders-dlq", |q| q.is_some_and(|q| q.ready == 3)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_not_ready_for_producers_and_its_consumer_is() {
    on_stage("full", async |stage, namespace| {
        let small = format!("{QUEUE}spec: {{limits: {{maxMessages: 2}}}}\n");
        namespace.apply(&format!("{small}---{PULL}")).await;
        until_told(namespace).await;
        send(stage, namespace, "orders", 2).await;
        let queue: Queue = until_condition(namespace, "orders", ("Ready", "False", "QueueFull")).await;
        assert!(message(&queue, "Ready").contains("raise the limit"), "{}", message(&queue, "Ready"));
        until_condition::<Queue>(namespace, "orders", ("Delivering", "True", "Pull")).await;
        until_condition::<Consumer>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        until_event(namespace, "Queue", "QueueFull").await;
        namespace
            .kubectl(&[
                "patch",
                "capq",
                "orders",
                "--type=merge",
                "-p",
                r#"{"spec":{"limits":{"maxMessages":9}}}"#,
            ])
            .await;
        until_told(namespace).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_lost_with_messages_is_told() {
    on_stage("lost", async |stage, namespace| {
        namespace.apply(QUEUE).await;
        until_told(namespace).await;
        send(stage, namespace, "orders", 7).await;
        let seen = namespace
            .wait_for::<Queue>("orders", "shows its messages", SHORT, |queue| {
                let messages = queue.status.as_ref().and_then(|status| status.messages.as_ref());
                if messages.is_some_and(|m| m.ready == 7) { Ok(()) } else { Err(format!("{messages:?}")) }
            })
            .await;
        let before = seen.status.unwrap().broker.unwrap().incarnation.unwrap();
        stage.replace_broker().await;
        let is_it = |lost: Option<&ReplacedStore>| match lost {
            Some(lost) if lost.incarnation == before && lost.messages == 7 => Ok(()),
            other => Err(format!("{other:?}")),
        };
        let queue = namespace
            .wait_for::<Queue>("orders", "says what it lost", SHORT, |queue| {
                is_it(queue.status.as_ref().and_then(|status| status.replaced_store.as_ref()))
            })
            .await;
        assert!(
            message(&queue, "BrokerResolved").contains("7 messages"),
            "{}",
            message(&queue, "BrokerResolved")
        );
        until_condition::<Queue>(namespace, "orders", ("BrokerResolved", "True", "StoreReplaced")).await;
        namespace
            .wait_for::<Broker>("default", "says what it lost", SHORT, |broker| {
                is_it(broker.status.as_ref().and_then(|status| status.replaced_store.as_ref()))
            })
            .await;
        until_condition::<Broker>(namespace, "default", ("Available", "True", "StoreReplaced")).await;
        until_event(namespace, "Queue", "StoreReplaced").await;
        until_event(namespace, "Broker", "StoreReplaced").await;
        // It is used all the same, and told again to nobody.
        until_told(namespace).await;
        send(stage, namespace, "orders", 1).await;
        stage.restart_operator(&[]).await;
        namespace
            .wait_for::<Queue>("orders", "says the same", SHORT, |queue| {
                let status = queue.status.as_ref().unwrap();
                is_it(status.replaced_store.as_ref())?;
                if status.messages.as_ref().is_some_and(|m| m.ready == 1) {
                    Ok(())
                } else {
                    Err(format!("{status:?}"))
                }
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_policy_is_one_of_two() {
    on_stage("policy", async |_, namespace| {
        let wrong = DELETED.replace("Delete}", "Purge}");
        let refused =
            tool::execute("kubectl", &["-n", &namespace.name, "apply", "-f", "-"], Some(&wrong)).await;
        let text = refused.unwrap_err();
        assert!(text.contains("spec.deletionPolicy") && text.contains("\"Retain\", \"Delete\""), "{text}");
    })
    .await;
}
