//! What users see: conditions that say what is missing, in whatever order things are applied, and columns that say how it goes.

use std::collections::BTreeMap;

use capstan_crds::{Broker, Consumer, Queue};
use e2e::cluster::{BrokerAccess, Cluster, LONG, Namespace, SHORT, Turn, condition, order};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::fixture::{APPLICATION, CONSUMER, QUEUE, until_consuming};

#[tokio::test]
async fn conditions_say_what_is_missing_until_nothing_is() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "status", async |namespace| {
        namespace.apply(CONSUMER).await;
        until_consumer_says(namespace, "Accepted", "False", "QueueNotFound").await;
        until_consumer_says(namespace, "TargetResolved", "False", "TargetNotFound").await;
        until_consumer_says(namespace, "Ready", "False", "").await;

        namespace.apply(QUEUE).await;
        until_consumer_says(namespace, "Accepted", "True", "").await;
        until_consumer_says(namespace, "TargetResolved", "False", "TargetNotFound").await;
        until_queue_is_ready(namespace, "orders").await;
        // Named by the Consumer, created by the operator.
        until_queue_is_ready(namespace, "orders-dlq").await;

        namespace.apply(APPLICATION).await;
        until_consuming(namespace, "orders", "orders").await;
        assert_columns(namespace).await;
    })
    .await;
}

async fn until_consumer_says(namespace: &Namespace, type_: &str, status: &str, reason: &str) {
    let what = format!("says {type_}={status} {reason}");
    namespace
        .wait_for::<Consumer>("orders", &what, SHORT, |consumer| {
            let conditions = consumer.status.as_ref().map_or(&[][..], |status| &status.conditions);
            condition(conditions, consumer.metadata.generation, type_, status)?;
            says(conditions, type_, reason)
        })
        .await;
}

/// The reason is the one expected, when one is, and the message tells something.
fn says(conditions: &[Condition], type_: &str, reason: &str) -> Result<(), String> {
    let found = conditions.iter().find(|condition| condition.type_ == type_);
    let found = found.ok_or_else(|| format!("there is no condition {type_}"))?;
    if found.message.is_empty() {
        return Err(format!("{type_} has no message"));
    }
    println!("  {type_}={} {}: {}", found.status, found.reason, found.message);
    if reason.is_empty() || found.reason == reason {
        Ok(())
    } else {
        Err(format!("the reason is {}", found.reason))
    }
}

async fn until_queue_is_ready(namespace: &Namespace, name: &str) {
    namespace
        .wait_for::<Queue>(name, "is Ready", LONG, |queue| {
            let conditions = queue.status.as_ref().map_or(&[][..], |status| &status.conditions);
            condition(conditions, queue.metadata.generation, "Ready", "True")
        })
        .await;
}

/// `kubectl get` tells the state at a glance: before a look at any YAML.
async fn assert_columns(namespace: &Namespace) {
    let broker = BrokerAccess::of(namespace);
    // The dead-letter queue has no consumer: what is sent to it stays.
    broker.send("orders-dlq", &[order(1, 0), order(2, 0)]).await;
    namespace
        .wait_for::<Queue>("orders-dlq", "counts its messages", SHORT, |queue| {
            let messages = queue.status.as_ref().and_then(|status| status.messages.as_ref());
            let ready = messages.map(|messages| messages.ready);
            if ready == Some(2) { Ok(()) } else { Err(format!("{ready:?} are ready")) }
        })
        .await;
    let queues = table(namespace, "capq").await;
    assert_eq!(queues["orders-dlq"]["READY-MSGS"], "2", "{queues:?}");
    assert_eq!(queues["orders"]["READY"], "True", "{queues:?}");
    assert_eq!(queues["orders"]["CONSUMER"], "orders", "{queues:?}");
    let consumers = table(namespace, "capc").await;
    for (column, value) in
        [("READY", "True"), ("QUEUE", "orders"), ("TARGET", "orders"), ("DESIRED", "2"), ("PODS-READY", "2")]
    {
        assert_eq!(consumers["orders"][column], value, "{consumers:?}");
    }
    namespace
        .wait_for::<Broker>("default", "counts its queues", SHORT, |broker| {
            let queues = broker.status.as_ref().and_then(|status| status.queues.as_ref());
            let active = queues.map(|queues| queues.active);
            if active == Some(2) { Ok(()) } else { Err(format!("{active:?} are active")) }
        })
        .await;
    let brokers = table(namespace, "capb").await;
    for (column, value) in [("READY", "True"), ("QUEUES", "2"), ("VERSION", "0.1.0")] {
        assert_eq!(brokers["default"][column], value, "{brokers:?}");
    }
    for column in ["USED", "CAPACITY"] {
        assert!(brokers["default"][column].ends_with('i'), "a size: {brokers:?}");
    }
    // The three at once, as the documentation says it.
    print!("{}", namespace.kubectl(&["get", "capq,capc,capb"]).await);
}

/// What `kubectl get` prints, by name and column. A cell ends where the next column's title begins.
async fn table(namespace: &Namespace, kind: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let printed = namespace.kubectl(&["get", kind]).await;
    print!("{printed}");
    let mut lines = printed.lines();
    let titles = lines.next().unwrap();
    let starts: Vec<usize> = (0..titles.len())
        .filter(|at| !titles[*at..].starts_with(' ') && (*at == 0 || titles[..*at].ends_with(' ')))
        .collect();
    let cells = |line: &str| -> Vec<String> {
        let ends = starts.iter().skip(1).copied().chain([usize::MAX]);
        let cell = |(start, end): (&usize, usize)| {
            let end = end.min(line.len());
            line.get(*start..end).unwrap_or_default().trim().to_owned()
        };
        starts.iter().zip(ends).map(cell).collect()
    };
    let titles = cells(titles);
    lines
        .map(|line| {
            let cells = cells(line);
            (cells[0].clone(), titles.iter().cloned().zip(cells).collect())
        })
        .collect()
}
