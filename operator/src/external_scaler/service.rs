//! The answers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use capstan_crds::Key;
use capstan_scaling::Demand;
use futures::Stream;
use futures::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::generated::external_scaler_server::ExternalScaler;
use super::generated::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};
use super::trigger::{SHOWN_CHARS, Trigger};
use super::{Demands, Unseen};

/// A Consumer whose messages come and go between two looks is active for so long after each: KEDA polls every half minute.
const LATELY: Duration = Duration::from_secs(30);
/// The one metric of a Consumer.
pub(super) const METRIC: &str = "capstan-demand";
/// `StreamIsActive` that are open at once: one for each trigger of type `external-push`.
pub(super) const STREAMS_MAX: usize = 1000;
/// Who asks about a Broker first waits so long for what it says.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// However much changes, a stream looks no more often.
const LOOKS_APART: Duration = Duration::from_millis(100);
/// And no less often: that a Consumer is gone changes no number.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What is asked, of what is known.
pub(super) struct Scaler {
    demands: Arc<dyn Demands>,
    streams: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Scaler {
    /// Streams end well with `shutdown`.
    pub(super) fn new(demands: Arc<dyn Demands>, shutdown: CancellationToken) -> Self {
        Self { demands, streams: Arc::new(Semaphore::new(STREAMS_MAX)), shutdown }
    }

    /// What there is to do for a Consumer. Of a Broker that was not asked about before, its first answer is waited for.
    async fn demand(&self, consumer: &Key) -> Result<Demand, Status> {
        let mut changed = self.demands.changed();
        let deadline = Instant::now() + FIRST_ANSWER;
        loop {
            match self.demands.of(consumer) {
                Ok(demand) => return Ok(demand),
                Err(unseen) => {
                    let is_new = matches!(unseen, Unseen::Unheard { since, .. } if since < FIRST_ANSWER);
                    if !is_new || !matches!(timeout_at(deadline, changed.changed()).await, Ok(Ok(()))) {
                        return Err(status(consumer, &unseen));
                    }
                }
            }
        }
    }
}

/// `NOT_FOUND` for what does not exist, `FAILED_PRECONDITION` for what has to be mended, `UNAVAILABLE` for what will be known.
fn status(consumer: &Key, unseen: &Unseen) -> Status {
    let shown: String = consumer.to_string().chars().take(SHOWN_CHARS).collect();
    let text = format!("Consumer {shown}: {unseen}");
    match unseen {
        Unseen::NoConsumer => Status::not_found(text),
        Unseen::NotAccepted(_) => Status::failed_precondition(text),
        Unseen::Undeclared { .. } | Unseen::Unheard { .. } => Status::unavailable(text),
    }
}

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    type StreamIsActiveStream = Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;

    async fn is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<IsActiveResponse>, Status> {
        let trigger = Trigger::read(request.get_ref())?;
        let demand = self.demand(&trigger.consumer).await?;
        Ok(Response::new(IsActiveResponse { result: demand.is_active(LATELY) }))
    }

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let trigger = Trigger::read(request.get_ref())?;
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{STREAMS_MAX} streams are open already: use type external"))
        })?;
        let activity = Activity {
            demands: Arc::clone(&self.demands),
            changed: self.demands.changed(),
            shutdown: self.shutdown.clone(),
            consumer: trigger.consumer,
            told: None,
            is_over: false,
            _permit: permit,
        };
        Ok(Response::new(Box::pin(unfold(activity, Activity::next))))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let backlog = Trigger::read(request.get_ref())?.backlog_per_replica;
        let spec = MetricSpec {
            metric_name: METRIC.to_owned(),
            target_size: i64::from(backlog),
            target_size_float: f64::from(backlog),
        };
        Ok(Response::new(GetMetricSpecResponse { metric_specs: vec![spec] }))
    }

    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let request = request.into_inner();
        if !(request.metric_name.is_empty() || request.metric_name == METRIC) {
            return Err(Status::invalid_argument(format!("there is one metric, {METRIC}")));
        }
        let trigger = Trigger::read(&request.scaled_object_ref.unwrap_or_default())?;
        let total = self.demand(&trigger.consumer).await?.total();
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 messages")]
        let value = MetricValue {
            metric_name: METRIC.to_owned(),
            metric_value: i64::try_from(total).unwrap_or(i64::MAX),
            metric_value_float: total as f64,
        };
        Ok(Response::new(GetMetricsResponse { metric_values: vec![value] }))
    }
}

/// A stream that tells whether a Consumer has anything to do.
struct Activity {
    demands: Arc<dyn Demands>,
    changed: watch::Receiver<u64>,
    shutdown: CancellationToken,
    consumer: Key,
    /// What was told last.
    told: Option<bool>,
    is_over: bool,
    _permit: OwnedSemaphorePermit,
}

impl Activity {
    /// The next change. While the Broker is not heard there is none: ending the stream then would have KEDA come back only after up
    /// to a minute, and find out that late that there is something to do.
    async fn next(mut self) -> Option<(Result<IsActiveResponse, Status>, Self)> {
        while !self.is_over {
            self.changed.mark_unchanged();
            match self.demands.of(&self.consumer) {
                Ok(demand) if self.told != Some(demand.is_active(LATELY)) => {
                    let result = demand.is_active(LATELY);
                    self.told = Some(result);
                    return Some((Ok(IsActiveResponse { result }), self));
                }
                Ok(_) | Err(Unseen::Undeclared { .. } | Unseen::Unheard { .. }) => self.wait().await,
                Err(unseen) => {
                    self.is_over = true;
                    return Some((Err(status(&self.consumer, &unseen)), self));
                }
            }
        }
        None
    }

    /// Until something may be new, or the operator ends.
    async fn wait(&mut self) {
        let changes = async {
            sleep(LOOKS_APART).await;
            timeout(LOOK_EVERY, self.changed.changed()).await
        };
        tokio::select! {
            () = self.shutdown.cancelled() => self.is_over = true,
            changed = changes => self.is_over = matches!(changed, Ok(Err(_))),
        }
    }
}
