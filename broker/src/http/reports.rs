//! What sidecars say of their applications: kept in memory, for as long as they say it again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use capstan_api::control::{ApplicationState, UnreachablePod};
use capstan_api::workload::{
    ConsumerReport, OBJECT_NAME_MAX, PodReport, REPORT_CONSUMERS_MAX, REPORT_LASTS, REPORT_REASON_BYTES_MAX,
    Workload,
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

/// The reports that count. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Reports(Arc<Mutex<Known>>);

/// By queue, since a look asks for some queues; and by pod and time, to forget.
#[derive(Default)]
struct Known {
    queues: BTreeMap<(Name, Name), BTreeMap<Pod, ConsumerReport>>,
    pods: BTreeMap<Pod, Said>,
    by_time: BTreeSet<(Instant, Pod)>,
    /// Reports in `queues`.
    count: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pod {
    namespace: Name,
    workload: Workload,
    name: String,
}

/// When a pod said something, and of which queues.
struct Said {
    at: Instant,
    queues: Vec<Name>,
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
    if pod.len() > OBJECT_NAME_MAX {
        let message = format!("a pod's name has at most {OBJECT_NAME_MAX} characters");
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
        known.forget_old(now);
        known.forget(&pod);
        let is_room = known.count + consumers.len() <= REPORTS_MAX;
        if is_room && !consumers.is_empty() {
            known.put(pod, consumers, now);
        }
        is_room
    }

    /// What is said now of the application of a queue.
    pub(super) fn of(
        &self,
        directory: &Directory,
        namespace: &Name,
        queue: &Name,
    ) -> Option<ApplicationState> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.forget_old(Instant::now());
        let mut state = None;
        for (pod, report) in known.queues.get(&(namespace.clone(), queue.clone()))? {
            // What is declared may have changed since.
            if is_of(directory, namespace, &pod.workload, report) {
                add(&mut state, pod, report);
            }
        }
        state
    }
}

fn add(state: &mut Option<ApplicationState>, pod: &Pod, report: &ConsumerReport) {
    let state = state.get_or_insert_with(|| ApplicationState {
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
    fn put(&mut self, pod: Pod, consumers: Vec<ConsumerReport>, now: Instant) {
        let mut queues = Vec::with_capacity(consumers.len());
        for report in consumers {
            let queue = report.queue.clone();
            let pods = self.queues.entry((pod.namespace.clone(), queue.clone())).or_default();
            // What it says twice of a queue, it says once.
            if pods.insert(pod.clone(), report).is_none() {
                self.count += 1;
                queues.push(queue);
            }
        }
        self.by_time.insert((now, pod.clone()));
        self.pods.insert(pod, Said { at: now, queues });
    }

    fn forget(&mut self, pod: &Pod) {
        let Some(said) = self.pods.remove(pod) else { return };
        self.by_time.remove(&(said.at, pod.clone()));
        self.count -= said.queues.len();
        for queue in said.queues {
            if let Entry::Occupied(mut pods) = self.queues.entry((pod.namespace.clone(), queue)) {
                pods.get_mut().remove(pod);
                if pods.get().is_empty() {
                    pods.remove();
                }
            }
        }
    }

    /// Looks at no more than what it forgets, and one.
    fn forget_old(&mut self, now: Instant) {
        while let Some((_, pod)) =
            self.by_time.first().filter(|(at, _)| now.duration_since(*at) >= REPORT_LASTS).cloned()
        {
            self.forget(&pod);
        }
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

    /// One for each of `count` queues.
    fn reports(count: usize, reason: &str) -> Vec<ConsumerReport> {
        let report = |number| {
            let name = Name::new(format!("orders-{number}")).unwrap();
            ConsumerReport { queue: name.clone(), consumer: name, unreachable: Some(reason.to_owned()) }
        };
        (0..count).map(report).collect()
    }

    fn count(kept: &Reports) -> (usize, usize, usize) {
        let known = kept.0.lock().unwrap();
        assert_eq!(known.pods.len(), known.by_time.len());
        assert_eq!(known.queues.values().map(BTreeMap::len).sum::<usize>(), known.count);
        (known.pods.len(), known.queues.len(), known.count)
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
        let queue = (pod(0).namespace, reports(1, "").remove(0).queue);
        let reason = || kept.0.lock().unwrap().queues[&queue][&pod(0)].unreachable.clone().unwrap();
        assert_eq!(reason().len(), REPORT_REASON_BYTES_MAX);
        assert!(kept.take(pod(0), reports(1, "\u{1b}[31mno\n"), now));
        assert_eq!(reason(), "[31mno");
        assert!(full(now), "the first one gave room");
        assert!(kept.take(pod(1), Vec::new(), now));
        assert_eq!(count(&kept).0, most, "a pod that ends is forgotten");
        assert!(full(now + REPORT_LASTS));
        assert_eq!(count(&kept), (1, REPORT_CONSUMERS_MAX, REPORT_CONSUMERS_MAX), "what is old is gone");
        assert!(kept.take(
            pod(1),
            reports(REPORT_CONSUMERS_MAX, "no"),
            now + REPORT_LASTS + Duration::from_secs(1)
        ));
    }
}
