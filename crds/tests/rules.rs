//! What the schemas accept, refuse and fill in, without a cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use capstan_crds::{Object, ParseError, parse, parse_all};
use kube_core::cel::Validator;
use serde_json::{Value, json};

fn queue(spec: &str) -> String {
    format!("{{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {{name: orders}}, spec: {{{spec}}}}}")
}

fn consumer(spec: &str) -> String {
    format!(
        "{{apiVersion: capstan.dev/v1alpha1, kind: Consumer, metadata: {{name: orders}}, spec: {{queueRef: {{name: orders}}, {spec}}}}}"
    )
}

fn broker(spec: &str) -> String {
    format!("{{apiVersion: capstan.dev/v1alpha1, kind: Broker, metadata: {{name: main}}, spec: {{{spec}}}}}")
}

fn named(kind: &str, name: &str) -> String {
    format!(
        "{{apiVersion: capstan.dev/v1alpha1, kind: {kind}, metadata: {{name: {name}}}, spec: {{queueRef: {{name: q}}}}}}"
    )
    .replace(if kind == "Consumer" { "\0" } else { "queueRef: {name: q}" }, "")
}

#[test]
fn good_objects_are_accepted() {
    for text in [
        queue(""),
        queue("brokerRef: {name: main}, delivery: Paused, deliveryDelay: 24h, messageRetention: 336h"),
        queue("deliveryDelay: 1h30m, limits: {maxMessageBytes: 1048576, maxBytes: 1.5Gi, maxMessages: 0}"),
        queue("limits: {maxBytes: 1073741824}, messageRetention: 60s, deletionPolicy: Delete"),
        consumer(""),
        consumer(
            "targetRef: {kind: Deployment, name: shop.v2}, endpoint: {port: 1, path: /a?b=c, timeout: 12h}",
        ),
        consumer(
            "targetRef: {apiVersion: apps/v1, kind: StatefulSet, name: shop}, maxWaitTime: 500ms, paused: true",
        ),
        consumer("deadLetterQueueRef: {name: orders-dlq}, maxRetries: 100, retryDelay: 5s, retryBackoff: {}"),
        consumer(
            "retryBackoff: {factor: 10, maxDelay: 5s}, retryDelay: 5s, maxBatchSize: 100, maxBatchBytes: 1",
        ),
        consumer(
            "sidecar: {adminPort: 1024, gatewayPort: 65535, resources: {limits: {cpu: 1, memory: 128Mi}}}, deadLetterQueueRef: null",
        ),
        broker(""),
        broker("replicas: 1, storage: {size: 1Gi, className: fast, volumes: Delete}"),
        broker("storage: {size: 2.1Gi}"),
        broker("storage: {size: 2147483648}"),
        broker("storage: {accessMode: ReadWriteOnce, reservePercent: 5}, networkPolicy: {enabled: false}"),
        broker(
            "networkPolicy: {from: [{ipBlock: {cidr: 10.0.0.0/8}}, {namespaceSelector: {}}], adminFrom: [{podSelector: {}, namespaceSelector: {}}]}",
        ),
        broker("service: {type: LoadBalancer, annotations: {a: b}}, pod: {terminationGracePeriod: 10m}"),
        broker(
            "pod: {nodeSelector: {disk: ssd}, tolerations: [{key: a, operator: Exists}], priorityClassName: high}",
        ),
        named("Queue", &"a".repeat(63)),
        named("Broker", &"a".repeat(40)),
        "{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {name: no-spec}}".to_owned(),
    ] {
        let parsed = parse(&text);
        assert!(parsed.is_ok(), "{text}: {}", parsed.unwrap_err());
    }
}

/// Each message names the field and says what to do.
#[test]
fn bad_objects_are_refused_with_a_message() {
    for (text, field, remedy) in [
        (queue("deliveryDelay: 25h"), "deliveryDelay", "at most 24h"),
        (queue("deliveryDelay: 1d"), "spec.deliveryDelay", "form"),
        (queue("deliveryDelay: -1s"), "spec.deliveryDelay", "form"),
        (queue("messageRetention: 59s"), "messageRetention", "at least 60s"),
        (queue("messageRetention: 337h"), "messageRetention", "at most 336h"),
        (queue("deliveryDelay: 2m, messageRetention: 60s"), "deliveryDelay", "shorter than messageRetention"),
        (queue("delivery: paused"), "spec.delivery", "Active, Paused"),
        (queue("deletionPolicy: Keep"), "spec.deletionPolicy", "Retain, Delete"),
        (queue("limits: {maxMessageBytes: 0}"), "spec.limits.maxMessageBytes", "at least 1"),
        (queue("limits: {maxMessageBytes: 1048577}"), "spec.limits.maxMessageBytes", "at most 1048576"),
        (queue("limits: {maxBytes: 100m}"), "spec.limits.maxBytes", "form"),
        (queue("limits: {maxBytes: -1}"), "spec.limits.maxBytes", "at least 0"),
        (queue("limits: {maxMessages: -1}"), "spec.limits.maxMessages", "at least 0"),
        (queue("retention: 60s"), "spec.retention", "known are"),
        (queue("brokerRef: {name: a.b}"), "spec.brokerRef.name", "form"),
        (consumer("maxBatchSize: 0"), "spec.maxBatchSize", "at least 1"),
        (consumer("maxBatchSize: 101"), "spec.maxBatchSize", "at most 100"),
        (consumer("maxBatchSize: '10'"), "spec.maxBatchSize", "must be integer"),
        (consumer("maxBatchBytes: 2097153"), "spec.maxBatchBytes", "at most 2097152"),
        (consumer("maxWaitTime: 61s"), "maxWaitTime", "at most 60s"),
        (consumer("concurrencyPerPod: 251"), "spec.concurrencyPerPod", "at most 250"),
        (consumer("maxRetries: 101"), "spec.maxRetries", "at most 100"),
        (consumer("maxConcurrency: 0"), "spec.maxConcurrency", "at least 1"),
        (consumer("maxConcurrency: 251"), "spec.maxConcurrency", "at most 250"),
        (consumer("retryDelay: 25h"), "retryDelay", "at most 24h"),
        (consumer("retryDelay: 2h, retryBackoff: {}"), "retryBackoff.maxDelay", "at least retryDelay"),
        (consumer("retryBackoff: {factor: 11}"), "spec.retryBackoff.factor", "at most 10"),
        (consumer("deadLetterQueueRef: {name: orders}"), "deadLetterQueueRef.name", "another queue"),
        (consumer("visibilityTimeout: 0s"), "visibilityTimeout", "at least 1s"),
        (consumer("endpoint: {port: 0}"), "spec.endpoint.port", "at least 1"),
        (consumer("endpoint: {path: orders}"), "spec.endpoint.path", "form"),
        (consumer("endpoint: {timeout: 13h}"), "endpoint.timeout", "at most 12h"),
        (consumer("endpoint: {port: 9798}"), "endpoint.port", "sidecar.adminPort"),
        (consumer("endpoint: {port: 9797}"), "endpoint.port", "sidecar.gatewayPort"),
        (consumer("sidecar: {gatewayPort: 9798}"), "sidecar.gatewayPort", "two ports"),
        (consumer("targetRef: {kind: DaemonSet, name: a}"), "spec.targetRef.kind", "Deployment, StatefulSet"),
        (consumer("targetRef: {kind: Deployment}"), "spec.targetRef.name", "required"),
        (
            consumer("targetRef: {apiVersion: apps/v2, kind: Deployment, name: a}"),
            "spec.targetRef.apiVersion",
            "apps/v1",
        ),
        (consumer("sidecar: {adminPort: 80}"), "spec.sidecar.adminPort", "at least 1024"),
        (consumer("sidecar: {gatewayPort: 1023}"), "spec.sidecar.gatewayPort", "at least 1024"),
        (
            consumer("sidecar: {resources: {limits: {memory: lots}}}"),
            "spec.sidecar.resources.limits.memory",
            "form",
        ),
        (broker("replicas: 3"), "replicas", "must be 1"),
        (broker("storage: {size: 500Mi}"), "storage.size", "at least 1Gi"),
        (broker("storage: {volumes: Keep}"), "spec.storage.volumes", "Retain, Delete"),
        (broker("storage: {accessMode: ReadWriteMany}"), "spec.storage.accessMode", "ReadWriteOnce"),
        (broker("storage: {reservePercent: 4}"), "spec.storage.reservePercent", "at least 5"),
        (broker("storage: {reservePercent: 51}"), "spec.storage.reservePercent", "at most 50"),
        (broker("networkPolicy: {from: [{}]}"), "networkPolicy.from", "either an ipBlock"),
        (
            broker("networkPolicy: {adminFrom: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}"),
            "networkPolicy.adminFrom",
            "either an ipBlock",
        ),
        (broker("service: {type: NodePort}"), "spec.service.type", "ClusterIP, LoadBalancer"),
        (broker("pod: {terminationGracePeriod: 5s}"), "pod.terminationGracePeriod", "at least 10s"),
        (named("Queue", "a.b"), "metadata.name", "-"),
        (named("Queue", &"a".repeat(64)), "metadata.name", "63"),
        (named("Broker", &"a".repeat(41)), "metadata.name", "40"),
        (named("Topic", "a"), "no kind Topic", "Queue, Consumer or Broker"),
        ("{kind: Queue}".to_owned(), "document 1", "apiVersion"),
        (
            "{apiVersion: capstan.dev/v1alpha1, kind: Consumer, metadata: {name: a}}".to_owned(),
            "spec",
            "required",
        ),
        ("a: [".to_owned(), "YAML", "line"),
    ] {
        let message = parse(&text).expect_err(&text).to_string();
        assert!(message.contains(field) && message.contains(remedy), "{text}: {message}");
    }
}

/// Rules about changes: `(definition, old spec, new spec, whether it is accepted)`.
#[test]
fn changes_are_held_to_the_transition_rules() {
    let [queue, consumer, broker] = &capstan_crds::definitions();
    let target = json!({ "kind": "Deployment", "name": "a" });
    let pull = json!({ "queueRef": { "name": "q" } });
    let push = json!({ "queueRef": { "name": "q" }, "targetRef": target });
    let moved = json!({ "queueRef": { "name": "r" } });
    let retargeted =
        json!({ "queueRef": { "name": "q" }, "targetRef": { "kind": "Deployment", "name": "b" } });
    let class = |name: Value| json!({ "storage": { "className": name } });
    for (definition, old, new, accepted) in [
        (queue, json!({}), json!({ "delivery": "Paused" }), true),
        (queue, json!({}), json!({ "brokerRef": { "name": "other" } }), false),
        (queue, json!({}), json!({ "brokerRef": { "name": "default" } }), true),
        (consumer, pull.clone(), moved, false),
        (consumer, pull.clone(), push.clone(), false),
        (consumer, push.clone(), pull, false),
        (consumer, push, retargeted, true),
        (broker, json!({}), json!({ "storage": { "size": "20Gi" } }), true),
        (broker, json!({}), json!({ "storage": { "size": "9Gi" } }), false),
        (broker, json!({}), json!({ "storage": { "accessMode": "ReadWriteOnce" } }), true),
        (broker, json!({}), json!({ "storage": { "size": "10240Mi" } }), true),
        (broker, json!({}), class(json!("fast")), false),
        (broker, class(json!("fast")), json!({}), false),
        (broker, class(json!("fast")), class(json!("slow")), false),
        (broker, class(json!("fast")), class(json!("fast")), true),
    ] {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let object = |spec: &Value| {
            let object = json!({ "metadata": { "name": "a" }, "spec": spec });
            kube_core::cel::apply_defaults(schema, &object)
        };
        let result = Validator::new().validate(schema, &object(&new), Some(&object(&old)));
        assert_eq!(result.is_ok(), accepted, "{old} -> {new}: {result:?}");
    }
}

/// What is left out is what the Rust types say, so that both sources of defaults are one.
#[test]
fn defaults_are_those_of_the_types() {
    let [Object::Queue(filled)] = &parse(&queue("")).unwrap()[..] else { panic!("no Queue") };
    assert_eq!(filled.spec, capstan_crds::QueueSpec::default());
    let [Object::Broker(filled)] = &parse(&broker("")).unwrap()[..] else { panic!("no Broker") };
    assert_eq!(filled.spec, capstan_crds::BrokerSpec::default());
    let [Object::Consumer(filled)] = &parse(&consumer("retryBackoff: {factor: 3}")).unwrap()[..] else {
        panic!("no Consumer")
    };
    let bare = json!({ "queueRef": { "name": "orders" }, "retryBackoff": { "factor": 3 } });
    assert_eq!(filled.spec, serde_json::from_value(bare).unwrap());
    assert_eq!(filled.spec.max_batch_size, 10);
}

/// Of each part that makes an object it is said what is wrong with it.
#[test]
fn what_is_no_object_is_said_part_by_part() {
    for (text, parts, not) in [
        (
            "{kind: Queue}",
            vec!["document 1", "apiVersion: is missing", "metadata.name: is missing"],
            "kind: is",
        ),
        (
            "{apiVersion: v1, kind: Secret, metadata: {name: 1}}",
            vec!["metadata.name: must be a string, not 1; quote it"],
            "missing",
        ),
        (
            "{apiVersion: v1, kind: Job, metadata: {generateName: a-}}",
            vec!["metadata.name: is missing", "generateName"],
            "apiVersion",
        ),
        ("{apiVersion: 1, kind: Secret, metadata: a}", vec!["apiVersion: must", "metadata: must"], "kind"),
        (
            "---\n---\n{apiVersion: v1, kind: List, items: [{apiVersion: '', kind: A, metadata: {name: a}}]}",
            vec!["item 1 of document 2", "apiVersion: is empty"],
            "kind",
        ),
        ("just words", vec!["apiVersion: is missing", "kind: is missing"], "YAML"),
    ] {
        let message = parse(text).expect_err(text).to_string();
        for part in parts {
            assert!(message.contains(part), "{text}: {part:?} is not in: {message}");
        }
        assert!(!message.contains(not), "{text}: {not:?} is in: {message}");
    }
}

/// As `kubectl apply` does.
#[test]
fn keys_that_are_there_twice_are_refused() {
    for (text, problem) in [
        (
            "{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {name: a, name: b}}",
            "metadata.name: is there more than once",
        ),
        (
            "{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {name: a}, spec: {limits: {maxMessages: 1, maxMessages: 1}}}",
            "spec.limits.maxMessages: is there more than once",
        ),
        (
            "{apiVersion: v1, kind: Secret, metadata: {name: a}, data: [{a: 1, a: 2}]}",
            "data[0].a: is there more than once",
        ),
        (
            "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Secret, metadata: {name: a}, kind: Secret}]}",
            "kind: is there more than once",
        ),
    ] {
        match parse(text) {
            Err(ParseError::Invalid { problems, .. }) => assert_eq!(problems, [problem], "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let text = format!("\u{feff}{}", queue(""));
    assert!(matches!(&parse(&text).unwrap()[..], [Object::Queue(_)]));
}

#[test]
fn the_problems_of_all_objects_are_found() {
    let texts = [queue("delivery: x"), queue(""), consumer("maxBatchSize: 0"), "kind: A".to_owned()];
    let parsed = parse_all(&(texts.join("\n---\n") + "\n---\na: ["));
    assert!(matches!(&parsed.objects[..], [Object::Queue(_)]), "{parsed:?}");
    let errors = &parsed.errors[..];
    let [
        ParseError::Invalid { kind: first, .. },
        ParseError::Invalid { kind: second, .. },
        ParseError::NoObject { place, .. },
        ParseError::Yaml(_),
    ] = errors
    else {
        panic!("{errors:?}")
    };
    assert_eq!((first.as_str(), second.as_str(), place.as_str()), ("Queue", "Consumer", "document 4"));
}

#[test]
fn files_hold_any_number_of_objects() {
    let text = "---\n# nothing\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shop}\n---\n\
        apiVersion: v1\nkind: List\nitems:\n- {apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {name: q}}\n";
    let objects = parse(text).unwrap();
    assert!(matches!(&objects[..], [Object::Other { kind, .. }, Object::Queue(_)] if kind == "Deployment"));
    let all = parse(
        "{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {name: q}, spec: {delivery: x, deliveryDelay: y}}",
    );
    assert!(matches!(all, Err(ParseError::Invalid { problems, .. }) if problems.len() == 2));
}
