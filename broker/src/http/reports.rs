//! What sidecars say of their applications: kept in memory, for as long as they say it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use capstan_api::control::{ApplicationState, UnreachablePod};
use capstan_api::workload::{
    ConsumerReport, PodReport, REPORT_CONSUMERS_MAX, REPORT_LASTS, REPORT_REASON_BYTES_MAX, Workload,
};
use capstan_api::{ErrorCode, Name};
use capstan_port::path::InPath;

use super::AppState;
use super::body::Body;
use super::queue::check_account;
use super::refused::Refused;
use crate::directory::Directory;

/// Most Consumers in all reports together, which are some 20 MB: beyond what a broker's connections allow.
const REPORTS_MAX: usize = 30_000;
/// Longest pod name that Kubernetes allows.
const POD_LENGTH_MAX: usize = 253;

/// The reports that count. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Reports(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    pods: BTreeMap<Pod, Said>,
    /// Consumers of all pods.
    count: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pod {
    namespace: Name,
    workload: Workload,
    name: String,
}

struct Said {
    at: Instant,
    consumers: Vec<ConsumerReport>,
}

/// Takes what a pod says in place of what it said before.
pub(super) async fn put(
    State(state): State<AppState>,
    InPath((namespace, kind, name, pod)): InPath<(String, String, String, String)>,
    body: Body,
) -> Result<Json<serde_json::Value>, Refused> {
    let namespace = check_account(&namespace)?;
    let workload: Workload = format!("{kind}/{name}")
        .parse()
        .map_err(|error| Refused::new(ErrorCode::NoRoute, format!("{error}")))?;
    if pod.len() > POD_LENGTH_MAX {
        let message = format!("a pod's name has at most {POD_LENGTH_MAX} characters");
        return Err(Refused::new(ErrorCode::NoRoute, message));
    }
    let report: PodReport = body.read()?;
    if report.consumers.len() > REPORT_CONSUMERS_MAX {
        let message = format!("consumers: {} are more than {REPORT_CONSUMERS_MAX}", report.consumers.len());
        return Err(Refused::at(ErrorCode::JsonBodyInvalid, "/consumers", message));
    }
    // Of others nobody would be told, and they would take room.
    let directory = state.engine.directory();
    let mut consumers = report.consumers;
    consumers.retain(|one| is_of(&directory, &namespace, &workload, one));
    if state.reports.take(Pod { namespace, workload, name: pod }, consumers, Instant::now()) {
        return Ok(Json(serde_json::json!({})));
    }
    let message = format!("{REPORTS_MAX} reports of sidecars are kept; try again after Retry-After");
    Err(Refused::new(ErrorCode::QueueOverloaded, message))
}

/// Whether the Consumer hands its queue to this workload.
fn is_of(directory: &Directory, namespace: &Name, workload: &Workload, report: &ConsumerReport) -> bool {
    let entry = directory.find(namespace.as_str(), report.queue.as_str()).filter(|entry| !entry.retained);
    let consumer = entry.and_then(|entry| entry.policy.consumer.as_ref());
    consumer.is_some_and(|consumer| {
        let push = consumer.push.as_ref();
        consumer.name == report.consumer && push.is_some_and(|push| push.workload == *workload)
    })
}

impl Reports {
    /// Keeps what a pod said; false when there is no room.
    fn take(&self, pod: Pod, mut consumers: Vec<ConsumerReport>, now: Instant) -> bool {
        for reason in consumers.iter_mut().filter_map(|one| one.unreachable.as_mut()) {
            // It is shown on terminals.
            reason.retain(|character| !character.is_control());
            reason.truncate(reason.floor_char_boundary(REPORT_REASON_BYTES_MAX));
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.forget(&pod);
        if consumers.is_empty() {
            return true;
        }
        if known.count + consumers.len() > REPORTS_MAX {
            known.forget_old(now);
        }
        let is_room = known.count + consumers.len() <= REPORTS_MAX;
        if is_room {
            known.count += consumers.len();
            known.pods.insert(pod, Said { at: now, consumers });
        }
        is_room
    }

    /// What is said now, by queue.
    pub(super) fn by_queue(&self, directory: &Directory) -> BTreeMap<(Name, Name), ApplicationState> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.forget_old(Instant::now());
        let mut queues = BTreeMap::new();
        for (pod, said) in &known.pods {
            // What is declared may have changed since.
            let current = said.consumers.iter();
            for one in current.filter(|one| is_of(directory, &pod.namespace, &pod.workload, one)) {
                add(queues.entry((pod.namespace.clone(), one.queue.clone())), pod, one);
            }
        }
        queues
    }
}

type Entry<'a> = std::collections::btree_map::Entry<'a, (Name, Name), ApplicationState>;

fn add(entry: Entry<'_>, pod: &Pod, report: &ConsumerReport) {
    let state = entry.or_insert_with(|| ApplicationState {
        consumer: report.consumer.clone(),
        reachable: 0,
        unreachable: 0,
        example: None,
    });
    match &report.unreachable {
        None => state.reachable += 1,
        Some(reason) => {
            state.unreachable += 1;
            let example = || UnreachablePod { pod: pod.name.clone(), reason: reason.clone() };
            state.example.get_or_insert_with(example);
        }
    }
}

impl Known {
    fn forget(&mut self, pod: &Pod) {
        if let Some(said) = self.pods.remove(pod) {
            self.count -= said.consumers.len();
        }
    }

    fn forget_old(&mut self, now: Instant) {
        let Self { pods, count } = self;
        pods.retain(|_, said| {
            let stays = now.duration_since(said.at) < REPORT_LASTS;
            *count -= if stays { 0 } else { said.consumers.len() };
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pod(number: usize) -> Pod {
        let workload = "Deployment/shop".parse().unwrap();
        Pod { namespace: Name::new("shop").unwrap(), workload, name: format!("shop-{number}") }
    }

    fn reports(count: usize, reason: &str) -> Vec<ConsumerReport> {
        let name = Name::new("orders").unwrap();
        let report =
            ConsumerReport { queue: name.clone(), consumer: name, unreachable: Some(reason.to_owned()) };
        vec![report; count]
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_size_and_time() {
        let (kept, now) = (Reports::default(), Instant::now());
        let most = REPORTS_MAX / REPORT_CONSUMERS_MAX;
        for number in 0..most {
            assert!(kept.take(pod(number), reports(REPORT_CONSUMERS_MAX, "no"), now));
        }
        let full = |at| kept.take(pod(most), reports(REPORT_CONSUMERS_MAX, "no"), at);
        assert!(!full(now), "there is no room");
        assert!(
            kept.take(pod(0), reports(1, &"ü".repeat(REPORT_REASON_BYTES_MAX)), now),
            "in place of its old one"
        );
        let reason = kept.0.lock().unwrap().pods[&pod(0)].consumers[0].unreachable.clone().unwrap();
        assert_eq!(reason.len(), REPORT_REASON_BYTES_MAX);
        assert!(kept.take(pod(0), reports(1, "\u{1b}[31mno\n"), now));
        assert_eq!(kept.0.lock().unwrap().pods[&pod(0)].consumers[0].unreachable.as_deref(), Some("[31mno"));
        assert!(full(now), "the first one gave room");
        assert!(kept.take(pod(1), Vec::new(), now));
        assert_eq!(kept.0.lock().unwrap().pods.len(), most, "a pod that ends is forgotten");
        assert!(full(now + REPORT_LASTS));
        assert_eq!(kept.0.lock().unwrap().pods.len(), most, "what is old goes when its room is needed");
        assert!(kept.take(
            pod(1),
            reports(REPORT_CONSUMERS_MAX, "no"),
            now + REPORT_LASTS + Duration::from_secs(1)
        ));
    }
}
