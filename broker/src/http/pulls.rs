//! Pulls that can be called off, by their queue and the token that came with them.
//!
//! A client that closes its connection instead can lose what was leased for it in that moment: the answer is on its way,
//! and nobody reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;
use capstan_api::ErrorCode;
use capstan_api::message::PULL_HEADER;
use capstan_core::QueueId;
use tokio_util::sync::CancellationToken;

use super::refused::Refused;

/// Longest token.
const TOKEN_LENGTH_MAX: usize = 64;

/// The pulls that are open and have a token. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Pulls(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// Tells pulls of one token apart: a client that lost its connection may try again before the broker notices.
    next: u64,
    open: BTreeMap<Key, CancellationToken>,
}

type Key = (QueueId, String, u64);

/// An open pull; forgotten when this is dropped.
pub(super) struct Open {
    pulls: Pulls,
    key: Option<Key>,
    called_off: CancellationToken,
}

impl Pulls {
    /// Remembers a pull by the token in its headers, if there is one.
    ///
    /// # Errors
    /// When the header is no token: the client could not call the pull off.
    pub(super) fn open(&self, queue: QueueId, headers: &HeaderMap) -> Result<Open, Refused> {
        let called_off = CancellationToken::new();
        let key = token(headers)?.map(|token| {
            self.change(|known| {
                let key = (queue, token, known.next);
                known.next += 1;
                known.open.insert(key.clone(), called_off.clone());
                key
            })
        });
        Ok(Open { pulls: self.clone(), key, called_off })
    }

    /// Calls off each pull of the queue that has the token in these headers; whether there is one.
    ///
    /// # Errors
    /// When there is no token.
    pub(super) fn call_off(&self, queue: QueueId, headers: &HeaderMap) -> Result<bool, Refused> {
        let token = token(headers)?.ok_or_else(|| {
            Refused::in_header(
                ErrorCode::JsonBodyInvalid,
                PULL_HEADER,
                format!("header {PULL_HEADER}: is missing; it has the token of the pull to be cancelled"),
            )
        })?;
        let range = (queue, token.clone(), 0)..=(queue, token, u64::MAX);
        Ok(self.change(|known| {
            let mut found = false;
            for (_, pull) in known.open.range(range) {
                pull.cancel();
                found = true;
            }
            found
        }))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Open {
    /// Resolves when the pull is called off.
    pub(super) async fn called_off(&self) {
        self.called_off.cancelled().await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.pulls.change(|known| known.open.remove(key));
        }
    }
}

fn token(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let Some(value) = headers.get(PULL_HEADER) else {
        return Ok(None);
    };
    let token = value.to_str().ok().filter(|token| (1..=TOKEN_LENGTH_MAX).contains(&token.len()));
    token.map(|token| Some(token.to_owned())).ok_or_else(|| {
        let message = format!("header {PULL_HEADER}: a token is 1 to {TOKEN_LENGTH_MAX} characters of ASCII");
        Refused::in_header(ErrorCode::JsonBodyInvalid, PULL_HEADER, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: QueueId = QueueId(1);

    fn headers(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(PULL_HEADER, token.parse().unwrap());
        headers
    }

    fn open(pulls: &Pulls, queue: QueueId, token: &str) -> Open {
        pulls.open(queue, &headers(token)).ok().unwrap()
    }

    #[tokio::test]
    async fn the_pulls_with_the_queue_and_the_token_are_called_off_and_no_others() {
        let pulls = Pulls::default();
        let (one, again) = (open(&pulls, QUEUE, "one"), open(&pulls, QUEUE, "one"));
        let others = [open(&pulls, QUEUE, "two"), open(&pulls, QueueId(2), "one"), open(&pulls, QUEUE, "on")];
        assert_eq!(pulls.call_off(QueueId(3), &headers("one")), Ok(false), "another queue");
        assert!(!one.called_off.is_cancelled());
        assert_eq!(pulls.call_off(QUEUE, &headers("one")), Ok(true));
        one.called_off().await;
        again.called_off().await;
        assert!(others.iter().all(|other| !other.called_off.is_cancelled()));
    }

    #[test]
    fn a_pull_that_is_over_is_forgotten_and_its_namesake_is_not() {
        let pulls = Pulls::default();
        let (first, second) = (open(&pulls, QUEUE, "one"), open(&pulls, QUEUE, "one"));
        drop(first);
        assert_eq!(pulls.call_off(QUEUE, &headers("one")), Ok(true));
        assert!(second.called_off.is_cancelled());
        drop(second);
        assert_eq!(pulls.call_off(QUEUE, &headers("one")), Ok(false));
        drop(pulls.open(QUEUE, &HeaderMap::new()).ok().unwrap());
        assert!(pulls.change(|known| known.open.is_empty()));
    }

    #[test]
    fn what_is_no_token_is_refused_by_the_header() {
        let pulls = Pulls::default();
        for token in [String::new(), "x".repeat(TOKEN_LENGTH_MAX + 1)] {
            let (opened, cancelled) =
                (pulls.open(QUEUE, &headers(&token)).map(drop), pulls.call_off(QUEUE, &headers(&token)));
            for refused in [opened.unwrap_err(), cancelled.unwrap_err()] {
                assert_eq!(refused.header.as_deref(), Some(PULL_HEADER), "{refused:?}");
            }
        }
        let missing = pulls.call_off(QUEUE, &HeaderMap::new()).unwrap_err();
        assert!(missing.message.contains("is missing"), "{missing:?}");
        assert!(pulls.open(QUEUE, &headers(&"x".repeat(TOKEN_LENGTH_MAX))).is_ok());
    }
}
