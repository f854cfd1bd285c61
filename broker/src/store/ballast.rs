//! The ballast: a file that holds space, and is removed before opening when a full volume leaves too little for that.
//!
//! Opening replays the journal and compacts. On a volume without a free byte that would fail again and again, and the
//! acks that make room would never be served.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// The ballast of a data folder.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
}

impl Ballast {
    pub(super) fn of(folder: &Path) -> Self {
        Self { path: folder.join("ballast") }
    }

    /// Bytes it holds.
    pub(super) fn held(&self) -> u64 {
        // Blocks of 512 bytes, whatever the file system's are.
        self.path.metadata().map_or(0, |found| found.blocks().saturating_mul(512).min(found.len()))
    }

    /// Makes it, of so many bytes that are really taken.
    ///
    /// # Errors
    /// When there is no room; nothing is left then.
    pub(super) fn make(&self, bytes: u64) -> io::Result<()> {
        let made = File::create(&self.path).and_then(|file| {
            fill(&file, bytes)?;
            file.sync_all()
        });
        made.inspect_err(|_| {
            let _ = self.release();
        })
    }

    /// Gives its space back.
    ///
    /// # Errors
    /// When the file is there and cannot be removed.
    pub(super) fn release(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn fill(mut file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        // A file system that cannot allocate takes zeros instead.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        done => return Ok(done?),
    }
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let step = left.min(zeros.len() as u64);
        file.write_all(zeros.get(..usize::try_from(step).unwrap_or(0)).unwrap_or_default())?;
        left -= step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_space_and_gives_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::of(folder.path());
        assert_eq!(ballast.held(), 0);
        ballast.release().unwrap();
        ballast.make(3 << 20).unwrap();
        assert_eq!(ballast.held(), 3 << 20);
        assert!(folder.path().join("ballast").metadata().unwrap().blocks() * 512 >= 3 << 20, "sparse");
        ballast.release().unwrap();
        assert_eq!(ballast.held(), 0);
    }

    #[test]
    fn without_room_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::of(folder.path());
        assert!(ballast.make(1 << 60).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
