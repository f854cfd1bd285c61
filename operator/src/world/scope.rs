//! How much is known of a namespace, or of all: only where every kind has been listed is anything done.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::metrics::WATCHED;

/// One namespace, or all.
#[derive(Debug)]
pub(super) struct Scope {
    namespace: Option<String>,
    /// Kinds that have been listed.
    listed: Mutex<BTreeSet<String>>,
    known: watch::Sender<Known>,
}

/// What is known of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Not everything, yet.
    Little,
    /// Nothing, for the API server refuses: the role is missing, and with it perhaps the namespace.
    Denied,
    Everything,
}

impl Scope {
    /// Nothing is known yet. The receiver tells when that changes.
    pub(super) fn new(namespace: Option<String>) -> (Self, watch::Receiver<Known>) {
        let (known, receiver) = watch::channel(Known::Little);
        (Self { namespace, listed: Mutex::default(), known }, receiver)
    }

    /// The namespace, unless it is all of them.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// A kind has been listed; whether it was the last one.
    pub(super) fn listed(&self, kind: &str) -> bool {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.insert(kind.to_owned());
        let is_last = listed.len() == WATCHED.len() && !self.is_complete();
        if is_last {
            self.known.send_replace(Known::Everything);
        }
        is_last
    }

    /// A kind must not be listed or watched. Without a namespace there would be nothing to do at all, so that is waited for.
    pub(super) fn denied(&self) {
        if self.namespace.is_some() && !self.is_complete() {
            self.known.send_replace(Known::Denied);
        }
    }

    /// Whether every kind has been listed once.
    pub(super) fn is_complete(&self) -> bool {
        *self.known.borrow() == Known::Everything
    }
}

/// Waits until every scope is known or denied, and at least one is known.
pub(super) async fn until_known(scopes: Vec<watch::Receiver<Known>>) {
    let mut scopes = scopes;
    for scope in &mut scopes {
        // A sender that is gone means that the watches ended, which the caller sees elsewhere.
        let _ = scope.wait_for(|known| *known != Known::Little).await;
    }
    let all = scopes.iter_mut().map(|scope| Box::pin(scope.wait_for(|known| *known == Known::Everything)));
    let _ = futures::future::select_all(all).await;
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn list_all(scope: &Scope) -> Vec<bool> {
        WATCHED.iter().map(|kind| scope.listed(kind)).collect()
    }

    #[test]
    fn a_scope_is_complete_with_the_last_kind() {
        let (scope, _receiver) = Scope::new(None);
        assert!(!scope.listed("Queue") && !scope.listed("Queue") && !scope.is_complete());
        assert_eq!(list_all(&scope).iter().filter(|is_last| **is_last).count(), 1);
        assert!(scope.is_complete() && !scope.listed("Queue"), "a later list is none of the first ones");
    }

    #[test]
    fn one_namespace_that_is_denied_holds_nobody_up() {
        let ((good, first), (bad, second)) = (Scope::new(Some("a".into())), Scope::new(Some("b".into())));
        let known = || until_known(vec![first.clone(), second.clone()]).now_or_never();
        list_all(&good);
        assert_eq!(known(), None);
        bad.denied();
        assert_eq!(known(), Some(()));
        list_all(&bad);
        assert!(bad.is_complete(), "its role came later");
        bad.denied();
        assert!(bad.is_complete(), "what is known stays known");
    }

    #[test]
    fn where_everything_is_denied_nothing_is_known() {
        let ((first, one), (second, two)) = (Scope::new(Some("a".into())), Scope::new(None));
        let known = || until_known(vec![one.clone(), two.clone()]).now_or_never();
        first.denied();
        second.denied();
        assert_eq!(known(), None, "all namespaces are waited for");
        list_all(&second);
        assert_eq!(known(), Some(()));
    }
}
