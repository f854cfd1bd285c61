//! Several operators: one works, another takes over.

use std::time::{Duration, Instant};

use capstan_crds::Queue;
use e2e::cluster::{SHORT, until};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::fixture::{QUEUE, until_condition};
use crate::stage::{Operator, SYSTEM, Stage, on_stage};

fn elected(name: &str) -> [(&str, &str); 2] {
    [("CAPSTAN_LEASE_NAMESPACE", SYSTEM), ("CAPSTAN_POD", name)]
}

fn leases(stage: &Stage) -> Api<Lease> {
    Api::namespaced(stage.cluster.client.clone(), SYSTEM)
}

async fn holder(stage: &Stage) -> Option<String> {
    leases(stage).get("capstan-operator").await.unwrap().spec.unwrap().holder_identity
}

/// How long it took from then until an operator was active.
async fn until_active(operator: &Operator, since: Instant) -> Duration {
    operator.until_logged("active").await;
    let took = since.elapsed();
    println!("taken over after {:.1} s", took.as_secs_f64());
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_operators_works_and_the_other_takes_over_at_once() {
    on_stage("election", async |stage, namespace| {
        stage.operator.stop();
        let mut first = stage.another_operator(&elected("first")).await;
        first.until_logged("active").await;
        let second = stage.another_operator(&elected("second")).await;
        assert_eq!(holder(stage).await.as_deref(), Some("first"));
        namespace.apply(QUEUE).await;
        until_condition::<Queue>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        assert!(!second.has_logged("active"));
        let start = Instant::now();
        first.stop();
        let took = until_active(&second, start).await;
        assert!(took < Duration::from_secs(3), "an operator that ends gives the Lease back: {took:?}");
        assert_eq!(holder(stage).await.as_deref(), Some("second"));
        let (_, text) = second.get("/metrics").await.unwrap();
        assert!(text.contains("\ncapstan_operator_leader 1\n"), "{text}");
        namespace.apply(&QUEUE.replace("orders", "more")).await;
        until_condition::<Queue>(namespace, "more", ("Ready", "True", "AsDeclared")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_holder_was_killed_is_taken_within_its_duration() {
    on_stage("killed", async |stage, namespace| {
        stage.operator.stop();
        let first = stage.another_operator(&elected("first")).await;
        first.until_logged("active").await;
        let second = stage.another_operator(&elected("second")).await;
        // Both are killed: neither gives anything back.
        drop(second);
        drop(first);
        let start = Instant::now();
        let third = stage.another_operator(&elected("third")).await;
        let took = until_active(&third, start).await;
        assert!(took > Duration::from_secs(10), "the first might have lived: {took:?}");
        assert!(took < Duration::from_secs(25), "{took:?}");
        // A container that is restarted keeps its pod's name, and need not wait for itself.
        drop(third);
        let start = Instant::now();
        let again = stage.another_operator(&elected("third")).await;
        let took = until_active(&again, start).await;
        assert!(took < Duration::from_secs(8), "{took:?}");
        namespace.apply(QUEUE).await;
        until_condition::<Queue>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_loses_its_lease_stands_by_and_comes_back() {
    on_stage("loses", async |stage, namespace| {
        stage.restart_operator(&elected("only")).await;
        stage.operator.until_logged("active").await;
        let take = |holder: Option<&str>| {
            let patch = json!({"spec": {"holderIdentity": holder}});
            let api = leases(stage);
            async move {
                api.patch("capstan-operator", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
            }
        };
        take(Some("somebody")).await;
        stage
            .operator
            .until_logged("no longer active: the Lease could not be renewed, or another operator has it")
            .await;
        namespace.apply(QUEUE).await;
        let (_, text) = stage.operator.get("/metrics").await.unwrap();
        assert!(text.contains("\ncapstan_operator_leader 0\n"), "{text}");
        assert_eq!(
            stage.operator.get("/readyz").await.unwrap().0,
            200,
            "it knows the cluster, and stands by"
        );
        let queue = namespace.api::<Queue>().get("orders").await.unwrap();
        assert!(queue.status.is_none(), "{:?}", queue.status);
        take(None).await;
        until("it is active again", SHORT, async || {
            if stage.operator.log_of("active").len() == 2 { Ok(()) } else { Err(String::new()) }
        })
        .await;
        until_condition::<Queue>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        assert!(stage.operator.is_alive());
    })
    .await;
}
