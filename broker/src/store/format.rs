//! The version of a store's format: in the file `FORMAT`, to be known before anything is changed, and at the key `00`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use fjall::Keyspace;

use super::{Commit, Durability, FjallStore, StoreError, key};

/// Another version is refused. 1 had no commit numbers and no file `FORMAT`.
pub(super) const VERSION: u32 = 2;
const FILE: &str = "FORMAT";
const KEY: [u8; 1] = [key::FORMAT];
/// A longer file is none of ours.
const FILE_BYTES_MAX: u64 = 32;

/// Reads the file `FORMAT` in `path`, or makes it in a folder without a store.
pub(super) fn check(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Folder { path: path.join(FILE), source };
    let found = match File::open(path.join(FILE)) {
        Ok(file) => {
            let mut text = Vec::new();
            file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
            String::from_utf8_lossy(&text).trim().to_owned()
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Err(_) if is_empty(&path.join("store")).map_err(failed)? => return make(path).map_err(failed),
        Err(_) => "1 (it has no file FORMAT)".to_owned(),
    };
    if found == VERSION.to_string() {
        return Ok(());
    }
    Err(StoreError::Format { path: path.to_owned(), found })
}

fn is_empty(folder: &Path) -> io::Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whole or not at all, and on disk before the store is made.
fn make(path: &Path) -> io::Result<()> {
    let new = path.join("FORMAT.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{VERSION}")?;
    file.sync_all()?;
    fs::rename(new, path.join(FILE))?;
    File::open(path)?.sync_all()
}

/// The number of the last commit; 0 in a new store. The key must agree with the file.
pub(super) fn commit(keyspace: &Keyspace, path: &Path) -> Result<u64, StoreError> {
    let Some(found) = keyspace.get(KEY)? else {
        // Only a new store has none. A range, as `is_empty` would be one too.
        return match keyspace.iter().next() {
            Some(_) => Err(StoreError::NoFormat { path: path.to_owned() }),
            None => Ok(0),
        };
    };
    if *found != VERSION.to_be_bytes() {
        let number = found.as_ref().try_into().map(u32::from_be_bytes);
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

/// The first commit of a new store.
pub(super) fn write(store: &FjallStore) -> Result<(), StoreError> {
    let mut batch = store.batch(Durability::Synced, 1);
    batch.insert(&store.keyspace, KEY, VERSION.to_be_bytes());
    Ok(batch.commit()?)
}

#[cfg(test)]
mod tests;
