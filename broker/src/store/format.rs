//! The version of a store's format: in the file `FORMAT`, to be known before anything is changed, and at the key `00`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use fjall::Keyspace;

use super::{Commit, Durability, FjallStore, StoreError, key};

/// 1 had no commit numbers and no file `FORMAT`; 2 had no record of gaps; 3 none of remembered sends.
pub(super) const VERSION: u32 = 4;
/// The oldest that is read: it becomes the current one when it is opened. Earlier and later ones are refused.
pub(super) const OLDEST: u32 = 3;
const FILE: &str = "FORMAT";
/// The same while the store is being made: its name changes when the first commit is on disk.
const NEW: &str = "FORMAT.new";
const KEY: [u8; 1] = [key::FORMAT];
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
            return Ok(Found::Store);
        }
        Some(found) => return Err(of_format(found)),
        None => {}
    }
    let (begun, store) = (path.join(NEW).try_exists().map_err(failed)?, path.join("store"));
    if !is_empty(&store).map_err(failed)? {
        if !begun {
            return Err(StoreError::NoFormatFile { path: path.to_owned() });
        }
        // Nobody was served from it, and fjall opens none that it has made only half of.
        fs::remove_dir_all(store).map_err(failed)?;
    }
    begin(path).map_err(failed)?;
    Ok(Found::New)
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
fn begin(path: &Path) -> io::Result<()> {
    let mut file = File::create(path.join(NEW))?;
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
    name(path)
}

/// Makes a store of an earlier version one of this. The file first: it is what an earlier program looks at before it
/// changes anything; when the key is then behind, this is called again.
pub(super) fn upgrade(store: &FjallStore, path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Folder { path: path.join(FILE), source };
    let current = VERSION.to_string();
    if read(&path.join(FILE)).map_err(failed)?.is_none_or(|found| found != current) {
        begin(path).map_err(failed)?;
        name(path)?;
    }
    if store.queues.keyspace.get(KEY)?.is_none_or(|found| *found != VERSION.to_be_bytes()) {
        put_key(store)?;
    }
    Ok(())
}

fn put_key(store: &FjallStore) -> Result<(), StoreError> {
    let mut batch = store.batch(Durability::Synced, 1);
    batch.insert(&store.queues.keyspace, KEY, VERSION.to_be_bytes());
    batch.commit()?;
    Ok(())
}

/// Gives the file that was begun its name.
fn name(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Folder { path: path.join(FILE), source };
    fs::rename(path.join(NEW), path.join(FILE)).map_err(failed)?;
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests;
