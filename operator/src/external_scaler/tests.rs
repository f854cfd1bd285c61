//! A real client over loopback, and demands by script.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use capstan_crds::Key;
use capstan_scaling::Demand;
use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::generated::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, ScaledObjectRef,
};
use super::service::{METRIC, STREAMS_MAX};
use super::*;

/// What is known of each Consumer of the namespace `shop`.
struct Script {
    known: Mutex<HashMap<String, Result<u64, Unseen>>>,
    changed: watch::Sender<u64>,
}

impl Script {
    fn says(&self, consumer: &str, known: Result<u64, Unseen>) {
        self.known.lock().unwrap().insert(consumer.to_owned(), known);
        self.changed.send_modify(|number| *number += 1);
    }
}

impl Demands for Script {
    fn of(&self, consumer: &Key) -> Result<Demand, Unseen> {
        assert_eq!(consumer.namespace, "shop");
        let known = self.known.lock().unwrap().get(&consumer.name).cloned();
        known.unwrap_or(Err(Unseen::NoConsumer)).map(|ready| Demand { ready, ..Demand::default() })
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

struct Fixture {
    script: Arc<Script>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
    channel: Channel,
}

fn unheard(seconds: u64) -> Unseen {
    Unseen::Unheard { broker: Key::new("shop", "default"), since: Duration::from_secs(seconds) }
}

fn trigger(consumer: &str) -> ScaledObjectRef {
    let metadata = [("consumer", consumer), ("backlogPerReplica", "5"), ("scalerAddress", "here")];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ScaledObjectRef { name: "orders".into(), namespace: "shop".into(), scaler_metadata: metadata.into() }
}

impl Fixture {
    async fn new() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", socket.local_addr().unwrap());
        let script = Arc::new(Script { known: Mutex::default(), changed: watch::Sender::new(0) });
        let shutdown = CancellationToken::new();
        let demands: Arc<dyn Demands> = Arc::<Script>::clone(&script);
        let served = tokio::spawn(serve(socket, demands, shutdown.clone()));
        let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        Self { script, shutdown, served, channel }
    }

    async fn client(&self) -> Grpc<Channel> {
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        client
    }

    async fn ask<Q, A>(&self, method: &'static str, question: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        let answer = self.client().await.unary(Request::new(question), path(method), codec).await?;
        Ok(answer.into_inner())
    }

    async fn is_active(&self, consumer: &str) -> Result<bool, Status> {
        let answer: IsActiveResponse = self.ask("IsActive", trigger(consumer)).await?;
        Ok(answer.result)
    }

    async fn metrics(&self, consumer: &str, metric: &str) -> Result<GetMetricsResponse, Status> {
        let scaled_object_ref = Some(trigger(consumer));
        self.ask("GetMetrics", GetMetricsRequest { scaled_object_ref, metric_name: metric.to_owned() }).await
    }

    async fn stream(&self, consumer: &str) -> Result<Streaming<IsActiveResponse>, Status> {
        let codec: ProstCodec<ScaledObjectRef, IsActiveResponse> = ProstCodec::default();
        let question = Request::new(trigger(consumer));
        let answer = self.client().await.server_streaming(question, path("StreamIsActive"), codec).await?;
        Ok(answer.into_inner())
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("/externalscaler.ExternalScaler/{method}").parse().unwrap()
}

async fn next(stream: &mut Streaming<IsActiveResponse>) -> Result<Option<bool>, Status> {
    Ok(stream.message().await?.map(|answer| answer.result))
}

#[tokio::test]
async fn what_there_is_to_do_is_told() {
    let fixture = Fixture::new().await;
    fixture.script.says("orders", Ok(7));
    fixture.script.says("idle", Ok(0));
    assert!(fixture.is_active("orders").await.unwrap());
    assert!(!fixture.is_active("idle").await.unwrap());
    for name in [METRIC, ""] {
        let values = fixture.metrics("orders", name).await.unwrap().metric_values;
        assert_eq!(values.len(), 1);
        assert_eq!((values[0].metric_name.as_str(), values[0].metric_value), (METRIC, 7));
        assert!((values[0].metric_value_float - 7.0).abs() < f64::EPSILON);
    }
    let answer: GetMetricSpecResponse = fixture.ask("GetMetricSpec", trigger("orders")).await.unwrap();
    let [spec] = answer.metric_specs.try_into().unwrap();
    assert_eq!((spec.metric_name.as_str(), spec.target_size), (METRIC, 5));
    assert!((spec.target_size_float - 5.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn what_is_not_known_is_refused_and_never_nothing() {
    let fixture = Fixture::new().await;
    fixture.script.says("silent", Err(unheard(42)));
    fixture.script.says("wrong", Err(Unseen::NotAccepted("there is no Queue shop/orders".into())));
    let expected = [
        ("none", Code::NotFound, "Consumer shop/none: there is no such Consumer"),
        ("silent", Code::Unavailable, "the Broker shop/default has not answered for 42 s"),
        ("wrong", Code::FailedPrecondition, "there is no Queue shop/orders"),
        ("", Code::InvalidArgument, "metadata.consumer is missing"),
    ];
    for (consumer, code, text) in expected {
        let answers =
            [fixture.is_active(consumer).await.err(), fixture.metrics(consumer, METRIC).await.err()];
        for status in answers.map(Option::unwrap) {
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains(text), "{status}");
        }
    }
    let other = fixture.metrics("silent", "other").await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument);
    let mut large = trigger("silent");
    large.name = "x".repeat(70_000);
    let refused = fixture.ask::<_, IsActiveResponse>("IsActive", large).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
}

#[tokio::test]
async fn the_first_answer_of_a_broker_is_waited_for() {
    let fixture = Fixture::new().await;
    fixture.script.says("orders", Err(unheard(0)));
    let answer = async {
        tokio::task::yield_now().await;
        fixture.script.says("orders", Ok(1));
    };
    let (active, ()) = tokio::join!(fixture.is_active("orders"), answer);
    assert!(active.unwrap());
}

#[tokio::test]
async fn a_stream_tells_each_change_once() {
    let fixture = Fixture::new().await;
    fixture.script.says("orders", Ok(0));
    let mut stream = fixture.stream("orders").await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap(), Some(false));
    fixture.script.says("other", Ok(3));
    fixture.script.says("orders", Err(unheard(60)));
    fixture.script.says("orders", Ok(0));
    fixture.script.says("orders", Ok(5));
    assert_eq!(next(&mut stream).await.unwrap(), Some(true), "and nothing before");
    fixture.script.says("orders", Ok(6));
    fixture.script.says("orders", Ok(0));
    assert_eq!(next(&mut stream).await.unwrap(), Some(false));
    fixture.script.says("orders", Err(Unseen::NoConsumer));
    assert_eq!(next(&mut stream).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_stream_of_a_silent_broker_waits_for_it() {
    let fixture = Fixture::new().await;
    fixture.script.says("orders", Err(unheard(600)));
    let mut stream = fixture.stream("orders").await.unwrap();
    fixture.script.says("orders", Ok(1));
    assert_eq!(next(&mut stream).await.unwrap(), Some(true));
}

#[tokio::test]
async fn streams_end_well_with_the_operator() {
    let fixture = Fixture::new().await;
    fixture.script.says("orders", Ok(1));
    let mut stream = fixture.stream("orders").await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap(), Some(true));
    fixture.shutdown.cancel();
    assert_eq!(next(&mut stream).await.unwrap(), None, "KEDA comes back at once then");
    drop((stream, fixture.channel));
    fixture.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn streams_are_bounded_and_leave_room_for_questions() {
    let fixture = Fixture::new().await;
    fixture.script.says("orders", Ok(1));
    let mut open = Vec::new();
    for _ in 0..STREAMS_MAX {
        open.push(fixture.stream("orders").await.unwrap());
    }
    let refused = fixture.stream("orders").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(fixture.is_active("orders").await.unwrap());
    let mut one = open.pop().unwrap();
    assert_eq!(next(&mut one).await.unwrap(), Some(true));
}
