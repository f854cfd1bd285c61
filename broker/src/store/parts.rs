//! The parts of a store, looked for before fjall opens it.
//!
//! fjall takes a folder without `version` for a new database, and removes a keyspace that has no `current` or that it
//! does not know: a store that lost one small file would lose everything else too. So what must be there is there, or
//! the store is not opened, and nothing in it is changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::journal::Files;

mod tables;

/// The keyspace of fjall's own records, and ours.
const KEYSPACES: [&str; 2] = ["0", "1"];

/// A store whose parts are not what they were.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartsError {
    #[error(transparent)]
    Damaged(Part),
    #[error("{file}: {source}")]
    Io { file: PathBuf, source: io::Error },
}

/// A file or folder, and what is wrong with it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} {problem}", file = file.display())]
pub struct Part {
    pub file: PathBuf,
    pub problem: PartProblem,
}

/// What is wrong with a part of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PartProblem {
    #[error("is missing")]
    Missing,
    #[error("is no file")]
    NoFile,
    #[error("is no folder")]
    NoFolder,
    #[error("is shorter than it was written")]
    Short,
    #[error("is not as it was written")]
    Changed,
    #[error("is none of the store's, which would remove it")]
    Foreign,
}

/// Checks a store that was complete once; `folder` is fjall's.
pub(super) fn check(folder: &Path) -> Result<(), PartsError> {
    is_folder(folder)?;
    is_file(&folder.join("version"))?;
    is_file(&folder.join("lock"))?;
    has_journal(folder)?;
    let keyspaces = folder.join("keyspaces");
    is_folder(&keyspaces)?;
    for keyspace in KEYSPACES.map(|name| keyspaces.join(name)) {
        is_folder(&keyspace)?;
        tables::check(&keyspace)?;
    }
    has_no_other(&keyspaces)
}

/// fjall always has one that it writes to. Whether those that are there are right, the journal's own check says.
fn has_journal(folder: &Path) -> Result<(), PartsError> {
    let found = Files::find(folder).map_err(|source| PartsError::Io { file: folder.to_owned(), source })?;
    if found.is_empty() { Err(damaged(&folder.join("*.jnl"), PartProblem::Missing)) } else { Ok(()) }
}

/// fjall removes a folder that is no keyspace, or ends the process over its name.
fn has_no_other(keyspaces: &Path) -> Result<(), PartsError> {
    for entry in entries(keyspaces)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && !KEYSPACES.iter().any(|keyspace| name == *keyspace) {
            return Err(damaged(&path, PartProblem::Foreign));
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<impl Iterator<Item = Result<fs::DirEntry, PartsError>>, PartsError> {
    let file = folder.to_owned();
    let failed = move |source| PartsError::Io { file: file.clone(), source };
    Ok(fs::read_dir(folder).map_err(&failed)?.map(move |entry| entry.map_err(&failed)))
}

fn is_file(path: &Path) -> Result<(), PartsError> {
    if metadata(path)?.is_file() { Ok(()) } else { Err(damaged(path, PartProblem::NoFile)) }
}

fn is_folder(path: &Path) -> Result<(), PartsError> {
    if metadata(path)?.is_dir() { Ok(()) } else { Err(damaged(path, PartProblem::NoFolder)) }
}

fn metadata(path: &Path) -> Result<fs::Metadata, PartsError> {
    path.metadata().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => damaged(path, PartProblem::Missing),
        _ => PartsError::Io { file: path.to_owned(), source },
    })
}

fn damaged(file: &Path, problem: PartProblem) -> PartsError {
    PartsError::Damaged(Part { file: file.to_owned(), problem })
}

#[cfg(test)]
mod tests;
