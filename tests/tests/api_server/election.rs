//! Two operators: one works, the other takes over.

use capstan_crds::Queue;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use crate::fixture::{QUEUE, until_condition};
use crate::stage::{SYSTEM, on_stage};

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_operators_works_and_the_other_takes_over() {
    on_stage("election", async |stage, namespace| {
        stage.operator.stop();
        let elected = |name| [("CAPSTAN_LEASE_NAMESPACE", SYSTEM), ("CAPSTAN_POD", name)];
        let mut first = stage.another_operator(&elected("first")).await;
        first.until_logged("active").await;
        let second = stage.another_operator(&elected("second")).await;
        let leases: Api<Lease> = Api::namespaced(stage.cluster.client.clone(), SYSTEM);
        let holder = async || leases.get("capstan-operator").await.unwrap().spec.unwrap().holder_identity;
        assert_eq!(holder().await.as_deref(), Some("first"));
        namespace.apply(QUEUE).await;
        until_condition::<Queue>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        assert!(!second.has_logged("active"));
        first.stop();
        second.until_logged("active").await;
        assert_eq!(holder().await.as_deref(), Some("second"));
        namespace.apply(&QUEUE.replace("orders", "more")).await;
        until_condition::<Queue>(namespace, "more", ("Ready", "True", "AsDeclared")).await;
    })
    .await;
}
