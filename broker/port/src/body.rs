//! Reading a request's body: within its limit, within a time, and within bytes that many bodies share.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use capstan_api::ErrorCode;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Refused;

/// A body must be there within this.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes beyond the limit that are read and thrown away: a client that is cut off while it writes may never read
/// the answer that says why.
const DISCARDED_MAX: usize = 64 << 20;

/// Bytes that bodies of one kind share. Cheap to clone; clones share them too.
#[derive(Debug, Clone)]
pub struct Budget {
    bytes: Arc<Semaphore>,
    most: usize,
    patience: Duration,
}

impl Budget {
    /// Bodies of `bytes` together, each of which must be there within `patience`; [`PATIENCE`] suits most.
    #[must_use]
    pub fn new(bytes: usize, patience: Duration) -> Self {
        let most = bytes.min(Semaphore::MAX_PERMITS);
        Self { bytes: Arc::new(Semaphore::new(most)), most, patience }
    }

    /// Bytes that are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.most.saturating_sub(self.bytes.available_permits())
    }

    /// Bytes that can be held at once.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Adds `count` bytes to what is `held`; whether there were so many.
    fn take(&self, count: usize, held: &mut Option<OwnedSemaphorePermit>) -> bool {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&self.bytes).try_acquire_many_owned(count) else {
            return false;
        };
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        true
    }
}

/// Why there is no body. Nothing of it is held any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It has more bytes than are taken.
    #[error("the request body is larger than {0} bytes, as it is sent: with its JSON's escapes and spaces")]
    TooLarge(usize),
    /// Other bodies hold the bytes that this one would need.
    #[error("too many request bodies are being read; try again after Retry-After")]
    Overloaded,
    /// The client ended it before its announced length.
    #[error("the request body ended early")]
    EndedEarly,
    /// It was not there in time.
    #[error("the request body did not arrive within {} s", .0.as_secs())]
    Late(Duration),
}

impl From<BodyError> for Refused {
    fn from(error: BodyError) -> Self {
        let code = match error {
            BodyError::TooLarge(_) => ErrorCode::BatchSizeOutOfBounds,
            BodyError::Overloaded => ErrorCode::QueueOverloaded,
            BodyError::EndedEarly | BodyError::Late(_) => ErrorCode::JsonBodyMalformed,
        };
        Self::new(code, error.to_string())
    }
}

/// The parts of a body. One that came in one piece, as most do, is not copied.
#[derive(Default)]
struct Chunks {
    first: Bytes,
    joined: Vec<u8>,
    /// Bytes that are announced; room for so many is made once.
    expected: usize,
}

impl Chunks {
    fn push(&mut self, chunk: Bytes) {
        if self.first.is_empty() && self.joined.is_empty() {
            self.first = chunk;
            return;
        }
        if self.joined.is_empty() {
            self.joined.reserve_exact(self.expected.max(self.first.len() + chunk.len()));
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&chunk);
    }

    fn join(self) -> Bytes {
        if self.joined.is_empty() { self.first } else { self.joined.into() }
    }
}

/// The bytes of a body. They count in their budget until this is dropped.
#[derive(Debug)]
pub struct Held {
    bytes: Bytes,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Reads a body of at most `limit` bytes. Whatever its client writes beyond, up to 64 MiB, is read and thrown away; one
    /// that is announced as larger is refused at once, and read over meanwhile.
    ///
    /// # Errors
    /// [`BodyError`].
    pub async fn read(limit: usize, body: Body, budget: &Budget) -> Result<Self, BodyError> {
        let patience = budget.patience;
        if body.size_hint().lower() > limit as u64 {
            // One for each connection at most. Nothing is awaited from here to the answer's head: no `100 Continue` goes out.
            tokio::spawn(tokio::time::timeout(patience, discard(body)));
            return Err(BodyError::TooLarge(limit));
        }
        let read = tokio::time::timeout(patience, all(limit, body, budget)).await;
        read.unwrap_or(Err(BodyError::Late(patience)))
    }

    /// Bytes that no budget counts.
    #[must_use]
    pub fn uncounted(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), _permit: None }
    }

    /// The body itself. A clone of these outlives what the budget counts.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

async fn all(limit: usize, body: Body, budget: &Budget) -> Result<Held, BodyError> {
    let announced = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let expected = announced.unwrap_or_default().min(limit);
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut held) = (Chunks { expected, ..Chunks::default() }, None);
    let (mut size, mut overloaded) = (0_usize, false);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| BodyError::EndedEarly)?;
        size = size.saturating_add(chunk.len());
        if size > limit.saturating_add(DISCARDED_MAX) {
            break;
        }
        overloaded = overloaded || size <= limit && !budget.take(chunk.len(), &mut held);
        if overloaded || size > limit {
            (bytes, held) = (Chunks::default(), None);
        } else {
            bytes.push(chunk);
        }
    }
    match (size > limit, overloaded) {
        (true, _) => Err(BodyError::TooLarge(limit)),
        (false, true) => Err(BodyError::Overloaded),
        (false, false) => Ok(Held { bytes: bytes.join(), _permit: held }),
    }
}

/// Reads over a body, but for its end when it is very long.
async fn discard(body: Body) {
    let (mut chunks, mut size) = (body.into_data_stream(), 0);
    while size <= DISCARDED_MAX
        && let Some(Ok(chunk)) = chunks.next().await
    {
        size += chunk.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spaces(size: usize) -> Vec<u8> {
        vec![b' '; size]
    }

    /// Without a Content-Length.
    fn unannounced(size: usize) -> Body {
        Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>(spaces(size))]))
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let read = async |body: Body| {
            let budget = Budget::new(1 << 30, PATIENCE);
            Held::read(1000, body, &budget).await.map(|held| held.bytes().len())
        };
        assert_eq!(read(spaces(1000).into()).await, Ok(1000));
        assert_eq!(read(unannounced(1000)).await, Ok(1000));
        for size in [1001, 1001 + DISCARDED_MAX] {
            for body in [spaces(size).into(), unannounced(size)] {
                assert_eq!(read(body).await.unwrap_err(), BodyError::TooLarge(1000));
            }
        }
        assert_eq!(Refused::from(BodyError::TooLarge(1)).code, ErrorCode::BatchSizeOutOfBounds);
    }

    #[tokio::test]
    async fn a_body_in_parts_is_joined() {
        for parts in [vec![], vec!["abc"], vec!["a", "b"], vec!["-", "-", "b", "", "c"]] {
            let stream = futures::stream::iter(parts.clone().into_iter().map(Ok::<_, std::io::Error>));
            let held = Held::read(10, Body::from_stream(stream), &Budget::new(10, PATIENCE)).await.unwrap();
            assert_eq!(held.bytes(), parts.concat().as_bytes());
        }
    }

    #[tokio::test]
    async fn bodies_share_a_budget_until_they_are_dropped() {
        let budget = Budget::new(100, PATIENCE);
        let read = async |size: usize| Held::read(1000, unannounced(size), &budget).await;
        let first = read(60).await.unwrap();
        assert_eq!(read(41).await.unwrap_err(), BodyError::Overloaded);
        let second = read(40).await.unwrap();
        assert_eq!((read(1).await.unwrap_err(), budget.held()), (BodyError::Overloaded, 100));
        drop((first, second));
        assert!(read(100).await.is_ok());
        // What is too large is said to be so, and holds nothing.
        assert_eq!(read(1001).await.unwrap_err(), BodyError::TooLarge(1000));
        assert_eq!((budget.held(), budget.most()), (0, 100));
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let budget = Budget::new(100, Duration::from_millis(20));
        let first = futures::stream::iter([Ok::<_, std::io::Error>(" ".repeat(10))]);
        let body = Body::from_stream(first.chain(futures::stream::pending()));
        assert!(matches!(Held::read(1000, body, &budget).await.unwrap_err(), BodyError::Late(_)));
        assert_eq!(budget.held(), 0);
    }
}
