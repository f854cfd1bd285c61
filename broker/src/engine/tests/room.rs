//! Room that frees: for answers that are read, and for leases.

use tokio_util::sync::CancellationToken;

use super::*;

impl Running {
    /// Declares a second queue; answers it.
    async fn declare_another(&self) -> QueueId {
        let queue = |name: &str| {
            let document = capstan_api::control::QueuePolicy { name: name.parse().unwrap(), ..document() };
            DeclaredQueue {
                label: format!("shop/{name}"),
                policy: crate::policy::translate(&document),
                document: serde_json::to_vec(&document).unwrap(),
            }
        };
        let queues = vec![queue("orders"), queue("others")];
        let declaration = Declaration { revision: "2".to_owned(), declarer: String::new(), queues };
        self.engine.apply(Command::Declare(declaration), None).await.unwrap();
        self.engine.directory().find("shop", "others").unwrap().id
    }

    fn of(&self, queue: QueueId) -> Self {
        let (_, ended) = tokio::sync::oneshot::channel();
        let (engine, gate) = (self.engine.clone(), Arc::clone(&self.gate));
        Self { engine, ended, gate, queue, _folder: tempfile::tempdir().unwrap() }
    }
}

#[tokio::test]
async fn what_a_client_has_not_read_in_time_is_given_back_and_costs_no_attempt() {
    let run = Running::start(Times { unread_max: 100, unread_patience: Duration::ZERO, ..NO_WAIT }).await;
    run.send(200).await.unwrap().unwrap();
    let mut unread = run.pull(1, u64::MAX, Duration::ZERO).await.await.unwrap();
    let connection = CancellationToken::new();
    unread.held.as_mut().unwrap().sent(connection.clone());
    // While nobody needs the room it may take its time.
    assert_eq!(run.look().await.leased, 1);
    assert!(!connection.is_cancelled());
    let next = run.pull(1, u64::MAX, DEADLINE * 10).await;
    until("it is cut", || connection.is_cancelled()).await;
    let began = Instant::now();
    while run.look().await.ready == 0 {
        assert!(began.elapsed() < DEADLINE, "what it had leased stays leased");
    }
    // Its connection ends.
    drop(unread);
    let taken = delivered(tokio::time::timeout(DEADLINE, next).await.expect("there is room"));
    assert_eq!(taken.iter().map(|one| one.attempt).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn a_lease_that_ends_makes_room_for_the_pulls_of_other_queues() {
    let run = Running::start(Times { leases_max: 2, ..NO_WAIT }).await;
    let other = run.of(run.declare_another().await);
    for _ in 0..3 {
        run.send(1).await.unwrap().unwrap();
    }
    let leased = run.pull_now().await;
    assert_eq!(leased.len(), 2, "all leases that there may be");
    other.send(1).await.unwrap().unwrap();
    let waits = other.pull(1, u64::MAX, DEADLINE * 10).await;
    // The engine has looked at it before it counts.
    let snapshot = run.engine.snapshot().await.unwrap();
    assert_eq!((snapshot.pulls_waiting, snapshot.queues[1].ready), (1, 1));
    let acks = vec![leased[0].lease];
    let settle = Settle { queue: run.queue, acks, retries: Vec::new(), releases: Vec::new() };
    run.settle(settle).await.unwrap().unwrap();
    let taken = delivered(tokio::time::timeout(DEADLINE, waits).await.expect("there is room"));
    assert_eq!(taken.len(), 1);
}
