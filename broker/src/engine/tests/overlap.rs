//! A group that is synced while the next one is applied: who is answered when, and what a failure does.

use super::*;

/// So many messages are worth handing over, and one pull takes them all.
const MANY: usize = 100;
const _: () = assert!(MANY as u64 >= OVERLAP);

type Looking = Pin<Box<dyn Future<Output = Result<Snapshot, Unavailable>>>>;

/// Whether there is no answer yet.
async fn is_open<T>(future: &mut Pin<Box<dyn Future<Output = T>>>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

impl Running {
    /// Sends a batch of so many, the same one each time.
    fn send_many(&self, count: usize) -> tokio::task::JoinHandle<Result<Outcome, Unavailable>> {
        let item = || SendItem {
            delay: None,
            content_type: ContentType::Bytes,
            attributes: Vec::new(),
            body: vec![b'x'; 10],
        };
        let items = std::iter::repeat_with(item).take(count).collect();
        let idempotency = Some(Idempotency { key: count as u128, content: 0 });
        let (engine, send) =
            (self.engine.clone(), Command::Send(Send { queue: self.queue, items, idempotency }));
        tokio::spawn(async move { engine.apply(send, None).await })
    }

    /// A look that the engine has taken: what it took before is dealt with.
    async fn taken_look(&self) -> Looking {
        let engine = self.engine.clone();
        let mut look: Looking = Box::pin(async move { engine.snapshot().await });
        // The first poll hands it to the engine.
        assert!(is_open(&mut look).await, "answered before the sync was over");
        until("the look is taken", || self.engine.depths().verdicts == 0).await;
        look
    }

    /// A group on its way to the disk, which a waiting pull is to get, and which is held there.
    async fn held(&self) -> (tokio::task::JoinHandle<Result<Outcome, Unavailable>>, Pulling) {
        let pull = self.pull(MANY, u64::MAX, DEADLINE).await;
        let came = self.gate.came.load(Ordering::SeqCst);
        self.gate.shut(true);
        let send = self.send_many(MANY);
        self.gate.comes(came).await;
        (send, pull)
    }
}

#[tokio::test]
async fn while_a_group_is_synced_the_next_is_applied_and_nobody_is_answered() {
    let run = Running::start(NO_WAIT).await;
    let (send, mut pull) = run.held().await;
    // The second one is taken when the round of the first is over: the messages are leased to the pull by then.
    let _looks = (run.taken_look().await, run.taken_look().await);
    assert!(is_open(&mut pull).await, "delivered before it was on disk");
    let next = run.send(1);
    tokio::task::yield_now().await;
    until("the next is taken", || run.engine.waiting() == 0 && run.engine.depths().work == 0).await;
    assert!(!send.is_finished() && !next.is_finished(), "answered before it was on disk");
    run.gate.shut(false);
    send.await.unwrap().unwrap();
    assert_eq!(delivered(pull.await).len(), MANY);
    next.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_repeated_send_is_answered_when_the_first_is_on_disk() {
    let run = Running::start(NO_WAIT).await;
    let (first, pull) = run.held().await;
    let again = run.send_many(MANY);
    tokio::task::yield_now().await;
    until("it is taken", || run.engine.depths().work == 0).await;
    let _looks = (run.taken_look().await, run.taken_look().await);
    tokio::task::yield_now().await;
    assert!(!again.is_finished(), "answered as stored, and may be lost");
    run.gate.shut(false);
    assert_eq!(again.await.unwrap().unwrap().reply, first.await.unwrap().unwrap().reply);
    assert_eq!(delivered(pull.await).len(), MANY);
    assert_eq!(run.look().await.ready, 0);
}

#[tokio::test]
async fn a_look_sees_what_is_on_its_way_to_the_disk_and_is_answered_after_it() {
    let run = Running::start(NO_WAIT).await;
    let (_send, pull) = run.held().await;
    let mut look = run.taken_look().await;
    let _later = run.taken_look().await;
    assert!(is_open(&mut look).await, "it tells of what may be lost");
    run.gate.shut(false);
    let look = look.await.unwrap();
    assert_eq!((look.queues[0].ready, look.queues[0].leased), (0, MANY as u64));
    delivered(pull.await);
}

#[tokio::test]
async fn a_sync_that_fails_beside_the_engine_ends_it_and_answers_nobody() {
    let run = Running::start(NO_WAIT).await;
    let (send, pull) = run.held().await;
    run.gate.fails.store(true, Ordering::SeqCst);
    run.gate.shut(false);
    let ended = tokio::time::timeout(DEADLINE, run.ended).await.unwrap().unwrap();
    assert!(matches!(ended, Err(EngineError::Store(StoreError::Engine(_)))), "{ended:?}");
    let outcome = tokio::time::timeout(DEADLINE, send).await.unwrap().unwrap();
    assert!(matches!(outcome, Err(Unavailable::Ended)), "{outcome:?}");
    let pulled = tokio::time::timeout(DEADLINE, pull).await.unwrap();
    assert!(matches!(pulled, Err(Unavailable::Ended)), "{pulled:?}");
    assert_eq!(run.engine.snapshot().await.map(|_| ()), Err(Unavailable::Ended));
}

#[tokio::test]
async fn a_sync_that_does_not_return_beside_the_engine_ends_it() {
    let run = Running::start(Times { commit_max: Duration::from_millis(100), ..NO_WAIT }).await;
    let (_send, _pull) = run.held().await;
    let ended = tokio::time::timeout(DEADLINE, run.ended).await.unwrap().unwrap();
    assert!(matches!(ended, Err(EngineError::Stuck(_))), "{ended:?}");
    run.gate.shut(false);
}

#[tokio::test]
async fn a_pull_that_goes_away_before_the_sync_gives_its_messages_back() {
    let run = Running::start(NO_WAIT).await;
    let (send, pull) = run.held().await;
    drop(pull);
    run.gate.shut(false);
    send.await.unwrap().unwrap();
    let began = Instant::now();
    while run.look().await.ready != MANY as u64 {
        assert!(began.elapsed() < DEADLINE, "leased to a pull that is gone");
    }
    let again = run.pull(MANY, u64::MAX, DEADLINE).await.await;
    assert!(delivered(again).iter().all(|one| one.attempt == 1), "it cost no attempt");
}

#[tokio::test]
async fn what_was_handed_over_is_answered_at_the_end() {
    let run = Running::start(NO_WAIT).await;
    let (send, pull) = run.held().await;
    run.engine.close();
    run.gate.shut(false);
    send.await.unwrap().unwrap();
    assert_eq!(delivered(pull.await).len(), MANY);
    assert!(run.ended.await.unwrap().is_ok());
}
