//! One test for each kind of damage.

use super::*;

const LAST: u64 = COMMITS;

/// Lays `change` over the journal of a sample; it gets the bytes and the place of each batch.
fn changed(change: impl FnOnce(&mut Vec<u8>, &[Range<usize>])) -> TempDir {
    let folder = sample();
    let mut bytes = bytes_of(folder.path());
    let ranges = batches(&bytes);
    change(&mut bytes, &ranges);
    fs::write(journal(folder.path(), 0), bytes).unwrap();
    folder
}

/// It opens with the commits up to `last`.
#[track_caller]
fn opens(what: &str, last: u64, change: impl FnOnce(&mut Vec<u8>, &[Range<usize>])) {
    assert_eq!(open(changed(change).path()), Ok(last), "{what}");
}

/// It is refused at the batch of the given index, and keeps every byte.
#[track_caller]
fn refused(what: &str, index: usize, change: impl FnOnce(&mut Vec<u8>, &[Range<usize>])) -> Problem {
    let folder = changed(change);
    let before = bytes_of(folder.path());
    let ranges = batches(&bytes_of(sample().path()));
    let damage = open(folder.path()).expect_err(what);
    assert_eq!(
        (&damage.file, damage.offset),
        (&journal(folder.path(), 0), ranges[index].start as u64),
        "{what}"
    );
    assert!(before == bytes_of(folder.path()), "{what}: refused, but changed");
    damage.problem
}

/// Where the value begins that is a message's record.
fn body(bytes: &[u8], batch: &Range<usize>) -> usize {
    let run = bytes[batch.clone()]
        .windows(100)
        .position(|part| part.iter().all(|byte| *byte == part[0] && *byte > 0xaf));
    batch.start + run.unwrap()
}

/// A torn write: parts of the last batch have not reached the disk.
#[test]
fn a_torn_end_is_cut_off() {
    let last = COMMITS as usize - 1;
    opens("nothing", LAST, |_, _| {});
    opens("zeros behind it", LAST, |bytes, _| bytes.resize(bytes.len() + (1 << 20), 0));
    opens("cut short", LAST - 1, |bytes, at| bytes.truncate(at[last].end - 1));
    opens("only a start", LAST - 1, |bytes, at| bytes.truncate(at[last].start + 1));
    opens("its start is zero", LAST - 1, |bytes, at| bytes[at[last].start..][..13].fill(0));
    opens("an item header is zero", LAST - 1, |bytes, at| bytes[at[last].start + 13..][..21].fill(0));
    opens("its end is zero", LAST - 1, |bytes, at| bytes[at[last].end - 13..].fill(0));
    opens("zeros in a value", LAST - 1, |bytes, at| {
        let body = body(bytes, &at[last]);
        bytes[body..][..50].fill(0);
    });
    opens("one bit in a value", LAST - 1, |bytes, at| {
        let body = body(bytes, &at[last]);
        bytes[body + 9] ^= 4;
    });
    opens("garbage behind it", LAST, |bytes, _| bytes.extend_from_slice(b"\x01\x02\x03garbage\x01"));
    opens("half a batch behind it, and zeros", LAST, |bytes, at| {
        bytes.extend_from_within(at[last].start..at[last].start + 200);
        bytes.resize(bytes.len() + (1 << 20), 0);
    });
    opens("the same, with zeros before it", LAST, |bytes, at| {
        bytes.extend_from_slice(&[0; 5_000]);
        bytes.extend_from_within(at[last].start..at[last].start + 200);
    });
}

#[test]
fn damage_before_a_synced_batch_is_refused() {
    let middle = 5;
    let flip = |what: &str, place: fn(&[u8], &Range<usize>) -> usize, bit: u8| {
        let problem = refused(what, middle, |bytes, at| {
            let place = place(bytes, &at[middle]);
            bytes[place] ^= 1 << bit;
        });
        assert!(matches!(problem, Problem::Middle { .. }), "{what}: {problem}");
    };
    flip("a value", |bytes, batch| body(bytes, batch) + 7, 0);
    flip("the start's mark", |_, batch| batch.start, 1);
    flip("the count of records, one less", |_, batch| batch.start + 1, 2);
    flip("the count of records, many more", |_, batch| batch.start + 4, 7);
    flip("an item's mark", |_, batch| batch.start + 13, 0);
    flip("an item's type", |_, batch| batch.start + 14, 0);
    flip("an item's compression", |_, batch| batch.start + 15, 0);
    flip("an item's keyspace", |_, batch| batch.start + 16, 1);
    flip("an item's key length", |_, batch| batch.start + 24, 0);
    flip("an item's plain length", |_, batch| batch.start + 29, 7);
    flip("an item's stored length", |_, batch| batch.start + 33, 7);
    flip("the end's mark", |_, batch| batch.end - 13, 0);
    flip("the checksum", |_, batch| batch.end - 10, 3);
    flip("the end's last byte", |_, batch| batch.end - 1, 0);
    for (what, count) in [("a page in the middle is zero", 300), ("several batches are", 2_000)] {
        refused(what, middle, |bytes, at| bytes[at[middle].start + 50..][..count].fill(0));
    }
    refused("the first batch", 0, |bytes, at| bytes[at[0].start + 20] ^= 1);
}

#[test]
fn a_batch_too_few_too_many_or_out_of_order_is_refused() {
    let middle = 5;
    let seqno = |bytes: &mut Vec<u8>, batch: &Range<usize>, number: u64| {
        bytes[batch.start + 5..][..8].copy_from_slice(&number.to_le_bytes());
    };
    let problem = refused("an old sequence number", middle, |bytes, at| seqno(bytes, &at[middle], 1));
    assert!(matches!(problem, Problem::Order { found: 1, .. }), "{problem}");
    let problem = refused("one of the future", middle + 1, |bytes, at| seqno(bytes, &at[middle], 1 << 40));
    assert!(matches!(problem, Problem::Order { .. }), "{problem}");
    let problem = refused("a batch is missing", middle, |bytes, at| drop(bytes.drain(at[middle].clone())));
    assert_eq!(problem, Problem::Gap { found: 7, last: 5 });
    let problem = refused("a batch is there twice", middle + 1, |bytes, at| {
        let twice = bytes[at[middle].clone()].to_vec();
        bytes.splice(at[middle].end..at[middle].end, twice);
    });
    assert!(matches!(problem, Problem::Order { .. }), "{problem}");
}

/// What no check can tell: without its end, a journal is one that is shorter.
#[test]
fn a_journal_cut_in_an_older_batch_opens_without_the_rest() {
    opens("cut in the middle", 5, |bytes, at| bytes.truncate(at[5].start + 100));
    opens("cut between two batches", 5, |bytes, at| bytes.truncate(at[5].start));
    opens("zeros from the middle on", 5, |bytes, at| bytes[at[5].start + 100..].fill(0));
}

/// The sample's batches, `counts` of them in each file.
fn divided(counts: &[usize]) -> TempDir {
    let folder = sample();
    let bytes = bytes_of(folder.path());
    let ranges = batches(&bytes);
    assert_eq!(counts.iter().sum::<usize>(), ranges.len());
    let mut first = 0;
    for (number, count) in counts.iter().enumerate() {
        let part = ranges[first].start..ranges[first + count - 1].end;
        fs::write(journal(folder.path(), number as u64), &bytes[part]).unwrap();
        first += count;
    }
    folder
}

fn edit(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    change(&mut bytes);
    fs::write(file, bytes).unwrap();
}

#[test]
fn damage_in_a_file_that_is_not_the_newest_is_refused() {
    assert_eq!(open(divided(&[5, 4, 3]).path()), Ok(LAST));
    let zeros = divided(&[5, 4, 3]);
    edit(&journal(zeros.path(), 1), |bytes| bytes.resize(bytes.len() + 300_000, 0));
    assert_eq!(open(zeros.path()), Ok(LAST), "fjall makes files of zeros, and cuts only the newest");

    // What would be a torn write in the newest.
    let changes: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| bytes.extend_from_slice(b"garbage"),
        |bytes| bytes.push(1),
    ];
    for change in changes {
        let folder = divided(&[5, 4, 3]);
        edit(&journal(folder.path(), 1), change);
        let damage = open(folder.path()).unwrap_err();
        assert!(matches!(damage.problem, Problem::Sealed(_)), "{damage}");
        assert_eq!(damage.file, journal(folder.path(), 1));
    }
    let folder = divided(&[5, 4, 3]);
    edit(&journal(folder.path(), 2), |bytes| bytes.truncate(bytes.len() - 1));
    assert_eq!(open(folder.path()), Ok(LAST - 1), "the newest");
}

#[test]
fn missing_files_are_noticed_except_at_the_ends() {
    let without = |numbers: &[u64]| {
        let folder = divided(&[3, 3, 3, 3]);
        numbers.iter().for_each(|number| fs::remove_file(journal(folder.path(), *number)).unwrap());
        folder
    };
    let folder = without(&[1, 2]);
    let damage = open(folder.path()).unwrap_err();
    assert_eq!((damage.file, damage.problem), (journal(folder.path(), 3), Problem::Missing(2)));
    assert_eq!(open(without(&[3]).path()), Ok(9), "what no check can tell");

    let folder = sample();
    fs::remove_file(journal(folder.path(), 0)).unwrap();
    let error = FjallStore::open(folder.path()).err().unwrap();
    assert!(matches!(error, StoreError::Part { .. }), "the only one: {error}");

    let folder = divided(&[3, 3, 3, 3]);
    fs::write(journal(folder.path(), 1), b"").unwrap();
    assert_eq!(open(folder.path()).unwrap_err().problem, Problem::Gap { found: 7, last: 3 }, "an empty file");
    for wrong in ["x.jnl", "07.jnl", "7.JNL"] {
        let folder = sample();
        fs::write(folder.path().join("store").join(wrong), b"").unwrap();
        assert_eq!(open(folder.path()).unwrap_err().problem, Problem::Name, "{wrong}");
    }
}

/// A commit of each letter: synced, or buffered as a lease is; the batch at `torn` is damaged.
fn torn(commits: &str, torn: usize) -> Result<u64, Damage> {
    let kinds = commits.chars().map(|kind| match kind {
        's' => (Durability::Synced, BODY),
        _ => (Durability::Buffered, BODY),
    });
    let folder = store_of(&kinds.collect::<Vec<_>>());
    let bytes = bytes_of(folder.path());
    // The first is the store's own.
    let place = batches(&bytes)[torn + 1].clone();
    edit(&journal(folder.path(), 0), |bytes| bytes[place][20..120].fill(0));
    open(folder.path())
}

/// The power goes while the last commit is synced: of what was written since the sync before it, any part can be missing.
#[test]
fn a_power_cut_may_tear_leases_before_a_whole_batch() {
    assert_eq!(
        torn("ssbs", 2),
        Ok(3),
        "a lease is torn, the verdict behind it is whole and was never answered"
    );
    assert_eq!(torn("ssb", 2), Ok(3));
    assert_eq!(torn("ssbbs", 2), Ok(3));
    assert_eq!(torn("ssbbs", 3), Ok(4));
    assert_eq!(torn("ssbbbb", 2), Ok(3));
    assert_eq!(torn("sbsbs", 3), Ok(4));
    // As soon as a later batch knows that the sync was done, it is no torn write.
    for (commits, damaged) in [("ssbsb", 2), ("ssbss", 2), ("ssbbsb", 2), ("ssb", 1), ("ssbs", 1)] {
        let damage = torn(commits, damaged).expect_err(commits);
        assert!(matches!(damage.problem, Problem::Middle { .. }), "{commits}: {damage}");
    }
}

/// A sequence number is in front of what the checksum covers.
#[test]
fn a_wrong_sequence_number_hides_nothing_behind_it() {
    let changed = |places: &[(usize, usize, u8)]| {
        let folder = sample();
        let ranges = batches(&bytes_of(folder.path()));
        edit(&journal(folder.path(), 0), |bytes| {
            places.iter().for_each(|(batch, behind, bit)| bytes[ranges[*batch].start + behind] ^= bit);
        });
        open(folder.path())
    };
    // The third one's is too large; the fourth is not whole, and those behind it are.
    let damage = changed(&[(2, 10, 1), (3, 40, 1)]).unwrap_err();
    assert!(matches!(damage.problem, Problem::Middle { .. }), "{damage}");
    // One that fjall could not go on from.
    let last = COMMITS as usize - 1;
    for bit in [1 << 6, 1 << 7] {
        assert_eq!(changed(&[(last, 12, bit)]), Ok(COMMITS - 1));
        let damage = changed(&[(last - 1, 12, bit)]).unwrap_err();
        assert!(matches!(damage.problem, Problem::Middle { .. }), "{damage}");
    }
}

/// A batch that is larger than what is read at once.
#[test]
fn large_batches_are_checked_to_their_ends() {
    let commits = vec![(Durability::Synced, 700_000); 3];
    let changed = |index: usize, behind: usize| {
        let folder = store_of(&commits);
        let batch = batches(&bytes_of(folder.path()))[index].clone();
        edit(&journal(folder.path(), 0), |bytes| bytes[batch][behind] ^= 1);
        open(folder.path())
    };
    assert_eq!(open(store_of(&commits).path()), Ok(4));
    assert_eq!(changed(3, 600_000), Ok(3));
    assert!(matches!(changed(2, 600_000).unwrap_err().problem, Problem::Middle { .. }));
    assert!(matches!(changed(2, 0).unwrap_err().problem, Problem::Middle { .. }));
}
