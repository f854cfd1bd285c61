//! Requests to the API server: bounded in time, and their failures by what follows from them.

use std::future::Future;
use std::time::Duration;

use capstan_crds::label;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a request may take, with the client's own retries.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    /// The object, or its namespace, does not exist.
    #[error("not found: {0}")]
    NotFound(String),
    /// Another field manager owns what was to be applied.
    #[error("{0}")]
    Contested(String),
    /// The object is not what it was: look again.
    #[error("changed meanwhile: {0}")]
    Stale(String),
    /// The API server says no, and will again until something changes.
    #[error("{0}")]
    Refused(String),
    /// No answer, or none that decides.
    #[error("the API server gave no answer: {0}")]
    Unavailable(String),
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from(status.as_ref()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<&Status> for ApiError {
    fn from(status: &Status) -> Self {
        let message = status.message.clone();
        match status.code {
            404 => Self::NotFound(message),
            409 if is_field_conflict(status) => Self::Contested(message),
            409 => Self::Stale(message),
            400 | 403 | 405 | 413 | 415 | 422 => Self::Refused(message),
            _ => Self::Unavailable(message),
        }
    }
}

fn is_field_conflict(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "FieldManagerConflict")
}

/// Waits for a request, but not for ever.
pub(crate) async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, ApiError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ApiError::Unavailable(format!("none within {} s", REQUEST_TIMEOUT.as_secs()))),
    }
}

/// Applies an object of the operator's own: whoever wrote its fields, they are ours.
pub(crate) async fn apply_own<K, P>(api: &Api<K>, name: &str, object: &P) -> Result<K, ApiError>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
    P: Serialize + std::fmt::Debug,
{
    let params = PatchParams::apply(label::FIELD_MANAGER).force();
    bounded(api.patch(name, &params, &Patch::Apply(object))).await
}

/// How fields are applied to an object of somebody else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Beside {
    /// Only answers what the object would be.
    pub(crate) dry_run: bool,
    /// Takes the fields from whoever has them; otherwise they are left alone.
    pub(crate) force: bool,
}

/// Applies fields to an object of somebody else.
pub(crate) async fn apply_beside<K, P>(
    api: &Api<K>,
    name: &str,
    object: &P,
    how: Beside,
) -> Result<K, ApiError>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
    P: Serialize + std::fmt::Debug,
{
    let Beside { dry_run, force } = how;
    let params = PatchParams { dry_run, force, ..PatchParams::apply(label::FIELD_MANAGER) };
    bounded(api.patch(name, &params, &Patch::Apply(object))).await
}

/// Creates an object unless it exists; the new one.
pub(crate) async fn create<K>(api: &Api<K>, object: &K) -> Result<Option<K>, ApiError>
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let params = PostParams { field_manager: Some(label::FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match bounded(api.create(&params, object)).await {
        Ok(created) => Ok(Some(created)),
        Err(ApiError::Stale(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: serde_json::Value) -> ApiError {
        ApiError::from(&serde_json::from_value::<Status>(json).unwrap())
    }

    #[test]
    fn only_a_conflict_of_fields_is_contested() {
        let fields = serde_json::json!({
            "status": "Failure", "message": "Apply failed with 1 conflict", "reason": "Conflict", "code": 409,
            "details": {"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"x\"", "field": ".spec"}]},
        });
        let uid = serde_json::json!({"status": "Failure", "message": "uid mismatch", "reason": "Conflict", "code": 409});
        assert!(matches!(error(fields), ApiError::Contested(_)));
        assert!(matches!(error(uid), ApiError::Stale(_)));
    }

    #[test]
    fn refusals_are_told_from_outages() {
        let of = |code: u16| {
            error(serde_json::json!({"status": "Failure", "message": "m", "reason": "", "code": code}))
        };
        for code in [400, 403, 422] {
            assert_eq!(of(code), ApiError::Refused("m".into()));
        }
        for code in [429, 500, 503] {
            assert_eq!(of(code), ApiError::Unavailable("m".into()));
        }
        assert_eq!(of(404), ApiError::NotFound("m".into()));
    }
}
