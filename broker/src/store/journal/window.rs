//! A file read through a window of fixed size, at any place.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const BYTES: usize = 256 << 10;
static ZEROS: [u8; BYTES] = [0; BYTES];

/// At most [`BYTES`] of a file in memory.
pub(super) struct Window {
    file: File,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
    work: u64,
}

impl Window {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length, start: 0, bytes: Vec::new(), work: 0 })
    }

    /// Of the file, in bytes.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Bytes read and handed out so far.
    pub(super) const fn work(&self) -> u64 {
        self.work
    }

    /// Bytes at `at`: at least one and at most `count` of them; none only behind the file's end.
    pub(super) fn part(&mut self, at: u64, count: u64) -> io::Result<&[u8]> {
        let part = self.look(at, count)?.len();
        self.work += part as u64;
        self.look(at, part as u64)
    }

    fn look(&mut self, at: u64, count: u64) -> io::Result<&[u8]> {
        if self.held(at) == 0 {
            self.fill(at)?;
        }
        let held = self.held(at).min(usize::try_from(count).unwrap_or(BYTES));
        let from = if held == 0 { 0 } else { (at - self.start) as usize };
        Ok(&self.bytes[from..from + held])
    }

    /// `N` bytes at `at`, at most the window's size; `None` when the file has not as many.
    pub(super) fn exact<const N: usize>(&mut self, at: u64) -> io::Result<Option<[u8; N]>> {
        if self.held(at) < N {
            self.fill(at)?;
        }
        Ok(self.part(at, N as u64)?.first_chunk().copied())
    }

    /// Where the first `byte` at or behind `from`, and before `to`, is.
    pub(super) fn find(&mut self, byte: u8, from: u64, to: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        while at < to {
            let part = self.look(at, to - at)?;
            if part.is_empty() {
                return Ok(None);
            }
            // Comparing is much quicker than looking, and most of a journal's file can be zeros.
            if !is_zero(part)
                && let Some(place) = part.iter().position(|found| *found == byte)
            {
                return Ok(Some(at + place as u64));
            }
            at += part.len() as u64;
        }
        Ok(None)
    }

    /// Where the zeros begin that the file ends with; not before `from`.
    pub(super) fn zeros(&mut self, from: u64) -> io::Result<u64> {
        let mut to = self.length;
        while to > from {
            let at = to.saturating_sub(BYTES as u64).max(from);
            if (self.held(at) as u64) < to - at {
                self.fill(at)?;
            }
            let part = self.look(at, to - at)?;
            if !is_zero(part) {
                let last = part.iter().rposition(|byte| *byte != 0).map_or(0, |place| place + 1);
                return Ok(at + last as u64);
            }
            to = at;
        }
        Ok(from)
    }

    /// How many bytes from `at` on are in memory.
    fn held(&self, at: u64) -> usize {
        let end = self.start + self.bytes.len() as u64;
        if at < self.start { 0 } else { usize::try_from(end.saturating_sub(at)).unwrap_or(0) }
    }

    fn fill(&mut self, at: u64) -> io::Result<()> {
        let count = self.length.saturating_sub(at).min(BYTES as u64);
        self.bytes.resize(usize::try_from(count).unwrap_or(BYTES), 0);
        self.start = at;
        self.work += count;
        self.file.read_exact_at(&mut self.bytes, at)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    ZEROS.get(..bytes.len()) == Some(bytes)
}
