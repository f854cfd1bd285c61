//! What brokers answer, and what becomes of it in the conditions of Brokers and Queues: what real ones hardly say here.

use capstan_crds::{Broker, Consumer, Queue};
use serde_json::{Value, json};

use crate::field::on_field;
use crate::fixture::{QUEUE, message, until_condition};

/// A pull consumer with a dead-letter queue.
const PULL: &str = "
apiVersion: capstan.dev/v1alpha1
kind: Consumer
metadata: {name: orders}
spec: {queueRef: {name: orders}, deadLetterQueueRef: {name: orders-dlq}}
";

/// A volume of 10Gi of which 1Gi is kept free, and so much is available.
fn storage(mebibytes: u64, sends_refused: bool) -> impl Fn(&mut Value) {
    let storage = json!({"capacity_bytes": 10_u64 << 30, "available_bytes": mebibytes << 20,
        "reserve_bytes": 1_u64 << 30, "sends_refused": sends_refused});
    move |answer| answer["storage"] = storage.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_without_room_is_said_by_the_broker_and_its_queues() {
    on_field("room", 1, async |field| {
        let _operator = field.operator(&[]).await;
        let namespace = field.namespace();
        namespace.apply(&[QUEUE, PULL].join("---")).await;
        until_condition::<Queue>(&namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        // A broker from before it says what it keeps.
        until_condition::<Broker>(&namespace, "default", ("StorageHealthy", "Unknown", "NotReported")).await;
        field.plane.say(storage(9 << 10, false));
        until_condition::<Broker>(&namespace, "default", ("StorageHealthy", "True", "Healthy")).await;

        field.plane.say(storage(1023, true));
        let full: Broker =
            until_condition(&namespace, "default", ("StorageHealthy", "False", "NearlyFull")).await;
        let text = message(&full, "StorageHealthy");
        for part in ["less than 1Gi", "until 1.1Gi are", "raise spec.storage.size"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        until_condition::<Broker>(&namespace, "default", ("Ready", "True", "AsDeclared")).await;
        let queue: Queue = until_condition(&namespace, "orders", ("Ready", "False", "StorageFull")).await;
        let text = message(&queue, "Ready");
        assert!(
            text.contains("the volume of Broker default") && text.contains("enlarge the volume"),
            "{text}"
        );
        // What is there is delivered, and acks are what makes room.
        until_condition::<Queue>(&namespace, "orders", ("Delivering", "True", "Pull")).await;
        until_condition::<Consumer>(&namespace, "orders", ("Ready", "True", "AsDeclared")).await;

        // The broker takes sends again only when somewhat more is free.
        field.plane.say(storage(1025, true));
        until_condition::<Queue>(&namespace, "orders", ("Ready", "False", "StorageFull")).await;
        until_condition::<Broker>(&namespace, "default", ("StorageHealthy", "False", "NearlyFull")).await;
        field.plane.say(storage(1024 + 128, false));
        until_condition::<Queue>(&namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        until_condition::<Broker>(&namespace, "default", ("StorageHealthy", "True", "Healthy")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_take_the_newest_says_so() {
    on_field("untold", 1, async |field| {
        let _operator = field.operator(&[]).await;
        let namespace = field.namespace();
        field.plane.refuse(true);
        namespace.apply(&[QUEUE, PULL].join("---")).await;
        let queue: Queue = until_condition(&namespace, "orders", ("Ready", "False", "NotDeclared")).await;
        assert!(message(&queue, "Ready").contains("503"), "{}", message(&queue, "Ready"));
        until_condition::<Queue>(&namespace, "orders", ("Delivering", "False", "NotDeclared")).await;
        // It answers, so it is available.
        until_condition::<Broker>(&namespace, "default", ("Available", "True", "Serving")).await;
        let broker: Broker = until_condition(&namespace, "default", ("Ready", "False", "NotDeclared")).await;
        assert!(message(&broker, "Ready").contains("503"), "{}", message(&broker, "Ready"));
        until_condition::<Consumer>(&namespace, "orders", ("Ready", "False", "QueueNotReady")).await;
        field.plane.refuse(false);
        until_condition::<Queue>(&namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        until_condition::<Broker>(&namespace, "default", ("Ready", "True", "AsDeclared")).await;
        until_condition::<Consumer>(&namespace, "orders", ("Ready", "True", "AsDeclared")).await;
    })
    .await;
}

/// The queue `orders` has messages whose retries are used up, and which do not get on.
fn blocked(why: &'static str) -> impl Fn(&mut Value) {
    move |answer| {
        let queues = answer["queues"].as_array_mut().unwrap();
        for queue in queues.iter_mut().filter(|queue| queue["name"] == "orders") {
            (queue["dead"], queue["dead_blocked"]) = (json!(2), json!(why));
        }
    }
}

/// This operator declares every dead-letter queue. A broker may have been told by an earlier one, which did not.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_whose_queue_the_broker_does_not_have_say_what_to_create() {
    on_field("targets", 1, async |field| {
        let _operator = field.operator(&[]).await;
        let namespace = field.namespace();
        namespace.apply(&[QUEUE, PULL].join("---")).await;
        until_condition::<Queue>(&namespace, "orders", ("DeadLetterBlocked", "False", "NotBlocked")).await;
        for why in ["target_retained", "target_missing"] {
            field.plane.say(blocked(why));
            let queue: Queue = until_condition(
                &namespace,
                "orders",
                ("DeadLetterBlocked", "True", "DeadLetterQueueRetained"),
            )
            .await;
            let text = message(&queue, "DeadLetterBlocked");
            assert!(text.contains("no Queue orders-dlq") && text.contains("create it"), "{text}");
            field.plane.say(|_| ());
            until_condition::<Queue>(&namespace, "orders", ("DeadLetterBlocked", "False", "NotBlocked"))
                .await;
        }
    })
    .await;
}
