//! Brings the journal to disk beside fjall, which would hold its writers' lock for as long as that takes.
//!
//! fjall syncs a journal, and its folder, before it writes to the next one (3.1.13, `journal/writer.rs`): what is not in the
//! newest is on disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::journal;

/// The journal that is being written.
#[derive(Debug)]
pub(super) struct Newest {
    folder: PathBuf,
    file: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    file: File,
}

/// Whether it was the same file as at the call before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    Same,
    Moved,
}

impl Newest {
    /// Finds it.
    ///
    /// # Errors
    /// When the folder cannot be read, or holds no journal.
    pub(super) fn find(folder: &Path) -> io::Result<Self> {
        Ok(Self { folder: folder.to_owned(), file: Mutex::new(Open::newest(folder)?) })
    }

    /// Syncs what was written before the call.
    ///
    /// # Errors
    /// When the system says so: what is on disk is unknown then.
    pub(super) fn sync(&self) -> io::Result<Followed> {
        let mut open = self.lock();
        let followed = open.follow(&self.folder)?;
        open.file.sync_data()?;
        Ok(followed)
    }

    /// Lets an older journal go, whose space comes back only then.
    ///
    /// # Errors
    /// When the folder or a journal cannot be read.
    pub(super) fn follow(&self) -> io::Result<()> {
        self.lock().follow(&self.folder).map(|_| ())
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn newest(folder: &Path) -> io::Result<Self> {
        let number = journal::newest(folder)?;
        Self::number(folder, number)
    }

    /// For writing, as some file systems sync nothing for who only reads.
    fn number(folder: &Path, number: u64) -> io::Result<Self> {
        let file = File::options().append(true).open(folder.join(journal::name(number)))?;
        Ok(Self { number, file })
    }

    fn follow(&mut self, folder: &Path) -> io::Result<Followed> {
        let before = self.number;
        loop {
            match Self::number(folder, self.number + 1) {
                Ok(newer) => {
                    // A failure that nobody was told of yet is told here.
                    self.file.sync_data()?;
                    *self = newer;
                }
                // Several may have come and gone since.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && self.file.metadata()?.nlink() == 0 =>
                {
                    *self = Self::newest(folder)?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        Ok(if self.number == before { Followed::Same } else { Followed::Moved })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(folder: &Path, number: u64) {
        std::fs::write(folder.join(journal::name(number)), b"x").unwrap();
    }

    fn remove(folder: &Path, number: u64) {
        std::fs::remove_file(folder.join(journal::name(number))).unwrap();
    }

    fn number(newest: &Newest) -> u64 {
        newest.lock().number
    }

    #[test]
    fn it_follows_to_the_newest_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        Newest::find(path).unwrap_err();
        make(path, 3);
        let newest = Newest::find(path).unwrap();
        assert_eq!(newest.sync().unwrap(), Followed::Same);
        make(path, 4);
        make(path, 5);
        remove(path, 3);
        assert_eq!(newest.sync().unwrap(), Followed::Moved);
        assert_eq!(number(&newest), 5);
        make(path, 6);
        newest.follow().unwrap();
        assert_eq!(number(&newest), 6);
    }

    /// Its successor may have come and gone between two calls.
    #[test]
    fn it_does_not_stay_on_a_journal_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        make(path, 3);
        let newest = Newest::find(path).unwrap();
        (4..=9).for_each(|number| make(path, number));
        (3..=8).for_each(|number| remove(path, number));
        assert_eq!(newest.sync().unwrap(), Followed::Moved);
        assert_eq!(number(&newest), 9);
        remove(path, 9);
        newest.sync().unwrap_err();
    }
}
