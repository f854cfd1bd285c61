//! Large answers: their bytes count as held until the connection has taken them all.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use capstan_port::connections::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refused::Refused;
use crate::engine::{Answers, Held, PATIENCE, Unavailable};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The bytes of an answer, and what they count for.
struct Counted {
    bytes: Vec<u8>,
    _held: Option<Held>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The answer of these bytes, which are JSON; `connection` takes it.
pub(super) fn counted(bytes: Vec<u8>, held: Option<Held>, connection: &Connection) -> Response {
    answer(JSON, bytes, held, connection)
}

fn answer(
    content_type: HeaderValue,
    bytes: Vec<u8>,
    mut held: Option<Held>,
    connection: &Connection,
) -> Response {
    if let Some(held) = &mut held {
        held.sent(connection.0.clone());
    }
    // The connection keeps these bytes, not a copy: what they count for goes with the last of them.
    let body = Body::from(Bytes::from_owner(Counted { bytes, _held: held }));
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// Most bytes of lists, states or metrics that are on their way. One answer of each turn may go beyond it.
const LISTED_MAX: u64 = 64 << 20;
/// So many of them are written at the same time.
const TURNS: usize = 2;

/// Answers of one port that are long and take long to write: lists, states, metrics.
#[derive(Debug)]
pub(super) struct Lists {
    unread: Answers,
    turns: Arc<Semaphore>,
}

/// The right to write one of them.
pub(super) struct Turn {
    unread: Answers,
    turn: OwnedSemaphorePermit,
}

impl Default for Lists {
    fn default() -> Self {
        Self::new(Answers::new(LISTED_MAX, PATIENCE))
    }
}

impl Lists {
    fn new(unread: Answers) -> Self {
        Self { unread, turns: Arc::new(Semaphore::new(TURNS)) }
    }

    /// Bytes that clients have not taken yet.
    pub(super) fn unread(&self) -> u64 {
        self.unread.bytes()
    }

    /// Waits for a turn. To be had before anything is gathered for the answer.
    ///
    /// # Errors
    /// When too much is on its way; clients that do not read are cut then.
    pub(super) async fn turn(&self) -> Result<Turn, Refused> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| super::unexpected())?;
        if self.unread.is_full() {
            // Nothing is leased for a list.
            let _ = self.unread.cut_stalled();
            return Err(Unavailable::Overloaded.into());
        }
        Ok(Turn { unread: self.unread.clone(), turn })
    }
}

impl Turn {
    /// Writes JSON on a thread of its own: other requests must be served meanwhile.
    pub(super) async fn write_json(
        self,
        connection: &Connection,
        write: impl FnOnce() -> serde_json::Result<Vec<u8>> + Send + 'static,
    ) -> Result<Response, Refused> {
        self.write(JSON, connection, || write().map_err(|error| unwritten(&error))).await
    }

    /// The same for another content type.
    pub(super) async fn write(
        self,
        content_type: HeaderValue,
        connection: &Connection,
        write: impl FnOnce() -> Result<Vec<u8>, Refused> + Send + 'static,
    ) -> Result<Response, Refused> {
        let Self { unread, turn } = self;
        let written = tokio::task::spawn_blocking(move || {
            // It goes on without its client, so the turn is over when it is done.
            let _turn = turn;
            let bytes = write()?;
            let held = unread.hold(bytes.capacity() as u64, Vec::new());
            Ok::<_, Refused>((bytes, held))
        });
        let (bytes, held) = written.await.map_err(|_| super::unexpected())??;
        Ok(answer(content_type, bytes, Some(held), connection))
    }
}

/// An answer that could not be written.
pub(super) fn unwritten(error: &serde_json::Error) -> Refused {
    tracing::error!(%error, "an answer cannot be written");
    super::unexpected()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};
    use std::time::{Duration, Instant};

    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn bytes_count_until_the_last_of_them_is_taken() {
        let answers = Answers::new(100, PATIENCE);
        let connection = Connection::default();
        let response = counted(b"text".to_vec(), Some(answers.hold(7, Vec::new())), &connection);
        assert_eq!(answers.bytes(), 7);
        let taken = to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(answers.bytes(), 7, "they are in a buffer still");
        assert_eq!(taken, "text");
        drop(taken);
        assert_eq!(answers.bytes(), 0);
    }

    async fn list(lists: &Lists, connection: &Connection) -> Result<Response, Refused> {
        lists.turn().await?.write_json(connection, || Ok(vec![b' '; 60])).await
    }

    #[tokio::test]
    async fn lists_are_refused_while_too_much_is_unread_and_who_does_not_read_is_cut() {
        let lists = Lists::new(Answers::new(100, Duration::ZERO));
        let [first, second, third] = [(); 3].map(|()| Connection::default());
        let unread = (list(&lists, &first).await.unwrap(), list(&lists, &second).await.unwrap());
        assert!(lists.unread() >= 120 && !first.0.is_cancelled());
        let refused = list(&lists, &third).await.unwrap_err();
        assert_eq!(refused, Unavailable::Overloaded.into());
        assert!(first.0.is_cancelled() && second.0.is_cancelled(), "they had their time");
        // Their connections end, and what they have not read goes with them.
        drop(unread);
        assert_eq!(lists.unread(), 0);
        let read = to_bytes(list(&lists, &third).await.unwrap().into_body(), 1000).await.unwrap();
        assert_eq!(read.len(), 60);
    }

    /// Holds those that write, and counts them.
    #[derive(Default)]
    struct Gate {
        open: Mutex<bool>,
        opened: Condvar,
        inside: AtomicUsize,
        most: AtomicUsize,
    }

    impl Gate {
        fn pass(&self) {
            let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(inside, Ordering::SeqCst);
            drop(self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
            self.inside.fetch_sub(1, Ordering::SeqCst);
        }

        fn open(&self) {
            *self.open.lock().unwrap() = true;
            self.opened.notify_all();
        }
    }

    #[tokio::test]
    async fn few_lists_are_written_at_the_same_time_also_when_their_clients_went_away() {
        let (lists, gate) = (Arc::new(Lists::default()), Arc::new(Gate::default()));
        let ask = || {
            let (lists, gate) = (Arc::clone(&lists), Arc::clone(&gate));
            let write = move || {
                gate.pass();
                Ok(Vec::new())
            };
            tokio::spawn(async move { lists.turn().await?.write_json(&Connection::default(), write).await })
        };
        let first: Vec<_> = (0..TURNS).map(|_| ask()).collect();
        let began = Instant::now();
        while gate.inside.load(Ordering::SeqCst) < TURNS {
            assert!(began.elapsed() < Duration::from_secs(30), "they do not begin");
            tokio::task::yield_now().await;
        }
        for one in first {
            one.abort();
            assert!(one.await.unwrap_err().is_cancelled());
        }
        let later: Vec<_> = (0..20).map(|_| ask()).collect();
        // Time to do wrong.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        gate.open();
        for one in later {
            assert!(one.await.unwrap().is_ok());
        }
        assert_eq!(gate.most.load(Ordering::SeqCst), TURNS);
    }
}
