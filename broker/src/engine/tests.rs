//! The engine over a real store: what is answered when, and who gets what.

mod idle;
mod overlap;
mod pods;
mod room;
mod space;

use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Instant;

use capstan_core::{
    Consumer, ContentType, Declaration, DeclaredQueue, Delivered, Holder, Idempotency, Policy, Pull, Retry,
    Send, SendItem,
};

use super::*;

/// A test fails when what it waits for takes longer.
const DEADLINE: Duration = Duration::from_secs(30);
const NO_WAIT: Times = Times {
    commit_max: DEADLINE,
    heartbeat_ms: 1_000_000,
    unread_max: u64::MAX,
    unread_patience: DEADLINE,
    leases_max: u64::MAX,
    stall_least: DEADLINE,
};

/// Holds synced commits while it is shut, and counts those that came to it.
#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    opened: std::sync::Condvar,
    came: AtomicU64,
    fails: std::sync::atomic::AtomicBool,
}

impl Gate {
    fn pass(&self, durability: Durability) -> Result<(), StoreError> {
        if durability == Durability::Buffered {
            return Ok(());
        }
        self.came.fetch_add(1, Ordering::SeqCst);
        let shut = self.opened.wait_while(self.shut.lock().unwrap(), |shut| *shut);
        drop(shut.unwrap());
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Engine(fjall::Error::Poisoned));
        }
        Ok(())
    }

    fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }

    /// Waits until a commit came, after the `before` that had come.
    async fn comes(&self, before: u64) {
        until("a commit comes", || self.came.load(Ordering::SeqCst) > before).await;
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

type Pulling = Pin<Box<dyn Future<Output = Result<Outcome, Unavailable>>>>;

struct Running {
    engine: Handle,
    ended: Ended,
    gate: Arc<Gate>,
    queue: QueueId,
    _folder: tempfile::TempDir,
}

impl Running {
    async fn start(times: Times) -> Self {
        Self::start_with(times, 3_600_000).await
    }

    async fn start_with(times: Times, retention: u64) -> Self {
        let (folder, gate) = (tempfile::tempdir().unwrap(), Arc::new(Gate::default()));
        let passing = Arc::clone(&gate);
        let store = FjallStore::open(folder.path()).unwrap();
        let store = store.with_gate(Box::new(move |durability| passing.pass(durability)));
        let (engine, ended) =
            super::start::start_with(store, Arc::new(Stats::new().unwrap()), times).unwrap();
        // A retention that no policy may have: a queue's messages expire while a test waits.
        let policy = Policy { retention, ..crate::policy::translate(&document()) };
        let queue = DeclaredQueue {
            label: "shop/orders".to_owned(),
            policy: Policy { consumer: policy.consumer.map(|c| Consumer { max_retries: 1, ..c }), ..policy },
            document: serde_json::to_vec(&document()).unwrap(),
        };
        let declaration =
            Declaration { revision: "1".to_owned(), declarer: String::new(), queues: vec![queue] };
        engine.apply(Command::Declare(declaration), None).await.unwrap();
        let queue = engine.directory().find("shop", "orders").unwrap().id;
        Self { engine, ended, gate, queue, _folder: folder }
    }

    fn send(&self, bytes: usize) -> tokio::task::JoinHandle<Result<Outcome, Unavailable>> {
        let (delay, content_type, attributes) = (None, ContentType::Bytes, Vec::new());
        let items = vec![SendItem { delay, content_type, attributes, body: vec![b'x'; bytes] }];
        let (engine, send) =
            (self.engine.clone(), Command::Send(Send { queue: self.queue, items, idempotency: None }));
        tokio::spawn(async move { engine.apply(send, None).await })
    }

    /// A pull that the engine has, or has answered already.
    async fn pull(&self, count: usize, bytes: u64, idle: Duration) -> Pulling {
        let pull = Pull { queue: self.queue, count, bytes, lease: None, holder: Holder::UNKNOWN };
        let (engine, idle) = (self.engine.clone(), u64::try_from(idle.as_millis()).unwrap());
        let mut pulling: Pulling = Box::pin(async move { engine.pull(pull, None, 0, idle).await });
        // The first poll hands it to the engine.
        let first = std::future::poll_fn(|context| Poll::Ready(pulling.as_mut().poll(context))).await;
        match first {
            Poll::Ready(answer) => Box::pin(std::future::ready(answer)),
            Poll::Pending => pulling,
        }
    }

    async fn pull_now(&self) -> Vec<Delivered> {
        delivered(self.pull(100, u64::MAX, Duration::ZERO).await.await)
    }

    fn settle(&self, settle: Settle) -> tokio::task::JoinHandle<Result<Outcome, Unavailable>> {
        let engine = self.engine.clone();
        tokio::spawn(async move { engine.apply(Command::Settle(settle), None).await })
    }

    async fn look(&self) -> QueueSnapshot {
        self.engine.snapshot().await.unwrap().queues.remove(0)
    }
}

fn document() -> capstan_api::control::QueuePolicy {
    serde_json::from_value(serde_json::json!({
        "namespace": "shop", "name": "orders", "retention_ms": 3_600_000,
        "consumer": { "name": "orders", "max_retries": 1, "visibility_timeout_ms": 600_000 },
    }))
    .unwrap()
}

fn delivered(outcome: Result<Outcome, Unavailable>) -> Vec<Delivered> {
    match outcome.unwrap().reply {
        Reply::Delivered(delivered) => delivered,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_is_answered_before_its_commit() {
    let run = Running::start(NO_WAIT).await;
    run.send(1).await.unwrap().unwrap();
    run.send(1).await.unwrap().unwrap();
    let leases: Vec<Lease> = run.pull_now().await.iter().map(|one| one.lease).collect();
    assert_eq!(leases.len(), 2);
    let retries = vec![Retry { lease: leases[1], delay: None, reason: String::new() }];
    let settle = Settle { queue: run.queue, acks: vec![leases[0]], retries, releases: Vec::new() };

    let came = run.gate.came.load(Ordering::SeqCst);
    run.gate.shut(true);
    let (send, settle) = (run.send(1), run.settle(settle));
    run.gate.comes(came).await;
    // The disk takes its time; the answers must not be faster.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!send.is_finished() && !settle.is_finished(), "answered before the commit");
    run.gate.shut(false);
    send.await.unwrap().unwrap();
    settle.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_waits_while_a_commit_runs_shares_the_next_one() {
    let run = Running::start(NO_WAIT).await;
    let came = run.gate.came.load(Ordering::SeqCst);
    run.gate.shut(true);
    let first = run.send(1);
    run.gate.comes(came).await;
    let others: Vec<_> = (0..50).map(|_| run.send(1)).collect();
    let lanes = &run.engine;
    until("all sends wait", || lanes.waiting() == 50).await;
    run.gate.shut(false);
    first.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(run.gate.came.load(Ordering::SeqCst) - came, 2, "50 sends, one fsync");
}

#[tokio::test]
async fn a_failed_commit_ends_the_engine_and_answers_nobody() {
    let run = Running::start(NO_WAIT).await;
    run.gate.fails.store(true, Ordering::SeqCst);
    let outcome = tokio::time::timeout(DEADLINE, run.send(1)).await.unwrap().unwrap();
    assert!(matches!(outcome, Err(Unavailable::Ended)), "{outcome:?}");
    let ended = tokio::time::timeout(DEADLINE, run.ended).await.unwrap().unwrap();
    assert!(matches!(ended, Err(EngineError::Store(StoreError::Engine(_)))), "{ended:?}");
    let later = run.engine.snapshot().await.map(|_| ());
    assert_eq!(later, Err(Unavailable::Ended), "it never serves from doubtful state");
}

#[tokio::test]
async fn a_commit_that_does_not_return_ends_the_engine() {
    let run = Running::start(Times { commit_max: Duration::from_millis(100), ..NO_WAIT }).await;
    run.gate.shut(true);
    let send = run.send(1);
    let ended = tokio::time::timeout(DEADLINE, run.ended).await.unwrap().unwrap();
    assert!(matches!(ended, Err(EngineError::Stuck(_))), "{ended:?}");
    assert!(!send.is_finished(), "its commit may still be made");
    assert_eq!(run.engine.snapshot().await.map(|_| ()), Err(Unavailable::Ended));
    run.gate.shut(false);
    let _ = send.await;
}

#[tokio::test]
async fn a_pull_that_went_away_leaves_nothing_leased() {
    let run = Running::start(NO_WAIT).await;
    // It waits, goes away, and then a message comes.
    drop(run.pull(1, u64::MAX, DEADLINE).await);
    run.send(1).await.unwrap().unwrap();
    let look = run.look().await;
    assert_eq!((look.ready, look.leased), (1, 0));
    let taken = run.pull_now().await;
    let acks = vec![taken[0].lease];
    let settle = Settle { queue: run.queue, acks, retries: Vec::new(), releases: Vec::new() };
    run.settle(settle).await.unwrap().unwrap();

    // It is answered, and goes away before it takes its answer.
    let answered = run.pull(1, u64::MAX, DEADLINE).await;
    run.send(1).await.unwrap().unwrap();
    let began = Instant::now();
    while run.look().await.leased == 0 {
        assert!(began.elapsed() < DEADLINE, "a waiting pull is not answered");
    }
    drop(answered);
    let began = Instant::now();
    while run.look().await.ready == 0 {
        assert!(began.elapsed() < DEADLINE, "the lease of a pull that is gone stays");
    }
    assert_eq!(run.pull_now().await[0].attempt, 1, "no attempt was spent");
}

#[tokio::test]
async fn what_a_pull_leaves_by_its_bytes_goes_to_the_next_waiter() {
    let run = Running::start(NO_WAIT).await;
    let first = run.pull(10, 5, 2 * DEADLINE).await;
    let second = run.pull(10, 100, 2 * DEADLINE).await;
    let (delay, content_type) = (None, ContentType::Bytes);
    let item = SendItem { delay, content_type, attributes: Vec::new(), body: vec![b'x'; 4] };
    let send = Command::Send(Send { queue: run.queue, items: vec![item; 10], idempotency: None });
    run.engine.apply(send, None).await.unwrap();
    let first = tokio::time::timeout(DEADLINE, first).await.unwrap();
    let second = tokio::time::timeout(DEADLINE, second).await.expect("nine messages are ready");
    assert_eq!([delivered(first).len(), delivered(second).len()], [1, 9]);
}

#[tokio::test]
async fn at_the_end_waiting_pulls_are_answered_and_later_ones_do_not_wait() {
    let run = Running::start(NO_WAIT).await;
    let waiting = run.pull(1, u64::MAX, DEADLINE * 10).await;
    run.engine.stop_waiting();
    assert!(delivered(tokio::time::timeout(DEADLINE, waiting).await.unwrap()).is_empty());
    // A message is there, so this one would gather for others.
    run.send(1).await.unwrap().unwrap();
    let pull = Pull { queue: run.queue, count: 10, bytes: u64::MAX, lease: None, holder: Holder::UNKNOWN };
    let later = run.engine.pull(pull, None, 1_000_000, 1_000_000);
    assert_eq!(delivered(tokio::time::timeout(DEADLINE, later).await.unwrap()).len(), 1);
    run.engine.close();
    tokio::time::timeout(DEADLINE, run.ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_retained_queue_is_forgotten_by_all_when_it_is_empty() {
    let run = Running::start_with(NO_WAIT, 2_000).await;
    run.send(1).await.unwrap().unwrap();
    let nothing = Declaration { revision: "2".to_owned(), declarer: String::new(), queues: Vec::new() };
    run.engine.apply(Command::Declare(nothing), None).await.unwrap();
    assert!(run.engine.directory().find("shop", "orders").unwrap().retained);
    assert_eq!(run.look().await.ready, 1);
    until("it expires", || run.engine.directory().find("shop", "orders").is_none()).await;
    assert!(run.engine.snapshot().await.unwrap().queues.is_empty());
}

#[tokio::test]
async fn time_is_written_down_while_nothing_happens() {
    let run = Running::start(Times { heartbeat_ms: 50, ..NO_WAIT }).await;
    let came = run.gate.came.load(Ordering::SeqCst);
    until("two commits of nothing", || run.gate.came.load(Ordering::SeqCst) >= came + 2).await;
    assert_eq!(run.look().await.ready, 0);
}

#[tokio::test]
async fn one_round_leases_no_more_than_may_be_unread() {
    let run = Running::start(Times { unread_max: 1000, ..NO_WAIT }).await;
    let mut pulls = Vec::new();
    // They come in one round: the commit before it is held.
    let came = run.gate.came.load(Ordering::SeqCst);
    run.gate.shut(true);
    let first = run.send(400);
    run.gate.comes(came).await;
    let sends: Vec<_> = (0..9).map(|_| run.send(400)).collect();
    for _ in 0..10 {
        pulls.push(run.pull(1, u64::MAX, DEADLINE).await);
    }
    run.gate.shut(false);
    first.await.unwrap().unwrap();
    for send in sends {
        send.await.unwrap().unwrap();
    }
    let answers = futures::future::join_all(pulls).await;
    let unread: Vec<Outcome> = answers.into_iter().map(Result::unwrap).collect();
    let leased = |one: &Outcome| matches!(&one.reply, Reply::Delivered(delivered) if !delivered.is_empty());
    assert_eq!(
        unread.iter().filter(|one| leased(one)).count(),
        3,
        "three of 400 bytes are beyond a thousand"
    );
    // Others are served meanwhile.
    run.send(1).await.unwrap().unwrap();
    assert_eq!(run.look().await.leased, 3);
    // What was taken makes room.
    drop(unread);
    assert_eq!(run.pull_now().await.len(), 8);
}
