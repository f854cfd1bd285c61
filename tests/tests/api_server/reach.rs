//! What sidecars say of their applications becomes a condition of the Consumer, and an Event.

use capstan_api::Name;
use capstan_api::workload::{ConsumerReport, PodReport};
use capstan_crds::{Consumer, Queue};
use e2e::cluster::{SHORT, until};

use crate::fixture::{APPLICATION, CONSUMER, QUEUE, message, until_condition};
use crate::stage::on_stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_says_why_its_application_takes_nothing() {
    on_stage("reach", async |stage, namespace| {
        let application = APPLICATION.replace("replicas: 0", "replicas: 1");
        namespace.apply(&[QUEUE, CONSUMER, &application].join("---")).await;
        until_condition::<Consumer>(namespace, "orders", ("Accepted", "True", "Accepted")).await;
        until_condition::<Consumer>(namespace, "orders", ("AppReachable", "Unknown", "NotReported")).await;
        // A sidecar says it again and again; this one says it once, to a broker that knows its Consumer.
        until_condition::<Queue>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        until_condition::<Queue>(namespace, "orders", ("Delivering", "True", "Delivering")).await;
        let account: Name = namespace.name.parse().unwrap();
        let say = async |pod: &str, unreachable: Option<&str>| {
            let consumer = "orders".parse().unwrap();
            let (queue, unreachable) = ("orders".parse().unwrap(), unreachable.map(str::to_owned));
            let report = PodReport { consumers: vec![ConsumerReport { queue, consumer, unreachable }] };
            let workload = "Deployment/orders".parse().unwrap();
            stage.broker.client().report(&account, &workload, pod, &report).await.unwrap();
        };
        say("orders-1", None).await;
        until_condition::<Consumer>(namespace, "orders", ("AppReachable", "True", "Reachable")).await;
        say("orders-2", Some("the application answered 404")).await;
        let consumer: Consumer =
            until_condition(namespace, "orders", ("AppReachable", "False", "Unreachable")).await;
        let text = message(&consumer, "AppReachable");
        assert!(text.starts_with("in 1 of 2 pods") && text.contains("404 in pod orders-2"), "{text}");
        until("an Event tells of it", SHORT, async || {
            let events = namespace
                .kubectl(&[
                    "get",
                    "events",
                    "--field-selector",
                    "reason=Unreachable,type=Warning",
                    "-o",
                    "name",
                ])
                .await;
            if events.trim().is_empty() { Err("there is none".to_owned()) } else { Ok(()) }
        })
        .await;
        say("orders-2", None).await;
        until_condition::<Consumer>(namespace, "orders", ("AppReachable", "True", "Reachable")).await;
        namespace.kubectl(&["scale", "deployment", "orders", "--replicas=0"]).await;
        until_condition::<Consumer>(namespace, "orders", ("AppReachable", "Unknown", "NotReported")).await;
    })
    .await;
}
