//! A store whose files are damaged: a torn write costs nothing, and anything else is refused before a byte changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use e2e::process::{Broker, Starting};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::fixture::{Fixture, NAMESPACE, json_of, message_of, name, queue, until};

/// Ends each batch of a journal, behind its checksum.
const END: &[u8] = b"FJL\x03";
const PAGE: usize = 4096;
const SENDERS: u64 = 8;
/// So many messages are answered before the kill, at least.
const ANSWERED: usize = 120;

fn queues() -> Vec<Value> {
    vec![queue("orders", 3, json!({}))]
}

/// Sends one message after another until the broker is gone; answers the numbers that were stored.
async fn send(fixture: &Fixture, sender: u64, stored: &Mutex<Vec<u64>>) {
    for n in 0.. {
        let number = sender + SENDERS * n;
        // Long enough for a message to be a page.
        let message = message_of(&json!({ "body": { "n": number, "text": "x".repeat(4_000) } }));
        if fixture.client.send(&name(NAMESPACE), &name("orders"), &message).await.is_err() {
            return;
        }
        stored.lock().unwrap().push(number);
    }
}

/// A broker's folder after it was killed under load, and the messages that were answered.
async fn killed() -> (Fixture, Vec<u64>) {
    let fixture = Fixture::new(&queues()).await;
    let stored = Mutex::new(Vec::new());
    let killer = fixture.broker.killer();
    let kill = async {
        let enough = async || (stored.lock().unwrap().len() >= ANSWERED).then_some(());
        until("messages are stored", enough).await;
        killer.kill();
    };
    tokio::join!(join_all((0..SENDERS).map(|sender| send(&fixture, sender, &stored))), kill);
    (fixture, stored.into_inner().unwrap())
}

/// The only journal, and its bytes up to the last one that is not zero.
fn journal(folder: &Path) -> (PathBuf, Vec<u8>) {
    let journal = folder.join("store/0.jnl");
    let mut bytes = fs::read(&journal).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes.truncate(used);
    (journal, bytes)
}

/// Where batches end.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let ends = bytes.windows(END.len()).enumerate().filter(|(_, part)| *part == END);
    ends.map(|(at, _)| at + END.len()).collect()
}

/// Writes the journal as it is after a kill: zeros up to 64 MiB behind its batches.
fn put(journal: &Path, bytes: &[u8]) {
    fs::write(journal, bytes).unwrap();
    fs::File::options().write(true).open(journal).unwrap().set_len(64 << 20).unwrap();
}

/// The numbers of all messages, oldest first.
async fn numbers(fixture: &Fixture) -> Vec<u64> {
    let mut found = Vec::new();
    loop {
        let pulled = fixture.pull("orders", 100).await.messages;
        if pulled.is_empty() {
            return found;
        }
        found.extend(pulled.iter().map(|message| json_of(&message.body)["n"].as_u64().unwrap()));
    }
}

fn warned(fixture: &Fixture) -> Option<Value> {
    let lines = fixture.broker.log().lines();
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut warnings = lines.filter(|line| line["level"] == "WARN");
    warnings.find(|line| line["fields"]["message"].as_str().unwrap().contains("torn write"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_write_is_cut_off_and_costs_no_answered_message() {
    let (fixture, mut stored) = killed().await;
    let mut whole = 0;
    let folder = fixture.folder().to_owned();
    let fixture = fixture.again(|broker| {
        broker.kill();
        let (file, mut bytes) = journal(&folder);
        let ends = ends(&bytes);
        // The kill itself may have torn one.
        let [.., before, last] = ends[..] else { panic!("no batches") };
        bytes.truncate(last);
        bytes.extend_from_within(before..before + (last - before) / 2);
        whole = last;
        put(&file, &bytes);
    });
    let warning = warned(&fixture).expect("it says so in its log");
    assert_eq!(warning["fields"]["offset"], whole, "{warning}");
    let mut found = numbers(&fixture).await;
    found.sort_unstable();
    stored.sort_unstable();
    let missing: Vec<_> = stored.iter().filter(|number| found.binary_search(number).is_err()).collect();
    assert!(missing.is_empty(), "answered, but not there: {missing:?}");
    // Those that were written, but not answered before the kill.
    assert!(found.len() <= stored.len() + SENDERS as usize, "{} of {}", found.len(), stored.len());
    fixture.send("orders", json!({"body": {"n": 0}})).await;
    assert_eq!(warned(&fixture.again(Broker::kill)), None, "a store that was mended is whole");
}

/// What cannot be told from a journal that is shorter: nothing in it speaks of what is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_cut_in_an_older_write_opens_with_what_is_left() {
    let (fixture, stored) = killed().await;
    let mut left = 0;
    let folder = fixture.folder().to_owned();
    let fixture = fixture.again(|broker| {
        broker.kill();
        let (file, bytes) = journal(&folder);
        let ends = ends(&bytes);
        let middle = ends[ends.len() / 2];
        left = bytes[..middle].windows(4).filter(|part| *part == b"{\"n\"").count();
        put(&file, &bytes[..middle + 100]);
    });
    assert!(warned(&fixture).is_some());
    let found = numbers(&fixture).await;
    assert_eq!(found.len(), left);
    assert!(left > 0 && left < stored.len(), "{left} of {}", stored.len());
}

/// Each file below `folder`, and its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_page_in_the_middle_is_refused_and_nothing_is_changed() {
    let (fixture, _) = killed().await;
    let folder = fixture.folder().to_owned();
    fixture.broker.kill();
    let (file, mut bytes) = journal(&folder);
    let page = bytes.len() / 2 / PAGE * PAGE;
    bytes[page..page + PAGE].fill(0);
    put(&file, &bytes);
    let before = files(&folder);
    for _ in 0..2 {
        let (status, log) = Starting::spawn(&folder).ended();
        assert_eq!(status.code(), Some(1), "{log}");
        let log = log.to_string();
        for part in
            ["messages would be missing", file.to_str().unwrap(), "damaged at byte", "first copy it whole"]
        {
            assert!(log.contains(part), "{part}: {log}");
        }
        assert!(files(&folder) == before, "it was changed");
    }
}

/// The storage engine alone would begin a new store in the folder, or remove the messages' tables.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lost_a_file_is_refused_by_its_name_and_nothing_is_changed() {
    let (fixture, _) = killed().await;
    let folder = fixture.folder().to_owned();
    fixture.broker.kill();
    let away = tempfile::tempdir().unwrap();
    for part in
        ["version", "lock", "keyspaces/0/current", "keyspaces/1/current", "keyspaces/0", "keyspaces/1"]
    {
        let (part, kept) = (folder.join("store").join(part), away.path().join("part"));
        fs::rename(&part, &kept).unwrap();
        let before = files(&folder);
        for _ in 0..2 {
            let (status, log) = Starting::spawn(&folder).ended();
            assert_eq!(status.code(), Some(1), "{log}");
            let log = log.to_string();
            let missing = format!("{} is missing", part.display());
            for said in [missing.as_str(), "first copy it whole"] {
                assert!(log.contains(said), "{said}: {log}");
            }
            assert!(!log.contains("jnl"), "{log}");
            assert!(files(&folder) == before, "it was changed");
        }
        fs::rename(&kept, &part).unwrap();
    }
    drop(Starting::spawn(&folder).ready());
}
