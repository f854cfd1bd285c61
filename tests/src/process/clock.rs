//! A wall clock for one process, stepped while it runs; what it measures by the monotonic clock stays true.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Where distributions keep libfaketime.
const FOLDERS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/aarch64-linux-gnu/faketime",
    "/usr/lib64/faketime",
    "/usr/lib/faketime",
];

/// A wall clock that is right until it is stepped.
pub struct Clock {
    folder: TempDir,
    library: PathBuf,
}

impl Clock {
    /// # Panics
    /// When libfaketime is not installed.
    pub fn new() -> Self {
        let library = FOLDERS.map(|folder| Path::new(folder).join("libfaketime.so.1"));
        let library = library.into_iter().find(|file| file.is_file());
        let library = library.expect("libfaketime is missing: run `cargo xtask setup`");
        let clock = Self { folder: tempfile::tempdir().unwrap(), library };
        clock.step(0);
        clock
    }

    /// From now on it is `hours` ahead of the machine's.
    pub fn step(&self, hours: i32) {
        // Renamed, because the process may read it at any moment.
        let new = self.folder.path().join("new");
        std::fs::write(&new, format!("{hours:+}h\n")).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    /// What a process is started with that is to have this clock.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, OsString); 5] {
        [
            ("LD_PRELOAD", self.library.clone().into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ]
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
