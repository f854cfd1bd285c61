//! Real stores, each with one part that is not what it was: refused by its name, and every byte is kept.

use std::collections::BTreeMap;

use capstan_core::{Key, QueueId, Seq, Store};
use tempfile::TempDir;

use super::*;
use crate::store::journal::tests::message;
use crate::store::{ADVICE, Durability, FjallStore, StoreError};

/// A closed store with messages in a table and in the journal.
fn store() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = FjallStore::open(folder.path()).unwrap();
    for number in 1..=3 {
        let mut transaction = store.transaction();
        transaction.put(Key::Fresh(QueueId(1), Seq(number)), message(number, 100));
        transaction.commit(Durability::Synced).unwrap();
        if number == 2 {
            store.queues.keyspace.rotate_memtable_and_wait().unwrap();
        }
    }
    drop(store);
    folder
}

/// Each file and folder below `folder`, and a file's bytes.
fn all(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(all(&entry));
            found.insert(entry, None);
        } else {
            found.insert(entry.clone(), Some(fs::read(entry).unwrap()));
        }
    }
    found
}

fn remove(path: &Path) {
    if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
}

/// Opens a store twice, and finds it unchanged.
fn refusal(folder: &Path) -> StoreError {
    let before = all(folder);
    let mut refused = None;
    for _ in 0..2 {
        refused = FjallStore::open(folder).err();
        let error = refused.as_ref().expect("it is refused");
        assert!(all(folder) == before, "refused, but changed: {error}");
    }
    refused.unwrap()
}

fn damage(folder: &Path) -> Part {
    let error = refusal(folder);
    let text = error.to_string();
    let StoreError::Part { part, .. } = error else { panic!("{text}") };
    for said in [part.file.to_str().unwrap(), "is damaged", ADVICE] {
        assert!(text.contains(said), "{said}: {text}");
    }
    part
}

#[test]
fn a_whole_store_opens() {
    let folder = store();
    check(&folder.path().join("store")).unwrap();
    let store = FjallStore::open(folder.path()).unwrap();
    let messages = store.transaction().scan(
        Key::Fresh(QueueId(1), Seq(0)),
        Key::Fresh(QueueId(1), Seq(u64::MAX)),
        capstan_core::Limit::records(9),
    );
    assert_eq!(messages.unwrap().len(), 3);
}

#[test]
fn each_part_that_is_missing_is_named_and_nothing_is_changed() {
    let whole = store();
    let tables = whole.path().join("store/keyspaces/1");
    let list = list(whole.path(), 1);
    let table = format!("keyspaces/1/tables/{}", only(&tables.join("tables")));
    let parts = [
        "",
        "version",
        "lock",
        "*.jnl",
        "keyspaces",
        "keyspaces/0",
        "keyspaces/0/current",
        "keyspaces/0/tables",
        "keyspaces/1",
        "keyspaces/1/current",
        "keyspaces/1/tables",
        &list,
        &table,
    ];
    for part in parts {
        let folder = store();
        let missing = folder.path().join("store").join(part);
        remove(&if part == "*.jnl" { missing.with_file_name("0.jnl") } else { missing.clone() });
        assert_eq!(damage(folder.path()), Part { file: missing, problem: PartProblem::Missing }, "{part}");
    }
}

#[test]
fn what_is_no_part_of_a_store_is_refused() {
    let cut = |file: &Path| fs::write(file, [1, 0, 0]).unwrap();
    let file = |file: &Path| fs::write(file, "").unwrap();
    let folder = |folder: &Path| fs::create_dir(folder).unwrap();
    type Row<'a> = (&'a str, &'a dyn Fn(&Path), PartProblem);
    let rows: [Row<'_>; 6] = [
        ("keyspaces/1/current", &cut, PartProblem::Short),
        ("keyspaces/1", &file, PartProblem::NoFolder),
        ("version", &folder, PartProblem::NoFile),
        // fjall would remove the first, and end the process over the second.
        ("keyspaces/7", &folder, PartProblem::Foreign),
        ("keyspaces/lost+found", &folder, PartProblem::Foreign),
        ("keyspaces/0/tables", &file, PartProblem::NoFolder),
    ];
    for (part, put, problem) in rows {
        let whole = store();
        let path = whole.path().join("store").join(part);
        if path.exists() {
            remove(&path);
        }
        put(&path);
        assert_eq!(damage(whole.path()), Part { file: path, problem });
    }
}

/// Opening removes the lists of tables that newer ones have replaced, and tables that are in none.
#[test]
fn each_table_that_is_missing_is_named_also_when_it_is_one_of_many() {
    let folder = store();
    let open = FjallStore::open(folder.path()).unwrap();
    for number in 4..=6 {
        let mut transaction = open.transaction();
        transaction.put(Key::Fresh(QueueId(1), Seq(number)), message(number, 100));
        transaction.commit(Durability::Synced).unwrap();
        open.queues.keyspace.rotate_memtable_and_wait().unwrap();
    }
    drop(open);
    check(&folder.path().join("store")).unwrap();
    let mut tables = 0;
    for keyspace in ["0", "1"] {
        let tables_folder = folder.path().join("store/keyspaces").join(keyspace).join("tables");
        for table in fs::read_dir(&tables_folder).unwrap().map(|table| table.unwrap().path()) {
            let away = folder.path().join("away");
            fs::rename(&table, &away).unwrap();
            let part = damage(folder.path());
            fs::rename(&away, &table).unwrap();
            assert_eq!(part, Part { file: table, problem: PartProblem::Missing });
            tables += 1;
        }
    }
    assert!(tables >= 3, "{tables} tables");
    drop(FjallStore::open(folder.path()).unwrap());
}

#[test]
fn a_list_of_tables_that_was_changed_is_refused_whatever_its_bytes_are() {
    let whole = store();
    let file = whole.path().join("store").join(list(whole.path(), 1));
    let bytes = fs::read(&file).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0xff;
        fs::write(&file, changed).unwrap();
        let error = check(&whole.path().join("store")).unwrap_err();
        let PartsError::Damaged(part) = error else { panic!("{error}") };
        assert_eq!(part, Part { file: file.clone(), problem: PartProblem::Changed }, "byte {at}");
    }
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(damage(whole.path()), Part { file, problem: PartProblem::Changed });
}

/// The list that a keyspace's file `current` names.
fn list(folder: &Path, keyspace: u8) -> String {
    let current = fs::read(folder.join(format!("store/keyspaces/{keyspace}/current"))).unwrap();
    format!("keyspaces/{keyspace}/v{}", u64::from_le_bytes(current[..8].try_into().unwrap()))
}

/// The name of the only file in `folder`.
fn only(folder: &Path) -> String {
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].to_str().unwrap().to_owned()
}
