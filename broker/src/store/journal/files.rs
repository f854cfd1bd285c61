//! The files of fjall's journal in a folder: `N.jnl`, from 0 on and without a gap; it writes to the highest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Files {
    /// Ascending.
    pub(in crate::store) numbers: Vec<u64>,
    /// One that would be a journal, but for its name.
    pub(in crate::store) misnamed: Option<PathBuf>,
}

impl Files {
    /// Looks into `folder`. One that is missing has no files.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(in crate::store) fn find(folder: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries?,
        };
        for entry in entries {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jnl")) {
                let number =
                    file.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
                match number {
                    Some(number) if folder.join(name(number)) == file => found.numbers.push(number),
                    _ => found.misnamed = Some(file),
                }
            }
        }
        found.numbers.sort_unstable();
        Ok(found)
    }

    /// Whether there is none, of whatever name.
    pub(in crate::store) const fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.misnamed.is_none()
    }

    /// The first number that is missing between others.
    pub(super) fn gap(&self) -> Option<u64> {
        let pair = self.numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]);
        pair.map(|pair| pair[1] - 1)
    }
}

/// The number of the journal that is being written.
///
/// # Errors
/// When the folder cannot be read, or has none.
pub(in crate::store) fn newest(folder: &Path) -> io::Result<u64> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "no journal (*.jnl)");
    Files::find(folder)?.numbers.last().copied().ok_or_else(none)
}

/// A journal's file name.
pub(in crate::store) fn name(number: u64) -> String {
    format!("{number}.jnl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_are_found_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let find = || Files::find(path).unwrap();
        assert!(Files::find(&path.join("none")).unwrap().is_empty() && find().is_empty());
        assert_eq!(newest(path).unwrap_err().kind(), io::ErrorKind::NotFound);
        for file in ["10.jnl", "9.jnl", "lock", "11.jnl.tmp"] {
            fs::write(path.join(file), "").unwrap();
        }
        assert_eq!(find(), Files { numbers: vec![9, 10], misnamed: None });
        assert_eq!((find().gap(), newest(path).unwrap()), (None, 10));
        fs::write(path.join("13.jnl"), "").unwrap();
        assert_eq!(find().gap(), Some(12));
        for file in ["12.JNL", "012.jnl", "+12.jnl", "x.jnl"] {
            fs::write(path.join(file), "").unwrap();
            assert_eq!(find(), Files { numbers: vec![9, 10, 13], misnamed: Some(path.join(file)) });
            fs::remove_file(path.join(file)).unwrap();
        }
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Files::find(&file).is_err() && newest(&file).is_err());
    }
}
