//! Brings the journal to disk beside fjall, which would hold its writers' lock for as long as that takes.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::journal;

/// The journal that is being written.
#[derive(Debug)]
pub(super) struct Newest {
    folder: PathBuf,
    file: Mutex<(u64, File)>,
}

impl Newest {
    /// Finds it.
    ///
    /// # Errors
    /// When the folder cannot be read, or holds no journal.
    pub(super) fn find(folder: &Path) -> io::Result<Self> {
        let number = journal::newest(folder)?;
        let file = File::open(folder.join(journal::name(number)))?;
        Ok(Self { folder: folder.to_owned(), file: Mutex::new((number, file)) })
    }

    /// Syncs what was written before the call. fjall syncs a journal before it makes the next one (3.1.13,
    /// `journal/writer.rs`), so that what is not in the newest is on disk.
    ///
    /// # Errors
    /// When the system says so: what is on disk is unknown then.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let next = file.0 + 1;
            match File::open(self.folder.join(journal::name(next))) {
                Ok(newer) => *file = (next, newer),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        file.1.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_to_the_newest_journal() {
        let folder = tempfile::tempdir().unwrap();
        Newest::find(folder.path()).unwrap_err();
        std::fs::write(folder.path().join("3.jnl"), b"x").unwrap();
        let newest = Newest::find(folder.path()).unwrap();
        newest.sync().unwrap();
        for number in [4, 5] {
            std::fs::write(folder.path().join(format!("{number}.jnl")), b"x").unwrap();
        }
        // The older ones may be gone.
        std::fs::remove_file(folder.path().join("3.jnl")).unwrap();
        newest.sync().unwrap();
        assert_eq!(newest.file.lock().unwrap().0, 5);
    }
}
