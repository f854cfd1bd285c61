//! Journals beside tables, and journals that the store itself does not write.

use fjall::{CompressionType, Database, KeyspaceCreateOptions, PersistMode};

use super::*;
use crate::store::{ADVICE, Commit};

/// A store with all its records in a table too.
fn flushed(folder: TempDir) -> TempDir {
    let store = FjallStore::open(folder.path()).unwrap();
    store.queues.keyspace.rotate_memtable_and_wait().unwrap();
    drop(store);
    folder
}

/// A flush syncs the journal first, so that a table never knows more than an undamaged one.
#[test]
fn a_journal_that_ends_before_the_tables_do_is_refused() {
    assert_eq!(open(flushed(sample()).path()), Ok(COMMITS));
    let folder = flushed(sample());
    let bytes = bytes_of(folder.path());
    let end = batches(&bytes)[8].end;
    fs::write(journal(folder.path(), 0), &bytes[..end]).unwrap();
    for _ in 0..2 {
        let damage = open(folder.path()).unwrap_err();
        assert_eq!(damage.problem, Problem::Behind { last: 9, stored: COMMITS });
        assert_eq!(damage.offset, end as u64);
    }
}

/// A store whose tables hold its first commits, up to `flushed`, and whose journal begins with commit 9.
fn without_older_journals(flushed: u64) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = FjallStore::open(folder.path()).unwrap();
    for number in 2..=COMMITS {
        write(&store, number, BODY, Durability::Synced);
        if number == flushed {
            store.queues.keyspace.rotate_memtable_and_wait().unwrap();
        }
    }
    drop(store);
    // Cuts the journal to its batches.
    drop(FjallStore::open(folder.path()).unwrap());
    let bytes = bytes_of(folder.path());
    let begin = batches(&bytes)[8].start;
    fs::write(journal(folder.path(), 0), &bytes[begin..]).unwrap();
    folder
}

/// Older journals are removed only when tables hold what was in them.
#[test]
fn tables_that_end_before_the_journal_begins_are_refused() {
    for flushed in [8, 9, 11, COMMITS] {
        assert_eq!(open(without_older_journals(flushed).path()), Ok(COMMITS), "{flushed}");
    }
    for flushed in [4, 7] {
        let folder = without_older_journals(flushed);
        for _ in 0..2 {
            let damage = open(folder.path()).unwrap_err();
            assert_eq!(damage.problem, Problem::Ahead { first: 9, stored: flushed });
        }
    }
}

#[test]
fn a_damaged_table_fails_the_read_that_meets_it_and_says_what_to_do() {
    // Each message has a block of its own, so that opening the store does not meet it.
    let folder = flushed(store_of(&[(Durability::Synced, 5_000); COMMITS as usize - 1]));
    let tables: Vec<_> = fs::read_dir(folder.path().join("store/keyspaces/1/tables")).unwrap().collect();
    let mut hit = 0;
    for table in tables {
        let file = table.unwrap().path();
        let mut bytes = fs::read(&file).unwrap();
        // Blocks are compressed: this is one of the few bytes that differ between messages.
        if let Some(place) = bytes.windows(4).position(|part| part == [0xb5; 4]) {
            bytes[place] ^= 1;
            fs::write(&file, bytes).unwrap();
            hit += 1;
        }
    }
    assert_eq!(hit, 1, "a table with the message");
    let store = FjallStore::open(folder.path()).unwrap();
    let transaction = store.transaction();
    let error = transaction.get(Key::Fresh(QUEUE, Seq(5))).unwrap_err();
    assert!(matches!(error, StoreError::Table { .. }), "{error:?}");
    assert!(error.to_string().contains(ADVICE), "{error}");
    let error = transaction
        .scan(Key::Fresh(QUEUE, Seq(0)), Key::Fresh(QUEUE, Seq(99)), capstan_core::Limit::records(99))
        .unwrap_err();
    assert!(matches!(error, StoreError::Table { .. }), "{error:?}");
}

/// Batches that fjall compressed, as it does by default; each with the commit record at `numbered`.
fn compressed(numbered: bool) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let database = Database::builder(&path).journal_compression(CompressionType::Lz4).open().unwrap();
    let keyspace = database.keyspace("queues", KeyspaceCreateOptions::default).unwrap();
    for number in 1..=5u64 {
        let mut batch = fjall::OwnedWriteBatch::with_capacity(database.clone(), 2);
        let text: String = (0..3_000).map(|n| format!("{} ", n * number)).collect();
        batch.insert(&keyspace, number.to_be_bytes(), text);
        if numbered {
            batch.insert(&keyspace, Commit::KEY, Commit { number, synced: number - 1 }.encode());
        }
        batch.durability(Some(PersistMode::SyncAll)).commit().unwrap();
    }
    drop((keyspace, database));
    // Cuts the journal to its batches.
    drop(Database::builder(&path).journal_compression(CompressionType::Lz4).open().unwrap());
    folder
}

fn checked(folder: &Path) -> Result<Option<End>, Damage> {
    check(&folder.join("store"), 0).map_err(|error| match error {
        JournalError::Damaged(damage) => damage,
        JournalError::Io { .. } => panic!("{error}"),
    })
}

#[test]
fn compressed_values_are_checked_as_they_are_stored() {
    let folder = compressed(true);
    assert_eq!(checked(folder.path()).unwrap().unwrap().commit, 5);
    let mut bytes = bytes_of(folder.path());
    let batch = batches(&bytes)[2].clone();
    assert!(batch.len() < 20_000 && bytes[batch.start + 15] == 1, "its first item is compressed");
    bytes[batch.start + 2_000] ^= 1;
    fs::write(journal(folder.path(), 0), &bytes).unwrap();
    let damage = checked(folder.path()).unwrap_err();
    assert_eq!(damage.offset, batch.start as u64);
    assert!(matches!(damage.problem, Problem::Middle { .. }), "{damage}");
}

#[test]
fn batches_without_a_number_are_refused() {
    let damage = checked(compressed(false).path()).unwrap_err();
    assert_eq!((damage.problem, damage.offset), (Problem::Unnumbered, 0));
}

#[test]
fn a_refusal_names_the_place_and_says_what_to_do() {
    let folder = sample();
    let mut bytes = bytes_of(folder.path());
    let batch = batches(&bytes)[4].clone();
    bytes[batch.start + 20] ^= 1;
    fs::write(journal(folder.path(), 0), bytes).unwrap();
    let text = FjallStore::open(folder.path()).err().unwrap().to_string();
    let file = journal(folder.path(), 0);
    for part in [file.to_str().unwrap(), &batch.start.to_string(), "messages would be missing", ADVICE] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
