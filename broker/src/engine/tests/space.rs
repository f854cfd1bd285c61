//! Disk use under a steady backlog that is consumed and sent again, and of a queue that was emptied, but for a few
//! messages that stay for long.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::*;

const MIB: u64 = 1 << 20;
const BODY: usize = 8 << 10;
const BATCH: usize = 100;
const WORKERS: usize = 4;
/// Two journals with what memtables hold of them, and tables that compaction has not come to yet.
const BASE: u64 = 256 * MIB;
/// What lies beside messages that stay, at each such place: a few tables on each level.
const PINNED: u64 = 64 * MIB;
/// What stays when nothing lives: the running journal, and a few tables.
const LEFT_MAX: u64 = 100 * MIB;
/// Between two looks at the disk.
const STEP: u64 = 32 * MIB;
/// Between two times that messages begin to stay.
const PIN_EVERY: u64 = 512 * MIB;
/// How long they stay: longer than the test.
const PINNED_MS: u64 = 3_000_000;

/// A number from the environment: a long run is `CAPSTAN_CHURN_BACKLOG=200000 CAPSTAN_CHURN_MIB=40000`.
fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// Bytes that the files below a folder really take. Files may go meanwhile.
fn disk(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .filter_map(|entry| entry.ok())
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => disk(&entry.path()),
            Ok(found) => found.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

impl Running {
    /// Sends pieces of `noise`, which do not compress.
    async fn send_noise(&self, noise: &[u8], count: usize, delay: Option<u64>) {
        let item = |_| {
            let at = rand::random_range(0..noise.len() - BODY);
            let body = noise[at..at + BODY].to_vec();
            SendItem { delay, content_type: ContentType::Bytes, attributes: Vec::new(), body }
        };
        let items = (0..count).map(item).collect();
        let sent = self
            .engine
            .apply(Command::Send(Send { queue: self.queue, items, idempotency: None }), Some(self.queue))
            .await;
        assert!(matches!(sent.unwrap().reply, Reply::Sent(_)));
    }

    /// Three messages stay: one is leased, one is retried later, one was sent with a delay.
    async fn pin(&self, noise: &[u8]) {
        self.send_noise(noise, 2, None).await;
        self.send_noise(noise, 1, Some(PINNED_MS)).await;
        let pull = Pull {
            queue: self.queue,
            count: 2,
            bytes: u64::MAX,
            lease: Some(PINNED_MS),
            holder: Holder::UNKNOWN,
        };
        let pulled = delivered(self.engine.pull(pull, None, 0, 0).await);
        assert_eq!(pulled.len(), 2);
        let retries = vec![Retry { lease: pulled[0].lease, delay: Some(PINNED_MS), reason: String::new() }];
        let settle = Settle { queue: self.queue, acks: Vec::new(), retries, releases: Vec::new() };
        self.settle(settle).await.unwrap().unwrap();
    }

    /// Ends the engine; what it stored stays.
    async fn stop(&mut self) -> tempfile::TempDir {
        self.engine.close();
        tokio::time::timeout(DEADLINE, &mut self.ended).await.unwrap().unwrap().unwrap();
        std::mem::replace(&mut self._folder, tempfile::tempdir().unwrap())
    }

    /// Acknowledges up to a batch; answers how many there were.
    async fn consume(&self) -> usize {
        let acks: Vec<Lease> = self.pull_now().await.iter().map(|one| one.lease).collect();
        let count = acks.len();
        let settle = Settle { queue: self.queue, acks, retries: Vec::new(), releases: Vec::new() };
        self.settle(settle).await.unwrap().unwrap();
        count
    }
}

/// What is in a store, by one that has not seen it before: nothing that was dropped may come back.
fn look_after_opening(folder: &Path, queue: QueueId) -> Vec<capstan_core::Peeked> {
    let store = FjallStore::open(folder).unwrap();
    let mut transaction = store.transaction();
    let policy =
        |document: &[u8]| crate::policy::read_document(document).map(|p| crate::policy::translate(&p));
    let mut core = Core::open(&mut transaction, 1, 1, policy).unwrap();
    let look = Command::Peek(capstan_core::Peek { queue, count: 100, bytes: u64::MAX });
    let Reply::Peeked(peeked) = core.apply(look, 1, &mut transaction).unwrap().reply else {
        panic!("refused")
    };
    peeked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_use_follows_what_lives_and_not_what_went_through() {
    let backlog = setting("CAPSTAN_CHURN_BACKLOG", 10_000);
    let through = setting("CAPSTAN_CHURN_MIB", 900) * MIB;
    let live = backlog * BODY as u64;
    let pins = through.div_ceil(PIN_EVERY);
    let most = 2 * live + BASE + pins * PINNED;
    assert!(2 * through > 3 * most, "too little to tell");
    let mut run = Running::start(TIMES).await;
    let store = run._folder.path().join("store");
    let began = Instant::now();
    let mut noise = vec![0; 1 << 20];
    rand::fill(&mut noise[..]);
    let work = |batches: u64, consumes: bool| {
        let (run, noise) = (&run, &noise);
        async move {
            for _ in 0..batches / WORKERS as u64 {
                if consumes {
                    assert_eq!(run.consume().await, BATCH);
                }
                run.send_noise(noise, BATCH, None).await;
            }
        }
    };
    let all = |batches, consumes| futures::future::join_all((0..WORKERS).map(|_| work(batches, consumes)));
    let batch_bytes = (BATCH * BODY) as u64;
    all(backlog / BATCH as u64, false).await;
    let (mut seen, mut went, mut pinned) = (Vec::new(), 0, 0);
    while went < through {
        if went % PIN_EVERY == 0 {
            run.pin(&noise).await;
            pinned += 3;
        }
        all(STEP / batch_bytes, true).await;
        went += STEP;
        seen.push(disk(&store) / MIB);
    }
    let seconds = began.elapsed().as_secs();
    println!(
        "MiB on disk after each 32 MiB that went through, {seconds} s, {} MiB live: {seen:?}",
        live / MIB
    );
    let worst = seen.iter().copied().max().unwrap();
    assert!(worst <= most / MIB, "{worst} MiB for {} MiB that live", live / MIB);

    while run.consume().await > 0 {}
    let emptied = Instant::now();
    let mut left = disk(&store);
    while left > LEFT_MAX + pins * PINNED {
        assert!(emptied.elapsed() < DEADLINE, "{} MiB stay of an emptied queue", left / MIB);
        tokio::time::sleep(Duration::from_millis(100)).await;
        left = disk(&store);
    }
    println!("emptied: {} MiB after {:.1} s", left / MIB, emptied.elapsed().as_secs_f64());
    let look = run.look().await;
    assert_eq!((look.ready, look.leased + look.delayed), (0, pinned), "these stay");
    let (folder, queue) = (run.stop().await, run.queue);
    let peeked = look_after_opening(folder.path(), queue);
    assert_eq!(
        peeked.len() as u64,
        pinned.min(capstan_core::limits::BATCH_MAX as u64),
        "a look is at so many"
    );
    assert!(peeked.iter().all(|one| one.message.body.len() == BODY && one.state != "ready"), "{peeked:?}");
}
