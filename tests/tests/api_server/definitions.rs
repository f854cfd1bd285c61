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
async fn what_local_mode_refuses_the_api_server_refuses_in_the_same_words() {
    on_stage("refusals", async |_, namespace| {
        let cases = [
            ("Queue", "a", "{deliveryDelay: 25h}", "deliveryDelay"),
            ("Queue", "a", "{messageRetention: 59s}", "messageRetention"),
            (
                "Queue",
                "a",
                "{deliveryDelay: 2h, messageRetention: 1h}",
                "deliveryDelay must be shorter than messageRetention",
            ),
            (
                "Consumer",
                "a",
                "{queueRef: {name: a}, deadLetterQueueRef: {name: a}}",
                "must be another queue",
            ),
            (
                "Consumer",
                "a",
                "{queueRef: {name: a}, endpoint: {port: 9798}}",
                "endpoint.port is taken by the sidecar",
            ),
            (
                "Consumer",
                "a",
                "{queueRef: {name: a}, endpoint: {port: 9797}}",
                "endpoint.port is taken by the sidecar's gateway",
            ),
            (
                "Consumer",
                "a",
                "{queueRef: {name: a}, retryDelay: 2h, retryBackoff: {maxDelay: 1h}}",
                "retryBackoff.maxDelay must be at least retryDelay",
            ),
            ("Broker", "a", "{replicas: 2}", "replicas must be 1"),
            ("Broker", "a", "{storage: {size: 1Mi}}", "storage.size"),
            ("Broker", "a", "{storage: {reservePercent: 51}}", "reservePercent"),
            ("Broker", "a", "{networkPolicy: {from: [{}]}}", "each peer of networkPolicy.from"),
            ("Broker", "a", "{networkPolicy: {adminFrom: [{}]}}", "each peer of networkPolicy.adminFrom"),
        ];
        for (kind, name, spec, words) in cases {
            let yaml = object(kind, name, spec);
            let refusal = refused(namespace, &yaml).await;
            assert!(refusal.contains(words), "{yaml}: {refusal}");
            match parse(&yaml) {
                Err(error @ ParseError::Invalid { .. }) => {
                    assert!(error.to_string().contains(words), "{yaml}: {error}");
                }
                other => panic!("{yaml}: {other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_change_says_what_to_do_instead() {
    on_stage("immutable", async |_, namespace| {
        let cases = [
            ("Queue", "{}", "{brokerRef: {name: other}}", "create a new Queue"),
            ("Consumer", "{queueRef: {name: a}}", "{queueRef: {name: b}}", "create a new Consumer"),
            (
                "Consumer",
                "{queueRef: {name: a}}",
                "{queueRef: {name: a}, targetRef: {kind: Deployment, name: a}}",
                "targetRef cannot be added or removed",
            ),
            ("Broker", "{storage: {className: a}}", "{storage: {className: b}}", "className is immutable"),
            ("Broker", "{}", "{storage: {className: b}}", "className is immutable"),
            ("Broker", "{storage: {size: 2Gi}}", "{storage: {size: 1Gi}}", "storage.size can only grow"),
        ];
        for (at, (kind, first, second, words)) in cases.into_iter().enumerate() {
            let name = format!("immutable-{at}");
            namespace.apply(&object(kind, &name, first)).await;
            let refusal = refused(namespace, &object(kind, &name, second)).await;
            assert!(refusal.contains(words), "{kind} {second}: {refusal}");
        }
    })
    .await;
}

/// Applies what must be refused.
async fn refused(namespace: &Namespace, yaml: &str) -> String {
    let applied = tool::execute("kubectl", &["-n", &namespace.name, "apply", "-f", "-"], Some(yaml)).await;
    applied.expect_err(yaml)
}
