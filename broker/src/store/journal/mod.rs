//! The check of fjall's journal before fjall opens it: a torn end is cut off, any other damage is refused.
//!
//! fjall itself drops what lies behind a damaged header, in the middle of a file too, and says so at debug level only.
//! Here each batch must be whole and carry the commit number that follows the one before it. Where that ends:
//!
//! * only zeros follow: the end, as files are made of zeros;
//! * in a file that is not the newest: refused, since fjall syncs a file before it begins the next;
//! * a whole batch follows that knows of a synced commit behind the last good one: refused;
//! * otherwise nobody was answered about anything behind it: the file is cut there. A commit that needs no disk (a lease)
//!   may be torn while the next one, on its way to the disk when the power went, is whole; it goes too.
//!
//! What no check can tell: damage in the last batches looks like a torn write, back to the last one that a later batch knows to be
//! on disk: the last two synced ones, as one may be written while the other is on its way, and the leases beside them. A file
//! cut in an older batch, or the newest one missing, looks like one that is whole, unless tables know more, or the file `COMMITTED`.

mod files;
mod record;
mod window;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

pub(super) use files::{Files, name, newest};
use fjall::{AbstractTree, Keyspace};
use record::Batch;
use window::Window;

use super::commit::Commit;

/// Looking for whole batches behind damage reads or hashes at most this many times the file, whatever it holds.
const SEARCH_FACTOR: u64 = 64;

/// Where a journal is wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error(transparent)]
    Damaged(Damage),
    #[error("{file}: {source}")]
    Io { file: PathBuf, source: io::Error },
}

/// A place in a journal, and what is wrong with it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} is damaged at byte {offset}: {problem}", file = file.display())]
pub struct Damage {
    pub file: PathBuf,
    /// In bytes.
    pub offset: u64,
    pub problem: Problem,
}

/// What is wrong with a journal.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("its name is not that of a journal")]
    Name,
    #[error("the file before it, {0}.jnl, is missing")]
    Missing(u64),
    #[error("this batch is not whole ({0}), in a file that was complete")]
    Sealed(&'static str),
    #[error(
        "this batch is not whole ({flaw}), and a later one, at byte {later}, was written when it was on disk"
    )]
    Middle { flaw: &'static str, later: u64 },
    #[error("this batch is not whole ({0}), and what follows is too much to tell whether it is a torn write")]
    Unclear(&'static str),
    #[error("this batch has sequence number {found}, which is not above the {last} before it")]
    Order { found: u64, last: u64 },
    #[error("this batch has no commit number")]
    Unnumbered,
    #[error("this batch is commit {found}, but commit {last} comes before it")]
    Gap { found: u64, last: u64 },
    #[error("the journal ends here with commit {last}, but the store's tables hold commit {stored}")]
    Behind { last: u64, stored: u64 },
    #[error(
        "the journal begins here with commit {first}, but the store's tables hold {stored}: tables or older journals are missing"
    )]
    Ahead { first: u64, stored: u64 },
    #[error(
        "the store ends here with commit {last}, but its file COMMITTED says that {least} was on disk: journals are missing, or \
         the tables are those of an older copy"
    )]
    Fewer { last: u64, least: u64 },
    #[error("neither a journal (*.jnl) nor a table in it holds a commit")]
    Empty,
}

/// Where a whole journal ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    file: PathBuf,
    offset: u64,
    seqno: u64,
    commit: u64,
    first: First,
}

/// Where a journal begins.
#[derive(Debug, Clone, PartialEq, Eq)]
struct First {
    file: PathBuf,
    seqno: u64,
    commit: u64,
}

/// What fjall made of the journal and its tables.
pub(super) struct Stored {
    /// The last commit's number; 0 for none.
    pub(super) commit: u64,
    /// The highest sequence number in tables; 0 for none.
    seqno: u64,
    /// The last commit before the journal's first; 0 for none, and when tables hold later ones.
    before: u64,
}

impl Stored {
    /// # Errors
    /// When the storage engine cannot read it.
    pub(super) fn of(commit: u64, keyspace: &Keyspace, end: Option<&End>) -> fjall::Result<Self> {
        let before = match end {
            Some(End { first, .. }) => {
                keyspace.tree.get(Commit::KEY, first.seqno).map_err(fjall::Error::from)?
            }
            None => None,
        };
        let before = before.and_then(|bytes| Commit::decode(&bytes)).map_or(0, |commit| commit.number);
        Ok(Self { commit, seqno: keyspace.tree.get_highest_persisted_seqno().unwrap_or(0), before })
    }
}

/// Compares the journal's end with what is stored. Only a new store may hold nothing, and none less than commit `least`.
pub(super) fn compare(
    folder: &Path,
    end: Option<End>,
    stored: &Stored,
    new: bool,
    least: u64,
) -> Result<(), Damage> {
    match end {
        // fjall removes a journal when tables hold all of it.
        Some(End { first, .. }) if stored.seqno < first.seqno && stored.before + 1 != first.commit => {
            let problem = Problem::Ahead { first: first.commit, stored: stored.before };
            Err(Damage { file: first.file, offset: 0, problem })
        }
        Some(End { file, offset, commit, .. }) if commit != stored.commit => {
            Err(Damage { file, offset, problem: Problem::Behind { last: commit, stored: stored.commit } })
        }
        None if stored.commit == 0 && !new => {
            Err(Damage { file: folder.to_owned(), offset: 0, problem: Problem::Empty })
        }
        None if stored.commit < least => {
            let problem = Problem::Fewer { last: stored.commit, least };
            Err(Damage { file: folder.to_owned(), offset: 0, problem })
        }
        _ => Ok(()),
    }
}

/// Checks all journals in `folder`, and cuts off a torn end, but nothing up to commit `least`. `None` when they hold no
/// batch.
pub(super) fn check(folder: &Path, least: u64) -> Result<Option<End>, JournalError> {
    let files = journals(folder)?;
    let mut last = None;
    for (place, file) in files.iter().enumerate() {
        let newest = place + 1 == files.len();
        let failed = |source| JournalError::Io { file: file.clone(), source };
        let mut window = Window::open(file).map_err(failed)?;
        let Some((offset, flaw)) = follow(&mut window, file, &mut last)? else {
            continue;
        };
        let end = window.zeros(offset).map_err(failed)?;
        if end == offset {
            continue;
        }
        let damaged = |problem| JournalError::Damaged(Damage { file: file.clone(), offset, problem });
        if !newest {
            return Err(damaged(Problem::Sealed(flaw)));
        }
        if let Some(problem) = behind(&mut window, offset..end, last.as_ref(), flaw).map_err(failed)? {
            return Err(damaged(problem));
        }
        reaches(last.as_ref(), least)?;
        cut(folder, file, offset).map_err(failed)?;
        tracing::warn!(
            file = %file.display(), offset, bytes = end - offset, flaw,
            "the journal ended in a torn write, which was cut off; nobody was told that it was stored, unless the disk lost it later"
        );
    }
    reaches(last.as_ref(), least)?;
    Ok(last)
}

/// The last commit that can be read; 0 for none. Changes nothing, and asks nothing more of the files.
pub(super) fn last(folder: &Path) -> u64 {
    let mut last = None;
    for file in journals(folder).unwrap_or_default() {
        if let Ok(mut window) = Window::open(&file) {
            // What it stops at does not matter here.
            drop(follow(&mut window, &file, &mut last));
        }
    }
    last.map_or(0, |last| last.commit)
}

/// Of an empty journal only the tables can tell.
fn reaches(last: Option<&End>, least: u64) -> Result<(), JournalError> {
    match last {
        Some(End { file, offset, commit, .. }) if *commit < least => {
            let problem = Problem::Fewer { last: *commit, least };
            Err(JournalError::Damaged(Damage { file: file.clone(), offset: *offset, problem }))
        }
        _ => Ok(()),
    }
}

/// The journals in the order of their numbers.
fn journals(folder: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let found = Files::find(folder).map_err(|source| JournalError::Io { file: folder.to_owned(), source })?;
    let damaged = |file, problem| JournalError::Damaged(Damage { file, offset: 0, problem });
    if let Some(missing) = found.gap() {
        return Err(damaged(folder.join(name(missing + 1)), Problem::Missing(missing)));
    }
    match found.misnamed {
        Some(file) => Err(damaged(file, Problem::Name)),
        None => Ok(found.numbers.into_iter().map(|number| folder.join(name(number))).collect()),
    }
}

/// Goes from batch to batch. Answers where there is none, and why; `None` at the file's end.
fn follow(
    window: &mut Window,
    file: &Path,
    last: &mut Option<End>,
) -> Result<Option<(u64, &'static str)>, JournalError> {
    let mut offset = 0;
    while offset < window.length() {
        let read = record::read(window, offset);
        let batch = match read.map_err(|source| JournalError::Io { file: file.to_owned(), source })? {
            Ok(batch) => batch,
            Err(flaw) => return Ok(Some((offset, flaw))),
        };
        let commit = successor(&batch, last.as_ref())
            .map_err(|problem| JournalError::Damaged(Damage { file: file.to_owned(), offset, problem }))?;
        offset = batch.end;
        let begins = || First { file: file.to_owned(), seqno: batch.seqno, commit };
        let first = last.take().map_or_else(begins, |last| last.first);
        *last = Some(End { file: file.to_owned(), offset, seqno: batch.seqno, commit, first });
    }
    Ok(None)
}

/// The number of a batch that belongs behind `last`. fjall makes none of its own as long as nobody clears a keyspace.
fn successor(batch: &Batch, last: Option<&End>) -> Result<u64, Problem> {
    let commit = batch.commit.ok_or(Problem::Unnumbered)?.number;
    match last {
        Some(last) if batch.seqno <= last.seqno => {
            Err(Problem::Order { found: batch.seqno, last: last.seqno })
        }
        Some(last) if commit != last.commit + 1 => Err(Problem::Gap { found: commit, last: last.commit }),
        _ => Ok(commit),
    }
}

/// What speaks against taking the bytes in `range` for a torn write.
fn behind(
    window: &mut Window,
    range: std::ops::Range<u64>,
    last: Option<&End>,
    flaw: &'static str,
) -> io::Result<Option<Problem>> {
    let commit = last.map_or(0, |last| last.commit);
    let work_max = window.work() + SEARCH_FACTOR * window.length();
    let mut from = range.start + 1;
    while let Some(at) = window.find(record::START, from, range.end)? {
        from = at + 1;
        if let Ok(batch) = record::read(window, at)?
            // Not by its sequence number, which no checksum covers: that of the last good one may be wrong.
            && let Some(found) = batch.commit.filter(|found| found.number > commit)
        {
            if found.synced > commit {
                return Ok(Some(Problem::Middle { flaw, later: at }));
            }
            from = batch.end;
        }
        if window.work() > work_max {
            return Ok(Some(Problem::Unclear(flaw)));
        }
    }
    Ok(None)
}

/// Makes the cut durable before fjall appends to the file.
fn cut(folder: &Path, file: &Path, offset: u64) -> io::Result<()> {
    let journal = File::options().write(true).open(file)?;
    journal.set_len(offset)?;
    journal.sync_all()?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
pub(super) mod tests;
