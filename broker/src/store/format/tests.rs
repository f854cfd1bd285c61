//! Stores of each format: ours opens, others are refused by their number.
//!
//! `broker/tests/fixtures` has a store of each format, written by the broker that used it. From now on one is added when
//! the format changes, and none is ever removed or made again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use capstan_core::{GapsRecord, Key, QueueId, Record, Seq, Store};
use tempfile::TempDir;

use super::*;

/// A folder with the fixture of format `version`.
fn fixture(version: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let file = File::open(fixtures.join(format!("format-{version}.tar"))).unwrap();
    tar::Archive::new(file).unpack(folder.path()).unwrap();
    folder
}

/// Each file below `folder` and its bytes.
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

fn refused(folder: &Path) -> StoreError {
    let before = files(folder);
    assert!(before.len() > 1, "{before:?}");
    let error = FjallStore::open(folder).err().unwrap();
    assert!(files(folder) == before, "refused, but changed");
    error
}

fn refusal(folder: &Path) -> String {
    let error = refused(folder);
    assert!(matches!(error, StoreError::Format { .. }), "{error}");
    error.to_string()
}

#[test]
fn earlier_formats_are_refused_by_their_number_and_keep_every_byte() {
    let text = refusal(fixture(2).path());
    assert!(text.contains("format 2,") && text.contains("formats 3 to 4"), "{text}");
    let error = refused(fixture(1).path());
    assert!(
        matches!(error, StoreError::NoFormatFile { .. }) && error.to_string().contains("format 1"),
        "{error}"
    );
}

/// Which format it had can no longer be told, and what else is missing neither.
#[test]
fn a_store_that_lost_its_file_says_what_is_missing_and_what_to_do() {
    let folder = fixture(VERSION);
    fs::rename(folder.path().join(FILE), folder.path().join("away")).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, StoreError::NoFormatFile { .. }), "{error}");
    let text = error.to_string();
    for said in ["no file FORMAT", "format 1", folder.path().to_str().unwrap(), crate::store::ADVICE] {
        assert!(text.contains(said), "{said}: {text}");
    }
    fs::rename(folder.path().join("away"), folder.path().join(FILE)).unwrap();
    drop(FjallStore::open(folder.path()).unwrap());
}

/// A store is made anew only beside a file that says so, and only if nobody was served from it.
#[test]
fn a_full_store_is_never_taken_for_one_that_was_begun() {
    // What a process leaves that ended while it made an older store one of this version; and where it had another name.
    for (begun, version) in [(NEXT, 3), (NEW, 3), (NEW, VERSION)] {
        let folder = fixture(version);
        fs::write(folder.path().join(begun), "4\n").unwrap();
        fs::remove_file(folder.path().join(FILE)).unwrap();
        let error = refused(folder.path());
        assert!(matches!(error, StoreError::NoFormatFile { .. }), "{begun}, format {version}: {error}");
    }
}

#[test]
fn what_a_beginning_left_goes_when_the_store_is_complete() {
    let folder = fixture(VERSION);
    fs::write(folder.path().join(NEW), "4\n").unwrap();
    drop(FjallStore::open(folder.path()).unwrap());
    assert!(!folder.path().join(NEW).exists());
}

/// What the file and the key say.
fn formats(folder: &Path, store: &FjallStore) -> (String, u32) {
    let key = store.queues.keyspace.get(KEY).unwrap().unwrap();
    let key = u32::from_be_bytes((*key).try_into().unwrap());
    (fs::read_to_string(folder.join(FILE)).unwrap(), key)
}

fn put(store: &FjallStore, key: Key, record: Record) {
    let mut transaction = store.transaction();
    transaction.put(key, record);
    transaction.commit(Durability::Synced).unwrap();
}

/// Until then the version that made it can still read it.
#[test]
fn format_3_becomes_this_one_with_the_first_record_that_it_does_not_know() {
    let folder = fixture(3);
    for _ in 0..2 {
        let store = FjallStore::open(folder.path()).unwrap();
        check_messages(&store);
        put(&store, Key::Returned(QueueId(9), capstan_core::Order(1)), Record::Entry(Seq(1)));
        assert_eq!(formats(folder.path(), &store), ("3\n".to_owned(), 3));
    }
    let store = FjallStore::open(folder.path()).unwrap();
    let sent = capstan_core::SentRecord { key: 1, content: 2, count: 1, sent_at: 3 };
    put(&store, Key::Sent(QueueId(1), Seq(202)), Record::Sent(sent));
    assert_eq!(formats(folder.path(), &store), ("4\n".to_owned(), 4));
    drop(store);
    let store = FjallStore::open(folder.path()).unwrap();
    check_messages(&store);
    assert_eq!(formats(folder.path(), &store), ("4\n".to_owned(), 4));
}

#[test]
fn format_3_whose_file_is_of_this_one_already_becomes_it() {
    let folder = fixture(3);
    fs::write(folder.path().join(FILE), "4\n").unwrap();
    for _ in 0..2 {
        let store = FjallStore::open(folder.path()).unwrap();
        check_messages(&store);
        assert_eq!(formats(folder.path(), &store), ("4\n".to_owned(), 4));
    }
}

/// What the fixtures of format 3 and later have of messages.
fn check_messages(store: &FjallStore) {
    let transaction = store.transaction();
    let (queue, all) = (QueueId(1), |seq| Key::Fresh(QueueId(1), Seq(seq)));
    let messages = transaction.scan(all(0), all(u64::MAX), capstan_core::Limit::records(100)).unwrap();
    let bodies = messages.iter().map(|(_, record)| match record {
        Record::Message(message) => String::from_utf8(message.body.clone()).unwrap(),
        other => panic!("{other:?}"),
    });
    assert_eq!(bodies.collect::<Vec<_>>(), [r#"{"order":1}"#, r#"{"order":2}"#, r#"{"order":3}"#]);
    assert!(matches!(transaction.get(Key::Delivery(queue, Seq(1))).unwrap(), Some(Record::Delivery(_))));
    let gaps = GapsRecord { fresh: vec![Seq(2)..Seq(202)], parked: Vec::new() };
    assert_eq!(transaction.get(Key::Gaps(queue)).unwrap(), Some(Record::Gaps(gaps)));
}

#[test]
fn format_4_is_read() {
    let folder = fixture(4);
    let store = FjallStore::open(folder.path()).unwrap();
    check_messages(&store);
    let (transaction, queue) = (store.transaction(), QueueId(1));
    let all = |seq| Key::Sent(queue, Seq(seq));
    let sends = transaction.scan(all(0), all(u64::MAX), capstan_core::Limit::records(100)).unwrap();
    let counts = sends.iter().map(|(key, record)| match record {
        Record::Sent(sent) => (*key, sent.count),
        other => panic!("{other:?}"),
    });
    assert_eq!(counts.collect::<Vec<_>>(), [(all(1), 1), (all(202), 1)]);
    let Some(Record::Remembered(marks)) = transaction.get(Key::Remembered(queue)).unwrap() else {
        panic!("no marks")
    };
    assert!(marks.down > 0, "it was started again while sends were remembered: {marks:?}");
}

#[test]
fn another_format_is_refused_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    drop(FjallStore::open(folder.path()).unwrap());
    let file = folder.path().join(FILE);
    assert_eq!(fs::read_to_string(&file).unwrap(), "4\n");
    for (bytes, named) in [("9\n", "format 9,"), ("", "format ,"), (&"x".repeat(1_000), "format x")] {
        fs::write(&file, bytes).unwrap();
        let text = refusal(folder.path());
        assert!(text.contains(named) && text.contains("formats 3 to 4") && text.len() < 300, "{text}");
    }
}

/// A process that ended before its new store was complete leaves one that the next process makes.
#[test]
fn a_store_that_was_only_begun_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let (new, done) = (folder.path().join(NEW), folder.path().join(FILE));
    fs::write(&new, "").unwrap();
    // At last the first commit was made, and once not all of the storage engine's own files.
    for missing in [None, Some("store/version"), Some("store/0.jnl"), Some("store/keyspaces/1/current"), None]
    {
        if let Some(missing) = missing {
            fs::remove_file(folder.path().join(missing)).unwrap();
        }
        drop(FjallStore::open(folder.path()).unwrap());
        assert!(done.exists() && !new.exists());
        drop(FjallStore::open(folder.path()).unwrap());
        fs::rename(&done, &new).unwrap();
    }
}

/// The file is of this version, what is stored is not: somebody put files together.
#[test]
fn the_key_must_agree_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = FjallStore::open(folder.path()).unwrap();
    let mut batch = store.batch(Durability::Synced, 1);
    batch.insert(&store.queues.keyspace, KEY, 9u32.to_be_bytes());
    batch.commit().unwrap();
    drop(store);
    let text = FjallStore::open(folder.path()).err().unwrap().to_string();
    assert!(text.contains("format 9") && text.contains("formats 3 to 4"), "{text}");

    let store = tempfile::tempdir().unwrap();
    let open = FjallStore::open(store.path()).unwrap();
    let mut batch = open.batch(Durability::Synced, 1);
    batch.remove(&open.queues.keyspace, KEY);
    batch.commit().unwrap();
    drop(open);
    let text = FjallStore::open(store.path()).err().unwrap().to_string();
    assert!(text.contains("no format version"), "{text}");
}
