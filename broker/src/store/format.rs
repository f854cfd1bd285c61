//! The version of a store's format: in the file `FORMAT`, to be known before anything is changed, and at the key `00`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use fjall::Keyspace;

use super::{Commit, Durability, FjallStore, StoreError, journal, key};

/// 1 had no commit numbers and no file `FORMAT`; 2 had no record of gaps; 3 none of remembered sends.
pub(super) const VERSION: u32 = 4;
/// The oldest that is read: it becomes the current one with the first record that it does not know. Earlier and later ones are refused.
pub(super) const OLDEST: u32 = 3;
const FILE: &str = "FORMAT";
/// The same while the store is being made: its name changes when the first commit is on disk.
const NEW: &str = "FORMAT.new";
/// The same while a store of an earlier version becomes one of this. Beside [`NEW`] a store may be removed; never beside this.
const NEXT: &str = "FORMAT.next";
const KEY: [u8; 1] = [key::FORMAT];
/// The commit that makes a store complete; one with a later one was served from.
const FIRST: u64 = 1;
/// A longer file is none of ours.
const FILE_BYTES_MAX: u64 = 32;

/// What the folder of a store of this version holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing yet.
    New,
    /// At least the first commit.
    Store,
}

/// Reads the file `FORMAT` in `path`, or begins a new store.
pub(super) fn check(path: &Path) -> Result<Found, StoreError> {
    let failed = |source| StoreError::Folder { path: path.join(FILE), source };
    let of_format = |found| StoreError::Format { path: path.to_owned(), found };
    match read(&path.join(FILE)).map_err(failed)? {
        Some(found) if (OLDEST..=VERSION).any(|version| found == version.to_string()) => {
            forget(path).map_err(failed)?;
            return Ok(Found::Store);
        }
        Some(found) => return Err(of_format(found)),
        None => {}
    }
    let (begun, store) = (path.join(NEW).try_exists().map_err(failed)?, path.join("store"));
    if !is_empty(&store).map_err(failed)? {
        if !begun || journal::last(&store) > FIRST || has_tables(&store) {
            return Err(StoreError::NoFormatFile { path: path.to_owned() });
        }
        // Nobody was served from it, and fjall opens none that it has made only half of.
        fs::remove_dir_all(store).map_err(failed)?;
    }
    begin(path, NEW).map_err(failed)?;
    Ok(Found::New)
}

/// Takes away what a program that ended left: it would say that the store was only begun.
fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path.join(NEW)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| File::open(path)?.sync_all()),
    }
}

/// Whether more than a journal was written. What cannot be read is none: so is a store that was only begun.
fn has_tables(store: &Path) -> bool {
    !is_empty(&store.join("keyspaces/1/tables")).unwrap_or(true)
}

fn read(file: &Path) -> io::Result<Option<String>> {
    let file = match File::open(file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(Some(String::from_utf8_lossy(&text).trim().to_owned()))
}

fn is_empty(folder: &Path) -> io::Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// On disk before the store is.
fn begin(path: &Path, file: &str) -> io::Result<()> {
    let mut file = File::create(path.join(file))?;
    writeln!(file, "{VERSION}")?;
    file.sync_all()?;
    File::open(path)?.sync_all()
}

/// The number of the last commit; 0 in a new store. The key must be of a version that is read, as the file must.
pub(super) fn commit(keyspace: &Keyspace, path: &Path) -> Result<u64, StoreError> {
    let Some(found) = keyspace.get(KEY)? else {
        // Only a new store has none. A range, as `is_empty` would be one too.
        return if keyspace.iter().next().is_some() {
            Err(StoreError::NoFormat { path: path.to_owned() })
        } else {
            Ok(0)
        };
    };
    let number = found.as_ref().try_into().map(u32::from_be_bytes);
    if !number.as_ref().is_ok_and(|number| (OLDEST..=VERSION).contains(number)) {
        let found = number.map_or_else(|_| "unknown".to_owned(), |n| n.to_string());
        return Err(StoreError::Format { path: path.to_owned(), found });
    }
    let commit = keyspace.get(Commit::KEY)?.and_then(|bytes| Commit::decode(&bytes));
    let missing = StoreError::Record {
        key: "the last commit".to_owned(),
        reason: "it is missing or of a wrong length",
    };
    Ok(commit.ok_or(missing)?.number)
}

/// Makes the first commit of a new store in `path`; from then on it is a mistake when there is none.
pub(super) fn write(store: &FjallStore, path: &Path) -> Result<(), StoreError> {
    put_key(store)?;
    name(path, NEW)
}

/// Whether a store in `path` is of an earlier version, as its file and its key say. It stays one until [`upgrade`], so that
/// the version that made it can still read it.
pub(super) fn is_earlier(store: &FjallStore, path: &Path) -> Result<bool, StoreError> {
    Ok(!is_named(path)? && !has_key(store)?)
}

/// Makes a store of an earlier version one of this. The file first: it is what an earlier program looks at before it
/// changes anything; when the key is then behind, this is called again.
pub(super) fn upgrade(store: &FjallStore, path: &Path) -> Result<(), StoreError> {
    if !is_named(path)? {
        begin(path, NEXT).map_err(|source| StoreError::Folder { path: path.join(FILE), source })?;
        name(path, NEXT)?;
    }
    if has_key(store)? { Ok(()) } else { put_key(store) }
}

/// Whether the file is of this version.
fn is_named(path: &Path) -> Result<bool, StoreError> {
    let file = path.join(FILE);
    let found = read(&file).map_err(|source| StoreError::Folder { path: file, source })?;
    Ok(found.is_some_and(|found| found == VERSION.to_string()))
}

/// Whether the key is of this version.
fn has_key(store: &FjallStore) -> Result<bool, StoreError> {
    Ok(store.queues.keyspace.get(KEY)?.is_some_and(|found| *found == VERSION.to_be_bytes()))
}

fn put_key(store: &FjallStore) -> Result<(), StoreError> {
    let mut batch = store.batch(Durability::Synced, 1);
    batch.insert(&store.queues.keyspace, KEY, VERSION.to_be_bytes());
    batch.commit()?;
    Ok(())
}

/// Gives the file that was begun its name.
fn name(path: &Path, begun: &str) -> Result<(), StoreError> {
    let failed = |source| StoreError::Folder { path: path.join(FILE), source };
    fs::rename(path.join(begun), path.join(FILE)).map_err(failed)?;
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests;
