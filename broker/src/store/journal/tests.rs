//! Real journals of fjall's, damaged in every way that we know.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use capstan_core::{Clock, ContentType, Key, Message, MessageId, Order, QueueId, Record, Seq, Store};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::store::{Durability, FjallStore, StoreError};

mod rows;
mod tables;

const QUEUE: QueueId = QueueId(7);
/// Commits of the sample; the first is the store's own, of its format.
const COMMITS: u64 = 12;
const BODY: usize = 400;

/// Commit `number`: the clock and a message that name it.
fn write(store: &FjallStore, number: u64, body: usize, durability: Durability) {
    let mut transaction = store.transaction();
    transaction.put(Key::Clock, clock(number));
    transaction.put(Key::Fresh(QUEUE, Seq(number)), message(number, body));
    // Another record behind the body, so that a batch is more than its largest value.
    transaction.put(Key::Returned(QUEUE, Order(number)), Record::Entry(Seq(number)));
    transaction.commit(durability).unwrap();
}

fn clock(number: u64) -> Record {
    Record::Clock(Clock { committed: number, outage: 0, timer_head: (0, QueueId(0), Seq(0)) })
}

pub(in crate::store) fn message(number: u64, body: usize) -> Record {
    Record::Message(Box::new(Message {
        id: MessageId(number.into()),
        sent_at: 0,
        stored_at: 0,
        due: 0,
        content_type: ContentType::Bytes,
        attributes: Vec::new(),
        body: vec![0xb0 | number as u8; body],
        origin: None,
    }))
}

/// A closed store of `commits`, its journal cut to its batches, as fjall leaves it after opening it again.
fn store_of(commits: &[(Durability, usize)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = FjallStore::open(folder.path()).unwrap();
    for (number, (durability, body)) in (2..).zip(commits) {
        write(&store, number, *body, *durability);
    }
    drop(store);
    drop(FjallStore::open(folder.path()).unwrap());
    folder
}

fn synced() -> Vec<(Durability, usize)> {
    vec![(Durability::Synced, BODY); COMMITS as usize - 1]
}

/// A copy of a store that was made once.
fn sample() -> TempDir {
    static SAMPLE: OnceLock<TempDir> = OnceLock::new();
    let copied = tempfile::tempdir().unwrap();
    copy(SAMPLE.get_or_init(|| store_of(&synced())).path(), copied.path());
    copied
}

pub(in crate::store) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn journal(folder: &Path, number: u64) -> PathBuf {
    folder.join("store").join(name(number))
}

fn bytes_of(folder: &Path) -> Vec<u8> {
    fs::read(journal(folder, 0)).unwrap()
}

/// Where each batch is: they end with a mark that nothing else in these journals holds.
fn batches(bytes: &[u8]) -> Vec<Range<usize>> {
    let ends = bytes.windows(4).enumerate().filter(|(_, part)| part == b"FJL\x03").map(|(at, _)| at + 4);
    let mut begin = 0;
    let found: Vec<_> = ends.map(|end| std::mem::replace(&mut begin, end)..end).collect();
    assert_eq!(begin, bytes.len(), "a journal ends with its last batch");
    found
}

/// What opening it gives: the number of its last commit, or what is wrong. All before the last must be there too.
fn open(folder: &Path) -> Result<u64, Damage> {
    let store = match FjallStore::open(folder) {
        Ok(store) => store,
        Err(StoreError::Journal { damage, .. }) => return Err(damage),
        Err(other) => panic!("{other}"),
    };
    let transaction = store.transaction();
    let last = match transaction.get(Key::Clock).unwrap() {
        Some(Record::Clock(clock)) => clock.committed,
        _ => 1,
    };
    let (from, to) = (Key::Fresh(QUEUE, Seq(0)), Key::Fresh(QUEUE, Seq(u64::MAX)));
    let all = transaction.scan(from, to, capstan_core::Limit::records(1_000)).unwrap();
    let numbers: Vec<u64> = all.iter().map(|(key, record)| number_of(*key, record)).collect();
    assert_eq!(numbers, (2..=last).collect::<Vec<_>>());
    drop(transaction);
    last_is_writable(store, folder, last);
    Ok(last)
}

fn number_of(key: Key, record: &Record) -> u64 {
    let (Key::Fresh(_, Seq(number)), Record::Message(found)) = (key, record) else {
        panic!("{key:?}");
    };
    assert_eq!(record, &message(number, found.body.len()));
    number
}

/// What was opened goes on: the next commit follows the last.
fn last_is_writable(store: FjallStore, folder: &Path, last: u64) {
    write(&store, last + 1, 10, Durability::Synced);
    drop(store);
    let end = check(&folder.join("store"), 0).unwrap().unwrap();
    assert_eq!(end.commit, last + 1);
}

#[derive(Debug, Clone)]
enum Change {
    Flip(prop::sample::Index, u8),
    Zero(prop::sample::Index, usize),
    Cut(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (any::<prop::sample::Index>(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        3 => (any::<prop::sample::Index>(), prop_oneof![1..30usize, 30..2_000usize])
            .prop_map(|(at, count)| Change::Zero(at, count)),
        1 => any::<prop::sample::Index>().prop_map(Change::Cut),
    ]
}

fn apply(change: &Change, bytes: &mut Vec<u8>) {
    let length = bytes.len();
    if length == 0 {
        return;
    }
    match change {
        Change::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
        Change::Zero(at, count) => {
            let at = at.index(length);
            bytes[at..length.min(at + count)].fill(0);
        }
        Change::Cut(at) => bytes.truncate(at.index(length)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damage in front of a batch that was written later is refused, and changes nothing; other damage costs the batches
    /// that it is in and no others. A batch that says nothing about what is on disk cannot be told from a torn one.
    #[test]
    fn no_batch_is_lost_before_the_last_one(changes in prop::collection::vec(change(), 1..3)) {
        let folder = sample();
        let before = bytes_of(folder.path());
        let ranges = batches(&before);
        let mut bytes = before.clone();
        changes.iter().for_each(|change| apply(change, &mut bytes));
        fs::write(journal(folder.path(), 0), &bytes).unwrap();

        let is_whole = |range: &&Range<usize>| bytes.get((*range).clone()) == Some(&before[(*range).clone()]);
        // Its sequence number, which no checksum covers, may be another one.
        let is_sound = |range: &&Range<usize>| {
            let found = bytes.get((*range).clone());
            found.is_some_and(|found| {
                let expected = &before[(*range).clone()];
                found[..5] == expected[..5] && found[12] < 1 << 6 && found[13..] == expected[13..]
            })
        };
        let [good, sound] = [ranges.iter().take_while(is_whole).count(), ranges.iter().take_while(is_sound).count()];
        let last_whole = ranges.iter().rposition(|range| is_whole(&range)).map_or(0, |index| index + 1);
        let later = last_whole > good;
        match open(folder.path()) {
            Err(damage) if sound == 0 && !later => prop_assert_eq!(damage.problem, Problem::Empty),
            Err(damage) => {
                prop_assert!(good < ranges.len(), "refused for nothing: {damage}");
                prop_assert_eq!(bytes_of(folder.path()), bytes, "refused, but changed");
                // A sequence number lies outside the checksum: it is the next batch that does not fit.
                prop_assert!(damage.offset >= ranges[good].start as u64, "{damage}");
            }
            // Opening a store of which nothing is left makes its first commit.
            Ok(last) => {
                let (least, most) = (last_whole.max(1) as u64, sound.max(1) as u64);
                prop_assert!((least..=most).contains(&last), "{last} of {good} to {sound}, {last_whole} is whole");
            }
        }
    }
}

/// Whatever a journal's bytes are, they are read without a panic and within bounds.
#[test]
fn a_search_ends_whatever_it_meets() {
    let folder = sample();
    let bytes = bytes_of(folder.path());
    let last = batches(&bytes).pop().unwrap();
    // Each of them could be the start of a batch, whose one item is as long as what follows.
    let mut tail = bytes[last.start..last.end - 13].to_vec();
    let length = 400_000u32;
    for _ in 0..length / 34 {
        tail.extend_from_slice(&[1, 1, 0, 0, 0]);
        tail.extend_from_slice(&u64::from(u32::MAX).to_le_bytes());
        tail.extend_from_slice(&[2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        tail.extend_from_slice(&(length / 2).to_le_bytes());
        tail.extend_from_slice(&(length / 2).to_le_bytes());
    }
    fs::write(journal(folder.path(), 0), [&bytes[..last.start], &tail].concat()).unwrap();
    let damage = open(folder.path()).unwrap_err();
    assert!(matches!(damage.problem, Problem::Unclear(_)), "{damage}");
}
