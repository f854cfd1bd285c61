//! The file `COMMITTED`: the number of a commit that was on disk when a memtable was last sealed. A store that opens with
//! less is not whole.
//!
//! A flush can leave an empty journal, and then nothing but the tables knows what was committed: beside an older copy of
//! them the store would look whole. The number is one that was synced before it is written here, so that a power cut at any
//! moment leaves a store that holds at least as much.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::StoreError;
use super::format::Found;
use super::parts::{Part, PartProblem};

pub(super) const FILE: &str = "COMMITTED";
/// Written first, then renamed: the file is whole at any moment.
const NEXT: &str = "COMMITTED.new";
/// A longer file is none of ours.
const FILE_BYTES_MAX: u64 = 32;

/// The file of an open store.
#[derive(Debug)]
pub(super) struct Committed {
    folder: PathBuf,
    number: AtomicU64,
}

impl Committed {
    /// Reads the file in `path`. A store that is new has none, nor has one whose memtable was never sealed.
    ///
    /// # Errors
    /// When it cannot be read, or holds no number.
    pub(super) fn open(path: &Path, found: Found) -> Result<Self, StoreError> {
        let file = path.join(FILE);
        let failed = |source| StoreError::Folder { path: file.clone(), source };
        if found == Found::New {
            // One that was left over would speak of another store.
            forget(path).map_err(failed)?;
        }
        let Some(text) = read(&file).map_err(failed)? else {
            return Ok(Self { folder: path.to_owned(), number: AtomicU64::new(0) });
        };
        let number = text.trim_ascii().parse().map_err(|_| StoreError::Part {
            path: path.to_owned(),
            part: Part { file: file.clone(), problem: PartProblem::Changed },
        })?;
        Ok(Self { folder: path.to_owned(), number: AtomicU64::new(number) })
    }

    /// The commit that the store must hold, and all before it; 0 for none.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Writes down that commit `number` is on disk. One thread at a time may call it.
    ///
    /// # Errors
    /// When it cannot be written: the number before it stays.
    pub(super) fn note(&self, number: u64) -> io::Result<()> {
        if number <= self.number() {
            return Ok(());
        }
        let next = self.folder.join(NEXT);
        let mut file = File::create(&next)?;
        writeln!(file, "{number}")?;
        file.sync_all()?;
        fs::rename(next, self.folder.join(FILE))?;
        File::open(&self.folder)?.sync_all()?;
        self.number.store(number, Ordering::Relaxed);
        Ok(())
    }
}

fn read(file: &Path) -> io::Result<Option<String>> {
    let file = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Gone for good, also when the power goes.
fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| File::open(path)?.sync_all()),
    }
}

#[cfg(test)]
mod tests;
