//! The tables of a keyspace: its list of them must be as it was written, and each that it names must be there.
//!
//! As lsm-tree 3.1 writes it, little-endian:
//!
//! | file | bytes |
//! |---|---|
//! | `current` | u64 number of the list, u128 XXH3-128 of that file, kind of the checksum |
//! | `v` and the number, its section `tables` | u8 levels; for each u8 runs; for each u32 tables; for each u64 id and 25 bytes more |

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::{PartProblem, PartsError, damaged, is_file, is_folder};

/// Behind a table's id: a checksum, its kind, and a sequence number.
const REST_BYTES: usize = 25;
/// A list is hashed in pieces of this.
const PIECE_BYTES: usize = 16 << 10;

/// Checks the list of the keyspace in `folder`, and looks for its tables. One of them at a time is held in memory.
pub(super) fn check(folder: &Path) -> Result<(), PartsError> {
    let current = folder.join("current");
    is_file(&current)?;
    let (number, checksum) = read_current(&current).map_err(|error| failed(&current, error))?;
    let list = folder.join(format!("v{number}"));
    is_file(&list)?;
    let tables = folder.join("tables");
    is_folder(&tables)?;
    // Its lengths are trusted only then.
    if hash(&list).map_err(|error| failed(&list, error))? != checksum {
        return Err(damaged(&list, PartProblem::Changed));
    }
    let mut names = Names::open(&list).map_err(|error| failed(&list, error))?;
    while let Some(id) = names.next().map_err(|error| failed(&list, error))? {
        is_file(&tables.join(id.to_string()))?;
    }
    Ok(())
}

/// The list's number and its checksum.
fn read_current(current: &Path) -> io::Result<(u64, u128)> {
    let mut file = File::open(current)?;
    Ok((u64::from_le_bytes(bytes(&mut file)?), u128::from_le_bytes(bytes(&mut file)?)))
}

fn hash(file: &Path) -> io::Result<u128> {
    let (mut file, mut hash, mut piece) = (File::open(file)?, Xxh3::new(), vec![0; PIECE_BYTES]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hash.digest128()),
            count => hash.update(&piece[..count]),
        }
    }
}

/// The ids in a list.
struct Names<R> {
    list: R,
    levels: u8,
    runs: u8,
    tables: u32,
}

impl Names<()> {
    fn open(list: &Path) -> io::Result<Names<impl Read>> {
        let archive = sfa::Reader::new(list).map_err(|error| match error {
            sfa::Error::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        })?;
        let section = archive.toc().section(b"tables");
        let section = section.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no tables"))?;
        let mut list = section.buf_reader(list)?;
        let [levels] = bytes(&mut list)?;
        Ok(Names { list, levels, runs: 0, tables: 0 })
    }
}

impl<R: Read> Names<R> {
    fn next(&mut self) -> io::Result<Option<u64>> {
        while self.tables == 0 {
            if self.runs > 0 {
                self.runs -= 1;
                self.tables = u32::from_le_bytes(bytes(&mut self.list)?);
            } else if self.levels > 0 {
                self.levels -= 1;
                [self.runs] = bytes(&mut self.list)?;
            } else {
                return Ok(None);
            }
        }
        self.tables -= 1;
        let id = u64::from_le_bytes(bytes(&mut self.list)?);
        let _rest: [u8; REST_BYTES] = bytes(&mut self.list)?;
        Ok(Some(id))
    }
}

fn bytes<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn failed(file: &Path, error: io::Error) -> PartsError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(file, PartProblem::Short),
        io::ErrorKind::InvalidData => damaged(file, PartProblem::Changed),
        _ => PartsError::Io { file: file.to_owned(), source: error },
    }
}
