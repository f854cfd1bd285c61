//! A place in a send's body: written only when something is wrong there.

use std::fmt;

/// The body itself, or one message of a batch. Written as the beginning of a JSON pointer.
#[derive(Debug, Clone, Copy)]
pub(super) struct At(Option<usize>);

impl At {
    pub(super) const BODY: Self = Self(None);

    /// The message of that index.
    pub(super) const fn message(index: usize) -> Self {
        Self(Some(index))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |index| write!(f, "/messages/{index}"))
    }
}
