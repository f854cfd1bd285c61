//! Parts of a request's address. What cannot be read is refused in the envelope, like everything else.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use capstan_api::{ErrorCode, Name};
use serde::de::DeserializeOwned;

use crate::Refused;

/// Names as they stand in the path.
#[derive(Debug)]
pub struct InPath<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let read = Path::from_request_parts(parts, state).await;
        read.map(|Path(names)| Self(names)).map_err(|rejection| {
            Refused::new(ErrorCode::QueueIdMalformed, format!("the path: {}", rejection.body_text()))
        })
    }
}

/// Parameters behind the question mark.
#[derive(Debug)]
pub struct InQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let read = Query::from_request_parts(parts, state).await;
        read.map(|Query(parameters)| Self(parameters)).map_err(|rejection| {
            Refused::new(ErrorCode::JsonBodyInvalid, format!("the query: {}", rejection.body_text()))
        })
    }
}

/// Checks a name that stands in the path; `what` says which, such as `queue id`.
///
/// # Errors
/// [`ErrorCode::QueueIdMalformed`] when it is no [`Name`].
pub fn name(what: &str, text: &str) -> Result<Name, Refused> {
    Name::new(text).map_err(|error| {
        Refused::new(ErrorCode::QueueIdMalformed, format!("the {what} in the path: {error}"))
    })
}
