//! A small file system of its own, and something else that fills it.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// An ext4 file system in a file, mounted. Unmounted when dropped.
pub(super) struct Volume {
    mount: PathBuf,
    _folder: TempDir,
}

impl Volume {
    /// One of so many MiB.
    ///
    /// # Panics
    /// Where file systems may not be mounted.
    pub(super) fn new(mebibytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (image, mount) = (folder.path().join("image"), folder.path().join("mount"));
        std::fs::create_dir(&mount).unwrap();
        File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        // Without the blocks that ext4 keeps for root: a broker has none of these.
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
        Self { mount, _folder: folder }
    }

    /// Where the broker's data goes.
    pub(super) fn data(&self) -> PathBuf {
        self.mount.join("data")
    }

    /// Takes every byte that is left.
    pub(super) fn fill(&self) {
        let mut junk = File::options().create(true).append(true).open(self.junk()).unwrap();
        let block = vec![b'j'; 1 << 20];
        let mut size = block.len();
        while size > 0 {
            match junk.write(&block[..size]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
                Err(error) => panic!("{error}"),
            }
        }
        match junk.sync_all() {
            Err(error) if error.kind() != ErrorKind::StorageFull => panic!("{error}"),
            _ => {}
        }
    }

    /// Gives back what [`Self::fill`] took.
    pub(super) fn empty(&self) {
        std::fs::remove_file(self.junk()).unwrap();
    }

    /// Bytes that are free.
    pub(super) fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.mount).unwrap();
        found.f_bavail * found.f_frsize
    }

    fn junk(&self) -> PathBuf {
        self.mount.join("junk")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // A test that failed may still have files open.
        let unmount = |lazy: &[&str], mount: &Path| {
            Command::new("umount").args(lazy).arg(mount).output().is_ok_and(|done| done.status.success())
        };
        if !unmount(&[], &self.mount) {
            unmount(&["-l"], &self.mount);
        }
    }
}

fn run(command: &mut Command) {
    const ADVICE: &str =
        "this test needs root, mkfs.ext4 and loop devices; run it where a file can be mounted";
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {ADVICE}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {said}; {ADVICE}");
}
