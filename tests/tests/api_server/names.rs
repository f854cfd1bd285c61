//! Objects whose names older definitions let in: they are said, and the others go on.

use std::panic::{AssertUnwindSafe, resume_unwind};

use capstan_crds::{Consumer, Queue};
use e2e::cluster::{Cluster, Namespace, SHORT, tool, until};
use futures::FutureExt;

use crate::fixture::{APPLICATION, CONSUMER, QUEUE, message, until_condition, until_injected};
use crate::stage::{install, on_stage};

/// Where the rule about names stands in a definition.
const RULES: &str = "/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-validations";

/// An object with a name that the wire has no place for.
fn dotted(object: &str) -> String {
    object.replacen("metadata: {name: orders}", "metadata: {name: orders.v2}", 1)
}

/// Waits until the API server takes such names, or does not.
async fn until_taken(namespace: &Namespace, wanted: bool) {
    for object in [QUEUE, CONSUMER] {
        until(&format!("names with a dot are taken: {wanted}"), SHORT, async || {
            let arguments = ["-n", &namespace.name, "create", "--dry-run=server", "-f", "-"];
            let tried = tool::execute("kubectl", &arguments, Some(&dotted(object))).await;
            if tried.is_ok() == wanted { Ok(()) } else { Err(format!("{tried:?}")) }
        })
        .await;
    }
}

/// Takes the rule about names out of the definitions, as in those before it.
async fn take_rules_out() {
    let patch = format!(r#"[{{"op": "remove", "path": "{RULES}"}}]"#);
    for name in ["queues.capstan.dev", "consumers.capstan.dev"] {
        tool::run("kubectl", &["patch", "crd", name, "--type=json", "--patch", &patch]).await;
    }
}

/// Puts it back, for the other tests.
async fn put_rules_back(cluster: &Cluster, namespace: &Namespace) {
    install(cluster).await;
    until_taken(namespace, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_older_definitions_let_in_are_said_and_nobody_else_is_kept_from_work() {
    on_stage("names", async |stage, namespace| {
        take_rules_out().await;
        let result = AssertUnwindSafe(with_such_names(namespace)).catch_unwind().await;
        put_rules_back(&stage.cluster, namespace).await;
        if let Err(panic) = result {
            resume_unwind(panic);
        }
    })
    .await;
}

async fn with_such_names(namespace: &Namespace) {
    until_taken(namespace, true).await;
    let (queue, consumer) = (dotted(QUEUE), dotted(CONSUMER));
    namespace.apply(&[&queue, &consumer, QUEUE, APPLICATION].map(|text| text.to_owned()).join("---")).await;
    let queue: Queue = until_condition(namespace, "orders.v2", ("Accepted", "False", "InvalidName")).await;
    let text = message(&queue, "Accepted");
    assert!(text.contains("create a Queue with a name of at most 63"), "{text}");
    until_condition::<Queue>(namespace, "orders.v2", ("Ready", "False", "InvalidName")).await;
    let consumer: Consumer =
        until_condition(namespace, "orders.v2", ("Accepted", "False", "InvalidName")).await;
    let text = message(&consumer, "Accepted");
    assert!(text.contains("create a Consumer with a name of at most 63"), "{text}");
    until_condition::<Consumer>(namespace, "orders.v2", ("Ready", "False", "InvalidName")).await;
    // The Queue of a proper name works, and a Consumer of a proper name has it, whoever came first.
    until_condition::<Queue>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
    namespace.apply(CONSUMER).await;
    until_condition::<Consumer>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
    until_condition::<Queue>(namespace, "orders", ("Delivering", "True", "Delivering")).await;
    until_injected(namespace, "orders", true).await;
}
