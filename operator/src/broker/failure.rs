//! What fails of a reconciliation while the rest goes on: an API server, or a webhook, that gives no answer for one kind
//! of objects must not keep a broker from being told of its queues.

use crate::api::ApiError;

/// The first failure, if there is one.
#[derive(Debug, Default)]
pub(super) struct Failure(Option<ApiError>);

impl Failure {
    /// What came of a step; none when it failed, which is kept. What changed meanwhile ends the reconciliation: it is
    /// looked at again at once.
    pub(super) fn keep<T>(&mut self, result: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(error @ (ApiError::Stale(_) | ApiError::NotFound(_))) => Err(error),
            Err(error) => {
                self.0.get_or_insert(error);
                Ok(None)
            }
        }
    }

    /// What is to be said of it.
    pub(super) fn text(&self) -> Option<String> {
        self.0.as_ref().map(ToString::to_string)
    }

    /// Whether all went well.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        self.0.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_kept_and_what_changed_ends_the_rest() {
        let away = |text: &str| Err::<(), _>(ApiError::Unavailable(text.to_owned()));
        let mut failure = Failure::default();
        assert_eq!(failure.keep(Ok(1)), Ok(Some(1)));
        assert_eq!(failure.text(), None);
        assert_eq!(failure.keep(away("first")), Ok(None));
        assert_eq!(failure.keep(away("second")), Ok(None));
        assert!(failure.text().is_some_and(|text| text.contains("first")));
        let stale = ApiError::Stale("s".to_owned());
        assert_eq!(failure.keep(Err::<(), _>(stale.clone())), Err(stale));
        assert_eq!(failure.finish(), away("first"));
        assert_eq!(Failure::default().finish(), Ok(()));
    }
}
