//! Stores whose tables are an older copy, beside a journal that a flush left empty.

use std::time::{Duration, Instant};

use capstan_core::{Key, QueueId, Seq, Store};
use fjall::AbstractTree;
use tempfile::TempDir;

use super::*;
use crate::store::journal::tests::{copy, message};
use crate::store::journal::{Files, Problem};
use crate::store::{Durability, FjallStore, Fullness};

const BODY: usize = 1 << 20;
/// What is waited for must come within this.
const DEADLINE: Duration = Duration::from_secs(60);
/// A store that never leaves its first journal within so many messages is another store's test.
const MESSAGES_MAX: u64 = 300;

fn put(store: &FjallStore, number: u64) {
    let mut transaction = store.transaction();
    transaction.put(Key::Fresh(QueueId(1), Seq(number)), message(number, BODY));
    transaction.commit(Durability::Synced).unwrap();
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Writes until a flush has left an empty journal, and nothing in memory; answers the number of the last message.
fn fill(folder: &Path, mut number: u64) -> u64 {
    let store = FjallStore::open(folder).unwrap();
    let journals = || Files::find(&folder.join("store")).unwrap().numbers;
    let before = journals();
    loop {
        number += 1;
        assert!(number < MESSAGES_MAX, "no flush took the journal");
        put(&store, number);
        let idle = || store.queues.is_flushed() && store.queues.fullness() == Fullness::Room;
        until("what is full is flushed", idle);
        if store.queues.keyspace.tree.active_memtable().is_empty() && journals().last() > before.last() {
            until("the older journals go", || journals().len() == 1);
            return number;
        }
    }
}

fn messages(folder: &Path) -> u64 {
    let store = FjallStore::open(folder).unwrap();
    let (from, to) = (Key::Fresh(QueueId(1), Seq(0)), Key::Fresh(QueueId(1), Seq(u64::MAX)));
    let found = store.transaction().scan(from, to, capstan_core::Limit::records(1_000)).unwrap();
    found.len() as u64
}

fn problem(folder: &Path) -> Problem {
    match FjallStore::open(folder).err().unwrap() {
        StoreError::Journal { damage, .. } => damage.problem,
        other => panic!("{other}"),
    }
}

fn committed(folder: &Path) -> u64 {
    read(&folder.join(FILE)).unwrap().expect("the file is there").trim().parse().unwrap()
}

#[test]
fn older_tables_beside_an_empty_journal_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let first = fill(path, 0);
    let (tables, older, newer) = (path.join("store/keyspaces"), path.join("older"), path.join("newer"));
    copy(&tables, &older);
    let (last, before) = (fill(path, first), committed(path));
    assert!(before > first, "it is written again: {before}");
    assert_eq!(messages(path), last, "a whole store opens");

    fs::rename(&tables, &newer).unwrap();
    copy(&older, &tables);
    for _ in 0..2 {
        // The first commit is the store's own.
        assert_eq!(problem(path), Problem::Fewer { last: first + 1, least: before });
    }
    fs::remove_dir_all(&tables).unwrap();
    fs::rename(&newer, &tables).unwrap();
    assert_eq!(messages(path), last);
}

/// A closed store of ten commits, all in its journal.
fn store() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = FjallStore::open(folder.path()).unwrap();
    (1..10).for_each(|number| put(&store, number));
    drop(store);
    folder
}

#[test]
fn a_journal_that_holds_less_is_refused_and_keeps_every_byte() {
    let folder = store();
    let (path, journal) = (folder.path(), folder.path().join("store/0.jnl"));
    fs::write(path.join(FILE), "10\n").unwrap();
    assert_eq!(messages(path), 9, "it holds just as much");
    fs::write(path.join(FILE), "11\n").unwrap();
    assert_eq!(problem(path), Problem::Fewer { last: 10, least: 11 });
    // A torn end is not cut off when what it held was on disk.
    fs::write(path.join(FILE), "10\n").unwrap();
    let bytes = fs::read(&journal).unwrap();
    fs::write(&journal, &bytes[..bytes.len() - 100]).unwrap();
    assert_eq!(problem(path), Problem::Fewer { last: 9, least: 10 });
    assert!(fs::read(&journal).unwrap() == bytes[..bytes.len() - 100], "refused, but changed");
    fs::write(path.join(FILE), "9\n").unwrap();
    assert_eq!(messages(path), 8);
}

#[test]
fn a_file_without_a_number_is_refused_by_its_name_and_one_of_an_older_store_goes() {
    let folder = store();
    for text in ["", "ten", "-1", &"1".repeat(100)] {
        fs::write(folder.path().join(FILE), text).unwrap();
        let error = FjallStore::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains(FILE) && error.contains("is not as it was written"), "{error}");
    }
    let empty = tempfile::tempdir().unwrap();
    fs::write(empty.path().join(FILE), "77\n").unwrap();
    drop(FjallStore::open(empty.path()).unwrap());
    assert!(!empty.path().join(FILE).exists());
}

#[test]
fn a_number_never_goes_down_and_a_failure_keeps_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Committed::open(folder.path(), Found::Store).unwrap();
    let file = open();
    assert_eq!(file.number(), 0);
    for (number, kept) in [(5, 5), (3, 5), (8, 8)] {
        file.note(number).unwrap();
        assert_eq!((file.number(), open().number()), (kept, kept));
    }
    fs::create_dir(folder.path().join(NEXT)).unwrap();
    file.note(9).unwrap_err();
    assert_eq!((file.number(), open().number()), (8, 8));
}
