//! What ends the core: a store that cannot be read, or that holds what cannot be.

use crate::key::Key;

/// After a fault nothing more may be applied: memory may be ahead of the records. The process ends and opens again.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault<E> {
    /// The store could not be read.
    Store(E),
    /// The record is missing or is of another type than its key says.
    Corrupt(Key),
}

impl<E: std::fmt::Display> std::fmt::Display for Fault<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => write!(f, "the store cannot be read: {error}"),
            Self::Corrupt(key) => {
                write!(f, "the store is damaged: the record of {key:?} is missing or of another type")
            }
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for Fault<E> {}

impl<E> From<E> for Fault<E> {
    fn from(error: E) -> Self {
        Self::Store(error)
    }
}
