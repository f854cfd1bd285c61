//! One batch of fjall's journal, read without trusting a length in it.
//!
//! Little-endian; as fjall 3.1 writes it:
//!
//! | record | bytes |
//! |---|---|
//! | start | `01`, u32 records in the batch (> 0), u64 seqno |
//! | item | `02`, u8 type, u8 compression, u64 keyspace, u16 key length, u32 plain length, u32 stored length, key, value |
//! | clear | `04`, u64 keyspace |
//! | end | `03`, u64 XXH3-64 over the item and clear records as stored, `46 4A 4C 03` |

use std::io;

use xxhash_rust::xxh3::Xxh3;

use super::window::Window;
use crate::store::commit::Commit;

pub(super) const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const MAGIC: [u8; 4] = *b"FJL\x03";
/// No store comes so far. fjall itself ends the process at twice as much.
const SEQNO_MAX: u64 = 1 << 62;

/// A batch whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batch {
    /// Where the next one begins.
    pub(super) end: u64,
    pub(super) seqno: u64,
    /// `None` when it has no commit record.
    pub(super) commit: Option<Commit>,
}

/// Why there is no whole batch.
pub(super) type Flaw = &'static str;
type Parsed<T> = io::Result<Result<T, Flaw>>;

const SHORT: Flaw = "it ends early";

macro_rules! whole {
    ($parsed:expr) => {
        match $parsed {
            Ok(value) => value,
            Err(flaw) => return Ok(Err(flaw)),
        }
    };
}

/// Reads the batch that begins at `at`.
pub(super) fn read(window: &mut Window, at: u64) -> Parsed<Batch> {
    let start = whole!(fixed::<13>(window, at)?);
    let (count, seqno) = (u32_at(&start, 1), u64_at(&start, 5));
    if start[0] != START || count == 0 {
        return Ok(Err("no batch begins here"));
    }
    if seqno > SEQNO_MAX {
        return Ok(Err("its sequence number cannot be"));
    }
    let (mut hash, mut commit, mut at) = (Xxh3::new(), None, at + 13);
    for _ in 0..count {
        match whole!(fixed::<1>(window, at)?)[0] {
            ITEM => {
                let (next, found) = whole!(item(window, at, &mut hash)?);
                (at, commit) = (next, found.or(commit));
            }
            CLEAR => {
                hash.update(&whole!(fixed::<9>(window, at)?));
                at += 9;
            }
            _ => return Ok(Err("one of its records has no valid mark")),
        }
    }
    let end = whole!(fixed::<13>(window, at)?);
    if end[0] != END || end[9..] != MAGIC {
        return Ok(Err("it has no valid end"));
    }
    if u64_at(&end, 1) != hash.digest() {
        return Ok(Err("its checksum is wrong"));
    }
    Ok(Ok(Batch { end: at + 13, seqno, commit }))
}

/// Hashes the item at `at`; answers where the next record begins, and the commit that it holds, if it does.
fn item(window: &mut Window, at: u64, hash: &mut Xxh3) -> Parsed<(u64, Option<Commit>)> {
    let header = whole!(fixed::<21>(window, at)?);
    let (kind, compression) = (header[1], header[2]);
    let (key, plain, stored) = (u16_at(&header, 11), u32_at(&header, 13), u32_at(&header, 17));
    if kind > 2 || compression > 1 || (compression == 0 && plain != stored) {
        return Ok(Err("an item of it has no valid header"));
    }
    let key_at = at + 21;
    let value_at = key_at + u64::from(key);
    let end = value_at + u64::from(stored);
    if end > window.length() {
        return Ok(Err(SHORT));
    }
    let is_commit = kind == 0 && compression == 0 && usize::from(key) == Commit::KEY.len();
    let mut commit = None;
    if is_commit && stored as usize == Commit::BYTES && whole!(fixed::<1>(window, key_at)?) == Commit::KEY {
        commit = Commit::decode(&whole!(fixed::<{ Commit::BYTES }>(window, value_at)?));
    }
    let mut next = at;
    while next < end {
        let part = window.part(next, end - next)?;
        if part.is_empty() {
            return Ok(Err(SHORT));
        }
        hash.update(part);
        next += part.len() as u64;
    }
    Ok(Ok((end, commit)))
}

/// The next `N` bytes, when the file has as many.
fn fixed<const N: usize>(window: &mut Window, at: u64) -> Parsed<[u8; N]> {
    Ok(window.exact(at)?.ok_or(SHORT))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
