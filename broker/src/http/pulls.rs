//! Pulls that can be called off, by the token that came with them.
//!
//! A client that closes its connection instead can lose what was leased for it in that moment: the answer is on its way,
//! and nobody reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;
use capstan_api::message::PULL_HEADER;
use tokio_util::sync::CancellationToken;

/// Longest token; a longer one is none.
const TOKEN_LENGTH_MAX: usize = 64;

/// The pulls that are open and have a token. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Pulls(Arc<Mutex<BTreeMap<String, CancellationToken>>>);

/// An open pull; forgotten when this is dropped.
pub(super) struct Open {
    pulls: Pulls,
    token: Option<String>,
    called_off: CancellationToken,
}

impl Pulls {
    /// Remembers a pull by the token in its headers, if there is one.
    pub(super) fn open(&self, headers: &HeaderMap) -> Open {
        let (token, called_off) = (token(headers), CancellationToken::new());
        if let Some(token) = &token {
            self.change(|pulls| pulls.insert(token.clone(), called_off.clone()));
        }
        Open { pulls: self.clone(), token, called_off }
    }

    /// Calls the pull off that has the token in these headers; whether there is one.
    pub(super) fn call_off(&self, headers: &HeaderMap) -> bool {
        let pull = token(headers).and_then(|token| self.change(|pulls| pulls.remove(&token)));
        pull.inspect(CancellationToken::cancel).is_some()
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, CancellationToken>) -> T) -> T {
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
        if let Some(token) = &self.token {
            self.pulls.change(|pulls| pulls.remove(token));
        }
    }
}

fn token(headers: &HeaderMap) -> Option<String> {
    let token = headers.get(PULL_HEADER)?.to_str().ok()?;
    (1..=TOKEN_LENGTH_MAX).contains(&token.len()).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(PULL_HEADER, token.parse().unwrap());
        headers
    }

    #[tokio::test]
    async fn the_pull_with_the_token_is_called_off_and_no_other() {
        let pulls = Pulls::default();
        let (one, two) = (pulls.open(&headers("one")), pulls.open(&headers("two")));
        assert!(pulls.call_off(&headers("one")));
        one.called_off().await;
        assert!(!two.called_off.is_cancelled());
        assert!(!pulls.call_off(&headers("one")), "once");
    }

    #[test]
    fn a_pull_that_is_over_is_forgotten() {
        let pulls = Pulls::default();
        drop(pulls.open(&headers("one")));
        assert!(!pulls.call_off(&headers("one")));
        let (_none, _long) = (pulls.open(&HeaderMap::new()), pulls.open(&headers(&"x".repeat(65))));
        assert!(pulls.change(|pulls| pulls.is_empty()));
    }
}
