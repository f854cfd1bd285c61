//! The example of the README: what comes of it, in whatever order it is applied, and what goes with the Consumer.

use capstan_crds::{Broker, Consumer, Queue};
use e2e::cluster::{Namespace, SHORT, tool};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Service;

use crate::fixture::{
    APPLICATION, CONSUMER, QUEUE, init_containers, message, until_condition, until_injected, without_sidecar,
};
use crate::stage::on_stage;

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_comes_about_in_every_order() {
    let files = ["queue.yaml", "consumer.yaml", "application.yaml"];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        on_stage("order", async |_, namespace| {
            for at in order {
                let file = tool::root().join("examples/quickstart").join(files[at]).display().to_string();
                namespace.kubectl(&["apply", "-f", &file]).await;
            }
            check(namespace).await;
        })
        .await;
    }
}

/// That of KEDA is in the node level's test with KEDA, where its kind is known.
#[tokio::test]
async fn the_examples_of_scaling_are_accepted() {
    on_stage("scaling", async |_, namespace| {
        let own = ["queue.capstan.dev/orders", "consumer.capstan.dev/orders"];
        for (file, more) in [("zero", &[][..]), ("hpa", &["horizontalpodautoscaler.autoscaling/orders"])] {
            let file = tool::root().join(format!("examples/scaling/{file}.yaml")).display().to_string();
            let accepted = namespace.kubectl(&["apply", "--dry-run=server", "-o", "name", "-f", &file]).await;
            assert_eq!(accepted.lines().collect::<Vec<_>>(), [&own, more].concat());
        }
    })
    .await;
}

async fn check(namespace: &Namespace) {
    until_condition::<Broker>(namespace, "default", ("Ready", "True", "AsDeclared")).await;
    until_condition::<Queue>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
    let queue: Queue = until_condition(namespace, "orders", ("Delivering", "True", "Delivering")).await;
    let status = queue.status.unwrap();
    assert_eq!(status.consumer.unwrap().name, "orders");
    assert_eq!(status.broker.unwrap().endpoint, format!("http://capstan-default.{}.svc", namespace.name));
    let dead: Queue = until_condition(namespace, "orders-dlq", ("Ready", "True", "AsDeclared")).await;
    assert_eq!(dead.metadata.owner_references, None, "dead letters outlive their Consumer");
    let broker = namespace.api::<Broker>().get("default").await.unwrap();
    assert_eq!(broker.metadata.owner_references, None, "messages outlive their Queue");
    assert_eq!(broker.metadata.finalizers, None);
    objects(namespace, &broker).await;
    let deployment = until_injected(namespace, "orders", true).await;
    let pod = deployment.spec.template.spec.unwrap();
    assert_eq!(pod.containers.len(), 1);
    until_condition::<Consumer>(namespace, "orders", ("Accepted", "True", "Accepted")).await;
    // No pod ever runs here: an old one is never replaced, and it is Ready only if the first one had the sidecar.
    let consumer: Consumer =
        until_condition(namespace, "orders", ("TargetResolved", "True", "Resolved")).await;
    assert_eq!(consumer.status.unwrap().replicas.unwrap().desired, 1);
}

async fn objects(namespace: &Namespace, broker: &Broker) {
    let set = namespace.api::<StatefulSet>().get("capstan-default").await.unwrap();
    let client = namespace.api::<Service>().get("capstan-default").await.unwrap();
    let pods = namespace.api::<Service>().get("capstan-default-pods").await.unwrap();
    for meta in [&set.metadata, &client.metadata, &pods.metadata] {
        let owner = &meta.owner_references.as_ref().unwrap()[0];
        assert_eq!(Some(&owner.uid), broker.metadata.uid.as_ref());
    }
    assert_eq!(client.spec.unwrap().ports.unwrap()[0].port, 80);
    assert_eq!(pods.spec.unwrap().cluster_ip.as_deref(), Some("None"));
    let retention = set.spec.persistent_volume_claim_retention_policy.unwrap();
    assert_eq!(retention.when_deleted.as_deref(), Some("Retain"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_comes_with_the_consumer_and_goes_with_it_and_nothing_else_changes() {
    on_stage("removal", async |_, namespace| {
        namespace.apply(APPLICATION).await;
        let before = namespace.api::<Deployment>().get("orders").await.unwrap();
        namespace.apply(&[QUEUE, CONSUMER].join("---")).await;
        let injected = until_injected(namespace, "orders", true).await;
        assert_eq!(init_containers(&injected), ["first", "capstan"]);
        assert_eq!(without_sidecar(&injected), without_sidecar(&before));
        until_condition::<Consumer>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        namespace.kubectl(&["delete", "consumer.capstan.dev", "orders"]).await;
        let after = until_injected(namespace, "orders", false).await;
        assert_eq!(without_sidecar(&after), without_sidecar(&before));
        let fields = after.metadata.managed_fields.unwrap_or_default();
        assert!(fields.iter().all(|one| one.manager.as_deref() != Some("capstan")), "{fields:?}");
        until_condition::<Queue>(namespace, "orders", ("Delivering", "False", "NoConsumer")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_is_a_target_too_and_its_grace_period_bounds_the_drain() {
    on_stage("set", async |_, namespace| {
        let set = APPLICATION.replace("kind: Deployment", "kind: StatefulSet").replace(
            "    spec:\n      initContainers",
            "    spec:\n      terminationGracePeriodSeconds: 95\n      initContainers",
        );
        let consumer = CONSUMER.replace("kind: Deployment", "kind: StatefulSet");
        namespace.apply(&[QUEUE, &consumer, &set].join("---")).await;
        let set = namespace
            .wait_for::<StatefulSet>("orders", "has the sidecar", SHORT, |set| {
                let pod = set.spec.template.spec.as_ref().unwrap();
                let names: Vec<&str> =
                    pod.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
                if names == ["first", "capstan"] { Ok(()) } else { Err(format!("{names:?}")) }
            })
            .await;
        let containers = set.spec.template.spec.unwrap().init_containers.unwrap();
        let variables = containers[1].env.as_ref().unwrap();
        let value = |name: &str| variables.iter().find(|v| v.name == name).unwrap().value.clone().unwrap();
        assert_eq!(value("CAPSTAN_DRAIN_SECONDS"), "90");
        assert_eq!(value("CAPSTAN_WORKLOAD"), "StatefulSet/orders");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_of_messages_appear_in_the_status_and_columns() {
    on_stage("counts", async |stage, namespace| {
        namespace.apply(QUEUE).await;
        let queue: Queue = until_condition(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        assert_eq!(queue.status.unwrap().messages.unwrap().ready, 0);
        let account = namespace.name.parse().unwrap();
        for _ in 0..3 {
            let send = serde_json::from_str(r#"{"body": {"id": 1}}"#).unwrap();
            stage.broker.client().send(&account, &"orders".parse().unwrap(), &send).await.unwrap();
        }
        namespace
            .wait_for::<Queue>("orders", "shows its messages", SHORT, |queue| {
                let messages = queue.status.as_ref().and_then(|status| status.messages.as_ref());
                match messages.map(|messages| messages.ready) {
                    Some(1..=3) => Ok(()),
                    other => Err(format!("{other:?} are ready")),
                }
            })
            .await;
        let table = namespace.kubectl(&["get", "capq", "orders"]).await;
        let heads: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(
            heads,
            ["NAME", "READY", "READY-MSGS", "LEASED", "DELAYED", "OLDEST", "DLQ", "CONSUMER", "AGE"]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_with_everything_in_it() {
    on_stage("gone", async |_, namespace| {
        namespace.apply(&[QUEUE, CONSUMER, APPLICATION].join("---")).await;
        until_condition::<Consumer>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        namespace.delete().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_conditions_are_events() {
    on_stage("events", async |_, namespace| {
        namespace
            .apply(&QUEUE.replace(
                "metadata: {name: orders}",
                "metadata: {name: orders}\nspec: {brokerRef: {name: gone}}",
            ))
            .await;
        let queue: Queue = until_condition(namespace, "orders", ("Ready", "False", "BrokerNotFound")).await;
        assert!(message(&queue, "Ready").contains("create it"), "{}", message(&queue, "Ready"));
        e2e::cluster::until("an Event tells of it", SHORT, async || {
            let events = namespace
                .kubectl(&["get", "events", "--field-selector", "reason=BrokerNotFound", "-o", "name"])
                .await;
            if events.trim().is_empty() { Err("there is none".to_owned()) } else { Ok(()) }
        })
        .await;
    })
    .await;
}
