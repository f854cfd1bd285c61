//! The resource definitions as an API server has them: the same defaults, and the same refusals, as without a cluster.

use capstan_crds::{Broker, Consumer, Object, ParseError, Queue, parse};
use e2e::cluster::{Namespace, tool};

use crate::stage::on_stage;

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: capstan.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_are_those_of_local_mode() {
    on_stage("defaults", async |_, namespace| {
        let consumer = "{queueRef: {name: a}, targetRef: {kind: Deployment, name: a}, retryBackoff: {}, deadLetterQueueRef: {name: b}}";
        let objects = [
            object("Queue", "a", "{}"),
            object("Queue", "b", "{brokerRef: {}, limits: {maxBytes: 500M}}"),
            object("Consumer", "a", consumer),
            object("Consumer", "b", "{queueRef: {name: b}}"),
            object("Broker", "a", "{}"),
            object("Broker", "b", "{storage: {}, service: {}, networkPolicy: {from: [{podSelector: {}}]}, pod: {resources: {}}}"),
        ];
        for yaml in &objects {
            namespace.apply(yaml).await;
            let [parsed] = &parse(yaml).unwrap()[..] else { panic!("one object: {yaml}") };
            match parsed {
                Object::Queue(queue) => {
                    let name = queue.metadata.name.as_deref().unwrap();
                    assert_eq!(namespace.api::<Queue>().get(name).await.unwrap().spec, queue.spec, "{yaml}");
                }
                Object::Consumer(consumer) => {
                    let name = consumer.metadata.name.as_deref().unwrap();
                    assert_eq!(namespace.api::<Consumer>().get(name).await.unwrap().spec, consumer.spec, "{yaml}");
                }
                Object::Broker(broker) => {
                    let name = broker.metadata.name.as_deref().unwrap();
                    assert_eq!(namespace.api::<Broker>().get(name).await.unwrap().spec, broker.spec, "{yaml}");
                }
                Object::Other { kind, .. } => panic!("{kind} is not ours"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_local_mode_refuses_the_api_server_refuses_too() {
    on_stage("refusals", async |_, namespace| {
        // By bounds of the schema; what rules refuse is in `rules`.
        for (kind, spec, field) in [
            ("Queue", "{delivery: paused}", "spec.delivery"),
            ("Queue", "{limits: {maxMessageBytes: 0}}", "spec.limits.maxMessageBytes"),
            ("Queue", "{limits: {maxBytes: 100m}}", "spec.limits.maxBytes"),
            ("Consumer", "{queueRef: {name: a}, maxBatchSize: 101}", "spec.maxBatchSize"),
            ("Consumer", "{queueRef: {name: a}, endpoint: {path: orders}}", "spec.endpoint.path"),
            ("Consumer", "{}", "spec.queueRef"),
            ("Broker", "{storage: {reservePercent: 51}}", "spec.storage.reservePercent"),
            ("Broker", "{storage: {size: -1}}", "spec.storage.size"),
        ] {
            let yaml = object(kind, "a", spec);
            let refusal = refused(namespace, &yaml).await;
            assert!(refusal.contains(field), "{yaml}: {refusal}");
            match parse(&yaml) {
                Err(error @ ParseError::Invalid { .. }) => {
                    assert!(error.to_string().contains(field), "{yaml}: {error}");
                }
                other => panic!("{yaml}: {other:?}"),
            }
        }
    })
    .await;
}

/// Applies what must be refused.
async fn refused(namespace: &Namespace, yaml: &str) -> String {
    let applied = tool::execute("kubectl", &["-n", &namespace.name, "apply", "-f", "-"], Some(yaml)).await;
    applied.expect_err(yaml)
}
